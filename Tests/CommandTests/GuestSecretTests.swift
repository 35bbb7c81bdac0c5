// An SNP guest, its agent and its owner as three programs: the secret arrives in the guest that the owner expects, and in no
// other.

import Crypto
import TestSupport
import Testing

@Suite(
    "A guest that gets a secret",
    .enabled(
        if: BuiltGuest.unpackedKernelAMD64 != nil && BuiltGuest.initrdAMD64 != nil,
        "no amd64 guest: run `make guest-amd64`"))
struct GuestSecretTests {
    static let commandLine = "console=ttyS0 quiet panic=-1 reboot=a 8250.nr_uarts=1 pci=off cryptomgr.notests"

    /// Two owners of one guest: one expects it as it was launched, the other with a word more on its command line.
    @Test func theSecretArrivesInTheRightGuestOnly() throws {
        let workshop = try Workshop("secret")
        let image = [
            "--kernel", try #require(BuiltGuest.unpackedKernelAMD64), "--initrd", try #require(BuiltGuest.initrdAMD64),
        ]
        let socket = workshop.folder + "/vsock"
        func owner(_ commandLine: String, port: Int) throws -> ChildProcess {
            let owner = try ChildProcess(
                try workshop.program(),
                ["owner", "serve"] + image + [
                    "--cmdline", commandLine, "--secret", "disk=\(workshop.secretFile)", "--vsock", "\(socket):\(port)",
                    "--trusted-root", workshop.certificates + "/ark.pem", "--launches", "1", "--audit-log",
                    workshop.folder + "/audit-\(port)",
                ], mergesError: true)
            let start = owner.read(until: "secrets disk for guests", timeoutMilliseconds: BootTests.patience)
            try #require(start.found, "\(start.output)")
            return owner
        }
        let right = try owner(Self.commandLine, port: 999)
        let wrong = try owner(Self.commandLine + " debug", port: 1000)

        let guest = try GuestShell(
            image + ["--cmdline", Self.commandLine, "--vsock", "3,\(socket)"] + workshop.platform)
        let released = try guest.run("snp-guest-agent get-secret --vsock 2:999 --id disk --digest; echo status $?")
        let refused = try guest.run("snp-guest-agent get-secret --vsock 2:1000 --id disk --digest; echo status $?")
        let nobody = try guest.run("snp-guest-agent get-secret --vsock 2:1001 --id disk --digest; echo status $?")
        #expect(guest.powerOff() == .exited(0), "\(guest.transcript)")

        let digest = SHA256.hash(Workshop.secret).array.hex
        #expect(released.contains("secret disk: \(Workshop.secret.count) bytes, sha256 \(digest)"), "\(released)")
        #expect(refused.contains("refused, measurement") && refused.contains("status 5"), "\(refused)")
        #expect(!refused.contains(digest))
        #expect(nobody.contains("nobody waits at that port") && nobody.contains("status 4"), "\(nobody)")
        // Each of them has served its one guest, and kept a record of it.
        for (owner, port, decision) in [(right, 999, "release"), (wrong, 1000, "refuse")] {
            _ = owner.readUntilItEnds(timeoutMilliseconds: BootTests.patience)
            #expect(owner.wait().ending == .exited(0))
            let log = String(decoding: readFile(workshop.folder + "/audit-\(port)") ?? [], as: UTF8.self)
            #expect(log.contains("\"\(decision)\""), "\(log)")
            #expect(!log.contains("correct horse"), "\(log)")
        }
    }
}
