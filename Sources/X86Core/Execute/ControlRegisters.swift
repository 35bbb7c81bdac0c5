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
            if value & CR0.pg != 0, (old ^ value) & CR0.pg != 0 {
                guard let good = pointersAreGood(s.pointee.cr3, cr0: value, cr4: s.pointee.cr4, at: rip) else {
                    return false
                }
                if !good {
                    if s.pointee.efer & EFER.lma != 0 { s.pointee.efer &= ~EFER.lma }
                    return gp()
                }
            }
            s.pointee.cr0 = value & 0xe005_003f | CR0.et
            canonicalShift = isLongModeActive && s.pointee.cr4 & CR4.la57 != 0 ? 7 : 16
            if value & CR0.pe == 0 { s.pointee.cpl = 0 }
            if (old ^ value) & (CR0.pg | CR0.wp | CR0.pe) != 0 { flushLinearTranslations() }
            updateContext()
        case 2: s.pointee.cr2 = value
        case 3:
            // With process contexts bit 63 asks to keep their translations: dropping them is allowed.
            let value = s.pointee.cr4 & CR4.pcide != 0 ? value & ~(1 &<< 63) : value
            guard value & ~(physicalMask | cBitMask | 0xfff) == 0 || !isLongModeActive else { return gp() }
            guard let good = pointersAreGood(value, cr0: s.pointee.cr0, cr4: s.pointee.cr4, at: rip) else {
                return false
            }
            if !good { return gp() }
            s.pointee.cr3 = value
            flushNonglobalTranslations()
        case 4:
            let known =
                CR4.vme | CR4.pvi | CR4.tsd | CR4.de | CR4.pse | CR4.pae | CR4.mce | CR4.pge | CR4.pce | CR4.osfxsr
                | CR4.osxmmexcpt | configuration.announcedCR4
            var mayBeSet = known
            if features.contains(.xsave) { mayBeSet |= CR4.osxsave }
            if features.contains(.fsgsbase) { mayBeSet |= CR4.fsgsbase }
            guard value & ~mayBeSet == 0, value & CR4.pae != 0 || !isLongModeActive else { return gp() }
            let old = s.pointee.cr4
            if (old ^ value) & CR4.la57 != 0, isLongModeActive { return gp() }
            if value & ~old & CR4.pcide != 0, !isLongModeActive || s.pointee.cr3 & 0xfff != 0 { return gp() }
            if (old ^ value) & (CR4.pae | CR4.pse | CR4.pge | CR4.smep) != 0 {
                guard let good = pointersAreGood(s.pointee.cr3, cr0: s.pointee.cr0, cr4: value, at: rip) else {
                    return false
                }
                if !good { return gp() }
            }
            s.pointee.cr4 = value
            let translating =
                CR4.pge | CR4.pae | CR4.pse | CR4.smep | CR4.smap | CR4.pcide | CR4.la57 | CR4.pke
            if (old ^ value) & translating != 0 { flushLinearTranslations() }
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

    /// PAE paging without long mode: the four directory pointers must have no reserved bits [APM2 5.2.3]. nil: the look at
    /// them faulted.
    private func pointersAreGood(_ cr3: UInt64, cr0: UInt64, cr4: UInt64, at rip: UInt64) -> Bool? {
        guard cr0 & CR0.pg != 0, cr4 & CR4.pae != 0, s.pointee.efer & EFER.lme == 0, !isLongModeActive else {
            return true
        }
        for n: UInt64 in 0..<4 {
            guard let p = pageTablePointer((cr3 & 0xffff_ffe0) &+ n &* 8, at: rip) else { return nil }
            let entry = p.load(as: UInt64.self)
            if entry & 1 != 0, entry & (0x1e6 | ~(physicalMask | cBitMask | 0xfff)) != 0 { return false }
        }
        return true
    }

    // MARK: INVPCID, STAC, CLAC, protection keys

    /// INVPCID: `base` is the register with the type, `dst` holds the descriptor's address [APM3 INVPCID].
    func invalidateContext(_ ip: IP, at rip: UInt64, next: UInt64) -> Bool {
        guard s.pointee.cpl == 0 else {
            prepareException(13, error: 0, at: rip)
            return false
        }
        let a: UInt64 = get(s, ip.pointee.dst)
        let kind: UInt64 = is64BitCode ? get(s, ip.pointee.base) : UInt64(get(s, ip.pointee.base, as: UInt32.self))
        guard let context: UInt64 = read(a, user: false, at: rip),
            let address: UInt64 = read((a &+ 8) & s.pointee.rip_mask, user: false, at: rip)
        else { return false }
        let needsContext = kind < 2
        let wrong =
            kind > 3 || context &>> 12 != 0
            || needsContext && context != 0 && s.pointee.cr4 & CR4.pcide == 0 || kind == 0 && !isCanonical(address)
        guard !wrong else {
            prepareException(13, error: 0, at: rip)
            return false
        }
        flushLinearTranslations()
        continueAt(next, check: false)
        return false
    }

    /// STAC and CLAC.
    func setAccessFlag(_ on: Bool, at rip: UInt64) -> Bool {
        guard s.pointee.cpl == 0, configuration.announcedCR4 & CR4.smap != 0 else {
            prepareException(6, at: rip)
            return false
        }
        if on { s.pointee.system_flags |= RFLAGS.ac } else { s.pointee.system_flags &= ~RFLAGS.ac }
        s.pointee.tlb = supervisorTable
        return true
    }

    /// The rights are part of what the TLB remembers.
    func setKeyRights(_ value: UInt32) {
        guard value != s.pointee.pkru else { return }
        s.pointee.pkru = value
        flushLinearTranslations()
    }

    /// RDPKRU and WRPKRU.
    func accessKeyRights(write: Bool, at rip: UInt64) -> Bool {
        guard s.pointee.cr4 & CR4.pke != 0 else {
            prepareException(6, at: rip)
            return false
        }
        let rdx: UInt32 = get(s, Slot.gpr(2)), rcx: UInt32 = get(s, Slot.gpr(1))
        guard rcx == 0, !write || rdx == 0 else {
            prepareException(13, error: 0, at: rip)
            return false
        }
        if write {
            setKeyRights(get(s, 0))
        } else {
            put(s, 0, s.pointee.pkru)
            put(s, Slot.gpr(2), 0 as UInt32)
        }
        return true
    }
}
