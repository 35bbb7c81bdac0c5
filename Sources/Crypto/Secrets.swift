// Bytes that nobody else may see: compared without telling where they differ, overwritten when they have been used.

import COpenSSL

/// True when both have the same bytes. The time it takes tells the length and nothing more.
public func constantTimeEqual(_ a: [UInt8], _ b: [UInt8]) -> Bool {
    guard a.count == b.count else { return false }
    // SAFETY: both arrays have a.count bytes, which are read during the call only.
    return unsafe CRYPTO_memcmp(a, b, a.count) == 0
}

/// Overwrites a secret and empties the array.
///
/// Only this array's own storage is overwritten: a copy that somebody still holds keeps its bytes, so a secret is handed on
/// in one variable, or in ``SecretBytes``.
public func wipe(_ bytes: inout [UInt8]) {
    // SAFETY: exactly the array's own bytes are written. Shared storage is copied first, which is what the text above says.
    unsafe bytes.withUnsafeMutableBytes { unsafe OPENSSL_cleanse($0.baseAddress, $0.count) }
    bytes = []
}

/// A secret with one storage for all its holders, overwritten when the last of them lets go.
@safe
public final class SecretBytes: Equatable, @unchecked Sendable {
    // SAFETY: written in init and deinit only, so threads share it without a lock; `count` bytes, owned by self.
    private let storage: UnsafeMutablePointer<UInt8>
    public let count: Int

    /// Takes the bytes over: the caller's array is wiped.
    public init(taking bytes: inout [UInt8]) {
        count = bytes.count
        unsafe storage = .allocate(capacity: max(1, bytes.count))
        for (index, byte) in bytes.enumerated() { unsafe storage[index] = byte }
        wipe(&bytes)
    }

    /// From bytes that are no secret where they come from, such as a test vector.
    public convenience init(_ bytes: [UInt8]) {
        var copy = bytes
        self.init(taking: &copy)
    }

    deinit {
        unsafe OPENSSL_cleanse(storage, count)
        unsafe storage.deallocate()
    }

    /// Lends the bytes for one call, in a copy that is wiped afterwards.
    public func withBytes<Result, Failure: Error>(_ body: ([UInt8]) throws(Failure) -> Result) throws(Failure) -> Result
    {
        var copy = copied()
        defer { wipe(&copy) }
        return try body(copy)
    }

    /// The same bytes. The time it takes tells the length and nothing more.
    public static func == (a: SecretBytes, b: SecretBytes) -> Bool {
        a === b || a.withBytes { mine in b.withBytes { constantTimeEqual(mine, $0) } }
    }

    /// A copy that the caller has to ``wipe(_:)``.
    public func copied() -> [UInt8] { (0..<count).map { unsafe storage[$0] } }
}
