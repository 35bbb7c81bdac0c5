// The guest's side: a state machine that is given bytes and says what to do next. Sockets, files and /dev/sev-guest are its
// caller's.

import Crypto
import SEVABI

/// One request for one secret.
///
/// ```swift
/// var request = SecretRequest(id: id)
/// send(request.start())
/// while true {
///     switch try request.receive(read()) {
///     case .needsMore: continue
///     case .needsReport(let reportData):
///         let (report, certificates) = extendedReport(reportData)
///         send(try request.evidence(report: report, certificates: certificates))
///     case .secret(let secret): return secret
///     case .refused(let refusal): throw refusal
///     }
/// }
/// ```
///
/// The key is made here and never leaves; it is wiped with the value. Every request has a key of its own.
public struct SecretRequest: Sendable {
    /// What the caller has to do.
    public enum Step: Sendable {
        /// Read more from the owner. The end of the stream instead is a failure.
        case needsMore
        /// Get a report of the firmware for these 64 bytes (VMPL 0), and give it to ``SecretRequest/evidence(report:certificates:)``.
        case needsReport(reportData: [UInt8])
        /// The secret. The exchange is over.
        case secret(SecretBytes)
        /// The owner refused. The exchange is over.
        case refused(SecretRefusal)
    }

    private enum State {
        case fresh
        case waitsForChallenge
        case waitsForReport(nonce: [UInt8], reportData: [UInt8])
        /// Of the wire, only what HPKE binds is kept.
        case waitsForRelease(reportData: [UInt8], authenticatedData: [UInt8])
        case over
    }

    public let id: SecretID
    private let key: P384PrivateKey
    private var decoder = SecretReleaseDecoder()
    private var state = State.fresh

    public init(id: SecretID) { self.init(id: id, key: .random()) }

    /// With a given key, for known answers.
    package init(id: SecretID, key: P384PrivateKey) {
        self.id = id
        self.key = key
    }

    /// The first bytes for the owner. Once only; again is a programmer error.
    public mutating func start() -> [UInt8] {
        guard case .fresh = state else { preconditionFailure("a request starts once") }
        state = .waitsForChallenge
        return SecretReleaseMessage.hello(
            versions: SecretReleaseMessage.version...SecretReleaseMessage.version
        ).bytes
    }

    /// What came from the owner, in pieces of any length.
    ///
    /// - Throws: ``SecretReleaseError`` for what is no message, or none that belongs here, or a release that does not open
    ///   with this request's key: the host may have changed it. The request is over then.
    public mutating func receive(_ bytes: [UInt8]) throws(SecretReleaseError) -> Step {
        decoder.append(bytes)
        do throws(SecretReleaseError) {
            guard let message = try decoder.next() else { return .needsMore }
            return try accept(message)
        } catch {
            state = .over
            throw error
        }
    }

    /// The evidence for the owner. A programmer error unless ``Step/needsReport(reportData:)`` asked for it.
    ///
    /// - Parameters:
    ///   - report: As the firmware made it, 1184 bytes.
    ///   - certificates: The table of the extended request as it came, at most 64 KiB; empty for none.
    /// - Throws: ``SecretReleaseError`` for a report of another length, one that is not for this request, or too many
    ///   certificates.
    public mutating func evidence(
        report: [UInt8], certificates: [UInt8] = []
    ) throws(SecretReleaseError) -> [UInt8] {
        guard case .waitsForReport(let nonce, let reportData) = state else {
            preconditionFailure("evidence is for a challenge")
        }
        // REPORT_DATA lies at 0x50 [SNP 7.3].
        guard report.count == AttestationReportBody.reportByteCount, Array(report[0x50..<0x90]) == reportData else {
            throw wrongInput(
                "the report", expected: "1184 bytes with this request's REPORT_DATA",
                found: report.count == AttestationReportBody.reportByteCount ? "other data" : "\(report.count) bytes",
                cause: "a driver's whole response in place of the report, or an old report",
                next: "ask the firmware for a report with the report data of this request")
        }
        guard certificates.count <= SecretReleaseMessage.maximumCertificatesByteCount else {
            throw wrongInput(
                "the certificates", expected: "at most 65536 bytes", found: "\(certificates.count)",
                cause: "a host that gives a very large table", next: "send none; the owner may have its own")
        }
        let frame = SecretReleaseMessage.evidence(
            SecretEvidence(
                nonce: nonce, report: report, publicKey: key.publicKey, id: id, certificates: certificates)
        ).bytes
        state = .waitsForRelease(
            reportData: reportData,
            authenticatedData: SecretBinding.authenticatedData(
                challengeFrame: SecretReleaseMessage.challenge(nonce: nonce).bytes, evidenceFrame: frame))
        return frame
    }

    private mutating func accept(_ message: SecretReleaseMessage) throws(SecretReleaseError) -> Step {
        switch (state, message) {
        case (.fresh, _), (.over, _): throw unexpected(message, "nothing")
        case (_, .refusal(let refusal)):
            state = .over
            return .refused(refusal)
        case (.waitsForChallenge, .challenge(let nonce)):
            let reportData = SecretBinding.reportData(nonce: nonce, publicKey: key.publicKey, id: id)
            state = .waitsForReport(nonce: nonce, reportData: reportData)
            return .needsReport(reportData: reportData)
        case (.waitsForRelease(let reportData, let authenticatedData), .release(let encapsulatedKey, let ciphertext)):
            guard
                var secret = HPKE.open(
                    ciphertext, encapsulatedKey: encapsulatedKey, with: key,
                    info: SecretBinding.info(reportData: reportData), authenticating: authenticatedData)
            else {
                throw SecretReleaseError(
                    attempt: "open the secret", subject: "the release",
                    expected: "a ciphertext for this request's key and transcript", found: "one that does not open",
                    likelyCause: "the host changed a message on its way, or answered in the owner's place",
                    nextStep: "ask again; if it stays so, do not trust the host with the transport")
            }
            state = .over
            return .secret(SecretBytes(taking: &secret))
        case (.waitsForChallenge, _): throw unexpected(message, "a challenge or a refusal")
        case (.waitsForReport, _): throw unexpected(message, "nothing until the evidence is sent")
        case (.waitsForRelease, _): throw unexpected(message, "a release or a refusal")
        }
    }

    private func unexpected(_ message: SecretReleaseMessage, _ expected: String) -> SecretReleaseError {
        SecretReleaseError(
            attempt: "talk to the owner", subject: "the exchange", expected: expected, found: message.name,
            likelyCause: "another program at the other end, or a host that meddles",
            nextStep: "check what listens there")
    }

    private func wrongInput(
        _ subject: String, expected: String, found: String, cause: String, next: String
    ) -> SecretReleaseError {
        SecretReleaseError(
            attempt: "make evidence", subject: subject, expected: expected, found: found, likelyCause: cause,
            nextStep: next)
    }
}
