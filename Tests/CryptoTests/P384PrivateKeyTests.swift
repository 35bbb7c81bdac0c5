import Crypto
import TestSupport
import Testing

@Suite("P-384 private keys")
struct P384PrivateKeyTests {
    /// [RFC 6979 A.2.6]: message, hash, r, s.
    static let rfc6979: [(message: String, hash: HashAlgorithm, r: String, s: String)] = [
        (
            "sample", .sha256,
            "21B13D1E013C7FA1392D03C5F99AF8B30C570C6F98D4EA8E354B63A21D3DAA33BDE1E888E63355D92FA2B3C36D8FB2CD",
            "F3AA443FB107745BF4BD77CB3891674632068A10CA67E3D45DB2266FA7D1FEEBEFDC63ECCD1AC42EC0CB8668A4FA0AB0"
        ),
        (
            "sample", .sha384,
            "94EDBB92A5ECB8AAD4736E56C691916B3F88140666CE9FA73D64C4EA95AD133C81A648152E44ACF96E36DD1E80FABE46",
            "99EF4AEB15F178CEA1FE40DB2603138F130E740A19624526203B6351D0A3A94FA329C145786E679E7B82C71A38628AC8"
        ),
        (
            "test", .sha256,
            "6D6DEFAC9AB64DABAFE36C6BF510352A4CC27001263638E5B16D9BB51D451559F918EEDAF2293BE5B475CC8F0188636B",
            "2D46F3BECBCC523D5F1A1256BF0C9B024D879BA9E838144C8BA6BAEB4B53B47D51AB373F9845C0514EEFB14024787265"
        ),
        (
            "test", .sha384,
            "8203B63D3C853E8D77227FB377BCF7B7B772E97892A80F36AB775D509D7A5FEB0542A7F0812998DA8F1DD3CA3CF023DB",
            "DDD0760448D42D8A43AF45AF836FCE4DE8BE06B485E9B61B827C2F13173923E06A739F040649A667BF3B828246BAA5A5"
        ),
    ]
    static let scalar = hex(
        "6B9D3DAD2E1B8C1C05B19875B6659F4DE23C3B667BF297BA9AA47740787137D896D5724E4C70A825F872C9EA60D2EDF5")
    static let order = hex(
        "ffffffffffffffffffffffffffffffffffffffffffffffffc7634d81f4372ddf581a0db248b0a77aecec196accc52973")

    @Test("signatures: RFC 6979 A.2.6", arguments: rfc6979)
    func signatures(message: String, hash: HashAlgorithm, r: String, s: String) throws {
        let key = try #require(P384PrivateKey(bigEndianScalar: Self.scalar))
        #expect(key.publicKey.littleEndianX == ECDSATests.x)
        #expect(key.publicKey.littleEndianY == ECDSATests.y)
        #expect(key.bigEndianScalar == Self.scalar)
        let message = Array(message.utf8)
        let signature = key.sign(message, hash: hash)
        #expect(Array(signature.r.reversed()) == hex(r))
        #expect(Array(signature.s.reversed()) == hex(s))
        #expect(
            key.publicKey.isValidSignature(littleEndianR: signature.r, s: signature.s, of: message, hash: hash))
        let other: HashAlgorithm = hash == .sha256 ? .sha384 : .sha256
        #expect(
            !key.publicKey.isValidSignature(littleEndianR: signature.r, s: signature.s, of: message, hash: other))
    }

    @Test(
        "key agreement: both sides and the known answers of the foreign sessions",
        .enabled(if: ForeignVectors.arePresent, "\(ForeignVectors.absence)"))
    func agreement() throws {
        let text = String(decoding: try #require(ForeignVectors.bytes("legacy-sev/session.json")), as: UTF8.self)
        func values(_ name: String) -> [[UInt8]] {
            text.split(separator: "\"\(name)\": \"").dropFirst().map { hex(String($0.prefix { $0 != "\"" })) }
        }
        let platform = values("platform_private")
        let owner = values("guestowner_private")
        #expect(platform.count == 2 && owner.count == 2)
        for (index, z) in values("z").enumerated() {
            let a = try #require(P384PrivateKey(bigEndianScalar: platform[index]))
            let b = try #require(P384PrivateKey(bigEndianScalar: owner[index]))
            #expect(a.sharedSecret(with: b.publicKey) == z)
            #expect(b.sharedSecret(with: a.publicKey) == z)
        }
    }

    @Test("only 1…n-1 are keys")
    func range() throws {
        let zero = [UInt8](repeating: 0, count: 48)
        var one = zero
        one[47] = 1
        var last = Self.order
        last[47] -= 1
        #expect(P384PrivateKey(bigEndianScalar: zero) == nil)
        #expect(P384PrivateKey(bigEndianScalar: one) != nil)
        #expect(P384PrivateKey(bigEndianScalar: last) != nil)
        #expect(P384PrivateKey(bigEndianScalar: Self.order) == nil)
        #expect(P384PrivateKey(bigEndianScalar: [UInt8](repeating: 0xff, count: 48)) == nil)
        #expect(P384PrivateKey(bigEndianScalar: Array(one.dropFirst())) == nil)
        #expect(P384PrivateKey(bigEndianScalar: [0] + one) == nil)
        #expect(P384PrivateKey(bigEndianScalar: []) == nil)
        // -1 · G has the X of G.
        let base = try #require(P384PrivateKey(bigEndianScalar: one)).publicKey
        let negative = try #require(P384PrivateKey(bigEndianScalar: last)).publicKey
        #expect(base.littleEndianX == negative.littleEndianX)
        #expect(base.littleEndianY != negative.littleEndianY)
    }

    @Test("derived keys are stable and differ by secret and label; random ones differ")
    func derivation() {
        let secret = [UInt8](repeating: 5, count: 32)
        let key = P384PrivateKey(derivedFrom: secret, label: "a")
        #expect(key.bigEndianScalar == P384PrivateKey(derivedFrom: secret, label: "a").bigEndianScalar)
        #expect(key.bigEndianScalar != P384PrivateKey(derivedFrom: secret, label: "b").bigEndianScalar)
        #expect(key.bigEndianScalar != P384PrivateKey(derivedFrom: secret + [1], label: "a").bigEndianScalar)
        #expect(P384PrivateKey.random().bigEndianScalar != P384PrivateKey.random().bigEndianScalar)
        let signature = key.sign([1], hash: .sha384)
        #expect(key.publicKey.isValidSignature(littleEndianR: signature.r, s: signature.s, of: [1]))
    }
}
