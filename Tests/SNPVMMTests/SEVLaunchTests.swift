import GuestImage
import KVMABI
import SEVABI
import SNPVMM
import Synchronization
import Testing
import X86Defs

/// A plan with a region of whole pages, one that is part of a page, and one outside RAM.
func sevPlan(_ technology: GuestTechnology, policy: UInt64 = 0x1) -> LaunchPlan {
    func bytes(_ count: Int, _ factor: Int) -> [UInt8] { (0..<count).map { UInt8(truncatingIfNeeded: $0 &* factor) } }
    var plan = LaunchPlan(
        regions: [
            .init(label: "kernel", pageType: .normal, gpa: 0x10_0000, byteCount: 0x3000, contents: bytes(0x3000, 7)),
            .init(label: "table", pageType: .normal, gpa: 0x8010, byteCount: 0x30, contents: bytes(0x30, 5)),
            .init(
                label: "firmware", pageType: .normal, gpa: 0xffff_f010, byteCount: 0xff0, contents: bytes(0xff0, 3)),
        ],
        processors: samplePlan().processors, guestFeatures: 0, policy: policy, technology: technology)
    plan.secretArea = .init(gpa: 0x8100, byteCount: 0x100)
    return plan
}

/// An owner made of values, which remembers what it was asked.
final class ScriptedOwner: LaunchOwner, Sendable {
    struct State: Sendable {
        var sessionRequest: SessionRequest?
        var secretRequest: SecretRequest?
        var session: SEVLaunchSession?
        var packets: [SEVSecretPacket] = []
        var refusesSession = false
        var refusesMeasurement = false
    }
    let state: Mutex<State>

    init(_ state: State = State()) { self.state = Mutex(state) }

    static let session = SEVLaunchSession(
        policy: SEVPolicy(rawValue: 0x5), ownerCertificate: [UInt8](repeating: 0x0d, count: 2084),
        session: [UInt8](repeating: 0x5e, count: 128))

    static func refusal(_ what: String) -> VMMError {
        VMMError(
            .launchRefused, step: "get the owner's consent", request: what, finding: "no", likelyCause: "a test",
            nextStep: "none")
    }

    func session(for request: SessionRequest) throws(VMMError) -> SEVLaunchSession? {
        let (session, refuses) = state.withLock { state in
            state.sessionRequest = request
            return (state.session, state.refusesSession)
        }
        if refuses { throw Self.refusal("session") }
        return session
    }

    func secrets(after request: SecretRequest) throws(VMMError) -> [SEVSecretPacket] {
        let (packets, refuses) = state.withLock { state in
            state.secretRequest = request
            return (state.packets, state.refusesMeasurement)
        }
        if refuses { throw Self.refusal("measurement") }
        return packets
    }
}

/// Launches on a scripted kernel.
private func launch(
    _ kernel: any HostKernel, _ technology: GuestTechnology, plan: LaunchPlan? = nil,
    owner: ScriptedOwner? = nil
) throws(VMMError) -> Machine {
    let host = try Host(kernel)
    let cpuid = try host.guestCPUID(processorCount: 1, technology: technology)
    return try Machine(
        host: host,
        configuration: MachineConfiguration(
            technology: technology, memoryByteCount: 16 << 20, plan: plan ?? sevPlan(technology), cpuid: cpuid),
        owner: owner, console: { _ in })
}

private func failure(_ body: () throws(VMMError) -> Machine) -> VMMError? {
    do {
        _ = try body()
        return nil
    } catch { return error }
}

@Suite struct SEVLaunchTests {
    static let packet = SEVSecretPacket(
        header: [UInt8](repeating: 0x4d, count: 52), payload: [UInt8](repeating: 0x99, count: 0x40))

    /// What comes before INIT2 and after it, up to the launch itself.
    static func preparation(_ type: Int) -> [String] {
        [
            "KVM_CREATE_VM \(type)", "mmap anonymous 1052672", "open /dev/sev", "KVM_SEV_INIT2 features 0x0 ghcb 0",
            "KVM_CREATE_IRQCHIP", "KVM_SET_GSI_ROUTING", "mmap anonymous 16777216",
            "KVM_SET_USER_MEMORY_REGION 0 0x0 16777216", "mmap anonymous 4096",
            "KVM_SET_USER_MEMORY_REGION 1 0xfffff000 4096",
            "KVM_CREATE_VCPU 0", "KVM_GET_VCPU_MMAP_SIZE", "mmap vcpu", "KVM_SET_CPUID2", "KVM_GET_SREGS",
            "KVM_SET_SREGS", "KVM_SET_REGS", "KVM_SET_MSRS",
        ]
    }
    static let contents = [
        "KVM_MEMORY_ENCRYPT_REG_REGION 0x0 16777216", "KVM_MEMORY_ENCRYPT_REG_REGION 0xfffff000 4096",
        "KVM_SEV_LAUNCH_UPDATE_DATA 0x100000 12288", "KVM_SEV_LAUNCH_UPDATE_DATA 0x8010 48",
        "KVM_SEV_LAUNCH_UPDATE_DATA 0xfffff010 4080",
    ]

    @Test(arguments: [(GuestTechnology.sev, 2), (.sevES, 3)])
    func goldenRequestOrder(technology: GuestTechnology, type: Int) throws {
        let kernel = ScriptedKernel()
        let machine = try launch(kernel, technology)
        let expected =
            Self.preparation(type) + ["KVM_SEV_LAUNCH_START policy 0x1 certificate 0 session 0"] + Self.contents
            + (technology == .sevES ? ["KVM_SEV_LAUNCH_UPDATE_VMSA"] : [])
            + ["KVM_SEV_LAUNCH_MEASURE 48", "KVM_SEV_LAUNCH_FINISH"]
        let created = try #require(kernel.log.firstIndex { $0.hasPrefix("KVM_CREATE_VM") })
        #expect(Array(kernel.log[created...]) == expected)
        #expect(
            kernel.log[..<created].filter { $0.hasPrefix("KVM_CHECK_EXTENSION") }.map { String($0.dropFirst(20)) } == [
                "KVM_CAP_VM_TYPES", "KVM_CAP_USER_MEMORY", "KVM_CAP_IRQCHIP", "KVM_CAP_IMMEDIATE_EXIT",
            ])
        #expect(machine.measurement?.bytes == kernel.with { $0.measurement })
    }

    /// The owner's answers arrive where they belong, and the owner learns what it needs.
    @Test(arguments: [GuestTechnology.sev, .sevES]) func theOwnersPart(technology: GuestTechnology) throws {
        let kernel = ScriptedKernel()
        let owner = ScriptedOwner(.init(session: ScriptedOwner.session, packets: [Self.packet, Self.packet]))
        let machine = try launch(kernel, technology, owner: owner)
        let created = try #require(kernel.log.firstIndex { $0.hasPrefix("KVM_CREATE_VM") })
        let expected =
            Self.preparation(technology == .sev ? 2 : 3)
            + [
                "open /dev/sev", "SEV_PLATFORM_STATUS", "SEV_PDH_CERT_EXPORT",
                "KVM_SEV_LAUNCH_START policy 0x5 certificate 2084 session 128",
            ] + Self.contents + (technology == .sevES ? ["KVM_SEV_LAUNCH_UPDATE_VMSA"] : [])
            + [
                "KVM_SEV_LAUNCH_MEASURE 48", "KVM_SEV_LAUNCH_SECRET 0x8100 64 header 52 payload 64",
                "KVM_SEV_LAUNCH_SECRET 0x8140 64 header 52 payload 64", "KVM_SEV_LAUNCH_FINISH",
            ]
        #expect(Array(kernel.log[created...]) == expected)
        let state = kernel.state.withLock { $0 }
        #expect(state.session?.certificate == ScriptedOwner.session.ownerCertificate)
        #expect(state.session?.session == ScriptedOwner.session.session)
        #expect(state.secrets.map(\.header) == [Self.packet.header, Self.packet.header])
        #expect(state.secrets.map(\.payload) == [Self.packet.payload, Self.packet.payload])

        let asked = owner.state.withLock { $0 }
        #expect(asked.sessionRequest?.technology == technology)
        #expect(asked.sessionRequest?.policy.rawValue == 0x1)
        #expect(asked.sessionRequest?.platform.pdh == [UInt8](repeating: 0xd1, count: 2084))
        #expect(asked.sessionRequest?.platform.chain == [UInt8](repeating: 0xc4, count: 3 * 2084))
        #expect(asked.sessionRequest?.version == FirmwareVersion(apiMajor: 1, apiMinor: 55, build: 21))
        #expect(asked.secretRequest?.policy.rawValue == 0x5)
        #expect(asked.secretRequest?.measurement == machine.measurement)
        #expect(asked.secretRequest?.area == .init(gpa: 0x8100, byteCount: 0x100))
        #expect(machine.memoryMap.secretArea == 0x8100..<0x8180)
    }

    @Test func contentsLieInMemoryBeforeTheyAreEncrypted() throws {
        let kernel = ScriptedKernel()
        var plan = sevPlan(.sev)
        // More than one request carries.
        plan.regions[0].byteCount = 9 << 20
        plan.regions[0].contents = (0..<(9 << 20)).map { UInt8(truncatingIfNeeded: $0 &* 7 &+ $0 >> 12) }
        _ = try launch(kernel, .sev, plan: plan)
        let encrypted = kernel.with { $0.encrypted }
        #expect(encrypted.map(\.gpa) == [0x10_0000, 0x50_0000, 0x90_0000, 0x8010, 0xffff_f010])
        #expect(encrypted.flatMap(\.contents) == plan.regions.flatMap(\.contents))
    }

    @Test func anOwnerWhoRefusesStopsTheLaunchThere() {
        for (refusesSession, last) in [(true, "SEV_PDH_CERT_EXPORT"), (false, "KVM_SEV_LAUNCH_MEASURE 48")] {
            let kernel = ScriptedKernel()
            let owner = ScriptedOwner(
                .init(
                    session: ScriptedOwner.session, packets: [Self.packet], refusesSession: refusesSession,
                    refusesMeasurement: !refusesSession))
            let error = failure { () throws(VMMError) in try launch(kernel, .sevES, owner: owner) }
            #expect(error == ScriptedOwner.refusal(refusesSession ? "session" : "measurement"))
            #expect(kernel.log.last == last)
            // The VM is gone, with everything that belonged to it.
            let (closed, next) = kernel.state.withLock { ($0.closed, $0.nextHandle) }
            #expect(closed.sorted() == Array(3..<next))
        }
    }

    @Test func anOwnerWithoutASessionLaunchesAllTheSame() throws {
        let kernel = ScriptedKernel()
        let owner = ScriptedOwner()
        _ = try launch(kernel, .sev, owner: owner)
        #expect(kernel.log.contains("KVM_SEV_LAUNCH_START policy 0x1 certificate 0 session 0"))
        #expect(owner.state.withLock { $0.secretRequest } != nil)
    }

    @Test func packetsThatCannotBeAreRefusedBeforeTheFirmwareSeesThem() {
        let header = Self.packet.header
        let cases: [([SEVSecretPacket], String)] = [
            ([.init(header: header, payload: [UInt8](repeating: 0, count: 0x110))], "272 bytes of secrets"),
            (Array(repeating: Self.packet, count: 5), "320 bytes of secrets"),
            ([.init(header: header, payload: [])], "a payload of 0"),
            ([.init(header: header, payload: [UInt8](repeating: 0, count: 17))], "a payload of 17"),
            ([.init(header: Array(header.dropLast()), payload: Self.packet.payload)], "a header of 51"),
        ]
        for (packets, finding) in cases {
            let kernel = ScriptedKernel()
            let owner = ScriptedOwner(.init(session: ScriptedOwner.session, packets: packets))
            let error = failure { () throws(VMMError) in try launch(kernel, .sev, owner: owner) }
            #expect(error?.exitStatus == .badInput)
            #expect(error?.finding?.contains(finding) == true, "\(error.map { "\($0)" } ?? "no error")")
            #expect(!kernel.log.contains { $0.hasPrefix("KVM_SEV_LAUNCH_SECRET") })
        }
        // An image without a place.
        var plan = sevPlan(.sev)
        plan.secretArea = nil
        let owner = ScriptedOwner(.init(packets: [Self.packet]))
        let error = failure { () throws(VMMError) in try launch(ScriptedKernel(), .sev, plan: plan, owner: owner) }
        #expect(error?.finding?.contains("no place") == true)
    }

    @Test func sessionsOfAnotherLengthNeverReachTheKernel() {
        for (certificate, session) in [(2083, 128), (2085, 128), (2084, 127), (0, 0), (20000, 128)] {
            let kernel = ScriptedKernel()
            let owner = ScriptedOwner(
                .init(
                    session: SEVLaunchSession(
                        policy: SEVPolicy(rawValue: 1), ownerCertificate: [UInt8](repeating: 0, count: certificate),
                        session: [UInt8](repeating: 0, count: session))))
            let error = failure { () throws(VMMError) in try launch(kernel, .sev, owner: owner) }
            #expect(error?.exitStatus == .badInput)
            #expect(!kernel.log.contains { $0.hasPrefix("KVM_SEV_LAUNCH_START") })
        }
    }

    @Test func whatContradictsItselfIsRefusedBeforeAKernelIsAsked() {
        for technology: GuestTechnology? in [.snp, nil] {
            let kernel = ScriptedKernel()
            let error = failure { () throws(VMMError) in
                let host = try Host(kernel)
                return try Machine(
                    host: host,
                    configuration: MachineConfiguration(
                        technology: technology, memoryByteCount: 16 << 20, plan: samplePlan(), cpuid: []),
                    owner: ScriptedOwner(), console: { _ in })
            }
            #expect(error?.exitStatus == .usage)
            #expect(!kernel.log.contains { $0.hasPrefix("KVM_CREATE_VM") })
        }
        let policy = failure { () throws(VMMError) in
            try launch(ScriptedKernel(), .sev, plan: sevPlan(.sev, policy: 1 << 32))
        }
        #expect(policy?.exitStatus == .badInput)
    }

    @Test func plansForSNPAreRefused() {
        var plan = sevPlan(.sev)
        plan.regions[1].pageType = .cpuid
        #expect(
            failure { () throws(VMMError) in try launch(ScriptedKernel(), .sev, plan: plan) }?.exitStatus == .badInput)
        plan = sevPlan(.sev)
        plan.regions[1].gpa = 0x8011
        #expect(
            failure { () throws(VMMError) in try launch(ScriptedKernel(), .sev, plan: plan) }?.exitStatus == .badInput)
        plan.regions[1].gpa = UInt64.max & ~0xf
        #expect(
            failure { () throws(VMMError) in try launch(ScriptedKernel(), .sev, plan: plan) }?.exitStatus == .badInput)
    }

    @Test(arguments: [
        ("KVM_CREATE_VM", Errno.EINVAL, FirmwareStatus.success, VMMExitStatus.hostCannot, "VM type"),
        ("open /dev/sev", .EACCES, .success, .hostCannot, "secure processor"),
        ("KVM_SEV_INIT2", .EBUSY, .success, .hostCannot, "ASID"),
        ("KVM_SEV_INIT2", .ENOTTY, .success, .hostCannot, "ASID"),
        ("SEV_PDH_CERT_EXPORT", .EIO, .invalidPlatformState, .hostCannot, "not initialised"),
        ("SEV_PDH_CERT_EXPORT", .EPERM, .success, .hostCannot, "/dev/sev"),
        ("KVM_SEV_LAUNCH_START", .EBADF, .success, .hostCannot, "descriptor"),
        ("KVM_SEV_LAUNCH_START", .EIO, .badMeasurement, .launchRefused, "session does not belong"),
        ("KVM_SEV_LAUNCH_START", .EIO, .badSignature, .launchRefused, "signature"),
        ("KVM_SEV_LAUNCH_START", .EIO, .invalidCertificate, .launchRefused, "certificate"),
        ("KVM_SEV_LAUNCH_START", .EIO, .policyFailure, .launchRefused, "policy"),
        ("KVM_SEV_LAUNCH_START", .EIO, .alreadyOwned, .launchRefused, "owner"),
        ("KVM_SEV_LAUNCH_START", .EIO, .invalidGuestState, .launchRefused, "started already"),
        ("KVM_MEMORY_ENCRYPT_REG_REGION", .ENOMEM, .success, .hostCannot, "locked memory"),
        ("KVM_SEV_LAUNCH_UPDATE_DATA", .EIO, .invalidGuestState, .launchRefused, "no contents any more"),
        ("KVM_SEV_LAUNCH_UPDATE_VMSA", .EINVAL, .success, .launchRefused, "sealed"),
        ("KVM_SEV_LAUNCH_MEASURE", .EIO, .invalidGuestState, .launchRefused, "measured already"),
        ("KVM_SEV_LAUNCH_SECRET", .EIO, .badMeasurement, .launchRefused, "packet does not belong"),
        ("KVM_SEV_LAUNCH_SECRET", .EIO, .invalidGuestState, .launchRefused, "state SECRET"),
        ("KVM_SEV_LAUNCH_FINISH", .EIO, .invalidGuestState, .launchRefused, "out of order"),
    ]) func everyRefusalHasItsCauseAndStatus(
        request: String, errno: Errno, status: FirmwareStatus, exitStatus: VMMExitStatus, cause: String
    ) {
        let kernel = ScriptedKernel()
        kernel.refuse(request, errno, status)
        let owner = ScriptedOwner(.init(session: ScriptedOwner.session, packets: [Self.packet]))
        let error = failure { () throws(VMMError) in try launch(kernel, .sevES, owner: owner) }
        #expect(error?.request == request)
        #expect(error?.errno == errno)
        #expect(error?.exitStatus == exitStatus)
        #expect(error?.firmwareStatus == (errno == .EIO ? status : nil))
        #expect(error?.likelyCause.contains(cause) == true, "\(error.map { "\($0)" } ?? "no error")")
        let (closed, next) = kernel.state.withLock { ($0.closed, $0.nextHandle) }
        #expect(closed.sorted() == Array(3..<next))
    }

    @Test func probeAndRequirementsFollowTheTechnology() {
        for (technology, bit) in [(GuestTechnology.sev, 2), (.sevES, 3), (.snp, 4)] {
            let kernel = ScriptedKernel()
            #expect(HostProbe.whyNot(technology, on: kernel) == nil)
            kernel.with { $0.capabilities[Capability.vmTypes.rawValue] = 0x1f & ~(1 << Int32(bit)) }
            #expect(HostProbe.whyNot(technology, on: kernel)?.context == "KVM_CAP_VM_TYPES")
        }
        // A SEV guest's memory is the VMM's own.
        let old = ScriptedKernel()
        old.with { $0.capabilities[Capability.guestMemfd.rawValue] = 0 }
        #expect(HostProbe.whyNot(.sevES, on: old) == nil)
        #expect(HostProbe.whyNot(.snp, on: old)?.context == "KVM_CAP_GUEST_MEMFD")
    }

    @Test func stepsSayWhoSpeaksToWhom() throws {
        let owner = ScriptedOwner(.init(session: ScriptedOwner.session, packets: [Self.packet]))
        let machine = try launch(ScriptedKernel(), .sevES, owner: owner)
        let phases = machine.statistics.phases
        #expect(
            phases.map(\.step) == [
                .createVM, .initialize, .memory, .processors, .exportCertificates, .session, .start, .registerMemory,
                .update, .update, .update, .updateVMSA, .measure, .verdict, .secret, .finish,
            ])
        #expect(phases.map(\.start) == phases.map(\.start).sorted())
        for phase in phases { #expect(phase.step.map { $0.path.count >= 2 } == true) }
        #expect(phases.first { $0.step == .secret }?.step?.path == [.owner, .hypervisor, .firmware, .memory])
        let map = machine.memoryMap
        #expect(map.regions.map(\.range) == [0x10_0000..<0x10_3000, 0x8010..<0x8040, 0xffff_f010..<0x1_0000_0000])
        #expect(
            map.atLaunch == [
                .init(range: 0..<(16 << 20), state: .decidedByGuest),
                .init(range: 0xffff_f000..<0x1_0000_0000, state: .decidedByGuest),
            ])
        #expect(map.now == map.atLaunch)
    }
}

@Suite struct SEVLaunchLogTests {
    @Test func nothingSecretIsWritten() throws {
        let lines = Mutex<[String]>([])
        let measured = Mutex<[[UInt8]]>([])
        let kernel = ScriptedKernel()
        let log = LaunchLog(
            kernel,
            digest: { part in
                switch part {
                case .data(let contents): measured.withLock { $0.append(contents) }
                case .processors: measured.withLock { $0.append([]) }
                case .pages: Issue.record("a SEV launch has no SNP_LAUNCH_UPDATE")
                }
                return "d"
            }, write: { line in lines.withLock { $0.append(line) } })
        let owner = ScriptedOwner(.init(session: ScriptedOwner.session, packets: [SEVLaunchTests.packet]))
        _ = try launch(log, .sevES, owner: owner)
        let all = lines.withLock { $0 }
        func line(_ request: String) -> String { all.first { $0.contains("\"request\":\"\(request)\"") } ?? "" }
        #expect(
            line("KVM_SEV_LAUNCH_START").contains(
                "\"arguments\":{\"policy\":\"0x5\",\"certificateByteCount\":2084,\"sessionByteCount\":128}"))
        #expect(line("KVM_SEV_LAUNCH_START").contains("\"handle\":7"))
        #expect(line("KVM_SEV_LAUNCH_UPDATE_DATA").contains("\"gpa\":\"0x100000\",\"byteCount\":12288"))
        #expect(line("KVM_SEV_LAUNCH_UPDATE_VMSA").contains("\"launchDigest\":\"d\""))
        #expect(line("KVM_SEV_LAUNCH_MEASURE").contains("\"measurement\":\"c0c1c2"))
        #expect(
            line("KVM_SEV_LAUNCH_SECRET").contains(
                "\"arguments\":{\"gpa\":\"0x8100\",\"byteCount\":64,\"headerByteCount\":52,\"payloadByteCount\":64}"))
        #expect(line("SEV_PDH_CERT_EXPORT").contains("\"arguments\":{}"))
        #expect(line("KVM_MEMORY_ENCRYPT_REG_REGION").contains("\"byteCount\":16777216"))
        for pattern in ["99999999", "5e5e5e5e", "0d0d0d0d", "4d4d4d4d"] {
            #expect(!all.contains { $0.contains(pattern) }, "\(pattern)")
        }
        // What was measured is the plaintext, in the order of the launch, and then the VMSAs.
        #expect(measured.withLock { $0 } == sevPlan(.sevES).regions.map(\.contents) + [[]])
        #expect(kernel.with { $0.encrypted.flatMap(\.contents) } == sevPlan(.sevES).regions.flatMap(\.contents))
    }

    @Test func aRefusalIsLoggedWithTheFirmwaresStatus() {
        let lines = Mutex<[String]>([])
        let kernel = ScriptedKernel()
        kernel.refuse("SEV_PDH_CERT_EXPORT", .EIO, .invalidPlatformState)
        let log = LaunchLog(kernel, write: { line in lines.withLock { $0.append(line) } })
        #expect(throws: VMMError.self) { try launch(log, .sev, owner: ScriptedOwner()) }
        let line = lines.withLock { $0 }.first { $0.contains("PDH_CERT_EXPORT") } ?? ""
        #expect(line.contains("\"errno\":\"EIO\"") && line.contains("INVALID_PLATFORM_STATE"))
    }
}
