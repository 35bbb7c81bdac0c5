import Crypto
import TestSupport
import Testing

@Suite("AES-256-GCM")
struct AESGCMTests {
    struct KnownAnswer: Sendable {
        let key, nonce, plaintext, authenticated, ciphertext, tag: String
    }

    /// Test cases 13 to 16 of the mode's specification [McGrew and Viega, "The Galois/Counter Mode of Operation"].
    static let knownAnswers = [
        KnownAnswer(
            key: String(repeating: "00", count: 32), nonce: String(repeating: "00", count: 12), plaintext: "",
            authenticated: "", ciphertext: "", tag: "530f8afbc74536b9a963b4f1c4cb738b"),
        KnownAnswer(
            key: String(repeating: "00", count: 32), nonce: String(repeating: "00", count: 12),
            plaintext: String(repeating: "00", count: 16), authenticated: "",
            ciphertext: "cea7403d4d606b6e074ec5d3baf39d18", tag: "d0d1c8a799996bf0265b98b5d48ab919"),
        KnownAnswer(
            key: "feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308",
            nonce: "cafebabefacedbaddecaf888",
            plaintext: "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a72"
                + "1c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b391aafd255",
            authenticated: "",
            ciphertext: "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa"
                + "8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f662898015ad",
            tag: "b094dac5d93471bdec1a502270e3cc6c"),
        KnownAnswer(
            key: "feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308",
            nonce: "cafebabefacedbaddecaf888",
            plaintext: "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a72"
                + "1c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39",
            authenticated: "feedfacedeadbeeffeedfacedeadbeefabaddad2",
            ciphertext: "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa"
                + "8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f662",
            tag: "76fc6ece0f4e1768cddf8853bb2d551b"),
    ]

    @Test("the specification's test cases, both ways", arguments: knownAnswers)
    func knownAnswer(_ answer: KnownAnswer) throws {
        let key = try #require([UInt8](hex: answer.key))
        let nonce = try #require([UInt8](hex: answer.nonce))
        let plaintext = try #require([UInt8](hex: answer.plaintext))
        let authenticated = try #require([UInt8](hex: answer.authenticated))
        let sealed = AES256GCM.seal(plaintext, authenticating: authenticated, key: key, nonce: nonce)
        #expect(sealed.ciphertext.hex == answer.ciphertext)
        #expect(sealed.tag.hex == answer.tag)
        #expect(
            AES256GCM.open(
                sealed.ciphertext, tag: sealed.tag, authenticating: authenticated, key: key, nonce: nonce) == plaintext)
    }

    @Test("one changed bit anywhere, and nothing comes out")
    func tampering() {
        let key = [UInt8](repeating: 1, count: 32)
        let nonce = [UInt8](repeating: 2, count: 12)
        let authenticated = [UInt8](repeating: 3, count: 48)
        let plaintext = (0..<96 as Range<UInt8>).map { $0 }
        let (ciphertext, tag) = AES256GCM.seal(plaintext, authenticating: authenticated, key: key, nonce: nonce)
        func opens(
            _ ciphertext: [UInt8], _ tag: [UInt8], _ authenticated: [UInt8], _ key: [UInt8], _ nonce: [UInt8]
        ) -> Bool {
            AES256GCM.open(ciphertext, tag: tag, authenticating: authenticated, key: key, nonce: nonce) != nil
        }
        #expect(opens(ciphertext, tag, authenticated, key, nonce))
        func flipped(_ bytes: [UInt8], _ bit: Int) -> [UInt8] {
            var bytes = bytes
            bytes[bit / 8] ^= 1 << UInt8(bit % 8)
            return bytes
        }
        for bit in 0..<(8 * ciphertext.count) {
            #expect(!opens(flipped(ciphertext, bit), tag, authenticated, key, nonce))
        }
        for bit in 0..<128 { #expect(!opens(ciphertext, flipped(tag, bit), authenticated, key, nonce)) }
        for bit in 0..<(8 * 48) { #expect(!opens(ciphertext, tag, flipped(authenticated, bit), key, nonce)) }
        for bit in 0..<256 { #expect(!opens(ciphertext, tag, authenticated, flipped(key, bit), nonce)) }
        for bit in 0..<96 { #expect(!opens(ciphertext, tag, authenticated, key, flipped(nonce, bit))) }
        #expect(!opens(Array(ciphertext.dropLast()), tag, authenticated, key, nonce))
        #expect(!opens(ciphertext, Array(tag.dropLast()), authenticated, key, nonce), "a short tag is a wrong one")
        #expect(!opens(ciphertext, [], authenticated, key, nonce))
        #expect(!opens([], tag, authenticated, key, nonce))
    }
}
