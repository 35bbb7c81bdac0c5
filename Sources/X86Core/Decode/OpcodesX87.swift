// The x87 escape opcodes D8-DF, MMX operands, and WAIT.

import CX86State

extension Decoder {
    /// The executor decodes the opcode itself; memory operands come as an address.
    mutating func decodeX87(_ opcode: UInt8) {
        // FISTTP came with SSE3.
        if !isRegister, regField == 1, opcode == 0xdb || opcode == 0xdd || opcode == 0xdf, !has(.sse3) {
            return undefined()
        }
        if !isRegister {
            switch (opcode, regField) {
            case (0xd9, 1), (0xdb, 4), (0xdb, 6), (0xdd, 5): return undefined()
            default: break
            }
        }
        let code = UInt64(opcode) | UInt64(modrm) &<< 8 | (operand16 ? 0x100_0000 : 0)
        if isRegister { return emit(Handler.x87, imm: code) }
        if legacy {
            // What waits for pending exceptions does so before the segment is asked; that is asked about the first piece.
            used = unsettledUop
            memory = unsettled
            if !isControl(opcode) { emit(Handler.x87, imm: 0x9b) }
            settleLegacyAddress(asking: true)
        }
        let onStack = memory.isOnStack
        let (byteCount, write) = x87Access(opcode)
        noteAccess(byteCount, write: write)
        emitAddress(0)
        emit(
            Handler.x87, dst: Slot.tmp(0), index: dataSegment,
            scale: onStack ? 0x40 : 0, imm: code)
    }

    /// The segment + 1 whose base is no part of the data pointer; 0: none.
    private var dataSegment: UInt16 {
        if legacy { return UInt16(operandSegment.rawValue &+ 1) }
        return segmentSlot == Slot.zero ? 0 : segmentSlot == Slot.fsBase ? 5 : 6
    }

    /// FNSTENV, FNSTCW, FNSAVE, FNSTSW.
    private func isControl(_ opcode: UInt8) -> Bool {
        opcode == 0xd9 && regField > 5 || opcode == 0xdd && regField > 5
    }

    mutating func decodeWait() { emit(Handler.x87, imm: 0x9b) }

    mutating func decodeMXCSR() {
        guard repeatPrefix == 0, !prefix66 else { return undefined() }
        emitAddressed(regField == 2 ? .ldmxcsr : .stmxcsr)
    }

    // MARK: MMX

    func mmxSlot(_ register: Int) -> UInt16 { Slot.mm0 &+ UInt16(truncatingIfNeeded: (register & 7) &* 8) }

    /// The r/m operand as a slot: an MMX register, or a temporary loaded from 4 or 8 bytes.
    mutating func mmxSource(_ byteCount: Int) -> UInt16 {
        if isRegister { return mmxSlot(rm) }
        emitBeforeOperand(Handler.mmxCheck)
        emitMemory(Handler.load &+ (byteCount == 8 ? 3 : 2), dst: Slot.tmp(0))
        return Slot.tmp(0)
    }

    mutating func emitMMX(_ opcode: UInt8, source: UInt16, imm: UInt64 = 0) {
        let prefix: UInt64 = repeatPrefix == 0xf3 ? 1 : repeatPrefix == 0xf2 ? 2 : 0
        emit(
            Handler.mmx, dst: UInt16(regField), src: source, base: UInt16(rm), scale: UInt8(reg),
            imm: UInt64(opcode) | prefix &<< 8 | imm &<< 16)
    }

    /// A store of an MMX register: it sets TOP to 0 even if it faults, and tags only if it does not.
    mutating func emitMMXStore(_ byteCount: Int) {
        emitBeforeOperand(Handler.mmxCheck, imm: 1)
        emitMemory(Handler.store &+ (byteCount == 8 ? 3 : 2), src: mmxSlot(regField))
        emit(Handler.mmx, imm: 0xe7)
    }
}
