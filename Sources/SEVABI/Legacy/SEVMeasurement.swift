// What the firmware answers with to the owner: LAUNCH_MEASURE and ATTESTATION.

/// What LAUNCH_MEASURE writes, 48 bytes [SEV 6.5.1].
///
/// `measure = HMAC-SHA256(TIK, 0x04 ‖ API major ‖ API minor ‖ build ‖ policy ‖ launch digest ‖ nonce)`.
public struct SEVMeasurement: Equatable, Sendable {
    public static let byteCount = 48

    /// MEASURE, 32 bytes.
    public var measure: [UInt8]
    /// MNONCE, 16 bytes, chosen by the firmware.
    public var nonce: [UInt8]

    /// Another length of a field is a programmer error.
    public init(measure: [UInt8], nonce: [UInt8]) {
        precondition(measure.count == 32 && nonce.count == 16, "a measurement has 32 and 16 bytes")
        self.measure = measure
        self.nonce = nonce
    }

    /// Returns nil unless there are exactly 48 bytes.
    public init?(bytes: [UInt8]) {
        guard bytes.count == Self.byteCount else { return nil }
        measure = Array(bytes[..<32])
        nonce = Array(bytes[32...])
    }

    public var bytes: [UInt8] { measure + nonce }

    /// What the HMAC is over.
    ///
    /// - Parameters:
    ///   - digest: The launch digest, 32 bytes.
    ///   - nonce: MNONCE, 16 bytes.
    public static func message(
        apiMajor: UInt8, apiMinor: UInt8, build: UInt8, policy: SEVPolicy, digest: [UInt8], nonce: [UInt8]
    ) -> [UInt8] {
        [4, apiMajor, apiMinor, build] + policy.littleEndianBytes + digest + nonce
    }
}

/// What ATTESTATION writes, 208 bytes [SEV 6.8.1]: the launch digest of a running guest, signed by the PEK.
public struct SEVGuestReport: Equatable, Sendable {
    public static let byteCount = 0xd0
    /// The part that the signature covers.
    public static let signedByteCount = 0x34

    /// MNONCE, 16 bytes, given by the caller of the command.
    public var nonce: [UInt8]  // 0x00
    /// 32 bytes.
    public var launchDigest: [UInt8]  // 0x10
    public var policy: SEVPolicy  // 0x30
    /// Of the signing key: PEK.
    public var usage: SEVCertificate.Usage  // 0x34
    public var algorithm: SEVCertificate.Algorithm  // 0x38
    public var reserved_0x3c: UInt32  // 0x3c
    /// 72 bytes, little-endian.
    public var r: [UInt8]  // 0x40
    /// 72 bytes, little-endian.
    public var s: [UInt8]  // 0x88

    /// A report without a signature. Another length of a field is a programmer error.
    public init(nonce: [UInt8], launchDigest: [UInt8], policy: SEVPolicy) {
        precondition(nonce.count == 16 && launchDigest.count == 32, "a nonce of 16 bytes and a digest of 32")
        self.nonce = nonce
        self.launchDigest = launchDigest
        self.policy = policy
        usage = .pek
        algorithm = .ecdsaSHA256
        reserved_0x3c = 0
        r = [UInt8](repeating: 0, count: 72)
        s = r
    }

    /// Returns nil unless there are exactly 208 bytes.
    public init?(bytes: [UInt8]) {
        guard bytes.count == Self.byteCount else { return nil }
        nonce = Array(bytes[0x00..<0x10])
        launchDigest = Array(bytes[0x10..<0x30])
        policy = SEVPolicy(rawValue: bytes.field(0x30))
        usage = .init(rawValue: bytes.field(0x34))
        algorithm = .init(rawValue: bytes.field(0x38))
        reserved_0x3c = bytes.field(0x3c)
        r = Array(bytes[0x40..<0x88])
        s = Array(bytes[0x88..<0xd0])
    }

    /// 208 bytes; R and S are cut to or filled up to 72.
    public var bytes: [UInt8] {
        var result = [UInt8](repeating: 0, count: Self.byteCount)
        result.setBytes(0x00, nonce)
        result.setBytes(0x10, launchDigest)
        result.setField(0x30, policy.rawValue)
        result.setField(0x34, usage.rawValue)
        result.setField(0x38, algorithm.rawValue)
        result.setField(0x3c, reserved_0x3c)
        result.setBytes(0x40, Array(r.prefix(72)))
        result.setBytes(0x88, Array(s.prefix(72)))
        return result
    }

    /// What the signature covers.
    public var signedBytes: [UInt8] { Array(bytes[..<Self.signedByteCount]) }
}
