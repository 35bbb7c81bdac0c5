// AES-XTS as the memory controller uses it: one data unit per 4 KiB page, the tweak is the page's physical address.
//
// The key is expanded once; per page only the tweak is set. Encrypting whole pages is what makes this fast.

import COpenSSL

/// One memory encryption key. For one owner at a time: the two contexts have no lock of their own.
@safe
public final class AESXTS {
    /// Sizes of a key pair: data key and tweak key, together.
    public enum KeySize: Int, Sendable {
        /// AES-128-XTS, 32 bytes.
        case aes128 = 32
        /// AES-256-XTS, 64 bytes.
        case aes256 = 64
    }

    private let encryption: OpaquePointer
    private let decryption: OpaquePointer

    /// - Parameter key: 32 bytes for AES-128-XTS or 64 for AES-256-XTS, data key first; the halves differ.
    public init(key: [UInt8]) {
        guard let size = KeySize(rawValue: key.count) else {
            preconditionFailure("an AES-XTS key pair has 32 or 64 bytes, not \(key.count)")
        }
        precondition(key.prefix(key.count / 2) != key.suffix(key.count / 2), "the halves of an AES-XTS key differ")
        // SAFETY: the contexts are owned by self and freed in deinit; the cipher is libcrypto's constant; the key is
        // read during the calls only.
        guard let encryption = unsafe EVP_CIPHER_CTX_new(), let decryption = unsafe EVP_CIPHER_CTX_new() else {
            preconditionFailure("libcrypto has no memory for a cipher context")
        }
        let cipher = unsafe size == .aes128 ? EVP_aes_128_xts() : EVP_aes_256_xts()
        let isReady =
            unsafe EVP_EncryptInit_ex(encryption, cipher, nil, key, nil) == 1
            && EVP_DecryptInit_ex(decryption, cipher, nil, key, nil) == 1
        precondition(isReady, "libcrypto refuses AES-XTS: \(libcryptoError())")
        unsafe self.encryption = encryption
        unsafe self.decryption = decryption
    }

    deinit {
        unsafe EVP_CIPHER_CTX_free(encryption)
        unsafe EVP_CIPHER_CTX_free(decryption)
    }

    /// Encrypts one data unit from `source` to `destination` (which may be the same memory).
    /// - Parameter tweak: The data unit's number, little-endian in the 16-byte tweak.
    public func encrypt(_ source: UnsafeRawBufferPointer, to destination: UnsafeMutableRawPointer, tweak: UInt64) {
        let iv = Self.tweakBytes(tweak)
        var length: Int32 = 0
        // SAFETY: the caller gives `source.count` readable and as many writable bytes; the context is self's own.
        let done =
            unsafe EVP_EncryptInit_ex(encryption, nil, nil, nil, iv) == 1
            && EVP_EncryptUpdate(
                encryption, destination.assumingMemoryBound(to: UInt8.self), &length,
                source.baseAddress?.assumingMemoryBound(to: UInt8.self), Int32(source.count)) == 1
        precondition(done && Int(length) == source.count, "libcrypto failed to encrypt: \(libcryptoError())")
    }

    /// Decrypts one data unit from `source` to `destination` (which may be the same memory).
    public func decrypt(_ source: UnsafeRawBufferPointer, to destination: UnsafeMutableRawPointer, tweak: UInt64) {
        let iv = Self.tweakBytes(tweak)
        var length: Int32 = 0
        // SAFETY: as in encrypt.
        let done =
            unsafe EVP_DecryptInit_ex(decryption, nil, nil, nil, iv) == 1
            && EVP_DecryptUpdate(
                decryption, destination.assumingMemoryBound(to: UInt8.self), &length,
                source.baseAddress?.assumingMemoryBound(to: UInt8.self), Int32(source.count)) == 1
        precondition(done && Int(length) == source.count, "libcrypto failed to decrypt: \(libcryptoError())")
    }

    /// Encrypts one data unit of at least 16 bytes.
    public func encrypt(_ bytes: [UInt8], tweak: UInt64) -> [UInt8] {
        precondition(bytes.count >= 16, "an XTS data unit has at least 16 bytes")
        var result = [UInt8](repeating: 0, count: bytes.count)
        unsafe bytes.withUnsafeBytes { source in
            unsafe result.withUnsafeMutableBytes { unsafe encrypt(source, to: $0.baseAddress!, tweak: tweak) }
        }
        return result
    }

    /// Decrypts one data unit of at least 16 bytes.
    public func decrypt(_ bytes: [UInt8], tweak: UInt64) -> [UInt8] {
        precondition(bytes.count >= 16, "an XTS data unit has at least 16 bytes")
        var result = [UInt8](repeating: 0, count: bytes.count)
        unsafe bytes.withUnsafeBytes { source in
            unsafe result.withUnsafeMutableBytes { unsafe decrypt(source, to: $0.baseAddress!, tweak: tweak) }
        }
        return result
    }

    private static func tweakBytes(_ tweak: UInt64) -> [UInt8] {
        (0..<16).map { $0 < 8 ? UInt8(truncatingIfNeeded: tweak &>> UInt64(8 &* $0)) : 0 }
    }
}
