// SSE, SSE2, SSE3 and AVX floating-point opcodes of the two-byte map: which forms exist, and how wide the memory operand
// is.

import CX86State

extension Decoder {
    /// The floating-point uop; `prefix` as in the code: bit 0 binary64, bit 1 scalar, for opcodes that go by that.
    mutating func emitFloat(
        _ opcode: UInt8, prefix: UInt8, dst: UInt16, a: UInt16, b: UInt16, imm: UInt64 = 0
    ) {
        var code = UInt64(opcode) | UInt64(prefix) &<< 8 | (rex & 8 != 0 ? 0x400 : 0) | (isRegister ? 0 : 0x800)
        if vex { code |= 0x1000 }
        if vex, vexL, prefix < 2 || opcode == 0xe6 || opcode == 0x5b { code |= 0x2000 }
        emit(hostHandler(code) ?? Handler.sseFloat, dst: dst, src: b, base: a, imm: code | imm &<< 16)
    }

    /// The handler that is the host's own instruction, for the common ones (`code` as in ``FloatCode``).
    private func hostHandler(_ code: UInt64) -> Int? {
        guard processor.s.pointee.host & UInt32(X86_HOST_FLOAT) != 0 else { return nil }
        let code = FloatCode(code)
        let type = code.prefix, double = code.isDouble ? 1 : 0
        let vex = code.vex ? 1 : 0, integer = code.wideInteger ? 1 : 0
        switch code.opcode {
        case 0x51, 0x58, 0x59, 0x5c...0x5f:
            let operation =
                code.opcode == 0x51 ? 6 : code.opcode < 0x5c ? Int(code.opcode & 1) : Int(code.opcode & 3) &+ 2
            return Handler.hostFloat &+ (operation &* 4 &+ type) &* 3 &+ vex &+ (code.wide ? 1 : 0)
        case 0x2e, 0x2f: return Handler.hostCompare &+ (Int(code.opcode & 1) &* 2 &+ double) &* 2 &+ vex
        case 0x2a where code.isScalar: return Handler.hostFromInteger &+ (double &* 2 &+ integer) &* 2 &+ vex
        case 0x2c where code.isScalar, 0x2d where code.isScalar:
            let rounded = Int(code.opcode & 1)
            return Handler.hostToInteger &+ ((rounded &* 2 &+ double) &* 2 &+ integer) &* 2 &+ vex
        case 0x5a where code.isScalar: return Handler.hostFormat &+ double &* 2 &+ vex
        default: return nil
        }
    }

    mutating func decodeFloat(_ opcode: UInt8, _ prefix: OpcodePrefix) {
        let scalar = prefix == .pF3 || prefix == .pF2
        let isDouble = prefix == .p66 || prefix == .pF2
        var prefixNumber: UInt8 = prefix == .none ? 0 : prefix == .p66 ? 1 : prefix == .pF3 ? 2 : 3
        var target = vectorSlot(reg)
        let source: UInt16
        var imm: UInt64 = 0
        // Two sources; with VEX the first is VEX.vvvv, which nobody else may use.
        var binary = false
        switch opcode {
        case 0x2a:
            binary = true
            guard scalar || !vex else { return undefined() }
            if scalar {
                if !isRegister { emit(vex ? Handler.vexCheck : Handler.sseCheck) }
                source = rmValue(rex & 8 != 0 ? 3 : 2)
            } else if isRegister {
                source = mmxSlot(rm)
            } else {
                emit(Handler.sseCheck)
                emitMemory(Handler.load &+ 3, dst: Slot.tmp(0))
                source = Slot.tmp(0)
            }
        case 0x2c, 0x2d:
            guard scalar || !vex else { return undefined() }
            if scalar {
                target = Slot.gpr(reg)
                source = scalarOperand(wide: isDouble)
            } else {
                target = UInt16(regField)
                if !isRegister {
                    emitBeforeOperand(Handler.sseCheck)
                    emitBeforeOperand(Handler.mmxCheck)
                }
                source = isDouble ? vectorOperand() : scalarOperand(wide: true)
            }
        case 0x2e, 0x2f:
            guard !scalar else { return undefined() }
            source = scalarOperand(wide: isDouble)
        case 0x51:
            binary = scalar
            source = scalar ? scalarOperand(wide: isDouble) : vectorOperand()
        case 0x52, 0x53:
            guard !isDouble else { return undefined() }
            binary = scalar
            source = scalar ? scalarOperand(wide: false) : vectorOperand()
        case 0x5a:
            binary = scalar
            if prefix == .none, vexL {
                emitHalfVector()
                source = isRegister ? vectorSlot(rm) : Slot.xtmp
            } else {
                source = prefix == .p66 ? vectorOperand() : scalarOperand(wide: prefix != .pF3)
            }
        case 0x5b:
            guard prefix != .pF2 else { return undefined() }
            source = vectorOperand()
        case 0xe6:
            guard prefix != .none else { return undefined() }
            if prefix == .pF3, vexL {
                emitHalfVector()
                source = isRegister ? vectorSlot(rm) : Slot.xtmp
            } else {
                source = prefix == .pF3 ? scalarOperand(wide: true) : vectorOperand()
            }
        case 0x7c, 0x7d, 0xd0:
            guard prefix == .p66 || prefix == .pF2 else { return undefined() }
            binary = true
            prefixNumber = prefix == .p66 ? 1 : 0
            source = vectorOperand()
        default:
            binary = true
            source = scalar ? scalarOperand(wide: isDouble) : vectorOperand()
            if opcode == 0xc2 { imm = UInt64(byte()) }
        }
        guard !vex || binary || vvvv == 0 else { return undefined() }
        emitFloat(
            opcode, prefix: prefixNumber, dst: target, a: vex && binary ? vectorSlot(vexRegister) : target, b: source,
            imm: imm
        )
    }

    /// A 16-byte memory operand of a 256-bit conversion.
    private mutating func emitHalfVector() {
        if !isRegister { emitMemory(Handler.vexLoad &+ 4, dst: Slot.xtmp) }
    }
}
