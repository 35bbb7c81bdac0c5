// Where an image's bytes are: in memory, or in a file that is read piece by piece, so that a kernel of many megabytes is in memory
// once and not in a copy of its file besides.

/// The bytes of an image that nobody has checked yet.
public struct ImageSource: Sendable {
    /// Gives `byteCount` bytes from an offset on, and zeroes behind them up to `paddedByteCount`. Bytes that cannot be read, as of a
    /// file that became shorter, are zero.
    public typealias Reader = @Sendable (_ offset: UInt64, _ byteCount: Int, _ paddedByteCount: Int) -> [UInt8]

    /// All of it.
    public let byteCount: UInt64
    /// Of an image in memory.
    private let bytes: [UInt8]?
    private let reader: Reader

    /// An image in memory.
    public init(_ bytes: [UInt8]) {
        byteCount = UInt64(bytes.count)
        self.bytes = bytes
        reader = { offset, byteCount, paddedByteCount in
            // Safe: read(at:byteCount:paddedTo:) has checked them.
            let part = bytes[Int(offset)..<Int(offset) + byteCount]
            guard paddedByteCount > byteCount else { return Array(part) }
            var copy: [UInt8] = []
            copy.reserveCapacity(paddedByteCount)
            copy += part
            copy += repeatElement(0, count: paddedByteCount - byteCount)
            return copy
        }
    }

    /// An image that is read when it is looked at. Each byte may be read more than once, and may have changed then.
    public init(byteCount: UInt64, reader: @escaping Reader) {
        self.byteCount = byteCount
        bytes = nil
        self.reader = reader
    }

    /// A part of it; the range is inside.
    func part(_ range: Range<UInt64>) -> ImageSource {
        precondition(range.upperBound <= byteCount, "a part of the image")
        if let bytes { return ImageSource(Array(bytes[Int(range.lowerBound)..<Int(range.upperBound)])) }
        return ImageSource(byteCount: range.upperBound - range.lowerBound) { [reader] offset, byteCount, padded in
            reader(range.lowerBound + offset, byteCount, padded)
        }
    }

    /// A copy of bytes that are inside, with zeroes behind them.
    func read(at offset: UInt64, byteCount: Int, paddedTo paddedByteCount: Int = 0) -> [UInt8] {
        precondition(byteCount >= 0 && offset <= self.byteCount && UInt64(byteCount) <= self.byteCount - offset)
        return reader(offset, byteCount, max(byteCount, paddedByteCount))
    }

    /// All of it, in memory.
    public var whole: [UInt8] { bytes ?? read(at: 0, byteCount: Int(byteCount)) }

    /// The beginning, as far as headers go; without a copy where that can be.
    var head: [UInt8] { bytes ?? read(at: 0, byteCount: Int(min(byteCount, 1 << 16))) }
}
