// KVM_CHECK_EXTENSION: what this kernel can do, on the system handle and on a VM [KVM KVM_CHECK_EXTENSION].

import KVMABI

extension SoftwareKVM {
    /// The answer on this host. `type` is nil on the system handle.
    func value(of capability: Capability, vmType type: VMType?) -> Int32 {
        let scenario = configuration.scenario
        if scenario.missingCapabilities.contains(capability) { return 0 }
        return capability == .vmTypes ? scenario.vmTypesValue : capability.value(vmType: type)
    }
}

extension Capability {
    /// The answer for this kernel. `type` is nil on the system handle.
    func value(vmType type: VMType?) -> Int32 {
        let hasPrivateMemory = type == nil || type == .snp
        let protectsState = type == .snp || type == .sevES
        switch self {
        case .irqChip, .userMemory, .setTSSAddress, .extendedCPUID, .clockSource, .mpState, .syncMMU,
            .destroyMemoryRegionWorks, .irqRouting, .joinMemoryRegionsWorks, .pit2, .setIdentityMapAddress,
            .internalErrorData, .vcpuEvents, .debugRegisters, .robustSinglestep, .xsave, .xcrs, .tscControl, .getTSCkHz,
            .signalMSI, .enableCapabilityVM, .splitIRQChip, .immediateExit, .sysAttributes, .userMemory2,
            .memoryFaultInfo, .preFaultMemory, .tscDeadlineTimer:
            return 1
        case .guestMemfd: return hasPrivateMemory ? 1 : 0
        case .recommendedVCPUCount: return 1
        case .maximumVCPUCount: return Int32(VirtualMachine.maximumVCPUCount)
        case .maximumVCPUID: return 4096
        case .memorySlotCount: return 32764
        // KVM_CLOCK_TSC_STABLE, REALTIME, HOST_TSC.
        case .adjustClock: return 2 | 4 | 8
        case .exitHypercall: return 1 << 12
        case .memoryAttributes: return hasPrivateMemory ? 8 : 0
        // A write to a read-only slot is emulated, which takes registers that the host can see.
        case .readOnlyMemory: return protectsState ? 0 : 1
        case .gpaBits: return 48
        case .xsave2: return 4096
        case .apicBusCyclesNanoseconds: return 1
        // KVM_X2APIC_API_USE_32BIT_IDS, _DISABLE_BROADCAST_QUIRK.
        case .x2apicAPI: return 3
        // Among them SYNC_REGS and X86_SMM, and copying or moving an encryption context to another VM: not offered.
        default: return 0
        }
    }
}
