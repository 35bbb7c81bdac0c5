// The save area's fields by their names in the manual's table, for people who look at two of them [APM2 B.4].

extension VMSA {
    /// One integer of the save area.
    public struct NamedField: Hashable, Sendable {
        /// In the manual's spelling: "RIP", "CS.attributes", "SEV_FEATURES".
        public let name: String
        public let offset: Int
        /// 1 to 8.
        public let byteCount: Int

        init(_ name: String, _ offset: Int, _ byteCount: Int) {
            (self.name, self.offset, self.byteCount) = (name, offset, byteCount)
        }
    }

    /// Every field, by offset: what is between them is reserved.
    public static let namedFields: [NamedField] = {
        var fields: [NamedField] = []
        for (name, offset) in segments {
            fields.append(NamedField(name + ".selector", offset, 2))
            fields.append(NamedField(name + ".attributes", offset + 2, 2))
            fields.append(NamedField(name + ".limit", offset + 4, 4))
            fields.append(NamedField(name + ".base", offset + 8, 8))
        }
        fields += integers.map { NamedField($0.name, $0.offset, $0.byteCount) }
        for index in 0..<8 {
            fields.append(NamedField("FPREG_X87 \(index)", 0x420 + 8 * index, 8))
            fields.append(NamedField("FPREG_X87 \(index) exponent", 0x460 + 2 * index, 2))
        }
        for index in 0..<32 {
            let half = index % 2 == 0 ? "low" : "high"
            fields.append(NamedField("FPREG_XMM \(index / 2) \(half)", 0x470 + 8 * index, 8))
            fields.append(NamedField("FPREG_YMM \(index / 2) \(half)", 0x570 + 8 * index, 8))
        }
        return fields.sorted { $0.offset < $1.offset }
    }()

    private static let segments: [(name: String, offset: Int)] = [
        ("ES", 0x000), ("CS", 0x010), ("SS", 0x020), ("DS", 0x030), ("FS", 0x040), ("GS", 0x050),
        ("GDTR", 0x060), ("LDTR", 0x070), ("IDTR", 0x080), ("TR", 0x090),
    ]

    private static let integers: [(name: String, offset: Int, byteCount: Int)] = [
        ("PL0_SSP", 0x0a0, 8), ("PL1_SSP", 0x0a8, 8), ("PL2_SSP", 0x0b0, 8), ("PL3_SSP", 0x0b8, 8),
        ("U_CET", 0x0c0, 8), ("VMPL", 0x0ca, 1), ("CPL", 0x0cb, 1), ("EFER", 0x0d0, 8), ("XSS", 0x140, 8),
        ("CR4", 0x148, 8), ("CR3", 0x150, 8), ("CR0", 0x158, 8), ("DR7", 0x160, 8), ("DR6", 0x168, 8),
        ("RFLAGS", 0x170, 8), ("RIP", 0x178, 8), ("DR0", 0x180, 8), ("DR1", 0x188, 8), ("DR2", 0x190, 8),
        ("DR3", 0x198, 8), ("DR0_ADDR_MASK", 0x1a0, 8), ("DR1_ADDR_MASK", 0x1a8, 8),
        ("DR2_ADDR_MASK", 0x1b0, 8), ("DR3_ADDR_MASK", 0x1b8, 8), ("RSP", 0x1d8, 8), ("S_CET", 0x1e0, 8),
        ("SSP", 0x1e8, 8), ("ISST_ADDR", 0x1f0, 8), ("RAX", 0x1f8, 8), ("STAR", 0x200, 8), ("LSTAR", 0x208, 8),
        ("CSTAR", 0x210, 8), ("SFMASK", 0x218, 8), ("KERNEL_GS_BASE", 0x220, 8), ("SYSENTER_CS", 0x228, 8),
        ("SYSENTER_ESP", 0x230, 8), ("SYSENTER_EIP", 0x238, 8), ("CR2", 0x240, 8), ("G_PAT", 0x268, 8),
        ("DBGCTL", 0x270, 8), ("BR_FROM", 0x278, 8), ("BR_TO", 0x280, 8), ("LAST_EXCP_FROM", 0x288, 8),
        ("LAST_EXCP_TO", 0x290, 8), ("PKRU", 0x2e8, 4), ("TSC_AUX", 0x2ec, 4), ("TSC_SCALE", 0x2f0, 8),
        ("TSC_OFFSET", 0x2f8, 8), ("RCX", 0x308, 8), ("RDX", 0x310, 8), ("RBX", 0x318, 8), ("RBP", 0x328, 8),
        ("RSI", 0x330, 8), ("RDI", 0x338, 8), ("R8", 0x340, 8), ("R9", 0x348, 8), ("R10", 0x350, 8),
        ("R11", 0x358, 8), ("R12", 0x360, 8), ("R13", 0x368, 8), ("R14", 0x370, 8), ("R15", 0x378, 8),
        ("GUEST_EXIT_INFO_1", 0x390, 8), ("GUEST_EXIT_INFO_2", 0x398, 8), ("GUEST_EXIT_INT_INFO", 0x3a0, 8),
        ("GUEST_NRIP", 0x3a8, 8), ("SEV_FEATURES", 0x3b0, 8), ("VINTR_CTRL", 0x3b8, 8),
        ("GUEST_EXIT_CODE", 0x3c0, 8), ("VIRTUAL_TOM", 0x3c8, 8), ("TLB_ID", 0x3d0, 8), ("PCPU_ID", 0x3d8, 8),
        ("EVENT_INJ", 0x3e0, 8), ("XCR0", 0x3e8, 8), ("X87_DP", 0x400, 8), ("MXCSR", 0x408, 4),
        ("X87_FTW", 0x40c, 2), ("X87_FSW", 0x40e, 2), ("X87_FCW", 0x410, 2), ("X87_FOP", 0x412, 2),
        ("X87_DS", 0x414, 2), ("X87_CS", 0x416, 2), ("X87_RIP", 0x418, 8),
    ]

    /// The bits of SEV_FEATURES that have names, by their index.
    public static let featureNames: [(bit: Int, name: String)] = [
        (0, "SNP active"), (1, "vTOM"), (2, "reflect #VC"), (3, "restricted injection"), (4, "alternate injection"),
        (5, "debug swap"), (6, "prevent host IBS"), (7, "BTB isolation"), (8, "VMPL SSS"), (9, "Secure TSC"),
        (10, "VMGEXIT parameter"), (12, "IBS virtualization"), (14, "VMSA register protection"),
        (15, "SMT protection"), (16, "Secure AVIC"), (21, "IBPB on entry"),
    ]
}
