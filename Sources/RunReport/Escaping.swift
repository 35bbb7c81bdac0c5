// HTML as a type. Text that is interpolated is escaped; only literals and other markup are taken as they are, so a
// label that an image or a guest has made cannot become part of the page's structure.

/// A piece of HTML.
struct Markup: Sendable, ExpressibleByStringInterpolation {
    private(set) var text: String

    /// Characters of one interpolated string that are shown.
    static let maximumShownCount = 600

    init(stringLiteral value: String) { text = value }
    init(stringInterpolation: StringInterpolation) { text = stringInterpolation.text }
    init() { text = "" }

    struct StringInterpolation: StringInterpolationProtocol {
        fileprivate(set) var text = ""

        init(literalCapacity: Int, interpolationCount: Int) { text.reserveCapacity(literalCapacity) }
        mutating func appendLiteral(_ literal: String) { text += literal }
        mutating func appendInterpolation(_ markup: Markup) { text += markup.text }
        mutating func appendInterpolation(_ markup: Markup?) { text += markup?.text ?? "" }
        mutating func appendInterpolation(_ parts: [Markup]) { for part in parts { text += part.text } }
        mutating func appendInterpolation(_ number: some BinaryInteger) { text += "\(number)" }
        mutating func appendInterpolation(_ string: String) { text += Markup.escape(string) }
    }

    static func += (left: inout Markup, right: Markup) { left.text += right.text }

    /// Text for an element or a quoted attribute. Control characters and those that change the direction of what follows
    /// are made visible; very long text is cut.
    static func escape(_ string: String) -> String {
        var result = ""
        var count = 0
        for scalar in string.unicodeScalars {
            count += 1
            guard count <= maximumShownCount else { return result + "…" }
            switch scalar {
            case "&": result += "&amp;"
            case "<": result += "&lt;"
            case ">": result += "&gt;"
            case "\"": result += "&quot;"
            case "'": result += "&#39;"
            case "\n", "\t", "\r": result += " "
            case _ where isInvisible(scalar): result += "\u{2423}U+" + hexadecimal(scalar.value) + "\u{2423}"
            default: result.unicodeScalars.append(scalar)
            }
        }
        return result
    }

    /// Characters that would hide or reorder what stands beside them.
    private static func isInvisible(_ scalar: Unicode.Scalar) -> Bool {
        switch scalar.value {
        case 0..<0x20, 0x7f..<0xa0, 0xad, 0x61c, 0x180e, 0x200b...0x200f, 0x2028...0x202e, 0x2060...0x206f, 0xfeff,
            0xfff0...0xfffb, 0xe0000...0xe0fff:
            true
        default: false
        }
    }

    private static func hexadecimal(_ value: UInt32) -> String {
        let digits = String(value, radix: 16, uppercase: true)
        return String(repeating: "0", count: max(0, 4 - digits.count)) + digits
    }
}
