// Capability numbers [KVM KVM_CHECK_EXTENSION].

/// What a host kernel may be able to do; the argument of `KVM_CHECK_EXTENSION` and `KVM_ENABLE_CAP`.
///
/// The answer 0 means "no"; what a positive answer means depends on the capability.
public struct Capability: RawRepresentable, Hashable, Sendable {
    public let rawValue: UInt32
    public init(rawValue: UInt32) { self.rawValue = rawValue }

    /// `KVM_CAP_IRQCHIP`.
    public static let irqChip = Self(rawValue: 0)
    /// `KVM_CAP_USER_MEMORY`.
    public static let userMemory = Self(rawValue: 3)
    /// `KVM_CAP_SET_TSS_ADDR`.
    public static let setTSSAddress = Self(rawValue: 4)
    /// `KVM_CAP_VAPIC`.
    public static let vapic = Self(rawValue: 6)
    /// `KVM_CAP_EXT_CPUID`.
    public static let extendedCPUID = Self(rawValue: 7)
    /// `KVM_CAP_CLOCKSOURCE`.
    public static let clockSource = Self(rawValue: 8)
    /// `KVM_CAP_NR_VCPUS`.
    public static let recommendedVCPUCount = Self(rawValue: 9)
    /// `KVM_CAP_NR_MEMSLOTS`.
    public static let memorySlotCount = Self(rawValue: 10)
    /// `KVM_CAP_MP_STATE`.
    public static let mpState = Self(rawValue: 14)
    /// `KVM_CAP_COALESCED_MMIO`.
    public static let coalescedMMIO = Self(rawValue: 15)
    /// `KVM_CAP_SYNC_MMU`.
    public static let syncMMU = Self(rawValue: 16)
    /// `KVM_CAP_DESTROY_MEMORY_REGION_WORKS`.
    public static let destroyMemoryRegionWorks = Self(rawValue: 21)
    /// `KVM_CAP_USER_NMI`.
    public static let userNMI = Self(rawValue: 22)
    /// `KVM_CAP_SET_GUEST_DEBUG`.
    public static let setGuestDebug = Self(rawValue: 23)
    /// `KVM_CAP_REINJECT_CONTROL`.
    public static let reinjectControl = Self(rawValue: 24)
    /// `KVM_CAP_IRQ_ROUTING`.
    public static let irqRouting = Self(rawValue: 25)
    /// `KVM_CAP_JOIN_MEMORY_REGIONS_WORKS`.
    public static let joinMemoryRegionsWorks = Self(rawValue: 30)
    /// `KVM_CAP_MCE`.
    public static let mce = Self(rawValue: 31)
    /// `KVM_CAP_IRQFD`.
    public static let irqfd = Self(rawValue: 32)
    /// `KVM_CAP_PIT2`.
    public static let pit2 = Self(rawValue: 33)
    /// `KVM_CAP_SET_BOOT_CPU_ID`.
    public static let setBootCPUID = Self(rawValue: 34)
    /// `KVM_CAP_PIT_STATE2`.
    public static let pitState2 = Self(rawValue: 35)
    /// `KVM_CAP_IOEVENTFD`.
    public static let ioeventfd = Self(rawValue: 36)
    /// `KVM_CAP_SET_IDENTITY_MAP_ADDR`.
    public static let setIdentityMapAddress = Self(rawValue: 37)
    /// `KVM_CAP_ADJUST_CLOCK`.
    public static let adjustClock = Self(rawValue: 39)
    /// `KVM_CAP_INTERNAL_ERROR_DATA`.
    public static let internalErrorData = Self(rawValue: 40)
    /// `KVM_CAP_VCPU_EVENTS`.
    public static let vcpuEvents = Self(rawValue: 41)
    /// `KVM_CAP_DEBUGREGS`.
    public static let debugRegisters = Self(rawValue: 50)
    /// `KVM_CAP_X86_ROBUST_SINGLESTEP`.
    public static let robustSinglestep = Self(rawValue: 51)
    /// `KVM_CAP_XSAVE`.
    public static let xsave = Self(rawValue: 55)
    /// `KVM_CAP_XCRS`.
    public static let xcrs = Self(rawValue: 56)
    /// `KVM_CAP_TSC_CONTROL`.
    public static let tscControl = Self(rawValue: 60)
    /// `KVM_CAP_GET_TSC_KHZ`.
    public static let getTSCkHz = Self(rawValue: 61)
    /// `KVM_CAP_MAX_VCPUS`.
    public static let maximumVCPUCount = Self(rawValue: 66)
    /// `KVM_CAP_TSC_DEADLINE_TIMER`.
    public static let tscDeadlineTimer = Self(rawValue: 72)
    /// `KVM_CAP_SYNC_REGS`.
    public static let syncRegisters = Self(rawValue: 74)
    /// `KVM_CAP_KVMCLOCK_CTRL`.
    public static let kvmclockControl = Self(rawValue: 76)
    /// `KVM_CAP_SIGNAL_MSI`.
    public static let signalMSI = Self(rawValue: 77)
    /// `KVM_CAP_READONLY_MEM`.
    public static let readOnlyMemory = Self(rawValue: 81)
    /// `KVM_CAP_IRQFD_RESAMPLE`.
    public static let irqfdResample = Self(rawValue: 82)
    /// `KVM_CAP_ENABLE_CAP_VM`.
    public static let enableCapabilityVM = Self(rawValue: 98)
    /// `KVM_CAP_IOEVENTFD_NO_LENGTH`.
    public static let ioeventfdNoLength = Self(rawValue: 100)
    /// `KVM_CAP_DISABLE_QUIRKS`.
    public static let disableQuirks = Self(rawValue: 116)
    /// `KVM_CAP_X86_SMM`.
    public static let smm = Self(rawValue: 117)
    /// `KVM_CAP_SPLIT_IRQCHIP`.
    public static let splitIRQChip = Self(rawValue: 121)
    /// `KVM_CAP_IOEVENTFD_ANY_LENGTH`.
    public static let ioeventfdAnyLength = Self(rawValue: 122)
    /// `KVM_CAP_MAX_VCPU_ID`.
    public static let maximumVCPUID = Self(rawValue: 128)
    /// `KVM_CAP_X2APIC_API`.
    public static let x2apicAPI = Self(rawValue: 129)
    /// `KVM_CAP_IMMEDIATE_EXIT`.
    public static let immediateExit = Self(rawValue: 136)
    /// `KVM_CAP_X86_DISABLE_EXITS`.
    public static let disableExits = Self(rawValue: 143)
    /// `KVM_CAP_GET_MSR_FEATURES`.
    public static let getMSRFeatures = Self(rawValue: 153)
    /// `KVM_CAP_MSR_PLATFORM_INFO`.
    public static let msrPlatformInfo = Self(rawValue: 159)
    /// `KVM_CAP_COALESCED_PIO`.
    public static let coalescedPIO = Self(rawValue: 162)
    /// `KVM_CAP_EXCEPTION_PAYLOAD`.
    public static let exceptionPayload = Self(rawValue: 164)
    /// `KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2`.
    public static let manualDirtyLogProtect2 = Self(rawValue: 168)
    /// `KVM_CAP_X86_USER_SPACE_MSR`.
    public static let userSpaceMSR = Self(rawValue: 188)
    /// `KVM_CAP_X86_MSR_FILTER`.
    public static let msrFilter = Self(rawValue: 189)
    /// `KVM_CAP_SET_GUEST_DEBUG2`.
    public static let setGuestDebug2 = Self(rawValue: 195)
    /// `KVM_CAP_VM_COPY_ENC_CONTEXT_FROM`.
    public static let copyEncryptionContextFrom = Self(rawValue: 197)
    /// `KVM_CAP_EXIT_HYPERCALL`.
    public static let exitHypercall = Self(rawValue: 201)
    /// `KVM_CAP_VM_MOVE_ENC_CONTEXT_FROM`.
    public static let moveEncryptionContextFrom = Self(rawValue: 206)
    /// `KVM_CAP_VM_GPA_BITS`.
    public static let gpaBits = Self(rawValue: 207)
    /// `KVM_CAP_XSAVE2`.
    public static let xsave2 = Self(rawValue: 208)
    /// `KVM_CAP_SYS_ATTRIBUTES`.
    public static let sysAttributes = Self(rawValue: 209)
    /// `KVM_CAP_DISABLE_QUIRKS2`.
    public static let disableQuirks2 = Self(rawValue: 213)
    /// `KVM_CAP_VM_TSC_CONTROL`.
    public static let vmTSCControl = Self(rawValue: 214)
    /// `KVM_CAP_X86_TRIPLE_FAULT_EVENT`.
    public static let tripleFaultEvent = Self(rawValue: 218)
    /// `KVM_CAP_USER_MEMORY2`.
    public static let userMemory2 = Self(rawValue: 231)
    /// `KVM_CAP_MEMORY_FAULT_INFO`.
    public static let memoryFaultInfo = Self(rawValue: 232)
    /// `KVM_CAP_MEMORY_ATTRIBUTES`.
    public static let memoryAttributes = Self(rawValue: 233)
    /// `KVM_CAP_GUEST_MEMFD`.
    public static let guestMemfd = Self(rawValue: 234)
    /// `KVM_CAP_VM_TYPES`.
    public static let vmTypes = Self(rawValue: 235)
    /// `KVM_CAP_PRE_FAULT_MEMORY`.
    public static let preFaultMemory = Self(rawValue: 236)
    /// `KVM_CAP_X86_APIC_BUS_CYCLES_NS`.
    public static let apicBusCyclesNanoseconds = Self(rawValue: 237)
    /// `KVM_CAP_GUEST_MEMFD_FLAGS`.
    public static let guestMemfdFlags = Self(rawValue: 244)
}

extension Capability: CustomStringConvertible {
    /// The kernel's name, or the number.
    public var description: String { Self.names[rawValue] ?? "capability \(rawValue)" }

    private static let names: [UInt32: String] = [
        0: "KVM_CAP_IRQCHIP",
        3: "KVM_CAP_USER_MEMORY",
        4: "KVM_CAP_SET_TSS_ADDR",
        6: "KVM_CAP_VAPIC",
        7: "KVM_CAP_EXT_CPUID",
        8: "KVM_CAP_CLOCKSOURCE",
        9: "KVM_CAP_NR_VCPUS",
        10: "KVM_CAP_NR_MEMSLOTS",
        14: "KVM_CAP_MP_STATE",
        15: "KVM_CAP_COALESCED_MMIO",
        16: "KVM_CAP_SYNC_MMU",
        21: "KVM_CAP_DESTROY_MEMORY_REGION_WORKS",
        22: "KVM_CAP_USER_NMI",
        23: "KVM_CAP_SET_GUEST_DEBUG",
        24: "KVM_CAP_REINJECT_CONTROL",
        25: "KVM_CAP_IRQ_ROUTING",
        30: "KVM_CAP_JOIN_MEMORY_REGIONS_WORKS",
        31: "KVM_CAP_MCE",
        32: "KVM_CAP_IRQFD",
        33: "KVM_CAP_PIT2",
        34: "KVM_CAP_SET_BOOT_CPU_ID",
        35: "KVM_CAP_PIT_STATE2",
        36: "KVM_CAP_IOEVENTFD",
        37: "KVM_CAP_SET_IDENTITY_MAP_ADDR",
        39: "KVM_CAP_ADJUST_CLOCK",
        40: "KVM_CAP_INTERNAL_ERROR_DATA",
        41: "KVM_CAP_VCPU_EVENTS",
        50: "KVM_CAP_DEBUGREGS",
        51: "KVM_CAP_X86_ROBUST_SINGLESTEP",
        55: "KVM_CAP_XSAVE",
        56: "KVM_CAP_XCRS",
        60: "KVM_CAP_TSC_CONTROL",
        61: "KVM_CAP_GET_TSC_KHZ",
        66: "KVM_CAP_MAX_VCPUS",
        72: "KVM_CAP_TSC_DEADLINE_TIMER",
        74: "KVM_CAP_SYNC_REGS",
        76: "KVM_CAP_KVMCLOCK_CTRL",
        77: "KVM_CAP_SIGNAL_MSI",
        81: "KVM_CAP_READONLY_MEM",
        82: "KVM_CAP_IRQFD_RESAMPLE",
        98: "KVM_CAP_ENABLE_CAP_VM",
        100: "KVM_CAP_IOEVENTFD_NO_LENGTH",
        116: "KVM_CAP_DISABLE_QUIRKS",
        117: "KVM_CAP_X86_SMM",
        121: "KVM_CAP_SPLIT_IRQCHIP",
        122: "KVM_CAP_IOEVENTFD_ANY_LENGTH",
        128: "KVM_CAP_MAX_VCPU_ID",
        129: "KVM_CAP_X2APIC_API",
        136: "KVM_CAP_IMMEDIATE_EXIT",
        143: "KVM_CAP_X86_DISABLE_EXITS",
        153: "KVM_CAP_GET_MSR_FEATURES",
        159: "KVM_CAP_MSR_PLATFORM_INFO",
        162: "KVM_CAP_COALESCED_PIO",
        164: "KVM_CAP_EXCEPTION_PAYLOAD",
        168: "KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2",
        188: "KVM_CAP_X86_USER_SPACE_MSR",
        189: "KVM_CAP_X86_MSR_FILTER",
        195: "KVM_CAP_SET_GUEST_DEBUG2",
        197: "KVM_CAP_VM_COPY_ENC_CONTEXT_FROM",
        201: "KVM_CAP_EXIT_HYPERCALL",
        206: "KVM_CAP_VM_MOVE_ENC_CONTEXT_FROM",
        207: "KVM_CAP_VM_GPA_BITS",
        208: "KVM_CAP_XSAVE2",
        209: "KVM_CAP_SYS_ATTRIBUTES",
        213: "KVM_CAP_DISABLE_QUIRKS2",
        214: "KVM_CAP_VM_TSC_CONTROL",
        218: "KVM_CAP_X86_TRIPLE_FAULT_EVENT",
        231: "KVM_CAP_USER_MEMORY2",
        232: "KVM_CAP_MEMORY_FAULT_INFO",
        233: "KVM_CAP_MEMORY_ATTRIBUTES",
        234: "KVM_CAP_GUEST_MEMFD",
        235: "KVM_CAP_VM_TYPES",
        236: "KVM_CAP_PRE_FAULT_MEMORY",
        237: "KVM_CAP_X86_APIC_BUS_CYCLES_NS",
        244: "KVM_CAP_GUEST_MEMFD_FLAGS",
    ]
}
