// AMD's root and signing keys in AMD's own format, as its key server gives them for SEV.

/// An ARK or ASK certificate [SEV B.1], 832 bytes with 2048-bit keys (Naples) and 1600 with 4096-bit keys (Rome and later).
///
/// ```
/// 0x00 version 1
/// 0x04 KEY_ID 16
/// 0x14 CERTIFYING_ID 16 (the same when self-signed)
/// 0x24 usage: 0 ARK, 0x13 ASK
/// 0x28 zeroes 16
/// 0x38 PUBEXP_SIZE, bits
/// 0x3c MODULUS_SIZE, bits
/// 0x40 exponent, modulus, signature, little-endian
/// ```
/// The signature is RSA-PSS over everything before it: SHA-256 with a salt of 32 bytes for 2048 bits, SHA-384 with 48 for 4096.
public struct AMDCertificate: Equatable, Sendable {
    public static let currentVersion: UInt32 = 1
    static let headerByteCount = 0x40
    /// The lengths that a whole certificate can have.
    public static let byteCounts = [832, 1600]

    public private(set) var bytes: [UInt8]
    private let exponentByteCount: Int
    private let modulusByteCount: Int

    /// Returns nil unless the size fields are 2048 or 4096 bits, both the same, and the bytes are exactly as many as they say.
    public init?(bytes: [UInt8]) {
        guard let certificate = AMDCertificate(atStartOf: bytes), certificate.bytes.count == bytes.count else {
            return nil
        }
        self = certificate
    }

    /// The certificate that a file begins with; AMD's files hold ASK and ARK in a row. Nil when there is no whole one.
    public init?(atStartOf bytes: [UInt8]) {
        guard bytes.count >= Self.headerByteCount else { return nil }
        let exponentBits = bytes.field(0x38, as: UInt32.self)
        let modulusBits = bytes.field(0x3c, as: UInt32.self)
        guard exponentBits == modulusBits, modulusBits == 2048 || modulusBits == 4096 else { return nil }
        modulusByteCount = Int(modulusBits / 8)
        exponentByteCount = modulusByteCount
        // Safe: 0x40 + 3 · 512 at most.
        let count = Self.headerByteCount + exponentByteCount + 2 * modulusByteCount
        guard bytes.count >= count else { return nil }
        self.bytes = Array(bytes.prefix(count))
    }

    /// A certificate without a signature.
    ///
    /// - Parameters:
    ///   - keyID, certifyingID: 16 bytes.
    ///   - modulus: 256 or 512 bytes, little-endian.
    ///   - exponent: Little-endian, at most as long.
    public static func make(
        usage: SEVCertificate.Usage, keyID: [UInt8], certifyingID: [UInt8], modulus: [UInt8], exponent: [UInt8]
    ) -> AMDCertificate {
        precondition(keyID.count == 16 && certifyingID.count == 16, "an identifier has 16 bytes")
        precondition([256, 512].contains(modulus.count) && exponent.count <= modulus.count, "2048 or 4096 bits")
        var bytes = [UInt8](repeating: 0, count: headerByteCount + 3 * modulus.count)
        bytes.setField(0, currentVersion)
        bytes.setBytes(0x4, keyID)
        bytes.setBytes(0x14, certifyingID)
        bytes.setField(0x24, usage.rawValue)
        bytes.setField(0x38, UInt32(modulus.count * 8))
        bytes.setField(0x3c, UInt32(modulus.count * 8))
        bytes.setBytes(headerByteCount, exponent)
        bytes.setBytes(headerByteCount + modulus.count, modulus)
        guard let certificate = AMDCertificate(bytes: bytes) else { preconditionFailure("a well-formed certificate") }
        return certificate
    }

    public var version: UInt32 { bytes.field(0) }
    /// KEY_ID: names the key.
    public var keyID: [UInt8] { Array(bytes[0x4..<0x14]) }
    /// CERTIFYING_ID: names the key that signed.
    public var certifyingID: [UInt8] { Array(bytes[0x14..<0x24]) }
    public var usage: SEVCertificate.Usage { .init(rawValue: bytes.field(0x24)) }
    /// Bytes 0x28…0x37, zero.
    public var reserved_0x28: [UInt8] { Array(bytes[0x28..<0x38]) }
    /// 2048 or 4096.
    public var modulusBitCount: Int { modulusByteCount &* 8 }
    /// Little-endian, as long as the modulus.
    public var exponent: [UInt8] { slice(0, exponentByteCount) }
    /// Little-endian.
    public var modulus: [UInt8] { slice(exponentByteCount, modulusByteCount) }
    /// What the signature covers.
    public var signedBytes: [UInt8] { Array(bytes.dropLast(modulusByteCount)) }
    /// Little-endian, as long as the modulus.
    public var signature: [UInt8] {
        get { slice(exponentByteCount &+ modulusByteCount, modulusByteCount) }
        set {
            precondition(newValue.count == modulusByteCount, "a signature is as long as the modulus")
            bytes.setBytes(bytes.count &- modulusByteCount, newValue)
        }
    }

    private func slice(_ offset: Int, _ count: Int) -> [UInt8] {
        Array(bytes.dropFirst(Self.headerByteCount &+ offset).prefix(count))
    }
}

extension AMDCertificate {
    /// What the KEY_IDs of software platforms begin with, in ASCII. AMD's are random bytes.
    public static let softwareKeyIDPrefix: [UInt8] = Array("swift-snp-vmm".utf8)

    /// The KEY_ID says that this is a key of software platforms. It is a name, not a proof: a root is trusted by its
    /// fingerprint or because somebody named it.
    public var isSoftwareRoot: Bool { keyID.starts(with: Self.softwareKeyIDPrefix) }
}
