import Crypto
import TestSupport
import Testing

@Suite("HMAC, key derivation, AES-CTR")
struct MACTests {
    /// [RFC 4231 4]: key, data, HMAC-SHA-256, HMAC-SHA-384. Case 5 there is truncated and left out.
    static let rfc4231: [(key: String, data: String, sha256: String, sha384: String)] = [
        (
            String(repeating: "0b", count: 20), "4869205468657265",
            "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7",
            "afd03944d84895626b0825f4ab46907f15f9dadbe4101ec682aa034c7cebc59cfaea9ea9076ede7f4af152e8b2fa9cb6"
        ),
        (
            "4a656665", "7768617420646f2079612077616e7420666f72206e6f7468696e673f",
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
            "af45d2e376484031617f78d2b58a6b1b9c7ef464f5a01b47e42ec3736322445e8e2240ca5e69e2c78b3239ecfab21649"
        ),
        (
            String(repeating: "aa", count: 20), String(repeating: "dd", count: 50),
            "773ea91e36800e46854db8ebd09181a72959098b3ef8c122d9635514ced565fe",
            "88062608d3e6ad8a0aa2ace014c8a86f0aa635d947ac9febe83ef4e55966144b2a5ab39dc13814b94e3ab6e101a34f27"
        ),
        (
            "0102030405060708090a0b0c0d0e0f10111213141516171819", String(repeating: "cd", count: 50),
            "82558a389a443c0ea4cc819899f2083a85f0faa3e578f8077a2e3ff46729665b",
            "3e8a69b7783c25851933ab6290af6ca77a9981480850009cc5577c6e1f573b4e6801dd23c4a7d679ccf8a386c674cffb"
        ),
        (
            String(repeating: "aa", count: 131),
            "54657374205573696e67204c6172676572205468616e20426c6f636b2d53697a65204b6579202d2048617368204b6579204669727374",
            "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54",
            "4ece084485813e9088d2c63a041bc5b44f9ef1012a2b588f3cd11f05033ac4c60c2ef6ab4030fe8296248df163f44952"
        ),
    ]

    @Test("HMAC: RFC 4231", arguments: rfc4231)
    func hmac(key: String, data: String, sha256: String, sha384: String) throws {
        let key = try #require([UInt8](hex: key))
        let data = try #require([UInt8](hex: data))
        #expect(HMACSHA256.authenticate(data, key: key).hex == sha256)
        #expect(HMACSHA384.authenticate(data, key: key).hex == sha384)
    }

    @Test("HMAC of nothing under no key")
    func emptyHMAC() {
        #expect(
            HMACSHA256.authenticate([], key: []).hex
                == "b613679a0814d9ec772f95d778c35fc5ff1697c493715653c6c712144292c5ad")
    }

    @Test("CTR: SP 800-38A F.5.1, in pieces too")
    func counterMode() throws {
        let key = try #require([UInt8](hex: "2b7e151628aed2a6abf7158809cf4f3c"))
        let counter = try #require([UInt8](hex: "f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff"))
        let plain = try #require(
            [UInt8](
                hex: "6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e51"
                    + "30c81c46a35ce411e5fbc1191a0a52eff69f2445df4f9b17ad2b417be66c3710"))
        let cipher = try #require(
            [UInt8](
                hex: "874d6191b620e3261bef6864990db6ce9806f66b7970fdff8617187bb9fffdff"
                    + "5ae4df3edbd5d35e5b4f09020db03eab1e031dda2fbe03d1792170a0f3009cee"))
        #expect(AES128CTR.apply(key: key, counter: counter, to: plain) == cipher)
        #expect(AES128CTR.apply(key: key, counter: counter, to: cipher) == plain)
        for count in [0, 1, 15, 16, 17, 63] {
            #expect(
                AES128CTR.apply(key: key, counter: counter, to: Array(plain.prefix(count)))
                    == Array(cipher.prefix(count)))
        }
    }

    @Test("CTR: the counter carries through all of its 16 bytes")
    func counterCarry() {
        let key = [UInt8](repeating: 9, count: 16)
        let ones = [UInt8](repeating: 0xff, count: 16)
        let zeroes = [UInt8](repeating: 0, count: 16)
        let both = AES128CTR.apply(key: key, counter: ones, to: zeroes + zeroes)
        #expect(Array(both.suffix(16)) == AES128CTR.apply(key: key, counter: zeroes, to: zeroes))
    }

    @Test("key derivation: blocks are joined and cut, and the length is part of the input")
    func derivation() {
        let key = [UInt8](repeating: 0x42, count: 48)
        let input = [1, 0, 0, 0] + Array("label".utf8) + [0] + [7, 8] + [0x80, 0, 0, 0]
        #expect(
            CounterKDF.derive(key: key, label: "label", context: [7, 8], byteCount: 16)
                == Array(HMACSHA256.authenticate(input, key: key).prefix(16)))
        let long = CounterKDF.derive(key: key, label: "label", byteCount: 100, hash: .sha384)
        #expect(long.count == 100)
        let third = [3, 0, 0, 0] + Array("label".utf8) + [0] + [0x20, 3, 0, 0]
        #expect(Array(long.suffix(4)) == Array(HMACSHA384.authenticate(third, key: key).prefix(4)))
        #expect(CounterKDF.derive(key: key, label: "label", byteCount: 16) != Array(long.prefix(16)))
        #expect(CounterKDF.derive(key: key, label: "label", byteCount: 0) == [])
    }

    @Test("comparison and wiping")
    func secrets() {
        #expect(constantTimeEqual([1, 2], [1, 2]))
        #expect(constantTimeEqual([], []))
        #expect(!constantTimeEqual([1, 2], [1, 3]))
        #expect(!constantTimeEqual([1, 2], [1]))
        var bytes: [UInt8] = [1, 2, 3]
        let secret = SecretBytes(taking: &bytes)
        #expect(bytes == [])
        #expect(secret.count == 3)
        #expect(secret.withBytes { $0 } == [1, 2, 3])
        var copy = secret.copied()
        wipe(&copy)
        #expect(copy == [])
        #expect(secret.copied() == [1, 2, 3])
    }
}
