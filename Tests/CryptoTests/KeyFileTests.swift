// Private keys and PEM as other programs write them.

import Crypto
import TestSupport
import Testing

@Suite struct KeyFileTests {
    /// Made with `openssl ecparam -name secp384r1 -genkey -noout`, for this test alone.
    static let sec1 = """
        -----BEGIN EC PRIVATE KEY-----
        MIGkAgEBBDDOVhviAnQ5leN5b0dL/Fqf2I1Xyui2oNo8wEkwPLWdpKX+ft8RR4z+
        m66D3+uchLSgBwYFK4EEACKhZANiAATfGmK7B8WYVMoMyHG4kZ6iwdxuxgLu8V+E
        OFWqb7GAvOkq0LgcrxFVp2j7rRkJXZpKvX8hfT1j8ecg9WWU5f8h/hc70vgwQ6Zn
        ttnK6nwPeTMjelq3zCWowqjcjM03Lts=
        -----END EC PRIVATE KEY-----
        """
    /// The same key by `openssl pkcs8 -topk8 -nocrypt`.
    static let pkcs8 = """
        -----BEGIN PRIVATE KEY-----
        MIG2AgEAMBAGByqGSM49AgEGBSuBBAAiBIGeMIGbAgEBBDDOVhviAnQ5leN5b0dL
        /Fqf2I1Xyui2oNo8wEkwPLWdpKX+ft8RR4z+m66D3+uchLShZANiAATfGmK7B8WY
        VMoMyHG4kZ6iwdxuxgLu8V+EOFWqb7GAvOkq0LgcrxFVp2j7rRkJXZpKvX8hfT1j
        8ecg9WWU5f8h/hc70vgwQ6ZnttnK6nwPeTMjelq3zCWowqjcjM03Lts=
        -----END PRIVATE KEY-----
        """
    /// A key on P-256.
    static let other = """
        -----BEGIN EC PRIVATE KEY-----
        MHcCAQEEIKaR/6AgJNqlImeTvvxR69kb9oU+aEAgbB/F2ZvBWONKoAoGCCqGSM49
        AwEHoUQDQgAEIUn5MpLpXY5N678U/QIF4L90iAbehqz/V48aclnivmmGeOPbn0Cc
        CXx2H2HkJG1ozMd2HUI6VPwmfCqRuoLouw==
        -----END EC PRIVATE KEY-----
        """

    private func der(_ text: String) throws -> [UInt8] {
        try #require(PEM.blocks(Array(text.utf8))?.first).bytes
    }

    @Test func bothFormsGiveTheSameKey() throws {
        let first = try #require(P384PrivateKey(der: der(Self.sec1)))
        let second = try #require(P384PrivateKey(der: der(Self.pkcs8)))
        #expect(first.publicKey.littleEndianX == second.publicKey.littleEndianX)
        #expect(first.publicKey.littleEndianX.reversed().prefix(4).map { $0 } == [UInt8](hex: "df1a62bb"))
        let signature = first.sign([1, 2, 3], hash: .sha384)
        #expect(second.publicKey.isValidSignature(littleEndianR: signature.r, s: signature.s, of: [1, 2, 3]))
    }

    @Test func otherFilesAreRefused() throws {
        #expect(P384PrivateKey(der: try der(Self.other)) == nil)
        #expect(P384PrivateKey(der: []) == nil && P384PrivateKey(der: [0x30, 0]) == nil)
        let good = try der(Self.sec1)
        for count in stride(from: 0, to: good.count, by: 5) {
            #expect(P384PrivateKey(der: Array(good.prefix(count))) == nil)
        }
    }

    @Test func textForm() throws {
        for count in 0..<70 {
            let block = PEM.Block(label: "TEST", bytes: (0..<count).map { UInt8($0 &* 3) })
            let text = PEM.text(block)
            #expect(PEM.isText(Array(text.utf8)))
            #expect(PEM.blocks(Array(("x\n" + text + text).utf8)) == [block, block])
            #expect(PEM.blocks(Array(text.replacing("\n", with: "\r\n").utf8)) == [block])
        }
        for text in [
            "-----BEGIN A-----\n", "-----BEGIN A-----\nAAAA\n-----END B-----\n",
            "-----BEGIN A-----\nAAA\n-----END A-----\n",
            "-----BEGIN A-----\nA*AA\n-----END A-----\n", "-----BEGIN A-----\nA=AA\n-----END A-----\n",
            "-----BEGIN A-----\nA===\n-----END A-----\n",
        ] {
            #expect(PEM.blocks(Array(text.utf8)) == nil, "\(text)")
        }
        #expect(PEM.blocks([0x30, 0x82]) == [] && !PEM.isText([0x30, 0x82]))
    }
}
