// System physical addresses.

/// A system physical address: where a byte is in the machine's memory. Not a GPA, which is where the guest sees it.
public struct SPA: RawRepresentable, Hashable, Comparable, Sendable, CustomStringConvertible {
    public static let pageByteCount: UInt64 = 4096
    public static let largePageByteCount: UInt64 = 2 << 20
    public static let zero = SPA(rawValue: 0)

    public var rawValue: UInt64
    public init(rawValue: UInt64) { self.rawValue = rawValue }

    /// The frame number, 4 KiB units.
    public var page: UInt64 { rawValue &>> 12 }
    public var isPageAligned: Bool { rawValue & (Self.pageByteCount &- 1) == 0 }
    public var isLargePageAligned: Bool { rawValue & (Self.largePageByteCount &- 1) == 0 }

    /// Wraps around, as the address came from outside and is checked where it is used.
    public static func + (a: SPA, byteCount: UInt64) -> SPA { SPA(rawValue: a.rawValue &+ byteCount) }
    public static func < (a: SPA, b: SPA) -> Bool { a.rawValue < b.rawValue }
    public var description: String { "SPA 0x" + String(rawValue, radix: 16) }
}
