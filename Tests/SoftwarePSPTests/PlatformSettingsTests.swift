import Crypto
import MemoryController
import SEVABI
import SoftwarePSP
import Synchronization
import TestSupport
import Testing

/// A file that several processes have: every update sees what the last one left.
final class SharedStore: PlatformStore {
    let bytes = Mutex<[UInt8]>([])
    /// As if the disk were full.
    let isBroken = Mutex(false)
    let reported = Mutex<[PlatformStorageError]>([])

    func update(_ change: ([UInt8]) throws(PlatformStorageError) -> [UInt8]?) throws(PlatformStorageError) {
        let isBroken = isBroken.withLock { $0 }
        try bytes.withLock { (bytes) throws(PlatformStorageError) in
            guard let new = try change(bytes) else { return }
            if isBroken { throw .notKept("no room") }
            bytes = new
        }
    }

    func report(_ error: PlatformStorageError) { reported.withLock { $0.append(error) } }

    var contents: [UInt8] { bytes.withLock { $0 } }
}

@Suite("Platform settings and their storage")
struct PlatformSettingsTests {
    static let usual = PlatformSettings(.milan(cpuid: Platform.cpuid))

    static func tcb(_ snp: UInt8, microcode: UInt8 = 219) -> TCBVersion {
        TCBVersion(bootLoader: 4, tee: 0, snp: snp, microcode: microcode)
    }

    static func open(_ store: SharedStore, settings: PlatformSettings? = usual) throws -> PlatformStorage {
        try PlatformStorage(store, entropy: .seed([3]), settings: settings)
    }

    /// A process: it reads the store when it starts.
    static func machine(_ store: SharedStore) throws -> Platform { try Platform(storage: open(store)) }

    // MARK: Rules

    @Test("REPORTED ≤ COMMITTED ≤ CURRENT: what each change may do, and the status of what it may not")
    func rules() {
        var settings = Self.usual
        #expect(settings.currentTCB == Self.tcb(24) && settings.reportedTCB == Self.tcb(24))
        // Up, and committed by hand.
        #expect(settings.install(Self.tcb(25, microcode: 220)) == .success)
        #expect(settings.committedTCB == Self.tcb(24) && settings.reportedTCB == Self.tcb(24))
        #expect(settings.commit(upTo: Self.tcb(26)) == .invalidParameter, "above the current one")
        #expect(settings.commit(upTo: Self.tcb(25, microcode: 221)) == .invalidParameter, "one component above")
        #expect(settings.commit(upTo: Self.tcb(25)) == .success)
        #expect(settings.reportedTCB == Self.tcb(24), "what is reported stays")
        #expect(settings.commit(upTo: Self.tcb(24)) == .badSVN, "for ever")
        #expect(settings.install(Self.tcb(24)) == .badSVN, "rollback")
        #expect(settings.install(Self.tcb(25, microcode: 218)) == .badSVN, "rollback of one component")
        #expect(settings.install(Self.tcb(25)) == .success, "down to the committed one")
        // Bytes 2 to 5 are reserved on Milan.
        for byte in 2...5 {
            let odd = TCBVersion(rawValue: Self.tcb(25).rawValue | 1 << UInt64(8 * byte))
            #expect(settings.install(odd) == .invalidParameter && settings.commit(upTo: odd) == .invalidParameter)
        }
    }

    @Test("firmwares by report version: what they call themselves", arguments: ProcessorProduct.allCases)
    func firmware(_ product: ProcessorProduct) throws {
        let usual = PlatformProfile.machine(of: product, cpuid: Platform.cpuid)
        #expect(usual.reportVersion == (product == .turin ? 5 : 3))
        var last: (UInt8, UInt8, UInt8) = (0, 0, 0)
        for version in [2, 3, 5] as [UInt32] {
            let profile = PlatformProfile.machine(of: product, reportVersion: version, cpuid: Platform.cpuid)
            #expect(profile.product == product && profile.reportVersion == version)
            let firmware = (profile.apiMajor, profile.apiMinor, profile.build)
            #expect(firmware > last, "newer reports need newer firmware")
            last = firmware
        }
        #expect(
            PlatformProfile.machine(of: product, reportVersion: usual.reportVersion, cpuid: Platform.cpuid) == usual)
    }

    // MARK: Across processes

    @Test("product, versions, masks and the VLEK are there again in the next process")
    func persistence() throws {
        let store = SharedStore()
        _ = try Self.open(
            store, settings: PlatformSettings(.machine(of: .turin, reportVersion: 3, cpuid: Platform.cpuid)))
        #expect(store.contents.count == 0x12d0)
        // The machine's own profile is Milan's: the storage counts.
        let first = try Self.machine(store)
        let profile = first.processor.profile
        #expect(profile.product == .turin && profile.fms == ProcessorProduct.turin.fms && profile.reportVersion == 3)
        #expect(profile.apiMinor == 55 && profile.build == 37)
        let older = TCBVersion(fmc: 1, bootLoader: 1, tee: 1, snp: 3, microcode: 82)
        let config = SNPConfig(reportedTCB: older, masksChipID: true)
        #expect(first.submit(.snpConfig, config.bytes) == .success)
        let storage = try Self.open(store)
        let page = first.firmwarePage()
        let hashstick = VLEKHashstick(seed: [8])
        _ = first.memory.firmwareWrite(page, hashstick.wrapped(for: storage, tcb: profile.currentTCB))
        #expect(first.submit(.snpVLEKLoad, SNPVLEKLoad(address: page).bytes) == .success)

        let second = try Self.machine(store)
        let status = second.processor.snpPlatformStatus()
        #expect(status.reportedTCB == older && status.currentTCB == profile.currentTCB)
        #expect(status.features.contains([.maskChipID, .vlekLoaded]) && !status.features.contains(.maskChipKey))
        let report = try MessagingGuest(second).report().report
        #expect(report[0x48] == 1 << 2 && report[0x1a0..<0x1e0].allSatisfy { $0 == 0 })
        #expect(GuestReportTests.isSigned(report, by: hashstick.vlek(product: .turin, reportedTCB: older)))
        let settings = try #require(try Self.open(store).settings)
        #expect(settings.vlekHashstick == hashstick && settings.vlekTCB == profile.currentTCB)
        #expect(settings.committedTCB == profile.currentTCB && settings.masksChipID && !settings.masksChipKey)
    }

    @Test("a machine that runs is not told; what it launches next is: launch and current version")
    func launchVersions() throws {
        let store = SharedStore()
        let machine = try Self.machine(store)
        let guest = try MessagingGuest(machine)
        #expect(try Self.open(store).changeSettings(initial: Self.usual) { $0.install(Self.tcb(25)) } == .success)
        let newer = try MessagingGuest(Self.machine(store)).report().report
        #expect(newer[0x038 + 6] == 25 && newer[0x1f0 + 6] == 25, "CURRENT and LAUNCH")
        #expect(newer[0x1e0 + 6] == 24 && newer[0x180 + 6] == 24, "COMMITTED and REPORTED wait for SNP_COMMIT")
        let older = try guest.report().report
        #expect(older[0x038 + 6] == 24 && older[0x1f0 + 6] == 24)
        let committing = try Self.machine(store)
        #expect(committing.submit(.snpCommit, SNPCommit().bytes) == .success)
        #expect(try Self.open(store).settings?.committedTCB == Self.tcb(25))
        #expect(try Self.open(store).settings?.reportedTCB == Self.tcb(25))
        #expect(try Self.open(store).changeSettings(initial: Self.usual) { $0.install(Self.tcb(24)) } == .badSVN)
    }

    @Test("two processes that change different things: neither loses its change")
    func merge() throws {
        let store = SharedStore()
        let (a, b, d) = (try Self.machine(store), try Self.machine(store), try Self.machine(store))
        let c = try SEVMachine(storage: Self.open(store))
        let before = try PlatformStorage(store).chipID(product: .milan)
        #expect(a.submit(.snpConfig, SNPConfig(masksChipID: true).bytes) == .success)
        #expect(b.submit(.snpConfig, SNPConfig(reportedTCB: Self.tcb(23)).bytes) == .success)
        #expect(
            try Self.open(store).changeSettings(initial: Self.usual) { $0.install(Self.tcb(24, microcode: 255)) }
                == .success)
        let pdh = c.certificates().pdh
        #expect(c.run(.pdhGenerate).status == .success)
        #expect(d.submit(.snpConfig, SNPConfig(masksChipKey: true).bytes) == .success)
        let settings = try #require(try Self.open(store).settings)
        #expect(settings.masksChipID && settings.masksChipKey && settings.reportedTCB == Self.tcb(23))
        #expect(settings.currentTCB == Self.tcb(24, microcode: 255) && settings.committedTCB == Self.tcb(24))
        let last = try SEVMachine(storage: Self.open(store))
        #expect(last.certificates().pdh != pdh && last.certificates().pdh == c.certificates().pdh)
        #expect(try PlatformStorage(store).chipID(product: .milan) == before)
    }

    @Test("changes that contradict each other, and another chip in the same place: refused, and nothing is lost")
    func conflicts() throws {
        let store = SharedStore()
        _ = try Self.open(store).changeSettings(initial: Self.usual) { $0.install(Self.tcb(25)) }
        let stale = try Self.machine(store)
        // The firmware goes back while the other process still runs the newer one, which then commits itself.
        #expect(try Self.open(store).changeSettings(initial: Self.usual) { $0.install(Self.tcb(24)) } == .success)
        let kept = store.contents
        #expect(stale.submit(.snpCommit, SNPCommit().bytes) == .hardwarePlatform)
        #expect(store.contents == kept)
        #expect(stale.processor.snpPlatformStatus().reportedTCB == Self.tcb(24), "nothing has changed there either")

        let other = SharedStore()
        _ = try PlatformStorage(other, entropy: .seed([4]), settings: Self.usual)
        let storage = try Self.open(store)
        store.bytes.withLock { $0 = other.contents }
        #expect(stale.submit(.snpConfig, SNPConfig(masksChipID: true).bytes) == .hardwarePlatform)
        #expect(store.reported.withLock { $0.last } == .replaced)
        #expect(throws: PlatformStorageError.replaced) {
            try storage.changeSettings(initial: Self.usual) { $0.install(Self.tcb(25)) }
        }
        #expect(store.contents == other.contents)
    }

    @Test("a store that cannot write: HWERROR_PLATFORM, and nothing has changed")
    func brokenStore() throws {
        let store = SharedStore()
        let machine = try Self.machine(store)
        #expect(machine.submit(.initialize, []) == .success)
        store.isBroken.withLock { $0 = true }
        let (state, kept) = (machine.processor.stateDescription(), store.contents)
        #expect(machine.submit(.snpConfig, SNPConfig(masksChipID: true).bytes) == .hardwarePlatform)
        #expect(machine.submit(.pdhGenerate, []) == .hardwarePlatform)
        #expect(machine.submit(.pekGenerate, []) == .hardwarePlatform)
        #expect(machine.processor.stateDescription() == state && store.contents == kept)
        #expect(machine.submit(.snpConfig, SNPConfig().bytes) == .success, "what changes nothing needs no disk")
        #expect(throws: PlatformStorageError.notKept("no room")) {
            try Self.open(store).changeSettings(initial: Self.usual) { $0.install(Self.tcb(25)) }
        }
        let empty = SharedStore()
        empty.isBroken.withLock { $0 = true }
        #expect(throws: PlatformStorageError.notKept("no room")) { try Self.open(empty) }
    }

    // MARK: Format

    @Test("a file of version 1 has the machine's settings until one of them changes")
    func versionOne() throws {
        let store = SharedStore()
        _ = try Self.open(store, settings: nil)
        let old = store.contents
        #expect(old.count == 4392 && old[8] == 1)
        let genoa = try Platform(storage: Self.open(store)) { $0 = .genoa(cpuid: Platform.cpuid) }
        #expect(genoa.processor.profile.product == .genoa && store.contents == old)
        #expect(genoa.submit(.initialize, []) == .success && genoa.submit(.pdhGenerate, []) == .success)
        #expect(store.contents.count == 4392, "a key more, and nothing of settings")
        #expect(genoa.submit(.snpConfig, SNPConfig(masksChipID: true).bytes) == .success)
        #expect(store.contents.count == 0x12d0 && store.contents[8] == 2)
        let settings = try #require(try Self.open(store).settings)
        #expect(settings.product == .genoa && settings.masksChipID)
        #expect(Array(store.contents[0x10..<0x30]) == Array(old[0x10..<0x30]), "the same chip")
    }

    @Test("hostile bytes of version 2: truncated, flipped, with a fitting checksum but impossible values")
    func hostile() throws {
        let store = SharedStore()
        let machine = try Self.machine(store)
        let page = machine.firmwarePage()
        let blob = VLEKHashstick(seed: [8]).wrapped(for: try Self.open(store), tcb: Self.tcb(24))
        _ = machine.memory.firmwareWrite(page, blob)
        #expect(machine.submit(.snpVLEKLoad, SNPVLEKLoad(address: page).bytes) == .success)
        let good = store.contents
        func error(_ bytes: [UInt8]) -> PlatformStorageError? {
            do throws(PlatformStorageError) {
                _ = try PlatformStorage(bytes: bytes) { _ in Issue.record("saved what is not ours") }
                return nil
            } catch {
                return error
            }
        }
        #expect(error(good) == nil)
        for count in stride(from: 1, to: good.count, by: 7) where count != 4392 {
            #expect(error(Array(good.prefix(count))) == .notPlatformState(byteCount: count))
        }
        if case .damaged? = error(Array(good.prefix(4392))) {} else { Issue.record("cut to the length of version 1") }
        for index in 8..<good.count {
            var bytes = good
            bytes[index] ^= 1 << UInt8(index % 8)
            switch error(bytes) {
            case .version?: #expect((8..<12).contains(index))
            case .damaged?: break
            default: Issue.record("byte \(index)")
            }
        }
        func sealed(_ change: (inout [UInt8]) -> Void) -> [UInt8] {
            var bytes = Array(good.dropLast(32))
            change(&bytes)
            return bytes + SHA2Hasher(.sha256).hash(bytes)
        }
        #expect(error(sealed { _ in }) == nil && error(sealed { $0[0xc] |= 6 }) == nil)
        let changes: [(inout [UInt8]) -> Void] = [
            { $0[8] = 1 }, { $0[0xc] |= 16 }, { $0[0x1108] = 3 }, { $0[0x110c] = 4 }, { $0[0x110d] = 1 },
            // Reserved bytes of Milan's layout; the same bytes in Turin's.
            { $0[0x1112] = 1 }, { $0[0x112b] = 1 }, { $0[0x1108] = 2 },
            // Committed above current, reported above committed.
            { $0[0x111e] = 25 }, { $0[0x1126] = 25 }, { $0[0x1110] = 3 },
            // A VLEK that is not loaded.
            { $0[0xc] = 0 },
        ]
        for (index, change) in changes.enumerated() {
            if case .damaged? = error(sealed(change)) {} else { Issue.record("change \(index)") }
        }
        #expect(PlatformStorageError.replaced.description.contains("another platform"))
        #expect(PlatformStorageError.notKept("x").description.contains("x"))
    }
}
