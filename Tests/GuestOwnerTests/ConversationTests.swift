import Crypto
import GuestImage
import GuestOwner
import SEVABI
import TestSupport
import Testing

@Suite("Conversation")
struct ConversationTests {
    static let platform = TestPlatform()

    static func hello(_ technology: GuestTechnology = .sevES) -> OwnerHello {
        OwnerHello(technology: technology, firmware: testVersion, platform: platform.certificates)
    }

    static func messages() throws -> [OwnerMessage] {
        let launch = SEVLaunchSession(
            policy: SEVPolicy(rawValue: 0x01020304), ownerCertificate: platform.pdh.bytes,
            session: Array(0..<128))
        let measurement = SEVMeasurement(measure: Array(0..<32), nonce: Array(32..<48))
        let packet = try #require(SEVSecretPacket(bytes: [UInt8](repeating: 9, count: 52 + 32)))
        let long = try #require(SEVSecretPacket(bytes: [UInt8](repeating: 8, count: 52 + 16384)))
        return [
            .hello(hello(.sev)), .hello(hello()), .session(launch),
            .measurement(
                OwnerMeasurement(firmware: testVersion, policy: SEVPolicy(rawValue: 5), measurement: measurement)),
            .secrets([]), .secrets([packet]), .secrets([UInt8](repeating: 0, count: 16).map { _ in long }),
            .refusal(OwnerRefusal(.measurement, reason: "")), .refusal(OwnerRefusal(.policy, reason: "no: grün")),
        ]
    }

    @Test("the bytes of a frame")
    func golden() throws {
        let measurement = OwnerMessage.measurement(
            OwnerMeasurement(
                firmware: testVersion, policy: SEVPolicy(rawValue: 5),
                measurement: SEVMeasurement(
                    measure: [UInt8](repeating: 0xaa, count: 32), nonce: [UInt8](repeating: 0xbb, count: 16))))
        #expect(
            measurement.bytes.hex
                // Magic, version, kind, length; versions, reserved, policy; MEASURE; MNONCE.
                == "4f574e52" + "0100" + "0300" + "38000000" + "01371d00" + "05000000"
                + String(repeating: "aa", count: 32) + String(repeating: "bb", count: 16))
        #expect(OwnerMessage.secrets([]).bytes.hex == "4f574e52" + "0100" + "0400" + "04000000" + "00000000")
        #expect(
            OwnerMessage.refusal(OwnerRefusal(.measurement, reason: "no")).bytes.hex
                == "4f574e52" + "0100" + "0500" + "06000000" + "05000000" + "6e6f")
        #expect(OwnerMessage.hello(Self.hello(.sev)).bytes.count == 12 + 4 + 4 * 2084)
    }

    @Test("round trips, in one piece, byte by byte and in a row")
    func roundTrips() throws {
        let messages = try Self.messages()
        for message in messages {
            var decoder = OwnerMessageDecoder()
            decoder.append(message.bytes)
            #expect(try decoder.next() == message)
            #expect(try decoder.next() == nil)
            try decoder.finish()
            if message.bytes.count < 10000 {
                var slow = OwnerMessageDecoder()
                for (index, byte) in message.bytes.enumerated() {
                    #expect(try slow.next() == nil, "after \(index) bytes")
                    slow.append([byte])
                }
                #expect(try slow.next() == message)
            }
        }
        var row = OwnerMessageDecoder()
        row.append(messages.flatMap(\.bytes))
        for message in messages { #expect(try row.next() == message) }
        #expect(try row.next() == nil)
    }

    @Test("every truncation waits, and ends as a cut message")
    func truncations() throws {
        for message in try Self.messages() where message.bytes.count < 400 {
            for count in 1..<message.bytes.count {
                var decoder = OwnerMessageDecoder()
                decoder.append(Array(message.bytes.prefix(count)))
                #expect(try decoder.next() == nil)
                #expect(throws: OwnerError.self) { try decoder.finish() }
            }
        }
    }

    @Test("heads that lie: each field has its own message, and the decoder stays failed")
    func heads() throws {
        let good = OwnerMessage.secrets([]).bytes
        func error(_ change: (inout [UInt8]) -> Void) -> OwnerError? {
            var bytes = good
            change(&bytes)
            var decoder = OwnerMessageDecoder()
            decoder.append(bytes)
            do throws(OwnerError) {
                _ = try decoder.next()
                return nil
            } catch let first {
                decoder.append(good)
                do throws(OwnerError) {
                    _ = try decoder.next()
                    Issue.record("a failed decoder went on")
                } catch let second { #expect(first == second) }
                return first
            }
        }
        #expect(error { _ in } == nil)
        #expect(error { $0[0] = 0x47 }?.field == "magic")
        #expect(error { $0 = Array("GET / HTTP/1.1".utf8) }?.field == "magic")
        #expect(error { $0 = [0x4f, 0x58] }?.field == "magic")
        #expect(error { $0[4] = 2 }?.field == "version")
        #expect(error { $0[6] = 0 }?.field == "kind")
        #expect(error { $0[6] = 6 }?.field == "kind")
        #expect(error { $0[7] = 0x80 }?.field == "kind")
        for length: [UInt8] in [
            [0, 0, 0, 0], [3, 0, 0, 0], [0xff, 0xff, 0xff, 0xff], [0, 0, 0, 0x80], [0, 0, 5, 0],
        ] {
            #expect(error { $0.replaceSubrange(8..<12, with: length) }?.field == "length")
        }
        #expect(error { $0[12] = 17 }?.field == "packet count")
        #expect(error { $0[12] = 1 }?.field == "length")
        // A hello that is one byte short of what hellos are.
        #expect(
            error {
                $0[6] = 1
                $0.replaceSubrange(8..<12, with: [0x93, 0x20, 0, 0])
            }?.field == "length")
    }

    @Test("bodies that lie")
    func bodies() throws {
        func field(_ message: OwnerMessage, _ change: (inout [UInt8]) -> Void) -> String? {
            var bytes = message.bytes
            change(&bytes)
            let count = bytes.count - 12
            for i in 0..<4 { bytes[8 + i] = UInt8(truncatingIfNeeded: count >> (8 * i)) }
            var decoder = OwnerMessageDecoder()
            decoder.append(bytes)
            do throws(OwnerError) {
                _ = try decoder.next()
                return nil
            } catch { return error.field }
        }
        let messages = try Self.messages()
        for technology: UInt8 in [0, 4, 255] { #expect(field(messages[0]) { $0[12] = technology } == "technology") }
        #expect(field(messages[3]) { $0[15] = 1 } == "reserved byte 3")
        let secrets = messages[5]
        #expect(field(secrets) { $0[16] = 83 } == "length of packet 0")
        #expect(field(secrets) { $0[16] = 68 } == "length")
        #expect(field(secrets) { $0[19] = 0xff } == "length")
        #expect(field(secrets) { $0.append(0) } == "length")
        #expect(field(secrets) { $0[12] = 0 } == "length")
        #expect(field(secrets) { $0[12] = 2 } == "length")
    }

    @Test("a refusal's text cannot play with a terminal, and long ones are cut")
    func refusalText() throws {
        var decoder = OwnerMessageDecoder()
        decoder.append(OwnerMessage.refusal(OwnerRefusal(.policy, reason: "a\u{1b}[2Jb\nc\u{9b}d")).bytes)
        guard case .refusal(let refusal) = try decoder.next() else {
            Issue.record("no refusal")
            return
        }
        #expect(refusal.reason == "a [2Jb c d")
        let long = OwnerMessage.refusal(OwnerRefusal(.policy, reason: String(repeating: "é", count: 5000)))
        #expect(long.bytes.count == 12 + 4 + 4096)
        var broken = OwnerMessage.refusal(OwnerRefusal(.policy, reason: "abc")).bytes
        broken[16] = 0xff
        var second = OwnerMessageDecoder()
        second.append(broken)
        #expect(try second.next() != nil)
    }

    @Test("random bytes, and messages with random changes, never trap")
    func fuzz() throws {
        var random = SeededGenerator(seed: 5)
        let samples = try Self.messages().map(\.bytes).filter { $0.count < 10000 }
        var decoded = 0
        for round in 0..<2000 {
            var bytes = samples[random.below(samples.count)]
            for _ in 0..<random.below(4) {
                let position = random.below(random.below(2) == 0 ? 20 : bytes.count)
                if position < bytes.count { bytes[position] = random.edge() }
            }
            if random.below(8) == 0 { bytes.removeLast(random.below(bytes.count)) }
            if random.below(16) == 0 { bytes = random.bytes(random.below(200)) }
            var decoder = OwnerMessageDecoder()
            var rest = bytes
            while !rest.isEmpty {
                let count = 1 + random.below(rest.count)
                decoder.append(Array(rest.prefix(count)))
                rest.removeFirst(count)
                do throws(OwnerError) {
                    if let message = try decoder.next() {
                        decoded += 1
                        // What was accepted is what it encodes to, up to a refusal's repaired text.
                        if case .refusal = message { continue }
                        #expect(message.bytes == Array(bytes.prefix(message.bytes.count)), "round \(round)")
                    }
                } catch {
                    #expect(error.category == .message)
                    break
                }
            }
        }
        #expect(decoded > 100)
    }

    // MARK: Both sides

    /// An owner in memory: what the VMM writes is answered by a reception.
    final class Line {
        var reception: OwnerReception
        var decoder = OwnerMessageDecoder()
        var waiting: [UInt8] = []
        var audit: [String] = []
        /// Changes what the owner sends.
        var tamper: (inout [UInt8]) -> Void = { _ in }

        init(_ offer: OwnerOffer) { reception = OwnerReception(offer) }

        func write(_ bytes: [UInt8]) throws(OwnerError) {
            decoder.append(bytes)
            while let message = try decoder.next() {
                let answer = reception.answer(to: message)
                audit += answer.audit
                var reply = answer.message?.bytes ?? []
                tamper(&reply)
                waiting += reply
            }
        }

        /// A few bytes at a time.
        func read() -> [UInt8] {
            let some = Array(waiting.prefix(1000))
            waiting.removeFirst(some.count)
            return some
        }

        var conversation: OwnerConversation {
            OwnerConversation(
                read: { () throws(OwnerError) in self.read() },
                write: { bytes throws(OwnerError) in try self.write(bytes) })
        }
    }

    static func offer(_ technology: GuestTechnology = .sevES, policy: UInt32? = nil, secret: String? = "open sesame")
        throws -> OwnerOffer
    {
        let plan = testPlan(technology)
        return OwnerOffer(
            launch: try ExpectedLaunch(plan),
            policy: SEVPolicy(rawValue: policy ?? UInt32(truncatingIfNeeded: plan.policy)),
            verifier: PlatformVerifier(roots: try TestPlatform.roots()),
            secrets: secret.map { [.init(guid: SecretTable.diskPassphrase, data: SecretBytes(Array($0.utf8)))] } ?? [],
            secretAreaByteCount: plan.secretArea?.byteCount ?? 0)
    }

    func failure(_ body: () throws(OwnerError) -> Void) -> OwnerError? {
        do throws(OwnerError) {
            try body()
            return nil
        } catch {
            return error
        }
    }

    @Test("session, measurement, secret: the whole way", arguments: [GuestTechnology.sev, .sevES])
    func wholeWay(technology: GuestTechnology) throws {
        let offer = try Self.offer(technology)
        try offer.validate()
        let line = Line(offer)
        var conversation = line.conversation
        let launch = try conversation.session(for: Self.hello(technology))
        let firmware = try #require(TestFirmware(Self.platform.pdhKey, launch))
        let measurement = firmware.measure(offer.launch.digest, testVersion)
        let packets = try conversation.secrets(
            after: OwnerMeasurement(firmware: testVersion, policy: launch.policy, measurement: measurement))
        #expect(packets.count == 1)
        let packet = try #require(packets.first)
        let plaintext = try #require(firmware.open(packet, measurement))
        #expect(SecretTable(area: plaintext)?.entries.first?.data == Array("open sesame".utf8))
        let audit = line.audit.joined(separator: "\n")
        #expect(audit.contains("accepted the platform"))
        #expect(audit.contains("released 1 secret: 736869e5-84f0-4973-92ec-06879ce3da0b"))
        #expect(!audit.contains("sesame"))
        #expect(line.reception.end() == [])
    }

    @Test("without secrets the guest is released all the same")
    func noSecrets() throws {
        let offer = try Self.offer(secret: nil)
        let line = Line(offer)
        var conversation = line.conversation
        let launch = try conversation.session(for: Self.hello())
        let firmware = try #require(TestFirmware(Self.platform.pdhKey, launch))
        let packets = try conversation.secrets(
            after: OwnerMeasurement(
                firmware: testVersion, policy: launch.policy,
                measurement: firmware.measure(offer.launch.digest, testVersion)))
        #expect(packets.isEmpty)
    }

    @Test("a wrong measurement is refused, and nothing is released")
    func wrongMeasurement() throws {
        let offer = try Self.offer()
        let line = Line(offer)
        var conversation = line.conversation
        let launch = try conversation.session(for: Self.hello())
        let firmware = try #require(TestFirmware(Self.platform.pdhKey, launch))
        var digest = offer.launch.digest
        digest[0] ^= 1
        let error = failure { () throws(OwnerError) in
            _ = try conversation.secrets(
                after: OwnerMeasurement(
                    firmware: testVersion, policy: launch.policy, measurement: firmware.measure(digest, testVersion)))
        }
        #expect(error?.category == .measurement)
        #expect(error?.found.contains("another image") == true)
        #expect(line.audit.last?.hasPrefix("refused: could not accept the measurement") == true)
    }

    @Test("each refusal of a hello")
    func refusedHellos() throws {
        func outcome(_ offer: OwnerOffer, _ hello: OwnerHello) -> OwnerError? {
            var conversation = Line(offer).conversation
            return failure { () throws(OwnerError) in _ = try conversation.session(for: hello) }
        }
        #expect(outcome(try Self.offer(), Self.hello(.sev))?.category == .technology)
        #expect(outcome(try Self.offer(), Self.hello(.snp))?.category == .technology)
        #expect(outcome(try Self.offer(policy: 0x3801_0005), Self.hello())?.category == .policy)
        #expect(outcome(try Self.offer(policy: 0x3701_0005), Self.hello()) == nil)
        #expect(outcome(try Self.offer(policy: 0x0002_0005), Self.hello())?.category == .policy)
        var changed = Self.hello()
        changed.platform.pdh[0x500] ^= 1
        #expect(outcome(try Self.offer(), changed)?.category == .certificate)
        changed.platform.pdh.removeLast()
        let short = outcome(try Self.offer(), changed)
        #expect(short?.category == .certificate)
        #expect(short?.attempt.hasPrefix("send") == true)
    }

    @Test("messages out of turn, on both sides")
    func outOfTurn() throws {
        let offer = try Self.offer()
        let messages = try Self.messages()
        var reception = OwnerReception(offer)
        let early = reception.answer(to: messages[3])
        #expect(early.isLast && !early.released)
        guard case .refusal(let refusal) = early.message else {
            Issue.record("no refusal")
            return
        }
        #expect(refusal.category == .message)
        // After a refusal everything is refused.
        let late = reception.answer(to: .hello(Self.hello()))
        #expect(late.isLast)
        if case .session = late.message { Issue.record("a session after the end") }

        for (index, message) in messages.enumerated() where index > 1 {
            var fresh = OwnerReception(offer)
            #expect(fresh.answer(to: message).isLast, "\(message.name) first")
            var waiting = OwnerReception(offer)
            #expect(!waiting.answer(to: .hello(Self.hello())).isLast)
            let answer = waiting.answer(to: message)
            #expect(answer.isLast && !answer.released, "\(message.name) second")
        }
        var twice = OwnerReception(offer)
        _ = twice.answer(to: .hello(Self.hello()))
        #expect(twice.answer(to: .hello(Self.hello())).isLast)

        // The owner answers a hello with secrets.
        let line = Line(offer)
        line.tamper = { $0 = OwnerMessage.secrets([]).bytes }
        var conversation = line.conversation
        let error = failure { () throws(OwnerError) in _ = try conversation.session(for: Self.hello()) }
        #expect(error?.category == .message)
        #expect(error?.found == "secrets")
    }

    @Test("the connection ends: before an answer, in the middle of one")
    func endings() throws {
        for kept in [0, 1, 20, 500] {
            let line = Line(try Self.offer())
            line.tamper = { $0.removeLast($0.count - kept) }
            var conversation = line.conversation
            let error = failure { () throws(OwnerError) in _ = try conversation.session(for: Self.hello()) }
            #expect(error?.category == .connection)
        }
        var reception = OwnerReception(try Self.offer())
        #expect(reception.end().first?.contains("without a word") == true)
        var second = OwnerReception(try Self.offer())
        _ = second.answer(to: .hello(Self.hello()))
        #expect(second.end().first?.contains("without a measurement") == true)
        var third = OwnerReception(try Self.offer())
        let answer = third.answer(to: .refusal(OwnerRefusal(.session, reason: "LAUNCH_START failed")))
        #expect(answer.message == nil && answer.isLast)
        #expect(answer.audit.first?.contains("LAUNCH_START failed") == true)
    }

    @Test("an offer that cannot succeed is refused when it is made")
    func offers() throws {
        func category(_ offer: OwnerOffer) -> OwnerError.Category? {
            failure { () throws(OwnerError) in try offer.validate() }?.category
        }
        #expect(category(try Self.offer()) == nil)
        #expect(category(try Self.offer(.sevES, policy: 1)) == .policy)
        #expect(category(try Self.offer(.sev, policy: 5)) == .policy)
        var offer = try Self.offer(secret: String(repeating: "x", count: 4041))
        #expect(category(offer) == .secret)
        offer.secrets = []
        offer.secretAreaByteCount = 0
        #expect(category(offer) == nil)
        offer.secrets = try Self.offer().secrets
        #expect(category(offer) == .secret)
    }
}
