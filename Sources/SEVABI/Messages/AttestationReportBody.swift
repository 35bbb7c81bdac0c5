// The attestation report as the firmware writes it: what is signed, and the signature behind it.
//
// A writer only. Whoever verifies reports reads them with a parser of its own, so that a mistake in one does not hide in
// the other.

/// PLATFORM_INFO [SNP 7.3, table 23].
public struct PlatformInformation: OptionSet, Hashable, Sendable {
    public var rawValue: UInt64
    public init(rawValue: UInt64) { self.rawValue = rawValue }

    public static let smtEnabled = PlatformInformation(rawValue: 1 << 0)
    public static let tsmeEnabled = PlatformInformation(rawValue: 1 << 1)
    public static let eccEnabled = PlatformInformation(rawValue: 1 << 2)
    public static let raplDisabled = PlatformInformation(rawValue: 1 << 3)
    public static let ciphertextHidingEnabled = PlatformInformation(rawValue: 1 << 4)
    public static let aliasCheckComplete = PlatformInformation(rawValue: 1 << 5)
}

/// SIGNING_KEY: which key signed a report [SNP 7.3].
public enum ReportSigningKey: UInt32, Sendable {
    case vcek = 0
    case vlek = 1
    /// MASK_CHIP_KEY: the signature is zeroes.
    case none = 7
}

/// ATTESTATION_REPORT without its signature: bytes 0x000 to 0x29F [SNP 7.3, table 23].
public struct AttestationReportBody: Sendable {
    /// What is signed.
    public static let byteCount = 0x2a0
    /// With the signature.
    public static let reportByteCount = 0x4a0
    /// SIGNATURE_ALGO of ECDSA P-384 with SHA-384.
    public static let ecdsaP384: UInt32 = 1
    /// Versions whose layout is known. Version 4 exists and is not public.
    public static let versions: Set<UInt32> = [2, 3, 5]

    public var version: UInt32  // 0x000
    public var guestSVN: UInt32 = 0  // 0x004
    public var policy = GuestPolicy(rawValue: 0)  // 0x008
    /// 16 bytes.
    public var familyID = [UInt8](repeating: 0, count: 16)  // 0x010
    /// 16 bytes.
    public var imageID = [UInt8](repeating: 0, count: 16)  // 0x020
    public var vmpl: UInt32 = 0  // 0x030
    public var currentTCB = TCBVersion(rawValue: 0)  // 0x038
    public var platformInformation: PlatformInformation = []  // 0x040
    /// AUTHOR_KEY_EN.
    public var hasAuthorKey = false  // 0x048 bit 0
    /// MASK_CHIP_KEY.
    public var masksChipKey = false  // 0x048 bit 1
    public var signingKey = ReportSigningKey.vcek  // 0x048 bits 4:2
    /// 64 bytes.
    public var reportData = [UInt8](repeating: 0, count: 64)  // 0x050
    public var measurement = LaunchDigest()  // 0x090
    /// 32 bytes.
    public var hostData = [UInt8](repeating: 0, count: 32)  // 0x0c0
    public var idKeyDigest = LaunchDigest()  // 0x0e0
    public var authorKeyDigest = LaunchDigest()  // 0x110
    /// 32 bytes.
    public var reportID = [UInt8](repeating: 0, count: 32)  // 0x140
    /// REPORT_ID_MA, 32 bytes: all ones without a migration agent.
    public var migrationAgentReportID = [UInt8](repeating: 0xff, count: 32)  // 0x160
    public var reportedTCB = TCBVersion(rawValue: 0)  // 0x180
    /// CPUID 1 EAX; written from version 3 on.
    public var fms: UInt32 = 0  // 0x188
    /// 64 bytes; zeroes when masked.
    public var chipID = [UInt8](repeating: 0, count: 64)  // 0x1a0
    public var committedTCB = TCBVersion(rawValue: 0)  // 0x1e0
    public var currentVersion = ReportedFirmwareVersion()  // 0x1e8
    public var committedVersion = ReportedFirmwareVersion()  // 0x1ec
    public var launchTCB = TCBVersion(rawValue: 0)  // 0x1f0
    /// LAUNCH_MIT_VECTOR; written from version 5 on.
    public var launchMitigationVector: UInt64 = 0  // 0x1f8
    /// CURRENT_MIT_VECTOR; written from version 5 on.
    public var currentMitigationVector: UInt64 = 0  // 0x200

    /// - Parameter version: One of ``versions``.
    public init(version: UInt32) {
        precondition(Self.versions.contains(version), "a report of version 2, 3 or 5")
        self.version = version
    }

    /// The 0x2A0 bytes. Fields that the version does not have are zero.
    public var bytes: [UInt8] {
        var bytes = [UInt8](repeating: 0, count: Self.byteCount)
        func put(_ offset: Int, _ field: [UInt8], _ count: Int) {
            bytes.setBytes(offset, Array(field.prefix(count)))
        }
        bytes.setField(0x000, version)
        bytes.setField(0x004, guestSVN)
        bytes.setField(0x008, policy.rawValue)
        put(0x010, familyID, 16)
        put(0x020, imageID, 16)
        bytes.setField(0x030, vmpl)
        bytes.setField(0x034, Self.ecdsaP384)
        bytes.setField(0x038, currentTCB.rawValue)
        bytes.setField(0x040, platformInformation.rawValue)
        bytes.setField(
            0x048, UInt32(hasAuthorKey ? 1 : 0) | UInt32(masksChipKey ? 2 : 0) | signingKey.rawValue &<< 2)
        put(0x050, reportData, 64)
        put(0x090, measurement.array, 48)
        put(0x0c0, hostData, 32)
        put(0x0e0, idKeyDigest.array, 48)
        put(0x110, authorKeyDigest.array, 48)
        put(0x140, reportID, 32)
        put(0x160, migrationAgentReportID, 32)
        bytes.setField(0x180, reportedTCB.rawValue)
        if version >= 3 {
            bytes[0x188] = Self.family(fms)
            bytes[0x189] = Self.model(fms)
            bytes[0x18a] = UInt8(truncatingIfNeeded: fms & 0xf)
        }
        put(0x1a0, chipID, 64)
        bytes.setField(0x1e0, committedTCB.rawValue)
        put(0x1e8, currentVersion.bytes, 3)
        put(0x1ec, committedVersion.bytes, 3)
        bytes.setField(0x1f0, launchTCB.rawValue)
        if version >= 5 {
            bytes.setField(0x1f8, launchMitigationVector)
            bytes.setField(0x200, currentMitigationVector)
        }
        return bytes
    }

    /// The whole report, 0x4A0 bytes.
    ///
    /// - Parameter signature: Over ``bytes``; nil writes zeroes.
    public func report(signature: SignatureField?) -> [UInt8] {
        bytes + (signature?.bytes ?? [UInt8](repeating: 0, count: SignatureField.byteCount))
    }

    /// Family and extended family of CPUID 1 EAX, added up [APM3 CPUID Fn0000_0001_EAX].
    private static func family(_ fms: UInt32) -> UInt8 {
        let base = fms &>> 8 & 0xf
        return UInt8(truncatingIfNeeded: base == 0xf ? base &+ (fms &>> 20 & 0xff) : base)
    }

    /// Extended model and model.
    private static func model(_ fms: UInt32) -> UInt8 {
        let base = fms &>> 4 & 0xf
        return UInt8(truncatingIfNeeded: fms &>> 8 & 0xf == 0xf ? (fms &>> 16 & 0xf) &<< 4 | base : base)
    }
}

/// A firmware version in the order of reports: build, minor, major.
public struct ReportedFirmwareVersion: Equatable, Sendable {
    public var major: UInt8
    public var minor: UInt8
    public var build: UInt8

    public init(major: UInt8 = 0, minor: UInt8 = 0, build: UInt8 = 0) {
        self.major = major
        self.minor = minor
        self.build = build
    }

    var bytes: [UInt8] { [build, minor, major] }
}
