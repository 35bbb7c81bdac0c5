import Crypto
import TestSupport
import Testing

@Suite("What JSON Web Encryption is made of")
struct JOSETests {
    @Test("base64, both forms: RFC 4648 10, and what is none")
    func base64() {
        let known = [
            ("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg=="), ("fooba", "Zm9vYmE="),
        ]
        for (plain, text) in known {
            let bytes = Array(plain.utf8)
            #expect(Base64.encode(bytes) == text)
            #expect(Base64.decode(text.utf8) == bytes)
            let short = String(text.prefix { $0 != "=" })
            #expect(Base64.encode(bytes, .url) == short)
            #expect(Base64.decode(short.utf8, .url) == bytes)
        }
        #expect(Base64.encode([0xfb, 0xff, 0xbf]) == "+/+/" && Base64.encode([0xfb, 0xff, 0xbf], .url) == "-_-_")
        for wrong in ["Zg", "Zg=", "Zg===", "Z===", "====", "Zh==", "Zm9=", "Zm9v\n", "-_-_", "=Zg=", "Z=g="] {
            #expect(Base64.decode(wrong.utf8) == nil, "\(wrong)")
        }
        for wrong in ["Z", "Zh", "Zg==", "+/+/", "Zm9v ", "Zm9"] {
            #expect(Base64.decode(wrong.utf8, .url) == nil, "\(wrong)")
        }
    }

    /// [RFC 3394 4.6]: 256 bits of key data with a key of 256 bits; [RFC 3394 4.3]: 128 bits.
    @Test("AES key wrap: RFC 3394")
    func keyWrap() throws {
        let wrapping = (0..<32 as Range<UInt8>).map { $0 }
        let key = try #require(
            [UInt8](hex: "00112233445566778899AABBCCDDEEFF000102030405060708090A0B0C0D0E0F".lowercased()))
        #expect(
            AES256KeyWrap.wrap(key, with: wrapping).hex
                == "28c9f404c4b810f4cbccb35cfb87f8263f5786e2d80ed326cbc7f0e71a99f43bfb988b9b7a02dd21")
        #expect(
            AES256KeyWrap.wrap(Array(key.prefix(16)), with: wrapping).hex
                == "64e8c3f9ce0f5ba263e9777905818a2a93c8191e7d6e8ae7")
    }

    @Test(
        "one-time agreement on P-384 is Diffie-Hellman with a fresh key; other points are refused",
        arguments: NISTCurve.allCases)
    func agreement(_ curve: NISTCurve) throws {
        #expect(curve.agree(withX: [], y: []) == nil)
        let zeroes = [UInt8](repeating: 0, count: curve.byteCount)
        #expect(curve.agree(withX: zeroes, y: zeroes) == nil)
        #expect(curve.agree(withX: zeroes.map { _ in 0xff }, y: zeroes) == nil)
        guard curve == .p384 else { return }
        let key = P384PrivateKey.random()
        let (x, y) = (Array(key.publicKey.littleEndianX.reversed()), Array(key.publicKey.littleEndianY.reversed()))
        let first = try #require(curve.agree(withX: x, y: y))
        let second = try #require(curve.agree(withX: x, y: y))
        #expect(first.x != second.x && first.secret.copied() != second.secret.copied())
        let theirs = try #require(P384PublicKey(littleEndianX: first.x.reversed(), y: first.y.reversed()))
        #expect(key.sharedSecret(with: theirs) == first.secret.copied())
        var moved = y
        moved[47] ^= 1
        #expect(curve.agree(withX: x, y: moved) == nil)
    }
}
