// Bits of long-mode page-table entries.

/// Page-table entry bits [APM2 5.4]. The C-bit's position is a property of the processor, not of the format.
public enum PageTableEntry {
    public static let present: UInt64 = 1 << 0
    public static let writable: UInt64 = 1 << 1
    public static let user: UInt64 = 1 << 2
    public static let writeThrough: UInt64 = 1 << 3
    public static let cacheDisable: UInt64 = 1 << 4
    public static let accessed: UInt64 = 1 << 5
    public static let dirty: UInt64 = 1 << 6
    /// PS: this entry of level 2 or 3 maps a large page.
    public static let largePage: UInt64 = 1 << 7
    public static let global: UInt64 = 1 << 8
    public static let noExecute: UInt64 = 1 << 63
}
