// `run --report`: collects what a run tells, and maps it to the model of the page.

import CProcess
import GuestImage
import KVMABI
import RunReport
import SEVABI
import SNPVMM
import SoftwareKVM

/// What is collected while a run goes on, for the report and for the end of the launch log.
final class RunRecord {
    private let title: String
    private let technology: GuestTechnology?
    private let startedAt = Readable.timestamp(secondsSince1970: process_wall_clock())
    private let page: OutputFile?
    /// The launch log, which ends with this run's data.
    let log: OutputFile?
    /// Nil until a backend has been chosen.
    private var backend: Backend?
    private var backendName: String { backend?.warning == nil ? "kvm" : "software" }
    private var plan: PlanFacts?
    /// Where somebody outside takes part: a socket, or files.
    var ownerPlace: String?
    /// The owner is a process that checks the measurement itself.
    var ownerChecks = false
    private var phases: [Phase] = []
    /// The step that goes on: what a failure ends.
    private var openStep: String?

    /// What stays of a plan; the plan itself has the image's bytes and is gone after the launch.
    private struct PlanFacts {
        var policy: UInt64
        var processorCount: Int
        var memoryByteCount: UInt64
        var regionByteCounts: [UInt64]
        var digest: String?
    }

    /// Opens both files: a path that cannot be written is found before the launch.
    ///
    /// - Parameters:
    ///   - page: Where the page goes; nil for none.
    ///   - log: Where the launch log goes; nil for none.
    init(_ guest: GuestOptions, page: String?, log: String?) throws(CommandFailure) {
        title =
            (guest.image ?? guest.kernel ?? guest.firmware ?? guest.rom ?? "").split(separator: "/").last.map(
                String.init) ?? ""
        technology = guest.confidential.technology
        self.page = try page.map { (path) throws(CommandFailure) in try OutputFile(path: path, purpose: "the report") }
        self.log = try log.map { (path) throws(CommandFailure) in
            try OutputFile(path: path, purpose: "the launch log")
        }
    }

    // MARK: Collecting

    func choose(_ backend: Backend) { self.backend = backend }

    func plan(_ plan: LaunchPlan, memoryByteCount: UInt64) {
        self.plan = PlanFacts(
            policy: plan.policy, processorCount: plan.processors.count, memoryByteCount: memoryByteCount,
            regionByteCounts: plan.regions.map(\.byteCount))
    }

    /// What the plan must measure to, in hex.
    func expect(digest: String) { plan?.digest = digest }

    func hear(_ event: LaunchEvent) {
        switch event {
        case .began(let name, _): openStep = name
        case .progress: break
        case .ended(let phase):
            openStep = nil
            phases.append(phase)
        }
    }

    /// The end of the run: writes what was asked for. The machine must still be there.
    func finish(_ machine: Machine?, _ preparation: Preparation, _ ending: RunReportData.Outcome) {
        guard page != nil || log != nil else { return }
        let data = data(machine, preparation: preparation.phases, ending: ending)
        page?.write(bytes: Array(RunReportPage.html(data).utf8))
        log?.write(line: "{\"report\":\(data.json)}")
    }

    // MARK: The model

    /// Everything, at the end of the run. The machine must still be there: its memory and its vCPUs are looked at.
    ///
    /// - Parameters:
    ///   - machine: Nil when the launch failed.
    ///   - preparation: What came before the launch.
    ///   - ending: How it ended.
    private func data(_ machine: Machine?, preparation: [Phase], ending: RunReportData.Outcome) -> RunReportData {
        let kind = technology.reportTechnology
        let software = backend?.kernel as? SoftwareKVM
        let protection = machine.flatMap { software?.guestProtection(of: $0.vmHandle) }
        let statistics = machine?.statistics
        var data = RunReportData(
            title: title, program: "swift-snp-vmm \(Version.number)", technology: kind,
            isSoftwareMachine: backend?.warning != nil, outcome: ending,
            firmware: .init(facts: firmwareFacts(protection)),
            hypervisor: .init(name: "swift-snp-vmm", backend: backendName, facts: hypervisorFacts))
        data.startedAt = startedAt
        if technology != nil {
            data.memoryController.keySlots = protection.map { [.init(asid: $0.asid, label: title)] }
        }
        if let plan {
            var guest = RunReportData.VirtualMachine(
                name: title, technology: kind, asid: protection?.asid, memoryByteCount: plan.memoryByteCount)
            guest.processors = (0..<plan.processorCount).map { index in
                let handle = machine?.vcpuHandles.dropFirst(index).first
                return .init(
                    index: index, vmsa: protection?.vmsaPages.dropFirst(index).first?.rawValue,
                    ghcb: kind.encryptsState ? handle.flatMap { software?.ghcbAddress(of: $0) } : nil)
            }
            if technology == .snp, let pages = statistics?.pages {
                guest.privateByteCount = pages.privatePages &* 4096
                guest.sharedByteCount = pages.sharedPages &* 4096
            }
            data.machines = [guest]
            data.policy = technology.map { .init(launchedPolicy ?? plan.policy, $0) }
        }
        data.messages = ReportMessages(phases, technology, regionByteCounts: plan?.regionByteCounts ?? []).messages
        if let openStep, !ending.isSuccess, machine == nil {
            data.messages.fail(openStep, technology, ending.text)
        }
        if let ownerPlace { data.owner = .init(place: ownerPlace, facts: ownerFacts) }
        data.measurements = measurements(machine, software)
        data.steps = steps(preparation, statistics)
        if let map = machine?.memoryMap {
            data.memory = RunReportData.MemoryMap(
                map, technology, processorCount: plan?.processorCount ?? 0,
                ghcbs: data.machines.first?.processors.compactMap(\.ghcb) ?? [])
        }
        data.exits = statistics.map { RunReportData.ExitTimeline($0) } ?? .init()
        data.highlights = highlights(statistics)
        return data
    }

    private func highlights(_ statistics: RunStatistics?) -> [RunReportData.Fact] {
        var facts: [RunReportData.Fact] = []
        if let plan {
            facts.append(.init("memory", Readable.bytes(plan.memoryByteCount)))
            facts.append(.init("vCPUs", "\(plan.processorCount)"))
        }
        let launch = phases.reduce(UInt64(0)) { $0 &+ $1.duration.reportNanoseconds }
        if launch > 0 { facts.append(.init("launch", Readable.duration(launch))) }
        guard let statistics, statistics.running > .zero else { return facts }
        if let first = statistics.untilFirstOutput {
            facts.append(.init("first output after", Readable.duration(first.reportNanoseconds)))
        }
        facts.append(.init("ran", Readable.duration(statistics.running.reportNanoseconds)))
        facts.append(.init("exits", Readable.count(statistics.exitCount)))
        for device in statistics.devices {
            facts.append(.init("\(device.device)", Readable.counted(device.counts.requests, "request")))
        }
        return facts
    }

    private var hypervisorFacts: [RunReportData.Fact] {
        var facts: [RunReportData.Fact] = [.init("VM type", technology.vmTypeName)]
        let memory =
            switch technology {
            case nil: "its own, open to the guest"
            case .snp: "guest_memfd, which it cannot read"
            default: "its own, as ciphertext"
            }
        facts.append(.init("memory", memory))
        facts.append(.init("devices", "16550A serial line, power block"))
        return facts
    }

    private func firmwareFacts(_ protection: GuestProtection?) -> [RunReportData.Fact] {
        guard let technology, let kernel = backend?.kernel else { return [] }
        var facts = PlatformFacts.ask(kernel, technology)
        if technology != .snp { facts.append(.init("guest handle", protection?.handle.map { "\($0)" })) }
        return facts
    }

    /// The policy of LAUNCH_START, which an owner's session decides: "0x00000007 (no debugging, …)".
    private var launchedPolicy: UInt64? {
        guard technology != .snp, let detail = phases.first(where: { $0.step == .start })?.detail else { return nil }
        return UInt64(detail.dropFirst(2).prefix(8), radix: 16)
    }

    private var ownerFacts: [RunReportData.Fact] {
        phases.compactMap { phase in
            switch phase.step {
            case .session: .init("session", phase.detail == "none" ? "none given" : phase.detail)
            case .verdict: .init("verdict", "launch accepted, \(phase.detail)")
            default: nil
            }
        }
    }

    private func measurements(_ machine: Machine?, _ software: SoftwareKVM?) -> [RunReportData.Measurement] {
        guard let technology, let plan else { return [] }
        var result: [RunReportData.Measurement] = []
        if let digest = plan.digest {
            result.append(
                .init(
                    title: "Launch digest, computed before the launch", value: digest,
                    note: technology == .snp
                        ? "SHA-384 over every page, its type and address, and every VMSA, from the plan alone."
                        : technology == .sevES
                            ? "SHA-256 over all pages and VMSAs in order, from the plan alone."
                            : "SHA-256 over all pages in order, from the plan alone; SEV measures no registers."))
        }
        if let machine, let held = software?.launchDigest(of: machine.vmHandle) {
            result.append(
                .init(
                    title: "Launch digest, held by the firmware", value: "\(held)",
                    note: "What the guest's attestation reports will say.",
                    isAsExpected: plan.digest.map { $0 == "\(held)" }))
        }
        if let measurement = machine?.measurement {
            result.append(
                .init(
                    title: "Measurement, from LAUNCH_MEASURE", value: hexText(measurement.bytes),
                    note:
                        "HMAC over firmware version, policy, launch digest and a nonce (the last 16 bytes), with a key that "
                        + "only the firmware and the owner have.",
                    // A serving owner answers only to a measurement that it has recomputed.
                    isAsExpected: ownerChecks && phases.contains { $0.step == .verdict } ? true : nil))
        }
        return result
    }

    private func steps(_ preparation: [Phase], _ statistics: RunStatistics?) -> [RunReportData.Step] {
        func step(_ phase: Phase, _ group: RunReportData.Step.Group) -> RunReportData.Step {
            .init(name: phase.name, detail: phase.detail, group: group, nanoseconds: phase.duration.reportNanoseconds)
        }
        var steps = preparation.map { step($0, .prepare) }
        steps += phases.map { phase in
            switch phase.step {
            case .createVM, .initialize, .memory, .processors, .registerMemory: step(phase, .machine)
            default: step(phase, .launch)
            }
        }
        if let first = statistics?.untilFirstOutput {
            steps.append(.init(name: "first output of the guest", group: .boot, nanoseconds: first.reportNanoseconds))
        }
        return steps
    }
}

/// What `/dev/sev` says of the platform, for anybody who may open it.
enum PlatformFacts {
    static func ask(_ kernel: any HostKernel, _ technology: GuestTechnology) -> [RunReportData.Fact] {
        if technology == .snp {
            var status = SNPUserStatus()
            guard issue(.snpPlatformStatus, &status, kernel) else { return unknown }
            return [
                .init("platform", status.state == 0 ? "SNP UNINIT" : "SNP INIT"),
                .init("API", "\(status.apiMajor).\(status.apiMinor), build \(status.buildID)"),
                .init("guests", "\(status.guestCount)"),
                .init("TCB", "0x" + String(status.reportedTCB, radix: 16)),
            ]
        }
        var status = SEVUserStatus()
        guard issue(.platformStatus, &status, kernel) else { return unknown }
        let states = ["UNINIT", "INIT", "WORKING"]
        return [
            .init("platform", Int(status.state) < states.count ? states[Int(status.state)] : "state \(status.state)"),
            .init("API", "\(status.apiMajor).\(status.apiMinor), build \(status.build)"),
            .init("guests", "\(status.guestCount)"),
        ]
    }

    private static let unknown: [RunReportData.Fact] = [.init("platform", nil), .init("API", nil)]

    private static func issue<Status: KernelStructure>(
        _ command: SEVDeviceCommand, _ status: inout Status, _ kernel: any HostKernel
    ) -> Bool {
        guard let device = try? kernel.open(.sev) else { return false }
        defer { kernel.close(device) }
        guard let buffer = try? kernel.map(.anonymous, offset: 0, byteCount: KVM.pageByteCount) else { return false }
        var issue = SEVIssueCommand(command, data: buffer.address)
        guard (try? kernel.call(device, .sevIssueCommand, &issue)) != nil else { return false }
        status = buffer.load(structureAt: 0, as: Status.self)
        return true
    }
}

extension RunReportData.Outcome {
    init(_ outcome: RunOutcome) {
        switch outcome {
        case .powerOff: self.init(text: "The guest switched the machine off.", isSuccess: true)
        case .stopped: self.init(text: "Ended by the user.", isSuccess: true)
        case .exited(let value):
            self.init(text: "The guest wrote \(value) to its debug-exit port.", isSuccess: true)
        case .resetRequested: self.init(text: "The guest asked for a reset.", isSuccess: false)
        case .terminated(let termination): self.init(text: "The guest ended itself: \(termination).", isSuccess: false)
        case .failed(let error): self.init(text: "The run failed: \(error.summary)", isSuccess: false)
        }
    }

    /// `--launch-only`.
    static let launched = Self(text: "Launched, and not run: --launch-only.", isSuccess: true)

    /// A launch that failed.
    init(_ error: any Error) {
        let text =
            switch error {
            case let error as VMMError: error.summary
            case let error as CommandFailure: error.message
            default: "\(error)"
            }
        self.init(text: "The launch failed: \(text)", isSuccess: false)
    }
}

extension VMMError {
    /// Two sentences.
    var summary: String { "could not \(step): \(request) came back with \(cameBack). Likely cause: \(likelyCause)." }
}

extension Duration {
    /// Not negative, and at most 584 years.
    var reportNanoseconds: UInt64 {
        let (seconds, attoseconds) = components
        guard seconds >= 0, attoseconds >= 0 else { return 0 }
        let (nanoseconds, overflow) = UInt64(seconds).multipliedReportingOverflow(by: 1_000_000_000)
        return overflow ? .max : nanoseconds &+ UInt64(attoseconds) / 1_000_000_000
    }
}

extension GuestTechnology? {
    var reportTechnology: RunReportData.Technology {
        switch self {
        case nil: .plain
        case .sev: .sev
        case .sevES: .sevES
        case .snp: .snp
        }
    }

    fileprivate var vmTypeName: String {
        switch self {
        case nil: "KVM_X86_DEFAULT_VM"
        case .sev: "KVM_X86_SEV_VM"
        case .sevES: "KVM_X86_SEV_ES_VM"
        case .snp: "KVM_X86_SNP_VM"
        }
    }
}
