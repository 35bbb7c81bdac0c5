// The facts of one host, and the file that they travel in:
//
//     {"format":"swift-snp-vmm host facts 1","facts":{"cpu.vendor":"AuthenticAMD","msr.syscfg":"0x3f40000",
//      "msr.rmpBase":{"unreadable":"EACCES"},"limit.memlock":8388608,…}}
//
// A fact that is absent was not looked for. The file holds no address of a machine, no user and no key; the chip's id, which
// names the machine to AMD, only where it was asked for. It comes from strangers: every name and value is checked.

import JSONText

/// What is known of a host.
public struct HostFacts: Equatable, Sendable {
    private var values: [HostFact: HostValue] = [:]

    public init() {}

    /// A value; nil where nobody looked.
    public subscript(fact: HostFact) -> HostValue? {
        get { values[fact] }
        set { values[fact] = newValue }
    }

    public func number(_ fact: HostFact) -> UInt64? {
        if case .number(let value)? = values[fact] { value } else { nil }
    }

    public func flag(_ fact: HostFact) -> Bool? {
        if case .flag(let value)? = values[fact] { value } else { nil }
    }

    public func text(_ fact: HostFact) -> String? {
        if case .text(let value)? = values[fact] { value } else { nil }
    }

    /// "not recorded", "unreadable: EACCES".
    public func absence(of fact: HostFact) -> String {
        if case .unreadable(let reason)? = values[fact] { "unreadable: \(reason)" } else { "not recorded" }
    }

    /// Facts of another look at the same host take the place of these.
    public mutating func merge(_ other: HostFacts) { values.merge(other.values) { $1 } }

    // MARK: The file

    public static let format = "swift-snp-vmm host facts 1"
    /// No text of a fact is longer.
    public static let maximumTextByteCount = 512

    /// What is wrong with a file.
    public struct Failure: Error, Equatable, Sendable, CustomStringConvertible {
        public let description: String
        public init(_ description: String) { self.description = description }
    }

    /// - Parameter text: UTF-8.
    public init(json text: [UInt8]) throws(Failure) {
        let value: JSONInput
        do { value = try JSONInput(text: text) } catch { throw Failure("line \(error.line): \(error.found)") }
        guard case .object(let members) = value else { throw Failure("something else than an object") }
        guard value["format"] == .string(Self.format) else {
            throw Failure("no \"format\":\"\(Self.format)\"")
        }
        for member in members where member.name != "format" && member.name != "facts" {
            throw Failure("the unknown member \"\(member.name.prefix(64))\"")
        }
        guard let facts = value["facts"] else { throw Failure("no \"facts\"") }
        try self.init(facts)
    }

    /// From the object of facts alone.
    public init(_ object: JSONInput) throws(Failure) {
        guard case .object(let members) = object else { throw Failure("facts that are no object") }
        for member in members {
            guard let fact = HostFact(rawValue: member.name) else {
                throw Failure("the unknown fact \"\(member.name.prefix(64))\"")
            }
            guard let value = Self.value(member.value, fact.kind) else {
                throw Failure("\(fact.rawValue): a value that is no \(fact.kind)")
            }
            values[fact] = value
        }
    }

    private static func value(_ input: JSONInput, _ kind: HostFact.Kind) -> HostValue? {
        switch (kind, input) {
        case (_, .object(let members)):
            guard members.count == 1, case .string(let reason)? = input["unreadable"], isPlain(reason) else {
                return nil
            }
            return .unreadable(reason)
        case (.number, .number(let number)), (.mask, .number(let number)): return .number(number)
        case (.number, .string(let text)), (.mask, .string(let text)):
            guard text.hasPrefix("0x"), text.utf8.count <= 18, text.dropFirst(2).allSatisfy(\.isHexDigit) else {
                return nil
            }
            return UInt64(text.dropFirst(2), radix: 16).map { .number($0) }
        case (.flag, .bool(let flag)): return .flag(flag)
        case (.text, .string(let text)): return isPlain(text) ? .text(text) : nil
        default: return nil
        }
    }

    /// Short, and without control characters: it goes to a terminal.
    private static func isPlain(_ text: String) -> Bool {
        text.utf8.count <= maximumTextByteCount
            && text.unicodeScalars.allSatisfy {
                $0.value >= 0x20 && !(0x7f...0x9f).contains($0.value) && !isBidirectional($0)
            }
    }

    /// Marks that turn the writing direction, with which a text could look like another.
    private static func isBidirectional(_ scalar: Unicode.Scalar) -> Bool {
        (0x200e...0x200f).contains(scalar.value) || (0x202a...0x202e).contains(scalar.value)
            || (0x2066...0x2069).contains(scalar.value)
    }

    /// A text as a fact can have it: cut, and without what ``init(json:)`` refuses.
    public static func plain(_ text: some StringProtocol) -> HostValue {
        var kept = String.UnicodeScalarView()
        var byteCount = 0
        for scalar in text.unicodeScalars where isPlain(String(scalar)) {
            byteCount += scalar.utf8.count
            if byteCount > maximumTextByteCount { break }
            kept.append(scalar)
        }
        return .text(String(kept))
    }

    /// In the order of the table of facts.
    public var json: JSONObject {
        var facts = JSONObject()
        for fact in HostFact.allCases {
            switch values[fact] {
            case .number(let value)?:
                if fact.kind == .mask { facts.add(fact.rawValue, hex: value) } else { facts.add(fact.rawValue, value) }
            case .flag(let value)?: facts.add(fact.rawValue, value)
            case .text(let value)?: facts.add(fact.rawValue, value)
            case .unreadable(let reason)?:
                var object = JSONObject()
                object.add("unreadable", reason)
                facts.add(fact.rawValue, object)
            case nil: break
            }
        }
        var object = JSONObject()
        object.add("format", Self.format)
        object.add("facts", facts)
        return object
    }
}
