// Instruction bytes and machine states: systematically by opcode, and at random from a seed.

import CNativeJudge

/// SplitMix64: the same sequence for the same seed, everywhere.
public struct JudgeRandom {
    var state: UInt64
    public init(seed: UInt64) { state = seed }
    public mutating func next() -> UInt64 {
        state &+= 0x9e37_79b9_7f4a_7c15
        var z = state
        z = (z ^ z >> 30) &* 0xbf58_476d_1ce4_e5b9
        z = (z ^ z >> 27) &* 0x94d0_49bb_1331_11eb
        return z ^ z >> 31
    }
    mutating func below(_ n: Int) -> Int { Int(next() % UInt64(n)) }
    mutating func chance(_ n: Int) -> Bool { below(n) == 0 }
    mutating func byte() -> UInt8 { UInt8(truncatingIfNeeded: next() >> 24) }
    mutating func pick<T>(_ list: [T]) -> T { list[below(list.count)] }
}

/// One instruction in the systematic list.
struct Form {
    var bytes: [UInt8]
    /// Where ModRM is, if there is one.
    var modrm: Int?
}

enum CaseGenerator {
    static let data = UInt64(JUDGE_DATA)

    // MARK: Values

    static let integers: [UInt64] = [
        0, 1, 2, 3, 7, 8, 15, 16, 31, 32, 33, 63, 64, 65, 0x7f, 0x80, 0x81, 0xff, 0x100, 0x7fff, 0x8000, 0xffff,
        0x10000,
        0x7fff_ffff, 0x8000_0000, 0x8000_0001, 0xffff_ffff, 0x1_0000_0000, 0x7fff_ffff_ffff_ffff,
        0x8000_0000_0000_0000, 0x8000_0000_0000_0001, 0xffff_ffff_ffff_fffe, .max, 0x5555_5555_5555_5555,
        0xaaaa_aaaa_aaaa_aaaa, 0x0102_0304_0506_0708, 0x8080_8080_8080_8080, 0x7f7f_7f7f_7f7f_7f7f,
    ]
    static let singles: [UInt32] = [
        0, 0x8000_0000, 0x3f80_0000, 0xbf80_0000, 0x7f80_0000, 0xff80_0000, 0x7fc0_0000, 0xffc0_0001, 0x7f80_0001,
        0xff81_2345, 1, 0x8000_0001, 0x007f_ffff, 0x0080_0000, 0x8080_0000, 0x7f7f_ffff, 0xff7f_ffff, 0x3f00_0000,
        0x3fc0_0000, 0x4f00_0000, 0xcf00_0000, 0x5f00_0000, 0x4eff_ffff, 0x3400_0000, 0x3f7f_ffff, 0x4b00_0001,
        0x3eaa_aaab, 0x4049_0fdb, 0x477f_e000, 0x477f_f000, 0x3300_0000, 0x3380_0000, 0x3880_0000,
    ]
    static let doubles: [UInt64] = [
        0, 1 << 63, 0x3ff0_0000_0000_0000, 0xbff0_0000_0000_0000, 0x7ff0_0000_0000_0000, 0xfff0_0000_0000_0000,
        0x7ff8_0000_0000_0000, 0xfff8_0000_0000_0001, 0x7ff0_0000_0000_0001, 0xfff4_0000_1234_5678, 1,
        0x8000_0000_0000_0001, 0x000f_ffff_ffff_ffff, 0x0010_0000_0000_0000, 0x7fef_ffff_ffff_ffff,
        0xffef_ffff_ffff_ffff, 0x3fe0_0000_0000_0000, 0x3ff8_0000_0000_0000, 0x41e0_0000_0000_0000,
        0xc1e0_0000_0000_0000, 0x41df_ffff_ffc0_0000, 0x43e0_0000_0000_0000, 0xc3e0_0000_0000_0000,
        0x3fd5_5555_5555_5555, 0x4009_21fb_5444_2d18, 0x3810_0000_0000_0000, 0x36a0_0000_0000_0000,
        0x47ef_ffff_e000_0000, 0x47ef_ffff_f000_0000, 0x3ca0_0000_0000_0000, 0x4330_0000_0000_0001,
    ]

    static func integer(_ r: inout JudgeRandom) -> UInt64 {
        switch r.below(4) {
        case 0: return r.next()
        case 1: return r.next() >> UInt64(r.below(64))
        case 2: return r.pick(integers) &+ UInt64(r.below(3)) &- 1
        default: return r.pick(integers)
        }
    }

    static func quadword(_ r: inout JudgeRandom) -> UInt64 {
        switch r.below(6) {
        case 0: return r.next()
        case 1: return integer(&r)
        case 2: return UInt64(r.pick(singles)) | UInt64(r.pick(singles)) << 32
        case 3: return r.pick(doubles)
        case 4:
            // Floats of ordinary size.
            let v = r.next()
            return r.chance(2)
                ? v & 0x807f_ffff_807f_ffff | 0x3f80_0000_3f80_0000 &+ (v >> 7 & 0x0300_0000_0300_0000)
                : v & 0x800f_ffff_ffff_ffff | 0x3fe0_0000_0000_0000 &+ (v >> 3 & 0x0070_0000_0000_0000)
        default: return r.next() & r.next() & r.next()
        }
    }

    static func extended(_ r: inout JudgeRandom) -> (UInt64, UInt64) {
        let sign: UInt64 = r.chance(2) ? 0x8000 : 0
        switch r.below(12) {
        case 0: return (0, sign)
        case 1: return (1 << 63, sign | 0x7fff)
        case 2: return (0xc000_0000_0000_0000 | r.next() >> 2, sign | 0x7fff)
        case 3: return (0x8000_0000_0000_0000 | r.next() >> 2 | 1, sign | 0x7fff)
        case 4: return (r.next() >> 1, sign)
        case 5: return (r.next() >> 1, sign | UInt64(1 + r.below(0x7ffe)))
        case 6: return (r.next() | 1 << 63, sign | UInt64(r.pick([1, 2, 0x7ffe, 0x7ffd, 0x3f80, 0x407f])))
        case 7: return (1 << 63, sign | UInt64(0x3fff - 3 + r.below(8)))
        case 8: return (r.next() | 1 << 63, sign | UInt64(0x3fff + r.below(70)))
        case 9: return (r.next() | 1 << 63, sign | UInt64(1 + r.below(0x7ffe)))
        default: return (r.next() | 1 << 63, sign | UInt64(0x3fff - 20 + r.below(40)))
        }
    }

    /// Contents of the data area with a purpose; those before them are drawn at random.
    static let plainImages = 16
    enum Image {
        static let frames64: UInt32 = 16, frames32: UInt32 = 17, extendedState: UInt32 = 18, selectors: UInt32 = 19
    }

    /// What programs load into segment registers under Linux, and what they must not.
    static let selectors: [UInt16] = [
        0x2b, 0x2b, 0x23, 0x33, 0, 3, 0x28, 0x10, 0x18, 0x08, 0x43, 0x53, 0x63, 0x7b, 0x87, 0x07, 0xffff, 0x3b,
    ]

    /// The contents of the data area: integers, floats, strings, pointers into the area; frames of far returns and
    /// interrupts, areas of XSAVE, selectors.
    static func fillImages(_ images: UnsafeMutablePointer<UInt64>) {
        fillPlainImages(images)
        func image(_ number: UInt32) -> UnsafeMutablePointer<UInt64> { images + Int(number) * Int(JUDGE_WORDS) }
        var r = JudgeRandom(seed: 0xf7a_0000)
        func frame(_ part: Int) -> UInt64 {
            switch part {
            case 0: UInt64(JUDGE_CODE) + 0x1000 + UInt64(r.below(0x1000))
            case 1: UInt64(r.chance(3) ? r.pick(selectors) : r.pick([0x33, 0x23]))
            case 2: 0x202 | r.next() & 0x24_4cd5 | (r.chance(8) ? r.next() & 0x3f_7fd5 : 0)
            case 3: data + 0x400 + UInt64(r.below(0x1800))
            default: UInt64(r.chance(4) ? r.pick(selectors) : 0x2b)
            }
        }
        for i in 0..<Int(JUDGE_WORDS) {
            image(Image.frames64)[i] = frame(i % 5)
            image(Image.frames32)[i] = frame(i * 2 % 5) & 0xffff_ffff | frame((i * 2 + 1) % 5) << 32
            var v: UInt64 = 0
            for _ in 0..<4 { v = v << 16 | UInt64(r.pick(selectors)) }
            image(Image.selectors)[i] = v
            // Not a header that any XRSTOR takes.
            image(Image.extendedState)[i] = quadword(&r) | 1 << 62
        }
        for area in 0..<8 {
            let p = image(Image.extendedState) + area * 128
            p[0] = 0x037f | (r.next() & 0x4700) << 16 | (r.next() & 0xff) << 32 | (r.next() & 0x7ff) << 48
            (p[1], p[2]) = (r.next() & 0x7fff_ffff_ffff, r.next() & 0x7fff_ffff_ffff)
            p[3] = 0x1f80 | r.next() & 0x2_603f | r.next() << 32
            for i in 0..<8 { (p[4 + i * 2], p[5 + i * 2]) = extended(&r) }
            for i in 64..<72 { p[i] = 0 }
            p[64] = r.next() & 7
            if area & 1 != 0 {
                p[65] = 1 << 63 | r.next() & 7
                if !r.chance(4) { p[64] &= p[65] }
            }
            if r.chance(8) { p[64 + r.below(8)] |= 1 << UInt64(r.below(64)) & ~0xff }
        }
    }

    private static func fillPlainImages(_ images: UnsafeMutablePointer<UInt64>) {
        for image in 0..<plainImages {
            var r = JudgeRandom(seed: 0xda7a_0000 + UInt64(image))
            for i in 0..<Int(JUDGE_WORDS) {
                let v: UInt64
                switch image & 7 {
                case 0: v = r.next()
                case 1: v = integer(&r)
                case 2: v = UInt64(r.pick(singles)) | UInt64(r.pick(singles)) << 32
                case 3: v = r.pick(doubles)
                case 4: v = data + 0x800 + UInt64(r.below(0x1000))
                default: v = quadword(&r)
                }
                images[image * Int(JUDGE_WORDS) + i] = v
            }
        }
    }

    /// A machine state. `pointers`: all general registers lead into the data area.
    static func state(_ r: inout JudgeRandom, pointers: Bool, compatible: Bool) -> judge_state {
        var s = judge_state()
        func fill<T>(_ field: WritableKeyPath<judge_state, T>, _ count: Int, _ value: (Int) -> UInt64) {
            withUnsafeMutableBytes(of: &s[keyPath: field]) {
                for i in 0..<count { $0.storeBytes(of: value(i), toByteOffset: i * 8, as: UInt64.self) }
            }
        }
        let aligned = !r.chance(4)
        fill(\.gpr, 16) { i in
            if pointers || i == 4 || r.chance(8) {
                let a = Self.data + 0x400 + UInt64(r.below(0x1800))
                return aligned ? a & ~31 : i == 4 ? a & ~7 : a
            }
            return compatible && i < 8 ? integer(&r) & 0xffff_ffff : integer(&r)
        }
        s.cs = compatible ? 0x23 : 0x33
        s.ss = 0x2b
        if compatible {
            s.ds = r.chance(24) ? r.pick([0, 0x23, 0x33]) : 0x2b
            s.es = r.chance(24) ? r.pick([0, 0x23, 0x33]) : 0x2b
        } else if r.chance(4) {
            (s.ds, s.es) = (r.pick([0x2b, 0x23, 0x33]), r.pick([0x2b, 0x23, 0x33]))
        }
        s.fs = r.chance(4) ? r.pick([0, 0x23, 0x33]) : compatible ? 0x2b : 0
        s.gs = r.chance(4) ? r.pick([0, 0x23, 0x2b]) : compatible ? 0x2b : 0
        func base() -> UInt64 {
            switch r.below(4) {
            case 0: 0
            case 1: Self.data + UInt64(r.below(0x1000))
            case 2: compatible ? UInt64(r.below(64)) : UInt64(r.below(64)) &- 32  // Nothing wraps at 4 GiB.
            default: compatible ? Self.data + 0x400 : 0
            }
        }
        (s.fs_base, s.gs_base) = (base(), base())
        s.rflags = 0x202 | r.next() & 0x8d5 | (r.chance(3) ? 0x400 : 0) | (r.chance(16) ? 0x4_0000 : 0)
        s.mxcsr = 0x1f80
        if r.chance(2) { s.mxcsr |= UInt32(truncatingIfNeeded: r.next()) & 0x603f }
        if r.chance(8) { s.mxcsr |= 0x8000 }
        if r.chance(8) { s.mxcsr |= 0x40 }
        if r.chance(10) { s.mxcsr &= ~(UInt32(truncatingIfNeeded: r.next()) & 0x1f80) }
        if r.chance(32) { s.mxcsr |= 0x2_0000 }
        s.fcw = 0x37f
        if r.chance(2) { s.fcw = 0x7f | UInt16(truncatingIfNeeded: r.next()) & 0xf00 }
        if r.chance(10) { s.fcw &= ~(UInt16(truncatingIfNeeded: r.next()) & 0x3f) }
        s.fcw |= 0x40
        s.ftw = r.chance(3) ? UInt16(r.byte()) : r.chance(4) ? 0 : 0xff
        s.fsw = UInt16(truncatingIfNeeded: r.next()) & 0x7f00
        if r.chance(6) { s.fsw |= UInt16(truncatingIfNeeded: r.next()) & 0x7f }
        if s.fsw & ~s.fcw & 0x3f != 0 { s.fsw |= 0x8080 } else { s.fsw &= ~0x8080 }
        var parts: [(UInt64, UInt64)] = []
        for _ in 0..<8 { parts.append(extended(&r)) }
        fill(\.st_mantissa, 8) { parts[$0].0 }
        fill(\.st_exponent, 8) { parts[$0].1 }
        fill(\.xmm, 32) { _ in quadword(&r) }
        fill(\.ymmh, 32) { _ in quadword(&r) }
        if r.chance(6) {
            // Small element values and indices: shifts, shuffles, gathers.
            fill(\.xmm, 32) { _ in r.next() & 0x0000_003f_0000_003f }
        }
        s.image = UInt32(r.below(plainImages))
        return s
    }

    // MARK: Systematic forms

    static let legacyPrefixes: [[UInt8]] = [[], [0x66], [0xf2], [0xf3], [0x66, 0xf2], [0x66, 0xf3]]
    static let rexPrefixes: [[UInt8]] = [[], [0x48], [0x41], [0x4d]]

    /// The number of systematic forms: an index below it names one.
    static let legacyCount = 4 * 256 * legacyPrefixes.count * rexPrefixes.count * 8 * 6
    static let vexCount = 3 * 256 * 16 * 2 * 8 * 6
    /// The forms of 64-bit code, then those of 32-bit code.
    static var longCount: Int { legacyCount + vexCount + extraCount }
    static let compatibleLegacyCount = 4 * 256 * legacyPrefixes.count * 4 * 8 * 6
    static let compatibleVexCount = 3 * 256 * 8 * 8 * 6
    static var formCount: Int { longCount + compatibleLegacyCount + compatibleVexCount }
    /// LOCK, address sizes, segment prefixes, lengths and page crossings.
    static let extraCount = 2 * 256 * 8 * 6 * 6

    private static func operand(_ r: inout JudgeRandom, field: Int, shape: Int) -> [UInt8] {
        let f = UInt8(field) << 3
        let small = UInt8(truncatingIfNeeded: r.next()) & 0x3f
        switch shape {
        case 0: return [0xc0 | f | UInt8(r.below(8))]
        case 1: return [0xc0 | f | UInt8(r.below(8))]
        case 2:
            let base = r.pick([0, 1, 2, 3, 6, 7] as [UInt8])
            return [f | base]
        case 3: return [0x40 | f | UInt8(r.pick([0, 1, 2, 3, 5, 6, 7])), small]
        case 4:
            // SIB; an index is small only by chance, so usually there is none.
            let index: UInt8 = r.chance(4) ? UInt8(r.below(8)) : 4
            return [0x84 | f, UInt8(r.below(4)) << 6 | index << 3 | UInt8(r.below(8)), small, 0, 0, 0]
        default:
            // RIP-relative into the data area, or absolute.
            let d = UInt32(truncatingIfNeeded: data) &+ UInt32(0x100 + r.below(0x1e00)) & ~15
            if r.chance(3) {
                return [0x04 | f, 0x25] + (0..<4).map { UInt8(truncatingIfNeeded: d >> UInt32($0 * 8)) }
            }
            let relative = d &- UInt32(JUDGE_CODE) &- 0x800
            return [0x05 | f] + (0..<4).map { UInt8(truncatingIfNeeded: relative >> UInt32($0 * 8)) }
        }
    }

    /// A ModRM of 32-bit code, with what follows. `short`: 16-bit addresses.
    private static func compatibleOperand(_ r: inout JudgeRandom, field: Int, shape: Int, short: Bool) -> [UInt8] {
        guard short, shape > 1 else {
            guard shape == 5 else { return operand(&r, field: field, shape: shape) }
            let d = UInt32(truncatingIfNeeded: data) &+ UInt32(0x100 + r.below(0x1e00)) & ~15
            return [0x05 | UInt8(field) << 3] + (0..<4).map { UInt8(truncatingIfNeeded: d >> UInt32($0 * 8)) }
        }
        let rm = UInt8(r.below(8)), f = UInt8(field) << 3
        switch shape {
        case 2: return [f | (rm == 6 ? 7 : rm)]
        case 3: return [0x40 | f | rm, r.byte()]
        case 4: return [0x80 | f | rm, r.byte(), r.byte() & 15]
        default: return [0x06 | f, r.byte(), r.byte() & 15]
        }
    }

    /// Form `index` of 32-bit code.
    private static func compatibleForm(_ index: Int, _ r: inout JudgeRandom) -> (bytes: [UInt8], memory: Bool) {
        var n = index
        func take(_ count: Int) -> Int {
            defer { n /= count }
            return n % count
        }
        var bytes: [UInt8]
        let shape: Int
        if index < compatibleLegacyCount {
            shape = take(6)
            let field = take(8), opcode = UInt8(take(256))
            let extra = take(4), prefix = legacyPrefixes[take(legacyPrefixes.count)]
            let map = take(4)
            let before: [UInt8] =
                switch extra {
                case 0: []
                case 1: [0x67, r.pick([0x64, 0x64, 0x65, 0x3e])]
                case 2: [r.pick([0xf0, 0x26, 0x2e, 0x36, 0x3e])]
                default: [r.pick([0x64, 0x65])]
                }
            bytes = before + prefix + [[], [0x0f], [0x0f, 0x38], [0x0f, 0x3a]][map] + [opcode]
            bytes += compatibleOperand(&r, field: field, shape: shape, short: extra == 1)
        } else {
            n -= compatibleLegacyCount
            shape = take(6)
            let field = take(8), opcode = UInt8(take(256))
            let pp = UInt8(take(4)), long = UInt8(take(2)), map = take(3) + 1
            let low = UInt8(8 + r.below(8)) << 3 | long << 2 | pp
            if map == 1, r.chance(2) {
                bytes = [0xc5, 0x80 | low]
            } else {
                bytes = [0xc4, r.pick([0xe0, 0xc0]) | UInt8(map), r.byte() & 0xc0 | low & 0x3f]
            }
            bytes.append(opcode)
            bytes += compatibleOperand(&r, field: field, shape: shape, short: false)
        }
        while bytes.count < 24 { bytes.append(r.byte()) }
        return (bytes, shape > 1)
    }

    /// Form `index` of the whole list, and whether it is one of 32-bit code.
    static func anyForm(_ index: Int, _ r: inout JudgeRandom) -> (bytes: [UInt8], memory: Bool, compatible: Bool) {
        let compatible = index >= longCount
        let (bytes, memory) = compatible ? compatibleForm(index - longCount, &r) : form(index, &r)
        return (bytes, memory, compatible)
    }

    /// The bytes of form `index` of 64-bit code, followed by random ones up to twenty; `memory`: its operand would be there.
    private static func form(_ index: Int, _ r: inout JudgeRandom) -> (bytes: [UInt8], memory: Bool) {
        var n = index
        func take(_ count: Int) -> Int {
            defer { n /= count }
            return n % count
        }
        var bytes: [UInt8] = []
        let shape: Int
        if index < legacyCount {
            shape = take(6)
            let field = take(8), opcode = UInt8(take(256))
            let rex = rexPrefixes[take(rexPrefixes.count)], prefix = legacyPrefixes[take(legacyPrefixes.count)]
            let map = take(4)
            bytes = prefix + rex + [[], [0x0f], [0x0f, 0x38], [0x0f, 0x3a]][map] + [opcode]
            bytes += operand(&r, field: field, shape: shape)
        } else if index < legacyCount + vexCount {
            n -= legacyCount
            shape = take(6)
            let field = take(8), opcode = UInt8(take(256))
            let pp = UInt8(take(4)), long = UInt8(take(2)), wide = UInt8(take(2))
            let usesSource = take(2) != 0
            let map = take(3) + 1
            let vvvv: UInt8 = usesSource ? UInt8(r.below(16)) : 15
            let low = vvvv << 3 | long << 2 | pp
            if map == 1, wide == 0, r.chance(2) {
                bytes = [0xc5, (r.chance(2) ? 0x80 : 0) | low]
            } else {
                bytes = [0xc4, UInt8(r.below(8)) << 5 ^ 0xe0 | UInt8(map), wide << 7 | low]
                if shape > 1, r.chance(2) { bytes[1] |= 0xe0 }
            }
            bytes.append(opcode)
            bytes += operand(&r, field: field, shape: shape)
        } else {
            n -= legacyCount + vexCount
            shape = take(6)
            let field = take(8), opcode = UInt8(take(256)), kind = take(6), map = take(2)
            let extra: [UInt8]
            switch kind {
            case 0: extra = [0xf0]
            case 1: extra = [0x67]
            case 2: extra = [r.pick([0x26, 0x2e, 0x36, 0x3e, 0x64, 0x65])]
            case 3: extra = [0xf0, r.pick([0x66, 0xf2, 0xf3, 0x48])]
            case 4: extra = [UInt8](repeating: r.pick([0x66, 0x2e, 0xf3, 0x67]), count: 4 + r.below(10))
            default: extra = [0x48, r.pick([0x66, 0xf2, 0xf3, 0x2e])]
            }
            bytes = extra + (map == 1 ? [0x0f] : []) + [opcode] + operand(&r, field: field, shape: shape)
        }
        while bytes.count < 24 { bytes.append(r.byte()) }
        return (bytes, shape > 1)
    }

    /// Random bytes, mostly of instructions that exist.
    static func randomForm(_ r: inout JudgeRandom) -> (bytes: [UInt8], memory: Bool, compatible: Bool) {
        if r.chance(8) { return ((0..<24).map { _ in r.byte() }, r.chance(2), r.chance(4)) }
        var (bytes, memory, compatible) = anyForm(r.below(formCount), &r)
        if r.chance(4) {
            // One byte changed.
            bytes[r.below(8)] = r.byte()
            memory = r.chance(2)
        }
        return (bytes, memory, compatible)
    }
}
