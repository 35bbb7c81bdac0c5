// The running digest of an SNP launch.

/// LD: 48 bytes that start as zero and become SHA-384(PAGE_INFO) with every page [SNP 8.17.2].
public struct LaunchDigest: Equatable, Hashable, Sendable, CustomStringConvertible {
    public static let byteCount = 48
    public var bytes: [48 of UInt8]

    /// The digest before the first page.
    public init() { bytes = .init(repeating: 0) }

    public init(_ bytes: [48 of UInt8]) { self.bytes = bytes }

    /// Returns nil unless there are exactly 48 bytes.
    public init?(_ bytes: [UInt8]) {
        guard bytes.count == Self.byteCount else { return nil }
        self.bytes = .init { bytes[$0] }
    }

    /// The 48 bytes as an array.
    public var array: [UInt8] { bytes.indices.map { bytes[$0] } }

    public static func == (a: Self, b: Self) -> Bool {
        for index in 0..<byteCount where a.bytes[index] != b.bytes[index] { return false }
        return true
    }

    public func hash(into hasher: inout Hasher) {
        for index in 0..<Self.byteCount { hasher.combine(bytes[index]) }
    }

    /// 96 lower-case hexadecimal digits.
    public var description: String {
        let digits = Array("0123456789abcdef".utf8)
        var text: [UInt8] = []
        for index in 0..<Self.byteCount {
            text.append(digits[Int(bytes[index] &>> 4)])
            text.append(digits[Int(bytes[index] & 15)])
        }
        return String(decoding: text, as: UTF8.self)
    }
}
