// Bytes and numbers for people.

/// Lower-case digits without separators.
func hexText(_ bytes: some Sequence<UInt8>) -> String {
    let digits = Array("0123456789abcdef".utf8)
    var text: [UInt8] = []
    for byte in bytes {
        text.append(digits[Int(byte >> 4)])
        text.append(digits[Int(byte & 15)])
    }
    return String(decoding: text, as: UTF8.self)
}

func hexText(_ value: some BinaryInteger) -> String { "0x" + String(value, radix: 16) }

/// A file's name or other foreign text for a terminal: what could move the cursor or turn the line around is shown as its
/// number.
public func printable(_ text: String) -> String {
    var result = ""
    for scalar in text.unicodeScalars {
        switch scalar.value {
        case 0..<0x20, 0x7f..<0xa0, 0x200e, 0x200f, 0x2028...0x202e, 0x2066...0x2069, 0xfffd:
            result += "\\u{" + String(scalar.value, radix: 16) + "}"
        default: result.unicodeScalars.append(scalar)
        }
    }
    return result
}

/// A moment as `2026-11-23 10:15:00 UTC`.
///
/// - Parameter seconds: Since 1970-01-01 UTC.
public func utcText(_ seconds: Int64) -> String {
    // Civil date from days, proleptic Gregorian calendar; Euclidean division, since times before 1970 exist.
    func divided(_ a: Int64, _ b: Int64) -> (Int64, Int64) {
        let remainder = ((a % b) &+ b) % b
        return ((a &- remainder) / b, remainder)
    }
    let (days, second) = divided(seconds, 86400)
    let (era, dayOfEra) = divided(days &+ 719_468, 146_097)
    let yearOfEra = (dayOfEra - dayOfEra / 1460 + dayOfEra / 36524 - dayOfEra / 146_096) / 365
    let dayOfYear = dayOfEra - (365 * yearOfEra + yearOfEra / 4 - yearOfEra / 100)
    let shiftedMonth = (5 * dayOfYear + 2) / 153
    let day = dayOfYear - (153 * shiftedMonth + 2) / 5 + 1
    let month = shiftedMonth < 10 ? shiftedMonth + 3 : shiftedMonth - 9
    let year = yearOfEra &+ era &* 400 &+ (month <= 2 ? 1 : 0)
    func two(_ value: Int64) -> String { value < 10 ? "0\(value)" : "\(value)" }
    return "\(year)-\(two(month))-\(two(day)) \(two(second / 3600)):\(two(second / 60 % 60)):\(two(second % 60)) UTC"
}
