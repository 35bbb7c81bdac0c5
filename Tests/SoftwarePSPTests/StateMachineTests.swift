import MemoryController
import SEVABI
import SoftwarePSP
import Testing

/// Every command in every platform and guest state.
@Suite("State machines")
struct StateMachineTests {
    /// The states a guest context can be in for a driver.
    enum Guest: CaseIterable, Sendable {
        case noContext, initial, launchInactive, launchActive, runningInactive, runningActive
    }

    static func guest(_ state: Guest, on platform: Platform) -> SPA {
        switch state {
        case .noContext: return platform.firmwarePage()
        case .initial: return platform.createContext()
        case .launchInactive:
            let context = platform.createContext()
            precondition(platform.start(context) == .success)
            return context
        case .launchActive: return platform.launchingGuest()
        case .runningInactive:
            let context = Self.guest(.launchInactive, on: platform)
            precondition(platform.finish(context) == .success)
            return context
        case .runningActive:
            let context = platform.launchingGuest()
            precondition(platform.finish(context) == .success)
            return context
        }
    }

    @Test("SNP guest commands in every guest state", arguments: Guest.allCases)
    func guestCommands(_ state: Guest) throws {
        /// What each command answers in this state.
        func expected(_ command: SEVCommand) -> SEVStatus {
            switch (command, state) {
            case (.snpGuestContextCreate, .noContext): .success
            case (.snpGuestContextCreate, _): .invalidPageState
            case (_, .noContext): .invalidGuest
            case (.snpLaunchStart, .initial): .success
            case (.snpLaunchStart, _): .invalidGuestState
            case (.snpActivate, .initial): .invalidGuestState
            case (.snpActivate, .launchInactive), (.snpActivate, .runningInactive): .success
            case (.snpActivate, _): .active
            case (.snpLaunchUpdate, .launchActive): .success
            case (.snpLaunchUpdate, .launchInactive): .inactive
            case (.snpLaunchUpdate, _): .invalidGuestState
            case (.snpLaunchFinish, .launchActive), (.snpLaunchFinish, .launchInactive): .success
            case (.snpLaunchFinish, _): .invalidGuestState
            default: .success
            }
        }
        let commands: [SEVCommand] = [
            .snpGuestContextCreate, .snpLaunchStart, .snpActivate, .snpLaunchUpdate, .snpLaunchFinish, .snpGuestStatus,
            .snpDecommission,
        ]
        for command in commands {
            let platform = try Platform()
            let context = Self.guest(state, on: platform)
            let bytes: [UInt8] =
                switch command {
                case .snpLaunchStart: SNPLaunchStart(context: context, policy: .default).bytes
                case .snpActivate: SNPActivate(context: context, asid: 1).bytes
                case .snpLaunchUpdate:
                    SNPLaunchUpdate(context: context, pageType: .zero, address: try platform.preGuestPage(gpa: 0)).bytes
                case .snpLaunchFinish: SNPLaunchFinish(context: context).bytes
                case .snpGuestStatus: SNPGuestStatusRequest(context: context, address: platform.firmwarePage()).bytes
                default: SNPAddressBuffer(address: context).bytes
                }
            #expect(platform.submit(command, bytes) == expected(command), "\(command) in \(state)")
        }
    }

    @Test("SNP commands before SNP_INIT")
    func uninitialized() throws {
        let platform = try Platform(initialized: false)
        let commands: [SEVCommand] = [
            .snpGuestContextCreate, .snpLaunchStart, .snpActivate, .snpLaunchUpdate, .snpLaunchFinish, .snpGuestStatus,
            .snpDecommission, .snpPageReclaim, .snpConfig, .snpCommit, .snpDFFlush, .snpShutdown, .snpShutdownEx,
            .dfFlush, .snpGuestRequest,
        ]
        for command in commands {
            #expect(platform.submit(command, [UInt8](repeating: 0, count: 64)) == .invalidPlatformState, "\(command)")
        }
        #expect(platform.processor.snpPlatformStatus().state == 0)
    }

    @Test("short buffers, unknown and unsupported commands")
    func buffers() throws {
        let platform = try Platform()
        let sizes: [(SEVCommand, Int)] = [
            (.platformStatus, 12), (.snpPlatformStatus, 8), (.snpInitializeEx, 64), (.snpShutdownEx, 8),
            (.snpGuestContextCreate, 8), (.snpActivate, 12), (.snpDecommission, 8), (.snpGuestStatus, 16),
            (.snpLaunchStart, 0x30), (.snpLaunchUpdate, 0x20), (.snpLaunchFinish, 0x40), (.snpPageReclaim, 8),
            (.snpConfig, 64), (.snpCommit, 4), (.snpVLEKLoad, 16), (.snpGuestRequest, 0x18),
        ]
        for (command, size) in sizes {
            #expect(platform.submit(command, [UInt8](repeating: 0, count: size - 1)) == .invalidLength, "\(command)")
            #expect(
                platform.submit(command, [UInt8](repeating: 0, count: size)) != .invalidLength || command == .snpCommit
                    || command == .snpShutdownEx || command == .snpVLEKLoad, "\(command)")
        }
        for number in [0x0b, 0x40, 0x44, 0x50, 0x53, 0x95, 0xb0, 0xc0, 0xc8] as [UInt32] {
            #expect(platform.submit(SEVCommand(rawValue: number), []) == .unsupported)
        }
        for number in [0, 0x0e, 0x24, 0x37, 0x80, 0x87, 0x96, 0xa3, 0xc4, 0xce, 0xffff_ffff] as [UInt32] {
            #expect(platform.submit(SEVCommand(rawValue: number), []) == .invalidCommand)
        }
    }

    @Test("platform life: init, status, shutdown, init again")
    func platformLife() throws {
        let platform = try Platform(initialized: false)
        // Nothing initialised the RMP yet, and this call would not.
        #expect(platform.submit(.snpInitializeEx, SNPInitEx(initializesRMP: false).bytes) == .rmpInitRequired)
        var reserved = SNPInitEx().bytes
        reserved[40] = 1
        #expect(platform.submit(.snpInitializeEx, reserved) == .invalidParameter)
        #expect(platform.submit(.snpInitialize, []) == .success)
        #expect(platform.submit(.snpInitialize, []) == .invalidPlatformState)
        #expect(platform.processor.snpPlatformStatus().state == 1)
        #expect(platform.processor.snpPlatformStatus().platformFlags == 3)
        // SEV's own state.
        #expect(platform.submit(.initialize, []) == .success)
        #expect(platform.submit(.initialize, []) == .invalidPlatformState)
        var buffer = [UInt8](repeating: 0xee, count: 16)
        #expect(platform.processor.submit(.platformStatus, &buffer) == .success)
        #expect(buffer == [1, 55, 1, 0, 0, 0, 0, 29, 0, 0, 0, 0, 0xee, 0xee, 0xee, 0xee])
        #expect(platform.submit(.shutdown, []) == .success)

        let context = platform.launchingGuest()
        #expect(platform.processor.snpPlatformStatus().guestCount == 1)
        let page = try platform.preGuestPage(gpa: 0x1000)
        #expect(platform.processor.launchUpdate(context: context, page: page, type: .zero) == .success)
        #expect(platform.load(page, gpa: 0x1000) != nil)
        #expect(platform.submit(.snpShutdownEx, SNPShutdownEx().bytes) == .success)
        #expect(platform.load(page, gpa: 0x1000) == nil, "no key any more")
        #expect(platform.memory.rmpEntry(context)?.pageState == .firmware)
        #expect(platform.submit(.snpInitializeEx, SNPInitEx(initializesRMP: false).bytes) == .success)
        #expect(platform.memory.rmpEntry(context)?.pageState == .firmware, "the RMP was kept")
        #expect(platform.submit(.snpShutdown, []) == .success)
        #expect(platform.submit(.snpInitialize, []) == .success)
        #expect(platform.memory.rmpEntry(context)?.pageState == .hypervisor, "the RMP was initialised")
    }

    @Test("pages that stay the hypervisor's")
    func fixedPages() throws {
        let platform = try Platform(initialized: false)
        let fixed = try #require(platform.memory.allocatePages(3))
        let list = try #require(platform.memory.allocatePages())
        func number(_ value: UInt64, _ count: Int) -> [UInt8] {
            (0..<count).map { UInt8(truncatingIfNeeded: value >> UInt64(8 * $0)) }
        }
        func bytes(count: UInt64, base: UInt64, pages: UInt64) -> [UInt8] {
            number(count, 4) + number(0, 4) + number(base, 8) + number(pages, 4) + number(0, 4)
        }
        let initialize = SNPInitEx(hasList: true, list: list).bytes
        try platform.memory.hostWrite(list, bytes(count: 256, base: 0, pages: 0))
        #expect(platform.submit(.snpInitializeEx, initialize) == .invalidAddress, "more than a page of ranges")
        try platform.memory.hostWrite(list, bytes(count: 1, base: fixed.rawValue + 1, pages: 1))
        #expect(platform.submit(.snpInitializeEx, initialize) == .invalidAddress)
        try platform.memory.hostWrite(list, bytes(count: 1, base: 0, pages: 0xffff_ffff))
        try platform.memory.hostWrite(list, bytes(count: 1, base: fixed.rawValue, pages: 2))
        #expect(
            platform.submit(.snpInitializeEx, SNPInitEx(hasList: true, list: SPA(rawValue: 8)).bytes) == .invalidAddress
        )
        #expect(platform.submit(.snpInitializeEx, initialize) == .success)
        #expect(platform.memory.rmpEntry(fixed + 4096)?.pageState == .hypervisorFixed)
        #expect(platform.memory.rmpEntry(fixed + 8192)?.pageState == .hypervisor)
        #expect(platform.memory.rmpUpdate(fixed, RMPUpdate(assigned: true)) == .permission)
        try platform.memory.hostWrite(fixed, [1])
    }

    @Test("results go only where the firmware may write")
    func results() throws {
        let platform = try Platform(initialized: false)
        let page = try #require(platform.memory.allocatePages())
        #expect(platform.submit(.snpPlatformStatus, SNPAddressBuffer(address: page).bytes) == .success, "no RMP yet")
        #expect(platform.submit(.snpInitialize, []) == .success)
        #expect(platform.submit(.snpPlatformStatus, SNPAddressBuffer(address: page).bytes) == .invalidPageState)
        let context = platform.launchingGuest(asid: 9)
        #expect(platform.submit(.snpPlatformStatus, SNPAddressBuffer(address: context).bytes) == .invalidPageState)
        let output = platform.firmwarePage()
        #expect(platform.submit(.snpPlatformStatus, SNPAddressBuffer(address: output + 4065).bytes) == .invalidAddress)
        #expect(platform.submit(.snpPlatformStatus, SNPAddressBuffer(address: .zero).bytes) == .invalidAddress)
        #expect(platform.submit(.snpPlatformStatus, SNPAddressBuffer(address: output + 4064).bytes) == .success)
        let status = try #require(SNPPlatformStatus(bytes: try platform.memory.hostRead(output + 4064, byteCount: 32)))
        #expect(status == platform.processor.snpPlatformStatus())
        #expect(status.guestCount == 1 && status.apiMinor == 55 && status.build == 29)
        #expect(
            platform.submit(.snpGuestStatus, SNPGuestStatusRequest(context: context, address: output).bytes) == .success
        )
        let guest = try #require(SNPGuestStatus(bytes: try platform.memory.hostRead(output, byteCount: 32)))
        #expect(guest == SNPGuestStatus(policy: .default, asid: 9, state: .launch))
        #expect(platform.processor.guestStatus(of: context) == guest)
        #expect(platform.processor.guestStatus(of: output) == nil)
    }

    @Test("configuration and commit")
    func configuration() throws {
        let current = TCBVersion(bootLoader: 4, tee: 0, snp: 24, microcode: 219)
        let platform = try Platform { $0.currentTCB = current }
        let lower = TCBVersion(bootLoader: 3, tee: 0, snp: 24, microcode: 200)
        #expect(platform.submit(.snpConfig, SNPConfig(reportedTCB: lower, masksChipKey: true).bytes) == .success)
        #expect(platform.processor.snpPlatformStatus().reportedTCB == lower)
        #expect(platform.processor.snpPlatformStatus().features == [.maskChipKey])
        let higher = TCBVersion(bootLoader: 0, tee: 1, snp: 0, microcode: 0)
        #expect(platform.submit(.snpConfig, SNPConfig(reportedTCB: higher).bytes) == .invalidParameter)
        #expect(
            platform.submit(.snpConfig, SNPConfig(reportedTCB: TCBVersion(rawValue: 1 << 20)).bytes)
                == .invalidParameter)
        var reserved = SNPConfig().bytes
        reserved[8] = 4
        #expect(platform.submit(.snpConfig, reserved) == .invalidParameter)
        #expect(platform.processor.snpPlatformStatus().reportedTCB == lower)
        #expect(platform.submit(.snpConfig, SNPConfig().bytes) == .success)
        #expect(platform.processor.snpPlatformStatus().reportedTCB == current)
        #expect(platform.submit(.snpCommit, SNPCommit().bytes) == .success)
        #expect(platform.submit(.snpCommit, [5, 0, 0, 0]) == .invalidLength)
    }

    @Test("addresses of contexts and reclaimed pages", arguments: PageState.allCases)
    func pageStates(_ state: PageState) throws {
        func page(on platform: Platform) -> SPA {
            let spa = platform.memory.allocatePages()!
            var entry = RMPEntry()
            entry.assigned = state != .hypervisor && state != .hypervisorFixed
            entry.immutable = ![.hypervisor, .reclaim, .guestInvalid, .guestValid].contains(state)
            entry.isVMSA = state == .context
            entry.validated = state == .preSwap || state == .guestValid
            if [.preGuest, .preSwap, .guestInvalid, .guestValid].contains(state) { entry.asid = 1 }
            if state == .metadata { entry.gpa = 0x1000 }
            platform.memory.firmwareSetEntry(spa, entry)
            return spa
        }
        let platform = try Platform()
        let create = platform.submit(.snpGuestContextCreate, SNPAddressBuffer(address: page(on: platform)).bytes)
        #expect(create == (state == .firmware ? .success : .invalidPageState))
        let reclaimed = page(on: platform)
        let status = platform.submit(.snpPageReclaim, SNPPageReclaim(address: reclaimed).bytes)
        let after = platform.memory.rmpEntry(reclaimed)?.pageState
        switch state {
        case .firmware, .metadata: #expect(status == .success && after == .reclaim)
        case .preGuest: #expect(status == .success && after == .guestInvalid)
        case .preSwap: #expect(status == .success && after == .guestValid)
        default: #expect(status == .invalidPageState && after == state)
        }
        #expect(platform.submit(.snpPageReclaim, SNPPageReclaim(address: reclaimed, is2MiB: true).bytes) != .success)
        #expect(platform.submit(.snpPageReclaim, SNPPageReclaim(address: .zero).bytes) == .invalidAddress)
        for address in [SPA.zero, SPA(rawValue: .max), reclaimed + 1] {
            #expect(
                platform.submit(.snpGuestContextCreate, SNPAddressBuffer(address: address).bytes) == .invalidAddress)
            #expect(platform.decommission(address) == .invalidAddress)
        }
    }

    @Test("ASIDs: range, owners, flush")
    func asids() throws {
        let platform = try Platform { $0.snpASIDs = 1...2 }
        let first = platform.launchingGuest(asid: 1)
        let second = platform.createContext()
        #expect(platform.start(second) == .success)
        #expect(platform.activate(second, 0) == .invalidASID && platform.activate(second, 3) == .invalidASID)
        #expect(platform.activate(second, 1) == .asidOwned)
        #expect(platform.activate(second, 2) == .success)
        #expect(platform.activate(second, 1) == .active)
        #expect(platform.decommission(first) == .success)
        #expect(platform.memory.rmpEntry(first)?.pageState == .firmware)
        #expect(platform.decommission(first) == .invalidGuest)
        let third = platform.createContext()
        #expect(platform.start(third) == .success)
        #expect(platform.activate(third, 1) == .dfFlushRequired)
        #expect(platform.submit(.snpShutdown, []) == .dfFlushRequired)
        #expect(platform.submit(.snpDFFlush, []) == .success)
        #expect(platform.activate(third, 1) == .success)
        #expect(platform.submit(.snpPageReclaim, SNPPageReclaim(address: first).bytes) == .success)
        #expect(platform.memory.rmpUpdate(first, .shared) == .success)
        #expect(platform.memory.freePages(first))
    }

    @Test(
        "launch policies",
        arguments: [
            (0x30000, SEVStatus.success), (0x10000, .invalidParameter), (0x30000 | 1 << 26, .invalidParameter),
            (0x30000 | 1 << 63, .invalidParameter), (0x20000, .policyFailure), (0x30137, .success),
            (0x30138, .policyFailure),
            (0x30200, .policyFailure), (0x300ff, .success), (0x30000 | 1 << 18, .success), (0xb0000, .success),
            (0x30000 | 1 << 20, .success), (0x30000 | 1 << 21, .success), (0x30000 | 1 << 22, .success),
            (0x30000 | 1 << 23, .policyFailure), (0x30000 | 1 << 24, .policyFailure),
            (0x30000 | 1 << 25, .invalidParameter),
            (0, .invalidParameter), (UInt64.max, .invalidParameter),
        ] as [(UInt64, SEVStatus)])
    func policies(_ policy: UInt64, _ status: SEVStatus) throws {
        let platform = try Platform()
        let context = platform.createContext()
        #expect(platform.start(context, policy: policy) == status)
        let state = platform.processor.guestStatus(of: context)?.state
        #expect(state == (status == .success ? .launch : .initial))
    }

    @Test("policies that depend on the platform")
    func platformPolicies() throws {
        let lenient = try Platform {
            $0.smtEnabled = false
            $0.raplDisabled = true
            $0.ciphertextHiding = true
            $0.apiMinor = 58
        }
        #expect(lenient.start(lenient.createContext(), policy: 0x20000) == .success)
        #expect(lenient.start(lenient.createContext(), policy: 0x20000 | 0b111 << 23) == .success)
        let strict = try Platform {
            $0.socketCount = 2
            $0.supportsAES256 = false
        }
        #expect(strict.start(strict.createContext(), policy: 0x30000 | 1 << 20) == .policyFailure)
        #expect(strict.start(strict.createContext(), policy: 0x30000 | 1 << 22) == .policyFailure)
    }

    @Test("migration agents and images are not there")
    func migration() throws {
        let platform = try Platform()
        let context = platform.createContext()
        func start(_ policy: UInt64, agent: Bool = false, image: Bool = false) -> SEVStatus {
            platform.submit(
                .snpLaunchStart,
                SNPLaunchStart(
                    context: context, policy: GuestPolicy(rawValue: policy), hasMigrationAgent: agent, hasIMI: image
                ).bytes)
        }
        #expect(start(0x30000, agent: true) == .policyFailure)
        #expect(start(0x70000, agent: true) == .unsupported)
        #expect(start(0x30000, image: true) == .unsupported)
        var reserved = SNPLaunchStart(context: context, policy: .default).bytes
        reserved[0x18] = 4
        #expect(platform.submit(.snpLaunchStart, reserved) == .invalidParameter)
    }
}
