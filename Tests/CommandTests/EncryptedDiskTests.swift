// The example of the encrypted disk, run as its user does: one script, from an empty disk to a refused guest.

import TestSupport
import Testing

@Suite(
    "The encrypted disk",
    .enabled(if: BuiltGuest.encryptedDisk != nil, "no guest for it: run `make .guest/encrypted-disk.cpio`"))
struct EncryptedDiskTests {
    @Test func theDiskOpensAfterAttestationOnly() throws {
        let workshop = try Workshop("disk", exportsCertificates: false)
        let run = try ChildProcess.run(
            PackageFolder.path + "/Examples/EncryptedDisk/run.sh",
            [try workshop.program(), PackageFolder.path + "/.guest", workshop.folder],
            timeoutMilliseconds: BootTests.patience)
        #expect(run.ending == .exited(0), "\(run.output)")
        func part(_ title: String) -> String {
            let parts = run.output.split(separator: "== ").filter { $0.hasPrefix(title) }
            return parts.first.map { String($0) } ?? "no part: \(run.output)"
        }
        #expect(part("A guest that makes the volume").contains("encrypted-disk: formatted"))
        let host = part("What the host has")
        #expect(host.contains("a LUKS volume") && host.contains("the message is not in it"), "\(host)")
        let opened = part("The guest that the owner expects")
        #expect(opened.contains("opened. The message is: The treasure is under the oak."), "\(opened)")
        let other = part("One word more")
        #expect(other.contains("refused, measurement") && other.contains("the volume does not open"), "\(other)")
        #expect(!other.contains("treasure"), "\(other)")

        // The host's side of it, byte by byte: a header, and nothing that the guest has written in the clear.
        let disk = try #require(readFile(workshop.folder + "/disk.img"))
        #expect(disk.starts(with: Array("LUKS".utf8) + [0xba, 0xbe, 0, 2]))
        #expect(!String(decoding: disk, as: UTF8.self).contains("treasure"))
        let audit = String(decoding: readFile(workshop.folder + "/audit.jsonl") ?? [], as: UTF8.self)
        let decisions = audit.split(separator: "\n").map { $0.contains("\"release\"") ? "release" : "refuse" }
        #expect(decisions == ["release", "release", "release", "refuse"], "\(audit)")
    }
}
