// RMPUPDATE and PSMASH: the hypervisor's two instructions on the reverse map table.

import SEVABI
import Synchronization

extension SystemMemory {
    /// The entry that governs a page, or nil outside memory.
    public func rmpEntry(_ spa: SPA) -> RMPEntry? {
        store.withLock { store in (store.index(spa)).map { store.entry($0) } }
    }

    /// RMPUPDATE [APM3 RMPUPDATE]: changes a page that is not immutable. The validated bit is lost, so a guest notices.
    ///
    /// - Returns: FAIL_INPUT for an address that is not memory or not aligned, an ASID without a key slot range, or a
    ///   hypervisor page with guest attributes; FAIL_PERMISSION for an immutable entry; FAIL_OVERLAP where entries of
    ///   both sizes would cover one page.
    public func rmpUpdate(_ spa: SPA, _ update: RMPUpdate) -> RMPResult {
        store.withLock { store in
            guard let page = store.index(spa), spa.isPageAligned, update.asid < 1024,
                update.gpa & (SPA.pageByteCount &- 1) == 0, update.gpa < 1 << 51
            else { return .invalidInput }
            if !update.assigned, update.asid != 0 || update.gpa != 0 || update.immutable { return .invalidInput }
            if update.is2MiB {
                guard spa.isLargePageAligned, update.gpa & (SPA.largePageByteCount &- 1) == 0 else {
                    return .invalidInput
                }
            }
            let head = page & ~511
            let old = store.rawEntry(page)
            if store.entry(page).immutable { return .permission }
            if update.is2MiB, !old.is2MiB {
                // A 2 MiB entry replaces 512 entries; none of them may be in use.
                for other in head..<(head + 512) where store.rawEntry(other) != RMPEntry() && other != page {
                    return .overlap
                }
            }
            if !update.is2MiB, page != head, store.rawEntry(head).is2MiB { return .overlap }
            var new = RMPEntry()
            new.assigned = update.assigned
            new.is2MiB = update.is2MiB && update.assigned
            new.immutable = update.immutable
            new.gpa = update.gpa
            new.asid = update.asid
            if update.assigned { new.setPermissions(vmpl: 0, VMPLPermissions.all) }
            store.setEntry(page, new)
            return .success
        }
    }

    /// PSMASH [APM3 PSMASH]: splits a 2 MiB entry into 512 entries with the same attributes.
    ///
    /// - Returns: FAIL_INPUT unless the address is a 2 MiB page; FAIL_PERMISSION unless the entry is a 2 MiB one that
    ///   may be changed.
    public func psmash(_ spa: SPA) -> RMPResult {
        store.withLock { store in
            guard let page = store.index(spa), spa.isLargePageAligned else { return .invalidInput }
            let large = store.rawEntry(page)
            guard large.is2MiB, !large.immutable else { return .permission }
            for offset in 0..<512 {
                var small = large
                small.is2MiB = false
                small.gpa = large.gpa &+ UInt64(offset) &* SPA.pageByteCount
                store.setEntry(page + offset, small)
            }
            return .success
        }
    }
}
