// An SNP VM, step by step through the seam: the fixture of the SNP tests. Nothing happens by itself, so a test can
// stop, repeat or spoil any step.
//
//     slot 0   0x0_0000 … 0x3_ffff   guest_memfd offset 0           64 pages
//     slot 1   0x4_0000 … 0x5_ffff   guest_memfd offset 0x4_0000    32 pages
//
// A launched guest has the address map of PlainMachine in its first 64 KiB; 0x1_0000 and up are left to the test.

import KVMABI
import TestSupport
import Testing

/// What a SEV command gave: the errno, nil for success, and the firmware status.
struct SEVOutcome: Equatable, CustomStringConvertible {
    var errno: Errno?
    var status: FirmwareStatus

    static let success = SEVOutcome(errno: nil, status: .success)

    /// The kernel's own refusal, firmware not reached (or not asked about this).
    static func refused(_ errno: Errno) -> SEVOutcome { SEVOutcome(errno: errno, status: .success) }

    static func firmware(_ status: FirmwareStatus) -> SEVOutcome { SEVOutcome(errno: .EIO, status: status) }

    var description: String { "\(errno.map(\.description) ?? "success"), \(status)" }
}

/// One SNP VM in whatever state the test has brought it to.
final class SNPMachine {
    static let firstSlotByteCount = 0x4_0000
    static let ramByteCount = 0x6_0000
    /// Reserved-one and SMT allowed [SNP 4.3].
    static let policy: UInt64 = 0x30000

    let kernel: any HostKernel
    let kvm: KernelHandle
    let sev: KernelHandle
    let vm: KernelHandle
    /// The shared half of guest RAM.
    let shared: KernelMapping
    /// Page-aligned room for plaintext, as long as guest RAM.
    let source: KernelMapping
    private(set) var memfd = KernelHandle(rawValue: -1)
    private(set) var vcpu = KernelHandle(rawValue: -1)
    private(set) var page: RunPage?
    /// The C-bit as a mask.
    let encryptionBit: UInt64

    /// Opens the nodes and creates a VM; no INIT2 yet.
    init(_ kernel: any HostKernel, type: VMType = .snp) throws {
        self.kernel = kernel
        kvm = try kernel.open(.kvm)
        sev = try kernel.open(.sev)
        vm = KernelHandle(rawValue: try kernel.call(kvm, .createVM, value: UInt64(type.rawValue)))
        shared = try kernel.map(.anonymous, offset: 0, byteCount: Self.ramByteCount)
        source = try kernel.map(.anonymous, offset: 0, byteCount: Self.ramByteCount)
        let leaves = KVMCPUIDList.decode(try kernel.supportedCPUID(kvm))
        let leaf = try #require(leaves.first { $0.function == 0x8000_001f }, "SEV leaf")
        encryptionBit = 1 << UInt64(leaf.ebx & 0x3f)
    }

    deinit {
        for handle in [vcpu, memfd, vm, sev, kvm] where handle.rawValue >= 0 { kernel.close(handle) }
    }

    // MARK: SEV commands

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
        var data = KVMSEVInit()
        change(&data)
        return command(.initialize2, &data)
    }

    func start(
        policy: UInt64 = SNPMachine.policy, sevHandle: KernelHandle? = nil,
        _ change: (inout KVMSNPLaunchStart) -> Void = { _ in }
    ) -> SEVOutcome {
        var data = KVMSNPLaunchStart()
        data.policy = policy
        change(&data)
        return command(.snpLaunchStart, &data, sevHandle: sevHandle)
    }

    /// One `SNP_LAUNCH_UPDATE` with `source`'s bytes at the same offset; gives the structure as it came back.
    func update(
        type: UInt8, gpa: Int, byteCount: Int, _ change: (inout KVMSNPLaunchUpdate) -> Void = { _ in }
    ) -> (outcome: SEVOutcome, after: KVMSNPLaunchUpdate) {
        var data = KVMSNPLaunchUpdate()
        data.gfnStart = UInt64(gpa / KVM.pageByteCount)
        data.userAddress = source.address + UInt64(gpa)
        data.byteCount = UInt64(byteCount)
        data.type = type
        change(&data)
        return (command(.snpLaunchUpdate, &data), data)
    }

    func finish(_ change: (inout KVMSNPLaunchFinish) -> Void = { _ in }) -> SEVOutcome {
        var data = KVMSNPLaunchFinish()
        change(&data)
        return command(.snpLaunchFinish, &data)
    }

    // MARK: Memory and vCPU

    /// Creates the guest_memfd and both slots.
    func addMemory() throws {
        var create = KVMCreateGuestMemfd(byteCount: UInt64(Self.ramByteCount))
        memfd = KernelHandle(rawValue: try kernel.call(vm, .createGuestMemfd, &create))
        try setSlot(0, at: 0, byteCount: Self.firstSlotByteCount)
        try setSlot(1, at: Self.firstSlotByteCount, byteCount: Self.ramByteCount - Self.firstSlotByteCount)
    }

    /// One slot whose private half is at the same offset of the guest_memfd as its address.
    func setSlot(
        _ slot: UInt32, at gpa: Int, byteCount: Int, _ change: (inout KVMUserspaceMemoryRegion2) -> Void = { _ in }
    ) throws(Errno) {
        var region = KVMUserspaceMemoryRegion2()
        region.slot = slot
        region.flags = KVMUserspaceMemoryRegion2.guestMemfdFlag
        region.guestPhysicalAddress = UInt64(gpa)
        region.memoryByteCount = UInt64(byteCount)
        region.userspaceAddress = shared.address + UInt64(gpa)
        region.guestMemfd = UInt32(bitPattern: memfd.rawValue)
        region.guestMemfdOffset = UInt64(gpa)
        change(&region)
        try kernel.call(vm, .setUserMemoryRegion2, &region)
    }

    /// Marks a range private or shared.
    func setPrivate(_ isPrivate: Bool, at gpa: Int, byteCount: Int) throws(Errno) {
        try kernel.call(
            vm, .setMemoryAttributes,
            reading: KVMMemoryAttributes(
                address: UInt64(gpa), byteCount: UInt64(byteCount),
                attributes: isPrivate ? KVMMemoryAttributes.privateAttribute : 0))
    }

    /// Creates vCPU 0 with everything the kernel supports in its CPUID, ready for 64-bit mode at 0x8000.
    func addVCPU() throws {
        vcpu = KernelHandle(rawValue: try kernel.call(vm, .createVCPU, value: 0))
        page = RunPage(try kernel.map(vcpu, offset: 0, byteCount: Int(try kernel.call(kvm, .getVCPUMmapSize))))
        var cpuid = try kernel.supportedCPUID(kvm)
        try kernel.call(vcpu, .setCPUID2, bytes: &cpuid)
        var sregs = KVMSpecialRegisters()
        try kernel.call(vcpu, .getSpecialRegisters, &sregs)
        LongMode.enter(&sregs, encryptionBit: encryptionBit)
        try kernel.call(vcpu, .setSpecialRegisters, &sregs)
        var registers = KVMRegisters()
        registers.rip = UInt64(PlainMachine.codeAddress)
        registers.rsp = PlainMachine.stackTop
        try kernel.call(vcpu, .setRegisters, &registers)
    }

    // MARK: All of it

    /// A VM after INIT2, with memory (all private) and without a vCPU.
    static func withMemory(_ kernel: any HostKernel) throws -> SNPMachine {
        let machine = try SNPMachine(kernel)
        try machine.kernel.call(
            machine.vm, .enableCapability,
            reading: KVMEnableCapability(.exitHypercall, argument: KVM.exitHypercallMapGPARange))
        try machine.kernel.call(machine.vm, .createIRQChip)
        try #require(machine.initialize() == .success)
        try machine.addMemory()
        try machine.setPrivate(true, at: 0, byteCount: Self.ramByteCount)
        return machine
    }

    /// A VM after LAUNCH_START, with memory and a vCPU.
    static func started(_ kernel: any HostKernel) throws -> SNPMachine {
        let machine = try withMemory(kernel)
        try machine.addVCPU()
        try #require(machine.start() == .success)
        return machine
    }

    /// A launched guest whose first 64 KiB are measured: tables, descriptors, `code` and handlers.
    ///
    /// - Parameters:
    ///   - handlers: Exception handlers by vector, placed at 0x8800, 0x8900, ….
    ///   - sharedPages: Addresses that are marked shared before the launch.
    static func launched(
        _ kernel: any HostKernel, code: [UInt8], handlers: [Int: [UInt8]] = [:], sharedPages: [Int] = []
    ) throws -> SNPMachine {
        let machine = try started(kernel)
        let source = machine.source
        LongMode.writePageTables(encryptionBit: machine.encryptionBit) { source.store($1, at: $0) }
        for (index, descriptor) in LongMode.gdt.enumerated() {
            source.store(descriptor, at: PlainMachine.gdtAddress + 8 * index)
        }
        source.write(code, at: PlainMachine.codeAddress)
        var address = 0x8800
        for (vector, handler) in handlers {
            let gate = LongMode.interruptGate(handler: UInt64(address))
            source.store(gate.low, at: PlainMachine.idtAddress + 16 * vector)
            source.store(gate.high, at: PlainMachine.idtAddress + 16 * vector + 8)
            source.write(handler, at: address)
            address += 0x100
        }
        for gpa in sharedPages { try machine.setPrivate(false, at: gpa, byteCount: 0x1000) }
        let (outcome, after) = machine.update(type: 1, gpa: 0, byteCount: 0x1_0000)
        try #require(outcome == .success && after.byteCount == 0)
        try #require(machine.finish() == .success)
        return machine
    }

    /// Runs until the next exit; also gives the errno, since a memory fault comes as `EFAULT`.
    func run() throws -> (reason: ExitReason, errno: Errno?) {
        let page = try #require(page)
        do throws(Errno) {
            try RunGuard.watching(page) { () throws(Errno) in _ = try kernel.call(vcpu, .run) }
            return (page.exitReason, nil)
        } catch {
            return (page.exitReason, error)
        }
    }
}

/// Machine code for the GHCB MSR protocol [GHCB 2.3.1].
enum GHCBCode {
    /// Writes `value` to the GHCB MSR and does VMGEXIT. Spoils RAX, RCX and RDX.
    static func exit(_ value: UInt64) -> [UInt8] {
        [0xb9, 0x30, 0x01, 0x01, 0xc0]  // mov ecx, 0xc0010130
            + [0xb8] + UInt32(truncatingIfNeeded: value).kernelBytes  // mov eax, low
            + [0xba] + UInt32(truncatingIfNeeded: value >> 32).kernelBytes  // mov edx, high
            + [0x0f, 0x30]  // wrmsr
            + [0xf3, 0x0f, 0x01, 0xd9]  // vmgexit
    }

    /// Reads the GHCB MSR into EDX:EAX.
    static let readMSR: [UInt8] = [0xb9, 0x30, 0x01, 0x01, 0xc0, 0x0f, 0x32]  // mov ecx, 0xc0010130; rdmsr

    /// Asks for termination with a reason code of set 1.
    static func terminate(code: UInt8) -> [UInt8] { exit(terminationRequest(code: code)) }

    /// The GHCB MSR's value for that.
    static func terminationRequest(code: UInt8) -> UInt64 { UInt64(code) << 16 | 1 << 12 | 0x100 }

    /// A #VC handler that ends the guest with its error code in bits 31:16 of the request.
    static let reportErrorCode: [UInt8] =
        [
            0x58,  // pop rax
            0xc1, 0xe0, 0x10,  // shl eax, 16
            0x0d, 0x00, 0x01, 0x00, 0x00,  // or eax, 0x100
            0x31, 0xd2,  // xor edx, edx
            0xb9, 0x30, 0x01, 0x01, 0xc0,  // mov ecx, 0xc0010130
            0x0f, 0x30,  // wrmsr
            0xf3, 0x0f, 0x01, 0xd9,  // vmgexit
        ]
}
