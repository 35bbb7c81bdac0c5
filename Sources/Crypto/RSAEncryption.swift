// RSA encryption of short messages, such as keys [RFC 8017 7].

import COpenSSL

extension RSAPublicKey {
    /// How a message is padded.
    public enum EncryptionScheme: Sendable {
        /// RSAES-OAEP with SHA-256 and MGF1 with SHA-256.
        case oaepSHA256
        /// RSAES-PKCS1-v1_5: for who knows no better. Whoever decrypts it must not tell why it failed.
        case pkcs1
    }

    /// Encrypts a message of at most 128 bytes to the owner of this key; a longer one is a programmer error.
    ///
    /// - Returns: As many bytes as the modulus has, big-endian.
    public func encrypt(_ message: [UInt8], _ scheme: EncryptionScheme) -> [UInt8] {
        // Safe: the smallest key has 256 bytes, of which OAEP takes 66.
        precondition(message.count <= 128, "a message that fits every key")
        guard let context = unsafe EVP_PKEY_CTX_new(key, nil) else {
            preconditionFailure("libcrypto has no memory for a key context")
        }
        // SAFETY: the context is owned here and freed on every path; the message is read during the call, and the output
        // has the modulus's length, which is what is written.
        defer { unsafe EVP_PKEY_CTX_free(context) }
        var result = [UInt8](repeating: 0, count: littleEndianModulus.count)
        var length = result.count
        let padding = scheme == .oaepSHA256 ? RSA_PKCS1_OAEP_PADDING : RSA_PKCS1_PADDING
        var done =
            unsafe EVP_PKEY_encrypt_init(context) == 1 && EVP_PKEY_CTX_set_rsa_padding(context, padding) == 1
        if scheme == .oaepSHA256 {
            done =
                unsafe done && EVP_PKEY_CTX_set_rsa_oaep_md(context, EVP_sha256()) == 1
                && EVP_PKEY_CTX_set_rsa_mgf1_md(context, EVP_sha256()) == 1
        }
        done =
            unsafe done
            && result.withUnsafeMutableBufferPointer {
                unsafe EVP_PKEY_encrypt(context, $0.baseAddress, &length, message, message.count) == 1
            }
        precondition(done && length == result.count, "libcrypto failed to encrypt: \(libcryptoError())")
        return result
    }
}
