// SNP_CONFIG and SNP_COMMIT: what the platform reports of its versions.

import SEVABI

extension Firmware {
    /// SNP_CONFIG [SNP 8.6].
    ///
    /// - Returns: INVALID_PARAM for reserved bits or a reported version above the committed one; HWERROR_PLATFORM when the
    ///   storage could not keep it, here and in every command that changes something for good.
    mutating func configure(_ config: SNPConfig) -> SEVStatus {
        guard isSNPInitialized else { return .invalidPlatformState }
        return change { $0.configure(config) }
    }

    /// SNP_COMMIT [SNP 8.5]: the current version cannot be rolled back any more, and is reported.
    mutating func commit(_ buffer: SNPCommit) -> SEVStatus {
        guard isSNPInitialized else { return .invalidPlatformState }
        guard buffer.length == UInt32(SNPCommit.byteCount) else { return .invalidLength }
        return change { settings in
            settings.commit()
            return .success
        }
    }
}
