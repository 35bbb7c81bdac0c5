// VCEK and VLEK: the leaf certificates, and what AMD's extensions in them say [KDS 3.1, 3.2].

import Crypto

/// A VCEK or VLEK that could be read. Nothing is verified by that.
public struct EndorsementCertificate: Sendable {
    public let certificate: X509Certificate
    /// `.vcek` or `.vlek`.
    public let kind: SigningKey
    /// "Milan-B0", "Genoa", "Turin".
    public let productName: String
    public let product: ProductLine
    /// 0 for Milan and Genoa, 1 for Turin.
    public let structVersion: UInt8
    public let versions: SecurityVersions
    /// VCEK only: 64 bytes, 8 on Turin.
    public let hardwareID: [UInt8]?
    /// VLEK only: the cloud provider.
    public let providerID: String?
    public let key: P384PublicKey

    /// 1.3.6.1.4.1.3704.1: AMD's arc for these.
    static let arc = "1.3.6.1.4.1.3704.1"

    /// The certificate has AMD's extensions, so it is meant as a VCEK or VLEK.
    static func isEndorsement(_ certificate: X509Certificate) -> Bool {
        certificate.extensions.contains { $0.oid.hasPrefix(arc + ".") }
    }

    /// - Throws: ``AttestationError`` of category `malformed` that names the extension.
    public init(_ certificate: X509Certificate) throws(AttestationError) {
        self.certificate = certificate
        let isVLEK = certificate.subject.commonName == "SEV-VLEK"
        kind = isVLEK ? .vlek : .vcek
        let reader = ExtensionReader(certificate: certificate, subject: isVLEK ? "VLEK" : "VCEK")
        guard isVLEK || certificate.subject.commonName == "SEV-VCEK" else {
            throw reader.malformed(
                "subject CN", expected: "SEV-VCEK or SEV-VLEK", found: certificate.subject.commonName ?? "none",
                cause: "a certificate of another kind")
        }
        guard let key = certificate.p384Key else {
            throw reader.malformed(
                "public key", expected: "an EC key on P-384", found: "another key",
                cause: "a certificate of another kind")
        }
        self.key = key
        structVersion = try reader.integer("1", "structVersion")
        productName = try reader.text("2", "productName")
        guard let product = ProductLine(certificateName: productName) else {
            throw reader.malformed(
                "productName", expected: ProductLine.allCases.map(\.rawValue).joined(separator: ", "),
                found: productName, cause: "a product that is newer than this program")
        }
        self.product = product
        let wantedStruct: UInt8 = product == .turin ? 1 : 0
        guard structVersion == wantedStruct else {
            throw reader.malformed(
                "structVersion", expected: "\(wantedStruct) for \(product)", found: "\(structVersion)",
                cause: "a form that is newer than this program")
        }
        versions = SecurityVersions(
            fmc: product == .turin ? try reader.integer("3.9", "fmcSPL") : nil,
            bootLoader: try reader.integer("3.1", "blSPL"), tee: try reader.integer("3.2", "teeSPL"),
            snp: try reader.integer("3.3", "snpSPL"), microcode: try reader.integer("3.8", "ucodeSPL"))
        if isVLEK {
            guard certificate.extensionValue(Self.arc + ".4") == nil else {
                throw reader.malformed(
                    "hwID", expected: "none in a VLEK", found: "one", cause: "a certificate of another kind")
            }
            hardwareID = nil
            providerID = try reader.text("5", "cspID")
        } else {
            hardwareID = try reader.hardwareID(byteCount: product.hardwareIDByteCount)
            providerID = nil
        }
    }
}

/// Reads AMD's extensions of one certificate.
private struct ExtensionReader {
    let certificate: X509Certificate
    let subject: String

    func value(_ suffix: String, _ name: String) throws(AttestationError) -> [UInt8] {
        guard let value = certificate.extensionValue("\(EndorsementCertificate.arc).\(suffix)") else {
            throw malformed(
                name, expected: "extension \(EndorsementCertificate.arc).\(suffix) once", found: "none, or several",
                cause: "a certificate of another kind or product")
        }
        return value
    }

    /// An INTEGER from 0 to 255: 02 01 xx, or 02 02 00 xx above 127.
    func integer(_ suffix: String, _ name: String) throws(AttestationError) -> UInt8 {
        let bytes = try value(suffix, name)
        if bytes.count == 3, bytes.starts(with: [2, 1]), bytes[2] < 0x80 { return bytes[2] }
        if bytes.count == 4, bytes.starts(with: [2, 2, 0]), bytes[3] >= 0x80 { return bytes[3] }
        throw malformed(
            name, expected: "an INTEGER from 0 to 255", found: hexText(bytes.prefix(16)), cause: "a damaged certificate"
        )
    }

    /// An IA5String of printable characters.
    func text(_ suffix: String, _ name: String) throws(AttestationError) -> String {
        let bytes = try value(suffix, name)
        guard bytes.count >= 2, bytes[0] == 0x16, bytes[1] < 0x80, Int(bytes[1]) == bytes.count - 2,
            bytes.dropFirst(2).allSatisfy({ (0x20..<0x7f).contains($0) })
        else {
            throw malformed(
                name, expected: "an IA5String", found: hexText(bytes.prefix(16)), cause: "a damaged certificate")
        }
        return String(decoding: bytes.dropFirst(2), as: UTF8.self)
    }

    /// Raw bytes, or the same in an inner OCTET STRING, as some certificates have them.
    func hardwareID(byteCount: Int) throws(AttestationError) -> [UInt8] {
        let bytes = try value("4", "hwID")
        if bytes.count == byteCount { return bytes }
        // Safe: 8 or 64.
        if bytes.count == byteCount + 2, bytes[0] == 0x04, bytes[1] == UInt8(byteCount) {
            return Array(bytes.dropFirst(2))
        }
        throw malformed(
            "hwID", expected: "\(byteCount) bytes", found: "\(bytes.count) bytes",
            cause: "a certificate of another product")
    }

    func malformed(_ field: String, expected: String, found: String, cause: String) -> AttestationError {
        AttestationError(
            .malformed, attempt: "read the certificate", subject: subject, field: field, expected: expected,
            found: found, likelyCause: cause, nextStep: "get the certificate of this chip and TCB from AMD again")
    }
}
