// The certificates of an SEV platform and of a guest owner: CEK, OCA, PEK, PDH and GODH share one format.
//
// Reading is hostile-proof: any 2084 bytes are a certificate, and what its fields mean is for the verifier to judge.

/// An SEV certificate, 2084 bytes [SEV C.1].
///
/// ```
/// 0x000 version 1
/// 0x004 API major, minor, 0, 0
/// 0x008 usage of the key
/// 0x00c algorithm of the key
/// 0x010 key: curve, QX 72, QY 72, zeroes             0x404 bytes
/// 0x414 signature 1: usage of the signer, algorithm, value 512
/// 0x61c signature 2
/// 0x824
/// ```
/// Numbers are little-endian. Signatures are over 0x000…0x413.
public struct SEVCertificate: Equatable, Sendable {
    public static let byteCount = 0x824
    /// The part that signatures cover.
    public static let signedByteCount = 0x414
    /// The only version there is.
    public static let currentVersion: UInt32 = 1
    /// Number of signatures; an unused one has the usage `invalid`.
    public static let signatureCount = 2

    /// Whose key it is.
    public struct Usage: RawRepresentable, Hashable, Sendable, CustomStringConvertible {
        public var rawValue: UInt32
        public init(rawValue: UInt32) { self.rawValue = rawValue }

        /// AMD root key.
        public static let ark = Usage(rawValue: 0)
        /// AMD signing key.
        public static let ask = Usage(rawValue: 0x13)
        /// No key: an unused signature.
        public static let invalid = Usage(rawValue: 0x1000)
        /// Owner certificate authority.
        public static let oca = Usage(rawValue: 0x1001)
        /// Platform endorsement key.
        public static let pek = Usage(rawValue: 0x1002)
        /// Platform Diffie-Hellman key; a guest owner's GODH has it too.
        public static let pdh = Usage(rawValue: 0x1003)
        /// Chip endorsement key.
        public static let cek = Usage(rawValue: 0x1004)

        /// "PEK (0x1002)".
        public var description: String {
            let names: [Usage: String] = [
                .ark: "ARK", .ask: "ASK", .invalid: "none", .oca: "OCA", .pek: "PEK", .pdh: "PDH", .cek: "CEK",
            ]
            return "\(names[self] ?? "unknown") (0x\(String(rawValue, radix: 16)))"
        }
    }

    /// What a key is for, and with which hash.
    public struct Algorithm: RawRepresentable, Hashable, Sendable, CustomStringConvertible {
        public var rawValue: UInt32
        public init(rawValue: UInt32) { self.rawValue = rawValue }

        public static let none = Algorithm(rawValue: 0)
        public static let rsaSHA256 = Algorithm(rawValue: 1)
        public static let ecdsaSHA256 = Algorithm(rawValue: 2)
        public static let ecdhSHA256 = Algorithm(rawValue: 3)
        public static let rsaSHA384 = Algorithm(rawValue: 0x101)
        public static let ecdsaSHA384 = Algorithm(rawValue: 0x102)
        public static let ecdhSHA384 = Algorithm(rawValue: 0x103)

        /// "ECDSA-SHA256 (0x2)".
        public var description: String {
            let names: [Algorithm: String] = [
                .none: "none", .rsaSHA256: "RSA-SHA256", .ecdsaSHA256: "ECDSA-SHA256", .ecdhSHA256: "ECDH-SHA256",
                .rsaSHA384: "RSA-SHA384", .ecdsaSHA384: "ECDSA-SHA384", .ecdhSHA384: "ECDH-SHA384",
            ]
            return "\(names[self] ?? "unknown") (0x\(String(rawValue, radix: 16)))"
        }
    }

    /// One of the two signatures.
    public struct Signature: Equatable, Sendable {
        /// Of the signing key.
        public var usage: Usage
        public var algorithm: Algorithm
        /// 512 bytes: R and S for ECDSA, one little-endian number for RSA, then zeroes.
        public var value: SignatureField

        /// An unused signature.
        public init() {
            usage = .invalid
            algorithm = .none
            value = SignatureField(r: [], s: [])
        }

        /// ECDSA, with little-endian numbers of at most 72 bytes.
        public init(usage: Usage, algorithm: Algorithm, r: [UInt8], s: [UInt8]) {
            self.usage = usage
            self.algorithm = algorithm
            value = SignatureField(r: r, s: s)
        }

        /// RSA, with a little-endian number of at most 512 bytes.
        public init(usage: Usage, algorithm: Algorithm, rsa number: [UInt8]) {
            self.usage = usage
            self.algorithm = algorithm
            value = SignatureField(rsa: number)
        }

        init(_ bytes: [UInt8], at offset: Int) {
            usage = Usage(rawValue: bytes.field(offset))
            algorithm = Algorithm(rawValue: bytes.field(offset &+ 4))
            value = SignatureField(bytes, at: offset &+ 8)
        }
    }

    public private(set) var bytes: [UInt8]

    /// Returns nil unless there are exactly 2084 bytes.
    public init?(bytes: [UInt8]) {
        guard bytes.count == Self.byteCount else { return nil }
        self.bytes = bytes
    }

    /// A certificate of a P-384 key without signatures.
    ///
    /// - Parameters x, y: The public point, little-endian, at most 72 bytes.
    public static func make(
        usage: Usage, algorithm: Algorithm, apiMajor: UInt8, apiMinor: UInt8, x: [UInt8], y: [UInt8]
    ) -> SEVCertificate {
        var bytes = [UInt8](repeating: 0, count: byteCount)
        bytes.setField(0, currentVersion)
        bytes[4] = apiMajor
        bytes[5] = apiMinor
        bytes.setField(8, usage.rawValue)
        bytes.setField(0xc, algorithm.rawValue)
        bytes.setBytes(0x10, PublicKeyField(x: x, y: y).bytes)
        var certificate = SEVCertificate(wellFormed: bytes)
        for slot in 0..<signatureCount { certificate.setSignature(Signature(), slot: slot) }
        return certificate
    }

    private init(wellFormed bytes: [UInt8]) { self.bytes = bytes }

    public var version: UInt32 { bytes.field(0) }
    /// Of the firmware that made it.
    public var apiMajor: UInt8 { bytes[4] }
    public var apiMinor: UInt8 { bytes[5] }
    public var usage: Usage { Usage(rawValue: bytes.field(8)) }
    public var algorithm: Algorithm { Algorithm(rawValue: bytes.field(0xc)) }
    /// Of an elliptic-curve key; every SEV certificate has one.
    public var publicKey: PublicKeyField { PublicKeyField(bytes, at: 0x10) }
    /// What the signatures cover.
    public var signedBytes: [UInt8] { Array(bytes[..<Self.signedByteCount]) }
    /// Both slots, in order.
    public var signatures: [Signature] { (0..<Self.signatureCount).map { signature(slot: $0) } }

    /// - Parameter slot: 0 or 1.
    public func signature(slot: Int) -> Signature { Signature(bytes, at: Self.signatureOffset(slot)) }

    /// - Parameter slot: 0 or 1.
    public mutating func setSignature(_ signature: Signature, slot: Int) {
        let offset = Self.signatureOffset(slot)
        bytes.setField(offset, signature.usage.rawValue)
        bytes.setField(offset &+ 4, signature.algorithm.rawValue)
        bytes.setBytes(offset &+ 8, signature.value.bytes)
    }

    private static func signatureOffset(_ slot: Int) -> Int {
        precondition((0..<signatureCount).contains(slot), "a certificate has two signatures")
        return slot == 0 ? 0x414 : 0x61c
    }
}

extension SignatureField {
    /// A little-endian RSA number of at most 512 bytes; a longer one is a programmer error.
    public init(rsa number: [UInt8]) {
        precondition(number.count <= Self.byteCount, "an RSA signature has at most 512 bytes")
        self.init(number + [UInt8](repeating: 0, count: Self.byteCount - number.count), at: 0)
    }

    /// The first `byteCount` bytes: an RSA number.
    public func rsa(byteCount: Int) -> [UInt8] { Array(bytes.prefix(byteCount)) }

    /// Everything behind `byteCount` bytes is zero.
    public func isZero(after byteCount: Int) -> Bool { bytes.dropFirst(byteCount).allSatisfy { $0 == 0 } }
}
