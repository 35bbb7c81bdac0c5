// Opcodes that exist only outside 64-bit mode, and those whose stack or code segment is another there [APM3 B.3].

import CX86State

extension Decoder {
    /// The instruction pointer that a near branch by `offset` leads to, as a linear address; nil beyond the limit.
    private func legacyTarget(_ offset: Int64) -> UInt64? {
        let base = UInt64(context.codeBase)
        var target = (nextRIP &- base &+ UInt64(bitPattern: offset)) & 0xffff_ffff
        if operand16 { target &= 0xffff }
        return target > UInt64(context.codeLimit) ? nil : (base &+ target) & 0xffff_ffff
    }

    /// What a CALL pushes.
    private var returnPointer: UInt64 { (nextRIP &- UInt64(context.codeBase)) & 0xffff_ffff }

    private mutating func jump(_ offset: Int64, call: Bool) {
        guard let target = legacyTarget(offset) else { return emitSystem(.protectionFault, ends: true) }
        if call { emitPushImmediate(returnPointer) }
        emitBranch(Handler.jump, to: target)
        ended = true
    }

    private mutating func conditionalJump(_ cc: Int, _ offset: Int64) {
        if let target = legacyTarget(offset) { return emitConditional(cc, to: target) }
        // Beyond the limit: only the branch that is taken faults.
        emit(Handler.movRI &+ 3, dst: Slot.tmp(0), imm: 0)
        emit(Handler.setcc &+ cc, dst: Slot.tmp(0))
        emitSystem(.protectionFaultIfTemporary)
    }

    private mutating func indirectJump(call: Bool) {
        let size = stackSize
        let target = rmValue(size)
        emit(Handler.codeTarget &+ (size &- 1), src: target)
        if call { emitPushImmediate(returnPointer) }
        emit(Handler.jumpIndirect, dst: Slot.tmp(1))
        ended = true
    }

    /// True if the opcode was decoded here.
    mutating func decodeLegacy(_ opcode: UInt8) -> Bool {
        switch opcode {
        case 0x06, 0x0e, 0x16, 0x1e: pushSegment(Int(opcode &>> 3))
        case 0x07, 0x17, 0x1f: popSegment(Int(opcode &>> 3))
        case 0x27, 0x2f, 0x37, 0x3f: emitSystem(.decimalAdjust, scale: opcode)
        case 0x40...0x4f:
            newCandidate = used
            let size = operandSize
            newHandler = Handler.unaryR &+ Int((opcode &>> 3) & 1) &* 8 &+ size &* 2
            emit(newHandler, dst: Slot.gpr(Int(opcode & 7)))
        case 0x50...0x57: emitPush(Slot.gpr(Int(opcode & 7)))
        case 0x58...0x5f: emitPop(Slot.gpr(Int(opcode & 7)))
        case 0x60: emitSystem(.pushAll, scale: UInt8(1 &<< stackSize))
        case 0x61: emitSystem(.popAll, scale: UInt8(1 &<< stackSize))
        case 0x62:
            readModRM()
            guard !isRegister else {
                undefined()
                return true
            }
            emitBound()
        case 0x63:
            readModRM()
            askSegment()
            emitSystem(.requireProtectedMode)
            let register = regSlot(1)
            if isRegister {
                emitSystem(.arpl, dst: rmSlot(1), base: register)
            } else {
                // The engine writes only if there is something to write.
                noteAccess(2, write: false)
                emitAddress(0)
                emitSystem(
                    .arpl, dst: Slot.tmp(0), base: register, index: UInt16(operandSegment.rawValue &+ 1))
            }
        case 0x68: emitPushImmediate(immediate(stackSize))
        case 0x6a: emitPushImmediate(immediate(0))
        case 0x70...0x7f: conditionalJump(Int(opcode & 15), i8())
        case 0x82: decodeOneByte(0x80)
        case 0x8f: popMemory()
        case 0x9a, 0xea:
            let offset = operand16 ? UInt64(u16()) : UInt64(UInt32(truncatingIfNeeded: i32()))
            let selector = UInt64(u16())
            emitSystem(
                .farDirect, base: opcode == 0x9a ? 1 : 0, scale: operand16 ? 2 : 4, imm: offset | selector &<< 32,
                ends: true)
        case 0x9c:
            emitSystem(.pushf, dst: Slot.tmp(0))
            emitPush(Slot.tmp(0))
        case 0x9d:
            emitPeek()
            emitStackAdjust(1 &<< stackSize)
            emitSystem(.popf, dst: Slot.tmp(0), base: 1, imm: UInt64(1 &<< stackSize), ends: true)
        case 0xc2, 0xc3:
            let release = opcode == 0xc2 ? Int(u16()) : 0
            emitPeek()
            emit(Handler.codeTarget &+ (stackSize &- 1), src: Slot.tmp(0))
            emitStackAdjust(1 &<< stackSize &+ release)
            emit(Handler.jumpIndirect, dst: Slot.tmp(1))
            ended = true
        case 0xc4, 0xc5:
            // LES and LDS; with a register form these bytes begin a VEX prefix, but not in real mode.
            guard position < available else {
                _ = byte()
                return true
            }
            if bytes[position] >= 0xc0 && !context.isReal { return false }
            readModRM()
            loadFarPointer(opcode == 0xc4 ? .es : .ds)
        case 0xc8:
            let frame = UInt64(u16()), level = UInt64(byte())
            emitSystem(.enter, scale: UInt8(1 &<< stackSize), imm: frame | level &<< 16)
        case 0xc9:
            let size = stackSize
            emitStackAddress(0, 1 &<< size, write: false, base: Slot.rbp)
            emit(Handler.load &+ size, dst: Slot.tmp(0), base: Slot.tmp(2), index: Slot.zero, scale: 0x40)
            emit(Handler.movRR &+ (context.stack16 ? 1 : 2), dst: Slot.rsp, src: Slot.rbp)
            emitStackAdjust(1 &<< size)
            emit(Handler.movRR &+ size, dst: Slot.rbp, src: Slot.tmp(0))
        case 0xce: emitSystem(.into, ends: true)
        case 0xd4, 0xd5: emitSystem(.asciiAdjust, scale: opcode, imm: UInt64(byte()))
        case 0xd6: emitSystem(.salc)
        case 0xd7:
            memory = MemoryOperand()
            emit(Handler.extendR &+ 2 &* 2, dst: Slot.tmp(0), src: 0)
            memory.base = Slot.gpr(3)
            memory.index = Slot.tmp(0)
            settleLegacyAddress()
            emitMemory(Handler.load, dst: 0)
        case 0xe8: jump(nearOffset(), call: true)
        case 0xe9: jump(nearOffset(), call: false)
        case 0xeb: jump(i8(), call: false)
        case 0xe0...0xe3:
            let offset = i8()
            emitSystem(.loop, dst: addressCode, scale: loopKind(opcode))
            guard let target = legacyTarget(offset) else {
                emitSystem(.protectionFaultIfTemporary)
                break
            }
            emitLoopBranch(to: target)
        case 0xff:
            guard position < available else { return false }
            switch (bytes[position] &>> 3) & 7 {
            case 2, 4:
                readModRM()
                indirectJump(call: regField == 2)
            case 6:
                readModRM()
                emitPush(rmValue(stackSize))
            default: return false
            }
        default: return false
        }
        return true
    }

    private mutating func nearOffset() -> Int64 { operand16 ? Int64(Int16(bitPattern: u16())) : i32() }

    /// The two-byte opcodes among them.
    mutating func decodeLegacy0F(_ opcode: UInt8) -> Bool {
        switch opcode {
        case 0x34: emitSystem(.sysenter, ends: true)
        case 0x35: emitSystem(.sysexit, ends: true)
        case 0x80...0x8f: conditionalJump(Int(opcode & 15), nearOffset())
        case 0xa0, 0xa8: pushSegment(opcode == 0xa0 ? 4 : 5)
        case 0xa1, 0xa9: popSegment(opcode == 0xa1 ? 4 : 5)
        default: return false
        }
        return true
    }

    private mutating func pushSegment(_ n: Int) {
        emitSystem(.moveFromSegment, dst: Slot.tmp(0), imm: UInt64(n & 7))
        emitPush(Slot.tmp(0))
    }

    private mutating func popSegment(_ n: Int) {
        emitPeek()
        emitSystem(.popSegment, dst: Slot.tmp(0), scale: UInt8(1 &<< stackSize), imm: UInt64(n & 7))
        if n & 7 == 2 { endWithStop(check: true) }
    }

    private mutating func popMemory() {
        readModRM()
        guard regField == 0 else { return undefined() }
        let byteCount = 1 &<< stackSize
        if isRegister { return emitPop(rmSlot(stackSize)) }
        // The address is computed with ESP already incremented, so the value is fetched first.
        let operand = unsettled
        used = unsettledUop
        emitPeek()
        memory = operand
        if memory.base == Slot.rsp { memory.disp = memory.disp &+ Int32(truncatingIfNeeded: byteCount) }
        settleLegacyAddress()
        emitMemory(Handler.store &+ stackSize, src: Slot.tmp(0))
        emitStackAdjust(byteCount)
    }

    private mutating func emitBound() {
        let register = regSlot(operandSize)
        askSegment()
        let (byteCount, write) = access(of: .bound)
        noteAccess(byteCount, write: write)
        emitAddress(0)
        emitSystem(
            .bound, dst: Slot.tmp(0), base: register, index: UInt16(operandSegment.rawValue &+ 1),
            scale: operand16 ? 2 : 4)
    }
}

extension Decoder {
    /// Bytes of a far pointer's offset: AMD's processors have no 64-bit ones [APM3 LFS, JMP far].
    var farPointerSize: UInt8 { UInt8(1 &<< (has(.amdOrder) ? min(operandSize, 2) : operandSize)) }

    /// What ``Processor/farPointer(_:at:)`` asks about the selector: bits 15:8 of `imm`.
    var farPointerSegment: UInt64 { legacy ? UInt64(operandSegment.rawValue &+ 1) &<< 8 : 0 }

    /// LES, LDS, LSS, LFS, LGS.
    mutating func loadFarPointer(_ segment: SegmentIndex) {
        guard !isRegister else { return undefined() }
        askSegment()
        let (byteCount, write) = access(of: .loadFarPointer)
        noteAccess(byteCount, write: write)
        let onStack = memory.isOnStack
        emitAddress(0)
        emitSystem(
            .loadFarPointer, dst: Slot.tmp(0), base: regSlot(operandSize), index: onStack ? 1 : 0,
            scale: farPointerSize, imm: UInt64(segment.rawValue) | farPointerSegment)
        if segment == .ss { endWithStop(check: true) }
    }
}
