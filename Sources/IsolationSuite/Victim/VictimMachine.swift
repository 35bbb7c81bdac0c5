// A VM with a victim in it, made and run through the seam alone. Nothing happens by itself, so a scenario can stop, spoil
// or repeat any step of its launch.

import GuestImage
import KVMABI
import SEVABI
import SNPVMM
import X86Defs

/// What a SEV command gave.
struct CommandOutcome: Equatable, CustomStringConvertible {
    /// Nil for success.
    var errno: Errno?
    /// Meaningful with EIO.
    var status: FirmwareStatus

    static let success = CommandOutcome(errno: nil, status: .success)
    var isSuccess: Bool { errno == nil }

    var description: String {
        guard let errno else { return "success" }
        return errno == .EIO && status != .success ? "\(errno), firmware status \(status)" : "\(errno)"
    }
}

/// One VM, its memory, its vCPU.
final class VictimMachine {
    let subject: Subject
    let laboratory: Laboratory
    let kernel: any HostKernel
    let kvm: KernelHandle
    /// An open /dev/sev; -1 for plain guests.
    private(set) var sev = KernelHandle(rawValue: -1)
    let vm: KernelHandle
    /// The VMM's memory: all of the guest's, or the shared half of an SNP guest's.
    let ram: KernelMapping
    /// Page-aligned room for what launch commands read.
    let staging: KernelMapping
    private(set) var memfd = KernelHandle(rawValue: -1)
    private(set) var vcpu = KernelHandle(rawValue: -1)
    private(set) var runPage: RunPage?
    /// What the host's CPUID calls offer.
    let supportedCPUID: [KVMCPUIDEntry]
    /// What the guest is launched with; scenarios edit it before ``launch()``.
    var image: VictimImage
    /// What KVM_SET_CPUID2 and the CPUID page get; scenarios edit it before ``launch()``.
    var cpuid: [KVMCPUIDEntry]
    /// How the host answers page-state changes.
    var pageStateAnswer = PageStateAnswer.honest

    enum PageStateAnswer {
        /// Does what the guest asks, and says so.
        case honest
        /// Does nothing, and says that it is done.
        case liesAboutDoingIt
    }

    /// Opens the nodes, makes the VM, its memory and its vCPU. SEV commands have not been issued, but for INIT2.
    ///
    /// - Parameter ram: Another guest's memory to run in, as a host can do; nil takes fresh memory.
    init(_ subject: Subject, in laboratory: Laboratory, ram: KernelMapping? = nil) throws(Interruption) {
        self.subject = subject
        self.laboratory = laboratory
        let kernel = laboratory.kernel
        self.kernel = kernel
        let kvm = try step("open /dev/kvm") { () throws(Errno) in try kernel.open(.kvm) }
        self.kvm = kvm
        if subject.technology != nil {
            sev = try step("open /dev/sev") { () throws(Errno) in try kernel.open(.sev) }
        }
        vm = KernelHandle(
            rawValue: try step("create a VM") { () throws(Errno) in
                try kernel.call(kvm, .createVM, value: UInt64(subject.vmType.rawValue))
            })
        if let ram {
            self.ram = ram
        } else {
            self.ram = try step("map guest memory") { () throws(Errno) in
                try kernel.map(.anonymous, offset: 0, byteCount: VictimLayout.ramByteCount)
            }
        }
        staging = try step("map a staging area") { () throws(Errno) in
            try kernel.map(.anonymous, offset: 0, byteCount: VictimLayout.ramByteCount)
        }
        var list = KVMCPUIDList.room(for: 256)
        try step("read the supported CPUID") { () throws(Errno) in
            _ = try kernel.call(kvm, .getSupportedCPUID, bytes: &list)
        }
        supportedCPUID = KVMCPUIDList.decode(list)
        let leaf = supportedCPUID.first { $0.function == 0x8000_001f }
        image = VictimImage(subject, encryptionBit: 1 << UInt64((leaf?.ebx ?? 0) & 0x3f))
        cpuid = supportedCPUID
        try addMemory()
    }

    deinit {
        for handle in [vcpu, memfd, vm, sev, kvm] where handle.rawValue >= 0 { kernel.close(handle) }
    }

    // MARK: Making it

    private func addMemory() throws(Interruption) {
        // Kernels before 5.14 do not know it; then page-state changes fail, and the scenario that needs them says so.
        _ = try? kernel.call(
            vm, .enableCapability, reading: KVMEnableCapability(.exitHypercall, argument: KVM.exitHypercallMapGPARange))
        if subject.technology != nil { try initializeSEV() }
        if subject.hasPrivateMemory {
            try step("create a guest_memfd") { () throws(Errno) in
                var create = KVMCreateGuestMemfd(byteCount: UInt64(VictimLayout.ramByteCount))
                memfd = KernelHandle(rawValue: try kernel.call(vm, .createGuestMemfd, &create))
            }
        }
        try step("add the memory slots") { () throws(Errno) in
            try setSlot(0, at: 0, byteCount: Int(VictimLayout.firstPage), backing: 0)
            for index in 0..<VictimLayout.pageCount { try setPageSlot(index, backing: index) }
        }
        if subject.hasPrivateMemory {
            try step("mark the guest's memory private") { () throws(Errno) in
                try setPrivate(true, at: 0, byteCount: VictimLayout.ramByteCount)
                try setPrivate(false, at: VictimLayout.ghcb, byteCount: 0x2000)
            }
        }
    }

    private func initializeSEV() throws(Interruption) {
        var data = KVMSEVInit()
        let outcome = command(.initialize2, &data)
        guard outcome.isSuccess else { throw .broken("KVM_SEV_INIT2: \(outcome)") }
    }

    /// Creates vCPU 0 with the image's registers.
    func addVCPU() throws(Interruption) {
        try step("make the vCPU") { () throws(Errno) in
            vcpu = KernelHandle(rawValue: try kernel.call(vm, .createVCPU, value: 0))
            let byteCount = try kernel.call(kvm, .getVCPUMmapSize)
            runPage = RunPage(try kernel.map(vcpu, offset: 0, byteCount: Int(byteCount)))
            var list = KVMCPUIDList.encode(cpuid)
            try kernel.call(vcpu, .setCPUID2, bytes: &list)
            var sregs = KVMSpecialRegisters()
            try kernel.call(vcpu, .getSpecialRegisters, &sregs)
            sregs.set(image.processor)
            try kernel.call(vcpu, .setSpecialRegisters, &sregs)
            var registers = KVMRegisters(image.processor)
            try kernel.call(vcpu, .setRegisters, &registers)
        }
    }

    // MARK: SEV commands

    /// Issues a SEV command whose structure is at `address`.
    func command(_ id: SEVCommandID, address: UInt64 = 0) -> CommandOutcome {
        var envelope = KVMSEVCommand(id: id, data: address, sevHandle: sev)
        do throws(Errno) {
            try kernel.call(vm, .memoryEncryptOp, &envelope)
            return CommandOutcome(errno: nil, status: FirmwareStatus(rawValue: envelope.error))
        } catch {
            return CommandOutcome(errno: error, status: FirmwareStatus(rawValue: envelope.error))
        }
    }

    /// Issues a SEV command with its structure.
    func command<S: KernelStructure>(_ id: SEVCommandID, _ data: inout S) -> CommandOutcome {
        withKernelAddress(of: &data) { (address: UInt64) in command(id, address: address) }
    }

    // MARK: Running it

    /// Why the guest stopped.
    enum Ending: Equatable, CustomStringConvertible {
        /// It waits for a command, or has done one.
        case doorbell
        /// The access disagrees with the page's state, or the RMP refuses it: the guest does not get past it.
        case memoryFault(gpa: UInt64, isPrivate: Bool)
        /// The processor refuses the guest's register state.
        case failEntry(UInt64)
        case shutdown
        /// It asked for its end: the GHCB MSR's value.
        case termination(UInt64)
        case refused(Errno)
        case other(ExitReason)

        var description: String {
            switch self {
            case .doorbell: "the guest goes on"
            case .memoryFault(let gpa, let isPrivate):
                "KVM_EXIT_MEMORY_FAULT at GPA \(hex(gpa)), \(isPrivate ? "private" : "shared") access"
            case .failEntry(let reason): "KVM_EXIT_FAIL_ENTRY, reason \(hex(reason)): VMRUN refused the register state"
            case .shutdown: "KVM_EXIT_SHUTDOWN: triple fault"
            case .termination(let value): "the guest asked for termination, GHCB MSR \(hex(value))"
            case .refused(let errno): "KVM_RUN: \(errno)"
            case .other(let reason): "\(reason)"
            }
        }
    }

    /// Runs until the guest rings or cannot go on.
    func resume() throws(Interruption) -> Ending {
        guard let runPage else { throw .broken("the vCPU is not made yet") }
        // A bound on exits that mean nothing here, so that a guest that only makes those ends the scenario.
        for _ in 0..<10_000 {
            do throws(Errno) {
                try laboratory.limit.watching(runPage) { () throws(Errno) in _ = try kernel.call(vcpu, .run) }
            } catch {
                if error == .EAGAIN { continue }
                if error == .EFAULT, runPage.exitReason == .memoryFault {
                    let fault = runPage.memoryFault
                    return .memoryFault(gpa: fault.gpa, isPrivate: fault.isPrivate)
                }
                return .refused(error)
            }
            switch runPage.exitReason {
            case .io where runPage.portIO.port == VictimLayout.doorbellPort: return .doorbell
            case .io, .interrupted, .irqWindowOpen: continue
            case .hypercall: answerPageStateChange(runPage)
            case .shutdown: return .shutdown
            case .failEntry: return .failEntry(runPage.failEntryReason)
            case .systemEvent: return .termination(runPage.systemEvent.data.first ?? 0)
            default: return .other(runPage.exitReason)
            }
        }
        throw .broken("the guest makes exits without end, last \(runPage.exitReason)")
    }

    /// The guest's first run, up to the point where it waits for commands.
    func start() throws(Interruption) {
        let ending = try resume()
        guard ending == .doorbell else { throw .broken("the guest did not start: \(ending)") }
    }

    private func answerPageStateChange(_ page: RunPage) {
        let call = page.hypercall
        guard call.number == KVM.hypercallMapGPARange else { return }
        if pageStateAnswer == .honest, subject.hasPrivateMemory {
            try? setPrivate(
                call.arguments[2] & 0x10 != 0, at: call.arguments[0], byteCount: Int(call.arguments[1] & 0xffff) << 12)
        }
        page.hypercallResult = 0
    }
}

/// "0x1000".
func hex(_ value: UInt64) -> String { "0x" + String(value, radix: 16) }

/// The first bytes of something, for evidence: "4f 1c 33 a0 …".
func hex(_ bytes: [UInt8], count: Int = 8) -> String {
    let digits = bytes.prefix(count).map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }.joined(separator: " ")
    return bytes.count > count ? digits + " …" : digits
}
