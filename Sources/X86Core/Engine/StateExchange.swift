// The processor's state as a value (`ProcessorState`), in and out.

import CX86State
import X86Defs

extension Processor {
    /// The whole architectural state. Setting it flushes the TLB and drops pending events.
    public var state: ProcessorState {
        get {
            var v = ProcessorState()
            let c = s.pointee
            for i in 0..<16 { v.generalRegisters[i] = get(s, Slot.gpr(i)) }
            v.rip = instructionPointer(c.rip)
            v.rflags = composeFlags(s)
            func segment(_ x: x86_segment) -> SegmentRegister {
                SegmentRegister(selector: x.selector, attributes: x.attributes, limit: x.limit, base: x.base)
            }
            v.cs = segment(c.cs)
            v.ds = segment(c.ds)
            v.es = segment(c.es)
            v.ss = segment(c.ss)
            v.fs = segment(c.fs_seg)
            v.gs = segment(c.gs_seg)
            v.fs.base = c.fs_base
            v.gs.base = c.gs_base
            v.ldtr = segment(c.ldtr)
            v.tr = segment(c.tr)
            v.gdtr = DescriptorTableRegister(base: c.gdt_base, limit: c.gdt_limit)
            v.idtr = DescriptorTableRegister(base: c.idt_base, limit: c.idt_limit)
            (v.cr0, v.cr2, v.cr3, v.cr4, v.cr8) = (c.cr0, c.cr2, c.cr3, c.cr4, c.cr8)
            (v.efer, v.xcr0, v.xss, v.pkru) = (c.efer, c.xcr0, c.xss, c.pkru)
            (v.dr0, v.dr1, v.dr2, v.dr3, v.dr6, v.dr7) = (c.dr.0, c.dr.1, c.dr.2, c.dr.3, c.dr.6, c.dr.7)
            (v.star, v.lstar, v.cstar, v.sfmask) = (c.star, c.lstar, c.cstar, c.sfmask)
            (v.kernelGSBase, v.tscAux) = (c.kernel_gs_base, c.tsc_aux)
            (v.sysenterCS, v.sysenterESP, v.sysenterEIP, v.pat) = (c.sysenter_cs, c.sysenter_esp, c.sysenter_eip, c.pat)
            (v.fcw, v.fsw, v.ftw, v.fop, v.fip, v.fdp, v.mxcsr) = (c.fcw, c.fsw, c.ftw, c.fop, c.fip, c.fdp, c.mxcsr)
            let top = Int(c.fsw &>> 11) & 7
            for i in 0..<8 {
                v.x87Significand[i] = mantissa((top &+ i) & 7)
                v.x87Exponent[i] = exponent((top &+ i) & 7)
            }
            withUnsafeBytes(of: c.xmm) { x in
                for i in 0..<32 { v.xmm[i] = x.load(fromByteOffset: i &* 8, as: UInt64.self) }
            }
            withUnsafeBytes(of: c.ymmh) { x in
                for i in 0..<32 { v.ymmUpper[i] = x.load(fromByteOffset: i &* 8, as: UInt64.self) }
            }
            return v
        }
        set {
            loadState(newValue)
            flushTLB()
        }
    }

    /// As setting ``state``; with `keepingTranslations` the TLB stays: whoever says so has changed no page table, no CR0,
    /// CR3, CR4 and no EFER since the last run.
    public func setState(_ value: ProcessorState, keepingTranslations: Bool) {
        if keepingTranslations { loadState(value) } else { state = value }
    }

    private func loadState(_ v: ProcessorState) {
        for i in 0..<16 { put(s, Slot.gpr(i), v.generalRegisters[i]) }
        s.pointee.system_flags =
            v.rflags
            & (RFLAGS.tf | RFLAGS.if | RFLAGS.df | RFLAGS.iopl | RFLAGS.nt | RFLAGS.ac | RFLAGS.id | RFLAGS.rf)
        spreadArithmeticFlags(s, v.rflags)
        func segment(_ x: SegmentRegister) -> x86_segment {
            x86_segment(base: x.base, limit: x.limit, selector: x.selector, attributes: x.attributes)
        }
        s.pointee.cs = segment(v.cs)
        s.pointee.ds = segment(v.ds)
        s.pointee.es = segment(v.es)
        s.pointee.ss = segment(v.ss)
        s.pointee.fs_seg = segment(v.fs)
        s.pointee.gs_seg = segment(v.gs)
        s.pointee.fs_base = v.fs.base
        s.pointee.gs_base = v.gs.base
        s.pointee.ldtr = segment(v.ldtr)
        s.pointee.tr = segment(v.tr)
        s.pointee.gdt_base = v.gdtr.base
        s.pointee.gdt_limit = v.gdtr.limit
        s.pointee.idt_base = v.idtr.base
        s.pointee.idt_limit = v.idtr.limit
        s.pointee.cpl = v.cr0 & CR0.pe != 0 ? UInt32(v.cs.selector & 3) : 0
        (s.pointee.cr0, s.pointee.cr2, s.pointee.cr3, s.pointee.cr4) = (v.cr0, v.cr2, v.cr3, v.cr4)
        s.pointee.cr8 = v.cr8 & 15
        (s.pointee.efer, s.pointee.xcr0, s.pointee.xss, s.pointee.pkru) = (v.efer, v.xcr0, v.xss, v.pkru)
        s.pointee.dr = (v.dr0, v.dr1, v.dr2, v.dr3, 0, 0, v.dr6, v.dr7)
        (s.pointee.star, s.pointee.lstar, s.pointee.cstar, s.pointee.sfmask) = (v.star, v.lstar, v.cstar, v.sfmask)
        (s.pointee.kernel_gs_base, s.pointee.tsc_aux) = (v.kernelGSBase, v.tscAux)
        (s.pointee.sysenter_cs, s.pointee.sysenter_esp) = (v.sysenterCS, v.sysenterESP)
        (s.pointee.sysenter_eip, s.pointee.pat) = (v.sysenterEIP, v.pat)
        (s.pointee.fcw, s.pointee.fsw, s.pointee.ftw, s.pointee.fop) = (v.fcw, v.fsw, v.ftw, v.fop)
        (s.pointee.fip, s.pointee.fdp, s.pointee.mxcsr) = (v.fip, v.fdp, v.mxcsr)
        let top = Int(v.fsw &>> 11) & 7
        for i in 0..<8 { setST((top &+ i) & 7, v.x87Significand[i], v.x87Exponent[i]) }
        withUnsafeMutableBytes(of: &s.pointee.xmm) { x in
            for i in 0..<32 { x.storeBytes(of: v.xmm[i], toByteOffset: i &* 8, as: UInt64.self) }
        }
        canonicalShift = isLongModeActive && v.cr4 & CR4.la57 != 0 ? 7 : 16
        updateContext()
        s.pointee.rip = linearInstruction(v.rip)
        pendingDebug = 0
        updateBreakpoints()
        withUnsafeMutableBytes(of: &s.pointee.ymmh) { x in
            for i in 0..<32 { x.storeBytes(of: v.ymmUpper[i], toByteOffset: i &* 8, as: UInt64.self) }
        }
        s.pointee.shadow = 0
        injected = nil
        completedIO = nil
        completedMMIO = []
        answeredReads = []
        laterMMIOWrites = []
        trapBehindExit = false
    }
}
