import SEVABI
import TestSupport
import Testing

/// The formats of SEV and SEV-ES, against bytes made by others and by hand.
@Suite("Legacy formats")
struct LegacyTests {
    static let vectors = ForeignVectors.arePresent

    static func certificate(_ name: String) throws -> SEVCertificate {
        let bytes = try #require(ForeignVectors.bytes("legacy-sev/\(name).cert"))
        return try #require(SEVCertificate(bytes: bytes))
    }

    @Test("a Naples machine's certificates", .enabled(if: vectors, "\(ForeignVectors.absence)"))
    func naplesCertificates() throws {
        typealias Expectation = (
            name: String, usage: SEVCertificate.Usage, algorithm: SEVCertificate.Algorithm, minor: UInt8,
            signers: [SEVCertificate.Usage], algorithms: [SEVCertificate.Algorithm]
        )
        let expected: [Expectation] = [
            ("cek", .cek, .ecdsaSHA256, 14, [.ask, .invalid], [.rsaSHA256, .none]),
            ("oca", .oca, .ecdsaSHA256, 16, [.oca, .invalid], [.ecdsaSHA256, .none]),
            ("pek", .pek, .ecdsaSHA256, 16, [.oca, .cek], [.ecdsaSHA256, .ecdsaSHA256]),
            ("pdh", .pdh, .ecdhSHA256, 16, [.pek, .invalid], [.ecdsaSHA256, .none]),
        ]
        for expectation in expected {
            let certificate = try Self.certificate(expectation.name)
            #expect(certificate.version == 1)
            #expect((certificate.apiMajor, certificate.apiMinor) == (0, expectation.minor))
            #expect(certificate.usage == expectation.usage)
            #expect(certificate.algorithm == expectation.algorithm)
            #expect(certificate.publicKey.curve == PublicKeyField.p384)
            #expect(certificate.publicKey.x[48...].allSatisfy { $0 == 0 })
            #expect(certificate.signatures.map(\.usage) == expectation.signers)
            #expect(certificate.signatures.map(\.algorithm) == expectation.algorithms)
            #expect(certificate.signedBytes == Array(certificate.bytes[..<0x414]))

            // Made anew from its own fields it is the same to the byte.
            var copy = SEVCertificate.make(
                usage: certificate.usage, algorithm: certificate.algorithm, apiMajor: 0,
                apiMinor: expectation.minor, x: certificate.publicKey.x, y: certificate.publicKey.y)
            for slot in 0..<2 {
                let signature = certificate.signature(slot: slot)
                if signature.usage == .ask {
                    copy.setSignature(
                        .init(usage: .ask, algorithm: .rsaSHA256, rsa: signature.value.rsa(byteCount: 256)), slot: slot)
                    #expect(signature.value.isZero(after: 256))
                } else if signature.usage != .invalid {
                    copy.setSignature(
                        .init(
                            usage: signature.usage, algorithm: .ecdsaSHA256, r: signature.value.r,
                            s: signature.value.s), slot: slot)
                    #expect(signature.value.isZero(after: 144))
                }
            }
            #expect(hexDifference(copy.bytes, certificate.bytes) == nil)
        }
    }

    @Test("AMD's Naples root and signing key", .enabled(if: vectors, "\(ForeignVectors.absence)"))
    func naplesRoots() throws {
        let arkBytes = try #require(ForeignVectors.bytes("legacy-sev/ark.cert"))
        let askBytes = try #require(ForeignVectors.bytes("legacy-sev/ask.cert"))
        let ark = try #require(AMDCertificate(bytes: arkBytes))
        let ask = try #require(AMDCertificate(bytes: askBytes))
        #expect(ark.version == 1)
        #expect(ark.keyID.hex == "1bb987c359494606b174945601c9ea5b")
        #expect(ark.certifyingID == ark.keyID)
        #expect(ark.usage == .ark)
        #expect(ark.modulusBitCount == 2048)
        #expect(ask.keyID.hex == "e139970cfc464377ae61b289e2f9e96e")
        #expect(ask.certifyingID == ark.keyID)
        #expect(ask.usage == .ask)
        #expect(ark.reserved_0x28.allSatisfy { $0 == 0 })
        #expect(ark.signedBytes.count == 0x240)
        #expect(ark.signedBytes + ark.signature == arkBytes)

        var copy = AMDCertificate.make(
            usage: .ask, keyID: ask.keyID, certifyingID: ask.certifyingID, modulus: ask.modulus, exponent: [1, 0, 1])
        copy.signature = ask.signature
        #expect(hexDifference(copy.bytes, askBytes) == nil)

        // Two in a row, as AMD's file has them.
        let first = try #require(AMDCertificate(atStartOf: askBytes + arkBytes))
        #expect(first == ask)
        #expect(AMDCertificate(bytes: askBytes + arkBytes) == nil)

        let bad = try #require(ForeignVectors.bytes("legacy-sev/ark-bad.cert"))
        #expect(AMDCertificate(bytes: bad) == nil)
        for count in 0..<arkBytes.count { #expect(AMDCertificate(atStartOf: Array(arkBytes.prefix(count))) == nil) }
    }

    @Test("an AMD certificate's sizes are 2048 or 4096 bits, both the same")
    func amdSizes() {
        let sizes: [UInt32] = [0, 1, 2047, 2048, 4096, 8192, 0x8000_0000, 0xffff_ffff]
        for exponent in sizes {
            for modulus in sizes {
                var bytes = [UInt8](repeating: 0, count: 1600)
                for i in 0..<4 {
                    bytes[0x38 + i] = UInt8(truncatingIfNeeded: exponent >> UInt32(8 * i))
                    bytes[0x3c + i] = UInt8(truncatingIfNeeded: modulus >> UInt32(8 * i))
                }
                let isWhole = exponent == modulus && (modulus == 2048 || modulus == 4096)
                #expect((AMDCertificate(atStartOf: bytes) != nil) == isWhole)
                #expect((AMDCertificate(bytes: bytes) != nil) == (isWhole && modulus == 4096))
            }
        }
        let made = AMDCertificate.make(
            usage: .ark, keyID: Array(0..<16), certifyingID: Array(16..<32),
            modulus: [UInt8](repeating: 7, count: 512), exponent: [1, 0, 1])
        #expect(made.bytes.count == 1600)
        #expect(made.modulus == [UInt8](repeating: 7, count: 512))
        #expect(made.exponent.prefix(4) == [1, 0, 1, 0])
        #expect(made.keyID == Array(0..<16))
        #expect(made.certifyingID == Array(16..<32))
    }

    @Test("structures take their own length and no other", arguments: 0..<256)
    func lengths(count: Int) {
        let bytes = [UInt8](repeating: 0xff, count: count)
        #expect((SEVLaunchSessionBlob(bytes: bytes) != nil) == (count == 128))
        #expect((SEVMeasurement(bytes: bytes) != nil) == (count == 48))
        #expect((SEVSecretHeader(bytes: bytes) != nil) == (count == 52))
        #expect((SEVGuestReport(bytes: bytes) != nil) == (count == 208))
        #expect((SEVSecretPacket(bytes: bytes) != nil) == (count > 52 && (count - 52) % 16 == 0))
        #expect(SEVCertificate(bytes: bytes) == nil)
        #expect(AMDCertificate(bytes: bytes) == nil)
        #expect(SecretTable(area: bytes) == nil)
    }

    @Test("the longest packet")
    func longestPacket() {
        #expect(SEVSecretPacket(bytes: [UInt8](repeating: 0, count: 52 + 16384)) != nil)
        #expect(SEVSecretPacket(bytes: [UInt8](repeating: 0, count: 52 + 16400)) == nil)
    }

    @Test("fields of a session, a measurement, a header, a report")
    func fields() throws {
        let counting = (0..<208).map { UInt8(truncatingIfNeeded: $0) }
        let session = try #require(SEVLaunchSessionBlob(bytes: Array(counting.prefix(128))))
        #expect(session.nonce == Array(0..<16))
        #expect(session.wrappedKeys == Array(16..<48))
        #expect(session.wrapIV == Array(48..<64))
        #expect(session.wrapMAC == Array(64..<96))
        #expect(session.policyMAC == Array(96..<128))
        #expect(session.bytes == Array(counting.prefix(128)))

        let measurement = try #require(SEVMeasurement(bytes: Array(counting.prefix(48))))
        #expect(measurement.measure == Array(0..<32))
        #expect(measurement.nonce == Array(32..<48))
        #expect(measurement.bytes == Array(counting.prefix(48)))
        #expect(
            SEVMeasurement.message(
                apiMajor: 1, apiMinor: 55, build: 29, policy: SEVPolicy(rawValue: 0x1234_0005), digest: [0xdd],
                nonce: [0xee]) == [4, 1, 55, 29, 5, 0, 0x34, 0x12, 0xdd, 0xee])

        let header = try #require(SEVSecretHeader(bytes: Array(counting.prefix(52))))
        #expect(header.flags == 0x0302_0100)
        #expect(header.iv == Array(4..<20))
        #expect(header.mac == Array(20..<52))
        #expect(header.bytes == Array(counting.prefix(52)))
        #expect(
            SEVSecretHeader.message(flags: 1, iv: [0xaa], guestByteCount: 0x20, ciphertext: [1, 2], measure: [0xbb])
                == [1, 1, 0, 0, 0, 0xaa, 0x20, 0, 0, 0, 2, 0, 0, 0, 1, 2, 0xbb])

        let report = try #require(SEVGuestReport(bytes: counting))
        #expect(report.nonce == Array(0..<16))
        #expect(report.launchDigest == Array(16..<48))
        #expect(report.policy.rawValue == 0x3332_3130)
        #expect(report.usage.rawValue == 0x3736_3534)
        #expect(report.algorithm.rawValue == 0x3b3a_3938)
        #expect(report.reserved_0x3c == 0x3f3e_3d3c)
        #expect(report.r == Array(0x40..<0x88))
        #expect(report.s == Array(0x88..<0xd0))
        #expect(report.bytes == counting)
        #expect(report.signedBytes == Array(counting.prefix(0x34)))
        let fresh = SEVGuestReport(
            nonce: Array(0..<16), launchDigest: Array(16..<48), policy: SEVPolicy(rawValue: 0x3332_3130))
        #expect(fresh.signedBytes == report.signedBytes)
        #expect((fresh.usage, fresh.algorithm) == (.pek, .ecdsaSHA256))
    }

    @Test("policy bits")
    func policy() {
        let policy = SEVPolicy(rawValue: 0x3701_0005)
        #expect(!policy.allowsDebug)
        #expect(policy.allowsKeySharing)
        #expect(policy.requiresEncryptedState)
        #expect(policy.allowsSend)
        #expect((policy.minimumAPIMajor, policy.minimumAPIMinor) == (1, 0x37))
        #expect(policy.hasValidReservedBits)
        #expect(policy.littleEndianBytes == [5, 0, 1, 0x37])
        #expect("\(policy)" == "0x37010005 (no debugging, SEV-ES, firmware API 1.55 or later)")
        #expect("\(SEVPolicy(rawValue: 0))" == "0x00000000")
        for bit in 0..<32 {
            #expect(SEVPolicy(rawValue: 1 << UInt32(bit)).hasValidReservedBits == !(6...15).contains(bit))
        }
    }

    @Test("a GUID's stored order and text")
    func guid() throws {
        let guid = GUID("1e74f542-71dd-4d66-963e-ef4287ff173b")
        #expect(guid.bytes.hex == "42f5741edd71664d963eef4287ff173b")
        #expect("\(guid)" == "1e74f542-71dd-4d66-963e-ef4287ff173b")
        #expect(GUID(text: "1E74F542-71DD-4D66-963E-EF4287FF173B") == guid)
        for wrong in [
            "", "1e74f54271dd4d66963eef4287ff173b", "1e74f542-71dd-4d66-963e-ef4287ff173", "1e74f542-71dd-4d66-963e-",
            "1e74f542-71dd-4d66-963e-ef4287ff173g", "1e74f54-271dd-4d66-963e-ef4287ff173b",
            "1e74f542-71dd-4d66-963e-ef4287ff173b-", "+e74f542-71dd-4d66-963e-ef4287ff173b",
            "1e74f542-71dd-4d66-963e-ef4287ff17é",
        ] { #expect(GUID(text: wrong) == nil, "\(wrong)") }
    }

    @Test("a secret table, byte by byte")
    func secretTable() throws {
        let guid = GUID("00112233-4455-6677-8899-aabbccddeeff")
        let table = SecretTable(entries: [.init(guid: guid, data: [1, 2, 3]), .init(guid: SecretTable.guid, data: [])])
        let expected =
            "42f5741edd71664d963eef4287ff173b 3f000000"
            + "33221100554477668899aabbccddeeff 17000000 010203"
            + "42f5741edd71664d963eef4287ff173b 14000000"
        #expect(table.bytes.hex == expected.filter { $0 != " " })
        #expect(table.byteCount == table.bytes.count)
        #expect(SecretTable(area: table.bytes) == table)
        #expect(SecretTable(area: table.bytes + [UInt8](repeating: 0xff, count: 100)) == table)
        #expect(SecretTable(area: SecretTable(entries: []).bytes)?.entries == [])
        for count in 0..<table.bytes.count { #expect(SecretTable(area: Array(table.bytes.prefix(count))) == nil) }
    }

    @Test("a secret table with a length that lies is no table")
    func secretTableLengths() {
        let table = SecretTable(entries: [.init(guid: GUID(stored: Array(0..<16)), data: [1, 2, 3])])
        let area = table.bytes + [UInt8](repeating: 0, count: 64)
        for offset in [16, 36] {
            for length: UInt32 in [0, 1, 19, 21, 22, 24, 42, 44, 64, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff] {
                var changed = area
                for i in 0..<4 { changed[offset + i] = UInt8(truncatingIfNeeded: length >> UInt32(8 * i)) }
                #expect(SecretTable(area: changed) == nil, "\(length) at \(offset)")
            }
        }
    }

    @Test("any bytes are read without a trap")
    func anything() {
        var random = SeededGenerator(seed: 11)
        for _ in 0..<300 {
            let bytes = random.bytes(2084)
            if let certificate = SEVCertificate(bytes: bytes) {
                _ = (certificate.signatures, certificate.publicKey.x, "\(certificate.usage) \(certificate.algorithm)")
                #expect(certificate.bytes == bytes)
            }
            var area = SecretTable.guid.bytes + random.bytes(random.below(200))
            if area.count > 19 { area[17...19] = [0, 0, 0] }
            if let table = SecretTable(area: area) {
                #expect(area.starts(with: table.bytes))
            }
        }
    }
}
