// The X.509 side of the manufacturer: what AMD's key server gives out for SNP, in AMD's profile [KDS 2, 3].
//
//     ARK-Software-Milan ─┬─► SEV-Software-Milan       (ASK)  ──► SEV-VCEK   of one chip at one TCB version
//        │                └─► SEV-VLEK-Software-Milan  (ASVK) ──► SEV-VLEK   of one cloud provider at one TCB version
//        └─► CRL
//
// Everything follows from the seed and the arguments: the same key always gets the same certificate, byte for byte. For
// that signatures have derived salts, and validity is a matter of configuration and not of the clock.

import Crypto
import SEVABI

/// From when until when a certificate is good, in seconds since 1970-01-01 UTC.
public struct CertificateValidity: Sendable, Equatable {
    public var notBefore: Int64
    public var notAfter: Int64

    public init(notBefore: Int64, notAfter: Int64) {
        precondition(notBefore <= notAfter, "a certificate that is valid for a while")
        self.notBefore = notBefore
        self.notAfter = notAfter
    }

    /// 2024-01-01 to 2049-01-01, for all that the manufacturer signs: AMD's authorities have 25 years, too. Its VCEKs have 7
    /// and its VLEKs 1, and are issued anew for whoever asks, which nobody could do here and stay reproducible.
    public static let standard = CertificateValidity(notBefore: 1_704_067_200, notAfter: 2_493_072_000)
}

extension Manufacturer {
    /// Where revocation lists would be published, if this were a manufacturer: no such host can exist [RFC 2606].
    private static let host = "https://software.swift-snp-vmm.invalid"

    /// What the manufacturer's names have in common. "ZZ" is no country [ISO 3166-1 8.1.3].
    private static func name(_ commonName: String) -> X509NameDraft {
        X509NameDraft([
            (.organizationalUnit, "Not AMD"), (.country, "ZZ"), (.locality, "In Software"), (.state, "No Protection"),
            (.organization, "swift-snp-vmm software platform"), (.commonName, commonName),
        ])
    }

    private static func name(_ role: Role, _ product: ProcessorProduct) -> X509NameDraft {
        let prefix =
            switch role {
            case .ark: "ARK"
            case .ask: "SEV"
            case .asvk: "SEV-VLEK"
            }
        return name("\(prefix)-Software-\(product.rawValue)")
    }

    // MARK: Authorities

    /// The ARK of a product, self-signed, DER.
    public func rootCertificate(product: ProcessorProduct) -> [UInt8] { certificate(.ark, product) }

    /// The ASK of a product, which signs VCEKs, DER.
    public func signingCertificate(product: ProcessorProduct) -> [UInt8] { certificate(.ask, product) }

    /// The ASVK of a product, which signs VLEKs, DER.
    public func vlekSigningCertificate(product: ProcessorProduct) -> [UInt8] { certificate(.asvk, product) }

    private func certificate(_ role: Role, _ product: ProcessorProduct) -> [UInt8] {
        let (root, key) = (key(.ark, product), key(role, product).publicKey)
        let path = role == .asvk ? "vlek" : "vcek"
        let list = X509Extension.revocationLists(at: "\(Self.host)/\(path)/v1/\(product.rawValue)/crl")
        let extensions: [X509Extension] =
            role == .ark
            ? [.signsCertificates(andRevocationLists: true), .subjectKey(key), .authority(), list]
            : [
                .subjectKey(key), .authorityKey(root.publicKey), .authority(pathLength: 0),
                .signsCertificates(andRevocationLists: false), list,
            ]
        return X509CertificateDraft(
            serialNumber: Self.serialNumber(role, product), issuer: Self.name(.ark, product),
            subject: Self.name(role, product), notBefore: CertificateValidity.standard.notBefore,
            notAfter: CertificateValidity.standard.notAfter, subjectPublicKeyInfo: key.subjectPublicKeyInfo,
            extensions: extensions
        ).signed(by: root, writesTrailer: true)
    }

    /// As AMD numbers its own.
    private static func serialNumber(_ role: Role, _ product: ProcessorProduct) -> UInt64 {
        let line: UInt64 =
            switch product {
            case .milan: 0x10000
            case .genoa: 0x20000
            case .turin: 0x30000
            }
        return switch role {
        case .ark: line
        case .ask: line + (product == .genoa ? 2 : 1)
        case .asvk: line + 0x101
        }
    }

    /// The ARK's revocation list, DER.
    ///
    /// - Parameter revokingSigningKey: Revokes the ASK, for tests. Without it nothing is revoked.
    public func revocationList(product: ProcessorProduct, revokingSigningKey: Bool = false) -> [UInt8] {
        X509RevocationListDraft(
            issuer: Self.name(.ark, product), thisUpdate: CertificateValidity.standard.notBefore,
            nextUpdate: CertificateValidity.standard.notAfter,
            revokedSerialNumbers: revokingSigningKey ? [Self.serialNumber(.ask, product)] : []
        ).signed(by: key(.ark, product))
    }

    // MARK: Endorsement keys

    /// The VCEK of a chip at a reported TCB version, DER [KDS 3.1].
    public func vcek(
        of chip: PlatformStorage, product: ProcessorProduct, tcb: TCBVersion, serialNumber: UInt64 = 0,
        validity: CertificateValidity = .standard
    ) -> [UInt8] {
        vcek(
            key: chip.vcek(product: product, reportedTCB: tcb), product: product,
            chipID: chip.chipID(product: product), tcb: tcb, serialNumber: serialNumber, validity: validity)
    }

    /// A VCEK with a key that is given, DER [KDS 3.1].
    ///
    /// - Parameters:
    ///   - chipID: CHIP_ID as in reports, 64 bytes; on Turin 8 of them count.
    ///   - tcb: In the product's layout.
    ///   - serialNumber: AMD's have 0; some libraries want another one.
    public func vcek(
        key: P384PublicKey, product: ProcessorProduct, chipID: [UInt8], tcb: TCBVersion, serialNumber: UInt64 = 0,
        validity: CertificateValidity = .standard
    ) -> [UInt8] {
        precondition(chipID.count == 64, "a chip id of 64 bytes")
        // Milan's have been "Milan-B0" on every stepping.
        let productName = product == .milan ? "Milan-B0" : product.rawValue
        return leaf(
            key, "SEV-VCEK", .ask, product, productName, tcb, serialNumber, validity,
            Self.amd("4", Array(chipID.prefix(product.chipIDByteCount))))
    }

    /// The VLEK of a provider, DER [KDS 3.2].
    ///
    /// - Parameters:
    ///   - provider: CSP_ID, ASCII.
    ///   - tcb: The reported TCB version, in the product's layout.
    public func vlek(
        of hashstick: VLEKHashstick, product: ProcessorProduct, tcb: TCBVersion,
        provider: String = "CN=software.swift-snp-vmm.invalid", serialNumber: UInt64 = 0,
        validity: CertificateValidity = .standard
    ) -> [UInt8] {
        leaf(
            hashstick.vlek(product: product, reportedTCB: tcb), "SEV-VLEK", .asvk, product, product.rawValue, tcb,
            serialNumber, validity, Self.amd("5", DER.ia5(provider)))
    }

    private func leaf(
        _ key: P384PublicKey, _ commonName: String, _ role: Role, _ product: ProcessorProduct, _ productName: String,
        _ tcb: TCBVersion, _ serialNumber: UInt64, _ validity: CertificateValidity, _ owner: X509Extension
    ) -> [UInt8] {
        precondition(tcb.hasValidReservedBytes(in: product.tcbLayout), "a TCB version in the product's layout")
        func number(_ suffix: String, _ value: UInt8) -> X509Extension {
            Self.amd(suffix, DER.integer(UInt64(value)))
        }
        func version(_ byte: Int) -> UInt8 { UInt8(truncatingIfNeeded: tcb.rawValue &>> UInt64(8 &* byte)) }
        let head = [number("1", product.structureVersion), Self.amd("2", DER.ia5(productName))]
        // The order is AMD's.
        let versions: [X509Extension] =
            switch product.tcbLayout {
            case .milan:
                [
                    number("3.1", version(0)), number("3.2", version(1)), number("3.4", 0), number("3.5", 0),
                    number("3.6", 0), number("3.7", 0), number("3.3", version(6)), number("3.8", version(7)),
                ]
            case .turin:
                [
                    number("3.9", version(0)), number("3.1", version(1)), number("3.2", version(2)),
                    number("3.3", version(3)), number("3.5", 0), number("3.6", 0), number("3.7", 0),
                    number("3.8", version(7)),
                ]
            }
        return X509CertificateDraft(
            serialNumber: serialNumber, issuer: Self.name(role, product), subject: Self.name(commonName),
            notBefore: validity.notBefore, notAfter: validity.notAfter,
            subjectPublicKeyInfo: key.subjectPublicKeyInfo, extensions: head + versions + [owner]
        ).signed(by: self.key(role, product))
    }

    /// An extension of AMD's arc.
    private static func amd(_ suffix: String, _ value: [UInt8]) -> X509Extension {
        X509Extension("1.3.6.1.4.1.3704.1.\(suffix)", value: value)
    }
}
