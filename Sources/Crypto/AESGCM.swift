// AES-256 in Galois/counter mode [SP 800-38D]: what protects the messages between a guest and the firmware.

import COpenSSL

/// AES-256-GCM with nonces of 96 bits and tags of 128 bits.
///
/// The same nonce must never be used twice with one key: who has two such messages can forge any others.
public enum AES256GCM {
    public static let keyByteCount = 32
    public static let nonceByteCount = 12
    public static let tagByteCount = 16

    /// Encrypts `plaintext`, and authenticates it together with `authenticatedData`.
    ///
    /// - Parameters:
    ///   - plaintext: Any length below 2 GiB, none included.
    ///   - authenticatedData: Not encrypted, but its tag is wrong when a bit of it changes.
    ///   - key: 32 bytes.
    ///   - nonce: 12 bytes, never used before with this key.
    /// - Returns: As many bytes as went in, and the tag of 16 bytes.
    public static func seal(
        _ plaintext: [UInt8], authenticating authenticatedData: [UInt8] = [], key: [UInt8], nonce: [UInt8]
    ) -> (ciphertext: [UInt8], tag: [UInt8]) {
        let context = GCMContext(key: key, nonce: nonce, isSealing: true)
        context.authenticate(authenticatedData)
        let ciphertext = context.process(plaintext)
        guard context.isFinished() else { preconditionFailure("libcrypto failed to seal: \(libcryptoError())") }
        return (ciphertext, context.tag())
    }

    /// Decrypts `ciphertext`.
    ///
    /// - Parameter tag: 16 bytes; of any other length it is wrong.
    /// - Returns: nil when ciphertext, authenticated data, key, nonce and tag do not belong together. Nothing of the
    ///   plaintext gets out then.
    public static func open(
        _ ciphertext: [UInt8], tag: [UInt8], authenticating authenticatedData: [UInt8] = [], key: [UInt8],
        nonce: [UInt8]
    ) -> [UInt8]? {
        guard tag.count == tagByteCount else { return nil }
        let context = GCMContext(key: key, nonce: nonce, isSealing: false)
        context.authenticate(authenticatedData)
        var plaintext = context.process(ciphertext)
        context.expect(tag)
        guard context.isFinished() else {
            wipe(&plaintext)
            return nil
        }
        return plaintext
    }
}

/// One message under way in libcrypto.
@safe
private final class GCMContext {
    // SAFETY: made in init, freed (and its key schedule wiped) in deinit; nobody else has it.
    private let context: OpaquePointer
    private let isSealing: Bool

    init(key: [UInt8], nonce: [UInt8], isSealing: Bool) {
        precondition(key.count == AES256GCM.keyByteCount, "AES-256-GCM has a key of 32 bytes")
        precondition(nonce.count == AES256GCM.nonceByteCount, "AES-256-GCM has a nonce of 12 bytes here")
        guard let new = unsafe EVP_CIPHER_CTX_new() else {
            preconditionFailure("libcrypto has no memory for a cipher context")
        }
        unsafe context = new
        self.isSealing = isSealing
        // The nonce's length is 12 unless it is set.
        Self.check(unsafe EVP_CipherInit_ex(context, EVP_aes_256_gcm(), nil, key, nonce, isSealing ? 1 : 0))
    }

    deinit { unsafe EVP_CIPHER_CTX_free(context) }

    func authenticate(_ bytes: [UInt8]) {
        precondition(bytes.count < Int(Int32.max), "bytes for AES-GCM")
        guard !bytes.isEmpty else { return }
        var length: Int32 = 0
        // SAFETY: reads the array during the call; without an output nothing is written but the length.
        Self.check(unsafe EVP_CipherUpdate(context, nil, &length, bytes, Int32(bytes.count)))
    }

    func process(_ bytes: [UInt8]) -> [UInt8] {
        precondition(bytes.count < Int(Int32.max), "bytes for AES-GCM")
        guard !bytes.isEmpty else { return [] }
        var result = [UInt8](repeating: 0, count: bytes.count)
        var length: Int32 = 0
        // SAFETY: a counter mode writes as many bytes as it reads.
        Self.check(
            unsafe result.withUnsafeMutableBufferPointer {
                unsafe EVP_CipherUpdate(context, $0.baseAddress, &length, bytes, Int32(bytes.count))
            })
        precondition(Int(length) == bytes.count, "a counter mode gives as many bytes as it got")
        return result
    }

    /// The tag that ``isFinished()`` compares with.
    func expect(_ tag: [UInt8]) {
        var tag = tag
        // SAFETY: libcrypto copies the 16 bytes.
        Self.check(
            unsafe tag.withUnsafeMutableBytes {
                unsafe EVP_CIPHER_CTX_ctrl(
                    context, EVP_CTRL_AEAD_SET_TAG, Int32(AES256GCM.tagByteCount), $0.baseAddress)
            })
    }

    /// Opening: whether the tag is right.
    func isFinished() -> Bool {
        var rest = [UInt8](repeating: 0, count: 16)
        var length: Int32 = 0
        // SAFETY: a counter mode has nothing left to write; at most a block would fit.
        return unsafe EVP_CipherFinal_ex(context, &rest, &length) == 1
    }

    func tag() -> [UInt8] {
        var tag = [UInt8](repeating: 0, count: AES256GCM.tagByteCount)
        // SAFETY: libcrypto writes the 16 bytes it is asked for.
        Self.check(
            unsafe tag.withUnsafeMutableBytes {
                unsafe EVP_CIPHER_CTX_ctrl(context, EVP_CTRL_AEAD_GET_TAG, Int32($0.count), $0.baseAddress)
            })
        return tag
    }

    private static func check(_ result: Int32) {
        precondition(result == 1, "libcrypto failed in AES-GCM: \(libcryptoError())")
    }
}
