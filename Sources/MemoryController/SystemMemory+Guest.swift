// Physical memory as the processor that runs a guest sees it: plaintext, where RMP and nested page table agree.

import SEVABI
import Synchronization

/// What a guest wants to do with a page.
public enum GuestAccess: UInt8, Sendable {
    case read, write, userExecute, supervisorExecute

    /// The permission bit it needs [APM2 15.36.7].
    var permission: UInt8 { 1 &<< rawValue }
}

/// The memory controller's answer to an encrypted access of a guest.
@safe
public enum GuestPage {
    /// The page's first byte, plaintext, and whether stores are allowed.
    case page(UnsafeMutableRawPointer, writable: Bool)
    /// The guest owns the page but has not accepted it: #VC 0x404 in the guest.
    case notValidated
    /// #VMEXIT(NPF) with the RMP bit: the hypervisor has mapped the wrong page.
    case fault(RMPFault)
}

/// Why the RMP disagrees [APM2 15.36.10].
public enum RMPFault: Equatable, Sendable {
    /// No memory at this address.
    case notMemory
    /// The page is the hypervisor's.
    case notAssigned
    /// Another guest's, the firmware's, or a guest's without a key.
    case owner
    /// Mapped at another guest physical address than the RMP says.
    case address
    /// Waiting for the firmware.
    case immutable
    /// A store to a VMSA page.
    case vmsaWrite
    /// The VMPL lacks the permission.
    case permission
    /// A 4 KiB instruction on a 2 MiB entry: PSMASH first.
    case sizeMismatch
}

/// Outcome of PVALIDATE or RMPADJUST.
public enum RMPInstructionOutcome: Equatable, Sendable {
    /// RAX, and for PVALIDATE CF = "nothing changed".
    case result(RMPResult, unchanged: Bool)
    /// RMPADJUST on a page the guest has not validated: #VC 0x404.
    case notValidated
    /// #VMEXIT(NPF): the hypervisor acts, then the instruction is repeated.
    case fault(RMPFault)
    /// #GP: PVALIDATE above VMPL 0.
    case generalProtection
}

extension SystemMemory {
    /// Translates for the processor that runs `asid`: called on a TLB miss, not on every access.
    ///
    /// - Parameters:
    ///   - spa: Where the nested page table puts the page.
    ///   - gpa: The guest's address of it (any byte of the page).
    /// - Returns: A pointer that stays mapped for the life of this object. It is *valid* until the page's RMP entry
    ///   changes: whoever changes it flushes the TLBs.
    public func guestPage(
        _ spa: SPA, gpa: UInt64, asid: UInt32, vmpl: Int = 0, access: GuestAccess = .read
    ) -> GuestPage {
        store.withLock { store in
            guard let page = store.index(spa) else { return .fault(.notMemory) }
            let entry = store.entry(page)
            if let fault = Self.mismatch(entry, gpa: gpa, asid: asid, in: store) { return .fault(fault) }
            guard entry.validated else { return .notValidated }
            let permissions = vmpl == 0 ? VMPLPermissions.all : entry.permissions(vmpl: vmpl)
            guard permissions & access.permission != 0 else { return .fault(.permission) }
            let writable = !entry.isVMSA && permissions & VMPLPermissions.write != 0
            if access == .write, !writable { return .fault(.vmsaWrite) }
            store.decipher(page, key: store.key(asid: asid))
            store.markWritten(page)
            return unsafe .page(store.pointer(page), writable: writable)
        }
    }

    /// PVALIDATE [APM3 PVALIDATE].
    ///
    /// - Parameter validate: EDX bit 0: accept the page, or rescind.
    public func pvalidate(
        _ spa: SPA, gpa: UInt64, asid: UInt32, vmpl: Int = 0, is2MiB: Bool, validate: Bool
    ) -> RMPInstructionOutcome {
        guard vmpl == 0 else { return .generalProtection }
        if is2MiB, gpa & (SPA.largePageByteCount &- 1) != 0 { return .result(.invalidInput, unchanged: false) }
        return store.withLock { store in
            guard let page = store.index(spa) else { return .fault(.notMemory) }
            var entry = store.entry(page)
            if let fault = Self.mismatch(entry, gpa: gpa, asid: asid, in: store) { return .fault(fault) }
            guard !entry.immutable else { return .fault(.immutable) }
            if is2MiB, !entry.is2MiB { return .result(.sizeMismatch, unchanged: false) }
            if !is2MiB, entry.is2MiB { return .fault(.sizeMismatch) }
            if entry.validated == validate { return .result(.success, unchanged: true) }
            entry.validated = validate
            store.setEntry(page, entry)
            return .result(.success, unchanged: false)
        }
    }

    /// RMPADJUST [APM3 RMPADJUST].
    ///
    /// - Parameter attributes: RDX: 7:0 target VMPL, 15:8 permissions, 16 VMSA.
    public func rmpadjust(
        _ spa: SPA, gpa: UInt64, asid: UInt32, vmpl: Int = 0, is2MiB: Bool, attributes: UInt64
    ) -> RMPInstructionOutcome {
        let target = Int(attributes & 0xff)
        let permissions = UInt8(truncatingIfNeeded: attributes &>> 8)
        let isVMSA = attributes &>> 16 & 1 != 0
        if is2MiB, gpa & (SPA.largePageByteCount &- 1) != 0 { return .result(.invalidInput, unchanged: false) }
        if target > 3 || permissions & ~VMPLPermissions.all != 0 || attributes &>> 17 != 0 {
            return .result(.invalidInput, unchanged: false)
        }
        if target <= vmpl { return .result(.permission, unchanged: false) }
        return store.withLock { store in
            guard let page = store.index(spa) else { return .fault(.notMemory) }
            var entry = store.entry(page)
            if let fault = Self.mismatch(entry, gpa: gpa, asid: asid, in: store) { return .fault(fault) }
            guard entry.validated else { return .notValidated }
            guard !entry.immutable else { return .fault(.immutable) }
            if is2MiB, !entry.is2MiB { return .result(.sizeMismatch, unchanged: false) }
            if !is2MiB, entry.is2MiB { return .fault(.sizeMismatch) }
            // Nobody gives what it does not have.
            if vmpl > 0, permissions & ~entry.permissions(vmpl: vmpl) != 0 {
                return .result(.permission, unchanged: false)
            }
            if is2MiB, isVMSA { return .result(.invalidInput, unchanged: false) }
            entry.setPermissions(vmpl: target, permissions)
            // Only VMPL 0 makes and unmakes VMSA pages; for others the bit is ignored.
            if vmpl == 0 { entry.isVMSA = isVMSA }
            store.setEntry(page, entry)
            return .result(.success, unchanged: false)
        }
    }

    /// VMRUN's read of a VMSA: nil unless the page is a validated VMSA page of this ASID.
    public func loadVMSA(_ spa: SPA, asid: UInt32) -> VMSA? {
        store.withLock { store in
            guard let page = Self.vmsaPage(spa, asid: asid, in: &store) else { return nil }
            // SAFETY: the save area lies inside the page.
            return unsafe VMSA(bytes: Array(UnsafeRawBufferPointer(start: store.pointer(page), count: VMSA.byteCount)))
        }
    }

    /// #VMEXIT's write of a VMSA. Returns false, and writes nothing, unless ``loadVMSA(_:asid:)`` would succeed.
    public func storeVMSA(_ spa: SPA, asid: UInt32, _ vmsa: VMSA) -> Bool {
        store.withLock { store in
            guard let page = Self.vmsaPage(spa, asid: asid, in: &store) else { return false }
            // SAFETY: a VMSA has 0x670 bytes, the page 0x1000.
            unsafe vmsa.bytes.withUnsafeBytes {
                unsafe store.pointer(page).copyMemory(from: $0.baseAddress!, byteCount: $0.count)
            }
            store.markWritten(page)
            return true
        }
    }

    private static func vmsaPage(_ spa: SPA, asid: UInt32, in store: inout PageStore) -> Int? {
        guard spa.isPageAligned, let page = store.index(spa), asid != 0 else { return nil }
        let entry = store.entry(page)
        let key = store.key(asid: asid)
        guard entry.pageState == .guestValid, entry.isVMSA, entry.asid == asid, key != 0 else { return nil }
        store.decipher(page, key: key)
        return page
    }

    /// The checks that come before "validated": who owns the page, and where.
    @inline(__always)
    private static func mismatch(_ entry: RMPEntry, gpa: UInt64, asid: UInt32, in store: borrowing PageStore)
        -> RMPFault?
    {
        guard entry.assigned else { return .notAssigned }
        guard asid != 0, entry.asid == asid, store.key(asid: asid) != 0 else { return .owner }
        guard entry.gpa == gpa & ~(SPA.pageByteCount &- 1) else { return .address }
        return nil
    }
}
