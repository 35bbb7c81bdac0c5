// Certificate tables, ID blocks, JSON and dates: their edges.

import Attestation
import Crypto
import SEVABI
import Testing

@Suite struct FormatTests {
    @Test func tablesBothWays() throws {
        let table = CertificateTable(entries: [.init(.vlek, [1, 2, 3]), .init(.ark, []), .init(.ask, [4])])
        let bytes = table.bytes
        #expect(bytes.count == 4 * 24 + 4)
        #expect(
            Array(bytes[..<24]).map { $0 } == [
                0xa8, 0x07, 0x4b, 0xc2, 0xa2, 0x5a, 0x48, 0x3e, 0xaa, 0xe6, 0x39, 0xc0, 0x45, 0xa0, 0xb8, 0xa1, 96, 0,
                0, 0, 3,
                0, 0, 0,
            ])
        let read = try CertificateTable(bytes: bytes)
        #expect(read == table && read[.ask] == [4] && read[.vcek] == nil)
        #expect(CertificateTable.Identifier.vlek.description == "a8074bc2-a25a-483e-aae6-39c045a0b8a1")
        #expect(try CertificateTable(bytes: [UInt8](repeating: 0, count: 24)).entries.isEmpty)
    }

    @Test func malformedTablesAreRefused() throws {
        let good = CertificateTable(entries: [.init(.vlek, [1, 2, 3])]).bytes
        var inside = good
        inside[16] = 24
        var behind = good
        behind[20] = 4
        var huge = good
        for index in 16..<24 { huge[index] = 0xff }
        let endless = [UInt8](repeating: 1, count: 24 * 100)
        for bytes in [[], [0], Array(good.prefix(40)), inside, behind, huge, endless] {
            #expect(refusal { _ = try CertificateTable(bytes: bytes) }?.category == .malformed)
        }
    }

    @Test func idBlocksAreMadeAndChecked() throws {
        let idKey = P384PrivateKey(derivedFrom: TestKeys.seed, label: "id")
        let authorKey = P384PrivateKey(derivedFrom: TestKeys.seed, label: "author")
        let digest = LaunchDigest(.init(repeating: 0x3e))
        let block = IDBlock(launchDigest: digest, guestSVN: 3)
        for author in [nil, authorKey] {
            let signed = SignedIDBlock(signing: block, idKey: idKey, authorKey: author)
            try signed.check(launchDigest: digest, policy: .default)
            #expect((signed.authorKeyDigest == nil) == (author == nil) && signed.idKeyDigest.count == 48)
            let other = LaunchDigest(.init(repeating: 0))
            let measurement = refusal { try signed.check(launchDigest: other) }
            #expect(measurement?.field == "LD" && measurement?.found.contains("BAD_MEASUREMENT") == true)
            let policy = refusal { try signed.check(policy: GuestPolicy(rawValue: 0xb0000)) }
            #expect(policy?.field == "POLICY" && policy?.found.contains("POLICY_FAILURE") == true)
            var changed = block
            changed.guestSVN = 4
            let forged = SignedIDBlock(block: changed, authentication: signed.authentication)
            #expect(refusal { try forged.check() }?.field == "ID_BLOCK_SIG")
        }
        var algorithm = SignedIDBlock(signing: block, idKey: idKey).authentication
        algorithm.idKeyAlgorithm = 2
        #expect(refusal { try SignedIDBlock(block: block, authentication: algorithm).check() }?.field == "ID_KEY_ALGO")
        #expect(
            refusal { try SignedIDBlock(block: block, authentication: IDAuthentication()).check() }?.field == "ID_KEY")
        let old = SignedIDBlock(signing: IDBlock(launchDigest: digest, version: 2), idKey: idKey)
        #expect(refusal { try old.check() }?.field == "VERSION")
    }

    @Test func strictJSON() throws {
        func read(_ text: String) throws -> JSONInput { try JSONInput(text: Array(text.utf8)) }
        #expect(
            try read(#" {"a": [1, true, null], "b": "x\u00e9\ud83d\ude00\n"} "#)
                == .object([
                    .init(name: "a", value: .array([.number(1), .bool(true), .null])),
                    .init(name: "b", value: .string("xé😀\n")),
                ]))
        #expect(try read("18446744073709551615") == .number(.max))
        for text in [
            "", "{", "[1,]", "{\"a\":1,}", "{\"a\":1,\"a\":2}", "01", "1.0", "1e3", "-1", "18446744073709551616", "tru",
            "\"a", "\"\\x\"", "\"\\ud800\"", "\"\\ud800\\u0041\"", "\"\u{1}\"", "[1] 2", "{a:1}", "{\"a\" 1}",
            String(repeating: "[", count: 40),
        ] {
            #expect(throws: JSONInput.Failure.self, "\(text)") { try read(text) }
        }
        #expect(throws: JSONInput.Failure(found: "a string that is not UTF-8", line: 2)) {
            try JSONInput(text: [0x0a, 0x22, 0xff, 0x22])
        }
    }

    @Test func datesAsText() {
        #expect(utcText(0) == "1970-01-01 00:00:00 UTC")
        #expect(utcText(951_782_400) == "2000-02-29 00:00:00 UTC")
        #expect(utcText(1_763_895_599) == "2025-11-23 10:59:59 UTC")
        #expect(utcText(-1) == "1969-12-31 23:59:59 UTC")
        #expect(utcText(.max).hasSuffix(" UTC") && utcText(.min).hasSuffix(" UTC"))
    }

    @Test func layoutsOfVersions() {
        let turin = SecurityVersions(tcbVersion: 0x5100_0000_0401_0101, of: .turin)
        #expect(turin == SecurityVersions(fmc: 1, bootLoader: 1, tee: 1, snp: 4, microcode: 81))
        #expect(SecurityVersions(tcbVersion: 0x5100_0000_0401_0101, of: .milan) == nil)
        #expect(
            SecurityVersions(tcbVersion: 0xd918_0000_0000_0004, of: .milan)
                == SecurityVersions(bootLoader: 4, tee: 0, snp: 24, microcode: 217))
        #expect(SecurityVersions(tcbVersion: 0xd918_0000_0000_0004, of: .turin) == nil)
    }
}
