// SNP_VLEK_LOAD: a versioned loaded endorsement key, wrapped for one chip.

import MemoryController
import SEVABI

extension Firmware {
    /// SNP_VLEK_LOAD [SNP 8.31]: takes the place of an earlier VLEK. AMD's blobs are wrapped with keys of real chips and fail
    /// their authentication; ``VLEKHashstick/wrapped(for:tcb:iv:)`` makes those of this platform.
    ///
    /// - Returns: INVALID_PLATFORM_STATE before SNP_INIT; INVALID_LENGTH; INVALID_PARAM for another version or reserved
    ///   bytes; INVALID_ADDRESS for 432 bytes outside memory; BAD_MEASUREMENT for a blob that was not made for this chip;
    ///   INVALID_PARAM for a TCB version with reserved bytes.
    mutating func loadVLEK(_ buffer: SNPVLEKLoad) -> SEVStatus {
        guard isSNPInitialized else { return .invalidPlatformState }
        guard buffer.length == UInt32(SNPVLEKLoad.byteCount) else { return .invalidLength }
        guard buffer.version == 0, buffer.hasValidReservedBits else { return .invalidParameter }
        guard let blob = memory.firmwareRead(buffer.address, byteCount: SNPVLEKLoad.wrappedByteCount) else {
            return .invalidAddress
        }
        guard let new = withIdentity({ LoadedVLEK(blob, for: $0) }) else { return .badMeasurement }
        guard new.tcb.hasValidReservedBytes(in: profile.product.tcbLayout) else { return .invalidParameter }
        return change { settings in
            settings.vlek = new
            return .success
        }
    }
}
