// A chain of our own for tests: every field can be wrong on purpose. DER written from RFC 5280, apart from the parser.

import Attestation
import Crypto
import SEVABI

/// The few forms of DER that certificates need.
enum DER {
    static func tagged(_ tag: UInt8, _ contents: [UInt8]) -> [UInt8] {
        var length: [UInt8] = []
        var rest = contents.count
        while rest > 0 {
            length.insert(UInt8(rest & 0xff), at: 0)
            rest >>= 8
        }
        let head = contents.count < 128 ? [UInt8(contents.count)] : [0x80 | UInt8(length.count)] + length
        return [tag] + head + contents
    }
    static func sequence(_ parts: [UInt8]...) -> [UInt8] { tagged(0x30, parts.flatMap { $0 }) }
    static func integer(_ value: UInt32) -> [UInt8] {
        var bytes = (0..<4).map { UInt8(truncatingIfNeeded: value >> UInt32(24 - 8 * $0)) }
        while bytes.count > 1, bytes[0] == 0, bytes[1] < 0x80 { bytes.removeFirst() }
        if bytes[0] >= 0x80 { bytes.insert(0, at: 0) }
        return tagged(2, bytes)
    }
    static func integer(bigEndian bytes: [UInt8]) -> [UInt8] { tagged(2, (bytes[0] >= 0x80 ? [0] : []) + bytes) }
    static func oid(_ text: String) -> [UInt8] {
        let numbers = text.split(separator: ".").map { UInt32($0)! }
        var bytes: [UInt8] = [UInt8(numbers[0] * 40 + numbers[1])]
        for number in numbers.dropFirst(2) {
            var groups = [UInt8(number & 0x7f)]
            var rest = number >> 7
            while rest > 0 {
                groups.insert(UInt8(rest & 0x7f) | 0x80, at: 0)
                rest >>= 7
            }
            bytes += groups
        }
        return tagged(6, bytes)
    }
    static func bits(_ bytes: [UInt8]) -> [UInt8] { tagged(3, [0] + bytes) }
    static func name(_ commonName: String, _ organization: String) -> [UInt8] {
        func part(_ id: String, _ text: String) -> [UInt8] {
            tagged(0x31, sequence(oid(id), tagged(0x0c, Array(text.utf8))))
        }
        return sequence(part("2.5.4.10", organization), part("2.5.4.3", commonName))
    }
    static func time(_ text: String) -> [UInt8] { tagged(0x17, Array(text.utf8)) }
    static func boolean() -> [UInt8] { [1, 1, 0xff] }

    /// id-RSASSA-PSS with SHA-384 throughout.
    static func pss(salt: UInt32 = 48) -> [UInt8] {
        let sha384 = sequence(oid("2.16.840.1.101.3.4.2.2"), [5, 0])
        return sequence(
            oid("1.2.840.113549.1.1.10"),
            sequence(
                tagged(0xa0, sha384), tagged(0xa1, sequence(oid("1.2.840.113549.1.1.8"), sha384)),
                tagged(0xa2, integer(salt))))
    }
}

/// Keys that are made once for all tests.
enum TestKeys {
    static let seed = [UInt8](repeating: 7, count: 32)
    static let ark = RSAPrivateKey(bits: 4096, derivedFrom: seed, label: "test ark")
    static let ask = RSAPrivateKey(bits: 4096, derivedFrom: seed, label: "test ask")
    static let vcek = P384PrivateKey(derivedFrom: seed, label: "test vcek")
    static let otherVCEK = P384PrivateKey(derivedFrom: seed, label: "another test vcek")
}

/// A chain to be made, with the values of a good one.
struct TestChain: Sendable {
    enum Kind: Sendable { case vcek, vlek }

    var product = ProductLine.milan
    var kind = Kind.vcek
    var organization = "Tests of an attestation library"
    var versions = SecurityVersions(bootLoader: 4, tee: 0, snp: 24, microcode: 219)
    var hardwareID = (0..<64).map { UInt8($0) }
    var wrapsHardwareID = false
    var productName: String?
    var structVersion: UInt32?
    var rootUsage: UInt8 = 0x06
    var intermediatePathLength: UInt32? = 0
    var intermediateCommonName: String?
    var leafCommonName: String?
    var leafIsAuthority = false
    var leafSalt: UInt32 = 48
    var notBefore = "240101000000Z"
    var notAfter = "310101000000Z"
    var extraExtensions: [[UInt8]] = []
    var leavesOut: Set<String> = []
    var hasOtherLeafKey = false
    var provider = "CN=tests"

    static func turin() -> TestChain {
        var chain = TestChain()
        chain.product = .turin
        chain.versions = SecurityVersions(fmc: 1, bootLoader: 1, tee: 1, snp: 4, microcode: 81)
        chain.hardwareID = [0x98, 0x16, 0x2f, 0x78, 0x1c, 0x9b, 0xca, 0x3a]
        return chain
    }

    var rootName: [UInt8] { DER.name("ARK-\(product)", organization) }
    var intermediateName: [UInt8] {
        DER.name(intermediateCommonName ?? (kind == .vlek ? "SEV-VLEK-\(product)" : "SEV-\(product)"), organization)
    }

    var root: X509Certificate {
        certificate(
            serial: 0x10000, issuer: rootName, subject: rootName, key: Self.rsa(TestKeys.ark.publicKey),
            extensions: [Self.authority(nil), Self.usage(rootUsage)], signer: TestKeys.ark)
    }
    var intermediate: X509Certificate {
        certificate(
            serial: 0x10001, issuer: rootName, subject: intermediateName, key: Self.rsa(TestKeys.ask.publicKey),
            extensions: [Self.authority(intermediatePathLength), Self.usage(0x04)], signer: TestKeys.ark)
    }
    var leaf: X509Certificate {
        var extensions: [[UInt8]] = []
        func add(_ suffix: String, _ value: [UInt8]) {
            if !leavesOut.contains(suffix) { extensions.append(Self.amd(suffix, value)) }
        }
        add("1", DER.integer(structVersion ?? (product == .turin ? 1 : 0)))
        let name = productName ?? product.rawValue
        add("2", DER.tagged(0x16, Array(name.utf8)))
        if let fmc = versions.fmc { add("3.9", DER.integer(UInt32(fmc))) }
        add("3.1", DER.integer(UInt32(versions.bootLoader)))
        add("3.2", DER.integer(UInt32(versions.tee)))
        add("3.3", DER.integer(UInt32(versions.snp)))
        add("3.8", DER.integer(UInt32(versions.microcode)))
        if kind == .vcek {
            add("4", wrapsHardwareID ? DER.tagged(4, hardwareID) : hardwareID)
        } else {
            add("5", DER.tagged(0x16, Array(provider.utf8)))
        }
        if leafIsAuthority { extensions.append(Self.authority(nil)) }
        extensions += extraExtensions
        let public384 = (hasOtherLeafKey ? TestKeys.otherVCEK : TestKeys.vcek).publicKey
        let point = [4] + public384.littleEndianX.reversed() + public384.littleEndianY.reversed()
        let key = DER.sequence(
            DER.sequence(DER.oid("1.2.840.10045.2.1"), DER.oid("1.3.132.0.34")), DER.bits(point))
        return certificate(
            serial: 0, issuer: intermediateName,
            subject: DER.name(leafCommonName ?? (kind == .vlek ? "SEV-VLEK" : "SEV-VCEK"), organization), key: key,
            extensions: extensions, signer: TestKeys.ask, salt: leafSalt)
    }

    func chain(trusted: TrustedRoots? = nil, revocationLists: [X509RevocationList] = []) throws -> EndorsementChain {
        let root = root
        return try EndorsementChain(
            leaf: leaf, intermediate: intermediate, root: root, trusted: trusted ?? TrustedRoots(named: [root]),
            revocationLists: revocationLists)
    }

    func revocationList(
        revoking serials: [UInt32], this: String = "250101000000Z", next: String = "310101000000Z",
        critical: Bool = false
    ) -> X509RevocationList {
        X509RevocationList(der: revocationListBytes(revoking: serials, this: this, next: next, critical: critical))!
    }

    func revocationListBytes(
        revoking serials: [UInt32], this: String = "250101000000Z", next: String = "310101000000Z",
        critical: Bool = false
    ) -> [UInt8] {
        let entries = serials.flatMap { DER.sequence(DER.integer($0), DER.time("250101000000Z")) }
        let extensions = DER.tagged(
            0xa0,
            DER.sequence(
                critical
                    ? DER.sequence(DER.oid("1.2.3.4"), DER.boolean(), DER.tagged(4, [5, 0]))
                    : DER.sequence(DER.oid("2.5.29.20"), DER.tagged(4, DER.integer(1)))))
        let signed = DER.sequence(
            DER.integer(1), DER.pss(), rootName, DER.time(this), DER.time(next),
            entries.isEmpty ? [] : DER.tagged(0x30, entries), extensions)
        return Self.signed(signed, TestKeys.ark, 48)
    }

    private func certificate(
        serial: UInt32, issuer: [UInt8], subject: [UInt8], key: [UInt8], extensions: [[UInt8]],
        signer: RSAPrivateKey, salt: UInt32 = 48
    ) -> X509Certificate {
        let signed = DER.sequence(
            DER.tagged(0xa0, DER.integer(2)), DER.integer(serial), DER.pss(salt: salt), issuer,
            DER.sequence(DER.time(notBefore), DER.time(notAfter)), subject, key,
            DER.tagged(0xa3, DER.tagged(0x30, extensions.flatMap { $0 })))
        return X509Certificate(der: Self.signed(signed, signer, salt))!
    }

    private static func signed(_ signed: [UInt8], _ signer: RSAPrivateKey, _ salt: UInt32) -> [UInt8] {
        let signature = signer.signPSS(signed, hash: .sha384, saltByteCount: Int(salt))
        return DER.sequence(signed, DER.pss(salt: salt), DER.bits(signature.reversed()))
    }

    private static func rsa(_ key: RSAPublicKey) -> [UInt8] {
        let numbers = DER.sequence(
            DER.integer(bigEndian: key.littleEndianModulus.reversed()),
            DER.integer(bigEndian: key.littleEndianExponent.reversed()))
        return DER.sequence(DER.sequence(DER.oid("1.2.840.113549.1.1.1"), [5, 0]), DER.bits(numbers))
    }
    private static func authority(_ pathLength: UInt32?) -> [UInt8] {
        let value = DER.tagged(0x30, DER.boolean() + (pathLength.map { DER.integer($0) } ?? []))
        return DER.sequence(DER.oid("2.5.29.19"), DER.boolean(), DER.tagged(4, value))
    }
    private static func usage(_ bits: UInt8) -> [UInt8] {
        DER.sequence(DER.oid("2.5.29.15"), DER.boolean(), DER.tagged(4, DER.tagged(3, [1, bits])))
    }
    static func amd(_ suffix: String, _ value: [UInt8]) -> [UInt8] {
        DER.sequence(DER.oid("1.3.6.1.4.1.3704.1." + suffix), DER.tagged(4, value))
    }
}

/// A report to be signed, with the values of a good one.
struct TestReport {
    var bytes: [UInt8]

    init(_ chain: TestChain = TestChain(), version: UInt32 = 3) {
        bytes = [UInt8](repeating: 0, count: 1184)
        set(0x00, version)
        set(0x08, 0x30000 as UInt64)
        set(0x34, 1 as UInt32)
        set(0x40, 0x25 as UInt64)
        if chain.kind == .vlek { set(0x48, 4 as UInt32) }
        for index in 0x50..<0x90 { bytes[index] = 0xd0 }
        for index in 0x90..<0xc0 { bytes[index] = 0x3e }
        for index in 0x160..<0x180 { bytes[index] = 0xff }
        for offset in [0x38, 0x180, 0x1e0, 0x1f0] { set(offset, chain.versions.tcbVersion(of: chain.product)) }
        if version >= 3 {
            switch chain.product {
            case .milan: bytes.replaceSubrange(0x188..<0x18b, with: [0x19, 1, 1])
            case .genoa: bytes.replaceSubrange(0x188..<0x18b, with: [0x19, 0x11, 1])
            case .turin: bytes.replaceSubrange(0x188..<0x18b, with: [0x1a, 2, 1])
            }
        }
        if chain.kind == .vcek {
            bytes.replaceSubrange(0x1a0..<(0x1a0 + chain.hardwareID.count), with: chain.hardwareID)
        }
        for offset in [0x1e8, 0x1ec] { bytes.replaceSubrange(offset..<(offset + 3), with: [29, 55, 1]) }
    }

    mutating func set<T: FixedWidthInteger>(_ offset: Int, _ value: T) {
        for index in 0..<(T.bitWidth / 8) {
            bytes[offset + index] = UInt8(truncatingIfNeeded: value >> T(8 * index))
        }
    }

    /// The report with its signature.
    var signed: [UInt8] {
        var bytes = bytes
        let signature = TestKeys.vcek.sign(Array(bytes[..<0x2a0]), hash: .sha384)
        bytes.replaceSubrange(0x2a0..<0x2d0, with: signature.r)
        bytes.replaceSubrange(0x2e8..<0x318, with: signature.s)
        return bytes
    }
}

/// The refusal of something that must be refused.
func refusal(_ body: () throws -> Void) -> AttestationError? {
    do {
        try body()
        return nil
    } catch { return error as? AttestationError }
}
