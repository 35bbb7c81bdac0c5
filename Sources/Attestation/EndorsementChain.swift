// ARK → ASK → VCEK, or ARK → ASVK → VLEK: verified once, then used for any number of reports.

import Crypto

/// A verified chain down to the key that signs reports.
///
/// Making one costs four RSA verifications; ``verify(_:at:)`` then costs one P-384 verification.
public struct EndorsementChain: Sendable {
    public let root: X509Certificate
    public let intermediate: X509Certificate
    public let leaf: EndorsementCertificate
    public let standing: RootStanding
    /// A revocation list of the root was looked at.
    public let revocationsChecked: Bool

    /// The newest list of the root, if there is one.
    public var newestRevocationList: X509RevocationList? { revocationLists.first }

    /// Newest first.
    let revocationLists: [X509RevocationList]

    /// Verifies everything that does not depend on the time.
    ///
    /// - Parameters:
    ///   - leaf: VCEK or VLEK.
    ///   - intermediate: ASK for a VCEK, ASVK for a VLEK.
    ///   - root: ARK.
    ///   - trusted: AMD's roots, and what the caller names.
    ///   - revocationLists: The root's: AMD publishes one beside the VCEKs and one beside the VLEKs, and what any of them
    ///     revokes is revoked. Empty: revocations are not checked.
    /// - Throws: ``AttestationError``.
    public init(
        leaf: X509Certificate, intermediate: X509Certificate, root: X509Certificate, trusted: TrustedRoots = .amd,
        revocationLists: [X509RevocationList] = []
    ) throws(AttestationError) {
        self.root = root
        self.intermediate = intermediate
        self.leaf = try EndorsementCertificate(leaf)
        self.revocationLists = revocationLists.sorted { $0.thisUpdate > $1.thisUpdate }
        revocationsChecked = !revocationLists.isEmpty
        standing = try Self.standing(ofRoot: root, trusted: trusted)
        let signer = self.leaf.kind == .vlek ? "ASVK" : "ASK"
        try Self.check(intermediate: intermediate, signer, of: root)
        try Self.checkIssuer(of: leaf, "\(self.leaf.kind)", is: intermediate, signer)
        try Self.checkSignature(on: leaf, "\(self.leaf.kind)", by: intermediate, "the \(signer)")
        guard leaf.isWellFormed, !leaf.isAuthority else {
            throw Self.refusal(
                "\(self.leaf.kind)", "version and extensions",
                expected: "X.509 version 3, no critical extension, no authority",
                found: leaf.isAuthority ? "an authority" : "something else", cause: "a certificate of another kind",
                next: "get the certificate from AMD again")
        }
        try checkProducts(signer)
        for list in revocationLists { try checkRevocations(list, signer) }
    }

    /// AMD's roots vouch for one product each, and their names say which.
    private func checkProducts(_ signer: String) throws(AttestationError) {
        let product = leaf.product
        let isForVLEK = intermediate.subject.commonName?.hasPrefix("SEV-VLEK-") == true
        guard isForVLEK == (leaf.kind == .vlek) else {
            throw Self.refusal(
                signer, "subject CN", expected: leaf.kind == .vlek ? "SEV-VLEK-\(product)" : "SEV-\(product)",
                found: intermediate.subject.commonName ?? "none", cause: "ASK and ASVK exchanged",
                next: "use the ASK with a VCEK and the ASVK with a VLEK")
        }
        guard case .amd(let known) = standing else { return }
        let name = leaf.kind == .vlek ? "SEV-VLEK-\(product)" : "SEV-\(product)"
        guard known == product, intermediate.subject.commonName == name else {
            throw Self.refusal(
                "\(leaf.kind)", "productName", expected: "\(known), as the ARK", found: leaf.productName,
                cause: "certificates of different products", next: "use the chain that AMD publishes for the product")
        }
    }

    // MARK: Single checks

    /// Why a root is believed, after all checks of it.
    static func standing(
        ofRoot root: X509Certificate, trusted: TrustedRoots
    ) throws(AttestationError) -> RootStanding {
        try checkAuthority(root, "ARK")
        guard root.issuer == root.subject else {
            throw refusal(
                "ARK", "issuer", expected: "its own subject \(root.subject)", found: "\(root.issuer)",
                cause: "an intermediate certificate in place of the root", next: "give the ARK")
        }
        let standing = try trusted.standing(of: root)
        try checkSignature(on: root, "ARK", by: root, "its own key")
        return standing
    }

    /// All checks of an ASK or ASVK but for its product.
    static func check(
        intermediate: X509Certificate, _ signer: String, of root: X509Certificate
    ) throws(AttestationError) {
        try checkAuthority(intermediate, signer)
        try checkIssuer(of: intermediate, signer, is: root, "ARK")
        try checkSignature(on: intermediate, signer, by: root, "the ARK")
    }

    private static func checkAuthority(_ certificate: X509Certificate, _ subject: String) throws(AttestationError) {
        guard certificate.isWellFormed, certificate.isAuthority, let usage = certificate.keyUsage,
            usage & X509Certificate.certificateSigning != 0, subject == "ARK" || certificate.pathLength == 0
        else {
            throw refusal(
                subject, "basic constraints and key usage",
                expected: subject == "ARK" ? "CA:TRUE, keyCertSign" : "CA:TRUE, path length 0, keyCertSign",
                found: "something else in \(certificate.subject)", cause: "a certificate of another kind in its place",
                next: "give the chain as AMD publishes it")
        }
        guard certificate.rsaBitCount == 4096 else {
            throw refusal(
                subject, "public key", expected: "RSA with 4096 bits",
                found: certificate.rsaBitCount.map { "RSA with \($0) bits" } ?? "another algorithm",
                cause: "a certificate of another kind in its place", next: "give the chain as AMD publishes it")
        }
    }

    private static func checkIssuer(
        of certificate: X509Certificate, _ subject: String, is issuer: X509Certificate, _ issuerSubject: String
    ) throws(AttestationError) {
        guard certificate.issuer == issuer.subject else {
            throw refusal(
                subject, "issuer", expected: "the \(issuerSubject)'s subject \(issuer.subject)",
                found: "\(certificate.issuer)", cause: "certificates of different products or kinds",
                next: "use the chain that AMD publishes for the product")
        }
    }

    private static func checkSignature(
        on certificate: X509Certificate, _ subject: String, by issuer: X509Certificate, _ issuerName: String
    ) throws(AttestationError) {
        guard certificate.isSignedWithPSS384 else {
            throw refusal(
                subject, "signatureAlgorithm", expected: "RSASSA-PSS, SHA-384, MGF1 SHA-384, salt 48",
                found: "another one", cause: "a certificate that AMD did not make", next: "get the certificate from AMD"
            )
        }
        guard certificate.isSigned(by: issuer) else {
            throw refusal(
                subject, "signature", expected: "a valid one by \(issuerName)", found: "one that does not verify",
                cause: "the certificate was damaged or forged", next: "get the certificate from AMD again")
        }
    }

    /// The root's list is about what the root has issued: the ASK or ASVK, and itself. Leaves have the serial number 0 and
    /// another issuer, so such a list says nothing about them.
    private func checkRevocations(_ list: X509RevocationList, _ signer: String) throws(AttestationError) {
        try Self.check(list: list, of: root)
        for (certificate, subject) in [(intermediate, signer), (root, "ARK")]
        where list.revokedSerialNumbers.contains(certificate.serialNumber) {
            throw AttestationError(
                .revocation, attempt: "verify the certificate chain", subject: subject, field: "serial number",
                expected: "one that is not revoked", found: "\(certificate.serialNumber), revoked by the CRL",
                likelyCause: "AMD has withdrawn this key", nextStep: "do not trust reports of this chain")
        }
    }

    /// The list is the root's.
    static func check(list: X509RevocationList, of root: X509Certificate) throws(AttestationError) {
        guard list.issuer == root.subject, !list.hasCriticalExtension, let usage = root.keyUsage,
            usage & X509Certificate.revocationListSigning != 0, list.isSigned(by: root)
        else {
            throw AttestationError(
                .revocation, attempt: "use the revocation list", subject: "CRL", field: "issuer and signature",
                expected: "a plain list signed by \(root.subject)",
                found: "\(list.issuer), or a signature that is none",
                likelyCause: "the list of another product, or a damaged file",
                nextStep: "get the product's CRL from AMD again")
        }
    }

    static func refusal(
        _ subject: String, _ field: String, expected: String, found: String, cause: String, next: String
    ) -> AttestationError {
        AttestationError(
            .chain, attempt: "verify the certificate chain", subject: subject, field: field, expected: expected,
            found: found, likelyCause: cause, nextStep: next)
    }

    // MARK: Time

    /// - Parameter time: Seconds since 1970-01-01 UTC.
    func checkValidity(at time: Int64) throws(AttestationError) {
        let signer = leaf.kind == .vlek ? "ASVK" : "ASK"
        for (certificate, subject) in [
            (leaf.certificate, "\(leaf.kind)"), (intermediate, signer), (root, "ARK"),
        ] where !(certificate.notBefore...max(certificate.notBefore, certificate.notAfter)).contains(time) {
            throw AttestationError(
                .validity, attempt: "verify the certificate chain", subject: subject,
                field: time < certificate.notBefore ? "notBefore" : "notAfter",
                expected: "\(utcText(certificate.notBefore)) to \(utcText(certificate.notAfter))", found: utcText(time),
                likelyCause: time < certificate.notBefore
                    ? "this machine's clock is wrong" : "the certificate is no longer valid",
                nextStep: "get a new certificate of the same chip and TCB; the key stays the same")
        }
        if let list = revocationLists.first, time < list.thisUpdate || list.nextUpdate.map({ time > $0 }) == true {
            throw AttestationError(
                .revocation, attempt: "use the revocation list", subject: "CRL", field: "thisUpdate and nextUpdate",
                expected: "\(utcText(list.thisUpdate)) to \(list.nextUpdate.map(utcText) ?? "any time")",
                found: utcText(time), likelyCause: "an old list", nextStep: "get the product's CRL from AMD again")
        }
    }
}
