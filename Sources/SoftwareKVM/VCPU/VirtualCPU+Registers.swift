// Register structures of the ABI to and from the processor's state.

import KVMABI
import X86Core
import X86Defs

extension SegmentRegister {
    /// As SVM's set_segment does: the bits as given, P only for usable segments.
    init(_ segment: KVMSegment) {
        let isPresent = segment.present & 1 != 0 && segment.unusable == 0
        var attributes = UInt16(segment.type & 15)
        attributes |= UInt16(segment.s & 1) << 4
        attributes |= UInt16(segment.dpl & 3) << 5
        attributes |= isPresent ? 1 << 7 : 0
        attributes |= UInt16(segment.avl & 1) << 8
        attributes |= UInt16(segment.l & 1) << 9
        attributes |= UInt16(segment.db & 1) << 10
        attributes |= UInt16(segment.g & 1) << 11
        self.init(selector: segment.selector, attributes: attributes, limit: segment.limit, base: segment.base)
    }

    /// As SVM's get_segment shows it: granularity is what the limit says.
    var kvm: KVMSegment {
        var segment = KVMSegment(selector: selector, attributes: attributes, limit: limit, base: base)
        segment.g = limit > 0xf_ffff ? 1 : 0
        return segment
    }

    /// Data segments were accessed, if they can be.
    var kvmData: KVMSegment {
        var segment = kvm
        if segment.unusable == 0 { segment.type |= 1 }
        return segment
    }
}

extension KVMSpecialRegisters2 {
    init(_ old: KVMSpecialRegisters) {
        self.init()
        (cs, ds, es, fs, gs, ss, tr, ldt) = (old.cs, old.ds, old.es, old.fs, old.gs, old.ss, old.tr, old.ldt)
        (gdt, idt) = (old.gdt, old.idt)
        (cr0, cr2, cr3, cr4, cr8) = (old.cr0, old.cr2, old.cr3, old.cr4, old.cr8)
        (efer, apicBase) = (old.efer, old.apicBase)
    }
}

extension KVMSpecialRegisters {
    init(_ new: KVMSpecialRegisters2) {
        self.init()
        (cs, ds, es, fs, gs, ss, tr, ldt) = (new.cs, new.ds, new.es, new.fs, new.gs, new.ss, new.tr, new.ldt)
        (gdt, idt) = (new.gdt, new.idt)
        (cr0, cr2, cr3, cr4, cr8) = (new.cr0, new.cr2, new.cr3, new.cr4, new.cr8)
        (efer, apicBase) = (new.efer, new.apicBase)
    }
}

extension VirtualCPU {
    // MARK: KVM_GET_REGS, KVM_SET_REGS

    var registers: KVMRegisters {
        get {
            let state = state
            var value = KVMRegisters()
            value.rax = state.generalRegisters[0]
            value.rcx = state.generalRegisters[1]
            value.rdx = state.generalRegisters[2]
            value.rbx = state.generalRegisters[3]
            value.rsp = state.generalRegisters[4]
            value.rbp = state.generalRegisters[5]
            value.rsi = state.generalRegisters[6]
            value.rdi = state.generalRegisters[7]
            value.r8 = state.generalRegisters[8]
            value.r9 = state.generalRegisters[9]
            value.r10 = state.generalRegisters[10]
            value.r11 = state.generalRegisters[11]
            value.r12 = state.generalRegisters[12]
            value.r13 = state.generalRegisters[13]
            value.r14 = state.generalRegisters[14]
            value.r15 = state.generalRegisters[15]
            value.rip = state.rip
            value.rflags = state.rflags
            return value
        }
        set {
            var state = state
            state.generalRegisters[0] = newValue.rax
            state.generalRegisters[1] = newValue.rcx
            state.generalRegisters[2] = newValue.rdx
            state.generalRegisters[3] = newValue.rbx
            state.generalRegisters[4] = newValue.rsp
            state.generalRegisters[5] = newValue.rbp
            state.generalRegisters[6] = newValue.rsi
            state.generalRegisters[7] = newValue.rdi
            state.generalRegisters[8] = newValue.r8
            state.generalRegisters[9] = newValue.r9
            state.generalRegisters[10] = newValue.r10
            state.generalRegisters[11] = newValue.r11
            state.generalRegisters[12] = newValue.r12
            state.generalRegisters[13] = newValue.r13
            state.generalRegisters[14] = newValue.r14
            state.generalRegisters[15] = newValue.r15
            state.rip = newValue.rip
            state.rflags = newValue.rflags | 2
            self.state = state
            if exceptionRecord.isPending { queuedException = nil }
            exceptionRecord.isPending = false
        }
    }

    // MARK: KVM_GET_SREGS, KVM_SET_SREGS

    var specialRegisters: KVMSpecialRegisters {
        let state = state
        var value = KVMSpecialRegisters()
        value.cs = state.cs.kvm
        value.ds = state.ds.kvmData
        value.es = state.es.kvmData
        value.fs = state.fs.kvmData
        value.gs = state.gs.kvmData
        value.ss = state.ss.kvm
        if value.ss.unusable != 0 { value.ss.db = 0 }
        value.tr = state.tr.kvm
        // A task register is busy.
        value.tr.type |= 2
        value.ldt = state.ldtr.kvm
        value.gdt = KVMDescriptorTable(base: state.gdtr.base, limit: state.gdtr.limit)
        value.idt = KVMDescriptorTable(base: state.idtr.base, limit: state.idtr.limit)
        value.cr0 = state.cr0
        value.cr2 = state.cr2
        value.cr3 = state.cr3
        value.cr4 = state.cr4
        value.cr8 = taskPriority
        value.efer = state.efer
        value.apicBase = apicBase
        if let queuedVector, !queuedVectorIsSoft {
            value.interruptBitmap[Int(queuedVector >> 6)] = 1 << UInt64(queuedVector & 63)
        }
        return value
    }

    func setSpecialRegisters(_ value: KVMSpecialRegisters) throws(Errno) {
        guard areValid(value), setAPICBase(value.apicBase, hostInitiated: true) else { throw .EINVAL }
        var state = state
        state.cs = SegmentRegister(value.cs)
        state.ds = SegmentRegister(value.ds)
        state.es = SegmentRegister(value.es)
        state.fs = SegmentRegister(value.fs)
        state.gs = SegmentRegister(value.gs)
        state.ss = SegmentRegister(value.ss)
        state.tr = SegmentRegister(value.tr)
        state.ldtr = SegmentRegister(value.ldt)
        state.gdtr = DescriptorTableRegister(base: value.gdt.base, limit: value.gdt.limit)
        state.idtr = DescriptorTableRegister(base: value.idt.base, limit: value.idt.limit)
        state.cr0 = value.cr0 | 0x10
        state.cr2 = value.cr2
        state.cr3 = value.cr3
        state.cr4 = value.cr4
        state.efer = value.efer
        self.state = state
        // One with reserved bits is ignored [KVM kvm_set_cr8].
        if value.cr8 & ~15 == 0 { taskPriority = value.cr8 }
        if let word = (0..<4).first(where: { value.interruptBitmap[$0] != 0 }) {
            queue(vector: UInt8(truncatingIfNeeded: word * 64 + value.interruptBitmap[word].trailingZeroBitCount))
        }
    }

    /// Combinations that no processor can be in [APM2 14.1; KVM kvm_is_valid_sregs].
    private func areValid(_ value: KVMSpecialRegisters) -> Bool {
        let paging = value.cr0 & 0x8000_0000 != 0
        if value.efer & 0x100 != 0 && paging {
            // Long mode: PAE, LMA, and no reserved bits in CR3. The C-bit is not reserved once CPUID shows encryption.
            if value.cr4 & 0x20 == 0 || value.efer & 0x400 == 0 { return false }
            var reserved = ~((UInt64(1) << UInt64(vm.kernel.configuration.profile.physicalAddressBits)) - 1)
            if vm.type != .plain || vm.sev != nil, let entry = cpuidEntry(0x8000_001f, 0) {
                reserved &= ~(1 << UInt64(entry.ebx & 63))
            }
            if value.cr3 & reserved != 0 { return false }
        } else if value.efer & 0x400 != 0 || value.cs.l != 0 {
            return false
        }
        // VME PVI TSD DE PSE PAE MCE PGE PCE OSFXSR OSXMMEXCPT, and what CPUID announces.
        // A vCPU that has not been told its CPUID may have what the processor has.
        var knownCR4: UInt64 = 0x7ff | announcedCR4
        let features = ProcessorFeatures(possibleCPUID)
        if features.contains(.xsave) { knownCR4 |= CR4.osxsave }
        if features.contains(.fsgsbase) { knownCR4 |= CR4.fsgsbase }
        if value.cr4 & ~knownCR4 != 0 { return false }
        if value.cr0 >> 32 != 0 { return false }
        if value.cr0 & 0x2000_0000 != 0 && value.cr0 & 0x4000_0000 == 0 { return false }
        return !(paging && value.cr0 & 1 == 0)
    }

    /// What the vCPU was told, or could be told.
    private var possibleCPUID: [KVMCPUIDEntry] {
        cpuid.isEmpty ? vm.kernel.configuration.profile.supportedCPUID : cpuid
    }

    /// The later CR4 bits that this vCPU's CPUID announces.
    var announcedCR4: UInt64 {
        let cpuid = possibleCPUID
        func leaf(_ function: UInt32) -> KVMCPUIDEntry? { cpuid.first { $0.function == function && $0.index == 0 } }
        var bits: UInt64 = 0
        if let leaf = leaf(7) {
            if leaf.ebx & 1 << 7 != 0 { bits |= CR4.smep }
            if leaf.ebx & 1 << 20 != 0 { bits |= CR4.smap }
            if leaf.ecx & 1 << 2 != 0 { bits |= CR4.umip }
            if leaf.ecx & 1 << 16 != 0 { bits |= CR4.la57 }
            if leaf.ecx & 1 << 3 != 0 { bits |= CR4.pke }
        }
        if let leaf = leaf(1), leaf.ecx & 1 << 17 != 0 { bits |= CR4.pcide }
        return bits
    }

    // MARK: XCRs

    func setXCRs(_ value: KVMXCRs) throws(Errno) {
        try requireReachableState()
        if value.count > 16 || value.flags != 0 { throw .EINVAL }
        for position in 0..<Int(value.count) where value.xcrs[position].xcr == 0 {
            // Without XSAVE only x87, and SSE with it, can be enabled; AVX only with SSE.
            let xcr0 = value.xcrs[position].value
            guard xcr0 & 1 != 0, xcr0 & ~supportedXCR0 == 0, xcr0 & 6 != 4 else { throw .EINVAL }
            var state = state
            state.xcr0 = xcr0
            self.state = state
            break
        }
    }
}
