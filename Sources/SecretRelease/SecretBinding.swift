// What ties a report, a key, a nonce and a secret's name together.

import Crypto

/// The derived values of version 1 [docc WireFormat].
public enum SecretBinding {
    /// In front of what is hashed into REPORT_DATA: a report made for this protocol is good for no other, and no other's
    /// is good here. The NUL ends it.
    static let reportDataLabel = Array("swift-snp-vmm secret release v1 report data\0".utf8)
    static let infoLabel = Array("swift-snp-vmm secret release v1 hpke\0".utf8)

    /// REPORT_DATA: SHA-512 of label ‖ nonce ‖ public key ‖ name. All but the last have one length, so nothing can be
    /// moved from one field to another.
    ///
    /// - Parameters:
    ///   - nonce: 32 bytes.
    ///   - publicKey: The guest's.
    /// - Returns: 64 bytes.
    public static func reportData(nonce: [UInt8], publicKey: P384PublicKey, id: SecretID) -> [UInt8] {
        precondition(nonce.count == SecretReleaseMessage.nonceByteCount, "a nonce of 32 bytes")
        let digest = SHA512.hash(reportDataLabel + nonce + publicKey.uncompressedPoint + id.bytes)
        return digest.indices.map { digest[$0] }
    }

    /// HPKE's `info`: label ‖ REPORT_DATA.
    static func info(reportData: [UInt8]) -> [UInt8] { infoLabel + reportData }

    /// HPKE's `aad`: SHA-384 of the challenge and the evidence as they were on the wire.
    static func authenticatedData(challengeFrame: [UInt8], evidenceFrame: [UInt8]) -> [UInt8] {
        let digest = SHA384.hash(challengeFrame + evidenceFrame)
        return digest.indices.map { digest[$0] }
    }
}
