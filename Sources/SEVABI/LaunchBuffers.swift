// The command buffers of an SNP launch.

/// SNP_LAUNCH_START, 0x30 bytes [SNP 8.16].
public struct SNPLaunchStart: Equatable, Sendable {
    public static let byteCount = 0x30
    /// GCTX_PADDR.
    public var context: SPA
    public var policy: GuestPolicy
    /// MA_GCTX_PADDR.
    public var migrationAgentContext: SPA
    /// MA_EN.
    public var hasMigrationAgent: Bool
    /// IMI_EN.
    public var hasIMI: Bool
    /// DESIRED_TSC_FREQ, for Secure TSC; 0 = the host's.
    public var desiredTSCKHz: UInt32
    /// GOSVW, 16 bytes.
    public var gosvw: [UInt8]
    public private(set) var hasValidReservedBits = true

    public init(
        context: SPA, policy: GuestPolicy, migrationAgentContext: SPA = .zero, hasMigrationAgent: Bool = false,
        hasIMI: Bool = false, desiredTSCKHz: UInt32 = 0, gosvw: [UInt8] = [UInt8](repeating: 0, count: 16)
    ) {
        precondition(gosvw.count == 16, "GOSVW has 16 bytes")
        self.context = context
        self.policy = policy
        self.migrationAgentContext = migrationAgentContext
        self.hasMigrationAgent = hasMigrationAgent
        self.hasIMI = hasIMI
        self.desiredTSCKHz = desiredTSCKHz
        self.gosvw = gosvw
    }

    public init?(bytes: [UInt8]) {
        guard bytes.count >= Self.byteCount else { return nil }
        let flags: UInt32 = bytes.field(0x18)
        self.init(
            context: SPA(rawValue: bytes.field(0)), policy: GuestPolicy(rawValue: bytes.field(8)),
            migrationAgentContext: SPA(rawValue: bytes.field(0x10)), hasMigrationAgent: flags & 1 != 0,
            hasIMI: flags & 2 != 0, desiredTSCKHz: bytes.field(0x1c), gosvw: Array(bytes[0x20..<0x30]))
        hasValidReservedBits = flags & ~3 == 0
    }

    public var bytes: [UInt8] {
        var bytes = [UInt8](repeating: 0, count: Self.byteCount)
        bytes.setField(0, context.rawValue)
        bytes.setField(8, policy.rawValue)
        bytes.setField(0x10, migrationAgentContext.rawValue)
        bytes.setField(0x18, UInt32(hasMigrationAgent ? 1 : 0) | (hasIMI ? 2 : 0))
        bytes.setField(0x1c, desiredTSCKHz)
        bytes.setBytes(0x20, gosvw)
        return bytes
    }
}

/// SNP_LAUNCH_UPDATE, 0x20 bytes [SNP 8.17].
public struct SNPLaunchUpdate: Equatable, Sendable {
    public static let byteCount = 0x20
    public var context: SPA
    public var is2MiB: Bool
    public var pageType: PageType
    public var isIMIPage: Bool
    /// PAGE_PADDR.
    public var address: SPA
    public var permissions: VMPLPermissions
    public private(set) var hasValidReservedBits = true

    public init(
        context: SPA, pageType: PageType, address: SPA, is2MiB: Bool = false, isIMIPage: Bool = false,
        permissions: VMPLPermissions = VMPLPermissions()
    ) {
        self.context = context
        self.is2MiB = is2MiB
        self.pageType = pageType
        self.isIMIPage = isIMIPage
        self.address = address
        self.permissions = permissions
    }

    public init?(bytes: [UInt8]) {
        guard bytes.count >= Self.byteCount else { return nil }
        let flags: UInt32 = bytes.field(8)
        self.init(
            context: SPA(rawValue: bytes.field(0)),
            pageType: PageType(rawValue: UInt8(truncatingIfNeeded: flags &>> 1 & 7)),
            address: SPA(rawValue: bytes.field(0x10)), is2MiB: flags & 1 != 0, isIMIPage: flags & 0x10 != 0,
            permissions: VMPLPermissions(vmpl1: bytes[0x19], vmpl2: bytes[0x1a], vmpl3: bytes[0x1b]))
        hasValidReservedBits =
            flags & ~0x1f == 0 && bytes.isZero(0x0c..<0x10) && bytes[0x18] == 0 && bytes.isZero(0x1c..<0x20)
    }

    public var bytes: [UInt8] {
        var bytes = [UInt8](repeating: 0, count: Self.byteCount)
        bytes.setField(0, context.rawValue)
        bytes.setField(
            8, UInt32(is2MiB ? 1 : 0) | UInt32(pageType.rawValue & 7) &<< 1 | (isIMIPage ? 0x10 : 0))
        bytes.setField(0x10, address.rawValue)
        bytes[0x19] = permissions.vmpl1
        bytes[0x1a] = permissions.vmpl2
        bytes[0x1b] = permissions.vmpl3
        return bytes
    }
}

/// SNP_LAUNCH_FINISH, 0x40 bytes [SNP 8.18].
public struct SNPLaunchFinish: Equatable, Sendable {
    public static let byteCount = 0x40
    public var context: SPA
    /// ID_BLOCK_PADDR: 96 bytes.
    public var idBlock: SPA
    /// ID_AUTH_PADDR: 4096 bytes.
    public var idAuthentication: SPA
    /// ID_BLOCK_EN.
    public var usesIDBlock: Bool
    /// AUTH_KEY_EN.
    public var usesAuthorKey: Bool
    /// VCEK_DIS.
    public var disablesVCEK: Bool
    /// HOST_DATA, 32 bytes.
    public var hostData: [UInt8]
    public private(set) var hasValidReservedBits = true

    public init(
        context: SPA, idBlock: SPA = .zero, idAuthentication: SPA = .zero, usesIDBlock: Bool = false,
        usesAuthorKey: Bool = false, disablesVCEK: Bool = false, hostData: [UInt8] = [UInt8](repeating: 0, count: 32)
    ) {
        precondition(hostData.count == 32, "HOST_DATA has 32 bytes")
        self.context = context
        self.idBlock = idBlock
        self.idAuthentication = idAuthentication
        self.usesIDBlock = usesIDBlock
        self.usesAuthorKey = usesAuthorKey
        self.disablesVCEK = disablesVCEK
        self.hostData = hostData
    }

    public init?(bytes: [UInt8]) {
        guard bytes.count >= Self.byteCount else { return nil }
        let flags: UInt64 = bytes.field(0x18)
        self.init(
            context: SPA(rawValue: bytes.field(0)), idBlock: SPA(rawValue: bytes.field(8)),
            idAuthentication: SPA(rawValue: bytes.field(0x10)), usesIDBlock: flags & 1 != 0,
            usesAuthorKey: flags & 2 != 0, disablesVCEK: flags & 4 != 0, hostData: Array(bytes[0x20..<0x40]))
        hasValidReservedBits = flags & ~7 == 0
    }

    public var bytes: [UInt8] {
        var bytes = [UInt8](repeating: 0, count: Self.byteCount)
        bytes.setField(0, context.rawValue)
        bytes.setField(8, idBlock.rawValue)
        bytes.setField(0x10, idAuthentication.rawValue)
        bytes.setField(0x18, UInt64(usesIDBlock ? 1 : 0) | (usesAuthorKey ? 2 : 0) | (disablesVCEK ? 4 : 0))
        bytes.setBytes(0x20, hostData)
        return bytes
    }
}

/// SNP_GUEST_REQUEST, 0x18 bytes [SNP 8.27].
public struct SNPGuestRequest: Equatable, Sendable {
    public static let byteCount = 0x18
    /// GCTX_PADDR.
    public var context: SPA
    /// REQUEST_PADDR: the guest's message.
    public var request: SPA
    /// RESPONSE_PADDR: a firmware page for the answer.
    public var response: SPA

    public init(context: SPA, request: SPA, response: SPA) {
        self.context = context
        self.request = request
        self.response = response
    }

    public init?(bytes: [UInt8]) {
        guard bytes.count >= Self.byteCount else { return nil }
        context = SPA(rawValue: bytes.field(0))
        request = SPA(rawValue: bytes.field(8))
        response = SPA(rawValue: bytes.field(0x10))
    }

    public var bytes: [UInt8] {
        var bytes = [UInt8](repeating: 0, count: Self.byteCount)
        bytes.setField(0, context.rawValue)
        bytes.setField(8, request.rawValue)
        bytes.setField(0x10, response.rawValue)
        return bytes
    }
}
