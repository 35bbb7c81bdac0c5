// The manufacturer of the software machine's chips: the role that AMD's key server plays for real ones.

import Crypto
import SEVABI
import Synchronization

/// Signs the certificates of chips with roots that are visibly ours: the KEY_IDs of its SEV certificates read
/// "swift-snp-vmmARK" and "swift-snp-vmmASK", and every name in its X.509 certificates says that nothing is protected.
///
/// The firmware has no part in this. A chip exports its CEK without a signature, and whoever verifies a platform gets the
/// signed one from its manufacturer. Each product line has authorities of its own, as AMD's have.
///
/// RSA keys of 4096 bits are made when they are first needed, which takes a second or so for each.
public final class Manufacturer: Sendable {
    /// Whose key.
    enum Role: String, Sendable {
        case ark
        case ask
        case asvk
    }

    private struct KeyName: Hashable, Sendable {
        var role: Role
        var product: ProcessorProduct
    }

    private let seed: SecretBytes
    private let keys = Mutex<[KeyName: RSAPrivateKey]>([:])

    /// The same seed gives the same manufacturer.
    ///
    /// - Parameter seed: Whoever knows it can sign for this manufacturer.
    public init(seed: [UInt8]) { self.seed = SecretBytes(seed) }

    func key(_ role: Role, _ product: ProcessorProduct) -> RSAPrivateKey {
        keys.withLock { keys in
            let name = KeyName(role: role, product: product)
            if let key = keys[name] { return key }
            // Milan's came first, without the product's name.
            let label = product == .milan ? role.rawValue : "\(role.rawValue) \(product.rawValue)"
            let key = seed.withBytes { RSAPrivateKey(bits: 4096, derivedFrom: $0, label: label) }
            keys[name] = key
            return key
        }
    }

    // MARK: SEV and SEV-ES

    /// The root of a product's SEV certificates, self-signed. The key is the one of the product's ARK.
    public func ark(of product: ProcessorProduct = .milan) -> AMDCertificate {
        sevCertificate(.ark, of: key(.ark, product), product)
    }

    /// The signing key of a product's SEV certificates, signed by the root. The key is the one of the product's ASK.
    public func ask(of product: ProcessorProduct = .milan) -> AMDCertificate {
        sevCertificate(.ask, of: key(.ask, product), product)
    }

    /// The identifier of a key of ours, 16 bytes.
    private static func keyID(_ usage: SEVCertificate.Usage) -> [UInt8] {
        Array((usage == .ark ? "swift-snp-vmmARK" : "swift-snp-vmmASK").utf8)
    }

    private func sevCertificate(
        _ usage: SEVCertificate.Usage, of key: RSAPrivateKey, _ product: ProcessorProduct
    ) -> AMDCertificate {
        var certificate = AMDCertificate.make(
            usage: usage, keyID: Self.keyID(usage), certifyingID: Self.keyID(.ark),
            modulus: key.publicKey.littleEndianModulus, exponent: key.publicKey.littleEndianExponent)
        certificate.signature = self.key(.ark, product).signPSS(
            certificate.signedBytes, hash: .sha384, saltByteCount: 48)
        return certificate
    }

    /// A chip's certificate with the ASK's signature: RSA-PSS with SHA-384, as from Rome on.
    ///
    /// - Parameter cek: As PDH_CERT_EXPORT gives it, the last 2084 bytes of the chain.
    /// - Returns: nil unless it is a CEK's certificate of 2084 bytes.
    public func signed(cek: [UInt8], product: ProcessorProduct = .milan) -> [UInt8]? {
        guard var certificate = SEVCertificate(bytes: cek), certificate.version == SEVCertificate.currentVersion,
            certificate.usage == .cek, certificate.algorithm == .ecdsaSHA256, certificate.p384Key != nil
        else { return nil }
        let number = key(.ask, product).signPSS(certificate.signedBytes, hash: .sha384, saltByteCount: 48)
        certificate.setSignature(.init(usage: .ask, algorithm: .rsaSHA384, rsa: number), slot: 0)
        certificate.setSignature(.init(), slot: 1)
        return certificate.bytes
    }
}
