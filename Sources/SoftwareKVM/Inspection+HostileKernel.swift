// What a hostile kernel could do to its guests, for the isolation suite: nested page tables that lie, and the addresses
// that it would need. Nothing here is reachable through the seam.

import KVMABI
import MemoryController
import SEVABI

extension SoftwareKVM {
    /// Nested page table: from now on a page of a VM's guest_memfd is backed by another page of memory. The file still
    /// owns its own page. The VM's TLBs are flushed.
    package func divert(page: UInt64, of memfd: KernelHandle, to spa: SPA, in vm: KernelHandle) {
        guard case .guestMemfd(let file)? = handles[memfd], case .vm(let vm)? = handles[vm] else { return }
        file.divert(page, to: spa)
        vm.withPausedVCPUs { $0.forgetTranslations() }
    }

    /// Where a sealed vCPU's state lies.
    package func vmsaAddress(of vcpu: KernelHandle) -> SPA? { self.vcpu(vcpu)?.vmsaPage }

    /// The ASID that a VM got from INIT or INIT2.
    package func asid(of vm: KernelHandle) -> UInt32? {
        guard case .vm(let vm)? = handles[vm] else { return nil }
        return vm.snp?.asid ?? vm.sev?.asid
    }

    /// The next VM gets this ASID, whoever has it, without or with the flush that belongs in between.
    package func forceNextASID(_ asid: UInt32, flushing: Bool) {
        secureProcessor.force(nextASID: asid, flushing: flushing)
    }
}
