// VEX-coded instructions [APM3 1.2.7]: the prefix, and opcode map 1. Maps 2 and 3 are shared with the legacy encodings
// (OpcodesSIMD38.swift).

import CX86State

extension Decoder {
    /// VEX.pp as the mandatory prefix it stands for.
    var vexPrefix: OpcodePrefix { [.none, .p66, .pF3, .pF2][Int(vexPP)] }
    /// The first source of three-operand forms.
    var vexSource: UInt16 { vectorSlot(vexRegister) }
    /// The register that VEX.vvvv names: one of eight outside 64-bit mode, where the top bit counts only if it must be one.
    var vexRegister: Int { legacy ? vvvv & 7 : vvvv }

    /// C4 and C5.
    mutating func decodeVEX(_ first: UInt8) {
        guard !prefix66, repeatPrefix == 0, !hasREX, !lock else { return undefined() }
        let second = byte()
        var map = 1
        var last = second
        rex = second & 0x80 == 0 ? 4 : 0
        if first == 0xc4 {
            rex |= (second & 0x40 == 0 ? 2 : 0) | (second & 0x20 == 0 ? 1 : 0)
            map = Int(second & 31)
            last = byte()
            if last & 0x80 != 0 { rex |= 8 }
        }
        vvvv = Int(~last &>> 3 & 15)
        // Eight registers: the bits that would name more are ignored.
        if legacy { rex &= 8 }
        vexL = last & 4 != 0
        vexPP = last & 3
        vex = true
        let opcode = byte()
        guard !overrun, map >= 1, map <= 3, has(.avx) || map > 1 else { return undefined() }
        if map == 1, opcode == 0x77 {
            guard vvvv == 0, vexPP == 0 else { return undefined() }
            return emitSIMD(vexL ? .zeroAll : .zeroUpper, dst: 0)
        }
        if legacy, isGeneralPurpose(map, opcode) { rex = 0 }
        modRMPosition = position
        readModRM()
        guard !overrun else { return }
        if map > 1, decodeVEXInteger(map, opcode) { return }
        guard has(.avx) else { return undefined() }
        switch map {
        case 1: decodeVEX0F(opcode)
        case 2: decodeSIMD38(opcode, vexPrefix)
        default: decodeSIMD3A(opcode, vexPrefix)
        }
    }

    /// VEX.W is the size of a general register, and so ignored where there are only 32-bit ones.
    private func isGeneralPurpose(_ map: Int, _ opcode: UInt8) -> Bool {
        switch (map, opcode) {
        case (1, 0x2a), (1, 0x2c), (1, 0x2d), (2, 0xf2...0xf7), (3, 0xf0), (3, 0x60), (3, 0x61): true
        default: false
        }
    }

    /// The r/m operand of a VEX form as a slot, any alignment.
    private mutating func operand(_ wide: Bool) -> UInt16 {
        if isRegister { return vectorSlot(rm) }
        emitMemory(Handler.vexLoad &+ (wide ? 6 : 4), dst: Slot.xtmp)
        return Slot.xtmp
    }

    private mutating func threeOperand(_ op: VectorOperation) {
        let source = operand(vexL)
        emitSIMD(number: op.rawValue, dst: vectorSlot(reg), a: vexSource, b: source)
    }

    private mutating func decodeVEX0F(_ opcode: UInt8) {
        let prefix = vexPrefix
        let isPacked = prefix == .none || prefix == .p66
        switch opcode {
        case 0x10, 0x11, 0x28, 0x29, 0x6f, 0x7f: decodeMove(opcode, prefix)
        case 0x12, 0x13, 0x16, 0x17: decodeHalf(opcode, prefix)
        case 0x14, 0x15:
            guard isPacked else { return undefined() }
            let wide = prefix == .p66
            threeOperand(opcode == 0x14 ? (wide ? .punpcklqdq : .punpckldq) : (wide ? .punpckhqdq : .punpckhdq))
        case 0x2b, 0xe7:
            guard !isRegister, vvvv == 0, opcode == 0x2b ? isPacked : prefix == .p66 else { return undefined() }
            emitMemory(Handler.vexStore &+ (vexL ? 7 : 5), src: vectorSlot(reg))
        case 0x50, 0xd7:
            guard isRegister, vvvv == 0, opcode == 0x50 ? isPacked : prefix == .p66 else { return undefined() }
            guard opcode == 0x50 || !vexL || has(.avx2) else { return undefined() }
            let kind: UInt64 = opcode == 0xd7 ? 0 : prefix == .p66 ? 2 : 1
            emitSIMD(.moveSigns, dst: Slot.gpr(reg), b: vectorSlot(rm), imm: kind)
        case 0x54...0x57:
            guard isPacked else { return undefined() }
            threeOperand([.pand, .pandn, .por, .pxor][Int(opcode & 3)])
        case 0x6e, 0x7e: decodeMoveDoubleword(opcode, prefix)
        case 0x70:
            guard prefix != .none, vvvv == 0, !vexL || has(.avx2) else { return undefined() }
            let op: ShuffleOperation = prefix == .p66 ? .pshufd : prefix == .pF2 ? .pshuflw : .pshufhw
            let source = operand(vexL)
            let imm = UInt64(byte())
            emitSIMD(shuffle: op, dst: vectorSlot(reg), a: vectorSlot(reg), b: source, imm: imm)
        case 0x71...0x73: decodeShift(opcode, prefix)
        case 0xae:
            guard !isRegister, regField == 2 || regField == 3, prefix == .none, !vexL, vvvv == 0 else {
                return undefined()
            }
            emit(Handler.vexCheck)
            emitAddressed(regField == 2 ? .ldmxcsr : .stmxcsr)
        case 0xc4:
            guard prefix == .p66, !vexL else { return undefined() }
            if !isRegister { emit(Handler.vexCheck) }
            let source = rmValue(1)
            let imm = UInt64(byte() & 7)
            emitSIMD(
                .insert, dst: vectorSlot(reg), a: vexSource, b: isRegister ? Slot.gpr(rm) : source, imm: imm | 0x10)
        case 0xc5:
            guard isRegister, prefix == .p66, !vexL, vvvv == 0 else { return undefined() }
            let imm = UInt64(byte() & 7)
            emitSIMD(.extract, dst: Slot.gpr(reg), b: vectorSlot(rm), imm: imm | 0x10)
        case 0xc6:
            guard isPacked else { return undefined() }
            let source = operand(vexL)
            let imm = UInt64(byte())
            emitSIMD(
                shuffle: prefix == .none ? .shufps : .shufpd, dst: vectorSlot(reg), a: vexSource, b: source, imm: imm)
        case 0xd6:
            guard prefix == .p66, !vexL, vvvv == 0 else { return undefined() }
            if isRegister {
                emitSIMD(.moveQuadword, dst: vectorSlot(rm), b: vectorSlot(reg))
            } else {
                emitMemory(Handler.vexStore &+ 3, src: vectorSlot(reg))
            }
        case 0xf0:
            guard prefix == .pF2, !isRegister, vvvv == 0 else { return undefined() }
            emitMemory(Handler.vexLoad &+ (vexL ? 6 : 4), dst: vectorSlot(reg))
        case 0xf7:
            guard isRegister, prefix == .p66, !vexL, vvvv == 0 else { return undefined() }
            emit(Handler.vexCheck)
            decodeMaskedMove(.p66)
        case 0x2a, 0x2c...0x2f, 0x51...0x53, 0x58...0x5f, 0x7c, 0x7d, 0xc2, 0xd0, 0xe6: decodeFloat(opcode, prefix)
        default:
            guard prefix == .p66, let op = VectorOperation.integer(opcode), !vexL || has(.avx2) else {
                return undefined()
            }
            let source = operand(vexL && !op.countsByRegister)
            emitSIMD(number: op.rawValue, dst: vectorSlot(reg), a: vexSource, b: source)
        }
    }

    private mutating func decodeMove(_ opcode: UInt8, _ prefix: OpcodePrefix) {
        let toMemory = opcode & 1 != 0 && opcode != 0x6f
        let aligned: Bool
        switch (opcode, prefix) {
        case (0x10, .pF3), (0x11, .pF3), (0x10, .pF2), (0x11, .pF2):
            let wide = prefix == .pF2
            if isRegister {
                vexL = false
                let op: VectorOperation = wide ? .movsd : .movss
                return emitSIMD(
                    number: op.rawValue, dst: vectorSlot(toMemory ? rm : reg), a: vexSource,
                    b: vectorSlot(toMemory ? reg : rm))
            }
            guard vvvv == 0 else { return undefined() }
            return toMemory
                ? emitMemory(Handler.vexStore &+ (wide ? 3 : 2), src: vectorSlot(reg))
                : emitMemory(Handler.vexLoad &+ (wide ? 3 : 2), dst: vectorSlot(reg))
        case (0x10, _), (0x11, _), (0x6f, .pF3), (0x7f, .pF3): aligned = false
        case (0x28, .none), (0x28, .p66), (0x29, .none), (0x29, .p66), (0x6f, .p66), (0x7f, .p66): aligned = true
        default: return undefined()
        }
        guard vvvv == 0 else { return undefined() }
        let width = (vexL ? 6 : 4) &+ (aligned ? 1 : 0)
        if isRegister {
            emitSIMD(
                number: VectorOperation.movdqa.rawValue, dst: vectorSlot(toMemory ? rm : reg),
                a: vectorSlot(toMemory ? reg : rm), b: vectorSlot(toMemory ? reg : rm))
        } else if toMemory {
            emitMemory(Handler.vexStore &+ width, src: vectorSlot(reg))
        } else {
            emitMemory(Handler.vexLoad &+ width, dst: vectorSlot(reg))
        }
    }

    /// VMOVLPS, VMOVHPS, VMOVHLPS, VMOVLHPS and kin; VMOVDDUP, VMOVSLDUP, VMOVSHDUP.
    private mutating func decodeHalf(_ opcode: UInt8, _ prefix: OpcodePrefix) {
        let high = opcode & 4 != 0
        if prefix == .pF3 || prefix == .pF2 {
            guard opcode & 1 == 0, !(prefix == .pF2 && high), vvvv == 0 else { return undefined() }
            return decodeDuplicate(high: high, doubles: prefix == .pF2)
        }
        guard !vexL else { return undefined() }
        if opcode & 1 != 0 {
            guard !isRegister, vvvv == 0 else { return undefined() }
            return emitMemory(Handler.vexStore &+ 3, src: vectorSlot(reg) &+ (high ? 8 : 0))
        }
        if isRegister {
            guard prefix == .none else { return undefined() }
            let op: VectorOperation = high ? .movlhps : .movhlps
            return emitSIMD(number: op.rawValue, dst: vectorSlot(reg), a: vexSource, b: vectorSlot(rm))
        }
        emitMemory(Handler.vexLoad &+ 3, dst: Slot.xtmp)
        let op: VectorOperation = high ? .movlhps : .movsd
        emitSIMD(number: op.rawValue, dst: vectorSlot(reg), a: vexSource, b: Slot.xtmp)
    }

    /// MOVDDUP, MOVSLDUP, MOVSHDUP, with and without VEX.
    mutating func decodeDuplicate(high: Bool, doubles: Bool) {
        let source = doubles && !vexL ? scalarOperand(wide: true) : vectorOperand()
        emitSIMD(
            doubles ? .movddup : high ? .movshdup : .movsldup, dst: vectorSlot(reg), a: vectorSlot(reg), b: source)
    }

    private mutating func decodeMoveDoubleword(_ opcode: UInt8, _ prefix: OpcodePrefix) {
        guard !vexL, vvvv == 0 else { return undefined() }
        let wide = rex & 8 != 0 && !legacy ? 1 : 0
        switch (opcode, prefix) {
        case (0x6e, .p66):
            if isRegister {
                emitSIMD(.moveFromRegister, dst: vectorSlot(reg), b: Slot.gpr(rm), imm: UInt64(wide))
            } else {
                emitMemory(Handler.vexLoad &+ 2 &+ wide, dst: vectorSlot(reg))
            }
        case (0x7e, .p66):
            if isRegister {
                emitSIMD(.extract, dst: Slot.gpr(rm), b: vectorSlot(reg), imm: wide != 0 ? 0x30 : 0x20)
            } else {
                emitMemory(Handler.vexStore &+ 2 &+ wide, src: vectorSlot(reg))
            }
        case (0x7e, .pF3):
            if isRegister {
                emitSIMD(.moveQuadword, dst: vectorSlot(reg), b: vectorSlot(rm))
            } else {
                emitMemory(Handler.vexLoad &+ 3, dst: vectorSlot(reg))
            }
        default: undefined()
        }
    }

    /// Shifts by an immediate: the destination is VEX.vvvv.
    private mutating func decodeShift(_ opcode: UInt8, _ prefix: OpcodePrefix) {
        guard isRegister, prefix == .p66, !vexL || has(.avx2) else { return undefined() }
        let count = UInt64(byte())
        let op: VectorOperation
        switch (opcode, regField) {
        case (0x71, 2): op = .psrlw
        case (0x71, 4): op = .psraw
        case (0x71, 6): op = .psllw
        case (0x72, 2): op = .psrld
        case (0x72, 4): op = .psrad
        case (0x72, 6): op = .pslld
        case (0x73, 2): op = .psrlq
        case (0x73, 6): op = .psllq
        case (0x73, 3), (0x73, 7):
            return emitSIMD(
                shuffle: regField == 3 ? .psrldq : .pslldq, dst: vexSource, a: vectorSlot(rm), b: vectorSlot(rm),
                imm: count)
        default: return undefined()
        }
        emitSIMD(
            number: op.rawValue, dst: vexSource, a: vectorSlot(rm), b: Slot.zero, imm: count, countIsImmediate: true)
    }
}

extension VectorOperation {
    /// Shifts whose count is the low quadword of an XMM operand, whatever the vector's length.
    var countsByRegister: Bool {
        switch self {
        case .psrlw, .psrld, .psrlq, .psraw, .psrad, .psllw, .pslld, .psllq: true
        default: false
        }
    }
}
