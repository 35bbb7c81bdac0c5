import Crypto
import Testing

@Suite("SHA-2")
struct DigestTests {
    static let abc = Array("abc".utf8)
    // [FIPS 180-4] examples.
    static let abc256 = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    static let abc384 =
        "cb00753f45a35e8bb5a03d699ac65007272c32ab0eded1631a8b605a43ff5bed8086072ba1e7cc2358baeca134c825a7"
    static let empty384 =
        "38b060a751ac96384cd9327eb1b1e36a21fdb71114be07434c0cc7bf63f6e1da274edebfe76f65fbd51ad2f14898b95b"

    @Test("known answers, one-shot")
    func oneShot() {
        #expect(hexString(SHA256.hash(Self.abc)) == Self.abc256)
        #expect(hexString(SHA384.hash(Self.abc)) == Self.abc384)
        #expect(hexString(SHA384.hash([])) == Self.empty384)
        #expect(
            hexString(SHA512.hash(Self.abc))
                == "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a"
                + "2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f")
    }

    @Test("a hasher is used again and again, in pieces, and after an abandoned message")
    func reuse() {
        let hasher = SHA2Hasher(.sha384)
        #expect(hexString(hasher.hash(Self.abc)) == Self.abc384)
        hasher.start()
        hasher.update([1, 2, 3])
        hasher.start()
        hasher.update([0x61])
        hasher.update([])
        hasher.update([0x62, 0x63])
        #expect(hexString(hasher.finish()) == Self.abc384)
        #expect(hexString(hasher.hash384(Self.abc.span)) == Self.abc384)
        #expect(hexString(SHA2Hasher(.sha256).hash(Self.abc)) == Self.abc256)
    }

    @Test("random bytes have the length asked for and differ")
    func random() {
        #expect(randomBytes(0) == [])
        #expect(randomBytes(32).count == 32)
        #expect(randomBytes(32) != randomBytes(32))
    }
}

func hexString(_ bytes: [UInt8]) -> String {
    bytes.map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }.joined()
}

func hexString<let n: Int>(_ bytes: [n of UInt8]) -> String { hexString(bytes.indices.map { bytes[$0] }) }

func hex(_ text: String) -> [UInt8] {
    let digits = text.filter { !$0.isWhitespace }.compactMap { $0.hexDigitValue }
    return stride(from: 0, to: digits.count - 1, by: 2).map { UInt8(digits[$0] << 4 | digits[$0 + 1]) }
}
