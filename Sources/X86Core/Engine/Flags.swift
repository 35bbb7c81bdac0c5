// Arithmetic flags, kept lazily as three words (see x86_state.h): a result and a carry-out vector say everything, and
// each condition is one or two operations on them, whoever the producer was.

import CX86State

@inline(__always)
func signExtended<T: Word>(_ v: T) -> UInt64 {
    let shift = UInt64(64 &- T.bitWidth)
    return UInt64(bitPattern: Int64(bitPattern: UInt64(truncatingIfNeeded: v) &<< shift) &>> Int64(shift))
}

/// Moves a carry-out vector to the top, so that bit w-1 becomes bit 63; keeps bit 3 (AF) where it is.
@inline(__always)
func carryWord<T: Word>(_ carries: T) -> UInt64 {
    let c = UInt64(truncatingIfNeeded: carries)
    if T.bitWidth == 64 { return c }
    return (c &<< UInt64(64 &- T.bitWidth)) | c
}

@inline(__always)
func setFlags<T: Word>(_ s: CPU, result: T, carries: T) {
    let v = signExtended(result)
    s.pointee.fz = v
    s.pointee.fs = v
    s.pointee.fc = carryWord(carries)
}

/// AND, OR, XOR, TEST: CF = OF = 0 (AF is undefined, 0 here).
@inline(__always)
func setLogicFlags<T: Word>(_ s: CPU, result: T) {
    let v = signExtended(result)
    s.pointee.fz = v
    s.pointee.fs = v
    s.pointee.fc = 0
}

/// INC and DEC: everything but CF.
@inline(__always)
func setFlagsKeepingCarry<T: Word>(_ s: CPU, result: T, carries: T) {
    let v = signExtended(result)
    s.pointee.fz = v
    s.pointee.fs = v
    let c = carryWord(carries)
    let flip = (s.pointee.fc ^ c) & (1 &<< 63)
    s.pointee.fc = c ^ (flip | flip &>> 1)  // OF is bit 63 xor bit 62: both turn over together.
}

/// CF and OF given directly (shifts, multiplications), AF 0.
@inline(__always)
func setFlags<T: Word>(_ s: CPU, result: T, carry: Bool, overflow: Bool) {
    let v = signExtended(result)
    s.pointee.fz = v
    s.pointee.fs = v
    s.pointee.fc = carryOverflowWord(carry, overflow)
}

@inline(__always)
func carryOverflowWord(_ carry: Bool, _ overflow: Bool) -> UInt64 {
    (carry ? 1 &<< 63 : 0) | (carry != overflow ? 1 &<< 62 : 0)
}

@inline(__always) func flagC(_ s: CPU) -> Bool { Int64(bitPattern: s.pointee.fc) < 0 }
@inline(__always) func flagZ(_ s: CPU) -> Bool { s.pointee.fz == 0 }
@inline(__always) func flagS(_ s: CPU) -> Bool { Int64(bitPattern: s.pointee.fs) < 0 }
@inline(__always) func flagO(_ s: CPU) -> Bool { Int64(bitPattern: s.pointee.fc ^ (s.pointee.fc &<< 1)) < 0 }
@inline(__always) func flagP(_ s: CPU) -> Bool { (s.pointee.fs & 0xff).nonzeroBitCount & 1 == 0 }
@inline(__always) func flagA(_ s: CPU) -> Bool { s.pointee.fc & 8 != 0 }

/// The sixteen conditions in encoding order.
@inline(__always)
func condition(_ s: CPU, _ cc: Int) -> Bool {
    let value: Bool
    switch cc &>> 1 {
    case 0: value = flagO(s)
    case 1: value = flagC(s)
    case 2: value = flagZ(s)
    case 3: value = flagC(s) || flagZ(s)
    case 4: value = flagS(s)
    case 5: value = flagP(s)
    case 6: value = Int64(bitPattern: s.pointee.fs ^ s.pointee.fc ^ (s.pointee.fc &<< 1)) < 0
    default: value = flagZ(s) || Int64(bitPattern: s.pointee.fs ^ s.pointee.fc ^ (s.pointee.fc &<< 1)) < 0
    }
    return cc & 1 == 0 ? value : !value
}

enum RFLAGS {
    static let cf: UInt64 = 1, pf: UInt64 = 4, af: UInt64 = 0x10, zf: UInt64 = 0x40, sf: UInt64 = 0x80
    static let tf: UInt64 = 0x100, `if`: UInt64 = 0x200, df: UInt64 = 0x400, of: UInt64 = 0x800
    static let iopl: UInt64 = 0x3000, nt: UInt64 = 0x4000, rf: UInt64 = 0x1_0000, vm: UInt64 = 0x2_0000
    static let ac: UInt64 = 0x4_0000, vif: UInt64 = 0x8_0000, vip: UInt64 = 0x10_0000, id: UInt64 = 0x20_0000
    static let arithmetic: UInt64 = 0x8d5
}

/// RFLAGS as software sees it.
@inline(never)
func composeFlags(_ s: CPU) -> UInt64 {
    var f = s.pointee.system_flags | 2
    if flagC(s) { f |= RFLAGS.cf }
    if flagP(s) { f |= RFLAGS.pf }
    if flagA(s) { f |= RFLAGS.af }
    if flagZ(s) { f |= RFLAGS.zf }
    if flagS(s) { f |= RFLAGS.sf }
    if flagO(s) { f |= RFLAGS.of }
    return f
}

@inline(never)
func spreadArithmeticFlags(_ s: CPU, _ f: UInt64) {
    let c = f & RFLAGS.cf != 0
    s.pointee.fc = carryOverflowWord(c, f & RFLAGS.of != 0) | (f & RFLAGS.af != 0 ? 8 : 0)
    s.pointee.fz = f & RFLAGS.zf != 0 ? 0 : 1
    s.pointee.fs = (f & RFLAGS.sf != 0 ? 1 &<< 63 : 0) | (f & RFLAGS.pf != 0 ? 0 : 1)
}
