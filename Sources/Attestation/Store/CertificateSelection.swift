// Which leaf is meant when no report says it: a chip and a TCB in words.

import Crypto

/// A VCEK by chip and TCB, or a VLEK by product and TCB. What is not given does not matter, as long as one key is left.
public struct CertificateSelection: Sendable {
    public var kind = SigningKey.vcek
    /// Significant bytes of CHIP_ID: 64, or 8 on Turin; zeroes behind those 8 do no harm.
    public var chipID: [UInt8]?
    public var product: ProductLine?
    /// By the components' names in certificates.
    public var versions: [String: UInt8] = [:]

    public init() {}

    /// Reads `blSPL=4,teeSPL=0,snpSPL=24,ucodeSPL=219`, as `certs show` and the key server write it. Returns nil when a part is
    /// not such a component.
    public static func versions(_ text: String) -> [String: UInt8]? {
        let versions = CertificateFileName.versions(query: text)
        let parts = text.split(whereSeparator: { "&, ".contains($0) })
        return versions.isEmpty || versions.count != parts.count ? nil : versions
    }

    func matches(_ leaf: EndorsementCertificate) -> Bool {
        guard leaf.kind == kind, product == nil || product == leaf.product else { return false }
        if let chipID {
            guard let hardwareID = leaf.hardwareID, chipID.starts(with: hardwareID),
                chipID.dropFirst(hardwareID.count).allSatisfy({ $0 == 0 })
            else { return false }
        }
        return versions.allSatisfy { wanted in
            leaf.versions.components.contains { $0.name == wanted.key && $0.value == wanted.value }
        }
    }
}

extension CertificatePool {
    /// The chain of the one leaf that is meant; of several issues of one key the newest.
    ///
    /// - Throws: ``AttestationError``: `missing` for none or several, or why the chain is not accepted.
    public func chain(
        selecting selection: CertificateSelection, trusted: TrustedRoots = .amd
    ) throws(AttestationError) -> EndorsementChain {
        let leaves = endorsements.compactMap { try? EndorsementCertificate($0) }.filter(selection.matches)
        guard let newest = leaves.max(by: { $0.certificate.notBefore < $1.certificate.notBefore }) else {
            throw Self.missing("\(selection.kind) certificate", "of this chip, product and TCB")
        }
        var others: [String] = []
        for leaf in leaves {
            let text =
                "\(leaf.product) \(leaf.hardwareID.map { hexText($0.prefix(8)) + "…" } ?? leaf.providerID ?? "") "
                + "\(leaf.versions)"
            if leaf.certificate.subjectPublicKeyInfo != newest.certificate.subjectPublicKeyInfo, others.count < 8 {
                others.append(text)
            }
        }
        guard others.isEmpty else {
            throw AttestationError(
                .missing, attempt: "choose a certificate", subject: "certificates", field: "\(selection.kind)",
                expected: "one key", found: "several, among them for \(others.joined(separator: "; "))",
                likelyCause: "certificates for several TCBs, chips or providers",
                nextStep: "give the report, or chip and TCB in full")
        }
        return try chain(of: newest.certificate, trusted: trusted)
    }
}
