// Locked instructions where other processors run at the same time: the host's own, on operands at their natural
// alignment. Others, page-crossing ones and what needs a bounce run while no other processor does, through the same
// handlers. A processor that nobody runs beside has none of this: the decoder takes the plain handlers.

import CX86State

/// The host address of an operand that can be locked, or nil.
@inline(__always)
private func lockable<T: Word>(_ s: CPU, _ a: UInt64, as type: T.Type) -> UnsafeMutableRawPointer? {
    guard let p = writable(s, a, as: T.self), UInt(bitPattern: p) & UInt(MemoryLayout<T>.size &- 1) == 0 else {
        return nil
    }
    return p
}

/// Stores `new` if `old` is still there. False: `old` is what was there.
@inline(__always)
func compareExchange<T: Word>(_ p: UnsafeMutableRawPointer, _ old: inout T, _ new: T) -> Bool {
    switch T.bitWidth {
    case 8:
        var expected = UInt8(truncatingIfNeeded: old)
        let isDone = x86_compare_exchange_8(p, &expected, UInt8(truncatingIfNeeded: new))
        old = T(truncatingIfNeeded: expected)
        return isDone
    case 16:
        var expected = UInt16(truncatingIfNeeded: old)
        let isDone = x86_compare_exchange_16(p, &expected, UInt16(truncatingIfNeeded: new))
        old = T(truncatingIfNeeded: expected)
        return isDone
    case 32:
        var expected = UInt32(truncatingIfNeeded: old)
        let isDone = x86_compare_exchange_32(p, &expected, UInt32(truncatingIfNeeded: new))
        old = T(truncatingIfNeeded: expected)
        return isDone
    default:
        var expected = UInt64(truncatingIfNeeded: old)
        let isDone = x86_compare_exchange_64(p, &expected, UInt64(truncatingIfNeeded: new))
        old = T(truncatingIfNeeded: expected)
        return isDone
    }
}

@inline(never)
private func slowLocked(_ s: CPU, _ ip: IP, _ a: UInt64, _ size: Int) {
    processor(s).slowAccess(ip, a, size, write: true, reads: true, stack: false, locked: true)
}

@inline(__always)
func lockedALU<T: Word>(_ s: CPU, _ ip: IP, _ op: ALU, _ type: T.Type, immediate: Bool) {
    let a = address(s, ip)
    guard let p = lockable(s, a, as: T.self) else { return slowLocked(s, ip, a, MemoryLayout<T>.size) }
    let b: T = immediate ? T(truncatingIfNeeded: ip.pointee.imm) : get(s, ip.pointee.src)
    let carryIn = op == .adc || op == .sbb ? flagC(s) : false
    var old = p.load(as: T.self)
    while !compareExchange(p, &old, compute(op, old, b, carryIn: carryIn).0) {}
    let (r, carries) = compute(op, old, b, carryIn: carryIn)
    setFlags(s, result: r, carries: carries)
    next(s, ip)
}

@inline(__always)
func lockedUnary<T: Word>(_ s: CPU, _ ip: IP, _ op: Unary, _ type: T.Type) {
    let a = address(s, ip)
    guard let p = lockable(s, a, as: T.self) else { return slowLocked(s, ip, a, MemoryLayout<T>.size) }
    var old = p.load(as: T.self)
    while !compareExchange(p, &old, unary(s, op, old, flags: false)) {}
    _ = unary(s, op, old, flags: true)
    next(s, ip)
}

/// XCHG with memory, which locks without being told.
@inline(__always)
func lockedExchange<T: Word>(_ s: CPU, _ ip: IP, _ type: T.Type) {
    let a = address(s, ip)
    guard let p = lockable(s, a, as: T.self) else { return slowLocked(s, ip, a, MemoryLayout<T>.size) }
    let new: T = get(s, ip.pointee.src)
    var old = p.load(as: T.self)
    while !compareExchange(p, &old, new) {}
    put(s, ip.pointee.src, old)
    next(s, ip)
}

@inline(__always)
func lockedCompareExchange<T: Word>(_ s: CPU, _ ip: IP, _ type: T.Type) {
    let a = address(s, ip)
    guard let p = lockable(s, a, as: T.self) else { return slowLocked(s, ip, a, MemoryLayout<T>.size) }
    let accumulator: T = get(s, 0)
    var old = accumulator
    let isDone = compareExchange(p, &old, get(s, ip.pointee.src, as: T.self))
    let (r, carries) = compute(.cmp, accumulator, old, carryIn: false)
    setFlags(s, result: r, carries: carries)
    if !isDone { put(s, 0, old) }
    next(s, ip)
}

@inline(__always)
func lockedExchangeAdd<T: Word>(_ s: CPU, _ ip: IP, _ type: T.Type) {
    let a = address(s, ip)
    guard let p = lockable(s, a, as: T.self) else { return slowLocked(s, ip, a, MemoryLayout<T>.size) }
    let b: T = get(s, ip.pointee.src)
    var old = p.load(as: T.self)
    while !compareExchange(p, &old, old &+ b) {}
    _ = operate(s, .add, old, b, flags: true)
    put(s, ip.pointee.src, old)
    next(s, ip)
}

/// BTS, BTR, BTC; the address is that of the word that has the bit.
@inline(__always)
func lockedBit<T: Word>(_ s: CPU, _ ip: IP, _ op: BitOperation, _ type: T.Type, immediate: Bool) {
    let a = address(s, ip)
    guard let p = lockable(s, a, as: T.self) else { return slowLocked(s, ip, a, MemoryLayout<T>.size) }
    let index: T = immediate ? T(truncatingIfNeeded: ip.pointee.imm) : get(s, ip.pointee.src)
    let n = index & T(truncatingIfNeeded: T.bitWidth &- 1)
    let bit: T = 1 &<< n
    var old = p.load(as: T.self)
    while !compareExchange(p, &old, op == .set ? old | bit : op == .reset ? old & ~bit : old ^ bit) {}
    let carry = old & bit != 0
    let flip = ((carry ? 1 &<< 63 : 0) ^ s.pointee.fc) & (1 &<< 63)
    s.pointee.fc ^= flip | flip &>> 1
    next(s, ip)
}

/// MFENCE.
@inline(__always)
func fence(_ s: CPU, _ ip: IP) {
    x86_fence()
    next(s, ip)
}
