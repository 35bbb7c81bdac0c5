// What can be known about a host: one row per fact. The names are those of the dump's JSON, and do not change.

/// One fact about a host.
public enum HostFact: String, CaseIterable, Sendable {
    case cpuVendor = "cpu.vendor"
    case cpuBrand = "cpu.brand"
    case cpuSignature = "cpu.signature"
    case cpuIsGuest = "cpu.isGuest"
    case cpuMicrocode = "cpu.microcode"
    case cpuSMT = "cpu.smt"
    case sevFeatures = "cpu.sev.features"
    case sevCBit = "cpu.sev.cBit"
    case sevASIDs = "cpu.sev.asids"
    case sevMinimumASID = "cpu.sev.minimumASID"
    case syscfg = "msr.syscfg"
    case hwcr = "msr.hwcr"
    case rmpBase = "msr.rmpBase"
    case rmpEnd = "msr.rmpEnd"
    case rmpConfiguration = "msr.rmpConfiguration"
    case kernelRelease = "kernel.release"
    case kernelOptions = "kernel.options"
    case iommuCount = "iommu.count"
    case iommuDomain = "iommu.domain"
    case ccpIsLoaded = "module.ccp"
    case kvmAMDIsLoaded = "module.kvm_amd"
    case parameterSEV = "module.kvm_amd.sev"
    case parameterSEVES = "module.kvm_amd.sev_es"
    case parameterSNP = "module.kvm_amd.sev_snp"
    case nodeKVM = "node.kvm"
    case nodeSEV = "node.sev"
    case nodeKVMMode = "node.kvm.mode"
    case nodeSEVMode = "node.sev.mode"
    case userIsRoot = "user.isRoot"
    case userIsInKVMGroup = "user.isInGroupOfKVM"
    case kvmVersion = "kvm.apiVersion"
    case vmTypes = "kvm.vmTypes"
    case guestMemfd = "kvm.guestMemfd"
    case memoryAttributes = "kvm.memoryAttributes"
    case userMemory2 = "kvm.userMemory2"
    case memoryFaultInfo = "kvm.memoryFaultInfo"
    case exitHypercall = "kvm.exitHypercall"
    case maximumVCPUs = "kvm.maximumVCPUs"
    case vmsaFeatures = "kvm.vmsaFeatures"
    case policyBits = "kvm.policyBits"
    case certificateRequests = "kvm.certificateRequests"
    case initializeSEV = "kvm.init.sev"
    case initializeSEVES = "kvm.init.sev-es"
    case initializeSNP = "kvm.init.snp"
    case firmwareAnswer = "firmware.answer"
    case firmwareAPI = "firmware.api"
    case firmwareBuild = "firmware.build"
    case firmwareState = "firmware.state"
    case firmwareFlags = "firmware.flags"
    case firmwareGuests = "firmware.guests"
    case snpAnswer = "snp.answer"
    case snpState = "snp.state"
    case snpRMPFlags = "snp.rmpFlags"
    case snpFlags = "snp.flags"
    case snpGuests = "snp.guests"
    case currentTCB = "snp.currentTCB"
    case reportedTCB = "snp.reportedTCB"
    case chipID = "chip.id"
    case capacitySEV = "cgroup.sev.capacity"
    case capacitySEVES = "cgroup.sev_es.capacity"
    case usedSEV = "cgroup.sev.current"
    case usedSEVES = "cgroup.sev_es.current"
    case memoryTotal = "memory.total"
    case memoryAvailable = "memory.available"
    case hugePagesFree = "memory.hugePagesFree"
    case limitMemoryLock = "limit.memlock"
    case limitOpenFiles = "limit.nofile"

    /// How the value is written.
    public enum Kind: Sendable {
        /// 0 to 2^64 - 1.
        case number
        /// The same, which people read in hex.
        case mask
        case flag
        case text
    }

    public var kind: Kind { row.kind }

    /// What it is and where it comes from.
    public var meaning: String { row.meaning }

    private var row: (kind: Kind, meaning: String) {
        switch self {
        case .cpuVendor: (.text, "CPUID 0: AuthenticAMD")
        case .cpuBrand: (.text, "CPUID 0x80000002 to 0x80000004")
        case .cpuSignature: (.mask, "CPUID 1 EAX: family, model, stepping")
        case .cpuIsGuest: (.flag, "CPUID 1 ECX bit 31: this host is a virtual machine")
        case .cpuMicrocode: (.mask, "/proc/cpuinfo: the microcode's patch level")
        case .cpuSMT: (.flag, "/sys/devices/system/cpu/smt/active")
        case .sevFeatures: (.mask, "CPUID 0x8000001F EAX: 0 SME, 1 SEV, 3 SEV-ES, 4 SEV-SNP, 5 VMPL")
        case .sevCBit: (.number, "CPUID 0x8000001F EBX 5:0")
        case .sevASIDs: (.number, "CPUID 0x8000001F ECX: the highest ASID of encrypted guests")
        case .sevMinimumASID:
            (.number, "CPUID 0x8000001F EDX: the lowest ASID that is SEV's; those below are SEV-ES's and SNP's")
        case .syscfg: (.mask, "MSR 0xC0010010: bit 23 SMEE, 24 SNP, 25 VMPL")
        case .hwcr: (.mask, "MSR 0xC0010015: bit 0 SMMLOCK")
        case .rmpBase: (.mask, "MSR 0xC0010132")
        case .rmpEnd: (.mask, "MSR 0xC0010133: the RMP's last byte")
        case .rmpConfiguration: (.mask, "MSR 0xC0010136: bit 0, the RMP is in segments")
        case .kernelRelease: (.text, "/proc/sys/kernel/osrelease")
        case .kernelOptions: (.text, "of the kernel's command line only mem_encrypt, iommu, amd_iommu and kvm_amd")
        case .iommuCount: (.number, "/sys/class/iommu: how many")
        case .iommuDomain: (.text, "/sys/kernel/iommu_groups/0/type: identity is passthrough")
        case .ccpIsLoaded: (.flag, "/sys/module/ccp")
        case .kvmAMDIsLoaded: (.flag, "/sys/module/kvm_amd")
        case .parameterSEV: (.text, "/sys/module/kvm_amd/parameters/sev")
        case .parameterSEVES: (.text, "/sys/module/kvm_amd/parameters/sev_es")
        case .parameterSNP: (.text, "/sys/module/kvm_amd/parameters/sev_snp")
        case .nodeKVM: (.text, "opening /dev/kvm: ok, or the errno's name")
        case .nodeSEV: (.text, "opening /dev/sev: ok, or the errno's name")
        case .nodeKVMMode: (.text, "permissions of /dev/kvm, in octal")
        case .nodeSEVMode: (.text, "permissions of /dev/sev, in octal")
        case .userIsRoot: (.flag, "the user is root")
        case .userIsInKVMGroup: (.flag, "one of the user's groups is /dev/kvm's")
        case .kvmVersion: (.number, "KVM_GET_API_VERSION")
        case .vmTypes: (.mask, "KVM_CAP_VM_TYPES: bit 2 SEV, 3 SEV-ES, 4 SNP")
        case .guestMemfd: (.number, "KVM_CAP_GUEST_MEMFD")
        case .memoryAttributes: (.mask, "KVM_CAP_MEMORY_ATTRIBUTES: bit 3 private")
        case .userMemory2: (.number, "KVM_CAP_USER_MEMORY2")
        case .memoryFaultInfo: (.number, "KVM_CAP_MEMORY_FAULT_INFO")
        case .exitHypercall: (.mask, "KVM_CAP_EXIT_HYPERCALL: bit 12 page-state changes")
        case .maximumVCPUs: (.number, "KVM_CAP_MAX_VCPUS")
        case .vmsaFeatures: (.mask, "KVM_X86_SEV_VMSA_FEATURES: it came with KVM_SEV_INIT2")
        case .policyBits: (.mask, "KVM_X86_SNP_POLICY_BITS: what the kernel and the firmware accept")
        case .certificateRequests: (.number, "KVM_X86_SEV_SNP_REQ_CERTS")
        case .initializeSEV: (.text, "making a SEV VM and KVM_SEV_INIT2: ok, or what refused")
        case .initializeSEVES: (.text, "making a SEV-ES VM and KVM_SEV_INIT2: ok, or what refused")
        case .initializeSNP: (.text, "making an SNP VM and KVM_SEV_INIT2: ok, or what refused")
        case .firmwareAnswer: (.text, "SEV_PLATFORM_STATUS: ok, or what refused")
        case .firmwareAPI: (.text, "SEV_PLATFORM_STATUS: API version, major.minor")
        case .firmwareBuild: (.number, "SEV_PLATFORM_STATUS: build")
        case .firmwareState: (.number, "SEV_PLATFORM_STATUS: 0 uninitialised, 1 initialised, 2 working")
        case .firmwareFlags: (.mask, "SEV_PLATFORM_STATUS: bit 0 owned, 8 SEV-ES")
        case .firmwareGuests: (.number, "SEV_PLATFORM_STATUS: SEV and SEV-ES guests")
        case .snpAnswer: (.text, "SNP_PLATFORM_STATUS: ok, or what refused")
        case .snpState: (.number, "SNP_PLATFORM_STATUS: 0 uninitialised, 1 initialised")
        case .snpRMPFlags: (.mask, "SNP_PLATFORM_STATUS: bit 0, the RMP is initialised")
        case .snpFlags: (.mask, "SNP_PLATFORM_STATUS: bit 0 mask chip id, 1 mask chip key, 2 VLEK")
        case .snpGuests: (.number, "SNP_PLATFORM_STATUS: SNP guests")
        case .currentTCB: (.mask, "SNP_PLATFORM_STATUS: the versions that run")
        case .reportedTCB: (.mask, "SNP_PLATFORM_STATUS: the versions in reports")
        case .chipID: (.text, "SEV_GET_ID2, in hex: names the chip. Recorded only when asked for")
        case .capacitySEV: (.number, "misc.capacity: ASIDs for SEV")
        case .capacitySEVES: (.number, "misc.capacity: ASIDs for SEV-ES and SNP")
        case .usedSEV: (.number, "misc.current: ASIDs for SEV in use")
        case .usedSEVES: (.number, "misc.current: ASIDs for SEV-ES and SNP in use")
        case .memoryTotal: (.number, "/proc/meminfo MemTotal, in bytes")
        case .memoryAvailable: (.number, "/proc/meminfo MemAvailable, in bytes")
        case .hugePagesFree: (.number, "/proc/meminfo HugePages_Free")
        case .limitMemoryLock: (.number, "RLIMIT_MEMLOCK, in bytes; 2^64 - 1 is no limit")
        case .limitOpenFiles: (.number, "RLIMIT_NOFILE")
        }
    }
}

/// What is known of a fact.
public enum HostValue: Equatable, Sendable {
    case number(UInt64)
    case flag(Bool)
    case text(String)
    /// It could not be read, and why: an errno's name.
    case unreadable(String)
}
