// X.509 certificates [RFC 5280] as far as AMD's chains use them. What a field means for SNP is for others to say.

import COpenSSL

/// A distinguished name.
public struct X509Name: Hashable, Sendable, CustomStringConvertible {
    /// The DER encoding, by which names are compared.
    public let der: [UInt8]
    /// CN; nil when there is none or more than one.
    public let commonName: String?
    /// O; nil when there is none or more than one.
    public let organization: String?
    /// `CN=…, O=…` in the certificate's order. Bytes that are not printable ASCII are shown as `?`.
    public let description: String

    public static func == (a: Self, b: Self) -> Bool { a.der == b.der }
    public func hash(into hasher: inout Hasher) { hasher.combine(der) }

    /// Borrows the name during the call.
    @unsafe init?(_ name: OpaquePointer?) {
        guard let name = unsafe name, let der = unsafe encoded({ unsafe i2d_X509_NAME(name, $0) }) else { return nil }
        var parts: [(key: String, value: String)] = []
        let count = unsafe max(0, X509_NAME_entry_count(name))
        for index in 0..<count {
            guard let entry = unsafe X509_NAME_get_entry(name, index),
                let value = unsafe X509_NAME_ENTRY_get_data(entry)
            else { return nil }
            let oid = unsafe objectText(X509_NAME_ENTRY_get_object(entry))
            let text = String(
                decoding: unsafe contents(value).map { (0x20..<0x7f).contains($0) ? $0 : 0x3f }, as: UTF8.self)
            parts.append((Self.shortNames[oid] ?? oid, text))
        }
        self.der = der
        func only(_ key: String) -> String? {
            let values = parts.filter { $0.key == key }
            return values.count == 1 ? values[0].value : nil
        }
        commonName = only("CN")
        organization = only("O")
        description = parts.map { "\($0.key)=\($0.value)" }.joined(separator: ", ")
    }

    private static let shortNames = [
        "2.5.4.3": "CN", "2.5.4.6": "C", "2.5.4.7": "L", "2.5.4.8": "ST", "2.5.4.10": "O", "2.5.4.11": "OU",
    ]
}

/// An extension, its value not interpreted.
public struct X509Extension: Equatable, Sendable {
    /// In dotted numbers.
    public let oid: String
    public let isCritical: Bool
    /// What the extension's OCTET STRING holds.
    public let value: [UInt8]
}

/// A certificate that libcrypto could parse. Nothing is verified by that.
@safe
public final class X509Certificate: @unchecked Sendable {
    // SAFETY: libcrypto caches what it computes of the extensions on first use, which init makes happen; afterwards the
    // certificate is only read, so threads share it without a lock.
    fileprivate let certificate: OpaquePointer
    /// The bytes it was read from.
    public let der: [UInt8]
    public let subject: X509Name
    public let issuer: X509Name
    /// Hexadecimal digits without leading zeroes, "-" before a negative number.
    public let serialNumber: String
    /// Seconds since 1970-01-01 UTC.
    public let notBefore: Int64
    /// Seconds since 1970-01-01 UTC; the certificate is valid through this second.
    public let notAfter: Int64
    public let extensions: [X509Extension]
    /// SubjectPublicKeyInfo in DER: what a key's fingerprint is made of.
    public let subjectPublicKeyInfo: [UInt8]
    /// The key, if it is one on P-384.
    public let p384Key: P384PublicKey?
    /// Modulus length of an RSA key in bits.
    public let rsaBitCount: Int?
    /// The signature's AlgorithmIdentifier is RSASSA-PSS with SHA-384, MGF1 with SHA-384 and a salt of 48 bytes.
    public let isSignedWithPSS384: Bool
    /// Basic constraints say that the key may sign certificates.
    public let isAuthority: Bool
    /// Basic constraints' path length, if there is one.
    public let pathLength: Int?
    /// Key usage bits as libcrypto numbers them; nil when there is no such extension.
    public let keyUsage: UInt32?
    /// Version 3, extensions that can be read, and no critical one that libcrypto does not know.
    public let isWellFormed: Bool

    /// No certificate of this kind is larger.
    public static let maximumByteCount = 1 << 16
    /// Key usage: keyCertSign.
    public static let certificateSigning: UInt32 = 0x0004
    /// Key usage: cRLSign.
    public static let revocationListSigning: UInt32 = 0x0002

    /// Returns nil for anything but one whole certificate.
    public init?(der: [UInt8]) {
        defer { ERR_clear_error() }
        guard der.count <= Self.maximumByteCount else { return nil }
        // SAFETY: the bytes are read during the call; the position stays inside them and tells how many were used.
        let parsed: OpaquePointer? = unsafe der.withUnsafeBufferPointer { buffer in
            var position = buffer.baseAddress
            guard let parsed = unsafe d2i_X509(nil, &position, buffer.count) else { return nil }
            guard unsafe position == buffer.baseAddress?.advanced(by: buffer.count) else {
                unsafe X509_free(parsed)
                return nil
            }
            return unsafe parsed
        }
        guard let parsed = unsafe parsed else { return nil }
        guard let facts = unsafe Facts(parsed) else {
            unsafe X509_free(parsed)
            return nil
        }
        unsafe certificate = parsed
        self.der = der
        subject = facts.subject
        issuer = facts.issuer
        serialNumber = facts.serialNumber
        notBefore = facts.notBefore
        notAfter = facts.notAfter
        extensions = facts.extensions
        subjectPublicKeyInfo = facts.subjectPublicKeyInfo
        p384Key = P384PublicKey(subjectPublicKeyInfo: facts.subjectPublicKeyInfo)
        rsaBitCount = facts.rsaBitCount
        isSignedWithPSS384 = unsafe signatureAlgorithmIsPSS384 {
            unsafe X509_get0_signature(nil, $0, parsed)
        }
        // From here on nothing in the certificate changes: this call fills libcrypto's cache.
        let flags = unsafe X509_get_extension_flags(parsed)
        isWellFormed =
            unsafe X509_get_version(parsed) == 2 && flags & UInt32(EXFLAG_INVALID | EXFLAG_CRITICAL) == 0
        isAuthority = flags & UInt32(EXFLAG_BCONS) != 0 && flags & UInt32(EXFLAG_CA) != 0
        let length = unsafe X509_get_pathlen(parsed)
        pathLength = length >= 0 ? Int(length) : nil
        keyUsage = flags & UInt32(EXFLAG_KUSAGE) != 0 ? unsafe X509_get_key_usage(parsed) : nil
    }

    deinit { unsafe X509_free(certificate) }

    /// True when the certificate's signature is one by the issuer's RSA key, in the only scheme of AMD's chains.
    public func isSigned(by issuer: X509Certificate) -> Bool {
        defer { ERR_clear_error() }
        guard isSignedWithPSS384, issuer.rsaBitCount != nil else { return false }
        // SAFETY: both certificates are alive during the call; the key is the issuer's and is not kept.
        return unsafe X509_verify(certificate, X509_get0_pubkey(issuer.certificate)) == 1
    }

    /// The extension's value; nil when there is none or more than one.
    public func extensionValue(_ oid: String) -> [UInt8]? {
        let found = extensions.filter { $0.oid == oid }
        return found.count == 1 ? found[0].value : nil
    }

    /// The same bytes as SHA-256 over SubjectPublicKeyInfo.
    public var keyFingerprint: [UInt8] {
        let digest = SHA256.hash(subjectPublicKeyInfo)
        return digest.indices.map { digest[$0] }
    }

    /// What is read once.
    private struct Facts {
        let subject: X509Name
        let issuer: X509Name
        let serialNumber: String
        let notBefore: Int64
        let notAfter: Int64
        var extensions: [X509Extension] = []
        let subjectPublicKeyInfo: [UInt8]
        let rsaBitCount: Int?

        @unsafe init?(_ certificate: OpaquePointer) {
            guard let subject = unsafe X509Name(X509_get_subject_name(certificate)),
                let issuer = unsafe X509Name(X509_get_issuer_name(certificate)),
                let serial = unsafe X509_get0_serialNumber(certificate),
                let before = unsafe secondsSinceEpoch(X509_get0_notBefore(certificate)),
                let after = unsafe secondsSinceEpoch(X509_get0_notAfter(certificate)),
                let key = unsafe X509_get_X509_PUBKEY(certificate),
                let information = unsafe encoded({ unsafe i2d_X509_PUBKEY(key, $0) })
            else { return nil }
            self.subject = subject
            self.issuer = issuer
            unsafe serialNumber = serialText(serial)
            notBefore = before
            notAfter = after
            subjectPublicKeyInfo = information
            // A key of an algorithm that libcrypto does not know is no error here.
            if let value = unsafe X509_get0_pubkey(certificate), unsafe EVP_PKEY_get_base_id(value) == EVP_PKEY_RSA {
                rsaBitCount = unsafe Int(EVP_PKEY_get_bits(value))
            } else {
                rsaBitCount = nil
            }
            let count = unsafe max(0, X509_get_ext_count(certificate))
            for index in 0..<count {
                guard let item = unsafe X509_get_ext(certificate, index),
                    let value = unsafe X509_EXTENSION_get_data(item)
                else { return nil }
                extensions.append(
                    X509Extension(
                        oid: unsafe objectText(X509_EXTENSION_get_object(item)),
                        isCritical: unsafe X509_EXTENSION_get_critical(item) == 1, value: unsafe contents(value)))
            }
        }
    }

    /// For lists of revoked certificates, which this key signs.
    @unsafe func withKey(_ body: (OpaquePointer) -> Bool) -> Bool {
        guard rsaBitCount != nil, let key = unsafe X509_get0_pubkey(certificate) else { return false }
        return unsafe body(key)
    }
}

// MARK: Shared with the revocation lists

/// What one of libcrypto's i2d functions writes.
@unsafe func encoded(_ encode: (UnsafeMutablePointer<UnsafeMutablePointer<UInt8>?>) -> Int32) -> [UInt8]? {
    var buffer: UnsafeMutablePointer<UInt8>?
    let count = unsafe encode(&buffer)
    // SAFETY: libcrypto allocated `count` bytes, copied here and freed on every path.
    defer { unsafe CRYPTO_free(buffer, nil, 0) }
    guard count > 0, let base = unsafe buffer else { return nil }
    return unsafe Array(UnsafeBufferPointer(start: base, count: Int(count)))
}

/// A copy of an ASN.1 string's contents.
@unsafe func contents(_ string: UnsafePointer<ASN1_STRING>) -> [UInt8] {
    let count = unsafe ASN1_STRING_length(string)
    guard count > 0, let base = unsafe ASN1_STRING_get0_data(string) else { return [] }
    return unsafe Array(UnsafeBufferPointer(start: base, count: Int(count)))
}

/// An object identifier in dotted numbers, cut after 127 characters.
@unsafe func objectText(_ object: OpaquePointer?) -> String {
    guard let object = unsafe object else { return "" }
    var text = [CChar](repeating: 0, count: 128)
    // SAFETY: at most text.count bytes are written, a final NUL included.
    let count = unsafe text.withUnsafeMutableBufferPointer {
        unsafe OBJ_obj2txt($0.baseAddress, Int32($0.count), object, 1)
    }
    guard count > 0 else { return "" }
    return String(decoding: text.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
}

@unsafe func serialText(_ serial: UnsafePointer<ASN1_INTEGER>) -> String {
    let digits = Array("0123456789abcdef".utf8)
    let all = unsafe contents(serial).flatMap { [digits[Int($0 >> 4)], digits[Int($0 & 15)]] }
    let text = String(decoding: all.drop { $0 == 0x30 }, as: UTF8.self)
    let isNegative = unsafe serial.pointee.type == V_ASN1_NEG_INTEGER
    return text.isEmpty ? "0" : (isNegative ? "-" : "") + text
}

/// Nil for a time that is none.
@unsafe func secondsSinceEpoch(_ time: UnsafePointer<ASN1_TIME>?) -> Int64? {
    guard let time = unsafe time, let epoch = unsafe ASN1_TIME_set(nil, 0) else { return nil }
    defer { unsafe ASN1_STRING_free(epoch) }
    var days: Int32 = 0
    var seconds: Int32 = 0
    guard unsafe ASN1_TIME_diff(&days, &seconds, epoch, time) == 1 else { return nil }
    return Int64(days) * 86400 + Int64(seconds)
}

/// True for the AlgorithmIdentifier of RSASSA-PSS with SHA-384 throughout and a salt of 48 bytes, its trailer field
/// written out, as AMD did until 2023, or left at its default, as DER asks for.
@unsafe func signatureAlgorithmIsPSS384(_ get: (UnsafeMutablePointer<UnsafePointer<X509_ALGOR>?>) -> Void) -> Bool {
    var algorithm: UnsafePointer<X509_ALGOR>?
    unsafe get(&algorithm)
    guard let algorithm = unsafe algorithm, let der = unsafe encoded({ unsafe i2d_X509_ALGOR(algorithm, $0) })
    else { return false }
    return der == PSS384.withTrailer || der == PSS384.withoutTrailer
}
