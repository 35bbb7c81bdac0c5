import Crypto
import MemoryController
import SEVABI
import SoftwarePSP
import TestSupport
import Testing

@Suite("MSG_REPORT")
struct GuestReportTests {
    static func isSigned(_ report: [UInt8], by key: P384PublicKey) -> Bool {
        key.isValidSignature(
            littleEndianR: Array(report[0x2a0..<0x2e8]), s: Array(report[0x2e8..<0x330]), of: Array(report[..<0x2a0]))
    }

    @Test("what the report says is what was launched, where, and by whom it was asked")
    func contents() throws {
        typealias Fixture = IDBlockFixture
        let platform = try Platform()
        let pages = try #require(platform.memory.allocatePages(2))
        try platform.memory.hostWrite(pages, Fixture.block().bytes)
        try platform.memory.hostWrite(pages + 4096, Fixture.authentication(Fixture.matchingR, Fixture.matchingS).bytes)
        let hostData = (0..<32 as Range<UInt8>).map { $0 ^ 0x5a }
        let guest = try MessagingGuest(
            platform,
            finish: SNPLaunchFinish(
                context: .zero, idBlock: pages, idAuthentication: pages + 4096, usesIDBlock: true,
                usesAuthorKey: true, hostData: hostData)
        ) { platform, context in
            let page = try platform.preGuestPage(gpa: 0x1000)
            #expect(platform.processor.launchUpdate(context: context, page: page, type: .zero) == .success)
        }
        let data = (0..<64 as Range<UInt8>).map { $0 &* 3 }
        let (status, report) = try guest.report(data: data, vmpl: 2, key: 1)
        #expect(status == 0 && report.count == 0x4a0)
        func filled(_ value: UInt8, _ count: Int) -> [UInt8] { [UInt8](repeating: value, count: count) }
        func at(_ offset: Int, _ count: Int) -> [UInt8] { Array(report[offset..<(offset + count)]) }
        let tcb: [UInt8] = [4, 0, 0, 0, 0, 0, 24, 219]
        #expect(at(0x000, 8) == [3, 0, 0, 0, 7, 0, 0, 0], "version, SVN of the ID block")
        #expect(at(0x008, 8) == [0, 0, 3, 0, 0, 0, 0, 0], "policy")
        #expect(at(0x010, 16) == filled(0x11, 16) && at(0x020, 16) == filled(0x22, 16))
        #expect(at(0x030, 8) == [2, 0, 0, 0, 1, 0, 0, 0], "VMPL, ECDSA P-384")
        #expect(at(0x038, 8) == tcb)
        #expect(at(0x040, 16) == [0x21, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0], "SMT, alias check; author key")
        #expect(at(0x050, 64) == data)
        #expect(at(0x090, 48) == Fixture.launchDigest)
        #expect(at(0x0c0, 32) == hostData)
        #expect(at(0x0e0, 48) == SHA2Hasher(.sha384).hash(PublicKeyField(x: Fixture.idKeyX, y: Fixture.idKeyY).bytes))
        #expect(
            at(0x110, 48)
                == SHA2Hasher(.sha384).hash(PublicKeyField(x: Fixture.authorKeyX, y: Fixture.authorKeyY).bytes))
        #expect(at(0x140, 32) != filled(0, 32))
        #expect(at(0x160, 32) == filled(0xff, 32), "no migration agent")
        #expect(at(0x180, 8) == tcb)
        #expect(at(0x188, 24) == [25, 1, 1] + filled(0, 21))
        #expect(at(0x1a0, 64) != filled(0, 64))
        #expect(at(0x1e0, 8) == tcb)
        #expect(at(0x1e8, 8) == [29, 55, 1, 0, 29, 55, 1, 0])
        #expect(at(0x1f0, 8) == tcb)
        #expect(at(0x1f8, 0xa8) == filled(0, 0xa8))
        #expect(at(0x2a0 + 48, 24) == filled(0, 24) && at(0x2e8 + 48, 24) == filled(0, 24))
        #expect(at(0x330, 368) == filled(0, 368))
        #expect(Self.isSigned(report, by: try #require(platform.processor.endorsementKey(.vcek))))
        // Again, the same but for who asks and what.
        let again = try guest.report(data: data, vmpl: 2, key: 1).report
        #expect(again == report, "nothing in a report is random")
        var other = try guest.report().report
        other.replaceSubrange(0x030..<0x034, with: at(0x030, 4))
        other.replaceSubrange(0x050..<0x090, with: data)
        #expect(Array(other[..<0x2a0]) == at(0, 0x2a0))
    }

    @Test("without an ID block its fields are zero; every guest has an id of its own")
    func plain() throws {
        let guest = try MessagingGuest()
        let report = try guest.report().report
        for range in [0x004..<0x008, 0x010..<0x030, 0x048..<0x050, 0x0c0..<0x140] {
            #expect(report[range].allSatisfy { $0 == 0 })
        }
        let other = try MessagingGuest(guest.platform, asid: 2).report().report
        #expect(report[0x140..<0x160] != other[0x140..<0x160])
        #expect(try guest.report().report[0x140..<0x160] == report[0x140..<0x160])
    }

    @Test("versions and products", arguments: [2, 3, 5] as [UInt32])
    func versions(_ version: UInt32) throws {
        let storage = try PlatformStorage.seeded(9)
        for product in ProcessorProduct.allCases {
            let platform = try Platform(storage: storage) { profile in
                switch product {
                case .milan: profile = .milan(cpuid: Platform.cpuid)
                case .genoa: profile = .genoa(cpuid: Platform.cpuid)
                case .turin: profile = .turin(cpuid: Platform.cpuid)
                }
                profile.reportVersion = version
                profile.mitigationVector = 0x33
            }
            let report = try MessagingGuest(platform).report().report
            let hasCPUID: [UInt8] =
                switch product {
                case .milan: [25, 1, 1]
                case .genoa: [25, 17, 1]
                case .turin: [26, 2, 1]
                }
            #expect(report[0] == UInt8(version))
            #expect(Array(report[0x188..<0x18b]) == (version >= 3 ? hasCPUID : [0, 0, 0]))
            #expect(report[0x1f8] == (version >= 5 ? 0x33 : 0) && report[0x200] == report[0x1f8])
            #expect(report[0x1a8..<0x1e0].allSatisfy { $0 == 0 } == (product == .turin), "Turin's chip id has 8 bytes")
            #expect(Array(report[0x1a0..<0x1e0]) == storage.chipID(product: product))
            let tcb = platform.processor.profile.currentTCB
            #expect(Self.isSigned(report, by: storage.vcek(product: product, reportedTCB: tcb)))
        }
    }

    @Test("VMPL, KEY_SEL, reserved bits: the STATUS of a response that is sealed and counted")
    func refusals() throws {
        let guest = try MessagingGuest()
        for key in 0..<4 {
            for vmpl in [0, 1, 2, 3, 4, 255] as [UInt8] {
                let (status, report) = try guest.report(vmpl: vmpl, key: key)
                #expect(status == (vmpl >= UInt8(key) && vmpl <= 3 ? 0 : 0x16), "VMPCK \(key), VMPL \(vmpl)")
                if status != 0 { #expect(report.allSatisfy { $0 == 0 }) }
            }
        }
        #expect(try guest.report(keySelection: 1).status == 0)
        #expect(try guest.report(keySelection: 2).status == 0x27, "no VLEK")
        #expect(try guest.report(keySelection: 3).status == 0x16)
        for offset in 0x44..<0x60 {
            var payload = GuestRequestTests.payload
            payload[offset] = 0x80
            #expect(try guest.ask(type: 5, payload)[0] == 0x16, "byte \(offset)")
        }
        #expect(try guest.report().status == 0)
    }

    @Test("masks: no chip id, no signature")
    func masks() throws {
        let guest = try MessagingGuest()
        let platform = guest.platform
        var config = SNPConfig(reportedTCB: TCBVersion(rawValue: 0))
        config.masksChipID = true
        #expect(platform.submit(.snpConfig, config.bytes) == .success)
        var report = try guest.report().report
        #expect(report[0x1a0..<0x1e0].allSatisfy { $0 == 0 } && report[0x48] == 0)
        #expect(Self.isSigned(report, by: try #require(platform.processor.endorsementKey(.vcek))))
        config.masksChipID = false
        config.masksChipKey = true
        #expect(platform.submit(.snpConfig, config.bytes) == .success)
        report = try guest.report().report
        #expect(report[0x48] == 2 | 7 << 2)
        #expect(report[0x2a0...].allSatisfy { $0 == 0 } && !report[0x1a0..<0x1e0].allSatisfy { $0 == 0 })
    }

    @Test("another reported TCB version is another key; SNP_COMMIT moves committed and reported")
    func reportedTCB() throws {
        let storage = try PlatformStorage.seeded(3)
        let committed = TCBVersion(bootLoader: 3, tee: 0, snp: 20, microcode: 200)
        let current = TCBVersion(bootLoader: 4, tee: 0, snp: 24, microcode: 219)
        let platform = try Platform(storage: storage) { $0.committedTCB = committed }
        let guest = try MessagingGuest(platform)
        func tcbs(_ report: [UInt8]) -> [UInt64] {
            [0x38, 0x180, 0x1e0, 0x1f0].map { offset in
                (0..<8).reduce(0) { $0 | UInt64(report[offset + $1]) << UInt64(8 * $1) }
            }
        }
        var keys: Set<String> = []
        func check(_ reported: TCBVersion, committed: TCBVersion) throws {
            let report = try guest.report().report
            #expect(tcbs(report) == [current, reported, committed, current].map(\.rawValue))
            let key = storage.vcek(product: .milan, reportedTCB: reported)
            #expect(Self.isSigned(report, by: key))
            keys.insert(key.littleEndianX.hex)
        }
        try check(committed, committed: committed)
        let older = TCBVersion(bootLoader: 3, tee: 0, snp: 19, microcode: 200)
        #expect(platform.submit(.snpConfig, SNPConfig(reportedTCB: older).bytes) == .success)
        try check(older, committed: committed)
        #expect(platform.submit(.snpConfig, SNPConfig(reportedTCB: current).bytes) == .invalidParameter)
        #expect(platform.submit(.snpCommit, SNPCommit().bytes) == .success)
        try check(current, committed: current)
        #expect(keys.count == 3)
        #expect(
            storage.vcek(product: .genoa, reportedTCB: current).littleEndianX
                != storage.vcek(product: .milan, reportedTCB: current).littleEndianX)
        #expect(
            try PlatformStorage.seeded(4).vcek(product: .milan, reportedTCB: current).littleEndianX
                != storage.vcek(product: .milan, reportedTCB: current).littleEndianX)
    }

    // MARK: VLEK

    func load(_ blob: [UInt8], _ platform: Platform) throws -> SEVStatus {
        let page = try #require(platform.memory.allocatePages())
        try platform.memory.hostWrite(page, blob)
        return platform.submit(.snpVLEKLoad, SNPVLEKLoad(address: page).bytes)
    }

    @Test("a VLEK signs for the chips it was wrapped for, and for TCB versions up to its own")
    func vlek() throws {
        let storage = try PlatformStorage.seeded(5)
        let platform = try Platform(storage: storage)
        let guest = try MessagingGuest(platform)
        let hashstick = VLEKHashstick(seed: [1, 2, 3])
        let tcb = platform.processor.profile.currentTCB
        let blob = hashstick.wrapped(for: storage, tcb: tcb)
        #expect(blob.count == 432)
        for offset in stride(from: 0, to: 432, by: 7) + [0x0c, 0x0f, 0x190, 0x197, 0x198, 0x19f, 0x1a0, 0x1af] {
            var changed = blob
            changed[offset] ^= 1
            #expect(try load(changed, platform) == .badMeasurement, "byte \(offset)")
        }
        #expect(try load(hashstick.wrapped(for: .seeded(6), tcb: tcb), platform) == .badMeasurement)
        #expect(
            try load(hashstick.wrapped(for: storage, tcb: TCBVersion(rawValue: 1 << 16)), platform)
                == .invalidParameter)
        #expect(try guest.report(keySelection: 2).status == 0x27 && platform.processor.endorsementKey(.vlek) == nil)
        #expect(try load(blob, platform) == .success)
        #expect(platform.processor.snpPlatformStatus().features.contains(.vlekLoaded))

        let key = hashstick.vlek(product: .milan, reportedTCB: tcb)
        for selection in [0, 2] as [UInt8] {
            let report = try guest.report(keySelection: selection).report
            #expect(report[0x48] == 1 << 2)
            #expect(Self.isSigned(report, by: key))
        }
        let own = try guest.report(keySelection: 1).report
        #expect(own[0x48] == 0 && Self.isSigned(own, by: storage.vcek(product: .milan, reportedTCB: tcb)))
        // The same hashstick on another chip is the same key.
        let second = try PlatformStorage.seeded(7)
        let elsewhere = try Platform(seed: 2, storage: second)
        #expect(try load(hashstick.wrapped(for: second, tcb: tcb), elsewhere) == .success)
        #expect(Self.isSigned(try MessagingGuest(elsewhere).report().report, by: key))
        // A hashstick of an older version cannot sign for the reported one.
        let old = TCBVersion(bootLoader: 4, tee: 0, snp: 23, microcode: 219)
        #expect(try load(hashstick.wrapped(for: storage, tcb: old), platform) == .success)
        #expect(try guest.report().status == 0x27)
        #expect(platform.submit(.snpConfig, SNPConfig(reportedTCB: old).bytes) == .success)
        let report = try guest.report().report
        #expect(Self.isSigned(report, by: hashstick.vlek(product: .milan, reportedTCB: old)))
        #expect(platform.decommission(guest.context) == .success)
        #expect(platform.submit(.dfFlush, []) == .success)
        #expect(platform.submit(.snpShutdownEx, SNPShutdownEx().bytes) == .success)
        #expect(!platform.processor.snpPlatformStatus().features.contains(.vlekLoaded))
    }

    @Test("VCEK_DIS: such a guest gets reports and keys with a VLEK only")
    func vcekDisabled() throws {
        let storage = try PlatformStorage.seeded(8)
        let platform = try Platform(storage: storage)
        let guest = try MessagingGuest(platform, finish: SNPLaunchFinish(context: .zero, disablesVCEK: true))
        #expect(try guest.report().status == 0x27 && guest.report(keySelection: 1).status == 0x27)
        #expect(try guest.derive().status == 0x27)
        #expect(try guest.derive(root: 1).status == 0, "the VMRK is the guest's own")
        let tcb = platform.processor.profile.currentTCB
        #expect(try load(VLEKHashstick(seed: [9]).wrapped(for: storage, tcb: tcb), platform) == .success)
        #expect(try guest.report().status == 0 && guest.report(keySelection: 1).status == 0x27)
        #expect(try guest.derive().status == 0 && guest.derive(root: 1 << 1).status == 0x27)
    }
}
