// F2XM1, FYL2X, FYL2XP1, FPTAN, FPATAN, FSIN, FCOS, FSINCOS [APM5]: computed to some 120 bits with series, and rounded
// once, so that results are within 1 ulp as the manual wants (processors differ in the last place).

import CX86State
import X86Defs

/// A number with 128 significant bits: significand × 2^(exponent − 127). Operations cut off what lies below.
private struct WideNumber {
    var negative = false
    var exponent = 0
    /// The top bit is set, or the number is zero.
    var significand: UInt128 = 0

    init() {}
    init(_ n: SoftNumber) {
        negative = n.negative
        exponent = n.exponent
        significand = n.kind == .finite ? UInt128(n.significand) &<< 64 : 0
    }
    init(exponent: Int, _ high: UInt64, _ low: UInt64 = 0, negative: Bool = false) {
        self.negative = negative
        self.exponent = exponent
        significand = UInt128(high) &<< 64 | UInt128(low)
    }
    init(_ v: Int) {
        self.init(SoftNumber(integer: Int64(v)))
    }

    var isZero: Bool { significand == 0 }
    var magnitude: WideNumber {
        var r = self
        r.negative = false
        return r
    }

    private func normalized() -> WideNumber {
        guard significand != 0 else { return WideNumber() }
        var r = self
        let shift = significand.leadingZeroBitCount
        r.significand = significand &<< UInt128(shift)
        r.exponent = exponent &- shift
        return r
    }

    static prefix func - (a: WideNumber) -> WideNumber {
        var r = a
        r.negative.toggle()
        return r
    }

    static func + (a: WideNumber, b: WideNumber) -> WideNumber {
        if a.isZero { return b }
        if b.isZero { return a }
        let aIsLarger = a.exponent != b.exponent ? a.exponent > b.exponent : a.significand >= b.significand
        var x = aIsLarger ? a : b
        let y = aIsLarger ? b : a
        let shift = x.exponent &- y.exponent
        let small = shift > 127 ? 0 : y.significand &>> UInt128(shift)
        if x.negative == y.negative {
            let (sum, carry) = x.significand.addingReportingOverflow(small)
            x.significand = carry ? sum &>> 1 | 1 &<< 127 : sum
            if carry { x.exponent = x.exponent &+ 1 }
            return x
        }
        x.significand = x.significand &- small
        return x.normalized()
    }
    static func - (a: WideNumber, b: WideNumber) -> WideNumber { a + -b }

    static func * (a: WideNumber, b: WideNumber) -> WideNumber {
        if a.isZero || b.isZero { return WideNumber() }
        var r = WideNumber()
        r.negative = a.negative != b.negative
        r.significand = a.significand.multipliedFullWidth(by: b.significand).high
        r.exponent = a.exponent &+ b.exponent &+ 1
        return r.normalized()
    }

    static func / (a: WideNumber, b: WideNumber) -> WideNumber {
        if a.isZero || b.isZero { return WideNumber() }
        var r = WideNumber()
        r.negative = a.negative != b.negative
        // The dividend is halved, so that its high part is below the divisor.
        r.significand = b.significand.dividingFullWidth((a.significand &>> 1, a.significand &<< 127)).quotient
        r.exponent = a.exponent &- b.exponent
        return r.normalized()
    }

    static let one = WideNumber(1)
    static let pi = WideNumber(exponent: 1, 0xc90f_daa2_2168_c234, 0xc4c6_628b_80dc_1cd1)
    static let halfPi = WideNumber(exponent: 0, 0xc90f_daa2_2168_c234, 0xc4c6_628b_80dc_1cd1)
    static let ln2 = WideNumber(exponent: -1, 0xb172_17f7_d1cf_79ab, 0xc9e3_b398_03f2_f6af)
    static let log2e = WideNumber(exponent: 0, 0xb8aa_3b29_5c17_f0bb, 0xbe87_fed0_691d_3e88)

    // MARK: Series

    /// e^y − 1 for |y| < 1.
    static func exponentialMinusOne(_ y: WideNumber) -> WideNumber {
        var sum = y, term = y
        for n in 2..<40 {
            term = term * y / WideNumber(n)
            if term.isZero || term.exponent < sum.exponent &- 130 { break }
            sum = sum + term
        }
        return sum
    }

    /// 2 artanh(z) = ln((1 + z) / (1 − z)) for small z.
    static func doubleArtanh(_ z: WideNumber) -> WideNumber {
        let square = z * z
        var sum = z, power = z
        for n in 1..<40 {
            power = power * square
            if power.isZero || power.exponent < sum.exponent &- 130 { break }
            sum = sum + power / WideNumber(2 &* n &+ 1)
        }
        sum.exponent = sum.exponent &+ (sum.isZero ? 0 : 1)
        return sum
    }

    /// log2 of a positive number.
    static func log2(_ x: WideNumber) -> WideNumber {
        var m = x
        m.exponent = 0
        var k = x.exponent
        // m in [√½, √2).
        if m.significand > 0xb504_f333_f9de_6484_597d_89b3_754a_be9f {
            m.exponent = -1
            k = k &+ 1
        }
        let fraction = doubleArtanh((m - one) / (m + one)) * log2e
        return WideNumber(k) + fraction
    }

    /// Sine and cosine for |r| ≤ π/4.
    static func sineAndCosine(_ r: WideNumber) -> (WideNumber, WideNumber) {
        let square = -(r * r)
        var sine = r, cosine = one, term = r, other = one
        for n in 1..<24 {
            other = other * square / WideNumber((2 &* n &- 1) &* 2 &* n)
            cosine = cosine + other
            term = term * square / WideNumber(2 &* n &* (2 &* n &+ 1))
            if term.isZero || term.exponent < sine.exponent &- 130 { break }
            sine = sine + term
        }
        return (sine, cosine)
    }

    /// arctan(k / 8), k = 0…8, by Euler's series.
    private static let arctangents: [WideNumber] = (0...8).map { k in
        if k == 0 { return WideNumber() }
        let x = WideNumber(k) / WideNumber(8)
        let ratio = x * x / (one + x * x)
        var term = x / (one + x * x), sum = term
        for n in 1..<260 {
            term = term * ratio * WideNumber(2 &* n) / WideNumber(2 &* n &+ 1)
            if term.exponent < -134 { break }
            sum = sum + term
        }
        return sum
    }

    /// arctan(a) for 0 ≤ a ≤ 1.
    static func arctangent(_ a: WideNumber) -> WideNumber {
        if a.isZero { return a }
        let k = a.exponent < -4 ? 0 : Int(truncatingIfNeeded: (a.significand &>> UInt128(123 &- a.exponent) &+ 1) &>> 1)
        let c = WideNumber(k) / WideNumber(8)
        let z = k == 0 ? a : (a - c) / (one + a * c)
        let square = -(z * z)
        var sum = z, power = z
        for n in 1..<40 {
            power = power * square
            if power.isZero || power.exponent < sum.exponent &- 130 { break }
            sum = sum + power / WideNumber(2 &* n &+ 1)
        }
        return arctangents[min(k, 8)] + sum
    }

    /// The quadrant of x and the rest in [−π/4, π/4]. As in the processors, π is the number rounded to 68 bits, of which
    /// the last two are zeros [SDM1 8.3.8]: the rest is exact, and programs that subtract multiples of that π themselves
    /// agree with the instructions. |x| < 2^63.
    static func reduced(_ n: SoftNumber) -> (Int, WideNumber) {
        if n.exponent < -1 { return (0, WideNumber(n)) }
        // x and π/2 in units of 2^−65: the remainder of x by shifting in one bit at a time.
        let halfPi = UInt128(0x3) &<< 64 | 0x243f_6a88_85a3_08d3
        var rest = UInt128(n.significand), quadrant = 0
        for _ in 0..<min(n.exponent &+ 2, 64) {
            rest = rest &<< 1
            quadrant = quadrant &<< 1 & 3
            if rest >= halfPi {
                rest = rest &- halfPi
                quadrant |= 1
            }
        }
        var negative = n.negative
        if rest &<< 1 > halfPi {
            // Beyond one half: from the next quadrant, backwards.
            rest = halfPi &- rest
            quadrant = (quadrant &+ 1) & 3
            negative.toggle()
        }
        let shift = rest.leadingZeroBitCount
        var r = WideNumber()
        r.negative = negative
        r.exponent = 62 &- shift
        r.significand = rest &<< UInt128(shift)
        return (n.negative ? (0 &- quadrant) & 3 : quadrant, r)
    }
}

extension FloatStatus {
    /// A result that is never exact.
    fileprivate mutating func round(_ v: WideNumber) -> SoftNumber {
        if v.isZero { return .zero(v.negative) }
        return round(v.negative, v.exponent, v.significand | 1, .extended)
    }
}

extension Processor {
    /// D9 F0 to F3, F9, FB, FE, FF.
    func transcendentalX87(_ n: Int) {
        switch n {
        case 0: unaryX87 { x, status, _ in Self.powerMinusOne(x, &status) }
        case 1, 9: logarithmX87(plusOne: n == 9)
        case 3: arctangentX87()
        default: trigonometricX87(n)
        }
    }

    private static func powerMinusOne(_ x: SoftNumber, _ status: inout FloatStatus) -> SoftNumber {
        if x.denormal { status.flags |= FloatFlag.denormal }
        if x.isZero { return x }
        if x.isInfinite { return x.negative ? SoftNumber(integer: -1) : x }
        // Beyond ±1 the manual defines nothing; the ends are exact.
        if x.exponent >= 0 {
            guard x.exponent == 0, x.significand &<< 1 == 0 else { return x }
            return x.negative
                ? SoftNumber(negative: true, exponent: -1, unnormalized: 1 &<< 63) : SoftNumber(integer: 1)
        }
        return status.round(WideNumber.exponentialMinusOne(WideNumber(x) * .ln2))
    }

    /// ST(1) × log2(ST(0)) or ST(1) × log2(ST(0) + 1), and a pop.
    private func logarithmX87(plusOne: Bool) {
        binaryTranscendental { x, y, status in
            var invalid: SoftNumber {
                status.flags |= FloatFlag.invalid
                return .indefinite
            }
            let one = SoftNumber(integer: 1)
            let isBelow: Bool  // The logarithm is negative.
            if plusOne {
                let order = FloatStatus.compare(x, SoftNumber(integer: -1)) ?? 0
                if order < 0 { return invalid }
                if x.isZero {
                    if y.denormal { status.flags |= FloatFlag.denormal }
                    return y.isInfinite ? invalid : .zero(x.negative != y.negative)
                }
                isBelow = x.negative
                if order == 0 {
                    if y.isZero { return invalid }
                    if !y.isInfinite { status.flags |= FloatFlag.zeroDivide }
                    return .infinity(!y.negative)
                }
            } else {
                if x.negative, !x.isZero { return invalid }
                if x.isZero {
                    if y.isZero { return invalid }
                    if !y.isInfinite { status.flags |= FloatFlag.zeroDivide }
                    return .infinity(!y.negative)
                }
                let order = FloatStatus.compare(x, one) ?? 0
                if order == 0 {
                    if y.denormal { status.flags |= FloatFlag.denormal }
                    return y.isInfinite ? invalid : .zero(y.negative)
                }
                isBelow = order < 0
            }
            if x.isInfinite { return y.isZero ? invalid : .infinity(y.negative) }
            if x.denormal || y.denormal { status.flags |= FloatFlag.denormal }
            if y.isInfinite { return .infinity(y.negative != isBelow) }
            if y.isZero { return .zero(y.negative != isBelow) }
            let v = WideNumber(x)
            let log: WideNumber
            if plusOne {
                log =
                    x.exponent < -1
                    ? WideNumber.doubleArtanh(v / (v + WideNumber(2))) * .log2e : WideNumber.log2(v + .one)
            } else {
                log = WideNumber.log2(v)
                if x.significand &<< 1 == 0 {
                    // A power of two: its logarithm is exact, and so may be the product.
                    let r = status.multiply(y, SoftNumber(integer: Int64(x.exponent)), .extended)
                    if features.contains(.amdOrder) {
                        // AMD's processors call it inexact all the same, and one too small for its precision an underflow.
                        status.flags |= FloatFlag.precision
                        if r.kind == .finite, r.significand &>> 63 == 0 { status.flags |= FloatFlag.underflow }
                    }
                    return r
                }
            }
            return status.round(WideNumber(y) * log)
        }
    }

    /// The angle of the point (ST(0), ST(1)), and a pop.
    private func arctangentX87() {
        binaryTranscendental { x, y, status in
            if x.denormal || y.denormal { status.flags |= FloatFlag.denormal }
            var angle: WideNumber
            if y.isZero || x.isInfinite && !y.isInfinite {
                if !x.negative { return .zero(y.negative) }
                angle = .pi
            } else if x.isZero || y.isInfinite && !x.isInfinite {
                angle = .halfPi
            } else if y.isInfinite {
                angle = x.negative ? .pi - quarter : quarter
            } else {
                let a = WideNumber(y).magnitude, b = WideNumber(x).magnitude
                let isSteep = a.exponent != b.exponent ? a.exponent > b.exponent : a.significand > b.significand
                angle = WideNumber.arctangent(isSteep ? b / a : a / b)
                if isSteep { angle = .halfPi - angle }
                if x.negative { angle = .pi - angle }
            }
            angle.negative = y.negative
            return status.round(angle)
        }
    }
    private var quarter: WideNumber { WideNumber(exponent: -1, 0xc90f_daa2_2168_c234, 0xc4c6_628b_80dc_1cd1) }

    /// ST(1) = f(ST(0), ST(1)), and a pop.
    private func binaryTranscendental(_ body: (SoftNumber, SoftNumber, inout FloatStatus) -> SoftNumber) {
        s.pointee.fsw &= ~FSW.c1
        if isEmpty(0) || isEmpty(1) {
            guard stackFault(overflow: false) else { return }
            writeST(1, .indefinite)
        } else {
            var status = x87Status
            let x = readST(0), y = readST(1)
            let r = answerForNaNs(x, y, &status) ?? body(x, y, &status)
            guard commitX87(status, stopping: status.flags & FloatFlag.early) else { return }
            writeST(1, wrapped(r, status))
        }
        popX87()
    }

    /// FPTAN (2), FSINCOS (11), FSIN (14), FCOS (15). C2: the operand is out of range and stays.
    private func trigonometricX87(_ n: Int) {
        s.pointee.fsw &= ~(FSW.c1 | FSW.c2)
        let pushes = n == 2 || n == 11
        if isEmpty(0) || pushes && !isEmpty(7) {
            guard stackFault(overflow: !isEmpty(0)) else { return }
            writeST(0, .indefinite)
            if pushes {
                setX87Top(x87Top &- 1)
                writeST(0, .indefinite)
            }
            return
        }
        var status = x87Status
        let x = readST(0)
        var first: SoftNumber, second = SoftNumber(integer: 1)
        if let answer = answerForNaNs(x, x, &status) {
            (first, second) = (answer, answer)
        } else if x.isInfinite {
            status.flags |= FloatFlag.invalid
            (first, second) = (.indefinite, .indefinite)
        } else if x.isZero {
            first = n == 15 ? SoftNumber(integer: 1) : x
        } else if x.exponent >= 63 {
            s.pointee.fsw |= FSW.c2
            return
        } else {
            if x.denormal { status.flags |= FloatFlag.denormal }
            let (quadrant, r) = WideNumber.reduced(x)
            var (sine, cosine) = WideNumber.sineAndCosine(r)
            if quadrant & 1 != 0 { (sine, cosine) = (cosine, -sine) }
            if quadrant & 2 != 0 { (sine, cosine) = (-sine, -cosine) }
            switch n {
            case 2: first = status.round(sine / cosine)
            case 11:
                first = status.round(sine)
                second = status.round(cosine)
            case 14: first = status.round(sine)
            default: first = status.round(cosine)
            }
        }
        guard commitX87(status) else { return }
        writeST(0, wrapped(first, status))
        if pushes {
            setX87Top(x87Top &- 1)
            writeST(0, second)
        }
    }
}
