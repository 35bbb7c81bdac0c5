// PLATFORM_STATUS and SNP_PLATFORM_STATUS.

import SEVABI

extension Firmware {
    /// PLATFORM_STATUS [SEV 5.6]: the 12 bytes are the command buffer.
    func platformStatus(_ buffer: inout [UInt8]) -> SEVStatus {
        guard buffer.count >= SEVPlatformStatus.byteCount else { return .invalidLength }
        let status = platformStatus()
        buffer.replaceSubrange(0..<SEVPlatformStatus.byteCount, with: status.bytes)
        return .success
    }

    /// What the firmware says of its SEV side. Its guests do not count SNP's.
    func platformStatus() -> SEVPlatformStatus {
        SEVPlatformStatus(
            apiMajor: profile.apiMajor, apiMinor: profile.apiMinor, state: sevPlatformState.rawValue,
            isExternallyOwned: identity?.isExternallyOwned ?? false, isESConfigured: isESConfigured,
            build: profile.build, guestCount: UInt32(truncatingIfNeeded: guests.count))
    }

    /// What the firmware says of its SNP side. There is no RMP to speak of before SNP_INIT.
    var snpPlatformStatus: SNPPlatformStatus {
        var features: SNPPlatformStatus.Features = []
        if masksChipID { features.insert(.maskChipID) }
        if masksChipKey { features.insert(.maskChipKey) }
        if vlek != nil { features.insert(.vlekLoaded) }
        if profile.raplDisabled { features.insert(.raplDisabled) }
        if profile.ciphertextHiding { features.formUnion([.ciphertextHidingCapable, .ciphertextHidingEnabled]) }
        // Bit 0 RMP initialised, bit 1 alias check complete.
        let platformFlags: UInt8 = (isRMPInitialized ? 1 : 0) | (isSNPInitialized ? 2 : 0)
        return SNPPlatformStatus(
            apiMajor: profile.apiMajor, apiMinor: profile.apiMinor, state: isSNPInitialized ? 1 : 0,
            platformFlags: platformFlags, build: UInt32(profile.build), features: features,
            guestCount: UInt32(truncatingIfNeeded: contexts.count), currentTCB: profile.currentTCB,
            reportedTCB: reportedTCB)
    }

    /// SNP_PLATFORM_STATUS [SNP 8.3]: works in any platform state.
    func writeSNPPlatformStatus(_ buffer: SNPAddressBuffer) -> SEVStatus {
        writeResult(snpPlatformStatus.bytes, to: buffer.address)
    }
}
