import Crypto
import TestSupport
import Testing

@Suite("HPKE and HKDF")
struct HPKETests {
    /// One case of Tests/Fixtures/hpke/p384-base.txt.
    struct KnownAnswer: Sendable {
        struct Message: Sendable {
            let sequence: Int
            let plaintext, authenticated, ciphertext: [UInt8]
        }

        struct Export: Sendable {
            let context: [UInt8]
            let byteCount: Int
            let value: [UInt8]
        }

        var name = ""
        var fields: [String: [UInt8]] = [:]
        var messages: [Message] = []
        var exports: [Export] = []

        subscript(field: String) -> [UInt8] {
            get throws { try #require(fields[field], "field \(field)") }
        }

        static func all() throws -> [KnownAnswer] {
            func bytes(_ text: Substring) throws -> [UInt8] {
                text == "-" ? [] : try #require([UInt8](hex: String(text)))
            }
            var cases: [KnownAnswer] = []
            let file = try #require(readFile(PackageFolder.path + "/Tests/Fixtures/hpke/p384-base.txt"))
            let text = String(decoding: file, as: UTF8.self)
            for line in text.split(separator: "\n") {
                let words = line.split(separator: " ", omittingEmptySubsequences: false)
                if words[0] == "case" {
                    cases.append(KnownAnswer(name: String(words[1])))
                    continue
                }
                var last = try #require(cases.last)
                switch words[0] {
                case "message":
                    try #require(words.count == 5)
                    last.messages.append(
                        Message(
                            sequence: try #require(Int(words[1])), plaintext: try bytes(words[2]),
                            authenticated: try bytes(words[3]), ciphertext: try bytes(words[4])))
                case "export":
                    try #require(words.count == 4)
                    last.exports.append(
                        Export(
                            context: try bytes(words[1]), byteCount: try #require(Int(words[2])),
                            value: try bytes(words[3])))
                default: last.fields[String(words[0])] = try bytes(words[1])
                }
                cases[cases.count - 1] = last
            }
            return cases
        }
    }

    @Test("two other implementations' answers: key pairs, encapsulation, messages, exports, from both sides")
    func knownAnswer() throws {
        let answers = try KnownAnswer.all()
        try #require(answers.count == 6)
        for answer in answers {
            let recipient = HPKE.deriveKeyPair(from: try answer["ikmR"])
            let ephemeral = HPKE.deriveKeyPair(from: try answer["ikmE"])
            #expect(try recipient.bigEndianScalar == answer["skR"])
            #expect(try recipient.publicKey.uncompressedPoint == answer["pkR"])
            #expect(try ephemeral.bigEndianScalar == answer["skE"])
            let info = try answer["info"]
            let sender = HPKESender(to: recipient.publicKey, info: info, ephemeral: ephemeral)
            #expect(try sender.encapsulatedKey == answer["enc"])
            let receiver = try #require(HPKEReceiver(encapsulatedKey: answer["enc"], with: recipient, info: info))
            var sequence = 0
            for message in answer.messages {
                // The messages that the file leaves out.
                while sequence < message.sequence {
                    #expect(receiver.open(sender.seal([])) == [])
                    sequence += 1
                }
                #expect(
                    sender.seal(message.plaintext, authenticating: message.authenticated) == message.ciphertext,
                    "message \(sequence)")
                #expect(
                    receiver.open(message.ciphertext, authenticating: message.authenticated) == message.plaintext)
                sequence += 1
            }
            for export in answer.exports {
                #expect(sender.export(export.context, byteCount: export.byteCount) == export.value)
                #expect(receiver.export(export.context, byteCount: export.byteCount) == export.value)
            }
            let first = try #require(answer.messages.first)
            #expect(
                HPKE.open(first.ciphertext, encapsulatedKey: try answer["enc"], with: recipient, info: info)
                    == first.plaintext)
        }
    }

    @Test("a message opens with its own key, info and authenticated data, and with no other")
    func everythingBinds() {
        let key = P384PrivateKey.random()
        let other = P384PrivateKey.random()
        let (encapsulated, ciphertext) = HPKE.seal([1, 2, 3], to: key.publicKey, info: [4], authenticating: [5])
        func open(
            _ ciphertext: [UInt8], _ encapsulated: [UInt8], _ key: P384PrivateKey, _ info: [UInt8], _ data: [UInt8]
        ) -> [UInt8]? {
            HPKE.open(ciphertext, encapsulatedKey: encapsulated, with: key, info: info, authenticating: data)
        }
        #expect(open(ciphertext, encapsulated, key, [4], [5]) == [1, 2, 3])
        #expect(open(ciphertext, encapsulated, other, [4], [5]) == nil)
        #expect(open(ciphertext, encapsulated, key, [], [5]) == nil)
        #expect(open(ciphertext, encapsulated, key, [4], []) == nil)
        #expect(open(ciphertext, HPKE.seal([], to: key.publicKey, info: [4]).encapsulatedKey, key, [4], [5]) == nil)
        for index in ciphertext.indices {
            var changed = ciphertext
            changed[index] ^= 1
            #expect(open(changed, encapsulated, key, [4], [5]) == nil, "byte \(index)")
        }
        for count in 0..<ciphertext.count {
            #expect(open(Array(ciphertext.prefix(count)), encapsulated, key, [4], [5]) == nil, "\(count) bytes")
        }
        // Every encapsulation is another one.
        let (first, second) = (HPKE.seal([1], to: key.publicKey, info: []), HPKE.seal([1], to: key.publicKey, info: []))
        #expect(first.encapsulatedKey != second.encapsulatedKey)
        #expect(first.ciphertext != second.ciphertext)
    }

    @Test("what is no point of the curve is no encapsulated key, and no public key")
    func pointValidation() {
        let key = P384PrivateKey.random()
        let (good, ciphertext) = HPKE.seal([1], to: key.publicKey, info: [])
        var bad: [(String, [UInt8])] = [
            ("nothing", []), ("infinity", [0]), ("short", Array(good.dropLast())), ("long", good + [0]),
            ("zeroes", [4] + [UInt8](repeating: 0, count: 96)),
            ("numbers above the field", [4] + [UInt8](repeating: 0xff, count: 96)),
        ]
        // Compressed [SEC 1 2.3.3] and hybrid forms of the same point are other encodings, which RFC 9180 does not have.
        bad.append(("compressed", [2 + (good[96] & 1)] + good[1..<49]))
        bad.append(("hybrid", [6 + (good[96] & 1)] + good[1...]))
        for index in 1..<97 {
            var moved = good
            moved[index] ^= 1
            bad.append(("byte \(index)", moved))
        }
        for (name, point) in bad {
            #expect(P384PublicKey(uncompressedPoint: point) == nil, "\(name)")
            #expect(HPKEReceiver(encapsulatedKey: point, with: key, info: []) == nil, "\(name)")
            #expect(HPKE.open(ciphertext, encapsulatedKey: point, with: key, info: []) == nil, "\(name)")
        }
        #expect(P384PublicKey(uncompressedPoint: good)?.uncompressedPoint == good)
    }

    @Test("messages are opened in order; one that is not next changes nothing")
    func order() throws {
        let key = P384PrivateKey.random()
        let sender = HPKESender(to: key.publicKey, info: [7])
        let receiver = try #require(
            HPKEReceiver(encapsulatedKey: sender.encapsulatedKey, with: key, info: [7]))
        let messages = [[1], [2], [3]].map { sender.seal($0) }
        #expect(receiver.open(messages[1]) == nil)
        #expect(receiver.open(messages[0]) == [1])
        #expect(receiver.open(messages[0]) == nil)
        #expect(receiver.open(messages[1]) == [2])
        #expect(receiver.open(messages[2]) == [3])
        #expect(receiver.export([], byteCount: 32) == sender.export([], byteCount: 32))
        #expect(receiver.export([0], byteCount: 32) != sender.export([], byteCount: 32))
    }

    /// [RFC 5869 A.1 to A.3], SHA-256: key material, salt, info, length, key, output.
    static let rfc5869: [(String, String, String, Int, String, String)] = [
        (
            String(repeating: "0b", count: 22), "000102030405060708090a0b0c", "f0f1f2f3f4f5f6f7f8f9", 42,
            "077709362c2e32df0ddc3f0dc47bba6390b6c73bb50f9c3122ec844ad7c2b3e5",
            "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865"
        ),
        (
            (0x00...0x4f).map { [UInt8($0)].hex }.joined(), (0x60...0xaf).map { [UInt8($0)].hex }.joined(),
            (0xb0...0xff).map { [UInt8($0)].hex }.joined(), 82,
            "06a6b88c5853361a06104c9ceb35b45cef760014904671014a193f40c15fc244",
            "b11e398dc80327a1c8e7f78c596a49344f012eda2d4efad8a050cc4c19afa97c59045a99cac7827271cb41c65e590e09"
                + "da3275600c2f09b8367793a9aca3db71cc30c58179ec3e87c14c01d5c1f3434f1d87"
        ),
        (
            String(repeating: "0b", count: 22), "", "", 42,
            "19ef24a32c717b167f33a91d6f648bdf96596776afdb6377ac434c1c293ccb04",
            "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8"
        ),
    ]

    @Test("HKDF: RFC 5869", arguments: rfc5869)
    func hkdf(material: String, salt: String, info: String, count: Int, key: String, output: String) throws {
        let extracted = HKDF.extract(
            try #require([UInt8](hex: material)), salt: try #require([UInt8](hex: salt)), hash: .sha256)
        #expect(extracted.hex == key)
        let info = try #require([UInt8](hex: info))
        #expect(HKDF.expand(extracted, info: info, byteCount: count, hash: .sha256).hex == output)
        #expect(HKDF.expand(extracted, info: info, byteCount: 0, hash: .sha256) == [])
        // The longest, whose counter ends at 255.
        #expect(HKDF.expand(extracted, info: info, byteCount: 255 * 32, hash: .sha256).count == 255 * 32)
    }
}
