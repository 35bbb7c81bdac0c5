// The manufacturer's X.509 certificates: judged by the verifier of this package, which was written apart, by openssl, and
// by AMD's own certificates, whose profile they have.

import Attestation
import Crypto
import MemoryController
import SEVABI
import SoftwarePSP
import TestSupport
import Testing

@Suite("Manufacturer: X.509")
struct ManufacturerTests {
    /// Made once: RSA keys of 4096 bits take their time.
    static let manufacturer = SEVPlatformTests.manufacturer
    /// 2026-11-23.
    static let now: Int64 = 1_795_392_000
    static let hashstick = VLEKHashstick(seed: [7])

    static func tcb(_ product: ProcessorProduct) -> TCBVersion {
        product == .turin
            ? TCBVersion(fmc: 1, bootLoader: 2, tee: 3, snp: 4, microcode: 200)
            : TCBVersion(bootLoader: 4, tee: 1, snp: 24, microcode: 219)
    }

    /// A platform, its report with the VCEK or the VLEK, and the certificates for it.
    struct Scene {
        let storage: PlatformStorage
        let report: [UInt8]
        let leaf: X509Certificate
        let intermediate: X509Certificate
        let root: X509Certificate

        init(_ product: ProcessorProduct, vlek: Bool = false, version: UInt32 = 3) throws {
            let manufacturer = ManufacturerTests.manufacturer
            let tcb = ManufacturerTests.tcb(product)
            storage = try PlatformStorage.seeded(5)
            let platform = try Platform(storage: storage) { profile in
                switch product {
                case .milan: profile = .milan(cpuid: Platform.cpuid)
                case .genoa: profile = .genoa(cpuid: Platform.cpuid)
                case .turin: profile = .turin(cpuid: Platform.cpuid)
                }
                profile.currentTCB = tcb
                profile.reportVersion = version
            }
            if vlek {
                let page = platform.firmwarePage()
                _ = platform.memory.firmwareWrite(page, hashstick.wrapped(for: storage, tcb: tcb))
                try #require(platform.submit(.snpVLEKLoad, SNPVLEKLoad(address: page).bytes) == .success)
            }
            report = try MessagingGuest(platform).report().report
            leaf = try #require(
                X509Certificate(
                    der: vlek
                        ? manufacturer.vlek(of: hashstick, product: product, tcb: tcb)
                        : manufacturer.vcek(of: storage, product: product, tcb: tcb)))
            intermediate = try #require(
                X509Certificate(
                    der: vlek
                        ? manufacturer.vlekSigningCertificate(product: product)
                        : manufacturer.signingCertificate(product: product)))
            root = try #require(X509Certificate(der: manufacturer.rootCertificate(product: product)))
        }

        func chain(_ lists: [[UInt8]] = [], leaf: [UInt8]? = nil, named: Bool = true) throws -> EndorsementChain {
            try EndorsementChain(
                leaf: leaf.map { try #require(X509Certificate(der: $0)) } ?? self.leaf, intermediate: intermediate,
                root: root, trusted: named ? TrustedRoots(named: [root]) : .amd,
                revocationLists: lists.map { try #require(X509RevocationList(der: $0)) })
        }
    }

    static func refusal(_ body: () throws -> Void) -> AttestationError? {
        do {
            try body()
            return nil
        } catch { return error as? AttestationError }
    }

    @Test("reports of every kind verify when the root is named, and are refused when it is not")
    func chain() throws {
        let scenes: [(ProcessorProduct, Bool, UInt32)] = [
            (.milan, false, 2), (.milan, false, 3), (.milan, false, 5), (.milan, true, 3), (.turin, false, 5),
        ]
        for (product, vlek, version) in scenes {
            let scene = try Scene(product, vlek: vlek, version: version)
            let list = Self.manufacturer.revocationList(product: product)
            let verified = try scene.chain([list]).verify(scene.report, at: Self.now)
            #expect(verified.report.version == version && verified.product.rawValue == product.rawValue)
            #expect(verified.endorsement.kind == (vlek ? .vlek : .vcek))
            #expect(verified.endorsement.certificate.serialNumber == "0")
            #expect(verified.revocationsChecked && verified.datesChecked)
            guard case .software(let name) = verified.standing else {
                Issue.record("\(verified.standing)")
                continue
            }
            #expect(name.contains("Software") && name.contains("No Protection"))
            let refused = try #require(Self.refusal { _ = try scene.chain(named: false) })
            #expect(refused.category == .untrusted)
        }
    }

    @Test("another chip, another TCB version, another key, a revoked ASK, an old certificate: refused")
    func refusals() throws {
        let (product, manufacturer) = (ProcessorProduct.milan, Self.manufacturer)
        let scene = try Scene(product)
        let tcb = Self.tcb(product)
        func category(_ leaf: [UInt8]) -> AttestationError.Category? {
            Self.refusal { _ = try scene.chain(leaf: leaf).verify(scene.report, at: Self.now) }?.category
        }
        #expect(category(manufacturer.vcek(of: try .seeded(6), product: product, tcb: tcb)) == .signature)
        var older = tcb
        older.rawValue -= 1
        #expect(category(manufacturer.vcek(of: scene.storage, product: product, tcb: older)) == .signature)
        let key = scene.storage.vcek(product: product, reportedTCB: tcb)
        let chipID = scene.storage.chipID(product: product)
        #expect(category(manufacturer.vcek(key: key, product: product, chipID: chipID, tcb: older)) == .binding)
        var otherID = chipID
        otherID[63] ^= 1
        #expect(category(manufacturer.vcek(key: key, product: product, chipID: otherID, tcb: tcb)) == .binding)
        #expect(
            category(manufacturer.vcek(key: key, product: product, chipID: chipID, tcb: tcb, serialNumber: 1)) == nil)
        let expired = CertificateValidity(notBefore: Self.now - 100, notAfter: Self.now - 1)
        #expect(
            category(manufacturer.vcek(of: scene.storage, product: product, tcb: tcb, validity: expired)) == .validity)
        let revoked = manufacturer.revocationList(product: product, revokingSigningKey: true)
        #expect(Self.refusal { _ = try scene.chain([revoked]) }?.category == .revocation)
    }

    @Test("names say what they are; the same seed makes the same certificates for ever")
    func names() throws {
        let manufacturer = Self.manufacturer
        let chip = try PlatformStorage.seeded(5)
        let all = [
            manufacturer.rootCertificate(product: .milan), manufacturer.signingCertificate(product: .milan),
            manufacturer.vlekSigningCertificate(product: .milan),
            manufacturer.vcek(of: chip, product: .milan, tcb: Self.tcb(.milan)),
            manufacturer.vlek(of: Self.hashstick, product: .milan, tcb: Self.tcb(.milan)),
        ]
        let names = ["ARK-Software-Milan", "SEV-Software-Milan", "SEV-VLEK-Software-Milan", "SEV-VCEK", "SEV-VLEK"]
        for (der, name) in zip(all, names) {
            let certificate = try #require(X509Certificate(der: der))
            #expect(certificate.subject.commonName == name)
            for name in [certificate.subject, certificate.issuer] {
                #expect(name.organization == "swift-snp-vmm software platform")
                #expect(name.description.hasPrefix("OU=Not AMD, C=ZZ, L=In Software, ST=No Protection, O="))
            }
            #expect(certificate.isWellFormed && certificate.isSignedWithPSS384)
        }
        #expect(manufacturer.rootCertificate(product: .milan) == all[0])
        #expect(manufacturer.vcek(of: chip, product: .milan, tcb: Self.tcb(.milan)) == all[3])
        #expect(
            SHA2Hasher(.sha256).hash(Array(all.joined())).hex
                == "ad59a1bb6e84c47331ed5d4756204fcad456939f7f65af762dd30396338ff430")
    }

    @Test(
        "AMD's profile: the same extensions in the same order, with values of the same form",
        .enabled(if: ForeignVectors.arePresent, Comment(rawValue: ForeignVectors.absence)))
    func profile() throws {
        let folder = "report-real/"
        let chip = try PlatformStorage.seeded(5)
        let manufacturer = Self.manufacturer
        let pairs: [(String, [UInt8])] = [
            (folder + "oak-milan-v3-cb/ark.der", manufacturer.rootCertificate(product: .milan)),
            (folder + "oak-milan-v3-cb/ask.der", manufacturer.signingCertificate(product: .milan)),
            (folder + "trustee-milan-v3-vlek/asvk.der", manufacturer.vlekSigningCertificate(product: .milan)),
            (folder + "oak-milan-v3-cb/vcek.der", manufacturer.vcek(of: chip, product: .milan, tcb: Self.tcb(.milan))),
            (
                folder + "trustee-milan-v3-vlek/vlek.der",
                manufacturer.vlek(of: Self.hashstick, product: .milan, tcb: Self.tcb(.milan))
            ),
            ("cert-only/turin-vcek.der", manufacturer.vcek(of: chip, product: .turin, tcb: Self.tcb(.turin))),
        ]
        for (file, der) in pairs {
            let real = try #require(ForeignVectors.bytes(file).flatMap { X509Certificate(der: $0) }, "\(file)")
            let ours = try #require(X509Certificate(der: der))
            #expect(ours.serialNumber == real.serialNumber, "\(file)")
            #expect(ours.extensions.map(\.oid) == real.extensions.map(\.oid), "\(file)")
            #expect(ours.extensions.map(\.isCritical) == real.extensions.map(\.isCritical), "\(file)")
            #expect(ours.pathLength == real.pathLength && ours.keyUsage == real.keyUsage, "\(file)")
            #expect(ours.isAuthority == real.isAuthority && ours.rsaBitCount == real.rsaBitCount, "\(file)")
            #expect((ours.p384Key == nil) == (real.p384Key == nil), "\(file)")
            // Tag and, where every value has the same size, length. hwID has neither.
            for (mine, amds) in zip(ours.extensions, real.extensions) where !mine.oid.hasSuffix("3704.1.4") {
                #expect(mine.value.first == amds.value.first, "\(file) \(mine.oid)")
            }
            let hardwareIDs = [ours, real].map { $0.extensionValue("1.3.6.1.4.1.3704.1.4")?.count }
            #expect(hardwareIDs[0] == hardwareIDs[1], "\(file)")
            // Byte for byte what does not depend on keys and versions. Not the key usage: AMD writes one bit more than DER
            // lets it.
            for oid in ["2.5.29.19", "1.3.6.1.4.1.3704.1.1", "1.3.6.1.4.1.3704.1.2"] {
                #expect(ours.extensionValue(oid) == real.extensionValue(oid), "\(file) \(oid)")
            }
        }
    }

    @Test("openssl agrees", .enabled(if: (try? ChildProcess.run("openssl", ["version"])) != nil, "no openssl"))
    func openssl() throws {
        let chip = try PlatformStorage.seeded(5)
        let manufacturer = Self.manufacturer
        let prefix = "/tmp/manufacturer-\(BuiltProgram.processIdentifier)-"
        var files: [String] = []
        defer { files.forEach(removeFile) }
        func file(_ name: String, _ der: [UInt8]) -> String {
            let label = name == "crl" ? "X509 CRL" : "CERTIFICATE"
            files.append(prefix + name)
            writeFile(prefix + name, Array(PEM.text(.init(label: label, bytes: der)).utf8))
            return prefix + name
        }
        let milan = file("ark", manufacturer.rootCertificate(product: .milan))
        let turin = file("turin", manufacturer.rootCertificate(product: .turin))
        let ask = file("ask", manufacturer.signingCertificate(product: .milan))
        let vcek = file("vcek", manufacturer.vcek(of: chip, product: .milan, tcb: Self.tcb(.milan)))
        let list = file("crl", manufacturer.revocationList(product: .milan))
        let time = ["-attime", "\(Self.now)"]
        let good = try ChildProcess.run("openssl", ["verify", "-CAfile", milan, "-untrusted", ask] + time + [vcek])
        #expect(good.ending == .exited(0), "\(good.output)")
        let foreign = try ChildProcess.run("openssl", ["verify", "-CAfile", turin, "-untrusted", ask] + time + [vcek])
        #expect(foreign.ending != .exited(0), "\(foreign.output)")
        let lists = try ChildProcess.run(
            "openssl", ["verify", "-crl_check", "-CRLfile", list, "-CAfile", milan] + time + [ask])
        #expect(lists.ending == .exited(0), "\(lists.output)")
    }
}
