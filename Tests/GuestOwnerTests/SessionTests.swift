import Crypto
import GuestImage
import GuestOwner
import SEVABI
import TestSupport
import Testing

@Suite("Sessions, measurements, secrets")
struct SessionTests {
    static let vectors = ForeignVectors.arePresent

    /// `session.json`, flat: one dictionary per generated session, with the values of its nested objects.
    static func sessions() throws -> [[String: String]] {
        let text = String(decoding: try #require(ForeignVectors.bytes("legacy-sev/session.json")), as: UTF8.self)
        let generated = try #require(text.range(of: "\"generated\""))
        return text[generated.upperBound...].components(separator: "\"id\"").dropFirst().map { part in
            var values: [String: String] = [:]
            var rest = Substring(part)
            while let start = rest.firstIndex(of: "\"") {
                rest = rest[rest.index(after: start)...]
                guard let end = rest.firstIndex(of: "\"") else { break }
                let key = String(rest[..<end])
                rest = rest[rest.index(after: end)...].drop { $0 == ":" || $0 == " " }
                if rest.first == "\"" {
                    rest = rest.dropFirst()
                    values[key, default: ""] += String(rest.prefix { $0 != "\"" })
                    rest = rest.drop { $0 != "\"" }.dropFirst()
                } else {
                    values[key, default: ""] += String(rest.prefix { $0.isNumber })
                }
            }
            return values
        }
    }

    @Test("every value of the foreign sessions", .enabled(if: vectors, "\(ForeignVectors.absence)"))
    func foreignSessions() throws {
        let sessions = try Self.sessions()
        #expect(sessions.count == 2)
        for values in sessions {
            func text(_ key: String) throws -> String { try #require(values[key]) }
            func bytes(_ key: String) throws -> [UInt8] {
                let text = try text(key)
                return try #require([UInt8](hex: text))
            }
            func number(_ key: String) throws -> UInt8 {
                let text = try text(key)
                return try #require(UInt8(text))
            }
            let platformNumber = try bytes("platform_private")
            let ownerNumber = try bytes("guestowner_private")
            let platform = try #require(P384PrivateKey(bigEndianScalar: platformNumber))
            let owner = try #require(P384PrivateKey(bigEndianScalar: ownerNumber))
            let policyText = try text("policy").dropFirst(2)
            let policyNumber = try #require(UInt32(policyText, radix: 16))
            let policy = SEVPolicy(rawValue: policyNumber)
            // "iv" stands in the session and in the secret: the first 16 bytes are the session's.
            let ivs = try bytes("iv")
            let (tek, tik) = (SecretBytes(try bytes("tek")), SecretBytes(try bytes("tik")))
            let nonce = try bytes("nonce")
            let made = OwnerSession(
                pdh: platform.publicKey, ownerKey: owner, policy: policy, tek: tek, tik: tik, nonce: nonce,
                wrapIV: Array(ivs.prefix(16)))
            let session = try #require(made)
            #expect(session.launch.session == (try bytes("session_blob")))
            let godh = try #require(SEVCertificate(bytes: session.launch.ownerCertificate))
            // "x" and "y" stand there twice: the platform's, then the owner's.
            #expect(Array(godh.publicKey.x.prefix(48).reversed()) == Array(try bytes("x").suffix(48)))
            #expect(Array(godh.publicKey.y.prefix(48).reversed()) == Array(try bytes("y").suffix(48)))
            #expect((godh.usage, godh.algorithm) == (.pdh, .ecdhSHA256))

            let firmware = FirmwareVersion(
                apiMajor: try number("api_major"), apiMinor: try number("api_minor"), build: try number("build"))
            let launch = try ExpectedLaunch(technology: .sev, digest: bytes("launch_digest"))
            let measurement = session.expectedMeasurement(of: launch, firmware: firmware, nonce: try bytes("mnonce"))
            #expect(measurement.bytes == (try bytes("launch_measure_blob")))
            try session.check(
                OwnerMeasurement(firmware: firmware, policy: policy, measurement: measurement), against: launch)

            let packet = session.makeSecret(
                plaintext: try bytes("plaintext"), iv: Array(ivs.suffix(16)), measurement: measurement,
                firmware: firmware)
            #expect(packet.header == (try bytes("header")))
            #expect(packet.payload == (try bytes("ciphertext")))
        }
    }

    @Test("the known measurement of a public tool")
    func publicMeasurement() throws {
        let zeroes = [UInt8](repeating: 0, count: 16)
        let tik = try #require([UInt8](hex: "66320db73158a35a255d051758e95ed4"))
        let nonce = try #require([UInt8](hex: "4fbe0bedbad6c86ae8f68971d103e554"))
        let session = try #require(
            OwnerSession(
                pdh: TestPlatform().pdhKey.publicKey, ownerKey: .random(), policy: SEVPolicy(rawValue: 0),
                tek: SecretBytes(zeroes), tik: SecretBytes(tik), nonce: zeroes, wrapIV: zeroes))
        let digest = try #require(
            [UInt8](hex: "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"))
        let measure = session.expectedMeasure(
            digest: digest, firmware: FirmwareVersion(apiMajor: 0, apiMinor: 18, build: 15),
            nonce: nonce)
        #expect(measure.hex == "6faab2daae389bcd3405a05d6cafe33c0414f7bedd0bae19ba5f38b7fd1664ea")
        // Before 0.17 the first four bytes are not covered.
        let old = FirmwareVersion(apiMajor: 0, apiMinor: 16, build: 1)
        #expect(
            session.expectedMeasure(digest: digest, firmware: old, nonce: Array(0..<16))
                == HMACSHA256.authenticate(
                    [0, 0, 0, 0] + digest + Array(0..<16), key: session.tik.copied()))
    }

    static func fresh(policy: UInt32 = 1) throws -> (
        platform: TestPlatform, session: OwnerSession, firmware: TestFirmware
    ) {
        let platform = TestPlatform()
        let verified = try PlatformVerifier(roots: TestPlatform.roots()).verify(platform.certificates)
        let session = try OwnerSession(for: verified, policy: SEVPolicy(rawValue: policy))
        return (platform, session, try #require(TestFirmware(platform.pdhKey, session.launch)))
    }

    @Test("a fresh session opens on its platform and on no other; nothing repeats")
    func freshSession() throws {
        let (platform, session, firmware) = try Self.fresh()
        #expect(firmware.tek == session.tek.copied())
        #expect(firmware.tik == session.tik.copied())
        #expect(TestFirmware(TestPlatform(seed: 1).pdhKey, session.launch) == nil)
        let again = try Self.fresh()
        #expect(again.session.launch.session != session.launch.session)
        #expect(again.session.launch.ownerCertificate != session.launch.ownerCertificate)
        #expect(again.session.tek.copied() != session.tek.copied())
        // What goes to the VMM has neither key.
        let wire = session.launch.session + session.launch.ownerCertificate
        for key in [session.tek.copied(), session.tik.copied()] { #expect(!contains(key, in: wire)) }
        _ = platform
    }

    @Test("every flipped bit of policy, session and the owner's key is refused by the firmware")
    func flippedSession() throws {
        let (platform, session, _) = try Self.fresh()
        for bit in 0..<(128 * 8) {
            var launch = session.launch
            launch.session[bit / 8] ^= 1 << UInt8(bit % 8)
            #expect(TestFirmware(platform.pdhKey, launch) == nil, "session bit \(bit)")
        }
        for bit in 0..<32 {
            var launch = session.launch
            launch.policy.rawValue ^= 1 << UInt32(bit)
            #expect(TestFirmware(platform.pdhKey, launch) == nil, "policy bit \(bit)")
        }
        for bit in stride(from: 0x14 * 8, to: 0xa4 * 8, by: 7) {
            var launch = session.launch
            launch.ownerCertificate[bit / 8] ^= 1 << UInt8(bit % 8)
            #expect(TestFirmware(platform.pdhKey, launch) == nil, "GODH bit \(bit)")
        }
    }

    @Test("a policy with reserved bits makes no session")
    func reservedPolicy() throws {
        let verified = try PlatformVerifier(roots: TestPlatform.roots()).verify(TestPlatform().certificates)
        for bit in 0..<32 {
            let policy = SEVPolicy(rawValue: 1 << UInt32(bit))
            if policy.hasValidReservedBits {
                _ = try OwnerSession(for: verified, policy: policy)
            } else {
                #expect(throws: OwnerError.self) { try OwnerSession(for: verified, policy: policy) }
            }
        }
    }

    @Test("stored and read again; damage of every kind is refused")
    func stored() throws {
        let (_, session, _) = try Self.fresh(policy: 5)
        let bytes = session.storedBytes()
        #expect(bytes.count == OwnerSession.storedByteCount)
        let again = try OwnerSession(stored: bytes)
        #expect(again.launch == session.launch)
        #expect(again.tek.copied() == session.tek.copied())
        #expect(again.tik.copied() == session.tik.copied())
        #expect(again.policy == session.policy)
        for count in 0..<bytes.count {
            #expect(throws: OwnerError.self) { try OwnerSession(stored: Array(bytes.prefix(count))) }
        }
        #expect(throws: OwnerError.self) { try OwnerSession(stored: bytes + [0]) }
        for bit in stride(from: 0, to: bytes.count * 8, by: 5) {
            var changed = bytes
            changed[bit / 8] ^= 1 << UInt8(bit % 8)
            #expect(throws: OwnerError.self) { try OwnerSession(stored: changed) }
        }
    }

    // MARK: Measurements

    func refusal(
        _ session: OwnerSession, _ measurement: OwnerMeasurement, _ launch: ExpectedLaunch,
        more: [ExpectedLaunch.Alternative] = []
    ) -> OwnerError? {
        do throws(OwnerError) {
            try session.check(measurement, against: launch) { more }
            return nil
        } catch {
            return error
        }
    }

    @Test("who lied, and about what")
    func explanations() throws {
        let (_, session, firmware) = try Self.fresh(policy: 5)
        let launch = try ExpectedLaunch(testPlan(.sevES))
        func outcome(
            digest: [UInt8]? = nil, actual: FirmwareVersion = testVersion, policy: UInt32 = 5, told: UInt32 = 5,
            more: [ExpectedLaunch.Alternative] = []
        ) -> String? {
            let measurement = OwnerMeasurement(
                firmware: testVersion, policy: SEVPolicy(rawValue: told),
                measurement: firmware.measure(digest ?? launch.digest, actual, policy: SEVPolicy(rawValue: policy)))
            return refusal(session, measurement, launch, more: more)?.likelyCause
        }
        #expect(outcome() == nil)
        #expect(outcome(told: 4)?.contains("another policy than the session") == true)
        let build = outcome(actual: FirmwareVersion(apiMajor: 1, apiMinor: 55, build: 21))
        #expect(build?.contains("for firmware 1.55 build 21, not for 1.55 build 29") == true)
        let api = outcome(actual: FirmwareVersion(apiMajor: 1, apiMinor: 51, build: 29))
        #expect(api?.contains("for firmware 1.51 build 29") == true)
        #expect(outcome(policy: 4)?.contains("launched with policy 0x00000004 (SEV-ES)") == true)

        func digest(
            _ technology: GuestTechnology = .sevES, count: Int = 2, _ change: (inout LaunchPlan) -> Void = { _ in }
        )
            throws -> [UInt8]
        {
            var plan = testPlan(technology, processorCount: count)
            change(&plan)
            return try ExpectedLaunch(plan).digest
        }
        #expect(outcome(digest: try digest(.sev))?.contains("measured a SEV guest instead of SEV-ES") == true)
        #expect(outcome(digest: try digest(count: 4))?.contains("4 VMSAs instead of 2") == true)
        #expect(outcome(digest: try digest(count: 1))?.contains("1 VMSA instead of 2") == true)
        #expect(
            outcome(digest: try digest { $0.regions.removeLast() })?.contains("the image without its initrd") == true)
        #expect(outcome(digest: try digest { $0.regions.swapAt(0, 1) })?.contains("initrd before kernel") == true)
        #expect(
            outcome(digest: try digest { $0.regions[0].contents = [UInt8](repeating: 0, count: 4096) })?
                .contains("zeroes in the place of its kernel") == true)
        #expect(
            outcome(digest: try digest(.sev) { $0.regions = [] })?.contains("nothing at all") == true)
        #expect(
            outcome(digest: try digest(.sev), policy: 1)?
                .contains("a SEV guest instead of SEV-ES, with policy 0x00000001") == true)
        let unknown = try digest { $0.regions[0].contents[77] ^= 1 }
        #expect(outcome(digest: unknown)?.contains("another image, initrd, command line") == true)
        #expect(
            outcome(digest: unknown, more: [.init(label: "the old kernel", digest: unknown)])?
                .contains("measured the old kernel") == true)
    }

    @Test("every flipped bit of a measurement is refused, and so is another session's")
    func flippedMeasurement() throws {
        let (_, session, firmware) = try Self.fresh()
        let launch = try ExpectedLaunch(technology: .sev, digest: [UInt8](repeating: 3, count: 32))
        let good = firmware.measure(launch.digest, testVersion)
        func measurement(_ blob: SEVMeasurement) -> OwnerMeasurement {
            OwnerMeasurement(firmware: testVersion, policy: session.policy, measurement: blob)
        }
        #expect(refusal(session, measurement(good), launch) == nil)
        for bit in stride(from: 0, to: 48 * 8, by: 17) {
            var bytes = good.bytes
            bytes[bit / 8] ^= 1 << UInt8(bit % 8)
            let changed = try #require(SEVMeasurement(bytes: bytes))
            #expect(refusal(session, measurement(changed), launch)?.category == .measurement)
        }
        let other = try Self.fresh()
        #expect(refusal(other.session, measurement(good), launch)?.category == .measurement)
    }

    @Test("only SEV and SEV-ES have a LAUNCH_MEASURE")
    func technologies() throws {
        #expect(throws: OwnerError.self) { try ExpectedLaunch(testPlan(.snp)) }
        #expect(throws: OwnerError.self) { try ExpectedLaunch(technology: .sev, digest: []) }
        #expect(throws: OwnerError.self) {
            try ExpectedLaunch(technology: .sev, digest: [UInt8](repeating: 0, count: 48))
        }
        #expect(try ExpectedLaunch(testPlan(.sev)).digest != ExpectedLaunch(testPlan(.sevES)).digest)
    }

    // MARK: Secrets

    static let table = SecretTable(entries: [
        .init(guid: SecretTable.diskPassphrase, data: Array("correct horse battery staple".utf8))
    ])

    @Test("a secret opens in the launch that it was made for, and every flipped bit closes it")
    func secret() throws {
        let (_, session, firmware) = try Self.fresh()
        let measurement = firmware.measure([UInt8](repeating: 1, count: 32), testVersion)
        let packet = try session.makeSecret(
            Self.table, after: measurement, firmware: testVersion, areaByteCount: 4080)
        let plaintext = try #require(firmware.open(packet, measurement))
        #expect(SecretTable(area: plaintext) == Self.table)
        #expect(plaintext.count % 16 == 0)
        #expect(!contains(Array("horse".utf8), in: packet.bytes))
        for bit in 0..<(packet.bytes.count * 8) {
            var bytes = packet.bytes
            bytes[bit / 8] ^= 1 << UInt8(bit % 8)
            let changed = try #require(SEVSecretPacket(bytes: bytes))
            #expect(firmware.open(changed, measurement) == nil, "bit \(bit)")
        }
        // Another measurement of the same session, another session.
        #expect(firmware.open(packet, firmware.measure([UInt8](repeating: 2, count: 32), testVersion)) == nil)
        #expect(try Self.fresh().firmware.open(packet, measurement) == nil)
        let again = try session.makeSecret(Self.table, after: measurement, firmware: testVersion, areaByteCount: 4080)
        #expect(again != packet)
    }

    @Test("a table that does not fit is refused; one that just fits is not")
    func secretLengths() throws {
        let (_, session, firmware) = try Self.fresh()
        let measurement = firmware.measure([UInt8](repeating: 1, count: 32), testVersion)
        func fits(_ dataByteCount: Int, _ area: UInt64) -> Bool {
            let table = SecretTable(
                entries: [.init(guid: SecretTable.guid, data: [UInt8](repeating: 1, count: dataByteCount))])
            let packet = try? session.makeSecret(
                table, after: measurement, firmware: testVersion, areaByteCount: area)
            return packet != nil
        }
        #expect(fits(8, 48))
        #expect(!fits(9, 48))
        #expect(fits(4040, 4080))
        #expect(!fits(4041, 4080))
        #expect(fits(4056, 1 << 40))
        #expect(!fits(4057, 1 << 40))
        #expect(!fits(0, 0))
    }
}

func contains(_ wanted: [UInt8], in bytes: [UInt8]) -> Bool {
    guard bytes.count >= wanted.count else { return false }
    return (0...(bytes.count - wanted.count)).contains { bytes[$0..<($0 + wanted.count)].elementsEqual(wanted) }
}

extension StringProtocol {
    /// The parts between occurrences of a text.
    func components(separator: String) -> [String] {
        var parts: [String] = []
        var rest = Substring(self)
        while let range = rest.range(of: separator) {
            parts.append(String(rest[..<range.lowerBound]))
            rest = rest[range.upperBound...]
        }
        return parts + [String(rest)]
    }

    func range(of text: String) -> Range<Index>? {
        var start = startIndex
        while start < endIndex {
            if self[start...].hasPrefix(text) { return start..<index(start, offsetBy: text.count) }
            start = index(after: start)
        }
        return nil
    }
}
