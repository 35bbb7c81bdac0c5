// The AMD secure processor: a mailbox for commands, and the state machines of the platform and of its guests.
//
// The firmware trusts nothing in a command buffer and nothing in memory. Every command checks in the order length of the
// buffer, platform state, guest, guest state, parameters, page states; the first thing wrong is the status, and what is
// refused changes nothing. One file per command in Commands/, those of SEV and SEV-ES in Commands/SEV/. Migration is not
// modelled: its commands answer UNSUPPORTED.

import Crypto
import MemoryController
import SEVABI
import Synchronization

/// The secure processor of a software machine [SEV 4, 5, 6; SNP 3, 8].
public final class SecureProcessor: Sendable {
    /// With what the storage says of product, firmware and versions.
    public let profile: PlatformProfile
    let memory: SystemMemory
    /// One command at a time, as the mailbox has it. Order: this lock, then the memory's.
    private let firmware: Mutex<Firmware>

    /// - Parameters:
    ///   - memory: The machine's memory; its RMP is this firmware's.
    ///   - profile: Versions and capabilities.
    ///   - entropy: Where keys come from.
    ///   - storage: The platform's persistent keys, owner and settings; where it has settings, they count and not those of
    ///     `profile`. Without a storage the keys come from `entropy` and end with this object.
    public init(
        memory: SystemMemory, profile: PlatformProfile, entropy: Entropy = .system, storage: PlatformStorage? = nil
    ) {
        var profile = profile
        if let settings = storage?.settings { profile.adopt(settings) }
        let settings = storage?.settings ?? PlatformSettings(profile)
        precondition(settings.isConsistent, "a report version and TCB versions that fit the product")
        self.memory = memory
        self.profile = profile
        firmware = Mutex(
            Firmware(memory: memory, profile: profile, settings: settings, entropy: entropy, storage: storage))
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

    /// WBINVD has run on every processor: nothing of a deactivated guest is left in their caches, so DF_FLUSH may follow.
    public func noteCachesWrittenBack() { firmware.withLock { $0.needsWBINVD = false } }

    /// What PLATFORM_STATUS would write.
    public func platformStatus() -> SEVPlatformStatus { firmware.withLock { $0.platformStatus() } }

    /// What GUEST_STATUS would write; nil when there is no such SEV guest.
    public func guestStatus(of handle: UInt32) -> SEVGuestStatus? {
        firmware.withLock { firmware in
            firmware.guests[handle].map {
                SEVGuestStatus(handle: handle, policy: $0.policy.rawValue, asid: $0.asid, state: $0.state)
            }
        }
    }

    /// The public key that reports of now are signed with; nil when there is no such key. What a certificate of the
    /// platform is issued for.
    public func endorsementKey(_ kind: EndorsementKeyKind) -> P384PublicKey? {
        firmware.withLock { firmware in
            firmware.endorsementSecret(kind).map { EndorsementKey.signingKey(from: $0).publicKey }
        }
    }

    /// LD of a guest. Not part of the ABI: on hardware it is seen in reports only.
    package func launchDigest(of context: SPA) -> LaunchDigest? {
        firmware.withLock { $0.contexts[context]?.pageInfo.currentDigest }
    }

    /// The keys of a guest's messages, VMPCK0 to VMPCK3. Not part of the ABI: on hardware they are in the guest's secrets
    /// page only, so a test that has no guest asks here.
    package func messageKeys(of context: SPA) -> [[UInt8]]? {
        firmware.withLock { $0.contexts[context]?.messageKeys }
    }

    /// Sets the message counter of one key, for tests of the last numbers.
    package func prepareMessageCount(_ count: UInt64, key: Int, of context: SPA) {
        firmware.withLock { $0.contexts[context]?.messageCounts[key] = count }
    }

    /// The next random bytes that the firmware draws, for known answers.
    package func prepareEntropy(_ bytes: [UInt8]) { firmware.withLock { $0.entropy.prepared = bytes } }

    /// The launch digest that LAUNCH_MEASURE of an SEV guest will find, for known answers whose launched bytes nobody
    /// knows.
    package func prepareLaunchDigest(_ digest: [UInt8], of handle: UInt32) {
        firmware.withLock { $0.guests[handle]?.preparedDigest = digest }
    }

    /// Everything of the firmware's state that commands can show, for tests of "nothing changed".
    package func stateDescription() -> String { firmware.withLock { $0.stateDescription() } }
}

/// The firmware's state. Only used under the secure processor's lock, which is why it may say `@unchecked Sendable`.
struct Firmware: @unchecked Sendable {
    let memory: SystemMemory
    let profile: PlatformProfile
    let hasher = SHA2Hasher(.sha384)
    var entropy: EntropySource

    /// SEV's platform state is INIT, or WORKING when there are guests.
    var isSEVInitialized = false
    /// INIT was asked for SEV-ES.
    var isESConfigured = false
    /// SEV and SEV-ES guests by handle.
    var guests: [UInt32: SEVGuestContext] = [:]
    var lastHandle: UInt32 = 0
    /// An SEV guest was deactivated, and caches may hold its lines.
    var needsWBINVD = false
    let storage: PlatformStorage?
    /// nil until it is needed, unless it was stored.
    var identity: PlatformIdentity?
    var identityEntropy: EntropySource
    /// Of the identity.
    var certificateCache: PlatformCertificates?

    /// SNP's platform state is INIT.
    var isSNPInitialized = false
    var isRMPInitialized = false
    /// Guests by the address of their context page.
    var contexts: [SPA: GuestContext] = [:]
    /// Which guest has which ASID.
    var asidOwners: [UInt32: ASIDOwner] = [:]
    /// ASIDs given up since the last DF_FLUSH: data fabric and caches may hold lines of their last guest.
    var unflushedASIDs: Set<UInt32> = []
    /// Changed by ``change(_:)`` only.
    private(set) var settings: PlatformSettings

    init(
        memory: SystemMemory, profile: PlatformProfile, settings: PlatformSettings, entropy: Entropy,
        storage: PlatformStorage?
    ) {
        self.memory = memory
        self.profile = profile
        self.entropy = EntropySource(entropy)
        identityEntropy = EntropySource(entropy, purpose: "platform")
        self.storage = storage
        identity = storage?.identity
        self.settings = settings
    }

    var committedTCB: TCBVersion { settings.committedTCB }
    var reportedTCB: TCBVersion { settings.reportedTCB }
    var masksChipID: Bool { settings.masksChipID }
    var masksChipKey: Bool { settings.masksChipKey }
    var vlek: LoadedVLEK? { settings.vlek }

    /// Changes the platform's settings, and keeps the change.
    ///
    /// - Returns: What `change` returned, or HWERROR_PLATFORM when the change could not be kept. Nothing has changed unless it
    ///   is SUCCESS.
    mutating func change(_ change: (inout PlatformSettings) -> SEVStatus) -> SEVStatus {
        var new = settings
        let status = change(&new)
        guard status == .success, new != settings else { return status }
        guard kept(identity: nil, settings: new) else { return .hardwarePlatform }
        settings = new
        return .success
    }

    /// Keeps a change of keys or settings; false when the storage could not.
    mutating func kept(identity changed: PlatformIdentity?, settings changedSettings: PlatformSettings?) -> Bool {
        guard let storage else { return true }
        let (identity, settings) = (withIdentity { $0 }, settings)
        do throws(PlatformStorageError) {
            try storage.keep(
                from: StoredPlatform(identity: identity, settings: settings),
                to: StoredPlatform(identity: changed ?? identity, settings: changedSettings ?? settings))
            return true
        } catch {
            storage.store.report(error)
            return false
        }
    }

    mutating func run(_ command: SEVCommand, _ buffer: inout [UInt8]) -> SEVStatus {
        switch command {
        case .initialize where buffer.isEmpty: initialize(SEVInit())
        case .initialize: sev(SEVInit.self, &buffer) { $0.initialize($1) }
        case .initializeEx: sev(SEVInitEx.self, &buffer) { $0.initialize($1) }
        case .shutdown: shutdown()
        case .platformReset: resetPlatform()
        case .platformStatus: platformStatus(&buffer)
        case .pekGenerate: generatePEK()
        case .pekCSR: sev(SEVOutputBuffer.self, &buffer) { $0.exportSigningRequest(&$1) }
        case .pekCertificateImport: sev(SEVPEKCertificateImport.self, &buffer) { $0.importCertificates($1) }
        case .pdhCertificateExport: sev(SEVPDHCertificateExport.self, &buffer) { $0.exportCertificates(&$1) }
        case .pdhGenerate: generatePDH()
        case .dfFlush: flushDataFabric()
        case .getID: sev(SEVOutputBuffer.self, &buffer) { $0.identify(&$1) }
        case .decommission: sev(SEVHandleBuffer.self, &buffer) { $0.decommission($1) }
        case .activate: sev(SEVActivate.self, &buffer) { $0.activate($1) }
        case .deactivate: sev(SEVHandleBuffer.self, &buffer) { $0.deactivate($1) }
        case .guestStatus: sev(SEVGuestStatus.self, &buffer) { $0.guestStatus(&$1) }
        case .launchStart: sev(SEVLaunchStart.self, &buffer) { $0.launchStart(&$1) }
        case .launchUpdateData: sev(SEVLaunchUpdate.self, &buffer) { $0.launchUpdateData($1) }
        case .launchUpdateVMSA: sev(SEVLaunchUpdate.self, &buffer) { $0.launchUpdateVMSA($1) }
        case .launchMeasure: sev(SEVLaunchMeasure.self, &buffer) { $0.launchMeasure(&$1) }
        case .launchSecret: sev(SEVLaunchSecret.self, &buffer) { $0.launchSecret($1) }
        case .launchFinish: sev(SEVHandleBuffer.self, &buffer) { $0.launchFinish($1) }
        case .attestation: sev(SEVAttestation.self, &buffer) { $0.attest(&$1) }
        case .debugDecrypt: sev(SEVDebug.self, &buffer) { $0.debugDecrypt($1) }
        case .debugEncrypt: sev(SEVDebug.self, &buffer) { $0.debugEncrypt($1) }
        case .snpInitialize: initializeSNP(SNPInitEx())
        case .snpInitializeEx: parsed(buffer, SNPInitEx.init(bytes:)) { $0.initializeSNP($1) }
        case .snpShutdown: shutdownSNP()
        case .snpShutdownEx: parsed(buffer, SNPShutdownEx.init(bytes:)) { $0.shutdownSNP($1) }
        case .snpPlatformStatus: parsed(buffer, SNPAddressBuffer.init(bytes:)) { $0.writeSNPPlatformStatus($1) }
        case .snpDFFlush: isSNPInitialized ? flushDataFabric() : .invalidPlatformState
        case .snpVLEKLoad: parsed(buffer, SNPVLEKLoad.init(bytes:)) { $0.loadVLEK($1) }
        case .snpGuestContextCreate: parsed(buffer, SNPAddressBuffer.init(bytes:)) { $0.createGuestContext($1) }
        case .snpActivate: parsed(buffer, SNPActivate.init(bytes:)) { $0.activate($1) }
        case .snpDecommission: parsed(buffer, SNPAddressBuffer.init(bytes:)) { $0.decommission($1) }
        case .snpGuestStatus: parsed(buffer, SNPGuestStatusRequest.init(bytes:)) { $0.writeGuestStatus($1) }
        case .snpLaunchStart: parsed(buffer, SNPLaunchStart.init(bytes:)) { $0.launchStart($1) }
        case .snpLaunchUpdate: parsed(buffer, SNPLaunchUpdate.init(bytes:)) { $0.launchUpdate($1) }
        case .snpLaunchFinish: parsed(buffer, SNPLaunchFinish.init(bytes:)) { $0.launchFinish($1) }
        case .snpGuestRequest: parsed(buffer, SNPGuestRequest.init(bytes:)) { $0.guestRequest($1) }
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
