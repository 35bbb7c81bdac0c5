// The launch digest of a SEV or SEV-ES guest, one command after the other.

import Crypto
import GuestImage

/// Computes LD as the firmware does for LAUNCH_UPDATE_DATA and LAUNCH_UPDATE_VMSA: SHA-256 of all plaintext, in order
/// [SEV 6.3, 6.4].
///
/// Addresses, lengths and the borders between commands do not enter: the same bytes in one command or in a hundred, here
/// or there, have the same digest. For one owner at a time, as the hasher inside.
public final class RunningContentsDigest {
    private let hasher = SHA2Hasher(.sha256)

    public init() { hasher.start() }

    /// LD after the commands so far, 32 bytes.
    public var digestBytes: [UInt8] { hasher.snapshot() }

    /// LAUNCH_UPDATE_DATA with this plaintext.
    public func extend(_ contents: [UInt8]) { hasher.update(contents) }

    /// LAUNCH_UPDATE_DATA of a region, which has its contents (a region without them is a programmer's error).
    public func extend(_ region: LaunchPlan.Region) {
        precondition(UInt64(region.contents.count) == region.byteCount, "what is measured has contents")
        hasher.update(region.contents)
    }

    /// LAUNCH_UPDATE_VMSA of one processor.
    public func extend(_ state: SealedState) { hasher.update(state.page) }
}
