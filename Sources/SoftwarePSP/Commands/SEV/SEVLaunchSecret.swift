// LAUNCH_UPDATE_SECRET and LAUNCH_FINISH: what the owner gives the guest that he has measured.

import Crypto
import MemoryController
import SEVABI

extension Firmware {
    /// The most that one packet carries.
    static let maximumSecretByteCount: UInt32 = 16384

    /// LAUNCH_UPDATE_SECRET [SEV 6.6]: checks the packet, deciphers it, and writes it under the guest's key.
    ///
    ///     MAC = HMAC-SHA256(TIK, 0x01 ‖ FLAGS ‖ IV ‖ guest length ‖ transport length ‖ ciphertext ‖ MEASURE)
    ///
    /// - Returns: INVALID_GUEST_STATE unless the guest is in LSECRET; INACTIVE; INVALID_LENGTH for a header of other
    ///   than 52 bytes, and unless the payload is 16 to 16384 bytes, a multiple of 16, and as long as the ciphertext;
    ///   INVALID_ADDRESS; INVALID_PAGE_STATE; BAD_MEASUREMENT when the MAC does not match; then UNSUPPORTED for a
    ///   compressed payload and INVALID_PARAM for unknown flags. A refusal writes nothing.
    mutating func launchSecret(_ buffer: SEVLaunchSecret) -> SEVStatus {
        withGuest(buffer.handle) { firmware, guest in
            guard guest.state == .launchSecret, let keys = guest.transportKeys else { return .invalidGuestState }
            guard guest.asid != 0 else { return .inactive }
            guard buffer.headerByteCount == UInt32(SEVSecretHeader.byteCount), buffer.guestByteCount != 0,
                buffer.guestByteCount <= Self.maximumSecretByteCount, buffer.guestByteCount & 15 == 0,
                buffer.transportByteCount == buffer.guestByteCount
            else { return .invalidLength }
            guard buffer.guestAddress.rawValue & 15 == 0,
                let headerBytes = firmware.memory.firmwareRead(
                    buffer.headerAddress, byteCount: SEVSecretHeader.byteCount),
                let header = SEVSecretHeader(bytes: headerBytes),
                let ciphertext = firmware.memory.firmwareRead(
                    buffer.transportAddress, byteCount: Int(buffer.transportByteCount))
            else { return .invalidAddress }
            let target = firmware.guestMemoryStatus(buffer.guestAddress, byteCount: Int(buffer.guestByteCount))
            guard target == .success else { return target }
            var message: [UInt8] = [0x01]
            // FLAGS and IV as they stand in the header.
            message += headerBytes[..<20]
            for length in [buffer.guestByteCount, buffer.transportByteCount] {
                for shift: UInt32 in [0, 8, 16, 24] { message.append(UInt8(truncatingIfNeeded: length >> shift)) }
            }
            message += ciphertext + guest.measure
            guard constantTimeEqual(keys.authenticate(message), header.mac) else { return .badMeasurement }
            guard header.flags & SEVSecretHeader.compressed == 0 else { return .unsupported }
            guard header.flags == 0 else { return .invalidParameter }
            var plaintext = keys.encryption.withBytes {
                AES128CTR.apply(key: $0, counter: header.iv, to: ciphertext)
            }
            defer { wipe(&plaintext) }
            let done = firmware.memory.firmwareWriteGuest(buffer.guestAddress, plaintext, asid: guest.asid)
            return done ? .success : .hardwarePlatform
        }
    }

    /// LAUNCH_FINISH [SEV 6.7]: the guest may run. The transport keys are wiped.
    ///
    /// - Returns: INVALID_GUEST_STATE unless the guest is in LSECRET.
    mutating func launchFinish(_ buffer: SEVHandleBuffer) -> SEVStatus {
        withGuest(buffer.handle) { _, guest in
            guard guest.state == .launchSecret else { return .invalidGuestState }
            guest.state = .running
            guest.transportKeys = nil
            return .success
        }
    }
}
