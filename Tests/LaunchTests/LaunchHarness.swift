// A small SNP VM driven call by call through the seam, for tests of the kernel's rules.

import GuestImage
import KVMABI
import SEVABI
import SoftwareKVM
import X86Defs

/// One SNP VM with memory at 0, as a VMM would build it, but stopping where the test wants.
final class TestVM {
    static let memoryByteCount = 1 << 20
    /// What `kvm_sev_cmd.error` holds before each command: it stays where the kernel refuses by itself.
    static let notWritten: UInt32 = 0xdead

    let kernel: SoftwareKVM
    let kvm: KernelHandle
    let sev: KernelHandle
    let vm: KernelHandle
    var memfd = KernelHandle.anonymous
    var shared: KernelMapping?
    var vcpu = KernelHandle.anonymous
    var runPage: RunPage?

    init(type: VMType = .snp, configuration: SoftwareKVM.Configuration? = nil) throws {
        var small = SoftwareKVM.Configuration()
        small.systemMemoryByteCount = 64 << 20
        small.seed = 7
        kernel = try SoftwareKVM(configuration: configuration ?? small)
        kvm = try kernel.open(.kvm)
        sev = try kernel.open(.sev)
        vm = KernelHandle(rawValue: try kernel.call(kvm, .createVM, value: UInt64(type.rawValue)))
    }

    /// Irqchip, hypercall exits, INIT2, memory (all private), one vCPU.
    convenience init(readyForLaunch: Bool) throws {
        try self.init()
        try kernel.call(vm, .enableCapability, reading: KVMEnableCapability(.exitHypercall, argument: 0x1000))
        try kernel.call(vm, .createIRQChip)
        try initialize2()
        try addMemory()
        if readyForLaunch {
            try setPrivate(0, UInt64(Self.memoryByteCount))
            try addVCPU()
        }
    }

    /// Issues an SEV command; returns errno and firmware status.
    @discardableResult
    func command<Data: KernelStructure>(_ id: SEVCommandID, _ data: inout Data, sev handle: KernelHandle? = nil)
        -> (errno: Errno?, status: UInt32)
    {
        let handle = handle ?? sev
        return withKernelAddress(of: &data) { address in
            var envelope = KVMSEVCommand(id: id, data: address, sevHandle: handle)
            envelope.error = Self.notWritten
            do throws(Errno) {
                try kernel.call(vm, .memoryEncryptOp, &envelope)
                return (nil, envelope.error)
            } catch {
                return (error, envelope.error)
            }
        }
    }

    func initialize2() throws {
        var argument = KVMSEVInit()
        if let errno = command(.initialize2, &argument).errno { throw errno }
    }

    func addMemory(slot: UInt32 = 0, gpa: UInt64 = 0, byteCount: Int = TestVM.memoryByteCount) throws {
        memfd = KernelHandle(
            rawValue: try kernel.call(vm, .createGuestMemfd, reading: KVMCreateGuestMemfd(byteCount: UInt64(byteCount)))
        )
        let mapping = try kernel.map(.anonymous, offset: 0, byteCount: byteCount)
        shared = mapping
        try kernel.call(vm, .setUserMemoryRegion2, reading: region(slot: slot, gpa: gpa, byteCount: byteCount))
    }

    func region(slot: UInt32 = 0, gpa: UInt64 = 0, byteCount: Int = TestVM.memoryByteCount) -> KVMUserspaceMemoryRegion2
    {
        var region = KVMUserspaceMemoryRegion2()
        region.slot = slot
        region.flags = KVMUserspaceMemoryRegion2.guestMemfdFlag
        region.guestPhysicalAddress = gpa
        region.memoryByteCount = UInt64(byteCount)
        region.userspaceAddress = shared?.address ?? 0
        region.guestMemfd = UInt32(bitPattern: memfd.rawValue)
        return region
    }

    func setPrivate(_ gpa: UInt64, _ byteCount: UInt64, _ isPrivate: Bool = true) throws {
        try kernel.call(
            vm, .setMemoryAttributes,
            reading: KVMMemoryAttributes(address: gpa, byteCount: byteCount, attributes: isPrivate ? 8 : 0))
    }

    func addVCPU(_ id: UInt64 = 0) throws {
        vcpu = KernelHandle(rawValue: try kernel.call(vm, .createVCPU, value: id))
        let size = try kernel.call(kvm, .getVCPUMmapSize)
        runPage = RunPage(try kernel.map(vcpu, offset: 0, byteCount: Int(size)))
        var list = KVMCPUIDList.room(for: 100)
        try kernel.call(kvm, .getSupportedCPUID, bytes: &list)
        try kernel.call(vcpu, .setCPUID2, bytes: &list)
    }

    func start(policy: UInt64 = 0x30000) -> (errno: Errno?, status: UInt32) {
        var argument = KVMSNPLaunchStart()
        argument.policy = policy
        return command(.snpLaunchStart, &argument)
    }

    /// One LAUNCH_UPDATE call. Returns the argument as it came back.
    func update(_ type: PageType, gpa: UInt64, pages: UInt64, source: KernelMapping?, sourceOffset: UInt64 = 0)
        -> (errno: Errno?, status: UInt32, argument: KVMSNPLaunchUpdate)
    {
        var argument = KVMSNPLaunchUpdate()
        argument.gfnStart = gpa >> 12
        argument.userAddress = source.map { $0.address + sourceOffset } ?? 0
        argument.byteCount = pages << 12
        argument.type = type.rawValue
        let result = command(.snpLaunchUpdate, &argument)
        return (result.errno, result.status, argument)
    }

    func finish() -> (errno: Errno?, status: UInt32) {
        var argument = KVMSNPLaunchFinish()
        return command(.snpLaunchFinish, &argument)
    }

    /// Page-aligned memory of the VMM with these bytes.
    func pages(_ bytes: [UInt8]) throws -> KernelMapping {
        let mapping = try kernel.map(.anonymous, offset: 0, byteCount: max(4096, (bytes.count + 4095) & ~4095))
        mapping.write(bytes, at: 0)
        return mapping
    }

    /// Sets a vCPU's registers as a VMM does.
    func setState(_ state: ProcessorState) throws {
        var regs = KVMRegisters()
        regs.rax = state.generalRegisters[0]
        regs.rcx = state.generalRegisters[1]
        regs.rdx = state.generalRegisters[2]
        regs.rbx = state.generalRegisters[3]
        regs.rsp = state.generalRegisters[4]
        regs.rbp = state.generalRegisters[5]
        regs.rsi = state.generalRegisters[6]
        regs.rdi = state.generalRegisters[7]
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
        (sregs.cr0, sregs.cr2, sregs.cr3, sregs.cr4) = (state.cr0, state.cr2, state.cr3, state.cr4)
        sregs.efer = state.efer
        try kernel.call(vcpu, .setSpecialRegisters, reading: sregs)
        // MXCSR is no part of KVM_SET_FPU.
        var area = KVMXSave()
        try kernel.call(vcpu, .getXSave, &area)
        area.region[0] = area.region[0] & ~0xffff | UInt64(state.fcw)
        area.region[3] = area.region[3] & ~0xffff_ffff | UInt64(state.mxcsr)
        area.region[64] |= 3
        try kernel.call(vcpu, .setXSave, reading: area)
    }

    /// A state that every bit of a direct boot needs: 64-bit code, C-bit in CR3.
    static var longModeState: ProcessorState {
        var state = ProcessorState()
        state.cs = SegmentRegister(selector: 0x10, attributes: 0xa9b, limit: ~0)
        let data = SegmentRegister(selector: 0x18, attributes: 0xc93, limit: ~0)
        (state.ds, state.es, state.ss, state.fs, state.gs) = (data, data, data, data, data)
        state.ldtr = SegmentRegister(attributes: 0x82, limit: 0xffff)
        state.tr = SegmentRegister(attributes: 0x8b, limit: 0xffff)
        state.cr0 = 0x8000_0011
        state.cr3 = 0x2000 | 1 << 51
        state.cr4 = 0x20
        state.efer = 0x500
        state.rip = 0x10_0200
        state.generalRegisters[6] = 0x9000
        return state
    }
}

/// The errno that `body` throws, nil if none.
func errno(_ body: () throws -> Void) -> Errno? {
    do {
        try body()
        return nil
    } catch let error as Errno {
        return error
    } catch {
        return Errno(rawValue: -1)
    }
}
