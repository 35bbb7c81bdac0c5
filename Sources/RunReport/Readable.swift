// Numbers as people read them.

package enum Readable {
    /// "12 345 678", with narrow spaces that do not break.
    package static func count(_ value: UInt64) -> String {
        let digits = Array("\(value)")
        var result = ""
        for (index, digit) in digits.enumerated() {
            if index > 0, (digits.count - index) % 3 == 0 { result += "\u{202f}" }
            result.append(digit)
        }
        return result
    }

    /// "1 exit", "2 exits".
    package static func counted(_ value: UInt64, _ singular: String) -> String {
        count(value) + "\u{a0}" + (value == 1 ? singular : singular + "s")
    }

    /// "0x1000000".
    package static func hex(_ value: UInt64) -> String { "0x" + String(value, radix: 16) }

    /// "520 B", "14.2 MiB", "512 MiB".
    package static func bytes(_ value: UInt64) -> String {
        let units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"]
        var unit = 0
        while unit + 1 < units.count, value >> UInt64(10 * (unit + 1)) > 0 { unit += 1 }
        let scale = UInt64(1) << UInt64(10 * unit)
        let whole = value / scale
        let rest = value % scale
        // Safe: rest is below 2^60.
        let tenth = rest == 0 || whole >= 100 ? 0 : rest / max(1, scale / 10)
        return "\(whole)" + (tenth > 0 ? ".\(min(tenth, 9))" : "") + "\u{a0}" + units[unit]
    }

    /// "850 ns", "85.2 µs", "12.3 ms", "4.56 s", "3 min 20 s", "5 h 12 min".
    package static func duration(_ nanoseconds: UInt64) -> String {
        switch nanoseconds {
        case ..<1000: return "\(nanoseconds)\u{a0}ns"
        case ..<1_000_000: return decimal(nanoseconds, 1000) + "\u{a0}µs"
        case ..<1_000_000_000: return decimal(nanoseconds, 1_000_000) + "\u{a0}ms"
        case ..<120_000_000_000: return decimal(nanoseconds, 1_000_000_000) + "\u{a0}s"
        default:
            let seconds = nanoseconds / 1_000_000_000
            if seconds < 7200 { return "\(seconds / 60)\u{a0}min \(seconds % 60)\u{a0}s" }
            if seconds < 360_000 { return "\(seconds / 3600)\u{a0}h \(seconds / 60 % 60)\u{a0}min" }
            return "\(count(seconds / 86400))\u{a0}days"
        }
    }

    /// Three digits: "1.23", "12.3", "123".
    private static func decimal(_ value: UInt64, _ unit: UInt64) -> String {
        let whole = value / unit
        let hundredths = value % unit * 100 / unit
        switch whole {
        case 100...: return "\(whole)"
        case 10...: return "\(whole).\(hundredths / 10)"
        default: return "\(whole)." + (hundredths < 10 ? "0" : "") + "\(hundredths)"
        }
    }

    /// "12.3 %" of a whole; "< 0.1 %" for what is there and hardly visible.
    package static func share(_ part: UInt64, of whole: UInt64) -> String {
        guard whole > 0 else { return "" }
        let permille = Int(min(1000, (Double(part) / Double(whole) * 1000).rounded()))
        if permille == 0 { return part == 0 ? "0\u{a0}%" : "<\u{a0}0.1\u{a0}%" }
        return permille >= 100 ? "\((permille + 5) / 10)\u{a0}%" : "\(permille / 10).\(permille % 10)\u{a0}%"
    }

    /// For an SVG or CSS attribute: at most three decimals, never an exponent.
    package static func coordinate(_ value: Double) -> String {
        guard value.isFinite, abs(value) < 1e9 else { return "0" }
        let scaled = Int((value * 1000).rounded())
        let magnitude = abs(scaled)
        let sign = scaled < 0 ? "-" : ""
        let digits = "\(magnitude % 1000)"
        let fraction = String(repeating: "0", count: 3 - digits.count) + digits
        let trimmed = String(fraction.reversed().drop { $0 == "0" }.reversed())
        return sign + "\(magnitude / 1000)" + (trimmed.isEmpty ? "" : "." + trimmed)
    }

    static func percent(_ value: Double) -> String { coordinate(min(100, max(0, value))) + "%" }

    /// The logarithm to base two; 0 for what is below one.
    package static func log2(_ value: UInt64) -> Double {
        guard value > 1 else { return 0 }
        var mantissa = Double(value)
        var result = 0.0
        while mantissa >= 2 {
            mantissa /= 2
            result += 1
        }
        var bit = 0.5
        for _ in 0..<16 {
            mantissa *= mantissa
            if mantissa >= 2 {
                mantissa /= 2
                result += bit
            }
            bit /= 2
        }
        return result
    }
}

extension Readable {
    /// An address on an axis: "0", "256 MiB".
    static func address(_ value: UInt64) -> String { value == 0 ? "0" : bytes(value) }

    /// The beginning of a text that has to fit into a small place.
    static func short(_ text: String, _ count: Int = 80) -> String {
        let beginning = text.unicodeScalars.prefix(count + 1)
        guard beginning.count > count else { return text }
        var result = ""
        result.unicodeScalars.append(contentsOf: beginning.dropLast())
        return result + "…"
    }

    /// "2026-11-23 09:12 UTC"; empty for years that do not have four digits.
    package static func timestamp(secondsSince1970 seconds: Int64) -> String {
        guard (0..<253_402_300_800).contains(seconds) else { return "" }
        // Howard Hinnant's days-to-civil, with years that begin in March.
        let days = seconds / 86400 + 719_468
        let era = days / 146_097
        let dayOfEra = days % 146_097
        let yearOfEra = (dayOfEra - dayOfEra / 1460 + dayOfEra / 36524 - dayOfEra / 146_096) / 365
        let dayOfYear = dayOfEra - (365 * yearOfEra + yearOfEra / 4 - yearOfEra / 100)
        let shifted = (5 * dayOfYear + 2) / 153
        let day = dayOfYear - (153 * shifted + 2) / 5 + 1
        let month = shifted < 10 ? shifted + 3 : shifted - 9
        let year = yearOfEra + era * 400 + (month <= 2 ? 1 : 0)
        func two(_ value: Int64) -> String { (value < 10 ? "0" : "") + "\(value)" }
        return "\(year)-\(two(month))-\(two(day)) \(two(seconds / 3600 % 24)):\(two(seconds / 60 % 60)) UTC"
    }
}
