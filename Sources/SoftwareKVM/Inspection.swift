// What may be seen of the software machine beyond the ABI, by whoever embeds it, and what tests and the attack suite of
// this package may do. Nothing here is reachable through the seam, and a real host tells none of it.
//
//     see     guestProtection(of:)              technology, ASID, firmware handle or context, features, VMSA pages
//             launchDigest(of:)                 the firmware's running digest of an SNP guest
//             messageKeys(of:)                  the keys of an SNP guest's messages: for tests, nobody sees them on hardware
//             guestRequest(_:of:)               what the firmware answers to a guest's message
//             vmsaAddress(of:), ghcbAddress(of:)   where a vCPU's encrypted registers and its GHCB are
//             systemAddress(ofUserAddress:)     the physical page behind memory of the VMM (SEV, SEV-ES)
//             systemAddress(ofPage:in:)         the physical page behind a guest_memfd (SNP)
//             systemMemory                      the memory bus: ciphertext, and stores that the RMP may refuse
//     do      swapPages(_:_:in:)                two pages of an SNP guest change places in the nested page table
//
// Inspection+HostileKernel.swift has what only the attack suite needs: forced ASIDs, nested page tables that lie.
//
// What a hostile host does through the seam needs no entry here: remapping (KVM_SET_USER_MEMORY_REGION with another
// userspace_addr), lying in CPUID (KVM_SET_CPUID2), reading and setting registers, exceptions that the guest did not cause
// (KVM_SET_VCPU_EVENTS), interrupts (KVM_SIGNAL_MSI), flushing caches of a range (UNREG_REGION and REG_REGION), reading
// physical memory through /dev/mem.

import KVMABI
import MemoryController
import SEVABI
import SoftwarePSP

/// What protects a VM now.
public struct GuestProtection: Equatable, Sendable {
    public var technology: GuestTechnology
    /// The ASID, which is also the number of the key's slot in the memory controller.
    public var asid: UInt32
    /// SEV and SEV-ES: the firmware's guest, from LAUNCH_START on.
    public var handle: UInt32?
    /// SNP: the guest context page, from LAUNCH_START on.
    public var context: SPA?
    /// SEV_FEATURES of its VMSAs.
    public var vmsaFeatures: UInt64
    /// The highest GHCB protocol that it may use; 0 for SEV.
    public var ghcbVersion: UInt16
    /// In vCPU creation order; empty until the vCPUs are sealed.
    public var vmsaPages: [SPA]
}

extension SoftwareKVM {
    // MARK: See

    /// What protects a VM; nil for a plain one, and before INIT2.
    public func guestProtection(of vm: KernelHandle) -> GuestProtection? {
        guard case .vm(let vm)? = handles[vm] else { return nil }
        if let snp = vm.snp {
            return GuestProtection(
                technology: .snp, asid: snp.asid, context: snp.context, vmsaFeatures: snp.vmsaFeatures,
                ghcbVersion: snp.ghcbVersion, vmsaPages: snp.vmsaPages)
        }
        guard let sev = vm.sev else { return nil }
        return GuestProtection(
            technology: sev.isES ? .sevES : .sev, asid: sev.asid, handle: sev.handle, vmsaFeatures: sev.vmsaFeatures,
            ghcbVersion: sev.ghcbVersion, vmsaPages: sev.vmsaPages)
    }

    /// The launch digest that the firmware holds for an SNP VM; nil before LAUNCH_START.
    public func launchDigest(of vm: KernelHandle) -> LaunchDigest? {
        guard case .vm(let vm)? = handles[vm], let context = vm.snp?.context else { return nil }
        return secureProcessor.processor.launchDigest(of: context)
    }

    /// VMPCK0 to VMPCK3 of an SNP guest; nil before LAUNCH_START. No host sees them on hardware: for tests that stand in for
    /// the guest.
    package func messageKeys(of vm: KernelHandle) -> [[UInt8]]? {
        guard case .vm(let vm)? = handles[vm], let context = vm.snp?.context else { return nil }
        return secureProcessor.processor.messageKeys(of: context)
    }

    /// SNP_GUEST_REQUEST with a page that the guest would have written; the firmware's status, and the page that the guest
    /// would see. Nil for a VM that is no SNP guest. For tests that stand in for the guest.
    package func guestRequest(_ page: [UInt8], of vm: KernelHandle) -> (status: SEVStatus, response: [UInt8])? {
        guard case .vm(let vm)? = handles[vm], let snp = vm.snp, let context = snp.context else { return nil }
        return try? snp.exchange(page, context)
    }

    /// Where the VMSA pages of a VM lie, in vCPU creation order; none before they are sealed.
    public func vmsaPages(of vm: KernelHandle) -> [SPA] {
        guard case .vm(let vm)? = handles[vm] else { return [] }
        return vm.snp?.vmsaPages ?? vm.sev?.vmsaPages ?? []
    }

    /// The vCPU behind a handle.
    package func vcpu(_ handle: KernelHandle) -> VirtualCPU? {
        guard case .vcpu(let vcpu, _)? = handles[handle] else { return nil }
        return vcpu
    }

    /// The guest physical address of a vCPU's GHCB, once the guest has set one. Waits for KVM_RUN to return.
    public func ghcbAddress(of vcpu: KernelHandle) -> UInt64? {
        guard let vcpu = self.vcpu(vcpu) else { return nil }
        var value: UInt64 = 0
        vcpu.lockedForSealing { value = vcpu.registeredGHCB ?? vcpu.currentGHCBMSR }
        // Anything in the low bits is a message of the MSR protocol [GHCB 2.3.1].
        return value != 0 && value & 0xfff == 0 ? value : nil
    }

    /// Where a page of a guest_memfd lies in system memory; nil for a hole.
    package func systemAddress(ofPage page: UInt64, in memfd: KernelHandle) -> SPA? {
        guard case .guestMemfd(let file)? = handles[memfd] else { return nil }
        return file.page(at: page)
    }

    /// The physical page behind memory of the VMM that a SEV or SEV-ES guest has touched, or that was launched: the
    /// address that its encryption depends on. Nil where there is none.
    package func systemAddress(ofUserAddress address: UInt64) -> SPA? { encryptedMemory.systemAddress(of: address) }

    // MARK: Do

    /// A hostile host: two pages of a guest_memfd change places in the nested page table.
    package func swapPages(_ a: UInt64, _ b: UInt64, in memfd: KernelHandle) {
        guard case .guestMemfd(let file)? = handles[memfd] else { return }
        file.swapPages(a, b)
    }

}

extension VirtualCPU {
    /// What a guest's WRMSR to 0xC0010130 and VMGEXIT do, without a processor.
    package func performVMGEXIT(ghcbMSR value: UInt64) -> RunStep {
        ghcbMSR = value
        return handleVMGEXIT()
    }

    /// The GHCB MSR as the guest would read it.
    package var currentGHCBMSR: UInt64 { ghcbMSR }

    /// Lets due timers of the local APIC fire, and takes the vector that would be injected.
    package func takeInterrupt() -> UInt8? {
        let now = HostClock.monotonic
        return vm.interrupts.withLock { controller in
            _ = controller.advanceTimers(vcpu: index, now: now)
            return controller.takeVector(vcpu: index)
        }
    }
}
