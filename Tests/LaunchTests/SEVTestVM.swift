// A small SEV or SEV-ES VM driven call by call through the seam: memory is the test's own, encrypted in place.
//
//     GPA                  what
//     0x00_0000 … 0x07_ffff    RAM: page tables 0x2000 to 0x5fff, IDT 0x7000, GDT 0x8000, code 0x1_0000, stack below 0x2_0000
//     0x08_0000 … 0x08_ffff    the pages of 0x04_0000 once more: the same user pages at a second address
//     0x10_0000 …              nothing: devices
//
//     linear               what
//     0 … 2 MiB            the same GPA, encrypted (C = 1)
//     2 MiB … 4 MiB        GPA 0 … 2 MiB, not encrypted (C = 0)

import KVMABI
import SEVABI
import SoftwareKVM
import Testing
import X86Defs

final class SEVTestVM {
    static let byteCount = 0x8_0000
    static let aliasGPA: UInt64 = 0x8_0000
    static let aliasOffset = 0x4_0000
    static let codeGPA = 0x1_0000
    static let cBit: UInt64 = 1 << 51
    /// Where the linear map shows guest physical 0 without encryption.
    static let window: UInt32 = 0x20_0000

    let kernel: any HostKernel
    let technology: GuestTechnology
    let kvm: KernelHandle
    let sev: KernelHandle
    let vm: KernelHandle
    let memory: KernelMapping
    private(set) var vcpu = KernelHandle.anonymous
    private(set) var runPage: RunPage!
    private(set) var state: ProcessorState

    /// A VM after INIT2, with memory and one vCPU in 64-bit mode; nothing is encrypted yet.
    ///
    /// - Parameters:
    ///   - handlers: Code of exception handlers by vector.
    ///   - memory: The VMM's memory for the guest; nil for fresh memory.
    init(
        _ kernel: any HostKernel, _ technology: GuestTechnology, code: [UInt8], handlers: [Int: [UInt8]] = [:],
        memory shared: KernelMapping? = nil, legacyInit: Bool = false
    ) throws {
        self.kernel = kernel
        self.technology = technology
        kvm = try kernel.open(.kvm)
        sev = try kernel.open(.sev)
        let type: VMType = legacyInit ? .plain : technology == .sev ? .sev : .sevES
        vm = KernelHandle(rawValue: try kernel.call(kvm, .createVM, value: UInt64(type.rawValue)))
        memory = try shared ?? kernel.map(.anonymous, offset: 0, byteCount: Self.byteCount)
        state = TestVM.longModeState
        if legacyInit {
            try require(command(technology == .sev ? .initialize : .initializeES))
        } else {
            var argument = KVMSEVInit()
            try require(command(.initialize2, &argument))
        }
        for (slot, gpa, offset, count) in [(0, 0, 0, Self.byteCount), (1, 0x8_0000, Self.aliasOffset, 0x1_0000)] {
            try kernel.call(
                vm, .setUserMemoryRegion,
                reading: KVMUserspaceMemoryRegion(
                    slot: UInt32(slot), guestPhysicalAddress: UInt64(gpa), memoryByteCount: UInt64(count),
                    userspaceAddress: memory.address + UInt64(offset)))
        }
        if shared == nil { writeImage(code, handlers) }
        vcpu = KernelHandle(rawValue: try kernel.call(vm, .createVCPU, value: 0))
        runPage = RunPage(try kernel.map(vcpu, offset: 0, byteCount: Int(try kernel.call(kvm, .getVCPUMmapSize))))
        try setCPUID(of: vcpu)
        state.cr3 = 0x2000 | Self.cBit
        state.rip = UInt64(Self.codeGPA)
        state.generalRegisters[4] = 0x2_0000
        state.gdtr = DescriptorTableRegister(base: 0x8000, limit: 0x1f)
        state.idtr = DescriptorTableRegister(base: 0x7000, limit: handlers.isEmpty ? 0 : 0xfff)
        try setState(state)
    }

    deinit {
        for handle in [vcpu, vm, sev, kvm] where handle != .anonymous { kernel.close(handle) }
    }

    private func writeImage(_ code: [UInt8], _ handlers: [Int: [UInt8]]) {
        memory.store(0x3003 | Self.cBit, at: 0x2000)
        memory.store(0x4003 | Self.cBit, at: 0x3000)
        memory.store(0x5003 | Self.cBit, at: 0x4000)
        memory.store(0x6003 | Self.cBit, at: 0x4008)
        for page in 0..<512 {
            memory.store(UInt64(page) << 12 | 3 | Self.cBit, at: 0x5000 + 8 * page)
            memory.store(UInt64(page) << 12 | 3, at: 0x6000 + 8 * page)
        }
        memory.store(0x00af_9b00_0000_ffff as UInt64, at: 0x8010)
        memory.store(0x00cf_9300_0000_ffff as UInt64, at: 0x8018)
        memory.write(code, at: Self.codeGPA)
        var address = 0x9000
        for (vector, handler) in handlers {
            memory.store(
                UInt64(address & 0xffff) | 0x10 << 16 | 0x8e00 << 32 | UInt64(address >> 16) << 48,
                at: 0x7000 + 16 * vector)
            memory.write(handler, at: address)
            address += 0x400
        }
    }

    // MARK: SEV commands

    struct Outcome: Equatable {
        var errno: Errno?
        var status: UInt32
        static let success = Outcome(errno: nil, status: 0)
    }

    func require(_ outcome: Outcome, sourceLocation: SourceLocation = #_sourceLocation) throws {
        try #require(outcome == .success, sourceLocation: sourceLocation)
    }

    func command(_ id: SEVCommandID, address: UInt64 = 0) -> Outcome {
        var envelope = KVMSEVCommand(id: id, data: address, sevHandle: sev)
        do throws(Errno) {
            try kernel.call(vm, .memoryEncryptOp, &envelope)
            return Outcome(errno: nil, status: envelope.error)
        } catch {
            return Outcome(errno: error, status: envelope.error)
        }
    }

    func command<Data: KernelStructure>(_ id: SEVCommandID, _ data: inout Data) -> Outcome {
        withKernelAddress(of: &data) { command(id, address: $0) }
    }

    func start(policy: UInt32? = nil) -> Outcome {
        var argument = KVMSEVLaunchStart()
        argument.policy = policy ?? (technology == .sevES ? 4 : 0)
        return command(.launchStart, &argument)
    }

    func update(_ offset: Int, _ byteCount: Int) -> Outcome {
        var argument = KVMSEVLaunchUpdateData(
            userAddress: memory.address + UInt64(offset), byteCount: UInt32(byteCount))
        return command(.launchUpdateData, &argument)
    }

    func measure() -> (outcome: Outcome, bytes: [UInt8]) {
        guard let room = try? kernel.map(.anonymous, offset: 0, byteCount: 4096) else { return (.success, []) }
        var argument = KVMSEVLaunchMeasure(userAddress: room.address, byteCount: 48)
        let outcome = command(.launchMeasure, &argument)
        return (outcome, room.copyBytes(at: 0, count: 48))
    }

    /// START, all of RAM, VMSA, MEASURE, FINISH.
    func launch(_ ranges: [Range<Int>] = [0..<SEVTestVM.byteCount]) throws {
        try require(start())
        for range in ranges { try require(update(range.lowerBound, range.count)) }
        if technology == .sevES { try require(command(.launchUpdateVMSA)) }
        try require(measure().outcome)
        try require(command(.launchFinish))
    }

    static func launched(
        _ kernel: any HostKernel, _ technology: GuestTechnology, code: [UInt8], handlers: [Int: [UInt8]] = [:]
    ) throws -> SEVTestVM {
        let vm = try SEVTestVM(kernel, technology, code: code, handlers: handlers)
        try vm.launch()
        return vm
    }

    /// Flushes the range's cache lines: registers and unregisters it.
    func flush(_ offset: Int = 0, _ byteCount: Int = SEVTestVM.byteCount) throws {
        let region = KVMEncryptedRegion(address: memory.address + UInt64(offset), byteCount: UInt64(byteCount))
        try kernel.call(vm, .memoryEncryptRegisterRegion, reading: region)
        try kernel.call(vm, .memoryEncryptUnregisterRegion, reading: region)
    }

    // MARK: vCPU

    /// Another vCPU that is runnable at once, with the same state but for RIP.
    func addVCPU(id: UInt64, rip: Int) throws -> (vcpu: KernelHandle, page: RunPage) {
        let vcpu = KernelHandle(rawValue: try kernel.call(vm, .createVCPU, value: id))
        let page = RunPage(try kernel.map(vcpu, offset: 0, byteCount: Int(try kernel.call(kvm, .getVCPUMmapSize))))
        try setCPUID(of: vcpu)
        var state = state
        state.rip = UInt64(rip)
        try setState(state, of: vcpu)
        try kernel.call(vcpu, .setMPState, reading: KVMMPState.runnable)
        return (vcpu, page)
    }

    private func setCPUID(of vcpu: KernelHandle) throws {
        var list = KVMCPUIDList.room(for: 100)
        try kernel.call(kvm, .getSupportedCPUID, bytes: &list)
        try kernel.call(vcpu, .setCPUID2, bytes: &list)
    }

    func setState(_ state: ProcessorState) throws { try setState(state, of: vcpu) }

    private func setState(_ state: ProcessorState, of vcpu: KernelHandle) throws {
        var regs = KVMRegisters()
        regs.rsp = state.generalRegisters[4]
        regs.rip = state.rip
        regs.rflags = state.rflags
        try kernel.call(vcpu, .setRegisters, reading: regs)
        func segment(_ s: SegmentRegister) -> KVMSegment {
            KVMSegment(selector: s.selector, attributes: s.attributes, limit: s.limit, base: s.base)
        }
        var sregs = KVMSpecialRegisters()
        try kernel.call(vcpu, .getSpecialRegisters, &sregs)
        (sregs.cs, sregs.ds, sregs.es) = (segment(state.cs), segment(state.ds), segment(state.es))
        (sregs.fs, sregs.gs, sregs.ss) = (segment(state.fs), segment(state.gs), segment(state.ss))
        (sregs.tr, sregs.ldt) = (segment(state.tr), segment(state.ldtr))
        sregs.gdt = KVMDescriptorTable(base: state.gdtr.base, limit: state.gdtr.limit)
        sregs.idt = KVMDescriptorTable(base: state.idtr.base, limit: state.idtr.limit)
        (sregs.cr0, sregs.cr2, sregs.cr3, sregs.cr4) = (state.cr0 | 0x10, state.cr2, state.cr3, state.cr4 | 0x200)
        sregs.efer = state.efer
        try kernel.call(vcpu, .setSpecialRegisters, reading: sregs)
    }

    /// One KVM_RUN: its exit, or the errno.
    func run() -> Result<ExitReason, Errno> {
        do throws(Errno) {
            try kernel.call(vcpu, .run)
            return .success(runPage.exitReason)
        } catch {
            return .failure(error)
        }
    }

    /// Runs to a port write and gives its data.
    func runToPort(_ port: UInt16 = 0x10, sourceLocation: SourceLocation = #_sourceLocation) throws -> UInt32 {
        let exit = run()
        try #require(exit == .success(.io), sourceLocation: sourceLocation)
        let io = runPage.portIO
        try #require(io.isWrite && io.port == port && io.size == 4, sourceLocation: sourceLocation)
        return runPage.mapping.load(at: Int(io.dataOffset), as: UInt32.self)
    }
}

extension Code {
    /// mov rax, value.
    static func set(_ value: UInt64) -> [UInt8] { [0x48, 0xb8] + value.kernelBytes }
    /// out 0x10, eax.
    static let report: [UInt8] = [0xe7, 0x10]
    /// mov ecx, number; rdmsr.
    static func rdmsr(_ number: UInt32) -> [UInt8] { [0xb9] + number.kernelBytes + [0x0f, 0x32] }
    /// Reports what is at a linear address.
    static func reportLoad(_ address: UInt32) -> [UInt8] { load(address) + report }
    /// Stores a value.
    static func put(_ value: UInt64, at address: UInt32) -> [UInt8] { set(value) + store(address) }
}
