// Big numbers and P-384 points as libcrypto keeps them: owned objects with the few operations that the keys here need.

import COpenSSL

/// A non-negative number of libcrypto, wiped when freed. For one owner at a time.
@safe
final class BigNumber {
    let pointer: OpaquePointer

    /// SAFETY: takes over the number, which must not be freed by anybody else.
    @unsafe init(owning pointer: OpaquePointer?) {
        guard let pointer = unsafe pointer else { preconditionFailure("libcrypto has no memory for a number") }
        unsafe self.pointer = pointer
        // Secrets go through here: libcrypto then avoids the operations whose time depends on the value.
        unsafe BN_set_flags(pointer, BN_FLG_CONSTTIME)
    }

    convenience init() { unsafe self.init(owning: BN_new()) }

    convenience init(_ value: UInt) {
        self.init()
        require(unsafe BN_set_word(pointer, value))
    }

    convenience init(bigEndian bytes: [UInt8]) {
        precondition(bytes.count <= 4096, "a number of at most 4096 bytes")
        unsafe self.init(owning: BN_bin2bn(bytes, Int32(bytes.count), nil))
    }

    convenience init(littleEndian bytes: [UInt8]) {
        precondition(bytes.count <= 4096, "a number of at most 4096 bytes")
        unsafe self.init(owning: BN_lebin2bn(bytes, Int32(bytes.count), nil))
    }

    deinit { unsafe BN_clear_free(pointer) }

    var isZero: Bool { unsafe BN_is_zero(pointer) == 1 }
    var isOdd: Bool { unsafe BN_is_odd(pointer) == 1 }
    var bitCount: Int { unsafe Int(BN_num_bits(pointer)) }

    func isLess(than other: BigNumber) -> Bool { unsafe BN_cmp(pointer, other.pointer) < 0 }

    /// Exactly `count` bytes, most significant first; programmer error when they do not hold the number.
    func bigEndian(_ count: Int) -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: count)
        // SAFETY: BN_bn2binpad writes exactly count bytes or fails.
        let written = unsafe bytes.withUnsafeMutableBufferPointer {
            unsafe BN_bn2binpad(pointer, $0.baseAddress, Int32($0.count))
        }
        precondition(written == Int32(count), "a number that does not fit in \(count) bytes")
        return bytes
    }

    /// Exactly `count` bytes, least significant first.
    func littleEndian(_ count: Int) -> [UInt8] { bigEndian(count).reversed() }
}

/// Modular arithmetic with one scratch context.
@safe
final class BigArithmetic {
    let context: OpaquePointer

    init() {
        guard let context = unsafe BN_CTX_secure_new() else { preconditionFailure("libcrypto has no memory") }
        unsafe self.context = context
    }

    deinit { unsafe BN_CTX_free(context) }

    func remainder(_ a: BigNumber, _ modulus: BigNumber) -> BigNumber {
        unsafe result { unsafe BN_nnmod($0, a.pointer, modulus.pointer, context) }
    }

    func sum(_ a: BigNumber, _ b: BigNumber, modulo modulus: BigNumber) -> BigNumber {
        unsafe result { unsafe BN_mod_add($0, a.pointer, b.pointer, modulus.pointer, context) }
    }

    func product(_ a: BigNumber, _ b: BigNumber, modulo modulus: BigNumber) -> BigNumber {
        unsafe result { unsafe BN_mod_mul($0, a.pointer, b.pointer, modulus.pointer, context) }
    }

    func product(_ a: BigNumber, _ b: BigNumber) -> BigNumber {
        unsafe result { unsafe BN_mul($0, a.pointer, b.pointer, context) }
    }

    /// `a` minus a small number that it is not less than.
    func difference(_ a: BigNumber, _ word: UInt) -> BigNumber {
        let small = BigNumber(word)
        // An object lives until its last use, not until the end of its scope.
        defer { withExtendedLifetime(small) {} }
        return unsafe result { unsafe BN_sub($0, a.pointer, small.pointer) }
    }

    /// The inverse; programmer error when there is none.
    func inverse(_ a: BigNumber, modulo modulus: BigNumber) -> BigNumber {
        unsafe BigNumber(owning: BN_mod_inverse(nil, a.pointer, modulus.pointer, context))
    }

    /// False with a probability of at most 2^-128 for a composite number, always for a prime one.
    func isPrime(_ a: BigNumber) -> Bool { unsafe BN_check_prime(a.pointer, context, nil) == 1 }

    private func result(_ operation: (OpaquePointer) -> Int32) -> BigNumber {
        let number = BigNumber()
        require(unsafe operation(number.pointer))
        return number
    }
}

/// The curve P-384 (secp384r1) [SEC 2 2.5.1].
@safe
struct P384Curve: @unchecked Sendable {
    static let shared = P384Curve()
    static let byteCount = 48

    // SAFETY: a group is not changed after it was made, so threads share it without a lock. It is never freed.
    let group: OpaquePointer

    private init() {
        guard let group = unsafe EC_GROUP_new_by_curve_name(NID_secp384r1) else {
            preconditionFailure("libcrypto has no P-384: \(libcryptoError())")
        }
        unsafe self.group = group
    }

    /// n, the order of the base point.
    var order: BigNumber { unsafe BigNumber(owning: BN_dup(EC_GROUP_get0_order(group))) }

    /// The affine coordinates of scalar · base.
    func multiplyBase(_ scalar: BigNumber) -> (x: BigNumber, y: BigNumber)? {
        unsafe coordinates { point, context in
            unsafe EC_POINT_mul(group, point, scalar.pointer, nil, nil, context) == 1
        }
    }

    /// The affine coordinates of scalar · (x, y); nil when (x, y) is not on the curve or the result is at infinity.
    func multiply(x: BigNumber, y: BigNumber, by scalar: BigNumber) -> (x: BigNumber, y: BigNumber)? {
        unsafe coordinates { point, context in
            guard let source = unsafe EC_POINT_new(group) else { return false }
            defer { unsafe EC_POINT_clear_free(source) }
            return unsafe EC_POINT_set_affine_coordinates(group, source, x.pointer, y.pointer, context) == 1
                && EC_POINT_mul(group, point, nil, source, scalar.pointer, context) == 1
        }
    }

    private func coordinates(
        of multiply: (OpaquePointer, OpaquePointer) -> Bool
    ) -> (x: BigNumber, y: BigNumber)? {
        defer { ERR_clear_error() }
        let arithmetic = BigArithmetic()
        defer { withExtendedLifetime(arithmetic) {} }
        guard let point = unsafe EC_POINT_new(group) else { preconditionFailure("libcrypto has no memory for a point") }
        // SAFETY: the point is owned here and wiped on every path; the group outlives it.
        defer { unsafe EC_POINT_clear_free(point) }
        let x = BigNumber()
        let y = BigNumber()
        guard unsafe multiply(point, arithmetic.context),
            unsafe EC_POINT_get_affine_coordinates(group, point, x.pointer, y.pointer, arithmetic.context) == 1
        else { return nil }
        return (x, y)
    }
}

func require(_ result: Int32) {
    precondition(result == 1, "libcrypto failed to calculate: \(libcryptoError())")
}
