// RSA keys made from a seed, for the root and the signing key of a software platform.

import COpenSSL

/// An RSA private key with the public exponent 65537. Its numbers are wiped in memory when the key is no longer held.
@safe
public final class RSAPrivateKey: @unchecked Sendable {
    // SAFETY: libcrypto locks what it caches in a key while signing, so threads share it without a lock of ours.
    private let key: OpaquePointer
    private let saltSecret: SecretBytes
    public let publicKey: RSAPublicKey

    /// The same key for the same bits, seed and label: the primes are the first ones in the output of ``CounterKDF``.
    ///
    /// This takes a second or so for 4096 bits.
    ///
    /// - Parameter bits: Of the modulus: 2048, 3072 or 4096.
    public init(bits: Int, derivedFrom seed: [UInt8], label: String) {
        precondition([2048, 3072, 4096].contains(bits), "an RSA key of 2048, 3072 or 4096 bits")
        let arithmetic = BigArithmetic()
        let e = BigNumber(65537)
        let p = Self.prime(bits / 2, seed, label + " p", e, arithmetic)
        let q = Self.prime(bits / 2, seed, label + " q", e, arithmetic)
        precondition(p.isLess(than: q) || q.isLess(than: p), "two derived primes are equal")
        let n = arithmetic.product(p, q)
        let p1 = arithmetic.difference(p, 1)
        let q1 = arithmetic.difference(q, 1)
        let d = arithmetic.inverse(e, modulo: arithmetic.product(p1, q1))
        let parts = [
            ("n", n), ("e", e), ("d", d), ("rsa-factor1", p), ("rsa-factor2", q),
            ("rsa-exponent1", arithmetic.remainder(d, p1)), ("rsa-exponent2", arithmetic.remainder(d, q1)),
            ("rsa-coefficient1", arithmetic.inverse(q, modulo: p)),
        ]
        guard let key = unsafe rsaKey(parts, COpenSSL_keyPair),
            let publicKey = RSAPublicKey(littleEndianModulus: n.littleEndian(bits / 8), exponent: [1, 0, 1])
        else { preconditionFailure("libcrypto refuses a derived RSA key: \(libcryptoError())") }
        unsafe self.key = key
        self.publicKey = publicKey
        var salts = CounterKDF.derive(key: seed, label: label + " salt", byteCount: 32)
        saltSecret = SecretBytes(taking: &salts)
    }

    deinit { unsafe EVP_PKEY_free(key) }

    /// RSASSA-PSS. The same message always gives the same signature: the salt is derived from the message.
    ///
    /// - Returns: As many bytes as the modulus has, little-endian.
    public func signPSS(_ message: [UInt8], hash: HashAlgorithm, saltByteCount: Int) -> [UInt8] {
        let modulusByteCount = publicKey.littleEndianModulus.count
        precondition(
            saltByteCount >= 0 && saltByteCount <= modulusByteCount - hash.byteCount - 2, "a salt that fits")
        let digest = SHA2Hasher(hash).hash(message)
        let salt = saltSecret.withBytes {
            CounterKDF.derive(key: $0, label: "pss-salt", context: digest, byteCount: saltByteCount)
        }
        return rawPower(Self.encode(digest, salt, hash, modulusByteCount)).reversed()
    }

    /// EMSA-PSS-ENCODE [RFC 8017 9.1.1] for a modulus of a whole number of bytes, whose top bit stays clear.
    private static func encode(_ digest: [UInt8], _ salt: [UInt8], _ hash: HashAlgorithm, _ byteCount: Int) -> [UInt8] {
        let hasher = SHA2Hasher(hash)
        let h = hasher.hash([UInt8](repeating: 0, count: 8) + digest + salt)
        let padding = [UInt8](repeating: 0, count: byteCount - salt.count - hash.byteCount - 2)
        var block = padding + [1] + salt
        // MGF1 [RFC 8017 B.2.1].
        var mask: [UInt8] = []
        var counter: UInt8 = 0
        while mask.count < block.count {
            mask += hasher.hash(h + [0, 0, 0, counter])
            counter += 1  // Safe: at most 512 / 32 blocks.
        }
        for index in block.indices { block[index] ^= mask[index] }
        block[0] &= 0x7f
        return block + h + [0xbc]
    }

    /// message^d mod n, both big-endian.
    private func rawPower(_ message: [UInt8]) -> [UInt8] {
        guard let context = unsafe EVP_PKEY_CTX_new_from_pkey(nil, key, nil) else {
            preconditionFailure("libcrypto has no memory for a key context")
        }
        // SAFETY: the context is freed on every path; the result has the modulus's length, which is what is written.
        defer { unsafe EVP_PKEY_CTX_free(context) }
        var result = [UInt8](repeating: 0, count: message.count)
        var length = result.count
        let done = unsafe result.withUnsafeMutableBufferPointer { output in
            unsafe EVP_PKEY_sign_init(context) == 1 && EVP_PKEY_CTX_set_rsa_padding(context, RSA_NO_PADDING) == 1
                && EVP_PKEY_sign(context, output.baseAddress, &length, message, message.count) == 1
        }
        precondition(done && length == message.count, "libcrypto failed to sign: \(libcryptoError())")
        return result
    }

    /// The first prime p of the candidates with both top bits set, p - 1 not a multiple of e.
    private static func prime(
        _ bits: Int, _ seed: [UInt8], _ label: String, _ e: BigNumber, _ arithmetic: BigArithmetic
    ) -> BigNumber {
        var counter: UInt32 = 0
        while true {
            let context = (0..<4).map { UInt8(truncatingIfNeeded: counter &>> UInt32(8 &* $0)) }
            counter &+= 1
            var bytes = CounterKDF.derive(key: seed, label: label, context: context, byteCount: bits / 8)
            defer { wipe(&bytes) }
            // The product of two such primes has all of its bits; primes are odd.
            bytes[0] |= 0xc0
            bytes[bytes.count - 1] |= 1
            let candidate = BigNumber(bigEndian: bytes)
            guard !arithmetic.remainder(arithmetic.difference(candidate, 1), e).isZero else { continue }
            if arithmetic.isPrime(candidate) { return candidate }
        }
    }
}
