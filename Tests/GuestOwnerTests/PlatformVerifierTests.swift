import Crypto
import GuestOwner
import SEVABI
import TestSupport
import Testing

@Suite("Platform verification")
struct PlatformVerifierTests {
    static let vectors = ForeignVectors.arePresent

    static func vector(_ name: String) throws -> [UInt8] {
        try #require(ForeignVectors.bytes("legacy-sev/\(name).cert"))
    }

    static func naples() throws -> SEVPlatformCertificates {
        SEVPlatformCertificates(pdh: try vector("pdh"), chain: try vector("pek") + vector("oca") + vector("cek"))
    }

    func refusal(_ body: () throws(OwnerError) -> Void) -> OwnerError? {
        do throws(OwnerError) {
            try body()
            return nil
        } catch {
            return error
        }
    }

    func refusal(of platform: SEVPlatformCertificates, signedCEK: [UInt8]? = nil) throws -> OwnerError? {
        let verifier = PlatformVerifier(roots: try TestPlatform.roots(), signedCEK: signedCEK)
        return refusal { () throws(OwnerError) in _ = try verifier.verify(platform) }
    }

    @Test("the real Naples platform, with AMD's root built in", .enabled(if: vectors, "\(ForeignVectors.absence)"))
    func realNaples() throws {
        let roots = try RootCertificates(ark: Self.vector("ark"), ask: Self.vector("ask"), isNamed: false)
        #expect(roots.standing == .amd(product: "Naples"))
        let platform = try PlatformVerifier(roots: roots).verify(Self.naples())
        #expect(platform.warnings == [])
        #expect(platform.rootDescription == "AMD Naples")
        #expect(platform.certificate.usage == .pdh)
        // AMD's own file has both in a row.
        let row = try RootCertificates(ark: Self.vector("ask") + Self.vector("ark"), isNamed: false)
        #expect(row.standing == .amd(product: "Naples"))
        #expect(try RootCertificates(ark: Self.vector("ark") + Self.vector("ask"), isNamed: false).ask == row.ask)
        #expect(
            refusal { () throws(OwnerError) in
                _ = try RootCertificates(ark: row.ark.bytes, isNamed: false)
            }?.field == "length")
    }

    @Test("a real platform is not of another root", .enabled(if: vectors, "\(ForeignVectors.absence)"))
    func foreignRoot() throws {
        let found = try refusal(of: Self.naples())
        let error = try #require(found)
        #expect(error.subject == "CEK")
        #expect(error.field == "signature by the ASK")
        #expect(error.likelyCause.contains("another product"))
        let bad = refusal { () throws(OwnerError) in
            _ = try RootCertificates(
                ark: ForeignVectors.bytes("legacy-sev/ark-bad.cert") ?? [], ask: TestPlatform.ask.bytes, isNamed: true)
        }
        #expect(bad?.subject == "ARK")
        #expect(bad?.field == "length")
    }

    @Test("every flipped bit in the real chain is refused", .enabled(if: vectors, "\(ForeignVectors.absence)"))
    func realFlips() throws {
        let roots = try RootCertificates(ark: Self.vector("ark"), ask: Self.vector("ask"), isNamed: false)
        let verifier = PlatformVerifier(roots: roots)
        let naples = try Self.naples()
        var random = SeededGenerator(seed: 3)
        for _ in 0..<80 {
            var changed = naples
            if random.below(4) == 0 {
                changed.pdh[random.below(2084)] ^= 1 << UInt8(random.below(8))
            } else {
                changed.chain[random.below(6252)] ^= 1 << UInt8(random.below(8))
            }
            #expect(throws: OwnerError.self) { try verifier.verify(changed) }
        }
        for _ in 0..<60 {
            var (ark, ask) = (roots.ark.bytes, roots.ask.bytes)
            if random.below(2) == 0 {
                ark[random.below(832)] ^= 1 << UInt8(random.below(8))
            } else {
                ask[random.below(832)] ^= 1 << UInt8(random.below(8))
            }
            #expect(throws: OwnerError.self) { try RootCertificates(ark: ark, ask: ask, isNamed: true) }
        }
    }

    @Test("a platform of a named root; the warning says so")
    func named() throws {
        let platform = try PlatformVerifier(roots: TestPlatform.roots()).verify(TestPlatform().certificates)
        #expect(platform.standing == .named)
        #expect(platform.warnings.count == 1)
        #expect(platform.pdh.littleEndianX == TestPlatform().pdhKey.publicKey.littleEndianX)
        #expect(platform.chipFingerprint != platform.ownerFingerprint)
    }

    @Test("a root that nobody named is refused, with its fingerprint")
    func unnamed() throws {
        let found = refusal { () throws(OwnerError) in
            _ = try RootCertificates(ark: TestPlatform.ark.bytes, ask: TestPlatform.ask.bytes, isNamed: false)
        }
        let error = try #require(found)
        #expect(error.field == "fingerprint")
        let digest = SHA256.hash(TestPlatform.ark.bytes)
        #expect(error.found == digest.indices.map { digest[$0] }.hex)
        #expect(error.nextStep.contains("--ark"))
    }

    @Test("the root of software platforms: only when named, and loudly")
    func software() throws {
        let id = Array("swift-snp-vmmARK".utf8)
        let ark = TestPlatform.amd(.ark, id, TestPlatform.root, certifying: id)
        let ask = TestPlatform.amd(.ask, Array("swift-snp-vmmASK".utf8), TestPlatform.signer, certifying: id)
        let error = refusal { () throws(OwnerError) in
            _ = try RootCertificates(ark: ark.bytes, ask: ask.bytes, isNamed: false)
        }
        #expect(error?.found == "the root of software platforms")
        #expect(error?.likelyCause.contains("protects nothing") == true)
        let roots = try RootCertificates(ark: ark.bytes, ask: ask.bytes, isNamed: true)
        #expect(roots.standing == .software)
        let platform = try PlatformVerifier(roots: roots).verify(TestPlatform().certificates)
        #expect(platform.warnings.first?.contains("PROTECTS NOTHING") == true)
    }

    @Test("root and signing key: each field has its own refusal")
    func rootFields() throws {
        let (ark, ask) = (TestPlatform.ark, TestPlatform.ask)
        func field(_ ark: [UInt8], _ ask: [UInt8]) -> String? {
            refusal { () throws(OwnerError) in _ = try RootCertificates(ark: ark, ask: ask, isNamed: true) }
                .map { "\($0.subject) \($0.field ?? "")" }
        }
        func changed(_ certificate: AMDCertificate, _ offset: Int) -> [UInt8] {
            var bytes = certificate.bytes
            bytes[offset] ^= 1
            return bytes
        }
        #expect(field(ark.bytes, ask.bytes) == nil)
        #expect(field(changed(ark, 0), ask.bytes) == "ARK VERSION")
        #expect(field(changed(ark, 0x4), ask.bytes) == "ARK CERTIFYING_ID")
        #expect(field(changed(ark, 0x14), ask.bytes) == "ARK CERTIFYING_ID")
        #expect(field(changed(ark, 0x24), ask.bytes) == "ARK KEY_USAGE")
        #expect(field(changed(ark, 0x28), ask.bytes) == "ARK bytes 0x28 to 0x37")
        #expect(field(changed(ark, 0x38), ask.bytes) == "ARK length")
        #expect(field(changed(ark, 0x40), ask.bytes) == "ARK MODULUS and PUBEXP")
        #expect(field(changed(ark, 0x41), ask.bytes) == "ARK SIGNATURE")
        #expect(field(changed(ark, 0x33f), ask.bytes) == "ARK SIGNATURE")
        #expect(field(ark.bytes, changed(ask, 0x4)) == "ASK SIGNATURE")
        #expect(field(ark.bytes, changed(ask, 0x14)) == "ASK CERTIFYING_ID")
        #expect(field(ark.bytes, changed(ask, 0x24)) == "ASK KEY_USAGE")
        #expect(field(ark.bytes, changed(ask, 0x141)) == "ASK SIGNATURE")
        #expect(field(ask.bytes, ark.bytes) == "ARK KEY_USAGE")
        for count in [0, 1, 63, 64, 831, 833] {
            let bytes = Array((ark.bytes + [0]).prefix(count))
            #expect(field(bytes, ask.bytes) == "ARK length")
            #expect(field(ark.bytes, bytes) == "ASK length")
        }
    }

    @Test("a 4096-bit chain, as from Rome on")
    func rome() throws {
        let root = RSAPrivateKey(bits: 4096, derivedFrom: [3], label: "rome")
        let id = [UInt8](repeating: 7, count: 16)
        var ark = AMDCertificate.make(
            usage: .ark, keyID: id, certifyingID: id, modulus: root.publicKey.littleEndianModulus, exponent: [1, 0, 1])
        ark.signature = root.signPSS(ark.signedBytes, hash: .sha384, saltByteCount: 48)
        // The same key signs as ASK here; only the certificate differs.
        var ask = AMDCertificate.make(
            usage: .ask, keyID: TestPlatform.askID, certifyingID: id, modulus: root.publicKey.littleEndianModulus,
            exponent: [1, 0, 1])
        ask.signature = root.signPSS(ask.signedBytes, hash: .sha384, saltByteCount: 48)
        let roots = try RootCertificates(ark: ark.bytes, ask: ask.bytes, isNamed: true)
        var platform = TestPlatform()
        let number = root.signPSS(platform.cek.signedBytes, hash: .sha384, saltByteCount: 48)
        platform.cek.setSignature(.init(usage: .ask, algorithm: .rsaSHA384, rsa: number), slot: 0)
        _ = try PlatformVerifier(roots: roots).verify(platform.certificates)
        // The Naples algorithm on a Rome signature.
        platform.cek.setSignature(.init(usage: .ask, algorithm: .rsaSHA256, rsa: number), slot: 0)
        let error = refusal { () throws(OwnerError) in
            _ = try PlatformVerifier(roots: roots).verify(platform.certificates)
        }
        #expect(error?.field == "algorithm of the signature by the ASK")
    }

    @Test("signatures may stand in either slot")
    func slots() throws {
        var platform = TestPlatform()
        for path in [\TestPlatform.cek, \.oca, \.pek, \.pdh] {
            let (first, second) = (
                platform[keyPath: path].signature(slot: 0), platform[keyPath: path].signature(slot: 1)
            )
            platform[keyPath: path].setSignature(second, slot: 0)
            platform[keyPath: path].setSignature(first, slot: 1)
        }
        #expect(try refusal(of: platform.certificates) == nil)
    }

    @Test("a CEK from the chip needs the manufacturer's signature from elsewhere")
    func unsignedCEK() throws {
        var platform = TestPlatform()
        let signed = platform.cek.bytes
        platform.cek.setSignature(.init(), slot: 0)
        let found = try refusal(of: platform.certificates)
        let error = try #require(found)
        #expect(error.subject == "CEK")
        #expect(error.nextStep.contains("--cek"))
        #expect(try refusal(of: platform.certificates, signedCEK: signed) == nil)
        let other = try refusal(of: platform.certificates, signedCEK: TestPlatform(seed: 1).cek.bytes)
        #expect(other?.likelyCause.contains("another chip") == true)
        #expect(try refusal(of: platform.certificates, signedCEK: [1, 2, 3])?.field == "length")
    }

    @Test("each certificate's fields and signatures have their own refusals")
    func fields() throws {
        let platform = TestPlatform()
        let other = TestPlatform(seed: 1)
        func outcome(_ change: (inout TestPlatform) -> Void) throws -> String? {
            var changed = platform
            change(&changed)
            return try refusal(of: changed.certificates).map { "\($0.subject): \($0.field ?? "")" }
        }
        func flipped(_ certificate: SEVCertificate, _ offset: Int, _ bit: UInt8 = 1) -> SEVCertificate {
            var bytes = certificate.bytes
            bytes[offset] ^= bit
            return SEVCertificate(bytes: bytes) ?? certificate
        }
        #expect(try outcome { _ in } == nil)
        let parts: [(String, WritableKeyPath<TestPlatform, SEVCertificate>, String)] = [
            ("CEK", \.cek, "ASK"), ("OCA", \.oca, "OCA"), ("PEK", \.pek, "OCA"), ("PDH", \.pdh, "PEK"),
        ]
        for (name, path, signer) in parts {
            let certificate = platform[keyPath: path]
            func flip(_ offset: Int, _ bit: UInt8 = 1) throws -> String? {
                try outcome { $0[keyPath: path] = flipped(certificate, offset, bit) }
            }
            #expect(try flip(0) == "\(name): VERSION")
            #expect(try flip(0x8, 0x20) == "\(name): PUBKEY_USAGE")
            #expect(try flip(0xc, 4) == "\(name): PUBKEY_ALGO")
            #expect(try flip(0x10) == "\(name): CURVE")
            #expect(try flip(0x14) == "\(name): QX and QY")
            #expect(try flip(0x15c) == "\(name): QX and QY" || flip(0x15c) == "\(name): signature by the \(signer)")
            // Signed, and nothing else looks at it.
            #expect(try flip(0x5) == "\(name): signature by the \(signer)")
            #expect(try flip(0x413) == "\(name): signature by the \(signer)")
            #expect(try flip(0x414, 0x40) == "\(name): signature by the \(signer)")
            #expect(try flip(0x418, 4) == "\(name): algorithm of the signature by the \(signer)")
            #expect(try flip(0x41c) == "\(name): signature by the \(signer)")
            // Behind R and S, or behind the RSA number.
            #expect(try flip(0x41c + 511) == "\(name): signature by the \(signer)")
            let second = try flip(0x624)
            #expect(second == (name == "PEK" ? "PEK: signature by the CEK" : "\(name): signature 2"))
        }
        #expect(try outcome { $0.oca = other.oca } == "PEK: signature by the OCA")
        #expect(try outcome { $0.cek = other.cek } == "PEK: signature by the CEK")
        #expect(try outcome { $0.pek = other.pek } == "PEK: signature by the OCA")
        #expect(try outcome { $0.pdh = other.pdh } == "PDH: signature by the PEK")
        #expect(try outcome { $0.pek.setSignature(.init(), slot: 1) } == "PEK: signature by the CEK")
        #expect(try outcome { $0.pek.setSignature(.init(), slot: 0) } == "PEK: signature by the OCA")
        #expect(
            try outcome { $0.oca.setSignature($0.oca.signature(slot: 0), slot: 1) } == "OCA: signature 2")
    }

    @Test("truncated and exchanged parts")
    func lengths() throws {
        let platform = TestPlatform().certificates
        for count in [0, 1, 2083, 2085] {
            var changed = platform
            changed.pdh = Array((platform.pdh + [0]).prefix(count))
            #expect(try refusal(of: changed)?.subject == "PDH")
        }
        for count in [0, 2084, 4168, 6251, 6253] {
            var changed = platform
            changed.chain = Array((platform.chain + [0]).prefix(count))
            #expect(try refusal(of: changed)?.field == "length")
        }
        var swapped = platform
        swapped.chain = Array(platform.chain[2084...]) + platform.chain[..<2084]
        let found = try refusal(of: swapped)
        let error = try #require(found)
        #expect(error.field == "PUBKEY_USAGE")
        #expect(error.likelyCause.contains("order"))
    }

    @Test("every flipped bit anywhere is refused: 200 of them")
    func flips() throws {
        let verifier = PlatformVerifier(roots: try TestPlatform.roots())
        let platform = TestPlatform().certificates
        var random = SeededGenerator(seed: 4)
        for _ in 0..<200 {
            var changed = platform
            if random.below(4) == 0 {
                changed.pdh[random.below(2084)] ^= 1 << UInt8(random.below(8))
            } else {
                changed.chain[random.below(6252)] ^= 1 << UInt8(random.below(8))
            }
            #expect(throws: OwnerError.self) { try verifier.verify(changed) }
        }
    }
}
