// AMD's part of a platform's chain: the root and the signing key, and why they are trusted.

import Crypto
import SEVABI

/// An ARK and the ASK that it signed, verified and accepted.
public struct RootCertificates: Sendable {
    /// Why the root is trusted.
    public enum Standing: Equatable, Sendable {
        /// Its fingerprint is built in: AMD's root for this product.
        case amd(product: String)
        /// The caller named it.
        case named
        /// The caller named it, and it is the root of software platforms, which protect nothing.
        case software
    }

    public let ark: AMDCertificate
    public let ask: AMDCertificate
    public let standing: Standing

    /// SHA-256 of AMD's ARK certificates, whole, by product.
    static let fingerprints = ["Naples": "dedabca561e1dece8cc00b7bda864cf5f20b95017864408cfe18eaee0dce24b9"]

    /// Verifies both certificates, and that the root may be trusted.
    ///
    /// - Parameters:
    ///   - ark: The root's file: one certificate, or AMD's own file of ASK and ARK in a row, in any order.
    ///   - ask: The signing key's file; nil when `ark` has both.
    ///   - isNamed: The caller chose this root knowingly. Otherwise only a root with a built-in fingerprint is accepted.
    public init(ark arkFile: [UInt8], ask askFile: [UInt8]? = nil, isNamed: Bool) throws(OwnerError) {
        (ark, ask) = try Self.certificates(arkFile, askFile)
        try Self.verify(ark: ark, ask: ask)
        let fingerprint = hexText(Self.bytes(SHA256.hash(ark.bytes)))
        if let product = Self.fingerprints.first(where: { $0.value == fingerprint })?.key {
            standing = .amd(product: product)
        } else if isNamed {
            standing = ark.isSoftwareRoot ? .software : .named
        } else if ark.isSoftwareRoot {
            throw Self.refusal(
                "ARK", "KEY_ID", expected: "a root of AMD", found: "the root of software platforms",
                cause: "the platform is simulated: it protects nothing from its host",
                next: "name the root with --ark and --ask if that is what you want, for tests")
        } else {
            throw Self.refusal(
                "ARK", "fingerprint",
                expected: "a root that is known here (\(Self.fingerprints.keys.joined(separator: ", ")))",
                found: fingerprint, cause: "a product whose root is not built in, or a root that is not AMD's",
                next: "get AMD's ARK and ASK of your product from AMD yourself, and name them with --ark and --ask")
        }
    }

    private static func certificates(
        _ arkFile: [UInt8], _ askFile: [UInt8]?
    ) throws(OwnerError) -> (AMDCertificate, AMDCertificate) {
        func whole(_ bytes: [UInt8], _ subject: String) throws(OwnerError) -> AMDCertificate {
            guard let certificate = AMDCertificate(bytes: bytes) else {
                throw refusal(
                    subject, "length", expected: "832 bytes (2048-bit key) or 1600 bytes (4096-bit key)",
                    found: "\(bytes.count) bytes, or sizes inside that do not fit them",
                    cause: "a file that was cut off, or in another format", next: "get the file from AMD again")
            }
            return certificate
        }
        if let askFile { return (try whole(arkFile, "ARK"), try whole(askFile, "ASK")) }
        guard let first = AMDCertificate(atStartOf: arkFile),
            let second = AMDCertificate(bytes: Array(arkFile.dropFirst(first.bytes.count)))
        else {
            throw refusal(
                "ARK and ASK", "length", expected: "two certificates of 832 or 1600 bytes in a row",
                found: "\(arkFile.count) bytes",
                cause: "a file with one certificate, or one that was cut off",
                next: "name the other one too, with --ask")
        }
        return first.usage == .ark ? (first, second) : (second, first)
    }

    private static func verify(ark: AMDCertificate, ask: AMDCertificate) throws(OwnerError) {
        let exchanged = "ARK and ASK exchanged, or a file of another kind"
        for (certificate, subject, usage) in [(ark, "ARK", SEVCertificate.Usage.ark), (ask, "ASK", .ask)] {
            guard certificate.version == AMDCertificate.currentVersion else {
                throw refusal(
                    subject, "VERSION", expected: "1", found: "\(certificate.version)", cause: "a damaged file",
                    next: "get the file from AMD again")
            }
            guard certificate.usage == usage else {
                throw refusal(
                    subject, "KEY_USAGE", expected: "\(usage)", found: "\(certificate.usage)", cause: exchanged,
                    next: "give --ark the root and --ask the signing key")
            }
            guard certificate.reserved_0x28.allSatisfy({ $0 == 0 }) else {
                throw refusal(
                    subject, "bytes 0x28 to 0x37", expected: "zeroes", found: hexText(certificate.reserved_0x28),
                    cause: "a damaged file", next: "get the file from AMD again")
            }
        }
        guard ark.certifyingID == ark.keyID else {
            throw refusal(
                "ARK", "CERTIFYING_ID", expected: "its own KEY_ID \(hexText(ark.keyID))",
                found: hexText(ark.certifyingID), cause: "not a root, or a damaged file",
                next: "get the file from AMD again")
        }
        guard ask.certifyingID == ark.keyID else {
            throw refusal(
                "ASK", "CERTIFYING_ID", expected: "the ARK's KEY_ID \(hexText(ark.keyID))",
                found: hexText(ask.certifyingID), cause: "ARK and ASK of different products",
                next: "use the pair that AMD publishes for one product")
        }
        let arkKey = try key(of: ark, "ARK")
        try requireSignature(on: ark, "ARK", by: arkKey, "itself", cause: "the file was damaged or changed")
        try requireSignature(on: ask, "ASK", by: arkKey, "the ARK", cause: "the file was damaged or changed")
        _ = try key(of: ask, "ASK")
    }

    /// The key in one of AMD's certificates.
    static func key(of certificate: AMDCertificate, _ subject: String) throws(OwnerError) -> RSAPublicKey {
        guard let key = RSAPublicKey(littleEndianModulus: certificate.modulus, exponent: certificate.exponent),
            key.littleEndianModulus.count * 8 == certificate.modulusBitCount
        else {
            throw refusal(
                subject, "MODULUS and PUBEXP", expected: "an RSA key of \(certificate.modulusBitCount) bits",
                found: "numbers that are none", cause: "a damaged file", next: "get the file from AMD again")
        }
        return key
    }

    private static func requireSignature(
        on certificate: AMDCertificate, _ subject: String, by key: RSAPublicKey, _ signer: String, cause: String
    ) throws(OwnerError) {
        // The scheme goes with the signer's size [SEV B.1].
        let scheme = PSSScheme(modulusByteCount: key.littleEndianModulus.count)
        guard certificate.signature.count == key.littleEndianModulus.count,
            key.isValidPSSSignature(
                littleEndian: certificate.signature, of: certificate.signedBytes, hash: scheme.hash,
                saltByteCount: scheme.saltByteCount)
        else {
            throw refusal(
                subject, "SIGNATURE", expected: "a valid one by \(signer) (\(scheme))",
                found: "one that does not verify",
                cause: cause, next: "get the file from AMD again")
        }
    }

    private static func refusal(
        _ subject: String, _ field: String, expected: String, found: String, cause: String, next: String
    ) -> OwnerError {
        OwnerError(
            .certificate, attempt: "accept the manufacturer's certificates", subject: subject, field: field,
            expected: expected, found: found, likelyCause: cause, nextStep: next)
    }

    static func bytes(_ digest: [32 of UInt8]) -> [UInt8] { digest.indices.map { digest[$0] } }
}

/// How AMD signs with a key of this size [SEV B.1, C.1].
struct PSSScheme: CustomStringConvertible {
    let hash: HashAlgorithm
    let algorithm: SEVCertificate.Algorithm

    init(modulusByteCount: Int) {
        hash = modulusByteCount == 256 ? .sha256 : .sha384
        algorithm = modulusByteCount == 256 ? .rsaSHA256 : .rsaSHA384
    }

    var saltByteCount: Int { hash.byteCount }

    var description: String {
        hash == .sha256 ? "RSA-PSS 2048, SHA-256, salt 32" : "RSA-PSS 4096, SHA-384, salt 48"
    }
}
