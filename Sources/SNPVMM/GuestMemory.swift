// The guest's memory as the host kernel sees it: slots, their two halves, and which pages are private.
//
// Each range of guest physical addresses is one slot. An SNP guest's slot has two halves: the shared one is a mapping of
// this process, the private one a guest_memfd that this process cannot read. Both are as large as the slot, but a page is
// allocated on one side only: when it changes sides, its old half goes back to the host.
//
// A SEV or SEV-ES guest has one half only, a mapping of this process that is encrypted in place: what the VMM reads there
// is ciphertext, and which pages are private is the guest's affair.

import KVMABI
import SEVABI
import Synchronization

/// The memory slots of one VM.
final class GuestMemory: Sendable {
    /// One slot.
    struct Slot: Sendable {
        let range: Range<UInt64>
        /// The half that host and guest share; all of it unless the guest is an SNP one.
        let shared: KernelMapping
        /// The private half of an SNP guest's slot.
        let memfd: KernelHandle?
    }

    /// What the VMM has told the kernel about the pages.
    private struct PageStates: Sendable {
        var isPrivate: RangeSet<UInt64> = .init()
        var toShared: UInt64 = 0
        var toPrivate: UInt64 = 0
    }

    private let kernel: any HostKernel
    private let vm: KernelHandle
    let slots: [Slot]
    /// The guest encrypts in the VMM's own memory (SEV, SEV-ES).
    let isEncryptedInPlace: Bool
    private let states = Mutex(PageStates())

    /// Creates one slot per range, lowest first, and for an SNP guest marks all of it private: a range must be private
    /// before it can be launched.
    init(
        kernel: any HostKernel, vm: KernelHandle, ranges: [Range<UInt64>], technology: GuestTechnology?,
        placement: MemoryPlacement = MemoryPlacement()
    ) throws(VMMError) {
        self.kernel = kernel
        self.vm = vm
        isEncryptedInPlace = technology == .sev || technology == .sevES
        var slots: [Slot] = []
        for (number, range) in ranges.sorted(by: { $0.lowerBound < $1.lowerBound }).enumerated() {
            slots.append(try Self.makeSlot(UInt32(number), range, kernel, vm, technology, placement))
        }
        self.slots = slots
        if technology == .snp {
            for slot in slots { try setState(of: slot.range, isPrivate: true, "mark the guest's memory private") }
        }
    }

    deinit {
        for slot in slots { if let memfd = slot.memfd { kernel.close(memfd) } }
    }

    private static func makeSlot(
        _ number: UInt32, _ range: Range<UInt64>, _ kernel: any HostKernel, _ vm: KernelHandle,
        _ technology: GuestTechnology?, _ placement: MemoryPlacement
    ) throws(VMMError) -> Slot {
        let byteCount = range.upperBound - range.lowerBound
        let step = "give the guest its memory"
        let context = "\(readable(byteCount: byteCount)) at \(hex(range.lowerBound))"
        guard let mappedByteCount = Int(exactly: byteCount) else {
            throw VMMError(step: step, request: "mmap", context: context, errno: .ENOMEM)
        }
        let shared = try placement.map(mappedByteCount, for: technology, on: kernel, step, context)
        guard technology == .snp else {
            let region = KVMUserspaceMemoryRegion(
                slot: number, guestPhysicalAddress: range.lowerBound, memoryByteCount: byteCount,
                userspaceAddress: shared.address)
            try request(step, "KVM_SET_USER_MEMORY_REGION", context) { () throws(Errno) in
                try kernel.call(vm, .setUserMemoryRegion, reading: region)
            }
            return Slot(range: range, shared: shared, memfd: nil)
        }
        let descriptor = try request(step, "KVM_CREATE_GUEST_MEMFD", context) { () throws(Errno) in
            try kernel.call(vm, .createGuestMemfd, reading: KVMCreateGuestMemfd(byteCount: byteCount))
        }
        var region = KVMUserspaceMemoryRegion2()
        region.slot = number
        region.flags = KVMUserspaceMemoryRegion2.guestMemfdFlag
        region.guestPhysicalAddress = range.lowerBound
        region.memoryByteCount = byteCount
        region.userspaceAddress = shared.address
        region.guestMemfd = UInt32(bitPattern: descriptor)
        try request(step, "KVM_SET_USER_MEMORY_REGION2", context) { () throws(Errno) in
            try kernel.call(vm, .setUserMemoryRegion2, reading: region)
        }
        return Slot(range: range, shared: shared, memfd: KernelHandle(rawValue: descriptor))
    }

    /// What the kernel was told to be private.
    var privateRanges: RangeSet<UInt64> { states.withLock { $0.isPrivate } }

    /// Tells the kernel that all of this memory is a SEV guest's: it pins the pages and writes its caches back
    /// [KVM KVM_MEMORY_ENCRYPT_REG_REGION]. Must come before the memory is encrypted.
    func registerEncrypted() throws(VMMError) {
        // All of it counts as locked; a privileged process need not heed the limit, so only the kernel can say no.
        let limit = OwnProcess.raiseMemoryLockLimit().map { readable(byteCount: $0) } ?? "any amount"
        for slot in slots {
            let byteCount = slot.range.upperBound - slot.range.lowerBound
            try request(
                "register the guest's memory", "KVM_MEMORY_ENCRYPT_REG_REGION",
                "\(readable(byteCount: byteCount)) at \(hex(slot.range.lowerBound)); this process may lock \(limit)"
            ) { () throws(Errno) in
                try kernel.call(
                    vm, .memoryEncryptRegisterRegion,
                    reading: KVMEncryptedRegion(address: slot.shared.address, byteCount: byteCount))
            }
        }
    }

    /// What the host reads of guest memory: ciphertext of a SEV or SEV-ES guest, plaintext of what it shares.
    ///
    /// The kernel is asked to write its caches back before, by registering the slot anew; a host whose caches are not
    /// coherent with encrypted memory would read something old otherwise.
    /// - Returns: nil for bytes that are no memory, cross the end of a slot, or are private to an SNP guest.
    func hostView(at gpa: UInt64, byteCount: Int) throws(VMMError) -> [UInt8]? {
        guard byteCount >= 0, let slot = slots.first(where: { $0.range.contains(gpa) }),
            UInt64(byteCount) <= slot.range.upperBound - gpa, isShared(gpa..<gpa + UInt64(byteCount)),
            let offset = Int(exactly: gpa - slot.range.lowerBound)
        else { return nil }
        if isEncryptedInPlace {
            let region = KVMEncryptedRegion(
                address: slot.shared.address, byteCount: slot.range.upperBound - slot.range.lowerBound)
            let step = "read the guest's memory"
            try request(step, "KVM_MEMORY_ENCRYPT_UNREG_REGION") { () throws(Errno) in
                try kernel.call(vm, .memoryEncryptUnregisterRegion, reading: region)
            }
            try request(step, "KVM_MEMORY_ENCRYPT_REG_REGION") { () throws(Errno) in
                try kernel.call(vm, .memoryEncryptRegisterRegion, reading: region)
            }
        }
        return slot.shared.copyBytesIfInside(at: offset, count: byteCount)
    }

    /// Where bytes of the guest lie in this process; nil unless all of them lie in one slot.
    func userAddress(of gpa: UInt64, byteCount: UInt64) -> UInt64? {
        guard let slot = slots.first(where: { $0.range.contains(gpa) }),
            byteCount <= slot.range.upperBound - gpa
        else { return nil }
        return slot.shared.address + (gpa - slot.range.lowerBound)
    }

    /// True when all of `range` is memory.
    func contains(_ range: Range<UInt64>) -> Bool {
        var next = range.lowerBound
        for slot in slots where slot.range.contains(next) {
            if range.upperBound <= slot.range.upperBound { return true }
            next = slot.range.upperBound
        }
        return range.isEmpty
    }

    /// True when all of `range` is private.
    func isPrivate(_ range: Range<UInt64>) -> Bool {
        states.withLock { RangeSet(range).isSubset(of: $0.isPrivate) }
    }

    /// True when none of `range` is private.
    func isShared(_ range: Range<UInt64>) -> Bool {
        states.withLock { states in
            // Devices ask for every index of a ring: a search, and no set made for it.
            let privateRanges = states.isPrivate.ranges
            var (low, high) = (0, privateRanges.count)
            while low < high {
                let middle = (low + high) / 2
                if privateRanges[middle].upperBound <= range.lowerBound { low = middle + 1 } else { high = middle }
            }
            return low == privateRanges.count || privateRanges[low].lowerBound >= range.upperBound
        }
    }

    /// Changes the private attribute of a page aligned range [KVM KVM_SET_MEMORY_ATTRIBUTES].
    func setState(of range: Range<UInt64>, isPrivate: Bool, _ step: String) throws(VMMError) {
        let attributes = KVMMemoryAttributes(
            address: range.lowerBound, byteCount: range.upperBound - range.lowerBound,
            attributes: isPrivate ? KVMMemoryAttributes.privateAttribute : 0)
        try request(
            step, "KVM_SET_MEMORY_ATTRIBUTES",
            "\(readable(byteCount: attributes.byteCount)) at \(hex(range.lowerBound)) \(isPrivate ? "private" : "shared")"
        ) { () throws(Errno) in
            try kernel.call(vm, .setMemoryAttributes, reading: attributes)
        }
        states.withLock { states in
            if isPrivate {
                states.isPrivate.insert(contentsOf: range)
            } else {
                states.isPrivate.remove(contentsOf: range)
            }
        }
    }

    /// Changes the state of a range because the guest asked for it, gives the other half back to the host, and counts
    /// its pages.
    func convert(_ range: Range<UInt64>, isPrivate: Bool) throws(VMMError) {
        try setState(
            of: range, isPrivate: isPrivate, "change pages to \(isPrivate ? "private" : "shared") for the guest")
        for slot in slots where slot.range.overlaps(range) {
            let part = range.clamped(to: slot.range)
            try free(part, of: slot, isPrivate: !isPrivate)
        }
        let pages = (range.upperBound - range.lowerBound) / UInt64(KVM.pageByteCount)
        states.withLock { states in
            if isPrivate { states.toPrivate &+= pages } else { states.toShared &+= pages }
        }
    }

    /// Frees one half of a range of one slot. Its contents mean nothing any more: a page that changes sides comes to the
    /// guest as a new one.
    private func free(_ range: Range<UInt64>, of slot: Slot, isPrivate: Bool) throws(VMMError) {
        guard let memfd = slot.memfd, !range.isEmpty else { return }
        let offset = range.lowerBound - slot.range.lowerBound
        let byteCount = range.upperBound - range.lowerBound
        try request(
            "free the \(isPrivate ? "private" : "shared") half of converted pages", isPrivate ? "fallocate" : "madvise",
            "\(readable(byteCount: byteCount)) at \(hex(range.lowerBound))"
        ) { () throws(Errno) in
            // Safe: inside a slot, whose length fits in Int.
            if isPrivate {
                try kernel.punchHole(memfd, offset: Int64(offset), byteCount: Int64(byteCount))
            } else {
                try slot.shared.discard(offset: Int(offset), byteCount: Int(byteCount))
            }
        }
    }

    /// Pages by state now, and pages that changed sides so far.
    var pageCounts: PageCounts {
        let total = slots.reduce(UInt64(0)) { $0 + ($1.range.upperBound - $1.range.lowerBound) }
        let pageByteCount = UInt64(KVM.pageByteCount)
        return states.withLock { states in
            let privateBytes = states.isPrivate.ranges.reduce(UInt64(0)) { $0 + ($1.upperBound - $1.lowerBound) }
            return PageCounts(
                privatePages: privateBytes / pageByteCount, sharedPages: (total - privateBytes) / pageByteCount,
                convertedToShared: states.toShared, convertedToPrivate: states.toPrivate)
        }
    }

    /// Shared memory, as the host sees it; nil unless all of it lies in one slot.
    func readShared(at gpa: UInt64, byteCount: Int) -> [UInt8]? {
        guard let slot = slots.first(where: { $0.range.contains(gpa) }),
            let offset = Int(exactly: gpa - slot.range.lowerBound)
        else { return nil }
        return slot.shared.copyBytesIfInside(at: offset, count: byteCount)
    }

    /// Writes into the VMM's mapping of the guest's memory: a plain guest's all, an SNP guest's shared half, and what
    /// becomes a SEV guest's once it is encrypted.
    /// - Returns: False when the bytes do not lie in one slot.
    func writeShared(_ bytes: ArraySlice<UInt8>, at gpa: UInt64) -> Bool {
        guard let slot = slots.first(where: { $0.range.contains(gpa) }),
            let offset = Int(exactly: gpa - slot.range.lowerBound), slot.shared.contains(offset, bytes.count)
        else { return false }
        slot.shared.write(bytes, at: offset)
        return true
    }
}
