// The architectural state of one x86-64 processor, as a value: what KVM's register calls and a VMSA carry.

/// A segment register with its hidden part.
public struct SegmentRegister: Equatable, Sendable {
    public var selector: UInt16
    /// VMCB form: type 3:0, S 4, DPL 6:5, P 7, AVL 8, L 9, D/B 10, G 11.
    public var attributes: UInt16
    /// In bytes, already scaled by G.
    public var limit: UInt32
    public var base: UInt64

    public init(selector: UInt16 = 0, attributes: UInt16 = 0, limit: UInt32 = 0, base: UInt64 = 0) {
        self.selector = selector
        self.attributes = attributes
        self.limit = limit
        self.base = base
    }
}

/// GDTR or IDTR.
public struct DescriptorTableRegister: Equatable, Sendable {
    public var base: UInt64
    public var limit: UInt16

    public init(base: UInt64 = 0, limit: UInt16 = 0xffff) {
        self.base = base
        self.limit = limit
    }
}

/// The state of one processor between two instructions.
///
/// The default value is the state after reset as KVM gives it to a vCPU nobody has touched [APM2 14.1.3].
public struct ProcessorState: Equatable, Sendable {
    /// rax rcx rdx rbx rsp rbp rsi rdi r8…r15: the order of instruction encodings.
    public var generalRegisters: [16 of UInt64] = .init(repeating: 0)
    public var rip: UInt64 = 0xfff0
    public var rflags: UInt64 = 2

    public var cs = SegmentRegister(selector: 0xf000, attributes: 0x9a, limit: 0xffff, base: 0xffff_0000)
    public var ds = SegmentRegister(attributes: 0x92, limit: 0xffff)
    public var es = SegmentRegister(attributes: 0x92, limit: 0xffff)
    public var fs = SegmentRegister(attributes: 0x92, limit: 0xffff)
    public var gs = SegmentRegister(attributes: 0x92, limit: 0xffff)
    public var ss = SegmentRegister(attributes: 0x92, limit: 0xffff)
    public var ldtr = SegmentRegister(attributes: 0x82, limit: 0xffff)
    public var tr = SegmentRegister(attributes: 0x83, limit: 0xffff)
    public var gdtr = DescriptorTableRegister()
    public var idtr = DescriptorTableRegister()

    public var cr0: UInt64 = 0x10
    public var cr2: UInt64 = 0
    public var cr3: UInt64 = 0
    public var cr4: UInt64 = 0
    public var cr8: UInt64 = 0
    public var efer: UInt64 = 0
    public var xcr0: UInt64 = 1
    public var xss: UInt64 = 0
    public var pkru: UInt32 = 0

    public var dr0: UInt64 = 0
    public var dr1: UInt64 = 0
    public var dr2: UInt64 = 0
    public var dr3: UInt64 = 0
    public var dr6: UInt64 = 0xffff_0ff0
    public var dr7: UInt64 = 0x400

    public var star: UInt64 = 0
    public var lstar: UInt64 = 0
    public var cstar: UInt64 = 0
    public var sfmask: UInt64 = 0
    public var kernelGSBase: UInt64 = 0
    public var tscAux: UInt64 = 0
    public var sysenterCS: UInt64 = 0
    public var sysenterESP: UInt64 = 0
    public var sysenterEIP: UInt64 = 0
    public var pat: UInt64 = 0x0007_0406_0007_0406

    /// x87 and SSE state.
    public var fcw: UInt16 = 0x37f
    public var fsw: UInt16 = 0
    /// The abridged tag word of FXSAVE: bit n set = physical register n in use.
    public var ftw: UInt8 = 0
    public var fop: UInt16 = 0
    public var fip: UInt64 = 0
    public var fdp: UInt64 = 0
    public var mxcsr: UInt32 = 0x1f80
    /// ST(0)…ST(7): 64-bit significands and 16-bit sign-and-exponents.
    public var x87Significand: [8 of UInt64] = .init(repeating: 0)
    public var x87Exponent: [8 of UInt16] = .init(repeating: 0)
    /// XMM0…XMM15, low quadword first.
    public var xmm: [32 of UInt64] = .init(repeating: 0)
    /// The upper halves of YMM0…YMM15, low quadword first.
    public var ymmUpper: [32 of UInt64] = .init(repeating: 0)

    public init() {}

    /// What INIT makes of it: as after reset, but x87, SSE and AVX with XCR0, XSS and PKRU, the MSRs beside EFER, and CR0's
    /// bits for the caches stay [APM2 14.1.3, table 14-1].
    ///
    /// - Parameter signature: CPUID leaf 1 EAX, which RDX shows.
    public func initialized(signature: UInt32) -> ProcessorState {
        let fresh = ProcessorState()
        var state = self
        state.generalRegisters = fresh.generalRegisters
        state.generalRegisters[2] = UInt64(signature)
        (state.rip, state.rflags) = (fresh.rip, fresh.rflags)
        (state.cs, state.ds, state.es, state.fs, state.gs, state.ss) =
            (fresh.cs, fresh.ds, fresh.es, fresh.fs, fresh.gs, fresh.ss)
        (state.ldtr, state.tr, state.gdtr, state.idtr) = (fresh.ldtr, fresh.tr, fresh.gdtr, fresh.idtr)
        state.cr0 = CR0.et | cr0 & (CR0.cd | CR0.nw)
        (state.cr2, state.cr3, state.cr4, state.cr8, state.efer) = (0, 0, 0, 0, 0)
        (state.dr0, state.dr1, state.dr2, state.dr3) = (0, 0, 0, 0)
        (state.dr6, state.dr7) = (fresh.dr6, fresh.dr7)
        return state
    }

    public static func == (a: Self, b: Self) -> Bool {
        func same<let n: Int, T: Equatable>(_ x: [n of T], _ y: [n of T]) -> Bool {
            for i in 0..<n where x[i] != y[i] { return false }
            return true
        }
        guard same(a.generalRegisters, b.generalRegisters), same(a.xmm, b.xmm),
            same(a.ymmUpper, b.ymmUpper),
            same(a.x87Significand, b.x87Significand), same(a.x87Exponent, b.x87Exponent)
        else { return false }
        guard a.rip == b.rip, a.rflags == b.rflags, a.cs == b.cs, a.ds == b.ds, a.es == b.es, a.fs == b.fs,
            a.gs == b.gs, a.ss == b.ss, a.ldtr == b.ldtr, a.tr == b.tr, a.gdtr == b.gdtr, a.idtr == b.idtr
        else { return false }
        guard a.cr0 == b.cr0, a.cr2 == b.cr2, a.cr3 == b.cr3, a.cr4 == b.cr4, a.cr8 == b.cr8, a.efer == b.efer,
            a.xcr0 == b.xcr0, a.xss == b.xss, a.pkru == b.pkru, a.dr0 == b.dr0, a.dr1 == b.dr1, a.dr2 == b.dr2,
            a.dr3 == b.dr3, a.dr6 == b.dr6, a.dr7 == b.dr7
        else { return false }
        guard a.star == b.star, a.lstar == b.lstar, a.cstar == b.cstar, a.sfmask == b.sfmask,
            a.kernelGSBase == b.kernelGSBase, a.tscAux == b.tscAux, a.sysenterCS == b.sysenterCS,
            a.sysenterESP == b.sysenterESP, a.sysenterEIP == b.sysenterEIP, a.pat == b.pat
        else { return false }
        return a.fcw == b.fcw && a.fsw == b.fsw && a.ftw == b.ftw && a.fop == b.fop && a.fip == b.fip && a.fdp == b.fdp
            && a.mxcsr == b.mxcsr
    }
}
