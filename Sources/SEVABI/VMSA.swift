// The VMSA: the register state a guest with encrypted state is sealed with, entered from and saved to.
//
// One spec table, one list of fields: `VMSA.Fields.swift` has the offsets, this file the accessors. The bytes are the
// truth; translating to and from a `ProcessorState` is in `VMSA+ProcessorState.swift`.

/// The VM save area of SEV-ES and SNP guests [APM2 B.4], 0x670 bytes at the start of an otherwise zero page.
public struct VMSA: Equatable, Sendable {
    /// Bytes that have a meaning.
    public static let byteCount = 0x670
    /// A VMSA fills a page.
    public static let pageByteCount = 4096

    /// Exactly ``byteCount`` bytes.
    public private(set) var bytes: [UInt8]

    /// All zero: no valid state yet.
    public init() { bytes = [UInt8](repeating: 0, count: Self.byteCount) }

    /// Takes the first 0x670 bytes of a page. Returns nil when there are fewer.
    public init?(bytes: [UInt8]) {
        guard bytes.count >= Self.byteCount else { return nil }
        self.bytes = Array(bytes[..<Self.byteCount])
    }

    /// The whole page: the save area and zeroes.
    public var page: [UInt8] { bytes + [UInt8](repeating: 0, count: Self.pageByteCount - Self.byteCount) }

    /// A little-endian field at a fixed offset.
    public struct Field<Value: FixedWidthInteger & UnsignedInteger & Sendable>: Sendable {
        public let offset: Int
        init(_ offset: Int) { self.offset = offset }
    }

    /// A segment: selector u16, attributes u16, limit u32, base u64.
    public struct SegmentField: Sendable {
        public let offset: Int
        init(_ offset: Int) { self.offset = offset }
    }

    /// Reads or writes one field by its table name: `vmsa[VMSA.rip]`.
    public subscript<Value>(field: Field<Value>) -> Value {
        get { bytes.field(field.offset) }
        set { bytes.setField(field.offset, newValue) }
    }

    /// Raw bytes of a range inside the save area (x87, XMM and YMM registers).
    public subscript(range: Range<Int>) -> [UInt8] { Array(bytes[range]) }

    mutating func set(_ offset: Int, _ value: [UInt8]) { bytes.setBytes(offset, value) }
}
