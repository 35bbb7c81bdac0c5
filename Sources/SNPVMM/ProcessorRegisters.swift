// A processor's state, as the calls that give it to a vCPU.
//
// There is no way to hand the kernel a ready VMSA: what these calls cannot express must be refused, or the launch digest
// would not be the one that was measured beforehand.

import KVMABI
import X86Defs

extension KVMRegisters {
    /// The general registers, RIP and RFLAGS of a state.
    public init(_ state: ProcessorState) {
        self.init()
        let general = state.generalRegisters
        rax = general[0]
        rcx = general[1]
        rdx = general[2]
        rbx = general[3]
        rsp = general[4]
        rbp = general[5]
        rsi = general[6]
        rdi = general[7]
        r8 = general[8]
        r9 = general[9]
        r10 = general[10]
        r11 = general[11]
        r12 = general[12]
        r13 = general[13]
        r14 = general[14]
        r15 = general[15]
        rip = state.rip
        rflags = state.rflags
    }
}

extension KVMSpecialRegisters {
    /// EFER.SVME. The kernel sets it in every VMSA by itself, and refuses it from a VMM whose guest has no SVM.
    static let eferSVME: UInt64 = 1 << 12

    /// Puts a state's segments, tables and control registers in place; APIC_BASE and pending interrupts stay.
    public mutating func set(_ state: ProcessorState) {
        func segment(_ register: SegmentRegister) -> KVMSegment {
            KVMSegment(
                selector: register.selector, attributes: register.attributes, limit: register.limit, base: register.base
            )
        }
        cs = segment(state.cs)
        ds = segment(state.ds)
        es = segment(state.es)
        fs = segment(state.fs)
        gs = segment(state.gs)
        ss = segment(state.ss)
        tr = segment(state.tr)
        ldt = segment(state.ldtr)
        gdt = KVMDescriptorTable(base: state.gdtr.base, limit: state.gdtr.limit)
        idt = KVMDescriptorTable(base: state.idtr.base, limit: state.idtr.limit)
        cr0 = state.cr0
        cr2 = state.cr2
        cr3 = state.cr3
        cr4 = state.cr4
        cr8 = state.cr8
        efer = state.efer & ~Self.eferSVME
    }
}

/// The MSRs that a state and the machine need, in one list.
enum ProcessorMSRs {
    /// IA32_MTRR_DEF_TYPE.
    static let mtrrDefaultType: UInt32 = 0x2ff
    /// MTRRs enabled, default write-back. Linux insists on it before its first page-state change.
    static let mtrrEnabledWriteBack: UInt64 = 0x806

    /// HWCR.TscFreqSel: the TSC counts with the P0 frequency. Firmware sets it, and Linux says so when it is clear. Kernels
    /// before 6.8 know no such bit.
    static let timeStampFrequency = KVMMSREntry(index: 0xc001_0015, data: 1 << 24)

    /// - Returns: What the vCPU must have; ``timeStampFrequency`` is no part of it.
    static func list(_ state: ProcessorState) -> [KVMMSREntry] {
        let initial = ProcessorState()
        let registers: [(UInt32, UInt64, UInt64)] = [
            (0x277, state.pat, initial.pat), (0xc000_0081, state.star, initial.star),
            (0xc000_0082, state.lstar, initial.lstar), (0xc000_0083, state.cstar, initial.cstar),
            (0xc000_0084, state.sfmask, initial.sfmask), (0xc000_0102, state.kernelGSBase, initial.kernelGSBase),
            (0xc000_0103, state.tscAux, initial.tscAux), (0x174, state.sysenterCS, initial.sysenterCS),
            (0x175, state.sysenterESP, initial.sysenterESP), (0x176, state.sysenterEIP, initial.sysenterEIP),
            (0xda0, state.xss, initial.xss),
        ]
        // What a fresh vCPU has anyway is not set: a kernel may not offer the MSR at all.
        return [KVMMSREntry(index: mtrrDefaultType, data: mtrrEnabledWriteBack)]
            + registers.filter { $0.1 != $0.2 }.map { KVMMSREntry(index: $0.0, data: $0.1) }
    }
}

extension KVMXSave {
    /// Takes the x87 and SSE part of a state. KVM_SET_FPU would not do: it has no MXCSR.
    mutating func setFPU(_ state: ProcessorState) {
        region[0] = UInt64(state.fcw) | UInt64(state.fsw) << 16 | UInt64(state.ftw) << 32 | UInt64(state.fop) << 48
        region[1] = state.fip
        region[2] = state.fdp
        // Above it the bits that MXCSR may have.
        region[3] = region[3] & ~0xffff_ffff | UInt64(state.mxcsr)
        for register in 0..<8 {
            region[4 + 2 * register] = state.x87Significand[register]
            region[5 + 2 * register] = UInt64(state.x87Exponent[register])
        }
        for quadword in 0..<32 { region[20 + quadword] = state.xmm[quadword] }
        // XSTATE_BV: both are in the area.
        region[64] |= 3
    }
}

extension ProcessorState {
    /// True when x87 and SSE are as the kernel leaves them in a fresh vCPU.
    var hasInitialFPU: Bool {
        var copy = ProcessorState()
        copy.fcw = fcw
        copy.fsw = fsw
        copy.ftw = ftw
        copy.fop = fop
        copy.fip = fip
        copy.fdp = fdp
        copy.mxcsr = mxcsr
        copy.x87Significand = x87Significand
        copy.x87Exponent = x87Exponent
        copy.xmm = xmm
        return copy == ProcessorState()
    }
}
