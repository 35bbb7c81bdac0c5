// Which host kernel runs the guest: the one place that names concrete kernels.

import ArgumentParser
import HostDiagnosis
import KVMABI
import LinuxKVM
import SEVABI
import SNPVMM
import SoftwareKVM

/// `--backend`.
enum BackendChoice: String, ExpressibleByArgument, CaseIterable {
    case auto, kvm, software
}

/// A chosen host kernel.
struct Backend {
    let kernel: any HostKernel
    /// Which backend, and why.
    let announcement: String
    /// What a software run must say before anything secret goes in; nil for a real kernel.
    let warning: String?
    /// The platform under a software kernel; nil for the host's own, and for one that ends with this process.
    let softwarePlatform: SoftwarePlatform?
    /// What the system around the kernel shows.
    let systemFacts: @Sendable () -> HostFacts

    private static let softwareWarning = """
        warning: the software backend protects nothing: this process, its user and the host see everything the guest does. \
        Use it to test, never for secrets.
        """

    /// Chooses, and says why.
    ///
    /// - Parameters:
    ///   - platformState: The folder of the software platform's keys; nil for the user's own.
    ///   - scenario: What is wrong with the software machine's host; it makes the backend software.
    init(
        _ choice: BackendChoice, technology: GuestTechnology?, memoryByteCount: UInt64, platformState: String? = nil,
        scenario: HostScenario? = nil
    ) throws {
        let what = technology?.displayName ?? "a plain VM"
        if let scenario {
            try self.init(
                software: memoryByteCount, technology, platformState,
                "backend: software, as a host in trouble: \(scenario.name) (\(scenario.about))", scenario)
            return
        }
        switch choice {
        case .kvm:
            self.init(LinuxKVM(), "backend: kvm (\(what) by the host kernel, as asked)")
        case .software:
            try self.init(software: memoryByteCount, technology, platformState, "backend: software (as asked)")
        case .auto:
            let linux = LinuxKVM()
            guard let missing = HostProbe.whyNot(technology, on: linux) else {
                self.init(linux, "backend: kvm (\(what) by the host kernel)")
                return
            }
            let subject = missing.context.isEmpty ? missing.request : "\(missing.request) \(missing.context)"
            try self.init(
                software: memoryByteCount, technology, platformState,
                "backend: software, because the host kernel cannot do \(what) (\(subject): \(missing.cameBack)); "
                    + "swift-snp-vmm doctor says why")
        }
    }

    private init(_ kernel: any HostKernel, _ announcement: String) {
        self.kernel = kernel
        self.announcement = announcement
        warning = nil
        softwarePlatform = nil
        systemFacts = { SystemProbe.facts() }
    }

    private init(
        software memoryByteCount: UInt64, _ technology: GuestTechnology?, _ platformState: String?,
        _ announcement: String, _ scenario: HostScenario = HostScenario()
    ) throws {
        softwarePlatform = try Self.platform(technology, platformState)
        var configuration = SoftwareKVM.Configuration()
        // Room for the guest and for the secure processor's own pages; what nobody touches costs nothing.
        let (needed, overflow) = memoryByteCount.addingReportingOverflow(1 << 30)
        configuration.systemMemoryByteCount = max(configuration.systemMemoryByteCount, overflow ? .max : needed)
        configuration.platformStorage = softwarePlatform?.storage
        configuration.scenario = scenario
        do {
            let software = try SoftwareKVM(configuration: configuration)
            kernel = software
            systemFacts = { software.systemFacts }
        } catch {
            throw CommandFailure(status: .hostCannot, message: "could not start the software machine: \(error)")
        }
        self.announcement = announcement
        warning = Self.softwareWarning
    }

    /// A plain guest needs no platform, and an SNP guest runs without one that stays: where no folder can be made, and none was
    /// asked for.
    private static func platform(_ technology: GuestTechnology?, _ path: String?) throws -> SoftwarePlatform? {
        if path == nil {
            if technology == nil { return nil }
            if technology == .snp {
                do { try PlatformStateFolder(nil).create() } catch {
                    StandardError.write(
                        line: "warning: \(error.message) Until then the guest's platform ends with it: it gets no "
                            + "certificates, and nobody can verify its reports.")
                    return nil
                }
            }
        }
        return try SoftwarePlatform(path)
    }
}

extension Backend {
    /// What is known of the host: the system around its kernel, the kernel, and the secure processor.
    func facts(chipID: Bool = false) -> HostFacts {
        var facts = systemFacts()
        facts.merge(HostProbe.facts(of: kernel, chipID: chipID))
        return facts
    }

    /// A refusal by the host, with the first thing that the doctor finds wrong there as its cause: the kernel's answer is the
    /// same for many of them.
    func diagnose(_ error: VMMError, _ technology: GuestTechnology?) -> VMMError {
        guard error.exitStatus == .hostCannot, let cause = HostExamination(facts(), for: technology).cause,
            // These are the same refusal once more.
            cause.id != "kvm.launch", cause.id != "kvm.type"
        else { return error }
        var error = error
        error.likelyCause = "\(cause.title): \(cause.detail)"
        error.nextStep = (cause.mend ?? error.nextStep) + " (all of it: swift-snp-vmm doctor)"
        return error
    }
}

/// `--scenario`.
struct ScenarioOption: ParsableArguments {
    @Option(
        help: ArgumentHelp(
            "The software machine as a host in trouble: a name (doctor --scenarios lists them) or a JSON file.",
            valueName: "name|file"))
    var scenario: String?

    /// The scenario; nil without the option.
    func load(_ backend: BackendChoice) throws(CommandFailure) -> HostScenario? {
        guard let scenario else { return nil }
        guard backend != .kvm else {
            throw .usage(
                "--scenario: only the software machine can be in trouble when asked to; leave --backend kvm out")
        }
        if let named = HostScenario.named(scenario) { return named }
        let file = InputFile(path: scenario)
        guard scenario.contains("/") || scenario.contains(".") || file.exists else {
            throw .usage(
                "--scenario \(scenario): there is no such scenario or file; doctor --scenarios lists the names")
        }
        let text = try file.read(as: "the scenario")
        do throws(HostScenario.FileError) { return try HostScenario(json: text) } catch {
            throw CommandFailure(
                status: .badInput,
                message:
                    "could not use \(scenario) as a scenario: \(error). Likely cause: a mistyped member or value. Next "
                    + "step: see SoftwareKVM's documentation for the form.")
        }
    }
}
