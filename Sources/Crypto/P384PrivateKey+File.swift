// Private keys from files, as `openssl genpkey` and `openssl ecparam` write them.

import COpenSSL

extension P384PrivateKey {
    /// From DER: a PKCS #8 PrivateKeyInfo or an ECPrivateKey [RFC 5915], not encrypted. Returns nil for anything else, or
    /// for a key on another curve.
    public convenience init?(der: [UInt8]) {
        defer { ERR_clear_error() }
        guard der.count <= 1 << 16 else { return nil }
        // SAFETY: the bytes are read during the call; key and number are freed on every path.
        let key = unsafe der.withUnsafeBufferPointer { buffer in
            var position = buffer.baseAddress
            return unsafe d2i_AutoPrivateKey(nil, &position, buffer.count)
        }
        guard let key = unsafe key else { return nil }
        defer { unsafe EVP_PKEY_free(key) }
        var number: OpaquePointer?
        guard unsafe EVP_PKEY_get_base_id(key) == EVP_PKEY_EC, unsafe EVP_PKEY_get_bits(key) == 384,
            unsafe EVP_PKEY_get_bn_param(key, OSSL_PKEY_PARAM_PRIV_KEY, &number) == 1, let number = unsafe number
        else { return nil }
        let scalar = unsafe BigNumber(owning: number)
        var bytes = scalar.bitCount <= 384 ? scalar.bigEndian(48) : []
        defer { wipe(&bytes) }
        self.init(bigEndianScalar: bytes)
        // There is more than one curve of 384 bits: the public key that libcrypto finds must be this one's.
        guard let information = unsafe encoded({ unsafe i2d_PUBKEY(key, $0) }),
            let found = P384PublicKey(subjectPublicKeyInfo: information),
            found.littleEndianX == publicKey.littleEndianX, found.littleEndianY == publicKey.littleEndianY
        else { return nil }
    }
}
