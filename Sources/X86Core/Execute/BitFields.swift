// BMI1, BMI2, ADX, LZCNT, MOVBE and CRC32 [APM3 3]: integer instructions that came after x86-64-v1. TZCNT and LZCNT have
// handlers of their own, the others share one.

import CX86State

enum BitFieldOperation: Int {
    case andn, bextr, bzhi, pdep, pext, sarx, shlx, shrx, rorx, mulx, blsr, blsmsk, blsi, adcx, adox
    case crc8, crc16, crc32, crc64, swap
}

/// TZCNT and LZCNT: CF = the operand is zero, ZF = the count is.
@inline(__always)
func countZeros<T: Word>(_ s: CPU, _ ip: IP, _ type: T.Type, leading: Bool) {
    let v: T = get(s, ip.pointee.src)
    let r = T(truncatingIfNeeded: leading ? v.leadingZeroBitCount : v.trailingZeroBitCount)
    s.pointee.fz = UInt64(truncatingIfNeeded: r)
    s.pointee.fs = 0
    s.pointee.fc = v == 0 ? 3 &<< 62 : 0
    put(s, ip.pointee.dst, r)
    next(s, ip)
}

/// The uop's `imm`: 7:0 operation, 15:8 immediate; `scale` the operand size (1 = 16 bits, 2 = 32, 3 = 64).
@inline(__always)
func bitFieldInstruction(_ s: CPU, _ ip: IP) {
    performBitField(s, ip)
    next(s, ip)
}

@inline(never)
private func performBitField(_ s: CPU, _ ip: IP) {
    let u = ip.pointee
    switch u.scale {
    case 1: perform(s, u, UInt16.self)
    case 2: perform(s, u, UInt32.self)
    default: perform(s, u, UInt64.self)
    }
}

/// `src` is the r/m operand, `base` the second source (VEX.vvvv or a register operand).
@inline(__always)
private func perform<T: Word>(_ s: CPU, _ u: x86_uop, _ type: T.Type) {
    let op = BitFieldOperation(rawValue: Int(u.imm & 0xff)).unsafelyUnwrapped
    let v: T = get(s, u.src)
    let w: T = get(s, u.base)
    let width = T(truncatingIfNeeded: T.bitWidth)
    let r: T
    switch op {
    case .andn:
        r = ~w & v
        setLogicFlags(s, result: r)
    case .bextr:
        let start = w & 0xff, length = (w &>> 8) & 0xff
        let shifted = start < width ? v &>> start : 0
        r = length < width ? shifted & ((1 &<< length) &- 1) : shifted
        setLogicFlags(s, result: r)
    case .bzhi:
        let n = w & 0xff
        r = n < width ? v & ((1 &<< n) &- 1) : v
        setFlags(s, result: r, carry: n >= width, overflow: false)
    case .pdep: r = deposit(w, mask: v)
    case .pext: r = extract(w, mask: v)
    case .sarx: r = T(truncatingIfNeeded: arithmeticShift(v, w & (width &- 1)))
    case .shlx: r = v &<< (w & (width &- 1))
    case .shrx: r = v &>> (w & (width &- 1))
    case .rorx:
        let n = T(truncatingIfNeeded: u.imm &>> 8) & (width &- 1)
        r = n == 0 ? v : v &>> n | v &<< (width &- n)
    case .mulx:
        let (high, low) = v.multipliedFullWidth(by: get(s, Slot.gpr(2), as: T.self))
        put(s, u.index, T(truncatingIfNeeded: low))
        r = high
    case .blsr:
        r = v & (v &- 1)
        setFlags(s, result: r, carry: v == 0, overflow: false)
    case .blsmsk:
        r = v ^ (v &- 1)
        setFlags(s, result: r, carry: v == 0, overflow: false)
    case .blsi:
        r = v & (0 &- v)
        setFlags(s, result: r, carry: v != 0, overflow: false)
    case .adcx:
        let (a, c1) = w.addingReportingOverflow(v)
        let (b, c2) = a.addingReportingOverflow(flagC(s) ? 1 : 0)
        r = b
        if (c1 || c2) != flagC(s) { s.pointee.fc ^= 3 &<< 62 }  // Both bits: OF stays.
    case .adox:
        let (a, c1) = w.addingReportingOverflow(v)
        let (b, c2) = a.addingReportingOverflow(flagO(s) ? 1 : 0)
        r = b
        if (c1 || c2) != flagO(s) { s.pointee.fc ^= 1 &<< 62 }
    case .crc8, .crc16, .crc32, .crc64:
        // The operand's width is the operation's; the register is 32 bits, or 64 with their upper half cleared.
        let count = 1 &<< (op.rawValue &- BitFieldOperation.crc8.rawValue)
        put(s, u.dst, crc32c(get(s, u.dst, as: UInt32.self), get(s, u.src, as: UInt64.self), byteCount: count))
        return
    case .swap: r = v.byteSwapped
    }
    put(s, u.dst, r)
}

@inline(__always)
private func arithmeticShift<T: Word>(_ v: T, _ n: T) -> UInt64 {
    UInt64(bitPattern: Int64(bitPattern: signExtended(v)) &>> Int64(truncatingIfNeeded: n))
}

/// PDEP: the low bits of `v` go where `mask` has ones.
private func deposit<T: Word>(_ v: T, mask: T) -> T {
    var r: T = 0, left = mask, source = v
    while left != 0 {
        let lowest = left & (0 &- left)
        if source & 1 != 0 { r |= lowest }
        source = source &>> 1
        left &= left &- 1
    }
    return r
}

/// PEXT: the bits of `v` where `mask` has ones, packed at the bottom.
private func extract<T: Word>(_ v: T, mask: T) -> T {
    var r: T = 0, left = mask, to: T = 1
    while left != 0 {
        if v & left & (0 &- left) != 0 { r |= to }
        to = to &<< 1
        left &= left &- 1
    }
    return r
}

/// CRC-32C (polynomial 11EDC6F41, reflected), a nibble at a time.
private func crc32c(_ start: UInt32, _ data: UInt64, byteCount: Int) -> UInt32 {
    var crc = start
    for i in 0..<byteCount {
        crc ^= UInt32(truncatingIfNeeded: (data &>> UInt64(i &* 8)) & 0xff)
        crc = crc &>> 4 ^ crcNibble(crc & 15)
        crc = crc &>> 4 ^ crcNibble(crc & 15)
    }
    return crc
}

@inline(__always)
private func crcNibble(_ n: UInt32) -> UInt32 {
    var r: UInt32 = n
    for _ in 0..<4 { r = r &>> 1 ^ (r & 1 != 0 ? 0x82f6_3b78 : 0) }
    return r
}
