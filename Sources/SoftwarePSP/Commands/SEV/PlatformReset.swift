// PLATFORM_RESET, PEK_GEN, PDH_GEN: new keys.

import SEVABI

extension Firmware {
    /// PLATFORM_RESET [SEV 5.4], FACTORY_RESET for the kernel: the platform owns itself again, with new keys. The chip
    /// stays the chip.
    ///
    /// - Returns: INVALID_PLATFORM_STATE unless UNINIT.
    mutating func resetPlatform() -> SEVStatus {
        guard sevPlatformState == .uninitialized else { return .invalidPlatformState }
        return changeIdentity { $0.renew(from: &$1) }
    }

    /// PEK_GEN [SEV 5.7]: a new PEK, and with it a new OCA and PDH. An external owner loses the platform.
    ///
    /// - Returns: INVALID_PLATFORM_STATE unless INIT.
    mutating func generatePEK() -> SEVStatus {
        guard sevPlatformState == .initialized else { return .invalidPlatformState }
        return changeIdentity { $0.renew(from: &$1) }
    }

    /// PDH_GEN [SEV 5.11]: a new PDH. Sessions made for the old one are refused from now on.
    ///
    /// - Returns: INVALID_PLATFORM_STATE when UNINIT.
    mutating func generatePDH() -> SEVStatus {
        guard sevPlatformState != .uninitialized else { return .invalidPlatformState }
        return changeIdentity { $0.pdh = $1.key("sev-pdh") }
    }
}
