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
            .destroyMemoryRegionWorks, .joinMemoryRegionsWorks, .pit2, .setBootCPUID, .setIdentityMapAddress,
            .internalErrorData, .vcpuEvents, .debugRegisters, .robustSinglestep, .xsave, .xcrs, .tscControl,
            .vmTSCControl, .getTSCkHz,
            .signalMSI, .enableCapabilityVM, .splitIRQChip, .immediateExit, .sysAttributes, .userMemory2,
            .memoryFaultInfo, .preFaultMemory, .tscDeadlineTimer, .setGuestDebug, .getMSRFeatures, .vapic,
            .msrPlatformInfo,
            .exceptionPayload, .irqfd, .irqfdResample, .ioeventfd, .ioeventfdNoLength, .ioeventfdAnyLength,
            .coalescedPIO, .kvmclockControl, .userNMI, .pitState2, .reinjectControl, .tripleFaultEvent, .msrFilter:
            return 1
        // Routes of KVM_SET_GSI_ROUTING.
        case .irqRouting: return 4096
        case .guestMemfd: return hasPrivateMemory ? 1 : 0
        // As many as run at a time.
        case .recommendedVCPUCount:
            return Int32(min(GuestGate.hostCapacity, VirtualMachine.maximumVCPUCount))
        case .maximumVCPUCount: return Int32(VirtualMachine.maximumVCPUCount)
        case .maximumVCPUID: return Int32(VirtualMachine.maximumVCPUID)
        case .memorySlotCount: return Int32(GuestMemory.slotLimit)
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
        // KVM_SYNC_X86_REGS, _SREGS, _EVENTS.
        case .syncRegisters: return protectsState ? 0 : 7
        case .setGuestDebug2: return Int32(KVMGuestDebug.supported)
        // KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE, _INITIALLY_SET.
        case .manualDirtyLogProtect2: return 3
        // The ring is the third page of a vCPU's mapping.
        case .coalescedMMIO: return 2
        // KVM_MSR_EXIT_REASON_INVAL, _UNKNOWN, _FILTER.
        case .userSpaceMSR: return 7
        // PAUSE, HLT and MWAIT leave as they do; there is no LINT0 or PIT quirk to switch off either.
        case .disableExits, .disableQuirks, .disableQuirks2: return 0
        case .mce: return Int32(MachineCheck.bankCount)
        // Among them X86_SMM, and copying or moving an encryption context to another VM: not offered.
        default: return 0
        }
    }
}
