// MMX, executed by one general function: the registers are the significands of the x87 registers, and every instruction
// but EMMS marks them all as used, sets TOP to 0 and fills the exponent of the register it writes with ones
// [APM1 5.3, APM2 11.5].

import CX86State
import X86Defs

/// What one function executes, by family.
enum FloatingFamily: Int {
    case sse, x87, mmx
    /// In front of memory operands: the processor looks at its state before it touches memory.
    case mmxCheck
}

/// One way out of the handlers for all of these.
@inline(__always)
func floatingInstruction(_ s: CPU, _ ip: IP, _ family: FloatingFamily) {
    guard perform(s, ip, family) else { return }
    next(s, ip)
}

@inline(never)
private func perform(_ s: CPU, _ ip: IP, _ family: FloatingFamily) -> Bool {
    switch family {
    case .sse: return performSSEFloat(s, ip)
    case .x87: return performX87(s, ip) && processor(s).runsOn(ip)
    case .mmx: return performMMX(s, ip)
    case .mmxCheck: return checkMMX(s, ip)
    }
}

private func checkMMX(_ s: CPU, _ ip: IP) -> Bool {
    guard processor(s).mayUseMMX(at: instructionAddress(s, ip)) else { return false }
    // In front of a store: Intel's processors set TOP to 0 even if it faults.
    if ip.pointee.imm == 1, !processor(s).amdOrder { s.pointee.fsw &= ~0x3800 }
    // In front of MASKMOVQ: as ``Processor/maskedMove(_:at:)``, whose address may fault before.
    if ip.pointee.imm == 2 { processor(s).enterMMX() }
    return true
}

private func performMMX(_ s: CPU, _ ip: IP) -> Bool {
    let p = processor(s)
    guard p.mayUseMMX(at: instructionAddress(s, ip)) else { return false }
    return p.mmx(ip)
}

/// One copy of the whole switch, for rare callers.
@inline(never)
func vectorOperationByNumber(_ op: VectorOperation, _ a: Vector, _ b: Vector) -> Vector {
    vectorOperation(op, a, b)
}

extension Processor {
    /// CR0.EM: #UD; CR0.TS: #NM; an unmasked x87 exception is waiting: #MF.
    func mayUseMMX(at rip: UInt64) -> Bool {
        if s.pointee.cr0 & CR0.em != 0 {
            prepareException(6, at: rip)
            return false
        }
        return mayUseFPU(at: rip) && noPendingX87(at: rip)
    }

    func noPendingX87(at rip: UInt64) -> Bool {
        guard s.pointee.fsw & 0x80 != 0 else { return true }
        prepareException(16, at: rip)
        return false
    }

    /// What every MMX instruction does to the x87 state.
    func enterMMX() {
        s.pointee.fsw &= ~0x3800
        s.pointee.ftw = 0xff
    }

    func putMMX(_ register: Int, _ value: UInt64) { setST(register & 7, value, 0xffff) }

    func mmx(_ ip: IP) -> Bool {
        let u = ip.pointee
        let opcode = UInt8(truncatingIfNeeded: u.imm), prefix = (u.imm &>> 8) & 0xff
        let imm = u.imm &>> 16
        let register = Int(u.dst), rm = Int(u.base)
        let wideRegister = Int(u.scale)
        if opcode == 0x77 {
            s.pointee.ftw = 0
            s.pointee.fsw &= ~0x3800
            return true
        }
        if opcode == 0xd6 {
            guard mayUseSSE(at: instructionAddress(s, ip)) else { return false }
        }
        enterMMX()
        switch opcode {
        case 0x6e: putMMX(register, imm != 0 ? get(s, u.src) : UInt64(get(s, u.src, as: UInt32.self)))
        case 0x7e:
            let v = mantissa(register)
            imm != 0 ? put(s, Slot.gpr(rm), v) : put(s, Slot.gpr(rm), UInt32(truncatingIfNeeded: v))
        case 0x6f: putMMX(register, get(s, u.src))
        case 0x7f: putMMX(rm, mantissa(register))
        case 0x38:
            putMMX(
                register,
                laterMMX(SIMDOperation(rawValue: UInt16(imm)).unsafelyUnwrapped, mantissa(register), get(s, u.src)))
        case 0x3a:
            let both = Vector(get(s, u.src), mantissa(register))
            putMMX(register, shuffle(.psrldq, both, both, imm).x)
        case 0xe7: break  // A store has been done.
        case 0x70: putMMX(register, shuffle(.pshuflw, Vector(), Vector(get(s, u.src), 0), imm).x)
        case 0x71...0x73:
            let op: VectorOperation
            switch (opcode, register) {
            case (0x71, 2): op = .psrlw
            case (0x71, 4): op = .psraw
            case (0x71, _): op = .psllw
            case (0x72, 2): op = .psrld
            case (0x72, 4): op = .psrad
            case (0x72, _): op = .pslld
            case (_, 2): op = .psrlq
            default: op = .psllq
            }
            putMMX(rm, vectorOperationByNumber(op, Vector(mantissa(rm), 0), Vector(imm, 0)).x)
        case 0xc4:
            let at = (imm & 3) &* 16
            let word = UInt64(get(s, u.src, as: UInt16.self))
            putMMX(register, mantissa(register) & ~(0xffff &<< at) | word &<< at)
        case 0xc5: put(s, Slot.gpr(wideRegister), (mantissa(rm) &>> ((imm & 3) &* 16)) & 0xffff)
        case 0xd6:
            if prefix == 1 {
                putVector(s, Slot.xmm0 &+ UInt16(wideRegister) &* 16, Vector(mantissa(rm), 0))
            } else {
                putMMX(register, get(s, Slot.xmm0 &+ UInt16(rm) &* 16))
            }
        case 0xd7: put(s, Slot.gpr(wideRegister), byteSigns(mantissa(rm)))
        default:
            guard let op = VectorOperation.integer(opcode) else { return true }
            let a = mantissa(register), b: UInt64 = get(s, u.src)
            let r: UInt64
            switch op {
            case .packsswb, .packuswb, .packssdw: r = vectorOperationByNumber(op, Vector(a, b), Vector()).x
            case .punpckhbw: r = vectorOperationByNumber(.punpcklbw, Vector(a, 0), Vector(b, 0)).y
            case .punpckhwd: r = vectorOperationByNumber(.punpcklwd, Vector(a, 0), Vector(b, 0)).y
            case .punpckhdq: r = vectorOperationByNumber(.punpckldq, Vector(a, 0), Vector(b, 0)).y
            default: r = vectorOperationByNumber(op, Vector(a, 0), Vector(b, 0)).x
            }
            putMMX(register, r)
        }
        return true
    }

    /// SSSE3 on 64 bits.
    private func laterMMX(_ op: SIMDOperation, _ a: UInt64, _ b: UInt64) -> UInt64 {
        switch op {
        case .phaddw, .phaddd, .phaddsw, .phsubw, .phsubd, .phsubsw: return laneOperation(op, Vector(a, b), Vector()).x
        case .pshufb: return laneOperation(op, Vector(a, 0), Vector(b & 0x8787_8787_8787_8787, 0)).x
        default: return laneOperation(op, Vector(a, 0), Vector(b, 0)).x
        }
    }

    /// MASKMOVDQU and MASKMOVQ: `dst` holds the address, `base` is the slot of the data, `imm` that of the mask.
    func maskedMove(_ ip: IP, at rip: UInt64) -> Bool {
        let u = ip.pointee
        let wide = u.scale == 16
        guard wide ? mayUseSSE(at: rip) : mayUseMMX(at: rip) else { return false }
        let a: UInt64 = get(s, u.dst)
        let count = wide ? 16 : 8
        let maskSlot = UInt16(truncatingIfNeeded: u.imm)
        let selected = (0..<count).filter { get(s, maskSlot &+ UInt16($0), as: UInt8.self) & 0x80 != 0 }
        if !wide { enterMMX() }
        // All or nothing, whatever the mask says; Intel's processors look at the upper half first.
        guard isAligned(a, 8, at: rip) else { return false }
        for first in wide ? (amdOrder ? [0, 8] : [8, 0]) : [0] {
            for i in [first, first &+ 7] {
                guard linearPointer(a &+ UInt64(i), .write, user: userMode, at: rip) != nil else { return false }
            }
        }
        for i in selected {
            guard write(a &+ UInt64(i), get(s, u.base &+ UInt16(i), as: UInt8.self), user: userMode, at: rip) else {
                return false
            }
        }
        return true
    }
}
