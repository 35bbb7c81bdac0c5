// The guest's memory as the host kernel sees it: slots, their two halves, and which pages are private.
//
// Each range of guest physical addresses is one slot. Its shared half is a mapping of this process, its private half a
// guest_memfd that this process cannot read. Both halves are as large as the slot: a page that changes sides leaves its
// old half behind, empty of meaning but still allocated by the host. Punching it out would need fallocate and madvise,
// which are not requests of KVM and so are not on the seam.

import KVMABI
import Synchronization

/// The memory slots of one VM.
final class GuestMemory: Sendable {
    /// One slot.
    struct Slot: Sendable {
        let range: Range<UInt64>
        /// The half that host and guest share; for a plain VM all of it.
        let shared: KernelMapping
        /// The private half; nil for a plain VM.
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
    private let states = Mutex(PageStates())

    /// Creates one slot per range, lowest first, and for a confidential VM marks all of it private: a range must be
    /// private before it can be launched.
    init(
        kernel: any HostKernel, vm: KernelHandle, ranges: [Range<UInt64>], confidential: Bool
    ) throws(VMMError) {
        self.kernel = kernel
        self.vm = vm
        var slots: [Slot] = []
        for (number, range) in ranges.sorted(by: { $0.lowerBound < $1.lowerBound }).enumerated() {
            slots.append(try Self.makeSlot(UInt32(number), range, kernel, vm, confidential))
        }
        self.slots = slots
        if confidential {
            for slot in slots { try setState(of: slot.range, isPrivate: true, "mark the guest's memory private") }
        }
    }

    deinit {
        for slot in slots { if let memfd = slot.memfd { kernel.close(memfd) } }
    }

    private static func makeSlot(
        _ number: UInt32, _ range: Range<UInt64>, _ kernel: any HostKernel, _ vm: KernelHandle, _ confidential: Bool
    ) throws(VMMError) -> Slot {
        let byteCount = range.upperBound - range.lowerBound
        let step = "give the guest its memory"
        let context = "\(readable(byteCount: byteCount)) at \(hex(range.lowerBound))"
        guard let mappedByteCount = Int(exactly: byteCount) else {
            throw VMMError(step: step, request: "mmap", context: context, errno: .ENOMEM)
        }
        let shared = try request(step, "mmap", context) { () throws(Errno) in
            try kernel.map(.anonymous, offset: 0, byteCount: mappedByteCount)
        }
        guard confidential else {
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
        states.withLock { $0.isPrivate.isDisjoint(RangeSet(range)) }
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

    /// Changes the state of a range because the guest asked for it, and counts its pages.
    func convert(_ range: Range<UInt64>, isPrivate: Bool) throws(VMMError) {
        try setState(
            of: range, isPrivate: isPrivate, "change pages to \(isPrivate ? "private" : "shared") for the guest")
        let pages = (range.upperBound - range.lowerBound) / UInt64(KVM.pageByteCount)
        states.withLock { states in
            if isPrivate { states.toPrivate &+= pages } else { states.toShared &+= pages }
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

    /// Writes into a plain guest's memory, or into the shared half of a confidential one's.
    /// - Returns: False when the bytes do not lie in one slot.
    func writeShared(_ bytes: ArraySlice<UInt8>, at gpa: UInt64) -> Bool {
        guard let slot = slots.first(where: { $0.range.contains(gpa) }),
            let offset = Int(exactly: gpa - slot.range.lowerBound), slot.shared.contains(offset, bytes.count)
        else { return false }
        slot.shared.write(bytes, at: offset)
        return true
    }
}
