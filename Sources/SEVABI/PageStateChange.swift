// The page-state-change structure in the GHCB's shared buffer.

/// What a guest asks for a page [GHCB 4.1.6].
public struct PageStateOperation: RawRepresentable, Hashable, Sendable {
    public var rawValue: UInt8
    public init(rawValue: UInt8) { self.rawValue = rawValue }

    public static let makePrivate = PageStateOperation(rawValue: 1)
    public static let makeShared = PageStateOperation(rawValue: 2)
    /// PSMASH: split a 2 MiB entry.
    public static let smash = PageStateOperation(rawValue: 3)
    /// UNSMASH: join 4 KiB entries.
    public static let unsmash = PageStateOperation(rawValue: 4)
}

/// The structure's header, 8 bytes: cur_entry u16, end_entry u16, reserved u32.
public struct PageStateChangeHeader: Equatable, Sendable {
    public static let byteCount = 8
    /// As many entries as fit the shared buffer.
    public static let maximumEntryCount = 253

    /// Index of the first entry not done yet. The hypervisor advances it.
    public var currentEntry: UInt16
    /// Index of the last entry, inclusive.
    public var endEntry: UInt16

    public init(currentEntry: UInt16, endEntry: UInt16) {
        self.currentEntry = currentEntry
        self.endEntry = endEntry
    }

    /// Reads the first eight bytes of the structure. Returns nil when there are fewer.
    public init?(bytes: [UInt8]) {
        guard bytes.count >= Self.byteCount else { return nil }
        self.init(currentEntry: bytes.field(0), endEntry: bytes.field(2))
    }

    public var bytes: [UInt8] {
        var bytes = [UInt8](repeating: 0, count: Self.byteCount)
        bytes.setField(0, currentEntry)
        bytes.setField(2, endEntry)
        return bytes
    }
}

/// One entry, 8 bytes: bits 11:0 current page, 51:12 guest frame, 55:52 operation, 56 page size.
public struct PageStateChangeEntry: RawRepresentable, Equatable, Sendable {
    public static let byteCount = 8

    public var rawValue: UInt64
    public init(rawValue: UInt64) { self.rawValue = rawValue }

    public init(frame: UInt64, operation: PageStateOperation, is2MiB: Bool = false, currentPage: UInt16 = 0) {
        rawValue =
            UInt64(currentPage & 0xfff) | (frame & 0xff_ffff_ffff) &<< 12 | UInt64(operation.rawValue & 15) &<< 52
            | (is2MiB ? 1 << 56 : 0)
    }

    /// Progress inside a 2 MiB entry, in 4 KiB pages.
    public var currentPage: UInt16 {
        get { UInt16(truncatingIfNeeded: rawValue & 0xfff) }
        set { rawValue = rawValue & ~0xfff | UInt64(newValue & 0xfff) }
    }
    /// Guest frame number, 4 KiB units.
    public var frame: UInt64 { rawValue &>> 12 & 0xff_ffff_ffff }
    public var operation: PageStateOperation {
        PageStateOperation(rawValue: UInt8(truncatingIfNeeded: rawValue &>> 52 & 15))
    }
    public var is2MiB: Bool { rawValue &>> 56 & 1 != 0 }
}

/// Results in SW_EXITINFO2 of a page state change; 0 is success [GHCB 4.1.6].
public struct PageStateChangeResult: RawRepresentable, Hashable, Sendable {
    public var rawValue: UInt64
    public init(rawValue: UInt64) { self.rawValue = rawValue }

    public static let success = PageStateChangeResult(rawValue: 0)
    public static let invalidHeader = PageStateChangeResult(rawValue: 0x1_0000_0001)
    public static let invalidEntry = PageStateChangeResult(rawValue: 0x1_0000_0002)
    /// The VMM refused, or nobody handles the request.
    public static let generic = PageStateChangeResult(rawValue: 0x100_0000_0000)
}
