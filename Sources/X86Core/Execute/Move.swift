// Data movement: MOV, MOVZX, MOVSX, LEA, PUSH, POP, XCHG with registers, CMOV, SETcc.

import CX86State

@inline(__always)
func moveRR<T: Word>(_ s: CPU, _ ip: IP, _ type: T.Type) {
    put(s, ip.pointee.dst, get(s, ip.pointee.src, as: T.self))
    next(s, ip)
}

@inline(__always)
func moveRI<T: Word>(_ s: CPU, _ ip: IP, _ type: T.Type) {
    put(s, ip.pointee.dst, T(truncatingIfNeeded: ip.pointee.imm))
    next(s, ip)
}

@inline(__always)
func load<T: Word>(_ s: CPU, _ ip: IP, _ type: T.Type) {
    let a = address(s, ip)
    guard let p = readable(s, a, as: T.self) else { return slowRead(s, ip, a, MemoryLayout<T>.size) }
    put(s, ip.pointee.dst, p.loadUnaligned(as: T.self))
    next(s, ip)
}

/// A load that is the first half of a read-modify-write: it faults as the write would.
@inline(__always)
func loadForWrite<T: Word>(_ s: CPU, _ ip: IP, _ type: T.Type) {
    let a = address(s, ip)
    guard let p = writable(s, a, as: T.self) else { return slowWrite(s, ip, a, MemoryLayout<T>.size) }
    put(s, ip.pointee.dst, p.loadUnaligned(as: T.self))
    next(s, ip)
}

@inline(__always)
func store<T: Word>(_ s: CPU, _ ip: IP, _ type: T.Type) {
    let a = address(s, ip)
    guard let p = writable(s, a, as: T.self) else { return slowWrite(s, ip, a, MemoryLayout<T>.size, reads: false) }
    p.storeBytes(of: get(s, ip.pointee.src), as: T.self)
    next(s, ip)
}

@inline(__always)
func storeImmediate<T: Word>(_ s: CPU, _ ip: IP, _ type: T.Type) {
    let a = address(s, ip)
    guard let p = writable(s, a, as: T.self) else { return slowWrite(s, ip, a, MemoryLayout<T>.size, reads: false) }
    p.storeBytes(of: T(truncatingIfNeeded: ip.pointee.imm), as: T.self)
    next(s, ip)
}

@inline(__always)
func extendR<From: Word, To: Word>(_ s: CPU, _ ip: IP, _ from: From.Type, _ to: To.Type, signed: Bool) {
    let v: From = get(s, ip.pointee.src)
    put(s, ip.pointee.dst, To(truncatingIfNeeded: signed ? signExtended(v) : UInt64(truncatingIfNeeded: v)))
    next(s, ip)
}

@inline(__always)
func extendM<From: Word, To: Word>(_ s: CPU, _ ip: IP, _ from: From.Type, _ to: To.Type, signed: Bool) {
    let a = address(s, ip)
    guard let p = readable(s, a, as: From.self) else { return slowRead(s, ip, a, MemoryLayout<From>.size) }
    let v = p.loadUnaligned(as: From.self)
    put(s, ip.pointee.dst, To(truncatingIfNeeded: signed ? signExtended(v) : UInt64(truncatingIfNeeded: v)))
    next(s, ip)
}

@inline(__always)
func lea<T: Word>(_ s: CPU, _ ip: IP, _ type: T.Type) {
    put(s, ip.pointee.dst, T(truncatingIfNeeded: address(s, ip)))
    next(s, ip)
}

/// An address with a segment base (FS or GS): tmp = base of segment + base + index << scale + disp. `dst` is the temporary,
/// `src` the segment base's slot.
@inline(__always)
func segmentAddress(_ s: CPU, _ ip: IP) {
    put(s, ip.pointee.dst, address(s, ip) &+ get(s, ip.pointee.src, as: UInt64.self))
    next(s, ip)
}

/// With an address-size prefix: the effective address is cut to 32 bits before the segment base is added.
@inline(__always)
func segmentAddress32(_ s: CPU, _ ip: IP) {
    put(s, ip.pointee.dst, (address(s, ip) & 0xffff_ffff) &+ get(s, ip.pointee.src, as: UInt64.self))
    next(s, ip)
}

@inline(__always)
func push<T: Word>(_ s: CPU, _ ip: IP, _ type: T.Type, immediate: Bool) {
    let a = get(s, Slot.rsp, as: UInt64.self) &- UInt64(MemoryLayout<T>.size)
    guard let p = writable(s, a, as: T.self) else {
        return slowWrite(s, ip, a, MemoryLayout<T>.size, stack: true, reads: false)
    }
    let value: T = immediate ? T(truncatingIfNeeded: ip.pointee.imm) : get(s, ip.pointee.src)
    p.storeBytes(of: value, as: T.self)
    put(s, Slot.rsp, a)
    next(s, ip)
}

@inline(__always)
func pop<T: Word>(_ s: CPU, _ ip: IP, _ type: T.Type) {
    let a = get(s, Slot.rsp, as: UInt64.self)
    guard let p = readable(s, a, as: T.self) else { return slowRead(s, ip, a, MemoryLayout<T>.size, stack: true) }
    put(s, Slot.rsp, a &+ UInt64(MemoryLayout<T>.size))  // POP RSP: the value popped wins.
    put(s, ip.pointee.dst, p.loadUnaligned(as: T.self))
    next(s, ip)
}

/// LEAVE: rsp = rbp; pop rbp.
@inline(__always)
func leave(_ s: CPU, _ ip: IP) {
    let a = get(s, Slot.rbp, as: UInt64.self)
    guard let p = readable(s, a, as: UInt64.self) else { return slowRead(s, ip, a, 8, stack: true) }
    put(s, Slot.rsp, a &+ 8)
    put(s, Slot.rbp, p.loadUnaligned(as: UInt64.self))
    next(s, ip)
}

@inline(__always)
func exchangeRR<T: Word>(_ s: CPU, _ ip: IP, _ type: T.Type) {
    let a: T = get(s, ip.pointee.dst), b: T = get(s, ip.pointee.src)
    put(s, ip.pointee.dst, b)
    put(s, ip.pointee.src, a)
    next(s, ip)
}

@inline(__always)
func exchangeM<T: Word>(_ s: CPU, _ ip: IP, _ type: T.Type) {
    let a = address(s, ip)
    guard let p = writable(s, a, as: T.self) else { return slowWrite(s, ip, a, MemoryLayout<T>.size) }
    let old = p.loadUnaligned(as: T.self)
    p.storeBytes(of: get(s, ip.pointee.src), as: T.self)
    put(s, ip.pointee.src, old)
    next(s, ip)
}

/// CMPXCHG with memory, single-processor atomicity. `src` is the register operand.
@inline(__always)
func compareExchangeM<T: Word>(_ s: CPU, _ ip: IP, _ type: T.Type) {
    let a = address(s, ip)
    guard let p = writable(s, a, as: T.self) else { return slowWrite(s, ip, a, MemoryLayout<T>.size) }
    let old = p.loadUnaligned(as: T.self)
    let accumulator: T = get(s, 0)
    let (r, carries) = compute(.cmp, accumulator, old, carryIn: false)
    setFlags(s, result: r, carries: carries)
    if accumulator == old {
        p.storeBytes(of: get(s, ip.pointee.src), as: T.self)
    } else {
        put(s, 0, old)
    }
    next(s, ip)
}

@inline(__always)
func exchangeAddM<T: Word>(_ s: CPU, _ ip: IP, _ type: T.Type) {
    let a = address(s, ip)
    guard let p = writable(s, a, as: T.self) else { return slowWrite(s, ip, a, MemoryLayout<T>.size) }
    let old = p.loadUnaligned(as: T.self)
    let r: T = operate(s, .add, old, get(s, ip.pointee.src), flags: true)
    p.storeBytes(of: r, as: T.self)
    put(s, ip.pointee.src, old)
    next(s, ip)
}

@inline(__always)
func compareExchangeR<T: Word>(_ s: CPU, _ ip: IP, _ type: T.Type) {
    let old: T = get(s, ip.pointee.dst), accumulator: T = get(s, 0)
    let (r, carries) = compute(.cmp, accumulator, old, carryIn: false)
    setFlags(s, result: r, carries: carries)
    if accumulator == old {
        put(s, ip.pointee.dst, get(s, ip.pointee.src, as: T.self))
    } else {
        put(s, 0, old)
    }
    next(s, ip)
}

@inline(__always)
func exchangeAddR<T: Word>(_ s: CPU, _ ip: IP, _ type: T.Type) {
    let a: T = get(s, ip.pointee.dst)
    let r: T = operate(s, .add, a, get(s, ip.pointee.src), flags: true)
    put(s, ip.pointee.src, a)
    put(s, ip.pointee.dst, r)  // XADD r, r with one register: the sum stays.
    next(s, ip)
}

/// CMOVcc; a 32-bit destination is zero-extended even when nothing is moved.
@inline(__always)
func conditionalMove<T: Word>(_ s: CPU, _ ip: IP, _ type: T.Type, _ cc: Int) {
    let v: T = condition(s, cc) ? get(s, ip.pointee.src) : get(s, ip.pointee.dst)
    put(s, ip.pointee.dst, v)
    next(s, ip)
}

@inline(__always)
func setCondition(_ s: CPU, _ ip: IP, _ cc: Int) {
    put(s, ip.pointee.dst, condition(s, cc) ? 1 as UInt8 : 0)
    next(s, ip)
}

@inline(__always)
func setConditionM(_ s: CPU, _ ip: IP, _ cc: Int) {
    let a = address(s, ip)
    guard let p = writable(s, a, as: UInt8.self) else { return slowWrite(s, ip, a, 1, reads: false) }
    p.storeBytes(of: condition(s, cc) ? 1 : 0, as: UInt8.self)
    next(s, ip)
}
