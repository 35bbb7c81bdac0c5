// The HMAC-based key derivation of [RFC 5869].

/// HKDF [RFC 5869] with SHA-256 or SHA-384.
public enum HKDF {
    /// HKDF-Extract: concentrates what is secret in `keyMaterial` into a key as long as the hash.
    ///
    /// - Parameters:
    ///   - keyMaterial: Any length, none included.
    ///   - salt: Any length; none is as good as zeroes of the hash's length [RFC 5869 2.2].
    /// - Returns: A secret that the caller has to ``wipe(_:)``.
    public static func extract(_ keyMaterial: [UInt8], salt: [UInt8] = [], hash: HashAlgorithm) -> [UInt8] {
        authenticationCode(keyMaterial, key: salt, hash: hash)
    }

    /// HKDF-Expand: as many bytes as are asked for, which are others for every `info`.
    ///
    /// - Parameters:
    ///   - key: What ``extract(_:salt:hash:)`` gave.
    ///   - byteCount: 0 to 255 times the length of the hash; more is a programmer error [RFC 5869 2.3].
    /// - Returns: A secret that the caller has to ``wipe(_:)``.
    public static func expand(_ key: [UInt8], info: [UInt8], byteCount: Int, hash: HashAlgorithm) -> [UInt8] {
        precondition((0...(255 * hash.byteCount)).contains(byteCount), "a number of derived bytes")
        var result: [UInt8] = []
        // One storage: growing would leave key bytes in memory.
        result.reserveCapacity(byteCount)
        var block: [UInt8] = []
        var counter: UInt8 = 1
        while result.count < byteCount {
            var input: [UInt8] = []
            input.reserveCapacity(block.count + info.count + 1)
            input += block
            input += info
            input.append(counter)
            wipe(&block)
            block = authenticationCode(input, key: key, hash: hash)
            wipe(&input)
            result += block.prefix(byteCount - result.count)
            // Safe: at most 255 blocks by the check above; the counter is not used after the last.
            counter &+= 1
        }
        wipe(&block)
        return result
    }
}
