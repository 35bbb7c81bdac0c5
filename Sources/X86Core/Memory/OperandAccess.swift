// Memory operands of rare instructions (x87, MXCSR): whole, with alignment checking, through the engine.

import CX86State
import X86Defs

extension Processor {
    /// #AC for a misaligned operand while alignment checking is on.
    func isAligned(_ a: UInt64, _ byteCount: UInt64, at rip: UInt64) -> Bool {
        guard a & (byteCount &- 1) != 0, alignmentChecking, isCanonical(a) else { return true }
        prepareException(17, error: 0, at: rip)
        return false
    }

    /// A #GP for a non-canonical operand is #SS when the address came from RSP or RBP (bit 6 of `scale`).
    func turnIntoStackFault(_ ip: IP) {
        guard ip.pointee.scale & 0x40 != 0, s.pointee.leave == UInt32(X86_LEAVE_EXCEPTION), s.pointee.vector == 13,
            !isCanonical(get(s, ip.pointee.dst))
        else { return }
        s.pointee.vector = 12
    }

    func loadOperand<T: Word>(_ a: UInt64, as type: T.Type = T.self, at rip: UInt64) -> T? {
        guard isAligned(a, UInt64(MemoryLayout<T>.size), at: rip) else { return nil }
        return read(a, user: userMode, at: rip)
    }

    func storeOperand<T: Word>(_ a: UInt64, _ value: T, at rip: UInt64) -> Bool {
        guard isAligned(a, UInt64(MemoryLayout<T>.size), at: rip) else { return false }
        return write(a, value, user: userMode, at: rip)
    }

    // MARK: MXCSR

    func loadMXCSR(_ ip: IP, at rip: UInt64) -> Bool {
        guard mayUseSSE(at: rip) else { return false }
        guard let value: UInt32 = loadOperand(get(s, ip.pointee.dst), at: rip) else { return false }
        guard value & ~mxcsrMask == 0 else {
            prepareException(13, error: 0, at: rip)
            return false
        }
        s.pointee.mxcsr = value
        return true
    }

    func storeMXCSR(_ ip: IP, at rip: UInt64) -> Bool {
        guard mayUseSSE(at: rip) else { return false }
        return storeOperand(get(s, ip.pointee.dst), s.pointee.mxcsr, at: rip)
    }

    /// CR0.EM = 0 and CR4.OSFXSR = 1, else #UD; CR0.TS = 0, else #NM.
    func mayUseSSE(at rip: UInt64) -> Bool {
        if s.pointee.cr0 & CR0.em != 0 || s.pointee.cr4 & CR4.osfxsr == 0 {
            prepareException(6, at: rip)
            return false
        }
        if s.pointee.cr0 & CR0.ts != 0 {
            prepareException(7, at: rip)
            return false
        }
        return true
    }
}
