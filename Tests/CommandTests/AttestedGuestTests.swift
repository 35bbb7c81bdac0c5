// From /dev/sev-guest to a verdict: Debian's unmodified kernel and driver ask for reports, and the host's side judges them,
// with our own code and with verifiers that others wrote.

import Crypto
import Glibc
import GuestAgent
import TestSupport
import Testing

/// One boot of the amd64 guest, and what its agent got.
private struct AttestedGuest: Sendable {
    /// What the guest puts into REPORT_DATA.
    static let nonce = "6e6f6e636500112233445566778899aabbccddeeff"
    static let folder = (environment("TMPDIR") ?? "/tmp") + "/snp-vmm-\(BuiltProgram.processIdentifier)-attested"

    static let once = Result { try AttestedGuest() }

    let workshop: Workshop
    let image: String
    /// 1184 bytes.
    let report: [UInt8]
    /// A report for VMPL 2.
    let otherReport: [UInt8]
    /// The certificate table of the extended request.
    let certificates: [UInt8]
    /// What the agent has said about keys.
    let keys: String

    var reportFile: String { workshop.folder + "/report.bin" }
    var otherReportFile: String { workshop.folder + "/other.bin" }
    var certificatesFile: String { workshop.folder + "/certs.bin" }

    private init() throws {
        workshop = try Workshop("attested")
        // It is kept until the process ends.
        atexit { _ = try? ChildProcess.run("rm", ["-rf", AttestedGuest.folder]) }
        try #require(workshop.folder == Self.folder)
        image = try #require(BuiltGuest.imageAMD64)
        let guest = try GuestShell([image] + workshop.platform)
        let output = try guest.run(
            "snp-guest-agent ext-report --data \(Self.nonce); snp-guest-agent report --data 01 --vmpl 2")
        keys = try guest.run(
            "for m in policy,measurement policy,measurement policy; do snp-guest-agent derive-key --mix $m --digest; done; "
                + "snp-guest-agent derive-key --root vlek --digest; echo status $?")
        try #require(guest.powerOff() == .exited(0), "\(guest.transcript)")

        let blocks = try #require(PEM.blocks(Array(output.utf8)), "\(output)")
        try #require(
            blocks.map(\.label) == [Agent.reportLabel, Agent.certificatesLabel, Agent.reportLabel], "\(output)")
        (report, certificates, otherReport) = (blocks[0].bytes, blocks[1].bytes, blocks[2].bytes)
        try #require(writeFile(reportFile, report) && writeFile(otherReportFile, otherReport))
        try #require(writeFile(certificatesFile, certificates))
    }

    /// What `measure` says before any launch, as hex digits.
    func measurement() throws -> String {
        let measured = try workshop.command(["measure", image])
        try #require(measured.ending == .exited(0), "\(measured.output)")
        return measured.output.filter { !$0.isWhitespace }
    }

    func verify(_ report: String, _ arguments: String...) throws -> (ending: ChildProcess.Ending, output: String) {
        try workshop.command(["verify", report] + arguments)
    }
}

@Suite(
    "A guest that proves itself",
    .enabled(if: BuiltGuest.imageAMD64 != nil, "no amd64 guest: run `make guest-amd64`"))
struct AttestedGuestTests {
    @Test func theMeasurementIsTheOneThatWasComputed() throws {
        let guest = try AttestedGuest.once.get()
        #expect(Array(guest.report[0x90..<0xc0]).hex == (try guest.measurement()))
        #expect(Array(guest.report[0x50..<0x90]).hex.hasPrefix(AttestedGuest.nonce + "00"))
    }

    /// By the certificates that the guest was given, and by those that the platform exports.
    @Test func theReportIsGenuineToWhoNamesTheRoot() throws {
        let guest = try AttestedGuest.once.get()
        let root = guest.workshop.certificates + "/ark.pem"
        let measurement = try guest.measurement()
        for certificates in [guest.certificatesFile, guest.workshop.certificates] {
            let accepted = try guest.verify(
                guest.reportFile, "--certs", certificates, "--trusted-root", root, "--nonce", AttestedGuest.nonce,
                "--measurement", measurement)
            #expect(accepted.ending == .exited(0), "\(accepted.output)")
            #expect(accepted.output.contains("TRUSTED ONLY BECAUSE YOU NAMED IT"), "\(accepted.output)")
            let refused = try guest.verify(
                guest.reportFile, "--certs", certificates, "--nonce", AttestedGuest.nonce, "--measurement", measurement)
            #expect(refused.ending == .exited(5), "\(refused.output)")
            #expect(refused.output.contains("ARK, key fingerprint"), "\(refused.output)")
        }
    }

    @Test func aReportForALowerVMPLIsRefused() throws {
        let guest = try AttestedGuest.once.get()
        let refused = try guest.verify(
            guest.otherReportFile, "--certs", guest.certificatesFile, "--trusted-root",
            guest.workshop.certificates + "/ark.pem", "--nonce", "01")
        #expect(
            refused.ending == .exited(5) && refused.output.contains("VMPL: expected 0, found 2"), "\(refused.output)")
    }

    /// The same key for the same mix, another for another; none from a VLEK that is not loaded.
    @Test func keysFollowFromTheGuest() throws {
        let guest = try AttestedGuest.once.get()
        let digests = guest.keys.split(whereSeparator: \.isNewline).filter { $0.hasPrefix("derived key: 32 bytes, ") }
        #expect(digests.count == 3 && digests[0] == digests[1] && digests[1] != digests[2], "\(guest.keys)")
        #expect(guest.keys.contains("INVALID_KEY") && guest.keys.contains("status 5"), "\(guest.keys)")
    }

    /// omne-attest and cvm-attest accept with our root, and refuse with AMD's.
    @Test(.enabled(if: Peers.python != nil, Comment(rawValue: Peers.absence)))
    func verifiersOfOthersAgree() throws {
        let guest = try AttestedGuest.once.get()
        let script = PackageFolder.path + "/Tests/Peers/verify-report.py"
        let certificates = guest.workshop.certificates
        for (root, status) in [(certificates + "/ark.pem", Int32(0)), ("amd", 10)] {
            let verdicts = try ChildProcess.run(
                try #require(Peers.python),
                [script, guest.reportFile, certificates, root, try guest.measurement(), AttestedGuest.nonce],
                timeoutMilliseconds: 120_000)
            #expect(verdicts.ending == .exited(status), "\(verdicts.output)")
        }
    }
}

/// Verifiers that others wrote (`make deps-peers`).
private enum Peers {
    static let folder = PackageFolder.path + "/.peers"
    static var python: String? { readFile(folder + "/complete") == nil ? nil : folder + "/bin/python" }
    static var absence: String {
        readFile(folder + "/absent").map { String(decoding: $0, as: UTF8.self) } ?? "no peers: run `make deps-peers`"
    }
}
