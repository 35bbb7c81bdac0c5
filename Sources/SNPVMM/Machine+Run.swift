// The run loop: KVM_RUN, and what each exit asks for [KVM KVM_RUN].
//
// Everything in the run page comes from a kernel that passes on what a guest made of it: numbers are checked before they
// are used, and a guest that asks for nonsense gets an error or ends; it never traps the VMM.

import Dispatch
import Glibc
import GuestImage
import HostDiagnosis
import KVMABI
import SEVABI
import VMMDevices

/// How a run ended.
public enum RunOutcome: Sendable {
    /// The guest switched the machine off.
    case powerOff
    /// The guest asked for a reset. An SNP guest cannot be reset: its launch is not repeatable from inside.
    case resetRequested
    /// ``Machine/stop()`` was called.
    case stopped
    /// A bare machine's debug-exit port was written.
    case exited(UInt32)
    /// The guest asked to be terminated.
    case terminated(GuestTermination)
    /// The guest or the host cannot go on.
    case failed(VMMError)

    /// The failure, explained; nil after a power-off or a stop.
    public var error: VMMError? {
        switch self {
        case .powerOff, .stopped, .exited: nil
        case .resetRequested:
            VMMError(
                .guestFailed, step: "go on after the guest's reset request",
                request: "the guest wrote the reset register",
                finding: "a reset, which a measured launch does not have",
                likelyCause: "a panic with panic=-1, or the command reboot",
                nextStep: "look at the guest's last console lines; start it again for a new boot")
        case .terminated(let termination):
            VMMError(
                .guestFailed, step: "go on: the guest asked for its termination", request: "GHCB termination",
                finding: termination.description, likelyCause: termination.likelyCause,
                nextStep: "boot the guest with earlyprintk=serial to see what it did last")
        case .failed(let error): error
        }
    }

    /// As a process exit status.
    public var exitStatus: VMMExitStatus { error?.exitStatus ?? .success }
}

/// What the run loop shares with other threads.
struct RunState: Sendable {
    var stopRequested = false
    /// How the run ended: what the first vCPU to end it says.
    var outcome: RunOutcome?
    /// The threads inside ``Machine/run()``.
    var runners: [pthread_t] = []
    /// What the vCPUs that are done have counted.
    var counts: ExitCounts?
    var statistics = RunStatistics()
}

extension Machine {
    /// The signal that interrupts KVM_RUN in the kernel. Its handler does nothing: `EINTR` is the message.
    static let kickSignal = SIGUSR1

    /// Runs the guest until it ends: the boot processor on the calling thread, each other one on a thread of its own.
    public func run() -> RunOutcome {
        _ = signal(Self.kickSignal) { _ in }
        let start = ContinuousClock.now
        runState.withLock { state in
            state.outcome = nil
            state.counts = nil
        }
        let others = DispatchGroup()
        for id in processors.indices.dropFirst() {
            DispatchQueue(label: "vCPU \(id)").async(group: others) { self.runProcessor(id, since: start) }
        }
        runProcessor(0, since: start)
        others.wait()
        let end = ContinuousClock.now
        return runState.withLock { state in
            let timeline = (state.counts ?? ExitCounts(start: start)).timeline
            state.statistics.exitTimeline = timeline
            state.statistics.exits = ExitCounts.totals(timeline)
            state.statistics.running = start.duration(to: end)
            state.statistics.untilFirstOutput = output.firstByte.map { start.duration(to: $0) }
            state.statistics.consoleByteCount = output.byteCount
            return state.outcome ?? .stopped
        }
    }

    /// Runs one vCPU on the calling thread until the run ends, and ends it for the others when this one says so.
    private func runProcessor(_ id: Int, since start: ContinuousClock.Instant) {
        let thread = pthread_self()
        OwnProcess.unblock(signal: Self.kickSignal)
        runState.withLock { $0.runners.append(thread) }
        var counts = ExitCounts(start: start)
        // The thread is not this machine's for ever.
        let others = processorAffinity[id] == nil ? nil : try? OwnProcess.processors()
        let outcome = place(id) ?? runUntilEnd(processors[id], &counts)
        if let others { try? OwnProcess.run(on: others) }
        runState.withLock { state in
            state.runners.removeAll { pthread_equal($0, thread) != 0 }
            if state.counts?.add(counts) == nil { state.counts = counts }
            if state.outcome == nil { state.outcome = outcome }
        }
        interruptAll()
    }

    /// Puts the calling thread where this vCPU belongs.
    /// - Returns: How the run ends when that cannot be.
    private func place(_ id: Int) -> RunOutcome? {
        guard let wanted = processorAffinity[id] else { return nil }
        do {
            try OwnProcess.run(on: wanted)
            return nil
        } catch {
            return .failed(
                VMMError(
                    step: "run vCPU \(id) on processors of the host", request: "sched_setaffinity",
                    context: wanted.map(String.init).joined(separator: ", "), errno: error))
        }
    }

    /// Ends ``run()`` from another thread, at the next instruction boundary or at once when the guest sleeps.
    public func stop() {
        runState.withLock { $0.stopRequested = true }
        interruptAll()
    }

    /// Makes every vCPU look at how the run stands.
    private func interruptAll() {
        // Order matters: the loop clears the flag first and looks at the state afterwards.
        for processor in processors { processor.run.immediateExit = true }
        // Under the lock: a runner's thread is inside run() and so exists.
        runState.withLock { state in
            for runner in state.runners { _ = pthread_kill(runner, Self.kickSignal) }
        }
    }

    /// Counts and times; complete once ``run()`` has returned.
    public var statistics: RunStatistics {
        var statistics = runState.withLock { $0.statistics }
        statistics.phases = launchPhases
        statistics.pages = memory.pageCounts
        statistics.devices = virtio.map {
            DeviceStatistics(device: $0.device.deviceID, counts: $0.queues.statistics)
        }
        return statistics
    }

    /// What was launched where, and who can read which page: then and now. May be asked at any time.
    public var memoryMap: MemoryMap {
        var map = launchedMap
        map.now = memory.areas
        return map
    }

    /// What the host, and so whoever controls it, reads at a guest physical address: ciphertext for a SEV or SEV-ES guest.
    ///
    /// - Returns: nil for bytes that are no memory of one slot, and for an SNP guest's private pages, which this process
    ///   cannot reach.
    public func hostView(at gpa: UInt64, byteCount: Int) throws(VMMError) -> [UInt8]? {
        try memory.hostView(at: gpa, byteCount: byteCount)
    }

    /// The VM's descriptor, to ask a software kernel about it, or for requests that this type does not make. It stays the
    /// machine's: closing it ends the VM.
    public var vmHandle: KernelHandle { vm }

    /// The vCPUs' descriptors, in creation order.
    public var vcpuHandles: [KernelHandle] { processors.map(\.handle) }

    private func runUntilEnd(_ processor: VCPU, _ counts: inout ExitCounts) -> RunOutcome {
        let page = processor.run
        while true {
            page.immediateExit = false
            if runState.withLock({ $0.stopRequested || $0.outcome != nil }) {
                // Set again, so that a stop that comes between two runs is not lost to a caller that runs on.
                page.immediateExit = true
                return .stopped
            }
            if let outcome = runUntilInterrupted(processor, page, &counts) { return outcome }
        }
    }

    /// - Returns: nil when KVM_RUN was interrupted.
    private func runUntilInterrupted(_ processor: VCPU, _ page: RunPage, _ counts: inout ExitCounts) -> RunOutcome? {
        while true {
            do {
                try kernel.call(processor.handle, .run)
            } catch {
                switch error {
                case .EINTR:
                    counts.countInterrupted()
                    return nil
                case .EAGAIN:
                    counts.countAgain()
                    return nil
                case .EFAULT where page.exitReason == .memoryFault, .EHWPOISON where page.exitReason == .memoryFault:
                    // The one exit that comes as an error.
                    counts.count(.memoryFault)
                    let fault = page.memoryFault
                    // A reason that stays in the page must not explain the next EFAULT.
                    page.exitReason = .unknown
                    if let failure = convert(fault, errno: error, &counts) { return .failed(failure) }
                    continue
                default:
                    return .failed(VMMError(step: "run the guest", request: "KVM_RUN", errno: error))
                }
            }
            let reason = page.exitReason
            counts.count(reason)
            if let outcome = handle(reason, processor, page) { return outcome }
        }
    }

    /// - Returns: How the run ends, if it does.
    private func handle(_ reason: ExitReason, _ processor: VCPU, _ page: RunPage) -> RunOutcome? {
        switch reason {
        case .io: return portIO(page)
        case .mmio: return deviceMemory(page)
        case .hypercall:
            page.hypercallResult = hypercall(page.hypercall)
            return nil
        case .snpRequestCertificates:
            page.certificateRequest = certificates(for: page.certificateRequest)
            return nil
        case .halt, .interrupted, .irqWindowOpen: return nil
        case .systemEvent: return systemEvent(page.systemEvent)
        case .shutdown:
            return .failed(
                guestError(
                    "KVM_EXIT_SHUTDOWN", processor, finding: "a triple fault", .of(reason)))
        case .internalError:
            return .failed(
                guestError(
                    "KVM_EXIT_INTERNAL_ERROR", processor, finding: InternalErrorText.describe(page.internalError),
                    .of(page.internalError.kind)))
        case .failEntry:
            return .failed(
                guestError(
                    "KVM_EXIT_FAIL_ENTRY", processor, finding: "VMRUN failed with \(hex(page.failEntryReason))",
                    .of(reason)))
        default:
            let detail = reason == .unknown ? ", hardware exit \(hex(page.hardwareExitReason))" : ""
            return .failed(
                guestError("KVM_RUN", processor, finding: "\(reason)\(detail)", .of(reason)))
        }
    }

    /// Puts the certificate table into the guest's buffer, or says why not [KVM KVM_EXIT_SNP_REQ_CERTS].
    private func certificates(for request: RunPage.CertificateRequest) -> RunPage.CertificateRequest {
        var answer = request
        guard let table = certificateTable?() else {
            answer.result = UInt64(Errno.EAGAIN.rawValue)
            return answer
        }
        let pageCount = UInt64((table.count + KVM.pageByteCount - 1) / KVM.pageByteCount)
        if pageCount > request.pageCount {
            answer.pageCount = pageCount
            answer.result = UInt64(Errno.ENOSPC.rawValue)
        } else {
            // A buffer that is no memory is the guest's mistake, and not the end of the machine.
            answer.result = memory.writeShared(table[...], at: request.gpa) ? 0 : UInt64(Errno.EIO.rawValue)
        }
        return answer
    }

    private func guestError(
        _ request: String, _ processor: VCPU, finding: String, _ end: GuestEnd
    ) -> VMMError {
        // A protected guest does not show its registers, and after a shutdown they are those of a reset.
        var registers = KVMRegisters()
        let hasRegisters =
            request != "KVM_EXIT_SHUTDOWN" && (try? kernel.call(processor.handle, .getRegisters, &registers)) != nil
        let place = hasRegisters ? "RIP \(hex(registers.rip))" : ""
        return VMMError(
            .guestFailed, step: "run the guest any further", request: request, context: place, finding: finding,
            likelyCause: end.likely.text, nextStep: end.likely.nextStep)
    }

    // MARK: Devices

    private func portIO(_ page: RunPage) -> RunOutcome? {
        let io = page.portIO
        let byteCount = Int(io.size)
        guard byteCount == 1 || byteCount == 2 || byteCount == 4, var data = page.portData(io) else {
            return .failed(nonsense("KVM_EXIT_IO", "size \(io.size), count \(io.count), data at \(hex(io.dataOffset))"))
        }
        // Safe: data has size * count bytes.
        for element in 0..<Int(io.count) {
            let start = element * byteCount
            if io.isWrite {
                let value = data[start..<start + byteCount].reversed().reduce(UInt64(0)) { $0 << 8 | UInt64($1) }
                ports.write(UInt64(io.port), byteCount: byteCount, value: value)
            } else {
                let value = ports.read(UInt64(io.port), byteCount: byteCount)
                for i in 0..<byteCount { data[start + i] = UInt8(truncatingIfNeeded: value >> UInt64(8 * i)) }
            }
        }
        if !io.isWrite { page.setPortData(data, io) }
        return powerOutcome
    }

    private func deviceMemory(_ page: RunPage) -> RunOutcome? {
        let access = page.mmio
        guard (1...8).contains(access.byteCount) else {
            return .failed(nonsense("KVM_EXIT_MMIO", "\(access.byteCount) bytes at \(hex(access.physicalAddress))"))
        }
        let byteCount = Int(access.byteCount)
        if access.isWrite {
            mmio.write(access.physicalAddress, byteCount: byteCount, value: access.data)
        } else {
            page.mmioData = mmio.read(access.physicalAddress, byteCount: byteCount)
        }
        return powerOutcome
    }

    private var powerOutcome: RunOutcome? {
        if let bareDevices { return bareDevices.outcome }
        return switch power.requestedEvent {
        case .powerOff: .powerOff
        case .reset: .resetRequested
        case nil: nil
        }
    }

    private func nonsense(_ request: String, _ finding: String) -> VMMError {
        VMMError(
            .hostCannot, step: "run the guest", request: request, finding: finding,
            likelyCause: "a host kernel that fills the run page differently", nextStep: "report it with --launch-log")
    }

    // MARK: Page states

    /// Answers a hypercall. Only page state changes come here [KVM KVM_HC_MAP_GPA_RANGE].
    ///
    /// - Returns: 0, or an error that the guest sees as a failed page state change.
    private func hypercall(_ call: RunPage.Hypercall) -> UInt64 {
        let unknown = UInt64(bitPattern: -1000)  // KVM_ENOSYS
        let invalid = UInt64(bitPattern: -22)  // EINVAL
        guard call.number == KVM.hypercallMapGPARange else {
            runState.withLock { $0.statistics.countUnknownHypercall(call.number) }
            return unknown
        }
        let pageByteCount = UInt64(KVM.pageByteCount)
        let (byteCount, tooLong) = call.arguments[1].multipliedReportingOverflow(by: pageByteCount)
        let (end, wraps) = call.arguments[0].addingReportingOverflow(byteCount)
        guard !tooLong, !wraps, byteCount > 0, call.arguments[0] % pageByteCount == 0 else { return invalid }
        let range = call.arguments[0]..<end
        guard memory.contains(range) else { return invalid }
        do {
            try memory.convert(range, isPrivate: call.arguments[2] & 0x10 != 0)
            return 0
        } catch {
            return invalid
        }
    }

    /// Makes the attribute agree with the access, as the GHCB protocol's implicit page state change wants it.
    ///
    /// - Returns: What cannot be resolved; nil to run again.
    private func convert(_ fault: RunPage.MemoryFault, errno: Errno, _ counts: inout ExitCounts) -> VMMError? {
        let pageByteCount = UInt64(KVM.pageByteCount)
        let kind = fault.isPrivate ? "private" : "shared"
        func failure(_ finding: String, _ cause: String) -> VMMError {
            VMMError(
                errno == .EHWPOISON ? .hostCannot : .guestFailed,
                step: "resolve the guest's access to \(hex(fault.gpa))",
                request: "KVM_EXIT_MEMORY_FAULT", context: "\(kind), \(fault.byteCount) bytes", errno: errno,
                finding: finding, likelyCause: cause,
                nextStep: "boot the guest with earlyprintk=serial to see what it did last")
        }
        guard errno == .EFAULT else {
            return failure("a poisoned page", "a page of the host's memory has a hardware error")
        }
        let start = fault.gpa & ~(pageByteCount - 1)
        let (end, overflow) = fault.gpa.addingReportingOverflow(max(fault.byteCount, 1))
        let (padded, overflow2) = end.addingReportingOverflow(pageByteCount - 1)
        guard !overflow, !overflow2 else { return failure("a range beyond the address space", "a wild pointer") }
        let range = start..<(padded & ~(pageByteCount - 1))
        guard memory.contains(range) else {
            return failure(
                "no RAM at this address", "an access with the wrong C-bit: device memory as private, or a wild pointer")
        }
        if fault.isPrivate ? memory.isPrivate(range) : memory.isShared(range) {
            counts.repeatedFaults += 1
            guard counts.repeatedFaults < 100 else {
                return failure(
                    "the same fault again and again",
                    "a host kernel that does not see the page as \(kind)"
                        + (fault.isPrivate ? ", or a vCPU below VMPL 0 without the permission" : ""))
            }
            return nil
        }
        counts.repeatedFaults = 0
        do {
            try memory.convert(range, isPrivate: fault.isPrivate)
            return nil
        } catch { return error }
    }

    // MARK: Ends

    private func systemEvent(_ event: RunPage.SystemEvent) -> RunOutcome? {
        switch event.type {
        case .shutdown: return .powerOff
        case .reset: return .resetRequested
        case .sevTermination:
            let value = event.data.first ?? 0
            if let termination = GuestTermination(
                ghcbMSR: value, readGHCB: { memory.readShared(at: $0, byteCount: GHCB.byteCount) })
            {
                return .terminated(termination)
            }
            return .failed(
                VMMError(
                    .guestFailed, step: "go on: the guest broke the GHCB protocol",
                    request: "KVM_SYSTEM_EVENT_SEV_TERM",
                    finding: "GHCB MSR \(hex(value))", likelyCause: "a request that is not defined for this guest",
                    nextStep: "boot the guest with earlyprintk=serial to see what it did last"))
        default:
            return .failed(
                VMMError(
                    .guestFailed, step: "run the guest any further", request: "KVM_EXIT_SYSTEM_EVENT",
                    finding: "event \(event.type.rawValue), data " + event.data.map { hex($0) }.joined(separator: " "),
                    likelyCause: GuestEnd.of(event.type).likely.text, nextStep: GuestEnd.of(event.type).likely.nextStep)
            )
        }
    }
}

/// KVM_EXIT_INTERNAL_ERROR for people.
public enum InternalErrorText {
    /// "KVM_INTERNAL_ERROR_EMULATION, instruction bytes 0f 01 d9".
    public static func describe(_ error: RunPage.InternalError) -> String {
        let name =
            switch error.kind {
            case .emulation: "KVM_INTERNAL_ERROR_EMULATION"
            case .simultaneousException: "KVM_INTERNAL_ERROR_SIMUL_EX"
            case .deliveringEvent: "KVM_INTERNAL_ERROR_DELIVERY_EV"
            case .unexpectedExitReason: "KVM_INTERNAL_ERROR_UNEXPECTED_EXIT_REASON"
            default: "internal error \(error.kind.rawValue)"
            }
        // Flag 0 of an emulation failure: a byte count and up to 15 instruction bytes follow.
        if error.kind == .emulation, error.data.count >= 2, error.data[0] & 1 != 0 {
            let bytes = error.data.dropFirst().prefix(2).flatMap { word in
                (0..<8).map { UInt8(truncatingIfNeeded: word >> UInt64(8 * $0)) }
            }
            let count = min(Int(bytes[0]), bytes.count - 1)
            let text = bytes.dropFirst().prefix(count).map { byte in
                (byte < 16 ? "0" : "") + String(byte, radix: 16)
            }
            return "\(name), instruction bytes \(text.joined(separator: " "))"
        }
        guard !error.data.isEmpty else { return name }
        return "\(name), data " + error.data.map { hex($0) }.joined(separator: " ")
    }
}
