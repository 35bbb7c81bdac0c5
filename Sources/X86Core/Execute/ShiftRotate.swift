// Shifts, rotates, double shifts, bit tests and scans. A masked count of zero changes nothing, flags included.

import CX86State

/// In the order of group 2's operation field (6 is an alias of SHL).
enum Shift: Int {
    case rol, ror, rcl, rcr, shl, shr, sal, sar
}

@inline(__always)
func shift<T: Word>(_ s: CPU, _ op: Shift, _ a: T, count raw: UInt8, flags: Bool) -> T {
    let width = UInt8(truncatingIfNeeded: T.bitWidth)
    let count = raw & (width == 64 ? 63 : 31)
    guard count != 0 else { return a }
    let top = T.bitWidth &- 1
    @inline(__always) func bit(_ v: T, _ n: Int) -> Bool { (v &>> T(truncatingIfNeeded: n)) & 1 != 0 }
    switch op {
    case .shl, .sal:
        // Counts past the width (8 and 16-bit operands) shift everything out.
        let r: T = count < width ? a &<< T(truncatingIfNeeded: count) : 0
        if flags {
            let carry = count <= width ? bit(a, Int(width &- count)) : false
            setFlags(s, result: r, carry: carry, overflow: bit(r, top) != carry)
        }
        return r
    case .shr:
        let r: T = count < width ? a &>> T(truncatingIfNeeded: count) : 0
        if flags {
            let carry = count <= width ? bit(a, Int(count &- 1)) : false
            setFlags(s, result: r, carry: carry, overflow: count == 1 ? bit(a, top) : false)
        }
        return r
    case .sar:
        let wide = Int64(bitPattern: signExtended(a))
        let r = T(truncatingIfNeeded: wide &>> Int64(count > 63 ? 63 : count))
        if flags { setFlags(s, result: r, carry: (wide &>> Int64(count &- 1)) & 1 != 0, overflow: false) }
        return r
    case .rol:
        let n = T(truncatingIfNeeded: count & (width &- 1))
        let r = n == 0 ? a : (a &<< n) | (a &>> (T(truncatingIfNeeded: width) &- n))
        if flags { setRotateFlags(s, carry: bit(r, 0), overflow: bit(r, top) != bit(r, 0)) }
        return r
    case .ror:
        let n = T(truncatingIfNeeded: count & (width &- 1))
        let r = n == 0 ? a : (a &>> n) | (a &<< (T(truncatingIfNeeded: width) &- n))
        if flags { setRotateFlags(s, carry: bit(r, top), overflow: bit(r, top) != bit(r, top &- 1)) }
        return r
    case .rcl:
        var n = count % (width &+ 1), r = a, carry = flagC(s)
        if width >= 32 { n = count }
        while n > 0 {
            let out = bit(r, top)
            r = (r &<< 1) | (carry ? 1 : 0)
            carry = out
            n &-= 1
        }
        setRotateFlags(s, carry: carry, overflow: bit(r, top) != carry)
        return r
    case .rcr:
        var n = count % (width &+ 1), r = a, carry = flagC(s)
        if width >= 32 { n = count }
        while n > 0 {
            let out = bit(r, 0)
            r = (r &>> 1) | (carry ? 1 &<< T(truncatingIfNeeded: top) : 0)
            carry = out
            n &-= 1
        }
        setRotateFlags(s, carry: carry, overflow: bit(r, top) != bit(r, top &- 1))
        return r
    }
}

/// Rotates change CF and OF only.
@inline(__always)
func setRotateFlags(_ s: CPU, carry: Bool, overflow: Bool) {
    s.pointee.fc = (s.pointee.fc & 8) | carryOverflowWord(carry, overflow)
}

@inline(__always)
func shiftRI<T: Word>(_ s: CPU, _ ip: IP, _ op: Shift, _ type: T.Type, flags: Bool) {
    let count = UInt8(truncatingIfNeeded: ip.pointee.imm)
    put(s, ip.pointee.dst, shift(s, op, get(s, ip.pointee.dst, as: T.self), count: count, flags: flags))
    next(s, ip)
}

/// Count in CL.
@inline(__always)
func shiftRC<T: Word>(_ s: CPU, _ ip: IP, _ op: Shift, _ type: T.Type) {
    let count: UInt8 = get(s, Slot.gpr(1))
    put(s, ip.pointee.dst, shift(s, op, get(s, ip.pointee.dst, as: T.self), count: count, flags: true))
    next(s, ip)
}

/// SHLD and SHRD; for 16-bit operands counts above 16 are undefined (processors shift the source in twice).
@inline(__always)
func doubleShift<T: Word>(_ s: CPU, _ ip: IP, _ type: T.Type, left: Bool, byCL: Bool) {
    let raw: UInt8 = byCL ? get(s, Slot.gpr(1)) : UInt8(truncatingIfNeeded: ip.pointee.imm)
    let width = T.bitWidth
    let count = Int(raw & (width == 64 ? 63 : 31))
    let b: T = get(s, ip.pointee.src)
    let a: T = count > width ? b : get(s, ip.pointee.dst)
    if count != 0 {
        let n = T(truncatingIfNeeded: count % width), m = T(truncatingIfNeeded: width) &- n
        let r: T
        let carry: Bool
        if n == 0 {
            r = b
            carry = left ? a & 1 != 0 : a &>> T(truncatingIfNeeded: width &- 1) != 0
        } else if left {
            r = (a &<< n) | (b &>> m)
            carry = (a &>> m) & 1 != 0
        } else {
            r = (a &>> n) | (b &<< m)
            carry = (a &>> (n &- 1)) & 1 != 0
        }
        setFlags(s, result: r, carry: carry, overflow: ((r ^ a) &>> T(truncatingIfNeeded: width &- 1)) != 0)
        put(s, ip.pointee.dst, r)
    } else if width == 32 {
        put(s, ip.pointee.dst, a)
    }
    next(s, ip)
}

enum BitOperation: Int {
    case test, set, reset, complement
}

/// BT, BTS, BTR, BTC on a register (memory forms load and store around it). Only CF changes.
@inline(__always)
func bitOperation<T: Word>(_ s: CPU, _ ip: IP, _ op: BitOperation, _ type: T.Type, immediate: Bool) {
    let index: T = immediate ? T(truncatingIfNeeded: ip.pointee.imm) : get(s, ip.pointee.src)
    let n = index & T(truncatingIfNeeded: T.bitWidth &- 1)
    let a: T = get(s, ip.pointee.dst)
    let carry = (a &>> n) & 1 != 0
    let flip = ((carry ? 1 &<< 63 : 0) ^ s.pointee.fc) & (1 &<< 63)
    s.pointee.fc ^= flip | flip &>> 1
    switch op {
    case .test: break
    case .set: put(s, ip.pointee.dst, a | (1 &<< n))
    case .reset: put(s, ip.pointee.dst, a & ~(1 &<< n))
    case .complement: put(s, ip.pointee.dst, a ^ (1 &<< n))
    }
    next(s, ip)
}

/// BSF and BSR: a zero source sets ZF and leaves the destination (as processors do), else clears it.
@inline(__always)
func bitScan<T: Word>(_ s: CPU, _ ip: IP, _ type: T.Type, reverse: Bool) {
    let v: T = get(s, ip.pointee.src)
    if v == 0 {
        s.pointee.fz = 0
    } else {
        s.pointee.fz = 1
        let n = reverse ? T.bitWidth &- 1 &- v.leadingZeroBitCount : v.trailingZeroBitCount
        put(s, ip.pointee.dst, T(truncatingIfNeeded: n))
    }
    next(s, ip)
}

@inline(__always)
func byteSwap<T: Word>(_ s: CPU, _ ip: IP, _ type: T.Type) {
    put(s, ip.pointee.dst, get(s, ip.pointee.dst, as: T.self).byteSwapped)
    next(s, ip)
}

@inline(__always)
func populationCount<T: Word>(_ s: CPU, _ ip: IP, _ type: T.Type) {
    let v: T = get(s, ip.pointee.src)
    put(s, ip.pointee.dst, T(truncatingIfNeeded: v.nonzeroBitCount))
    s.pointee.fz = UInt64(truncatingIfNeeded: v)
    s.pointee.fs = 1  // SF = 0, PF = 0
    s.pointee.fc = 0
    next(s, ip)
}

/// Adds to the address in `dst` the distance of the operand word that a signed bit offset in `src` selects.
@inline(__always)
func bitAddress<T: Word>(_ s: CPU, _ ip: IP, _ type: T.Type) {
    let offset = Int64(bitPattern: signExtended(get(s, ip.pointee.src, as: T.self)))
    let shift: Int64 = T.bitWidth == 16 ? 4 : T.bitWidth == 32 ? 5 : 6
    let distance = (offset &>> shift) &* Int64(T.bitWidth / 8)
    put(s, ip.pointee.dst, get(s, ip.pointee.dst, as: UInt64.self) &+ UInt64(bitPattern: distance))
    next(s, ip)
}
