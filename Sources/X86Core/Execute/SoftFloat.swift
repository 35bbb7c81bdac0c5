// Floating-point arithmetic in integers, with every rounding mode and exception flag of SSE and x87 [APM1 4.7, 6.4].
// One core serves binary32, binary64 and the 80-bit format: numbers are unpacked to a 64-bit significand with its top bit
// set, computed to 128 bits, and rounded once to the format's precision.

/// Where a format's numbers end.
struct FloatFormat {
    /// Significand bits, the leading one included.
    var precision: Int
    /// Exponents of the smallest and largest normal numbers.
    var minimum: Int
    var maximum: Int

    static let single = FloatFormat(precision: 24, minimum: -126, maximum: 127)
    static let double = FloatFormat(precision: 53, minimum: -1022, maximum: 1023)
    static let extended = FloatFormat(precision: 64, minimum: -16382, maximum: 16383)
}

/// Exception flags, at the bits they have in MXCSR and in the x87 status word.
enum FloatFlag {
    static let invalid: UInt16 = 1, denormal: UInt16 = 2, zeroDivide: UInt16 = 4
    static let overflow: UInt16 = 8, underflow: UInt16 = 0x10, precision: UInt16 = 0x20
    /// Found before the operation is carried out.
    static let early: UInt16 = 7
}

/// Control in, flags out.
struct FloatStatus {
    /// 0 nearest even, 1 down, 2 up, 3 toward zero: as in MXCSR.RC and FCW.RC.
    var rounding: UInt8 = 0
    /// Masked exceptions.
    var masks: UInt16 = 0x3f
    var flushToZero = false
    var denormalsAreZeros = false
    var flags: UInt16 = 0
    /// The last rounding made the magnitude larger.
    var roundedUp = false

    func isUnmasked(_ flag: UInt16) -> Bool { masks & flag == 0 }
}

/// An unpacked number: significand × 2^(exponent − 63).
struct SoftNumber {
    enum Kind {
        case zero, finite, infinity, quietNaN, signalingNaN
        /// 80-bit encodings that no operation accepts.
        case unsupported
    }
    var kind: Kind
    var negative: Bool
    var exponent = 0
    /// Bit 63 set for finite numbers (but a denormal result of rounding may have it clear); for NaNs the payload below it.
    var significand: UInt64 = 0
    /// The source was denormal.
    var denormal = false

    var isNaN: Bool { kind == .quietNaN || kind == .signalingNaN }
    var isZero: Bool { kind == .zero }
    var isInfinite: Bool { kind == .infinity }

    static func zero(_ negative: Bool) -> SoftNumber { SoftNumber(kind: .zero, negative: negative) }
    static func infinity(_ negative: Bool) -> SoftNumber { SoftNumber(kind: .infinity, negative: negative) }
    /// The "real indefinite", the answer to masked invalid operations.
    static var indefinite: SoftNumber {
        SoftNumber(kind: .quietNaN, negative: true, significand: 0xc000_0000_0000_0000)
    }

    var quieted: SoftNumber {
        var n = self
        n.kind = .quietNaN
        n.significand |= 1 &<< 62
        return n
    }

    init(kind: Kind, negative: Bool, exponent: Int = 0, significand: UInt64 = 0) {
        self.kind = kind
        self.negative = negative
        self.exponent = exponent
        self.significand = significand
    }

    /// A significand that need not be normalised.
    init(negative: Bool, exponent: Int, unnormalized significand: UInt64) {
        self.negative = negative
        if significand == 0 {
            kind = .zero
        } else {
            let shift = significand.leadingZeroBitCount
            kind = .finite
            self.significand = significand &<< UInt64(shift)
            self.exponent = exponent &- shift
        }
    }

    init(integer v: Int64) {
        self.init(negative: v < 0, exponent: 63, unnormalized: v.magnitude)
    }

    // MARK: Bits

    /// From binary32 or binary64.
    init(bits: UInt64, wide: Bool) {
        let fractionBits: UInt64 = wide ? 52 : 23
        let exponentMask: UInt64 = wide ? 0x7ff : 0xff
        let fraction = bits & ((1 &<< fractionBits) &- 1)
        let field = (bits &>> fractionBits) & exponentMask
        let negative = (bits &>> (wide ? 63 : 31)) & 1 != 0
        let aligned = fraction &<< (63 &- fractionBits)
        let bias = wide ? 1023 : 127
        if field == exponentMask {
            self.init(
                kind: fraction == 0
                    ? .infinity : fraction &>> (fractionBits &- 1) != 0 ? .quietNaN : .signalingNaN,
                negative: negative, significand: aligned | 1 &<< 63)
        } else if field != 0 {
            self.init(
                kind: .finite, negative: negative, exponent: Int(field) &- bias, significand: aligned | 1 &<< 63)
        } else {
            self.init(negative: negative, exponent: 1 &- bias, unnormalized: aligned)
            denormal = kind == .finite
        }
    }

    /// To binary32 or binary64; the number has been rounded to that format.
    func bits(wide: Bool) -> UInt64 {
        let fractionBits: UInt64 = wide ? 52 : 23
        let sign: UInt64 = negative ? 1 &<< (wide ? 63 : 31) : 0
        let all: UInt64 = (wide ? 0x7ff : 0xff) &<< fractionBits
        let fraction = (significand & ~(1 &<< 63)) &>> (63 &- fractionBits)
        switch kind {
        case .zero: return sign
        case .infinity: return sign | all
        case .quietNaN, .signalingNaN, .unsupported: return sign | all | fraction
        case .finite:
            guard significand &>> 63 != 0 else { return sign | significand &>> (63 &- fractionBits) }
            let field = UInt64(truncatingIfNeeded: exponent &+ (wide ? 1023 : 127))
            return sign | field &<< fractionBits | fraction
        }
    }
}

extension UInt128 {
    /// Right shift; bits that fall out stay visible in the lowest one.
    @inline(__always)
    func shiftedRightJamming(_ n: Int) -> UInt128 {
        if n <= 0 { return self }
        if n >= 128 { return self == 0 ? 0 : 1 }
        let lost = self & ((1 &<< UInt128(n)) &- 1)
        return self &>> UInt128(n) | (lost == 0 ? 0 : 1)
    }
}

extension FloatStatus {
    /// Keeps the top `precision` bits. `significand` is aligned to bit 63 again; `carry`: it became a power of two more.
    private func cut(_ v: UInt128, _ negative: Bool, _ precision: Int) -> (
        significand: UInt64, carry: Bool, inexact: Bool, up: Bool
    ) {
        let shift = UInt128(128 &- precision)
        var kept = v &>> shift
        let rest = v & ((1 &<< shift) &- 1)
        let half: UInt128 = 1 &<< (shift &- 1)
        let up: Bool
        switch rounding {
        case 0: up = rest > half || rest == half && kept & 1 != 0
        case 1: up = negative && rest != 0
        case 2: up = !negative && rest != 0
        default: up = false
        }
        if up { kept = kept &+ 1 }
        let carry = kept &>> UInt128(precision) != 0
        if carry { kept = kept &>> 1 }
        return (UInt64(truncatingIfNeeded: kept) &<< UInt64(64 &- precision), carry, rest != 0, up)
    }

    /// Rounds `v` × 2^(exponent − 127), bit 127 of `v` set, to the format, with overflow and underflow.
    /// With the exception unmasked an overflowed or tiny result keeps its unbounded exponent: the caller decides.
    mutating func round(_ negative: Bool, _ exponent: Int, _ v: UInt128, _ format: FloatFormat) -> SoftNumber {
        let (significand, carry, inexact, up) = cut(v, negative, format.precision)
        let rounded = exponent &+ (carry ? 1 : 0)
        if rounded < format.minimum {
            if isUnmasked(FloatFlag.underflow) {
                flags |= FloatFlag.underflow | (inexact ? FloatFlag.precision : 0)
                roundedUp = up
                return SoftNumber(kind: .finite, negative: negative, exponent: rounded, significand: significand)
            }
            if flushToZero {
                flags |= FloatFlag.underflow | FloatFlag.precision
                roundedUp = false
                return .zero(negative)
            }
            let small = cut(v.shiftedRightJamming(format.minimum &- exponent), negative, format.precision)
            if small.inexact { flags |= FloatFlag.underflow | FloatFlag.precision }
            roundedUp = small.up
            return SoftNumber(
                kind: small.significand == 0 ? .zero : .finite, negative: negative, exponent: format.minimum,
                significand: small.significand)
        }
        if rounded > format.maximum {
            if isUnmasked(FloatFlag.overflow) {
                flags |= FloatFlag.overflow | (inexact ? FloatFlag.precision : 0)
                roundedUp = up
                return SoftNumber(kind: .finite, negative: negative, exponent: rounded, significand: significand)
            }
            flags |= FloatFlag.overflow | FloatFlag.precision
            let toInfinity = rounding == 0 || rounding == (negative ? 1 : 2)
            roundedUp = toInfinity
            if toInfinity { return .infinity(negative) }
            return SoftNumber(
                kind: .finite, negative: negative, exponent: format.maximum,
                significand: .max &<< UInt64(64 &- format.precision))
        }
        if inexact { flags |= FloatFlag.precision }
        roundedUp = up
        return SoftNumber(kind: .finite, negative: negative, exponent: rounded, significand: significand)
    }

    mutating func round(_ n: SoftNumber, _ format: FloatFormat) -> SoftNumber {
        guard n.kind == .finite else { return n }
        return round(n.negative, n.exponent, UInt128(n.significand) &<< 64, format)
    }

    private mutating func invalid() -> SoftNumber {
        flags |= FloatFlag.invalid
        return .indefinite
    }

    // The operations below take no NaNs and no unsupported encodings: their rules differ between SSE and x87.

    private mutating func noteDenormals(_ a: SoftNumber, _ b: SoftNumber) {
        if a.denormal || b.denormal { flags |= FloatFlag.denormal }
    }

    mutating func add(_ a: SoftNumber, _ b: SoftNumber, _ format: FloatFormat) -> SoftNumber {
        if a.isInfinite, b.isInfinite, a.negative != b.negative { return invalid() }
        noteDenormals(a, b)
        if a.isInfinite { return a }
        if b.isInfinite { return b }
        if a.isZero && b.isZero { return .zero(a.negative == b.negative ? a.negative : rounding == 1) }
        if a.isZero { return round(b, format) }
        if b.isZero { return round(a, format) }
        let aIsLarger = a.exponent != b.exponent ? a.exponent > b.exponent : a.significand >= b.significand
        let x = aIsLarger ? a : b, y = aIsLarger ? b : a
        let large = UInt128(x.significand) &<< 63
        let small = (UInt128(y.significand) &<< 63).shiftedRightJamming(x.exponent &- y.exponent)
        var sum = a.negative == b.negative ? large &+ small : large &- small
        guard sum != 0 else { return .zero(rounding == 1) }
        let shift = sum.leadingZeroBitCount
        sum = sum &<< UInt128(shift)
        return round(x.negative, x.exponent &+ 1 &- shift, sum, format)
    }

    mutating func multiply(_ a: SoftNumber, _ b: SoftNumber, _ format: FloatFormat) -> SoftNumber {
        if a.isInfinite && b.isZero || a.isZero && b.isInfinite { return invalid() }
        noteDenormals(a, b)
        let negative = a.negative != b.negative
        if a.isInfinite || b.isInfinite { return .infinity(negative) }
        if a.isZero || b.isZero { return .zero(negative) }
        var product = UInt128(a.significand) &* UInt128(b.significand)
        var exponent = a.exponent &+ b.exponent &+ 1
        if product.leadingZeroBitCount != 0 {
            product = product &<< 1
            exponent = exponent &- 1
        }
        return round(negative, exponent, product, format)
    }

    /// a × b + c, rounded once; for formats of up to 53 bits.
    mutating func multiplyAdd(_ a: SoftNumber, _ b: SoftNumber, _ c: SoftNumber, _ format: FloatFormat) -> SoftNumber {
        if a.isInfinite && b.isZero || a.isZero && b.isInfinite { return invalid() }
        let negative = a.negative != b.negative
        if a.isInfinite || b.isInfinite {
            if c.isInfinite, c.negative != negative { return invalid() }
            noteDenormals(a, b)
            noteDenormals(c, c)
            return .infinity(negative)
        }
        noteDenormals(a, b)
        noteDenormals(c, c)
        if c.isInfinite { return c }
        if a.isZero || b.isZero {
            if c.isZero { return .zero(negative == c.negative ? negative : rounding == 1) }
            return round(c, format)
        }
        // The exact product, its top bit at 126: one bit of room for the sum. Its low 20 bits are zero.
        var product = UInt128(a.significand) &* UInt128(b.significand)
        var exponent = a.exponent &+ b.exponent &+ 1
        if product.leadingZeroBitCount != 0 {
            product = product &<< 1
            exponent = exponent &- 1
        }
        if c.isZero { return round(negative, exponent, product, format) }
        product = product &>> 1
        var addend = UInt128(c.significand) &<< 63
        if exponent >= c.exponent {
            addend = addend.shiftedRightJamming(exponent &- c.exponent)
        } else {
            product = product.shiftedRightJamming(c.exponent &- exponent)
            exponent = c.exponent
        }
        if negative == c.negative {
            let sum = product &+ addend
            let shift = sum.leadingZeroBitCount
            return round(negative, exponent &+ 1 &- shift, sum &<< UInt128(shift), format)
        }
        if product == addend { return .zero(rounding == 1) }
        let difference = product > addend ? product &- addend : addend &- product
        let shift = difference.leadingZeroBitCount
        return round(
            product > addend ? negative : c.negative, exponent &+ 1 &- shift, difference &<< UInt128(shift), format)
    }

    mutating func divide(_ a: SoftNumber, _ b: SoftNumber, _ format: FloatFormat) -> SoftNumber {
        if a.isInfinite && b.isInfinite || a.isZero && b.isZero { return invalid() }
        let negative = a.negative != b.negative
        if b.isZero && a.kind == .finite {
            flags |= FloatFlag.zeroDivide
            return .infinity(negative)
        }
        noteDenormals(a, b)
        if a.isInfinite { return .infinity(negative) }
        if a.isZero || b.isInfinite { return .zero(negative) }
        // Halve the dividend if need be, so that the high word is below the divisor.
        let halve = a.significand >= b.significand
        let high = halve ? a.significand &>> 1 : a.significand
        let low: UInt64 = halve ? a.significand &<< 63 : 0
        let (q1, r1) = b.significand.dividingFullWidth((high, low))
        let (q2, r2) = b.significand.dividingFullWidth((r1, 0))
        let q = UInt128(q1) &<< 64 | UInt128(q2 | (r2 == 0 ? 0 : 1))
        // a < b: the quotient lies in [1/2, 1).
        let shift = q.leadingZeroBitCount
        return round(negative, a.exponent &- b.exponent &- (halve ? 0 : 1) &- shift, q &<< UInt128(shift), format)
    }

    mutating func squareRoot(_ a: SoftNumber, _ format: FloatFormat) -> SoftNumber {
        if a.isZero { return a }
        if a.negative { return invalid() }
        if a.denormal { flags |= FloatFlag.denormal }
        if a.isInfinite { return a }
        // Radicand in [1, 4) with two integer bits, two bits per step; 67 bits of root are enough to round 64.
        let odd = a.exponent & 1 != 0
        var radicand = UInt128(a.significand) &<< (odd ? 64 : 63)
        var root: UInt128 = 0, remainder: UInt128 = 0
        for _ in 0..<67 {
            remainder = remainder &<< 2 | radicand &>> 126
            radicand = radicand &<< 2
            root = root &<< 1
            let trial = root &<< 1 | 1
            if remainder >= trial {
                remainder = remainder &- trial
                root |= 1
            }
        }
        let shift = root.leadingZeroBitCount
        var v = root &<< UInt128(shift)
        if remainder != 0 || radicand != 0 { v |= 1 }
        return round(false, (a.exponent &- (odd ? 1 : 0)) / 2, v, format)
    }

    /// nil: unordered. Zeros are equal.
    static func compare(_ a: SoftNumber, _ b: SoftNumber) -> Int? {
        if a.isNaN || b.isNaN || a.kind == .unsupported || b.kind == .unsupported { return nil }
        if a.isZero && b.isZero { return 0 }
        func key(_ n: SoftNumber) -> (Int, UInt64) {
            n.isZero ? (Int.min, 0) : n.isInfinite ? (Int.max, 0) : (n.exponent, n.significand)
        }
        let x = key(a), y = key(b)
        let magnitude = x == y ? 0 : x < y ? -1 : 1
        if a.negative != b.negative { return a.negative ? -1 : 1 }
        return a.negative ? 0 &- magnitude : magnitude
    }

    /// Rounds to an integer; nil: it does not fit `width` bits, or is no number.
    mutating func integer(_ n: SoftNumber, width: Int, truncating: Bool) -> Int64? {
        switch n.kind {
        case .zero: return 0
        case .finite: break
        default: return nil
        }
        let before = (flags, roundedUp)
        let limit: UInt64 = 1 &<< UInt64(width &- 1)
        guard let m = magnitude(n, truncating: truncating), n.negative ? m <= limit : m < limit else {
            (flags, roundedUp) = before
            return nil
        }
        return Int64(bitPattern: n.negative ? 0 &- m : m)
    }

    /// The magnitude of a finite number, rounded to an integer; nil: not below 2^64.
    mutating func magnitude(_ n: SoftNumber, truncating: Bool) -> UInt64? {
        guard n.exponent <= 63 else { return nil }
        // 64 integer bits above 64 fraction bits.
        let v = (UInt128(n.significand) &<< 64).shiftedRightJamming(63 &- n.exponent)
        let whole = UInt64(truncatingIfNeeded: v &>> 64), rest = UInt64(truncatingIfNeeded: v)
        let half: UInt64 = 1 &<< 63
        let up: Bool
        switch truncating ? 3 : rounding {
        case 0: up = rest > half || rest == half && whole & 1 != 0
        case 1: up = n.negative && rest != 0
        case 2: up = !n.negative && rest != 0
        default: up = false
        }
        let (m, over) = whole.addingReportingOverflow(up ? 1 : 0)
        if over { return nil }
        if rest != 0 { flags |= FloatFlag.precision }
        roundedUp = up
        return m
    }
}
