// A SEV or SEV-ES VM, step by step through the seam: the fixture of the SEV tests. Nothing happens by itself, so a test
// can stop, repeat or spoil any step.
//
//     ram    0x0000 … 0xffff   slot 0, guest address 0
//     room   the caller's buffers for certificates, packets, measurements

import KVMABI
import Testing

/// How a VM becomes a SEV guest.
enum SEVKind: CaseIterable, CustomTestStringConvertible, Sendable {
    /// VM type 2, INIT2.
    case sev
    /// VM type 3, INIT2.
    case sevES
    /// VM type 0, SEV_INIT.
    case oldSEV
    /// VM type 0, SEV_ES_INIT.
    case oldES

    var vmType: VMType {
        switch self {
        case .sev: .sev
        case .sevES: .sevES
        case .oldSEV, .oldES: .plain
        }
    }
    var isES: Bool { self == .sevES || self == .oldES }
    var isOld: Bool { vmType == .plain }
    /// Debugging allowed; ES where it belongs [SEV 3].
    var policy: UInt32 { isES ? 4 : 0 }

    var testDescription: String {
        switch self {
        case .sev: "SEV"
        case .sevES: "SEV-ES"
        case .oldSEV: "SEV by SEV_INIT"
        case .oldES: "SEV-ES by SEV_ES_INIT"
        }
    }
}

/// How far the launch has come.
enum SEVStage: Int, CaseIterable, Comparable, CustomTestStringConvertible, Sendable {
    case created, initialized, launching, measured, running

    static func < (a: SEVStage, b: SEVStage) -> Bool { a.rawValue < b.rawValue }
    var testDescription: String { "\(self)" }
}

final class SEVMachine {
    static let ramByteCount = 0x1_0000
    static let roomByteCount = 0x1_0000

    let kernel: any HostKernel
    let kind: SEVKind
    let kvm: KernelHandle
    let sev: KernelHandle
    let vm: KernelHandle
    private(set) var vcpu = KernelHandle(rawValue: -1)
    /// Guest RAM, as the VMM has it.
    let ram: KernelMapping
    /// Page-aligned memory of the caller.
    let room: KernelMapping

    /// Opens the nodes and creates a VM with memory; no INIT yet.
    init(_ kernel: any HostKernel, _ kind: SEVKind) throws {
        self.kernel = kernel
        self.kind = kind
        kvm = try kernel.open(.kvm)
        sev = try kernel.open(.sev)
        vm = KernelHandle(rawValue: try kernel.call(kvm, .createVM, value: UInt64(kind.vmType.rawValue)))
        ram = try kernel.map(.anonymous, offset: 0, byteCount: Self.ramByteCount)
        room = try kernel.map(.anonymous, offset: 0, byteCount: Self.roomByteCount)
        for page in 0..<Self.ramByteCount / 4096 {
            ram.write((0..<4096).map { UInt8(truncatingIfNeeded: $0 * 7 + page * 13) }, at: page * 4096)
        }
        try kernel.call(
            vm, .setUserMemoryRegion,
            reading: KVMUserspaceMemoryRegion(
                slot: 0, memoryByteCount: UInt64(Self.ramByteCount), userspaceAddress: ram.address))
    }

    deinit {
        for handle in [vcpu, vm, sev, kvm] where handle.rawValue >= 0 { kernel.close(handle) }
    }

    // MARK: Commands

    /// Issues a SEV command whose data is at `address`.
    func command(_ id: SEVCommandID, address: UInt64 = 0, sevHandle: KernelHandle? = nil) -> SEVOutcome {
        var envelope = KVMSEVCommand(id: id, data: address, sevHandle: sevHandle ?? sev)
        do throws(Errno) {
            try kernel.call(vm, .memoryEncryptOp, &envelope)
            return SEVOutcome(errno: nil, status: FirmwareStatus(rawValue: envelope.error))
        } catch {
            return SEVOutcome(errno: error, status: FirmwareStatus(rawValue: envelope.error))
        }
    }

    /// Issues a SEV command with its structure.
    func command<S: KernelStructure>(_ id: SEVCommandID, _ data: inout S, sevHandle: KernelHandle? = nil) -> SEVOutcome
    {
        withKernelAddress(of: &data) { (address: UInt64) in command(id, address: address, sevHandle: sevHandle) }
    }

    func initialize(_ change: (inout KVMSEVInit) -> Void = { _ in }) -> SEVOutcome {
        switch kind {
        case .oldSEV: return command(.initialize)
        case .oldES: return command(.initializeES)
        case .sev, .sevES:
            var data = KVMSEVInit()
            change(&data)
            return command(.initialize2, &data)
        }
    }

    func start(
        policy: UInt32? = nil, sevHandle: KernelHandle? = nil, _ change: (inout KVMSEVLaunchStart) -> Void = { _ in }
    ) -> (outcome: SEVOutcome, handle: UInt32) {
        var data = KVMSEVLaunchStart()
        data.policy = policy ?? kind.policy
        change(&data)
        return (command(.launchStart, &data, sevHandle: sevHandle), data.handle)
    }

    /// LAUNCH_UPDATE_DATA of a piece of RAM.
    func update(at offset: Int, byteCount: Int) -> SEVOutcome {
        var data = KVMSEVLaunchUpdateData(
            userAddress: ram.address &+ UInt64(truncatingIfNeeded: offset),
            byteCount: UInt32(truncatingIfNeeded: byteCount))
        return command(.launchUpdateData, &data)
    }

    /// LAUNCH_MEASURE into the room; gives the length that came back.
    func measure(byteCount: UInt32 = 48) -> (outcome: SEVOutcome, byteCount: UInt32) {
        var data = KVMSEVLaunchMeasure(userAddress: room.address, byteCount: byteCount)
        return (command(.launchMeasure, &data), data.byteCount)
    }

    /// GET_ATTESTATION_REPORT into the room.
    func report(nonce: UInt8 = 0x5a, byteCount: UInt32 = 208) -> (outcome: SEVOutcome, byteCount: UInt32) {
        var data = KVMSEVAttestationReport()
        data.nonce = .init(repeating: nonce)
        data.userAddress = room.address
        data.byteCount = byteCount
        return (command(.getAttestationReport, &data), data.byteCount)
    }

    /// LAUNCH_SECRET: header and payload from the room's first and second page.
    func secret(_ change: (inout KVMSEVLaunchSecret) -> Void = { _ in }) -> SEVOutcome {
        var data = KVMSEVLaunchSecret()
        data.headerAddress = room.address
        data.headerByteCount = 52
        data.transportAddress = room.address + 0x1000
        data.transportByteCount = 32
        data.guestAddress = ram.address + 0x3000
        data.guestByteCount = 32
        change(&data)
        return command(.launchSecret, &data)
    }

    func status() -> (outcome: SEVOutcome, value: KVMSEVGuestStatus) {
        var data = KVMSEVGuestStatus()
        return (command(.guestStatus, &data), data)
    }

    /// DBG_DECRYPT from RAM into the room's third page, or DBG_ENCRYPT from there into RAM.
    func debug(decrypts: Bool, at offset: Int, byteCount: Int, roomOffset: Int = 0x2000) -> SEVOutcome {
        let guest = ram.address + UInt64(offset)
        let own = room.address + UInt64(roomOffset)
        var data = KVMSEVDebug(
            sourceAddress: decrypts ? guest : own, destinationAddress: decrypts ? own : guest,
            byteCount: UInt32(byteCount))
        return command(decrypts ? .debugDecrypt : .debugEncrypt, &data)
    }

    func region(_ request: IoctlRequest, address: UInt64, byteCount: UInt64) -> Errno? {
        do throws(Errno) {
            try kernel.call(vm, request, reading: KVMEncryptedRegion(address: address, byteCount: byteCount))
            return nil
        } catch {
            return error
        }
    }

    // MARK: Other calls

    func addVCPU(_ id: UInt64 = 0) throws {
        let new = KernelHandle(rawValue: try kernel.call(vm, .createVCPU, value: id))
        if vcpu.rawValue >= 0 { kernel.close(new) } else { vcpu = new }
    }

    /// How many SEV guests the firmware has, and its platform state.
    func platform() throws -> SEVUserStatus {
        var status = SEVUserStatus()
        try withKernelAddress(of: &status) { (address: UInt64) throws(Errno) in
            var envelope = SEVIssueCommand(.platformStatus, data: address)
            try kernel.call(sev, .sevIssueCommand, &envelope)
        }
        return status
    }

    // MARK: All of it

    /// A VM at a stage of its launch, with one vCPU from INIT on. Two pages are measured; SEV-ES vCPUs are sealed before
    /// the measurement.
    static func at(_ stage: SEVStage, _ kernel: any HostKernel, _ kind: SEVKind, policy: UInt32? = nil) throws
        -> SEVMachine
    {
        let machine = try SEVMachine(kernel, kind)
        if stage == .created { return machine }
        try #require(machine.initialize() == .success)
        try machine.addVCPU()
        if stage == .initialized { return machine }
        try #require(
            machine.region(
                .memoryEncryptRegisterRegion, address: machine.ram.address, byteCount: UInt64(ramByteCount)) == nil)
        try #require(machine.start(policy: policy).outcome == .success)
        try #require(machine.update(at: 0, byteCount: 0x2000) == .success)
        if stage == .launching { return machine }
        if kind.isES { try #require(machine.command(.launchUpdateVMSA) == .success) }
        try #require(machine.measure().outcome == .success)
        if stage == .measured { return machine }
        try #require(machine.command(.launchFinish) == .success)
        return machine
    }
}
