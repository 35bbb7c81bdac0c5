// SNP_CONFIG and SNP_COMMIT: what the platform reports of its versions.

import SEVABI

extension Firmware {
    /// SNP_CONFIG [SNP 8.6].
    ///
    /// - Returns: INVALID_PARAM for reserved bits or a reported version above the committed one.
    mutating func configure(_ config: SNPConfig) -> SEVStatus {
        guard isSNPInitialized else { return .invalidPlatformState }
        guard config.hasValidReservedBits, config.reportedTCB.hasValidReservedBytes(in: profile.product.tcbLayout),
            config.reportedTCB.isAtMost(committedTCB)
        else { return .invalidParameter }
        reportedTCB = config.reportedTCB.rawValue == 0 ? committedTCB : config.reportedTCB
        masksChipID = config.masksChipID
        masksChipKey = config.masksChipKey
        return .success
    }

    /// SNP_COMMIT [SNP 8.5]: the current version cannot be rolled back any more, and is reported.
    mutating func commit(_ buffer: SNPCommit) -> SEVStatus {
        guard isSNPInitialized else { return .invalidPlatformState }
        guard buffer.length == UInt32(SNPCommit.byteCount) else { return .invalidLength }
        committedTCB = profile.currentTCB
        reportedTCB = profile.currentTCB
        return .success
    }
}
