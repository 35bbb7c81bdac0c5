// The owner of SNP guests as a service: any number of exchanges at once, one nonce store, one log.

import Attestation
import Crypto
import SecretRelease

/// Answers guests that ask for secrets. Transports are its caller's.
///
/// Every decision is in the log before its answer leaves: an owner that cannot write its log releases nothing.
public final class ReleaseService: Sendable {
    /// What time it is.
    public struct Clock: Sendable {
        /// Seconds since 1970-01-01 UTC, for certificates and the log.
        public var wallSeconds: @Sendable () -> Int64
        /// Milliseconds that never go back, for nonces.
        public var milliseconds: @Sendable () -> Int64

        public init(
            wallSeconds: @escaping @Sendable () -> Int64, milliseconds: @escaping @Sendable () -> Int64
        ) {
            self.wallSeconds = wallSeconds
            self.milliseconds = milliseconds
        }
    }

    public let judge: ReleaseJudge
    public let nonces: NonceStore
    let clock: Clock
    private let log: @Sendable (ReleaseRecord) -> Bool

    /// - Parameter log: Makes a decision durable, and says whether it could. Called from any thread.
    public init(
        policy: ReleasePolicy, clock: Clock, nonces: NonceStore = NonceStore(),
        log: @escaping @Sendable (ReleaseRecord) -> Bool
    ) {
        judge = ReleaseJudge(policy)
        self.nonces = nonces
        self.clock = clock
        self.log = log
    }

    /// An exchange on a connection of its own.
    public func conversation(peer: String) -> ReleaseConversation {
        ReleaseConversation(self, peer: peer, SecretExchange())
    }

    /// One message and its answer, for transports that carry single messages.
    ///
    /// - Returns: The answer; a refusal for what is no message.
    public func answer(_ message: [UInt8], peer: String) -> [UInt8] {
        var conversation = ReleaseConversation(self, peer: peer, .singleMessage())
        let answer = conversation.receive(message)
        return answer.bytes.isEmpty ? conversation.end(.incomplete) : answer.bytes
    }

    /// Appraises evidence, and finds the secret that it is for.
    func decide(_ evidence: SecretEvidence) -> (outcome: Result<SecretBytes, ReleaseRefusal>, report: VerifiedReport?) {
        do throws(ReleaseRefusal) {
            try takeNonce(evidence.nonce)
            guard let key = evidence.key else {
                throw ReleaseRefusal(.malformed, "the public key is no point of P-384")
            }
            let verified = try judge.appraise(
                report: evidence.report, certificates: [evidence.certificates],
                reportData: SecretBinding.reportData(nonce: evidence.nonce, publicKey: key, id: evidence.id),
                at: clock.wallSeconds())
            do throws(ReleaseRefusal) {
                return (.success(try judge.secret(evidence.id)), verified)
            } catch {
                return (.failure(error), verified)
            }
        } catch {
            return (.failure(error), nil)
        }
    }

    func takeNonce(_ nonce: [UInt8]) throws(ReleaseRefusal) {
        switch nonces.take(nonce, at: clock.milliseconds()) {
        case .fresh: break
        case .used: throw ReleaseRefusal(.nonce, "this nonce has been used")
        case .expired: throw ReleaseRefusal(.nonce, "this nonce is too old")
        case .unknown: throw ReleaseRefusal(.nonce, "this nonce was not given out here")
        }
    }

    /// Writes a decision down. False when that failed.
    func record(
        peer: String, _ decision: ReleaseRecord.Decision, reason: String, secret: SecretID? = nil,
        causes: [String] = [], report: ReleaseRecord.Report? = nil
    ) -> Bool {
        log(
            ReleaseRecord(
                time: clock.wallSeconds(), peer: peer, decision: decision, reason: reason, secret: secret,
                causes: causes, report: report))
    }
}
