// Bytes as text [RFC 4648].

/// Base64.
public enum Base64 {
    public enum Form: Sendable {
        /// `+`, `/` and padding [RFC 4648 4].
        case standard
        /// `-`, `_` and no padding [RFC 4648 5], as JOSE has it.
        case url
    }

    private static let letters = Array("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789".utf8)

    /// One line.
    public static func encode(_ bytes: [UInt8], _ form: Form = .standard) -> String {
        let alphabet = letters + Array((form == .url ? "-_" : "+/").utf8)
        var text: [UInt8] = []
        text.reserveCapacity((bytes.count + 2) / 3 * 4)
        for start in stride(from: 0, to: bytes.count, by: 3) {
            let group = bytes[start..<min(start + 3, bytes.count)]
            var bits: UInt32 = 0
            for index in 0..<3 { bits = bits << 8 | UInt32(index < group.count ? group[start + index] : 0) }
            for index in 0...group.count { text.append(alphabet[Int(bits >> UInt32(18 - 6 * index) & 63)]) }
        }
        if form == .standard { while text.count % 4 != 0 { text.append(UInt8(ascii: "=")) } }
        return String(decoding: text, as: UTF8.self)
    }

    /// Nil for other characters, padding that is not as the form has it, a length that no bytes have, or bits behind the
    /// last byte that are not zero.
    public static func decode(_ text: some Collection<UInt8>, _ form: Form = .standard) -> [UInt8]? {
        var digits = text[...]
        if form == .standard {
            guard text.count % 4 == 0 else { return nil }
            let padding = text.suffix(2).count { $0 == UInt8(ascii: "=") }
            digits = digits.dropLast(padding)
        }
        let (plus, slash) =
            form == .url ? (UInt8(ascii: "-"), UInt8(ascii: "_")) : (UInt8(ascii: "+"), UInt8(ascii: "/"))
        var bytes: [UInt8] = []
        bytes.reserveCapacity(text.count / 4 * 3 + 2)
        var bits: UInt32 = 0
        var count: UInt32 = 0
        for digit in digits {
            let value: UInt8
            switch digit {
            case UInt8(ascii: "A")...UInt8(ascii: "Z"): value = digit - UInt8(ascii: "A")
            case UInt8(ascii: "a")...UInt8(ascii: "z"): value = digit - UInt8(ascii: "a") + 26
            case UInt8(ascii: "0")...UInt8(ascii: "9"): value = digit - UInt8(ascii: "0") + 52
            case plus: value = 62
            case slash: value = 63
            default: return nil
            }
            bits = bits << 6 | UInt32(value)
            count += 6
            if count >= 8 {
                count -= 8
                bytes.append(UInt8(truncatingIfNeeded: bits >> count))
                bits &= (1 << count) - 1
            }
        }
        return count < 6 && bits == 0 ? bytes : nil
    }
}
