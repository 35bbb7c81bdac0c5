// `run`: plan, measure, launch, run.

import ArgumentParser
import CProcess
import Glibc
import GuestImage
import KVMABI
import LaunchMeasurement
import SEVABI
import SNPVMM
import Sandbox
import Synchronization
import VMMDevices

struct Run: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "run", abstract: "Launches a guest and connects its console to the terminal.",
        discussion: """
            Ctrl-A x ends the guest, Ctrl-A h helps. SIGTERM, SIGINT and SIGHUP press the guest's power button: status 0 when it \
            powers off in time. After --power-off-grace, at a second signal, and when the guest does not listen, it is ended, \
            and this process by the signal.

            Example: swift-snp-vmm run guest.img --memory 512M
            Example: swift-snp-vmm run --kernel /boot/vmlinuz --initrd initrd.cpio --cmdline "console=ttyS0 panic=-1 reboot=a"
            Example: swift-snp-vmm run guest.img --confidential sev-es --owner owner.socket --report out.html
            Example: swift-snp-vmm run guest.img --scenario no-snp-in-bios
            Example: swift-snp-vmm run guest.img --disk root.img --disk data.img,ro
            """)

    @OptionGroup var guest: GuestOptions
    @OptionGroup(title: "Guest owner") var owner: LaunchOwnerOptions
    @OptionGroup(title: "Devices") var deviceOptions: DeviceOptions
    @OptionGroup(title: "Place on the host") var placement: PlacementOptions
    @Option(
        help: ArgumentHelp(
            "Certificates that an SNP guest finds beside its report: a folder, PEM or DER files, or a certificate table. "
                + "Real kernels need to be Linux 7.0. (default: a software platform's own; else none)",
            valueName: "path"))
    var certs: String?
    @Flag(
        name: .customLong("accept-cpuid-correction"),
        help: "Launches an SNP guest without the CPU features that the firmware refuses, instead of not at all.")
    var acceptCPUIDCorrection = false
    @Option(
        help: "Who runs the guest: auto (the real kernel if it can do what is asked, else software), kvm or software.")
    var backend = BackendChoice.auto
    @OptionGroup var scenarioOption: ScenarioOption
    @Option(
        name: .customLong("platform-state"),
        help: ArgumentHelp(
            "Where the software platform keeps its keys. (default: $XDG_STATE_HOME/swift-snp-vmm)", valueName: "folder")
    )
    var platformState: String?
    @Option(
        name: .customLong("debug-exit"),
        help: ArgumentHelp(
            "Bare machine: a write of v to this port ends the run with exit status (v << 1) | 1.", valueName: "port"))
    var debugExit: String?
    @Option(
        name: .customLong("debug-console"),
        help: ArgumentHelp("Bare machine: bytes written to this port go to the console.", valueName: "port"))
    var debugConsole: String?
    @Flag(
        help: "Shows the guest 5-level paging (LA57) where the processor has it; a Linux kernel then switches to it.")
    var la57 = false
    @Flag(name: .customLong("launch-only"), help: "Stops after LAUNCH_FINISH.")
    var launchOnly = false
    @Option(
        name: .customLong("power-off-grace"),
        help: ArgumentHelp(
            "How long a guest may take to power off once a signal has asked for it; 0 ends it at once.",
            valueName: "seconds"))
    var powerOffGrace: UInt16 = 10
    @Option(
        name: .customLong("launch-log"),
        help: ArgumentHelp("Writes one JSON object per request to the host kernel.", valueName: "file"))
    var launchLog: String?
    @Option(
        help: ArgumentHelp(
            "Writes a page about the run to look at: who said what, keys, memory by state, exits.", valueName: "file"))
    var report: String?
    @Option(
        help: """
            Once the guest is launched, this process gives up what it no longer needs: capabilities, opening files, new \
            programs and connections.
            """)
    var sandbox = SandboxChoice.on
    @Flag(help: "Only the guest's console, warnings and errors.")
    var quiet = false

    func validate() throws {
        try owner.check(guest.confidential.technology)
        if guest.machineChoice != .bare, debugExit ?? debugConsole != nil {
            throw ValidationError("--debug-exit and --debug-console need --machine bare.")
        }
        if guest.machineChoice == .bare, deviceOptions.count > 0 {
            throw ValidationError("A bare machine has no virtio devices.")
        }
        _ = try bareMachine()
        try NamedPath.check(
            outputs: [
                NamedPath("--launch-log", launchLog), NamedPath("--report", report),
                NamedPath("--measurement-out", owner.measurementOut),
            ].compactMap(\.self), inputs: guest.inputs + owner.inputs + deviceOptions.paths)
        if certs != nil, guest.confidential != .snp {
            throw ValidationError("--certs belongs to --confidential snp.")
        }
        if acceptCPUIDCorrection, guest.confidential != .snp {
            throw ValidationError("--accept-cpuid-correction belongs to --confidential snp.")
        }
    }

    /// The bare machine's ports.
    private func bareMachine() throws -> BareMachineConfiguration? {
        func port(_ text: String?, _ option: String) throws -> UInt16? {
            guard let text else { return nil }
            guard let value = UInt16(exactly: try OptionValue.number(text, option)), value <= 0xfffc else {
                throw CommandFailure.usage("\(option) \(text): expected a port below 0xfffd")
            }
            return value
        }
        let configuration = BareMachineConfiguration(
            debugExitPort: try port(debugExit, "--debug-exit"),
            debugConsolePort: try port(debugConsole, "--debug-console"))
        return guest.machineChoice == .bare ? configuration : nil
    }

    func run() throws {
        let reporter = Reporter(quiet: quiet)
        let console = Console()
        let record = try RunRecord(guest, page: report, log: launchLog)
        var preparation = Preparation()
        // Sockets are served as long as this function runs. What is in the devices' way is said before anything is launched.
        if sandbox == .on { Sandbox.prepare(cleaning: try deviceOptions.socketFolder()) }
        let attached = try deviceOptions.make()
        defer { attached.socket?.stop() }
        let ending = OrderlyEnd(graceSeconds: powerOffGrace, beforeAnyGuest: { attached.socket?.stop() })
        let machine: Machine
        do { machine = try launch(console, reporter, record, attached.devices, &preparation) } catch {
            reporter.clearProgress()
            record.finish(nil, preparation, .init(error))
            throw error
        }
        for difference in machine.cpuidCorrections {
            StandardError.write(line: "warning: CPUID \(difference); launched with that")
        }
        guard !launchOnly else {
            record.finish(machine, preparation, .launched)
            reporter.summarize(
                machine.statistics, preparation: preparation.phases, technology: guest.confidential.technology)
            return
        }
        if console.isInteractive { reporter.say("console: Ctrl-A x ends, Ctrl-A h helps") }
        ending.follow(machine)
        // The machine's own threads begin after this, and have what this one has.
        for gap in Sandbox.enter(.processor) {
            StandardError.write(line: "warning: this host kernel lacks a part of the sandbox: \(gap)")
        }
        console.attach(to: machine)
        let outcome = machine.run()
        console.detach()
        attached.finish()
        if let reason = ending.reason(of: outcome) { reporter.say("\n\(reason)") }
        reporter.summarize(
            machine.statistics, preparation: preparation.phases, technology: guest.confidential.technology)
        record.finish(machine, preparation, .init(outcome))
        attached.socket?.stop()
        if case .stopped = outcome { process_end_as_asked() }
        if let error = outcome.error { throw error }
        if case .exited(let value) = outcome {
            throw ExitCode(Int32(UInt8(truncatingIfNeeded: value << 1 | 1)))
        }
    }

    /// Everything up to LAUNCH_FINISH. The image and the plan are gone when this returns: only the machine stays.
    private func launch(
        _ console: Console, _ reporter: Reporter, _ record: RunRecord, _ devices: [any VirtioDevice],
        _ preparation: inout Preparation
    ) throws -> Machine {
        let technology = guest.confidential.technology
        // What depends on the command line alone comes first: its errors need no host.
        var description = try guest.machine()
        try placement.check(technology, processorCount: guest.cpus, memoryByteCount: description.memoryByteCount)
        let affinity = try placement.processorAffinity(processorCount: guest.cpus)
        try placement.bindThisProcess()
        let identity = try guest.identity()
        let source = try GuestSource(guest)
        // Safe: `machine()` has checked that a SEV policy has 32 bits.
        let asked = guest.policy == nil ? nil : UInt32(truncatingIfNeeded: description.policy)
        let certificates = try certs.map { try RunCertificates(path: $0) }
        let owner = try owner.owner(policy: asked, reporter: reporter)
        record.ownerPlace = owner == nil ? nil : self.owner.place
        record.ownerChecks = owner is SocketOwner
        preparation.finish("read \(source.form)")

        let backend = try Backend(
            backend, technology: technology, memoryByteCount: description.memoryByteCount, platformState: platformState,
            scenario: scenarioOption.load(backend))
        record.choose(backend)
        reporter.say(backend.announcement)
        // Said even when quiet: whoever watches must know what this run is worth.
        if let warning = backend.warning { StandardError.write(line: warning) }
        let follower = DigestFollower(technology)
        var kernel = backend.kernel
        if let file = record.log {
            kernel = LaunchLog(
                kernel, digest: { follower.extend($0) }, details: { follower.details(of: $0) },
                write: { file.write(line: $0) })
        }
        do {
            let host = try Host(kernel)
            try host.require(technology)
            var certificateTable: (@Sendable () -> [UInt8]?)?
            if let table = try certificates?.table(on: backend.kernel) {
                certificateTable = { table }
            } else if technology == .snp, let platform = backend.softwarePlatform {
                let table = PlatformCertificateTable(of: platform)
                certificateTable = { table.bytes }
            }
            // An image for the bare machine starts without paging, and chooses for itself.
            description.cpuid = try host.guestCPUID(
                processorCount: guest.cpus, technology: technology,
                fiveLevelPaging: la57 || guest.machineChoice == .bare)
            if technology != nil { description.cBit = try requiredCBit(of: description) }
            preparation.finish("host")

            let plan = try source.plan(on: description)
            preparation.finish("plan")
            record.plan(plan, memoryByteCount: description.memoryByteCount)
            if technology != nil {
                follower.plan(plan)
                let measured = MeasuredLaunch(of: plan)
                record.expect(digest: measured.digestText)
                preparation.finish("measure")
                reporter.say("launch digest (measured before launch): \(measured.digestText)")
                if let block = identity.identityBlock?.block, block.launchDigest != measured.digest {
                    reporter.say("note: the ID block was made for another launch digest, \(block.launchDigest)")
                }
            }
            var configuration = MachineConfiguration(
                technology: technology, memoryByteCount: description.memoryByteCount, plan: plan,
                cpuid: description.cpuid, identity: identity, certificateTable: certificateTable, devices: devices,
                bare: try bareMachine())
            configuration.takesCorrectedCPUID = acceptCPUIDCorrection
            configuration.memoryPlacement = placement.memoryPlacement()
            configuration.processorAffinity = affinity
            do {
                return try Machine(
                    host: host, configuration: configuration, owner: owner, console: { console.write($0) },
                    observe: {
                        reporter.hear($0)
                        record.hear($0)
                    })
            } catch {
                (owner as? SocketOwner)?.end(because: error)
                throw error
            }
        } catch let error as VMMError {
            throw backend.diagnose(error, technology)
        }
    }

    private func requiredCBit(of description: MachineDescription) throws(VMMError) -> UInt8 {
        guard let bit = cBit(of: description.cpuid) else {
            throw VMMError(
                .hostCannot, step: "find the C-bit", request: "KVM_GET_SUPPORTED_CPUID", context: "leaf 0x8000001f",
                finding: "no SEV", likelyCause: "a processor or a kernel without memory encryption",
                nextStep: "use an EPYC with SEV enabled, or --backend software")
        }
        return bit
    }
}

/// Times what comes before the launch.
struct Preparation {
    private(set) var phases: [Phase] = []
    private var mark = ContinuousClock.now

    mutating func finish(_ name: String) {
        let now = ContinuousClock.now
        phases.append(Phase(name: name, duration: mark.duration(to: now)))
        mark = now
    }
}

/// Computes the launch digest so far from what a launch log sees.
final class DigestFollower: Sendable {
    private struct State {
        var pages = RunningLaunchDigest()
        let contents = RunningContentsDigest()
        var processors: [SealedState] = []
    }
    private let isSNP: Bool
    private let state = Mutex(State())

    init(_ technology: GuestTechnology?) { isSNP = technology == .snp }

    /// The VMSAs are made by the kernel, out of the log's sight: the plan says what they will be.
    func plan(_ plan: LaunchPlan) {
        state.withLock { state in
            state.processors = plan.processors.map { SealedState(of: $0, guestFeatures: plan.guestFeatures) }
        }
    }

    /// What tells two launches apart: which page, which register.
    func details(of measured: LaunchLog.Measured) -> JSONObject {
        var details = JSONObject()
        switch measured {
        case .pages(_, _, _, let contents), .data(let contents):
            if !contents.isEmpty { details.add("pageDigests", PageDigests.text(PageDigests.of(contents))) }
        case .processors:
            details.add("vmsas", state.withLock { $0.processors.map(\.digits) })
        }
        return details
    }

    func extend(_ measured: LaunchLog.Measured) -> String {
        state.withLock { state in
            switch measured {
            case .pages(let type, let gpa, let byteCount, let contents):
                state.pages.extend(
                    LaunchPlan.Region(label: "", pageType: type, gpa: gpa, byteCount: byteCount, contents: contents))
            case .data(let contents): state.contents.extend(contents)
            case .processors:
                for processor in state.processors {
                    if isSNP { state.pages.extend(processor) } else { state.contents.extend(processor) }
                }
            }
            return isSNP ? "\(state.pages.digest)" : hexText(state.contents.digestBytes)
        }
    }
}
