// JSON [RFC 8259] as policies and descriptions of hosts use it, read strictly: one value, no duplicate names, whole numbers, limited depth.

/// A JSON value.
public indirect enum JSONInput: Equatable, Sendable {
    case null
    case bool(Bool)
    /// 0 to 2^64 - 1; other numbers are refused.
    case number(UInt64)
    case string(String)
    case array([JSONInput])
    /// In the order of the text.
    case object([Member])

    public struct Member: Equatable, Sendable {
        public let name: String
        public let value: JSONInput

        public init(name: String, value: JSONInput) {
            self.name = name
            self.value = value
        }
    }

    /// What was wrong, and where.
    public struct Failure: Error, Equatable, Sendable {
        /// "an object's name twice".
        public let found: String
        /// From 1.
        public let line: Int

        public init(found: String, line: Int) {
            self.found = found
            self.line = line
        }
    }

    /// No text of ours is nested deeper.
    public static let maximumDepth = 32

    /// - Parameter text: UTF-8.
    public init(text: [UInt8]) throws(Failure) {
        var reader = Reader(text: text)
        self = try reader.value(depth: 0)
        reader.skipSpace()
        if reader.position < text.count { throw reader.failure("more text behind the value") }
    }

    /// The member's value; nil for another kind of value, or without such a member.
    public subscript(_ name: String) -> JSONInput? {
        guard case .object(let members) = self else { return nil }
        return members.first { $0.name == name }?.value
    }
}

private struct Reader {
    let text: [UInt8]
    var position = 0

    init(text: [UInt8]) { self.text = text }

    func failure(_ found: String) -> JSONInput.Failure {
        JSONInput.Failure(found: found, line: text.prefix(position).count { $0 == 0x0a } + 1)
    }

    var next: UInt8? { position < text.count ? text[position] : nil }

    mutating func skipSpace() {
        while let byte = next, [0x20, 0x09, 0x0a, 0x0d].contains(byte) { position += 1 }
    }

    mutating func take(_ byte: UInt8) -> Bool {
        skipSpace()
        guard next == byte else { return false }
        position += 1
        return true
    }

    mutating func value(depth: Int) throws(JSONInput.Failure) -> JSONInput {
        guard depth < JSONInput.maximumDepth else { throw failure("more than \(JSONInput.maximumDepth) levels") }
        skipSpace()
        switch next {
        case UInt8(ascii: "{"): return try object(depth)
        case UInt8(ascii: "["): return try array(depth)
        case UInt8(ascii: "\""): return .string(try string())
        case .some(0x30...0x39): return .number(try number())
        default: break
        }
        for (word, value) in [("true", JSONInput.bool(true)), ("false", .bool(false)), ("null", .null)]
        where text[position...].starts(with: word.utf8) {
            position += word.utf8.count
            return value
        }
        throw failure(next == nil ? "the end of the text" : "something that is no value, or no whole number from 0")
    }

    private mutating func object(_ depth: Int) throws(JSONInput.Failure) -> JSONInput {
        position += 1
        var members: [JSONInput.Member] = []
        var names: Set<String> = []
        if take(UInt8(ascii: "}")) { return .object([]) }
        repeat {
            skipSpace()
            guard next == UInt8(ascii: "\"") else { throw failure("something that is no name") }
            let name = try string()
            guard names.insert(name).inserted else { throw failure("the name \"\(name)\" twice") }
            guard take(UInt8(ascii: ":")) else { throw failure("no colon behind a name") }
            members.append(JSONInput.Member(name: name, value: try value(depth: depth + 1)))
        } while take(UInt8(ascii: ","))
        guard take(UInt8(ascii: "}")) else { throw failure("an object that does not end") }
        return .object(members)
    }

    private mutating func array(_ depth: Int) throws(JSONInput.Failure) -> JSONInput {
        position += 1
        var values: [JSONInput] = []
        if take(UInt8(ascii: "]")) { return .array([]) }
        repeat { values.append(try value(depth: depth + 1)) } while take(UInt8(ascii: ","))
        guard take(UInt8(ascii: "]")) else { throw failure("an array that does not end") }
        return .array(values)
    }

    private mutating func number() throws(JSONInput.Failure) -> UInt64 {
        let start = position
        while let byte = next, (0x30...0x39).contains(byte) { position += 1 }
        let digits = text[start..<position]
        if let byte = next, [UInt8(ascii: "."), UInt8(ascii: "e"), UInt8(ascii: "E")].contains(byte) {
            throw failure("a number that is not whole")
        }
        guard digits.count == 1 || digits.first != 0x30, let value = UInt64(String(decoding: digits, as: UTF8.self))
        else { throw failure("a number with a zero in front, or of more than 64 bits") }
        return value
    }

    private mutating func string() throws(JSONInput.Failure) -> String {
        position += 1
        var bytes: [UInt8] = []
        while let byte = next {
            position += 1
            switch byte {
            case UInt8(ascii: "\""):
                guard let string = String(validating: bytes, as: UTF8.self) else {
                    throw failure("a string that is not UTF-8")
                }
                return string
            case UInt8(ascii: "\\"): bytes += try escape()
            case 0..<0x20: throw failure("a control character in a string")
            default: bytes.append(byte)
            }
        }
        throw failure("a string that does not end")
    }

    private mutating func escape() throws(JSONInput.Failure) -> [UInt8] {
        guard let byte = next else { throw failure("a string that does not end") }
        position += 1
        switch byte {
        case UInt8(ascii: "\""), UInt8(ascii: "\\"), UInt8(ascii: "/"): return [byte]
        case UInt8(ascii: "b"): return [0x08]
        case UInt8(ascii: "f"): return [0x0c]
        case UInt8(ascii: "n"): return [0x0a]
        case UInt8(ascii: "r"): return [0x0d]
        case UInt8(ascii: "t"): return [0x09]
        case UInt8(ascii: "u"):
            var code = try unit()
            if (0xd800..<0xdc00).contains(code), text[position...].starts(with: "\\u".utf8) {
                position += 2
                let low = try unit()
                guard (0xdc00..<0xe000).contains(low) else { throw failure("half a surrogate pair") }
                code = 0x10000 + (code - 0xd800) << 10 + (low - 0xdc00)
            }
            guard let scalar = Unicode.Scalar(code) else { throw failure("half a surrogate pair") }
            return Array(String(Character(scalar)).utf8)
        default: throw failure("an escape that JSON does not have")
        }
    }

    private mutating func unit() throws(JSONInput.Failure) -> UInt32 {
        guard position + 4 <= text.count else { throw failure("a string that does not end") }
        var value: UInt32 = 0
        for byte in text[position..<(position + 4)] {
            switch byte {
            case 0x30...0x39: value = value << 4 | UInt32(byte - 0x30)
            case 0x41...0x46: value = value << 4 | UInt32(byte - 0x41 + 10)
            case 0x61...0x66: value = value << 4 | UInt32(byte - 0x61 + 10)
            default: throw failure("an escape that JSON does not have")
            }
        }
        position += 4
        return value
    }
}
