// The commands on a machine that is not there: what they print, write and hand on, and how secrets travel.

import ABILayout
import Crypto
import GuestAgent
import SEVABI
import SecretRelease
import Testing

/// An owner at the other end of a connection in this process.
final class FakeOwner: OwnerStream {
    enum Conduct {
        case releases([UInt8])
        case refuses(SecretRefusal)
        case hangsUp
        case talksNonsense
    }

    let conduct: Conduct
    private var exchange = SecretExchange()
    private var outgoing: [UInt8] = []
    private(set) var evidence: SecretEvidence?

    init(_ conduct: Conduct) { self.conduct = conduct }

    func write(_ bytes: [UInt8]) throws(AgentError) {
        if case .talksNonsense = conduct {
            outgoing += Array("HTTP/1.1 400 Bad Request".utf8)
            return
        }
        let event: SecretExchange.Event
        do { event = try exchange.receive(bytes) } catch {
            outgoing += exchange.refuse(error)
            return
        }
        switch event {
        case .needsMore: break
        case .hello: outgoing += exchange.challenge(nonce: [UInt8](repeating: 3, count: 32))
        case .evidence(let evidence):
            self.evidence = evidence
            switch conduct {
            case .releases(let secret): outgoing += exchange.release(SecretBytes(secret))
            case .refuses(let refusal): outgoing += exchange.refuse(refusal)
            default: break
            }
        }
    }

    /// In small pieces.
    func read() throws(AgentError) -> [UInt8] {
        let piece = Array(outgoing.prefix(50))
        outgoing.removeFirst(piece.count)
        return piece
    }
}

struct AgentTests {
    let secret = Array("correct horse battery staple".utf8)
    var digest: String { hexadecimalText(SHA256.hash(secret).array) }

    @Test func reportsArePrintedOrWritten() throws {
        let machine = FakeMachine()
        #expect(try machine.run("ext-report", "--data", "aabb") == 0)
        let blocks = try #require(PEM.blocks(Array(machine.output.utf8)))
        #expect(blocks.map(\.label) == [Agent.reportLabel, Agent.certificatesLabel])
        #expect(Array(blocks[0].bytes[0x50..<0x53]) == [0xaa, 0xbb, 0])
        #expect(blocks[1].bytes.count == 0x4000)

        let quiet = FakeMachine()
        #expect(try quiet.run("ext-report", "--data", "aabb", "--out", "r", "--certs-out", "c") == 0)
        #expect(quiet.output.isEmpty)
        #expect(quiet.files["r"] == blocks[0].bytes)
        #expect(quiet.files["c"] == blocks[1].bytes)
    }

    @Test func aSecretArrives() throws {
        let owner = FakeOwner(.releases(secret))
        let machine = FakeMachine(owner: owner)
        #expect(try machine.run("get-secret", "--vsock", "2:9", "--id", "disk", "--digest") == 0)
        #expect(machine.output == "secret disk: 28 bytes, sha256 \(digest)\n")
        let evidence = try #require(owner.evidence)
        #expect(evidence.id.text == "disk")
        // The report is bound to the key that the secret came for, and the certificates are the host's.
        let bound = SecretBinding.reportData(
            nonce: evidence.nonce, publicKey: try #require(evidence.key), id: evidence.id)
        #expect(Array(evidence.report[0x50..<0x90]) == bound)
        #expect(evidence.certificates == [UInt8](repeating: 7, count: 0x4000))
    }

    @Test func aSecretGoesToAFileOrAProgramOnly() throws {
        let toFile = FakeMachine(owner: FakeOwner(.releases(secret)))
        #expect(try toFile.run("get-secret", "--unix", "s", "--id", "a", "--expect", digest, "--out", "/run/k") == 0)
        #expect(toFile.files == ["/run/k": secret])
        #expect(toFile.output.isEmpty)

        let toProgram = FakeMachine(owner: FakeOwner(.releases(secret)))
        toProgram.programStatus = 9
        #expect(try toProgram.run("get-secret", "--unix", "s", "--id", "a", "--", "cryptsetup", "open") == 9)
        #expect(toProgram.programs.count == 1)
        #expect(toProgram.programs.first?.arguments == ["cryptsetup", "open"])
        #expect(toProgram.programs.first?.input == secret)
        #expect(toProgram.output.isEmpty)
    }

    /// The owner's protocol does not say who the owner is; the measured command line can.
    @Test func anotherSecretThanExpectedIsThrownAway() {
        let machine = FakeMachine(owner: FakeOwner(.releases(Array("another".utf8))))
        let error = #expect(throws: AgentError.self) {
            try machine.run("get-secret", "--unix", "s", "--id", "a", "--expect", digest, "--out", "f")
        }
        #expect(error?.status == .refused)
        #expect(error?.description.contains("answers in the owner's place") == true)
        #expect(machine.files.isEmpty)
    }

    @Test func aRefusalIsToldWithItsReason() {
        let machine = FakeMachine(owner: FakeOwner(.refuses(SecretRefusal(.measurement, "not this guest"))))
        let error = #expect(throws: AgentError.self) {
            try machine.run("get-secret", "--unix", "s", "--id", "a", "--digest")
        }
        #expect(error?.status == .refused)
        #expect(error?.description.contains("refused, measurement: not this guest") == true)
        #expect(machine.output.isEmpty)
    }

    @Test(arguments: [
        (FakeOwner.Conduct.hangsUp, AgentError.Status.unavailable, "the end of the connection"),
        (.talksNonsense, .refused, "SREL"),
    ])
    func otherEndings(_ conduct: FakeOwner.Conduct, _ status: AgentError.Status, _ text: String) {
        let machine = FakeMachine(owner: FakeOwner(conduct))
        let error = #expect(throws: AgentError.self) {
            try machine.run("get-secret", "--unix", "s", "--id", "a", "--digest")
        }
        #expect(error?.status == status)
        #expect(error?.description.contains(text) == true, "\(String(describing: error))")
    }

    @Test func aNameThatIsNoneIsRefusedBeforeAnythingIsSent() {
        let owner = FakeOwner(.releases(secret))
        let machine = FakeMachine(owner: owner)
        let error = #expect(throws: AgentError.self) {
            try machine.run("get-secret", "--unix", "s", "--id", "a b", "--digest")
        }
        #expect(error?.status == .usage)
        #expect(machine.fakeDriver.requests.isEmpty)
    }

    /// Programs of this machine: their input, their status, and what is said when there is none.
    @Test func programsOfThisMachine() throws {
        let machine = LocalMachine()
        #expect(try machine.run(["sh", "-c", "test \"$(cat)\" = abc && exit 7"], input: Array("abc".utf8)) == 7)
        // More than a pipe holds, for a program that reads none of it.
        #expect(try machine.run(["true"], input: [UInt8](repeating: 0, count: 1 << 20)) == 0)
        #expect(throws: AgentError.self) { try machine.run(["/nowhere/at-all"], input: []) }
        #expect(throws: AgentError.self) { try machine.run(["sh", "-c", "kill -9 $$"], input: []) }
    }

    /// Where no firmware is: which kernel that is, and what to do.
    @Test(.enabled(if: !LocalMachine.hasDriver, "this machine has a /dev/sev-guest of its own"))
    func aMachineWithoutTheDeviceSaysWhy() {
        let error = #expect(throws: AgentError.self) { try LocalMachine().driver() }
        #expect(error?.status == .unavailable)
        #expect(error?.description.contains("/dev/sev-guest") == true)
        #expect(error?.description.contains("not an SNP guest") == true)
    }
}

extension LocalMachine {
    static var hasDriver: Bool { (try? LocalMachine().driver()) != nil }
}
