// MSG_TSC_INFO: how the guest's time-stamp counter follows the host's.

import SEVABI

extension Firmware {
    /// MSG_TSC_INFO_REQ [SNP 7.10]. Nil for a version or length that does not exist.
    ///
    /// STATUS is INVALID_PARAM for reserved bytes, and for a guest that was launched without Secure TSC. The offset is 0:
    /// the host's counter is the host kernel's here, and starts with the guest.
    func tscInfo(_ message: Message, _ context: GuestContext) -> [UInt8]? {
        guard message.version == 1, message.payload.count == TSCInfoRequest.byteCount else { return nil }
        guard context.usesSecureTSC, message.payload.allSatisfy({ $0 == 0 }) else {
            return TSCInfoResponse(status: .invalidParameters).bytes
        }
        // 0 asks for the host's own frequency. Safe: 32 bits, moved up by 32.
        let scale =
            context.desiredTSCKHz == 0 || profile.tscKHz == 0
            ? TSCInfoResponse.unitScale : UInt64(context.desiredTSCKHz) << 32 / UInt64(profile.tscKHz)
        return TSCInfoResponse(scale: scale, offset: 0, factor: profile.tscFactor).bytes
    }
}
