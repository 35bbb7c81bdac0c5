// Fields at fixed offsets of a structure whose length has been checked once: the one way this module reads and writes.

import ABILayout

extension [UInt8] {
    /// The little-endian integer at `offset`; programmer error when it is not wholly inside.
    func field<T: FixedWidthInteger & UnsignedInteger>(_ offset: Int, as type: T.Type = T.self) -> T {
        guard let value = littleEndian(at: offset, as: T.self) else {
            preconditionFailure("no field at offset \(offset) of \(count) bytes")
        }
        return value
    }

    /// Stores a little-endian integer at `offset`; programmer error when it does not fit.
    mutating func setField<T: FixedWidthInteger & UnsignedInteger>(_ offset: Int, _ value: T) {
        storeLittleEndian(value, at: offset)
    }

    /// Replaces bytes from `offset` on; the rest stays.
    mutating func setBytes(_ offset: Int, _ bytes: [UInt8]) {
        for (index, byte) in bytes.enumerated() { self[offset &+ index] = byte }
    }

    /// True when every byte of the range is zero: reserved fields.
    func isZero(_ range: Range<Int>) -> Bool {
        self[range].allSatisfy { $0 == 0 }
    }
}
