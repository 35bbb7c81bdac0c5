import Crypto
import Testing

@Suite("AES-XTS")
struct AESXTSTests {
    @Test("IEEE 1619 vector 2: AES-128, one 32-byte data unit")
    func vector2() {
        let key = [UInt8](repeating: 0x11, count: 16) + [UInt8](repeating: 0x22, count: 16)
        let cipher = AESXTS(key: key)
        let plaintext = [UInt8](repeating: 0x44, count: 32)
        let ciphertext = cipher.encrypt(plaintext, tweak: 0x33_3333_3333)
        #expect(hexString(ciphertext) == "c454185e6a16936e39334038acef838bfb186fff7480adc4289382ecd6d394f0")
        #expect(cipher.decrypt(ciphertext, tweak: 0x33_3333_3333) == plaintext)
    }

    @Test("IEEE 1619 vector 10: AES-256, a 512-byte data unit")
    func vector10() {
        let key = hex(
            "2718281828459045235360287471352662497757247093699959574966967627"
                + "3141592653589793238462643383279502884197169399375105820974944592")
        let cipher = AESXTS(key: key)
        let plaintext = (0..<512).map { UInt8(truncatingIfNeeded: $0) }
        let ciphertext = cipher.encrypt(plaintext, tweak: 0xff)
        #expect(
            hexString(Array(ciphertext.prefix(32)))
                == "1c3b3a102f770386e4836c99e370cf9bea00803f5e482357a4ae12d414a3e63b")
        #expect(cipher.decrypt(ciphertext, tweak: 0xff) == plaintext)
    }

    @Test("the tweak makes equal pages differ, and only it")
    func tweak() {
        let cipher = AESXTS(key: Array(0..<32))
        let page = [UInt8](repeating: 0, count: 4096)
        #expect(cipher.encrypt(page, tweak: 0x1000) != cipher.encrypt(page, tweak: 0x2000))
        #expect(cipher.encrypt(page, tweak: 0x1000) == cipher.encrypt(page, tweak: 0x1000))
        #expect(cipher.decrypt(cipher.encrypt(page, tweak: 0x1000), tweak: 0x2000) != page)
    }

    @Test("one bit of plaintext changes its 16-byte unit and no other")
    func units() {
        let cipher = AESXTS(key: Array(0..<64))
        var page = [UInt8](repeating: 7, count: 4096)
        let before = cipher.encrypt(page, tweak: 5)
        page[100] ^= 1
        let after = cipher.encrypt(page, tweak: 5)
        let changed = Set((0..<4096).filter { before[$0] != after[$0] }.map { $0 / 16 })
        #expect(changed == [100 / 16])
    }
}
