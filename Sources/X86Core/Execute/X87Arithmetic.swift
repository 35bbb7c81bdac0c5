// x87 arithmetic, comparisons and the functions that are no transcendentals [APM5].
//
// An unmasked invalid, denormal or zero-divide exception leaves registers and stack alone; an unmasked overflow or
// underflow of a register result stores it with its exponent wrapped by 24576.

import CX86State
import X86Defs

extension SoftNumber {
    /// From the 80-bit format.
    init(significand m: UInt64, signAndExponent e: UInt16) {
        let negative = e & 0x8000 != 0
        let field = Int(e & 0x7fff)
        let isNormal = m &>> 63 != 0
        switch field {
        case 0:
            self.init(negative: negative, exponent: -16382, unnormalized: m)
            denormal = m != 0
        case 0x7fff:
            let kind: Kind =
                !isNormal ? .unsupported : m &<< 1 == 0 ? .infinity : m & (1 &<< 62) != 0 ? .quietNaN : .signalingNaN
            self.init(kind: kind, negative: negative, exponent: 0x4000, significand: m)
        default:
            self.init(
                kind: isNormal ? .finite : .unsupported, negative: negative, exponent: field &- 16383, significand: m)
        }
    }

    /// To the 80-bit format; the number has been rounded to it.
    var extended: (UInt64, UInt16) {
        let sign: UInt16 = negative ? 0x8000 : 0
        switch kind {
        case .zero: return (0, sign)
        case .infinity: return (1 &<< 63, sign | 0x7fff)
        case .quietNaN, .signalingNaN, .unsupported: return (significand, sign | 0x7fff)
        case .finite:
            if significand &>> 63 == 0 { return (significand, sign) }
            if exponent < -16382 {
                let lost = UInt64(min(63, -16382 &- exponent))
                return (significand &>> lost, sign)
            }
            return (significand, sign | UInt16(truncatingIfNeeded: min(exponent &+ 16383, 0x7fff)))
        }
    }
}

extension Processor {
    var x87Status: FloatStatus {
        var status = FloatStatus()
        status.rounding = UInt8((s.pointee.fcw &>> 10) & 3)
        status.masks = s.pointee.fcw & 0x3f
        return status
    }

    /// Precision control; the exponent range stays that of the 80-bit format.
    private var x87Format: FloatFormat {
        var format = FloatFormat.extended
        switch (s.pointee.fcw &>> 8) & 3 {
        case 0: format.precision = 24
        case 2: format.precision = 53
        default: break
        }
        return format
    }

    /// Enters flags and C1 into the status word. False: an unmasked exception that keeps the result from being stored.
    func commitX87(_ status: FloatStatus, stopping: UInt16 = FloatFlag.early) -> Bool {
        var flags = status.flags
        let stops = flags & ~status.masks & stopping != 0
        if flags & ~status.masks & FloatFlag.early != 0 { flags &= FloatFlag.early }
        if stops && stopping & ~FloatFlag.early != 0 { flags &= ~FloatFlag.precision }
        s.pointee.fsw = (s.pointee.fsw & ~FSW.c1) | flags
        if !stops && status.roundedUp { s.pointee.fsw |= FSW.c1 }
        updateX87Summary()
        return !stops
    }

    /// A register result: wrapped if overflow or underflow is unmasked.
    func wrapped(_ n: SoftNumber, _ status: FloatStatus) -> SoftNumber {
        guard n.kind == .finite else { return n }
        var r = n
        if status.flags & ~status.masks & FloatFlag.overflow != 0 {
            r.exponent = n.exponent &- 24576
            if r.exponent > 16383 { return .infinity(n.negative) }
        }
        if status.flags & ~status.masks & FloatFlag.underflow != 0 {
            r.exponent = n.exponent &+ 24576
            if r.exponent < -16382 { return .zero(n.negative) }
        }
        return r
    }

    /// The NaN that a two-operand instruction returns: the larger significand, quiet ones before signalling ones.
    private func chooseNaN(_ a: SoftNumber, _ b: SoftNumber) -> SoftNumber {
        if !b.isNaN { return a.quieted }
        if !a.isNaN { return b.quieted }
        if a.kind != b.kind { return a.kind == .quietNaN ? a : b }
        if a.significand != b.significand { return (a.significand > b.significand ? a : b).quieted }
        return (a.negative ? b : a).quieted
    }

    /// Invalid operands of a two-operand instruction; nil: none.
    func answerForNaNs(_ a: SoftNumber, _ b: SoftNumber, _ status: inout FloatStatus) -> SoftNumber? {
        if a.kind == .unsupported || b.kind == .unsupported {
            status.flags |= FloatFlag.invalid
            return .indefinite
        }
        guard a.isNaN || b.isNaN else { return nil }
        if a.kind == .signalingNaN || b.kind == .signalingNaN { status.flags |= FloatFlag.invalid }
        return chooseNaN(a, b)
    }

    /// The operations of the encoding's field: ADD, MUL, (COM, COMP), SUB, SUBR, DIV, DIVR.
    private func operate(_ op: Int, _ a: SoftNumber, _ b: SoftNumber, _ status: inout FloatStatus) -> SoftNumber {
        let x = op == 5 || op == 7 ? b : a
        var y = op == 5 || op == 7 ? a : b
        if let r = answerForNaNs(a, b, &status) { return r }
        switch op {
        case 0: return status.add(x, y, x87Format)
        case 1: return status.multiply(x, y, x87Format)
        case 4, 5:
            y.negative.toggle()
            return status.add(x, y, x87Format)
        default: return status.divide(x, y, x87Format)
        }
    }

    /// ST(0) op= n, or a comparison with n.
    func x87Arithmetic(_ op: Int, with n: SoftNumber) {
        if op == 2 || op == 3 { return compareX87(with: n, isEmpty(0), quiet: false, pops: op &- 2) }
        s.pointee.fsw &= ~FSW.c1
        if isEmpty(0) {
            guard stackFault(overflow: false) else { return }
            return writeST(0, .indefinite)
        }
        var status = x87Status
        let r = operate(op, readST(0), n, &status)
        guard commitX87(status) else { return }
        writeST(0, wrapped(r, status))
    }

    /// ST(target) = ST(target) op ST(source).
    func x87ArithmeticRegisters(_ op: Int, target: Int, source: Int, pop: Bool) {
        s.pointee.fsw &= ~FSW.c1
        if isEmpty(target) || isEmpty(source) {
            guard stackFault(overflow: false) else { return }
            writeST(target, .indefinite)
        } else {
            var status = x87Status
            let r = operate(op, readST(target), readST(source), &status)
            guard commitX87(status) else { return }
            writeST(target, wrapped(r, status))
        }
        if pop { popX87() }
    }

    var amdOrder: Bool { features.contains(.amdOrder) }

    // MARK: Comparisons

    /// IE for NaNs, DE for denormals. nil: unordered.
    private func order(_ a: SoftNumber, _ b: SoftNumber, quiet: Bool, _ status: inout FloatStatus) -> Int? {
        if a.kind == .unsupported || b.kind == .unsupported || a.kind == .signalingNaN || b.kind == .signalingNaN
            || !quiet && (a.isNaN || b.isNaN)
        {
            status.flags |= FloatFlag.invalid
        } else if !a.isNaN, !b.isNaN, a.denormal || b.denormal {
            status.flags |= FloatFlag.denormal
        }
        return FloatStatus.compare(a, b)
    }

    private func setConditions(_ order: Int?) {
        s.pointee.fsw &= ~(FSW.c0 | FSW.c1 | FSW.c2 | FSW.c3)
        guard let order else {
            s.pointee.fsw |= FSW.c0 | FSW.c2 | FSW.c3
            return
        }
        if order < 0 { s.pointee.fsw |= FSW.c0 }
        if order == 0 { s.pointee.fsw |= FSW.c3 }
    }

    private func compareX87(with n: SoftNumber, _ empty: Bool, quiet: Bool, pops: Int) {
        s.pointee.fsw &= ~FSW.c1
        if empty {
            let masked = stackFault(overflow: false)
            setConditions(nil)
            guard masked else { return }
        } else {
            var status = x87Status
            let result = order(readST(0), n, quiet: quiet, &status)
            let stored = commitX87(status)
            if stored || status.flags & FloatFlag.invalid != 0 || amdOrder { setConditions(result) }
            guard stored else { return }
        }
        for _ in 0..<pops { popX87() }
    }

    func compareX87(_ i: Int, quiet: Bool, pops: Int) {
        compareX87(with: readST(i), isEmpty(0) || isEmpty(i), quiet: quiet, pops: pops)
    }

    /// FCOMI, FUCOMI and their popping forms.
    func compareX87Flags(_ i: Int, quiet: Bool, pop: Bool) {
        if isEmpty(0) || isEmpty(i) {
            let masked = stackFault(overflow: false)
            setComparisonFlags(nil)
            guard masked else { return }
        } else {
            var status = x87Status
            let c1 = s.pointee.fsw & FSW.c1
            let result = order(readST(0), readST(i), quiet: quiet, &status)
            let stored = commitX87(status)
            s.pointee.fsw |= c1
            if stored || status.flags & FloatFlag.invalid != 0 || amdOrder { setComparisonFlags(result) }
            guard stored else { return }
        }
        if pop { popX87() }
    }

    /// FTST.
    func testX87() { compareX87(with: .zero(false), isEmpty(0), quiet: false, pops: 0) }

    /// FXAM.
    func examineX87() {
        let n = readST(0)
        var bits: UInt16
        if isEmpty(0) {
            bits = FSW.c3 | FSW.c0
        } else {
            switch n.kind {
            case .unsupported: bits = 0
            case .quietNaN, .signalingNaN: bits = FSW.c0
            case .infinity: bits = FSW.c2 | FSW.c0
            case .zero: bits = FSW.c3
            case .finite: bits = n.denormal ? FSW.c3 | FSW.c2 : FSW.c2
            }
        }
        if exponent(x87Top) & 0x8000 != 0 { bits |= FSW.c1 }
        s.pointee.fsw = s.pointee.fsw & ~(FSW.c0 | FSW.c1 | FSW.c2 | FSW.c3) | bits
    }

    // MARK: Constants and functions

    /// FLD1, FLDL2T, FLDL2E, FLDPI, FLDLG2, FLDLN2, FLDZ: 128 significant bits, rounded as the control word says.
    func pushConstant(_ i: Int) {
        let table: [(Int, UInt64, UInt64)] = [
            (0, 0x8000_0000_0000_0000, 0), (1, 0xd49a_784b_cd1b_8afe, 0x492b_f6ff_4daf_db4c),
            (0, 0xb8aa_3b29_5c17_f0bb, 0xbe87_fed0_691d_3e88), (1, 0xc90f_daa2_2168_c234, 0xc4c6_628b_80dc_1cd1),
            (-2, 0x9a20_9a84_fbcf_f798, 0x8f89_59ac_0b7c_9178), (-1, 0xb172_17f7_d1cf_79ab, 0xc9e3_b398_03f2_f6af),
        ]
        guard i < 6 else {
            pushX87(.zero(false))
            return
        }
        var status = x87Status
        status.masks = 0x3f
        let (exponent, high, low) = table[i]
        pushX87(status.round(false, exponent, UInt128(high) &<< 64 | UInt128(low), .extended))
    }

    /// D9 F0-FF.
    func x87Function(_ n: Int, at rip: UInt64) -> Bool {
        switch n {
        case 4: extractX87()
        case 5: remainderX87(nearest: true)
        case 6, 7:
            s.pointee.fsw &= ~FSW.c1
            setX87Top(x87Top &+ (n == 6 ? -1 : 1))
        case 8: remainderX87(nearest: false)
        case 10:
            unaryX87 { n, status, format in status.squareRoot(n, format) }
        case 12:
            unaryX87 { n, status, _ in status.roundToIntegral(n) }
        case 13: scaleX87()
        default: transcendentalX87(n)
        }
        return true
    }

    func unaryX87(_ body: (SoftNumber, inout FloatStatus, FloatFormat) -> SoftNumber) {
        s.pointee.fsw &= ~FSW.c1
        if isEmpty(0) {
            guard stackFault(overflow: false) else { return }
            return writeST(0, .indefinite)
        }
        var status = x87Status
        let n = readST(0)
        let r = answerForNaNs(n, n, &status) ?? body(n, &status, x87Format)
        guard commitX87(status) else { return }
        writeST(0, wrapped(r, status))
    }

    /// FXTRACT: the exponent replaces ST(0), the significand is pushed.
    private func extractX87() {
        s.pointee.fsw &= ~FSW.c1
        let full = !isEmpty(7)
        if isEmpty(0) || full {
            guard stackFault(overflow: !isEmpty(0) && full) else { return }
            writeST(0, .indefinite)
            setX87Top(x87Top &- 1)
            return writeST(0, .indefinite)
        }
        var status = x87Status
        let n = readST(0)
        var power: SoftNumber, part: SoftNumber
        if let r = answerForNaNs(n, n, &status) {
            (power, part) = (r, r)
        } else {
            part = n
            switch n.kind {
            case .infinity: power = .infinity(false)
            case .zero:
                status.flags |= FloatFlag.zeroDivide
                power = .infinity(true)
            default:
                if n.denormal { status.flags |= FloatFlag.denormal }
                power = SoftNumber(integer: Int64(n.exponent))
                part.exponent = 0
            }
        }
        guard commitX87(status) else { return }
        writeST(0, power)
        setX87Top(x87Top &- 1)
        writeST(0, part)
    }

    /// FSCALE: ST(0) × 2^trunc(ST(1)).
    private func scaleX87() {
        s.pointee.fsw &= ~FSW.c1
        if isEmpty(0) || isEmpty(1) {
            guard stackFault(overflow: false) else { return }
            return writeST(0, .indefinite)
        }
        var status = x87Status
        let n = readST(0), scale = readST(1)
        let r: SoftNumber
        if let answer = answerForNaNs(n, scale, &status) {
            r = answer
        } else if n.isZero && scale.isInfinite && !scale.negative || n.isInfinite && scale.isInfinite && scale.negative
        {
            status.flags |= FloatFlag.invalid
            r = .indefinite
        } else {
            if n.denormal || scale.denormal { status.flags |= FloatFlag.denormal }
            if n.kind != .finite {
                r = n
            } else if scale.isInfinite {
                r = scale.negative ? .zero(n.negative) : .infinity(n.negative)
            } else {
                var quiet = FloatStatus()
                let steps = quiet.integer(scale, width: 64, truncating: true) ?? (scale.negative ? -70000 : 70000)
                var moved = n
                moved.exponent = n.exponent &+ Int(max(-70000, min(70000, steps)))
                r = status.round(moved, .extended)
                // So small that even the wrapped exponent cannot show it.
                if status.flags & ~status.masks & FloatFlag.underflow != 0, r.kind == .finite, r.exponent < -40958 {
                    status.flags |= FloatFlag.precision
                }
            }
        }
        guard commitX87(status) else { return }
        writeST(0, wrapped(r, status))
    }

    /// FPREM and FPREM1: up to 63 quotient bits per step; C2 says that more are left.
    private func remainderX87(nearest: Bool) {
        s.pointee.fsw &= ~(FSW.c1 | FSW.c2)
        if isEmpty(0) || isEmpty(1) {
            guard stackFault(overflow: false) else { return }
            return writeST(0, .indefinite)
        }
        var status = x87Status
        let a = readST(0), b = readST(1)
        var conditions = s.pointee.fsw & (FSW.c0 | FSW.c3)
        let r: SoftNumber
        if let answer = answerForNaNs(a, b, &status) {
            r = answer
        } else if a.isInfinite || b.isZero {
            status.flags |= FloatFlag.invalid
            r = .indefinite
        } else {
            if a.denormal || b.denormal { status.flags |= FloatFlag.denormal }
            if a.isZero || b.isInfinite {
                conditions = 0
                r = status.round(a, .extended)
            } else {
                let (n, quotient, partial) = SoftNumber.remainder(a, b, nearest: nearest)
                r = status.round(n, .extended)
                conditions = partial ? FSW.c2 : 0
                if !partial {
                    if quotient & 1 != 0 { conditions |= FSW.c1 }
                    if quotient & 2 != 0 { conditions |= FSW.c3 }
                    if quotient & 4 != 0 { conditions |= FSW.c0 }
                }
            }
        }
        guard commitX87(status) else { return }
        s.pointee.fsw = s.pointee.fsw & ~(FSW.c0 | FSW.c1 | FSW.c2 | FSW.c3) | conditions
        writeST(0, wrapped(r, status))
    }
}

extension FloatStatus {
    /// FRNDINT.
    mutating func roundToIntegral(_ n: SoftNumber) -> SoftNumber {
        if n.denormal { flags |= FloatFlag.denormal }
        guard n.kind == .finite, n.exponent < 63 else { return n }
        // Below 2^63 the rounded magnitude fits.
        return SoftNumber(negative: n.negative, exponent: 63, unnormalized: magnitude(n, truncating: false) ?? 0)
    }
}

extension SoftNumber {
    /// The exact remainder of a / b, the quotient's low bits, and whether the reduction is only partial.
    static func remainder(_ a: SoftNumber, _ b: SoftNumber, nearest: Bool) -> (SoftNumber, UInt64, Bool) {
        let distance = a.exponent &- b.exponent
        if distance < (nearest ? -1 : 0) { return (a, 0, false) }
        let partial = distance >= 64
        // Quotient bits of this step: all, or enough to bring the distance down by 32 to 63.
        let steps = partial ? (distance & 31) | 32 : distance
        var rest = UInt128(a.significand)
        let divisor = UInt128(b.significand)
        var quotient: UInt64 = 0
        let exponent: Int
        if distance < 0 {
            // |b|/4 < |a| < |b|: only rounding to nearest can take one divisor away.
            guard a.significand > b.significand else { return (a, 0, false) }
            let left = UInt64(truncatingIfNeeded: divisor &<< 1 &- rest)
            return (SoftNumber(negative: !a.negative, exponent: a.exponent, unnormalized: left), 1, false)
        }
        exponent = a.exponent &- steps
        for i in 0...steps {
            if i > 0 { rest = rest &<< 1 }
            quotient = quotient &<< 1
            if rest >= divisor {
                rest = rest &- divisor
                quotient |= 1
            }
        }
        var negative = a.negative
        if nearest && !partial {
            let twice = rest &<< 1
            if twice > divisor || twice == divisor && quotient & 1 != 0 {
                rest = divisor &- rest
                quotient = quotient &+ 1
                negative.toggle()
            }
        }
        if rest == 0 { return (.zero(a.negative), quotient, partial) }
        return (
            SoftNumber(negative: negative, exponent: exponent, unnormalized: UInt64(truncatingIfNeeded: rest)),
            quotient,
            partial
        )
    }
}
