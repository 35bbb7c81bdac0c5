// The kernel's side of the secure processor: mailbox commands with their page dance, and ASIDs.
//
// Pages that the firmware writes must be firmware pages in the RMP first, and are reclaimed afterwards [SNP 5.3.7].

import KVMABI
import MemoryController
import SEVABI
import SoftwarePSP
import Synchronization

final class SecureProcessorDriver: Sendable {
    let memory: SystemMemory
    let processor: SecureProcessor

    /// Which guests an ASID is for [APM2 15.34.1]: those with encrypted state have the low ones.
    enum ASIDClass: CaseIterable { case encryptedState, memoryOnly }

    private struct ASIDs {
        /// Never used since the last flush, ascending.
        var free: [UInt32]
        /// Given back, usable after DF_FLUSH.
        var used: [UInt32] = []
    }
    private let asids: Mutex<[ASIDClass: ASIDs]>
    private let asidRanges: [ASIDClass: Range<UInt32>]
    /// What the next VM gets, if a hostile kernel wants it so.
    private let forcedASID = Mutex<UInt32?>(nil)

    private struct Platform {
        /// SNP_INIT_EX has run.
        var isSNPInitialized = false
        /// INIT has run, and no SHUTDOWN since.
        var isSEVInitialized = false
        /// The trusted memory region of SEV-ES, once given to the firmware.
        var trustedRegion: SPA?
    }
    private let platform = Mutex(Platform())
    /// False on a host whose firmware never came to SNP.
    private let initializesSNP: Bool
    /// `sev_cmd_mutex`. Order: this one, then `platform`.
    private let commandLock = Mutex(())

    /// - Parameters:
    ///   - stateASIDs: For SEV-ES and SNP guests.
    ///   - memoryASIDs: For SEV guests.
    ///   - initializesSNP: SNP_INIT is tried.
    ///   - hasFreeASIDs: No other guests have them all.
    init(
        memory: SystemMemory, processor: SecureProcessor, stateASIDs: Range<UInt32>, memoryASIDs: Range<UInt32>,
        initializesSNP: Bool = true, hasFreeASIDs: Bool = true
    ) {
        self.memory = memory
        self.processor = processor
        asidRanges = [.encryptedState: stateASIDs, .memoryOnly: memoryASIDs]
        asids = Mutex(asidRanges.mapValues { ASIDs(free: hasFreeASIDs ? Array($0) : []) })
        self.initializesSNP = initializesSNP
    }

    /// A command of KVM's.
    func submit(_ command: SEVCommand, _ buffer: inout [UInt8]) -> SEVStatus {
        commandLock.withLock { _ in
            // A copy: the caller's array may not be captured.
            var bytes = buffer
            let status = processor.submit(command, &bytes)
            buffer = bytes
            return status
        }
    }

    /// Runs `body` as the only user of the mailbox: what a command of /dev/sev finds does not change under it.
    func withCommandLock(_ body: () throws(EncryptFailure) -> Void) throws(EncryptFailure) {
        try commandLock.withLock { (_) throws(EncryptFailure) in try body() }
    }

    // MARK: Platform

    /// Brings the platform up, SNP and SEV, as KVM does when it loads and before each guest. Returns the firmware's
    /// refusal, if any.
    @discardableResult
    func initializePlatform() -> SEVStatus {
        let status: SEVStatus = platform.withLock { platform in
            if platform.isSNPInitialized || !initializesSNP { return .success }
            var initEx = SNPInitEx().bytes
            let status = processor.submit(.snpInitializeEx, &initEx)
            platform.isSNPInitialized = status == .success
            return status
        }
        return status == .success ? initializeSEV() : status
    }

    /// INIT with SEV-ES: the platform of SEV and SEV-ES guests goes from UNINIT to INIT [SEV 5.1].
    func initializeSEV() -> SEVStatus {
        platform.withLock { platform in
            if platform.isSEVInitialized { return .success }
            if platform.trustedRegion == nil { platform.trustedRegion = allocateTrustedRegion() }
            guard let region = platform.trustedRegion else { return .resourceLimit }
            var buffer = SEVInit(
                flags: SEVInitFlags.sevES.rawValue, tmrAddress: region, tmrByteCount: Self.trustedRegionByteCount
            ).bytes
            let status = processor.submit(.initialize, &buffer)
            platform.isSEVInitialized = status == .success
            return status
        }
    }

    /// SHUTDOWN: the platform of SEV and SEV-ES guests goes back to UNINIT; SNP stays.
    func shutDownSEV() -> SEVStatus {
        platform.withLock { platform in
            var none: [UInt8] = []
            let status = processor.submit(.shutdown, &none)
            if status == .success { platform.isSEVInitialized = false }
            return status
        }
    }

    /// What PLATFORM_STATUS says.
    var platformState: SEVPlatformState {
        var buffer = [UInt8](repeating: 0, count: 12)
        guard processor.submit(.platformStatus, &buffer) == .success else { return .uninitialized }
        return SEVPlatformState(rawValue: buffer[2])
    }

    /// 1 MiB, and a multiple of it: what the firmware asks for.
    private static let trustedRegionByteCount: UInt32 = 1 << 20

    private func allocateTrustedRegion() -> SPA? {
        let pageCount = Int(Self.trustedRegionByteCount >> 12)
        guard let region = memory.allocatePages(pageCount, alignment: pageCount) else { return nil }
        for page in 0..<UInt64(pageCount) {
            guard memory.rmpUpdate(region + page << 12, .firmware) == .success else { return nil }
        }
        return region
    }

    // MARK: ASIDs

    /// Takes an ASID; nil when all of its class are in use.
    func takeASID(_ kind: ASIDClass) -> UInt32? {
        if let forced = forcedASID.withLock({ $0.take() }) { return forced }
        return asids.withLock { asids in
            if asids[kind]?.free.isEmpty ?? true, !(asids[kind]?.used.isEmpty ?? true) {
                guard flushASIDs() == .success else { return nil }
                asids = asids.mapValues { ASIDs(free: ($0.free + $0.used).sorted()) }
            }
            guard let free = asids[kind]?.free, !free.isEmpty else { return nil }
            return asids[kind]?.free.removeFirst()
        }
    }

    /// WBINVD and DF_FLUSH: ASIDs that were given back, of every class, become usable [SEV 5.9].
    private func flushASIDs() -> SEVStatus {
        processor.noteCachesWrittenBack()
        var none: [UInt8] = []
        return processor.submit(.snpDFFlush, &none)
    }

    /// The ASID's guest is gone. It waits for the next flush.
    func giveBack(asid: UInt32) {
        asids.withLock { asids in
            for (kind, range) in asidRanges where range.contains(asid) {
                // A forced ASID may come back twice, or be free.
                if let pool = asids[kind], pool.free.contains(asid) || pool.used.contains(asid) { continue }
                asids[kind]?.used.append(asid)
            }
        }
    }

    /// A hostile kernel: the next VM gets this ASID, whoever has it, without or with the flush that belongs in between.
    func force(nextASID asid: UInt32, flushing: Bool) {
        if flushing { _ = flushASIDs() }
        asids.withLock { asids in
            asids = asids.mapValues { lists in
                ASIDs(free: lists.free.filter { $0 != asid }, used: lists.used.filter { $0 != asid })
            }
        }
        forcedASID.withLock { $0 = asid }
    }

    func asidCount(_ kind: ASIDClass) -> Int { asidRanges[kind]?.count ?? 0 }

    /// Pages for the firmware are marked in the RMP from SNP_INIT on.
    var isSNPInitialized: Bool { platform.withLock { $0.isSNPInitialized } }

    func hasASIDs(_ kind: ASIDClass) -> Bool { !(asidRanges[kind]?.isEmpty ?? true) }

    // MARK: Guests of SEV and SEV-ES

    /// `sev_unbind_asid`: DEACTIVATE takes the key out of the ASID's slot, DECOMMISSION forgets the guest.
    func unbind(handle: UInt32) {
        var buffer = SEVHandleBuffer(handle: handle).bytes
        _ = processor.submit(.deactivate, &buffer)
        decommission(handle: handle)
    }

    func decommission(handle: UInt32) {
        var buffer = SEVHandleBuffer(handle: handle).bytes
        _ = processor.submit(.decommission, &buffer)
    }

    // MARK: Guest contexts of SNP

    /// Allocates a guest context page: SNP_GCTX_CREATE [SNP 8.14].
    func createContext() -> (context: SPA?, status: SEVStatus) {
        guard let page = memory.allocatePages(1) else { return (nil, .resourceLimit) }
        guard memory.rmpUpdate(page, .firmware) == .success else {
            _ = memory.freePages(page, 1)
            return (nil, .invalidPageState)
        }
        var buffer = SNPAddressBuffer(address: page).bytes
        let status = processor.submit(.snpGuestContextCreate, &buffer)
        if status != .success {
            reclaim(page)
            return (nil, status)
        }
        return (page, status)
    }

    /// SNP_DECOMMISSION, then the context page comes back.
    func decommission(_ context: SPA) {
        var buffer = SNPAddressBuffer(address: context).bytes
        guard processor.submit(.snpDecommission, &buffer) == .success else { return }
        reclaim(context)
    }

    /// SNP_PAGE_RECLAIM, RMPUPDATE to shared, and back to the allocator. A page that the firmware keeps is leaked.
    func reclaim(_ page: SPA) {
        guard takeBack(page) else { return }
        _ = memory.freePages(page, 1)
    }

    /// SNP_PAGE_RECLAIM and RMPUPDATE to shared: the page is the hypervisor's again.
    func takeBack(_ page: SPA) -> Bool {
        var buffer = SNPPageReclaim(address: page).bytes
        guard processor.submit(.snpPageReclaim, &buffer) == .success else { return false }
        return memory.rmpUpdate(page, .shared) == .success
    }
}

extension RMPUpdate {
    /// A page for the firmware: assigned, immutable, no guest.
    static let firmware = RMPUpdate(assigned: true, immutable: true)

    /// A page on its way to a guest by way of the firmware.
    static func preGuest(gpa: UInt64, asid: UInt32) -> RMPUpdate {
        RMPUpdate(gpa: gpa, assigned: true, immutable: true, asid: asid)
    }

    /// A page for a guest to validate.
    static func guestInvalid(gpa: UInt64, asid: UInt32) -> RMPUpdate {
        RMPUpdate(gpa: gpa, assigned: true, asid: asid)
    }
}
