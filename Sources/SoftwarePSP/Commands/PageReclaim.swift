// SNP_PAGE_RECLAIM: the hypervisor gets a page back that the firmware held.

import MemoryController
import SEVABI

extension Firmware {
    /// SNP_PAGE_RECLAIM [SNP 8.26]: the page stops being immutable, so RMPUPDATE works on it again.
    ///
    /// - Returns: INVALID_ADDRESS, INVALID_PAGE_SIZE, or INVALID_PAGE_STATE unless the page is a firmware, metadata,
    ///   pre-guest or pre-swap page. A context page must be decommissioned first.
    mutating func reclaimPage(_ buffer: SNPPageReclaim) -> SEVStatus {
        guard isSNPInitialized else { return .invalidPlatformState }
        guard buffer.is2MiB ? buffer.address.isLargePageAligned : buffer.address.isPageAligned,
            var entry = memory.rmpEntry(buffer.address)
        else { return .invalidAddress }
        guard entry.is2MiB == buffer.is2MiB else { return .invalidPageSize }
        switch entry.pageState {
        case .firmware, .metadata: entry.gpa = 0
        case .preGuest, .preSwap: break
        default: return .invalidPageState
        }
        entry.immutable = false
        memory.firmwareSetEntry(buffer.address, entry)
        return .success
    }
}
