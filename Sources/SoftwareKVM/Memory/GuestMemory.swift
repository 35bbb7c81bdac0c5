// Guest physical memory as KVM sees it: slots, the private attribute, and the way from a GPA to a page.
//
//     GPA ── slot ──┬── private by attribute ── guest_memfd page ── SPA ── (RMP, key) ── plaintext for the guest
//                   └── shared ── userspace_addr: a page of the VMM
//
// The state is under one lock, held for a look-up at a time; it is the fill path of the processor's TLB.

import KVMABI
import MemoryController
import SEVABI
import Synchronization

/// A memory slot (`kvm_userspace_memory_region2`).
struct MemorySlot: Sendable {
    var id: UInt32
    var flags: UInt32
    /// Frame numbers.
    var frames: Range<UInt64>
    var userspaceAddress: UInt64
    var memfd: GuestMemfd?
    /// First page of the slot in `memfd`.
    var memfdPage: UInt64

    var isReadOnly: Bool { flags & KVMUserspaceMemoryRegion2.readOnly != 0 }
    var memfdPages: Range<UInt64> { memfdPage..<memfdPage &+ UInt64(frames.count) }
}

/// Which pages of a slot's userspace half were found accessible: asked once per page.
struct AccessBits {
    var readable: [UInt64]
    var writable: [UInt64]
    /// KVM_MEM_LOG_DIRTY_PAGES: pages written since the log was last cleared; such pages may be in a TLB as writable.
    var dirty: [UInt64]?

    init(pageCount: Int) {
        readable = .init(repeating: 0, count: (pageCount + 63) / 64)
        writable = readable
    }
}

final class GuestMemory: Sendable {
    let user: UserMemory
    let hasPrivateMemory: Bool
    /// KVM_CAP_READONLY_MEM: not where the host cannot emulate the guest's writes.
    private let allowsReadOnlySlots: Bool
    /// Behind the last frame that nested paging reaches.
    private let frameLimit: UInt64

    struct State {
        /// Sorted by address.
        var slots: [MemorySlot] = []
        var bits: [AccessBits] = []
        var privateFrames = IntervalSet()
        var lastSlot = 0
        /// KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2.
        var manualLogOptions: UInt64 = 0

        mutating func slotIndex(_ frame: UInt64) -> Int? {
            if lastSlot < slots.count, slots[lastSlot].frames.contains(frame) { return lastSlot }
            var low = 0
            var high = slots.count
            while low < high {
                let middle = (low + high) / 2
                if slots[middle].frames.upperBound > frame { high = middle } else { low = middle + 1 }
            }
            guard low < slots.count, slots[low].frames.contains(frame) else { return nil }
            lastSlot = low
            return low
        }
    }
    let state = Mutex(State())

    init(user: UserMemory, hasPrivateMemory: Bool, allowsReadOnlySlots: Bool, physicalAddressBits: UInt8) {
        self.user = user
        self.hasPrivateMemory = hasPrivateMemory
        self.allowsReadOnlySlots = allowsReadOnlySlots
        frameLimit = 1 << UInt64(physicalAddressBits - 12)
    }

    /// KVM_MEM_SLOTS_NUM.
    static let slotLimit: UInt32 = 32764

    // MARK: Slots [KVM KVM_SET_USER_MEMORY_REGION2]

    /// What changed, for whoever must flush.
    enum SlotChange {
        case nothing
        case created
        /// A slot was deleted or moved away.
        case removed(MemorySlot)
    }

    func setRegion(
        _ region: KVMUserspaceMemoryRegion2, file: (UInt32) -> OpenFile?, vm: UInt64
    ) throws(Errno) -> SlotChange {
        let flagMemfd = KVMUserspaceMemoryRegion2.guestMemfdFlag
        var allowed = KVMUserspaceMemoryRegion2.logDirtyPages
        if hasPrivateMemory { allowed |= flagMemfd }
        if allowsReadOnlySlots { allowed |= KVMUserspaceMemoryRegion2.readOnly }
        if region.flags & flagMemfd != 0 {
            allowed &= ~(KVMUserspaceMemoryRegion2.logDirtyPages | KVMUserspaceMemoryRegion2.readOnly)
        }
        if region.flags & ~allowed != 0 { throw .EINVAL }

        let alignment = region.memoryByteCount | region.guestPhysicalAddress | region.userspaceAddress
        if alignment & 4095 != 0 { throw .EINVAL }
        let userEnd = region.userspaceAddress.addingReportingOverflow(region.memoryByteCount)
        if userEnd.overflow || userEnd.partialValue > UserMemory.addressLimit { throw .EINVAL }
        if region.flags & flagMemfd != 0 {
            let end = region.guestMemfdOffset.addingReportingOverflow(region.memoryByteCount)
            if region.guestMemfdOffset & 4095 != 0 || end.overflow { throw .EINVAL }
        }
        if region.slot >> 16 != 0 || region.slot >= Self.slotLimit { throw .EINVAL }
        let guestEnd = region.guestPhysicalAddress.addingReportingOverflow(region.memoryByteCount)
        if guestEnd.overflow || region.memoryByteCount >> 12 > 0x7fff_ffff { throw .EINVAL }
        let frames = region.guestPhysicalAddress >> 12..<guestEnd.partialValue >> 12

        return try state.withLock { (state) throws(Errno) -> SlotChange in
            let oldIndex = state.slots.firstIndex { $0.id == region.slot }
            if frames.isEmpty {
                guard let oldIndex else { throw .EINVAL }
                let old = state.slots.remove(at: oldIndex)
                state.bits.remove(at: oldIndex)
                old.memfd?.unbind(old.memfdPages)
                return .removed(old)
            }
            if let oldIndex {
                let old = state.slots[oldIndex]
                // Slots with a private half are immutable.
                if old.memfd != nil || region.flags & flagMemfd != 0 { throw .EINVAL }
                if old.userspaceAddress != region.userspaceAddress || old.frames.count != frames.count
                    || (old.flags ^ region.flags) & KVMUserspaceMemoryRegion2.readOnly != 0
                {
                    throw .EINVAL
                }
                if old.frames != frames, frames.upperBound > frameLimit { throw .EINVAL }
                if old.frames == frames {
                    state.slots[oldIndex].flags = region.flags
                    state.startOrEndLog(oldIndex)
                    return .nothing
                }
                if state.slots.contains(where: { $0.id != old.id && $0.frames.overlaps(frames) }) { throw .EEXIST }
                state.slots.remove(at: oldIndex)
                state.bits.remove(at: oldIndex)
                var moved = old
                moved.frames = frames
                moved.flags = region.flags
                Self.insert(moved, into: &state)
                return .removed(old)
            }
            if state.slots.contains(where: { $0.frames.overlaps(frames) }) { throw .EEXIST }
            if frames.upperBound > frameLimit { throw .EINVAL }
            var slot = MemorySlot(
                id: region.slot, flags: region.flags, frames: frames, userspaceAddress: region.userspaceAddress,
                memfd: nil, memfdPage: region.guestMemfdOffset >> 12)
            if region.flags & flagMemfd != 0 {
                guard let file = file(region.guestMemfd) else { throw .EBADF }
                guard case .guestMemfd(let memfd) = file, memfd.owner == vm else { throw .EINVAL }
                try memfd.bind(slot.memfdPages)
                slot.memfd = memfd
            }
            Self.insert(slot, into: &state)
            return .created
        }
    }

    private static func insert(_ slot: MemorySlot, into state: inout State) {
        let index = state.slots.firstIndex { $0.frames.lowerBound > slot.frames.lowerBound } ?? state.slots.count
        state.slots.insert(slot, at: index)
        state.bits.insert(AccessBits(pageCount: slot.frames.count), at: index)
        state.startOrEndLog(index)
    }

    /// The slot that holds a frame.
    func slot(frame: UInt64) -> MemorySlot? {
        state.withLock { state in state.slotIndex(frame).map { state.slots[$0] } }
    }

    func slot(id: UInt32) -> MemorySlot? {
        state.withLock { state in state.slots.first { $0.id == id } }
    }

    /// True when a slot shows this user page.
    func shows(userAddress: UInt64) -> Bool {
        state.withLock { state in
            state.slots.contains { slot in
                userAddress >= slot.userspaceAddress
                    && (userAddress &- slot.userspaceAddress) >> 12 < UInt64(slot.frames.count)
            }
        }
    }

    // MARK: Attributes [KVM KVM_SET_MEMORY_ATTRIBUTES]

    func setAttributes(_ argument: KVMMemoryAttributes) throws(Errno) {
        if argument.flags != 0 { throw .EINVAL }
        let supported = hasPrivateMemory ? KVMMemoryAttributes.privateAttribute : 0
        if argument.attributes & ~supported != 0 { throw .EINVAL }
        let end = argument.address.addingReportingOverflow(argument.byteCount)
        if argument.byteCount == 0 || end.overflow { throw .EINVAL }
        if (argument.address | argument.byteCount) & 4095 != 0 { throw .EINVAL }
        let frames = argument.address >> 12..<end.partialValue >> 12
        state.withLock { state in
            if argument.attributes != 0 {
                state.privateFrames.insert(frames)
            } else {
                state.privateFrames.remove(frames)
            }
        }
    }

    func isPrivate(frame: UInt64) -> Bool { state.withLock { $0.privateFrames.contains(frame) } }

    /// Pages with the private attribute that lie in a slot: for statistics.
    var privatePageCount: UInt64 {
        state.withLock { state in state.privateFrames.ranges.reduce(0) { $0 + UInt64($1.count) } }
    }

    // MARK: Look-up

    /// Where an access goes.
    enum Place: Sendable {
        /// A page of the VMM.
        case shared(HostPage, writable: Bool)
        /// A page of a guest_memfd, if it has been populated.
        case privatePage(GuestMemfd, page: UInt64)
        /// No slot here: a device, or nothing.
        case device
        /// A page of the VMM that cannot be accessed: the VMM's pointer is bad.
        case badUserAddress
        /// C-bit and attribute disagree, or private memory without a guest_memfd.
        case attributeMismatch
    }

    /// Finds the place of an access. `encrypted` is ignored for guests without private memory.
    func place(gpa: UInt64, encrypted: Bool, writing: Bool) -> Place {
        let frame = gpa >> 12
        return state.withLock { state in
            if hasPrivateMemory, state.privateFrames.contains(frame) != encrypted { return .attributeMismatch }
            guard let index = state.slotIndex(frame) else {
                return hasPrivateMemory && encrypted ? .attributeMismatch : .device
            }
            let page = frame &- state.slots[index].frames.lowerBound
            if hasPrivateMemory && encrypted {
                guard let memfd = state.slots[index].memfd else { return .attributeMismatch }
                return .privatePage(memfd, page: state.slots[index].memfdPage &+ page)
            }
            return sharedPage(&state, index, Int(page), writing: writing)
        }
    }

    private func sharedPage(_ state: inout State, _ index: Int, _ page: Int, writing: Bool) -> Place {
        // A write to a read-only slot is MMIO [KVM KVM_MEM_READONLY].
        if writing && state.slots[index].isReadOnly { return .device }
        let address = state.slots[index].userspaceAddress &+ UInt64(page) &* 4096
        let word = page >> 6
        let bit: UInt64 = 1 << UInt64(page & 63)
        let mayWrite = state.mayWrite(index, page, writing: writing)
        if state.bits[index].writable[word] & bit != 0 {
            return .shared(user.pageFoundBefore(at: address), writable: mayWrite)
        }
        if !writing && state.bits[index].readable[word] & bit != 0 {
            return .shared(user.pageFoundBefore(at: address), writable: false)
        }
        guard let found = user.page(at: address, writing: writing) else { return .badUserAddress }
        state.bits[index].readable[word] |= bit
        if writing { state.bits[index].writable[word] |= bit }
        return .shared(found, writable: writing)
    }

    /// Where an encrypted access of a SEV or SEV-ES guest goes.
    enum EncryptedPlace: Sendable {
        /// A page of the VMM, by its address: not looked at here.
        case page(address: UInt64, writable: Bool)
        /// No slot: the nested page table has no entry, as for any device.
        case device
    }

    /// Finds the place of an access with C=1 in a guest whose memory is the VMM's own.
    func encryptedPlace(gpa: UInt64, writing: Bool) -> EncryptedPlace {
        let frame = gpa >> 12
        return state.withLock { state in
            guard let index = state.slotIndex(frame) else { return .device }
            if writing && state.slots[index].isReadOnly { return .device }
            let page = frame &- state.slots[index].frames.lowerBound
            return .page(
                address: state.slots[index].userspaceAddress &+ page &* 4096,
                writable: state.mayWrite(index, Int(page), writing: writing))
        }
    }

    // MARK: The kernel's own accesses to shared memory (kvm_read_guest, kvm_write_guest)

    /// The VMM's page behind a guest frame, whatever its attribute.
    func userPage(gpa: UInt64, writing: Bool) -> HostPage? {
        let frame = gpa >> 12
        return state.withLock { state in
            guard let index = state.slotIndex(frame) else { return nil }
            let page = Int(frame &- state.slots[index].frames.lowerBound)
            guard case .shared(let found, _) = sharedPage(&state, index, page, writing: writing) else { return nil }
            return found
        }
    }

    /// Copies bytes out of shared memory; nil where there is none.
    func read(gpa: UInt64, byteCount: Int) -> [UInt8]? {
        var result: [UInt8] = []
        result.reserveCapacity(byteCount)
        var at = gpa
        while result.count < byteCount {
            let offset = Int(at & 4095)
            let count = min(4096 - offset, byteCount - result.count)
            guard let page = userPage(gpa: at, writing: false) else { return nil }
            result += page.copyBytes(at: offset, count: count)
            at = at &+ UInt64(count)
        }
        return result
    }

    /// Copies bytes into shared memory; false where there is none.
    func write(gpa: UInt64, _ bytes: [UInt8]) -> Bool {
        var done = 0
        var at = gpa
        while done < bytes.count {
            let offset = Int(at & 4095)
            let count = min(4096 - offset, bytes.count - done)
            guard let page = userPage(gpa: at, writing: true) else { return false }
            page.write(bytes[done..<done + count], at: offset)
            done += count
            at = at &+ UInt64(count)
        }
        return true
    }
}
