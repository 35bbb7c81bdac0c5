// SSE to SSE3, SSE4A and MMX opcodes of the two-byte map [APM3 A.1], by mandatory prefix.

import CX86State

/// The mandatory prefix; F3 and F2 win over 66.
enum OpcodePrefix {
    case none, p66, pF3, pF2
}

extension Decoder {
    var opcodePrefix: OpcodePrefix {
        switch repeatPrefix {
        case 0xf3: return .pF3
        case 0xf2: return .pF2
        default: return prefix66 ? .p66 : .none
        }
    }

    func vectorSlot(_ register: Int) -> UInt16 { Slot.xmm0 &+ UInt16(truncatingIfNeeded: register &* 16) }

    /// The r/m operand as a slot: a register, or `xtmp` loaded from 16 aligned bytes (with VEX: of any alignment, or 32).
    mutating func vectorOperand() -> UInt16 {
        if isRegister { return vectorSlot(rm) }
        emitMemory(vex ? Handler.vexLoad &+ (vexL ? 6 : 4) : Handler.vectorLoad &+ 4, dst: Slot.xtmp)
        return Slot.xtmp
    }

    /// The r/m operand as a slot: a register, or `xtmp` loaded from 4 or 8 bytes.
    mutating func scalarOperand(wide: Bool) -> UInt16 {
        if isRegister { return vectorSlot(rm) }
        emitMemory((vex ? Handler.vexLoad &+ 2 : Handler.vectorLoad) &+ (wide ? 1 : 0), dst: Slot.xtmp)
        return Slot.xtmp
    }

    private mutating func emitVector(_ op: VectorOperation) {
        let source = vectorOperand()
        emit(Handler.vectorRR &+ op.rawValue, dst: vectorSlot(reg), src: source)
    }

    mutating func decodeSIMD(_ opcode: UInt8) {
        let prefix = opcodePrefix
        if opcode == 0x77 {
            guard prefix == .none else { return undefined() }
            return emitMMX(opcode, source: 0)
        }
        switch opcode {
        case 0x10...0x17, 0x28...0x2f, 0x50...0x7f, 0xc2, 0xc4...0xc6, 0xd0...0xff: readModRM()
        default: return undefined()
        }
        switch opcode {
        case 0x10, 0x11, 0x28, 0x29, 0x6f, 0x7f: decodeVectorMove(opcode, prefix)
        case 0x12, 0x13, 0x16, 0x17: decodeHalfMove(opcode, prefix)
        case 0x14, 0x15:
            guard prefix == .none || prefix == .p66 else { return undefined() }
            let wide = prefix == .p66
            emitVector(opcode == 0x14 ? (wide ? .punpcklqdq : .punpckldq) : (wide ? .punpckhqdq : .punpckhdq))
        case 0x2b:
            if !isRegister, prefix == .pF3 || prefix == .pF2, has(.sse4a) {
                return emitMemory(Handler.vectorStore &+ (prefix == .pF2 ? 1 : 0), src: vectorSlot(reg))
            }
            guard !isRegister, prefix == .none || prefix == .p66 else { return undefined() }
            emitMemory(Handler.vectorStore &+ 3, src: vectorSlot(reg))
        case 0x50:
            guard isRegister, prefix == .none || prefix == .p66 else { return undefined() }
            emit(Handler.moveSigns &+ (prefix == .p66 ? 2 : 1), dst: Slot.gpr(reg), src: vectorSlot(rm))
        case 0x54...0x57:
            guard prefix == .none || prefix == .p66 else { return undefined() }
            let operations: [VectorOperation] = [.pand, .pandn, .por, .pxor]
            emitVector(operations[Int(opcode & 3)])
        case 0x6e, 0x7e: decodeMOVD(opcode, prefix)
        case 0x70: decodeShuffle(prefix)
        case 0x71...0x73: decodeImmediateShift(opcode, prefix)
        case 0x78, 0x79: decodeBitFieldMove(opcode, prefix)
        case 0xf0:
            guard prefix == .pF2, !isRegister, has(.sse3) else { return undefined() }
            emitMemory(Handler.vectorLoad &+ 2, dst: vectorSlot(reg))
        case 0x7c, 0x7d, 0xd0:
            guard prefix == .p66 || prefix == .pF2, has(.sse3) else { return undefined() }
            decodeFloat(opcode, prefix)
        case 0xc4: decodeInsertWord(prefix)
        case 0xc5:
            guard isRegister, prefix == .none || prefix == .p66 else { return undefined() }
            let word = UInt64(byte())
            if prefix == .none { return emitMMX(opcode, source: 0, imm: word) }
            emit(Handler.extractWord, dst: Slot.gpr(reg), src: vectorSlot(rm), imm: word)
        case 0xc6:
            guard prefix == .none || prefix == .p66 else { return undefined() }
            let source = vectorOperand()
            let imm = UInt64(byte())
            emit(Handler.shuffle &+ (prefix == .none ? 3 : 4), dst: vectorSlot(reg), src: source, imm: imm)
        case 0xd6:
            switch prefix {
            case .p66:
                if isRegister {
                    emit(Handler.vectorFromRegister &+ 1, dst: vectorSlot(rm), src: vectorSlot(reg))
                } else {
                    emitMemory(Handler.vectorStore &+ 1, src: vectorSlot(reg))
                }
            case .pF3, .pF2:
                guard isRegister else { return undefined() }
                emitMMX(opcode, source: 0)
            case .none: undefined()
            }
        case 0xd7:
            guard isRegister, prefix == .none || prefix == .p66 else { return undefined() }
            if prefix == .none { return emitMMX(opcode, source: 0) }
            emit(Handler.moveSigns, dst: Slot.gpr(reg), src: vectorSlot(rm))
        case 0xe7:
            guard !isRegister, prefix == .none || prefix == .p66 else { return undefined() }
            if prefix == .none { return emitMMXStore(8) }
            emitMemory(Handler.vectorStore &+ 3, src: vectorSlot(reg))
        case 0xf7:
            guard isRegister, prefix == .none || prefix == .p66 else { return undefined() }
            decodeMaskedMove(prefix)
        case 0x2a, 0x2c...0x2f, 0x51...0x53, 0x58...0x5f, 0xc2, 0xe6: decodeFloat(opcode, prefix)
        default: decodePackedInteger(opcode, prefix)
        }
    }

    /// MOVUPS, MOVAPS, MOVDQA, MOVDQU, MOVSS, MOVSD and MMX MOVQ, both directions.
    private mutating func decodeVectorMove(_ opcode: UInt8, _ prefix: OpcodePrefix) {
        let toMemory = opcode & 1 != 0 && opcode != 0x6f
        let aligned: Bool
        switch (opcode, prefix) {
        case (0x10, .pF3), (0x11, .pF3), (0x10, .pF2), (0x11, .pF2):
            let wide = prefix == .pF2
            if isRegister {
                let h = Handler.vectorRR &+ (wide ? VectorOperation.movsd : .movss).rawValue
                emit(h, dst: vectorSlot(toMemory ? rm : reg), src: vectorSlot(toMemory ? reg : rm))
            } else if toMemory {
                emitMemory(Handler.vectorStore &+ (wide ? 1 : 0), src: vectorSlot(reg))
            } else {
                emitMemory(Handler.vectorLoad &+ (wide ? 1 : 0), dst: vectorSlot(reg))
            }
            return
        case (0x10, _), (0x11, _), (0x6f, .pF3), (0x7f, .pF3): aligned = false
        case (0x28, .none), (0x28, .p66), (0x29, .none), (0x29, .p66), (0x6f, .p66), (0x7f, .p66): aligned = true
        case (0x6f, .none): return emitMMX(opcode, source: mmxSource(8))
        case (0x7f, .none): return isRegister ? emitMMX(opcode, source: 0) : emitMMXStore(8)
        default: return undefined()
        }
        if isRegister {
            emit(
                Handler.vectorRR &+ VectorOperation.movdqa.rawValue, dst: vectorSlot(toMemory ? rm : reg),
                src: vectorSlot(toMemory ? reg : rm))
        } else if toMemory {
            emitMemory(Handler.vectorStore &+ (aligned ? 3 : 2), src: vectorSlot(reg))
        } else {
            emitMemory(Handler.vectorLoad &+ (aligned ? 3 : 2), dst: vectorSlot(reg))
        }
    }

    /// MOVLPS, MOVHPS, MOVLPD, MOVHPD, MOVHLPS, MOVLHPS.
    private mutating func decodeHalfMove(_ opcode: UInt8, _ prefix: OpcodePrefix) {
        let high = opcode & 4 != 0
        if prefix == .pF3 || prefix == .pF2 {
            guard has(.sse3), opcode & 1 == 0, !(prefix == .pF2 && high) else { return undefined() }
            return decodeDuplicate(high: high, doubles: prefix == .pF2)
        }
        if opcode & 1 != 0 {
            guard !isRegister else { return undefined() }
            return emitMemory(Handler.vectorStore &+ 1, src: vectorSlot(reg) &+ (high ? 8 : 0))
        }
        if isRegister {
            guard prefix == .none else { return undefined() }
            let op: VectorOperation = high ? .movlhps : .movhlps
            return emit(Handler.vectorRR &+ op.rawValue, dst: vectorSlot(reg), src: vectorSlot(rm))
        }
        emitMemory(Handler.vectorLoad &+ 1, dst: Slot.xtmp)
        emit(
            Handler.vectorRR &+ (high ? VectorOperation.movlhps : .movsd).rawValue, dst: vectorSlot(reg), src: Slot.xtmp
        )
    }

    /// MOVD and MOVQ between general registers or memory and vector registers.
    private mutating func decodeMOVD(_ opcode: UInt8, _ prefix: OpcodePrefix) {
        let wide = rex & 8 != 0 ? 1 : 0
        switch (opcode, prefix) {
        case (0x6e, .p66):
            if isRegister {
                emit(Handler.vectorFromRegister &+ wide, dst: vectorSlot(reg), src: Slot.gpr(rm))
            } else {
                emitMemory(Handler.vectorLoad &+ wide, dst: vectorSlot(reg))
            }
        case (0x7e, .p66):
            if isRegister {
                emit(Handler.vectorToRegister &+ wide, dst: Slot.gpr(rm), src: vectorSlot(reg))
            } else {
                emitMemory(Handler.vectorStore &+ wide, src: vectorSlot(reg))
            }
        case (0x7e, .pF3):
            if isRegister {
                emit(Handler.vectorFromRegister &+ 1, dst: vectorSlot(reg), src: vectorSlot(rm))
            } else {
                emitMemory(Handler.vectorLoad &+ 1, dst: vectorSlot(reg))
            }
        case (0x6e, .none):
            if isRegister { return emitMMX(opcode, source: Slot.gpr(rm), imm: UInt64(wide)) }
            emitMMX(opcode, source: mmxSource(wide != 0 ? 8 : 4), imm: UInt64(wide))
        case (0x7e, .none):
            if isRegister { return emitMMX(opcode, source: 0, imm: UInt64(wide)) }
            emitMMXStore(wide != 0 ? 8 : 4)
        default: undefined()
        }
    }

    private mutating func decodeShuffle(_ prefix: OpcodePrefix) {
        if prefix == .none {
            let source = mmxSource(8)
            let imm = UInt64(byte())
            return emitMMX(0x70, source: source, imm: imm)
        }
        let source = vectorOperand()
        let imm = UInt64(byte())
        emit(
            Handler.shuffle &+ (prefix == .p66 ? 0 : prefix == .pF2 ? 1 : 2), dst: vectorSlot(reg), src: source,
            imm: imm)
    }

    private mutating func decodeImmediateShift(_ opcode: UInt8, _ prefix: OpcodePrefix) {
        guard isRegister, prefix == .none || prefix == .p66 else { return undefined() }
        let count = UInt64(byte())
        let index: Int
        switch (opcode, regField) {
        case (0x71, 2): index = 0
        case (0x71, 4): index = 1
        case (0x71, 6): index = 2
        case (0x72, 2): index = 3
        case (0x72, 4): index = 4
        case (0x72, 6): index = 5
        case (0x73, 2): index = 6
        case (0x73, 6): index = 7
        case (0x73, 3) where prefix == .p66, (0x73, 7) where prefix == .p66:
            return emit(
                Handler.shuffle &+ (regField == 3 ? 5 : 6), dst: vectorSlot(rm), src: vectorSlot(rm), imm: count)
        default: return undefined()
        }
        if prefix == .none { return emitMMX(opcode, source: 0, imm: count) }
        emit(Handler.vectorRI &+ index, dst: vectorSlot(rm), imm: count)
    }

    private mutating func decodeInsertWord(_ prefix: OpcodePrefix) {
        guard prefix == .none || prefix == .p66 else { return undefined() }
        if !isRegister { emitBeforeOperand(prefix == .p66 ? Handler.sseCheck : Handler.mmxCheck) }
        let source = rmValue(1)
        let word = UInt64(byte())
        if prefix == .none { return emitMMX(0xc4, source: isRegister ? Slot.gpr(rm) : source, imm: word) }
        emit(Handler.insertWord, dst: vectorSlot(reg), src: isRegister ? Slot.gpr(rm) : source, imm: word)
    }

    /// MASKMOVDQU and MASKMOVQ store to [rDI].
    mutating func decodeMaskedMove(_ prefix: OpcodePrefix) {
        memory = MemoryOperand()
        memory.base = Slot.gpr(7)
        let wide = prefix == .p66
        if legacy {
            if !wide { emit(Handler.mmxCheck, imm: 2) }
            settleLegacyAddress(asking: true)
            noteAccess(wide ? 16 : 8, write: true)
            emitAddress(0)
        } else {
            emitMemory(
                Handler.segmentAddress &+ (address32 ? 1 : 0), dst: Slot.tmp(0), src: segmentSlot)
        }
        emitSystem(
            .maskedMove, dst: Slot.tmp(0), base: wide ? vectorSlot(reg) : mmxSlot(regField), scale: wide ? 16 : 8,
            imm: UInt64(wide ? vectorSlot(rm) : mmxSlot(rm & 7)))
    }

    /// EXTRQ and INSERTQ (SSE4A): length and index as immediates or from the second register.
    private mutating func decodeBitFieldMove(_ opcode: UInt8, _ prefix: OpcodePrefix) {
        guard has(.sse4a), isRegister, prefix == .p66 || prefix == .pF2 else { return undefined() }
        guard opcode == 0x79 else {
            guard prefix == .pF2 || regField == 0 else { return undefined() }
            let target = vectorSlot(prefix == .p66 ? rm : reg), source = vectorSlot(rm)
            let length = UInt64(byte() & 63), index = UInt16(byte() & 63)
            return emitSIMD(
                prefix == .p66 ? .extractField : .insertField, dst: target, b: source, third: index, imm: length)
        }
        emitSIMD(
            prefix == .p66 ? .extractField : .insertField, dst: vectorSlot(reg), b: vectorSlot(rm), imm: 0x80)
    }

    private mutating func decodePackedInteger(_ opcode: UInt8, _ prefix: OpcodePrefix) {
        guard let op = VectorOperation.integer(opcode) else { return undefined() }
        switch prefix {
        case .p66: emitVector(op)
        case .none where op.existsInMMX:
            // The low-half unpacks read only four bytes.
            let narrow = opcode >= 0x60 && opcode <= 0x62
            emitMMX(opcode, source: mmxSource(narrow ? 4 : 8))
        default: undefined()
        }
    }
}
