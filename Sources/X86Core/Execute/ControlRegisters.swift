// Control and debug registers: what a write to them means [APM2 3.1, 13.1.1].

import CX86State
import X86Defs

extension Processor {
    func debugRegister(_ n: Int) -> UInt64 {
        withUnsafeBytes(of: s.pointee.dr) { $0.load(fromByteOffset: (n & 7) &* 8, as: UInt64.self) }
    }
    func setDebugRegister(_ n: Int, _ value: UInt64) {
        withUnsafeMutableBytes(of: &s.pointee.dr) {
            $0.storeBytes(of: value, toByteOffset: (n & 7) &* 8, as: UInt64.self)
        }
    }

    func writeControlRegister(_ n: Int, _ value: UInt64, at rip: UInt64, next: UInt64) -> Bool {
        func gp() -> Bool {
            prepareException(13, error: 0, at: rip)
            return false
        }
        switch n {
        case 0:
            guard value &>> 32 == 0 else { return gp() }
            if value & CR0.pg != 0 && value & CR0.pe == 0 || value & CR0.nw != 0 && value & CR0.cd == 0 { return gp() }
            let old = s.pointee.cr0
            if (old ^ value) & CR0.pg != 0 {
                if value & CR0.pg == 0 {
                    // Long mode is left from compatibility mode only, and with process contexts switched off.
                    if is64BitCode || s.pointee.cr4 & CR4.pcide != 0 { return gp() }
                    s.pointee.efer &= ~EFER.lma
                } else if s.pointee.efer & EFER.lme != 0 {
                    // Long mode needs PAE, and a code segment that is not already marked for it [APM2 14.6.1].
                    if s.pointee.cr4 & CR4.pae == 0 || s.pointee.cs.attributes & 0x200 != 0 { return gp() }
                    s.pointee.efer |= EFER.lma
                }
            }
            s.pointee.cr0 = value & 0xe005_003f | CR0.et
            if value & CR0.pe == 0 { s.pointee.cpl = 0 }
            if (old ^ value) & (CR0.pg | CR0.wp | CR0.pe) != 0 { flushLinearTranslations() }
            updateContext()
        case 2: s.pointee.cr2 = value
        case 3:
            guard value & ~(physicalMask | cBitMask | 0xfff) == 0 else { return gp() }
            s.pointee.cr3 = value
            flushLinearTranslations()
        case 4:
            let known =
                CR4.vme | CR4.pvi | CR4.tsd | CR4.de | CR4.pse | CR4.pae | CR4.mce | CR4.pge | CR4.pce | CR4.osfxsr
                | CR4.osxmmexcpt
            guard value & ~known == 0, value & CR4.pae != 0 || s.pointee.efer & EFER.lma == 0 else { return gp() }
            let old = s.pointee.cr4
            s.pointee.cr4 = value
            if (old ^ value) & (CR4.pge | CR4.pae | CR4.pse) != 0 { flushLinearTranslations() }
        case 8:
            guard value &>> 4 == 0 else { return gp() }
            s.pointee.cr8 = value
            prepareExit(.cr8Write, at: next)
            return false
        default:
            prepareException(6, at: rip)
            return false
        }
        continueAt(next, check: false)
        return false
    }
}
