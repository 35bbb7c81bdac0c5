import MemoryController
import SEVABI
import SoftwarePSP
import Testing

/// Every command of SEV and SEV-ES in every platform state and in every guest state: the documented status, and after a
/// refusal the same state and the same memory as before.
@Suite("SEV state machines")
struct SEVStateTests {
    /// All commands of the SEV side that this firmware models, then those that it does not.
    static let commands: [SEVCommand] = [
        .initialize, .initializeEx, .shutdown, .platformReset, .platformStatus, .pekGenerate, .pekCSR,
        .pekCertificateImport, .pdhCertificateExport, .pdhGenerate, .dfFlush, .getID, .decommission, .activate,
        .deactivate, .guestStatus, .launchStart, .launchUpdateData, .launchUpdateVMSA, .launchMeasure, .launchSecret,
        .launchFinish, .attestation, .debugDecrypt, .debugEncrypt,
    ]
    static let unsupported: [SEVCommand] = [
        .downloadFirmware, .sendStart, .sendUpdateData, .sendUpdateVMSA, .sendFinish, .sendCancel, .receiveStart,
        .receiveUpdateData, .receiveUpdateVMSA, .receiveFinish,
    ]

    // MARK: Platform

    enum PlatformPlace: CaseIterable, Sendable {
        case uninitialized, initialized, initializedOwned, working, uninitializedAgain
    }

    /// Where a command finds what it needs: everything valid for a guest with handle 1.
    struct Scene {
        let machine: SEVMachine
        /// A page of the guest's, a page for results, a VMSA page.
        let page: SPA
        let output: SPA
        let vmsa: SPA
        var certificates: (pek: SPA, oca: SPA) = (.zero, .zero)
        var packet: (header: SPA, payload: SPA) = (.zero, .zero)

        init(_ machine: SEVMachine) {
            self.machine = machine
            page = machine.pages([UInt8](repeating: 0x5a, count: 4096))
            vmsa = machine.pages(VMSA().page)
            output = machine.output(4)
        }

        /// A buffer that is right in every field, for the guest `handle` and the ASID `asid`.
        func buffer(_ command: SEVCommand, handle: UInt32 = 1, asid: UInt32 = 1) -> [UInt8] {
            switch command {
            case .initialize: return SEVInit().bytes
            case .initializeEx: return SEVInitEx().bytes
            case .pekCSR, .getID: return SEVOutputBuffer(address: output, byteCount: 4096).bytes
            case .pekCertificateImport:
                return SEVPEKCertificateImport(
                    pekAddress: certificates.pek, pekByteCount: 2084, ocaAddress: certificates.oca, ocaByteCount: 2084
                ).bytes
            case .pdhCertificateExport:
                return SEVPDHCertificateExport(
                    pdhAddress: output, pdhByteCount: 4096, chainAddress: output + 4096, chainByteCount: 8192
                ).bytes
            case .activate: return SEVActivate(handle: handle, asid: asid).bytes
            case .guestStatus: return SEVGuestStatus(handle: handle).bytes
            case .launchStart: return SEVLaunchStart(policy: 0).bytes
            case .launchUpdateData: return SEVLaunchUpdate(handle: handle, address: page, byteCount: 4096).bytes
            case .launchUpdateVMSA: return SEVLaunchUpdate(handle: handle, address: vmsa, byteCount: 4096).bytes
            case .launchMeasure: return SEVLaunchMeasure(handle: handle, address: output, byteCount: 48).bytes
            case .launchSecret:
                return SEVLaunchSecret(
                    handle: handle, headerAddress: packet.header, guestAddress: page, guestByteCount: 32,
                    transportAddress: packet.payload, transportByteCount: 32
                ).bytes
            case .attestation:
                return SEVAttestation(
                    handle: handle, address: output, nonce: [UInt8](repeating: 7, count: 16), byteCount: 4096
                ).bytes
            case .debugDecrypt:
                return SEVDebug(handle: handle, source: page, destination: output, byteCount: 4096).bytes
            case .debugEncrypt:
                return SEVDebug(handle: handle, source: vmsa, destination: page, byteCount: 4096).bytes
            case .platformStatus: return [UInt8](repeating: 0, count: 12)
            default: return SEVHandleBuffer(handle: handle).bytes
            }
        }

        /// Runs a command and checks that a refusal left no trace.
        func check(
            _ command: SEVCommand, _ buffer: [UInt8], _ expected: SEVStatus, _ comment: String,
            location: SourceLocation = #_sourceLocation
        ) {
            let state = machine.state
            let dram = machine.dram()
            let result = machine.run(command, buffer)
            #expect(result.status == expected, "\(command) \(comment)", sourceLocation: location)
            if result.status != .success {
                #expect(machine.state == state, "\(command) \(comment)", sourceLocation: location)
                #expect(machine.dram() == dram, "\(command) \(comment)", sourceLocation: location)
                #expect(result.bytes == buffer, "\(command) \(comment)", sourceLocation: location)
            }
        }
    }

    /// The same for every machine of one seed: its PDH, its PEK signed by somebody else, and that one's authority.
    static let known: (pdh: [UInt8], pek: [UInt8], oca: [UInt8]) = {
        guard let machine = try? SEVMachine() else { preconditionFailure("no memory for a machine") }
        let owner = ExternalOwner()
        return (machine.certificates().pdh, owner.signed(request: machine.signingRequest()), owner.oca.bytes)
    }()

    static func scene(_ place: PlatformPlace, snp: Bool) throws -> Scene {
        let machine = try SEVMachine(snp: snp)
        let (pek, oca) = (known.pek, known.oca)
        var scene = Scene(machine)
        scene.certificates = (machine.pages(pek), machine.pages(oca))
        switch place {
        case .uninitialized, .uninitializedAgain:
            if place == .uninitializedAgain {
                let guest = machine.start(policy: 4)
                precondition(machine.activate(guest.handle, 1) == .success)
            }
            precondition(machine.run(.shutdown).status == .success)
        case .initialized: break
        case .initializedOwned: precondition(machine.importCertificates(pek: pek, oca: oca) == .success)
        case .working: precondition(machine.start().status == .success)
        }
        return scene
    }

    @Test("every command in every platform state", arguments: PlatformPlace.allCases, [false, true])
    func platform(_ place: PlatformPlace, snp: Bool) throws {
        func expected(_ command: SEVCommand) -> SEVStatus {
            let isUninitialized = place == .uninitialized || place == .uninitializedAgain
            switch command {
            case .platformStatus, .getID, .shutdown: return .success
            case .initialize, .initializeEx, .platformReset: return isUninitialized ? .success : .invalidPlatformState
            case .pekGenerate: return isUninitialized || place == .working ? .invalidPlatformState : .success
            case .pekCertificateImport:
                if isUninitialized || place == .working { return .invalidPlatformState }
                return place == .initializedOwned ? .alreadyOwned : .success
            case .pekCSR, .pdhCertificateExport, .pdhGenerate, .launchStart:
                return isUninitialized ? .invalidPlatformState : .success
            case .dfFlush:
                // SNP keeps the data fabric's commands possible.
                if place == .uninitializedAgain { return snp ? .wbinvdRequired : .invalidPlatformState }
                return isUninitialized && !snp ? .invalidPlatformState : .success
            default:
                // Commands for a guest that is not there.
                return place == .working ? .invalidGuest : .invalidPlatformState
            }
        }
        for command in Self.commands {
            let scene = try Self.scene(place, snp: snp)
            scene.check(command, scene.buffer(command, handle: 99), expected(command), "in \(place)")
        }
        for command in Self.unsupported {
            let scene = try Self.scene(place, snp: snp)
            scene.check(command, [UInt8](repeating: 0, count: 64), .unsupported, "in \(place)")
        }
    }

    @Test("what the platform states show")
    func platformStatus() throws {
        let machine = try SEVMachine(initialized: false)
        func status() -> SEVPlatformStatus {
            let bytes = machine.run(.platformStatus, [UInt8](repeating: 0, count: 12)).bytes
            #expect(bytes == machine.processor.platformStatus().bytes)
            return SEVPlatformStatus(bytes: bytes)!
        }
        #expect(status() == SEVPlatformStatus(apiMajor: 1, apiMinor: 55, state: 0, build: 29))
        #expect(machine.run(.initialize, []).status == .success, "no buffer is one of zeroes")
        #expect(status() == SEVPlatformStatus(apiMajor: 1, apiMinor: 55, state: 1, build: 29))
        #expect(machine.start(policy: 4).status == .policyFailure, "SEV-ES was not configured")
        #expect(machine.run(.shutdown).status == .success)
        #expect(machine.initialize() == .success)
        #expect(
            status() == SEVPlatformStatus(apiMajor: 1, apiMinor: 55, state: 1, isESConfigured: true, build: 29))
        let first = machine.start(policy: 4)
        let second = machine.start()
        #expect([first.status, second.status] == [.success, .success] && first.handle != second.handle)
        #expect(status().state == 2 && status().guestCount == 2)
        #expect(machine.processor.guestStatus(of: first.handle)?.state == .launchUpdate)
        #expect(machine.processor.guestStatus(of: 1234) == nil)
        #expect(machine.handleCommand(.decommission, first.handle) == .success)
        #expect(status().state == 2 && status().guestCount == 1)
        #expect(machine.handleCommand(.decommission, second.handle) == .success)
        #expect(status().state == 1 && status().guestCount == 0)
        let owner = ExternalOwner()
        let pek = owner.signed(request: machine.signingRequest())
        #expect(machine.importCertificates(pek: pek, oca: owner.oca.bytes) == .success)
        #expect(status().isExternallyOwned)
        #expect(machine.run(.pekGenerate).status == .success)
        #expect(!status().isExternallyOwned, "a new PEK is the platform's own")
    }

    @Test("INIT and INIT_EX: flags, trusted memory region, structure")
    func initialize() throws {
        let machine = try SEVMachine(initialized: false)
        let scene = Scene(machine)
        let region = try #require(machine.memory.allocatePages(512, alignment: 256))
        func buffer(_ flags: UInt32, _ address: SPA, _ count: UInt32) -> [UInt8] {
            SEVInit(flags: flags, tmrAddress: address, tmrByteCount: count).bytes
        }
        scene.check(.initialize, buffer(2, .zero, 0), .invalidParameter, "unknown flag")
        scene.check(.initialize, buffer(.max, region, 1 << 20), .invalidParameter, "unknown flags")
        scene.check(.initialize, buffer(1, region, (1 << 20) - 1), .invalidLength, "small region")
        scene.check(.initialize, buffer(1, region + 4096, 1 << 20), .invalidAddress, "unaligned region")
        scene.check(.initialize, buffer(1, .zero, 1 << 20), .invalidAddress, "region outside memory")
        scene.check(.initialize, buffer(1, region, .max), .invalidAddress, "region that leaves memory")
        scene.check(.initialize, buffer(1, SPA(rawValue: .max << 20), .max), .invalidAddress, "region that wraps")
        scene.check(.initialize, [UInt8](repeating: 0, count: 19), .invalidLength, "short buffer")
        scene.check(.initializeEx, SEVInitEx(length: 35).bytes, .invalidLength, "length")
        scene.check(.initializeEx, SEVInitEx(nvAddress: region, nvByteCount: 32768).bytes, .unsupported, "storage")
        scene.check(.initializeEx, SEVInitEx(flags: 4).bytes, .invalidParameter, "unknown flag")
        scene.check(
            .initializeEx, SEVInitEx(flags: 1, tmrAddress: region, tmrByteCount: 2 << 20).bytes, .success, "SEV-ES")
        #expect(machine.processor.platformStatus().isESConfigured)
        // While SNP is initialised the region must be the firmware's.
        let other = try SEVMachine(initialized: false, snp: true)
        let plain = try #require(other.memory.allocatePages(256, alignment: 256))
        Scene(other).check(.initialize, buffer(1, plain, 1 << 20), .invalidPageState, "not the firmware's")
        #expect(other.initialize() == .success)
    }

    // MARK: Guests

    enum GuestPlace: CaseIterable, Sendable {
        case updateInactive, updateActive, secretInactive, secretActive, runningInactive, runningActive
    }

    static func scene(_ place: GuestPlace, policy: UInt32, snp: Bool) throws -> (Scene, UInt32, UInt32) {
        let machine = try SEVMachine(snp: snp)
        let maker = SessionMaker()
        let guest = machine.start(
            policy: policy, certificate: maker.certificate.bytes,
            session: maker.session(for: known.pdh, policy: policy).bytes)
        precondition(guest.status == .success)
        let asid: UInt32 = policy & 4 != 0 ? 1 : 100
        precondition(machine.activate(guest.handle, asid) == .success)
        var scene = Scene(machine)
        precondition(machine.update(guest.handle, scene.page, 4096) == .success)
        if place != .updateActive && place != .updateInactive {
            let measurement = machine.measure(guest.handle)
            precondition(measurement.status == .success)
            let payload = maker.encipher([UInt8](repeating: 0x11, count: 32))
            scene.packet = (
                machine.pages(maker.header(payload: payload, measure: measurement.blob)), machine.pages(payload)
            )
        }
        if place == .runningActive || place == .runningInactive {
            precondition(machine.handleCommand(.launchFinish, guest.handle) == .success)
        }
        switch place {
        case .updateInactive, .secretInactive, .runningInactive:
            precondition(machine.handleCommand(.deactivate, guest.handle) == .success)
        default: break
        }
        return (scene, guest.handle, asid)
    }

    @Test(
        "every guest command in every guest state", arguments: GuestPlace.allCases,
        [(0, false), (1, false), (4, false), (0, true), (5, true)] as [(UInt32, Bool)])
    func guests(_ place: GuestPlace, _ kind: (policy: UInt32, snp: Bool)) throws {
        let isES = kind.policy & 4 != 0
        let isUpdate = place == .updateActive || place == .updateInactive
        let isSecret = place == .secretActive || place == .secretInactive
        let isRunning = place == .runningActive || place == .runningInactive
        let isActive = place == .updateActive || place == .secretActive || place == .runningActive
        func expected(_ command: SEVCommand) -> SEVStatus {
            switch command {
            case .activate: return isActive ? .active : .dfFlushRequired
            case .deactivate: return isActive ? .success : .inactive
            case .decommission: return isActive ? .active : .success
            case .guestStatus, .launchStart: return .success
            case .launchUpdateData, .launchUpdateVMSA:
                if !isUpdate { return .invalidGuestState }
                if !isActive { return .inactive }
                return command == .launchUpdateData || isES ? .success : .policyFailure
            case .launchMeasure: return isUpdate ? .success : .invalidGuestState
            case .launchSecret: return isSecret ? (isActive ? .success : .inactive) : .invalidGuestState
            case .launchFinish: return isSecret ? .success : .invalidGuestState
            case .attestation: return isUpdate ? .invalidGuestState : .success
            case .debugDecrypt, .debugEncrypt:
                if !isRunning { return .invalidGuestState }
                if kind.policy & 1 != 0 { return .policyFailure }
                return isActive ? .success : .inactive
            // The platform's commands while it is WORKING.
            case .platformStatus, .shutdown, .pekCSR, .pdhCertificateExport, .pdhGenerate, .getID: return .success
            case .dfFlush: return isActive ? .success : .wbinvdRequired
            default: return .invalidPlatformState
            }
        }
        for command in Self.commands {
            let (scene, handle, asid) = try Self.scene(place, policy: kind.policy, snp: kind.snp)
            scene.check(
                command, scene.buffer(command, handle: handle, asid: asid), expected(command), "in \(place) \(kind)")
        }
    }

    @Test("short buffers of every command")
    func shortBuffers() throws {
        let machine = try SEVMachine()
        precondition(machine.start().status == .success)
        let scene = Scene(machine)
        for command in Self.commands {
            switch command {
            case .shutdown, .platformReset, .pekGenerate, .pdhGenerate, .dfFlush: continue
            default: break
            }
            let whole = scene.buffer(command)
            for count in 0..<whole.count where !(command == .initialize && count == 0) {
                scene.check(command, Array(whole.prefix(count)), .invalidLength, "with \(count) bytes")
            }
        }
    }

    @Test("GUEST_STATUS over a guest's life")
    func guestStatus() throws {
        let machine = try SEVMachine()
        func status(_ handle: UInt32) -> [UInt8] {
            machine.run(.guestStatus, SEVGuestStatus(handle: handle).bytes).bytes
        }
        let guest = machine.start(policy: 0x0037_0001)
        #expect(guest.status == .policyFailure, "API major 0x37")
        let (result, handle) = machine.start(policy: 0x3701_0004)
        #expect(result == .success)
        #expect(status(handle) == littleEndian(handle) + littleEndian(0x3701_0004) + littleEndian(0) + [1])
        #expect(machine.activate(handle, 3) == .success)
        #expect(status(handle) == littleEndian(handle) + littleEndian(0x3701_0004) + littleEndian(3) + [1])
        #expect(machine.measure(handle).status == .success)
        #expect(status(handle).last == 2)
        #expect(machine.handleCommand(.launchFinish, handle) == .success)
        #expect(status(handle).last == 3)
        #expect(machine.handleCommand(.deactivate, handle) == .success)
        #expect(status(handle) == littleEndian(handle) + littleEndian(0x3701_0004) + littleEndian(0) + [3])
    }
}
