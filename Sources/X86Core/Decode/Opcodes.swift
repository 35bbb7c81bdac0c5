// The one-byte opcode map in 64-bit mode [APM3 A.1].

import CX86State

extension Decoder {
    mutating func decodeOneByte(_ opcode: UInt8) {
        switch opcode {
        case 0x00...0x3f where opcode & 7 < 6: decodeALU(opcode)
        case 0x50...0x57:
            emit(Handler.push &+ (operand16 ? 0 : 1), src: Slot.gpr(Int(opcode & 7) | Int(rex & 1) &<< 3))
        case 0x58...0x5f:
            emit(Handler.pop &+ (operand16 ? 0 : 1), dst: Slot.gpr(Int(opcode & 7) | Int(rex & 1) &<< 3))
        case 0x63:
            readModRM()
            if operandSize == 1, !isRegister, has(.amdOrder) {
                // AMD's processors read 32 bits for 16.
                emitMemory(Handler.load &+ 2, dst: Slot.tmp(0))
                return emit(Handler.movRR &+ 1, dst: regSlot(1), src: Slot.tmp(0))
            }
            extend(from: 2, to: operandSize, signed: true)
        case 0x68: emit(Handler.pushI &+ (operand16 ? 0 : 1), imm: immediate(stackSize))
        case 0x6a: emit(Handler.pushI &+ (operand16 ? 0 : 1), imm: immediate(0))
        case 0x69, 0x6b:
            readModRM()
            let size = operandSize
            let source = rmValue(size)
            let imm = immediate(opcode == 0x6b ? 0 : size)
            emit(Handler.imulRI &+ size &- 1, dst: regSlot(size), src: source, imm: imm)
        case 0x6c...0x6f:
            let size = opcode & 1 == 0 ? 0 : min(operandSize, 2)
            emitSystem(
                opcode < 0x6e ? .ins : .outs, dst: segmentSlot, base: addressCode, index: sourceSegmentCode,
                scale: UInt8(1 &<< size),
                imm: repeatPrefix != 0 ? 1 : 0)
        case 0x70...0x7f:
            let offset = i8()
            emitConditional(Int(opcode & 15), to: nearTarget(offset))
        case 0x80, 0x81, 0x83:
            readModRM()
            let size = opcode == 0x80 ? 0 : operandSize
            let imm = immediate(opcode == 0x81 ? size : 0)
            let h = regField &* 8 &+ size &* 2
            if isRegister {
                aluRegister(
                    Handler.aluRI &+ h, op: regField, size: size, dst: rmSlot(size), src: 0, imm: imm, immediate: true)
            } else if locks, regField != 7 {
                emitMemory(Handler.lockedALU &+ (7 &+ regField) &* 4 &+ size, imm: imm)
            } else {
                emitMemory(Handler.aluMI &+ h, imm: imm)
            }
        case 0x84, 0x85:
            readModRM()
            let size = opcode == 0x84 ? 0 : operandSize
            if isRegister {
                effect = .overwrites
                newCompare = (used, true, size, false)
                emit(Handler.testRR &+ size, dst: rmSlot(size), src: regSlot(size))
            } else {
                emitMemory(Handler.testMR &+ size, src: regSlot(size))
            }
        case 0x86, 0x87:
            readModRM()
            let size = opcode == 0x86 ? 0 : operandSize
            if isRegister {
                effect = .transparent
                emit(Handler.xchgRR &+ size, dst: rmSlot(size), src: regSlot(size))
            } else {
                emitMemory((isShared ? Handler.lockedExchange : Handler.xchgM) &+ size, src: regSlot(size))
            }
        case 0x88, 0x89:
            readModRM()
            let size = opcode == 0x88 ? 0 : operandSize
            if isRegister {
                effect = .transparent
                emit(Handler.movRR &+ size, dst: rmSlot(size), src: regSlot(size))
            } else {
                emitMemory(Handler.store &+ size, src: regSlot(size))
            }
        case 0x8a, 0x8b:
            readModRM()
            let size = opcode == 0x8a ? 0 : operandSize
            if isRegister {
                effect = .transparent
                emit(Handler.movRR &+ size, dst: regSlot(size), src: rmSlot(size))
            } else {
                emitMemory(Handler.load &+ size, dst: regSlot(size))
            }
        case 0x8c:
            readModRM()
            guard regField < 6 else { return undefined() }
            emitSystem(.moveFromSegment, dst: Slot.tmp(0), imm: UInt64(regField))
            if isRegister {
                let size = operandSize
                emit(Handler.movRR &+ size, dst: rmSlot(size), src: Slot.tmp(0))
            } else {
                emitMemory(Handler.store &+ 1, src: Slot.tmp(0))
            }
        case 0x8d:
            readLEA()
        case 0x8e:
            readModRM()
            guard regField < 6, regField != 1 else { return undefined() }
            let source = rmValue(1)
            emitSystem(.moveToSegment, dst: source, imm: UInt64(regField))
            if regField == 2 { endWithStop(check: true) }
        case 0x8f:
            decodePopMemory()
        case 0x90...0x97:
            let r = Int(opcode & 7) | Int(rex & 1) &<< 3
            if opcode == 0x90 && repeatPrefix == 0xf3 && (r == 0 || !has(.amdOrder)) { return emitSystem(.pause) }
            if r == 0 {
                effect = .transparent
                emit(Handler.nop)
            } else {
                effect = .transparent
                emit(Handler.xchgRR &+ operandSize, dst: Slot.gpr(r), src: 0)
            }
        case 0x98:
            effect = .transparent
            emit(Handler.widen &+ (operandSize &- 1))
        case 0x99:
            effect = .transparent
            emit(Handler.widen &+ 3 &+ (operandSize &- 1))
        case 0x9b: decodeWait()
        case 0x9c:
            emitSystem(.pushf, dst: Slot.tmp(0))
            emit(Handler.push &+ (operand16 ? 0 : 1), src: Slot.tmp(0))
        case 0x9d:
            emitPopToTemporary()
            emitSystem(.popf, dst: Slot.tmp(0), imm: operand16 ? 2 : 8, ends: true)
        case 0x9e, 0x9f:
            guard has(.lahf) else { return undefined() }
            emitSystem(opcode == 0x9e ? .sahf : .lahf)
        case 0xa0, 0xa1:
            let size = opcode == 0xa0 ? 0 : operandSize
            readOffset()
            emitMemory(Handler.load &+ size, dst: 0)
        case 0xa2, 0xa3:
            let size = opcode == 0xa2 ? 0 : operandSize
            readOffset()
            emitMemory(Handler.store &+ size, src: 0)
        case 0xa4, 0xa5: string(.movs, opcode)
        case 0xa6, 0xa7: string(.cmps, opcode)
        case 0xa8, 0xa9:
            let size = opcode == 0xa8 ? 0 : operandSize
            effect = .overwrites
            newCompare = (used, true, size, true)
            emit(Handler.testRI &+ size, dst: 0, imm: immediate(size))
        case 0xaa, 0xab: string(.stos, opcode)
        case 0xac, 0xad: string(.lods, opcode)
        case 0xae, 0xaf: string(.scas, opcode)
        case 0xb0...0xb7:
            effect = .transparent
            let r = Int(opcode & 7) | Int(rex & 1) &<< 3
            emit(Handler.movRI, dst: slot(r, 0), imm: UInt64(byte()))
        case 0xb8...0xbf:
            effect = .transparent
            let size = operandSize
            let r = Int(opcode & 7) | Int(rex & 1) &<< 3
            let imm = size == 3 ? u64() : immediate(size)
            emit(Handler.movRI &+ size, dst: Slot.gpr(r), imm: imm)
        case 0xc0, 0xc1:
            readModRM()
            let count = UInt64(byte())
            shift(opcode == 0xc0 ? 0 : operandSize, count: count)
        case 0xd0, 0xd1:
            readModRM()
            shift(opcode == 0xd0 ? 0 : operandSize, count: 1)
        case 0xd2, 0xd3:
            readModRM()
            let size = opcode == 0xd2 ? 0 : operandSize
            let h = Handler.shiftRC &+ regField &* 4 &+ size
            modify(size) { d, slot in d.emit(h, dst: slot) }
        case 0xc2, 0xc3:
            let release = opcode == 0xc2 ? UInt64(u16()) : 0
            if operand16 {
                emit(Handler.extendM &+ 10, dst: Slot.tmp(0), base: Slot.rsp, index: Slot.zero)
            } else {
                if release == 0 { emit(Handler.ret) }
                emitPopToTemporary()
                emit(Handler.canonicalTarget, dst: Slot.tmp(0))
            }
            emit(Handler.aluRI &+ 3 &* 2 &+ 1, dst: Slot.rsp, imm: (operand16 ? 2 : 8) &+ release)
            emit(Handler.jumpIndirect, dst: Slot.tmp(0))
            ended = true
        case 0xc4, 0xc5: decodeVEX(opcode)
        case 0xc6, 0xc7:
            readModRM()
            guard regField == 0 else { return undefined() }
            let size = opcode == 0xc6 ? 0 : operandSize
            let imm = immediate(size)
            if isRegister {
                effect = .transparent
                emit(Handler.movRI &+ size, dst: rmSlot(size), imm: imm)
            } else {
                emitMemory(Handler.storeImmediate &+ size, imm: imm)
            }
        case 0xc8:
            let frame = UInt64(u16()), level = UInt64(byte())
            emitSystem(.enter, scale: operand16 ? 2 : 8, imm: frame | level &<< 16)
        case 0xc9:
            guard operand16 else { return emit(Handler.leave) }
            emit(Handler.load &+ 1, dst: Slot.tmp(0), base: Slot.rbp, index: Slot.zero)
            emit(Handler.lea &+ 2, dst: Slot.rsp, base: Slot.rbp, index: Slot.zero, disp: 2)
            emit(Handler.movRR &+ 1, dst: Slot.rbp, src: Slot.tmp(0))
        case 0xca, 0xcb:
            let release = opcode == 0xca ? UInt64(u16()) : 0
            emitSystem(.farReturn, scale: UInt8(1 &<< operandSize), imm: release, ends: true)
        case 0xcc: emitSystem(.int3, ends: true)
        case 0xcd: emitSystem(.intN, imm: UInt64(byte()), ends: true)
        case 0xcf:
            emitSystem(.iret, scale: UInt8(1 &<< operandSize), ends: true)
        case 0xd7:
            memory = MemoryOperand()
            emit(Handler.extendR &+ 2 &* 2, dst: Slot.tmp(0), src: 0)  // AL, zero-extended to 64 bits.
            memory.base = Slot.gpr(3)
            memory.index = Slot.tmp(0)
            if address32 {
                emitMemory(Handler.segmentAddress &+ 1, dst: Slot.tmp(1), src: segmentSlot)
            } else {
                emitMemory(Handler.segmentAddress, dst: Slot.tmp(1), src: segmentSlot)
            }
            emitSystem(.xlat, dst: Slot.tmp(1))
        case 0xd8...0xdf:
            readModRM()
            decodeX87(opcode)
        case 0xe0...0xe3: decodeLoop(opcode)
        case 0xe4, 0xe5, 0xec, 0xed:
            let size = opcode & 1 == 0 ? 0 : min(operandSize, 2)
            let port: UInt64 = opcode < 0xe8 ? UInt64(byte()) : 0x1_0000
            emitSystem(.inPort, scale: UInt8(1 &<< size), imm: port)
        case 0xe6, 0xe7, 0xee, 0xef:
            let size = opcode & 1 == 0 ? 0 : min(operandSize, 2)
            let port: UInt64 = opcode < 0xe8 ? UInt64(byte()) : 0x1_0000
            emitSystem(.outPort, scale: UInt8(1 &<< size), imm: port)
        case 0xe8:
            let offset = nearDisplacement()
            let target = nearTarget(offset)
            if !operand16 { emitBranch(Handler.call, to: target) }
            emit(Handler.pushI &+ (operand16 ? 0 : 1), imm: nextRIP)
            emitBranch(Handler.jump, to: target)
            ended = true
        case 0xe9, 0xeb:
            let offset = opcode == 0xeb ? i8() : nearDisplacement()
            emitBranch(Handler.jump, to: nearTarget(offset))
            ended = true
        case 0xf1: emitSystem(.int1, ends: true)
        case 0xf4: emitSystem(.hlt, ends: true)
        case 0xf5: emit(Handler.flagOp &+ 2)
        case 0xf6, 0xf7:
            readModRM()
            group3(opcode == 0xf6 ? 0 : operandSize)
        case 0xf8: emit(Handler.flagOp)
        case 0xf9: emit(Handler.flagOp &+ 1)
        case 0xfa: emitSystem(.cli)
        case 0xfb: emitSystem(.sti)
        case 0xfc: emit(Handler.flagOp &+ 3)
        case 0xfd: emit(Handler.flagOp &+ 4)
        case 0xfe:
            readModRM()
            guard regField < 2 else { return undefined() }
            increment(0)
        case 0xff:
            readModRM()
            group5()
        default:
            // 06 07 0E 16 17 1E 1F 27 2F 37 3F 60-62 82 9A CE D4-D6 EA: invalid, or EVEX, which does not exist here.
            undefined()
        }
    }

    private mutating func decodeALU(_ opcode: UInt8) {
        let op = Int(opcode &>> 3), form = opcode & 7
        if form >= 4 {
            let size = form == 4 ? 0 : operandSize
            let imm = immediate(size)
            return aluRegister(
                Handler.aluRI &+ op &* 8 &+ size &* 2, op: op, size: size, dst: 0, src: 0, imm: imm, immediate: true)
        }
        readModRM()
        let size = form & 1 == 0 ? 0 : operandSize
        let h = op &* 8 &+ size &* 2
        let toRegister = form & 2 != 0
        if isRegister {
            aluRegister(
                Handler.aluRR &+ h, op: op, size: size, dst: toRegister ? regSlot(size) : rmSlot(size),
                src: toRegister ? rmSlot(size) : regSlot(size), imm: 0, immediate: false)
        } else if toRegister {
            if op != 2 && op != 3 && op != 7 {
                newCandidate = used
                newHandler = Handler.aluRM &+ h
            }
            emitMemory(Handler.aluRM &+ h, dst: regSlot(size))
        } else if locks, op != 7 {
            emitMemory(Handler.lockedALU &+ op &* 4 &+ size, src: regSlot(size))
        } else {
            emitMemory(Handler.aluMR &+ h, src: regSlot(size))
        }
    }

    private mutating func aluRegister(
        _ h: Int, op: Int, size: Int, dst: UInt16, src: UInt16, imm: UInt64, immediate: Bool
    ) {
        switch op {
        case 2, 3: emit(h, dst: dst, src: src, imm: imm)  // ADC, SBB read the carry.
        case 7:
            effect = .overwrites
            newCompare = (used, false, size, immediate)
            emit(h, dst: dst, src: src, imm: imm)
        default: emitALU(h, dst: dst, src: src, imm: imm, overwrites: true)
        }
    }

    private mutating func readLEA() {
        // The segment does not count for LEA; the address size does.
        segmentSlot = Slot.zero
        let narrow = address32
        if legacy {
            readModRM()
            guard !isRegister else { return undefined() }
            unsettle()
            let size = operandSize
            emitMemory(Handler.lea &+ 1, dst: Slot.tmp(0))
            if address16 && size == 2 {
                emit(Handler.extendR &+ (1 &* 3 &+ 1) &* 2, dst: regSlot(2), src: Slot.tmp(0))
            } else {
                emit(Handler.movRR &+ size, dst: regSlot(size), src: Slot.tmp(0))
            }
            return
        }
        address32 = false
        readModRM()
        guard !isRegister else { return undefined() }
        let size = operandSize
        if narrow {
            emitMemory(Handler.lea &+ 1, dst: Slot.tmp(0))
            emit(Handler.movRR &+ size, dst: regSlot(size), src: Slot.tmp(0))
        } else {
            effect = .transparent
            emitMemory(Handler.lea &+ size &- 1, dst: regSlot(size))
        }
    }

    mutating func extend(from: Int, to size: Int, signed: Bool) {
        if from == size || from > size {
            // MOVSXD with a 16-bit operand, MOVZX r16, r/m16: plain moves.
            if isRegister {
                effect = .transparent
                emit(Handler.movRR &+ size, dst: regSlot(size), src: rmSlot(size))
            } else {
                emitMemory(Handler.load &+ size, dst: regSlot(size))
            }
            return
        }
        let h = (from &* 3 &+ size &- 1) &* 2 &+ (signed ? 1 : 0)
        if isRegister {
            effect = .transparent
            emit(Handler.extendR &+ h, dst: regSlot(size), src: rmSlot(from))
        } else {
            emitMemory(Handler.extendM &+ h, dst: regSlot(size))
        }
    }

    /// Loads [RSP] into a temporary without moving RSP: the instruction's last uop does that.
    mutating func emitPopToTemporary() {
        emit(Handler.load &+ (operand16 ? 1 : 3), dst: Slot.tmp(0), base: Slot.rsp, index: Slot.zero)
    }

    private mutating func decodePopMemory() {
        // The address is computed with RSP already incremented; nothing is lost if the store faults.
        let byteCount: UInt64 = operand16 ? 2 : 8
        readModRM()
        guard regField == 0 else { return undefined() }
        if isRegister { return emit(Handler.pop &+ (operand16 ? 0 : 1), dst: rmSlot(3)) }
        if memory.base == Slot.rsp { memory.disp = memory.disp &+ Int32(truncatingIfNeeded: byteCount) }
        if memory.base == Slot.tmp(3), segmentSlot != Slot.zero || address32, unsettled.base == Slot.rsp {
            out[unsettledUop].disp = out[unsettledUop].disp &+ Int32(truncatingIfNeeded: byteCount)
        }
        let operand = memory
        emit(Handler.load &+ stackSize, dst: Slot.tmp(0), base: Slot.rsp, index: Slot.zero)
        memory = operand
        emitMemory(Handler.store &+ stackSize, src: Slot.tmp(0))
        emit(Handler.aluRI &+ 3 &* 2 &+ 1, dst: Slot.rsp, imm: byteCount)
    }

    private mutating func string(_ op: SystemOperation, _ opcode: UInt8) {
        let size = opcode & 1 == 0 ? 0 : operandSize
        emitSystem(
            op, dst: segmentSlot, base: addressCode, index: sourceSegmentCode,
            scale: repeatPrefix == 0xf3 ? 1 : repeatPrefix == 0xf2 ? 2 : 0,
            imm: 1 &<< UInt64(size))
    }

    private mutating func shift(_ size: Int, count: UInt64) {
        let op = regField
        let mask: UInt64 = size == 3 ? 63 : 31
        let h = Handler.shiftRI &+ op &* 8 &+ size &* 2
        guard isRegister else { return modify(size) { d, slot in d.emit(h, dst: slot, imm: count) } }
        if op >= 4 && count & mask != 0 {
            emitALU(h, dst: rmSlot(size), imm: count, overwrites: true)
        } else {
            emit(h, dst: rmSlot(size), imm: count)
        }
    }

    private mutating func increment(_ size: Int) {
        if isRegister {
            // CF stays, so it overwrites nothing for good; but it can itself be dropped.
            newCandidate = used
            newHandler = Handler.unaryR &+ regField &* 8 &+ size &* 2
            emit(newHandler, dst: rmSlot(size))
        } else {
            emitMemory((locks ? Handler.lockedUnary : Handler.unaryM) &+ regField &* 4 &+ size)
        }
    }

    private mutating func group3(_ size: Int) {
        switch regField {
        case 0, 1:
            let imm = immediate(size)
            if isRegister {
                effect = .overwrites
                newCompare = (used, true, size, true)
                emit(Handler.testRI &+ size, dst: rmSlot(size), imm: imm)
            } else {
                emitMemory(Handler.testMI &+ size, imm: imm)
            }
        case 2, 3:
            let op = regField
            if isRegister {
                if op == 2 {
                    effect = .transparent
                    emit(Handler.unaryR &+ op &* 8 &+ size &* 2, dst: rmSlot(size))
                } else {
                    emitALU(Handler.unaryR &+ op &* 8 &+ size &* 2, dst: rmSlot(size), overwrites: true)
                }
            } else {
                emitMemory((locks ? Handler.lockedUnary : Handler.unaryM) &+ op &* 4 &+ size)
            }
        case 4, 5:
            let op = regField
            let source = rmValue(size)
            emit(Handler.mul &+ (op &- 4) &* 4 &+ size, src: source)
        default:
            let op = regField
            let source = rmValue(size)
            emit(Handler.div &+ (op &- 6) &* 4 &+ size, src: source)
        }
    }

    /// Where a near branch goes: with a 66 prefix an AMD processor cuts the address to 16 bits [APM3 1.2.4].
    func nearTarget(_ offset: Int64) -> UInt64 {
        let target = nextRIP &+ UInt64(bitPattern: offset)
        return operand16 && !legacy ? target & 0xffff : target
    }

    /// The displacement of CALL, JMP and Jcc: 16 bits with a 66 prefix.
    mutating func nearDisplacement() -> Int64 {
        operand16 && !legacy ? Int64(Int16(bitPattern: u16())) : i32()
    }

    /// CALL and JMP through 16 bits.
    private mutating func branchIndirectNarrow(call: Bool) {
        if isRegister {
            emit(Handler.extendR &+ 10, dst: Slot.tmp(0), src: rmSlot(1))
        } else {
            emitMemory(Handler.extendM &+ 10, dst: Slot.tmp(0))
        }
        if call { emit(Handler.pushI, imm: nextRIP) }
        emit(Handler.jumpIndirect, dst: Slot.tmp(0))
        ended = true
    }

    private mutating func group5() {
        switch regField {
        case 0, 1: increment(operandSize)
        case 2, 4:
            let call = regField == 2
            if operand16 { return branchIndirectNarrow(call: call) }
            let target = rmValue(3)
            emit(Handler.canonicalTarget, dst: target)
            if call {
                emit(Handler.callIndirect, dst: target)
                // The stack page is not at hand: the same in two steps. The target must survive the push.
                if target == Slot.rsp { emit(Handler.movRR &+ 3, dst: Slot.tmp(0), src: target) }
                emit(Handler.pushI &+ 1, imm: nextRIP)
                emit(Handler.jumpIndirect, dst: target == Slot.rsp ? Slot.tmp(0) : target)
            } else {
                emit(Handler.jumpIndirect, dst: target)
            }
            ended = true
        case 3, 5:
            guard !isRegister else { return undefined() }
            askSegment()
            let (byteCount, write) = access(of: .farIndirect)
            noteAccess(byteCount, write: write)
            let onStack = memory.isOnStack
            emitAddress(0)
            emitSystem(
                .farIndirect, dst: Slot.tmp(0), base: regField == 3 ? 1 : 0, index: onStack ? 1 : 0,
                scale: farPointerSize, imm: UInt64(1 &<< operandSize) | farPointerSegment, ends: true
            )
        case 6:
            let source = rmValue(stackSize)
            emit(Handler.push &+ (operand16 ? 0 : 1), src: source)
        default: undefined()
        }
    }

    private mutating func decodeLoop(_ opcode: UInt8) {
        let offset = i8()
        let target = nearTarget(offset)
        // RCX is tested and counted without touching flags, through a temporary and the engine.
        // On AMD's processors a repeat prefix says which of LOOPE and LOOPNE it is.
        emitSystem(.loop, dst: addressCode, scale: loopKind(opcode))
        emitLoopBranch(to: target)
    }

    /// 0 LOOPNE, 1 LOOPE, 2 LOOP, 3 JRCXZ.
    func loopKind(_ opcode: UInt8) -> UInt8 {
        let kind = opcode & 3
        return kind < 2 && repeatPrefix != 0 && has(.amdOrder) ? (repeatPrefix == 0xf3 ? 1 : 0) : kind
    }

    mutating func emitLoopBranch(to target: UInt64) {
        // The engine leaves 1 in tmp(0) if the branch is taken.
        processor.conditionalUops[conditionalCount] = (Int32(used), instructionCount &+ 1)
        conditionalCount &+= 1
        emitBranch(Handler.jumpIfTemporary, to: target)
    }

    mutating func endWithStop(check: Bool) {
        // A pseudo-instruction at the next address: the run loop looks around, then goes on there.
        stopCheck = check
        ended = true
        stopPending = true
    }
}
