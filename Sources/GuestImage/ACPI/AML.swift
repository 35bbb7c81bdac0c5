// A small builder of ACPI machine language: the few terms that our tables need.

/// Encodes AML terms [ACPI 20.2].
public enum AML {
    /// PkgLength followed by the contents it counts [ACPI 20.2.4].
    static func package(_ contents: [UInt8]) -> [UInt8] {
        // The length counts its own bytes: 1 up to 63, else 2 up to 4095, else 3 up to 1 MiB.
        if contents.count + 1 < 0x40 { return [UInt8(contents.count + 1)] + contents }
        let extra = contents.count + 2 < 0x1000 ? 1 : 2
        let length = contents.count + 1 + extra
        precondition(length < 1 << 20, "our tables are small")
        var bytes = [UInt8(extra << 6 | length & 15), UInt8(truncatingIfNeeded: length >> 4)]
        if extra == 2 { bytes.append(UInt8(truncatingIfNeeded: length >> 12)) }
        return bytes + contents
    }

    /// A name of one segment, padded to four characters; with `\` in front it starts at the root.
    static func name(_ path: String) -> [UInt8] {
        let isAbsolute = path.hasPrefix("\\")
        let segment = Array(path.utf8.dropFirst(isAbsolute ? 1 : 0))
        precondition(segment.count >= 1 && segment.count <= 4, "a segment has up to four characters")
        let padding = [UInt8](repeating: UInt8(ascii: "_"), count: 4 - segment.count)
        return (isAbsolute ? [0x5c] : []) + segment + padding
    }

    /// `ZeroOp`, `OneOp`, `BytePrefix`, `WordPrefix` or `DWordPrefix`, whichever is shortest.
    static func integer(_ value: UInt32) -> [UInt8] {
        switch value {
        case 0: return [0x00]
        case 1: return [0x01]
        case ...0xff: return [0x0a, UInt8(value)]
        case ...0xffff:
            var bytes: [UInt8] = [0x0b]
            bytes.append(littleEndian: UInt16(value))
            return bytes
        default:
            var bytes: [UInt8] = [0x0c]
            bytes.append(littleEndian: value)
            return bytes
        }
    }

    /// `"text"`.
    static func string(_ text: StaticString) -> [UInt8] { [0x0d] + Array("\(text)".utf8) + [0] }

    /// `EISAID("PNP0501")`: three letters in five bits each, four hexadecimal digits, most significant byte first.
    static func eisaID(_ text: StaticString) -> [UInt8] {
        let characters = Array("\(text)".utf8)
        precondition(characters.count == 7, "an EISA ID has seven characters")
        guard let digits = UInt16(String(decoding: characters[3...], as: UTF8.self), radix: 16) else {
            preconditionFailure("an EISA ID ends in four hexadecimal digits")
        }
        let letters = characters[..<3].reduce(UInt16(0)) { $0 << 5 | UInt16($1 & 0x1f) }
        return [
            0x0c, UInt8(letters >> 8), UInt8(letters & 0xff), UInt8(digits >> 8), UInt8(digits & 0xff),
        ]
    }

    /// `Name (path, value)`.
    static func named(_ path: String, _ value: [UInt8]) -> [UInt8] { [0x08] + name(path) + value }

    /// `Scope (path) { … }`.
    static func scope(_ path: String, _ contents: [UInt8]) -> [UInt8] { [0x10] + package(name(path) + contents) }

    /// `Device (name) { … }`.
    static func device(_ path: String, _ contents: [UInt8]) -> [UInt8] {
        [0x5b, 0x82] + package(name(path) + contents)
    }

    /// `OperationRegion (region, SystemMemory, base, 1)` and `Field (region, ByteAcc, NoLock, Preserve)` with up to eight
    /// fields of one bit, lowest first.
    static func bits(_ fields: [String], in region: String, at base: UInt32) -> [UInt8] {
        precondition(fields.count <= 8, "one byte")
        return [0x5b, 0x80] + name(region) + [0x00] + integer(base) + integer(1)
            + [0x5b, 0x81] + package(name(region) + [0x01] + fields.flatMap { name($0) + [0x01] })
    }

    /// `Method (path, argumentCount) { … }`.
    static func method(_ path: String, argumentCount: UInt8 = 0, _ contents: [UInt8]) -> [UInt8] {
        precondition(argumentCount < 8, "a method has up to seven arguments")
        return [0x14] + package(name(path) + [argumentCount] + contents)
    }

    /// `Notify (device, value)`.
    static func notify(_ device: String, _ value: UInt32) -> [UInt8] { [0x86] + name(device) + integer(value) }

    /// `If (predicate) { … }`.
    static func when(_ predicate: [UInt8], _ contents: [UInt8]) -> [UInt8] { [0xa0] + package(predicate + contents) }

    /// `Return (value)`.
    static func result(_ value: [UInt8]) -> [UInt8] { [0xa4] + value }

    /// `Package () { … }` of integers.
    static func integers(_ values: [UInt32]) -> [UInt8] {
        [0x12] + package([UInt8(values.count)] + values.flatMap { integer($0) })
    }

    /// `Buffer () { … }`.
    static func buffer(_ bytes: [UInt8]) -> [UInt8] { [0x11] + package(integer(UInt32(bytes.count)) + bytes) }

    /// A resource template: descriptors and an end tag without checksum [ACPI 6.4].
    static func resources(_ descriptors: [[UInt8]]) -> [UInt8] { buffer(descriptors.flatMap { $0 } + [0x79, 0x00]) }

    /// `IO (Decode16, base, base, 1, count)`.
    static func ioPorts(_ base: UInt16, count: UInt8) -> [UInt8] {
        var bytes: [UInt8] = [0x47, 0x01]
        bytes.append(littleEndian: base)
        bytes.append(littleEndian: base)
        return bytes + [0x01, count]
    }

    /// `Memory32Fixed (ReadWrite, base, byteCount)`.
    static func memory(_ base: UInt32, byteCount: UInt32) -> [UInt8] {
        var bytes: [UInt8] = [0x86, 0x09, 0x00, 0x01]
        bytes.append(littleEndian: base)
        bytes.append(littleEndian: byteCount)
        return bytes
    }

    /// `Interrupt (ResourceConsumer, Edge, ActiveHigh, Exclusive) { gsi }`.
    static func edgeInterrupt(_ gsi: UInt32) -> [UInt8] { interrupt(gsi, flags: 0x03) }

    /// `Interrupt (ResourceConsumer, Level, ActiveHigh, Exclusive) { gsi }`.
    static func levelInterrupt(_ gsi: UInt32) -> [UInt8] { interrupt(gsi, flags: 0x01) }

    private static func interrupt(_ gsi: UInt32, flags: UInt8) -> [UInt8] {
        var bytes: [UInt8] = [0x89, 0x06, 0x00, flags, 0x01]
        bytes.append(littleEndian: gsi)
        return bytes
    }
}
