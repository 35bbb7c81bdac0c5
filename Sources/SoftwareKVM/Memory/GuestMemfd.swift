// guest_memfd: a file of pages that no process maps; the private half of guest memory [KVM KVM_CREATE_GUEST_MEMFD].
//
// Pages are system memory, taken when first needed. The file gives them back when it goes: out of the RMP first, then
// to the allocator.

import KVMABI
import MemoryController
import SEVABI
import Synchronization

final class GuestMemfd: Sendable {
    /// A file belongs to the VM that made it.
    let owner: UInt64
    let pageCount: UInt64
    private let memory: SystemMemory

    private struct State {
        /// Frame in system memory plus one, 0 = hole. As long as the highest page touched.
        var frames: [UInt32] = []
        /// Page ranges that a slot is bound to.
        var bindings: [Range<UInt64>] = []
        /// What a hostile kernel's nested page tables show in place of the file's own pages; not the file's to free.
        var diverted: [UInt64: SPA] = [:]
    }
    private let state = Mutex(State())

    /// Pages beyond this offset (256 GiB) cannot be populated.
    private static let highestPage: UInt64 = 1 << 26

    init(owner: UInt64, pageCount: UInt64, memory: SystemMemory) {
        self.owner = owner
        self.pageCount = pageCount
        self.memory = memory
    }

    deinit {
        let frames = state.withLock { $0.frames }
        var index = 0
        while index < frames.count {
            guard frames[index] != 0 else {
                index += 1
                continue
            }
            // Adjacent pages go back together.
            var end = index + 1
            while end < frames.count, frames[end] == frames[end - 1] &+ 1 { end += 1 }
            for page in index..<end { release(spa(frames[page])) }
            _ = memory.freePages(spa(frames[index]), end - index)
            index = end
        }
    }

    /// RMPUPDATE: back to the hypervisor [APM2 15.36.4].
    private func release(_ spa: SPA) { _ = memory.rmpUpdate(spa, .shared) }

    private func spa(_ frame: UInt32) -> SPA { memory.base + (UInt64(frame) &- 1) &* 4096 }

    /// The page at an index, if there is one.
    func page(at index: UInt64) -> SPA? {
        state.withLock { state in
            if !state.diverted.isEmpty, let page = state.diverted[index] { return page }
            guard index < UInt64(state.frames.count) else { return nil }
            let frame = state.frames[Int(index)]
            return frame == 0 ? nil : spa(frame)
        }
    }

    /// The page at an index, taken from system memory if need be. `isNew` tells.
    ///
    /// With `run` above 1 that many pages from here on are taken at once where all are holes: a launch asks for them in
    /// order anyway.
    func populate(_ index: UInt64, run: UInt64 = 1) -> (spa: SPA, isNew: Bool)? {
        guard index < min(pageCount, Self.highestPage) else { return nil }
        return state.withLock { state in
            let wanted = min(run, min(pageCount, Self.highestPage) - index)
            if UInt64(state.frames.count) <= index {
                state.frames.append(contentsOf: repeatElement(0, count: Int(index) + 1 - state.frames.count))
            }
            if state.frames[Int(index)] != 0 { return (spa(state.frames[Int(index)]), false) }
            if wanted > 1, UInt64(state.frames.count) == index + 1,
                let first = memory.allocatePages(Int(wanted))
            {
                let frame = UInt32(truncatingIfNeeded: first.page - memory.base.page + 1)
                state.frames[Int(index)] = frame
                state.frames.append(contentsOf: (1..<UInt32(wanted)).map { frame + $0 })
                return (first, true)
            }
            guard let page = memory.allocatePages(1) else { return nil }
            state.frames[Int(index)] = UInt32(truncatingIfNeeded: page.page - memory.base.page + 1)
            return (page, true)
        }
    }

    /// Frees a page, as fallocate with PUNCH_HOLE does: RMP first, then the allocator.
    package func punchHole(at index: UInt64) {
        let freed: SPA? = state.withLock { state in
            guard index < UInt64(state.frames.count), state.frames[Int(index)] != 0 else { return nil }
            defer { state.frames[Int(index)] = 0 }
            return spa(state.frames[Int(index)])
        }
        if let freed {
            release(freed)
            _ = memory.freePages(freed, 1)
        }
    }

    /// What a hostile host can do: two pages of the file change places behind the guest's back.
    package func swapPages(_ a: UInt64, _ b: UInt64) {
        state.withLock { state in
            guard max(a, b) < UInt64(state.frames.count) else { return }
            state.frames.swapAt(Int(a), Int(b))
        }
    }

    /// What a hostile host can do: a page is backed by any page of memory.
    package func divert(_ page: UInt64, to spa: SPA) {
        state.withLock { $0.diverted[page] = spa }
    }

    /// Binds a range to a slot. Throws EINVAL when it lies outside or is bound already.
    func bind(_ range: Range<UInt64>) throws(Errno) {
        guard range.upperBound <= pageCount else { throw .EINVAL }
        try state.withLock { (state) throws(Errno) in
            if state.bindings.contains(where: { $0.overlaps(range) }) { throw .EINVAL }
            state.bindings.append(range)
        }
    }

    func unbind(_ range: Range<UInt64>) {
        state.withLock { $0.bindings.removeAll { $0 == range } }
    }
}
