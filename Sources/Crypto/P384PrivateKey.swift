// Private keys on P-384: key agreement and deterministic signatures.

import COpenSSL

/// A P-384 private key. Its number is overwritten in memory when the key is no longer held.
public final class P384PrivateKey: Sendable {
    private let scalar: SecretBytes
    public let publicKey: P384PublicKey

    /// A fresh key.
    public static func random() -> P384PrivateKey {
        while true {
            var bytes = randomBytes(P384Curve.byteCount)
            defer { wipe(&bytes) }
            if let key = P384PrivateKey(bigEndianScalar: bytes) { return key }
        }
    }

    /// From a number of 48 bytes. Returns nil unless it is in 1…n-1.
    public convenience init?(bigEndianScalar bytes: [UInt8]) {
        guard bytes.count == P384Curve.byteCount else { return nil }
        let number = BigNumber(bigEndian: bytes)
        guard !number.isZero, number.isLess(than: P384Curve.shared.order) else { return nil }
        self.init(number)
    }

    /// The same key for the same secret and label: ``CounterKDF`` with SHA-384 makes 64 bytes, which are reduced to 1…n-1
    /// (the 128 bits more than n has make the bias negligible [FIPS 186-4 B.4.1]).
    public convenience init(derivedFrom secret: [UInt8], label: String) {
        var bytes = CounterKDF.derive(key: secret, label: label, byteCount: 64, hash: .sha384)
        defer { wipe(&bytes) }
        let arithmetic = BigArithmetic()
        let order = P384Curve.shared.order
        let reduced = arithmetic.remainder(BigNumber(bigEndian: bytes), arithmetic.difference(order, 1))
        self.init(arithmetic.sum(reduced, BigNumber(1), modulo: order))
    }

    /// A number that is known to be in 1…n-1.
    private init(_ number: BigNumber) {
        guard let point = P384Curve.shared.multiplyBase(number),
            let key = P384PublicKey(littleEndianX: point.x.littleEndian(48), y: point.y.littleEndian(48))
        else { preconditionFailure("libcrypto failed to make a public key: \(libcryptoError())") }
        var bytes = number.bigEndian(P384Curve.byteCount)
        scalar = SecretBytes(taking: &bytes)
        publicKey = key
    }

    /// The private number, 48 bytes: a copy that the caller has to ``wipe(_:)``.
    public var bigEndianScalar: [UInt8] { scalar.copied() }

    /// Diffie-Hellman: the X of private · public, 48 bytes big-endian [SP 800-56A 5.7.1.2]. A secret of the caller.
    /// Returns nil only for a result at infinity, which no valid key gives.
    public func sharedSecret(with other: P384PublicKey) -> [UInt8]? {
        let point = P384Curve.shared.multiply(
            x: BigNumber(littleEndian: other.littleEndianX), y: BigNumber(littleEndian: other.littleEndianY),
            by: number)
        return point?.x.bigEndian(P384Curve.byteCount)
    }

    /// ECDSA. The same message and key always give the same signature [RFC 6979].
    ///
    /// - Returns: Little-endian numbers of 48 bytes.
    public func sign(_ message: [UInt8], hash: HashAlgorithm) -> (r: [UInt8], s: [UInt8]) {
        let arithmetic = BigArithmetic()
        let order = P384Curve.shared.order
        // Both hashes have at most the 384 bits of n, so bits2int is the whole digest.
        let digest = SHA2Hasher(hash).hash(message)
        let e = arithmetic.remainder(BigNumber(bigEndian: digest), order)
        var nonces = NonceGenerator(scalar: scalar, digest: e.bigEndian(P384Curve.byteCount), hash: hash)
        defer { nonces.wipe() }
        while true {
            var candidate = nonces.next()
            defer { wipe(&candidate) }
            let k = BigNumber(bigEndian: candidate)
            guard !k.isZero, k.isLess(than: order), let point = P384Curve.shared.multiplyBase(k) else { continue }
            let r = arithmetic.remainder(point.x, order)
            let rd = arithmetic.product(r, number, modulo: order)
            let s = arithmetic.product(
                arithmetic.inverse(k, modulo: order), arithmetic.sum(e, rd, modulo: order), modulo: order)
            if !r.isZero, !s.isZero {
                return (r.littleEndian(P384Curve.byteCount), s.littleEndian(P384Curve.byteCount))
            }
        }
    }

    private var number: BigNumber { scalar.withBytes { BigNumber(bigEndian: $0) } }
}

/// The candidates for k of [RFC 6979 3.2], in order.
private struct NonceGenerator {
    private var key: [UInt8]
    private var value: [UInt8]
    private let hash: HashAlgorithm
    private var isFirst = true

    init(scalar: SecretBytes, digest: [UInt8], hash: HashAlgorithm) {
        self.hash = hash
        value = [UInt8](repeating: 1, count: hash.byteCount)
        key = [UInt8](repeating: 0, count: hash.byteCount)
        for mark: UInt8 in [0, 1] {
            var input: [UInt8] = []
            // One storage: every sum of arrays would leave a copy of the private number behind.
            input.reserveCapacity(value.count + 1 + scalar.count + digest.count)
            input += value
            input.append(mark)
            scalar.withBytes { input += $0 }
            input += digest
            key = authenticationCode(input, key: key, hash: hash)
            Crypto.wipe(&input)
            value = authenticationCode(value, key: key, hash: hash)
        }
    }

    /// 48 bytes, big-endian; the caller checks the range.
    mutating func next() -> [UInt8] {
        if !isFirst {
            key = authenticationCode(value + [0], key: key, hash: hash)
            value = authenticationCode(value, key: key, hash: hash)
        }
        isFirst = false
        var bytes: [UInt8] = []
        while bytes.count < P384Curve.byteCount {
            value = authenticationCode(value, key: key, hash: hash)
            bytes += value
        }
        bytes.removeLast(bytes.count - P384Curve.byteCount)
        return bytes
    }

    mutating func wipe() {
        Crypto.wipe(&key)
        Crypto.wipe(&value)
    }
}
