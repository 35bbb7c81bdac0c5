// Signed ID blocks for tests, made with two throw-away P-384 keys.
//
// Made with `openssl ecparam -name secp384r1 -genkey` (twice) and `openssl dgst -sha384 -sign`, numbers reversed to
// little-endian. Every block is launch digest ‖ 16 × 0x11 ‖ 16 × 0x22 ‖ version ‖ SVN 7 ‖ policy; the digest is that of
// a guest with one ZERO page at GPA 0x1000. "other…" blocks differ from it in what their name says and are signed too.

import SEVABI

enum IDBlockFixture {
    static let idKeyX = hex(
        "799f3d17c3c561ff235966828dda57b6b4751b34efeeff16"
            + "10523a5ece2f6db51e9c77e57ab47259000fef25255adda1")
    static let idKeyY = hex(
        "b69f9f73c066df9e8cdb46d53d2280bb417cf7e92f4da924"
            + "d25d86e814c0653e2cf4e3994769a860a0da5bc83163c3b6")
    static let authorKeyX = hex(
        "a6b07ed216f63369f49c1e4c7f9576bf3e46aa90cac3344d"
            + "7893652e423f420ad24ee2eebbdd14111b10c3ba854ec6ad")
    static let authorKeyY = hex(
        "4135aca3017c2b011980788b5e6dd443c5e635a210b0d0fe"
            + "5fbd8c56fda1f690076b2c57612a233614d2cac52fa2f8a2")
    static let launchDigest = hex(
        "4bd4147976a1e7554c1c778a781affc1c672f1965a727ba1"
            + "6084989b7e356044a28bbe585a2f75dac9356fa5ab78f061")
    static let matchingR = hex(
        "77ab0a93b5bb21efc0b14104095db8709414566b83b5fd2c"
            + "c8736b8b086ed6a4ef681eac57f420f8d9af12e392db6f83")
    static let matchingS = hex(
        "43e4b989d6d7dd8809f67d4bdfc4279b76fc784c7b05baef"
            + "374db99b345b0b82ab8e2e51581f11ebf39fcafb5c0d3f88")
    static let otherDigestR = hex(
        "3e24b04e52177aaf8ef47cee59858cb8b9448c4ddda21868"
            + "31bf1b1aec934068192763f88fc5d5ce96aff2f81ba566f8")
    static let otherDigestS = hex(
        "055a04858017e229d96edd3b19ca3089fd462ea714ae6875"
            + "869ab6c820a300a63dd249e1a71e5b11bcc659792741de70")
    static let otherPolicyR = hex(
        "5b4a64bb4a0c876d9abd5559991f791859018574fa9cc7cd"
            + "5eed06d00d36331369c4abe7890fa3dd0a70c49bf5d93e90")
    static let otherPolicyS = hex(
        "875d8204efb179968d3bcfc03aefa594a8ebdce93d7660e8"
            + "43aeadc703da9febdd4adc545350581adbc04fa4cfffed7f")
    static let otherVersionR = hex(
        "cddc4a1d7f3dd4328c998ff7e252b51bd56faef1254f9811"
            + "9ed2bc8fd02caf8c2a99f520067e9db1b423c0314740ac8e")
    static let otherVersionS = hex(
        "579fa511e0c40e10e515885741dbd959c23b7f23d36fa6a4"
            + "404d09b56c5c42dc9fc6c7bb78a37a162d7eb49c279a5d02")
    static let otherDigestAndPolicyR = hex(
        "97a97aa94fa63442a3f224c39355f68d75c60af2fc37ef5b"
            + "082bb8c7955c03067ce356b26179854c92d386af7c69df75")
    static let otherDigestAndPolicyS = hex(
        "ce4eccea539f0b3906f8215990da7b3bef732486a664fad6"
            + "dca8a4260b60b06b20b77aa9e131fb6836136816fe01c147")
    static let idKeyR = hex(
        "eca3fdc92081a287cc44e713e3bff8dcd4ebf1bbd24c1fc7"
            + "21c503908e8b708d5d7659240386cb4602f689941a60fbab")
    static let idKeyS = hex(
        "00a3bea65b164d9c3361374b49755da30b96a8566cf4fc1c"
            + "7274508f1c537df64a683658735b2d43bef737c6eebef58b")

    static func block(
        digest: [UInt8] = launchDigest, policy: UInt64 = 0x30000, version: UInt32 = 1
    ) -> IDBlock {
        IDBlock(
            launchDigest: LaunchDigest(digest)!, familyID: .init(repeating: 0x11), imageID: .init(repeating: 0x22),
            version: version, guestSVN: 7, policy: GuestPolicy(rawValue: policy))
    }

    static func authentication(_ r: [UInt8], _ s: [UInt8]) -> IDAuthentication {
        var page = IDAuthentication()
        page.idBlockSignature = SignatureField(r: r, s: s)
        page.idKey = PublicKeyField(x: idKeyX, y: idKeyY)
        page.idKeySignature = SignatureField(r: idKeyR, s: idKeyS)
        page.authorKey = PublicKeyField(x: authorKeyX, y: authorKeyY)
        return page
    }
}
