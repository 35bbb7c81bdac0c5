// Single instructions with the results of a real processor: reads the vectors and runs them on the engine.

import TestSupport
import X86Core
import X86Defs

/// One start state of `states.txt`.
struct VectorState {
    var seed: UInt32 = 0
    var state = ProcessorState()
    /// The 8 KiB at 0x3000_1000.
    var data: [UInt64] = []
}

/// A lexer for `key=value` fields of hexadecimal digits.
struct FieldReader {
    let bytes: ArraySlice<UInt8>
    var at: Int

    init(_ bytes: ArraySlice<UInt8>) {
        self.bytes = bytes
        at = bytes.startIndex
    }

    /// The next word, up to a blank.
    mutating func word() -> ArraySlice<UInt8>? {
        while at < bytes.endIndex, bytes[at] == 0x20 { at += 1 }
        guard at < bytes.endIndex else { return nil }
        let start = at
        while at < bytes.endIndex, bytes[at] != 0x20 { at += 1 }
        return bytes[start..<at]
    }
}

func digit(_ c: UInt8) -> UInt64 { UInt64(c <= 0x39 ? c - 0x30 : (c | 0x20) - 0x57) }
func hexValue(_ text: ArraySlice<UInt8>) -> UInt64 { text.reduce(0) { $0 << 4 | digit($1) } }
func decimalValue(_ text: ArraySlice<UInt8>) -> Int { text.reduce(0) { $0 * 10 + Int($1 - 0x30) } }
/// Bytes in memory order.
func hexBytes(_ text: ArraySlice<UInt8>) -> [UInt8] {
    var out: [UInt8] = []
    var i = text.startIndex
    while i + 1 < text.endIndex {
        out.append(UInt8(digit(text[i]) << 4 | digit(text[i + 1])))
        i += 2
    }
    return out
}
func littleEndian(_ bytes: ArraySlice<UInt8>) -> UInt64 { bytes.reversed().reduce(0) { $0 << 8 | UInt64($1) } }

func lines(_ bytes: [UInt8]) -> [ArraySlice<UInt8>] { bytes.split(separator: 0x0a) }

/// Splits `name=value`.
func field(_ word: ArraySlice<UInt8>) -> (String, ArraySlice<UInt8>)? {
    guard let e = word.firstIndex(of: 0x3d) else { return nil }
    return (String(decoding: word[word.startIndex..<e], as: UTF8.self), word[(e + 1)...])
}

func readStates(_ file: [UInt8]) -> [VectorState] {
    var states: [VectorState] = []
    for line in lines(file) {
        var r = FieldReader(line)
        _ = r.word()
        var v = VectorState()
        v.state = FlatMachine.state(cpl: 3)
        v.state.cr4 |= CR4.osxsave
        v.state.xcr0 = 7
        while let w = r.word(), let (name, value) = field(w) {
            let number = Int(name.drop { !$0.isNumber }) ?? 0
            switch name {
            case "seed": v.seed = UInt32(hexValue(value))
            case "fl": v.state.rflags = hexValue(value) | 2
            case "mx": v.state.mxcsr = UInt32(hexValue(value))
            case "fcw": v.state.fcw = UInt16(hexValue(value))
            case "fsw": v.state.fsw = UInt16(hexValue(value))
            case "ftw": v.state.ftw = UInt8(hexValue(value))
            default:
                switch name.first {
                case "r": v.state.generalRegisters[number] = hexValue(value)
                case "s":
                    let b = hexBytes(value)
                    v.state.x87Significand[number] = littleEndian(b[0..<8])
                    v.state.x87Exponent[number] = UInt16(littleEndian(b[8..<10]))
                case "x":
                    let b = hexBytes(value)
                    v.state.xmm[number * 2] = littleEndian(b[0..<8])
                    v.state.xmm[number * 2 + 1] = littleEndian(b[8..<16])
                case "y":
                    let b = hexBytes(value)
                    v.state.ymmUpper[number * 2] = littleEndian(b[0..<8])
                    v.state.ymmUpper[number * 2 + 1] = littleEndian(b[8..<16])
                default: break
                }
            }
        }
        var x = v.seed
        for _ in 0..<1024 {
            var q: UInt64 = 0
            for half: UInt64 in 0..<2 {
                x ^= x << 13
                x ^= x >> 17
                x ^= x << 5
                q |= UInt64(x) << (half * 32)
            }
            v.data.append(q)
        }
        v.state.rip = 0x2000_1800
        states.append(v)
    }
    return states
}

/// The result of one file.
struct VectorReport: Sendable {
    var passed = 0
    var total = 0
    /// "line number: text: what differs".
    var failures: [String] = []
}

final class VectorMachine {
    static let code: UInt64 = 0x2000_1000, data: UInt64 = 0x3000_1000
    static let codeGPA = 0x1_0000, dataGPA = 0x1_1000
    let machine: FlatMachine
    let states: [VectorState]
    private var loadedData = -1
    /// Ignore what the file says: each instruction is #UD.
    var everythingIsUndefined = false

    /// `features` of the processor that the vectors were recorded on: an Intel one, without what only AMD has.
    init(
        states: [VectorState],
        features: ProcessorFeatures = .milan.subtracting([.sse4a, .misalignedSSE, .clzero, .amdOrder]),
        usesHostArithmetic: Bool = true
    ) {
        self.states = states
        var configuration = Processor.Configuration()
        configuration.features = features
        configuration.usesHostArithmetic = usesHostArithmetic
        machine = FlatMachine(configuration: configuration)
        machine.map(Self.code, to: UInt64(Self.codeGPA), FlatMachine.present | FlatMachine.user)
        for page: UInt64 in 0..<2 {
            machine.map(
                Self.data + page * 0x1000, to: UInt64(Self.dataGPA) + page * 0x1000,
                FlatMachine.present | FlatMachine.user | FlatMachine.writable | FlatMachine.noExecute)
        }
        machine.memory.write([UInt8](repeating: 0xcc, count: 4096), at: Self.codeGPA)
    }

    func run(file: [UInt8], keep: Int = 200) -> VectorReport {
        var report = VectorReport()
        for (i, line) in lines(file).enumerated() {
            report.total += 1
            if let difference = run(line) {
                if report.failures.count < keep {
                    report.failures.append("\(i + 1): \(String(decoding: line, as: UTF8.self))\n      \(difference)")
                }
            } else {
                report.passed += 1
            }
        }
        return report
    }

    private func hex(_ v: UInt64) -> String { String(v, radix: 16) }

    /// nil: the engine did what the processor did.
    func run(_ line: ArraySlice<UInt8>) -> String? {
        let comment = line.firstIndex(of: 0x3b) ?? line.endIndex
        var r = FieldReader(line[..<comment])
        guard let code = r.word(), let stateWord = r.word(), let exceptionWord = r.word() else {
            return "unreadable line"
        }
        let start = states[decimalValue(stateWord)]
        let memory = machine.memory, p = machine.processor

        // The expectation.
        var want = start.state
        var flagMask: UInt64 = 0, wantFlags: UInt64 = 0
        var statusMask: UInt16 = 0xffff
        var changed: [Int: UInt64] = [:]
        while let w = r.word(), let (name, value) = field(w) {
            let slash = value.firstIndex(of: 0x2f) ?? value.endIndex
            let first = hexValue(value[value.startIndex..<slash])
            switch name {
            case "rip": want.rip = first
            case "fl":
                wantFlags = first
                flagMask = hexValue(value[(slash + 1)...])
            case "mx": want.mxcsr = UInt32(first)
            case "fcw": want.fcw = UInt16(first)
            case "fsw":
                want.fsw = UInt16(first)
                if slash < value.endIndex { statusMask = UInt16(hexValue(value[(slash + 1)...])) }
            case "ftw": want.ftw = UInt8(first)
            default:
                let rest = name.drop { !$0.isNumber }
                let b = hexBytes(value)
                if name.hasPrefix("st") {
                    want.x87Significand[Int(rest)!] = littleEndian(b[0..<8])
                    want.x87Exponent[Int(rest)!] = UInt16(littleEndian(b[8..<10]))
                } else if name.hasPrefix("x") {
                    want.xmm[Int(rest)! * 2] = littleEndian(b[0..<8])
                    want.xmm[Int(rest)! * 2 + 1] = littleEndian(b[8..<16])
                } else if name.hasPrefix("y") {
                    want.ymmUpper[Int(rest)! * 2] = littleEndian(b[0..<8])
                    want.ymmUpper[Int(rest)! * 2 + 1] = littleEndian(b[8..<16])
                } else if name.hasPrefix("r") {
                    want.generalRegisters[Int(rest)!] = hexValue(value)
                } else if name.hasPrefix("m") {
                    changed[Int(name.dropFirst(), radix: 16)!] = littleEndian(b[0..<8])
                }
            }
        }

        // The run.
        let bytes = hexBytes(code)
        let codeBase = memory.base + Self.codeGPA
        memory.write(bytes, at: Self.codeGPA + 0x800)
        defer {
            memory.write([UInt8](repeating: 0xcc, count: bytes.count), at: Self.codeGPA + 0x800)
            p.forgetCode(at: codeBase, byteCount: 4096)
        }
        if loadedData != decimalValue(stateWord) {
            start.data.withUnsafeBytes {
                (memory.base + Self.dataGPA).copyMemory(from: $0.baseAddress!, byteCount: 8192)
            }
            loadedData = decimalValue(stateWord)
        }
        p.state = start.state
        let exit = machine.run()
        guard exit == .halt, let event = machine.caught() else {
            loadedData = -1
            return "stopped with \(exit) at rip \(hex(p.rip))"
        }
        if everythingIsUndefined {
            return event.vector == 6 && event.rip == 0x2000_1800
                ? nil : "exception \(event.vector) at \(hex(event.rip)), not #UD"
        }
        var got = p.state

        // What happened.
        var problems: [String] = []
        func compare(_ what: String, _ a: UInt64, _ b: UInt64) {
            if a != b { problems.append("\(what) is \(hex(a)) not \(hex(b))") }
        }
        let parts = exceptionWord.split(separator: 0x3a)
        if exceptionWord.first == 0x2d {
            if event.vector == 14 && got.cr2 == want.rip {
                compare("branch target", event.rip, want.rip)
            } else {
                compare("vector", UInt64(event.vector), 3)
                compare("rip", event.rip &- 1, want.rip)
            }
        } else {
            compare("vector", UInt64(event.vector), UInt64(decimalValue(parts[0])))
            compare("rip", event.rip, want.rip)
            if parts.count > 1, let error = event.errorCode {
                // The recording machine had a page of its own at the very end of the user half.
                let ignored: UInt64 = event.vector == 14 && got.cr2 >> 12 == 0x7_ffff_ffff ? 1 : 0
                compare("error code", error | ignored, hexValue(parts[1]) | ignored)
            }
            if parts.count > 2 { compare("cr2", got.cr2, hexValue(parts[2])) }
        }
        got.generalRegisters[4] = event.rsp
        compare("flags", event.rflags & flagMask, wantFlags & flagMask)
        for i in 0..<16 { compare("r\(i)", got.generalRegisters[i], want.generalRegisters[i]) }
        for i in 0..<32 { compare("x\(i / 2).\(i & 1)", got.xmm[i], want.xmm[i]) }
        for i in 0..<32 { compare("y\(i / 2).\(i & 1)", got.ymmUpper[i], want.ymmUpper[i]) }
        for i in 0..<8 {
            compare("st\(i)", got.x87Significand[i], want.x87Significand[i])
            compare("st\(i) exponent", UInt64(got.x87Exponent[i]), UInt64(want.x87Exponent[i]))
        }
        compare("mxcsr", UInt64(got.mxcsr), UInt64(want.mxcsr))
        compare("fcw", UInt64(got.fcw), UInt64(want.fcw))
        compare("fsw", UInt64(got.fsw & statusMask), UInt64(want.fsw & statusMask))
        compare("ftw", UInt64(got.ftw), UInt64(want.ftw))
        let data = (memory.base + Self.dataGPA).assumingMemoryBound(to: UInt64.self)
        var dirty = false
        for i in 0..<1024 where data[i] != start.data[i] || !changed.isEmpty {
            if data[i] != start.data[i] { dirty = true }
            compare("m\(hex(UInt64(i * 8)))", data[i].byteSwapped, (changed[i * 8] ?? start.data[i]).byteSwapped)
        }
        if dirty { loadedData = -1 }
        return problems.isEmpty ? nil : problems.joined(separator: ", ")
    }
}
