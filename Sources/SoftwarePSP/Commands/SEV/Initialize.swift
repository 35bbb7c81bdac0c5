// INIT, INIT_EX, SHUTDOWN: SEV's platform state.
//
//     UNINIT ── INIT, INIT_EX ──► INIT ── LAUNCH_START ──► WORKING ── DECOMMISSION of the last guest ──► INIT
//        ▲                         │                          │
//        └──────── SHUTDOWN ───────┴──────────────────────────┘

import MemoryController
import SEVABI

extension Firmware {
    /// The trusted memory region of SEV-ES: size and alignment.
    static let tmrByteCount: UInt64 = 1 << 20

    /// INIT [SEV 5.1]: UNINIT to INIT. No buffer at all is one of zeroes: no SEV-ES.
    ///
    /// - Returns: INVALID_PLATFORM_STATE unless UNINIT; INVALID_PARAM for unknown flags. With SEV-ES: INVALID_LENGTH for
    ///   a trusted memory region below 1 MiB; INVALID_ADDRESS unless it is aligned to 1 MiB and memory;
    ///   INVALID_PAGE_STATE while SNP is initialised, unless all of it is firmware pages.
    mutating func initialize(_ buffer: SEVInit) -> SEVStatus {
        guard sevPlatformState == .uninitialized else { return .invalidPlatformState }
        let flags = SEVInitFlags(rawValue: buffer.flags)
        guard flags.isSubset(of: .sevES) else { return .invalidParameter }
        if flags.contains(.sevES) {
            guard UInt64(buffer.tmrByteCount) >= Self.tmrByteCount else { return .invalidLength }
            guard buffer.tmrAddress.rawValue & (Self.tmrByteCount &- 1) == 0 else { return .invalidAddress }
            let status = outputStatus(buffer.tmrAddress, byteCount: Int(buffer.tmrByteCount))
            guard status == .success else { return status }
        }
        isSEVInitialized = true
        isESConfigured = flags.contains(.sevES)
        return .success
    }

    /// INIT_EX: INIT with persistent state in host memory.
    ///
    /// - Returns: As INIT; INVALID_LENGTH for another length of the structure; UNSUPPORTED for state in host memory: this
    ///   chip has storage of its own (``PlatformStorage``).
    mutating func initialize(_ buffer: SEVInitEx) -> SEVStatus {
        guard sevPlatformState == .uninitialized else { return .invalidPlatformState }
        guard buffer.length == UInt32(SEVInitEx.byteCount) else { return .invalidLength }
        guard buffer.nvAddress == .zero, buffer.nvByteCount == 0 else { return .unsupported }
        return initialize(
            SEVInit(flags: buffer.flags, tmrAddress: buffer.tmrAddress, tmrByteCount: buffer.tmrByteCount))
    }

    /// SHUTDOWN [SEV 5.2]: to UNINIT from any state. All guests are gone with their keys; their ASIDs need a DF_FLUSH.
    mutating func shutdown() -> SEVStatus {
        for (handle, guest) in guests where guest.asid != 0 { release(guest, handle) }
        guests = [:]
        isSEVInitialized = false
        isESConfigured = false
        return .success
    }
}
