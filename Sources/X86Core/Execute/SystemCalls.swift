// SYSCALL, SYSRET, SYSENTER, SYSEXIT [APM3], in every mode that has them.

import CX86State
import X86Defs

extension Processor {
    private func flatCode(_ selector: UInt16, dpl: UInt16, long: Bool) -> x86_segment {
        x86_segment(
            base: 0, limit: 0xffff_ffff, selector: selector, attributes: (long ? 0xa9b : 0xc9b) | dpl &<< 5)
    }

    private func flatStack(_ selector: UInt16, dpl: UInt16) -> x86_segment {
        x86_segment(base: 0, limit: 0xffff_ffff, selector: selector, attributes: 0xc93 | dpl &<< 5)
    }

    /// SYSCALL: 64-bit code enters at LSTAR, compatibility mode at CSTAR, legacy mode at STAR.
    func systemCall(at rip: UInt64, next: UInt64) {
        guard s.pointee.efer & EFER.sce != 0, isProtectedMode else { return prepareException(6, at: rip) }
        let selector = UInt16(truncatingIfNeeded: s.pointee.star &>> 32) & ~3
        let back = instructionPointer(next)
        let target: UInt64
        if isLongModeActive {
            target = is64BitCode ? s.pointee.lstar : s.pointee.cstar
            put(s, Slot.gpr(1), back)
            put(s, Slot.gpr(11), composeFlags(s) & ~RFLAGS.rf)
            setFlags(composeFlags(s) & ~s.pointee.sfmask & ~RFLAGS.rf, cpl: 0)
        } else {
            target = s.pointee.star & 0xffff_ffff
            put(s, Slot.gpr(1), UInt32(truncatingIfNeeded: back))
            s.pointee.system_flags &= ~(RFLAGS.if | RFLAGS.rf | RFLAGS.vm)
        }
        // A masked TF counts from here on; the return that restores it traps.
        if s.pointee.system_flags & RFLAGS.tf == 0 { stepSuppressed = true }
        s.pointee.ss = flatStack(selector &+ 8, dpl: 0)
        enterCode(flatCode(selector, dpl: 0, long: isLongModeActive), cpl: 0)
        continueAt(linearInstruction(target), check: false)
    }

    /// SYSRET; `wide`: to 64-bit code.
    func systemReturn(wide: Bool, at rip: UInt64) {
        guard s.pointee.efer & EFER.sce != 0, isProtectedMode else { return prepareException(6, at: rip) }
        guard s.pointee.cpl == 0 else { return prepareException(13, error: 0, at: rip) }
        let base = UInt16(truncatingIfNeeded: s.pointee.star &>> 48)
        var target: UInt64 = get(s, Slot.gpr(1))
        if isLongModeActive {
            setFlags(get(s, Slot.gpr(11)), cpl: 0)
        } else {
            s.pointee.system_flags |= RFLAGS.if
        }
        if s.pointee.system_flags & RFLAGS.tf != 0 { stepAfterAll = true }
        let long = isLongModeActive && wide
        if !long { target &= 0xffff_ffff }
        // SYSRET changes only the selector of SS; the rest of it was set by SYSCALL or the kernel.
        s.pointee.ss = flatStack((base &+ 8) | 3, dpl: 3)
        enterCode(flatCode((long ? base &+ 16 : base) | 3, dpl: 3, long: long), cpl: 3)
        continueAt(linearInstruction(target), check: true)
    }

    /// SYSENTER: AMD processors have it in legacy protected mode only.
    func systemEnter(at rip: UInt64) {
        guard !isLongModeActive else { return prepareException(6, at: rip) }
        let cs = UInt16(truncatingIfNeeded: s.pointee.sysenter_cs)
        guard isProtectedMode, cs & ~3 != 0 else { return prepareException(13, error: 0, at: rip) }
        s.pointee.system_flags &= ~(RFLAGS.if | RFLAGS.rf | RFLAGS.vm)
        s.pointee.ss = flatStack((cs & ~3) &+ 8, dpl: 0)
        enterCode(flatCode(cs & ~3, dpl: 0, long: false), cpl: 0)
        put(s, Slot.rsp, UInt32(truncatingIfNeeded: s.pointee.sysenter_esp))
        continueAt(linearInstruction(s.pointee.sysenter_eip & 0xffff_ffff), check: false)
    }

    func systemExit(at rip: UInt64) {
        guard !isLongModeActive else { return prepareException(6, at: rip) }
        let cs = UInt16(truncatingIfNeeded: s.pointee.sysenter_cs)
        guard isProtectedMode, cs & ~3 != 0, s.pointee.cpl == 0 else { return prepareException(13, error: 0, at: rip) }
        let esp: UInt32 = get(s, Slot.gpr(1)), eip: UInt32 = get(s, Slot.gpr(2))
        s.pointee.ss = flatStack((cs &+ 24) | 3, dpl: 3)
        enterCode(flatCode((cs &+ 16) | 3, dpl: 3, long: false), cpl: 3)
        put(s, Slot.rsp, esp)
        continueAt(linearInstruction(UInt64(eip)), check: true)
    }
}
