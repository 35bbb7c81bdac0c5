// Memory of SEV and SEV-ES guests: the VMM's own pages, each with a physical page of the machine behind it [APM2 15.34].
//
//     host   the user's bytes are the truth: what DRAM holds, ciphertext where the guest owns it
//     guest  the physical page (SPA) is the truth: plaintext under one guest's key, as in cache lines tagged with the
//            C-bit; the user's bytes are stale
//
//             C=1 access of a guest: the user's bytes become DRAM contents of the SPA, and are deciphered
//     host ─────────────────────────────────────────────────────────────────────────────────────────────► guest
//          ◄─────────────────────────────────────────────────────────────────────────────────────────────
//             C=0 access of a guest, REG/UNREG_REGION, a removed slot, LAUNCH_*, DBG_*: ciphertext goes back
//
// The table is the kernel's, by user address: a page seen at two guest addresses, or by two VMs, is one page with one
// SPA, which is what its encryption depends on. Nothing here traps on a bad user address: bytes move through a pipe.
//
// Locks: `transitions` → a vCPU's guestMode → `state` → memory's own. A processor inside the guest takes `state` only;
// when others may use a translation that must go, it leaves the guest first (`Access.busy`, then `settle`).

import KVMABI
import MemoryController
import SEVABI
import Synchronization

final class EncryptedUserMemory: Sendable {
    private let memory: SystemMemory
    private let user: UserMemory
    private let state = Mutex(State())
    /// Held while translations of other processors are taken away, and while the firmware works on pages.
    private let transitions = Mutex(())

    private struct Page {
        /// Frame in system memory plus one, 0 = none yet.
        var frame: UInt32 = 0
        /// In whose plaintext the SPA is; 0 in state host.
        var asid: UInt32 = 0
        /// Number of the VM that uses the page; `several` when `State.sharers` knows.
        var vm: UInt32 = 0
        /// No processor may take a translation now.
        var isHeld = false
        /// Processors that may hold a translation to the current truth.
        var holders: UInt64 = 0
        /// Where the plaintext is, in state guest.
        var plaintext: UInt = 0
        /// What the user's bytes were when they were last taken: a device may have written since.
        var taken: UInt64 = 0

        static let several = UInt32.max
    }

    /// A vCPU whose processor may hold translations.
    private struct Processor {
        weak var vcpu: VirtualCPU?
        var vm: UInt32
    }

    private struct State {
        /// Index of a table by 2 MiB of user address; each has 512 pages.
        var tables: [UInt64: Int] = [:]
        var freeTables: [Int] = []
        var pages: [Page] = []
        var lastKey: UInt64 = .max
        var lastTable = 0
        /// By holder bit; the last bit stands for all that came after.
        var processors = [[Processor]](repeating: [], count: 64)
        /// Numbers of VMs, by their identifier.
        var numbers: [UInt64: UInt32] = [:]
        var lastNumber: UInt32 = 0
        /// VMs of pages that more than one uses, by user address.
        var sharers: [UInt64: Set<UInt32>] = [:]

        /// Position of a page if its table exists.
        mutating func find(_ address: UInt64) -> Int? {
            let key = address >> 21
            if key != lastKey {
                guard let table = tables[key] else { return nil }
                lastKey = key
                lastTable = table
            }
            return lastTable * 512 + Int(address >> 12 & 511)
        }

        mutating func position(_ address: UInt64) -> Int {
            if let found = find(address) { return found }
            let key = address >> 21
            if let free = freeTables.popLast() {
                tables[key] = free
            } else {
                tables[key] = pages.count / 512
                pages.append(contentsOf: repeatElement(Page(), count: 512))
            }
            lastKey = key
            lastTable = tables[key]!
            return lastTable * 512 + Int(address >> 12 & 511)
        }

        mutating func number(_ vm: VirtualMachine) -> UInt32 {
            if let known = numbers[vm.identifier] { return known }
            lastNumber &+= 1
            numbers[vm.identifier] = lastNumber
            return lastNumber
        }

        mutating func note(_ vm: UInt32, uses position: Int, _ address: UInt64) {
            let old = pages[position].vm
            if old == vm { return }
            if old == 0 {
                pages[position].vm = vm
            } else {
                sharers[address, default: old == Page.several ? [] : [old]].insert(vm)
                pages[position].vm = Page.several
            }
        }
    }

    init(memory: SystemMemory, user: UserMemory) {
        self.memory = memory
        self.user = user
    }

    // MARK: Processors

    /// What a processor needs to ask for pages.
    struct Client {
        fileprivate let bit: UInt64
        fileprivate let vm: UInt32
        let asid: UInt32
    }

    /// A processor of a guest begins to look at memory.
    func register(_ vcpu: VirtualCPU, asid: UInt32) -> Client {
        state.withLock { state in
            let slot = state.processors.firstIndex { $0.allSatisfy { $0.vcpu == nil } } ?? 63
            if slot < 63 { state.processors[slot] = [] }
            let vm = state.number(vcpu.vm)
            state.processors[slot].append(Processor(vcpu: vcpu, vm: vm))
            return Client(bit: 1 << UInt64(slot), vm: vm, asid: asid)
        }
    }

    /// The answer to a processor that has no translation.
    enum Access {
        /// The user's page itself: C=0.
        case user
        /// Plaintext of the guest: C=1.
        case guest(GuestPage)
        /// Another processor may use a translation that this access ends: leave the guest and ``settle(_:)``.
        case busy
        /// The user's memory is gone, memory is full, or the guest has no key.
        case failed
    }

    /// Makes the page what a guest's access with this C-bit must see.
    ///
    /// - Parameters:
    ///   - address: User address of the page.
    ///   - forget: Is told the place of a page to which the asking processor must not hold a translation any more.
    func access(_ address: UInt64, encrypted: Bool, by client: Client, forget: (UInt) -> Void) -> Access {
        var stale: UInt = 0
        let access: Access = state.withLock { state in
            let position = state.position(address)
            state.note(client.vm, uses: position, address)
            let wanted = encrypted ? client.asid : 0
            if state.pages[position].isHeld { return .busy }
            if state.pages[position].asid != wanted {
                let holders = state.pages[position].holders
                if holders & ~client.bit != 0 || client.bit == 1 << 63 && holders != 0 { return .busy }
                if holders != 0 {
                    stale = state.pages[position].asid == 0 ? UInt(address) : state.pages[position].plaintext
                }
                state.pages[position].holders = 0
                // A device that has written since has ended the lines it wrote: its bytes stay.
                if state.pages[position].asid != 0 {
                    writeBack(&state.pages[position], address, unlessChanged: wanted == 0)
                }
                if encrypted, !take(&state.pages[position], address, asid: client.asid) { return .failed }
            }
            guard encrypted else {
                state.pages[position].holders |= client.bit
                return .user
            }
            let found = memory.encryptedPage(spa(state.pages[position].frame), asid: client.asid)
            guard let place = found.address else { return .failed }
            state.pages[position].plaintext = place
            state.pages[position].holders |= client.bit
            return .guest(found)
        }
        if stale != 0 { forget(stale) }
        return access
    }

    /// After ``Access/busy``, outside the guest: takes every processor's translations of the page away.
    func settle(_ address: UInt64) {
        transitions.withLock { _ in hold([address]) { _ in } }
    }

    // MARK: The two directions

    /// The user's bytes become the SPA's DRAM contents.
    private func load(_ page: inout Page, _ address: UInt64) -> Bool {
        if page.frame == 0 {
            guard let new = memory.allocatePages(1) else { return false }
            page.frame = UInt32(truncatingIfNeeded: new.page - memory.base.page + 1)
        }
        guard let hash = user.copyPageIn(from: address, to: spa(page.frame), of: memory) else { return false }
        page.taken = hash
        return true
    }

    /// host → guest.
    private func take(_ page: inout Page, _ address: UInt64, asid: UInt32) -> Bool {
        guard load(&page, address) else { return false }
        page.asid = asid
        return true
    }

    /// guest → host. The user's memory may be gone: then so is the page.
    private func writeBack(_ page: inout Page, _ address: UInt64, unlessChanged: Bool) {
        page.asid = 0
        page.plaintext = 0
        if unlessChanged, user.pageHash(at: address) != page.taken { return }
        _ = user.copyPageOut(spa(page.frame), of: memory, to: address)
    }

    private func spa(_ frame: UInt32) -> SPA { memory.base + (UInt64(frame) &- 1) &* SPA.pageByteCount }

    // MARK: What the kernel does with pages

    /// Writes the ciphertext of every page of the range that is in state guest back to the user's memory.
    ///
    /// Not inside ``withPinnedPieces(_:byteCount:of:writesBack:_:)``, and not while a vCPU is paused.
    func flush(_ address: UInt64, byteCount: UInt64) {
        transitions.withLock { _ in
            hold(guestPages(address, byteCount)) { state in
                for address in guestPages(address, byteCount, &state) {
                    guard let position = state.find(address), state.pages[position].asid != 0 else { continue }
                    writeBack(&state.pages[position], address, unlessChanged: false)
                }
            }
        }
    }

    /// Forgets what caches hold of pages that a VM does not map any more. Nothing is written back: memory that is not
    /// registered may be unmapped by now, and its addresses be somebody else's.
    func discard(_ address: UInt64, byteCount: UInt64, of vm: VirtualMachine, unless isMapped: (UInt64) -> Bool) {
        transitions.withLock { _ in
            let pages = guestPages(address, byteCount).filter { !isMapped($0) }
            hold(pages) { state in
                let number = state.number(vm)
                for address in pages {
                    guard let position = state.find(address), state.pages[position].vm == number else { continue }
                    state.pages[position].asid = 0
                    state.pages[position].plaintext = 0
                }
            }
        }
    }

    /// Lets the firmware work on the caller's memory, page by page: each page comes to state host, the user's bytes to
    /// DRAM, and afterwards, with `writesBack`, DRAM's bytes to the user.
    ///
    /// - Parameter body: The piece's physical address and length; a piece never crosses a page.
    /// - Throws: ENOMEM when a page of the range cannot be pinned, before any piece; what `body` throws, at once.
    func withPinnedPieces(
        _ address: UInt64, byteCount: UInt64, of vm: VirtualMachine, writesBack: Bool,
        _ body: (SPA, Int) throws(EncryptFailure) -> Void
    ) throws(EncryptFailure) {
        let end = address.addingReportingOverflow(byteCount)
        guard byteCount > 0, !end.overflow, byteCount <= 1 << 46,
            user.isAccessible(address, byteCount: Int(byteCount), writing: writesBack)
        else { throw EncryptFailure(.ENOMEM) }
        flush(address, byteCount: byteCount)
        var at = address
        while at < end.partialValue {
            let page = at & ~4095
            let count = min(4096 - (at & 4095), end.partialValue - at)
            var failure: EncryptFailure?
            transitions.withLock { _ in
                do throws(EncryptFailure) {
                    try workOn(page, of: vm, writesBack: writesBack) { (spa) throws(EncryptFailure) in
                        try body(spa + (at & 4095), Int(count))
                    }
                } catch {
                    failure = error
                }
            }
            if let failure { throw failure }
            at += count
        }
    }

    private func workOn(
        _ address: UInt64, of vm: VirtualMachine, writesBack: Bool, _ body: (SPA) throws(EncryptFailure) -> Void
    ) throws(EncryptFailure) {
        let frame: UInt32? = state.withLock { state in
            let position = state.position(address)
            state.note(state.number(vm), uses: position, address)
            // A guest that runs already may have touched the page again.
            if state.pages[position].asid != 0 {
                writeBack(&state.pages[position], address, unlessChanged: false)
            }
            guard load(&state.pages[position], address) else { return nil }
            state.pages[position].isHeld = true
            return state.pages[position].frame
        }
        guard let frame else { throw EncryptFailure(.ENOMEM) }
        var failure: EncryptFailure?
        do throws(EncryptFailure) { try body(spa(frame)) } catch { failure = error }
        state.withLock { state in
            if let position = state.find(address) { state.pages[position].isHeld = false }
        }
        if let failure { throw failure }
        if writesBack { _ = user.copyPageOut(spa(frame), of: memory, to: address) }
    }

    /// Pages of the range in state guest.
    private func guestPages(_ address: UInt64, _ byteCount: UInt64) -> [UInt64] {
        state.withLock { guestPages(address, byteCount, &$0) }
    }

    private func guestPages(_ address: UInt64, _ byteCount: UInt64, _ state: inout State) -> [UInt64] {
        let (end, overflow) = address.addingReportingOverflow(byteCount)
        guard byteCount > 0, !overflow else { return [] }
        var result: [UInt64] = []
        let keys = address >> 21...(end - 1) >> 21
        // A range without bounds is no reason to look for long.
        let tables =
            keys.count <= state.tables.count
            ? keys.filter { state.tables[$0] != nil } : state.tables.keys.filter { keys.contains($0) }.sorted()
        for key in tables {
            guard let table = state.tables[key] else { continue }
            for index in 0..<512 where state.pages[table * 512 + index].asid != 0 {
                let page = key << 21 | UInt64(index) << 12
                if page + 4096 > address && page < end { result.append(page) }
            }
        }
        return result
    }

    /// Under `transitions`: takes all translations of these pages away, then runs `body`, before anybody gets new ones.
    private func hold(_ addresses: [UInt64], _ body: (inout State) -> Void) {
        if addresses.isEmpty { return }
        let (vcpus, places): ([VirtualCPU], [UInt]) = state.withLock { state in
            var holders: UInt64 = 0
            var places: [UInt] = []
            for address in addresses {
                guard let position = state.find(address) else { continue }
                state.pages[position].isHeld = true
                if state.pages[position].holders == 0 { continue }
                holders |= state.pages[position].holders
                places.append(state.pages[position].asid == 0 ? UInt(address) : state.pages[position].plaintext)
            }
            var vcpus: [VirtualCPU] = []
            for slot in 0..<64 where holders >> UInt64(slot) & 1 != 0 {
                vcpus += state.processors[slot].compactMap { $0.vcpu }
            }
            return (vcpus, places)
        }
        for vcpu in vcpus { vcpu.paused { vcpu.forgetTranslations(to: places) } }
        state.withLock { state in
            body(&state)
            for address in addresses {
                guard let position = state.find(address) else { continue }
                state.pages[position].holders = 0
                state.pages[position].isHeld = false
            }
        }
    }

    /// The physical page behind a user address, and the offset in it; nil where a guest has never been.
    func systemAddress(of address: UInt64) -> SPA? {
        state.withLock { state in
            guard let position = state.find(address), state.pages[position].frame != 0 else { return nil }
            return spa(state.pages[position].frame) + (address & 4095)
        }
    }

    // MARK: The end

    /// A VM is gone: pages that only it used are scrubbed and given back. The user's memory is left as it is: it may
    /// be somebody else's by now.
    func release(_ vm: VirtualMachine) {
        state.withLock { state in
            guard let number = state.numbers.removeValue(forKey: vm.identifier) else { return }
            for slot in 0..<64 { state.processors[slot].removeAll { $0.vm == number || $0.vcpu == nil } }
            var frames: [UInt32] = []
            for (key, table) in state.tables {
                var isEmpty = true
                for position in table * 512..<table * 512 + 512 {
                    let address = key << 21 | UInt64(position & 511) << 12
                    if state.pages[position].vm == Page.several, var others = state.sharers[address] {
                        others.remove(number)
                        state.sharers[address] = others.count > 1 ? others : nil
                        if others.count == 1 { state.pages[position].vm = others.first ?? 0 }
                    } else if state.pages[position].vm == number {
                        if state.pages[position].frame != 0 { frames.append(state.pages[position].frame) }
                        state.pages[position] = Page()
                    }
                    if state.pages[position].vm != 0 { isEmpty = false }
                }
                if isEmpty {
                    state.tables[key] = nil
                    state.freeTables.append(table)
                    if state.lastKey == key { state.lastKey = .max }
                }
            }
            free(&frames)
        }
    }

    /// Gives pages back, neighbours together: scrubbing is one call to the system each time.
    private func free(_ frames: inout [UInt32]) {
        frames.sort()
        var index = 0
        while index < frames.count {
            var end = index + 1
            while end < frames.count, frames[end] == frames[end - 1] &+ 1 { end += 1 }
            _ = memory.freePages(spa(frames[index]), end - index)
            index = end
        }
    }
}
