// KVM_MEMORY_ENCRYPT_REG_REGION and UNREG_REGION: memory that a guest's key will encrypt is pinned, and caches are
// flushed when that begins and when it ends, so that DRAM holds what the C-bit says [KVM-SEV, APM2 15.34.9].
//
// Nothing is really pinned: a page of a process that ignores its own mappings cannot be protected from it here.

import KVMABI
import SEVABI

extension VirtualMachine {
    func encryptRegion(_ region: KVMEncryptedRegion, registers: Bool) throws(Errno) -> Int32 {
        try locked { () throws(Errno) in
            do throws(EncryptFailure) {
                if registers { try register(region) } else { try unregister(region) }
            } catch {
                throw error.errno
            }
        }
        return 0
    }

    private func register(_ region: KVMEncryptedRegion) throws(EncryptFailure) {
        if let snp {
            // Allowed and without effect: guest_memfd's pages are never swapped.
            try requirePinnableRange(region.address, byteCount: region.byteCount)
            snp.registeredRegions.append((region.address, region.byteCount))
            return
        }
        guard let sev else { throw EncryptFailure(.ENOTTY) }
        try requirePinnable(sev, region.address, byteCount: region.byteCount)
        guard kernel.user.isMapped(region.address, byteCount: region.byteCount) else { throw EncryptFailure(.ENOMEM) }
        kernel.encryptedMemory.flush(region.address, byteCount: region.byteCount)
        sev.registeredRegions.append((region.address, region.byteCount))
        sev.lockedPageCount += Self.pageCount(region.address, byteCount: region.byteCount)
    }

    /// Address and size must be those of a registration; of two alike the later goes.
    private func unregister(_ region: KVMEncryptedRegion) throws(EncryptFailure) {
        func position(_ regions: [(address: UInt64, byteCount: UInt64)]) -> Int? {
            regions.lastIndex { $0.address == region.address && $0.byteCount == region.byteCount }
        }
        if let snp {
            guard let index = position(snp.registeredRegions) else { throw EncryptFailure(.EINVAL) }
            snp.registeredRegions.remove(at: index)
            return
        }
        guard let sev else { throw EncryptFailure(.ENOTTY) }
        guard let index = position(sev.registeredRegions) else { throw EncryptFailure(.EINVAL) }
        kernel.encryptedMemory.flush(region.address, byteCount: region.byteCount)
        sev.registeredRegions.remove(at: index)
        sev.lockedPageCount -= Self.pageCount(region.address, byteCount: region.byteCount)
    }

    // MARK: Pinning (`sev_pin_memory`)

    /// A range that could be pinned: EINVAL when it is empty or wraps or is longer than the machine has memory, ENOMEM
    /// over the limit of locked memory.
    func requirePinnable(_ sev: SEVGuest, _ address: UInt64, byteCount: UInt64) throws(EncryptFailure) {
        try requirePinnableRange(address, byteCount: byteCount)
        guard let limit = kernel.configuration.lockedMemoryLimit else { return }
        // Safe: both counts are below 2⁵³.
        if sev.lockedPageCount + Self.pageCount(address, byteCount: byteCount) > limit >> 12 {
            throw EncryptFailure(.ENOMEM)
        }
    }

    /// ENOMEM where the pages of a range cannot be pinned because there is nothing, or nothing writable.
    func requirePages(_ address: UInt64, byteCount: UInt64, writing: Bool = true) throws(EncryptFailure) {
        guard let count = Int(exactly: byteCount),
            kernel.user.isAccessible(address, byteCount: count, writing: writing)
        else { throw EncryptFailure(.ENOMEM) }
    }

    private func requirePinnableRange(_ address: UInt64, byteCount: UInt64) throws(EncryptFailure) {
        if byteCount == 0 || address.addingReportingOverflow(byteCount).overflow { throw EncryptFailure(.EINVAL) }
        if Self.pageCount(address, byteCount: byteCount) > kernel.systemMemory.byteCount >> 12 {
            throw EncryptFailure(.EINVAL)
        }
    }

    /// Pages that a range touches; it does not wrap and is not empty.
    private static func pageCount(_ address: UInt64, byteCount: UInt64) -> UInt64 {
        (address &+ byteCount &- 1) >> 12 &- address >> 12 &+ 1
    }
}
