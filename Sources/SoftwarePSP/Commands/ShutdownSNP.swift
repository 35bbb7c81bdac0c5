// SNP_SHUTDOWN, SNP_SHUTDOWN_EX: back to the uninitialised platform.

import MemoryController
import SEVABI

extension Firmware {
    /// SNP_SHUTDOWN_EX [SNP 8.9]: ends all guests, whose context pages become firmware pages, and forgets the VLEK.
    ///
    /// - Returns: DFFLUSH_REQUIRED while an ASID that was given up has not been flushed.
    mutating func shutdownSNP(_ buffer: SNPShutdownEx = SNPShutdownEx()) -> SEVStatus {
        guard isSNPInitialized else { return .invalidPlatformState }
        guard buffer.length == UInt32(SNPShutdownEx.byteCount) else { return .invalidLength }
        guard buffer.hasValidReservedBits else { return .invalidParameter }
        guard unflushedASIDs.isEmpty else { return .dfFlushRequired }
        let status = change { settings in
            settings.removeVLEK()
            return .success
        }
        guard status == .success else { return status }
        for (spa, context) in contexts { release(context, at: spa) }
        contexts = [:]
        // SEV-ES guests keep theirs.
        asidOwners = asidOwners.filter { if case .sev = $0.value { true } else { false } }
        isSNPInitialized = false
        return .success
    }

    /// Takes away a guest's key; its context page becomes a firmware page.
    func release(_ context: GuestContext, at spa: SPA) {
        if context.asid != 0 { memory.firmwareRemoveKey(asid: context.asid) }
        var entry = memory.rmpEntry(spa) ?? RMPEntry()
        entry.isVMSA = false
        memory.firmwareSetEntry(spa, entry)
    }
}
