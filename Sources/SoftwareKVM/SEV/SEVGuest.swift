// What KVM knows about a SEV or SEV-ES guest (`kvm_sev_info`): made by INIT2 or the old INIT commands, with a firmware
// handle from LAUNCH_START on.
//
//     INIT        an ASID, no firmware guest        KVM_RUN: the guest has no key, its memory is not its own
//     START       handle, key in the ASID's slot    firmware: LAUNCH_UPDATE
//     MEASURE                                       firmware: LAUNCH_SECRET
//     FINISH                                        firmware: RUNNING
//     VM closed   DEACTIVATE, DECOMMISSION, pages back; the ASID waits for WBINVD and DF_FLUSH

import KVMABI
import MemoryController
import SEVABI

/// Guarded by the VM's lock, except for the constants of INIT, which no vCPU outlives.
final class SEVGuest {
    let driver: SecureProcessorDriver
    let asid: UInt32
    /// The guest's register state is encrypted: VMSA and GHCB.
    let isES: Bool
    /// Highest GHCB protocol offered; 0 for plain SEV.
    let ghcbVersion: UInt16
    /// SEV_FEATURES of every VMSA; bit 0 (SNP active) is never set here.
    let vmsaFeatures: UInt64
    /// Made by KVM_SEV_INIT or KVM_SEV_ES_INIT on a default VM: registers stay readable once sealed but mean nothing,
    /// and the FPU state is not put into the VMSA.
    let usesLegacyInit: Bool

    /// The firmware's guest, from LAUNCH_START on.
    var handle: UInt32?
    /// The file descriptor that START was given: later commands need it open.
    var sevHandle: UInt32 = 0
    /// VMSA pages, in vCPU creation order.
    var vmsaPages: [SPA] = []
    /// KVM_MEMORY_ENCRYPT_REG_REGION, latest last.
    var registeredRegions: [(address: UInt64, byteCount: UInt64)] = []
    /// Pages of registered regions, which count against RLIMIT_MEMLOCK.
    var lockedPageCount: UInt64 = 0

    init(
        driver: SecureProcessorDriver, asid: UInt32, isES: Bool, ghcbVersion: UInt16, vmsaFeatures: UInt64,
        usesLegacyInit: Bool
    ) {
        self.driver = driver
        self.asid = asid
        self.isES = isES
        self.ghcbVersion = ghcbVersion
        self.vmsaFeatures = vmsaFeatures
        self.usesLegacyInit = usesLegacyInit
    }

    /// The VM goes: firmware first, then the pages that KVM itself took, then the ASID.
    func decommission() {
        if let handle { driver.unbind(handle: handle) }
        handle = nil
        for page in vmsaPages { _ = driver.memory.freePages(page, 1) }
        vmsaPages = []
        driver.giveBack(asid: asid)
    }
}
