// A vCPU: register state, the page it shares with its VMM, and the locks that its threads meet at.
//
// Until the first KVM_RUN the state is a value (`savedState`); then a Processor has it. Once LAUNCH_FINISH has sealed the
// vCPU, the state is in its VMSA page, and only the processor that runs it sees it.

import KVMABI
import MemoryController
import SEVABI
import Synchronization
import X86Core
import X86Defs

// @unchecked Sendable: the `var`s are guarded by `mutex`, as each ioctl and KVM_RUN hold it; the processor also by the
// machine's gate.
package final class VirtualCPU: @unchecked Sendable {
    /// kvm_run, the page of port data, the coalesced ring.
    static let mappingByteCount = 3 * 4096

    unowned let vm: VirtualMachine
    /// vCPU id = APIC id.
    let id: UInt32
    /// Creation order.
    let index: Int
    let isBootProcessor: Bool

    package let runPage: RunPage
    let sleeper = SleepingPlace()
    private let mutex = Mutex(())
    /// What other vCPUs ask of this one.
    private let startRequest = Mutex<StartRequest?>(nil)
    private let clockUpdateRequested = Atomic<Bool>(false)

    /// The state as long as there is no processor; afterwards, for a sealed vCPU, what it was sealed with.
    var savedState = ProcessorState()
    private(set) var processor: Processor?
    /// The same, for other threads to ask it out of the guest.
    private let asked = Mutex(Asked())
    /// Of the processor only `request` is called, which any thread may.
    private struct Asked: @unchecked Sendable {
        var processor: Processor?
    }
    private var view: GuestView?
    /// LAUNCH_FINISH has put the state into this page.
    private(set) var vmsaPage: SPA?
    var isSealed: Bool { vmsaPage != nil }

    /// KVM_SET_CPUID2.
    var cpuid: [KVMCPUIDEntry] = []
    var msrs = EmulatedMSRs()
    var mpState: KVMMPState
    var tscKHz: UInt32
    /// TSC at moments when no processor counts it: guest TSC = host nanoseconds scaled + this.
    var tscOffset: UInt64 = 0
    /// IA32_APIC_BASE and CR8 without an in-kernel local APIC.
    var apicBaseWithoutLAPIC: UInt64
    /// KVM_SET_GUEST_DEBUG.
    var guestDebugControl: UInt32 = 0
    /// KVM_SET_VCPU_EVENTS with the triple fault event.
    var tripleFaultPending = false
    /// KVM_X86_SETUP_MCE.
    var machineCheck = MachineCheck()
    var guestDebugRegisters: [8 of UInt64] = .init(repeating: 0)
    /// KVM_INTERRUPT, or `interrupt_bitmap` of SET_SREGS.
    var queuedVector: UInt8?
    /// KVM_SET_VCPU_EVENTS: to be injected on the next entry.
    var queuedException: (vector: UInt8, errorCode: UInt32?)?
    var exceptionRecord = ExceptionRecord()
    /// The number of the last vector that was queued.
    var lastQueuedVector: UInt8 = 0
    /// It came from INT n: KVM_GET_VCPU_EVENTS does not show it.
    var queuedVectorIsSoft = false
    /// KVM_NMI without an in-kernel local APIC.
    var nmisWithoutLAPIC = 0
    /// KVM_SET_VCPU_EVENTS: on its way already; delivered at the next entry.
    var nmiInjected = false
    var nmiMasked = false
    /// Behind STI or a load of SS, while there is no processor.
    var savedInterruptShadow = false
    var hasRun = false

    /// What the next KVM_RUN has to finish.
    package var completion = Completion.none
    /// GHCB MSR while there is no processor.
    var savedGHCBMSR: UInt64 = 0
    /// GHCB that the guest has registered [GHCB 2.3.2].
    var registeredGHCB: UInt64?
    /// How the guest waits for a SIPI, if it does [GHCB 4.1.4].
    var resetHold = ResetHold.none
    enum ResetHold {
        case none, msrProtocol
        case event(GHCBSession)
    }
    /// A SEV-ES vCPU has had its first SIPI.
    private var hasStarted = false

    init(vm: VirtualMachine, id: UInt32, index: Int, isBootProcessor: Bool, tscKHz: UInt32, mapping: KernelMapping) {
        self.vm = vm
        self.id = id
        self.index = index
        self.isBootProcessor = isBootProcessor
        self.tscKHz = tscKHz
        // Without a local APIC nobody could start it.
        let isStarted = isBootProcessor || !vm.interrupts.withLock { $0.hasLocalAPIC }
        mpState = isStarted ? .runnable : .uninitialized
        apicBaseWithoutLAPIC = LocalAPIC.defaultBase | 0x800 | (isBootProcessor ? 0x100 : 0)
        runPage = RunPage(mapping)
        // RDX after reset is the signature [APM2 14.1.3]; KVM uses 0x600 until CPUID is known.
        savedState.generalRegisters[2] = 0x600
        // Reset leaves the caches off [APM2 14.1.3].
        savedState.cr0 |= CR0.cd | CR0.nw
        // A TSC that starts at zero with the vCPU.
        tscOffset = 0 &- scaledTSC(at: HostClock.monotonic)
        runPage.apicBase = apicBaseWithoutLAPIC
    }

    var isSNP: Bool { vm.isSNP }
    /// The register state is the guest's own once it is sealed: SEV-ES and SNP.
    var protectsState: Bool { isSNP || vm.sev?.isES == true }
    /// Sealed by KVM_SEV_ES_INIT's rules: register calls succeed and mean nothing.
    var isSealedByOldRules: Bool { isSealed && vm.sev?.usesLegacyInit == true }

    // MARK: Locks

    /// Runs `body` under the vCPU's mutex, as every vCPU ioctl does.
    func locked<Result: Sendable>(_ body: () throws(Errno) -> Result) throws(Errno) -> Result {
        try mutex.withLock { (_) throws(Errno) -> Result in try body() }
    }

    func lockedForSealing(_ body: () -> Void) { mutex.withLock { _ in body() } }

    /// Runs `body` while no processor of the machine is inside the guest.
    func paused(_ body: () -> Void) { vm.processors.alone(body) }

    /// Enters the guest. Waits while as many others are inside as the host can run, or somebody wants none.
    func enterGuest(_ processor: Processor) -> VMExit {
        let exit = vm.gate.inside { processor.run() }
        if processor.hasSpun { HostProcessors.yield() }
        return exit
    }

    /// Makes a KVM_RUN in progress look at its surroundings: out of its sleep, or out of the guest at the end of a block.
    func notify() {
        sleeper.wake()
        asked.withLock { $0.processor?.request() }
    }

    // MARK: Translations (called while paused)

    func forgetTranslations() { processor?.flushTLB() }

    /// As above, for pages at these places in this process only; code decoded from them is forgotten too.
    func forgetTranslations(to places: [UInt]) { processor?.forgetTranslations(to: places) }

    func forgetCode(at address: UInt64, byteCount: UInt64) {
        processor?.forgetCode(atHostAddress: address, byteCount: byteCount)
    }

    // MARK: State

    /// The architectural state of a vCPU that is not sealed. Of a sealed one it is what KVM still remembers, which means
    /// nothing.
    var state: ProcessorState {
        get { isSealed ? savedState : processor?.state ?? savedState }
        set {
            guard !isSealed, let processor else {
                savedState = newValue
                return
            }
            vm.gate.inside {
                // No part of the registers: whoever sets those leaves it.
                let shadow = processor.isInInterruptShadow
                processor.state = newValue
                processor.isInInterruptShadow = shadow
            }
        }
    }

    /// Between STI, or a load of SS, and the instruction behind it.
    var isInInterruptShadow: Bool {
        get { processor?.isInInterruptShadow ?? savedInterruptShadow }
        set {
            savedInterruptShadow = newValue
            processor?.isInInterruptShadow = newValue
        }
    }

    /// An NMI's handler runs. A processor whose state KVM sees knows it itself, and where the handler ends.
    var areNMIsMasked: Bool {
        get { nmiMasked || !protectsState && processor?.nmiBlocked == true }
        set {
            nmiMasked = newValue
            guard !protectsState, let processor else { return }
            (processor.nmiBlocked, nmiMasked) = (newValue, false)
        }
    }

    /// The processor, made for the first KVM_RUN. Nil when VMRUN refuses: no key in the ASID's slot, or a VMSA that
    /// cannot be loaded.
    func makeProcessor() -> Processor? {
        if let processor { return mayEnter ? processor : nil }
        var configuration = Processor.Configuration()
        configuration.physicalAddressBits = Int(vm.kernel.configuration.profile.physicalAddressBits)
        // Hardware cannot hide instructions from a guest without CPUID; one with CPUID has what it says.
        if !cpuid.isEmpty { configuration.features = announcedFeatures }
        configuration.announcedCR4 = announcedCR4
        var state = savedState
        var asid: UInt32 = 0
        if isSNP {
            guard let snp = vm.snp, let vmsaPage,
                let vmsa = vm.kernel.systemMemory.loadVMSA(vmsaPage, asid: snp.asid), vmsa[VMSA.vmpl] < 4
            else { return nil }
            asid = snp.asid
            // KVM cannot see what a guest has written into a VMSA of its own: only the processor looks at the level.
            configuration.vmpl = Int(vmsa[VMSA.vmpl])
            configuration.encryptedState = true
            configuration.snp = true
            configuration.cBit = Int(vm.kernel.configuration.profile.cBitPosition)
            // SEV and SEV-ES active, then SEV_FEATURES [APM2 15.34.10].
            configuration.sevStatus = 3 | vmsa[VMSA.sevFeatures] << 2
            state = vmsa.processorState
        } else if let sev = vm.sev {
            guard sev.handle != nil else { return nil }
            asid = sev.asid
            configuration.cBit = Int(vm.kernel.configuration.profile.cBitPosition)
            configuration.sevStatus = 1
            if sev.isES {
                guard let vmsaPage,
                    let vmsa = vm.kernel.systemMemory.loadVMSA(withoutRMP: vmsaPage, asid: asid)
                else { return nil }
                configuration.encryptedState = true
                configuration.sevStatus = 3 | vmsa[VMSA.sevFeatures] << 2
                state = vmsa.processorState
            }
        }
        let view = GuestView(
            vcpu: self, asid: asid, vmpl: configuration.vmpl, encryptsUserMemory: vm.sev != nil)
        configuration.yieldsAtPause = vm.vcpus.count > 1
        let processor = Processor(memory: view, configuration: configuration, group: vm.processors)
        vm.gate.inside { processor.state = state }
        setProcessor(processor, view)
        if !protectsState {
            isInInterruptShadow = savedInterruptShadow
            areNMIsMasked = nmiMasked
        }
        if guestDebugControl != 0 { applyGuestDebug(to: processor) }
        processor.interceptsOwnMSRs = !protectsState && vm.msrFilter.withLock { $0 != nil }
        processor.tscKHz = tscKHz
        // To the nanosecond the same as before, and as on the machine's other vCPUs.
        processor.tscOffset = tscOffset
        // The MSR starts as the answer to an information request [GHCB 2.3.1].
        processor.ghcbMSR = savedGHCBMSR != 0 ? savedGHCBMSR : protectsState ? Self.initialGHCBMSR(vm).rawValue : 0
        return processor
    }

    /// Others reach into processors while they are alone: so it is with what they find.
    private func setProcessor(_ new: Processor?, _ newView: GuestView?) {
        // The old one leaves the group when it goes, which is after this.
        let old = processor
        paused {
            processor = new
            view = newView
        }
        let newAsked = Asked(processor: new)
        asked.withLock { $0 = newAsked }
        withExtendedLifetime(old) {}
    }

    /// VMRUN compares the VMSA of a guest without RMP with the integrity value that the processor keeps
    /// [APM2 15.35.8].
    private var mayEnter: Bool {
        guard let sev = vm.sev, sev.isES else { return true }
        guard let vmsaPage else { return false }
        return vm.kernel.systemMemory.loadVMSA(withoutRMP: vmsaPage, asid: sev.asid) != nil
    }

    /// #VMEXIT's store of a SEV-ES guest's state, as far as somebody could look at it: on the way to the VMM.
    func saveVMSA(_ processor: Processor) {
        guard let sev = vm.sev, sev.isES, let vmsaPage else { return }
        _ = vm.kernel.systemMemory.storeVMSA(
            withoutRMP: vmsaPage, asid: sev.asid, VMSA(processor: processor.state, sevFeatures: sev.vmsaFeatures))
    }

    /// A nested page fault of a SEV or SEV-ES guest; nil for others. True: run on.
    func settleNestedFault(gpa: UInt64, encrypted: Bool, writing: Bool) -> Bool? {
        guard vm.sev != nil, let view else { return nil }
        return view.settle(gpa: gpa, encrypted: encrypted, writing: writing)
    }

    /// INIT of a vCPU whose registers KVM can set [KVM kvm_vcpu_reset]. Its local APIC is the interrupt controller's to
    /// reset.
    private func initialize() {
        guard !protectsState else { return }
        state = state.initialized(signature: cpuidEntry(1, 0)?.eax ?? 0x600)
        isInInterruptShadow = false
        areNMIsMasked = false
        nmiInjected = false
        setPendingNMIs(0)
        queuedVector = nil
        queuedVectorIsSoft = false
        queuedException = nil
        exceptionRecord.isPending = false
        taskPriorityChanged()
        msrs.systemTime = 0
        msrs.virtualSpeculationControl = 0
    }

    /// What SHUTDOWN leaves is undefined, so kvm_amd follows it with an INIT, and the registers that the VMCB has from VMSAVE
    /// are zero. The state of guests that protect it stays [KVM shutdown_interception].
    func initializeAfterShutdown() {
        guard !protectsState else { return }
        vm.interrupts.withLock { controller in
            if controller.apics.indices.contains(index) { controller.apics[index].initialize() }
        }
        initialize()
        var state = state
        (state.star, state.lstar, state.cstar, state.sfmask, state.kernelGSBase) = (0, 0, 0, 0, 0)
        (state.sysenterCS, state.sysenterESP, state.sysenterEIP) = (0, 0, 0)
        self.state = state
    }

    // MARK: Starting by another vCPU

    /// What another vCPU asks for; this one sees to it on its next way into the guest.
    enum StartRequest: Sendable, Equatable {
        /// AP creation: the state is in this page [GHCB 4.1.9].
        case create(vmsa: UInt64)
        /// AP destruction: it runs no more.
        case destroy
    }

    /// Called by another vCPU's thread. The last request counts.
    func ask(_ request: StartRequest) {
        startRequest.withLock { $0 = request }
        notify()
    }

    var hasStartRequest: Bool { startRequest.withLock { $0 != nil } }

    /// Does what was asked. The vCPU's own thread, outside the guest.
    func takeStartRequest() {
        guard
            let request = startRequest.withLock({ request in
                defer { request = nil }
                return request
            })
        else { return }
        setProcessor(nil, nil)
        completion = .none
        savedGHCBMSR = 0
        registeredGHCB = nil
        nmiMasked = false
        switch request {
        case .create(let gpa):
            vmsaPage = privatePage(gpa)
            // Without such a page there is nothing to run.
            mpState = vmsaPage == nil ? .uninitialized : .runnable
        case .destroy:
            vmsaPage = nil
            mpState = .uninitialized
        }
    }

    /// INIT and SIPI [APM2 16.7.6]. They do not reach an SNP guest's vCPUs: those are created.
    func takeStartup() {
        guard let (isInit, vector) = vm.interrupts.withLock({ $0.takeStartup(vcpu: index) }), !isSNP else { return }
        if protectsState { return startSealed(isInit: isInit, isStartup: vector != nil) }
        if isInit {
            initialize()
            mpState = isBootProcessor ? .runnable : .initReceived
        }
        guard let vector, mpState == .initReceived else { return }
        var state = state
        state.cs.selector = UInt16(vector) << 8
        state.cs.base = UInt64(vector) << 12
        state.rip = 0
        self.state = state
        mpState = .runnable
    }

    /// INIT and SIPI of a SEV-ES guest's vCPU, whose registers are out of reach: the first SIPI lets it begin with the state
    /// it was sealed with, each later one ends an AP reset hold [KVM sev_vcpu_deliver_sipi_vector].
    private func startSealed(isInit: Bool, isStartup: Bool) {
        if isInit, !isBootProcessor {
            nmiMasked = false
            mpState = .initReceived
        }
        guard isStartup, mpState == .initReceived else { return }
        if hasStarted { endResetHold() }
        hasStarted = true
        mpState = .runnable
    }

    /// The guest learns that a SIPI has come.
    private func endResetHold() {
        switch resetHold {
        case .none: break
        case .msrProtocol: ghcbMSR = GHCBMSR(.apResetHoldResponse, data: 1).rawValue
        case .event(let session): answer(session, info1: 0, info2: 1)
        }
        resetHold = .none
    }

    /// The guest's own VMSA page; nil when no private page is there.
    private func privatePage(_ gpa: UInt64) -> SPA? {
        guard case .privatePage(let memfd, let index) = vm.memory.place(gpa: gpa, encrypted: true, writing: true) else {
            return nil
        }
        return memfd.page(at: index)
    }

    // MARK: Sealing [KVM sev_es_sync_vmsa]

    /// The state as KVM puts it into the VMSA: what the VMM has set, and what KVM adds.
    func stateForSealing() throws(EncryptFailure) -> ProcessorState {
        if isSealed || guestDebugControl != 0 || savedState.dr7 != 0x400 { throw EncryptFailure(.EINVAL) }
        var state = savedState
        // CD and NW are hidden (KVM_X86_QUIRK_CD_NW_CLEARED), ET is hard-wired.
        state.cr0 = state.cr0 & ~0x6000_0000 | 0x10
        state.cr4 |= 0x40
        state.efer |= VMSA.eferSVME
        state.rflags |= 2
        // The control block has no room for these.
        state.dr0 = 0
        state.dr1 = 0
        state.dr2 = 0
        state.dr3 = 0
        state.tscAux = 0
        return state
    }

    func seal(vmsaPage: SPA) { self.vmsaPage = vmsaPage }

    // MARK: TSC

    private func scaledTSC(at monotonic: UInt64) -> UInt64 {
        let (high, low) = monotonic.multipliedFullWidth(by: UInt64(tscKHz))
        // Safe: high is below 10⁶ for any uptime below 10⁸ seconds at 4 GHz; beyond that the count is simply wrong.
        return high < 1_000_000 ? UInt64(1_000_000).dividingFullWidth((high, low)).quotient : 0
    }

    /// Counts as another vCPU does, which may be running. Before the first KVM_RUN.
    func shareTSC(of other: VirtualCPU) {
        paused {
            tscKHz = other.tscKHz
            tscOffset = other.processor?.tscOffset ?? other.tscOffset
        }
    }

    /// The guest's time-stamp counter now.
    var tsc: UInt64 {
        get { processor?.tsc ?? scaledTSC(at: HostClock.monotonic) &+ tscOffset }
        set {
            if let processor {
                processor.tsc = newValue
            } else {
                tscOffset = newValue &- scaledTSC(at: HostClock.monotonic)
            }
        }
    }

    /// What is added to the host's clock.
    var tscOffsetNow: UInt64 { processor?.tscOffset ?? tscOffset }

    func moveTSC(by difference: UInt64) {
        if let processor {
            processor.tscOffset = processor.tscOffset &+ difference
        } else {
            tscOffset = tscOffset &+ difference
        }
    }

    // MARK: GHCB MSR

    var ghcbMSR: UInt64 {
        get { processor?.ghcbMSR ?? savedGHCBMSR }
        set {
            if let processor { processor.ghcbMSR = newValue } else { savedGHCBMSR = newValue }
        }
    }

    // MARK: kvmclock

    func requestClockUpdate() { clockUpdateRequested.store(true, ordering: .releasing) }

    /// Before the guest runs: renews its time page if somebody asked for it.
    func updateClockIfRequested() {
        if clockUpdateRequested.exchange(false, ordering: .acquiringAndReleasing) { writeSystemTime() }
    }
}
