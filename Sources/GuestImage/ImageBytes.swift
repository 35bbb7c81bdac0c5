// Reading an untrusted file, writing our own tables: every offset is checked, every number is little-endian.

/// A file that nobody has checked yet. Reads outside it throw, they never trap.
struct ImageBytes: Sendable {
    let source: ImageSource
    /// The first bytes, which most headers are in.
    private let head: [UInt8]
    /// What the file claims to be, for messages: "bzImage".
    let subject: String

    init(_ source: ImageSource, as subject: String) {
        self.source = source
        head = source.head
        self.subject = subject
    }

    init(_ bytes: [UInt8], as subject: String) { self.init(ImageSource(bytes), as: subject) }

    /// All of it.
    var bytes: [UInt8] { source.whole }

    var count: UInt64 { source.byteCount }

    /// The integer at `offset`.
    func integer<T: FixedWidthInteger & UnsignedInteger>(
        at offset: UInt64, _ field: String, as type: T.Type = T.self
    ) throws(ImageError) -> T {
        let range = try range(at: offset, byteCount: UInt64(T.bitWidth / 8), field)
        var value: T = 0
        for byte in part(range).reversed() { value = (value &<< 8) | T(truncatingIfNeeded: byte) }
        return value
    }

    /// The bytes `offset ..< offset + byteCount`, copied; with `paddedToPage`, zeroes fill the last page in the same copy.
    func copy(
        at offset: UInt64, byteCount: UInt64, _ field: String, paddedToPage: Bool = false
    ) throws(ImageError) -> [UInt8] {
        let range = try range(at: offset, byteCount: byteCount, field)
        return source.read(
            at: UInt64(range.lowerBound), byteCount: range.count,
            paddedTo: paddedToPage ? Int(pageAlignedUp(byteCount)) : 0)
    }

    /// The bytes `offset ..< offset + byteCount` as a source of their own.
    func part(at offset: UInt64, byteCount: UInt64, _ field: String) throws(ImageError) -> ImageSource {
        let range = try range(at: offset, byteCount: byteCount, field)
        return source.part(UInt64(range.lowerBound)..<UInt64(range.upperBound))
    }

    /// True when the bytes at `offset` are there and equal `expected`.
    func has(_ expected: [UInt8], at offset: UInt64) -> Bool {
        guard offset <= count, count - offset >= UInt64(expected.count) else { return false }
        return part(Int(offset)..<Int(offset) + expected.count).elementsEqual(expected)
    }

    /// A few bytes, which are inside.
    private func part(_ range: Range<Int>) -> ArraySlice<UInt8> {
        if range.upperBound <= head.count { return head[range] }
        return source.read(at: UInt64(range.lowerBound), byteCount: range.count)[...]
    }

    /// A range of indices, after the check that all of it is in the file.
    func range(at offset: UInt64, byteCount: UInt64, _ field: String) throws(ImageError) -> Range<Int> {
        let (end, overflow) = offset.addingReportingOverflow(byteCount)
        guard !overflow, end <= count else {
            throw ImageError(
                .truncated, attempt: "read \(field) of the \(subject)", offset: offset, field: field,
                expected: "\(byteCount) bytes there", found: "a file of \(count) bytes",
                likelyCause: "the file is truncated or damaged, or it is no \(subject)",
                nextStep: "compare its size and checksum with the original, then copy it again")
        }
        return Int(offset)..<Int(end)
    }

    /// A refusal of one field.
    func malformed(
        _ field: String, at offset: UInt64? = nil, expected: String, found: String,
        cause: String? = nil, next: String? = nil, category: ImageError.Category = .malformed
    ) -> ImageError {
        ImageError(
            category, attempt: "read the \(subject)", offset: offset, field: field, expected: expected, found: found,
            likelyCause: cause ?? "the file is damaged or was not made by a \(subject) linker",
            nextStep: next ?? "compare its checksum with the original, or make it again")
    }
}

extension [UInt8] {
    /// Stores a little-endian integer inside the array.
    mutating func store<T: FixedWidthInteger & UnsignedInteger>(_ value: T, at offset: Int) {
        for index in 0..<(T.bitWidth / 8) {
            self[offset + index] = UInt8(truncatingIfNeeded: value &>> T(truncatingIfNeeded: 8 * index))
        }
    }

    /// Stores bytes inside the array.
    mutating func store(_ bytes: some Collection<UInt8>, at offset: Int) {
        for (index, byte) in bytes.enumerated() { self[offset + index] = byte }
    }

    /// Appends a little-endian integer.
    mutating func append<T: FixedWidthInteger & UnsignedInteger>(littleEndian value: T) {
        for index in 0..<(T.bitWidth / 8) {
            append(UInt8(truncatingIfNeeded: value &>> T(truncatingIfNeeded: 8 * index)))
        }
    }

    /// The array with zeroes up to the next multiple of a page.
    func paddedToPage() -> [UInt8] {
        let rest = count & 0xfff
        return rest == 0 ? self : self + [UInt8](repeating: 0, count: 0x1000 - rest)
    }
}

/// The next multiple of 4096. The caller has bounded `value` below 2^63.
func pageAlignedUp(_ value: UInt64) -> UInt64 { (value &+ 0xfff) & ~0xfff }
