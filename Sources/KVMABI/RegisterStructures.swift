// The register structures of a vCPU [KVM KVM_GET_REGS and its neighbours].

/// `kvm_regs`, 144 bytes.
public struct KVMRegisters: KernelStructure, Equatable {
    public var rax: UInt64 = 0  // 0x00
    public var rbx: UInt64 = 0  // 0x08
    public var rcx: UInt64 = 0  // 0x10
    public var rdx: UInt64 = 0  // 0x18
    public var rsi: UInt64 = 0  // 0x20
    public var rdi: UInt64 = 0  // 0x28
    public var rsp: UInt64 = 0  // 0x30
    public var rbp: UInt64 = 0  // 0x38
    public var r8: UInt64 = 0  // 0x40
    public var r9: UInt64 = 0  // 0x48
    public var r10: UInt64 = 0  // 0x50
    public var r11: UInt64 = 0  // 0x58
    public var r12: UInt64 = 0  // 0x60
    public var r13: UInt64 = 0  // 0x68
    public var r14: UInt64 = 0  // 0x70
    public var r15: UInt64 = 0  // 0x78
    public var rip: UInt64 = 0  // 0x80
    public var rflags: UInt64 = 2  // 0x88

    public init() {}
}

/// `kvm_segment`, 24 bytes: a segment register with its hidden part, attributes spread out.
public struct KVMSegment: KernelStructure, Equatable {
    public var base: UInt64 = 0  // 0x00
    /// In bytes, already scaled by G.
    public var limit: UInt32 = 0  // 0x08
    public var selector: UInt16 = 0  // 0x0c
    public var type: UInt8 = 0  // 0x0e
    public var present: UInt8 = 0  // 0x0f
    public var dpl: UInt8 = 0  // 0x10
    public var db: UInt8 = 0  // 0x11
    public var s: UInt8 = 0  // 0x12
    public var l: UInt8 = 0  // 0x13
    public var g: UInt8 = 0  // 0x14
    public var avl: UInt8 = 0  // 0x15
    public var unusable: UInt8 = 0  // 0x16
    public var padding: UInt8 = 0  // 0x17

    public init() {}

    /// A segment from its VMCB form [APM2 15.5.1]: type 3:0, S 4, DPL 6:5, P 7, AVL 8, L 9, D/B 10, G 11.
    public init(selector: UInt16, attributes: UInt16, limit: UInt32, base: UInt64) {
        self.base = base
        self.limit = limit
        self.selector = selector
        func bits(_ shift: UInt16, _ mask: UInt16) -> UInt8 { UInt8(truncatingIfNeeded: (attributes >> shift) & mask) }
        type = bits(0, 15)
        s = bits(4, 1)
        dpl = bits(5, 3)
        present = bits(7, 1)
        avl = bits(8, 1)
        l = bits(9, 1)
        db = bits(10, 1)
        g = bits(11, 1)
        unusable = present == 0 ? 1 : 0
    }

    /// The attributes in VMCB form; values that do not fit their field lose the bits beyond it. An unusable segment has
    /// no attributes.
    public var attributes: UInt16 {
        guard unusable == 0 else { return 0 }
        func place(_ value: UInt8, _ mask: UInt8, _ shift: UInt16) -> UInt16 { UInt16(value & mask) << shift }
        return place(type, 15, 0) | place(s, 1, 4) | place(dpl, 3, 5) | place(present, 1, 7) | place(avl, 1, 8)
            | place(l, 1, 9) | place(db, 1, 10) | place(g, 1, 11)
    }
}

/// `kvm_dtable`, 16 bytes.
public struct KVMDescriptorTable: KernelStructure {
    public var base: UInt64 = 0  // 0x00
    public var limit: UInt16 = 0  // 0x08
    public var padding: [3 of UInt16] = .init(repeating: 0)  // 0x0a

    public init(base: UInt64 = 0, limit: UInt16 = 0) {
        self.base = base
        self.limit = limit
    }
}

/// `kvm_sregs`, 312 bytes.
public struct KVMSpecialRegisters: KernelStructure {
    public var cs = KVMSegment()  // 0x000
    public var ds = KVMSegment()  // 0x018
    public var es = KVMSegment()  // 0x030
    public var fs = KVMSegment()  // 0x048
    public var gs = KVMSegment()  // 0x060
    public var ss = KVMSegment()  // 0x078
    public var tr = KVMSegment()  // 0x090
    public var ldt = KVMSegment()  // 0x0a8
    public var gdt = KVMDescriptorTable()  // 0x0c0
    public var idt = KVMDescriptorTable()  // 0x0d0
    public var cr0: UInt64 = 0  // 0x0e0
    public var cr2: UInt64 = 0  // 0x0e8
    public var cr3: UInt64 = 0  // 0x0f0
    public var cr4: UInt64 = 0  // 0x0f8
    public var cr8: UInt64 = 0  // 0x100
    public var efer: UInt64 = 0  // 0x108
    public var apicBase: UInt64 = 0  // 0x110
    public var interruptBitmap: [4 of UInt64] = .init(repeating: 0)  // 0x118

    public init() {}
}

/// `kvm_sregs2`, 320 bytes: page directory pointers instead of the interrupt bitmap.
public struct KVMSpecialRegisters2: KernelStructure {
    public var cs = KVMSegment()  // 0x000
    public var ds = KVMSegment()  // 0x018
    public var es = KVMSegment()  // 0x030
    public var fs = KVMSegment()  // 0x048
    public var gs = KVMSegment()  // 0x060
    public var ss = KVMSegment()  // 0x078
    public var tr = KVMSegment()  // 0x090
    public var ldt = KVMSegment()  // 0x0a8
    public var gdt = KVMDescriptorTable()  // 0x0c0
    public var idt = KVMDescriptorTable()  // 0x0d0
    public var cr0: UInt64 = 0  // 0x0e0
    public var cr2: UInt64 = 0  // 0x0e8
    public var cr3: UInt64 = 0  // 0x0f0
    public var cr4: UInt64 = 0  // 0x0f8
    public var cr8: UInt64 = 0  // 0x100
    public var efer: UInt64 = 0  // 0x108
    public var apicBase: UInt64 = 0  // 0x110
    /// Bit 0: `pdptrs` is valid.
    public var flags: UInt64 = 0  // 0x118
    public var pdptrs: [4 of UInt64] = .init(repeating: 0)  // 0x120

    public init() {}
}

/// `kvm_fpu`, 416 bytes.
public struct KVMFPU: KernelStructure {
    /// ST(0)…ST(7), 16 bytes each, 10 used.
    public var fpr: [128 of UInt8] = .init(repeating: 0)  // 0x000
    public var fcw: UInt16 = 0  // 0x080
    public var fsw: UInt16 = 0  // 0x082
    /// The abridged tag word of FXSAVE.
    public var ftwx: UInt8 = 0  // 0x084
    public var pad1: UInt8 = 0  // 0x085
    public var lastOpcode: UInt16 = 0  // 0x086
    public var lastIP: UInt64 = 0  // 0x088
    public var lastDP: UInt64 = 0  // 0x090
    /// XMM0…XMM15, 16 bytes each.
    public var xmm: [256 of UInt8] = .init(repeating: 0)  // 0x098
    public var mxcsr: UInt32 = 0  // 0x198
    public var pad2: UInt32 = 0  // 0x19c

    public init() {}
}

/// `kvm_xsave`, 4096 bytes: an XSAVE area in standard format.
public struct KVMXSave: KernelStructure {
    public var region: [512 of UInt64] = .init(repeating: 0)  // 0x000

    public init() {}
}

/// `kvm_xcr`, 16 bytes.
public struct KVMXCR: KernelStructure {
    public var xcr: UInt32 = 0  // 0x00
    public var reserved: UInt32 = 0  // 0x04
    public var value: UInt64 = 0  // 0x08

    public init(xcr: UInt32 = 0, value: UInt64 = 0) {
        self.xcr = xcr
        self.value = value
    }
}

/// `kvm_xcrs`, 392 bytes.
public struct KVMXCRs: KernelStructure {
    /// Entries used, at most 16.
    public var count: UInt32 = 0  // 0x000
    /// Must be 0.
    public var flags: UInt32 = 0  // 0x004
    public var xcrs: [16 of KVMXCR] = .init(repeating: KVMXCR())  // 0x008
    public var padding: [16 of UInt64] = .init(repeating: 0)  // 0x108

    public init() {}
}

/// `kvm_debugregs`, 128 bytes.
public struct KVMDebugRegisters: KernelStructure {
    public var db: [4 of UInt64] = .init(repeating: 0)  // 0x00
    public var dr6: UInt64 = 0  // 0x20
    public var dr7: UInt64 = 0  // 0x28
    /// Must be 0.
    public var flags: UInt64 = 0  // 0x30
    public var reserved: [9 of UInt64] = .init(repeating: 0)  // 0x38

    public init() {}
}

/// `kvm_guest_debug`, 72 bytes. `EINVAL` once the guest's state is protected.
public struct KVMGuestDebug: KernelStructure {
    /// 1 enable, 2 single step, bit 16 software breakpoints, bit 17 hardware breakpoints.
    public var control: UInt32 = 0  // 0x00
    public var pad: UInt32 = 0  // 0x04
    /// DR0…DR7.
    public var debugRegisters: [8 of UInt64] = .init(repeating: 0)  // 0x08

    public init() {}

    /// `KVM_GUESTDBG_ENABLE`.
    public static let enable: UInt32 = 1 << 0
    /// `KVM_GUESTDBG_SINGLESTEP`.
    public static let singleStep: UInt32 = 1 << 1
    /// `KVM_GUESTDBG_USE_SW_BP`: INT3 is the VMM's.
    public static let useSoftwareBreakpoints: UInt32 = 1 << 16
    /// `KVM_GUESTDBG_USE_HW_BP`: the debug registers are the VMM's.
    public static let useBreakpoints: UInt32 = 1 << 17
    /// `KVM_GUESTDBG_INJECT_DB`: #DB on the next entry.
    public static let injectDebug: UInt32 = 1 << 18
    /// `KVM_GUESTDBG_INJECT_BP`: #BP on the next entry.
    public static let injectBreakpoint: UInt32 = 1 << 19
    /// `KVM_GUESTDBG_BLOCKIRQ`: no interrupts meanwhile.
    public static let blockInterrupts: UInt32 = 1 << 20
    /// All of them: the answer to `KVM_CAP_SET_GUEST_DEBUG2`.
    public static let supported: UInt32 = 0x1f_0003
}

/// `kvm_translation`, 24 bytes.
public struct KVMTranslation: KernelStructure {
    public var linearAddress: UInt64 = 0  // 0x00
    public var physicalAddress: UInt64 = 0  // 0x08
    public var valid: UInt8 = 0  // 0x10
    public var writeable: UInt8 = 0  // 0x11
    public var usermode: UInt8 = 0  // 0x12
    public var pad: [5 of UInt8] = .init(repeating: 0)  // 0x13

    public init() {}
}

/// `kvm_one_reg`, 16 bytes.
public struct KVMOneRegister: KernelStructure {
    public var id: UInt64 = 0  // 0x00
    /// Where the value is in this process.
    public var address: UInt64 = 0  // 0x08

    public init() {}
}
