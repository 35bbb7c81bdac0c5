// Is this a genuine platform, and is its Diffie-Hellman key really its own?

import Crypto
import SEVABI

/// Verifies a platform's certificates up to AMD's root [SEV 2.3].
///
/// ```
/// ARK ──► ARK        OCA ──► OCA
///  └────► ASK          └───┐
///          └───► CEK ──┐   │        who signs ──► what
///                      └───┴──► PEK ──► PDH
/// ```
public struct PlatformVerifier: Sendable {
    private let roots: RootCertificates
    private let signedCEK: [UInt8]?

    /// - Parameters:
    ///   - roots: Root and signing key that this owner accepts.
    ///   - signedCEK: The chip's certificate as AMD's key server signs it. A chip exports its CEK without that signature;
    ///     nil when the chain that is verified has it.
    public init(roots: RootCertificates, signedCEK: [UInt8]? = nil) {
        self.roots = roots
        self.signedCEK = signedCEK
    }

    /// Verifies everything; the first thing that is wrong is the refusal.
    public func verify(_ platform: SEVPlatformCertificates) throws(OwnerError) -> VerifiedPlatform {
        let count = SEVCertificate.byteCount
        guard platform.chain.count == SEVPlatformCertificates.chainByteCount else {
            throw PlatformCheck.refusal(
                "PEK, OCA and CEK", "length", expected: "\(SEVPlatformCertificates.chainByteCount) bytes",
                found: "\(platform.chain.count)", cause: "an export that was cut off, or files in the wrong place",
                next: "export the platform's certificates again")
        }
        let pdh = try PlatformCheck("PDH", platform.pdh, .pdh, .ecdhSHA256)
        let pek = try PlatformCheck("PEK", Array(platform.chain[..<count]), .pek, .ecdsaSHA256)
        let oca = try PlatformCheck("OCA", Array(platform.chain[count..<(2 * count)]), .oca, .ecdsaSHA256)
        var cek = try PlatformCheck("CEK", Array(platform.chain[(2 * count)...]), .cek, .ecdsaSHA256)
        if let signedCEK {
            let signed = try PlatformCheck("CEK", signedCEK, .cek, .ecdsaSHA256)
            guard signed.certificate.publicKey == cek.certificate.publicKey else {
                throw PlatformCheck.refusal(
                    "CEK", "key", expected: "the key that AMD signed for this chip",
                    found: "another one", cause: "the signed CEK that you gave is of another chip",
                    next: "get the CEK for this chip's id, or check which machine you are talking to")
            }
            cek = signed
        }
        try cek.requireSignatures([.manufacturer(RootCertificates.key(of: roots.ask, "ASK"))])
        try oca.requireSignatures([.platform(oca)])
        try pek.requireSignatures([.platform(oca), .platform(cek)])
        try pdh.requireSignatures([.platform(pek)])
        return VerifiedPlatform(roots.standing, pdh: pdh, cek: cek, oca: oca)
    }
}

/// A platform whose certificates have been verified. Only ``PlatformVerifier`` makes one.
public struct VerifiedPlatform: Sendable {
    /// Why its root is trusted.
    public let standing: RootCertificates.Standing
    /// The platform's Diffie-Hellman certificate.
    public let certificate: SEVCertificate
    /// The key in it.
    public let pdh: P384PublicKey
    /// SHA-256 of the chip's key: tells chips apart.
    public let chipFingerprint: String
    /// SHA-256 of the key of the platform's owner (OCA).
    public let ownerFingerprint: String

    init(_ standing: RootCertificates.Standing, pdh: PlatformCheck, cek: PlatformCheck, oca: PlatformCheck) {
        self.standing = standing
        certificate = pdh.certificate
        self.pdh = pdh.key
        chipFingerprint = Self.fingerprint(cek.certificate)
        ownerFingerprint = Self.fingerprint(oca.certificate)
    }

    private static func fingerprint(_ certificate: SEVCertificate) -> String {
        hexText(RootCertificates.bytes(SHA256.hash(certificate.publicKey.bytes)))
    }

    /// What a reader has to know about this platform, one sentence a line; empty when there is nothing.
    public var warnings: [String] {
        switch standing {
        case .amd: []
        case .named: ["the root is not built in: it is trusted because you named it"]
        case .software:
            [
                "THIS PLATFORM IS SOFTWARE AND PROTECTS NOTHING: its keys lie in the memory of the host, which reads the "
                    + "guest and every secret that you release. For tests only"
            ]
        }
    }

    /// "AMD Naples", "a root that you named", "a software platform".
    public var rootDescription: String {
        switch standing {
        case .amd(let product): "AMD \(product)"
        case .named: "a root that you named"
        case .software: "a software platform"
        }
    }
}

/// One certificate under verification.
struct PlatformCheck {
    /// Who has to have signed.
    enum Signer {
        case manufacturer(RSAPublicKey)
        case platform(PlatformCheck)
    }

    let name: String
    let certificate: SEVCertificate
    let key: P384PublicKey

    /// Checks the fields that say what the certificate is for.
    init(
        _ name: String, _ bytes: [UInt8], _ usage: SEVCertificate.Usage, _ algorithm: SEVCertificate.Algorithm
    ) throws(OwnerError) {
        let damaged = "a damaged export"
        let again = "export the platform's certificates again"
        guard let certificate = SEVCertificate(bytes: bytes) else {
            throw Self.refusal(
                name, "length", expected: "\(SEVCertificate.byteCount) bytes", found: "\(bytes.count)",
                cause: "a file that was cut off, or of another kind", next: again)
        }
        guard certificate.version == SEVCertificate.currentVersion else {
            throw Self.refusal(
                name, "VERSION", expected: "1", found: "\(certificate.version)", cause: damaged, next: again)
        }
        guard certificate.usage == usage else {
            throw Self.refusal(
                name, "PUBKEY_USAGE", expected: "\(usage)", found: "\(certificate.usage)",
                cause: "certificates in the wrong order: the chain is PEK, OCA, CEK", next: again)
        }
        guard certificate.algorithm == algorithm else {
            throw Self.refusal(
                name, "PUBKEY_ALGO", expected: "\(algorithm)", found: "\(certificate.algorithm)", cause: damaged,
                next: again)
        }
        let field = certificate.publicKey
        guard field.curve == PublicKeyField.p384 else {
            throw Self.refusal(
                name, "CURVE", expected: "2 (P-384)", found: "\(field.curve)", cause: damaged, next: again)
        }
        guard let key = P384PublicKey(littleEndianX: field.x, y: field.y) else {
            throw Self.refusal(
                name, "QX and QY", expected: "a point of P-384", found: "numbers that are none", cause: damaged,
                next: again)
        }
        self.name = name
        self.certificate = certificate
        self.key = key
    }

    /// Each signer has signed in one slot, in any order, and nobody else has.
    func requireSignatures(_ signers: [Signer]) throws(OwnerError) {
        var unused = Array(certificate.signatures.enumerated())
        for signer in signers {
            let usage = signer.usage
            guard let position = unused.firstIndex(where: { $0.element.usage == usage }) else {
                throw missing(signer)
            }
            try require(unused.remove(at: position).element, by: signer)
        }
        for (slot, signature) in unused where signature != SEVCertificate.Signature() {
            throw Self.refusal(
                name, "signature \(slot + 1)", expected: "none", found: "bytes of a signature by \(signature.usage)",
                cause: "a damaged export", next: "export the platform's certificates again")
        }
    }

    private func require(_ signature: SEVCertificate.Signature, by signer: Signer) throws(OwnerError) {
        let expected: SEVCertificate.Algorithm
        let isValid: Bool
        switch signer {
        case .manufacturer(let key):
            let count = key.littleEndianModulus.count
            let scheme = PSSScheme(modulusByteCount: count)
            expected = scheme.algorithm
            isValid =
                signature.value.isZero(after: count)
                && key.isValidPSSSignature(
                    littleEndian: signature.value.rsa(byteCount: count), of: certificate.signedBytes, hash: scheme.hash,
                    saltByteCount: scheme.saltByteCount)
        case .platform(let check):
            expected = .ecdsaSHA256
            isValid =
                signature.value.isZero(after: 144)
                && check.key.isValidSignature(
                    littleEndianR: signature.value.r, s: signature.value.s, of: certificate.signedBytes, hash: .sha256)
        }
        guard signature.algorithm == expected else {
            throw Self.refusal(
                name, "algorithm of the signature by the \(signer.name)", expected: "\(expected)",
                found: "\(signature.algorithm)", cause: signer.cause(of: name), next: signer.nextStep)
        }
        guard isValid else {
            throw Self.refusal(
                name, "signature by the \(signer.name)", expected: "a valid one", found: "one that does not verify",
                cause: signer.cause(of: name), next: signer.nextStep)
        }
    }

    private func missing(_ signer: Signer) -> OwnerError {
        let found = certificate.signatures.map { "\($0.usage)" }.joined(separator: " and ")
        if case .manufacturer = signer {
            return Self.refusal(
                name, "signature by the ASK", expected: "a signature with usage ASK (0x13)",
                found: "signatures by \(found)",
                cause: "the CEK comes from the chip, which does not have AMD's signature on it",
                next: "get the signed CEK for this chip's id from AMD's key server, and give it with --cek")
        }
        return Self.refusal(
            name, "signature by the \(signer.name)", expected: "a signature with usage \(signer.usage)",
            found: "signatures by \(found)", cause: "a certificate that was exported before it was signed",
            next: "export the platform's certificates again")
    }

    static func refusal(
        _ subject: String, _ field: String, expected: String, found: String, cause: String, next: String
    ) -> OwnerError {
        OwnerError(
            .certificate, attempt: "verify the platform's certificates", subject: subject, field: field,
            expected: expected, found: found, likelyCause: cause, nextStep: next)
    }
}

extension PlatformCheck.Signer {
    var usage: SEVCertificate.Usage {
        switch self {
        case .manufacturer: .ask
        case .platform(let check): check.certificate.usage
        }
    }

    var name: String {
        switch self {
        case .manufacturer: "ASK"
        case .platform(let check): check.name
        }
    }

    func cause(of subject: String) -> String {
        switch self {
        case .manufacturer: "the ASK of another product, or a CEK that was changed"
        case .platform(let check) where check.name == subject: "the certificate was damaged or changed"
        case .platform: "\(subject) and \(name) of different platforms or times, or one that was changed"
        }
    }

    var nextStep: String {
        switch self {
        case .manufacturer: "use the ARK and ASK of the platform's product"
        case .platform:
            "export all of the platform's certificates again, at one time; refuse the platform if it stays so"
        }
    }
}
