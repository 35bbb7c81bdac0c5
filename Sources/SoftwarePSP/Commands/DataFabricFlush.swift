// DF_FLUSH, SNP_DF_FLUSH: ASIDs become usable again.

import SEVABI

extension Firmware {
    /// DF_FLUSH [SEV 5.9, SNP 8.10]: nothing of the guests that are gone is left in write buffers. The host's caches
    /// have no ciphertext to write back here, so WBINVD is never required first.
    mutating func flushDataFabric() -> SEVStatus {
        guard isSNPInitialized || sevState != 0 else { return .invalidPlatformState }
        unflushedASIDs = []
        return .success
    }
}
