// What the firmware says about itself and about a guest, and how the host configures it.

/// PSTATE: the platform's state for SEV and SEV-ES [SEV 5.1].
public struct SEVPlatformState: RawRepresentable, Hashable, Sendable {
    public var rawValue: UInt8
    public init(rawValue: UInt8) { self.rawValue = rawValue }

    /// UNINIT.
    public static let uninitialized = SEVPlatformState(rawValue: 0)
    /// INIT.
    public static let initialized = SEVPlatformState(rawValue: 1)
    /// WORKING: there are guests.
    public static let working = SEVPlatformState(rawValue: 2)
}

/// PLATFORM_STATUS, 12 bytes [SEV 5.6].
public struct SEVPlatformStatus: Equatable, Sendable {
    public static let byteCount = 12

    public var apiMajor: UInt8
    public var apiMinor: UInt8
    /// 0 uninitialised, 1 initialised, 2 working.
    public var state: UInt8
    /// Bit 0: owned by somebody else than the platform.
    public var isExternallyOwned: Bool
    /// Bit 8 of the flags: SEV-ES is configured.
    public var isESConfigured: Bool
    public var build: UInt8
    public var guestCount: UInt32

    public init(
        apiMajor: UInt8, apiMinor: UInt8, state: UInt8, isExternallyOwned: Bool = false, isESConfigured: Bool = false,
        build: UInt8, guestCount: UInt32 = 0
    ) {
        self.apiMajor = apiMajor
        self.apiMinor = apiMinor
        self.state = state
        self.isExternallyOwned = isExternallyOwned
        self.isESConfigured = isESConfigured
        self.build = build
        self.guestCount = guestCount
    }

    /// Returns nil when there are fewer than 12 bytes.
    public init?(bytes: [UInt8]) {
        guard bytes.count >= Self.byteCount else { return nil }
        let flags: UInt32 = bytes.field(3)
        self.init(
            apiMajor: bytes[0], apiMinor: bytes[1], state: bytes[2], isExternallyOwned: flags & 1 != 0,
            isESConfigured: flags & 0x100 != 0, build: bytes[7], guestCount: bytes.field(8))
    }

    public var bytes: [UInt8] {
        var bytes = [UInt8](repeating: 0, count: Self.byteCount)
        bytes[0] = apiMajor
        bytes[1] = apiMinor
        bytes[2] = state
        // The flags are an unaligned u32 at offset 3.
        bytes.setField(3, UInt32(isExternallyOwned ? 1 : 0) | (isESConfigured ? 0x100 : 0))
        bytes[7] = build
        bytes.setField(8, guestCount)
        return bytes
    }
}

/// SNP_PLATFORM_STATUS, 32 bytes [SNP 8.3].
public struct SNPPlatformStatus: Equatable, Sendable {
    public static let byteCount = 32

    public var apiMajor: UInt8
    public var apiMinor: UInt8
    /// 0 uninitialised, 1 initialised.
    public var state: UInt8
    /// Byte 3: bit 0 RMP initialised, bit 1 alias check complete, bit 3 TIO enabled.
    public var platformFlags: UInt8
    public var build: UInt32
    /// Offset 8: see ``Features``.
    public var features: Features
    public var guestCount: UInt32
    public var currentTCB: TCBVersion
    public var reportedTCB: TCBVersion

    /// The flags at offset 8.
    public struct Features: OptionSet, Hashable, Sendable {
        public var rawValue: UInt32
        public init(rawValue: UInt32) { self.rawValue = rawValue }
        public static let maskChipID = Features(rawValue: 1 << 0)
        public static let maskChipKey = Features(rawValue: 1 << 1)
        public static let vlekLoaded = Features(rawValue: 1 << 2)
        public static let featureInfo = Features(rawValue: 1 << 3)
        public static let raplDisabled = Features(rawValue: 1 << 4)
        public static let ciphertextHidingCapable = Features(rawValue: 1 << 5)
        public static let ciphertextHidingEnabled = Features(rawValue: 1 << 6)
    }

    public init(
        apiMajor: UInt8, apiMinor: UInt8, state: UInt8, platformFlags: UInt8, build: UInt32, features: Features,
        guestCount: UInt32, currentTCB: TCBVersion, reportedTCB: TCBVersion
    ) {
        self.apiMajor = apiMajor
        self.apiMinor = apiMinor
        self.state = state
        self.platformFlags = platformFlags
        self.build = build
        self.features = features
        self.guestCount = guestCount
        self.currentTCB = currentTCB
        self.reportedTCB = reportedTCB
    }

    /// Returns nil when there are fewer than 32 bytes.
    public init?(bytes: [UInt8]) {
        guard bytes.count >= Self.byteCount else { return nil }
        self.init(
            apiMajor: bytes[0], apiMinor: bytes[1], state: bytes[2], platformFlags: bytes[3], build: bytes.field(4),
            features: Features(rawValue: bytes.field(8)), guestCount: bytes.field(12),
            currentTCB: TCBVersion(rawValue: bytes.field(16)), reportedTCB: TCBVersion(rawValue: bytes.field(24)))
    }

    public var bytes: [UInt8] {
        var bytes = [UInt8](repeating: 0, count: Self.byteCount)
        bytes[0] = apiMajor
        bytes[1] = apiMinor
        bytes[2] = state
        bytes[3] = platformFlags
        bytes.setField(4, build)
        bytes.setField(8, features.rawValue)
        bytes.setField(12, guestCount)
        bytes.setField(16, currentTCB.rawValue)
        bytes.setField(24, reportedTCB.rawValue)
        return bytes
    }
}

/// SNP_GUEST_STATUS, 32 bytes [SNP 8.7].
public struct SNPGuestStatus: Equatable, Sendable {
    public static let byteCount = 32

    public var policy: GuestPolicy
    /// 0 while no ASID is bound.
    public var asid: UInt32
    public var state: SNPGuestState

    public init(policy: GuestPolicy, asid: UInt32, state: SNPGuestState) {
        self.policy = policy
        self.asid = asid
        self.state = state
    }

    /// Returns nil when there are fewer than 32 bytes.
    public init?(bytes: [UInt8]) {
        guard bytes.count >= Self.byteCount else { return nil }
        policy = GuestPolicy(rawValue: bytes.field(0))
        asid = bytes.field(8)
        state = SNPGuestState(rawValue: bytes[12])
    }

    public var bytes: [UInt8] {
        var bytes = [UInt8](repeating: 0, count: Self.byteCount)
        bytes.setField(0, policy.rawValue)
        bytes.setField(8, asid)
        bytes[12] = state.rawValue
        return bytes
    }
}

/// GSTATE: where an SNP guest is in its life [SNP 4.1].
public struct SNPGuestState: RawRepresentable, Hashable, Sendable {
    public var rawValue: UInt8
    public init(rawValue: UInt8) { self.rawValue = rawValue }

    /// After SNP_GCTX_CREATE.
    public static let initial = SNPGuestState(rawValue: 0)
    /// After SNP_LAUNCH_START.
    public static let launch = SNPGuestState(rawValue: 1)
    /// After SNP_LAUNCH_FINISH.
    public static let running = SNPGuestState(rawValue: 2)
}

/// SNP_CONFIG, 64 bytes [SNP 8.6].
public struct SNPConfig: Equatable, Sendable {
    public static let byteCount = 64

    /// What reports and derived keys show; 0 = the committed version.
    public var reportedTCB: TCBVersion
    public var masksChipID: Bool
    public var masksChipKey: Bool
    /// True when every bit behind the two flags is zero.
    public private(set) var hasValidReservedBits = true

    public init(
        reportedTCB: TCBVersion = TCBVersion(rawValue: 0), masksChipID: Bool = false, masksChipKey: Bool = false
    ) {
        self.reportedTCB = reportedTCB
        self.masksChipID = masksChipID
        self.masksChipKey = masksChipKey
    }

    /// Returns nil when there are fewer than 64 bytes.
    public init?(bytes: [UInt8]) {
        guard bytes.count >= Self.byteCount else { return nil }
        let flags: UInt32 = bytes.field(8)
        self.init(
            reportedTCB: TCBVersion(rawValue: bytes.field(0)), masksChipID: flags & 1 != 0, masksChipKey: flags & 2 != 0
        )
        hasValidReservedBits = flags & ~3 == 0 && bytes.isZero(12..<64)
    }

    public var bytes: [UInt8] {
        var bytes = [UInt8](repeating: 0, count: Self.byteCount)
        bytes.setField(0, reportedTCB.rawValue)
        bytes.setField(8, UInt32(masksChipID ? 1 : 0) | (masksChipKey ? 2 : 0))
        return bytes
    }
}
