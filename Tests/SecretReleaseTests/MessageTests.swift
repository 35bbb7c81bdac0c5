import Crypto
import SEVABI
import SecretRelease
import TestSupport
import Testing

@Suite("Release of secrets: messages")
struct MessageTests {
    static let key = HPKE.deriveKeyPair(from: [UInt8](repeating: 9, count: 48)).publicKey

    static let samples: [SecretReleaseMessage] = [
        .hello(versions: 1...3),
        .challenge(nonce: [UInt8](0..<32)),
        .evidence(
            SecretEvidence(
                nonce: [UInt8](repeating: 5, count: 32), report: [UInt8](repeating: 6, count: 1184), publicKey: key,
                id: SecretID("a/b")!, certificates: [1, 2])),
        .release(encapsulatedKey: key.uncompressedPoint, ciphertext: [UInt8](repeating: 3, count: 17)),
        .refusal(SecretRefusal(.measurement, "MEASUREMENT")),
    ]

    @Test("bytes are as the catalogue draws them")
    func layout() {
        #expect(SecretReleaseMessage.hello(versions: 1...3).bytes.hex == "5352454c01000100" + "04000000" + "01000300")
        let challenge = SecretReleaseMessage.challenge(nonce: [UInt8](0..<32)).bytes
        #expect(challenge.hex == "5352454c01000200" + "20000000" + [UInt8](0..<32).hex)
        let evidence = Self.samples[2].bytes
        #expect(Array(evidence.prefix(12)).hex == "5352454c01000300" + "2c050000")
        let body = Array(evidence.dropFirst(12))
        #expect(body.count == 32 + 1184 + 97 + 2 + 3 + 4 + 2)
        #expect(body[0..<32].allSatisfy { $0 == 5 })
        #expect(body[32..<1216].allSatisfy { $0 == 6 })
        #expect(Array(body[1216..<1313]) == Self.key.uncompressedPoint)
        #expect(Array(body[1313...]).hex == "0300" + "612f62" + "02000000" + "0102")
        let refusal = SecretReleaseMessage.refusal(SecretRefusal(.measurement, "no")).bytes
        #expect(refusal.hex == "5352454c01000500" + "06000000" + "0b000000" + "6e6f")
    }

    @Test("every message comes back, also one behind the other and cut anywhere")
    func roundTrip() throws {
        var decoder = SecretReleaseDecoder()
        decoder.append(Self.samples.flatMap(\.bytes))
        for sample in Self.samples { #expect(try decoder.next() == sample) }
        #expect(try decoder.next() == nil)
        #expect(decoder.isEmpty)
        for sample in Self.samples {
            var decoder = SecretReleaseDecoder()
            for byte in sample.bytes {
                #expect(try decoder.next() == nil)
                decoder.append([byte])
            }
            #expect(try decoder.next() == sample)
        }
    }

    static let bad: [(String, String)] = [
        ("another protocol", "48545450"),
        ("another version", "5352454c0200010004000000"),
        ("no kind 0", "5352454c0100000004000000"),
        ("no kind 6", "5352454c0100060004000000"),
        ("a hello of 5 bytes", "5352454c0100010005000000"),
        ("a challenge of 31 bytes", "5352454c010002001f000000"),
        ("evidence that is too short", "5352454c0100030027050000"),
        ("evidence that is too long", "5352454c0100030027060100"),
        ("a release without a byte of secret", "5352454c0100040071000000"),
        ("a release that is too long", "5352454c0100040072000100"),
        ("a length of 4 GiB", "5352454c01000300ffffffff"),
        ("a refusal without a reason", "5352454c0100050003000000"),
        ("a refusal that is too long", "5352454c0100050005040000"),
        ("versions upside down", "5352454c01000100" + "04000000" + "02000100"),
    ]

    @Test("what is no message is refused before its body has come, and stays refused", arguments: bad)
    func refused(name: String, bytes: String) throws {
        var decoder = SecretReleaseDecoder()
        decoder.append(try #require([UInt8](hex: bytes)))
        #expect(throws: SecretReleaseError.self) { try decoder.next() }
        decoder.append(Self.samples[0].bytes)
        #expect(throws: SecretReleaseError.self) { try decoder.next() }
        #expect(decoder.isEmpty)
    }

    @Test("lengths inside evidence that do not fit the message are refused")
    func evidenceLengths() throws {
        let good = Self.samples[2].bytes
        let idLength = 12 + 32 + 1184 + 97
        for (offset, value) in [
            (idLength, 0), (idLength, 4), (idLength, 255), (idLength + 1, 255), (idLength + 5, 1), (idLength + 5, 3),
            (idLength + 8, 255),
        ] as [(Int, UInt8)] {
            var changed = good
            changed[offset] = value
            var decoder = SecretReleaseDecoder()
            decoder.append(changed)
            #expect(throws: SecretReleaseError.self, "offset \(offset)") { try decoder.next() }
        }
        // A name with a space.
        var changed = good
        changed[idLength + 3] = 0x20
        var decoder = SecretReleaseDecoder()
        decoder.append(changed)
        #expect(throws: SecretReleaseError.self) { try decoder.next() }
    }

    @Test("a detail is cut, never a message that nobody takes")
    func longDetail() throws {
        var decoder = SecretReleaseDecoder()
        decoder.append(
            SecretReleaseMessage.refusal(SecretRefusal(.chip, String(repeating: "ä", count: 1000))).bytes)
        guard case .refusal(let refusal)? = try decoder.next() else {
            Issue.record("no refusal")
            return
        }
        #expect(refusal.detail == String(repeating: "ä", count: 512))
        #expect(refusal.reason == .chip)
    }

    @Test("a key that is no point of the curve is no key")
    func keys() throws {
        var bytes = Self.samples[2].bytes
        bytes[12 + 32 + 1184 + 40] ^= 1
        var decoder = SecretReleaseDecoder()
        decoder.append(bytes)
        guard case .evidence(let evidence)? = try decoder.next() else {
            Issue.record("no evidence")
            return
        }
        #expect(evidence.key == nil)
    }
}
