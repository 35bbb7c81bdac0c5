// The XSAVE family, XGETBV and XSETBV, FSGSBASE, RDPID, RDTSCP and CLZERO: which forms exist.

import CX86State

extension Decoder {
    private mutating func emitExtended(
        _ op: ExtendedOperation, dst: UInt16 = 0, scale: UInt8 = 0, imm: UInt64 = 0, ends: Bool = false
    ) {
        emit(Handler.extended, dst: dst, src: op.rawValue, scale: scale, imm: imm)
        if ends { ended = true }
    }

    private mutating func emitArea(_ op: ExtendedOperation) {
        guard repeatPrefix == 0, !prefix66 else { return undefined() }
        let onStack = memory.isOnStack
        noteAccess(1, write: op != .xrstor && op != .xrstors)
        emitAddress(0)
        emitExtended(op, dst: Slot.tmp(0), scale: onStack ? 0x40 : 0, imm: rex &>> 3 == 0 ? 0 : 1)
    }

    /// 0F AE with memory, /4 to /6.
    mutating func decodeExtendedState() {
        let needed: ProcessorFeatures = regField == 6 ? [.xsave, .xsaveopt] : .xsave
        guard regField >= 4, regField <= 6, has(needed) else { return undefined() }
        emitArea(regField == 4 ? .xsave : regField == 5 ? .xrstor : .xsaveopt)
    }

    /// 0F C7 with memory, /3 to /5.
    mutating func decodeExtendedGroup9() {
        guard has(.xsave), has(regField == 4 ? .xsavec : .xsaves) else { return undefined() }
        emitArea(regField == 3 ? .xrstors : regField == 4 ? .xsavec : .xsaves)
    }

    /// 0F 01 D0, D1, F9, FC.
    mutating func decodeExtendedGroup7() {
        switch modrm {
        case 0xd0 where has(.xsave) && repeatPrefix == 0 && !prefix66: emitExtended(.xgetbv)
        case 0xd1 where has(.xsave) && repeatPrefix == 0 && !prefix66: emitExtended(.xsetbv, ends: true)
        case 0xf9 where has(.rdtscp): emitSystem(.rdtscp)
        case 0xfc where has(.clzero):
            memory = MemoryOperand()
            memory.base = Slot.gpr(0)
            if legacy {
                settleLegacyAddress()
                noteAccess(1, write: true)
                emitAddress(0)
            } else {
                emitMemory(Handler.segmentAddress &+ (address32 ? 1 : 0), dst: Slot.tmp(0), src: segmentSlot)
            }
            emitExtended(.clzero, dst: Slot.tmp(0))
        default: undefined()
        }
    }

    /// F3 0F AE /0 to /3: RDFSBASE, RDGSBASE, WRFSBASE, WRGSBASE.
    mutating func decodeSegmentBase() {
        guard has(.fsgsbase), !legacy, !prefix66 || has(.amdOrder) else { return undefined() }
        let op: ExtendedOperation = regField < 2 ? .readBase : .writeBase
        emitExtended(op, dst: Slot.gpr(rm), scale: rex & 8 != 0 ? 8 : 4, imm: UInt64(regField & 1))
    }

    /// F3 0F C7 /7.
    mutating func decodeReadProcessorID() {
        guard has(.rdpid) else { return undefined() }
        emitExtended(.rdpid, dst: Slot.gpr(rm))
    }
}
