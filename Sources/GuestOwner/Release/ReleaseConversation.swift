// One exchange with one guest: bytes in, bytes out, decisions into the log.

import Crypto
import SecretRelease

/// An owner's side of one connection.
public struct ReleaseConversation: Sendable {
    /// What to send.
    public struct Answer: Sendable {
        public var bytes: [UInt8] = []
        /// Nothing will follow: close when the bytes are out.
        public var isLast = false
    }

    /// Why a connection ends without an answer.
    public enum Ending: Sendable {
        /// The other side closed it.
        case closed
        /// It was silent, or slow, for too long.
        case timeout
        /// One message was to come, and did not come whole.
        case incomplete
    }

    /// A hello and evidence of the greatest length; who sends more is not talking to us.
    public static let maximumByteCount = SecretReleaseMessage.maximumByteCount + 64

    private let service: ReleaseService
    private let peer: String
    private var exchange: SecretExchange
    private var receivedByteCount = 0

    init(_ service: ReleaseService, peer: String, _ exchange: SecretExchange) {
        self.service = service
        self.peer = peer
        self.exchange = exchange
    }

    public var isOver: Bool { exchange.isOver }

    /// Answers what came. After the last answer, what comes is ignored.
    public mutating func receive(_ bytes: [UInt8]) -> Answer {
        guard !exchange.isOver else { return Answer(isLast: true) }
        receivedByteCount = receivedByteCount.addingReportingOverflow(bytes.count).partialValue
        guard receivedByteCount <= Self.maximumByteCount else {
            return refuse(ReleaseRefusal(.malformed, "more bytes than an exchange has"))
        }
        var answer = Answer()
        var more = bytes
        // Several messages may have come at once.
        while !answer.isLast {
            let event: SecretExchange.Event
            do throws(SecretRefusal) { event = try exchange.receive(more) } catch {
                return refuse(ReleaseRefusal(error.reason, error.detail))
            }
            more = []
            switch event {
            case .needsMore: return answer
            case .hello:
                guard let nonce = service.nonces.issue(at: service.clock.milliseconds()) else {
                    return refuse(ReleaseRefusal(.busy, "too many exchanges at once; try again in a minute"))
                }
                answer.bytes += exchange.challenge(nonce: nonce)
                answer.isLast = exchange.isOver
            case .evidence(let evidence):
                let last = decide(evidence)
                answer.bytes += last.bytes
                answer.isLast = true
            }
        }
        return answer
    }

    /// The connection ends. Who said nothing leaves no trace; whoever began is written down.
    ///
    /// - Returns: A refusal to be sent where there is still somebody to read it; perhaps nothing.
    public mutating func end(_ ending: Ending) -> [UInt8] {
        guard !exchange.isOver, receivedByteCount > 0 || ending == .incomplete else { return [] }
        let (reason, text): (SecretRefusal.Reason, String) =
            switch ending {
            case .closed: (.malformed, "the connection ended in the middle of the exchange")
            case .timeout: (.busy, "the exchange took too long")
            case .incomplete: (.malformed, "not a whole message")
            }
        _ = service.record(peer: peer, .none, reason: "\(ending)", causes: [text])
        return exchange.refuse(SecretRefusal(reason, text))
    }

    private mutating func decide(_ evidence: SecretEvidence) -> Answer {
        let (outcome, verified) = service.decide(evidence)
        let report = verified.map { ReleaseRecord.Report($0) } ?? .init(claimed: evidence.report)
        switch outcome {
        case .success(let secret):
            guard
                service.record(peer: peer, .release, reason: "released", secret: evidence.id, report: report)
            else {
                return Answer(
                    bytes: exchange.refuse(SecretRefusal(.owner, "the owner cannot write its log")), isLast: true)
            }
            return Answer(bytes: exchange.release(secret), isLast: true)
        case .failure(let refusal):
            return refuse(refusal, id: evidence.id, report: report)
        }
    }

    private mutating func refuse(
        _ refusal: ReleaseRefusal, id: SecretID? = nil, report: ReleaseRecord.Report? = nil
    ) -> Answer {
        let causes = refusal.causes.isEmpty ? [refusal.refusal.detail] : refusal.causes
        _ = service.record(
            peer: peer, .refuse, reason: "\(refusal.refusal.reason)", secret: id, causes: causes, report: report)
        return Answer(bytes: exchange.refuse(refusal.refusal), isLast: true)
    }
}
