// Writes IGVM files, apart from the reader: headers in any order, and a checksum that can be right.

/// An IGVM file under construction.
public struct IGVMBuilder: Sendable {
    public var version: UInt32 = 1
    /// Whole headers, padding included.
    public var headers: [UInt8] = []
    /// What lies behind the headers.
    public var data: [UInt8] = []
    /// Where headers begin.
    public var headerOffset: UInt32 { version == 1 ? 24 : 32 }

    public init() {}

    /// Adds a header: its contents are fields of these widths, little-endian.
    public mutating func add(_ type: UInt32, _ fields: [(value: UInt64, byteCount: Int)]) {
        var contents: [UInt8] = []
        for field in fields {
            for index in 0..<field.byteCount {
                contents.append(UInt8(truncatingIfNeeded: field.value >> UInt64(8 * index)))
            }
        }
        append(type)
        append(UInt32(contents.count))
        headers += contents + [UInt8](repeating: 0, count: (8 - contents.count % 8) % 8)
    }

    public mutating func addPlatform(mask: UInt64, type: UInt64) {
        add(0x001, [(mask, 4), (2, 1), (type, 1), (1, 2), (0, 8)])
    }

    public mutating func addPage(
        gpa: UInt64, mask: UInt64 = 1, offset: UInt64 = 0, flags: UInt64 = 0, dataType: UInt64 = 0
    ) {
        add(0x302, [(gpa, 8), (mask, 4), (offset, 4), (flags, 4), (dataType, 2), (0, 2)])
    }

    private mutating func append(_ value: UInt32) {
        for index in 0..<4 { headers.append(UInt8(truncatingIfNeeded: value >> UInt32(8 * index))) }
    }

    /// The file. `data` lies at the next multiple of 8 behind the headers.
    public var bytes: [UInt8] {
        var file = Array("IGVM".utf8)
        func word(_ value: UInt32) -> [UInt8] { (0..<4).map { UInt8(truncatingIfNeeded: value >> UInt32(8 * $0)) } }
        file += word(version) + word(headerOffset) + word(UInt32(headers.count))
        file += word(headerOffset + UInt32(headers.count + data.count)) + word(0)
        if version != 1 { file += word(0) + word(4096) }
        return Self.withChecksum(file + headers + data)
    }

    /// Where `data` begins.
    public var dataOffset: UInt64 { UInt64(headerOffset) + UInt64(headers.count) }

    /// The same file with the checksum that its headers have, as far as they lie in it.
    public static func withChecksum(_ file: [UInt8]) -> [UInt8] {
        func word(_ offset: Int) -> Int {
            (0..<4).reduce(0) { $0 | Int(file[offset + $1]) << (8 * $1) }
        }
        guard file.count >= 24 else { return file }
        let (start, count) = (word(8), word(12))
        guard start >= 24, start + count <= file.count else { return file }
        var checked = Array(file[0..<20]) + [0, 0, 0, 0]
        if word(4) != 1, file.count >= 32 { checked += file[24..<32] }
        checked += file[start..<(start + count)]
        var table = [UInt32](repeating: 0, count: 256)
        for index in table.indices {
            table[index] = (0..<8).reduce(UInt32(index)) { value, _ in
                value & 1 == 1 ? 0xedb8_8320 ^ (value >> 1) : value >> 1
            }
        }
        let sum = ~checked.reduce(UInt32.max) { table[Int(($0 ^ UInt32($1)) & 0xff)] ^ ($0 >> 8) }
        var file = file
        for index in 0..<4 { file[20 + index] = UInt8(truncatingIfNeeded: sum >> UInt32(8 * index)) }
        return file
    }
}
