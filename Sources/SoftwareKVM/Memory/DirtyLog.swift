// KVM_MEM_LOG_DIRTY_PAGES: which pages of a slot were written [KVM KVM_GET_DIRTY_LOG, KVM_CLEAR_DIRTY_LOG].
//
// A page enters a TLB as writable only when it is written, which marks it; clearing a mark flushes the TLBs.

import KVMABI

extension GuestMemory.State {
    /// After a change of a slot's flags: a log that begins is empty, or full where the VMM wants it so.
    mutating func startOrEndLog(_ index: Int) {
        let isLogged = slots[index].flags & KVMUserspaceMemoryRegion2.logDirtyPages != 0
        guard isLogged else {
            bits[index].dirty = nil
            return
        }
        guard bits[index].dirty == nil else { return }
        let pageCount = slots[index].frames.count
        var words = [UInt64](repeating: 0, count: (pageCount + 63) / 64)
        if manualLogOptions & 2 != 0 { for page in 0..<pageCount { words[page >> 6] |= 1 << UInt64(page & 63) } }
        bits[index].dirty = words
    }

    /// Whether a TLB may keep the page as writable; a write is noted.
    mutating func mayWrite(_ index: Int, _ page: Int, writing: Bool) -> Bool {
        if slots[index].isReadOnly { return false }
        guard bits[index].dirty != nil else { return true }
        if writing { bits[index].dirty?[page >> 6] |= 1 << UInt64(page & 63) }
        return writing
    }
}

extension GuestMemory {
    func setManualLogOptions(_ options: UInt64) { state.withLock { $0.manualLogOptions = options } }

    /// The log of a slot and, unless the VMM clears by itself, a fresh one. Nil: it is not logged.
    func takeLog(slot id: UInt32) -> (words: [UInt64], wasCleared: Bool)? {
        state.withLock { state in
            guard let index = state.slots.firstIndex(where: { $0.id == id }), let words = state.bits[index].dirty else {
                return nil
            }
            if state.manualLogOptions & 1 != 0 { return (words, false) }
            state.bits[index].dirty = [UInt64](repeating: 0, count: words.count)
            return (words, words.contains { $0 != 0 })
        }
    }

    /// Pages of a slot. Nil: it is not logged.
    func pageCountOfLog(slot id: UInt32) -> Int? {
        state.withLock { state in
            guard let index = state.slots.firstIndex(where: { $0.id == id }), state.bits[index].dirty != nil else {
                return nil
            }
            return state.slots[index].frames.count
        }
    }

    /// Clears marks from `firstPage`, a multiple of 64, on: those whose bits are set.
    func clearLog(slot id: UInt32, firstPage: Int, pageCount: Int, _ words: [UInt64]) {
        state.withLock { state in
            guard let index = state.slots.firstIndex(where: { $0.id == id }) else { return }
            for (position, word) in words.enumerated() {
                let at = firstPage / 64 + position
                guard at < state.bits[index].dirty?.count ?? 0 else { return }
                let left = pageCount - position * 64
                let mask: UInt64 = left >= 64 ? .max : (1 << UInt64(max(0, left))) - 1
                state.bits[index].dirty?[at] &= ~(word & mask)
            }
        }
    }
}

extension VirtualMachine {
    /// KVM_GET_DIRTY_LOG: one bit a page, whole quadwords. ENOENT for a slot that is not logged.
    func getDirtyLog(_ argument: KVMDirtyLog) throws(Errno) -> Int32 {
        try locked { () throws(Errno) in
            if argument.slot >> 16 != 0 || argument.slot >= GuestMemory.slotLimit { throw .EINVAL }
            guard let (words, wasCleared) = memory.takeLog(slot: argument.slot) else { throw .ENOENT }
            if wasCleared { withPausedVCPUs { $0.forgetTranslations() } }
            try kernel.user.write(words.flatMap(\.kernelBytes), to: argument.bitmapAddress)
            return 0
        }
    }

    /// KVM_CLEAR_DIRTY_LOG, for VMs with KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2 and others.
    func clearDirtyLog(_ argument: KVMClearDirtyLog) throws(Errno) -> Int32 {
        try locked { () throws(Errno) in
            if argument.slot >> 16 != 0 || argument.slot >= GuestMemory.slotLimit || argument.firstPage & 63 != 0 {
                throw .EINVAL
            }
            guard let total = memory.pageCountOfLog(slot: argument.slot) else { throw .ENOENT }
            let count = Int(argument.pageCount)
            guard let first = Int(exactly: argument.firstPage), first <= total, count <= total - first,
                count & 63 == 0 || count == total - first
            else { throw .EINVAL }
            let bytes = try kernel.user.read(argument.bitmapAddress, byteCount: (count + 63) / 64 * 8)
            let words = (0..<bytes.count / 8).map { UInt64(kernelBytes: bytes, at: 8 * $0) ?? 0 }
            memory.clearLog(slot: argument.slot, firstPage: first, pageCount: count, words)
            withPausedVCPUs { $0.forgetTranslations() }
            return 0
        }
    }
}
