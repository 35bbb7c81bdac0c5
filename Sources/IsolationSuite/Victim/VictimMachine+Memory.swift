// A victim's memory as its host has it: slots, attributes, and the bytes of the host's own mapping.

import KVMABI

extension VictimMachine {
    /// One slot; its bytes are at `backing` in `ram`, and at the same offset of the guest_memfd.
    func setSlot(_ slot: UInt32, at gpa: UInt64, byteCount: Int, backing: UInt64, of ram: KernelMapping? = nil)
        throws(Errno)
    {
        var region = KVMUserspaceMemoryRegion2()
        region.slot = slot
        region.guestPhysicalAddress = gpa
        region.memoryByteCount = UInt64(byteCount)
        region.userspaceAddress = (ram ?? self.ram).address + backing
        if subject.hasPrivateMemory, byteCount > 0 {
            region.flags = KVMUserspaceMemoryRegion2.guestMemfdFlag
            region.guestMemfd = UInt32(bitPattern: memfd.rawValue)
            region.guestMemfdOffset = backing
            try kernel.call(vm, .setUserMemoryRegion2, &region)
            return
        }
        try kernel.call(
            vm, .setUserMemoryRegion,
            reading: KVMUserspaceMemoryRegion(
                slot: slot, guestPhysicalAddress: gpa, memoryByteCount: UInt64(byteCount),
                userspaceAddress: region.userspaceAddress))
    }

    /// The slot of page `index`, with the bytes of page `backing` behind it.
    func setPageSlot(_ index: Int, backing: Int, of ram: KernelMapping? = nil) throws(Errno) {
        try setSlot(
            UInt32(1 + index), at: VictimLayout.page(index), byteCount: VictimLayout.pageByteCount,
            backing: VictimLayout.page(backing), of: ram)
    }

    /// Takes page `index` away from the guest.
    func removePageSlot(_ index: Int) throws(Errno) {
        try setSlot(
            UInt32(1 + index), at: VictimLayout.page(index), byteCount: 0, backing: VictimLayout.page(index))
    }

    /// The host changes what is behind pages of the guest: `backings[index]` is the page whose bytes page `index` gets.
    func remap(_ backings: [Int: Int], of ram: KernelMapping? = nil) throws(Errno) {
        // A range of a guest_memfd is in one slot at a time: all go before the first comes back.
        for index in backings.keys.sorted() { try removePageSlot(index) }
        for (index, backing) in backings.sorted(by: { $0.key < $1.key }) {
            try setPageSlot(index, backing: backing, of: ram)
        }
    }

    /// Marks a range private or shared.
    func setPrivate(_ isPrivate: Bool, at gpa: UInt64, byteCount: Int) throws(Errno) {
        try kernel.call(
            vm, .setMemoryAttributes,
            reading: KVMMemoryAttributes(
                address: gpa, byteCount: UInt64(byteCount),
                attributes: isPrivate ? KVMMemoryAttributes.privateAttribute : 0))
    }

    /// The whole of `ram`, as a region to pin [KVM KVM_MEMORY_ENCRYPT_REG_REGION].
    private var region: KVMEncryptedRegion {
        KVMEncryptedRegion(address: ram.address, byteCount: UInt64(ram.byteCount))
    }

    /// Pins the guest's memory: SEV and SEV-ES guests need it.
    func registerMemory() throws(Errno) {
        try kernel.call(vm, .memoryEncryptRegisterRegion, reading: region)
    }

    /// Makes the kernel flush the caches, so that the host's mapping shows what DRAM holds, and the guest's next access
    /// takes what the host has put there.
    func flushCaches() throws(Interruption) {
        guard subject == .sev || subject == .sevES else { return }
        try step("flush the guest's memory out of the caches (UNREG_REGION, REG_REGION)") { () throws(Errno) in
            try kernel.call(vm, .memoryEncryptUnregisterRegion, reading: region)
            try registerMemory()
        }
    }

    /// What the host's own mapping shows of page `index`.
    func hostBytes(ofPage index: Int) throws(Interruption) -> [UInt8] {
        try flushCaches()
        return ram.copyBytes(at: Int(VictimLayout.page(index)), count: VictimLayout.pageByteCount)
    }

    /// The host overwrites part of page `index` in its own mapping.
    func hostWrite(_ bytes: [UInt8], toPage index: Int, offset: Int = 0) throws(Interruption) {
        try flushCaches()
        ram.write(bytes, at: Int(VictimLayout.page(index)) + offset)
        try flushCaches()
    }

    /// Where page `index` of an SNP guest's private memory lies; for kernel attackers.
    func physicalPage(_ index: Int) throws(Interruption) -> UInt64 {
        let privileges = try laboratory.requirePrivileges()
        guard
            let address = privileges.physicalAddress(
                ofPage: VictimLayout.page(index) / UInt64(VictimLayout.pageByteCount), in: memfd)
        else { throw .broken("page \(index) has no physical page behind it") }
        return address
    }
}
