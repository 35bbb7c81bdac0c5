import Crypto
import MemoryController
import SEVABI
import SoftwarePSP
import TestSupport
import Testing

@Suite("MSG_KEY and MSG_TSC_INFO")
struct GuestKeyTests {
    /// What of a launch goes into keys.
    struct Launch {
        var seed: UInt8 = 1
        var policy: UInt64 = 0x30000
        var hasIDBlock = true
        var page: UInt64 = 0x1000
        var change: (inout PlatformProfile) -> Void = { _ in }
    }

    /// A guest on the chip of `storage`.
    static func guest(_ launch: Launch, _ storage: PlatformStorage) throws -> MessagingGuest {
        typealias Fixture = IDBlockFixture
        let platform = try Platform(seed: launch.seed, storage: storage, launch.change)
        guard launch.hasIDBlock else {
            let context = platform.createContext()
            try #require(platform.start(context, policy: launch.policy) == .success)
            try #require(platform.activate(context) == .success)
            let page = try platform.preGuestPage(gpa: launch.page)
            try #require(platform.processor.launchUpdate(context: context, page: page, type: .zero) == .success)
            try #require(platform.finish(context) == .success)
            return try MessagingGuest(platform, running: context)
        }
        let pages = try #require(platform.memory.allocatePages(2))
        try platform.memory.hostWrite(pages, Fixture.block().bytes)
        try platform.memory.hostWrite(pages + 4096, Fixture.authentication(Fixture.matchingR, Fixture.matchingS).bytes)
        return try MessagingGuest(
            platform,
            finish: SNPLaunchFinish(context: .zero, idBlock: pages, idAuthentication: pages + 4096, usesIDBlock: true)
        ) { platform, context in
            let page = try platform.preGuestPage(gpa: 0x1000)
            #expect(platform.processor.launchUpdate(context: context, page: page, type: .zero) == .success)
        }
    }

    static let tcb = TCBVersion(bootLoader: 4, tee: 0, snp: 24, microcode: 219).rawValue

    @Test("the same guest on the same chip gets the same key again; what is not asked for does not matter")
    func stable() throws {
        let storage = try PlatformStorage.seeded(1)
        let first = try Self.guest(Launch(), storage)
        let second = try Self.guest(Launch(seed: 2), storage)
        #expect(first.keys != second.keys)
        for fields in [0, 0x3f] as [UInt8] {
            let key = try first.derive(fields: fields, svn: 7, tcb: Self.tcb)
            #expect(key.status == 0 && key.key.contains { $0 != 0 })
            #expect(try second.derive(fields: fields, svn: 7, tcb: Self.tcb) == key)
        }
        #expect(try first.derive(fields: 0, svn: 7, tcb: Self.tcb) == first.derive(fields: 0))
        // The VMRK is new with every launch.
        #expect(try first.derive(root: 1) == first.derive(root: 1))
        #expect(try first.derive(root: 1).key != second.derive(root: 1).key)
        #expect(try first.derive(root: 1).key != first.derive().key)
    }

    @Test("every field that is selected is in the key, and so are VMPL, selection and root")
    func mixing() throws {
        let storage = try PlatformStorage.seeded(1)
        let base = try Self.guest(Launch(), storage)
        var keys: [String: String] = [:]
        func note(_ name: String, _ result: (status: UInt8, key: [UInt8])) {
            #expect(result.status == 0, "\(name)")
            #expect(keys.updateValue(name, forKey: result.key.hex) == nil, "\(name)")
        }
        note("base", try base.derive(fields: 0x3f, svn: 7, tcb: Self.tcb))
        for bit in 0..<6 as Range<UInt8> {
            note("without field \(bit)", try base.derive(fields: 0x3f & ~(1 << bit), svn: 7, tcb: Self.tcb))
        }
        note("VMPL 1", try base.derive(fields: 0x3f, vmpl: 1, svn: 7, tcb: Self.tcb))
        note("older SVN", try base.derive(fields: 0x3f, svn: 6, tcb: Self.tcb))
        note("older TCB", try base.derive(fields: 0x3f, svn: 7, tcb: Self.tcb - 1))
        note("VMRK", try base.derive(root: 1, fields: 0x3f, svn: 7, tcb: Self.tcb))
        // VMPL 2 by its own key and by VMPL 0: the same VMPL, the same key.
        let fromBelow = try base.derive(fields: 0x3f, vmpl: 2, svn: 7, tcb: Self.tcb, key: 2)
        note("VMPL 2", fromBelow)
        #expect(try base.derive(fields: 0x3f, vmpl: 2, svn: 7, tcb: Self.tcb) == fromBelow)

        // Other launches: only the selected field tells them apart.
        let plain = try Self.guest(Launch(hasIDBlock: false), storage)
        let otherPolicy = try Self.guest(Launch(policy: 0xb0000, hasIDBlock: false), storage)
        let otherPage = try Self.guest(Launch(hasIDBlock: false, page: 0x2000), storage)
        #expect(try plain.derive(fields: 0).key == base.derive(fields: 0).key)
        #expect(try plain.derive(fields: 1).key != otherPolicy.derive(fields: 1).key)
        #expect(try plain.derive(fields: 8).key == otherPolicy.derive(fields: 8).key)
        #expect(try plain.derive(fields: 8).key != otherPage.derive(fields: 8).key)
        #expect(try plain.derive(fields: 1).key == otherPage.derive(fields: 1).key)
        for bit in [1, 2] as [UInt8] {
            #expect(try plain.derive(fields: 1 << bit).key != base.derive(fields: 1 << bit).key, "image, family")
        }
        let otherChip = try Self.guest(Launch(), .seeded(2))
        #expect(try otherChip.derive(fields: 0).key != base.derive(fields: 0).key)
    }

    @Test("a known answer, put together by hand")
    func knownAnswer() throws {
        let storage = try PlatformStorage.seeded(1)
        let guest = try Self.guest(Launch { $0.mitigationVector = 6 }, storage)
        let (status, key) = try guest.derive(fields: 0x7f, vmpl: 1, svn: 5, tcb: Self.tcb, mitigations: 2)
        func number(_ value: UInt64, _ count: Int) -> [UInt8] {
            (0..<count).map { UInt8(truncatingIfNeeded: value >> UInt64(8 * $0)) }
        }
        func block(_ key: [UInt8], _ label: String, _ context: [UInt8], bits: UInt64) -> [UInt8] {
            HMACSHA384.authenticate(number(1, 4) + Array(label.utf8) + [0] + context + number(bits, 4), key: key)
        }
        // The chip's seed is at 0x10 of its stored state.
        var stored: [UInt8] = []
        let kept = Kept()
        _ = try PlatformStorage(bytes: [], entropy: .seed([1])) { kept.bytes = $0 }
        stored = kept.bytes
        let vcek = block(
            Array(stored[0x10..<0x30]), "snp-vcek", [0] + Array("Milan".utf8) + [0] + number(Self.tcb, 8), bits: 384)
        let mixed =
            number(0, 4) + number(1, 4) + number(0x7f, 8) + number(0x30000, 8) + [UInt8](repeating: 0x22, count: 16)
            + [UInt8](repeating: 0x11, count: 16) + IDBlockFixture.launchDigest + number(5, 4) + number(Self.tcb, 8)
            + number(2, 8)
        #expect(status == 0)
        #expect(key == Array(block(vcek, "gmsg-keyreq", mixed, bits: 256).prefix(32)))
    }

    /// What a platform has stored last.
    final class Kept: @unchecked Sendable {
        // Only written by the initialiser of PlatformStorage, on this thread.
        var bytes: [UInt8] = []
    }

    @Test("requests that may not be: STATUS, and a key of zeroes")
    func refusals() throws {
        let guest = try Self.guest(Launch { $0.mitigationVector = 6 }, .seeded(1))
        let zeroes = [UInt8](repeating: 0, count: 32)
        func refused(_ name: String, _ result: (status: UInt8, key: [UInt8]), _ status: UInt8 = 0x16) {
            #expect(result.status == status && result.key == zeroes, "\(name)")
        }
        refused("SVN", try guest.derive(svn: 8))
        for byte in 0..<8 as Range<UInt64> {
            refused("TCB byte \(byte)", try guest.derive(tcb: Self.tcb + 1 << (8 * byte)))
        }
        refused("VMPL 4", try guest.derive(vmpl: 4))
        refused("a VMPL above the sender's", try guest.derive(vmpl: 1, key: 2))
        refused("KEY_SEL 3", try guest.derive(root: 3 << 1))
        refused("no VLEK", try guest.derive(root: 2 << 1), 0x27)
        refused("reserved root bits", try guest.derive(root: 8))
        refused("field 6 in version 1", try guest.derive(fields: 0x40))
        refused("field 7", try guest.derive(fields: 0x80, mitigations: 0))
        refused("a mitigation that was off", try guest.derive(fields: 0x40, mitigations: 1))
        #expect(try guest.derive(fields: 0x40, mitigations: 6).status == 0)
        #expect(try guest.derive(root: 1 << 1).status == 0)
        var config = SNPConfig(reportedTCB: TCBVersion(rawValue: 0))
        config.masksChipKey = true
        #expect(guest.platform.submit(.snpConfig, config.bytes) == .success)
        refused("MASK_CHIP_KEY", try guest.derive(), 0x27)
        #expect(try guest.derive(root: 1).status == 0)
    }

    // MARK: TSC_INFO

    @Test("TSC_INFO is for guests with Secure TSC in their VMSA")
    func tscInfo() throws {
        let payload = [UInt8](repeating: 0, count: 128)
        #expect(
            try MessagingGuest().ask(type: 17, payload) == [0x16] + [UInt8](repeating: 0, count: 127))
        for (desired, scale) in [(0, 1 << 32), (1_000_000, 1 << 32), (500_000, 1 << 31), (3_000_000, 3 << 32)]
            as [(UInt32, UInt64)]
        {
            let platform = try Platform { $0.tscFactor = 200 }
            let context = platform.createContext()
            let start = SNPLaunchStart(context: context, policy: .default, desiredTSCKHz: desired)
            try #require(platform.submit(.snpLaunchStart, start.bytes) == .success)
            try #require(platform.activate(context) == .success)
            var vmsa = VMSA()
            vmsa[VMSA.sevFeatures] = 1 | 1 << 9
            let page = try platform.preGuestPage(gpa: 0xffff_ffff_f000, vmsa.page)
            #expect(platform.processor.launchUpdate(context: context, page: page, type: .vmsa) == .success)
            try #require(platform.finish(context) == .success)
            let guest = try MessagingGuest(platform, running: context)
            let answer = try guest.ask(type: 17, payload)
            let scaleBytes = (0..<8).map { UInt8(truncatingIfNeeded: scale >> UInt64(8 * $0)) }
            #expect(answer.count == 128 && Array(answer[8..<16]) == scaleBytes)
            #expect(answer[0..<8].allSatisfy { $0 == 0 } && answer[16..<24].allSatisfy { $0 == 0 })
            #expect(Array(answer[24..<28]) == [200, 0, 0, 0] && answer[28...].allSatisfy { $0 == 0 })
            var reserved = payload
            reserved[127] = 1
            #expect(try guest.ask(type: 17, reserved)[0] == 0x16)
        }
    }
}
