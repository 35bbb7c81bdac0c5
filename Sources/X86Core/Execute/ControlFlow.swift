// Branches, calls and returns, sign widening, flag instructions.

import CX86State

@inline(__always)
func jumpIf(_ s: CPU, _ ip: IP, _ cc: Int, far: Bool) {
    if condition(s, cc) {
        if far { return branchFar(s, ip) }
        return branchNear(s, ip)
    }
    next(s, ip)
}

/// LOOP and JRCXZ: the engine left the decision in a temporary.
@inline(__always)
func jumpIfTemporary(_ s: CPU, _ ip: IP, far: Bool) {
    if get(s, Slot.tmp(0), as: UInt64.self) != 0 {
        if far { return branchFar(s, ip) }
        return branchNear(s, ip)
    }
    next(s, ip)
}

/// CALL rel32, all in one uop when the stack page is in the TLB; else the two uops behind it (push, jump) do the same.
@inline(__always)
func callDirect(_ s: CPU, _ ip: IP, far: Bool) {
    let a = get(s, Slot.rsp, as: UInt64.self) &- 8
    guard let p = writable(s, a, as: UInt64.self) else { return next(s, ip) }
    p.storeBytes(of: nextInstruction(s, ip), as: UInt64.self)
    put(s, Slot.rsp, a)
    if far { return branchFar(s, ip) }
    branchNear(s, ip)
}

/// CALL through a register (a memory operand was loaded into a temporary before).
@inline(__always)
func callIndirect(_ s: CPU, _ ip: IP) {
    let a = get(s, Slot.rsp, as: UInt64.self) &- 8
    let target: UInt64 = get(s, ip.pointee.dst)
    guard let p = writable(s, a, as: UInt64.self), let first = recentTarget(s, target) else { return next(s, ip) }
    p.storeBytes(of: nextInstruction(s, ip), as: UInt64.self)
    put(s, Slot.rsp, a)
    enter(s, first)
}

@inline(__always)
func returnNear(_ s: CPU, _ ip: IP) {
    let a = get(s, Slot.rsp, as: UInt64.self)
    guard let p = readable(s, a, as: UInt64.self) else { return next(s, ip) }
    guard let first = recentTarget(s, p.loadUnaligned(as: UInt64.self)) else { return next(s, ip) }
    put(s, Slot.rsp, a &+ 8)
    enter(s, first)
}

/// A target that has not been seen of late may be none: the branch itself faults then [APM3 RET, CALL, JMP].
@inline(__always)
func canonicalTarget(_ s: CPU, _ ip: IP) {
    guard recentTarget(s, get(s, ip.pointee.dst)) != nil || isCanonicalTarget(s, ip) else { return }
    next(s, ip)
}

@inline(never)
private func isCanonicalTarget(_ s: CPU, _ ip: IP) -> Bool {
    let p = processor(s)
    if p.isCanonical(get(s, ip.pointee.dst)) { return true }
    p.prepareException(13, error: 0, at: instructionAddress(s, ip))
    return false
}

/// Ends a block in front of the next instruction: after STI, POPF and the like the run loop has to look around.
@inline(__always)
func stopAtNext(_ s: CPU, _ ip: IP, check: Bool) {
    s.pointee.rip = s.pointee.rip &+ UInt64(ip.pointee.off)
    s.pointee.link = nil
    s.pointee.leave = UInt32(check ? X86_LEAVE_CHECK : X86_LEAVE_LOOKUP)
}

@inline(__always)
func forwardToNewBlock(_ s: CPU, _ ip: IP) {
    enter(s, IP(bitPattern: UInt(ip.pointee.imm)).unsafelyUnwrapped)
}

enum Widening {
    case cbw, cwde, cdqe, cwd, cdq, cqo
}

@inline(__always)
func widen(_ s: CPU, _ ip: IP, _ kind: Widening) {
    let a: UInt64 = get(s, 0)
    switch kind {
    case .cbw: put(s, 0, UInt16(bitPattern: Int16(Int8(truncatingIfNeeded: a))))
    case .cwde: put(s, 0, UInt32(bitPattern: Int32(Int16(truncatingIfNeeded: a))))
    case .cdqe: put(s, 0, UInt64(bitPattern: Int64(Int32(truncatingIfNeeded: a))))
    case .cwd: put(s, Slot.gpr(2), UInt16(bitPattern: Int16(truncatingIfNeeded: a) &>> 15))
    case .cdq: put(s, Slot.gpr(2), UInt32(bitPattern: Int32(truncatingIfNeeded: a) &>> 31))
    case .cqo: put(s, Slot.gpr(2), UInt64(bitPattern: Int64(bitPattern: a) &>> 63))
    }
    next(s, ip)
}

enum FlagOperation {
    case clc, stc, cmc, cld, std
}

@inline(__always)
func flagOperation(_ s: CPU, _ ip: IP, _ op: FlagOperation) {
    switch op {
    case .clc: if flagC(s) { s.pointee.fc ^= 3 &<< 62 }
    case .stc: if !flagC(s) { s.pointee.fc ^= 3 &<< 62 }
    case .cmc: s.pointee.fc ^= 3 &<< 62
    case .cld: s.pointee.system_flags &= ~RFLAGS.df
    case .std: s.pointee.system_flags |= RFLAGS.df
    }
    next(s, ip)
}
