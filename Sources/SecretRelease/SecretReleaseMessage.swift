// The messages between a guest and its owner: values, and their bytes on the wire.
//
// Both ends may be hostile to the other, and what lies between them is the host, which is hostile to both. Every length is
// checked against what the kind allows before anything is stored.

import ABILayout
import Crypto
import SEVABI

/// One message. The wire format is drawn in the catalogue (WireFormat).
public enum SecretReleaseMessage: Equatable, Sendable {
    /// Guest → owner: these versions are spoken here.
    case hello(versions: ClosedRange<UInt16>)
    /// Owner → guest: a nonce, 32 bytes, good for one report.
    case challenge(nonce: [UInt8])
    /// Guest → owner: who it is, and which secret it asks for.
    case evidence(SecretEvidence)
    /// Owner → guest: the secret, for the key in the evidence.
    case release(encapsulatedKey: [UInt8], ciphertext: [UInt8])
    /// Owner → guest: there will be no secret.
    case refusal(SecretRefusal)

    /// "SREL".
    static let magic: [UInt8] = [0x53, 0x52, 0x45, 0x4c]
    /// The one version so far.
    public static let version: UInt16 = 1
    /// Magic, version, kind, length.
    public static let headByteCount = 12
    public static let nonceByteCount = 32
    /// A secret has 1 to so many bytes.
    public static let maximumSecretByteCount = 1 << 16
    /// The certificates that a guest may send along.
    public static let maximumCertificatesByteCount = 1 << 16
    /// What a release has more than its secret.
    static let releaseOverheadByteCount = HPKE.publicKeyByteCount + HPKE.tagByteCount
    /// No message is longer, with its head.
    public static let maximumByteCount = headByteCount + SecretEvidence.byteCounts.upperBound

    /// The kind on the wire.
    struct Kind: RawRepresentable, Hashable {
        var rawValue: UInt16
        static let hello = Kind(rawValue: 1)
        static let challenge = Kind(rawValue: 2)
        static let evidence = Kind(rawValue: 3)
        static let release = Kind(rawValue: 4)
        static let refusal = Kind(rawValue: 5)

        /// The lengths that a body of this kind may have; nil for a kind that does not exist.
        var bodyByteCounts: ClosedRange<Int>? {
            switch self {
            case .hello: 4...4
            case .challenge: nonceByteCount...nonceByteCount
            case .evidence: SecretEvidence.byteCounts
            case .release: releaseOverheadByteCount + 1...releaseOverheadByteCount + maximumSecretByteCount
            case .refusal: 4...(4 + SecretRefusal.maximumDetailByteCount)
            default: nil
            }
        }

        /// "a challenge", for messages.
        var name: String {
            switch self {
            case .hello: "a hello"
            case .challenge: "a challenge"
            case .evidence: "evidence"
            case .release: "a release"
            case .refusal: "a refusal"
            default: "a message of kind \(rawValue)"
            }
        }
    }

    var kind: Kind {
        switch self {
        case .hello: .hello
        case .challenge: .challenge
        case .evidence: .evidence
        case .release: .release
        case .refusal: .refusal
        }
    }

    /// "a challenge", for messages.
    public var name: String { kind.name }

    /// The whole frame. A nonce, key or ciphertext of a wrong length is a programmer error.
    public var bytes: [UInt8] {
        var body: [UInt8] = []
        switch self {
        case .hello(let versions):
            body.appendLittleEndian(versions.lowerBound)
            body.appendLittleEndian(versions.upperBound)
        case .challenge(let nonce): body = nonce
        case .evidence(let evidence): body = evidence.bytes
        case .release(let encapsulatedKey, let ciphertext):
            precondition(encapsulatedKey.count == HPKE.publicKeyByteCount, "an encapsulated key of 97 bytes")
            body = encapsulatedKey + ciphertext
        case .refusal(let refusal):
            body.appendLittleEndian(refusal.reason.rawValue)
            body += refusal.detail.utf8.prefix(SecretRefusal.maximumDetailByteCount)
        }
        precondition(kind.bodyByteCounts?.contains(body.count) == true, "\(name) of \(body.count) bytes")
        var frame = Self.magic
        frame.appendLittleEndian(Self.version)
        frame.appendLittleEndian(kind.rawValue)
        frame.appendLittleEndian(UInt32(body.count))
        return frame + body
    }

    /// The message in a body whose length is one that its kind allows.
    init(_ kind: Kind, body: [UInt8]) throws(SecretReleaseError) {
        precondition(kind.bodyByteCounts?.contains(body.count) == true, "a body of an allowed length")
        switch kind {
        case .hello:
            // Safe: the length has been checked.
            let (lowest, highest): (UInt16, UInt16) = (body.littleEndian(at: 0)!, body.littleEndian(at: 2)!)
            guard lowest <= highest else {
                throw Self.malformed(kind, expected: "a range of versions", found: "\(lowest) to \(highest)")
            }
            self = .hello(versions: lowest...highest)
        case .challenge: self = .challenge(nonce: body)
        case .evidence: self = .evidence(try SecretEvidence(body: body))
        case .release:
            self = .release(
                encapsulatedKey: Array(body.prefix(HPKE.publicKeyByteCount)),
                ciphertext: Array(body.dropFirst(HPKE.publicKeyByteCount)))
        default:
            // Repaired, so that a broken text cannot hide the refusal; without control characters, so that it cannot play
            // with the reader's terminal.
            let text = String(decoding: body.dropFirst(4), as: UTF8.self).unicodeScalars
                .map { $0.value < 0x20 || (0x7f..<0xa0).contains($0.value) ? " " : Character($0) }
            // Safe: the length has been checked.
            self = .refusal(SecretRefusal(.init(rawValue: body.littleEndian(at: 0)!), String(text)))
        }
    }

    static func malformed(_ kind: Kind, expected: String, found: String) -> SecretReleaseError {
        malformed(kind.name, expected: expected, found: found)
    }

    static func malformed(_ subject: String, expected: String, found: String) -> SecretReleaseError {
        SecretReleaseError(
            attempt: "read a message", subject: subject, expected: expected, found: found,
            likelyCause: "another program, or another version of this one, at the other end, or a host that meddles",
            nextStep: "check what listens there, and that both ends are of the same version")
    }
}
