// All scenarios, run one after the other, and what came of it.

extension Scenario {
    /// Every attack, in the order of the table.
    public static let all: [Scenario] = [
        hostReadsMemory, hostReadsRegisters, swapsPagesBetweenGuests, liesAboutPageState,
        hostCorruptsMemory, replaysPage, remapsPage, aliasesPage, doubleValidates, movesCiphertext,
        changesRegisters, injectsException, liesAboutCPUID,
        sharesASID, reusesASIDUnflushed, reusesASIDFlushed,
        editsImage, editsInitrd, editsCommandLine, editsVMSA,
        replaysSecretElsewhere, replaysSecretTwice,
        rollsTCBBack, launchesOnOldFirmware,
    ]

    /// The attack with this name.
    public static func named(_ name: String) -> Scenario? { all.first { $0.name == name } }
}

/// The findings of one run.
public struct SuiteReport: Sendable {
    /// Rows, in the order they were run.
    public let scenarios: [Scenario]
    /// Columns. The control is always one of them.
    public let subjects: [Subject]
    public let findings: [Finding]

    /// True if nothing is wrong: every attack that could be run ended as promised, and succeeded on the control.
    public var isSound: Bool { !findings.contains { $0.verdict == .wrong || $0.verdict == .broken } }

    /// The cell of a row and a column.
    public func finding(_ scenario: Scenario, _ subject: Subject) -> Finding? {
        findings.first { $0.scenario.name == scenario.name && $0.subject == subject }
    }

    /// Runs scenarios on guests of some kinds and on the control.
    ///
    /// - Parameter progress: Called after each row with its findings.
    public init(
        running scenarios: [Scenario], on subjects: [Subject], in laboratory: Laboratory,
        progress: (Scenario, [Finding]) -> Void = { _, _ in }
    ) {
        let columns = Subject.allCases.filter { $0 == .plain || subjects.contains($0) }
        var findings: [Finding] = []
        for scenario in scenarios {
            let row = columns.map { scenario.run(on: $0, in: laboratory) }
            progress(scenario, row)
            findings += row
        }
        self.scenarios = scenarios
        self.subjects = columns
        self.findings = findings
    }
}
