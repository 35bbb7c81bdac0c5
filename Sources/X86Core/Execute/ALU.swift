// Integer arithmetic and logic. Operations are pure functions of values; the executors below move state.

import CX86State

/// In the order of the encoding's operation field (opcodes 00-3F, group 1).
enum ALU: Int {
    case add, or, adc, sbb, and, sub, xor, cmp
}

/// Result and carry-out (or borrow-out) vector.
@inline(__always)
func compute<T: Word>(_ op: ALU, _ a: T, _ b: T, carryIn: Bool) -> (T, T) {
    switch op {
    case .add, .adc:
        let r = a &+ b &+ (op == .adc && carryIn ? 1 : 0)
        return (r, (a & b) | ((a | b) & ~r))
    case .sub, .sbb, .cmp:
        let r = a &- b &- (op == .sbb && carryIn ? 1 : 0)
        return (r, (~a & b) | (~(a ^ b) & r))
    case .or: return (a | b, 0)
    case .and: return (a & b, 0)
    case .xor: return (a ^ b, 0)
    }
}

@inline(__always)
func operate<T: Word>(_ s: CPU, _ op: ALU, _ a: T, _ b: T, flags: Bool) -> T {
    let (r, carries) = compute(op, a, b, carryIn: op == .adc || op == .sbb ? flagC(s) : false)
    if flags { setFlags(s, result: r, carries: carries) }
    return r
}

@inline(__always)
func aluRR<T: Word>(_ s: CPU, _ ip: IP, _ op: ALU, _ type: T.Type, flags: Bool) {
    let r: T = operate(s, op, get(s, ip.pointee.dst), get(s, ip.pointee.src), flags: flags)
    if op != .cmp { put(s, ip.pointee.dst, r) }
    next(s, ip)
}

@inline(__always)
func aluRI<T: Word>(_ s: CPU, _ ip: IP, _ op: ALU, _ type: T.Type, flags: Bool) {
    let r: T = operate(s, op, get(s, ip.pointee.dst), T(truncatingIfNeeded: ip.pointee.imm), flags: flags)
    if op != .cmp { put(s, ip.pointee.dst, r) }
    next(s, ip)
}

/// Register with memory.
@inline(__always)
func aluRM<T: Word>(_ s: CPU, _ ip: IP, _ op: ALU, _ type: T.Type, flags: Bool) {
    let a = address(s, ip)
    guard let p = readable(s, a, as: T.self) else { return slowRead(s, ip, a, MemoryLayout<T>.size) }
    let r: T = operate(s, op, get(s, ip.pointee.dst), p.loadUnaligned(as: T.self), flags: flags)
    if op != .cmp { put(s, ip.pointee.dst, r) }
    next(s, ip)
}

/// Memory with register or immediate; the write check comes first, so a fault leaves flags and memory alone.
@inline(__always)
func aluM<T: Word>(_ s: CPU, _ ip: IP, _ op: ALU, _ type: T.Type, immediate: Bool, flags: Bool) {
    let a = address(s, ip)
    if op == .cmp {
        guard let p = readable(s, a, as: T.self) else { return slowRead(s, ip, a, MemoryLayout<T>.size) }
        let b: T = immediate ? T(truncatingIfNeeded: ip.pointee.imm) : get(s, ip.pointee.src)
        _ = operate(s, op, p.loadUnaligned(as: T.self), b, flags: flags)
    } else {
        guard let p = writable(s, a, as: T.self) else { return slowWrite(s, ip, a, MemoryLayout<T>.size) }
        let b: T = immediate ? T(truncatingIfNeeded: ip.pointee.imm) : get(s, ip.pointee.src)
        let r = operate(s, op, p.loadUnaligned(as: T.self), b, flags: flags)
        p.storeBytes(of: r, as: T.self)
    }
    next(s, ip)
}

@inline(__always)
func testRR<T: Word>(_ s: CPU, _ ip: IP, _ type: T.Type) {
    setLogicFlags(s, result: get(s, ip.pointee.dst, as: T.self) & get(s, ip.pointee.src))
    next(s, ip)
}

@inline(__always)
func testRI<T: Word>(_ s: CPU, _ ip: IP, _ type: T.Type) {
    setLogicFlags(s, result: get(s, ip.pointee.dst, as: T.self) & T(truncatingIfNeeded: ip.pointee.imm))
    next(s, ip)
}

@inline(__always)
func testM<T: Word>(_ s: CPU, _ ip: IP, _ type: T.Type, immediate: Bool) {
    let a = address(s, ip)
    guard let p = readable(s, a, as: T.self) else { return slowRead(s, ip, a, MemoryLayout<T>.size) }
    let b: T = immediate ? T(truncatingIfNeeded: ip.pointee.imm) : get(s, ip.pointee.src)
    setLogicFlags(s, result: p.loadUnaligned(as: T.self) & b)
    next(s, ip)
}

enum Unary: Int {
    case inc, dec, not, neg
}

@inline(__always)
func unary<T: Word>(_ s: CPU, _ op: Unary, _ a: T, flags: Bool) -> T {
    switch op {
    case .inc:
        let r = a &+ 1
        if flags { setFlagsKeepingCarry(s, result: r, carries: (a & 1) | ((a | 1) & ~r)) }
        return r
    case .dec:
        let r = a &- 1
        if flags { setFlagsKeepingCarry(s, result: r, carries: (~a & 1) | (~(a ^ 1) & r)) }
        return r
    case .not: return ~a
    case .neg:
        let r = 0 &- a
        if flags { setFlags(s, result: r, carries: a | r) }
        return r
    }
}

@inline(__always)
func unaryR<T: Word>(_ s: CPU, _ ip: IP, _ op: Unary, _ type: T.Type, flags: Bool) {
    put(s, ip.pointee.dst, unary(s, op, get(s, ip.pointee.dst, as: T.self), flags: flags))
    next(s, ip)
}

@inline(__always)
func unaryM<T: Word>(_ s: CPU, _ ip: IP, _ op: Unary, _ type: T.Type) {
    let a = address(s, ip)
    guard let p = writable(s, a, as: T.self) else { return slowWrite(s, ip, a, MemoryLayout<T>.size) }
    p.storeBytes(of: unary(s, op, p.loadUnaligned(as: T.self), flags: true), as: T.self)
    next(s, ip)
}

/// CMP or TEST fused with the conditional jump behind it, both registers or register and immediate. The uop's `index`
/// is free here: the second uop (the jump) follows in memory and holds the link.
@inline(__always)
func compareBranch<T: Word>(_ s: CPU, _ ip: IP, _ type: T.Type, test: Bool, immediate: Bool, _ cc: Int, far: Bool) {
    let a: T = get(s, ip.pointee.dst)
    let b: T = immediate ? T(truncatingIfNeeded: ip.pointee.imm) : get(s, ip.pointee.src)
    let taken: Bool
    if test {
        let r = a & b
        setLogicFlags(s, result: r)
        switch cc &>> 1 {
        case 2, 3: taken = r == 0
        case 4, 6: taken = Int64(bitPattern: signExtended(r)) < 0
        default: taken = Int64(bitPattern: signExtended(r)) <= 0
        }
    } else {
        let (r, carries) = compute(.cmp, a, b, carryIn: false)
        setFlags(s, result: r, carries: carries)
        let sa = Int64(bitPattern: signExtended(a)), sb = Int64(bitPattern: signExtended(b))
        switch cc &>> 1 {
        case 1: taken = a < b
        case 2: taken = a == b
        case 3: taken = a <= b
        case 4: taken = Int64(bitPattern: signExtended(r)) < 0
        case 6: taken = sa < sb
        default: taken = sa <= sb
        }
    }
    let jump = ip + 1
    if taken != (cc & 1 != 0) {
        if far { return branchFar(s, jump) }
        return branchNear(s, jump)
    }
    next(s, jump)
}
