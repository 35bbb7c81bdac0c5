// The scenarios with names.

import HostDiagnosis
import KVMABI
import SEVABI

extension HostScenario {
    /// A named scenario; nil for a name that there is not.
    public static func named(_ name: String) -> HostScenario? { builtIn.first { $0.name == name } }

    /// All named scenarios, the healthy host first.
    public static let builtIn: [HostScenario] = [HostScenario()] + boards + kernels + nodes + firmwares + shortages

    private static func scenario(
        _ name: String, stops technology: GuestTechnology?, _ about: String, _ change: (inout HostScenario) -> Void
    ) -> HostScenario {
        var scenario = HostScenario()
        (scenario.name, scenario.about, scenario.stops) = (name, about, technology)
        change(&scenario)
        return scenario
    }

    private static let withoutSNP: Set<VMType> = [.plain, .sev, .sevES]
    /// SYSCFG with memory encryption, and no SNP.
    private static let syscfgWithoutSNP = HostValue.number(1 << 23)

    // MARK: Processor and firmware set-up

    private static let boards: [HostScenario] = [
        scenario("no-amd", stops: .snp, "a processor of another vendor") {
            $0.vmTypes = [.plain]
            $0.closedNodes[.sev] = .ENOENT
            $0.facts[.cpuVendor] = .text("GenuineIntel")
            $0.facts[.sevFeatures] = .number(0)
            $0.facts[.ccpIsLoaded] = .flag(false)
            $0.facts[.kvmAMDIsLoaded] = .flag(false)
        },
        scenario("virtual-host", stops: .snp, "the host is itself a virtual machine, which is given no SEV") {
            $0.vmTypes = [.plain]
            $0.closedNodes[.sev] = .ENOENT
            $0.facts[.cpuIsGuest] = .flag(true)
            $0.facts[.sevFeatures] = .number(0)
        },
        scenario("rome", stops: .snp, "an EPYC from before SNP") {
            $0.vmTypes = withoutSNP
            $0.facts[.cpuSignature] = .number(0x0083_0f10)
            $0.facts[.sevFeatures] = .number(0b1011)
        },
        scenario("no-sev-in-bios", stops: .sev, "SMEE is off in the BIOS") {
            $0.vmTypes = [.plain]
            $0.closedNodes[.sev] = .ENOENT
            $0.facts[.syscfg] = .number(0)
            $0.facts[.rmpBase] = .number(0)
            $0.facts[.rmpEnd] = .number(0)
        },
        scenario("no-snp-in-bios", stops: .snp, "SNP is off in the BIOS: no memory is set aside for the RMP") {
            $0.vmTypes = withoutSNP
            $0.facts[.syscfg] = syscfgWithoutSNP
            $0.facts[.rmpBase] = .number(0)
            $0.facts[.rmpEnd] = .number(0x1fff)
        },
        scenario("rmp-too-small", stops: .snp, "the RMP does not cover the memory: the kernel leaves SNP off") {
            $0.vmTypes = withoutSNP
            $0.facts[.syscfg] = syscfgWithoutSNP
            $0.facts[.rmpEnd] = .number(1 << 30 + 1 << 20 - 1)
        },
        scenario("no-snp-asids", stops: .snp, "the minimum SEV ASID is 1: none is left for SEV-ES and SNP") {
            $0.vmTypes = [.plain, .sev]
            $0.stateASIDCount = 0
        },
        scenario("no-sev-asids", stops: .sev, "the minimum SEV ASID is above the highest: none is left for SEV") {
            $0.memoryASIDCount = 0
        },
    ]

    // MARK: The kernel and its modules

    private static let kernels: [HostScenario] = [
        scenario("iommu-missing", stops: .snp, "the IOMMU is off: the kernel leaves SNP off") {
            $0.vmTypes = withoutSNP
            $0.facts[.syscfg] = syscfgWithoutSNP
            $0.facts[.iommuCount] = .number(0)
            $0.facts[.iommuDomain] = .unreadable("ENOENT")
        },
        scenario("iommu-passthrough", stops: .snp, "the IOMMU is in passthrough mode: the kernel leaves SNP off") {
            $0.vmTypes = withoutSNP
            $0.facts[.syscfg] = syscfgWithoutSNP
            $0.facts[.kernelOptions] = .text("iommu=pt")
            $0.facts[.iommuDomain] = .text("identity")
        },
        scenario("sev-module-off", stops: .sev, "kvm_amd was loaded with sev=0") { $0.vmTypes = [.plain] },
        scenario("sev-es-module-off", stops: .sevES, "kvm_amd was loaded with sev_es=0") {
            $0.vmTypes = [.plain, .sev]
        },
        scenario("snp-module-off", stops: .snp, "kvm_amd was loaded with sev_snp=0") {
            $0.vmTypes = withoutSNP
            $0.facts[.syscfg] = .number(1 << 23 | 1 << 24 | 1 << 25)
        },
        scenario("kernel-6.1", stops: .snp, "a kernel from before VM types, guest_memfd and KVM_SEV_INIT2") {
            $0.vmTypes = withoutSNP
            $0.missingCapabilities = [
                .vmTypes, .guestMemfd, .memoryAttributes, .userMemory2, .memoryFaultInfo, .preFaultMemory,
                .guestMemfdFlags, .apicBusCyclesNanoseconds,
            ]
            $0.deviceAttributeCount = 0
            $0.facts[.kernelRelease] = .text("6.1.0-software")
            $0.facts[.parameterSNP] = .unreadable("ENOENT")
            $0.facts[.syscfg] = syscfgWithoutSNP
        },
        scenario("kernel-6.10", stops: .snp, "a kernel that launches SEV and SEV-ES guests, and no SNP guests yet") {
            $0.vmTypes = withoutSNP
            $0.missingCapabilities = [.preFaultMemory, .guestMemfdFlags]
            $0.deviceAttributeCount = 1
            $0.facts[.kernelRelease] = .text("6.10.0-software")
            $0.facts[.parameterSNP] = .unreadable("ENOENT")
        },
        scenario("kernel-6.12", stops: nil, "a kernel that wants SMT in the policy, and has no certificate requests") {
            $0.acceptedPolicyBits = 0xffff | 1 << 16 | 1 << 17 | 1 << 19
            $0.requiredPolicyBits = 1 << 16
            $0.deviceAttributeCount = 1
            $0.missingCapabilities = [.guestMemfdFlags]
            $0.facts[.kernelRelease] = .text("6.12.0-software")
        },
    ]

    // MARK: Nodes and permissions

    private static let nodes: [HostScenario] = [
        scenario("no-kvm-node", stops: .snp, "there is no /dev/kvm") {
            $0.closedNodes[.kvm] = .ENOENT
            $0.facts[.kvmAMDIsLoaded] = .flag(false)
            $0.facts[.nodeKVMMode] = .unreadable("ENOENT")
        },
        scenario("kvm-without-permission", stops: .snp, "the user may not open /dev/kvm") {
            $0.closedNodes[.kvm] = .EACCES
            $0.facts[.userIsInKVMGroup] = .flag(false)
        },
        scenario("container", stops: .snp, "a container that was not given /dev/kvm") { $0.closedNodes[.kvm] = .EPERM },
        scenario("no-sev-node", stops: .snp, "there is no /dev/sev: the driver ccp is not loaded") {
            $0.closedNodes[.sev] = .ENOENT
            $0.facts[.ccpIsLoaded] = .flag(false)
            $0.facts[.nodeSEVMode] = .unreadable("ENOENT")
        },
        scenario("sev-without-permission", stops: .snp, "the user may not open /dev/sev") {
            $0.closedNodes[.sev] = .EACCES
            $0.facts[.nodeSEVMode] = .text("600")
        },
    ]

    // MARK: The firmware

    private static let firmwares: [HostScenario] = [
        scenario("rmp-not-initialised", stops: .snp, "SNP_INIT failed: the RMP is not initialised") {
            $0.initializesSNP = false
        },
        scenario("firmware-too-old", stops: .snp, "the SEV firmware is from before SNP") {
            $0.initializesSNP = false
            $0.firmwareAPI = FirmwareVersion(apiMajor: 1, apiMinor: 49, build: 3)
            $0.answers = [
                .init("KVM_SEV_SNP_LAUNCH_START", .ENOTTY, .invalidCommand),
                .init("SNP_PLATFORM_STATUS", .EIO, .invalidCommand),
            ]
        },
        scenario("firmware-damaged", stops: .snp, "the platform's stored keys do not verify") {
            $0.answers = [.init("KVM_SEV_INIT2", .EIO, .secureDataInvalid)]
        },
        scenario("sockets-differ", stops: .snp, "the firmware finds the processors set up unlike") {
            $0.answers = [.init("KVM_SEV_INIT2", .EIO, .invalidConfig)]
        },
        scenario("psp-dead", stops: .snp, "the secure processor stopped answering: its driver refuses everything") {
            // GCTX_CREATE's errno is lost on the way: KVM says ENOTTY, and the status stays what it was.
            $0.answers = [
                .init("KVM_SEV_SNP_LAUNCH_START", .ENOTTY), .init("KVM_SEV_LAUNCH_START", .EBUSY),
                .init("SEV_ISSUE_CMD", .ETIMEDOUT, times: 1), .init("SEV_ISSUE_CMD", .EBUSY),
            ]
        },
        scenario("psp-busy", stops: nil, "the secure processor is busy: every other update has to be asked for again") {
            $0.answers = [.init("KVM_SEV_SNP_LAUNCH_UPDATE", .EAGAIN, every: 2)]
        },
        scenario(
            "partial-updates", stops: nil, "updates stop early: after three pages, or with EAGAIN before the first"
        ) {
            $0.pagesPerUpdate = 3
            $0.answers = [.init("KVM_SEV_SNP_LAUNCH_UPDATE", .EAGAIN, every: 5)]
        },
        scenario("psp-busy-for-ever", stops: .snp, "the secure processor takes no page") {
            $0.answers = [.init("KVM_SEV_SNP_LAUNCH_UPDATE", .EAGAIN, after: 1)]
        },
        scenario("cpuid-refused", stops: .snp, "the firmware does not vouch for a feature that the kernel offers") {
            $0.refusedCPUID = [.init(leaf: 7, register: .ebx, bits: 1 << 5)]
        },
        scenario("policy-refused", stops: .snp, "the platform does not meet the guest policy") {
            $0.answers = [.init("KVM_SEV_SNP_LAUNCH_START", .EIO, .policyFailure)]
        },
        scenario("id-block-refused", stops: .snp, "the firmware finds another digest than the ID block's") {
            $0.answers = [.init("KVM_SEV_SNP_LAUNCH_FINISH", .EIO, .badMeasurement)]
        },
        scenario("rmp-out-of-step", stops: .snp, "the RMP has a page that was free for another use") {
            $0.answers = [.init("KVM_SEV_SNP_LAUNCH_UPDATE", .EIO, .invalidPageState, after: 2)]
        },
        scenario("firmware-uncommitted", stops: nil, "newer firmware runs than reports tell") {
            $0.reportedTCB = TCBVersion(bootLoader: 3, tee: 0, snp: 8, microcode: 115)
        },
    ]

    // MARK: What runs out

    private static let shortages: [HostScenario] = [
        scenario("asids-in-use", stops: .snp, "other guests have all ASIDs") { $0.hasASIDsInUse = true },
        scenario("out-of-memory", stops: .snp, "the host has less memory than the guest's image") {
            $0.systemMemoryByteCount = 8 << 20
        },
        scenario("no-memory-for-vm", stops: .snp, "the kernel has no memory for another VM") {
            $0.answers = [.init("KVM_CREATE_VM", .ENOMEM)]
        },
        scenario("too-many-files", stops: .snp, "the limit on open files") {
            $0.answers = [.init("KVM_CREATE_GUEST_MEMFD", .EMFILE)]
            $0.facts[.limitOpenFiles] = .number(16)
        },
        scenario("memlock-limit", stops: .sev, "the limit on locked memory is below the guest's memory") {
            $0.lockedMemoryLimit = 1 << 20
        },
    ]
}
