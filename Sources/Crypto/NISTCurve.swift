// Diffie-Hellman with somebody else's key on one of NIST's curves, with a key that is made for this once: what JSON Web
// Encryption calls ECDH-ES [RFC 7518 4.6].

import COpenSSL

/// A curve of NIST's, by its name in JSON Web Keys [RFC 7518 6.2.1.1].
public enum NISTCurve: String, CaseIterable, Sendable {
    case p256 = "P-256"
    case p384 = "P-384"
    case p521 = "P-521"

    /// Bytes of a coordinate and of a shared secret.
    public var byteCount: Int {
        switch self {
        case .p256: 32
        case .p384: 48
        case .p521: 66
        }
    }

    private var identifier: Int32 {
        switch self {
        case .p256: NID_X9_62_prime256v1
        case .p384: NID_secp384r1
        case .p521: NID_secp521r1
        }
    }

    /// What a one-time key gives.
    public struct Agreement: Sendable {
        /// The one-time public key, big-endian, ``NISTCurve/byteCount`` bytes each.
        public let x: [UInt8]
        public let y: [UInt8]
        /// The X of the product, as long.
        public let secret: SecretBytes
    }

    /// Makes a key pair, multiplies its private number with a public key, and forgets the private number.
    ///
    /// - Parameters x, y: The other's point, big-endian, ``byteCount`` bytes each.
    /// - Returns: nil when x and y are not a point of the curve, or have another length.
    public func agree(withX x: [UInt8], y: [UInt8]) -> Agreement? {
        guard x.count == byteCount, y.count == byteCount else { return nil }
        defer { ERR_clear_error() }
        let arithmetic = BigArithmetic()
        defer { withExtendedLifetime(arithmetic) {} }
        guard let group = unsafe EC_GROUP_new_by_curve_name(identifier) else {
            preconditionFailure("libcrypto has no \(rawValue): \(libcryptoError())")
        }
        // SAFETY: group and points are owned here and freed, points wiped, on every path; numbers live to the end.
        defer { unsafe EC_GROUP_free(group) }
        guard let theirs = unsafe EC_POINT_new(group), let ours = unsafe EC_POINT_new(group),
            let product = unsafe EC_POINT_new(group)
        else { preconditionFailure("libcrypto has no memory for a point") }
        defer {
            unsafe EC_POINT_clear_free(theirs)
            unsafe EC_POINT_clear_free(ours)
            unsafe EC_POINT_clear_free(product)
        }
        let (theirX, theirY) = (BigNumber(bigEndian: x), BigNumber(bigEndian: y))
        // Fails for a point that is not on the curve. The cofactor is 1: every point has the whole order.
        guard
            unsafe EC_POINT_set_affine_coordinates(
                group, theirs, theirX.pointer, theirY.pointer, arithmetic.context) == 1
        else { return nil }
        let number = BigNumber()
        let (ourX, ourY, secret) = (BigNumber(), BigNumber(), BigNumber())
        defer { withExtendedLifetime((theirX, theirY, number)) {} }
        repeat {
            require(unsafe BN_priv_rand_range(number.pointer, EC_GROUP_get0_order(group)))
        } while number.isZero
        require(unsafe EC_POINT_mul(group, ours, number.pointer, nil, nil, arithmetic.context))
        require(unsafe EC_POINT_mul(group, product, nil, theirs, number.pointer, arithmetic.context))
        require(
            unsafe EC_POINT_get_affine_coordinates(group, ours, ourX.pointer, ourY.pointer, arithmetic.context))
        require(
            unsafe EC_POINT_get_affine_coordinates(group, product, secret.pointer, nil, arithmetic.context))
        var secretBytes = secret.bigEndian(byteCount)
        return Agreement(
            x: ourX.bigEndian(byteCount), y: ourY.bigEndian(byteCount), secret: SecretBytes(taking: &secretBytes))
    }
}
