// What a guest shows: its report, certificates for it, its public key, the nonce and the name of the secret.

import ABILayout
import Crypto
import SEVABI

/// The evidence of one request. Nothing in it is believed yet.
public struct SecretEvidence: Equatable, Sendable {
    /// The owner's, 32 bytes.
    public var nonce: [UInt8]
    /// ATTESTATION_REPORT, 1184 bytes.
    public var report: [UInt8]
    /// The guest's key, which the secret is encrypted to: an uncompressed point of P-384, 97 bytes.
    public var publicKey: [UInt8]
    public var id: SecretID
    /// What the extended request returned: a certificate table [GHCB 4.1.8.1], or nothing.
    public var certificates: [UInt8]

    /// Programmer errors: a nonce, report or key of another length; more certificates than a message takes.
    public init(nonce: [UInt8], report: [UInt8], publicKey: P384PublicKey, id: SecretID, certificates: [UInt8]) {
        precondition(nonce.count == SecretReleaseMessage.nonceByteCount, "a nonce of 32 bytes")
        precondition(report.count == AttestationReportBody.reportByteCount, "a report of 1184 bytes")
        precondition(
            certificates.count <= SecretReleaseMessage.maximumCertificatesByteCount, "at most 64 KiB of certificates")
        self.nonce = nonce
        self.report = report
        self.publicKey = publicKey.uncompressedPoint
        self.id = id
        self.certificates = certificates
    }

    /// The key, checked to be a point of the curve; nil otherwise.
    public var key: P384PublicKey? { P384PublicKey(uncompressedPoint: publicKey) }

    private static let fixedByteCount =
        SecretReleaseMessage.nonceByteCount + AttestationReportBody.reportByteCount + HPKE.publicKeyByteCount + 2 + 4

    private static let maximumByteCount =
        fixedByteCount + SecretID.maximumByteCount + SecretReleaseMessage.maximumCertificatesByteCount

    /// A name has a byte at least, certificates may be missing.
    static let byteCounts = (fixedByteCount + 1)...maximumByteCount

    var bytes: [UInt8] {
        var body = nonce + report + publicKey
        // Safe: a name has at most 255 bytes, certificates at most 65536.
        body.appendLittleEndian(UInt16(id.bytes.count))
        body += id.bytes
        body.appendLittleEndian(UInt32(certificates.count))
        return body + certificates
    }

    init(body: [UInt8]) throws(SecretReleaseError) {
        var rest = body[...]
        func take(_ count: Int, _ what: String) throws(SecretReleaseError) -> [UInt8] {
            guard count <= rest.count else {
                throw SecretReleaseMessage.malformed(
                    "evidence", expected: "\(count) bytes of \(what)", found: "\(rest.count) at the end")
            }
            defer { rest = rest.dropFirst(count) }
            return Array(rest.prefix(count))
        }
        nonce = try take(SecretReleaseMessage.nonceByteCount, "nonce")
        report = try take(AttestationReportBody.reportByteCount, "report")
        publicKey = try take(HPKE.publicKeyByteCount, "public key")
        // Safe: as many bytes were taken as the number has.
        let idByteCount: UInt16 = try take(2, "the name's length").littleEndian(at: 0)!
        let name = try take(Int(idByteCount), "name")
        guard let id = SecretID(bytes: name) else {
            throw SecretReleaseMessage.malformed(
                "evidence", expected: "a name of 1 to 255 letters, digits, dots, underscores, hyphens and slashes",
                found: "\(name.count) bytes that are none")
        }
        self.id = id
        let certificatesByteCount: UInt32 = try take(4, "the certificates' length").littleEndian(at: 0)!
        guard certificatesByteCount == rest.count,
            rest.count <= SecretReleaseMessage.maximumCertificatesByteCount
        else {
            throw SecretReleaseMessage.malformed(
                "evidence", expected: "\(certificatesByteCount) bytes of certificates, at most 65536, and nothing else",
                found: "\(rest.count)")
        }
        certificates = Array(rest)
    }
}
