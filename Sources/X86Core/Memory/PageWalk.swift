// Linear to guest physical: the page walks of all paging modes [APM2 5.2, 5.3], and the way from there to a host page.
//
// Page tables are always read as encrypted memory [APM2 15.34.5]. Nested outcomes (a device, a page the guest has not
// validated, a page the hypervisor must look at) end up as #VC or #VMEXIT here, so that callers see only "host page" or
// "not now".

import CX86State
import X86Defs

enum Access {
    case read, write, execute
}

/// Where a linear page leads.
struct LinearPage {
    var gpa: UInt64
    var encrypted: Bool
    /// Stores are allowed by the page tables, and the dirty bit is set.
    var storable: Bool
    /// The page-table entry's G: a write to CR3 leaves the translation.
    var isGlobal = false
}

enum PageTableBit {
    static let present: UInt64 = 1, write: UInt64 = 2, user: UInt64 = 4
    static let accessed: UInt64 = 0x20, dirty: UInt64 = 0x40, large: UInt64 = 0x80, global: UInt64 = 0x100,
        noExecute: UInt64 = 1 << 63
}

extension Processor {
    /// Translates a linear address. nil: an exception or exit has been prepared (`leave` is set).
    func walk(_ linear: UInt64, _ access: Access, user: Bool, at rip: UInt64) -> LinearPage? {
        guard s.pointee.cr0 & CR0.pg != 0 else {
            return LinearPage(gpa: linear, encrypted: cBitMask != 0, storable: true)
        }
        while true {
            var hasChanged = false
            let page =
                s.pointee.cr4 & CR4.pae != 0
                ? walkTables(linear, access, user: user, at: rip, &hasChanged)
                : walkTwoLevels(linear, access, user: user, at: rip, &hasChanged)
            // Another processor was at the entry between the look and the mark.
            if !hasChanged { return page }
        }
    }

    private func walkTables(
        _ linear: UInt64, _ access: Access, user: Bool, at rip: UInt64, _ hasChanged: inout Bool
    ) -> LinearPage? {
        let s = self.s
        let cr4 = s.pointee.cr4
        let long = s.pointee.efer & EFER.lma != 0
        let entryAddressMask = physicalMask & ~0xfff
        let beyondMemory =
            ~(physicalMask | cBitMask | 0xfff | PageTableBit.noExecute | (0x7ff << 52)) & 0x000f_ffff_ffff_ffff
        // Without long mode bits 62:52 are reserved, and a directory-pointer entry has neither rights nor marks.
        let reserved = long ? beyondMemory : beyondMemory | 0x7ff &<< 52
        var table = s.pointee.cr3 & (long ? entryAddressMask : 0xffff_ffe0)
        let top: UInt64 = !long ? 30 : cr4 & CR4.la57 != 0 ? 48 : 39
        var shift = top
        var allowed = PageTableBit.write | PageTableBit.user
        var noExecute = false
        let nxEnabled = s.pointee.efer & EFER.nxe != 0
        while true {
            let isPointer = !long && shift == 30
            let slot = table &+ ((linear &>> shift) & (isPointer ? 3 : 0x1ff)) &* 8
            guard let p = pageTablePointer(slot, at: rip) else { return nil }
            let found = p.load(as: UInt64.self)
            var entry = found
            guard entry & PageTableBit.present != 0 else {
                return pageFault(linear, access, user: user, code: 0, at: rip)
            }
            let isLeaf = shift == 12 || (entry & PageTableBit.large != 0 && shift <= 30 && !isPointer)
            var wrong = entry & reserved
            if !nxEnabled { wrong |= entry & PageTableBit.noExecute }
            if shift >= 39 { wrong |= entry & PageTableBit.large }
            if isPointer {
                wrong |= entry & (PageTableBit.noExecute | 0x1e6)
                entry |= PageTableBit.write | PageTableBit.user | PageTableBit.accessed
            }
            if isLeaf && shift > 12 { wrong |= entry & ((1 &<< shift) &- 1) & ~0x1fff & physicalMask }
            guard wrong == 0 else { return pageFault(linear, access, user: user, code: 9, at: rip) }
            allowed &= entry
            if entry & PageTableBit.noExecute != 0 { noExecute = true }
            guard isLeaf else {
                if entry & PageTableBit.accessed == 0,
                    !mark(found, entry | PageTableBit.accessed, at: slot, at: rip, &hasChanged)
                {
                    return nil
                }
                table = entry & entryAddressMask
                shift &-= 9
                continue
            }
            let key = long && cr4 & CR4.pke != 0 ? Int((entry &>> 59) & 15) : nil
            guard
                let writable = permission(
                    linear, access, user: user, allowed: allowed, noExecute: noExecute, key: key, at: rip)
            else { return nil }
            let marks = PageTableBit.accessed | (access == .write ? PageTableBit.dirty : 0)
            if entry & marks != marks {
                entry |= marks
                guard mark(found, entry, at: slot, at: rip, &hasChanged) else { return nil }
            }
            let offsetMask: UInt64 = (1 &<< shift) &- 1
            let gpa = (entry & entryAddressMask & ~offsetMask) | (linear & offsetMask)
            return LinearPage(
                gpa: gpa, encrypted: entry & cBitMask != 0,
                storable: writable && entry & PageTableBit.dirty != 0, isGlobal: entry & PageTableBit.global != 0)
        }
    }

    /// Paging without PAE: two levels of 32-bit entries, 4 MiB pages with CR4.PSE, whose frame may have 40 bits.
    private func walkTwoLevels(
        _ linear: UInt64, _ access: Access, user: Bool, at rip: UInt64, _ hasChanged: inout Bool
    ) -> LinearPage? {
        var table = s.pointee.cr3 & 0xffff_f000
        var allowed = PageTableBit.write | PageTableBit.user
        var shift: UInt64 = 22
        while true {
            let slot = table &+ ((linear &>> shift) & 0x3ff) &* 4
            guard let p = pageTablePointer(slot, at: rip) else { return nil }
            let found = UInt64(p.load(as: UInt32.self))
            var entry = found
            guard entry & PageTableBit.present != 0 else {
                return pageFault(linear, access, user: user, code: 0, at: rip)
            }
            let isLarge = shift == 22 && entry & PageTableBit.large != 0 && s.pointee.cr4 & CR4.pse != 0
            // Bit 21, and address bits 39:32 (20:13) that this machine does not have.
            if isLarge,
                entry & (1 &<< 21) != 0 || ((entry &>> 13) & 0xff) &<< 32 & ~(physicalMask | cBitMask) != 0
            {
                return pageFault(linear, access, user: user, code: 9, at: rip)
            }
            allowed &= entry
            let isLeaf = isLarge || shift == 12
            var marks = PageTableBit.accessed
            var writable = false
            if isLeaf {
                guard
                    let w = permission(
                        linear, access, user: user, allowed: allowed, noExecute: false, key: nil, at: rip)
                else { return nil }
                writable = w
                if access == .write { marks |= PageTableBit.dirty }
            }
            if entry & marks != marks {
                entry |= marks
                guard mark(found, entry, at: slot, at: rip, &hasChanged, byteCount: 4) else { return nil }
            }
            guard isLeaf else {
                table = entry & 0xffff_f000
                shift = 12
                continue
            }
            let gpa =
                isLarge
                ? entry & 0xffc0_0000 | ((entry &>> 13) & 0xff) &<< 32 | linear & 0x3f_ffff
                : entry & 0xffff_f000 | linear & 0xfff
            return LinearPage(gpa: gpa, encrypted: false, storable: writable && entry & PageTableBit.dirty != 0)
        }
    }

    /// May the access be made [APM2 5.6]? The answer says whether stores are allowed, too; nil: #PF has been prepared.
    private func permission(
        _ linear: UInt64, _ access: Access, user: Bool, allowed: UInt64, noExecute: Bool, key: Int?, at rip: UInt64
    ) -> Bool? {
        let cr4 = s.pointee.cr4
        let isUserPage = allowed & PageTableBit.user != 0
        let writeProtects = s.pointee.cr0 & CR0.wp != 0
        var writable = allowed & PageTableBit.write != 0 || (!user && !writeProtects)
        var denied: Bool
        var code: UInt32 = 1
        if user {
            denied = !isUserPage
        } else if isUserPage, access == .execute {
            denied = cr4 & CR4.smep != 0
        } else {
            // Accesses that the processor makes for itself never count as meant for user pages.
            denied =
                isUserPage && cr4 & CR4.smap != 0
                && (s.pointee.cpl == 3 || s.pointee.system_flags & RFLAGS.ac == 0)
        }
        if access == .execute, noExecute { denied = true }
        if let key, isUserPage, access != .execute {
            let rights = s.pointee.pkru &>> UInt32(key &* 2)
            let noStores = rights & 2 != 0 && (user || writeProtects)
            if rights & 1 != 0 || access == .write && noStores {
                denied = true
                code |= 32
            }
            if noStores { writable = false }
        }
        if access == .write, !writable { denied = true }
        guard denied else { return writable }
        _ = pageFault(linear, access, user: user, code: code, at: rip)
        return nil
    }

    /// #PF with its error code [APM2 8.4.2]; nil, so that callers can return it.
    func pageFault(_ linear: UInt64, _ access: Access, user: Bool, code: UInt32, at rip: UInt64) -> LinearPage? {
        var error = code
        if access == .write { error |= 2 }
        if user { error |= 4 }
        if access == .execute {
            let nx = s.pointee.efer & EFER.nxe != 0 && s.pointee.cr4 & CR4.pae != 0
            if nx || s.pointee.cr4 & CR4.smep != 0 { error |= 16 }
        }
        s.pointee.fault_address = linear
        prepareException(14, error: error, at: rip)
        return nil
    }

    /// The host address of a page-table entry: a small cache in front of the nested translation.
    func pageTablePointer(_ gpa: UInt64, at rip: UInt64) -> UnsafeMutableRawPointer? {
        let page = gpa & ~0xfff
        let slot = walkCache + Int((page &>> 12) & 511)
        if slot.pointee.page == page { return slot.pointee.host + Int(gpa & 0xfff) }
        let encrypted = cBitMask != 0
        switch memory.translate(gpa: page, encrypted: encrypted, access: .pageTableRead) {
        case .page(let host, _):
            slot.pointee = WalkCacheEntry(page: page, host: host, isStorable: false)
            return host + Int(gpa & 0xfff)
        case .device, .fault:
            prepareExit(.nestedPageFault(gpa: page, encrypted: encrypted, access: .pageTableRead), at: rip)
        case .notValidated:
            prepareVC(0x404, at: rip)
        }
        return nil
    }

    /// Sets accessed and dirty bits in the entry that was found. Page tables in read-only memory keep what they have, as
    /// under KVM. False: prepared to leave, or the entry is another one by now.
    private func mark(
        _ found: UInt64, _ entry: UInt64, at gpa: UInt64, at rip: UInt64, _ hasChanged: inout Bool, byteCount: Int = 8
    ) -> Bool {
        let page = gpa & ~0xfff
        let slot = walkCache + Int((page &>> 12) & 511)
        if slot.pointee.page != page || !slot.pointee.isStorable {
            let encrypted = cBitMask != 0
            switch memory.translate(gpa: page, encrypted: encrypted, access: .pageTableWrite) {
            case .page(let host, true): slot.pointee = WalkCacheEntry(page: page, host: host, isStorable: true)
            case .page(_, false), .device: return true
            case .notValidated:
                prepareVC(0x404, at: rip)
                return false
            case .fault:
                prepareExit(.nestedPageFault(gpa: page, encrypted: encrypted, access: .pageTableWrite), at: rip)
                return false
            }
        }
        let place = slot.pointee.host + Int(gpa & 0xfff)
        if s.pointee.shared != 0 {
            if byteCount == 4 {
                var old = UInt32(truncatingIfNeeded: found)
                hasChanged = !compareExchange(place, &old, UInt32(truncatingIfNeeded: entry))
            } else {
                var old = found
                hasChanged = !compareExchange(place, &old, entry)
            }
            return !hasChanged
        }
        if byteCount == 4 {
            place.storeBytes(of: UInt32(truncatingIfNeeded: entry), as: UInt32.self)
        } else {
            place.storeBytes(of: entry, as: UInt64.self)
        }
        return true
    }

    /// The host page behind a guest physical page, for data. nil: prepared to leave. `device` tells devices apart.
    func hostPage(_ page: LinearPage, _ access: Access, at rip: UInt64) -> HostPage? {
        let encrypted = access == .execute ? cBitMask != 0 : page.encrypted
        let fetch: PhysicalAccess = configuration.vmpl != 0 && s.pointee.cpl == 3 ? .userExecute : .execute
        let wanted: PhysicalAccess = access == .read ? .read : access == .write ? .write : fetch
        let key =
            page.gpa & ~0xfff | (encrypted ? 3 : 1) | (access == .execute ? fetch == .userExecute ? 12 : 4 : 0)
        let nested = nestedCache + Int((page.gpa &>> 12) & UInt64(NestedCacheEntry.count - 1))
        if nested.pointee.key == key {
            let writable = nested.pointee.host & 1 != 0
            if writable || access != .write,
                let host = UnsafeMutableRawPointer(bitPattern: nested.pointee.host & ~0xfff)
            {
                return .memory(host, storable: writable && page.storable)
            }
        }
        switch memory.translate(gpa: page.gpa & ~0xfff, encrypted: encrypted, access: wanted) {
        case .page(let host, let writable):
            guard writable || access != .write else {
                prepareExit(.nestedPageFault(gpa: page.gpa, encrypted: encrypted, access: wanted), at: rip)
                return nil
            }
            nested.pointee = NestedCacheEntry(key: key, host: UInt(bitPattern: host) | (writable ? 1 : 0))
            return .memory(host, storable: writable && page.storable)
        case .device:
            // An SNP guest's private memory is nowhere but in the RMP; others have no nested entry here, C-bit or not.
            if access == .execute || encrypted && configuration.snp {
                prepareExit(.nestedPageFault(gpa: page.gpa, encrypted: encrypted, access: wanted), at: rip)
                return nil
            }
            if configuration.encryptedState {
                prepareVC(0x400, at: rip)
                return nil
            }
            return .device(page.gpa)
        case .notValidated:
            prepareVC(0x404, at: rip)
        case .fault:
            prepareExit(.nestedPageFault(gpa: page.gpa, encrypted: encrypted, access: wanted), at: rip)
        }
        return nil
    }
}

enum HostPage {
    case memory(UnsafeMutableRawPointer, storable: Bool)
    case device(UInt64)
}

/// What ``ProcessorMemory`` said about a page.
struct NestedCacheEntry {
    static let count = 2048
    /// Guest physical page | 1 | (encrypted ? 2 : 0) | (for fetches ? 4 : 0) | (at CPL 3, below VMPL 0 ? 8 : 0), or 0.
    var key: UInt64
    /// Host address, and in bit 0 whether stores are allowed.
    var host: UInt
}

struct WalkCacheEntry {
    var page: UInt64
    var host: UnsafeMutableRawPointer
    /// Stores were asked for and allowed.
    var isStorable: Bool
}
