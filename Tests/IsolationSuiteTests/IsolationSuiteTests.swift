// Every cell of the table as a test, on the software machine with a hostile kernel.

import HostileSoftwareKernel
import IsolationSuite
import KVMABI
import Testing

struct Cell: CustomTestStringConvertible, Sendable {
    var scenario: Scenario
    var subject: Subject
    var testDescription: String { "\(scenario.name) on \(subject.rawValue)" }

    static let all = Scenario.all.flatMap { scenario in
        Subject.allCases.map { Cell(scenario: scenario, subject: $0) }
    }
}

@Suite struct IsolationSuiteTests {
    @Test(arguments: Cell.all)
    func `an attack ends as promised`(_ cell: Cell) throws {
        let finding = cell.scenario.run(on: cell.subject, in: try .software(seed: 1))
        let evidence = Comment(rawValue: finding.evidence.joined(separator: "\n"))
        #expect(finding.verdict == .asPromised, evidence)
        #expect(!finding.evidence.isEmpty, "a result without evidence is a claim")
    }
}
