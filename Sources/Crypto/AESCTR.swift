// AES-128 in counter mode [SP 800-38A 6.5]: the transport encryption of sessions and secrets.

import COpenSSL

/// AES-128-CTR. Encryption and decryption are the same.
public enum AES128CTR {
    /// Exclusive-ors `bytes` with the key stream.
    ///
    /// - Parameters:
    ///   - key: 16 bytes.
    ///   - counter: The first counter block, 16 bytes; it counts up big-endian over its whole width.
    ///   - bytes: Any length below 2 GiB.
    public static func apply(key: [UInt8], counter: [UInt8], to bytes: [UInt8]) -> [UInt8] {
        precondition(key.count == 16 && counter.count == 16, "AES-128-CTR has a key and a counter of 16 bytes")
        precondition(bytes.count < Int(Int32.max), "bytes for AES-128-CTR")
        guard !bytes.isEmpty else { return [] }
        guard let context = unsafe EVP_CIPHER_CTX_new() else {
            preconditionFailure("libcrypto has no memory for a cipher context")
        }
        // SAFETY: the context is freed (and its key schedule wiped) on every path; a stream cipher writes as many bytes as
        // it reads.
        defer { unsafe EVP_CIPHER_CTX_free(context) }
        var result = [UInt8](repeating: 0, count: bytes.count)
        var length: Int32 = 0
        let done = unsafe result.withUnsafeMutableBufferPointer { output in
            unsafe EVP_EncryptInit_ex(context, EVP_aes_128_ctr(), nil, key, counter) == 1
                && EVP_EncryptUpdate(context, output.baseAddress, &length, bytes, Int32(bytes.count)) == 1
        }
        precondition(done && Int(length) == bytes.count, "libcrypto failed to encrypt: \(libcryptoError())")
        return result
    }
}
