import Crypto
import MemoryController
import SEVABI
import SoftwarePSP
import TestSupport
import Testing

@Suite("SNP_GUEST_REQUEST: command, header, order")
struct GuestRequestTests {
    /// A request that works: a report.
    static let payload = [UInt8](repeating: 1, count: 64) + [UInt8](repeating: 0, count: 32)

    @Test("the command's own checks, each with everything before it right")
    func command() throws {
        let guest = try MessagingGuest()
        let platform = guest.platform
        let page = guest.page(type: 5, Self.payload)
        try platform.memory.hostWrite(guest.request, page)
        let good = SNPGuestRequest(context: guest.context, request: guest.request, response: guest.response)
        func submit(_ change: (inout SNPGuestRequest) -> Void) -> SEVStatus {
            var buffer = good
            change(&buffer)
            return platform.submit(.snpGuestRequest, buffer.bytes)
        }
        let before = platform.processor.stateDescription()
        #expect(platform.submit(.snpGuestRequest, Array(good.bytes.dropLast())) == .invalidLength)
        #expect(submit { $0.context = $0.context + 8 } == .invalidAddress)
        #expect(submit { $0.context = $0.request } == .invalidGuest)
        let outside = SPA(rawValue: 1 << 60)
        for wrong in [outside, good.request + 0x10, SPA(rawValue: .max)] {
            #expect(submit { $0.request = wrong } == .invalidAddress)
            #expect(submit { $0.response = wrong } == .invalidAddress)
        }
        // The response goes to a firmware page only, the request comes from nobody's private memory.
        let shared = try #require(platform.memory.allocatePages())
        let owned = try platform.preGuestPage(gpa: 0x7000)
        #expect(submit { $0.response = shared } == .invalidPageState)
        #expect(submit { $0.response = owned } == .invalidPageState)
        #expect(submit { $0.response = guest.context } == .invalidPageState)
        #expect(submit { $0.request = owned } == .invalidPageState)
        #expect(submit { $0.request = guest.context } == .invalidPageState)
        #expect(platform.processor.stateDescription() == before)
        #expect(submit { _ in } == .success)

        // Before the launch is finished, and before SNP_INIT.
        let launching = platform.launchingGuest(asid: 2)
        #expect(submit { $0.context = launching } == .invalidGuestState)
        #expect(submit { $0.context = platform.createContext() } == .invalidGuestState)
        #expect(try Platform(initialized: false).submit(.snpGuestRequest, good.bytes) == .invalidPlatformState)
    }

    @Test("a wrong header field is INVALID_PARAM, whoever sealed it")
    func header() throws {
        let guest = try MessagingGuest()
        let before = guest.platform.processor.stateDescription()
        let wrong: [(String, (inout [UInt8]) -> Void)] = [
            ("ALGO 0", { $0[0x30] = 0 }), ("ALGO 2", { $0[0x30] = 2 }), ("HDR_VERSION", { $0[0x31] = 2 }),
            ("HDR_SIZE", { $0[0x32] = 0x61 }), ("HDR_SIZE high", { $0[0x33] = 1 }), ("type 0", { $0[0x34] = 0 }),
            ("a response's type", { $0[0x34] = 6 }), ("type 19", { $0[0x34] = 19 }), ("type 255", { $0[0x34] = 255 }),
            ("version 0", { $0[0x35] = 0 }), ("version 2", { $0[0x35] = 2 }), ("too long", { $0[0x37] = 0x10 }),
            ("VMPCK 4", { $0[0x3c] = 4 }), ("VMPCK 255", { $0[0x3c] = 255 }), ("0x38", { $0[0x38] = 1 }),
            ("0x5f", { $0[0x5f] = 1 }), ("0x28", { $0[0x28] = 1 }), ("AUTHTAG's tail", { $0[0x1f] = 1 }),
        ]
        for (name, change) in wrong {
            #expect(try guest.send(guest.page(type: 5, Self.payload, header: change)) == .invalidParameter, "\(name)")
        }
        for count in [0, 95, 97, 4000] {
            let payload = [UInt8](repeating: 0, count: count)
            #expect(try guest.send(guest.page(type: 5, payload)) == .invalidParameter, "\(count) bytes")
        }
        for (type, count) in [(3, 0x28), (3, 64), (17, 127), (17, 0)] as [(UInt8, Int)] {
            #expect(try guest.send(guest.page(type: type, [UInt8](repeating: 0, count: count))) == .invalidParameter)
        }
        #expect(
            try guest.send(guest.page(type: 3, version: 2, [UInt8](repeating: 0, count: 0x20))) == .invalidParameter)
        #expect(
            try guest.send(guest.page(type: 3, version: 3, [UInt8](repeating: 0, count: 0x28))) == .invalidParameter)
        for type in [1, 7, 9, 11, 13, 15] as [UInt8] {
            #expect(try guest.send(guest.page(type: type, Self.payload)) == .unsupported, "type \(type)")
        }
        #expect(guest.platform.processor.stateDescription() == before, "no refusal uses a number up")
        #expect(try guest.report().status == 0)
    }

    @Test("every bit of a valid page that is flipped on the way is refused")
    func flippedBits() throws {
        let guest = try MessagingGuest()
        let page = guest.page(type: 5, Self.payload)
        let before = guest.platform.processor.stateDescription()
        for offset in 0..<(0x60 + 96) {
            var changed = page
            changed[offset] ^= 1 << UInt8(offset % 8)
            let status = try guest.send(changed)
            #expect(
                status == .invalidParameter || (status == .badMeasurement && !(0x10..<0x30).contains(offset)),
                "0x\(String(offset, radix: 16)): \(status)")
        }
        #expect(guest.platform.processor.stateDescription() == before)
        // What is behind the payload is not part of the message.
        var changed = page
        changed[4095] = 1
        #expect(try guest.send(changed) == .success)
    }

    @Test("no number twice, none left out, none of another key")
    func order() throws {
        let guest = try MessagingGuest()
        for number in [0, 2, 3, .max] as [UInt64] {
            #expect(try guest.send(guest.page(type: 5, Self.payload, number: number)) == .invalidParameter, "\(number)")
        }
        let first = guest.page(type: 5, Self.payload)
        #expect(try guest.send(first) == .success)
        let second = try guest.platform.memory.hostRead(guest.response, byteCount: 4096)
        #expect(try guest.send(first) == .invalidParameter, "replayed")
        #expect(try guest.platform.memory.hostRead(guest.response, byteCount: 4096) == second, "nothing is written")
        _ = try guest.receive(type: 6)
        #expect(try guest.send(guest.page(type: 5, Self.payload, number: 2)) == .invalidParameter)
        #expect(try guest.send(guest.page(type: 5, Self.payload, number: 5)) == .invalidParameter)
        #expect(try guest.send(second) == .invalidParameter, "the response sent back")
        #expect(try guest.report().status == 0)
        #expect(guest.counts[0] == 4)
        // The other keys count for themselves.
        for key in 1..<4 { #expect(try guest.report(vmpl: 3, key: key).status == 0) }
        #expect(guest.counts == [4, 2, 2, 2])
        #expect(try guest.send(guest.page(type: 5, Self.payload) { $0[0x3c] = 1 }) == .invalidParameter)
        // Sealed with one key, said to be sealed with another.
        #expect(try guest.send(guest.page(type: 5, Self.payload, number: 3) { $0[0x3c] = 1 }) == .badMeasurement)
    }

    @Test("a guest's messages mean nothing in another guest's name")
    func otherGuest() throws {
        let guest = try MessagingGuest()
        let other = try MessagingGuest(guest.platform, asid: 2)
        #expect(Set((guest.keys + other.keys).map(\.hex)).count == 8)
        #expect(try other.send(guest.page(type: 5, Self.payload)) == .badMeasurement)
        #expect(try guest.send(guest.page(type: 5, Self.payload)) == .success)
    }

    @Test("a key whose numbers are used up is AEAD_OFLOW for ever")
    func exhausted() throws {
        let guest = try MessagingGuest()
        let last: UInt64 = .max - 3
        guest.platform.processor.prepareMessageCount(last, key: 2, of: guest.context)
        guest.counts[2] = last
        #expect(try guest.report(vmpl: 2, key: 2).status == 0)
        #expect(guest.counts[2] == UInt64.max - 1)
        for _ in 0..<2 {
            #expect(try guest.send(guest.page(type: 5, Self.payload, key: 2, number: .max)) == .aeadOverflow)
            #expect(try guest.send(guest.page(type: 5, Self.payload, key: 2, number: 0)) == .aeadOverflow)
        }
        #expect(try guest.report().status == 0, "the other keys go on")
    }
}

/// A guest that sends whatever it likes, properly sealed or not, and a host that mixes in pages of its own.
@Suite("SNP_GUEST_REQUEST with any messages")
struct GuestRequestFuzzTests {
    @Test(
        "a status or a sealed answer, never both, and the counters say which", arguments: 1...6 as ClosedRange<UInt64>)
    func random(_ seed: UInt64) throws {
        var generator = MailboxFuzzTests.Generator(state: seed)
        let guest = try MessagingGuest { profile in
            profile.mitigationVector = seed
            profile.reportVersion = seed % 2 == 0 ? 5 : 2
        }
        let untouched = [UInt8](repeating: 0xee, count: 4096)
        var answered = 0
        var statuses: Set<SEVStatus> = []
        for _ in 0..<400 {
            // Mostly what exists.
            let known: [(UInt8, UInt8, Int)] = [(3, 1, 0x20), (3, 2, 0x28), (5, 1, 96), (17, 1, 128)]
            var (type, version, length) = known[Int.random(in: 0..<4, using: &generator)]
            switch Int.random(in: 0..<12, using: &generator) {
            case 0: type = UInt8.random(in: 0...255, using: &generator)
            case 1: version = UInt8.random(in: 0...3, using: &generator)
            case 2: length = Int.random(in: 0...4000, using: &generator)
            default: break
            }
            // Mostly zeroes, or no request would get past its reserved bytes.
            let density = Int.random(in: 1...40, using: &generator)
            let payload = (0..<length).map { _ in
                Int.random(in: 0..<density, using: &generator) == 0 ? UInt8.random(in: 0...7, using: &generator) : 0
            }
            let key = Int.random(in: 0..<4, using: &generator)
            var page = guest.page(type: type, version: version, payload, key: key) { header in
                if Int.random(in: 0..<8, using: &generator) == 0 {
                    header[Int.random(in: 0x20..<0x60, using: &generator)] = UInt8.random(in: 0...4, using: &generator)
                }
            }
            if Int.random(in: 0..<8, using: &generator) == 0 {
                page[Int.random(in: 0..<4096, using: &generator)] ^= 1
            }
            // The page as firmware pages are: only the firmware changes it.
            let response = guest.platform.firmwarePage()
            defer {
                _ = guest.platform.submit(.snpPageReclaim, SNPPageReclaim(address: response).bytes)
                _ = guest.platform.memory.rmpUpdate(response, .shared)
                _ = guest.platform.memory.freePages(response, 1)
            }
            _ = guest.platform.memory.firmwareWrite(response, untouched)
            try guest.platform.memory.hostWrite(guest.request, page)
            let before = guest.platform.processor.stateDescription()
            let status = guest.platform.submit(
                .snpGuestRequest,
                SNPGuestRequest(context: guest.context, request: guest.request, response: response).bytes)
            statuses.insert(status)
            let written = try guest.platform.memory.hostRead(response, byteCount: 4096)
            if status == .success {
                answered += 1
                guest.counts[key] += 2
                #expect(written != untouched && guest.platform.processor.stateDescription() != before)
                let header = try #require(GuestMessageHeader(bytes: written))
                #expect(header.sequenceNumber == guest.counts[key] && header.type.rawValue == type &+ 1)
                let answer = try #require(GuestMessageCipher.open(written, header, key: guest.keys[key]))
                #expect([0, 0x16, 0x27].contains(answer[0]))
            } else {
                #expect(written == untouched && guest.platform.processor.stateDescription() == before)
            }
        }
        #expect(answered > 20 && statuses.isSuperset(of: [.success, .invalidParameter]))
        #expect(try guest.report(vmpl: 3, key: 3).status == 0, "the guest goes on")
    }
}
