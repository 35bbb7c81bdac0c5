// Certificates and revocation lists before they are signed [RFC 5280 4, 5]. libcrypto reads what is written here; its own
// builder would draw a random salt for each signature, and the same key must make the same certificate again.

/// A distinguished name to be written: `C` as PrintableString, everything else as UTF8String, in the given order.
public struct X509NameDraft: Sendable {
    /// The attributes that names of this kind of certificate have.
    public enum Attribute: String, Sendable {
        case commonName = "2.5.4.3"
        case country = "2.5.4.6"
        case locality = "2.5.4.7"
        case state = "2.5.4.8"
        case organization = "2.5.4.10"
        case organizationalUnit = "2.5.4.11"
    }

    public var parts: [(attribute: Attribute, value: String)]

    public init(_ parts: [(attribute: Attribute, value: String)]) { self.parts = parts }

    /// The DER encoding.
    public var der: [UInt8] {
        DER.sequence(
            parts.map { attribute, value in
                let tag: UInt8 = attribute == .country ? 0x13 : 0x0c
                return DER.set(
                    DER.sequence(DER.identifier(attribute.rawValue), DER.element(tag, Array(value.utf8))))
            })
    }
}

extension X509Extension {
    /// An extension to be written.
    ///
    /// - Parameter value: What its OCTET STRING holds.
    public init(_ oid: String, isCritical: Bool = false, value: [UInt8]) {
        self.init(oid: oid, isCritical: isCritical, value: value)
    }

    /// Basic constraints of an authority, critical [RFC 5280 4.2.1.9].
    public static func authority(pathLength: UInt64? = nil) -> X509Extension {
        X509Extension(
            "2.5.29.19", isCritical: true,
            value: DER.sequence(DER.yes, pathLength.map { DER.integer($0) } ?? []))
    }

    /// Key usage, critical [RFC 5280 4.2.1.3]: keyCertSign, and cRLSign if asked for.
    public static func signsCertificates(andRevocationLists signsLists: Bool) -> X509Extension {
        // Bits 5 and 6, the most significant one first; trailing zeroes are left out.
        X509Extension(
            "2.5.29.15", isCritical: true,
            value: signsLists ? DER.bits([0x06], unused: 1) : DER.bits([0x04], unused: 2))
    }

    /// Subject key identifier [RFC 5280 4.2.1.2].
    public static func subjectKey(_ key: RSAPublicKey) -> X509Extension {
        X509Extension("2.5.29.14", value: DER.octets(key.keyIdentifier))
    }

    /// Authority key identifier [RFC 5280 4.2.1.1].
    public static func authorityKey(_ key: RSAPublicKey) -> X509Extension {
        X509Extension("2.5.29.35", value: DER.sequence(DER.element(0x80, key.keyIdentifier)))
    }

    /// CRL distribution points: one address [RFC 5280 4.2.1.13].
    public static func revocationLists(at address: String) -> X509Extension {
        let name = DER.element(0x86, Array(address.utf8))
        return X509Extension(
            "2.5.29.31", value: DER.sequence(DER.sequence(DER.explicit(0, DER.explicit(0, name)))))
    }

    /// CRL number [RFC 5280 5.2.3].
    static func revocationListNumber(_ number: UInt64) -> X509Extension {
        X509Extension("2.5.29.20", value: DER.integer(number))
    }

    var der: [UInt8] {
        DER.sequence(DER.identifier(oid), isCritical ? DER.yes : [], DER.octets(value))
    }
}

/// A certificate to be signed: version 3, RSASSA-PSS with SHA-384 and a salt of 48 bytes.
public struct X509CertificateDraft: Sendable {
    public var serialNumber: UInt64
    public var issuer: X509NameDraft
    public var subject: X509NameDraft
    /// Seconds since 1970-01-01 UTC, up to the end of 2049.
    public var notBefore: Int64
    /// Seconds since 1970-01-01 UTC, up to the end of 2049; valid through this second.
    public var notAfter: Int64
    /// DER.
    public var subjectPublicKeyInfo: [UInt8]
    /// In the order they are written.
    public var extensions: [X509Extension]

    public init(
        serialNumber: UInt64, issuer: X509NameDraft, subject: X509NameDraft, notBefore: Int64, notAfter: Int64,
        subjectPublicKeyInfo: [UInt8], extensions: [X509Extension]
    ) {
        self.serialNumber = serialNumber
        self.issuer = issuer
        self.subject = subject
        self.notBefore = notBefore
        self.notAfter = notAfter
        self.subjectPublicKeyInfo = subjectPublicKeyInfo
        self.extensions = extensions
    }

    /// The certificate in DER. The same draft and key give the same bytes.
    ///
    /// - Parameter writesTrailer: Write the signature scheme's trailer field out, as AMD does for its authorities; DER
    ///   asks for leaving it at its default.
    public func signed(by key: RSAPrivateKey, writesTrailer: Bool = false) -> [UInt8] {
        let algorithm = writesTrailer ? PSS384.withTrailer : PSS384.withoutTrailer
        return key.signed(
            DER.sequence(
                DER.explicit(0, DER.integer(2)), DER.integer(serialNumber), algorithm, issuer.der,
                DER.sequence(DER.utcTime(notBefore), DER.utcTime(notAfter)), subject.der, subjectPublicKeyInfo,
                DER.explicit(3, DER.sequence(extensions.map(\.der)))),
            algorithm)
    }
}

/// A revocation list to be signed: version 2.
public struct X509RevocationListDraft: Sendable {
    public var issuer: X509NameDraft
    /// Seconds since 1970-01-01 UTC, up to the end of 2049.
    public var thisUpdate: Int64
    /// Seconds since 1970-01-01 UTC, up to the end of 2049.
    public var nextUpdate: Int64
    public var revokedSerialNumbers: [UInt64]
    /// Larger in each later list.
    public var number: UInt64

    public init(
        issuer: X509NameDraft, thisUpdate: Int64, nextUpdate: Int64, revokedSerialNumbers: [UInt64] = [],
        number: UInt64 = 1
    ) {
        self.issuer = issuer
        self.thisUpdate = thisUpdate
        self.nextUpdate = nextUpdate
        self.revokedSerialNumbers = revokedSerialNumbers
        self.number = number
    }

    /// The list in DER. Everything in it was revoked at `thisUpdate`.
    public func signed(by key: RSAPrivateKey) -> [UInt8] {
        let algorithm = PSS384.withTrailer
        let entries = revokedSerialNumbers.map { DER.sequence(DER.integer($0), DER.utcTime(thisUpdate)) }
        let extensions = [X509Extension.authorityKey(key.publicKey), .revocationListNumber(number)]
        return key.signed(
            DER.sequence(
                DER.integer(1), algorithm, issuer.der, DER.utcTime(thisUpdate), DER.utcTime(nextUpdate),
                entries.isEmpty ? [] : DER.sequence(entries), DER.explicit(0, DER.sequence(extensions.map(\.der)))),
            algorithm)
    }
}

extension RSAPrivateKey {
    /// What is signed, with the algorithm and the signature behind it.
    fileprivate func signed(_ contents: [UInt8], _ algorithm: [UInt8]) -> [UInt8] {
        let signature = signPSS(contents, hash: .sha384, saltByteCount: PSS384.saltByteCount)
        return DER.sequence(contents, algorithm, DER.bits(signature.reversed()))
    }
}

extension RSAPublicKey {
    /// RSAPublicKey of [RFC 8017 A.1.1].
    private var numbers: [UInt8] {
        DER.sequence(
            DER.integer(bigEndian: littleEndianModulus.reversed()),
            DER.integer(bigEndian: littleEndianExponent.reversed()))
    }

    /// SubjectPublicKeyInfo with the plain rsaEncryption, in DER.
    public var subjectPublicKeyInfo: [UInt8] {
        DER.sequence(DER.sequence(DER.identifier("1.2.840.113549.1.1.1"), DER.null), DER.bits(numbers))
    }

    /// 20 bytes that name the key: of the SHA-256 of its numbers [RFC 7093 2].
    var keyIdentifier: [UInt8] { Array(SHA2Hasher(.sha256).hash(numbers).prefix(20)) }
}

/// RSASSA-PSS-params [RFC 4055 3.1] with SHA-384 throughout and a salt of 48 bytes: AlgorithmIdentifier in its two forms.
enum PSS384 {
    static let saltByteCount = 48

    private static let sha384 = DER.sequence(DER.identifier("2.16.840.1.101.3.4.2.2"), DER.null)
    private static let maskGeneration = DER.sequence(DER.identifier("1.2.840.113549.1.1.8"), sha384)
    private static let parameters =
        DER.explicit(0, sha384) + DER.explicit(1, maskGeneration)
        + DER.explicit(2, DER.integer(UInt64(saltByteCount)))

    static let withTrailer = identifier(parameters + DER.explicit(3, DER.integer(1)))
    static let withoutTrailer = identifier(parameters)

    private static func identifier(_ parameters: [UInt8]) -> [UInt8] {
        DER.sequence(DER.identifier("1.2.840.113549.1.1.10"), DER.element(0x30, parameters))
    }
}
