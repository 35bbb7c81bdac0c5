// The states of a page that an RMP entry's fields stand for.

/// Page states [SNP 5.2]. Any entry is in exactly one.
public enum PageState: Sendable, Equatable, CaseIterable {
    /// Not assigned: the hypervisor's, and shared memory of guests.
    case hypervisor
    /// Not assigned and immutable: the hypervisor's for good (device memory, boot tables).
    case hypervisorFixed
    /// Assigned, ASID 0, not immutable: on the way back from the firmware.
    case reclaim
    /// Assigned, ASID 0, immutable: the firmware may write it.
    case firmware
    /// A firmware page that holds a guest context (VMSA bit set).
    case context
    /// A firmware page that holds metadata of swapped pages (GPA not zero).
    case metadata
    /// Of a guest, immutable, not validated: waiting for SNP_LAUNCH_UPDATE.
    case preGuest
    /// Of a guest, immutable, validated: waiting for SNP_PAGE_SWAP_OUT.
    case preSwap
    /// Of a guest, not validated: the guest cannot use it yet.
    case guestInvalid
    /// Of a guest and validated by it.
    case guestValid
}

extension RMPEntry {
    /// The state this entry stands for.
    public var pageState: PageState {
        guard assigned else { return immutable ? .hypervisorFixed : .hypervisor }
        if asid == 0 {
            guard immutable else { return .reclaim }
            if isVMSA { return .context }
            return gpa == 0 ? .firmware : .metadata
        }
        switch (immutable, validated) {
        case (true, false): return .preGuest
        case (true, true): return .preSwap
        case (false, false): return .guestInvalid
        case (false, true): return .guestValid
        }
    }
}
