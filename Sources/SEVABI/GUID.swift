// GUIDs in the mixed byte order that firmware stores them in.

/// A GUID in its 16 stored bytes: the first three fields little-endian, the rest as written.
public struct GUID: Hashable, Sendable, CustomStringConvertible {
    public static let byteCount = 16
    public let bytes: [UInt8]

    /// From 16 stored bytes; another number is a programmer error.
    public init(stored bytes: [UInt8]) {
        precondition(bytes.count == Self.byteCount, "a GUID has 16 bytes")
        self.bytes = bytes
    }

    /// The usual text form, 8-4-4-4-12 hexadecimal digits in either case; nil for anything else.
    public init?(text: String) {
        let groups = text.split(separator: "-", omittingEmptySubsequences: false)
        guard groups.map(\.utf8.count) == [8, 4, 4, 4, 12] else { return nil }
        var plain: [UInt8] = []
        var high: UInt8?
        for character in groups.joined() {
            guard character.isASCII, let value = character.hexDigitValue else { return nil }
            let digit = UInt8(truncatingIfNeeded: value)
            if let first = high {
                plain.append(first << 4 | digit)
                high = nil
            } else {
                high = digit
            }
        }
        bytes = Self.storedOrder.map { plain[$0] }
    }

    /// From the text form of a constant. A wrong text is a programmer error.
    public init(_ text: StaticString) {
        guard let guid = GUID(text: "\(text)") else { preconditionFailure("a GUID is 8-4-4-4-12 hexadecimal digits") }
        self = guid
    }

    /// 8-4-4-4-12 digits in lower case.
    public var description: String {
        let plain = Self.storedOrder.map { bytes[$0] }
        var text = ""
        for (index, byte) in plain.enumerated() {
            if [4, 6, 8, 10].contains(index) { text += "-" }
            text += (byte < 16 ? "0" : "") + String(byte, radix: 16)
        }
        return text
    }

    /// Where each stored byte stands in the text; its own inverse.
    private static let storedOrder = [3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15]
}
