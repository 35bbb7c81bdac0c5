// MSR numbers, and which of them KVM emulates, saves, or treats as harmless.

/// Model-specific registers by number [APM2 A].
enum MSRNumber {
    static let tsc: UInt32 = 0x10
    static let apicBase: UInt32 = 0x1b
    static let tscAdjust: UInt32 = 0x3b
    static let speculationControl: UInt32 = 0x48
    static let predictionCommand: UInt32 = 0x49
    static let microcodeRevision: UInt32 = 0x8b
    static let platformInfo: UInt32 = 0xce
    static let mtrrCapabilities: UInt32 = 0xfe
    static let miscEnable: UInt32 = 0x1a0
    static let mtrrDefaultType: UInt32 = 0x2ff
    static let pat: UInt32 = 0x277
    static let tscDeadline: UInt32 = 0x6e0
    static let powerControl: UInt32 = 0x1fc
    /// IA32_XSS.
    static let supervisorStateMask: UInt32 = 0xda0
    static let kvmWallClockOld: UInt32 = 0x11
    static let kvmSystemTimeOld: UInt32 = 0x12
    static let kvmWallClock: UInt32 = 0x4b56_4d00
    static let kvmSystemTime: UInt32 = 0x4b56_4d01
    static let efer: UInt32 = 0xc000_0080
    static let hwcr: UInt32 = 0xc001_0015
    static let deConfiguration: UInt32 = 0xc001_1029
    static let tscAux: UInt32 = 0xc000_0103
    static let tscRatio: UInt32 = 0xc000_0104
    static let virtualSpeculationControl: UInt32 = 0xc001_011f

    /// The host's patch level, and what a vCPU starts with [KVM __svm_vcpu_reset].
    static let microcodeRevisionValue: UInt64 = 0x0a00_11d1
    static let guestMicrocodeRevision: UInt64 = 0x0100_0065
    /// 1, with 32 bits behind the point.
    static let tscRatioValue: UInt64 = 1 << 32
    /// LFENCE is serialising.
    static let deConfigurationValue: UInt64 = 2

    static let x2apic: ClosedRange<UInt32> = 0x800...0x8ff
    static let variableMTRRs: ClosedRange<UInt32> = 0x200...0x20f
    /// 0x250, 0x258, 0x259, 0x268…0x26F.
    static func isFixedMTRR(_ number: UInt32) -> Bool {
        number == 0x250 || number == 0x258 || number == 0x259 || (0x268...0x26f).contains(number)
    }

    /// KVM_GET_MSR_INDEX_LIST: what a VMM saves and restores.
    static let savedByVMM: [UInt32] =
        [
            0x174, 0x175, 0x176, 0xc000_0081, pat, 0xc000_0082, 0xc000_0083, 0xc000_0084, 0xc000_0102, 0xc000_0100,
            0xc000_0101, tsc, 0xc000_0103, efer, kvmWallClock, kvmSystemTime, kvmWallClockOld, kvmSystemTimeOld,
            tscAdjust, tscDeadline, mtrrDefaultType, 0x250, 0x258, 0x259,
        ] + Array(0x268...0x26f) + Array(variableMTRRs) + [apicBase, miscEnable, powerControl, hwcr, platformInfo]

    /// KVM_GET_MSR_FEATURE_INDEX_LIST.
    static let features: [UInt32] = [microcodeRevision, deConfiguration]

    /// Registers that read as zero and refuse writes [KVM kvm_get_msr_common, kvm_set_msr_common].
    static let onlyRead: Set<UInt32> = [
        0x17, 0x1db, 0x1dc, 0x1dd, 0x1de, 0xc001_0010, 0xc001_0055, 0xc001_0112, 0xc001_0113,
    ]

    /// Registers that read as zero and swallow writes: there is nothing behind them in a guest.
    static let harmless: Set<UInt32> = [
        0x17,  // platform id
        0x122,  // TSX_CTRL
        0x1d9, 0x1db, 0x1dc, 0x1dd, 0x1de,  // debug control, last branch
        0xc001_0000, 0xc001_0001, 0xc001_0002, 0xc001_0003, 0xc001_0004, 0xc001_0005, 0xc001_0006, 0xc001_0007,
        0xc001_0010,  // SYSCFG
        0xc001_001f,  // NB_CFG
        0xc001_0020,  // PATCH_LOADER
        0xc001_0055, 0xc001_0058,  // INT_PENDING, MMIO_CONF_BASE
        0xc001_0112, 0xc001_0113,  // SMM
        0xc001_0117,  // VM_HSAVE_PA
        0xc001_1020, 0xc001_1022, 0xc001_102a,  // LS_CFG, DC_CFG, BU_CFG2
    ]
}

/// MSRs that KVM keeps for a guest and the processor does not have itself.
struct EmulatedMSRs {
    /// IA32_MTRRdefType: KVM's reset value is 0 (MTRRs off).
    var mtrrDefaultType: UInt64 = 0
    var variableMTRRs: [16 of UInt64] = .init(repeating: 0)
    /// 0x250, 0x258, 0x259, then 0x268…0x26F.
    var fixedMTRRs: [11 of UInt64] = .init(repeating: 0)
    var miscEnable: UInt64 = 1
    var powerControl: UInt64 = 0
    /// What firmware sets in it (TscFreqSel) is the VMM's to set.
    var hwcr: UInt64 = 0
    var deConfiguration = MSRNumber.deConfigurationValue
    var microcodeRevision = MSRNumber.guestMicrocodeRevision
    var virtualSpeculationControl: UInt64 = 0
    var tscAdjust: UInt64 = 0
    /// CPUID faulting could be asked for.
    var platformInfo: UInt64 = 1 << 31
    var wallClock: UInt64 = 0
    /// Address of the time page, bit 0 = enabled.
    var systemTime: UInt64 = 0
    var timeVersion: UInt32 = 0
    var guestStopped = false

    static func fixedIndex(_ number: UInt32) -> Int {
        switch number {
        case 0x250: 0
        case 0x258: 1
        case 0x259: 2
        default: 3 + Int(number &- 0x268)
        }
    }

    /// A memory type byte that MTRRs may hold [APM2 7.7].
    static func isMemoryType(_ value: UInt64) -> Bool {
        switch value & 0xff {
        case 0, 1, 4, 5, 6: true
        default: false
        }
    }
}
