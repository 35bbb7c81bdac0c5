// Lists of revoked certificates [RFC 5280 5].

import COpenSSL

/// A CRL that libcrypto could parse. Nothing is verified by that.
@safe
public final class X509RevocationList: @unchecked Sendable {
    // SAFETY: the list is only read after init, so threads share it without a lock.
    private let list: OpaquePointer
    /// The bytes that it was read from.
    public let der: [UInt8]
    public let issuer: X509Name
    /// Seconds since 1970-01-01 UTC.
    public let thisUpdate: Int64
    /// Seconds since 1970-01-01 UTC; nil when the list does not say.
    public let nextUpdate: Int64?
    /// In the form of ``X509Certificate/serialNumber``.
    public let revokedSerialNumbers: Set<String>
    /// There is a critical extension: the list means something else than its serial numbers say.
    public let hasCriticalExtension: Bool

    /// No list of AMD's is larger.
    public static let maximumByteCount = 1 << 22

    /// Returns nil for anything but one whole list.
    public init?(der: [UInt8]) {
        defer { ERR_clear_error() }
        guard der.count <= Self.maximumByteCount else { return nil }
        // SAFETY: the bytes are read during the call; the position stays inside them and tells how many were used.
        let parsed: OpaquePointer? = unsafe der.withUnsafeBufferPointer { buffer in
            var position = buffer.baseAddress
            guard let parsed = unsafe d2i_X509_CRL(nil, &position, buffer.count) else { return nil }
            guard unsafe position == buffer.baseAddress?.advanced(by: buffer.count) else {
                unsafe X509_CRL_free(parsed)
                return nil
            }
            return unsafe parsed
        }
        guard let parsed = unsafe parsed else { return nil }
        guard let issuer = unsafe X509Name(X509_CRL_get_issuer(parsed)),
            let thisUpdate = unsafe secondsSinceEpoch(X509_CRL_get0_lastUpdate(parsed))
        else {
            unsafe X509_CRL_free(parsed)
            return nil
        }
        unsafe list = parsed
        self.der = der
        self.issuer = issuer
        self.thisUpdate = thisUpdate
        unsafe nextUpdate = secondsSinceEpoch(X509_CRL_get0_nextUpdate(parsed))
        var serials: Set<String> = []
        let revoked = unsafe X509_CRL_get_REVOKED(parsed)
        let count = unsafe max(0, OPENSSL_sk_num(revoked))
        for index in 0..<count {
            guard let entry = unsafe OPENSSL_sk_value(revoked, index),
                let serial = unsafe X509_REVOKED_get0_serialNumber(OpaquePointer(entry))
            else { continue }
            unsafe serials.insert(serialText(serial))
        }
        revokedSerialNumbers = serials
        hasCriticalExtension = unsafe (0..<max(0, X509_CRL_get_ext_count(parsed))).contains {
            unsafe X509_EXTENSION_get_critical(X509_CRL_get_ext(parsed, $0)) == 1
        }
    }

    deinit { unsafe X509_CRL_free(list) }

    /// True when the list's signature is one by the issuer's RSA key, in the only scheme of AMD's chains.
    public func isSigned(by issuer: X509Certificate) -> Bool {
        defer { ERR_clear_error() }
        let list = unsafe self.list
        guard unsafe signatureAlgorithmIsPSS384({ unsafe X509_CRL_get0_signature(list, nil, $0) }) else { return false }
        // SAFETY: list and key are alive during the call.
        defer { withExtendedLifetime(self) {} }
        return unsafe issuer.withKey { unsafe X509_CRL_verify(list, $0) == 1 }
    }
}
