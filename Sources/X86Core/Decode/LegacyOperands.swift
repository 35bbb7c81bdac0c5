// Memory operands and the stack outside 64-bit mode.
//
// An effective address is cut to the address size and its segment is asked, by one uop in front of the access that leaves
// the linear address in a temporary: LEA for a flat segment, the checking uop for any other. What the check must know of
// the access (bytes, direction) is filled in when the access itself is emitted.

import CX86State

extension Decoder {
    /// How the engine is told the address size: 0 for 64 bits, 4, or 2.
    var addressCode: UInt16 { address16 ? 2 : address32 ? 4 : 0 }
    /// The segment of a string instruction's source, for the engine: encoding + 1, or 0 in 64-bit mode.
    var sourceSegmentCode: UInt16 {
        legacy ? UInt16((segmentOverride ?? .ds).rawValue &+ 1) : 0
    }

    /// The eight 16-bit address forms [APM3 A.3.1].
    mutating func readModRM16(mod: UInt8, low: UInt8) {
        let bx = Slot.gpr(3), bp = Slot.rbp, si = Slot.gpr(6), di = Slot.gpr(7)
        switch low {
        case 0: (memory.base, memory.index) = (bx, si)
        case 1: (memory.base, memory.index) = (bx, di)
        case 2: (memory.base, memory.index) = (bp, si)
        case 3: (memory.base, memory.index) = (bp, di)
        case 4: memory.base = si
        case 5: memory.base = di
        case 6 where mod == 0: memory.disp = Int32(u16())
        case 6: memory.base = bp
        default: memory.base = bx
        }
        if mod == 1 { memory.disp = Int32(truncatingIfNeeded: i8()) }
        if mod == 2 { memory.disp = Int32(Int16(bitPattern: u16())) }
        settleAddress()
    }

    /// Replaces the operand by its linear address in the last temporary.
    /// `asking`: even a flat segment is asked, over whose end at 4 GiB the operand may run.
    mutating func settleLegacyAddress(asking: Bool = false) {
        unsettled = memory
        unsettledUop = used
        let segment = segmentOverride ?? (memory.base == Slot.rsp || memory.base == Slot.rbp ? .ss : .ds)
        operandSegment = segment
        pendingCheck = -1
        if !asking && !address16 && context.isFlat(segment) {
            emitMemory(Handler.lea &+ 1, dst: Slot.tmp(3))
        } else {
            let check = used
            emitMemory(
                Handler.checkedAddress, dst: Slot.tmp(3),
                imm: SegmentCheck.pack(segment, byteCount: 1, write: false, mask: addressMask))
            pendingCheck = check
        }
        memory = MemoryOperand()
        memory.base = Slot.tmp(3)
        if segment == .ss { memory.scale = 0x40 }
    }

    /// Asks a flat segment too, right behind ModRM.
    mutating func askSegment() {
        guard legacy, !isRegister, pendingCheck < 0, used == unsettledUop &+ 1 else { return }
        used = unsettledUop
        memory = unsettled
        settleLegacyAddress(asking: true)
    }

    /// A uop that looks at something before the segment is asked about the operand.
    mutating func emitBeforeOperand(_ handler: Int, imm: UInt64 = 0) {
        guard legacy, !isRegister else { return emit(handler, imm: imm) }
        used = unsettledUop
        memory = unsettled
        emit(handler, imm: imm)
        settleLegacyAddress()
    }

    var addressMask: UInt64 { address16 ? 0xffff : 0xffff_ffff }

    /// Takes ``settleLegacyAddress()`` back: for LEA, and where something is added to the offset first.
    mutating func unsettle() {
        used = unsettledUop
        memory = unsettled
        pendingCheck = -1
    }

    /// The pending check is about so many bytes.
    mutating func noteAccess(_ byteCount: Int, write: Bool) {
        guard pendingCheck >= 0 else { return }
        let imm = out[pendingCheck].imm
        let extra = max(SegmentCheck.extra(imm), UInt64(byteCount &- 1))
        out[pendingCheck].imm = imm & ~(0x7f_ffff &<< 8) | extra &<< 8 | (write ? 1 &<< 31 : 0)
    }

    /// Bytes and direction of a memory uop.
    static func access(ofHandler h: Int) -> (Int, Bool) {
        func width(_ first: Int, _ perSize: Int = 1) -> Int { 1 &<< ((h &- first) / perSize & 3) }
        switch h {
        case Handler.aluRM..<Handler.aluMR: return (width(Handler.aluRM, 2), false)
        case Handler.aluMR..<Handler.aluMI: return (width(Handler.aluMR, 2), (h &- Handler.aluMR) / 8 != 7)
        case Handler.aluMI..<Handler.testRR: return (width(Handler.aluMI, 2), (h &- Handler.aluMI) / 8 != 7)
        case Handler.testMR..<Handler.testMI: return (width(Handler.testMR), false)
        case Handler.testMI..<Handler.unaryR: return (width(Handler.testMI), false)
        case Handler.unaryM..<Handler.movRR: return (width(Handler.unaryM), true)
        case Handler.load..<Handler.loadForWrite: return (width(Handler.load), false)
        case Handler.loadForWrite..<Handler.store: return (width(Handler.loadForWrite), true)
        case Handler.store..<Handler.storeImmediate: return (width(Handler.store), true)
        case Handler.storeImmediate..<Handler.extendR: return (width(Handler.storeImmediate), true)
        case Handler.extendM..<Handler.lea: return (1 &<< ((h &- Handler.extendM) / 6), false)
        case Handler.xchgM..<Handler.cmpxchgM: return (width(Handler.xchgM), true)
        case Handler.cmpxchgM..<Handler.cmpxchgR: return (width(Handler.cmpxchgM), true)
        case Handler.xaddM..<Handler.cmov: return (width(Handler.xaddM), true)
        case Handler.setccM..<Handler.shiftRI: return (1, true)
        case Handler.vectorLoad..<Handler.vectorStore:
            return ([4, 8, 16, 16, 16, 1, 2][min(h &- Handler.vectorLoad, 6)], false)
        case Handler.vectorStore..<Handler.vexLoad: return ([4, 8, 16, 16][(h &- Handler.vectorStore) & 3], true)
        case Handler.vexLoad..<Handler.vexStore:
            return ([1, 2, 4, 8, 16, 16, 32, 32][(h &- Handler.vexLoad) & 7], false)
        case Handler.vexStore..<Handler.simd: return ([1, 2, 4, 8, 16, 16, 32, 32][(h &- Handler.vexStore) & 7], true)
        case Handler.lockedALU..<Handler.lockedBit: return (width(Handler.lockedALU), true)
        case Handler.lockedBit..<Handler.fence: return (2 &<< ((h &- Handler.lockedBit) / 2 % 3), true)
        default: return (1, false)
        }
    }

    /// The same for instructions that the engine performs at an address.
    func access(of op: SystemOperation) -> (Int, Bool) {
        switch op {
        case .fxsave: return (512, true)
        case .fxrstor: return (512, false)
        case .cmpxchg8b: return (8, true)
        case .cmpxchg16b: return (16, true)
        case .ldmxcsr: return (4, false)
        case .stmxcsr: return (4, true)
        case .lgdt, .lidt: return (legacy ? 6 : 10, false)
        case .sgdt, .sidt: return (legacy ? 6 : 10, true)
        case .bound: return (operand16 ? 2 : 4, false)  // The first bound.
        case .loadFarPointer, .farIndirect: return (operand16 ? 2 : 4, false)  // The offset.
        default: return (1, false)
        }
    }

    /// Bytes and direction of an x87 memory operand, or of its first piece.
    func x87Access(_ opcode: UInt8) -> (Int, Bool) {
        let op = regField
        switch opcode {
        case 0xd8, 0xda: return (4, false)
        case 0xdc: return (8, false)
        case 0xde: return (2, false)
        case 0xd9:
            switch op {
            case 0: return (4, false)
            case 2, 3: return (4, true)
            case 4: return (operand16 ? 2 : 4, false)
            case 5: return (2, false)
            case 6: return (operand16 ? 2 : 4, true)
            default: return (2, true)
            }
        case 0xdb: return op == 5 ? (8, false) : op == 7 ? (8, true) : (4, op != 0)
        case 0xdd:
            switch op {
            case 0: return (8, false)
            case 1, 2, 3: return (8, true)
            case 4: return (operand16 ? 2 : 4, false)
            case 6: return (operand16 ? 2 : 4, true)
            default: return (2, true)
            }
        default:
            switch op {
            case 0: return (2, false)
            case 1, 2, 3: return (2, true)
            case 4: return (8, false)
            case 5: return (8, false)
            case 6: return (8, true)
            default: return (8, true)
            }
        }
    }

    // MARK: The stack

    /// Temporary 2 = linear address of the stack at base (RSP if not told otherwise) + disp.
    mutating func emitStackAddress(_ disp: Int32, _ byteCount: Int, write: Bool, base: UInt16 = Slot.rsp) {
        if !context.stack16 && context.isFlat(.ss) {
            emit(Handler.lea &+ 1, dst: Slot.tmp(2), base: base, index: Slot.zero, disp: disp)
        } else {
            emit(
                Handler.checkedAddress, dst: Slot.tmp(2), base: base, index: Slot.zero, disp: disp,
                imm: SegmentCheck.pack(
                    .ss, byteCount: byteCount, write: write, mask: context.stack16 ? 0xffff : 0xffff_ffff))
        }
    }

    mutating func emitStackAdjust(_ amount: Int) {
        emit(
            Handler.aluRI &+ (context.stack16 ? 1 : 2) &* 2 &+ 1, dst: Slot.rsp,
            imm: UInt64(bitPattern: Int64(amount)))
    }

    /// PUSH of a slot in the current operand size.
    mutating func emitPush(_ source: UInt16) {
        guard legacy else { return emit(Handler.push &+ (operand16 ? 0 : 1), src: source) }
        let size = stackSize, byteCount = 1 &<< size
        emitStackAddress(Int32(-byteCount), byteCount, write: true)
        emit(Handler.store &+ size, src: source, base: Slot.tmp(2), index: Slot.zero, scale: 0x40)
        emitStackAdjust(-byteCount)
    }

    mutating func emitPushImmediate(_ value: UInt64) {
        guard legacy else { return emit(Handler.pushI &+ (operand16 ? 0 : 1), imm: value) }
        let size = stackSize, byteCount = 1 &<< size
        emitStackAddress(Int32(-byteCount), byteCount, write: true)
        emit(Handler.storeImmediate &+ size, base: Slot.tmp(2), index: Slot.zero, scale: 0x40, imm: value)
        emitStackAdjust(-byteCount)
    }

    /// Loads the top of the stack into temporary 0, zero-extended, without moving the stack pointer.
    mutating func emitPeek() {
        let size = stackSize, byteCount = 1 &<< size
        emitStackAddress(0, byteCount, write: false)
        let h = size == 1 ? Handler.extendM &+ (1 &* 3 &+ 2) &* 2 : Handler.load &+ size
        emit(h, dst: Slot.tmp(0), base: Slot.tmp(2), index: Slot.zero, scale: 0x40)
    }

    mutating func emitPop(_ destination: UInt16) {
        guard legacy else { return emit(Handler.pop &+ (operand16 ? 0 : 1), dst: destination) }
        emitPeek()
        emitStackAdjust(1 &<< stackSize)
        emit(Handler.movRR &+ stackSize, dst: destination, src: Slot.tmp(0))
    }
}
