// LAUNCH_UPDATE_DATA, LAUNCH_UPDATE_VMSA: memory becomes the guest's, measured and encrypted in place.

import Crypto
import MemoryController
import SEVABI

extension Firmware {
    /// LAUNCH_UPDATE_DATA [SEV 6.3].
    ///
    /// - Returns: INVALID_GUEST_STATE unless the guest is in LUPDATE; INACTIVE; INVALID_LENGTH unless it is a positive
    ///   multiple of 16; INVALID_ADDRESS unless a multiple of 16 and wholly memory; INVALID_PAGE_STATE for pages of
    ///   SNP guests. A refusal measures nothing.
    mutating func launchUpdateData(_ buffer: SEVLaunchUpdate) -> SEVStatus {
        withGuest(buffer.handle) { firmware, guest in
            guard guest.state == .launchUpdate else { return .invalidGuestState }
            guard guest.asid != 0 else { return .inactive }
            guard buffer.byteCount != 0, buffer.byteCount & 15 == 0 else { return .invalidLength }
            guard buffer.address.rawValue & 15 == 0 else { return .invalidAddress }
            let status = firmware.measure(buffer, of: guest)
            guard status == .success else { return status }
            let done = firmware.memory.firmwareEncrypt(
                buffer.address, byteCount: Int(buffer.byteCount), asid: guest.asid)
            return done ? .success : .hardwarePlatform
        }
    }

    /// LAUNCH_UPDATE_VMSA [SEV 6.4]: the register state of one vCPU, of which the processor keeps an integrity value
    /// from now on.
    ///
    /// - Returns: INVALID_GUEST_STATE unless the guest is in LUPDATE; INACTIVE; POLICY_FAILURE unless the policy asks
    ///   for SEV-ES; INVALID_LENGTH unless 4096; INVALID_ADDRESS unless a page of memory; INVALID_PAGE_STATE.
    mutating func launchUpdateVMSA(_ buffer: SEVLaunchUpdate) -> SEVStatus {
        withGuest(buffer.handle) { firmware, guest in
            guard guest.state == .launchUpdate else { return .invalidGuestState }
            guard guest.asid != 0 else { return .inactive }
            guard guest.isES else { return .policyFailure }
            guard buffer.byteCount == UInt32(VMSA.pageByteCount) else { return .invalidLength }
            guard buffer.address.isPageAligned else { return .invalidAddress }
            let status = firmware.measure(buffer, of: guest)
            guard status == .success else { return status }
            return firmware.memory.firmwareSealVMSA(buffer.address, asid: guest.asid) ? .success : .hardwarePlatform
        }
    }

    /// Adds the plaintext to the digest [SEV 6.5]: contents only, neither address nor length nor kind.
    private func measure(_ buffer: SEVLaunchUpdate, of guest: SEVGuestContext) -> SEVStatus {
        let status = guestMemoryStatus(buffer.address, byteCount: Int(buffer.byteCount))
        guard status == .success else { return status }
        // In pieces, as a firmware image has megabytes. The range is memory: that was the check.
        var offset: UInt32 = 0
        while offset < buffer.byteCount {
            let count = min(buffer.byteCount - offset, 1 << 16)
            guard let bytes = memory.firmwareRead(buffer.address + UInt64(offset), byteCount: Int(count)) else {
                return .invalidAddress
            }
            guest.hasher.update(bytes)
            offset += count
        }
        return .success
    }
}
