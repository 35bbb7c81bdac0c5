// The AMD secure processor: a mailbox for commands, and the state machines of the platform and of its SNP guests.
//
// The firmware trusts nothing in a command buffer and nothing in memory. Every command checks in the order platform
// state, buffer, guest context, guest state, parameters, page states; the first thing wrong is the status. One file per
// command in Commands/. Attestation, SEV and SEV-ES are not modelled: their commands answer UNSUPPORTED.

import Crypto
import MemoryController
import SEVABI
import Synchronization

/// The secure processor of a software machine [SNP 3, 8].
public final class SecureProcessor: Sendable {
    public let profile: PlatformProfile
    let memory: SystemMemory
    /// One command at a time, as the mailbox has it. Order: this lock, then the memory's.
    private let firmware: Mutex<Firmware>

    /// - Parameters:
    ///   - memory: The machine's memory; its RMP is this firmware's.
    ///   - profile: Versions and capabilities.
    ///   - entropy: Where keys come from.
    public init(memory: SystemMemory, profile: PlatformProfile, entropy: Entropy = .system) {
        self.memory = memory
        self.profile = profile
        firmware = Mutex(Firmware(memory: memory, profile: profile, entropy: entropy))
    }

    /// Runs one command.
    ///
    /// - Parameter buffer: The command buffer, in and out; addresses inside are system physical. One that is shorter
    ///   than its structure answers INVALID_LENGTH; longer ones are fine.
    /// - Returns: The status. UNSUPPORTED for commands that the ABI has and this machine does not, INVALID_COMMAND for
    ///   numbers that mean nothing.
    public func submit(_ command: SEVCommand, _ buffer: inout [UInt8]) -> SEVStatus {
        // A copy, so that the caller's array is not held during the call.
        var bytes = buffer
        let status = firmware.withLock { $0.run(command, &bytes) }
        buffer = bytes
        return status
    }

    /// SNP_LAUNCH_UPDATE of one 4 KiB page without its command buffer: the same checks and the same effect.
    public func launchUpdate(
        context: SPA, page: SPA, type: PageType, permissions: VMPLPermissions = VMPLPermissions()
    ) -> SEVStatus {
        firmware.withLock {
            $0.launchUpdate(SNPLaunchUpdate(context: context, pageType: type, address: page, permissions: permissions))
        }
    }

    /// What SNP_PLATFORM_STATUS would write.
    public func snpPlatformStatus() -> SNPPlatformStatus { firmware.withLock { $0.snpPlatformStatus } }

    /// What SNP_GUEST_STATUS would write; nil when the page is not a guest context.
    public func guestStatus(of context: SPA) -> SNPGuestStatus? {
        firmware.withLock {
            $0.contexts[context].map { SNPGuestStatus(policy: $0.policy, asid: $0.asid, state: $0.state) }
        }
    }

    /// LD of a guest. Not part of the ABI: on hardware it is seen in reports only.
    package func launchDigest(of context: SPA) -> LaunchDigest? {
        firmware.withLock { $0.contexts[context]?.pageInfo.currentDigest }
    }
}

/// The firmware's state. Only used under the secure processor's lock, which is why it may say `@unchecked Sendable`.
struct Firmware: @unchecked Sendable {
    let memory: SystemMemory
    let profile: PlatformProfile
    let hasher = SHA2Hasher(.sha384)
    var entropy: EntropySource

    /// SEV's platform state: 0 UNINIT, 1 INIT. There are no SEV guests, so never WORKING.
    var sevState: UInt8 = 0
    /// SNP's platform state is INIT.
    var isSNPInitialized = false
    var isRMPInitialized = false
    /// Guests by the address of their context page.
    var contexts: [SPA: GuestContext] = [:]
    /// Which guest has which ASID.
    var asidOwners: [UInt32: SPA] = [:]
    /// ASIDs given up since the last DF_FLUSH: data fabric and caches may hold lines of their last guest.
    var unflushedASIDs: Set<UInt32> = []
    var committedTCB: TCBVersion
    var reportedTCB: TCBVersion
    var masksChipID = false
    var masksChipKey = false

    init(memory: SystemMemory, profile: PlatformProfile, entropy: Entropy) {
        self.memory = memory
        self.profile = profile
        self.entropy = EntropySource(entropy)
        committedTCB = profile.currentTCB
        reportedTCB = profile.currentTCB
    }

    mutating func run(_ command: SEVCommand, _ buffer: inout [UInt8]) -> SEVStatus {
        switch command {
        case .initialize, .initializeEx: initialize()
        case .shutdown: shutdown()
        case .platformStatus: platformStatus(&buffer)
        case .dfFlush: flushDataFabric()
        case .snpInitialize: initializeSNP(SNPInitEx())
        case .snpInitializeEx: parsed(buffer, SNPInitEx.init(bytes:)) { $0.initializeSNP($1) }
        case .snpShutdown: shutdownSNP()
        case .snpShutdownEx: parsed(buffer, SNPShutdownEx.init(bytes:)) { $0.shutdownSNP($1) }
        case .snpPlatformStatus: parsed(buffer, SNPAddressBuffer.init(bytes:)) { $0.writeSNPPlatformStatus($1) }
        case .snpDFFlush: isSNPInitialized ? flushDataFabric() : .invalidPlatformState
        case .snpGuestContextCreate: parsed(buffer, SNPAddressBuffer.init(bytes:)) { $0.createGuestContext($1) }
        case .snpActivate: parsed(buffer, SNPActivate.init(bytes:)) { $0.activate($1) }
        case .snpDecommission: parsed(buffer, SNPAddressBuffer.init(bytes:)) { $0.decommission($1) }
        case .snpGuestStatus: parsed(buffer, SNPGuestStatusRequest.init(bytes:)) { $0.writeGuestStatus($1) }
        case .snpLaunchStart: parsed(buffer, SNPLaunchStart.init(bytes:)) { $0.launchStart($1) }
        case .snpLaunchUpdate: parsed(buffer, SNPLaunchUpdate.init(bytes:)) { $0.launchUpdate($1) }
        case .snpLaunchFinish: parsed(buffer, SNPLaunchFinish.init(bytes:)) { $0.launchFinish($1) }
        case .snpPageReclaim: parsed(buffer, SNPPageReclaim.init(bytes:)) { $0.reclaimPage($1) }
        case .snpConfig: parsed(buffer, SNPConfig.init(bytes:)) { $0.configure($1) }
        case .snpCommit: parsed(buffer, SNPCommit.init(bytes:)) { $0.commit($1) }
        default: SEVCommand.isAssigned(command.rawValue) ? .unsupported : .invalidCommand
        }
    }

    private mutating func parsed<Buffer>(
        _ bytes: [UInt8], _ parse: ([UInt8]) -> Buffer?, _ body: (inout Firmware, Buffer) -> SEVStatus
    ) -> SEVStatus {
        guard let buffer = parse(bytes) else { return .invalidLength }
        return body(&self, buffer)
    }

    // MARK: Checks that commands share

    /// A guest context, or the status that says why there is none at this address.
    func context(at spa: SPA) -> Result<GuestContext, StatusError> {
        guard isSNPInitialized else { return .failure(.init(.invalidPlatformState)) }
        guard spa.isPageAligned, let entry = memory.rmpEntry(spa) else { return .failure(.init(.invalidAddress)) }
        guard entry.pageState == .context, let context = contexts[spa] else { return .failure(.init(.invalidGuest)) }
        return .success(context)
    }

    /// Runs `body` with a guest context, or answers why not.
    mutating func withContext(
        at spa: SPA, _ body: (inout Firmware, GuestContext) -> SEVStatus
    ) -> SEVStatus {
        switch context(at: spa) {
        case .success(let context): body(&self, context)
        case .failure(let error): error.status
        }
    }

    /// Writes a command's result to memory. While SNP is initialised the firmware writes only to firmware pages: no
    /// command can be aimed at a guest's or the hypervisor's memory.
    func writeResult(_ bytes: [UInt8], to spa: SPA) -> SEVStatus {
        let offset = spa.rawValue & (SPA.pageByteCount &- 1)
        guard let entry = memory.rmpEntry(spa), offset &+ UInt64(bytes.count) <= SPA.pageByteCount else {
            return .invalidAddress
        }
        let state = entry.pageState
        guard state == .firmware || (!isSNPInitialized && state == .hypervisor) else { return .invalidPageState }
        return memory.firmwareWrite(spa, bytes) ? .success : .invalidAddress
    }
}

/// A status as an error.
struct StatusError: Error {
    let status: SEVStatus
    init(_ status: SEVStatus) { self.status = status }
}
