// The owner's side: a state machine that is given bytes and returns messages. Whether a guest gets its secret is decided
// elsewhere.

import Crypto

/// One exchange with one guest, from the owner's side.
///
/// ``receive(_:)`` says what came; the caller answers with ``challenge(nonce:)``, and after it has judged the evidence with
/// ``release(_:)`` or ``refuse(_:)``.
public struct SecretExchange: Sendable {
    /// What came.
    public enum Event: Equatable, Sendable {
        /// Read more.
        case needsMore
        /// A guest says hello: send it a nonce.
        case hello
        /// The guest answers the challenge. Whether its nonce is still good, and all the rest, is for the caller to judge.
        case evidence(SecretEvidence)
    }

    private enum State {
        case waitsForHello
        case owesChallenge
        /// Nil: in an exchange of single messages, where the nonce alone links challenge and evidence.
        case waitsForEvidence(nonce: [UInt8]?)
        case owesDecision(SecretEvidence)
        case over
    }

    private var decoder = SecretReleaseDecoder()
    private var state = State.waitsForHello
    private let isSingleMessage: Bool

    /// For a connection: hello, challenge, evidence and answer follow each other.
    public init() { isSingleMessage = false }

    private init(singleMessage: Bool) { isSingleMessage = singleMessage }

    /// For a transport that carries one message and its answer (HTTP): takes a hello or evidence.
    public static func singleMessage() -> SecretExchange { SecretExchange(singleMessage: true) }

    public var isOver: Bool {
        if case .over = state { true } else { false }
    }

    /// Nothing of a message has come that was not taken.
    public var isBetweenMessages: Bool { decoder.isEmpty }

    /// What came from the guest, in pieces of any length.
    ///
    /// - Throws: ``SecretRefusal``, to be sent with ``refuse(_:)``.
    public mutating func receive(_ bytes: [UInt8]) throws(SecretRefusal) -> Event {
        decoder.append(bytes)
        let message: SecretReleaseMessage?
        do throws(SecretReleaseError) {
            message = try decoder.next()
        } catch {
            throw SecretRefusal(.malformed, "\(error.subject): expected \(error.expected), found \(error.found)")
        }
        guard let message else { return .needsMore }
        switch (state, message) {
        case (.waitsForHello, .hello(let versions)):
            guard versions.contains(SecretReleaseMessage.version) else {
                throw SecretRefusal(.version, "this owner speaks version \(SecretReleaseMessage.version)")
            }
            state = .owesChallenge
            return .hello
        case (.waitsForHello, .evidence(let evidence)) where isSingleMessage:
            state = .owesDecision(evidence)
            return .evidence(evidence)
        case (.waitsForEvidence(let nonce), .evidence(let evidence)):
            guard nonce == nil || nonce == evidence.nonce else {
                throw SecretRefusal(.nonce, "the evidence answers another challenge than this exchange's")
            }
            state = .owesDecision(evidence)
            return .evidence(evidence)
        default:
            throw SecretRefusal(.malformed, "\(message.name) has no place here")
        }
    }

    /// The challenge for a guest that said hello; without a hello it is a programmer error.
    ///
    /// - Parameter nonce: 32 bytes that nobody can guess and that were never used before.
    public mutating func challenge(nonce: [UInt8]) -> [UInt8] {
        guard case .owesChallenge = state else { preconditionFailure("a challenge answers a hello") }
        state = isSingleMessage ? .over : .waitsForEvidence(nonce: nonce)
        return SecretReleaseMessage.challenge(nonce: nonce).bytes
    }

    /// The secret for the guest whose evidence was accepted; without evidence, or with a key that is no point of the
    /// curve, it is a programmer error. The exchange is over.
    ///
    /// - Parameter secret: 1 to 65536 bytes.
    public mutating func release(_ secret: SecretBytes) -> [UInt8] {
        guard case .owesDecision(let evidence) = state, let key = evidence.key else {
            preconditionFailure("a release answers evidence with a valid key")
        }
        precondition(
            (1...SecretReleaseMessage.maximumSecretByteCount).contains(secret.count), "a secret of 1 to 65536 bytes")
        state = .over
        let reportData = SecretBinding.reportData(nonce: evidence.nonce, publicKey: key, id: evidence.id)
        let authenticatedData = SecretBinding.authenticatedData(
            challengeFrame: SecretReleaseMessage.challenge(nonce: evidence.nonce).bytes,
            evidenceFrame: SecretReleaseMessage.evidence(evidence).bytes)
        let sealed = secret.withBytes {
            HPKE.seal($0, to: key, info: SecretBinding.info(reportData: reportData), authenticating: authenticatedData)
        }
        return SecretReleaseMessage.release(encapsulatedKey: sealed.encapsulatedKey, ciphertext: sealed.ciphertext)
            .bytes
    }

    /// A refusal. The exchange is over.
    public mutating func refuse(_ refusal: SecretRefusal) -> [UInt8] {
        state = .over
        return SecretReleaseMessage.refusal(refusal).bytes
    }
}
