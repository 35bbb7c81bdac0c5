// Public keys on P-384 and their ECDSA signatures, with the firmware's raw little-endian numbers.

import COpenSSL

/// A P-384 public key.
@safe
public final class P384PublicKey: @unchecked Sendable {
    // SAFETY: libcrypto does not change a key when it verifies with it, so threads share it without a lock.
    private let key: OpaquePointer
    /// The point's X, 48 bytes.
    public let littleEndianX: [UInt8]
    /// The point's Y, 48 bytes.
    public let littleEndianY: [UInt8]

    /// SubjectPublicKeyInfo of an id-ecPublicKey on secp384r1 [RFC 5480], up to and with the mark of an uncompressed
    /// point; X and Y follow, 48 bytes each, big-endian.
    private static let subjectPublicKeyInfoPrefix: [UInt8] = [
        0x30, 0x76, 0x30, 0x10, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x05, 0x2b, 0x81, 0x04,
        0x00, 0x22, 0x03, 0x62, 0x00, 0x04,
    ]

    /// From the coordinates of a point, little-endian, any length (leading zeroes are fine).
    /// Returns nil when they are not a point of the curve.
    public init?(littleEndianX x: [UInt8], y: [UInt8]) {
        guard let x48 = Self.bigEndian48(x), let y48 = Self.bigEndian48(y) else { return nil }
        let information = Self.subjectPublicKeyInfoPrefix + x48 + y48
        // SAFETY: the bytes are read during the call only. The decoder checks that the point is on the curve.
        let key = unsafe information.withUnsafeBufferPointer { buffer in
            var position = buffer.baseAddress
            return unsafe d2i_PUBKEY(nil, &position, buffer.count)
        }
        guard let key = unsafe key else {
            ERR_clear_error()
            return nil
        }
        unsafe self.key = key
        littleEndianX = x48.reversed()
        littleEndianY = y48.reversed()
    }

    /// From the DER of a SubjectPublicKeyInfo with an uncompressed point, as a certificate has it.
    /// Returns nil for any other key or form.
    public convenience init?(subjectPublicKeyInfo information: [UInt8]) {
        let prefix = Self.subjectPublicKeyInfoPrefix
        guard information.count == prefix.count + 96, information.starts(with: prefix) else { return nil }
        self.init(
            littleEndianX: information[prefix.count..<(prefix.count + 48)].reversed(),
            y: information[(prefix.count + 48)...].reversed())
    }

    /// From an uncompressed point: 0x04, X, Y, big-endian, 97 bytes [SEC 1 2.3.4].
    /// Returns nil for any other form, and when the numbers are not a point of the curve.
    public convenience init?(uncompressedPoint point: [UInt8]) {
        guard point.count == 97, point[0] == 0x04 else { return nil }
        self.init(littleEndianX: point[1..<49].reversed(), y: point[49...].reversed())
    }

    /// 0x04, X, Y, big-endian: 97 bytes [SEC 1 2.3.3].
    public var uncompressedPoint: [UInt8] { [0x04] + littleEndianX.reversed() + littleEndianY.reversed() }

    deinit { unsafe EVP_PKEY_free(key) }

    /// The key as a certificate has it, in DER.
    public var subjectPublicKeyInfo: [UInt8] {
        Self.subjectPublicKeyInfoPrefix + littleEndianX.reversed() + littleEndianY.reversed()
    }

    /// True when (r, s) signs the hash of `message` under this key. Any malformed number is simply not a signature.
    /// - Parameters r, s: little-endian, any length.
    public func isValidSignature(
        littleEndianR r: [UInt8], s: [UInt8], of message: [UInt8], hash: HashAlgorithm = .sha384
    ) -> Bool {
        guard r.count <= 4096, s.count <= 4096 else { return false }
        defer { ERR_clear_error() }
        // SAFETY: ECDSA_SIG_set0 takes over both numbers; everything else is freed on every path.
        guard let signature = unsafe ECDSA_SIG_new() else { return false }
        defer { unsafe ECDSA_SIG_free(signature) }
        guard let rNumber = unsafe BN_lebin2bn(r, Int32(r.count), nil) else { return false }
        guard let sNumber = unsafe BN_lebin2bn(s, Int32(s.count), nil) else {
            unsafe BN_free(rNumber)
            return false
        }
        guard unsafe ECDSA_SIG_set0(signature, rNumber, sNumber) == 1 else {
            unsafe BN_free(rNumber)
            unsafe BN_free(sNumber)
            return false
        }
        var der: UnsafeMutablePointer<UInt8>?
        let length = unsafe i2d_ECDSA_SIG(signature, &der)
        defer { unsafe CRYPTO_free(der, nil, 0) }
        guard length > 0, let context = unsafe EVP_MD_CTX_new() else { return false }
        defer { unsafe EVP_MD_CTX_free(context) }
        guard unsafe EVP_DigestVerifyInit_ex(context, nil, hash.name, nil, nil, key, nil) == 1 else { return false }
        return unsafe EVP_DigestVerify(context, der, Int(length), message, message.count) == 1
    }

    /// 48 bytes, most significant first. Returns nil when the number does not fit.
    private static func bigEndian48(_ bytes: [UInt8]) -> [UInt8]? {
        guard bytes.dropFirst(48).allSatisfy({ $0 == 0 }) else { return nil }
        let number = bytes.prefix(48) + [UInt8](repeating: 0, count: max(0, 48 - bytes.count))
        return Array(number.reversed())
    }
}
