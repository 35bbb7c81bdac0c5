// What the name of a certificate's file says: the names that AMD's key server and the tools around it use.
//
//     key server  vcek/v1/Milan/<hwID>?blSPL=04&teeSPL=00&snpSPL=24&ucodeSPL=219    also with https:// and the host before it
//                 vcek/v1/Milan/cert_chain, vcek/v1/Milan/crl, vlek/v1/Milan/cert?…, vlek/v1/Milan/cert_chain
//     trustee     vcek/<hwID>/bl04_tee00_snp24_ucode219_vcek.der, with _fmc01 before _vcek on Turin; vcek/<hwID>/vcek.der
//     snpguest    ark.pem, ask.pem, asvk.pem, vcek.pem, vlek.pem, crl.pem, or .der
//     snphost     the same, also without an ending, and Milan.crl
//
// A name is a hint: it says which files are worth reading, and on import it must not contradict what is inside.

import ABILayout

/// A name that a certificate or a revocation list may have.
public struct CertificateFileName: Equatable, Sendable {
    /// What the name promises.
    public enum Role: Equatable, Sendable {
        /// A VCEK or VLEK.
        case endorsement
        /// ARK, ASK or ASVK, or several of them.
        case authorities
        case revocationList
        /// Any of these: the name says nothing.
        case any
    }

    public var role = Role.any
    /// The kind of leaf that it is or that the authorities are for.
    public var kind: SigningKey?
    public var product: ProductLine?
    public var hardwareID: [UInt8]?
    /// By the components' names in certificates: "blSPL", "teeSPL", "snpSPL", "ucodeSPL", "fmcSPL".
    public var versions: [String: UInt8] = [:]

    /// Endings of files that hold certificates or revocation lists.
    public static let endings = [".pem", ".der", ".crt", ".cer", ".cert", ".crl"]

    /// Reads a path: relative, absolute, or a URL of the key server. Returns nil when files of such a name hold no
    /// certificates.
    public init?(path: String) {
        var parts = path.split(separator: "/").map(String.init)
        guard let file = parts.popLast() else { return nil }
        readFolders(parts)
        let (base, query) = Self.split(file)
        if let query { versions = Self.versions(query: query) }
        let lower = base.lowercased()
        let ending = Self.endings.first { lower.hasSuffix($0) && lower.utf8.count > $0.utf8.count }
        let stem = ending.map { String(lower.dropLast($0.count)) } ?? lower
        switch stem {
        case "ark", "ask", "asvk", "cert_chain":
            role = .authorities
            if stem == "asvk" { kind = .vlek }
        case "vcek", "vlek":
            role = .endorsement
            kind = stem == "vcek" ? .vcek : .vlek
        case "crl":
            role = .revocationList
        case "cert" where kind == .vlek && query != nil:
            role = .endorsement
        default:
            if let id = Self.hardwareID(stem) {
                (role, hardwareID, kind) = (.endorsement, id, .vcek)
            } else if let named = Self.versions(fileName: stem) {
                (role, versions, kind) = (.endorsement, named.versions, named.kind)
            } else if ending == ".crl" {
                role = .revocationList
                product = ProductLine(ignoringCase: stem) ?? product
            } else if ending == nil {
                return nil
            }
        }
        if role == .any { (kind, hardwareID) = (nil, nil) }
    }

    /// `vcek/v1/Milan/…`, `vcek/<hwID>/…`: the last folder called vcek or vlek counts.
    private mutating func readFolders(_ folders: [String]) {
        guard let start = folders.lastIndex(where: { ["vcek", "vlek"].contains($0.lowercased()) }) else { return }
        let rest = folders[(start + 1)...]
        let isVCEK = folders[start].lowercased() == "vcek"
        if rest.first?.lowercased() == "v1", rest.count >= 2 {
            product = ProductLine(ignoringCase: rest[start + 2])
            kind = isVCEK ? .vcek : .vlek
        } else if isVCEK, rest.count == 1, let id = Self.hardwareID(rest[start + 1].lowercased()) {
            hardwareID = id
            kind = .vcek
        }
    }

    /// The part before `?`, and the one behind it. Some tools write `@` into file names instead.
    private static func split(_ file: String) -> (base: String, query: String?) {
        guard let mark = file.firstIndex(where: { $0 == "?" || $0 == "@" }) else { return (file, nil) }
        return (String(file[..<mark]), String(file[file.index(after: mark)...]))
    }

    /// `blSPL=04&teeSPL=00…`; commas and spaces do as well. What else there is in a query does not matter.
    static func versions(query: String) -> [String: UInt8] {
        var versions: [String: UInt8] = [:]
        for part in query.split(whereSeparator: { "&, ".contains($0) }) {
            let sides = part.split(separator: "=", maxSplits: 1)
            guard sides.count == 2,
                let name = componentNames.first(where: { $0.lowercased() == sides[0].lowercased() }),
                let value = decimal(sides[1])
            else { continue }
            versions[name] = value
        }
        return versions
    }

    /// `bl04_tee00_snp24_ucode219[_fmc01][_<anything short>]_vcek`.
    private static func versions(fileName stem: String) -> (versions: [String: UInt8], kind: SigningKey)? {
        let tokens = stem.split(separator: "_")
        guard let last = tokens.last, last == "vcek" || last == "vlek" else { return nil }
        var versions: [String: UInt8] = [:]
        for token in tokens.dropLast() {
            guard let name = componentNames.first(where: { token.hasPrefix($0.dropLast(3).lowercased()) }),
                let value = decimal(token.dropFirst(name.count - 3))
            else { continue }
            versions[name] = value
        }
        guard versions["blSPL"] != nil, versions["ucodeSPL"] != nil else { return nil }
        return (versions, last == "vcek" ? .vcek : .vlek)
    }

    static let componentNames = ["blSPL", "teeSPL", "snpSPL", "ucodeSPL", "fmcSPL"]

    private static func decimal(_ text: some StringProtocol) -> UInt8? {
        guard (1...3).contains(text.utf8.count), text.utf8.allSatisfy({ (0x30...0x39).contains($0) }) else {
            return nil
        }
        return UInt8(text)
    }

    /// 16 or 128 digits, lower case.
    private static func hardwareID(_ text: String) -> [UInt8]? {
        guard text.utf8.count == 16 || text.utf8.count == 128 else { return nil }
        return ABILayout.bytes(hexadecimal: text)
    }

    // MARK: Use

    /// False when the name says that the file cannot be about this report: another chip, TCB or kind of key.
    public func mayServe(_ report: AttestationReport) -> Bool {
        guard role == .endorsement else { return true }
        if let kind, kind != report.keyInformation.signingKey { return false }
        if let hardwareID, let chipID = report.chipID, !chipID.starts(with: hardwareID) { return false }
        let layout = product ?? (versions["fmcSPL"] == nil ? .milan : .turin)
        guard let reported = SecurityVersions(tcbVersion: report.reportedTCB, of: layout) else {
            return versions.isEmpty
        }
        return reported.components.allSatisfy { versions[$0.name] == nil || versions[$0.name] == $0.value }
    }

    /// What the certificate is that the name says it is not.
    func contradiction(of leaf: EndorsementCertificate) -> (field: String, expected: String, found: String)? {
        if let kind, kind != leaf.kind { return ("kind", "\(kind), as its name says", "\(leaf.kind)") }
        if let product, product != leaf.product {
            return ("productName", "\(product), as its name says", leaf.productName)
        }
        if let hardwareID, let found = leaf.hardwareID, hardwareID != found {
            return ("hwID", "\(hexText(hardwareID)), as its name says", hexText(found))
        }
        for (name, value) in leaf.versions.components {
            if let expected = versions[name], expected != value {
                return (name, "\(expected), as its name says", "\(value)")
            }
        }
        return nil
    }
}
