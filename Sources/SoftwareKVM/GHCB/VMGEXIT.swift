// VMGEXIT: the MSR protocol, or an event in the guest's GHCB [GHCB 2.3, 4; KVM sev_handle_vmgexit].
//
// Needs no processor: tests drive it with a GHCB in memory and an MSR value.

import KVMABI
import SEVABI

extension VirtualCPU {
    /// KVM's features: SNP and AP creation.
    static let hypervisorFeatures: HypervisorFeatures = [.snp, .apCreation]

    package func handleVMGEXIT() -> RunStep {
        let msr = GHCBMSR(rawValue: ghcbMSR)
        if msr.code != .ghcbAddress { return handleMSRProtocol(msr) }
        // Nothing registered, or no memory there: back to the guest, which will find nothing changed.
        guard msr.rawValue != 0, let page = vm.memory.userPage(gpa: msr.rawValue, writing: true),
            let ghcb = GHCB(bytes: page.copyBytes(at: 0, count: 4096))
        else { return .resume }
        // SEV-ES knows no registration.
        if isSNP, registeredGHCB != msr.rawValue { return .fail(.EINVAL) }
        page.clearValidBitmap()
        let session = GHCBSession(gpa: msr.rawValue, ghcb: ghcb)
        if let refusal = GHCBSession.refusal(of: ghcb, isSNP: isSNP) { return refuse(session, refusal) }
        answer(session, info1: 0, info2: 0)
        return handleEvent(session)
    }

    // MARK: MSR protocol [GHCB 2.3.1]

    private func handleMSRProtocol(_ msr: GHCBMSR) -> RunStep {
        switch msr.code {
        // Requests that only an SNP guest may make end any other.
        case .preferredGHCBRequest, .registerGHCBRequest, .pageStateChangeRequest:
            if !isSNP { return terminate(msr.rawValue) }
        default: break
        }
        switch msr.code {
        case .sevInfoRequest:
            ghcbMSR = Self.initialGHCBMSR(vm).rawValue
        case .cpuidRequest:
            let values = cpuidValues(msr.cpuidFunction, 0)
            let value = [values.eax, values.ebx, values.ecx, values.edx][msr.cpuidRegister]
            ghcbMSR = GHCBMSR.cpuidResponse(register: msr.cpuidRegister, value: value).rawValue
        case .apResetHoldRequest:
            ghcbMSR = GHCBMSR(.apResetHoldResponse).rawValue
            return holdForReset(.msrProtocol)
        case .preferredGHCBRequest:
            ghcbMSR = GHCBMSR(.preferredGHCBResponse, data: 0xf_ffff_ffff_ffff).rawValue
        case .registerGHCBRequest:
            registeredGHCB = msr.data << 12
            ghcbMSR = GHCBMSR(.registerGHCBResponse, data: msr.data).rawValue
        case .pageStateChangeRequest: return beginPageStateChange(msr)
        case .hypervisorFeaturesRequest:
            ghcbMSR = GHCBMSR(.hypervisorFeaturesResponse, data: Self.hypervisorFeatures.rawValue).rawValue
        case .terminationRequest: return terminate(msr.rawValue)
        // Unknown codes leave the MSR as it is.
        default: break
        }
        return .resume
    }

    /// The MSR's value at reset, and the answer to an information request.
    static func initialGHCBMSR(_ vm: VirtualMachine) -> GHCBMSR {
        .sevInfo(
            maximumVersion: vm.snp?.ghcbVersion ?? vm.sev?.ghcbVersion ?? 2,
            cBit: vm.kernel.configuration.profile.cBitPosition)
    }

    /// The guest gives up: an exit that carries the GHCB MSR.
    func terminate(_ value: UInt64) -> RunStep {
        runPage.systemEvent = RunPage.SystemEvent(type: .sevTermination, data: [value])
        return .exit(.systemEvent)
    }

    /// The vCPU waits for a SIPI, which an SNP guest's never gets.
    func holdForReset(_ hold: ResetHold) -> RunStep {
        resetHold = hold
        if vm.interrupts.withLock({ $0.hasLocalAPIC }) {
            mpState = .apResetHold
            return .resume
        }
        return .exit(.apResetHold)
    }

    // MARK: Page state change by MSR

    private var exitsForMapGPARange: Bool {
        vm.hypercallExits.load(ordering: .relaxed) & KVM.exitHypercallMapGPARange != 0
    }

    private static let pageStateError: UInt32 = 1 << 31

    private func beginPageStateChange(_ msr: GHCBMSR) -> RunStep {
        let operation = msr.pageStateOperation
        guard operation == .makePrivate || operation == .makeShared, exitsForMapGPARange else {
            ghcbMSR = GHCBMSR.pageStateChangeResponse(error: Self.pageStateError).rawValue
            return .resume
        }
        completion = .msrPageStateChange
        return exitForMapGPARange(
            gpa: msr.pageStateFrame << 12, pageCount: 1,
            attributes: operation == .makePrivate ? PageStateChange.encrypted : 0)
    }

    func completeMSRPageStateChange() -> RunStep {
        let error = runPage.hypercallResult != 0 ? Self.pageStateError : 0
        ghcbMSR = GHCBMSR.pageStateChangeResponse(error: error).rawValue
        return .resume
    }

    private func exitForMapGPARange(gpa: UInt64, pageCount: UInt64, attributes: UInt64) -> RunStep {
        runPage.hypercall = RunPage.Hypercall(
            number: KVM.hypercallMapGPARange, arguments: [gpa, pageCount, attributes, 0, 0, 0])
        return .exit(.hypercall)
    }

    // MARK: Page state change by GHCB

    func beginPageStateChange(_ session: GHCBSession) -> RunStep {
        guard let area = ScratchArea(scratch: session.scratch, byteCount: session.exitInfo2, ghcbGPA: session.gpa)
        else {
            return refuse(session, .invalidScratchArea)
        }
        guard exitsForMapGPARange else { return finishPageStateChange(session, .generic) }
        let reach = area.reach(ghcbGPA: session.gpa)
        guard reach >= PageStateChangeHeader.byteCount, let bytes = vm.memory.read(gpa: area.gpa, byteCount: reach),
            let header = PageStateChangeHeader(bytes: bytes)
        else { return finishPageStateChange(session, .invalidHeader) }
        let available = (reach - PageStateChangeHeader.byteCount) / PageStateChangeEntry.byteCount
        let count = min(available, Int(header.endEntry) + 1, PageStateChangeHeader.maximumEntryCount)
        let entries = (0..<count).map { index in
            PageStateChangeEntry(
                rawValue: UInt64(kernelBytes: bytes, at: PageStateChangeHeader.byteCount + 8 * index) ?? 0)
        }
        return continuePageStateChange(session, PageStateChange(header: header, entries: entries))
    }

    /// After the VMM's answer.
    func completePageStateChange(_ session: GHCBSession, _ change: PageStateChange) -> RunStep {
        if runPage.hypercallResult != 0 { return finishPageStateChange(session, .generic) }
        var change = change
        change.complete()
        return continuePageStateChange(session, change)
    }

    private func continuePageStateChange(_ session: GHCBSession, _ change: PageStateChange) -> RunStep {
        var change = change
        let step = change.next()
        for write in change.takeWrites() {
            // The structure was read from here a moment ago; a slot deleted since then loses the progress.
            switch write {
            case .currentEntry(let value): _ = vm.memory.write(gpa: session.scratch, value.kernelBytes)
            case .entry(let index, let entry):
                _ = vm.memory.write(gpa: session.scratch &+ 8 &+ 8 &* UInt64(index), entry.rawValue.kernelBytes)
            }
        }
        switch step {
        case .finished(let result): return finishPageStateChange(session, result)
        case .convert(let gpa, let pageCount, let attributes):
            completion = .pageStateChange(session, change)
            return exitForMapGPARange(gpa: gpa, pageCount: pageCount, attributes: attributes)
        }
    }

    private func finishPageStateChange(_ session: GHCBSession, _ result: PageStateChangeResult) -> RunStep {
        answer(session, info1: 0, info2: result.rawValue)
        return finish(session)
    }
}
