import MemoryController
import SEVABI
import SoftwarePSP
import Testing

/// Whatever stands in a command buffer, the firmware answers: it does not trap, and it does not give a guest away.
@Suite("Mailbox with any bytes")
struct MailboxFuzzTests {
    struct Generator: RandomNumberGenerator {
        var state: UInt64
        mutating func next() -> UInt64 {
            state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
            return state ^ state >> 31
        }
    }

    @Test("random commands, lengths and addresses", arguments: 1...8 as ClosedRange<UInt64>)
    func random(_ seed: UInt64) throws {
        var generator = Generator(state: seed)
        let platform = try Platform(initialized: seed % 2 == 0)
        let memory = platform.memory
        let pages = (0..<32).map { _ in memory.allocatePages()! }
        // A guest whose plaintext must never be seen by the host.
        let marker = Array("plaintext of the guest that nobody else may read".utf8)
        var secretPage: SPA?
        if seed % 2 == 0 {
            let context = platform.launchingGuest(asid: 50)
            let page = try platform.preGuestPage(asid: 50, gpa: 0x1000, marker)
            #expect(platform.processor.launchUpdate(context: context, page: page, type: .normal) == .success)
            secretPage = page
        }
        let interesting: [UInt64] = [
            0, 1, 4096, .max, memory.base.rawValue - 1, memory.base.rawValue + memory.byteCount, 1 << 63,
        ]
        let commands =
            [
                0x01, 0x02, 0x04, 0x0a, 0x0d, 0x81, 0x82, 0x83, 0x84, 0x85, 0x86, 0x90, 0x91, 0x92, 0x93, 0x94, 0xa0,
                0xa1, 0xa1,
                0xa1, 0xa2, 0xc7, 0xc9, 0xcb,
            ] as [UInt32]
        var statuses: Set<SEVStatus> = []
        for _ in 0..<3000 {
            var buffer = [UInt8](repeating: 0, count: Int.random(in: 0...72, using: &generator))
            for offset in stride(from: 0, to: buffer.count, by: 8) {
                let value: UInt64 =
                    switch Int.random(in: 0..<6, using: &generator) {
                    case 0, 1, 2: pages.randomElement(using: &generator)!.rawValue
                    case 3: interesting.randomElement(using: &generator)!
                    case 4: UInt64.random(in: 0..<16, using: &generator)
                    default: generator.next()
                    }
                for index in 0..<min(8, buffer.count - offset) {
                    buffer[offset + index] = UInt8(truncatingIfNeeded: value >> UInt64(8 * index))
                }
            }
            let command = SEVCommand(rawValue: commands.randomElement(using: &generator)!)
            statuses.insert(platform.processor.submit(command, &buffer))
            // The hypervisor does something, too.
            let page = pages.randomElement(using: &generator)!
            switch Int.random(in: 0..<4, using: &generator) {
            case 0: _ = memory.rmpUpdate(page, .shared)
            case 1: _ = memory.rmpUpdate(page, RMPUpdate(assigned: true, immutable: true))
            case 2:
                _ = memory.rmpUpdate(
                    page, RMPUpdate(gpa: generator.next() & 0xf000, assigned: true, immutable: true, asid: UInt32(seed))
                )
            default: try? memory.hostWrite(page, [UInt8(truncatingIfNeeded: seed)])
            }
        }
        #expect(statuses.count >= 5, "the driver reaches more than the first check")
        if let secretPage {
            let seen = try memory.hostRead(secretPage, byteCount: 4096)
            #expect(Array(seen.prefix(marker.count)) != marker)
        }
    }

    @Test("SEV commands with any bytes, over guests in every state", arguments: 1...6 as ClosedRange<UInt64>)
    func randomSEV(_ seed: UInt64) throws {
        var generator = Generator(state: seed)
        let machine = try SEVMachine(snp: seed % 2 == 0)
        let memory = machine.memory
        // A guest of another owner, whose plaintext and measurement must stay what they are.
        let marker = Array("plaintext of the guest that nobody else may read".utf8)
        let victim = machine.start(policy: 7)
        #expect(machine.activate(victim.handle, 60) == .success)
        let secretPage = machine.pages(marker)
        #expect(machine.update(victim.handle, secretPage, 4096) == .success)
        var pages = (0..<16).map { _ in machine.pages([UInt8](repeating: 1, count: 4096)) }
        pages += (0..<8).map { _ in machine.output() }
        pages.append(secretPage)
        let interesting: [UInt64] = [
            0, 1, 16, 48, 2084, 4096, .max, memory.base.rawValue - 16, memory.base.rawValue + memory.byteCount, 1 << 63,
        ]
        var statuses: Set<SEVStatus> = []
        for _ in 0..<4000 {
            var buffer = [UInt8](repeating: 0, count: Int.random(in: 0...56, using: &generator))
            for offset in stride(from: 0, to: buffer.count, by: 8) {
                let value: UInt64 =
                    switch Int.random(in: 0..<6, using: &generator) {
                    case 0, 1: pages.randomElement(using: &generator)!.rawValue
                    case 2, 3: interesting.randomElement(using: &generator)!
                    case 4:
                        UInt64.random(in: 0..<8, using: &generator) | UInt64.random(in: 90..<110, using: &generator)
                            << 32
                    default: generator.next()
                    }
                for index in 0..<min(8, buffer.count - offset) {
                    buffer[offset + index] = UInt8(truncatingIfNeeded: value >> UInt64(8 * index))
                }
            }
            var command = (SEVStateTests.commands + SEVStateTests.unsupported).randomElement(using: &generator)!
            // These end the victim, or every session: rarely, and not here.
            if command == .shutdown || command == .pekGenerate { command = .launchUpdateData }
            // The victim's own launch goes on only by its driver.
            if SEVHandleBuffer(bytes: buffer)?.handle == victim.handle, command != .debugDecrypt,
                command != .debugEncrypt, command != .attestation, command != .launchStart
            {
                continue
            }
            statuses.insert(machine.processor.submit(command, &buffer))
        }
        #expect(statuses.count >= 6, "the driver reaches more than the first check: \(statuses)")
        #expect(machine.guestBytes(secretPage, asid: 60) != nil)
        #expect(machine.read(secretPage, marker.count) != marker)
        for page in pages where page != secretPage { #expect(machine.read(page, marker.count) != marker) }
        #expect(machine.processor.guestStatus(of: victim.handle)?.state == .launchUpdate)
    }

    @Test("commands and memory accesses from several threads")
    func threads() async throws {
        let platform = try Platform()
        await withTaskGroup(of: Void.self) { group in
            for asid in 1...4 as ClosedRange<UInt32> {
                group.addTask {
                    let context = platform.launchingGuest(asid: asid)
                    for index in 0..<200 {
                        let gpa = UInt64(index) * 4096
                        guard let page = try? platform.preGuestPage(asid: asid, gpa: gpa, [UInt8(asid)]) else {
                            continue
                        }
                        #expect(
                            platform.processor.launchUpdate(context: context, page: page, type: .normal) == .success)
                        #expect(platform.load(page, gpa: gpa, asid: asid, byteCount: 2) == [UInt8(asid), 0])
                        #expect(platform.memory.hostSnapshot(spa: page, byteCount: 16) != nil)
                        #expect(platform.memory.rmpUpdate(page, .shared) == .success)
                        #expect(platform.memory.freePages(page))
                    }
                    #expect(platform.decommission(context) == .success)
                }
            }
        }
        #expect(platform.processor.snpPlatformStatus().guestCount == 0)
    }
}
