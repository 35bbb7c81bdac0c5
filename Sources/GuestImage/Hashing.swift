// The one place where this module hashes.

import Crypto

/// SHA-256 of a whole array.
func sha256(_ bytes: [UInt8]) -> [UInt8] {
    let digest = SHA256.hash(bytes)
    return (0..<32).map { digest[$0] }
}
