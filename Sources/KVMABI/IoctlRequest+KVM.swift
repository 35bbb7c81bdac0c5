// Request words [KVM 4]. A word is direction, argument size, type and number (`dir<<30 | size<<16 | type<<8 | nr`);
// KVM's type is 0xAE, the secure processor driver's is 0x53. Some old numbers carry a direction that does not match
// what they do, so the words are written out and a test recomputes them.

/// The request words by their other name, for places where a bare `.run` would say too little.
public typealias KVMRequest = IoctlRequest

extension IoctlRequest {
    // MARK: The system handle, `/dev/kvm` [KVM 4].

    /// `KVM_GET_API_VERSION`.
    public static let getAPIVersion = Self(rawValue: 0x0000_ae00)

    /// `KVM_CREATE_VM`.
    public static let createVM = Self(rawValue: 0x0000_ae01)

    /// `KVM_CHECK_EXTENSION`.
    public static let checkExtension = Self(rawValue: 0x0000_ae03)

    /// `KVM_GET_VCPU_MMAP_SIZE`.
    public static let getVCPUMmapSize = Self(rawValue: 0x0000_ae04)

    /// `KVM_GET_SUPPORTED_CPUID`, 8 bytes.
    public static let getSupportedCPUID = Self(rawValue: 0xc008_ae05)

    /// `KVM_GET_MSR_INDEX_LIST`, 4 bytes.
    public static let getMSRIndexList = Self(rawValue: 0xc004_ae02)

    /// `KVM_GET_MSR_FEATURE_INDEX_LIST`, 4 bytes.
    public static let getMSRFeatureIndexList = Self(rawValue: 0xc004_ae0a)

    /// `KVM_GET_DEVICE_ATTR`, 24 bytes.
    public static let getDeviceAttribute = Self(rawValue: 0x4018_aee2)

    /// `KVM_HAS_DEVICE_ATTR`, 24 bytes.
    public static let hasDeviceAttribute = Self(rawValue: 0x4018_aee3)

    /// `KVM_X86_GET_MCE_CAP_SUPPORTED`, 8 bytes.
    public static let getMCECapSupported = Self(rawValue: 0x8008_ae9d)

    // MARK: A VM handle.

    /// `KVM_CREATE_VCPU`.
    public static let createVCPU = Self(rawValue: 0x0000_ae41)

    /// `KVM_SET_USER_MEMORY_REGION`, 32 bytes.
    public static let setUserMemoryRegion = Self(rawValue: 0x4020_ae46)

    /// `KVM_SET_USER_MEMORY_REGION2`, 160 bytes.
    public static let setUserMemoryRegion2 = Self(rawValue: 0x40a0_ae49)

    /// `KVM_SET_MEMORY_ATTRIBUTES`, 32 bytes.
    public static let setMemoryAttributes = Self(rawValue: 0x4020_aed2)

    /// `KVM_CREATE_GUEST_MEMFD`, 64 bytes.
    public static let createGuestMemfd = Self(rawValue: 0xc040_aed4)

    /// `KVM_MEMORY_ENCRYPT_OP`, 8 bytes.
    public static let memoryEncryptOp = Self(rawValue: 0xc008_aeba)

    /// `KVM_MEMORY_ENCRYPT_REG_REGION`, 16 bytes.
    public static let memoryEncryptRegisterRegion = Self(rawValue: 0x8010_aebb)

    /// `KVM_MEMORY_ENCRYPT_UNREG_REGION`, 16 bytes.
    public static let memoryEncryptUnregisterRegion = Self(rawValue: 0x8010_aebc)

    /// `KVM_ENABLE_CAP`, 104 bytes.
    public static let enableCapability = Self(rawValue: 0x4068_aea3)

    /// `KVM_CREATE_IRQCHIP`.
    public static let createIRQChip = Self(rawValue: 0x0000_ae60)

    /// `KVM_CREATE_PIT2`, 64 bytes.
    public static let createPIT2 = Self(rawValue: 0x4040_ae77)

    /// `KVM_SET_NR_MMU_PAGES`.
    public static let setMMUPageCount = Self(rawValue: 0x0000_ae44)

    /// `KVM_SET_TSS_ADDR`.
    public static let setTSSAddress = Self(rawValue: 0x0000_ae47)

    /// `KVM_SET_IDENTITY_MAP_ADDR`, 8 bytes.
    public static let setIdentityMapAddress = Self(rawValue: 0x4008_ae48)

    /// `KVM_SET_BOOT_CPU_ID`.
    public static let setBootCPUID = Self(rawValue: 0x0000_ae78)

    /// `KVM_IRQFD`, 32 bytes.
    public static let irqfd = Self(rawValue: 0x4020_ae76)

    /// `KVM_IOEVENTFD`, 64 bytes.
    public static let ioeventfd = Self(rawValue: 0x4040_ae79)

    /// `KVM_SIGNAL_MSI`, 32 bytes.
    public static let signalMSI = Self(rawValue: 0x4020_aea5)

    /// `KVM_IRQ_LINE`, 8 bytes.
    public static let irqLine = Self(rawValue: 0x4008_ae61)

    /// `KVM_SET_GSI_ROUTING`, 8 bytes.
    public static let setGSIRouting = Self(rawValue: 0x4008_ae6a)

    /// `KVM_GET_IRQCHIP`, 520 bytes.
    public static let getIRQChip = Self(rawValue: 0xc208_ae62)

    /// `KVM_SET_IRQCHIP`, 520 bytes.
    public static let setIRQChip = Self(rawValue: 0x8208_ae63)

    /// `KVM_GET_PIT2`, 112 bytes.
    public static let getPIT2 = Self(rawValue: 0x8070_ae9f)

    /// `KVM_SET_PIT2`, 112 bytes.
    public static let setPIT2 = Self(rawValue: 0x4070_aea0)

    /// `KVM_SET_CLOCK`, 48 bytes.
    public static let setClock = Self(rawValue: 0x4030_ae7b)

    /// `KVM_GET_CLOCK`, 48 bytes.
    public static let getClock = Self(rawValue: 0x8030_ae7c)

    /// `KVM_X86_SET_MSR_FILTER`, 392 bytes.
    public static let setMSRFilter = Self(rawValue: 0x4188_aec6)

    /// `KVM_GET_DIRTY_LOG`, 16 bytes.
    public static let getDirtyLog = Self(rawValue: 0x4010_ae42)

    /// `KVM_SET_TSC_KHZ`.
    public static let setTSCkHz = Self(rawValue: 0x0000_aea2)

    /// `KVM_GET_TSC_KHZ`.
    public static let getTSCkHz = Self(rawValue: 0x0000_aea3)

    /// `KVM_IRQ_LINE_STATUS`, 8 bytes.
    public static let irqLineStatus = Self(rawValue: 0xc008_ae67)

    /// `KVM_REGISTER_COALESCED_MMIO`, 16 bytes.
    public static let registerCoalescedMMIO = Self(rawValue: 0x4010_ae67)

    /// `KVM_UNREGISTER_COALESCED_MMIO`, 16 bytes.
    public static let unregisterCoalescedMMIO = Self(rawValue: 0x4010_ae68)

    /// `KVM_CLEAR_DIRTY_LOG`, 24 bytes.
    public static let clearDirtyLog = Self(rawValue: 0xc018_aec0)

    /// `KVM_REINJECT_CONTROL`.
    public static let reinjectControl = Self(rawValue: 0x0000_ae71)

    // MARK: A vCPU handle.

    /// `KVM_RUN`.
    public static let run = Self(rawValue: 0x0000_ae80)

    /// `KVM_GET_REGS`, 144 bytes.
    public static let getRegisters = Self(rawValue: 0x8090_ae81)

    /// `KVM_SET_REGS`, 144 bytes.
    public static let setRegisters = Self(rawValue: 0x4090_ae82)

    /// `KVM_GET_SREGS`, 312 bytes.
    public static let getSpecialRegisters = Self(rawValue: 0x8138_ae83)

    /// `KVM_SET_SREGS`, 312 bytes.
    public static let setSpecialRegisters = Self(rawValue: 0x4138_ae84)

    /// `KVM_GET_SREGS2`, 320 bytes.
    public static let getSpecialRegisters2 = Self(rawValue: 0x8140_aecc)

    /// `KVM_SET_SREGS2`, 320 bytes.
    public static let setSpecialRegisters2 = Self(rawValue: 0x4140_aecd)

    /// `KVM_GET_MSRS`, 8 bytes.
    public static let getMSRs = Self(rawValue: 0xc008_ae88)

    /// `KVM_SET_MSRS`, 8 bytes.
    public static let setMSRs = Self(rawValue: 0x4008_ae89)

    /// `KVM_SET_CPUID2`, 8 bytes.
    public static let setCPUID2 = Self(rawValue: 0x4008_ae90)

    /// `KVM_GET_CPUID2`, 8 bytes.
    public static let getCPUID2 = Self(rawValue: 0xc008_ae91)

    /// `KVM_GET_LAPIC`, 1024 bytes.
    public static let getLAPIC = Self(rawValue: 0x8400_ae8e)

    /// `KVM_SET_LAPIC`, 1024 bytes.
    public static let setLAPIC = Self(rawValue: 0x4400_ae8f)

    /// `KVM_GET_MP_STATE`, 4 bytes.
    public static let getMPState = Self(rawValue: 0x8004_ae98)

    /// `KVM_SET_MP_STATE`, 4 bytes.
    public static let setMPState = Self(rawValue: 0x4004_ae99)

    /// `KVM_GET_VCPU_EVENTS`, 64 bytes.
    public static let getVCPUEvents = Self(rawValue: 0x8040_ae9f)

    /// `KVM_SET_VCPU_EVENTS`, 64 bytes.
    public static let setVCPUEvents = Self(rawValue: 0x4040_aea0)

    /// `KVM_GET_XSAVE`, 4096 bytes.
    public static let getXSave = Self(rawValue: 0x9000_aea4)

    /// `KVM_GET_XSAVE2`, 4096 bytes.
    public static let getXSave2 = Self(rawValue: 0x9000_aecf)

    /// `KVM_SET_XSAVE`, 4096 bytes.
    public static let setXSave = Self(rawValue: 0x5000_aea5)

    /// `KVM_GET_XCRS`, 392 bytes.
    public static let getXCRs = Self(rawValue: 0x8188_aea6)

    /// `KVM_SET_XCRS`, 392 bytes.
    public static let setXCRs = Self(rawValue: 0x4188_aea7)

    /// `KVM_GET_FPU`, 416 bytes.
    public static let getFPU = Self(rawValue: 0x81a0_ae8c)

    /// `KVM_SET_FPU`, 416 bytes.
    public static let setFPU = Self(rawValue: 0x41a0_ae8d)

    /// `KVM_GET_DEBUGREGS`, 128 bytes.
    public static let getDebugRegisters = Self(rawValue: 0x8080_aea1)

    /// `KVM_SET_DEBUGREGS`, 128 bytes.
    public static let setDebugRegisters = Self(rawValue: 0x4080_aea2)

    /// `KVM_SET_GUEST_DEBUG`, 72 bytes.
    public static let setGuestDebug = Self(rawValue: 0x4048_ae9b)

    /// `KVM_INTERRUPT`, 4 bytes.
    public static let interrupt = Self(rawValue: 0x4004_ae86)

    /// `KVM_NMI`.
    public static let nmi = Self(rawValue: 0x0000_ae9a)

    /// `KVM_SMI`.
    public static let smi = Self(rawValue: 0x0000_aeb7)

    /// `KVM_SET_SIGNAL_MASK`, 4 bytes.
    public static let setSignalMask = Self(rawValue: 0x4004_ae8b)

    /// `KVM_TRANSLATE`, 24 bytes.
    public static let translate = Self(rawValue: 0xc018_ae85)

    /// `KVM_KVMCLOCK_CTRL`.
    public static let kvmclockControl = Self(rawValue: 0x0000_aead)

    /// `KVM_PRE_FAULT_MEMORY`, 64 bytes.
    public static let preFaultMemory = Self(rawValue: 0xc040_aed5)

    /// `KVM_GET_ONE_REG`, 16 bytes.
    public static let getOneRegister = Self(rawValue: 0x4010_aeab)

    /// `KVM_SET_ONE_REG`, 16 bytes.
    public static let setOneRegister = Self(rawValue: 0x4010_aeac)

    /// `KVM_X86_SETUP_MCE`, 8 bytes.
    public static let setupMCE = Self(rawValue: 0x4008_ae9c)

    /// `KVM_X86_SET_MCE`, 64 bytes.
    public static let setMCE = Self(rawValue: 0x4040_ae9e)

    /// `KVM_TPR_ACCESS_REPORTING`, 40 bytes.
    public static let tprAccessReporting = Self(rawValue: 0xc028_ae92)

    /// `KVM_SET_VAPIC_ADDR`, 8 bytes.
    public static let setVAPICAddress = Self(rawValue: 0x4008_ae93)

    // MARK: The AMD secure processor's driver, `/dev/sev`.

    /// `SEV_ISSUE_CMD`, 16 bytes.
    public static let sevIssueCommand = Self(rawValue: 0xc010_5300)
}
