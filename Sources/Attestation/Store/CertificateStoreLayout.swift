// Where a certificate lies in a store. One folder tree serves two readers: it has the key server's paths, so that it can be
// handed out in its place, and the paths in which trustee's verifier looks for VCEKs (its "offline store").
//
//     vcek/v1/Milan/cert_chain                               ASK and ARK, PEM
//     vcek/v1/Milan/crl                                      DER
//     vcek/<hwID>/bl04_tee00_snp24_ucode219_vcek.der         one per TCB; on Turin _fmc01 before _vcek
//     vlek/v1/Milan/cert_chain, vlek/v1/Milan/crl            with the ASVK
//     vlek/v1/Milan/<provider>/bl04_…_ucode219_<key>_vlek.der    the key's fingerprint, since providers change their keys
//     roots/<fingerprint>/…                                  the same again below a root that is not AMD's

import Crypto

/// The paths of a certificate store, relative to its folder.
enum CertificateStoreLayout {
    /// Empty for AMD's roots; a folder of its own for any other.
    static func folder(of root: X509Certificate, _ standing: RootStanding) -> String {
        if case .amd = standing { return "" }
        return "roots/\(hexText(root.keyFingerprint.prefix(8)))/"
    }

    static func path(of leaf: EndorsementCertificate) -> String {
        let versions = fileNamePart(leaf.versions)
        guard leaf.kind == .vlek else {
            return "vcek/\(hexText(leaf.hardwareID ?? []))/\(versions)_vcek.der"
        }
        let key = hexText(leaf.certificate.keyFingerprint.prefix(4))
        return "vlek/v1/\(leaf.product)/\(folderName(leaf.providerID ?? ""))/\(versions)_\(key)_vlek.der"
    }

    static func chainPath(_ kind: SigningKey, _ product: ProductLine) -> String {
        "\(kind == .vlek ? "vlek" : "vcek")/v1/\(product)/cert_chain"
    }

    static func revocationListPath(_ kind: SigningKey, _ product: ProductLine) -> String {
        "\(kind == .vlek ? "vlek" : "vcek")/v1/\(product)/crl"
    }

    /// `bl04_tee00_snp24_ucode219`, on Turin with `_fmc01` behind it: two digits at least.
    static func fileNamePart(_ versions: SecurityVersions) -> String {
        func part(_ name: String, _ value: UInt8) -> String { "\(name)\(value < 10 ? "0" : "")\(value)" }
        var parts = [
            part("bl", versions.bootLoader), part("tee", versions.tee), part("snp", versions.snp),
            part("ucode", versions.microcode),
        ]
        if let fmc = versions.fmc { parts.append(part("fmc", fmc)) }
        return parts.joined(separator: "_")
    }

    /// Text from a certificate as one harmless name.
    private static func folderName(_ text: String) -> String {
        let safe = text.utf8.prefix(100).map { byte -> UInt8 in
            switch byte {
            case 0x30...0x39, 0x41...0x5a, 0x61...0x7a, 0x2d, 0x2e: byte
            default: 0x5f
            }
        }
        let name = String(decoding: safe, as: UTF8.self)
        return name.isEmpty || name.hasPrefix(".") ? "_" + name : name
    }
}
