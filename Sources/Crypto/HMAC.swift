// HMAC [RFC 2104] and the counter-mode key derivation that AMD's firmware builds on it.

import COpenSSL

/// HMAC-SHA256 [RFC 4231].
public enum HMACSHA256 {
    /// The 32-byte code of a message. Any length of key, none included.
    public static func authenticate(_ message: [UInt8], key: [UInt8]) -> [UInt8] {
        authenticationCode(message, key: key, hash: .sha256)
    }
}

/// HMAC-SHA384 [RFC 4231].
public enum HMACSHA384 {
    /// The 48-byte code of a message. Any length of key, none included.
    public static func authenticate(_ message: [UInt8], key: [UInt8]) -> [UInt8] {
        authenticationCode(message, key: key, hash: .sha384)
    }
}

/// Key derivation in counter mode [SP 800-108 4.1], as the SEV firmware does it [SEV 2.2.2]:
/// block i (from 1) is `HMAC(key, LE32(i) ‖ label ‖ 0x00 ‖ context ‖ LE32(output bits))`.
public enum CounterKDF {
    /// - Parameters:
    ///   - label: ASCII; no NUL is added to it, the separator is the format's own.
    ///   - byteCount: Length of the result, less than 2^29.
    public static func derive(
        key: [UInt8], label: String, context: [UInt8] = [], byteCount: Int, hash: HashAlgorithm = .sha256
    ) -> [UInt8] {
        precondition((0..<(1 << 29)).contains(byteCount), "a number of derived bytes")
        // Safe: below 2^32 by the check above.
        let bitCount = littleEndian32(UInt32(byteCount * 8))
        var result: [UInt8] = []
        // One storage with nothing behind the result: growing or cutting would leave key bytes in memory.
        result.reserveCapacity(byteCount)
        var counter: UInt32 = 1
        while result.count < byteCount {
            let input = littleEndian32(counter) + Array(label.utf8) + [0] + context + bitCount
            var block = authenticationCode(input, key: key, hash: hash)
            result += block.prefix(byteCount - result.count)
            wipe(&block)
            counter &+= 1
        }
        return result
    }

    private static func littleEndian32(_ value: UInt32) -> [UInt8] {
        (0..<4).map { UInt8(truncatingIfNeeded: value &>> UInt32(8 &* $0)) }
    }
}

/// HMAC with one of this package's hashes.
func authenticationCode(_ message: [UInt8], key: [UInt8], hash: HashAlgorithm) -> [UInt8] {
    precondition(key.count <= Int(Int32.max), "an HMAC key")
    var result = [UInt8](repeating: 0, count: hash.byteCount)
    // SAFETY: libcrypto reads key and message during the call and writes hash.byteCount bytes.
    let done = unsafe result.withUnsafeMutableBufferPointer { output in
        unsafe HMAC(
            hash == .sha256 ? EVP_sha256() : EVP_sha384(), key, Int32(key.count), message, message.count,
            output.baseAddress, nil) != nil
    }
    precondition(done, "libcrypto failed to authenticate: \(libcryptoError())")
    return result
}
