// Non-automatic exits by event: what each does with the registers of the GHCB [GHCB 4.1].

import KVMABI
import SEVABI

extension VirtualCPU {
    func handleEvent(_ session: GHCBSession) -> RunStep {
        var session = session
        switch GHCBEvent(rawValue: session.exitCode) {
        case .cpuid:
            let values = cpuidValues(
                UInt32(truncatingIfNeeded: session.rax), UInt32(truncatingIfNeeded: session.rcx))
            session.rax = UInt64(values.eax)
            session.rbx = UInt64(values.ebx)
            session.rcx = UInt64(values.ecx)
            session.rdx = UInt64(values.edx)
        case .msr: return handleMSREvent(session)
        case .ioio: return handlePortEvent(session)
        case .mmioRead: return handleMMIOEvent(session, isWrite: false)
        case .mmioWrite: return handleMMIOEvent(session, isWrite: true)
        case .vmmcall: return handleHypercall(session)
        case .rdtsc, .rdtscp:
            let counter = tsc
            session.rax = counter & 0xffff_ffff
            session.rdx = counter >> 32
            if session.exitCode == GHCBEvent.rdtscp.rawValue { session.rcx = savedState.tscAux }
        case .rdpmc:
            // Four counters that nothing counts in; others do not exist.
            if session.rcx & 0x3fff_ffff > 3 { return inject(session, vector: 13) }
            session.rax = 0
            session.rdx = 0
        case .nmiComplete: nmiMasked = false
        case .apResetHold:
            writeRegisters(session)
            return holdForReset(.event(session))
        case .apJumpTable:
            switch session.exitInfo1 {
            case 0: vm.apJumpTable.store(session.exitInfo2, ordering: .relaxed)
            case 1: answer(session, info1: 0, info2: vm.apJumpTable.load(ordering: .relaxed))
            default: return refuse(session, .invalidInput)
            }
        case .hypervisorFeatures: answer(session, info1: 0, info2: Self.hypervisorFeatures.rawValue)
        case .termination: return terminate(session.gpa)
        case .pageStateChange: return beginPageStateChange(session)
        case .apCreation: return handleProcessorCreation(session)
        case .guestRequest: return handleGuestRequest(session)
        case .extendedGuestRequest: return handleExtendedGuestRequest(session)
        case .unsupported: return .fail(.EINVAL)
        // DR7, INVD, WBINVD, MONITOR, MWAIT: nothing to do.
        default: break
        }
        return finish(session)
    }

    // MARK: AP creation [GHCB 4.1.9; KVM sev_snp_ap_creation]

    /// Starts another vCPU with a state that the guest has put into a page of its own, or ends one.
    private func handleProcessorCreation(_ session: GHCBSession) -> RunStep {
        let apicID = UInt32(truncatingIfNeeded: session.exitInfo1 >> 32)
        guard let snp = vm.snp, let target = vm.vcpus.first(where: { $0.id == apicID }), target !== self else {
            return refuse(session, .invalidInput)
        }
        switch session.exitInfo1 & 0xffff_ffff {
        case 1:
            // A VMSA at the start of a 2 MiB frame meets an erratum of real processors.
            guard session.rax == snp.vmsaFeatures, session.exitInfo2 & 0xfff == 0, session.exitInfo2 & 0x1f_ffff != 0
            else { return refuse(session, .invalidInput) }
            target.ask(.create(vmsa: session.exitInfo2))
        case 2: target.ask(.destroy)
        // On INIT (0): an INIT from outside never reaches an SNP guest's vCPU here.
        default: return refuse(session, .invalidInput)
        }
        return finish(session)
    }

    // MARK: MSR

    private func handleMSREvent(_ session: GHCBSession) -> RunStep {
        var session = session
        let number = UInt32(truncatingIfNeeded: session.rcx)
        if session.exitInfo1 == 0 {
            guard let value = readMSR(number) else { return inject(session, vector: 13) }
            session.rax = value & 0xffff_ffff
            session.rdx = value >> 32
        } else {
            let value = session.rdx << 32 | session.rax & 0xffff_ffff
            guard writeMSR(number, value) else { return inject(session, vector: 13) }
        }
        return finish(session)
    }

    // MARK: Hypercalls [KVM hypercalls.rst]

    private func handleHypercall(_ session: GHCBSession) -> RunStep {
        var session = session
        switch hypercall(
            session.rax, session.rbx, session.rcx, session.rdx, 0, cpl: session.cpl, isLongMode: true)
        {
        case .result(let value):
            session.rax = value
            return finish(session)
        case .exit:
            completion = .ghcbHypercall(session)
            return .exit(.hypercall)
        }
    }

    enum HypercallOutcome {
        case result(UInt64)
        /// The VMM answers; the run page is filled.
        case exit
    }

    /// KVM's hypercalls; unknown ones answer -KVM_ENOSYS.
    func hypercall(
        _ number: UInt64, _ a0: UInt64, _ a1: UInt64, _ a2: UInt64, _ a3: UInt64, cpl: UInt64, isLongMode: Bool
    )
        -> HypercallOutcome
    {
        let notPermitted = UInt64(bitPattern: -1)
        let unknown = UInt64(bitPattern: -1000)
        let invalid = UInt64(bitPattern: -22)
        if cpl != 0 { return .result(notPermitted) }
        switch number {
        // KVM_HC_VAPIC_POLL_IRQ.
        case 1: return .result(0)
        case KVM.hypercallMapGPARange:
            guard vm.hypercallExits.load(ordering: .relaxed) & KVM.exitHypercallMapGPARange != 0 else {
                return .result(unknown)
            }
            let (byteCount, overflow) = a1.multipliedReportingOverflow(by: 4096)
            if a0 & 4095 != 0 || a1 == 0 || overflow || a0.addingReportingOverflow(byteCount).overflow {
                return .result(invalid)
            }
            runPage.hypercall = RunPage.Hypercall(
                number: number, arguments: [a0, a1, a2, 0, 0, 0], flags: isLongMode ? 1 : 0)
            return .exit
        case KVM.hypercallSendIPI: return .result(sendIPIs(to: a0, a1, from: a2, command: a3))
        default: return .result(unknown)
        }
    }

    /// KVM_HC_SEND_IPI: a bitmap of 128 APIC ids from `first` on, and an ICR. Returns how many took it.
    private func sendIPIs(to low: UInt64, _ high: UInt64, from first: UInt64, command: UInt64) -> UInt64 {
        // A destination mode or a shorthand makes no sense beside the bitmap.
        if command & 0xc0800 != 0 { return UInt64(bitPattern: -22) }
        guard first <= UInt64(UInt32.max) else { return 0 }
        return vm.withInterrupts { $0.deliver(command: UInt32(truncatingIfNeeded: command), low, high, from: first) }
    }
}
