// DBG_DECRYPT, DBG_ENCRYPT: the host reads and writes the guest's memory, if its policy lets it.

import Crypto
import MemoryController
import SEVABI

extension Firmware {
    /// DBG_DECRYPT [SEV 7.1]: plaintext of the guest's memory goes to a page of the host's.
    ///
    /// - Returns: INVALID_GUEST_STATE unless RUNNING; POLICY_FAILURE when the policy forbids debugging; INACTIVE;
    ///   INVALID_LENGTH unless a positive multiple of 16; INVALID_ADDRESS unless both are multiples of 16 and memory;
    ///   INVALID_PAGE_STATE.
    mutating func debugDecrypt(_ buffer: SEVDebug) -> SEVStatus {
        withDebuggedGuest(buffer) { firmware, guest in
            var status = firmware.guestMemoryStatus(buffer.source, byteCount: Int(buffer.byteCount))
            guard status == .success else { return status }
            status = firmware.outputStatus(buffer.destination, byteCount: Int(buffer.byteCount))
            guard status == .success else { return status }
            guard
                var plaintext = firmware.memory.firmwareReadGuest(
                    buffer.source, byteCount: Int(buffer.byteCount), asid: guest.asid)
            else { return .hardwarePlatform }
            defer { wipe(&plaintext) }
            return firmware.writeOutput(plaintext, to: buffer.destination)
        }
    }

    /// DBG_ENCRYPT [SEV 7.2]: bytes of the host's go into the guest's memory, under its key. Statuses as DBG_DECRYPT.
    mutating func debugEncrypt(_ buffer: SEVDebug) -> SEVStatus {
        withDebuggedGuest(buffer) { firmware, guest in
            let status = firmware.guestMemoryStatus(buffer.destination, byteCount: Int(buffer.byteCount))
            guard status == .success else { return status }
            guard let bytes = firmware.memory.firmwareRead(buffer.source, byteCount: Int(buffer.byteCount)) else {
                return .invalidAddress
            }
            let done = firmware.memory.firmwareWriteGuest(buffer.destination, bytes, asid: guest.asid)
            return done ? .success : .hardwarePlatform
        }
    }

    private mutating func withDebuggedGuest(
        _ buffer: SEVDebug, _ body: (inout Firmware, SEVGuestContext) -> SEVStatus
    ) -> SEVStatus {
        withGuest(buffer.handle) { firmware, guest in
            guard guest.state == .running else { return .invalidGuestState }
            guard guest.policy.allowsDebug else { return .policyFailure }
            guard guest.asid != 0 else { return .inactive }
            guard buffer.byteCount != 0, buffer.byteCount & 15 == 0 else { return .invalidLength }
            guard buffer.source.rawValue & 15 == 0, buffer.destination.rawValue & 15 == 0 else {
                return .invalidAddress
            }
            return body(&firmware, guest)
        }
    }
}
