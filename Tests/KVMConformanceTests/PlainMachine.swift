// A plain VM with one vCPU in 64-bit mode, built through the seam alone: the fixture of the run tests.
//
//     0x0_1000  PML4            0x0_5000  GDT: null, 64-bit code (8), data (16)
//     0x0_2000  page pointers   0x0_6000  IDT
//     0x0_3000  0 to 1 GiB      0x0_8000  code
//     0x0_4000  3 to 4 GiB      0x1_0000  top of stack
//     0x0_7000  1 to 2 GiB      0x2_0000  end of RAM; everything above is MMIO
//
// All pages are 2 MiB, accessed and dirty already. 0 to 1 GiB and 3 to 4 GiB are identity mapped; 1 to 2 GiB shows 0 to
// 1 GiB once more, for an SNP guest without encryption: its view of shared memory.

import KVMABI
import TestSupport
import Testing

/// One VM with 128 KiB of RAM and one vCPU.
final class PlainMachine {
    static let ramByteCount = 0x2_0000
    static let codeAddress = 0x8000
    static let stackTop: UInt64 = 0x1_0000
    static let gdtAddress = LongMode.gdtAddress
    static let idtAddress = LongMode.idtAddress

    let kernel: any HostKernel
    let kvm: KernelHandle
    let vm: KernelHandle
    let vcpu: KernelHandle
    let ram: KernelMapping
    let page: RunPage

    /// Creates the VM, its RAM, and a vCPU that will start at ``codeAddress``.
    ///
    /// - Parameters:
    ///   - code: Machine code for ``codeAddress``.
    ///   - withIRQChip: In-kernel interrupt controllers; without them HLT is an exit.
    init(_ kernel: any HostKernel, code: [UInt8] = [], withIRQChip: Bool = false) throws {
        self.kernel = kernel
        kvm = try kernel.open(.kvm)
        vm = KernelHandle(rawValue: try kernel.call(kvm, .createVM, value: UInt64(VMType.plain.rawValue)))
        if withIRQChip { try kernel.call(vm, .createIRQChip) }
        ram = try kernel.map(.anonymous, offset: 0, byteCount: Self.ramByteCount)
        try kernel.call(
            vm, .setUserMemoryRegion,
            reading: KVMUserspaceMemoryRegion(
                slot: 0, memoryByteCount: UInt64(Self.ramByteCount), userspaceAddress: ram.address))
        vcpu = KernelHandle(rawValue: try kernel.call(vm, .createVCPU, value: 0))
        let byteCount = try kernel.call(kvm, .getVCPUMmapSize)
        page = RunPage(try kernel.map(vcpu, offset: 0, byteCount: Int(byteCount)))

        var cpuid = try kernel.supportedCPUID(kvm)
        try kernel.call(vcpu, .setCPUID2, bytes: &cpuid)
        ram.write(code, at: Self.codeAddress)
        LongMode.writePageTables(encryptionBit: 0) { address, value in ram.store(value, at: address) }
        for (index, descriptor) in LongMode.gdt.enumerated() { ram.store(descriptor, at: Self.gdtAddress + 8 * index) }

        var sregs = KVMSpecialRegisters()
        try kernel.call(vcpu, .getSpecialRegisters, &sregs)
        LongMode.enter(&sregs)
        try kernel.call(vcpu, .setSpecialRegisters, &sregs)
        try setRegisters { _ in }
    }

    deinit {
        for handle in [vcpu, vm, kvm] { kernel.close(handle) }
    }

    /// Sets all general registers: RIP, RSP and RFLAGS to the fixture's, others 0, then `change`.
    func setRegisters(_ change: (inout KVMRegisters) -> Void) throws {
        var registers = KVMRegisters()
        registers.rip = UInt64(Self.codeAddress)
        registers.rsp = Self.stackTop
        registers.rflags = 2
        change(&registers)
        try kernel.call(vcpu, .setRegisters, &registers)
    }

    var registers: KVMRegisters {
        get throws {
            var registers = KVMRegisters()
            try kernel.call(vcpu, .getRegisters, &registers)
            return registers
        }
    }

    /// Points an IDT entry at a handler.
    func setGate(vector: Int, handler: Int) {
        let gate = LongMode.interruptGate(handler: UInt64(handler))
        ram.store(gate.low, at: Self.idtAddress + 16 * vector)
        ram.store(gate.high, at: Self.idtAddress + 16 * vector + 8)
    }

    /// Runs until the next exit and gives its reason.
    func run() throws(Errno) -> ExitReason {
        try RunGuard.watching(page) { () throws(Errno) in _ = try kernel.call(vcpu, .run) }
        return page.exitReason
    }

    /// Runs to a port write and gives its data; fails the test at any other exit.
    func runToPortWrite(_ port: UInt16, sourceLocation: SourceLocation = #_sourceLocation) throws -> [UInt8] {
        let reason = try run()
        try #require(reason == .io, sourceLocation: sourceLocation)
        let io = page.portIO
        try #require(io.isWrite && io.port == port, sourceLocation: sourceLocation)
        return try #require(page.portData(io), sourceLocation: sourceLocation)
    }
}
