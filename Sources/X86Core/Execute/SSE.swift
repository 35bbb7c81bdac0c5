// SSE and SSE2 handlers: moves, packed integers, shuffles. Each looks at CR0 and CR4 itself: blocks outlive changes of
// both. Memory operands are loaded to `xtmp` (or straight to the register, for moves) by a uop of their own.

import CX86State
import X86Defs

/// CR0.EM = 0, CR0.TS = 0, CR4.OSFXSR = 1.
@inline(__always)
func sseIsOn(_ s: CPU) -> Bool { s.pointee.cr0 & (CR0.em | CR0.ts) == 0 && s.pointee.cr4 & CR4.osfxsr != 0 }

@inline(never)
func sseIsOff(_ s: CPU, _ ip: IP) { _ = processor(s).mayUseSSE(at: instructionAddress(s, ip)) }

@inline(__always)
func getVector(_ s: CPU, _ slot: UInt16) -> Vector {
    UnsafeRawPointer(s).load(fromByteOffset: Int(slot), as: Vector.self)
}

@inline(__always)
func putVector(_ s: CPU, _ slot: UInt16, _ value: Vector) {
    UnsafeMutableRawPointer(s).storeBytes(of: value, toByteOffset: Int(slot), as: Vector.self)
}

@inline(__always)
func vectorRR(_ s: CPU, _ ip: IP, _ op: VectorOperation) {
    guard sseIsOn(s) else { return sseIsOff(s, ip) }
    let b = getVector(s, ip.pointee.src)
    putVector(s, ip.pointee.dst, op == .movdqa ? b : vectorOperation(op, getVector(s, ip.pointee.dst), b))
    next(s, ip)
}

/// Shifts by an immediate count.
@inline(__always)
func vectorRI(_ s: CPU, _ ip: IP, _ op: VectorOperation) {
    guard sseIsOn(s) else { return sseIsOff(s, ip) }
    putVector(s, ip.pointee.dst, vectorOperation(op, getVector(s, ip.pointee.dst), Vector(ip.pointee.imm, 0)))
    next(s, ip)
}

@inline(__always)
func shuffleRR(_ s: CPU, _ ip: IP, _ op: ShuffleOperation) {
    guard sseIsOn(s) else { return sseIsOff(s, ip) }
    putVector(
        s, ip.pointee.dst, shuffle(op, getVector(s, ip.pointee.dst), getVector(s, ip.pointee.src), ip.pointee.imm))
    next(s, ip)
}

/// 32 or 64 bits from memory, the rest of the register cleared.
@inline(__always)
func vectorLoadScalar<T: Word>(_ s: CPU, _ ip: IP, _ type: T.Type) {
    guard sseIsOn(s) else { return sseIsOff(s, ip) }
    let a = address(s, ip)
    guard let p = readable(s, a, as: T.self) else { return slowRead(s, ip, a, MemoryLayout<T>.size) }
    putVector(s, ip.pointee.dst, Vector(UInt64(truncatingIfNeeded: p.loadUnaligned(as: T.self)), 0))
    next(s, ip)
}

@inline(__always)
func vectorStoreScalar<T: Word>(_ s: CPU, _ ip: IP, _ type: T.Type) {
    guard sseIsOn(s) else { return sseIsOff(s, ip) }
    let a = address(s, ip)
    guard let p = writable(s, a, as: T.self) else { return slowWrite(s, ip, a, MemoryLayout<T>.size, reads: false) }
    p.storeBytes(of: get(s, ip.pointee.src), as: T.self)
    next(s, ip)
}

@inline(__always)
func vectorLoad(_ s: CPU, _ ip: IP, _ alignment: VectorAlignment) {
    guard sseIsOn(s) else { return sseIsOff(s, ip) }
    let a = address(s, ip)
    if alignment != .none, a & 15 != 0, alignment == .always || s.pointee.mxcsr & 1 &<< 17 == 0 {
        return misaligned(s, ip)
    }
    guard let p = readable(s, a, as: Vector.self) else { return slowRead(s, ip, a, 16) }
    putVector(s, ip.pointee.dst, p.loadUnaligned(as: Vector.self))
    next(s, ip)
}

@inline(__always)
func vectorStore(_ s: CPU, _ ip: IP, aligned: Bool) {
    guard sseIsOn(s) else { return sseIsOff(s, ip) }
    let a = address(s, ip)
    if aligned, a & 15 != 0 { return misaligned(s, ip) }
    guard let p = writable(s, a, as: Vector.self) else { return slowWrite(s, ip, a, 16, reads: false) }
    p.storeBytes(of: getVector(s, ip.pointee.src), as: Vector.self)
    next(s, ip)
}

/// A 16-byte operand off its boundary.
@inline(never)
func misaligned(_ s: CPU, _ ip: IP) {
    processor(s).prepareException(13, error: 0, at: instructionAddress(s, ip))
}

/// MOVD and MOVQ from a general register.
@inline(__always)
func vectorFromRegister<T: Word>(_ s: CPU, _ ip: IP, _ type: T.Type) {
    guard sseIsOn(s) else { return sseIsOff(s, ip) }
    putVector(s, ip.pointee.dst, Vector(UInt64(truncatingIfNeeded: get(s, ip.pointee.src, as: T.self)), 0))
    next(s, ip)
}

/// MOVD and MOVQ to a general register.
@inline(__always)
func vectorToRegister<T: Word>(_ s: CPU, _ ip: IP, _ type: T.Type) {
    guard sseIsOn(s) else { return sseIsOff(s, ip) }
    put(s, ip.pointee.dst, get(s, ip.pointee.src, as: T.self))
    next(s, ip)
}

enum SignMask {
    case bytes, singles, doubles
}

/// PMOVMSKB, MOVMSKPS, MOVMSKPD.
@inline(__always)
func moveSigns(_ s: CPU, _ ip: IP, _ kind: SignMask) {
    guard sseIsOn(s) else { return sseIsOff(s, ip) }
    let v = getVector(s, ip.pointee.src)
    let mask: UInt64
    switch kind {
    case .bytes: mask = byteSigns(v.x) | byteSigns(v.y) &<< 8
    case .singles: mask = (v.x &>> 31) & 1 | (v.x &>> 62) & 2 | (v.y &>> 29) & 4 | (v.y &>> 60) & 8
    case .doubles: mask = v.x &>> 63 | (v.y &>> 62) & 2
    }
    put(s, ip.pointee.dst, mask)
    next(s, ip)
}

/// PINSRW: the low 16 bits of `src` become word `imm` of `dst`.
@inline(__always)
func insertWord(_ s: CPU, _ ip: IP) {
    guard sseIsOn(s) else { return sseIsOff(s, ip) }
    put(s, ip.pointee.dst &+ UInt16(ip.pointee.imm & 7) &* 2, get(s, ip.pointee.src, as: UInt16.self))
    next(s, ip)
}

/// PEXTRW.
@inline(__always)
func extractWord(_ s: CPU, _ ip: IP) {
    guard sseIsOn(s) else { return sseIsOff(s, ip) }
    put(s, ip.pointee.dst, UInt64(get(s, ip.pointee.src &+ UInt16(ip.pointee.imm & 7) &* 2, as: UInt16.self)))
    next(s, ip)
}

/// In front of an instruction whose own uops do not look.
@inline(__always)
func sseCheck(_ s: CPU, _ ip: IP) {
    guard sseIsOn(s) else { return sseIsOff(s, ip) }
    next(s, ip)
}
