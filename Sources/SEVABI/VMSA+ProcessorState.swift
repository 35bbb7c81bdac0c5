// A VMSA made from, and loaded into, the state of a processor.

import X86Defs

extension VMSA {
    /// EFER.SVME: set in every VMSA that VMRUN accepts.
    public static let eferSVME: UInt64 = 1 << 12

    /// The save area that holds exactly `processor`.
    ///
    /// Nothing is added: whoever seals a state puts in what its kernel merges (KVM: EFER.SVME and CR4.MCE).
    /// XMM and x87 registers, the upper halves of YMM, MXCSR and the control words come from `processor`.
    /// - Parameter sevFeatures: SEV_FEATURES, bit 0 (SNP active) included.
    public init(processor: ProcessorState, sevFeatures: UInt64, vmpl: UInt8 = 0) {
        self.init()
        setSegment(Self.es, processor.es)
        setSegment(Self.cs, processor.cs)
        setSegment(Self.ss, processor.ss)
        setSegment(Self.ds, processor.ds)
        setSegment(Self.fs, processor.fs)
        setSegment(Self.gs, processor.gs)
        setSegment(Self.ldtr, processor.ldtr)
        setSegment(Self.tr, processor.tr)
        setSegment(Self.gdtr, SegmentRegister(limit: UInt32(processor.gdtr.limit), base: processor.gdtr.base))
        setSegment(Self.idtr, SegmentRegister(limit: UInt32(processor.idtr.limit), base: processor.idtr.base))
        self[Self.vmpl] = vmpl
        // The processor keeps CPL in SS.DPL.
        self[Self.cpl] = UInt8(truncatingIfNeeded: processor.ss.attributes &>> 5) & 3
        var processor = processor
        exchangeQuadwords(&processor) { $0[$1] = $2 }
        for (register, field) in Self.generalRegisters.enumerated() {
            self[field] = processor.generalRegisters[register]
        }
        self[Self.pkru] = processor.pkru
        self[Self.tscAux] = UInt32(truncatingIfNeeded: processor.tscAux)
        self[Self.sevFeatures] = sevFeatures
        self[Self.mxcsr] = processor.mxcsr
        self[Self.x87FTW] = UInt16(processor.ftw)
        self[Self.x87FSW] = processor.fsw
        self[Self.x87FCW] = processor.fcw
        self[Self.x87FOP] = processor.fop
        for index in 0..<8 {
            self[Field<UInt64>(0x420 &+ 8 &* index)] = processor.x87Significand[index]
            self[Field<UInt16>(0x460 &+ 2 &* index)] = processor.x87Exponent[index]
        }
        for index in 0..<32 {
            self[Field<UInt64>(0x470 &+ 8 &* index)] = processor.xmm[index]
            self[Field<UInt64>(0x570 &+ 8 &* index)] = processor.ymmUpper[index]
        }
    }

    /// The state that VMRUN enters the guest with.
    ///
    /// The low byte of X87_FTW is taken as the abridged tag word, the form KVM writes and the processor saves.
    public var processorState: ProcessorState {
        var state = ProcessorState()
        state.es = segment(Self.es)
        state.cs = segment(Self.cs)
        state.ss = segment(Self.ss)
        state.ds = segment(Self.ds)
        state.fs = segment(Self.fs)
        state.gs = segment(Self.gs)
        state.ldtr = segment(Self.ldtr)
        state.tr = segment(Self.tr)
        let gdtr = segment(Self.gdtr)
        state.gdtr = DescriptorTableRegister(base: gdtr.base, limit: UInt16(truncatingIfNeeded: gdtr.limit))
        let idtr = segment(Self.idtr)
        state.idtr = DescriptorTableRegister(base: idtr.base, limit: UInt16(truncatingIfNeeded: idtr.limit))
        var source = self
        source.exchangeQuadwords(&state) { $2 = $0[$1] }
        for (register, field) in Self.generalRegisters.enumerated() { state.generalRegisters[register] = self[field] }
        state.pkru = self[Self.pkru]
        state.tscAux = UInt64(self[Self.tscAux])
        state.mxcsr = self[Self.mxcsr]
        state.ftw = UInt8(truncatingIfNeeded: self[Self.x87FTW])
        state.fsw = self[Self.x87FSW]
        state.fcw = self[Self.x87FCW]
        state.fop = self[Self.x87FOP]
        for index in 0..<8 {
            state.x87Significand[index] = self[Field<UInt64>(0x420 &+ 8 &* index)]
            state.x87Exponent[index] = self[Field<UInt16>(0x460 &+ 2 &* index)]
        }
        for index in 0..<32 {
            state.xmm[index] = self[Field<UInt64>(0x470 &+ 8 &* index)]
            state.ymmUpper[index] = self[Field<UInt64>(0x570 &+ 8 &* index)]
        }
        return state
    }

    /// Reads a segment field.
    public func segment(_ field: SegmentField) -> SegmentRegister {
        SegmentRegister(
            selector: bytes.field(field.offset), attributes: bytes.field(field.offset &+ 2),
            limit: bytes.field(field.offset &+ 4), base: bytes.field(field.offset &+ 8))
    }

    /// Writes a segment field.
    public mutating func setSegment(_ field: SegmentField, _ segment: SegmentRegister) {
        self[Field<UInt16>(field.offset)] = segment.selector
        self[Field<UInt16>(field.offset &+ 2)] = segment.attributes
        self[Field<UInt32>(field.offset &+ 4)] = segment.limit
        self[Field<UInt64>(field.offset &+ 8)] = segment.base
    }

    /// rax rcx rdx rbx rsp rbp rsi rdi r8…r15, the order of `ProcessorState.generalRegisters`.
    private static var generalRegisters: [Field<UInt64>] {
        [rax, rcx, rdx, rbx, rsp, rbp, rsi, rdi, r8, r9, r10, r11, r12, r13, r14, r15]
    }

    /// The 64-bit fields that are one member of the state each: one list for both directions.
    private mutating func exchangeQuadwords(
        _ state: inout ProcessorState, _ exchange: (inout VMSA, Field<UInt64>, inout UInt64) -> Void
    ) {
        exchange(&self, Self.efer, &state.efer)
        exchange(&self, Self.xss, &state.xss)
        exchange(&self, Self.cr4, &state.cr4)
        exchange(&self, Self.cr3, &state.cr3)
        exchange(&self, Self.cr0, &state.cr0)
        exchange(&self, Self.dr7, &state.dr7)
        exchange(&self, Self.dr6, &state.dr6)
        exchange(&self, Self.rflags, &state.rflags)
        exchange(&self, Self.rip, &state.rip)
        exchange(&self, Self.dr0, &state.dr0)
        exchange(&self, Self.dr1, &state.dr1)
        exchange(&self, Self.dr2, &state.dr2)
        exchange(&self, Self.dr3, &state.dr3)
        exchange(&self, Self.star, &state.star)
        exchange(&self, Self.lstar, &state.lstar)
        exchange(&self, Self.cstar, &state.cstar)
        exchange(&self, Self.sfmask, &state.sfmask)
        exchange(&self, Self.kernelGSBase, &state.kernelGSBase)
        exchange(&self, Self.sysenterCS, &state.sysenterCS)
        exchange(&self, Self.sysenterESP, &state.sysenterESP)
        exchange(&self, Self.sysenterEIP, &state.sysenterEIP)
        exchange(&self, Self.cr2, &state.cr2)
        exchange(&self, Self.pat, &state.pat)
        exchange(&self, Self.xcr0, &state.xcr0)
        exchange(&self, Self.x87DataPointer, &state.fdp)
        exchange(&self, Self.x87RIP, &state.fip)
    }
}
