// SNP_GUEST_STATUS.

import SEVABI

extension Firmware {
    /// SNP_GUEST_STATUS [SNP 8.7]: 32 bytes at the address, in any guest state.
    mutating func writeGuestStatus(_ buffer: SNPGuestStatusRequest) -> SEVStatus {
        withContext(at: buffer.context) { firmware, context in
            let status = SNPGuestStatus(policy: context.policy, asid: context.asid, state: context.state)
            return firmware.writeResult(status.bytes, to: buffer.address)
        }
    }
}
