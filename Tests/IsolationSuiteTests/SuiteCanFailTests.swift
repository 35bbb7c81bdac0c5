// A suite that cannot fail proves nothing: machines that break a promise, attacks that do not work, hosts that cannot.

import HostileSoftwareKernel
import IsolationSuite
import KVMABI
import SEVABI
import SoftwareKVM
import Testing

@Suite struct SuiteCanFailTests {
    func scenario(_ name: String) throws -> Scenario { try #require(Scenario.named(name)) }

    @Test(arguments: ["host-corrupts-memory", "replays-page"])
    func `memory without an RMP is found out`(_ name: String) throws {
        let kernel = try SoftwareKVM()
        let laboratory = Laboratory(kernel: kernel, privileges: WithoutRMP(kernel: kernel))
        let report = SuiteReport(running: [try scenario(name)], on: [.snp], in: laboratory)
        let finding = try #require(report.finding(scenario(name), .snp))
        #expect(finding.verdict == .wrong && finding.effect == .notStopped, "\(finding.evidence)")
        #expect(!report.isSound)
        let table = ResultText().table(report)
        #expect(table.contains("WRONG"), "\(table)")
        #expect(ResultText().summary(report).contains("1 did not"))
    }

    @Test(arguments: ["edits-image", "edits-initrd", "edits-command-line", "edits-vmsa"])
    func `a firmware that does not look at the ID block is found out`(_ name: String) throws {
        let kernel = MeddlingKernel(try SoftwareKVM()) { (kernel, handle, request, argument) throws(Errno) in
            guard request == .memoryEncryptOp else { return nil }
            var command: KVMSEVCommand = try argument.load()
            guard command.id == SEVCommandID.snpLaunchFinish.rawValue else { return nil }
            var withoutBlock = KVMSNPLaunchFinish()
            return try withKernelAddress(of: &withoutBlock) { (address: UInt64) throws(Errno) in
                command.data = address
                return try kernel.call(handle, request, &command)
            }
        }
        let finding = try scenario(name).run(on: .snp, in: Laboratory(kernel: kernel, privileges: nil))
        #expect(finding.verdict == .wrong && finding.effect == .notStopped, "\(finding.evidence)")
    }

    /// The measured VMM lies about what it launches: the honest launch is refused, and that is no success of an attack.
    @Test func `an owner that refuses everything makes the scenario broken`() throws {
        let kernel = MeddlingKernel(try SoftwareKVM()) { (kernel, handle, request, argument) throws(Errno) in
            guard request == .memoryEncryptOp else { return nil }
            let command: KVMSEVCommand = try argument.load()
            // Every LAUNCH_UPDATE_DATA is done twice, so no measurement is the expected one.
            if command.id == SEVCommandID.launchUpdateData.rawValue { _ = try kernel.ioctl(handle, request, argument) }
            return nil
        }
        let laboratory = Laboratory(kernel: kernel, privileges: nil)
        let report = SuiteReport(running: [try scenario("edits-image")], on: [.sev], in: laboratory)
        #expect(try #require(report.finding(scenario("edits-image"), .sev)).verdict == .broken)
        #expect(!report.isSound)
        #expect(ResultText().table(report).contains("BROKEN"))
    }

    @Test func `an attack that does not work on the control is found out`() throws {
        let kernel = MeddlingKernel(try SoftwareKVM()) { (_, _, request, _) throws(Errno) in
            request == .setVCPUEvents ? 0 : nil
        }
        let laboratory = Laboratory(kernel: kernel, privileges: nil)
        let report = SuiteReport(running: [try scenario("injects-exception")], on: [], in: laboratory)
        #expect(report.subjects == [.plain], "the control is always attacked")
        #expect(try #require(report.finding(scenario("injects-exception"), .plain)).verdict == .wrong)
        #expect(!report.isSound)
    }

    @Test func `without kernel privileges the rows that need them say so`() throws {
        let laboratory = Laboratory(kernel: try SoftwareKVM(), privileges: nil)
        let report = SuiteReport(running: Scenario.all, on: Subject.allCases, in: laboratory)
        #expect(report.isSound, "\(ResultText().table(report))")
        let notRun = report.findings.filter { $0.verdict == .notRun }
        #expect(notRun.allSatisfy { $0.evidence.first?.hasPrefix("needs ") == true })
        let names = Set(notRun.map { "\($0.scenario.name) \($0.subject.rawValue)" })
        #expect(
            names == [
                "swaps-pages-between-guests snp", "host-corrupts-memory snp", "replays-page snp", "aliases-page snp",
                "double-validates snp", "moves-ciphertext snp", "changes-registers sev-es", "changes-registers snp",
                "shares-asid sev", "shares-asid sev-es", "shares-asid snp", "reuses-asid-unflushed sev",
                "reuses-asid-unflushed sev-es", "reuses-asid-unflushed snp", "reuses-asid-flushed sev",
                "reuses-asid-flushed sev-es", "reuses-asid-flushed snp", "rolls-tcb-back plain", "rolls-tcb-back sev",
                "rolls-tcb-back sev-es", "rolls-tcb-back snp",
            ])
        let table = ResultText().table(report)
        #expect(table.contains("[1] not run: needs host kernel privileges"), "\(table)")
    }

    @Test func `a host without SEV runs the control alone`() throws {
        let kernel = MeddlingKernel(try SoftwareKVM()) { (_, _, request, argument) throws(Errno) in
            guard request == .checkExtension, case .value(UInt64(Capability.vmTypes.rawValue)) = argument else {
                return nil
            }
            return 1
        }
        let laboratory = Laboratory(kernel: kernel, privileges: nil)
        let report = SuiteReport(running: [try scenario("remaps-page")], on: Subject.allCases, in: laboratory)
        #expect(report.findings.map(\.verdict) == [.asPromised, .notRun, .notRun, .notRun])
        #expect(report.isSound)
    }
}
