// SNP_INIT, SNP_INIT_EX: from here on the RMP rules.

import MemoryController
import SEVABI

extension Firmware {
    /// SNP_INIT_EX [SNP 8.2]. SNP_INIT is the same with INIT_RMP and without a list.
    ///
    /// - Returns: INVALID_PLATFORM_STATE when SNP or SEV is initialised already; RMP_INIT_REQUIRED when the RMP was
    ///   never initialised and is not to be; INVALID_ADDRESS for a list outside memory.
    mutating func initializeSNP(_ buffer: SNPInitEx) -> SEVStatus {
        guard !isSNPInitialized, !isSEVInitialized else { return .invalidPlatformState }
        guard buffer.hasValidReservedBits else { return .invalidParameter }
        guard buffer.initializesRMP || isRMPInitialized else { return .rmpInitRequired }
        var fixed: [SPA] = []
        if buffer.hasList {
            guard let pages = hypervisorFixedPages(listedAt: buffer.list) else { return .invalidAddress }
            fixed = pages
        }
        if buffer.initializesRMP { memory.firmwareResetRMP() }
        for spa in fixed {
            var entry = RMPEntry()
            entry.immutable = true
            memory.firmwareSetEntry(spa, entry)
        }
        isRMPInitialized = true
        isSNPInitialized = true
        return .success
    }

    /// The page list: count u32, reserved u32, then ranges of base u64, page count u32, reserved u32; at most a page.
    /// Pages that are not memory need no entry.
    private func hypervisorFixedPages(listedAt list: SPA) -> [SPA]? {
        let offset = list.rawValue & (SPA.pageByteCount &- 1)
        guard offset & 7 == 0, let bytes = memory.firmwareRead(list, byteCount: Int(SPA.pageByteCount &- offset)) else {
            return nil
        }
        func number(_ offset: Int, _ byteCount: Int) -> UInt64 {
            (0..<byteCount).reduce(0) { $0 | UInt64(bytes[offset + $1]) << UInt64(8 * $1) }
        }
        let count = number(0, 4)
        guard count <= UInt64((bytes.count - 8) / 16) else { return nil }
        var pages: [SPA] = []
        for index in 0..<Int(count) {
            let base = SPA(rawValue: number(8 + 16 * index, 8))
            let pageCount = number(16 + 16 * index, 4)
            guard base.isPageAligned else { return nil }
            for page in 0..<pageCount {
                let spa = base + page &* SPA.pageByteCount
                // Ranges are ascending: behind the end of memory nothing follows.
                guard memory.rmpEntry(spa) != nil else { break }
                pages.append(spa)
            }
        }
        return pages
    }
}
