// What a hostile host *kernel* can do beyond the ABI that it offers its users.
//
// A host user's attacks go through the seam: memory slots, its own mapping, register calls, SEV commands. The rest needs
// the kernel itself: physical memory, nested page tables of private memory, the RMP, the choice of an ASID. On real
// hardware nobody implements this, and the rows that need it say so.

import KVMABI

/// A kernel that does what it should not.
///
/// Addresses are system physical, page aligned. Methods give nil where there is nothing to attack.
public protocol HostPrivileges: Sendable {
    /// Where a page of a guest_memfd lies.
    func physicalAddress(ofPage page: UInt64, in memfd: KernelHandle) -> UInt64?

    /// Where a vCPU's VMSA lies; nil for guests without one.
    func vmsaAddress(of vcpu: KernelHandle) -> UInt64?

    /// What DRAM shows.
    func readPhysical(_ address: UInt64, byteCount: Int) -> [UInt8]?

    /// Stores to memory as the host's processor does. Returns what stopped it; nil when the store was done.
    func writePhysical(_ address: UInt64, _ bytes: [UInt8]) -> String?

    /// Nested page table of a VM: a page of its guest_memfd is from now on backed by this physical page. The TLBs are
    /// flushed.
    func map(_ address: UInt64, asPage page: UInt64, of memfd: KernelHandle, in vm: KernelHandle)

    /// A free page of the host.
    func allocatePage() -> UInt64?

    /// Gives back what ``allocatePage()`` gave.
    func freePage(_ address: UInt64)

    /// RMPUPDATE: gives a page to a guest at a GPA (not validated), or, without an ASID, takes it back. Returns RAX.
    func updateRMP(_ address: UInt64, gpa: UInt64, asid: UInt32?) -> UInt64

    /// The ASID of a VM.
    func asid(of vm: KernelHandle) -> UInt32?

    /// The next VM gets this ASID, whoever had it, with or without the flush that the architecture asks for in between.
    func forceNextASID(_ asid: UInt32, flushing: Bool)
}
