// The command buffers of the platform commands: addresses are system physical.
//
// Each type reads the bytes it names and ignores what a longer buffer holds. "Reserved bits are zero" is a question
// (`hasValidReservedBits`), because the answer to a wrong one is the firmware's, not the parser's.

/// Buffers of one address: SNP_GCTX_CREATE, SNP_DECOMMISSION (guest context), SNP_PLATFORM_STATUS (where to write).
public struct SNPAddressBuffer: Equatable, Sendable {
    public static let byteCount = 8
    public var address: SPA

    public init(address: SPA) { self.address = address }

    public init?(bytes: [UInt8]) {
        guard bytes.count >= Self.byteCount else { return nil }
        address = SPA(rawValue: bytes.field(0))
    }

    public var bytes: [UInt8] {
        var bytes = [UInt8](repeating: 0, count: Self.byteCount)
        bytes.setField(0, address.rawValue)
        return bytes
    }
}

/// SNP_ACTIVATE, 0x0C bytes [SNP 8.4].
public struct SNPActivate: Equatable, Sendable {
    public static let byteCount = 0x0c
    /// GCTX_PADDR.
    public var context: SPA
    public var asid: UInt32

    public init(context: SPA, asid: UInt32) {
        self.context = context
        self.asid = asid
    }

    public init?(bytes: [UInt8]) {
        guard bytes.count >= Self.byteCount else { return nil }
        context = SPA(rawValue: bytes.field(0))
        asid = bytes.field(8)
    }

    public var bytes: [UInt8] {
        var bytes = [UInt8](repeating: 0, count: Self.byteCount)
        bytes.setField(0, context.rawValue)
        bytes.setField(8, asid)
        return bytes
    }
}

/// SNP_GUEST_STATUS, 0x10 bytes: the guest context and where to write the 32 bytes [SNP 8.7].
public struct SNPGuestStatusRequest: Equatable, Sendable {
    public static let byteCount = 0x10
    public var context: SPA
    public var address: SPA

    public init(context: SPA, address: SPA) {
        self.context = context
        self.address = address
    }

    public init?(bytes: [UInt8]) {
        guard bytes.count >= Self.byteCount else { return nil }
        context = SPA(rawValue: bytes.field(0))
        address = SPA(rawValue: bytes.field(8))
    }

    public var bytes: [UInt8] {
        var bytes = [UInt8](repeating: 0, count: Self.byteCount)
        bytes.setField(0, context.rawValue)
        bytes.setField(8, address.rawValue)
        return bytes
    }
}

/// SNP_PAGE_RECLAIM, 8 bytes: bit 0 is the page size, the rest the address [SNP 8.26].
public struct SNPPageReclaim: Equatable, Sendable {
    public static let byteCount = 8
    public var address: SPA
    public var is2MiB: Bool

    public init(address: SPA, is2MiB: Bool = false) {
        self.address = address
        self.is2MiB = is2MiB
    }

    public init?(bytes: [UInt8]) {
        guard bytes.count >= Self.byteCount else { return nil }
        let value: UInt64 = bytes.field(0)
        address = SPA(rawValue: value & ~1)
        is2MiB = value & 1 != 0
    }

    public var bytes: [UInt8] {
        var bytes = [UInt8](repeating: 0, count: Self.byteCount)
        bytes.setField(0, address.rawValue | (is2MiB ? 1 : 0))
        return bytes
    }
}

/// SNP_INIT_EX, 0x40 bytes [SNP 8.2].
public struct SNPInitEx: Equatable, Sendable {
    public static let byteCount = 0x40
    /// INIT_RMP: write every RMP entry.
    public var initializesRMP: Bool
    /// LIST_PADDR_EN: pages that stay the hypervisor's are listed at ``list``.
    public var hasList: Bool
    public var list: SPA
    public private(set) var hasValidReservedBits = true

    public init(initializesRMP: Bool = true, hasList: Bool = false, list: SPA = .zero) {
        self.initializesRMP = initializesRMP
        self.hasList = hasList
        self.list = list
    }

    public init?(bytes: [UInt8]) {
        guard bytes.count >= Self.byteCount else { return nil }
        let flags: UInt32 = bytes.field(0)
        self.init(initializesRMP: flags & 1 != 0, hasList: flags & 2 != 0, list: SPA(rawValue: bytes.field(8)))
        hasValidReservedBits = flags & ~3 == 0 && bytes.isZero(4..<8) && bytes.isZero(16..<0x40)
    }

    public var bytes: [UInt8] {
        var bytes = [UInt8](repeating: 0, count: Self.byteCount)
        bytes.setField(0, UInt32(initializesRMP ? 1 : 0) | (hasList ? 2 : 0))
        bytes.setField(8, list.rawValue)
        return bytes
    }
}

/// SNP_SHUTDOWN_EX, 8 bytes [SNP 8.9].
public struct SNPShutdownEx: Equatable, Sendable {
    public static let byteCount = 8
    public var length: UInt32
    /// IOMMU_SNP_SHUTDOWN.
    public var shutsDownIOMMU: Bool
    public private(set) var hasValidReservedBits = true

    public init(shutsDownIOMMU: Bool = false) {
        length = UInt32(Self.byteCount)
        self.shutsDownIOMMU = shutsDownIOMMU
    }

    public init?(bytes: [UInt8]) {
        guard bytes.count >= Self.byteCount else { return nil }
        let flags: UInt32 = bytes.field(4)
        length = bytes.field(0)
        shutsDownIOMMU = flags & 1 != 0
        hasValidReservedBits = flags & ~1 == 0
    }

    public var bytes: [UInt8] {
        var bytes = [UInt8](repeating: 0, count: Self.byteCount)
        bytes.setField(0, length)
        bytes.setField(4, UInt32(shutsDownIOMMU ? 1 : 0))
        return bytes
    }
}

/// SNP_COMMIT, 4 bytes: its own length [SNP 8.5].
public struct SNPCommit: Equatable, Sendable {
    public static let byteCount = 4
    public var length: UInt32

    public init() { length = UInt32(Self.byteCount) }

    public init?(bytes: [UInt8]) {
        guard bytes.count >= Self.byteCount else { return nil }
        length = bytes.field(0)
    }

    public var bytes: [UInt8] {
        var bytes = [UInt8](repeating: 0, count: Self.byteCount)
        bytes.setField(0, length)
        return bytes
    }
}

/// SNP_VLEK_LOAD, 16 bytes [SNP 8.31].
public struct SNPVLEKLoad: Equatable, Sendable {
    public static let byteCount = 16
    /// Bytes of the wrapped hashstick.
    public static let wrappedByteCount = 432

    /// The structure's own length.
    public var length: UInt32
    /// Format of what is at ``address``: 0.
    public var version: UInt8
    public private(set) var hasValidReservedBits = true
    /// The wrapped VLEK hashstick.
    public var address: SPA

    public init(address: SPA) {
        length = UInt32(Self.byteCount)
        version = 0
        self.address = address
    }

    public init?(bytes: [UInt8]) {
        guard bytes.count >= Self.byteCount else { return nil }
        length = bytes.field(0)
        version = bytes[4]
        hasValidReservedBits = bytes.isZero(5..<8)
        address = SPA(rawValue: bytes.field(8))
    }

    public var bytes: [UInt8] {
        var bytes = [UInt8](repeating: 0, count: Self.byteCount)
        bytes.setField(0, length)
        bytes[4] = version
        bytes.setField(8, address.rawValue)
        return bytes
    }
}
