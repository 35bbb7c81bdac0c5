// `owner serve` as a program, and a guest that our VMM has launched from the same files.

import Attestation
import Crypto
import SecretRelease
import TestSupport
import Testing

@Suite("owner serve for SNP guests")
struct OwnerServeTests {
    /// Starts the command for the guest of ``GuestSetup``, and waits until it waits.
    private func serve(_ folder: ScratchFolder, _ more: [String]) throws -> (ChildProcess, String) {
        let setup = GuestSetup()
        let path = folder.path
        writeFile(path + "/kernel", SyntheticKernel.bzImage())
        writeFile(path + "/initrd", [1, 2, 3])
        writeFile(path + "/secret", TestOwner.secret)
        writeFile(path + "/ark.der", setup.manufacturer.rootCertificate(product: .milan))
        let policy =
            #"{"minimumTCB":{"bootLoader":4,"snp":24,"microcode":219},"chipID":"\#(try setup.chipID.hex)"}"#
        writeFile(path + "/policy.json", Array(policy.utf8))
        let server = try ChildProcess(
            try #require(BuiltProgram.path("swift-snp-vmm")),
            [
                "owner", "serve", "--kernel", path + "/kernel", "--initrd", path + "/initrd", "--cmdline",
                setup.commandLine, "--memory", "32M", "--report-policy", path + "/policy.json", "--trusted-root",
                path + "/ark.der", "--secret", "disk/root=" + path + "/secret", "--audit-log", path + "/audit",
            ] + more, mergesError: true)
        return (server, server.read(until: "for guests with measurement", timeoutMilliseconds: 60_000).output)
    }

    /// One exchange over a unix socket.
    private func ask(_ path: String, _ guest: ReleasingGuest) throws -> Ending {
        let peer = try SocketPeer(connectingTo: path)
        var request = SecretRequest(id: SecretID("disk/root")!)
        _ = peer.write(request.start())
        var bytes: [UInt8] = []
        while true {
            switch try request.receive(bytes) {
            case .needsMore: bytes = try peer.readExactly(1)
            case .needsReport(let data):
                bytes = []
                _ = peer.write(
                    try request.evidence(report: try guest.report(data), certificates: guest.certificates))
            case .secret(let secret): return .secret(secret.copied())
            case .refused(let refusal): return .refused(refusal.reason, refusal.detail)
            }
        }
    }

    @Test("the right guest gets its secret by any way in, another one a reason; the log has both and is private")
    func serves() throws {
        let folder = try ScratchFolder()
        let sockets = ["--unix", folder.path + "/unix", "--vsock", folder.path + "/guest:1234"]
        let (server, greeting) = try serve(folder, sockets + ["--http", "127.0.0.1:0", "--launches", "3"])
        #expect(greeting.contains("trusted because you named it"), "\(greeting)")
        #expect(!greeting.contains("minimumTCB"))
        let guest = try ReleasingGuest()
        // Somebody who connects, begins and waits does not keep others waiting.
        let slow = try SocketPeer(connectingTo: folder.path + "/unix")
        _ = slow.write(SecretReleaseMessage.hello(versions: 1...1).bytes)
        #expect(try slow.readExactly(44).count == 44)
        #expect(try ask(folder.path + "/unix", guest) == .secret(TestOwner.secret))
        var wrong = GuestSetup()
        wrong.policy = 0xb0000
        #expect(
            try ask(folder.path + "/guest_1234", ReleasingGuest(wrong)) == .refused(.policy, "POLICY.DEBUG"))
        // Somebody who looks in and says nothing is no decision.
        _ = try SocketPeer(connectingTo: folder.path + "/unix")
        #expect(try ask(folder.path + "/guest_1234", guest) == .secret(TestOwner.secret))
        let output = greeting + server.readUntilItEnds(timeoutMilliseconds: 60_000)
        #expect(server.wait().ending == .exited(0), "\(output)")
        #expect(output.contains("released disk/root to unix"), "\(output)")
        #expect(output.contains("policy: could not"), "\(output)")
        #expect(!output.contains("correct horse"))
        let log = try #require(readFile(folder.path + "/audit"))
        let lines = try log.split(separator: 0x0a).map { try JSONInput(text: Array($0)) }
            // The slow one's end stands there as well.
            .filter { $0["decision"] != .string("none") }
        withExtendedLifetime(slow) {}
        #expect(lines.map { $0["decision"] } == ["release", "refuse", "release"].map { JSONInput.string($0) })
        #expect(lines[1]["reason"] == .string("policy"))
        #expect(lines[0]["report"]?["measurement"] == .string(try guest.measurement().hex))
        // The sockets' names are gone.
        #expect(!folder.exists("unix") && !folder.exists("guest_1234"))
    }

    @Test("--once ends after the first decision")
    func once() throws {
        let folder = try ScratchFolder()
        let (server, greeting) = try serve(folder, ["--unix", folder.path + "/unix", "--once"])
        #expect(greeting.contains("waiting at unix"), "\(greeting)")
        #expect(try ask(folder.path + "/unix", ReleasingGuest()) == .secret(TestOwner.secret))
        _ = server.readUntilItEnds(timeoutMilliseconds: 60_000)
        #expect(server.wait().ending == .exited(0))
    }

    static let wrongUses: [([String], Int32, String)] = [
        ([], 2, "Give --socket"),
        (["--socket", "s", "--unix", "u"], 2, "--socket is for SEV and SEV-ES"),
        (["--unix", "u", "--ark", "a"], 2, "--trusted-root"),
        (["--unix", "u", "--once", "--launches", "2"], 2, "exclude"),
        (["--unix", "u", "--confidential", "sev-es", "--launch-digest", "00"], 2, "SNP"),
        (["--unix", "u"], 5, "MEASUREMENT"),
        (["--unix", "u", "--launch-digest", "00"], 2, "48"),
        (["--vsock", "p:x", "--launch-digest", digest], 2, "no port"),
        (["--vsock", "port:4294967295", "--launch-digest", digest], 2, "no port"),
        (["--http", "localhost", "--launch-digest", digest], 2, "numeric address"),
        (["--http", "localhost:80", "--launch-digest", digest], 4, "could not wait"),
        (["--unix", "/nonexistent/folder/u", "--launch-digest", digest], 3, "missing folder"),
        (["--unix", "u", "--launch-digest", digest, "--secret", "a b=x"], 2, "NAME=file"),
        (["--unix", "u", "--launch-digest", digest, "--audit-log", "/nonexistent/log"], 3, "audit log"),
        (["--unix", "u", "--launch-digest", digest, "--report-policy", "/dev/null"], 3, "policy"),
    ]
    static let digest = String(repeating: "ab", count: 48)

    @Test("wrong use is refused with a sentence and the right status", arguments: wrongUses)
    func wrongUse(arguments: [String], status: Int32, text: String) throws {
        let (ending, output) = try ChildProcess.run(
            try #require(BuiltProgram.path("swift-snp-vmm")), ["owner", "serve"] + arguments)
        #expect(ending == .exited(status), "\(output)")
        #expect(output.contains(text), "\(output)")
    }
}
