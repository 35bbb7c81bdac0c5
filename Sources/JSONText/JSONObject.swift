// JSON as text: an object is built in the order of its keys and never read back.

/// One JSON object under construction.
public struct JSONObject: Sendable {
    private var members: [String] = []

    public init() {}

    /// The finished text, on one line.
    public var text: String { "{" + members.joined(separator: ",") + "}" }
    public var isEmpty: Bool { members.isEmpty }

    public mutating func add(_ key: String, _ value: String) {
        members.append(Self.quote(key) + ":" + Self.quote(value))
    }
    public mutating func add(_ key: String, _ value: some BinaryInteger) {
        members.append(Self.quote(key) + ":\(value)")
    }
    public mutating func add(_ key: String, _ value: Bool) { members.append(Self.quote(key) + ":\(value)") }
    public mutating func add(_ key: String, _ value: JSONObject) { members.append(Self.quote(key) + ":" + value.text) }
    public mutating func add(_ key: String, _ values: [JSONObject]) {
        members.append(Self.quote(key) + ":[" + values.map(\.text).joined(separator: ",") + "]")
    }
    public mutating func add(_ key: String, _ values: [String]) {
        members.append(Self.quote(key) + ":[" + values.map(Self.quote).joined(separator: ",") + "]")
    }
    /// All members of another object, at the end.
    public mutating func merge(_ other: JSONObject) { members += other.members }
    /// Addresses, bits and other numbers that people read in hex.
    public mutating func add(_ key: String, hex value: some BinaryInteger) { add(key, hex(value)) }

    private func hex(_ value: some BinaryInteger) -> String { "0x" + String(value, radix: 16) }

    /// A string literal [RFC 8259 7], in the one form that canonical JSON has for it [RFC 8785 3.2.2.2].
    public static func quote(_ text: String) -> String {
        var result = "\""
        for scalar in text.unicodeScalars {
            switch scalar {
            case "\"": result += "\\\""
            case "\\": result += "\\\\"
            case "\n": result += "\\n"
            case "\r": result += "\\r"
            case "\t": result += "\\t"
            case "\u{8}": result += "\\b"
            case "\u{c}": result += "\\f"
            case _ where scalar.value < 0x20:
                let digits = String(scalar.value, radix: 16)
                result += "\\u" + String(repeating: "0", count: 4 - digits.count) + digits
            default: result.unicodeScalars.append(scalar)
            }
        }
        return result + "\""
    }
}
