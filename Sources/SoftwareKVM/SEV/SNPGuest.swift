// What KVM knows about an SNP guest (`kvm_sev_info`): made by INIT2, with a firmware context from LAUNCH_START on.

import KVMABI
import MemoryController
import SEVABI
import Synchronization

/// Guarded by the VM's lock, except for the constants of INIT2.
final class SNPGuest {
    let driver: SecureProcessorDriver
    let asid: UInt32
    /// SEV_FEATURES of every VMSA, bit 0 (SNP active) included.
    let vmsaFeatures: UInt64
    let ghcbVersion: UInt16

    /// The firmware's guest context page.
    var context: SPA?
    /// The handle that START was given: later commands need it open.
    var sevHandle: UInt32 = 0
    /// LAUNCH_FINISH succeeded.
    var isFinished = false
    /// VMSA pages, in vCPU creation order.
    var vmsaPages: [SPA] = []
    /// KVM_SEV_SNP_ENABLE_REQ_CERTS: the VMM puts certificates beside reports.
    var requestsCertificates = false
    /// `guest_req_mutex`: one message at a time.
    let messageLock = Mutex(())
    /// KVM_MEMORY_ENCRYPT_REG_REGION.
    var registeredRegions: [(address: UInt64, byteCount: UInt64)] = []

    init(driver: SecureProcessorDriver, asid: UInt32, vmsaFeatures: UInt64, ghcbVersion: UInt16) {
        self.driver = driver
        self.asid = asid
        self.vmsaFeatures = vmsaFeatures
        self.ghcbVersion = ghcbVersion
    }

    /// The VM goes: firmware first, then the pages that KVM itself took, then the ASID.
    func decommission() {
        if let context { driver.decommission(context) }
        context = nil
        for page in vmsaPages where driver.memory.rmpUpdate(page, .shared) == .success {
            _ = driver.memory.freePages(page, 1)
        }
        vmsaPages = []
        driver.giveBack(asid: asid)
    }
}
