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
    /// INIT of the SEV platform and SNP_INIT_EX have run.
    private let initialized = Mutex(false)

    /// - Parameters:
    ///   - stateASIDs: For SEV-ES and SNP guests.
    ///   - memoryASIDs: For SEV guests.
    init(
        memory: SystemMemory, processor: SecureProcessor, stateASIDs: Range<UInt32>, memoryASIDs: Range<UInt32>
    ) {
        self.memory = memory
        self.processor = processor
        asidRanges = [.encryptedState: stateASIDs, .memoryOnly: memoryASIDs]
        asids = Mutex(asidRanges.mapValues { ASIDs(free: Array($0)) })
    }

    /// Brings the platform up, as KVM does when it loads. Returns the firmware's refusal, if any.
    @discardableResult
    func initializePlatform() -> SEVStatus {
        initialized.withLock { done in
            if done { return .success }
            var initEx = SNPInitEx().bytes
            let status = processor.submit(.snpInitializeEx, &initEx)
            guard status == .success else { return status }
            var none: [UInt8] = []
            _ = processor.submit(.initialize, &none)
            done = true
            return .success
        }
    }

    // MARK: ASIDs

    /// Takes an ASID; nil when all of its class are in use.
    func takeASID(_ kind: ASIDClass) -> UInt32? {
        if let forced = forcedASID.withLock({ $0.take() }) { return forced }
        return asids.withLock { asids in
            if asids[kind]?.free.isEmpty ?? true, !(asids[kind]?.used.isEmpty ?? true) {
                // WBINVD and DF_FLUSH make the returned ones usable, of every class [SEV 5.12].
                processor.noteCachesWrittenBack()
                var none: [UInt8] = []
                guard processor.submit(.snpDFFlush, &none) == .success else { return nil }
                asids = asids.mapValues { ASIDs(free: ($0.free + $0.used).sorted()) }
            }
            guard let free = asids[kind]?.free, !free.isEmpty else { return nil }
            return asids[kind]?.free.removeFirst()
        }
    }

    /// The ASID's guest is gone. It waits for the next flush.
    func giveBack(asid: UInt32) {
        asids.withLock { asids in
            for (kind, range) in asidRanges where range.contains(asid) { asids[kind]?.used.append(asid) }
        }
    }

    /// A hostile kernel: the next VM gets this ASID, whoever has it, without or with the flush that belongs in between.
    func force(nextASID asid: UInt32, flushing: Bool) {
        var none: [UInt8] = []
        if flushing { _ = processor.submit(.snpDFFlush, &none) }
        asids.withLock { asids in
            asids = asids.mapValues { lists in
                ASIDs(free: lists.free.filter { $0 != asid }, used: lists.used.filter { $0 != asid })
            }
        }
        forcedASID.withLock { $0 = asid }
    }

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
