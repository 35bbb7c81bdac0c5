// Certificates from files and tables, in any order, and the chain that fits a report.

import Crypto

/// What is at hand: certificates of any role, and revocation lists.
public struct CertificatePool: Sendable {
    public private(set) var certificates: [X509Certificate] = []
    public private(set) var revocationLists: [X509RevocationList] = []
    /// What is there already: a store of a fleet has thousands of certificates.
    private var known: Set<[UInt8]> = []

    public init() {}

    /// Adds what a file holds: PEM with certificates and CRLs, one DER certificate or CRL, or a certificate table.
    ///
    /// - Parameter name: For messages.
    /// - Throws: ``AttestationError`` of category `malformed` when it is none of these, or a part is damaged.
    public mutating func add(_ file: [UInt8], name: String) throws(AttestationError) {
        if PEM.isText(file) {
            guard let blocks = PEM.blocks(file) else {
                throw Self.malformed(name, expected: "PEM blocks that end and are base64", found: "something else")
            }
            for block in blocks {
                switch block.label {
                case "CERTIFICATE", "X509 CRL": try addDER(block.bytes, name)
                default: break
                }
            }
        } else if file.first == 0x30 {
            try addDER(file, name)
        } else {
            for entry in try CertificateTable(bytes: file).entries {
                switch entry.identifier {
                case .ark, .ask, .vcek, .vlek, .crl: try addDER(entry.bytes, name)
                default: break
                }
            }
        }
    }

    /// Adds one parsed certificate; one that is there already stays once.
    public mutating func add(_ certificate: X509Certificate) {
        if known.insert(certificate.der).inserted { certificates.append(certificate) }
    }

    /// Adds one parsed revocation list; one that is there already stays once.
    public mutating func add(_ list: X509RevocationList) {
        if known.insert(list.der).inserted { revocationLists.append(list) }
    }

    private mutating func addDER(_ der: [UInt8], _ name: String) throws(AttestationError) {
        if let certificate = X509Certificate(der: der) {
            add(certificate)
        } else if let list = X509RevocationList(der: der) {
            add(list)
        } else {
            throw Self.malformed(
                name, expected: "an X.509 certificate or CRL in DER", found: "\(der.count) bytes that are neither")
        }
    }

    /// The VCEKs and VLEKs.
    public var endorsements: [X509Certificate] { certificates.filter(EndorsementCertificate.isEndorsement) }

    /// The chain for a report: of several leaves the one for its kind of key, its chip and its TCB. Where several fit as well,
    /// as VLEKs of two providers or a VCEK that was issued twice, the one whose key has signed, and the newest of these.
    ///
    /// - Throws: ``AttestationError``: `missing`, or why the chain is not accepted.
    public func chain(for report: AttestationReport, trusted: TrustedRoots = .amd) throws(AttestationError)
        -> EndorsementChain
    {
        let kind = report.keyInformation.signingKey
        let ranked = endorsements.map { (leaf: $0, fit: Self.fit($0, report)) }
        let best = ranked.map(\.fit).max() ?? 0
        var leaves = ranked.filter { $0.fit == best }.map(\.leaf)
        if leaves.count > 1 {
            let signed = report.signedBytes
            let signing = leaves.filter {
                $0.p384Key?.isValidSignature(
                    littleEndianR: report.signatureR, s: report.signatureS, of: signed, hash: .sha384) == true
            }
            if !signing.isEmpty { leaves = signing }
            leaves.sort { $0.notAfter > $1.notAfter }
        }
        var refusal = Self.missing(
            "\(kind == .vlek ? "VLEK" : "VCEK") certificate", "of the chip and TCB that made the report")
        for (index, leaf) in leaves.enumerated() {
            do throws(AttestationError) {
                return try chain(of: leaf, trusted: trusted)
            } catch  where index == 0 {
                refusal = error
            } catch {}
        }
        throw refusal
    }

    /// There is a leaf of the kind, chip and TCB that the report names.
    public func hasLeaf(for report: AttestationReport) -> Bool {
        endorsements.contains { Self.fit($0, report) >= Self.fitOfAll(report) }
    }

    /// The chain from a leaf up to its root, both in the pool.
    ///
    /// - Throws: ``AttestationError``: `missing`, or why the chain is not accepted.
    public func chain(of leaf: X509Certificate, trusted: TrustedRoots = .amd) throws(AttestationError)
        -> EndorsementChain
    {
        guard let intermediate = issuer(of: leaf) else {
            let signer = leaf.subject.commonName == "SEV-VLEK" ? "ASVK" : "ASK"
            throw Self.missing("\(signer) certificate", "whose subject is \(leaf.issuer)")
        }
        guard let root = issuer(of: intermediate) else {
            throw Self.missing("ARK certificate", "whose subject is \(intermediate.issuer)")
        }
        return try EndorsementChain(
            leaf: leaf, intermediate: intermediate, root: root, trusted: trusted,
            revocationLists: revocationLists(of: root))
    }

    /// The root's lists. One of its name that nobody here has signed is among them, so that it is noticed; another root of the
    /// same name, as software platforms have, answers for its own.
    func revocationLists(of root: X509Certificate) -> [X509RevocationList] {
        revocationLists.filter { list in
            guard list.issuer == root.subject else { return false }
            return list.isSigned(by: root)
                || !certificates.contains { $0.subject == list.issuer && $0.isAuthority && list.isSigned(by: $0) }
        }
    }

    /// By name; of several the one whose key made the signature.
    func issuer(of certificate: X509Certificate) -> X509Certificate? {
        let candidates = certificates.filter { $0.subject == certificate.issuer && $0.isAuthority }
        return candidates.first { certificate.isSigned(by: $0) } ?? candidates.first
    }

    /// How well a leaf fits; larger is better.
    private static func fit(_ certificate: X509Certificate, _ report: AttestationReport) -> Int {
        guard let leaf = try? EndorsementCertificate(certificate) else { return 0 }
        var score = 1
        if leaf.kind == report.keyInformation.signingKey { score += 8 }
        if let hardwareID = leaf.hardwareID, let chipID = report.chipID, chipID.starts(with: hardwareID) { score += 4 }
        if SecurityVersions(tcbVersion: report.reportedTCB, of: leaf.product) == leaf.versions { score += 2 }
        return score
    }

    /// The fit of a leaf that agrees in everything that the report says.
    private static func fitOfAll(_ report: AttestationReport) -> Int {
        report.chipID == nil || report.keyInformation.signingKey != .vcek ? 11 : 15
    }

    static func missing(_ what: String, _ which: String) -> AttestationError {
        AttestationError(
            .missing, attempt: "build the certificate chain", subject: "certificates", field: what,
            expected: "one \(which)", found: "none", likelyCause: "the folder lacks it, or holds another product's",
            nextStep: "add it: AMD's key server publishes it, and the extended request returns it")
    }

    static func malformed(_ name: String, expected: String, found: String) -> AttestationError {
        AttestationError(
            .malformed, attempt: "read certificates", subject: name, field: "contents", expected: expected,
            found: found,
            likelyCause: "a file of another kind, or a damaged one", nextStep: "take it away, or get it again")
    }
}
