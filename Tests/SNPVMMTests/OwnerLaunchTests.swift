// The six steps on the software machine, with an owner who verifies the platform, checks the measurement and releases a
// secret; and everything between the two that can be changed on the way.

import Crypto
import GuestImage
import GuestOwner
import KVMABI
import SEVABI
import SNPVMM
import SoftwareKVM
import SoftwarePSP
import Synchronization
import Testing

/// The owner's own state machine behind the launch's protocol, with somebody between the two who may change what passes.
private final class MiddleMan: LaunchOwner {
    var reception: OwnerReception
    let manufacturer: Manufacturer
    var platform: (inout SEVPlatformCertificates) -> Void = { _ in }
    var version: (inout FirmwareVersion) -> Void = { _ in }
    var launchSession: (inout SEVLaunchSession) -> Void = { _ in }
    var measurement: (inout OwnerMeasurement) -> Void = { _ in }
    var packet: (inout SEVSecretPacket) -> Void = { _ in }
    /// What the owner refused.
    var refusal: OwnerError.Category?

    init(_ offer: OwnerOffer, _ manufacturer: Manufacturer) {
        reception = OwnerReception(offer)
        self.manufacturer = manufacturer
    }

    private func ask(_ message: OwnerMessage) throws(VMMError) -> OwnerMessage {
        guard let answer = reception.answer(to: message).message else {
            preconditionFailure("a hello and a measurement are answered")
        }
        if case .refusal(let refused) = answer {
            refusal = refused.category
            throw VMMError(
                .launchRefused, step: "ask the owner", request: message.name, finding: refused.reason,
                likelyCause: "see there", nextStep: "see there")
        }
        return answer
    }

    func session(for request: SessionRequest) throws(VMMError) -> SEVLaunchSession? {
        var platform = request.platform
        // The chip's certificate as its manufacturer signs it.
        if let signed = manufacturer.signed(cek: Array(platform.chain.suffix(SEVCertificate.byteCount))) {
            platform.chain.replaceSubrange((2 * SEVCertificate.byteCount)..., with: signed)
        }
        self.platform(&platform)
        var version = request.version
        self.version(&version)
        guard
            case .session(var session) = try ask(
                .hello(OwnerHello(technology: request.technology, firmware: version, platform: platform)))
        else { preconditionFailure("a hello is answered by a session") }
        launchSession(&session)
        return session
    }

    func secrets(after request: SecretRequest) throws(VMMError) -> [SEVSecretPacket] {
        var measured = OwnerMeasurement(
            firmware: request.version, policy: request.policy, measurement: request.measurement)
        measurement(&measured)
        guard case .secrets(let packets) = try ask(.measurement(measured)) else {
            preconditionFailure("a measurement is answered by secrets")
        }
        return packets.map { original in
            var changed = original
            packet(&changed)
            return changed
        }
    }
}

@Suite struct OwnerLaunchTests {
    /// Takes a while: made once.
    static let manufacturer = Manufacturer(seed: Array("owner launch tests".utf8))
    static let secret = Array("open sesame, and nobody else".utf8)

    /// Prints the secret area up to a NUL byte of its last entry and switches off.
    static let printer: [UInt8] = {
        let first = UInt32(FlatGuest.secretArea) + UInt32(2 * SecretTable.headByteCount)
        let address = (0..<4).map { UInt8(truncatingIfNeeded: first >> UInt32(8 * $0)) }
        // mov esi, first; mov dx, 0x3f8; again: mov al, [rsi]; out dx, al; inc esi; test al, al; jnz again
        return [0xbe] + address + [0x66, 0xba, 0xf8, 0x03, 0x8a, 0x06, 0xee, 0xff, 0xc6, 0x84, 0xc0, 0x75, 0xf7]
            + powerOff
    }()

    fileprivate func owner(_ plan: LaunchPlan, policy: SEVPolicy? = nil) throws -> MiddleMan {
        let roots = try RootCertificates(
            ark: Self.manufacturer.ark().bytes, ask: Self.manufacturer.ask().bytes, isNamed: true)
        return MiddleMan(
            OwnerOffer(
                launch: try ExpectedLaunch(plan), policy: policy ?? SEVPolicy(rawValue: UInt32(plan.policy)),
                verifier: PlatformVerifier(roots: roots),
                secrets: [.init(guid: SecretTable.diskPassphrase, data: SecretBytes(Self.secret))],
                secretAreaByteCount: plan.secretArea?.byteCount ?? 0), Self.manufacturer)
    }

    fileprivate func launch(
        _ plan: LaunchPlan, _ owner: MiddleMan?, kernel: (any HostKernel)? = nil, output: Output = Output()
    ) throws(VMMError) -> Machine {
        let software: any HostKernel
        do { software = try kernel ?? SoftwareKVM() } catch { preconditionFailure("\(error)") }
        let host = try Host(software)
        return try Machine(
            host: host,
            configuration: MachineConfiguration(
                technology: plan.technology, memoryByteCount: FlatGuest.memoryByteCount, plan: plan,
                cpuid: try host.guestCPUID(processorCount: 1, technology: plan.technology)),
            owner: owner, console: { output.append($0) })
    }

    private func failure(_ plan: LaunchPlan, _ owner: MiddleMan) -> VMMError? {
        do throws(VMMError) {
            _ = try launch(plan, owner)
            return nil
        } catch { return error }
    }

    @Test func aSEVGuestGetsItsOwnersSecret() throws {
        let plan = FlatGuest(Self.printer, .sev).plan
        let output = Output()
        let lines = Mutex<[String]>([])
        let log = LaunchLog(try SoftwareKVM(), write: { line in lines.withLock { $0.append(line) } })
        let machine = try launch(plan, try owner(plan), kernel: log, output: output)
        // Nobody else has it: not the log, not what the host sees of the guest's memory.
        let hexSecret = Self.secret.reduce(into: "") { $0 += String($1, radix: 16) }
        #expect(!lines.withLock { $0 }.contains { $0.contains("sesame") || $0.contains(hexSecret) })
        let view = try #require(try machine.hostView(at: 0, byteCount: Int(FlatGuest.memoryByteCount)))
        #expect(find(Self.secret, in: view) == nil)
        // Neither is the plan.
        let code = plan.regions[1].contents
        #expect(find(Array(code[..<16]), in: view) == nil)
        #expect(view[Int(FlatGuest.entry)..<Int(FlatGuest.entry) + 4096] != code[...])

        #expect(machine.run().exitStatus == .success)
        #expect(output.text == String(decoding: Self.secret, as: UTF8.self) + "\0")
    }

    @Test func aSEVESLaunchReachesItsEnd() throws {
        let plan = FlatGuest([0xf4], .sevES).plan
        let machine = try launch(plan, try owner(plan))
        let view = try #require(
            try machine.hostView(at: FlatGuest.secretArea, byteCount: 0x200))
        #expect(find(Self.secret, in: view) == nil)
        #expect(machine.statistics.phases.map(\.step).suffix(3) == [.verdict, .secret, .finish])
    }

    @Test func everyChangeOfTheImageIsTheOwnersRefusal() throws {
        for technology in [GuestTechnology.sev, .sevES] {
            let good = FlatGuest(Self.printer, technology).plan
            for (name, change): (String, (inout LaunchPlan) -> Void) in [
                ("code", { $0.regions[1].contents[7] ^= 1 }),
                ("page tables", { $0.regions[0].contents[0x2000] ^= 0x20 }),
                ("order", { $0.regions.swapAt(0, 1) }),
                ("registers", { $0.processors[0].rip &+= 1 }),
            ] {
                var changed = good
                change(&changed)
                let owner = try owner(good)
                let error = failure(changed, owner)
                if technology == .sev, name == "registers" {
                    // SEV does not measure registers: that is what SEV-ES is for.
                    #expect(error == nil)
                } else {
                    #expect(
                        owner.refusal == .measurement, "\(technology) \(name): \(error.map { "\($0)" } ?? "no error")")
                }
            }
        }
    }

    /// A bit on its way from the platform to the owner, or from the owner to the firmware, and who says so.
    @Test func everyChangedBitIsRefused() throws {
        let plan = FlatGuest([0xf4], .sevES).plan
        func refused(
            _ what: String, by category: OwnerError.Category, _ change: (MiddleMan) -> Void
        ) throws {
            let owner = try owner(plan)
            change(owner)
            let error = failure(plan, owner)
            #expect(error != nil && owner.refusal == category, "\(what): \(error.map { "\($0)" } ?? "no error")")
        }
        func refused(
            _ what: String, by command: String, _ status: FirmwareStatus, _ change: (MiddleMan) -> Void
        ) throws {
            let owner = try owner(plan)
            change(owner)
            let error = failure(plan, owner)
            #expect(
                error?.request == command && error?.firmwareStatus == status && owner.refusal == nil,
                "\(what): \(error.map { "\($0)" } ?? "no error")")
        }
        let count = SEVCertificate.byteCount
        // The key and the signature of each certificate.
        for (name, offset) in [("PEK", 0), ("OCA", count), ("CEK", 2 * count)] {
            try refused("\(name)'s key", by: .certificate) { $0.platform = { $0.chain[offset + 0x18] ^= 1 } }
            try refused("\(name)'s signature", by: .certificate) { $0.platform = { $0.chain[offset + 0x420] ^= 1 } }
        }
        try refused("PDH's key", by: .certificate) { $0.platform = { $0.pdh[0x18] ^= 1 } }
        try refused("the firmware's version", by: .measurement) {
            $0.measurement = { $0.firmware.build ^= 1 }
        }
        try refused("the measurement", by: .measurement) { $0.measurement = { $0.measurement.measure[0] ^= 1 } }
        try refused("the nonce", by: .measurement) { $0.measurement = { $0.measurement.nonce[15] ^= 1 } }
        try refused("the policy as told", by: .policy) { $0.measurement = { $0.policy.rawValue ^= 1 } }

        let start = "KVM_SEV_LAUNCH_START"
        for (field, offset) in [("nonce", 0), ("wrapped keys", 0x10), ("IV", 0x30), ("MAC of the keys", 0x40)] {
            try refused("the session's \(field)", by: start, .badMeasurement) {
                $0.launchSession = { $0.session[offset] ^= 0x80 }
            }
        }
        try refused("the session's MAC of the policy", by: start, .badMeasurement) {
            $0.launchSession = { $0.session[127] ^= 1 }
        }
        try refused("the policy", by: start, .badMeasurement) { $0.launchSession = { $0.policy.rawValue ^= 1 } }
        try refused("the owner's certificate: its version", by: start, .invalidCertificate) {
            $0.launchSession = { $0.ownerCertificate[0] ^= 2 }
        }
        try refused("the owner's certificate: off the curve", by: start, .invalidCertificate) {
            $0.launchSession = { $0.ownerCertificate[0x18] ^= 1 }
        }

        let inject = "KVM_SEV_LAUNCH_SECRET"
        for (field, offset) in [("IV", 4), ("MAC", 51)] {
            try refused("the packet's \(field)", by: inject, .badMeasurement) {
                $0.packet = { $0.header[offset] ^= 1 }
            }
        }
        try refused("the packet's payload", by: inject, .badMeasurement) { $0.packet = { $0.payload[3] ^= 1 } }
        try refused("the packet's length", by: inject, .badMeasurement) { $0.packet = { $0.payload.removeLast(16) } }
    }

    @Test func aPacketOfAnotherLaunchIsRefused() throws {
        let plan = FlatGuest([0xf4], .sev).plan
        let first = try owner(plan)
        let stolen = Mutex<SEVSecretPacket?>(nil)
        first.packet = { packet in
            let copy = packet
            stolen.withLock { $0 = copy }
        }
        _ = try launch(plan, first)
        let second = try owner(plan)
        second.packet = { packet in packet = stolen.withLock { $0 } ?? packet }
        let error = failure(plan, second)
        #expect(error?.request == "KVM_SEV_LAUNCH_SECRET" && error?.firmwareStatus == .badMeasurement)
    }

    @Test func anotherTechnologyIsRefused() throws {
        var plan = FlatGuest([0xf4], .sev).plan
        let owner = try owner(FlatGuest([0xf4], .sevES).plan)
        #expect(failure(plan, owner)?.exitStatus == .launchRefused)
        #expect(owner.refusal == .technology)
        // The policy's ES bit is the owner's way to insist.
        plan.policy = 0x7
        let es = try failure(plan, self.owner(plan))
        #expect(es?.firmwareStatus == .invalidASID, "\(es.map { "\($0)" } ?? "no error")")
    }

    private func find(_ needle: [UInt8], in bytes: [UInt8]) -> Int? {
        bytes.indices.dropLast(needle.count - 1).first { start in
            bytes[start] == needle[0] && bytes[start..<start + needle.count].elementsEqual(needle)
        }
    }
}
