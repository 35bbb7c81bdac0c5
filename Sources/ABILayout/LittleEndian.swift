// Little-endian integers in byte arrays. Reads are checked: offsets often come from an image, a guest or a report.
//
// Inlinable: other modules make whole pages of them, a VMSA at every exit of a SEV-ES guest, and unspecialised each byte
// would cost a dozen calls.

extension Collection where Element == UInt8, Index == Int {
    /// The little-endian integer at `offset` bytes from the start, or nil if it does not lie wholly inside.
    @inlinable
    public func littleEndian<Value: FixedWidthInteger>(at offset: Int, as type: Value.Type = Value.self) -> Value? {
        let byteCount = Value.bitWidth / 8
        guard offset >= 0, byteCount <= count, offset <= count &- byteCount else { return nil }
        var value = Value.zero
        var position = startIndex &+ offset &+ byteCount
        for _ in 0..<byteCount {
            position &-= 1
            // A one-byte Value shifted by eight is zero with the smart shift, which is what we want.
            value = (value << 8) | Value(truncatingIfNeeded: self[position])
        }
        return value
    }
}

extension Array where Element == UInt8 {
    /// Appends the value's bytes, lowest first.
    @inlinable
    public mutating func appendLittleEndian<Value: FixedWidthInteger>(_ value: Value) {
        var rest = value
        for _ in 0..<(Value.bitWidth / 8) {
            append(UInt8(truncatingIfNeeded: rest))
            rest >>= 8
        }
    }

    /// Replaces the bytes at `offset` by the value's, lowest first; programmer error if they do not lie inside.
    @inlinable
    public mutating func storeLittleEndian<Value: FixedWidthInteger>(_ value: Value, at offset: Int) {
        let byteCount = Value.bitWidth / 8
        precondition(offset >= 0 && byteCount <= count && offset <= count - byteCount, "store outside the array")
        var rest = value
        for i in 0..<byteCount {
            self[offset &+ i] = UInt8(truncatingIfNeeded: rest)
            rest >>= 8
        }
    }
}
