// SNP_DECOMMISSION: the end of a guest.

import MemoryController
import SEVABI

extension Firmware {
    /// SNP_DECOMMISSION [SNP 8.8]: forgets the guest and its key. Its memory stays assigned, as ciphertext, until the
    /// hypervisor takes it back; its ASID needs a DF_FLUSH before the next guest.
    mutating func decommission(_ buffer: SNPAddressBuffer) -> SEVStatus {
        withContext(at: buffer.address) { firmware, context in
            if context.asid != 0 {
                firmware.asidOwners[context.asid] = nil
                firmware.unflushedASIDs.insert(context.asid)
            }
            firmware.release(context, at: buffer.address)
            firmware.contexts[buffer.address] = nil
            return .success
        }
    }
}
