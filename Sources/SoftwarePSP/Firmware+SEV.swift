// What the SEV and SEV-ES commands share: finding a guest, checking and writing memory, the platform's keys.

import Crypto
import MemoryController
import SEVABI

/// A structure that a command reads and may write back.
protocol SEVCommandBuffer: Equatable {
    static var byteCount: Int { get }
    init?(bytes: [UInt8])
    var bytes: [UInt8] { get }
}

extension SEVHandleBuffer: SEVCommandBuffer {}
extension SEVInit: SEVCommandBuffer {}
extension SEVInitEx: SEVCommandBuffer {}
extension SEVOutputBuffer: SEVCommandBuffer {}
extension SEVPEKCertificateImport: SEVCommandBuffer {}
extension SEVPDHCertificateExport: SEVCommandBuffer {}
extension SEVActivate: SEVCommandBuffer {}
extension SEVGuestStatus: SEVCommandBuffer {}
extension SEVLaunchStart: SEVCommandBuffer {}
extension SEVLaunchUpdate: SEVCommandBuffer {}
extension SEVLaunchMeasure: SEVCommandBuffer {}
extension SEVLaunchSecret: SEVCommandBuffer {}
extension SEVAttestation: SEVCommandBuffer {}
extension SEVDebug: SEVCommandBuffer {}

/// Who has an ASID. The numbers are shared by all technologies.
enum ASIDOwner: Equatable {
    /// The SNP guest of a context page.
    case snp(SPA)
    /// SEV guests by handle: more than one when they share a key.
    case sev([UInt32])
}

extension Firmware {
    /// Reads a buffer, runs a command, and writes the buffer back when the command changed it.
    mutating func sev<Buffer: SEVCommandBuffer>(
        _ type: Buffer.Type, _ bytes: inout [UInt8], _ body: (inout Firmware, inout Buffer) -> SEVStatus
    ) -> SEVStatus {
        guard let original = Buffer(bytes: bytes) else { return .invalidLength }
        var buffer = original
        let status = body(&self, &buffer)
        if buffer != original { bytes.replaceSubrange(0..<Buffer.byteCount, with: buffer.bytes) }
        return status
    }

    /// Runs `body` with a guest, or answers why not: INVALID_PLATFORM_STATE unless WORKING, INVALID_GUEST.
    mutating func withGuest(
        _ handle: UInt32, _ body: (inout Firmware, SEVGuestContext) -> SEVStatus
    ) -> SEVStatus {
        guard sevPlatformState == .working else { return .invalidPlatformState }
        guard let guest = guests[handle] else { return .invalidGuest }
        return body(&self, guest)
    }

    /// WORKING means that there are guests.
    var sevPlatformState: SEVPlatformState {
        guard isSEVInitialized else { return .uninitialized }
        return guests.isEmpty ? .initialized : .working
    }

    mutating func stateDescription() -> String {
        var lines = ["platform \(platformStatus().bytes) \(snpPlatformStatus.bytes)"]
        for (handle, guest) in guests.sorted(by: { $0.key < $1.key }) {
            lines.append(
                "guest \(handle) policy \(guest.policy.rawValue) state \(guest.state.rawValue) ASID \(guest.asid) "
                    + "digest \(guest.launchDigest) measure \(guest.measure) transport keys "
                    + "\(guest.transportKeys != nil)")
        }
        for (context, guest) in contexts.sorted(by: { $0.key < $1.key }) {
            lines.append(
                "\(context) state \(guest.state.rawValue) ASID \(guest.asid) messages \(guest.messageCounts)")
        }
        lines.append("ASIDs \(asidOwners.sorted { $0.key < $1.key }) unflushed \(unflushedASIDs.sorted())")
        lines.append("WBINVD \(needsWBINVD) last handle \(lastHandle)")
        let settings = settings
        var stored = withIdentity { StoredPlatform(identity: $0, settings: settings).bytes }
        defer { wipe(&stored) }
        lines.append("stored \(SHA2Hasher(.sha256).hash(stored))")
        return lines.joined(separator: "\n")
    }

    // MARK: Memory

    /// SUCCESS when results may be written to a range: while SNP is initialised, to firmware pages only.
    func outputStatus(_ spa: SPA, byteCount: Int) -> SEVStatus {
        pageStatus(spa, byteCount: byteCount) { $0 == .firmware || (!isSNPInitialized && $0 == .hypervisor) }
    }

    /// SUCCESS when a range can be an SEV guest's memory: no SNP guest's and none of the firmware's own.
    func guestMemoryStatus(_ spa: SPA, byteCount: Int) -> SEVStatus {
        pageStatus(spa, byteCount: byteCount) { $0 == .firmware || $0 == .hypervisor }
    }

    private func pageStatus(_ spa: SPA, byteCount: Int, _ isFine: (PageState) -> Bool) -> SEVStatus {
        let (last, overflow) = spa.rawValue.addingReportingOverflow(UInt64(max(byteCount, 1)) &- 1)
        // Memory is one piece: what has both ends in it is wholly memory.
        guard !overflow, memory.rmpEntry(spa) != nil, memory.rmpEntry(SPA(rawValue: last)) != nil else {
            return .invalidAddress
        }
        for page in spa.page...(last >> 12) {
            guard let entry = memory.rmpEntry(SPA(rawValue: page << 12)) else { return .invalidAddress }
            guard isFine(entry.pageState) else { return .invalidPageState }
        }
        return .success
    }

    /// Writes a result after ``outputStatus(_:byteCount:)`` has allowed it.
    func writeOutput(_ bytes: [UInt8], to spa: SPA) -> SEVStatus {
        let status = outputStatus(spa, byteCount: bytes.count)
        guard status == .success else { return status }
        return memory.firmwareWrite(spa, bytes) ? .success : .invalidAddress
    }

    // MARK: Keys

    /// The platform's keys: those of the storage, or new ones when they are first needed.
    mutating func withIdentity<Result>(_ body: (PlatformIdentity) -> Result) -> Result {
        if let identity { return body(identity) }
        let new = PlatformIdentity(from: &identityEntropy)
        identity = new
        return body(new)
    }

    /// Changes the platform's keys or owner, and keeps the change.
    ///
    /// - Returns: HWERROR_PLATFORM, and nothing has changed, when the change could not be kept.
    mutating func changeIdentity(_ change: (inout PlatformIdentity, inout EntropySource) -> Void) -> SEVStatus {
        var changed = withIdentity { $0 }
        change(&changed, &identityEntropy)
        guard kept(identity: changed, settings: nil) else { return .hardwarePlatform }
        identity = changed
        certificateCache = nil
        return .success
    }

    /// The platform's certificates.
    mutating func certificates() -> PlatformCertificates {
        if let certificateCache { return certificateCache }
        let profile = profile
        let new = withIdentity { PlatformCertificates($0, profile) }
        certificateCache = new
        return new
    }
}
