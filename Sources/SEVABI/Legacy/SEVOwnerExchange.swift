// What a VMM and a guest owner hand each other around LAUNCH_START.

/// The certificates of a platform, as PDH_CERT_EXPORT gives them [SEV 5.11].
public struct SEVPlatformCertificates: Equatable, Sendable {
    /// PEK ‖ OCA ‖ CEK.
    public static let chainByteCount = 3 * SEVCertificate.byteCount

    /// PDH, 2084 bytes.
    public var pdh: [UInt8]
    /// PEK ‖ OCA ‖ CEK, 6252 bytes.
    public var chain: [UInt8]

    public init(pdh: [UInt8], chain: [UInt8]) {
        self.pdh = pdh
        self.chain = chain
    }
}

/// What the owner gives for LAUNCH_START [SEV 6.2].
public struct SEVLaunchSession: Equatable, Sendable {
    public var policy: SEVPolicy
    /// GODH: the owner's Diffie-Hellman certificate, 2084 bytes.
    public var ownerCertificate: [UInt8]
    /// ``SEVLaunchSessionBlob``, 128 bytes.
    public var session: [UInt8]

    public init(policy: SEVPolicy, ownerCertificate: [UInt8], session: [UInt8]) {
        self.policy = policy
        self.ownerCertificate = ownerCertificate
        self.session = session
    }
}
