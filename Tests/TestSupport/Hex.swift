// Bytes as text and back, and where two byte strings differ.

extension [UInt8] {
    /// Reads hexadecimal digits; white space and underscores are skipped. Nil for anything else or an odd digit.
    public init?(hex text: String) {
        var bytes: [UInt8] = []
        var high: UInt8?
        for character in text where !character.isWhitespace && character != "_" {
            guard let digit = character.hexDigitValue.map({ UInt8(truncatingIfNeeded: $0) }) else { return nil }
            if let first = high {
                bytes.append(first << 4 | digit)
                high = nil
            } else {
                high = digit
            }
        }
        guard high == nil else { return nil }
        self = bytes
    }

    /// Lower-case digits without separators.
    public var hex: String {
        let digits = Array<Character>("0123456789abcdef")
        return String(flatMap { [digits[Int($0 >> 4)], digits[Int($0 & 15)]] })
    }
}

/// The lines of 16 bytes in which two byte strings differ, at most `limit` of them; nil when they are equal.
public func hexDifference(_ got: [UInt8], _ wanted: [UInt8], limit: Int = 8) -> String? {
    guard got != wanted else { return nil }
    var lines: [String] = []
    if got.count != wanted.count { lines.append("got \(got.count) bytes, wanted \(wanted.count)") }
    for start in stride(from: 0, to: max(got.count, wanted.count), by: 16) where lines.count < limit {
        let left = Array(got.dropFirst(start).prefix(16))
        let right = Array(wanted.dropFirst(start).prefix(16))
        if left != right { lines.append("0x\(String(start, radix: 16)): got \(left.hex) wanted \(right.hex)") }
    }
    return lines.joined(separator: "\n")
}
