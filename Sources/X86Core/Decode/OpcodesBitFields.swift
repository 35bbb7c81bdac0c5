// BMI1, BMI2, ADX, LZCNT, TZCNT, MOVBE and CRC32: which forms exist, by CPUID bit.

import CX86State

extension Decoder {
    func has(_ features: ProcessorFeatures) -> Bool { processor.features.isSuperset(of: features) }

    private mutating func emitBitField(
        _ op: BitFieldOperation, dst: UInt16, src: UInt16, base: UInt16 = 0, index: UInt16 = 0, size: Int,
        imm: UInt64 = 0
    ) {
        emit(
            Handler.bitField, dst: dst, src: src, base: base, index: index, scale: UInt8(size),
            imm: UInt64(op.rawValue) | imm &<< 8)
    }

    /// 0F BC, 0F BD: BSF, BSR, and with F3 TZCNT and LZCNT where announced; hidden, they act as the former.
    mutating func decodeBitScan(_ opcode: UInt8) {
        readModRM()
        let size = operandSize
        let source = rmValue(size)
        let leading = opcode == 0xbd
        if repeatPrefix == 0xf3, has(leading ? .abm : .bmi1) {
            emit((leading ? Handler.lzcnt : Handler.tzcnt) &+ size &- 1, dst: regSlot(size), src: source)
        } else {
            emit(Handler.scan &+ (leading ? 3 : 0) &+ size &- 1, dst: regSlot(size), src: source)
        }
    }

    /// 0F 38 F0, F1: MOVBE and CRC32.
    mutating func decodeMoveBigEndian(_ opcode: UInt8) {
        let size = operandSize
        if repeatPrefix == 0xf2 {
            guard has(.sse42) else { return undefined() }
            let source = rmValue(opcode == 0xf0 ? 0 : size)
            let op = BitFieldOperation(
                rawValue: BitFieldOperation.crc8.rawValue &+ (opcode == 0xf0 ? 0 : size)
            ).unsafelyUnwrapped
            return emitBitField(op, dst: Slot.gpr(reg), src: source, size: 3)
        }
        guard has(.movbe), repeatPrefix == 0, !isRegister else { return undefined() }
        if opcode == 0xf0 {
            let source = rmValue(size)
            emitBitField(.swap, dst: regSlot(size), src: source, size: size)
        } else {
            emitBitField(.swap, dst: Slot.tmp(0), src: regSlot(size), size: size)
            emitMemory(Handler.store &+ size, src: Slot.tmp(0))
        }
    }

    /// 0F 38 F6: ADCX (66) and ADOX (F3).
    mutating func decodeAddCarry() {
        guard has(.adx), repeatPrefix == 0xf3 || repeatPrefix == 0 && prefix66 else { return undefined() }
        let size = rex & 8 != 0 ? 3 : 2
        let source = rmValue(size)
        emitBitField(
            repeatPrefix == 0xf3 ? .adox : .adcx, dst: regSlot(size), src: source, base: regSlot(size), size: size)
    }

    /// The VEX-coded general-purpose instructions; `map` 2 or 3. False: none of these.
    mutating func decodeVEXInteger(_ map: Int, _ opcode: UInt8) -> Bool {
        let prefix = vexPrefix
        let size = rex & 8 != 0 ? 3 : 2
        let isBMI2: Bool
        switch (map, opcode, prefix) {
        case (2, 0xf2, .none), (2, 0xf3, .none), (2, 0xf7, .none): isBMI2 = false
        case (2, 0xf5, .none), (2, 0xf5, .pF3), (2, 0xf5, .pF2), (2, 0xf6, .pF2), (2, 0xf7, _), (3, 0xf0, .pF2):
            isBMI2 = true
        default: return false
        }
        guard has(isBMI2 ? .bmi2 : .bmi1), !vexL else {
            undefined()
            return true
        }
        if opcode == 0xf3, regField == 0 || regField > 3 {
            undefined()
            return true
        }
        if map == 3, vvvv != 0 {
            undefined()
            return true
        }
        let source = rmValue(size)
        let second = Slot.gpr(vexRegister), target = regSlot(size)
        switch (opcode, prefix) {
        case (0xf2, _): emitBitField(.andn, dst: target, src: source, base: second, size: size)
        case (0xf3, _):
            let op: BitFieldOperation = regField == 1 ? .blsr : regField == 2 ? .blsmsk : .blsi
            emitBitField(op, dst: second, src: source, size: size)
        case (0xf5, .none): emitBitField(.bzhi, dst: target, src: source, base: second, size: size)
        case (0xf5, .pF3): emitBitField(.pext, dst: target, src: source, base: second, size: size)
        case (0xf5, _): emitBitField(.pdep, dst: target, src: source, base: second, size: size)
        case (0xf6, _): emitBitField(.mulx, dst: target, src: source, index: second, size: size)
        case (0xf7, .none): emitBitField(.bextr, dst: target, src: source, base: second, size: size)
        case (0xf7, .p66): emitBitField(.shlx, dst: target, src: source, base: second, size: size)
        case (0xf7, .pF3): emitBitField(.sarx, dst: target, src: source, base: second, size: size)
        case (0xf7, _): emitBitField(.shrx, dst: target, src: source, base: second, size: size)
        default:
            let imm = UInt64(byte())
            emitBitField(.rorx, dst: target, src: source, size: size, imm: imm)
        }
        return true
    }
}
