// SNP_GCTX_CREATE: a firmware page becomes the context of a new guest.

import MemoryController
import SEVABI

extension Firmware {
    /// SNP_GCTX_CREATE [SNP 8.13].
    ///
    /// - Returns: INVALID_ADDRESS outside memory or unaligned, INVALID_PAGE_SIZE for a 2 MiB page, INVALID_PAGE_STATE
    ///   unless the page is a firmware page.
    mutating func createGuestContext(_ buffer: SNPAddressBuffer) -> SEVStatus {
        guard isSNPInitialized else { return .invalidPlatformState }
        guard buffer.address.isPageAligned, var entry = memory.rmpEntry(buffer.address) else { return .invalidAddress }
        guard entry.pageState == .firmware else { return .invalidPageState }
        guard !entry.is2MiB else { return .invalidPageSize }
        entry.isVMSA = true
        memory.firmwareSetEntry(buffer.address, entry)
        contexts[buffer.address] = GuestContext()
        return .success
    }
}
