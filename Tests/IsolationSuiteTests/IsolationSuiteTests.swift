// Every cell of the table as a test, on the software machine with a hostile kernel.

import HostileSoftwareKernel
import IsolationSuite
import KVMABI
import SoftwareKVM
import Testing

/// A machine for one test.
func laboratory() throws -> Laboratory {
    var configuration = SoftwareKVM.Configuration()
    configuration.seed = 1
    let kernel = try SoftwareKVM(configuration: configuration)
    return Laboratory(kernel: kernel, privileges: HostileSoftwareKernel(kernel))
}

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
        let finding = cell.scenario.run(on: cell.subject, in: try laboratory())
        let evidence = Comment(rawValue: finding.evidence.joined(separator: "\n"))
        #expect(finding.verdict == .asPromised, evidence)
    }
}
