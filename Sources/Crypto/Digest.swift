// SHA-256 and SHA-384 over libcrypto.
//
// The algorithm is fetched once per hasher and its context is reused: for the 112-byte records of a launch the fetch
// and the allocation would cost more than the hashing.

import COpenSSL

/// A hash algorithm of this package.
public enum HashAlgorithm: Sendable {
    case sha256
    case sha384

    /// Digest length in bytes.
    public var byteCount: Int {
        switch self {
        case .sha256: 32
        case .sha384: 48
        }
    }

    var name: String {
        switch self {
        case .sha256: "SHA2-256"
        case .sha384: "SHA2-384"
        }
    }
}

/// A reusable hasher: one context, any number of messages. For one owner at a time; it has no lock.
@safe
public final class SHA2Hasher {
    public let algorithm: HashAlgorithm
    private let context: OpaquePointer
    private let digest: OpaquePointer

    /// Failing means that libcrypto cannot work at all (no memory, no default provider): a broken installation.
    public init(_ algorithm: HashAlgorithm) {
        self.algorithm = algorithm
        // SAFETY: both objects are owned by this hasher alone and freed in deinit; NULL is checked here.
        guard let digest = unsafe EVP_MD_fetch(nil, algorithm.name, nil), let context = unsafe EVP_MD_CTX_new() else {
            preconditionFailure("libcrypto has no \(algorithm.name): \(libcryptoError())")
        }
        unsafe self.digest = digest
        unsafe self.context = context
    }

    deinit {
        unsafe EVP_MD_CTX_free(context)
        unsafe EVP_MD_free(digest)
    }

    /// Starts a message, dropping what was begun before.
    public func start() {
        // SAFETY: context and digest live as long as self.
        require(unsafe EVP_DigestInit_ex2(context, digest, nil))
    }

    /// Adds bytes to the message.
    public func update(_ bytes: Span<UInt8>) {
        // SAFETY: libcrypto only reads the span's bytes, during the call.
        unsafe bytes.withUnsafeBufferPointer { buffer in
            require(unsafe EVP_DigestUpdate(context, buffer.baseAddress, buffer.count))
        }
    }

    /// Adds bytes to the message.
    public func update(_ bytes: [UInt8]) { update(bytes.span) }

    /// Ends the message and writes the digest; `result` has exactly the algorithm's length.
    public func finish(into result: inout MutableSpan<UInt8>) {
        precondition(result.count == algorithm.byteCount, "a digest of \(algorithm.byteCount) bytes")
        // SAFETY: the span has room for the digest, checked above.
        unsafe result.withUnsafeMutableBufferPointer { buffer in
            require(unsafe EVP_DigestFinal_ex(context, buffer.baseAddress, nil))
        }
    }

    /// Ends the message.
    public func finish() -> [UInt8] {
        var result = [UInt8](repeating: 0, count: algorithm.byteCount)
        var span = result.mutableSpan
        finish(into: &span)
        return result
    }

    /// The digest of the message so far; the message goes on.
    public func snapshot() -> [UInt8] {
        let copy = SHA2Hasher(algorithm)
        // SAFETY: both contexts are owned by living hashers; the copy shares nothing with the original.
        require(unsafe EVP_MD_CTX_copy_ex(copy.context, context))
        return copy.finish()
    }

    /// The digest of one message, written to `result`.
    public func hash(_ bytes: Span<UInt8>, into result: inout MutableSpan<UInt8>) {
        start()
        update(bytes)
        finish(into: &result)
    }

    /// The digest of one message.
    public func hash(_ bytes: [UInt8]) -> [UInt8] {
        start()
        update(bytes)
        return finish()
    }

    /// SHA-384 of one message as a fixed array; the hasher must be a SHA-384 one.
    public func hash384(_ bytes: Span<UInt8>) -> [48 of UInt8] {
        var result = [48 of UInt8](repeating: 0)
        var span = result.mutableSpan
        hash(bytes, into: &span)
        return result
    }

    private func require(_ result: Int32) {
        precondition(result == 1, "libcrypto failed to hash: \(libcryptoError())")
    }
}

/// SHA-256 of one message. Any thread may call it.
public enum SHA256 {
    private static let algorithm = FetchedDigest(.sha256)

    public static func hash(_ bytes: Span<UInt8>) -> [32 of UInt8] {
        var result = [32 of UInt8](repeating: 0)
        var span = result.mutableSpan
        algorithm.hash(bytes, into: &span)
        return result
    }

    public static func hash(_ bytes: [UInt8]) -> [32 of UInt8] { hash(bytes.span) }
}

/// SHA-384 of one message. Any thread may call it.
public enum SHA384 {
    private static let algorithm = FetchedDigest(.sha384)

    public static func hash(_ bytes: Span<UInt8>) -> [48 of UInt8] {
        var result = [48 of UInt8](repeating: 0)
        var span = result.mutableSpan
        algorithm.hash(bytes, into: &span)
        return result
    }

    public static func hash(_ bytes: [UInt8]) -> [48 of UInt8] { hash(bytes.span) }
}

/// SHA-512 of one message. Any thread may call it.
public enum SHA512 {
    private static let algorithm = FetchedDigest(name: "SHA2-512", byteCount: 64)

    public static func hash(_ bytes: Span<UInt8>) -> [64 of UInt8] {
        var result = [64 of UInt8](repeating: 0)
        var span = result.mutableSpan
        algorithm.hash(bytes, into: &span)
        return result
    }

    public static func hash(_ bytes: [UInt8]) -> [64 of UInt8] { hash(bytes.span) }
}

/// An algorithm fetched once for the whole process and never freed.
@safe
private struct FetchedDigest: @unchecked Sendable {
    // SAFETY: EVP_MD objects are immutable after the fetch, so threads share this one without a lock.
    private let digest: OpaquePointer
    private let byteCount: Int

    init(_ algorithm: HashAlgorithm) { self.init(name: algorithm.name, byteCount: algorithm.byteCount) }

    init(name: String, byteCount: Int) {
        guard let digest = unsafe EVP_MD_fetch(nil, name, nil) else {
            preconditionFailure("libcrypto has no \(name): \(libcryptoError())")
        }
        unsafe self.digest = digest
        self.byteCount = byteCount
    }

    func hash(_ bytes: Span<UInt8>, into result: inout MutableSpan<UInt8>) {
        precondition(result.count == byteCount, "a digest of \(byteCount) bytes")
        // SAFETY: both buffers are used during the call only; the result has room for the digest, checked above.
        let done = unsafe bytes.withUnsafeBufferPointer { input in
            unsafe result.withUnsafeMutableBufferPointer { output in
                unsafe EVP_Digest(input.baseAddress, input.count, output.baseAddress, nil, digest, nil)
            }
        }
        precondition(done == 1, "libcrypto failed to hash: \(libcryptoError())")
    }
}

/// The newest error of this thread's libcrypto queue, which is emptied.
func libcryptoError() -> String {
    let code = ERR_get_error()
    ERR_clear_error()
    var text = [CChar](repeating: 0, count: 256)
    // SAFETY: at most text.count bytes are written, a final NUL included.
    unsafe text.withUnsafeMutableBufferPointer { unsafe ERR_error_string_n(code, $0.baseAddress, $0.count) }
    return String(decoding: text.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
}
