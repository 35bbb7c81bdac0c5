// Random bytes from libcrypto's generator, which the kernel seeds.

import COpenSSL

/// `count` random bytes that nobody can guess. A generator that fails is a broken installation.
public func randomBytes(_ count: Int) -> [UInt8] {
    precondition(count >= 0 && count <= Int(Int32.max), "a number of random bytes")
    var bytes = [UInt8](repeating: 0, count: count)
    // SAFETY: exactly count bytes are written into the array's own storage.
    let result = unsafe bytes.withUnsafeMutableBufferPointer { buffer in
        unsafe RAND_priv_bytes(buffer.baseAddress, Int32(buffer.count))
    }
    precondition(result == 1, "libcrypto has no random bytes: \(libcryptoError())")
    return bytes
}
