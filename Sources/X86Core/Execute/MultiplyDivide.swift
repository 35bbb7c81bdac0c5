// MUL, IMUL, DIV, IDIV. The one-operand forms work on rDX:rAX (AX for bytes); a quotient that does not fit is #DE.

import CX86State

/// Two and three-operand IMUL: dst = src × (imm or dst).
@inline(__always)
func multiply<T: Word>(_ s: CPU, _ ip: IP, _ type: T.Type, immediate: Bool) {
    let a = Int64(bitPattern: signExtended(get(s, ip.pointee.src, as: T.self)))
    let b = Int64(bitPattern: signExtended(immediate ? T(truncatingIfNeeded: ip.pointee.imm) : get(s, ip.pointee.dst)))
    let (low, over) = a.multipliedReportingOverflow(by: b)
    let r = T(truncatingIfNeeded: low)
    let lost = over || Int64(bitPattern: signExtended(r)) != low
    put(s, ip.pointee.dst, r)
    setFlags(s, result: r, carry: lost, overflow: lost)
    next(s, ip)
}

@inline(__always)
func multiplyWide<T: Word>(_ s: CPU, _ ip: IP, _ type: T.Type, signed: Bool) {
    let a: T = get(s, 0), b: T = get(s, ip.pointee.src)
    if T.bitWidth == 8 {
        let p: UInt16
        let lost: Bool
        if signed {
            let v = Int16(Int8(truncatingIfNeeded: a)) &* Int16(Int8(truncatingIfNeeded: b))
            p = UInt16(bitPattern: v)
            lost = Int16(Int8(truncatingIfNeeded: v)) != v
        } else {
            p = UInt16(truncatingIfNeeded: a) &* UInt16(truncatingIfNeeded: b)
            lost = p > 0xff
        }
        put(s, 0, p)
        setFlags(s, result: UInt8(truncatingIfNeeded: p), carry: lost, overflow: lost)
    } else {
        let low: T, high: T
        let lost: Bool
        if signed && T.bitWidth == 64 {
            let p = Int64(truncatingIfNeeded: a).multipliedFullWidth(by: Int64(truncatingIfNeeded: b))
            low = T(truncatingIfNeeded: p.low)
            high = T(truncatingIfNeeded: p.high)
            lost = p.high != Int64(bitPattern: p.low) &>> 63
        } else if signed {
            let p = Int64(bitPattern: signExtended(a)) &* Int64(bitPattern: signExtended(b))
            low = T(truncatingIfNeeded: p)
            high = T(truncatingIfNeeded: p &>> Int64(T.bitWidth))
            lost = Int64(bitPattern: signExtended(low)) != p
        } else {
            let p = a.multipliedFullWidth(by: b)
            low = T(truncatingIfNeeded: p.low)
            high = p.high
            lost = high != 0
        }
        put(s, 0, low)
        put(s, Slot.gpr(2), high)
        setFlags(s, result: low, carry: lost, overflow: lost)
    }
    next(s, ip)
}

@inline(__always)
func divide<T: Word>(_ s: CPU, _ ip: IP, _ type: T.Type, signed: Bool) {
    let d: T = get(s, ip.pointee.src)
    guard d != 0 else { return raise(s, ip, vector: 0) }
    if T.bitWidth == 8 {
        let n: UInt16 = get(s, 0)
        if signed {
            let a = Int32(Int16(bitPattern: n)), b = Int32(Int8(truncatingIfNeeded: d))
            let q = a / b, r = a % b  // Safe: b != 0 and 32 bits hold every quotient.
            guard q == Int32(Int8(truncatingIfNeeded: q)) else { return raise(s, ip, vector: 0) }
            put(s, 0, UInt16(UInt8(truncatingIfNeeded: q)) | UInt16(UInt8(truncatingIfNeeded: r)) &<< 8)
        } else {
            let b = UInt16(truncatingIfNeeded: d)
            let q = n / b
            guard q <= 0xff else { return raise(s, ip, vector: 0) }
            put(s, 0, q | (n % b) &<< 8)
        }
    } else if signed {
        guard let (q, r) = signedQuotient(get(s, Slot.gpr(2), as: T.self), get(s, 0, as: T.self), d) else {
            return raise(s, ip, vector: 0)
        }
        put(s, 0, q)
        put(s, Slot.gpr(2), r)
    } else {
        let high: T = get(s, Slot.gpr(2)), low: T = get(s, 0)
        guard high < d else { return raise(s, ip, vector: 0) }
        // Safe: high < d, so the quotient fits.
        let (q, r) =
            high == 0
            ? (low / d, low % d) : d.dividingFullWidth((high, T.Magnitude(truncatingIfNeeded: low)))
        put(s, 0, q)
        put(s, Slot.gpr(2), r)
    }
    next(s, ip)
}

/// Divides magnitudes, then places the signs; nil if the quotient does not fit.
@inline(__always)
func signedQuotient<T: Word>(_ high: T, _ low: T, _ divisor: T) -> (T, T)? {
    let sign: T = 1 &<< T(truncatingIfNeeded: T.bitWidth &- 1)
    let negative = high & sign != 0, negativeDivisor = divisor & sign != 0
    var h = high, l = low
    if negative {
        l = 0 &- low
        h = ~high &+ (l == 0 ? 1 : 0)
    }
    let d = negativeDivisor ? 0 &- divisor : divisor
    guard h < d else { return nil }
    let (q, r) = h == 0 ? (l / d, l % d) : d.dividingFullWidth((h, T.Magnitude(truncatingIfNeeded: l)))
    let negativeQuotient = negative != negativeDivisor
    guard negativeQuotient ? q <= sign : q < sign else { return nil }
    return (negativeQuotient ? 0 &- q : q, negative ? 0 &- r : r)
}
