// The two-byte opcode map [APM3 A.1], general-purpose and system part. Everything SIMD goes to OpcodesSIMD.swift.

import CX86State
import X86Defs

extension Decoder {
    mutating func decode0F(_ opcode: UInt8) {
        if legacy && decodeLegacy0F(opcode) { return }
        if opcode == 0x38, prefix66, position < available, bytes[position] == 0x82 { return invalidateContext() }
        switch opcode {
        case 0x00:
            readModRM()
            group6()
        case 0x01:
            readModRM()
            group7()
        case 0x02, 0x03:
            readModRM()
            let size = operandSize
            emitSystem(.requireProtectedMode)
            let source = rmValue(1)
            emitSystem(
                opcode == 2 ? .lar : .lsl, dst: regSlot(size), base: source, scale: UInt8(1 &<< size))
        case 0x05: emitSystem(.syscall, ends: true)
        case 0x06: emitSystem(.clts, ends: true)
        case 0x07: emitSystem(.sysret, imm: rex & 8 != 0 ? 1 : 0, ends: true)
        case 0x34, 0x35: undefined()  // SYSENTER and SYSEXIT: AMD's long mode has none.
        case 0x08: emitSystem(.invd)
        case 0x09: emitSystem(.wbinvd)
        case 0x0b, 0xb9, 0xff:
            if opcode != 0x0b { readModRM() }
            undefined()
        case 0x0d:
            readModRM()
            guard !isRegister || !has(.amdOrder) else { return undefined() }
            if legacy, !isRegister { unsettle() }  // No access, no limit.
            emit(Handler.nop)  // PREFETCH, PREFETCHW
        case 0x18...0x1f:
            readModRM()
            if legacy, !isRegister { unsettle() }  // No access, and no look at the segment.
            effect = .transparent
            if used == firstUop { emit(Handler.nop) }
        case 0x20, 0x22:
            readRegisterModRM()
            guard !lock || reg == 0 else { return undefined() }
            let control = lock ? 8 : reg
            lock = false
            guard [0, 2, 3, 4, 8].contains(control) else { return undefined() }
            let register = Slot.gpr(rm)
            used = firstUop
            emitSystem(opcode == 0x20 ? .readCR : .writeCR, dst: register, imm: UInt64(control), ends: opcode == 0x22)
        case 0x21, 0x23:
            readRegisterModRM()
            guard reg < 8 else { return undefined() }
            let register = Slot.gpr(rm)
            used = firstUop
            emitSystem(opcode == 0x21 ? .readDR : .writeDR, dst: register, imm: UInt64(reg))
        case 0x30: emitSystem(.wrmsr, ends: true)
        case 0x31: emitSystem(.rdtsc)
        case 0x32: emitSystem(.rdmsr)
        case 0x33: emitSystem(.rdpmc)
        case 0x40...0x4f:
            readModRM()
            let size = operandSize
            let source = rmValue(size)
            emit(Handler.cmov &+ Int(opcode & 15) &* 3 &+ size &- 1, dst: regSlot(size), src: source)
        case 0x80...0x8f:
            let offset = nearDisplacement()
            emitConditional(Int(opcode & 15), to: nearTarget(offset))
        case 0x90...0x9f:
            readModRM()
            if isRegister {
                emit(Handler.setcc &+ Int(opcode & 15), dst: rmSlot(0))
            } else {
                emitMemory(Handler.setccM &+ Int(opcode & 15))
            }
        case 0xa0, 0xa8:
            emitSystem(.moveFromSegment, dst: Slot.tmp(0), imm: opcode == 0xa0 ? 4 : 5)
            emit(Handler.push &+ (operand16 ? 0 : 1), src: Slot.tmp(0))
        case 0xa1, 0xa9:
            emitPopToTemporary()
            emitSystem(.popSegment, dst: Slot.tmp(0), scale: operand16 ? 2 : 8, imm: opcode == 0xa1 ? 4 : 5)
        case 0xa2: emitSystem(.cpuid, ends: true)
        case 0xa3: bitTest(0)
        case 0xab: bitTest(1)
        case 0xb3: bitTest(2)
        case 0xbb: bitTest(3)
        case 0xba:
            readModRM()
            guard regField >= 4 else { return undefined() }
            let size = operandSize
            let op = regField &- 4
            let imm = UInt64(byte())
            let h = Handler.bit &+ (op &* 3 &+ size &- 1) &* 2 &+ 1
            if op == 0 {
                let source = rmValue(size)
                emit(h, dst: source, imm: imm)
            } else if locks, !isRegister {
                emitMemory(lockedBit(op, size) &+ 1, imm: imm)
            } else {
                modify(size) { d, slot in d.emit(h, dst: slot, imm: imm) }
            }
        case 0xa4, 0xa5, 0xac, 0xad:
            readModRM()
            let size = operandSize
            let imm: UInt64 = opcode & 1 == 0 ? UInt64(byte()) : 0
            let h = Handler.doubleShift &+ ((opcode >= 0xac ? 3 : 0) &+ size &- 1) &* 2 &+ Int(opcode & 1)
            let source = regSlot(size)
            modify(size) { d, slot in d.emit(h, dst: slot, src: source, imm: imm) }
        case 0xae:
            readModRM()
            group15()
        case 0xaf:
            readModRM()
            let size = operandSize
            let source = rmValue(size)
            emit(Handler.imulRR &+ size &- 1, dst: regSlot(size), src: source)
        case 0xb0, 0xb1:
            readModRM()
            let size = opcode == 0xb0 ? 0 : operandSize
            if isRegister {
                emit(Handler.cmpxchgR &+ size, dst: rmSlot(size), src: regSlot(size))
            } else {
                emitMemory((locks ? Handler.lockedCompareExchange : Handler.cmpxchgM) &+ size, src: regSlot(size))
            }
        case 0xb2, 0xb4, 0xb5:
            readModRM()
            loadFarPointer(opcode == 0xb2 ? .ss : opcode == 0xb4 ? .fs : .gs)
        case 0xb6, 0xb7, 0xbe, 0xbf:
            readModRM()
            extend(from: Int(opcode & 1), to: operandSize, signed: opcode >= 0xbe)
        case 0xb8:
            readModRM()
            guard repeatPrefix == 0xf3, has(.popcnt) else { return undefined() }
            let size = operandSize
            let source = rmValue(size)
            emit(Handler.popcnt &+ size &- 1, dst: regSlot(size), src: source)
        case 0x38, 0x3a:
            let third = byte()
            readModRM()
            guard !overrun else { return }
            opcode == 0x38 ? decodeSIMD38(third, opcodePrefix) : decodeSIMD3A(third, opcodePrefix)
        case 0xbc, 0xbd: decodeBitScan(opcode)
        case 0xc0, 0xc1:
            readModRM()
            let size = opcode == 0xc0 ? 0 : operandSize
            if isRegister {
                emit(Handler.xaddR &+ size, dst: rmSlot(size), src: regSlot(size))
            } else {
                emitMemory((locks ? Handler.lockedExchangeAdd : Handler.xaddM) &+ size, src: regSlot(size))
            }
        case 0xc3:
            readModRM()
            guard !isRegister, repeatPrefix == 0, !prefix66 else { return undefined() }
            emitMemory(Handler.store &+ operandSize, src: regSlot(3))  // MOVNTI
        case 0xc7:
            readModRM()
            group9()
        case 0xc8...0xcf:
            effect = .transparent
            let r = Int(opcode & 7) | Int(rex & 1) &<< 3
            // 16 bits have no defined result; processors give zero.
            if operand16 { return emit(Handler.movRI &+ 1, dst: Slot.gpr(r)) }
            emit(Handler.bswap &+ (rex & 8 != 0 ? 1 : 0), dst: Slot.gpr(r))
        default: decodeSIMD(opcode)
        }
    }

    /// INVPCID.
    private mutating func invalidateContext() {
        _ = byte()
        readModRM()
        guard !isRegister, repeatPrefix == 0, has(.invpcid) else {
            return undefined()
        }
        noteAccess(16, write: false)
        emitAddress(0)
        emitSystem(.invpcid, dst: Slot.tmp(0), base: regSlot(3), ends: true)
    }

    private mutating func bitTest(_ op: Int) {
        readModRM()
        let size = operandSize
        let h = Handler.bit &+ (op &* 3 &+ size &- 1) &* 2
        let bitSlot = regSlot(size)
        if isRegister { return emit(h, dst: rmSlot(size), src: bitSlot) }
        if legacy { return bitTestLegacy(op, h, bitSlot, size) }
        // The bit offset is signed and reaches beyond the operand: add its words to the address first.
        let onStack = memory.isOnStack
        if address32 {
            // The sum is cut to the address size before the segment's base is added.
            used = unsettledUop
            memory = unsettled
        }
        emitAddress(1)
        emit(Handler.bitAddress &+ size &- 1, dst: Slot.tmp(1), src: bitSlot)
        if address32 {
            memory = MemoryOperand()
            memory.base = Slot.tmp(1)
            emitMemory(Handler.segmentAddress &+ (address32 ? 1 : 0), dst: Slot.tmp(1), src: segmentSlot)
        }
        memory = MemoryOperand()
        memory.base = Slot.tmp(1)
        if onStack { memory.scale = 0x40 }
        if op == 0 {
            emitMemory(Handler.load &+ size, dst: Slot.tmp(0))
            emit(h, dst: Slot.tmp(0), src: bitSlot)
        } else if locks {
            emitMemory(lockedBit(op, size), src: bitSlot)
        } else {
            emitMemory(Handler.loadForWrite &+ size, dst: Slot.tmp(0))
            emit(h, dst: Slot.tmp(0), src: bitSlot)
            emitMemory(Handler.store &+ size, src: Slot.tmp(0))
        }
    }

    /// The locked form of BTS, BTR and BTC (1...3) with the bit in a register; the next one has it in the immediate.
    private func lockedBit(_ op: Int, _ size: Int) -> Int { Handler.lockedBit &+ ((op &- 1) &* 3 &+ size &- 1) &* 2 }

    /// The bit's words are added to the offset, and the segment is asked about the sum.
    private mutating func bitTestLegacy(_ op: Int, _ h: Int, _ bitSlot: UInt16, _ size: Int) {
        unsettle()
        let segment = segmentOverride ?? (memory.isOnStack ? .ss : .ds)
        emitMemory(Handler.lea &+ 2, dst: Slot.tmp(1))
        emit(Handler.bitAddress &+ size &- 1, dst: Slot.tmp(1), src: bitSlot)
        memory = MemoryOperand()
        memory.base = Slot.tmp(1)
        segmentOverride = segment
        settleLegacyAddress()
        if op == 0 {
            emitMemory(Handler.load &+ size, dst: Slot.tmp(0))
            emit(h, dst: Slot.tmp(0), src: bitSlot)
        } else if locks {
            emitMemory(lockedBit(op, size), src: bitSlot)
        } else {
            emitMemory(Handler.loadForWrite &+ size, dst: Slot.tmp(0))
            emit(h, dst: Slot.tmp(0), src: bitSlot)
            emitMemory(Handler.store &+ size, src: Slot.tmp(0))
        }
    }

    private mutating func group6() {
        if regField < 6 { emitSystem(.requireProtectedMode) }
        switch regField {
        case 0, 1:
            let op: SystemOperation = regField == 0 ? .sldt : .str
            emitSystem(op, dst: Slot.tmp(0))
            if isRegister {
                let size = operandSize
                emit(Handler.movRR &+ size, dst: rmSlot(size), src: Slot.tmp(0))
            } else {
                emitMemory(Handler.store &+ 1, src: Slot.tmp(0))
            }
        case 2, 3:
            let op: SystemOperation = regField == 2 ? .lldt : .ltr
            if !isRegister { emitSystem(.requirePrivilege) }
            let source = rmValue(1)
            emitSystem(op, dst: source)
        case 4, 5:
            let op: SystemOperation = regField == 4 ? .verr : .verw
            let source = rmValue(1)
            if !isRegister, regField == 5, has(.amdOrder) { lock = false }  // AMD's processors do not mind.
            emitSystem(op, base: source)
        default: undefined()
        }
    }

    private mutating func group7() {
        if isRegister {
            switch modrm {
            case 0xc8: return emitSystem(.monitor)
            case 0xc9: return emitSystem(.mwait)
            case 0xca where opcodePrefix == .none: return emitSystem(.clac)
            case 0xcb where opcodePrefix == .none: return emitSystem(.stac)
            case 0xee where opcodePrefix == .none: return emitSystem(.rdpkru)
            case 0xef where opcodePrefix == .none: return emitSystem(.wrpkru)
            case 0xd9: return emitSystem(repeatPrefix != 0 ? .vmgexit : .vmmcall, ends: true)
            case 0xf8:
                if legacy { return undefined() }
                return emitSystem(.swapgs)
            case 0xd0, 0xd1, 0xf9, 0xfc: return decodeExtendedGroup7()
            case 0xfe where repeatPrefix == 0xf3: return emitSystem(.rmpadjust)
            case 0xff where repeatPrefix == 0xf2: return emitSystem(.pvalidate)
            default: break
            }
        }
        switch regField {
        case 0, 1, 2, 3:
            guard !isRegister else { return undefined() }
            let op: SystemOperation = [.sgdt, .sidt, .lgdt, .lidt][regField]
            let (byteCount, write) = access(of: op)
            noteAccess(byteCount, write: write)
            emitAddress(0)
            emitSystem(op, dst: Slot.tmp(0), scale: operand16 ? 2 : 0)
        case 4:
            emitSystem(.smsw, dst: Slot.tmp(0))
            if isRegister {
                let size = operandSize
                emit(Handler.movRR &+ size, dst: rmSlot(size), src: Slot.tmp(0))
            } else {
                emitMemory(Handler.store &+ 1, src: Slot.tmp(0))
            }
        case 6:
            if !isRegister { emitSystem(.requirePrivilege) }
            let source = rmValue(1)
            emitSystem(.lmsw, dst: source, ends: true)
        case 7:
            guard !isRegister else { return undefined() }
            emitAddress(0)
            emitSystem(.invlpg, dst: Slot.tmp(0), ends: true)
        default: undefined()
        }
    }

    private mutating func group9() {
        if isRegister {
            if regField == 7, repeatPrefix == 0xf3 { return decodeReadProcessorID() }
            guard regField >= 6, repeatPrefix == 0, has(regField == 6 ? .rdrand : .rdseed) else { return undefined() }
            return emitSystem(regField == 6 ? .rdrand : .rdseed, dst: rmSlot(3), imm: 1 &<< UInt64(operandSize))
        }
        if regField >= 3, regField <= 5 { return decodeExtendedGroup9() }
        guard regField == 1, rex & 8 == 0 || has(.cmpxchg16b) else { return undefined() }
        askSegment()
        emitAddressed(rex & 8 != 0 ? .cmpxchg16b : .cmpxchg8b)
    }

    private mutating func group15() {
        if isRegister {
            if repeatPrefix == 0xf3, regField < 4 { return decodeSegmentBase() }
            // LFENCE, MFENCE, SFENCE.
            guard regField >= 5, repeatPrefix == 0, !prefix66 else { return undefined() }
            effect = .transparent
            // Loads and stores of the host are in order as the guest's are, but for a load behind a store.
            return emit(isShared && regField == 6 ? Handler.fence : Handler.nop)
        }
        switch regField {
        case 0, 1:
            guard repeatPrefix == 0, !prefix66 else { return undefined() }
            emitAddressed(regField == 0 ? .fxsave : .fxrstor, imm: rex & 8 != 0 ? 1 : 0)
        case 2, 3: decodeMXCSR()
        case 6 where prefix66 && repeatPrefix == 0:
            guard has(.clwb) else { return undefined() }
            emitAddressed(.flushLine)
        case 7:
            guard repeatPrefix == 0, !prefix66 || has(.clflushopt) else { return undefined() }
            emitAddressed(.flushLine)  // CLFLUSH, and CLFLUSHOPT with 66.
        default: decodeExtendedState()
        }
    }
}
