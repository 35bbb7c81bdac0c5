// SSE and SSE2 floating-point opcodes: which forms exist, and how wide the memory operand is.

import CX86State

extension Decoder {
    mutating func decodeFloat(_ opcode: UInt8, _ prefix: OpcodePrefix) {
        let scalar = prefix == .pF3 || prefix == .pF2
        let isDouble = prefix == .p66 || prefix == .pF2
        let prefixNumber: UInt64 = prefix == .none ? 0 : prefix == .p66 ? 1 : prefix == .pF3 ? 2 : 3
        var code = UInt64(opcode) | prefixNumber &<< 8 | (rex & 8 != 0 ? 0x400 : 0) | (isRegister ? 0 : 0x800)
        var target = vectorSlot(reg)
        let source: UInt16
        switch opcode {
        case 0x2a:
            if scalar {
                if !isRegister { emit(Handler.sseCheck) }
                source = rmValue(rex & 8 != 0 ? 3 : 2)
            } else if isRegister {
                source = mmxSlot(rm)
            } else {
                emit(Handler.sseCheck)
                emitMemory(Handler.load &+ 3, dst: Slot.tmp(0))
                source = Slot.tmp(0)
            }
        case 0x2c, 0x2d:
            if scalar {
                target = Slot.gpr(reg)
                source = scalarOperand(wide: isDouble)
            } else {
                target = UInt16(regField)
                if !isRegister {
                    emit(Handler.sseCheck)
                    emit(Handler.mmxCheck)
                }
                source = isDouble ? vectorOperand() : scalarOperand(wide: true)
            }
        case 0x2e, 0x2f:
            guard !scalar else { return undefined() }
            source = scalarOperand(wide: isDouble)
        case 0x52, 0x53:
            guard !isDouble else { return undefined() }
            source = scalar ? scalarOperand(wide: false) : vectorOperand()
        case 0x5a:
            source = prefix == .p66 ? vectorOperand() : scalarOperand(wide: prefix != .pF3)
        case 0x5b:
            guard prefix != .pF2 else { return undefined() }
            source = vectorOperand()
        case 0xe6:
            guard prefix != .none else { return undefined() }
            source = prefix == .pF3 ? scalarOperand(wide: true) : vectorOperand()
        default:
            source = scalar ? scalarOperand(wide: isDouble) : vectorOperand()
            if opcode == 0xc2 { code |= UInt64(byte()) &<< 16 }
        }
        emit(Handler.sseFloat, dst: target, src: source, imm: code)
    }
}
