// The public key of an RCAR client, and what is encrypted to it: JSON Web Keys [RFC 7517] and JSON Web Encryption in its
// flattened form [RFC 7516 7.2.2].

import Attestation
import Crypto
import JSONText
import SecretRelease

/// A client's key in one of the forms that its kind of client uses.
enum RCARKey: Sendable {
    case ellipticCurve(NISTCurve, x: [UInt8], y: [UInt8])
    case rsa(RSAPublicKey, RSAPublicKey.EncryptionScheme)

    private static let agreement = "ECDH-ES+A256KW"
    private static let contentEncryption = "A256GCM"

    /// - Returns: The key, and its canonical JSON [RFC 8785], which reports bind.
    static func read(_ value: JSONInput) throws(ReleaseRefusal) -> (key: RCARKey, canonical: JSONObject) {
        func text(_ name: String) throws(ReleaseRefusal) -> String {
            guard case .string(let text)? = value[name] else {
                throw ReleaseRefusal(.malformed, "tee-pubkey.\(name): no string")
            }
            return text
        }
        func bytes(_ name: String) throws(ReleaseRefusal) -> [UInt8] {
            guard let bytes = Base64.decode(try text(name).utf8, .url) else {
                throw ReleaseRefusal(.malformed, "tee-pubkey.\(name): not base64url")
            }
            return bytes
        }
        let names: [String]
        let key: RCARKey
        switch (try text("kty"), try text("alg")) {
        case ("EC", agreement):
            names = ["alg", "crv", "kty", "x", "y"]
            guard let curve = NISTCurve(rawValue: try text("crv")) else {
                throw ReleaseRefusal(.malformed, "tee-pubkey.crv: not P-256, P-384 or P-521")
            }
            let (x, y) = (try bytes("x"), try bytes("y"))
            guard curve.agree(withX: x, y: y) != nil else {
                throw ReleaseRefusal(.malformed, "tee-pubkey: no point of \(curve.rawValue)")
            }
            key = .ellipticCurve(curve, x: x, y: y)
        case ("RSA", let algorithm) where algorithm == "RSA-OAEP-256" || algorithm == "RSA1_5":
            names = ["alg", "e", "kty", "n"]
            guard
                let rsa = RSAPublicKey(
                    littleEndianModulus: try bytes("n").reversed(), exponent: try bytes("e").reversed())
            else { throw ReleaseRefusal(.malformed, "tee-pubkey: no RSA key of 2048 to 4096 bits") }
            key = .rsa(rsa, algorithm == "RSA1_5" ? .pkcs1 : .oaepSHA256)
        default:
            throw ReleaseRefusal(
                .malformed, "tee-pubkey: not EC with ECDH-ES+A256KW, nor RSA with RSA-OAEP-256 or RSA1_5")
        }
        var canonical = JSONObject()
        for name in names { canonical.add(name, try text(name)) }
        return (key, canonical)
    }

    /// Encrypts to this key.
    func encrypt(_ plaintext: SecretBytes) -> JSONObject {
        var contentKey = randomBytes(AES256GCM.keyByteCount)
        defer { wipe(&contentKey) }
        // The client writes the header anew to authenticate it: alg and enc first, then the rest by name.
        var header = JSONObject()
        let encryptedKey: [UInt8]
        switch self {
        case .ellipticCurve(let curve, let x, let y):
            // Safe: the point was checked when the key was read.
            let agreed = curve.agree(withX: x, y: y)!
            var wrapping = agreed.secret.withBytes { Self.concatKDF($0, algorithm: Self.agreement) }
            defer { wipe(&wrapping) }
            encryptedKey = AES256KeyWrap.wrap(contentKey, with: wrapping)
            header.add("alg", Self.agreement)
            header.add("enc", Self.contentEncryption)
            var ephemeral = JSONObject()
            ephemeral.add("crv", curve.rawValue)
            ephemeral.add("kty", "EC")
            ephemeral.add("x", Base64.encode(agreed.x, .url))
            ephemeral.add("y", Base64.encode(agreed.y, .url))
            header.add("epk", ephemeral)
        case .rsa(let key, let scheme):
            encryptedKey = key.encrypt(contentKey, scheme)
            header.add("alg", scheme == .pkcs1 ? "RSA1_5" : "RSA-OAEP-256")
            header.add("enc", Self.contentEncryption)
        }
        let protected = Base64.encode(Array(header.text.utf8), .url)
        let nonce = randomBytes(AES256GCM.nonceByteCount)
        let sealed = plaintext.withBytes {
            AES256GCM.seal($0, authenticating: Array(protected.utf8), key: contentKey, nonce: nonce)
        }
        var response = JSONObject()
        response.add("protected", protected)
        response.add("encrypted_key", Base64.encode(encryptedKey, .url))
        response.add("iv", Base64.encode(nonce, .url))
        response.add("ciphertext", Base64.encode(sealed.ciphertext, .url))
        response.add("tag", Base64.encode(sealed.tag, .url))
        return response
    }

    /// Concat KDF [SP 800-56A 5.8.1] with SHA-256 for a key of 256 bits, as JSON Web Algorithms use it [RFC 7518 4.6.2]: one
    /// round; no party has a name.
    static func concatKDF(_ secret: [UInt8], algorithm: String) -> [UInt8] {
        func count(_ value: Int) -> [UInt8] {
            (0..<4).map { UInt8(truncatingIfNeeded: value >> (24 - 8 * $0)) }
        }
        var input = count(1)
        // One storage: growing would leave the secret in memory.
        input.reserveCapacity(64 + secret.count + algorithm.utf8.count)
        input += secret
        input += count(algorithm.utf8.count)
        input += algorithm.utf8
        input += count(0) + count(0) + count(256)
        defer { wipe(&input) }
        let digest = SHA256.hash(input)
        return digest.indices.map { digest[$0] }
    }
}
