// The forms of DER that certificates need [X.690 8, 10]: definite lengths, always the shortest.

/// Writes DER. Whoever reads it is libcrypto.
public enum DER {
    /// One element: tag, length, contents.
    public static func element(_ tag: UInt8, _ contents: [UInt8]) -> [UInt8] {
        let count = contents.count
        if count < 0x80 { return [tag, UInt8(count)] + contents }
        var length: [UInt8] = []
        var rest = count
        while rest > 0 {
            length.insert(UInt8(truncatingIfNeeded: rest), at: 0)
            rest >>= 8
        }
        // Safe: an Int has at most 8 bytes.
        return [tag, 0x80 | UInt8(length.count)] + length + contents
    }

    /// SEQUENCE.
    public static func sequence(_ parts: [[UInt8]]) -> [UInt8] { element(0x30, Array(parts.joined())) }

    /// SEQUENCE.
    public static func sequence(_ parts: [UInt8]...) -> [UInt8] { sequence(parts) }

    /// SET of one element: as names are made.
    static func set(_ part: [UInt8]) -> [UInt8] { element(0x31, part) }

    /// A context-specific tag around another element.
    static func explicit(_ number: UInt8, _ contents: [UInt8]) -> [UInt8] { element(0xa0 | number, contents) }

    /// INTEGER from a number without sign, most significant byte first; leading zeroes are fine.
    public static func integer(bigEndian bytes: [UInt8]) -> [UInt8] {
        let digits = Array(bytes.drop { $0 == 0 })
        guard let first = digits.first else { return element(0x02, [0]) }
        return element(0x02, first >= 0x80 ? [0] + digits : digits)
    }

    /// INTEGER.
    public static func integer(_ value: UInt64) -> [UInt8] {
        integer(bigEndian: (0..<8).map { UInt8(truncatingIfNeeded: value &>> UInt64(56 &- 8 &* $0)) })
    }

    /// BOOLEAN TRUE.
    public static let yes: [UInt8] = [0x01, 0x01, 0xff]
    /// NULL.
    static let null: [UInt8] = [0x05, 0x00]

    /// BIT STRING of whole bytes.
    static func bits(_ bytes: [UInt8], unused: UInt8 = 0) -> [UInt8] { element(0x03, [unused] + bytes) }

    /// OCTET STRING.
    public static func octets(_ bytes: [UInt8]) -> [UInt8] { element(0x04, bytes) }

    /// IA5String; the text must be ASCII.
    public static func ia5(_ text: String) -> [UInt8] {
        precondition(text.utf8.allSatisfy { $0 < 0x80 }, "an IA5String is ASCII")
        return element(0x16, Array(text.utf8))
    }

    /// OBJECT IDENTIFIER from dotted numbers, which the program has written itself.
    public static func identifier(_ text: String) -> [UInt8] {
        let numbers = text.split(separator: ".", omittingEmptySubsequences: false).map { UInt32($0) ?? .max }
        precondition(
            numbers.count >= 2 && numbers[0] <= 2 && numbers[1] < 40 && !numbers.contains(.max), "an object identifier")
        var bytes = [UInt8(numbers[0] * 40 + numbers[1])]
        for number in numbers.dropFirst(2) {
            var groups = [UInt8(number & 0x7f)]
            var rest = number >> 7
            while rest > 0 {
                groups.insert(0x80 | UInt8(rest & 0x7f), at: 0)
                rest >>= 7
            }
            bytes += groups
        }
        return element(0x06, bytes)
    }

    /// UTCTime of seconds since 1970-01-01 UTC, up to the end of 2049 [RFC 5280 4.1.2.5.1].
    static func utcTime(_ seconds: Int64) -> [UInt8] {
        precondition((0..<2_524_608_000).contains(seconds), "a time of 1970 to 2049")
        let (days, rest) = Int(seconds).quotientAndRemainder(dividingBy: 86400)
        // Civil date from days: years begin in March, so that the day of a leap year comes last.
        let shifted = days + 719_468
        let era = shifted / 146_097
        let day = shifted - era * 146_097
        let year = (day - day / 1460 + day / 36524 - day / 146_096) / 365
        let dayOfYear = day - (365 * year + year / 4 - year / 100)
        let month = (5 * dayOfYear + 2) / 153
        let dayOfMonth = dayOfYear - (153 * month + 2) / 5 + 1
        let civilMonth = month < 10 ? month + 3 : month - 9
        let civilYear = year + era * 400 + (civilMonth <= 2 ? 1 : 0)
        let fields = [civilYear % 100, civilMonth, dayOfMonth, rest / 3600, rest / 60 % 60, rest % 60]
        // Safe: two digits each.
        return element(0x17, fields.flatMap { [UInt8(0x30 + $0 / 10), UInt8(0x30 + $0 % 10)] } + [0x5a])
    }
}
