// ACTIVATE, DEACTIVATE, DECOMMISSION: a guest's ASID and its end.

import MemoryController
import SEVABI

extension Firmware {
    /// ACTIVATE [SEV 6.1]: the guest gets an ASID, and the memory controller its key.
    ///
    /// SEV-ES guests take ASIDs below the first plain SEV one, which they share with SNP guests; plain SEV guests the
    /// others. Guests that share a key may share an ASID.
    ///
    /// - Returns: INVALID_GUEST; ACTIVE when it has an ASID; INVALID_ASID; ASID_OWNED; DFFLUSH_REQUIRED when the ASID's
    ///   last guest may still be in write buffers.
    mutating func activate(_ buffer: SEVActivate) -> SEVStatus {
        withGuest(buffer.handle) { firmware, guest in
            guard guest.asid == 0 else { return .active }
            let range = guest.isES ? firmware.profile.snpASIDs : firmware.profile.sevASIDs
            guard range.contains(buffer.asid) else { return .invalidASID }
            var sharers: [UInt32] = []
            switch firmware.asidOwners[buffer.asid] {
            case nil:
                guard !firmware.unflushedASIDs.contains(buffer.asid) else { return .dfFlushRequired }
                let isInstalled = guest.memoryKey.withBytes {
                    firmware.memory.firmwareInstallKey(asid: buffer.asid, $0)
                }
                guard isInstalled else { return .resourceLimit }
            case .snp: return .asidOwned
            case .sev(let handles):
                guard handles.contains(where: { firmware.guests[$0]?.memoryKey === guest.memoryKey }) else {
                    return .asidOwned
                }
                sharers = handles
            }
            firmware.asidOwners[buffer.asid] = .sev(sharers + [buffer.handle])
            guest.asid = buffer.asid
            return .success
        }
    }

    /// DEACTIVATE [SEV 6.2]: the ASID is taken from the guest. The last one of an ASID takes the key with it.
    ///
    /// - Returns: INVALID_GUEST; INACTIVE.
    mutating func deactivate(_ buffer: SEVHandleBuffer) -> SEVStatus {
        withGuest(buffer.handle) { firmware, guest in
            guard guest.asid != 0 else { return .inactive }
            firmware.release(guest, buffer.handle)
            return .success
        }
    }

    /// DECOMMISSION [SEV 6.3]: the firmware forgets the guest and its keys.
    ///
    /// - Returns: INVALID_GUEST; ACTIVE until it is deactivated.
    mutating func decommission(_ buffer: SEVHandleBuffer) -> SEVStatus {
        withGuest(buffer.handle) { firmware, guest in
            guard guest.asid == 0 else { return .active }
            firmware.guests[buffer.handle] = nil
            return .success
        }
    }

    /// Takes the ASID from an active guest.
    mutating func release(_ guest: SEVGuestContext, _ handle: UInt32) {
        let asid = guest.asid
        guest.asid = 0
        guard case .sev(let handles) = asidOwners[asid] else { return }
        let others = handles.filter { $0 != handle }
        guard others.isEmpty else {
            asidOwners[asid] = .sev(others)
            return
        }
        asidOwners[asid] = nil
        memory.firmwareRemoveKey(asid: asid)
        unflushedASIDs.insert(asid)
        needsWBINVD = true
    }

    /// GUEST_STATUS [SEV 6.16], in any guest state.
    mutating func guestStatus(_ buffer: inout SEVGuestStatus) -> SEVStatus {
        var result = buffer
        let status = withGuest(buffer.handle) { _, guest in
            result.policy = guest.policy.rawValue
            result.asid = guest.asid
            result.state = guest.state
            return .success
        }
        buffer = result
        return status
    }
}
