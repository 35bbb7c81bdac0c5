// Guests that were really launched, by our VMM on the software kernel, and the owner that waits for one of them.

import Attestation
import Crypto
import GuestImage
import GuestOwner
import KVMABI
import LaunchMeasurement
import SEVABI
import SNPVMM
import SecretRelease
import SoftwareKVM
import SoftwarePSP
import Synchronization
import TestSupport
import Testing
import X86Defs

/// What a host launches, and on which machine.
struct GuestSetup: Sendable {
    static let manufacturer = Manufacturer(seed: [0x5e, 0xc2])
    static let currentTCB = TCBVersion(bootLoader: 4, tee: 0, snp: 24, microcode: 219)

    /// The kernel is placed at 16 MiB.
    static let memoryByteCount: UInt64 = 32 << 20

    var commandLine = "console=ttyS0 root=/dev/mapper/root"
    var cpus = 1
    var policy: UInt64 = 0x30000
    var hostData = [UInt8](repeating: 0, count: 32)
    var chipSeed: UInt8 = 1
    var tcb = GuestSetup.currentTCB
    var manufacturer = GuestSetup.manufacturer

    func plan(cpuid: [CPUIDLeaf] = []) throws -> LaunchPlan {
        let kernel = try LinuxKernel(SyntheticKernel.bzImage())
        return try DirectBoot.plan(
            BootPayload(kernel: kernel, initrd: [1, 2, 3], commandLine: Array(commandLine.utf8)),
            on: MachineDescription(
                memoryByteCount: Self.memoryByteCount, processorCount: cpus, technology: .snp, policy: policy,
                cpuid: cpuid))
    }

    var chip: PlatformStorage {
        get throws { try PlatformStorage(bytes: [], entropy: .seed([chipSeed])) { _ in } }
    }

    var chipID: [UInt8] { get throws { try chip.chipID(product: .milan) } }

    /// ARK, ASK and VCEK as an extended request returns them.
    var certificateTable: [UInt8] {
        get throws {
            CertificateTable(entries: [
                .init(.ark, manufacturer.rootCertificate(product: .milan)),
                .init(.ask, manufacturer.signingCertificate(product: .milan)),
                .init(.vcek, manufacturer.vcek(of: try chip, product: .milan, tcb: tcb)),
            ]).bytes
        }
    }

    var root: X509Certificate {
        get throws { try #require(X509Certificate(der: manufacturer.rootCertificate(product: .milan))) }
    }
}

/// A guest that our VMM has launched on the software kernel. The test stands in for the software inside: it has the
/// guest's keys, and talks to the firmware as the guest would.
final class ReleasingGuest {
    let setup: GuestSetup
    let certificates: [UInt8]
    private let kernel: SoftwareKVM
    private let machine: Machine
    private var messageCount: UInt64 = 0

    init(_ setup: GuestSetup = GuestSetup()) throws {
        self.setup = setup
        certificates = try setup.certificateTable
        var configuration = SoftwareKVM.Configuration()
        configuration.systemMemoryByteCount = 256 << 20
        configuration.seed = 11
        configuration.platform.currentTCB = setup.tcb
        configuration.platformStorage = try setup.chip
        kernel = try SoftwareKVM(configuration: configuration)
        let host = try Host(kernel)
        let cpuid = try host.guestCPUID(processorCount: setup.cpus, technology: .snp)
        let hostData = setup.hostData
        var identity = LaunchIdentity()
        identity.hostData = .init { hostData[$0] }
        machine = try Machine(
            host: host,
            configuration: MachineConfiguration(
                technology: .snp, memoryByteCount: GuestSetup.memoryByteCount, plan: try setup.plan(cpuid: cpuid),
                cpuid: cpuid,
                identity: identity),
            console: { _ in })
    }

    /// MSG_REPORT_REQ through SNP_GUEST_REQUEST, sealed and opened with VMPCK0.
    func report(_ reportData: [UInt8]) throws -> [UInt8] {
        let key = try #require(kernel.messageKeys(of: machine.vmHandle)?.first)
        let payload = ReportRequest(reportData: reportData).bytes
        var header = GuestMessageHeader(
            type: .reportRequest, payloadByteCount: payload.count, keyIndex: 0, sequenceNumber: messageCount + 1)
        let sealed = AES256GCM.seal(
            payload, authenticating: Array(header.bytes[GuestMessageHeader.authenticatedOffset...]), key: key,
            nonce: header.nonce)
        header.tag = sealed.tag
        let page = header.bytes + sealed.ciphertext
        let answer = try #require(
            kernel.guestRequest(
                page + [UInt8](repeating: 0, count: 4096 - page.count), of: machine.vmHandle))
        try #require(answer.status == .success)
        let head = try #require(GuestMessageHeader(bytes: answer.response))
        try #require(head.sequenceNumber == messageCount + 2)
        messageCount += 2
        let body = answer.response[0x60..<(0x60 + Int(head.payloadByteCount))]
        let opened = try #require(
            AES256GCM.open(
                Array(body), tag: head.tag,
                authenticating: Array(answer.response[GuestMessageHeader.authenticatedOffset..<0x60]), key: key,
                nonce: head.nonce))
        return try #require(ReportResponse(bytes: opened)).report
    }

    /// The measurement as its own report has it.
    func measurement() throws -> [UInt8] {
        try AttestationReport(bytes: try report([UInt8](repeating: 0, count: 64))).measurement
    }
}

/// An owner in this process, with a clock that the test moves.
final class TestOwner: Sendable {
    static let secret: [UInt8] = Array("correct horse battery staple".utf8)
    /// 2026-11-23.
    static let now: Int64 = 1_795_392_000

    let service: ReleaseService
    private let records: Log
    private let milliseconds: Time

    private final class Log: Sendable {
        let list = Mutex<[ReleaseRecord]>([])
        let works = Mutex(true)
    }

    private final class Time: Sendable { let value = Mutex<Int64>(1_000_000) }

    /// - Parameter setup: The guest that is wanted.
    init(
        for setup: GuestSetup = GuestSetup(), trusting roots: [X509Certificate]? = nil,
        nonces: NonceStore = NonceStore(),
        _ change: (inout ReleasePolicy) -> Void = { _ in }
    ) throws {
        var report = ReportPolicy()
        report.measurements = [MeasuredLaunch(of: try setup.plan()).digestBytes]
        report.minimumTCB = SecurityVersions(bootLoader: 4, tee: 0, snp: 24, microcode: 219)
        report.chipIDs = [try setup.chipID]
        var policy = ReleasePolicy(
            report: report, trustedRoots: TrustedRoots(named: try roots ?? [setup.root]),
            secrets: [SecretID("disk/root")!: SecretBytes(Self.secret)])
        change(&policy)
        try policy.validate()
        let (records, time) = (Log(), Time())
        (self.records, milliseconds) = (records, time)
        service = ReleaseService(
            policy: policy,
            clock: .init(wallSeconds: { Self.now }, milliseconds: { time.value.withLock { $0 } }), nonces: nonces
        ) { record in
            records.list.withLock { $0.append(record) }
            return records.works.withLock { $0 }
        }
    }

    var log: [ReleaseRecord] { records.list.withLock { $0 } }

    func pass(milliseconds more: Int64) { milliseconds.value.withLock { $0 += more } }

    func breakLog() { records.works.withLock { $0 = false } }
}

/// How an exchange ended.
enum Ending: Equatable {
    case secret([UInt8])
    case refused(SecretRefusal.Reason, String)

    var reason: SecretRefusal.Reason? {
        guard case .refused(let reason, _) = self else { return nil }
        return reason
    }
}

/// One whole exchange on one connection.
func exchange(
    _ guest: ReleasingGuest, _ owner: TestOwner, id: String = "disk/root", certificates: [UInt8]? = nil,
    report change: (inout [UInt8]) -> Void = { _ in }
) throws -> Ending {
    var request = SecretRequest(id: SecretID(id)!)
    var conversation = owner.service.conversation(peer: "test")
    var answer = conversation.receive(request.start())
    while true {
        switch try request.receive(answer.bytes) {
        case .needsMore: throw ExchangeTests.Unexpected()
        case .needsReport(let data):
            var report = try guest.report(data)
            change(&report)
            answer = conversation.receive(
                try request.evidence(report: report, certificates: certificates ?? guest.certificates))
            #expect(answer.isLast)
        case .secret(let secret): return .secret(secret.copied())
        case .refused(let refusal): return .refused(refusal.reason, refusal.detail)
        }
    }
}
