// A launch with a guest owner, through the seam: the owner's keys are those of foreign vectors, and what the machine
// answers is checked by the formulas alone [SEV 6.2, 6.5, 6.6].

import Crypto
import KVMABI
import MemoryController
import SEVABI
import SoftwareKVM
import SoftwarePSP
import TestSupport
import Testing

/// One foreign session: the platform's key, the owner's certificate and blob, and the keys inside.
private struct ForeignSession: CustomTestStringConvertible, Sendable {
    var id: String
    var platformPrivate: [UInt8]
    var ownerCertificate: [UInt8]
    var blob: [UInt8]
    var tek: [UInt8]
    var tik: [UInt8]
    var policy: UInt32

    var testDescription: String { id }
    var kind: SEVKind { policy & 4 != 0 ? .sevES : .sev }

    static let all: [ForeignSession] = {
        guard let bytes = ForeignVectors.bytes("legacy-sev/session.json") else { return [] }
        let text = String(decoding: bytes, as: UTF8.self)
        return text.split(separator: "\"id\": \"").dropFirst().compactMap { ForeignSession(String($0)) }
    }()

    /// - Parameter text: What stands behind `"id": "`.
    private init?(_ text: String) {
        func value(_ key: String, after: String = "") -> String? {
            let parts = after.isEmpty ? [Substring(text)] : text.split(separator: "\"\(after)\"", maxSplits: 1)
            guard let rest = parts.last?.split(separator: "\"\(key)\": \"", maxSplits: 1), rest.count == 2 else {
                return nil
            }
            return rest[1].split(separator: "\"", maxSplits: 1, omittingEmptySubsequences: false).first.map(String.init)
        }
        func bytes(_ key: String, after: String = "") -> [UInt8]? {
            value(key, after: after).flatMap { [UInt8](hex: $0) }
        }
        guard let platformPrivate = bytes("platform_private"), let x = bytes("x", after: "guestowner_public"),
            let y = bytes("y", after: "guestowner_public"), let blob = bytes("session_blob"), let tek = bytes("tek"),
            let tik = bytes("tik"), let policy = value("policy").flatMap({ UInt32($0.dropFirst(2), radix: 16) })
        else { return nil }
        id = String(text.prefix { $0 != "\"" })
        self.platformPrivate = platformPrivate
        ownerCertificate =
            SEVCertificate.make(
                usage: .pdh, algorithm: .ecdhSHA256, apiMajor: 1, apiMinor: 55, x: x.reversed(), y: y.reversed()
            ).bytes
        self.blob = blob
        self.tek = tek
        self.tik = tik
        self.policy = policy
    }
}

@Suite(.enabled(if: ForeignVectors.arePresent, "\(ForeignVectors.absence)"))
struct SEVOwnerTests {
    /// A machine whose platform has the session's Diffie-Hellman key.
    private func kernel(_ session: ForeignSession) throws -> SoftwareKVM {
        // A new chip's state, then with the other key.
        let state = Recorder()
        _ = try PlatformStorage(bytes: [], entropy: .seed([1])) { state.bytes = $0 }
        let bytes = try #require(PlatformStorage.replacing(pdh: session.platformPrivate, in: state.bytes))
        var configuration = SoftwareKVM.Configuration()
        configuration.platformStorage = try PlatformStorage(bytes: bytes) { _ in }
        return try SoftwareKVM(configuration: configuration)
    }

    // @unchecked Sendable: one thread.
    private final class Recorder: @unchecked Sendable { var bytes: [UInt8] = [] }

    private func start(_ machine: SEVMachine, _ session: ForeignSession, policy: UInt32? = nil) -> SEVOutcome {
        machine.room.write(session.ownerCertificate, at: 0)
        machine.room.write(session.blob, at: 0x1000)
        return machine.start(policy: policy ?? session.policy) {
            ($0.certificateAddress, $0.certificateByteCount) = (machine.room.address, 2084)
            ($0.sessionAddress, $0.sessionByteCount) = (machine.room.address + 0x1000, 128)
        }.outcome
    }

    private func initialized(_ session: ForeignSession, _ kernel: SoftwareKVM) throws -> SEVMachine {
        let machine = try SEVMachine(kernel, session.kind)
        try #require(machine.initialize() == .success)
        try machine.addVCPU()
        return machine
    }

    @Test func `the vectors are read`() { #expect(ForeignSession.all.count == 2) }

    @Test(arguments: ForeignSession.all)
    private func `session, measurement and secret`(_ session: ForeignSession) throws {
        let kernel = try kernel(session)
        let machine = try initialized(session, kernel)
        let plaintext = machine.ram.copyBytes(at: 0, count: 0x2000)
        #expect(start(machine, session) == .success)
        #expect(machine.update(at: 0, byteCount: 0x2000) == .success)
        if session.kind.isES { #expect(machine.command(.launchUpdateVMSA) == .success) }
        #expect(machine.measure().outcome == .success)
        let measurement = try #require(SEVMeasurement(bytes: machine.room.copyBytes(at: 0, count: 48)))
        #expect(machine.report().outcome == .success)
        let report = try #require(SEVGuestReport(bytes: machine.room.copyBytes(at: 0, count: 208)))
        if !session.kind.isES { #expect(report.launchDigest == SHA2Hasher(.sha256).hash(plaintext)) }
        let platform = try machine.platform()
        let message = SEVMeasurement.message(
            apiMajor: platform.apiMajor, apiMinor: platform.apiMinor, build: platform.build,
            policy: SEVPolicy(rawValue: session.policy), digest: report.launchDigest, nonce: measurement.nonce)
        #expect(measurement.measure == HMACSHA256.authenticate(message, key: session.tik))

        // The owner's packet.
        let secret = (0..<32).map { UInt8($0 &* 5 &+ 1) }
        let iv = [UInt8](repeating: 0x77, count: 16)
        let ciphertext = AES128CTR.apply(key: session.tek, counter: iv, to: secret)
        let mac = HMACSHA256.authenticate(
            SEVSecretHeader.message(
                flags: 0, iv: iv, guestByteCount: 32, ciphertext: ciphertext, measure: measurement.measure),
            key: session.tik)
        let before = machine.ram.copyBytes(at: 0, count: SEVMachine.ramByteCount)
        for bit in [0, 33, 36 * 8, 51 * 8 + 7, 0x1000 * 8, 0x1000 * 8 + 255] {
            machine.room.write(SEVSecretHeader(iv: iv, mac: mac).bytes, at: 0)
            machine.room.write(ciphertext, at: 0x1000)
            machine.room.store(machine.room.load(at: bit / 8, as: UInt8.self) ^ 1 << UInt8(bit & 7), at: bit / 8)
            #expect(machine.secret() == .firmware(.badMeasurement), "bit \(bit)")
        }
        machine.room.write(SEVSecretHeader(iv: iv, mac: mac).bytes, at: 0)
        machine.room.write(ciphertext, at: 0x1000)
        #expect(
            machine.secret {
                $0.guestByteCount = 16; $0.transportByteCount = 16
            } == .firmware(.badMeasurement))
        #expect(machine.ram.copyBytes(at: 0, count: SEVMachine.ramByteCount) == before)
        #expect(machine.secret() == .success)
        let after = machine.ram.copyBytes(at: 0, count: SEVMachine.ramByteCount)
        #expect(after[0x3000..<0x3020] != before[0x3000..<0x3020] && !after[0x3000..<0x3020].elementsEqual(secret))
        #expect(after[..<0x3000] == before[..<0x3000] && after[0x3020...] == before[0x3020...])
        // The guest, and only it, has the secret.
        let page = try #require(kernel.systemAddress(ofUserAddress: machine.ram.address + 0x3000))
        let asid = try #require(kernel.guestProtection(of: machine.vm)?.asid)
        #expect(kernel.systemMemory.firmwareReadGuest(page, byteCount: 32, asid: asid) == secret)
        #expect(machine.command(.launchFinish) == .success)
        #expect(machine.secret() == .firmware(.invalidGuestState), "replayed to the running guest")
    }

    @Test(arguments: ForeignSession.all)
    private func `a changed session, certificate or policy is refused`(_ session: ForeignSession) throws {
        let kernel = try kernel(session)
        let machine = try initialized(session, kernel)
        var changed = session
        for byte in stride(from: 0, to: 128, by: 5) {
            changed.blob = session.blob
            changed.blob[byte] ^= 0x10
            #expect(start(machine, changed) == .firmware(.badMeasurement), "byte \(byte) of the session")
        }
        changed = session
        for byte in [0x14, 0x30, 0x5c, 0x80] {
            changed.ownerCertificate = session.ownerCertificate
            changed.ownerCertificate[byte] ^= 1
            #expect(start(machine, changed) == .firmware(.invalidCertificate), "a point that is not on the curve")
        }
        #expect(start(machine, session, policy: session.policy ^ 2) == .firmware(.badMeasurement), "another policy")
        #expect(try machine.platform().guestCount == 0)
        #expect(start(machine, session) == .success)
    }

    @Test(arguments: ForeignSession.all)
    private func `a session is for one platform`(_ session: ForeignSession) throws {
        let machine = try initialized(session, try SoftwareKVM())
        #expect(start(machine, session) == .firmware(.badMeasurement))
    }

    /// Who owns a sealed vCPU's measurement: two vCPUs are two pages in creation order.
    @Test(arguments: [SEVKind.sevES, .oldES])
    func `VMSAs are in the digest, in order of creation`(_ kind: SEVKind) throws {
        let kernel = try SoftwareKVM()
        var digests: [[UInt8]] = []
        for count in [0, 1, 2] {
            let machine = try SEVMachine(kernel, kind)
            try #require(machine.initialize() == .success)
            for id in 0..<count { try machine.addVCPU(UInt64(id)) }
            try #require(machine.start().outcome == .success)
            #expect(machine.command(.launchUpdateVMSA) == .success)
            #expect(machine.measure().outcome == .success)
            #expect(machine.report().outcome == .success)
            digests.append(machine.room.copyBytes(at: 16, count: 32))
        }
        #expect(Set(digests).count == 3)
        #expect(digests[0] == SHA2Hasher(.sha256).hash([]))
    }
}
