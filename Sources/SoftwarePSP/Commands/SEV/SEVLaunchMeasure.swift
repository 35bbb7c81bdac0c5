// LAUNCH_MEASURE: the digest is final, and authenticated for the guest's owner.

import MemoryController
import SEVABI

extension Firmware {
    /// LAUNCH_MEASURE [SEV 6.5]: writes MEASURE and MNONCE. No more updates afterwards.
    ///
    ///     MEASURE = HMAC-SHA256(TIK, 0x04 ‖ API major ‖ API minor ‖ build ‖ policy ‖ LD ‖ MNONCE)
    ///
    /// - Returns: INVALID_GUEST_STATE unless the guest is in LUPDATE; INVALID_LENGTH, with the length filled in, for less
    ///   than 48 bytes; INVALID_ADDRESS, INVALID_PAGE_STATE.
    mutating func launchMeasure(_ buffer: inout SEVLaunchMeasure) -> SEVStatus {
        var result = buffer
        let status = withGuest(buffer.handle) { firmware, guest in
            guard guest.state == .launchUpdate, let keys = guest.transportKeys else { return .invalidGuestState }
            guard result.byteCount >= UInt32(SEVMeasurement.byteCount) else {
                result.byteCount = UInt32(SEVMeasurement.byteCount)
                return .invalidLength
            }
            let output = firmware.outputStatus(result.address, byteCount: SEVMeasurement.byteCount)
            guard output == .success else { return output }
            let nonce = firmware.entropy.bytes(16)
            let digest = guest.preparedDigest ?? guest.hasher.finish()
            let profile = firmware.profile
            var message: [UInt8] = [0x04, profile.apiMajor, profile.apiMinor, profile.build]
            for shift: UInt32 in [0, 8, 16, 24] {
                message.append(UInt8(truncatingIfNeeded: guest.policy.rawValue >> shift))
            }
            message += digest + nonce
            guest.launchDigest = digest
            guest.measure = keys.authenticate(message)
            guest.state = .launchSecret
            result.byteCount = UInt32(SEVMeasurement.byteCount)
            return firmware.writeOutput(guest.measure + nonce, to: result.address)
        }
        buffer = result
        return status
    }
}
