// `attack`: the isolation suite, on the real kernel or on the software machine.

import ArgumentParser
import CProcess
import Glibc
import HostileSoftwareKernel
import IsolationSuite
import KVMABI
import LinuxKVM
import SNPVMM

struct Attack: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "attack",
        abstract:
            "Attacks guests of its own as a hostile host would, and compares what happens with what AMD promises.",
        discussion: """
            A plain guest is attacked too, as a control: there every attack must succeed. The exit status is 1 if anything \
            ends otherwise than promised.

            Example: swift-snp-vmm attack
            Example: swift-snp-vmm attack --confidential snp --scenario replays-page
            """)

    /// `--confidential` of this command.
    enum Target: String, ExpressibleByArgument, CaseIterable {
        case snp
        case sevES = "sev-es"
        case sev
        case all

        var subjects: [Subject] {
            self == .all ? [.sev, .sevES, .snp] : Subject(rawValue: rawValue).map { [$0] } ?? []
        }
    }

    @Option(help: "What protects the guests that are attacked: snp, sev-es, sev or all.")
    var confidential = Target.all
    @Option(help: "Whose guests: auto (the real kernel if it can do them, else software), kvm or software.")
    var backend = BackendChoice.auto
    @Option(help: ArgumentHelp("Only this attack; may be given several times.", valueName: "name"))
    var scenario: [String] = []
    @Flag(help: "Lists the attacks and ends.")
    var list = false
    @Flag(help: "The findings as one JSON object.")
    var json = false

    func run() throws {
        let scenarios = try chosenScenarios()
        if list {
            for scenario in scenarios { print("\(scenario.name)\t\(scenario.title)") }
            return
        }
        let host = try AttackedHost(backend, subjects: confidential.subjects)
        StandardError.write(line: host.announcement)
        let text = terminal_is_interactive(1) != 0 ? ResultText(paint: Self.colours) : ResultText()
        let report = SuiteReport(running: scenarios, on: confidential.subjects, in: host.laboratory) {
            scenario, findings in
            if !json { print(text.paragraph(scenario, findings)) }
        }
        if json {
            print(AttackJSON.object(report, host).text)
        } else {
            print(text.table(report))
            print(text.summary(report), terminator: "")
            if let note = host.note { print(note) }
        }
        if !report.isSound { throw ExitCode(1) }
    }

    private func chosenScenarios() throws(CommandFailure) -> [Scenario] {
        if scenario.isEmpty { return Scenario.all }
        var chosen: [Scenario] = []
        for name in scenario {
            guard let found = Scenario.named(name) else {
                throw .usage("--scenario \(name): no such attack; `attack --list` shows their names")
            }
            chosen.append(found)
        }
        return chosen
    }

    private static let colours: ResultText.Paint = { text, emphasis in
        let code =
            switch emphasis {
            case .heading: "1"
            case .good: "32"
            case .exposed: "33"
            case .wrong: "1;31"
            case .faint: "2"
            }
        return "\u{1b}[\(code)m\(text)\u{1b}[0m"
    }
}

/// The host whose kernel turns against its guests.
private struct AttackedHost {
    let laboratory: Laboratory
    let name: String
    let announcement: String
    /// What the results are worth; nil on hardware.
    let note: String?

    init(_ choice: BackendChoice, subjects: [Subject]) throws {
        switch choice {
        case .kvm:
            if let error = HostProbe.whyNot(nil, on: LinuxKVM()) { throw error }
            self.init(announcement: "backend: kvm (as asked); attacks that need the kernel itself are not run")
        case .software: try self.init(software: "backend: software (as asked)")
        case .auto:
            let missing = subjects.lazy.compactMap { subject in
                HostProbe.whyNot(subject.technology, on: LinuxKVM()).map { (subject, $0) }
            }.first
            if let (subject, error) = missing {
                try self.init(
                    software: "backend: software, because the host kernel cannot do \(subject.displayName) "
                        + "(\(error.context.isEmpty ? error.request : error.request + " " + error.context): \(error.cameBack))"
                )
            } else {
                self.init(announcement: "backend: kvm; attacks that need the kernel itself are not run")
            }
        }
    }

    private init(announcement: String) {
        laboratory = Laboratory(kernel: LinuxKVM(), privileges: nil, limit: AlarmLimit())
        name = "kvm"
        self.announcement = announcement
        note = nil
    }

    private init(software announcement: String) throws {
        do { laboratory = try .software() } catch {
            throw CommandFailure(status: .hostCannot, message: "could not start the software machine: \(error)")
        }
        name = "software"
        self.announcement = announcement
        note =
            "This was the software machine: the results speak of the model of the processor and its firmware, not of any "
            + "hardware. It protects nothing."
    }
}

/// An alarm that takes KVM_RUN out of a guest that faults for ever.
private struct AlarmLimit: RunLimit {
    private static let seconds: UInt32 = 5

    init() { _ = signal(SIGALRM) { _ in } }

    func watching(_ page: RunPage, _ body: () throws(Errno) -> Void) throws(Errno) {
        alarm(Self.seconds)
        defer { alarm(0) }
        try body()
    }
}

/// The findings for programs.
private enum AttackJSON {
    static func object(_ report: SuiteReport, _ host: AttackedHost) -> JSONObject {
        var object = JSONObject()
        object.add("backend", host.name)
        object.add("isModel", host.note != nil)
        object.add("isSound", report.isSound)
        object.add(
            "scenarios",
            report.scenarios.map { scenario in
                var entry = JSONObject()
                entry.add("name", scenario.name)
                entry.add("title", scenario.title)
                entry.add("attack", scenario.attack)
                if let threat = scenario.threat { entry.add("threat", threat) }
                entry.add("findings", report.subjects.compactMap { report.finding(scenario, $0) }.map(finding))
                return entry
            })
        return object
    }

    private static func finding(_ finding: Finding) -> JSONObject {
        var entry = JSONObject()
        entry.add("guest", finding.subject.rawValue)
        entry.add("promised", finding.promise.effect.rawValue)
        entry.add("reason", finding.promise.reason)
        entry.add("reference", finding.promise.reference)
        if let effect = finding.effect { entry.add("observed", effect.rawValue) }
        entry.add("verdict", finding.verdict.rawValue)
        // One line per observation.
        entry.add("evidence", finding.evidence.joined(separator: "\n"))
        return entry
    }
}
