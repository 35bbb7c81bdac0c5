// RSA-PSS [RFC 8017 8.1] as AMD's root and signing keys use it: little-endian numbers, MGF1 with the same hash.

import COpenSSL

/// An RSA public key of 2048 to 4096 bits.
@safe
public final class RSAPublicKey: @unchecked Sendable {
    // SAFETY: libcrypto does not change a key when it verifies with it, so threads share it without a lock.
    let key: OpaquePointer
    /// As many bytes as the modulus has, at most 512.
    public let littleEndianModulus: [UInt8]
    /// Without zeroes at the end.
    public let littleEndianExponent: [UInt8]

    /// Returns nil for what cannot be an RSA key here: fewer than 2048 or more than 4096 bits, an even modulus, or an
    /// exponent that is even, 1, or more than 64 bits long.
    ///
    /// - Parameters littleEndianModulus, exponent: Any length up to 4096 bytes; zeroes at the end are fine.
    public init?(littleEndianModulus modulus: [UInt8], exponent: [UInt8]) {
        guard modulus.count <= 4096, exponent.count <= 4096 else { return nil }
        let n = BigNumber(littleEndian: modulus)
        let e = BigNumber(littleEndian: exponent)
        guard (2048...4096).contains(n.bitCount), n.bitCount % 8 == 0, n.isOdd else { return nil }
        guard (2...64).contains(e.bitCount), e.isOdd else { return nil }
        guard let key = unsafe rsaKey([("n", n), ("e", e)], COpenSSL_publicKey) else { return nil }
        unsafe self.key = key
        littleEndianModulus = n.littleEndian(n.bitCount / 8)
        littleEndianExponent = e.littleEndian((e.bitCount + 7) / 8)
    }

    deinit { unsafe EVP_PKEY_free(key) }

    /// True when `signature` signs `message` under this key. Anything malformed is simply not a signature.
    /// - Parameter signature: As long as the modulus, little-endian.
    public func isValidPSSSignature(
        littleEndian signature: [UInt8], of message: [UInt8], hash: HashAlgorithm, saltByteCount: Int
    ) -> Bool {
        guard signature.count == littleEndianModulus.count, (0...512).contains(saltByteCount) else { return false }
        defer { ERR_clear_error() }
        guard let context = unsafe EVP_MD_CTX_new() else { return false }
        // SAFETY: the digest context owns the key context and is freed on every path; all bytes are read during the calls.
        defer { unsafe EVP_MD_CTX_free(context) }
        var keyContext: OpaquePointer?
        guard unsafe EVP_DigestVerifyInit_ex(context, &keyContext, hash.name, nil, nil, key, nil) == 1,
            unsafe EVP_PKEY_CTX_set_rsa_padding(keyContext, RSA_PKCS1_PSS_PADDING) == 1,
            unsafe EVP_PKEY_CTX_set_rsa_pss_saltlen(keyContext, Int32(saltByteCount)) == 1
        else { return false }
        let value = [UInt8](signature.reversed())
        return unsafe EVP_DigestVerify(context, value, value.count, message, message.count) == 1
    }
}

/// An RSA key from its numbers by libcrypto's names; nil when libcrypto does not take them.
///
/// The caller owns the result.
@unsafe func rsaKey(_ parts: [(name: String, value: BigNumber)], _ selection: Int32) -> OpaquePointer? {
    defer { ERR_clear_error() }
    guard let builder = unsafe OSSL_PARAM_BLD_new(), let context = unsafe EVP_PKEY_CTX_new_from_name(nil, "RSA", nil)
    else { preconditionFailure("libcrypto has no RSA: \(libcryptoError())") }
    // SAFETY: builder, context and parameters are freed on every path; the builder only refers to the numbers, which
    // and names, which live until the end of this function.
    defer {
        unsafe OSSL_PARAM_BLD_free(builder)
        unsafe EVP_PKEY_CTX_free(context)
    }
    let names = parts.map { $0.name.utf8CString }
    defer { withExtendedLifetime((parts, names)) {} }
    for (part, name) in zip(parts, names) {
        let added = unsafe name.withUnsafeBufferPointer {
            unsafe OSSL_PARAM_BLD_push_BN(builder, $0.baseAddress, part.value.pointer)
        }
        guard added == 1 else { return nil }
    }
    guard let parameters = unsafe OSSL_PARAM_BLD_to_param(builder) else { return nil }
    defer { unsafe OSSL_PARAM_free(parameters) }
    var key: OpaquePointer?
    guard unsafe EVP_PKEY_fromdata_init(context) == 1,
        unsafe EVP_PKEY_fromdata(context, &key, selection, parameters) == 1
    else { return nil }
    return unsafe key
}
