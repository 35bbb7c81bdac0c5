// What goes into a certificate store: only what chains to a root that is believed, each at its place. No file is touched
// here: the answer is which bytes go where.

import Crypto

/// One import: the files of its sources, checked together, and what a store becomes by them.
public struct CertificateStoreImport: Sendable {
    /// What happens to one file of the store.
    public struct Change: Equatable, Sendable {
        public enum Action: String, Sendable {
            case added
            /// A newer issue of the same key or list, or one more authority beside those that were there.
            case renewed
            /// The store has it, or a newer one: nothing is written.
            case present
        }

        /// Relative to the store, of plain names.
        public let path: String
        /// "VCEK", "ASK and ARK", "CRL".
        public let subject: String
        public let action: Action
        /// Empty when nothing is written.
        public let bytes: [UInt8]
    }

    private struct Source {
        var name: String
        var fileName: CertificateFileName?
    }

    private let trusted: TrustedRoots
    /// The sources and the authorities of the store: chains may end in either.
    private var pool: CertificatePool
    private var certificates: [(certificate: X509Certificate, source: Source)] = []
    private var revocationLists: [(list: X509RevocationList, source: Source)] = []

    /// - Parameters:
    ///   - authorities: What the store has of roots, intermediate certificates and revocation lists.
    ///   - trusted: Roots that are believed. Those of the store are not, unless they are AMD's or named again.
    public init(authorities: CertificatePool, trusted: TrustedRoots = .amd) {
        self.trusted = trusted
        pool = authorities
        for root in trusted.named { pool.add(root) }
    }

    /// Adds one file: PEM, DER, or a certificate table.
    ///
    /// - Parameter name: Its path or URL. What it says of the contents must be true.
    /// - Returns: How many certificates and lists it holds: 0 for PEM with other things.
    /// - Throws: ``AttestationError`` of category `malformed`.
    @discardableResult
    public mutating func add(_ file: [UInt8], name: String) throws(AttestationError) -> Int {
        var contents = CertificatePool()
        try contents.add(file, name: printable(name))
        let source = Source(name: printable(name), fileName: CertificateFileName(path: name))
        for certificate in contents.certificates {
            pool.add(certificate)
            certificates.append((certificate, source))
        }
        for list in contents.revocationLists {
            pool.add(list)
            revocationLists.append((list, source))
        }
        return contents.certificates.count + contents.revocationLists.count
    }

    /// Checks everything, and says what the store becomes.
    ///
    /// - Parameter existing: The bytes of a file of the store by its path; nil where there is none.
    /// - Returns: One change per file of the store, by path.
    /// - Throws: ``AttestationError`` for the first certificate that is refused; and what `existing` throws.
    public func changes(existing: (String) throws -> [UInt8]?) throws -> [Change] {
        var leaves: [String: EndorsementCertificate] = [:]
        var authorities: [String: [X509Certificate]] = [:]
        var roots: [(path: String, certificate: X509Certificate)] = []
        var lists: [String: X509RevocationList] = [:]
        for (certificate, source) in certificates {
            try Self.naming(source) { () throws(AttestationError) in
                if EndorsementCertificate.isEndorsement(certificate) {
                    let (leaf, folder) = try leaf(certificate, source)
                    let path = folder + CertificateStoreLayout.path(of: leaf)
                    if let other = leaves[path], try Self.isNewer(other.certificate, certificate, at: path) { return }
                    leaves[path] = leaf
                } else {
                    let (path, root) = try authority(certificate)
                    if root.der == certificate.der {
                        roots.append((path, root))
                    } else {
                        authorities[path, default: []] += [certificate, root]
                    }
                }
            }
        }
        // A root goes with what it has signed; by itself only when it came alone.
        for (path, root) in roots where !authorities.values.joined().contains(where: { $0.der == root.der }) {
            authorities[path, default: []].append(root)
        }
        for (list, source) in revocationLists {
            try Self.naming(source) { () throws(AttestationError) in
                let path = try place(list, source)
                if let other = lists[path], other.thisUpdate >= list.thisUpdate { return }
                lists[path] = list
            }
        }
        let changes =
            try leaves.map { try change($0, $1, existing($0)) }
            + authorities.map { try change($0, $1, existing($0)) } + lists.map { try change($0, $1, existing($0)) }
        return changes.sorted { $0.path < $1.path }
    }

    // MARK: Checks

    private func leaf(
        _ certificate: X509Certificate, _ source: Source
    ) throws(AttestationError) -> (EndorsementCertificate, folder: String) {
        let chain = try pool.chain(of: certificate, trusted: trusted)
        if let wrong = source.fileName?.contradiction(of: chain.leaf) {
            throw AttestationError(
                .binding, attempt: "import certificates", subject: "\(chain.leaf.kind)", field: wrong.field,
                expected: wrong.expected, found: wrong.found, likelyCause: "files that were exchanged or renamed",
                nextStep: "give the file its true name, or a name that says nothing")
        }
        return (chain.leaf, CertificateStoreLayout.folder(of: chain.root, chain.standing))
    }

    /// The path of the file for a root or an intermediate certificate, and its root.
    private func authority(_ certificate: X509Certificate) throws(AttestationError) -> (String, root: X509Certificate) {
        guard certificate.issuer != certificate.subject else {
            let standing = try EndorsementChain.standing(ofRoot: certificate, trusted: trusted)
            let product = try product(of: certificate, "ARK")
            return (
                CertificateStoreLayout.folder(of: certificate, standing)
                    + CertificateStoreLayout.chainPath(.vcek, product), certificate
            )
        }
        let isForVLEK = certificate.subject.commonName?.hasPrefix("SEV-VLEK-") == true
        let signer = isForVLEK ? "ASVK" : "ASK"
        guard certificate.isAuthority else {
            throw EndorsementChain.refusal(
                "\(certificate.subject)", "kind", expected: "an ARK, ASK, ASVK, VCEK or VLEK, or a CRL",
                found: "a certificate of another kind", cause: "a file that is about something else",
                next: "leave it out")
        }
        guard let root = pool.issuer(of: certificate) else {
            throw CertificatePool.missing("ARK certificate", "whose subject is \(certificate.issuer)")
        }
        let standing = try EndorsementChain.standing(ofRoot: root, trusted: trusted)
        try EndorsementChain.check(intermediate: certificate, signer, of: root)
        let product = try product(of: certificate, signer)
        return (
            CertificateStoreLayout.folder(of: root, standing)
                + CertificateStoreLayout.chainPath(isForVLEK ? .vlek : .vcek, product), root
        )
    }

    private func place(_ list: X509RevocationList, _ source: Source) throws(AttestationError) -> String {
        let roots = pool.certificates.filter { $0.subject == list.issuer && $0.issuer == $0.subject }
        guard let root = roots.first(where: { list.isSigned(by: $0) }) ?? roots.first else {
            throw CertificatePool.missing("ARK certificate", "whose subject is \(list.issuer), the CRL's issuer")
        }
        let standing = try EndorsementChain.standing(ofRoot: root, trusted: trusted)
        try EndorsementChain.check(list: list, of: root)
        return CertificateStoreLayout.folder(of: root, standing)
            + CertificateStoreLayout.revocationListPath(
                source.fileName?.kind ?? .vcek, try product(of: root, "ARK"))
    }

    /// "ARK-Milan", "SEV-Milan", "SEV-VLEK-Milan".
    private func product(of authority: X509Certificate, _ subject: String) throws(AttestationError) -> ProductLine {
        let name = authority.subject.commonName ?? ""
        guard let last = name.split(separator: "-").last, let product = ProductLine(rawValue: String(last)) else {
            throw EndorsementChain.refusal(
                subject, "subject CN",
                expected: "a name that ends in " + ProductLine.allCases.map(\.rawValue).joined(separator: ", "),
                found: name, cause: "a product that is newer than this program, or another kind of certificate",
                next: "leave it out")
        }
        return product
    }

    /// Whose file it was belongs into the refusal.
    private static func naming(
        _ source: Source, _ body: () throws(AttestationError) -> Void
    ) throws(AttestationError) {
        do { try body() } catch {
            var error = error
            error.subject += " in \(source.name)"
            throw error
        }
    }

    // MARK: Changes

    private func change(
        _ path: String, _ leaf: EndorsementCertificate, _ existing: [UInt8]?
    ) throws(AttestationError) -> Change {
        let der = leaf.certificate.der
        func result(_ action: Change.Action) -> Change {
            Change(path: path, subject: "\(leaf.kind)", action: action, bytes: action == .present ? [] : der)
        }
        guard let existing else { return result(.added) }
        guard let other = X509Certificate(der: existing) else { throw Self.damaged(path) }
        return result(try Self.isNewer(other, leaf.certificate, at: path) ? .present : .renewed)
    }

    /// The first is at least as new. AMD issues certificates anew on each request, with the same key.
    private static func isNewer(
        _ first: X509Certificate, _ second: X509Certificate, at path: String
    ) throws(AttestationError) -> Bool {
        guard first.subjectPublicKeyInfo == second.subjectPublicKeyInfo else {
            throw EndorsementChain.refusal(
                path, "public key", expected: "one key for this chip and TCB",
                found: "\(hexText(first.keyFingerprint.prefix(8)))… and \(hexText(second.keyFingerprint.prefix(8)))…",
                cause: "a platform that was made anew, or a forged certificate",
                next: "find out which is right, and remove the other one's file")
        }
        return first.der == second.der || first.notBefore >= second.notBefore
    }

    /// Intermediate certificates first, as the key server has them, then roots: one issue of each key.
    private func change(
        _ path: String, _ added: [X509Certificate], _ existing: [UInt8]?
    ) throws(AttestationError) -> Change {
        var all = CertificatePool()
        if let existing { try all.add(existing, name: path) }
        let before = all.certificates
        for certificate in added { all.add(certificate) }
        var kept: [X509Certificate] = []
        for certificate in all.certificates {
            if let index = kept.firstIndex(where: { $0.subjectPublicKeyInfo == certificate.subjectPublicKeyInfo }) {
                if certificate.notBefore > kept[index].notBefore { kept[index] = certificate }
            } else {
                kept.append(certificate)
            }
        }
        let ordered = kept.filter { $0.subject != $0.issuer } + kept.filter { $0.subject == $0.issuer }
        let names = ordered.map { certificate in
            if certificate.subject == certificate.issuer { return "ARK" }
            return certificate.subject.commonName?.hasPrefix("SEV-VLEK-") == true ? "ASVK" : "ASK"
        }
        let subject = names.joined(separator: " and ")
        if before.map(\.der) == ordered.map(\.der) {
            return Change(path: path, subject: subject, action: .present, bytes: [])
        }
        let text = ordered.map { PEM.text(PEM.Block(label: "CERTIFICATE", bytes: $0.der)) }.joined()
        return Change(
            path: path, subject: subject, action: existing == nil ? .added : .renewed, bytes: Array(text.utf8))
    }

    private func change(
        _ path: String, _ list: X509RevocationList, _ existing: [UInt8]?
    ) throws(AttestationError) -> Change {
        guard let existing else { return Change(path: path, subject: "CRL", action: .added, bytes: list.der) }
        guard let other = X509RevocationList(der: existing) else { throw Self.damaged(path) }
        let isPresent = other.der == list.der || other.thisUpdate >= list.thisUpdate
        return Change(
            path: path, subject: "CRL", action: isPresent ? .present : .renewed, bytes: isPresent ? [] : list.der)
    }

    private static func damaged(_ path: String) -> AttestationError {
        CertificatePool.malformed(path, expected: "what an import has written", found: "something else")
    }
}
