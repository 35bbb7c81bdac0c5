// SNP_ACTIVATE: a guest gets an ASID, and the memory controller its key.

import MemoryController
import SEVABI

extension Firmware {
    /// SNP_ACTIVATE [SNP 8.4].
    ///
    /// - Returns: INVALID_GUEST_STATE before LAUNCH_START; ACTIVE when the guest has an ASID; INVALID_ASID outside the
    ///   range of SNP guests; ASID_OWNED; DFFLUSH_REQUIRED when the ASID's last guest may still be in write buffers.
    mutating func activate(_ buffer: SNPActivate) -> SEVStatus {
        withContext(at: buffer.context) { firmware, context in
            guard context.state != .initial else { return .invalidGuestState }
            guard firmware.profile.snpASIDs.contains(buffer.asid) else { return .invalidASID }
            guard context.asid == 0 else { return .active }
            guard firmware.asidOwners[buffer.asid] == nil else { return .asidOwned }
            guard !firmware.unflushedASIDs.contains(buffer.asid) else { return .dfFlushRequired }
            guard firmware.memory.firmwareInstallKey(asid: buffer.asid, context.memoryKey) else {
                return .resourceLimit
            }
            firmware.asidOwners[buffer.asid] = .snp(buffer.context)
            context.asid = buffer.asid
            return .success
        }
    }
}
