// The command line: what each option means, and that nothing is ignored.

import GuestAgent
import SEVABI
import Testing

struct AgentArgumentsTests {
    @Test func reportOptions() throws {
        #expect(
            try AgentCommand(["report", "--data", "0aFF", "--vmpl", "2", "--key", "vlek", "--out", "r"])
                == .report(ReportRequest(reportData: [0x0a, 0xff], vmpl: 2, keySelection: .vlek), output: "r"))
        #expect(
            try AgentCommand(["ext-report", "--data", "00"])
                == .extendedReport(ReportRequest(reportData: [0]), output: nil, certificates: nil))
        #expect(
            try AgentCommand(["ext-report", "--data", "00", "--out", "r", "--certs-out", "c"])
                == .extendedReport(ReportRequest(reportData: [0]), output: "r", certificates: "c"))
    }

    @Test func keyOptions() throws {
        #expect(
            try AgentCommand([
                "derive-key", "--root", "vmrk", "--mix", "policy,measurement,tcb,guest-svn,image-id,family-id", "--tcb",
                "db18000000000004", "--guest-svn", "7", "--vmpl", "1", "--out", "k",
            ])
                == .deriveKey(
                    KeyRequest(
                        usesVMRK: true, fields: .all(messageVersion: 1), vmpl: 1, guestSVN: 7,
                        tcbVersion: TCBVersion(rawValue: 0xdb18_0000_0000_0004)),
                    .file("k")))
        #expect(
            try AgentCommand(["derive-key", "--", "sh", "-c", "cat"])
                == .deriveKey(KeyRequest(), .program(["sh", "-c", "cat"])))
    }

    @Test func secretOptions() throws {
        #expect(
            try AgentCommand(["get-secret", "--vsock", "2:999", "--id", "a/b", "--digest"])
                == .getSecret(id: "a/b", from: .vsock(cid: 2, port: 999), expectedDigest: nil, .digest))
        let digest = [UInt8](repeating: 0xab, count: 32)
        #expect(
            try AgentCommand(
                [
                    "get-secret", "--unix", "s", "--id", "a", "--expect", String(repeating: "ab", count: 32), "--out",
                    "f",
                ])
                == .getSecret(id: "a", from: .unix("s"), expectedDigest: digest, .file("f")))
    }

    @Test(arguments: [
        [], ["reports"], ["report"], ["report", "--data", "0"], ["report", "--data", "0g"],
        ["report", "--data", String(repeating: "00", count: 65)], ["report", "--data", "00", "--vmpl", "4"],
        ["report", "--data", "00", "--vmpl", "-1"], ["report", "--data", "00", "--key", "vmrk"],
        ["report", "--data", "00", "--digest"], ["report", "--data", "00", "--data", "01"],
        ["report", "--data", "00", "extra"], ["report", "--data", "00", "--out"],
        ["report", "--data", "00", "--", "x"],
        ["report", "--data", "00", "--certs-out", "c"], ["ext-report", "--data", "00", "--certs-out", "c"],
        ["derive-key"], ["derive-key", "--out", "k", "--digest"], ["derive-key", "--digest", "--", "cat"],
        ["derive-key", "--digest", "--mix", "everything"], ["derive-key", "--digest", "--tcb", "x"],
        ["derive-key", "--digest", "--root", "mine"], ["derive-key", "--out", ""], ["get-secret", "--digest"],
        ["get-secret", "--id", "a", "--digest"], ["get-secret", "--id", "a", "--vsock", "2", "--digest"],
        ["get-secret", "--id", "a", "--vsock", "2:x", "--digest"],
        ["get-secret", "--id", "a", "--vsock", "2:1", "--unix", "s", "--digest"],
        ["get-secret", "--id", "a", "--vsock", "2:1"],
        ["get-secret", "--id", "a", "--vsock", "2:1", "--digest", "--expect", "00"],
    ])
    func whatIsNoCommandLineIsRefused(_ arguments: [String]) {
        #expect(throws: AgentError.self) { try AgentCommand(arguments) }
        do { _ = try AgentCommand(arguments) } catch { #expect(error.status == .usage, "\(error)") }
    }
}
