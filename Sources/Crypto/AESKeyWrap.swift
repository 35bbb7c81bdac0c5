// AES key wrap [RFC 3394]: a key encrypted with another, without a nonce.

import COpenSSL

/// AES-256 key wrap [RFC 3394], with the default initial value.
public enum AES256KeyWrap {
    /// Wraps a key.
    ///
    /// - Parameters:
    ///   - key: A multiple of 8 bytes, 16 at least; anything else is a programmer error.
    ///   - wrapping: 32 bytes.
    /// - Returns: 8 bytes more than went in.
    public static func wrap(_ key: [UInt8], with wrapping: [UInt8]) -> [UInt8] {
        precondition(key.count >= 16 && key.count % 8 == 0 && key.count <= 1 << 16, "a key of whole 8-byte blocks")
        precondition(wrapping.count == 32, "AES-256 has a key of 32 bytes")
        guard let context = unsafe EVP_CIPHER_CTX_new() else {
            preconditionFailure("libcrypto has no memory for a cipher context")
        }
        // SAFETY: the context is owned here and freed (its key schedule wiped) on every path.
        defer { unsafe EVP_CIPHER_CTX_free(context) }
        unsafe EVP_CIPHER_CTX_set_flags(context, EVP_CIPHER_CTX_FLAG_WRAP_ALLOW)
        var result = [UInt8](repeating: 0, count: key.count + 8)
        var length: Int32 = 0
        // SAFETY: the output has the 8 bytes more that the mode writes; key and wrapping are read during the calls.
        let done = unsafe result.withUnsafeMutableBufferPointer { output in
            unsafe EVP_EncryptInit_ex(context, EVP_aes_256_wrap(), nil, wrapping, nil) == 1
                && EVP_EncryptUpdate(context, output.baseAddress, &length, key, Int32(key.count)) == 1
        }
        precondition(done && Int(length) == result.count, "libcrypto failed to wrap a key: \(libcryptoError())")
        return result
    }
}
