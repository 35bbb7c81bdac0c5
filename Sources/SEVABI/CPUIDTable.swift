// The CPUID page: the table of CPUID values that a guest believes because the firmware has checked it.

/// One entry, 0x30 bytes [SNP 8.17.2.6].
public struct CPUIDTableEntry: Equatable, Hashable, Sendable {
    public static let byteCount = 0x30

    /// EAX_IN: the function (leaf).
    public var function: UInt32
    /// ECX_IN: the index (sub-leaf); 0 where it has no meaning.
    public var index: UInt32
    public var xcr0: UInt64
    public var xss: UInt64
    public var eax: UInt32
    public var ebx: UInt32
    public var ecx: UInt32
    public var edx: UInt32

    public init(
        function: UInt32, index: UInt32 = 0, xcr0: UInt64 = 0, xss: UInt64 = 0,
        eax: UInt32 = 0, ebx: UInt32 = 0, ecx: UInt32 = 0, edx: UInt32 = 0
    ) {
        self.function = function
        self.index = index
        self.xcr0 = xcr0
        self.xss = xss
        self.eax = eax
        self.ebx = ebx
        self.ecx = ecx
        self.edx = edx
    }

    init(_ bytes: [UInt8], at offset: Int) {
        function = bytes.field(offset)
        index = bytes.field(offset &+ 0x04)
        xcr0 = bytes.field(offset &+ 0x08)
        xss = bytes.field(offset &+ 0x10)
        eax = bytes.field(offset &+ 0x18)
        ebx = bytes.field(offset &+ 0x1c)
        ecx = bytes.field(offset &+ 0x20)
        edx = bytes.field(offset &+ 0x24)
    }

    func store(_ bytes: inout [UInt8], at offset: Int) {
        bytes.setField(offset, function)
        bytes.setField(offset &+ 0x04, index)
        bytes.setField(offset &+ 0x08, xcr0)
        bytes.setField(offset &+ 0x10, xss)
        bytes.setField(offset &+ 0x18, eax)
        bytes.setField(offset &+ 0x1c, ebx)
        bytes.setField(offset &+ 0x20, ecx)
        bytes.setField(offset &+ 0x24, edx)
    }
}

/// The page [SNP 8.17.2.6]: COUNT u32, 12 zero bytes, then up to 64 entries.
public struct CPUIDTable: Equatable, Sendable {
    public static let byteCount = 4096
    public static let maximumEntryCount = 64

    /// At most 64; more is a programmer error when written.
    public var entries: [CPUIDTableEntry]

    public init(entries: [CPUIDTableEntry]) { self.entries = entries }

    /// Returns nil unless there are 4096 bytes, COUNT is at most 64 and the bytes after it are zero.
    /// Bytes behind the last entry do not count.
    public init?(bytes: [UInt8]) {
        guard bytes.count == Self.byteCount else { return nil }
        let count: UInt32 = bytes.field(0)
        guard count <= UInt32(Self.maximumEntryCount), bytes.isZero(4..<16) else { return nil }
        entries = (0..<Int(count)).map { CPUIDTableEntry(bytes, at: 16 &+ $0 &* CPUIDTableEntry.byteCount) }
    }

    /// 4096 bytes, zero behind the last entry.
    public var bytes: [UInt8] {
        precondition(
            entries.count <= Self.maximumEntryCount, "a CPUID page has room for 64 entries, not \(entries.count)")
        var bytes = [UInt8](repeating: 0, count: Self.byteCount)
        bytes.setField(0, UInt32(entries.count))
        for (index, entry) in entries.enumerated() { entry.store(&bytes, at: 16 &+ index &* CPUIDTableEntry.byteCount) }
        return bytes
    }
}
