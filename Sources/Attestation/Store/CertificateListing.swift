// What there is in a store, a folder or a table, for people and for programs.

import Crypto

/// One certificate or revocation list, and what can be said of it without a report.
public struct CertificateListing: Sendable {
    /// "ARK", "ASK", "ASVK", "VCEK", "VLEK", "CRL", or "other".
    public let kind: String
    /// Whose it is: the subject, or the issuer of a CRL.
    public let subject: String
    public let issuer: String
    /// Nil where the certificate does not say.
    public let product: String?
    public let hardwareID: [UInt8]?
    public let providerID: String?
    public let versions: SecurityVersions?
    /// Seconds since 1970-01-01 UTC; of a CRL this update.
    public let notBefore: Int64
    /// Of a CRL the next update, if it names one.
    public let notAfter: Int64?
    /// SHA-256 of the DER bytes.
    public let fingerprint: [UInt8]
    /// SHA-256 of SubjectPublicKeyInfo; nil for a CRL.
    public let keyFingerprint: [UInt8]?
    /// How many serial numbers a CRL has.
    public let revokedCount: Int?
    /// What the chain to the root says.
    public let standing: Standing

    public enum Standing: Sendable {
        case amd
        /// A root that is not AMD's; its name.
        case other(String)
        case refused(AttestationError)
    }

    /// - Parameters:
    ///   - certificate: One of the pool, or not.
    ///   - pool: Where the chain is looked for.
    public init(_ certificate: X509Certificate, in pool: CertificatePool) {
        let leaf = EndorsementCertificate.isEndorsement(certificate) ? try? EndorsementCertificate(certificate) : nil
        let name = certificate.subject.commonName ?? ""
        kind =
            leaf.map { "\($0.kind)" }
            ?? (!certificate.isAuthority
                ? "other"
                : certificate.issuer == certificate.subject ? "ARK" : name.hasPrefix("SEV-VLEK-") ? "ASVK" : "ASK")
        subject = certificate.subject.description
        issuer = certificate.issuer.description
        product =
            leaf?.productName ?? (certificate.isAuthority ? name.split(separator: "-").last.map(String.init) : nil)
        hardwareID = leaf?.hardwareID
        providerID = leaf?.providerID
        versions = leaf?.versions
        notBefore = certificate.notBefore
        notAfter = certificate.notAfter
        fingerprint = Self.sha256(certificate.der)
        keyFingerprint = certificate.keyFingerprint
        revokedCount = nil
        standing = Self.standing { trusted throws(AttestationError) in
            if EndorsementCertificate.isEndorsement(certificate) {
                return try pool.chain(of: certificate, trusted: trusted).standing
            }
            guard certificate.issuer != certificate.subject else {
                return try EndorsementChain.standing(ofRoot: certificate, trusted: trusted)
            }
            guard let root = pool.issuer(of: certificate) else {
                throw CertificatePool.missing("ARK certificate", "whose subject is \(certificate.issuer)")
            }
            let standing = try EndorsementChain.standing(ofRoot: root, trusted: trusted)
            try EndorsementChain.check(
                intermediate: certificate, name.hasPrefix("SEV-VLEK-") ? "ASVK" : "ASK", of: root)
            return standing
        } roots: {
            pool.certificates.filter { $0.subject == $0.issuer }
        }
    }

    public init(_ list: X509RevocationList, in pool: CertificatePool) {
        kind = "CRL"
        subject = list.issuer.description
        issuer = list.issuer.description
        product = list.issuer.commonName?.split(separator: "-").last.map(String.init)
        hardwareID = nil
        providerID = nil
        versions = nil
        notBefore = list.thisUpdate
        notAfter = list.nextUpdate
        fingerprint = Self.sha256(list.der)
        keyFingerprint = nil
        revokedCount = list.revokedSerialNumbers.count
        let roots = pool.certificates.filter { $0.subject == list.issuer && $0.subject == $0.issuer }
        standing = Self.standing { trusted throws(AttestationError) in
            guard let root = roots.first(where: { list.isSigned(by: $0) }) ?? roots.first else {
                throw CertificatePool.missing("ARK certificate", "whose subject is \(list.issuer), the CRL's issuer")
            }
            let standing = try EndorsementChain.standing(ofRoot: root, trusted: trusted)
            try EndorsementChain.check(list: list, of: root)
            return standing
        } roots: {
            roots
        }
    }

    /// First with AMD's roots, then with whatever roots there are: a listing believes nothing, it says what it saw.
    private static func standing(
        _ body: (TrustedRoots) throws(AttestationError) -> RootStanding, roots: () -> [X509Certificate]
    ) -> Standing {
        do throws(AttestationError) {
            _ = try body(.amd)
            return .amd
        } catch {
            guard error.category == .untrusted else { return .refused(error) }
        }
        do throws(AttestationError) {
            switch try body(TrustedRoots(named: roots())) {
            case .amd: return .amd
            case .named(let name), .software(let name): return .other(name)
            }
        } catch { return .refused(error) }
    }

    private static func sha256(_ bytes: [UInt8]) -> [UInt8] {
        let digest = SHA256.hash(bytes)
        return digest.indices.map { digest[$0] }
    }
}
