// KVM_RUN: finish what the last exit left open, then alternate between the guest and what it needs.

import KVMABI
import SEVABI
import X86Core

/// What the VMM's next KVM_RUN completes.
package enum Completion: Equatable, Sendable {
    case none
    case portAccess(IOAccess)
    case mmio(isWrite: Bool)
    case msr
    case hypercall
    case msrPageStateChange
    case pageStateChange(GHCBSession, PageStateChange)
    case ghcbPortRead(GHCBSession, Int)
    case ghcbPortWrite(GHCBSession)
    case ghcbString(StringTransfer)
    case ghcbMMIO(MMIOTransfer)
    case ghcbHypercall(GHCBSession)
    case certificates(GHCBSession)
}

/// What to do after an exit was handled.
package enum RunStep: Equatable, Sendable {
    case resume
    /// Back to the VMM with this reason; the run page is filled.
    case exit(ExitReason)
    /// KVM_RUN fails.
    case fail(Errno)
}

extension VirtualCPU {
    /// How long a sleeping vCPU goes without looking at `immediate_exit`: a signal that comes between the look and the
    /// sleep is noticed this late.
    private static let longestSleep: UInt64 = 10_000_000

    func run() throws(Errno) -> Int32 {
        // A confidential VM does not run before its INIT2.
        if vm.type != .plain, vm.technology == nil { throw .EINVAL }
        takeStartRequest()
        takeStartup()
        if mpState == .uninitialized || mpState == .initReceived {
            // Another vCPU starts it. The VMM hears of the end of the wait, whatever ended it.
            if runPage.immediateExit { throw .EINTR }
            let outcome = sleeper.sleep(nanoseconds: Self.longestSleep)
            throw runPage.immediateExit || outcome == .interrupted ? .EINTR : .EAGAIN
        }
        try takeSynchronizedRegisters()
        guard let processor = makeProcessor() else {
            // VMRUN refuses: VMEXIT_INVALID.
            runPage.failEntryReason = ~0
            runPage.exitReason = .failEntry
            return 0
        }
        // User space had control and may have written guest memory, code included.
        processor.hostMemoryMayHaveChanged()
        var step = complete()
        // Asked for before the guest ran: what was left open is finished, and the last exit stays in the run page.
        let onlyCompletes = step == .resume && runPage.immediateExit
        if onlyCompletes { step = .fail(.EINTR) }
        while step == .resume {
            step = runOnce(processor)
            // The processor that runs may be one that another vCPU wants to be another, or none.
            if hasStartRequest || mpState == .initReceived { break }
        }
        publishState(processor)
        publishSynchronizedRegisters()
        saveVMSA(processor)
        switch step {
        case .resume: throw .EAGAIN
        case .exit(let reason):
            runPage.exitReason = reason
            return 0
        case .fail(let errno):
            if errno == .EINTR && !onlyCompletes { runPage.exitReason = .interrupted }
            throw errno
        }
    }

    /// What every exit leaves in the run page.
    private func publishState(_ processor: Processor) {
        let hasLAPIC = vm.interrupts.withLock { $0.hasLocalAPIC }
        // A protected guest's RFLAGS are unknown; KVM says what the processor shows of them.
        runPage.interruptFlag = processor.canTakeInterrupt
        runPage.readyForInterruptInjection =
            hasLAPIC || (processor.canTakeInterrupt && !processor.hasPendingEvent && queuedVector == nil)
        runPage.cr8 = taskPriority
        runPage.apicBase = apicBase
    }

    /// Answers what the last exit asked for.
    package func complete() -> RunStep {
        let pending = completion
        completion = .none
        switch pending {
        case .none: return .resume
        case .portAccess(let access):
            let mask = access.byteCount >= 4 ? UInt32.max : (1 << UInt32(8 * access.byteCount)) - 1
            // Finishes the instruction, inside the guest; of INS as many elements as the VMM has given.
            vm.gate.inside {
                for element in 0..<access.elementCount {
                    let value = runPage.mapping.load(at: 0x1000 + element * access.byteCount, as: UInt32.self) & mask
                    if processor?.completeIO(value: value) != true { break }
                }
            }
            return .resume
        case .mmio(let isWrite):
            if !isWrite { vm.gate.inside { processor?.completeMMIO(value: runPage.mmioData) } }
            return .resume
        case .hypercall:
            processor?[0] = runPage.hypercallResult
            return .resume
        case .msr: return completeMSRAccess()
        case .msrPageStateChange: return completeMSRPageStateChange()
        case .pageStateChange(let session, let change): return completePageStateChange(session, change)
        case .ghcbPortRead(let session, let size): return completeGHCBPortRead(session, size)
        case .ghcbPortWrite(let session): return finish(session)
        case .ghcbString(let transfer): return completeString(transfer)
        case .ghcbMMIO(let transfer): return completeMMIO(transfer)
        case .ghcbHypercall(let session):
            var session = session
            session.rax = runPage.hypercallResult
            return finish(session)
        case .certificates(let session): return completeCertificates(session)
        }
    }

    // MARK: The loop

    private func runOnce(_ processor: Processor) -> RunStep {
        if runPage.immediateExit { return .fail(.EINTR) }
        processor.takeRequest()
        updateClockIfRequested()
        let now = HostClock.monotonic
        takeStartup()
        if mpState == .initReceived { return .resume }
        let (hasLAPIC, deliverable, deadline, finished) = vm.withInterrupts { controller in
            let deadline = controller.advanceTimers(vcpu: index, now: now)
            // Split irqchip: level vectors that ended since the last look.
            var finished: UInt8?
            if let position = controller.finishedVectors.firstIndex(where: { $0.vcpu == index }) {
                finished = controller.finishedVectors.remove(at: position).vector
            }
            return (controller.hasLocalAPIC, controller.hasDeliverable(vcpu: index), deadline, finished)
        }
        if let finished {
            runPage.mapping.store(finished, at: RunPage.exitOffset)
            return .exit(.ioapicEOI)
        }
        if tripleFaultPending {
            // Unlike behind the intercept, nothing is reset.
            tripleFaultPending = false
            return .exit(.shutdown)
        }
        if mpState == .halted || mpState == .apResetHold {
            guard mpState == .halted, deliverable || nmisWithoutLAPIC > 0 else {
                return sleep(until: deadline, now: now)
            }
            mpState = .runnable
        }
        deliverEvents(processor, hasLAPIC: hasLAPIC, deliverable: deliverable)
        hasRun = true
        return handle(enterGuest(processor), processor)
    }

    /// HLT with nothing to deliver: sleeps until a timer, an interrupt or a signal.
    private func sleep(until deadline: UInt64?, now: UInt64) -> RunStep {
        var duration = Self.longestSleep
        if let deadline { duration = min(duration, deadline > now ? deadline - now : 0) }
        if duration > 0, sleeper.sleep(nanoseconds: duration) == .interrupted { return .fail(.EINTR) }
        return .resume
    }

    /// Injects what is due, or asks to be told when the guest can take it.
    private func deliverEvents(_ processor: Processor, hasLAPIC: Bool, deliverable: Bool) {
        if let exception = queuedException {
            processor.injectException(vector: exception.vector, errorCode: exception.errorCode)
            queuedException = nil
            exceptionRecord.isPending = false
            return
        }
        if processor.hasPendingEvent { return }
        // What the VMM has injected is on its way already: neither RFLAGS.IF nor another NMI's handler has anything to say
        // [KVM KVM_INTERRUPT].
        if nmiInjected {
            nmiInjected = false
            nmiMasked = nmiMasked || protectsState
            processor.injectNMI()
            return
        }
        if let vector = queuedVector {
            queuedVector = nil
            processor.injectInterrupt(vector: vector)
            processor.interruptWindowRequested = deliverable || !hasLAPIC && runPage.requestInterruptWindow != 0
            return
        }
        if guestDebugControl & KVMGuestDebug.blockInterrupts != 0 { return }
        let takesNMI = !nmiMasked && (protectsState || !processor.nmiBlocked)
        if takesNMI, processor.isInInterruptShadow, hasNMI {
            processor.nmiWindowRequested = true
            processor.interruptWindowRequested = true
            return
        }
        if takesNMI, takeNMI() {
            // Guests with encrypted state report the end of the handler themselves [GHCB 4.1.3].
            nmiMasked = protectsState
            processor.injectNMI()
            processor.nmiWindowRequested = !protectsState && waitsForNMIWindow()
            return
        }
        processor.nmiWindowRequested = deliverable && processor.nmiBlocked && waitsForNMIWindow()
        guard deliverable || (!hasLAPIC && runPage.requestInterruptWindow != 0) else {
            if processor.interruptWindowRequested { processor.interruptWindowRequested = false }
            return
        }
        guard processor.canTakeInterrupt else {
            processor.interruptWindowRequested = true
            return
        }
        if let vector = vm.interrupts.withLock({ $0.takeVector(vcpu: index) }) {
            processor.injectInterrupt(vector: vector)
            // A second one may be waiting behind it.
            processor.interruptWindowRequested = vm.interrupts.withLock { $0.hasDeliverable(vcpu: index) }
        }
    }

    /// Does an NMI wait for the end of another one's handler? No more than one may [KVM process_nmi].
    private func waitsForNMIWindow() -> Bool {
        vm.interrupts.withLock { controller in
            guard controller.apics.indices.contains(index), controller.apics[index].nmiPending else { return false }
            controller.apics[index].nmiCount = 1
            return true
        }
    }

    private var hasNMI: Bool { pendingNMIs > 0 }

    private func takeNMI() -> Bool {
        if nmisWithoutLAPIC > 0 {
            nmisWithoutLAPIC -= 1
            return true
        }
        return vm.interrupts.withLock { controller in
            guard controller.apics.indices.contains(index), controller.apics[index].nmiPending else { return false }
            controller.apics[index].nmiCount -= 1
            return true
        }
    }

    // MARK: Exits

    private func handle(_ exit: VMExit, _ processor: Processor) -> RunStep {
        switch exit {
        case .interrupt: return .resume
        case .interruptWindow:
            processor.interruptWindowRequested = false
            if runPage.requestInterruptWindow != 0, queuedVector == nil, processor.canTakeInterrupt,
                !vm.interrupts.withLock({ $0.hasLocalAPIC })
            {
                return .exit(.irqWindowOpen)
            }
            return .resume
        case .vmgexit: return handleVMGEXIT()
        case .nestedPageFault(let gpa, let encrypted, let access):
            return handleNestedPageFault(gpa: gpa, encrypted: encrypted, access: access)
        case .halt:
            guard vm.interrupts.withLock({ $0.hasLocalAPIC }) else { return .exit(.halt) }
            mpState = .halted
            return .resume
        case .cr8Write:
            let value = processor.cr8
            vm.withInterrupts { controller in
                if controller.apics.indices.contains(index) { controller.apics[index].taskPriorityClass = value }
            }
            return .resume
        case .exception(let vector, _):
            reportDebugException(vector, processor)
            return .exit(.debug)
        case .shutdown:
            initializeAfterShutdown()
            return .exit(.shutdown)
        case .cpuid:
            let values = cpuidValues(
                UInt32(truncatingIfNeeded: processor[0]), UInt32(truncatingIfNeeded: processor[1]))
            processor[0] = UInt64(values.eax)
            processor[3] = UInt64(values.ebx)
            processor[1] = UInt64(values.ecx)
            processor[2] = UInt64(values.edx)
            return .resume
        case .readMSR(let number):
            return handleMSR(number, writing: nil, processor)
        case .writeMSR(let number, let value): return handleMSR(number, writing: value, processor)
        case .io(let access): return handlePort(access, processor)
        case .mmio(let gpa, let byteCount, let write, let value):
            if write, vm.takesWrite(gpa, byteCount: byteCount, value: value, isPort: false) { return .resume }
            runPage.mmio = RunPage.MMIO(physicalAddress: gpa, data: value, byteCount: UInt32(byteCount), isWrite: write)
            completion = .mmio(isWrite: write)
            return .exit(.mmio)
        case .vmmcall:
            switch hypercall(
                processor[0], processor[3], processor[1], processor[2], processor[6], cpl: UInt64(processor.cpl),
                isLongMode: processor.isLongMode)
            {
            case .result(let value): processor[0] = value
            case .exit:
                completion = .hypercall
                return .exit(.hypercall)
            }
            return .resume
        case .unimplemented(let reason, let bytes): return reportUnimplemented(reason, bytes)
        }
    }

    private func handlePort(_ access: IOAccess, _ processor: Processor) -> RunStep {
        if access.write {
            if writeKernelPort(access.port, byteCount: access.byteCount, value: UInt64(access.value)) {
                vm.gate.inside { processor.completeIO(value: 0) }
                return .resume
            }
            if vm.takesWrite(
                UInt64(access.port), byteCount: access.byteCount, value: UInt64(access.value), isPort: true)
            {
                vm.gate.inside { processor.completeIO(value: 0) }
                return .resume
            }
        } else if let value = readKernelPort(access.port, byteCount: access.byteCount) {
            vm.gate.inside { processor.completeIO(value: UInt32(truncatingIfNeeded: value)) }
            return .resume
        }
        let io = RunPage.PortIO(
            isWrite: access.write, size: UInt8(truncatingIfNeeded: access.byteCount), port: access.port,
            count: UInt32(truncatingIfNeeded: access.elementCount))
        runPage.portIO = io
        if access.write { runPage.mapping.store(access.value, at: Int(io.dataOffset)) }
        completion = .portAccess(access)
        return .exit(.io)
    }

    /// The processor's TLB fill could not go on [KVM kvm_mmu_page_fault].
    private func handleNestedPageFault(gpa: UInt64, encrypted: Bool, access: PhysicalAccess) -> RunStep {
        let writing = access == .write || access == .pageTableWrite
        if settleNestedFault(gpa: gpa, encrypted: encrypted, writing: writing) == true { return .resume }
        switch vm.memory.place(gpa: gpa, encrypted: encrypted, writing: writing) {
        case .badUserAddress: return .fail(.EFAULT)
        // Resolved meanwhile by another thread. A SEV guest's page that could not be settled is a bad address, too.
        case .shared: return vm.sev == nil ? .resume : .fail(.EFAULT)
        // Code or page tables where no memory is: the real kernel tries to emulate, and cannot.
        case .device:
            return reportUnimplemented("code or page tables at 0x\(String(gpa, radix: 16)), where no memory is", [])
        case .attributeMismatch, .privatePage:
            // The VMM converts the range, or gives up. For a private page that is there: the RMP says no, and no
            // conversion will help. The real kernel would let the guest fault for ever.
            runPage.memoryFault = RunPage.MemoryFault(
                flags: isSNP && encrypted ? RunPage.MemoryFault.privateFlag : 0, gpa: gpa & ~4095, byteCount: 4096)
            runPage.exitReason = .memoryFault
            return .fail(.EFAULT)
        }
    }

    /// KVM_EXIT_INTERNAL_ERROR, emulation: flags (bit 0: bytes follow), then a count byte and up to 15 bytes.
    private func reportUnimplemented(_ reason: String, _ bytes: [UInt8]) -> RunStep {
        vm.kernel.lastUnimplemented.withLock { $0 = reason }
        var packed: [UInt8] = [UInt8(min(15, bytes.count))] + bytes.prefix(15)
        packed += [UInt8](repeating: 0, count: 16 - packed.count)
        var data: [UInt64] = [bytes.isEmpty ? 0 : 1]
        for word in 0..<2 { data.append(UInt64(kernelBytes: packed, at: 8 * word) ?? 0) }
        runPage.internalError = RunPage.InternalError(kind: .emulation, data: data)
        return .exit(.internalError)
    }
}
