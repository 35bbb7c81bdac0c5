import Crypto
import SEVABI
import SecretRelease
import TestSupport
import Testing

@Suite("Release of secrets: the exchange")
struct ExchangeTests {
    static let id = SecretID("disk/root")!

    /// A report that nobody signed, with the report data in its place.
    static func report(_ reportData: [UInt8]) -> [UInt8] {
        var body = AttestationReportBody(version: 2)
        body.reportData = reportData
        return body.report(signature: nil)
    }

    /// One exchange up to the evidence.
    struct Run {
        var request: SecretRequest
        var exchange = SecretExchange()
        var evidenceFrame: [UInt8]
        var evidence: SecretEvidence

        init(nonce: [UInt8] = randomBytes(32), certificates: [UInt8] = [1, 2, 3]) throws {
            request = SecretRequest(id: ExchangeTests.id)
            try #require(try exchange.receive(request.start()) == .hello)
            guard case .needsReport(let reportData) = try request.receive(exchange.challenge(nonce: nonce)) else {
                throw Unexpected()
            }
            evidenceFrame = try request.evidence(
                report: ExchangeTests.report(reportData), certificates: certificates)
            guard case .evidence(let evidence) = try exchange.receive(evidenceFrame) else { throw Unexpected() }
            self.evidence = evidence
        }
    }

    struct Unexpected: Error {}

    @Test("from hello to the secret; every part of the evidence arrives")
    func whole() throws {
        let nonce = randomBytes(32)
        var run = try Run(nonce: nonce)
        #expect(run.evidence.nonce == nonce)
        #expect(run.evidence.id == Self.id)
        #expect(run.evidence.certificates == [1, 2, 3])
        let key = try #require(run.evidence.key)
        #expect(
            Array(run.evidence.report[0x50..<0x90])
                == SecretBinding.reportData(nonce: nonce, publicKey: key, id: Self.id))
        let release = run.exchange.release(SecretBytes([7, 8, 9]))
        guard case .secret(let secret) = try run.request.receive(release) else { throw Unexpected() }
        #expect(secret.copied() == [7, 8, 9])
        #expect(run.exchange.isOver)
        // The ciphertext is no plaintext, and there is nothing to be had twice.
        #expect(throws: SecretReleaseError.self) { try run.request.receive(release) }
    }

    @Test("in pieces of one byte", arguments: [1, 7, 1000])
    func pieces(_ size: Int) throws {
        var request = SecretRequest(id: Self.id)
        var exchange = SecretExchange()
        func owner(_ bytes: [UInt8]) throws -> SecretExchange.Event {
            var event = SecretExchange.Event.needsMore
            for start in stride(from: 0, to: bytes.count, by: size) {
                try #require(event == .needsMore)
                event = try exchange.receive(Array(bytes[start..<min(start + size, bytes.count)]))
            }
            return event
        }
        func guest(_ bytes: [UInt8]) throws -> SecretRequest.Step {
            var step = SecretRequest.Step.needsMore
            for start in stride(from: 0, to: bytes.count, by: size) {
                guard case .needsMore = step else { throw Unexpected() }
                step = try request.receive(Array(bytes[start..<min(start + size, bytes.count)]))
            }
            return step
        }
        #expect(try owner(request.start()) == .hello)
        guard case .needsReport(let data) = try guest(exchange.challenge(nonce: randomBytes(32))) else {
            throw Unexpected()
        }
        guard case .evidence = try owner(try request.evidence(report: Self.report(data))) else { throw Unexpected() }
        guard case .secret(let secret) = try guest(exchange.release(SecretBytes(randomBytes(65536)))) else {
            throw Unexpected()
        }
        #expect(secret.count == 65536)
    }

    @Test("REPORT_DATA is SHA-512 as documented, and every part changes it")
    func reportData() throws {
        let key = HPKE.deriveKeyPair(from: [UInt8](repeating: 1, count: 48)).publicKey
        let nonce = [UInt8](0..<32)
        // The formula of the catalogue's WireFormat.
        let label = "swift-snp-vmm secret release v1 report data\0"
        let digest = SHA512.hash(Array(label.utf8) + nonce + key.uncompressedPoint + Array("disk/root".utf8))
        let data = SecretBinding.reportData(nonce: nonce, publicKey: key, id: Self.id)
        #expect(data == digest.indices.map { digest[$0] })
        let otherKey = HPKE.deriveKeyPair(from: [UInt8](repeating: 2, count: 48)).publicKey
        #expect(SecretBinding.reportData(nonce: nonce.reversed(), publicKey: key, id: Self.id) != data)
        #expect(SecretBinding.reportData(nonce: nonce, publicKey: otherKey, id: Self.id) != data)
        #expect(SecretBinding.reportData(nonce: nonce, publicKey: key, id: SecretID("disk/roo")!) != data)
    }

    @Test("every flipped byte of a release is refused, and another exchange's release too")
    func tampering() throws {
        var run = try Run()
        let release = run.exchange.release(SecretBytes([7, 8, 9]))
        for index in release.indices {
            var changed = release
            changed[index] ^= 0x80
            var request = run.request
            // A longer length only makes the guest wait.
            if case .needsMore? = try? request.receive(changed) {
                #expect((8..<12).contains(index), "byte \(index)")
                continue
            }
            var again = run.request
            #expect(throws: SecretReleaseError.self, "byte \(index)") { try again.receive(changed) }
        }
        var other = try Run()
        let foreign = other.exchange.release(SecretBytes([1]))
        #expect(throws: SecretReleaseError.self) { try run.request.receive(foreign) }
        // After that the request is over, the right release comes too late.
        #expect(throws: SecretReleaseError.self) { try run.request.receive(release) }
    }

    @Test("a host that changes the evidence on its way gets a release that does not open")
    func transcript() throws {
        let run = try Run(certificates: [1, 2, 3])
        var frame = run.evidenceFrame
        frame[frame.count - 1] ^= 1  // a certificate's byte: neither report nor key
        var exchange = SecretExchange.singleMessage()
        guard case .evidence(let evidence) = try exchange.receive(frame) else { throw Unexpected() }
        #expect(evidence.certificates == [1, 2, 2])
        var request = run.request
        let release = exchange.release(SecretBytes([1]))
        #expect(throws: SecretReleaseError.self) { try request.receive(release) }
    }

    @Test("a refusal ends it, whenever it comes, and its text cannot play with a terminal")
    func refusal() throws {
        var request = SecretRequest(id: Self.id)
        _ = request.start()
        var exchange = SecretExchange()
        let frame = exchange.refuse(SecretRefusal(.busy, "later\u{1b}[2J\u{7}!"))
        guard case .refused(let refusal) = try request.receive(frame) else { throw Unexpected() }
        #expect(refusal.reason == .busy)
        #expect(refusal.detail == "later [2J !")
        #expect("\(refusal)" == "busy: later [2J !")
        #expect(throws: SecretReleaseError.self) { try request.receive(frame) }
        #expect("\(SecretRefusal.Reason(rawValue: 999))" == "reason-999")
    }

    @Test("messages out of order are refused on both sides")
    func order() throws {
        let run = try Run()
        let challenge = SecretReleaseMessage.challenge(nonce: randomBytes(32)).bytes
        let hello = SecretReleaseMessage.hello(versions: 1...1).bytes
        var owner = SecretExchange()
        #expect(throws: SecretRefusal.self) { try owner.receive(run.evidenceFrame) }
        owner = SecretExchange()
        #expect(throws: SecretRefusal.self) { try owner.receive(challenge) }
        owner = SecretExchange()
        #expect(try owner.receive(hello) == .hello)
        _ = owner.challenge(nonce: randomBytes(32))
        #expect(throws: SecretRefusal.self) { try owner.receive(hello) }
        for frame in [hello, run.evidenceFrame] {
            var request = SecretRequest(id: Self.id)
            _ = request.start()
            #expect(throws: SecretReleaseError.self) { try request.receive(frame) }
        }
        var early = SecretRequest(id: Self.id)
        #expect(throws: SecretReleaseError.self) { try early.receive(challenge) }
        var twice = run.request
        #expect(throws: SecretReleaseError.self) { try twice.receive(challenge) }
    }

    @Test("evidence for another exchange's challenge is refused with the nonce as its reason")
    func otherChallenge() throws {
        let run = try Run()
        var exchange = SecretExchange()
        _ = try exchange.receive(SecretReleaseMessage.hello(versions: 1...1).bytes)
        _ = exchange.challenge(nonce: randomBytes(32))
        do {
            _ = try exchange.receive(run.evidenceFrame)
            Issue.record("accepted")
        } catch {
            #expect(error.reason == .nonce)
        }
    }

    @Test("versions: one that both speak, or a refusal")
    func versions() throws {
        var exchange = SecretExchange()
        #expect(try exchange.receive(SecretReleaseMessage.hello(versions: 0...9).bytes) == .hello)
        exchange = SecretExchange()
        do {
            _ = try exchange.receive(SecretReleaseMessage.hello(versions: 2...9).bytes)
            Issue.record("accepted")
        } catch {
            #expect(error.reason == .version)
        }
    }

    @Test("single messages: a hello or evidence, each answered once")
    func singleMessages() throws {
        var request = SecretRequest(id: Self.id)
        var first = SecretExchange.singleMessage()
        #expect(try first.receive(request.start()) == .hello)
        guard case .needsReport(let data) = try request.receive(first.challenge(nonce: randomBytes(32))) else {
            throw Unexpected()
        }
        #expect(first.isOver)
        var second = SecretExchange.singleMessage()
        guard case .evidence = try second.receive(try request.evidence(report: Self.report(data))) else {
            throw Unexpected()
        }
        guard case .secret(let secret) = try request.receive(second.release(SecretBytes([5]))) else {
            throw Unexpected()
        }
        #expect(secret.copied() == [5])
    }

    @Test("a report for other data, or of another length, makes no evidence")
    func wrongReport() throws {
        var request = SecretRequest(id: Self.id)
        _ = request.start()
        _ = try request.receive(SecretReleaseMessage.challenge(nonce: randomBytes(32)).bytes)
        #expect(throws: SecretReleaseError.self) {
            try request.evidence(report: Self.report([UInt8](repeating: 1, count: 64)))
        }
        #expect(throws: SecretReleaseError.self) { try request.evidence(report: []) }
    }

    @Test("names: what may stand in one")
    func names() {
        for good in ["a", "disk/root", "Kbs-1.2_x", String(repeating: "a", count: 255)] {
            #expect(SecretID(good)?.text == good)
        }
        for bad in ["", "a b", "a\n", "é", "a\0", "a?b", String(repeating: "a", count: 256)] {
            #expect(SecretID(bad) == nil, "\(bad)")
        }
    }
}
