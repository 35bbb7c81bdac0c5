import Crypto
import TestSupport
import Testing

@Suite("RSA-PSS")
struct RSATests {
    @Test(
        "a real root's self-signature and its signature under the next key",
        .enabled(if: ForeignVectors.arePresent, "\(ForeignVectors.absence)"))
    func naples() throws {
        let ark = try #require(ForeignVectors.bytes("legacy-sev/ark.cert"))
        let ask = try #require(ForeignVectors.bytes("legacy-sev/ask.cert"))
        let key = try #require(
            RSAPublicKey(littleEndianModulus: Array(ark[0x140..<0x240]), exponent: Array(ark[0x40..<0x140])))
        #expect(key.littleEndianExponent == [1, 0, 1])
        for certificate in [ark, ask] {
            let signature = Array(certificate[0x240..<0x340])
            let message = Array(certificate[..<0x240])
            #expect(key.isValidPSSSignature(littleEndian: signature, of: message, hash: .sha256, saltByteCount: 32))
            #expect(!key.isValidPSSSignature(littleEndian: signature, of: message, hash: .sha256, saltByteCount: 31))
            #expect(!key.isValidPSSSignature(littleEndian: signature, of: message, hash: .sha384, saltByteCount: 48))
            #expect(
                !key.isValidPSSSignature(
                    littleEndian: signature, of: message + [0], hash: .sha256, saltByteCount: 32))
            for bit in [0, 1000, 2047] {
                var wrong = signature
                wrong[bit / 8] ^= 1 << UInt8(bit % 8)
                #expect(!key.isValidPSSSignature(littleEndian: wrong, of: message, hash: .sha256, saltByteCount: 32))
            }
            #expect(
                !key.isValidPSSSignature(
                    littleEndian: signature + [0], of: message, hash: .sha256, saltByteCount: 32))
        }
    }

    @Test("a derived key is stable, signs the same way each time, and its signatures verify")
    func derived() {
        let seed = [UInt8](repeating: 0x17, count: 32)
        let key = RSAPrivateKey(bits: 2048, derivedFrom: seed, label: "test")
        #expect(key.publicKey.littleEndianModulus.count == 256)
        #expect(key.publicKey.littleEndianModulus[255] >= 0x80)
        // The same numbers for ever: identities of platforms depend on it.
        #expect(
            hexString(SHA256.hash(key.publicKey.littleEndianModulus))
                == "913e3a25205b907ddeb437de354b6ad0b5878de8088b9f77e7e6fcb22d812520")
        let message = Array("certificate".utf8)
        let cases: [(HashAlgorithm, Int)] = [(.sha256, 32), (.sha384, 48), (.sha256, 0), (.sha256, 222)]
        for (hash, salt) in cases {
            let signature = key.signPSS(message, hash: hash, saltByteCount: salt)
            #expect(signature.count == 256)
            #expect(signature == key.signPSS(message, hash: hash, saltByteCount: salt))
            #expect(
                key.publicKey.isValidPSSSignature(
                    littleEndian: signature, of: message, hash: hash, saltByteCount: salt))
            #expect(
                !key.publicKey.isValidPSSSignature(
                    littleEndian: signature, of: message + [1], hash: hash, saltByteCount: salt))
        }
        let other = RSAPrivateKey(bits: 2048, derivedFrom: seed, label: "other")
        #expect(other.publicKey.littleEndianModulus != key.publicKey.littleEndianModulus)
        #expect(
            !other.publicKey.isValidPSSSignature(
                littleEndian: key.signPSS(message, hash: .sha256, saltByteCount: 32), of: message, hash: .sha256,
                saltByteCount: 32))
    }

    @Test("hostile numbers are no key")
    func hostile() {
        let e: [UInt8] = [1, 0, 1]
        var modulus = [UInt8](repeating: 0xff, count: 256)
        #expect(RSAPublicKey(littleEndianModulus: modulus, exponent: e) != nil)
        #expect(RSAPublicKey(littleEndianModulus: modulus + [0, 0], exponent: e + [0, 0]) != nil)
        #expect(RSAPublicKey(littleEndianModulus: modulus, exponent: []) == nil)
        #expect(RSAPublicKey(littleEndianModulus: modulus, exponent: [1]) == nil)
        #expect(RSAPublicKey(littleEndianModulus: modulus, exponent: [2]) == nil)
        #expect(RSAPublicKey(littleEndianModulus: modulus, exponent: [UInt8](repeating: 1, count: 9)) == nil)
        #expect(RSAPublicKey(littleEndianModulus: modulus, exponent: [UInt8](repeating: 1, count: 256)) == nil)
        #expect(RSAPublicKey(littleEndianModulus: [], exponent: e) == nil)
        #expect(RSAPublicKey(littleEndianModulus: [UInt8](repeating: 0, count: 256), exponent: e) == nil)
        #expect(RSAPublicKey(littleEndianModulus: [UInt8](repeating: 0xff, count: 255), exponent: e) == nil)
        #expect(RSAPublicKey(littleEndianModulus: [UInt8](repeating: 0xff, count: 513), exponent: e) == nil)
        #expect(RSAPublicKey(littleEndianModulus: [UInt8](repeating: 0xff, count: 5000), exponent: e) == nil)
        modulus[0] = 0xfe
        #expect(RSAPublicKey(littleEndianModulus: modulus, exponent: e) == nil)
    }
}
