import Crypto
import Testing

@Suite("ECDSA P-384")
struct ECDSATests {
    // [RFC 6979 A.2.6]: P-384, SHA-384, message "sample". Big-endian as printed there.
    static let x = Array(
        hex("EC3A4E415B4E19A4568618029F427FA5DA9A8BC4AE92E02E06AAE5286B300C64DEF8F0EA9055866064A254515480BC13")
            .reversed())
    static let y = Array(
        hex("8015D9B72D7D57244EA8EF9AC0C621896708A59367F9DFB9F54CA84B3F1C9DB1288B231C3AE0D4FE7344FD2533264720")
            .reversed())
    static let r = Array(
        hex("94EDBB92A5ECB8AAD4736E56C691916B3F88140666CE9FA73D64C4EA95AD133C81A648152E44ACF96E36DD1E80FABE46")
            .reversed())
    static let s = Array(
        hex("99EF4AEB15F178CEA1FE40DB2603138F130E740A19624526203B6351D0A3A94FA329C145786E679E7B82C71A38628AC8")
            .reversed())
    static let message = Array("sample".utf8)

    @Test("the RFC's signature, with and without the firmware's padding")
    func valid() throws {
        let zeroes = [UInt8](repeating: 0, count: 24)
        let key = try #require(P384PublicKey(littleEndianX: Self.x, y: Self.y))
        #expect(key.isValidSignature(littleEndianR: Self.r, s: Self.s, of: Self.message))
        let padded = try #require(P384PublicKey(littleEndianX: Self.x + zeroes, y: Self.y + zeroes))
        #expect(padded.isValidSignature(littleEndianR: Self.r + zeroes, s: Self.s + zeroes, of: Self.message))
    }

    @Test("anything else is refused")
    func invalid() throws {
        let key = try #require(P384PublicKey(littleEndianX: Self.x, y: Self.y))
        for bit in [0, 7, 200, 383] {
            var r = Self.r
            r[bit / 8] ^= 1 << UInt8(bit % 8)
            #expect(!key.isValidSignature(littleEndianR: r, s: Self.s, of: Self.message))
            var s = Self.s
            s[bit / 8] ^= 1 << UInt8(bit % 8)
            #expect(!key.isValidSignature(littleEndianR: Self.r, s: s, of: Self.message))
        }
        #expect(!key.isValidSignature(littleEndianR: Self.r, s: Self.s, of: Array("sampled".utf8)))
        #expect(!key.isValidSignature(littleEndianR: [], s: [], of: Self.message))
        let ones = [UInt8](repeating: 0xff, count: 72)
        #expect(!key.isValidSignature(littleEndianR: ones, s: ones, of: Self.message))
        #expect(!key.isValidSignature(littleEndianR: Self.s, s: Self.r, of: Self.message))
    }

    @Test("a point that is not on the curve is no key")
    func points() {
        var y = Self.y
        y[0] ^= 1
        #expect(P384PublicKey(littleEndianX: Self.x, y: y) == nil)
        #expect(P384PublicKey(littleEndianX: [], y: []) == nil)
        #expect(P384PublicKey(littleEndianX: Self.x + [1], y: Self.y) == nil)
        #expect(P384PublicKey(littleEndianX: [UInt8](repeating: 0xff, count: 48), y: Self.y) == nil)
    }
}
