// The manufacturer of the software machine's chips: the role that AMD's key server plays for real ones.

import Crypto
import SEVABI

/// Signs the certificates of chips with a root that is visibly ours: the KEY_IDs of its certificates read "swift-snp-vmmARK"
/// and "swift-snp-vmmASK".
///
/// The firmware has no part in this. A chip exports its CEK without a signature, and whoever verifies a platform gets the
/// signed one from its manufacturer.
public final class Manufacturer: Sendable {
    /// The root, self-signed.
    public let ark: AMDCertificate
    /// The signing key, signed by the root.
    public let ask: AMDCertificate
    private let signingKey: RSAPrivateKey

    /// Makes both keys, RSA with 4096 bits. The same seed gives the same manufacturer. Takes seconds.
    ///
    /// - Parameter seed: Whoever knows it can sign for this manufacturer.
    public init(seed: [UInt8]) {
        let root = RSAPrivateKey(bits: 4096, derivedFrom: seed, label: "ark")
        let signing = RSAPrivateKey(bits: 4096, derivedFrom: seed, label: "ask")
        ark = Self.certificate(.ark, of: root, signedBy: root)
        ask = Self.certificate(.ask, of: signing, signedBy: root)
        signingKey = signing
    }

    /// The identifier of a key of ours, 16 bytes.
    private static func keyID(_ usage: SEVCertificate.Usage) -> [UInt8] {
        Array((usage == .ark ? "swift-snp-vmmARK" : "swift-snp-vmmASK").utf8)
    }

    private static func certificate(
        _ usage: SEVCertificate.Usage, of key: RSAPrivateKey, signedBy root: RSAPrivateKey
    ) -> AMDCertificate {
        var certificate = AMDCertificate.make(
            usage: usage, keyID: keyID(usage), certifyingID: keyID(.ark), modulus: key.publicKey.littleEndianModulus,
            exponent: key.publicKey.littleEndianExponent)
        certificate.signature = root.signPSS(certificate.signedBytes, hash: .sha384, saltByteCount: 48)
        return certificate
    }

    /// A chip's certificate with the ASK's signature: RSA-PSS with SHA-384, as from Rome on.
    ///
    /// - Parameter cek: As PDH_CERT_EXPORT gives it, the last 2084 bytes of the chain.
    /// - Returns: nil unless it is a CEK's certificate of 2084 bytes.
    public func signed(cek: [UInt8]) -> [UInt8]? {
        guard var certificate = SEVCertificate(bytes: cek), certificate.version == SEVCertificate.currentVersion,
            certificate.usage == .cek, certificate.algorithm == .ecdsaSHA256, certificate.p384Key != nil
        else { return nil }
        let number = signingKey.signPSS(certificate.signedBytes, hash: .sha384, saltByteCount: 48)
        certificate.setSignature(.init(usage: .ask, algorithm: .rsaSHA384, rsa: number), slot: 0)
        certificate.setSignature(.init(), slot: 1)
        return certificate.bytes
    }
}
