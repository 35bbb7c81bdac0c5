// How a secret is named.

/// The name of a secret: 1 to 255 of the characters `A-Z a-z 0-9 . _ - /`.
///
/// So it can stand in a path, a log line and a URL as it is. Whoever keeps secrets by name compares names; none of them is
/// ever opened as a file.
public struct SecretID: Hashable, Sendable, CustomStringConvertible {
    public static let maximumByteCount = 255

    public let text: String

    /// Returns nil for another length or other characters.
    public init?(_ text: String) { self.init(bytes: Array(text.utf8)) }

    /// Returns nil for another length or other characters.
    public init?(bytes: [UInt8]) {
        guard (1...Self.maximumByteCount).contains(bytes.count), bytes.allSatisfy(Self.isAllowed) else { return nil }
        text = String(decoding: bytes, as: UTF8.self)
    }

    /// As on the wire.
    public var bytes: [UInt8] { Array(text.utf8) }

    public var description: String { text }

    private static func isAllowed(_ byte: UInt8) -> Bool {
        switch byte {
        case UInt8(ascii: "A")...UInt8(ascii: "Z"), UInt8(ascii: "a")...UInt8(ascii: "z"),
            UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "."), UInt8(ascii: "_"), UInt8(ascii: "-"),
            UInt8(ascii: "/"):
            true
        default: false
        }
    }
}
