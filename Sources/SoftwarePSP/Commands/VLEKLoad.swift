// SNP_VLEK_LOAD: a versioned loaded endorsement key, wrapped for one chip.

import MemoryController
import SEVABI

extension Firmware {
    /// SNP_VLEK_LOAD [SNP 8.31]. No wrapped key is for this chip: AMD's are wrapped with keys of real chips, and this
    /// platform's manufacturer makes none. So every blob fails its authentication, after all other checks.
    ///
    /// - Returns: INVALID_PLATFORM_STATE before SNP_INIT; INVALID_LENGTH; INVALID_PARAM for another version or reserved
    ///   bytes; INVALID_ADDRESS for 432 bytes outside memory; BAD_MEASUREMENT.
    mutating func loadVLEK(_ buffer: SNPVLEKLoad) -> SEVStatus {
        guard isSNPInitialized else { return .invalidPlatformState }
        guard buffer.length == UInt32(SNPVLEKLoad.byteCount) else { return .invalidLength }
        guard buffer.version == 0, buffer.hasValidReservedBits else { return .invalidParameter }
        guard memory.firmwareRead(buffer.address, byteCount: SNPVLEKLoad.wrappedByteCount) != nil else {
            return .invalidAddress
        }
        return .badMeasurement
    }
}
