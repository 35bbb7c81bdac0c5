// `doctor`: the whole chain that a confidential guest needs, link by link, here or in a file that another host wrote.

import ArgumentParser
import HostDiagnosis
import SEVABI
import SNPVMM
import CProcess
import SoftwareKVM

struct Doctor: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "doctor", abstract: "Examines this host for confidential guests, and says what mends it.",
        discussion: """
            Goes from the processor and the BIOS over kernel, modules, IOMMU and device nodes to the firmware and what it has left. \
            It changes nothing, but makes and initialises a VM of each kind for a moment. As root, with the module msr, it sees \
            more. Exit status: 0 nothing red, 4 something is.

            Example: swift-snp-vmm doctor
            Example: swift-snp-vmm doctor --confidential sev-es --json
            Example: swift-snp-vmm doctor --host-dump host.json   (there)   swift-snp-vmm doctor --from host.json   (here)
            Example: swift-snp-vmm doctor --scenario iommu-missing
            """)

    @Option(help: "For which guests: snp, sev-es, sev or none.")
    var confidential = Confidentiality.snp
    @Option(help: "Whose host: auto and kvm are this machine's own, software the software machine's.")
    var backend = BackendChoice.auto
    @OptionGroup var scenarioOption: ScenarioOption
    @Option(help: ArgumentHelp("Examines a host by the facts that --host-dump wrote there.", valueName: "file"))
    var from: String?
    @Option(
        name: .customLong("host-dump"),
        help: ArgumentHelp(
            "Writes the facts to a file: no names, addresses or keys. - is standard output.", valueName: "file"))
    var hostDump: String?
    @Flag(name: .customLong("with-chip-id"), help: "Also records the chip's id, which names this machine to AMD.")
    var withChipID = false
    @Flag(help: "Prints one JSON object.")
    var json = false
    @Flag(help: "Lists the troubles that --scenario knows.")
    var scenarios = false

    func validate() throws {
        if from != nil, backend != .auto || scenarioOption.scenario != nil || withChipID {
            throw ValidationError("--from examines a file: --backend, --scenario and --with-chip-id belong to a host.")
        }
    }

    func run() throws {
        guard !scenarios else { return list() }
        let technology = confidential.technology
        let examination = HostExamination(try facts(), for: technology)
        if let hostDump {
            let text = examination.facts.json.text
            if hostDump == "-" {
                StandardOutput.write(line: text)
            } else {
                let file = try OutputFile(path: hostDump, purpose: "the host's facts")
                file.write(line: text)
                StandardError.write(line: "wrote \(hostDump)")
            }
        }
        if json {
            StandardOutput.write(line: examination.json.text)
        } else if hostDump == nil {
            StandardOutput.write(line: examination.text(coloured: terminal_is_interactive(1) != 0))
        }
        if examination.cause != nil { throw ExitCode(VMMExitStatus.hostCannot.rawValue) }
    }

    private func facts() throws -> HostFacts {
        if let from {
            let text = try InputFile(path: from).read(as: "a host's facts")
            do throws(HostFacts.Failure) { return try HostFacts(json: text) } catch {
                throw CommandFailure(
                    status: .badInput,
                    message:
                        "could not use \(from) as a host's facts: \(error). Likely cause: another file, or one that was "
                        + "changed. Next step: make it anew with doctor --host-dump.")
            }
        }
        let scenario = try scenarioOption.load(backend)
        let choice: BackendChoice = scenario != nil || backend == .software ? .software : .kvm
        let host = try Backend(choice, technology: nil, memoryByteCount: 0, scenario: scenario)
        if choice == .software { StandardError.write(line: host.announcement) }
        return host.facts(chipID: withChipID)
    }

    private func list() {
        let width = HostScenario.builtIn.map(\.name.count).max() ?? 0
        for scenario in HostScenario.builtIn {
            StandardOutput.write(
                line: scenario.name + String(repeating: " ", count: width + 2 - scenario.name.count) + scenario.about)
        }
    }
}
