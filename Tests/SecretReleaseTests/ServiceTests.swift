import Attestation
import Crypto
import GuestOwner
import SecretRelease
import TestSupport
import Testing

@Suite("Release of secrets: the service")
struct ServiceTests {
    static let hello = SecretReleaseMessage.hello(versions: 1...1).bytes

    func refusal(_ bytes: [UInt8]) throws -> SecretRefusal.Reason? {
        var decoder = SecretReleaseDecoder()
        decoder.append(bytes)
        guard case .refusal(let refusal)? = try decoder.next() else { return nil }
        return refusal.reason
    }

    @Test("nonces: no more than there is room for, and room again when they are too old")
    func boundedNonces() throws {
        let store = NonceStore(lifetimeMilliseconds: 100, capacity: 3)
        let nonces = (0..<3).compactMap { store.issue(at: $0) }
        #expect(nonces.count == 3 && Set(nonces).count == 3)
        #expect(store.issue(at: 3) == nil)
        #expect(store.take(nonces[1], at: 50) == .fresh)
        #expect(store.take(nonces[1], at: 50) == .used)
        #expect(store.issue(at: 60) == nil, "a used nonce is remembered")
        #expect(store.take(nonces[2], at: 103) == .expired)
        #expect(store.take(nonces[0], at: 150) == .expired)
        // 200 after its birth the first is forgotten.
        let fourth = try #require(store.issue(at: 201))
        #expect(store.take(nonces[0], at: 201) == .unknown)
        #expect(store.take(fourth, at: 301) == .fresh)
        #expect(store.take([1, 2], at: 301) == .unknown)
        #expect(store.issue(at: 10_000) != nil && store.count == 1)
    }

    @Test("too many exchanges at once: busy, until some are over")
    func busy() throws {
        let owner = try TestOwner(nonces: NonceStore(capacity: 2))
        #expect(try refusal(owner.service.answer(Self.hello, peer: "a")) == nil)
        #expect(try refusal(owner.service.answer(Self.hello, peer: "b")) == nil)
        #expect(try refusal(owner.service.answer(Self.hello, peer: "c")) == .busy)
        owner.pass(milliseconds: 1_000_000)
        #expect(try refusal(owner.service.answer(Self.hello, peer: "d")) == nil)
        #expect(owner.log.map(\.peer) == ["c"])
    }

    @Test("what is no message is refused and written down; a connection that says nothing leaves no trace")
    func garbage() throws {
        let owner = try TestOwner()
        #expect(try refusal(owner.service.answer(Array("GET / HTTP/1.1\r\n\r\n".utf8), peer: "x")) == .malformed)
        #expect(try refusal(owner.service.answer([], peer: "x")) == .malformed)
        #expect(try refusal(owner.service.answer(Array(Self.hello.dropLast()), peer: "x")) == .malformed)
        #expect(owner.log.map(\.decision) == [.refuse, .none, .none])
        var silent = owner.service.conversation(peer: "y")
        #expect(silent.end(.closed).isEmpty)
        var slow = owner.service.conversation(peer: "y")
        #expect(!slow.receive(Self.hello).isLast)
        #expect(try refusal(slow.end(.timeout)) == .busy)
        #expect(slow.isOver && slow.end(.closed).isEmpty)
        #expect(owner.log.map(\.reason).suffix(1) == ["timeout"])
    }

    @Test("more bytes than an exchange has end it, and nothing is kept")
    func tooManyBytes() throws {
        let owner = try TestOwner()
        var conversation = owner.service.conversation(peer: "z")
        _ = conversation.receive(Self.hello)
        // Evidence that announces the greatest length and never ends.
        var answer = conversation.receive([0x53, 0x52, 0x45, 0x4c, 1, 0, 3, 0, 0x26, 0x06, 0x01, 0])
        #expect(answer.bytes.isEmpty && !answer.isLast)
        for _ in 0..<70 where !answer.isLast {
            answer = conversation.receive([UInt8](repeating: 0, count: 1000))
        }
        #expect(answer.isLast)
        #expect(try refusal(answer.bytes) == .malformed)
        let after = conversation.receive(Self.hello)
        #expect(after.isLast && after.bytes.isEmpty)
    }

    @Test("hello and evidence in one piece are two messages; the second is not for a nonce that nobody knew")
    func together() throws {
        let owner = try TestOwner()
        let guest = try ReleasingGuest()
        var request = SecretRequest(id: SecretID("disk/root")!)
        let hello = request.start()
        guard
            case .needsReport(let data) = try request.receive(
                SecretReleaseMessage.challenge(nonce: [UInt8](repeating: 1, count: 32)).bytes)
        else {
            Issue.record("no challenge taken")
            return
        }
        let evidence = try request.evidence(report: try guest.report(data), certificates: guest.certificates)
        var conversation = owner.service.conversation(peer: "w")
        let answer = conversation.receive(hello + evidence)
        #expect(answer.isLast)
        #expect(owner.log.map(\.reason) == ["nonce"])
    }

    @Test("a line of the log is one line of JSON with what a reader needs, and no secret")
    func lines() throws {
        let owner = try TestOwner()
        let guest = try ReleasingGuest()
        _ = try exchange(guest, owner)
        var wrong = GuestSetup()
        wrong.policy = 0xb0000
        _ = try exchange(ReleasingGuest(wrong), owner)
        for (record, decision) in zip(owner.log, ["release", "refuse"]) {
            let line = record.line
            #expect(!line.contains("\n"))
            #expect(!line.contains("correct horse"))
            let json = try JSONInput(text: Array(line.utf8))
            #expect(json["time"] == .string("2026-11-23T00:00:00Z"))
            #expect(json["peer"] == .string("test"))
            #expect(json["decision"] == .string(decision))
            #expect(json["secret"] == .string("disk/root"))
            #expect(json["report"]?["chipID"] == .string(try guest.setup.chipID.hex))
            #expect(json["report"]?["measurement"] == .string(try guest.measurement().hex))
            #expect(json["report"]?["genuine"] == .bool(decision == "release"))
        }
        let refused = try JSONInput(text: Array(owner.log[1].line.utf8))
        #expect(refused["reason"] == .string("policy"))
        guard case .array(let causes)? = refused["causes"], case .string(let cause)? = causes.first else {
            Issue.record("no causes")
            return
        }
        #expect(cause.contains("POLICY.DEBUG"))
        #expect(refused["report"]?["policy"] == .string("0xb0000"))
    }
}
