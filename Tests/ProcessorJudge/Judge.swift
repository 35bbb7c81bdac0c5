// Runs cases on the host's processor and on the engine, and says where they differ.

import CNativeJudge

/// A case: bytes at an offset of the code area, and the state before them.
public struct JudgeCase {
    public var bytes: [UInt8]
    public var offset: Int
    var state: judge_state
    var name: InstructionName? { InstructionName(bytes, compatible: state.cs == 0x23) }
}

/// What a run of cases came to.
public struct JudgeReport {
    public var compared = 0
    /// Cases that were not run natively, by reason.
    public var skipped: [String: Int] = [:]
    /// Instructions compared, by map and opcode, in 64-bit code and then in 32-bit code. Those that ended in #UD on both
    /// sides, or before their last byte was fetched, count apart.
    public var opcodes: [[Int]] = .init(repeating: .init(repeating: 0, count: 256), count: 14)
    /// Opcode forms: opcode with its prefix, field, operand size, register or memory, and mode.
    public var forms: Set<UInt32> = []
    public var faults = 0
    public var hangs = 0
    /// One line each, with what differs.
    public var differences: [String] = []
    public var differenceCount = 0
    /// How many differences each opcode had.
    public var differing: [String: Int] = [:]
}

public final class Judge {
    private var native = judge()
    private let engine: EngineMachine
    private let images: UnsafeMutablePointer<UInt64>
    public var report = JudgeReport()
    /// Differences that are written out, at most this many per opcode.
    public var keptPerOpcode = 3
    private var batch: [JudgeCase] = []
    private var names: [InstructionName] = []
    private var nextOffset = 0

    /// Why the host cannot judge; nil: it can.
    public static func absence() -> String? {
        #if arch(x86_64)
            let flags = HostProcessor.flags
            if flags.isEmpty { return "no /proc/cpuinfo" }
            if !HostProcessor.isAMD { return "the host's processor is not AMD's: undefined results differ" }
            let needed = [
                "avx2", "fma", "f16c", "bmi1", "bmi2", "adx", "aes", "pclmulqdq", "sha_ni", "sse4a", "movbe", "abm",
                "vaes",
                "vpclmulqdq", "clzero", "misalignsse", "xsavec", "xsaves", "fsgsbase", "umip",
            ]
            let missing = needed.filter { !flags.contains(Substring($0)) }
            return missing.isEmpty ? nil : "the host lacks " + missing.joined(separator: " ")
        #else
            return "the host is no x86-64 processor"
        #endif
    }

    /// nil: the child could not be started.
    public init?() {
        images = .allocate(capacity: Int(JUDGE_IMAGES * JUDGE_WORDS))
        CaseGenerator.fillImages(images)
        engine = EngineMachine(images: UnsafePointer(images))
        guard start() else { return nil }
    }

    deinit {
        judge_stop(&native)
        images.deallocate()
    }

    private func start() -> Bool {
        guard judge_start(&native) == 0 else { return false }
        withUnsafeMutableBytes(of: &native.shared.pointee.images) {
            $0.baseAddress!.copyMemory(from: images, byteCount: Int(JUDGE_IMAGES * JUDGE_WORDS) * 8)
        }
        return true
    }

    // MARK: Making cases

    /// Adds form `index` of the systematic list with a state from `seed`.
    public func addSystematic(_ index: Int, seed: UInt64) {
        var r = JudgeRandom(seed: seed ^ UInt64(index) &* 0x9e37_79b9)
        let (bytes, memory, compatible) = CaseGenerator.anyForm(index, &r)
        add(bytes, memory: memory, compatible: compatible, &r)
    }

    public func addRandom(seed: UInt64) {
        var r = JudgeRandom(seed: seed)
        let (bytes, memory, compatible) = CaseGenerator.randomForm(&r)
        add(bytes, memory: memory, compatible: compatible, &r)
    }

    /// A case of instructions that begin with these bytes, in 64-bit or 32-bit code.
    public func addRandom(beginning: [UInt8], compatible: Bool, seed: UInt64) {
        var r = JudgeRandom(seed: seed)
        var bytes = beginning
        while bytes.count < 24 { bytes.append(r.byte()) }
        add(bytes, memory: !r.chance(3), compatible: compatible, &r)
    }

    private func add(_ raw: [UInt8], memory: Bool, compatible: Bool, _ r: inout JudgeRandom) {
        let placement = r.below(64)
        var state = CaseGenerator.state(&r, pointers: memory && !r.chance(5), compatible: compatible)
        guard let name = InstructionName(raw, compatible: compatible) else { return skip("no opcode within the bytes") }
        var bytes = raw
        CaseGenerator.tailor(name, &bytes, &state, &r)
        add(bytes, state, placement: placement)
    }

    /// `placement`: 0 across the two code pages, 1 at the very end of the second.
    private func add(_ raw: [UInt8], _ state: judge_state, placement: Int) {
        let compatible = state.cs == 0x23
        guard let name = InstructionName(raw, compatible: compatible) else { return skip("no opcode within the bytes") }
        if let reason = NotCovered.reason(name, raw) { return skip(reason) }
        var bytes = raw
        if let n = engine.length(raw, compatible: compatible) {
            bytes = Array(raw.prefix(n))
        } else {
            bytes = Array(raw.prefix(16))
        }
        let offset: Int
        switch placement {
        case 0 where bytes.count > 1:
            flush()
            offset = 0x1000 - bytes.count / 2
        case 1:
            flush()
            offset = 0x2000 - max(bytes.count - 1, 1)
            bytes = Array(bytes.prefix(0x2000 - offset))
        default:
            if isBranch(name) { flush() }
            offset = nextOffset
            nextOffset += 32
        }
        var s = state
        s.rip = UInt64(JUDGE_CODE) + UInt64(offset)
        batch.append(JudgeCase(bytes: bytes, offset: offset, state: s))
        names.append(name)
        if isBranch(name) || placement < 2 || batch.count == Int(JUDGE_BATCH) { flush() }
    }

    private func skip(_ reason: String) { report.skipped[reason, default: 0] += 1 }

    private func isBranch(_ n: InstructionName) -> Bool {
        switch (n.map, n.opcode) {
        case (0, 0x70...0x7f), (0, 0xe0...0xe3), (0, 0xe8...0xeb), (0, 0xc2), (0, 0xc3), (0, 0xff), (1, 0x80...0x8f),
            (0, 0x9a), (0, 0xca), (0, 0xcb), (0, 0xcf), (0, 0x17), (0, 0x8e), (0, 0x9d), (1, 0xb2):
            true
        default: false
        }
    }

    // MARK: Running

    /// Runs what has been added.
    public func flush() {
        defer {
            batch.removeAll(keepingCapacity: true)
            names.removeAll(keepingCapacity: true)
            nextOffset = 0
        }
        guard !batch.isEmpty else { return }
        guard runNatively(batch) else { return }
        var result = judge_result()
        for (i, c) in batch.enumerated() {
            if let difference = compare(c, names[i], i, &result, counting: true) {
                note(c, names[i], difference)
            }
        }
    }

    private func note(_ c: JudgeCase, _ name: InstructionName, _ difference: String) {
        report.differenceCount += 1
        let key = Self.describe(name)
        report.differing[key, default: 0] += 1
        guard report.differing[key, default: 0] <= keptPerOpcode else { return }
        report.differences.append("\(line(c)) ; \(key): \(difference)")
    }

    /// Which opcode form: with prefix, operand size, field of ModRM and kind of operand as far as they can matter.
    private static func form(_ n: InstructionName) -> UInt32 {
        var f = UInt32(min(n.map, 6)) << 8 | UInt32(n.opcode)
        f = f << 2 | (n.repeats == 0xf2 ? 3 : n.repeats == 0xf3 ? 2 : n.has66 ? 1 : 0)
        f = f << 1 | (n.rexW ? 1 : 0)
        f = f << 1 | (n.isRegister ? 1 : 0)
        f = f << 1 | (n.isCompatible ? 1 : 0)
        let hasField: Bool
        switch (n.map, n.opcode) {
        case (0, 0x80...0x83), (0, 0x8f), (0, 0xc0...0xc1), (0, 0xc6...0xc7), (0, 0xd0...0xd3), (0, 0xd8...0xdf),
            (0, 0xf6...0xf7), (0, 0xfe...0xff), (1, 0x00...0x01), (1, 0x0d), (1, 0x18), (1, 0x71...0x73), (1, 0xae),
            (1, 0xba), (1, 0xc7), (4, 0x71...0x73), (4, 0xae), (5, 0xf3):
            hasField = true
        default: hasField = false
        }
        return f << 3 | (hasField ? UInt32(n.field) : 0)
    }

    static func describe(_ n: InstructionName) -> String {
        let map = ["", "0f ", "0f38 ", "0f3a ", "vex1 ", "vex2 ", "vex3 ", "vex? "][min(n.map, 7)]
        var prefix = n.repeats == 0xf2 ? "f2 " : n.repeats == 0xf3 ? "f3 " : n.has66 ? "66 " : ""
        var field = ""
        if n.map == 0 {
            prefix = ""
            switch n.opcode {
            case 0x80...0x83, 0x8f, 0xc0, 0xc1, 0xd0...0xd3, 0xf6, 0xf7, 0xfe, 0xff, 0xc6, 0xc7: field = " /\(n.field)"
            case 0xd9 where n.modrm >= 0xe0: field = " " + hex(UInt64(n.modrm))
            case 0xd8...0xdf: field = " /\(n.field)" + (n.isRegister ? " r" : " m")
            default: break
            }
        } else if n.map == 1, [0x00, 0x01, 0x71, 0x72, 0x73, 0xae, 0xba, 0xc7].contains(n.opcode) {
            field = " /\(n.field)"
        }
        return prefix + map + hex(UInt64(n.opcode)) + field + (n.isCompatible ? " in 32-bit code" : "")
    }

    /// Puts the cases' bytes into both machines and runs them on the host. False: the child died.
    private func runNatively(_ cases: [JudgeCase]) -> Bool {
        let code = UnsafeMutableRawPointer(native.code!)
        code.initializeMemory(as: UInt8.self, repeating: 0xcc, count: Int(JUDGE_AREA))
        for c in cases {
            for (i, b) in c.bytes.enumerated() { code.storeBytes(of: b, toByteOffset: c.offset + i, as: UInt8.self) }
        }
        engine.setCode(code)
        let shared = native.shared!
        withUnsafeMutableBytes(of: &shared.pointee.cases) { place in
            let p = place.baseAddress!.assumingMemoryBound(to: judge_state.self)
            for (i, c) in cases.enumerated() { p[i] = c.state }
        }
        shared.pointee.count = UInt32(cases.count)
        if judge_run(&native) == 0 { return true }
        let at = Int(shared.pointee.progress)
        report.differenceCount += 1
        report.differences.append("the child died at \(at < cases.count ? line(cases[at]) : "the end")")
        judge_stop(&native)
        _ = start()
        return false
    }

    private func nativeResult<R>(_ i: Int, _ body: (UnsafePointer<judge_result>) -> R) -> R {
        withUnsafeBytes(of: &native.shared!.pointee.results) {
            body($0.baseAddress!.assumingMemoryBound(to: judge_result.self) + i)
        }
    }

    /// nil: equal as far as the manual says.
    private func compare(
        _ c: JudgeCase, _ name: InstructionName, _ i: Int, _ got: inout judge_result, counting: Bool
    ) -> String? {
        var exit = ""
        let ended = engine.run(c.state, into: &got, exit: &exit)
        return nativeResult(i) { want in
            if counting {
                report.compared += 1
                if want.pointee.vector == 6 {
                    report.faults += 1
                } else if want.pointee.vector != 14 || want.pointee.error & 16 == 0 {
                    report.opcodes[min(name.map, 6) + (name.isCompatible ? 7 : 0)][Int(name.opcode)] += 1
                    report.forms.insert(Self.form(name))
                }
                if want.pointee.vector == UInt32(JUDGE_HANG) { report.hangs += 1 }
            }
            guard ended else { return "the engine left: \(exit), natively vector \(want.pointee.vector)" }
            if processorsDiffer(c, name, got, want) { return nil }
            return differences(name, c, want, got)
        }
    }

    /// What the manuals leave to the processor, by instruction: which of two faults comes first, and results without meaning.
    private func processorsDiffer(
        _ c: JudgeCase, _ name: InstructionName, _ got: judge_result, _ want: UnsafePointer<judge_result>
    ) -> Bool {
        if got.vector == 6, want.pointee.vector == 14, want.pointee.cr2 == UInt64(JUDGE_CODE + JUDGE_AREA) {
            return true  // An undefined opcode whose rest lies on an unmapped page: either comes first.
        }
        if got.vector == 14, got.cr2 == UInt64(JUDGE_CODE + JUDGE_AREA), want.pointee.vector == 6 { return true }
        // An undefined opcode whose operand bytes would make it longer than fifteen: either comes first.
        let pair = [got.vector, want.pointee.vector]
        if pair == [6, 13] || pair == [13, 6], c.bytes.count >= 9 { return true }
        // Which operand CMPS looks at first is the processor's affair.
        let isCompare = name.map == 0 && (name.opcode == 0xa6 || name.opcode == 0xa7)
        if isCompare, pair.allSatisfy({ [12, 13, 14, 17].contains($0) }) { return true }
        // The host's processor number is a segment's limit under Linux.
        if name.map == 1, name.opcode == 3, want.pointee.state.rflags & 0x40 != 0,
            got.state.rflags & 0x40 != 0, Self.asksForProcessorNumber(c, name)
        {
            return true
        }
        // Operands that run over 4 GiB of a segment with a base: the engine ends the segment there.
        if name.isCompatible, pair == [13, 14], want.pointee.cr2 &>> 12 == 0xf_ffff { return true }
        // Outside 64-bit mode quadword indices beyond the segment fault in one of two ways.
        let gathersQuadwords = name.map == 5 && (name.opcode == 0x91 || name.opcode == 0x93)
        if name.isCompatible, gathersQuadwords, pair == [13, 14] || pair == [14, 13] { return true }
        // Gathers and masked moves in 32-bit code through a segment that allows no access: the processor looks at
        // each element, the engine at none or all.
        let byElement =
            name.map == 5 && [0x2c, 0x2d, 0x2e, 0x2f, 0x8c, 0x8e, 0x90, 0x91, 0x92, 0x93].contains(name.opcode)
        if name.isCompatible, byElement,
            c.state.ds != 0x2b || c.state.es != 0x2b || c.state.fs != 0x2b || c.state.gs != 0x2b,
            pair.contains(13) || pair.contains(12)
        {
            return true
        }
        // F2XM1 and FYL2XP1 mean nothing outside their range [APM5].
        let exponent = tupleWord(c.state.st_exponent, 0) & 0x7fff
        if name.map == 0, name.opcode == 0xd9,
            name.modrm == 0xf0 && exponent >= 0x3fff || name.modrm == 0xf9 && exponent >= 0x3ffd
        {
            return true
        }
        // FXSAVE and FXRSTOR off their boundary in a segment that does not allow them.
        let isFXArea = name.map == 1 && name.opcode == 0xae && name.field < 2
        return name.isCompatible && isFXArea && pair == [13, 17]
    }

    /// LSL of the segment that Linux keeps the processor's number in.
    private static func asksForProcessorNumber(_ c: JudgeCase, _ n: InstructionName) -> Bool {
        // Wherever the selector comes from: the registers and the image of selectors are the only places.
        !n.isRegister || (0..<16).contains { tupleWord(c.state.gpr, $0) & 0xfffc == 0x78 }
    }

    private func differences(
        _ name: InstructionName, _ c: JudgeCase, _ want: UnsafePointer<judge_result>, _ got: judge_result
    ) -> String? {
        var problems: [String] = []
        func check(_ what: String, _ a: UInt64, _ b: UInt64) {
            if a != b { problems.append("\(what) \(Self.hex(a)) not \(Self.hex(b))") }
        }
        let w = want.pointee.state
        check("vector", UInt64(got.vector), UInt64(want.pointee.vector))
        if want.pointee.vector == UInt32(JUDGE_HANG) {
            return problems.isEmpty ? nil : problems.joined(separator: ", ")
        }
        if got.vector == want.pointee.vector, got.vector == 14 {
            check("cr2", got.cr2, want.pointee.cr2)
            // Whether a page of the upper half is present is the host kernel's affair.
            let mask: UInt64 = want.pointee.cr2 >= 0x7fff_ffff_f000 ? ~1 : ~0
            check("error", UInt64(got.error) & mask, UInt64(want.pointee.error) & mask)
        }
        let tolerance = Tolerance(name)
        if got.vector != want.pointee.vector, want.pointee.vector == 14 {
            problems.append("natively at \(Self.hex(want.pointee.cr2)) error \(Self.hex(UInt64(want.pointee.error)))")
        }
        check("rip", got.state.rip, w.rip)
        let flagMask = 0x24_7fd5 & ~tolerance.undefinedFlags
        check("flags", got.state.rflags & flagMask, w.rflags & flagMask)
        // A switch to 64-bit mode leaves the upper halves undefined [APM1 3.1.5].
        words("r", 16, got.state.gpr, w.gpr, &problems, lowHalves: name.isCompatible || w.cs == 0x23)
        check("cs", UInt64(got.state.cs), UInt64(w.cs))
        check("ss", UInt64(got.state.ss), UInt64(w.ss))
        // The host's way back to user code makes null selectors 0 [APM2 IRET].
        func loaded(_ selector: UInt16) -> UInt64 { selector < 4 ? 0 : UInt64(selector) }
        check("ds", loaded(got.state.ds), loaded(w.ds))
        check("es", loaded(got.state.es), loaded(w.es))
        check("fs", loaded(got.state.fs), loaded(w.fs))
        check("gs", loaded(got.state.gs), loaded(w.gs))
        check("fsbase", got.state.fs_base, w.fs_base)
        check("gsbase", got.state.gs_base, w.gs_base)
        if tolerance.approximates {
            approximations("x", got.state.xmm, w.xmm, &problems)
            approximations("y", got.state.ymmh, w.ymmh, &problems)
        } else {
            words("x", 32, got.state.xmm, w.xmm, &problems)
            words("y", 32, got.state.ymmh, w.ymmh, &problems)
        }
        for i in 0..<8 {
            let (m, e) = (tupleWord(got.state.st_mantissa, i), tupleWord(got.state.st_exponent, i))
            let (n, f) = (tupleWord(w.st_mantissa, i), tupleWord(w.st_exponent, i))
            if m == n && e == f { continue }
            if i < 2, tolerance.x87Units > 0, e >> 15 == f >> 15, Self.distance(m, e, n, f) <= tolerance.x87Units {
                continue
            }
            problems.append("st\(i) \(Self.hex(e)):\(Self.hex(m)) not \(Self.hex(f)):\(Self.hex(n))")
        }
        check("mxcsr", UInt64(got.state.mxcsr), UInt64(w.mxcsr))
        check("fcw", UInt64(got.state.fcw), UInt64(w.fcw))
        let statusMask: UInt64 = tolerance.x87Units > 0 ? ~0x200 : ~0
        check("fsw", UInt64(got.state.fsw) & statusMask, UInt64(w.fsw) & statusMask)
        check("ftw", UInt64(got.state.ftw & 0xff), UInt64(w.ftw & 0xff))
        // Without a pending exception an AMD processor does not save the pointers.
        if w.fsw & 0x80 != 0 {
            // The bits above are the sign's, of 48 or of 57: the host's hypervisor may hide which.
            check("fip", got.state.fip & 0xffff_ffff_ffff, w.fip & 0xffff_ffff_ffff)
            check("fdp", got.state.fdp & 0xffff_ffff_ffff, w.fdp & 0xffff_ffff_ffff)
            check("fop", UInt64(got.state.fop), UInt64(w.fop))
        }
        check("changes", UInt64(got.change_count), UInt64(want.pointee.change_count))
        if got.change_count == want.pointee.change_count {
            for i in 0..<Int(got.change_count) {
                let (a, b) = (half(got.change_index, i), half(want.pointee.change_index, i))
                if a != b {
                    problems.append("changed [\(Self.hex(a * 8))] not [\(Self.hex(b * 8))]")
                    break
                }
                check("[\(Self.hex(a * 8))]", tupleWord(got.change_value, i), tupleWord(want.pointee.change_value, i))
            }
        }
        return problems.isEmpty ? nil : problems.prefix(6).joined(separator: ", ")
    }

    /// Between two 80-bit numbers of the same sign, in units of the last place.
    private static func distance(_ m: UInt64, _ e: UInt64, _ n: UInt64, _ f: UInt64) -> UInt64 {
        let a = (e & 0x7fff, m << 1), b = (f & 0x7fff, n << 1)
        let (high, low) = a > b ? (a, b) : (b, a)
        let units = (high.1 >> 1) &- (low.1 >> 1)
        switch high.0 - low.0 {
        case 0: return units
        case 1: return units &+ 1 << 63
        default: return .max
        }
    }

    private func half<T>(_ tuple: T, _ i: Int) -> UInt64 {
        withUnsafeBytes(of: tuple) { UInt64($0.load(fromByteOffset: i * 2, as: UInt16.self)) }
    }

    private func words<T>(
        _ what: String, _ count: Int, _ a: T, _ b: T, _ problems: inout [String], lowHalves: Bool = false
    ) {
        withUnsafeBytes(of: a) { p in
            withUnsafeBytes(of: b) { q in
                for i in 0..<count {
                    let x = p.load(fromByteOffset: i * 8, as: UInt64.self)
                    let y = q.load(fromByteOffset: i * 8, as: UInt64.self)
                    if lowHalves ? (i < 8 && (x ^ y) & 0xffff_ffff != 0) : x != y {
                        let name = count == 16 ? "\(what)\(i)" : "\(what)\(i / 2).\(i & 1)"
                        problems.append("\(name) \(Self.hex(x)) not \(Self.hex(y))")
                    }
                }
            }
        }
    }

    /// Binary32 elements within twice the error that each side may have.
    private func approximations<T>(_ what: String, _ a: T, _ b: T, _ problems: inout [String]) {
        withUnsafeBytes(of: a) { p in
            withUnsafeBytes(of: b) { q in
                for i in 0..<64 {
                    let x = p.load(fromByteOffset: i * 4, as: UInt32.self),
                        y = q.load(fromByteOffset: i * 4, as: UInt32.self)
                    let f = Float(bitPattern: x), g = Float(bitPattern: y)
                    if x == y
                        || (f.isFinite && g.isFinite && abs(f - g) <= max(3 * abs(g) / 4096, .leastNormalMagnitude))
                    {
                        continue
                    }
                    problems.append("\(what)\(i / 4)[\(i & 3)] \(Self.hex(UInt64(x))) not \(Self.hex(UInt64(y)))")
                }
            }
        }
    }

    // MARK: Lines

    static func hex(_ v: UInt64) -> String { String(v, radix: 16) }

    /// A case as a line: bytes, offset, and what differs from the zero state.
    func line(_ c: JudgeCase) -> String {
        var parts = [
            c.bytes.map { ($0 < 16 ? "0" : "") + Self.hex(UInt64($0)) }.joined(), "at=\(Self.hex(UInt64(c.offset)))",
        ]
        for (name, value) in Self.fields(c.state) where value != Self.defaultValue(name) {
            parts.append("\(name)=\(Self.hex(value))")
        }
        return parts.joined(separator: " ")
    }

    private static func defaultValue(_ name: String) -> UInt64 {
        switch name {
        case "fl": 0x202
        case "mx": 0x1f80
        case "fcw": 0x37f
        case "cs": 0x33
        case "ss": 0x2b
        default: 0
        }
    }

    private static func fields(_ s: judge_state) -> [(String, UInt64)] {
        var out: [(String, UInt64)] = []
        for i in 0..<16 { out.append(("r\(i)", tupleWord(s.gpr, i))) }
        out += [("fl", s.rflags), ("mx", UInt64(s.mxcsr)), ("fcw", UInt64(s.fcw)), ("fsw", UInt64(s.fsw))]
        out += [("ftw", UInt64(s.ftw)), ("image", UInt64(s.image))]
        out += [("cs", UInt64(s.cs)), ("ss", UInt64(s.ss)), ("ds", UInt64(s.ds)), ("es", UInt64(s.es))]
        out += [("fs", UInt64(s.fs)), ("gs", UInt64(s.gs)), ("fsbase", s.fs_base), ("gsbase", s.gs_base)]
        for i in 0..<8 {
            out.append(("m\(i)", tupleWord(s.st_mantissa, i)))
            out.append(("e\(i)", tupleWord(s.st_exponent, i)))
        }
        for i in 0..<32 { out.append(("x\(i)", tupleWord(s.xmm, i))) }
        for i in 0..<32 { out.append(("y\(i)", tupleWord(s.ymmh, i))) }
        return out
    }

    private static func set(_ s: inout judge_state, _ name: String, _ value: UInt64) {
        let number = Int(name.drop { !$0.isNumber }) ?? 0
        /// The child can load no other (and IRET to user code makes a null selector 0).
        func selector(_ value: UInt64) -> UInt16 { [0x23, 0x2b, 0x33].contains(value) ? UInt16(value) : 0 }
        func store<T>(_ field: WritableKeyPath<judge_state, T>, _ index: Int) {
            withUnsafeMutableBytes(of: &s[keyPath: field]) { b in
                if (index + 1) * 8 <= b.count { b.storeBytes(of: value, toByteOffset: index * 8, as: UInt64.self) }
            }
        }
        switch name {
        case "fl": s.rflags = value
        case "mx": s.mxcsr = UInt32(truncatingIfNeeded: value)
        case "fcw": s.fcw = UInt16(truncatingIfNeeded: value)
        case "fsw": s.fsw = UInt16(truncatingIfNeeded: value)
        case "ftw": s.ftw = UInt16(truncatingIfNeeded: value)
        case "image": s.image = UInt32(truncatingIfNeeded: value)
        case "cs": s.cs = value == 0x23 ? 0x23 : 0x33
        case "ss": s.ss = 0x2b
        case "ds": s.ds = selector(value)
        case "es": s.es = selector(value)
        case "fs": s.fs = selector(value)
        case "gs": s.gs = selector(value)
        case "fsbase": s.fs_base = value
        case "gsbase": s.gs_base = value
        default:
            switch name.first {
            case "r": store(\.gpr, number)
            case "m": store(\.st_mantissa, number)
            case "e": store(\.st_exponent, number)
            case "x": store(\.xmm, number)
            case "y": store(\.ymmh, number)
            default: break
            }
        }
    }

    /// Reads what ``line(_:)`` wrote; what stands behind a semicolon is a comment.
    static func read(_ line: Substring) -> JudgeCase? {
        let words = line.prefix { $0 != ";" }.split(separator: " ")
        guard let code = words.first else { return nil }
        var bytes: [UInt8] = []
        var rest = code
        while rest.count >= 2 {
            guard let b = UInt8(rest.prefix(2), radix: 16) else { return nil }
            bytes.append(b)
            rest = rest.dropFirst(2)
        }
        var s = judge_state()
        (s.rflags, s.mxcsr, s.fcw, s.cs, s.ss) = (0x202, 0x1f80, 0x37f, 0x33, 0x2b)
        var offset = 0
        for word in words.dropFirst() {
            let pair = word.split(separator: "=")
            guard pair.count == 2, let value = UInt64(pair[1], radix: 16) else { return nil }
            if pair[0] == "at" { offset = Int(value & 0x1fff) } else { set(&s, String(pair[0]), value) }
        }
        s.rip = UInt64(JUDGE_CODE) + UInt64(offset)
        return JudgeCase(bytes: bytes, offset: offset, state: s)
    }

    /// Runs one line; nil: both sides agree.
    public func difference(ofLine text: Substring) -> String? {
        guard let c = Self.read(text), let name = c.name else { return "unreadable" }
        return difference(of: c, name)
    }

    private func difference(of c: JudgeCase, _ name: InstructionName) -> String? {
        guard runNatively([c]) else { return "the child died" }
        var result = judge_result()
        return compare(c, name, 0, &result, counting: false)
    }

    /// The same failure with as little state as it needs.
    public func shrunk(_ text: Substring) -> String {
        guard var c = Self.read(text), let name = c.name, difference(of: c, name) != nil else {
            return String(text)
        }
        for _ in 0..<2 {
            for (field, value) in Self.fields(c.state) where value != Self.defaultValue(field) {
                if field == "cs" { continue }
                let control = field.hasPrefix("f") || field == "mx"
                for simpler in control ? [Self.defaultValue(field)] : [0, 1, value & 0xff] where simpler != value {
                    var trial = c
                    Self.set(&trial.state, field, simpler)
                    // ES and B are what the exceptions and their masks say.
                    let pending = trial.state.fsw & ~trial.state.fcw & 0x3f != 0
                    trial.state.fsw = pending ? trial.state.fsw | 0x8080 : trial.state.fsw & ~0x8080
                    if difference(of: trial, name) != nil {
                        c = trial
                        break
                    }
                }
            }
        }
        return "\(line(c)) ; \(Self.describe(name)): \(difference(of: c, name) ?? "")"
    }
}
