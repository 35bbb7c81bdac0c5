// Values on the command line: numbers, sizes, bytes in hex, identity blocks. What is wrong is said in a sentence.

import ABILayout
import Crypto
import SEVABI
import SNPVMM

/// Parsers for option values; each names its option when it refuses.
enum OptionValue {
    /// "512M", "1G", "65536K" or a number of bytes.
    static func memory(_ text: String) throws(CommandFailure) -> UInt64 {
        let units: [Character: UInt64] = ["K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40]
        var digits = Substring(text)
        var unit: UInt64 = 1
        if let last = digits.last, let factor = units[Character(last.uppercased())] {
            unit = factor
            digits.removeLast()
        }
        guard let number = UInt64(digits), digits.first != "+" else {
            throw .usage("--memory \(text): expected a number with K, M or G behind it, for example 512M")
        }
        let (byteCount, overflow) = number.multipliedReportingOverflow(by: unit)
        guard !overflow, byteCount > 0, byteCount % 4096 == 0 else {
            throw .usage("--memory \(text): expected a multiple of 4096 bytes, for example 512M")
        }
        return byteCount
    }

    /// "0x30000" or "30000", always hex with the prefix, decimal without.
    static func number(_ text: String, _ option: String) throws(CommandFailure) -> UInt64 {
        let lower = text.lowercased()
        let value = lower.hasPrefix("0x") ? hexNumber(lower.dropFirst(2)) : lower.hasPrefix("+") ? nil : UInt64(lower)
        guard let value else {
            throw .usage("\(option) \(text): expected a number of at most 64 bits, for example 0x30000")
        }
        return value
    }

    /// Hex digits with or without "0x", at most 32 bits.
    static func hex32(_ text: String, _ option: String) throws(CommandFailure) -> UInt32 {
        let lower = text.lowercased()
        guard let value = hexNumber(lower.hasPrefix("0x") ? lower.dropFirst(2) : Substring(lower)),
            let result = UInt32(exactly: value)
        else { throw .usage("\(option) \(text): expected at most 8 hex digits, for example 0xa00f11") }
        return result
    }

    private static func hexNumber(_ digits: Substring) -> UInt64? {
        guard let first = digits.first, first.isHexDigit else { return nil }  // No sign.
        return UInt64(digits, radix: 16)
    }

    /// Exactly `byteCount` bytes in hex.
    static func bytes(_ text: String, _ option: String, byteCount: Int) throws(CommandFailure) -> [UInt8] {
        let lower = text.lowercased()
        let digits = Array((lower.hasPrefix("0x") ? lower.dropFirst(2) : Substring(lower)).utf8)
        func value(_ digit: UInt8) -> UInt8? {
            switch digit {
            case 0x30...0x39: digit - 0x30
            case 0x61...0x66: digit - 0x61 + 10
            default: nil
            }
        }
        guard digits.count == 2 * byteCount else {
            throw .usage("\(option): expected \(2 * byteCount) hex digits (\(byteCount) bytes), found \(digits.count)")
        }
        var result: [UInt8] = []
        for index in 0..<byteCount {
            guard let high = value(digits[2 * index]), let low = value(digits[2 * index + 1]) else {
                throw .usage("\(option): not a hex digit at position \(2 * index)")
            }
            result.append(high << 4 | low)
        }
        return result
    }

    /// A file with exactly `byteCount` bytes, raw or in base64.
    static func block(_ path: String, _ option: String, byteCount: Int) throws(CommandFailure) -> [UInt8] {
        let bytes = try InputFile(path: path).read(as: "the value of \(option)")
        if bytes.count == byteCount { return bytes }
        if let decoded = base64(bytes), decoded.count == byteCount { return decoded }
        throw CommandFailure(
            status: .badInput,
            message: "could not use \(path) for \(option): expected \(byteCount) bytes (or their base64), found "
                + "\(bytes.count) bytes. Likely cause: the wrong file, or --id-block and --id-auth exchanged. Next step: make "
                + "the block anew.")
    }

    /// Base64 with padding and white space [RFC 4648 4]; nil for anything else.
    static func base64(_ text: [UInt8]) -> [UInt8]? {
        Base64.decode(text.filter { ![0x20, 0x09, 0x0a, 0x0d].contains($0) })
    }
}
