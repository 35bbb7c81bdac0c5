// DF_FLUSH, SNP_DF_FLUSH: ASIDs become usable again.

import SEVABI

extension Firmware {
    /// DF_FLUSH [SEV 5.9]: nothing of the guests that are gone is left in write buffers.
    ///
    /// - Returns: INVALID_PLATFORM_STATE while neither SEV nor SNP is initialised; WBINVD_REQUIRED when an SEV guest was
    ///   deactivated since all processors last wrote back their caches.
    mutating func flushDataFabric() -> SEVStatus {
        guard isSNPInitialized || isSEVInitialized else { return .invalidPlatformState }
        guard !needsWBINVD else { return .wbinvdRequired }
        unflushedASIDs = []
        return .success
    }
}
