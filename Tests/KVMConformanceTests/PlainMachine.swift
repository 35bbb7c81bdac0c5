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
import Testing

/// One VM with 128 KiB of RAM and one vCPU.
final class PlainMachine {
    static let ramByteCount = 0x2_0000
    static let codeAddress = 0x8000
    static let stackTop: UInt64 = 0x1_0000
    static let gdtAddress = 0x5000
    static let idtAddress = 0x6000

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

/// What long mode needs, for plain and for SNP guests.
enum LongMode {
    /// Null, 64-bit code at selector 8, data at selector 16.
    static let gdt: [UInt64] = [0, 0x00af_9b00_0000_ffff, 0x00cf_9300_0000_ffff]

    /// Where ``writePageTables(encryptionBit:_:)`` shows guest physical 0 a second time, without encryption.
    static let sharedWindow: UInt64 = 0x4000_0000

    /// Writes the page table pages of the address map above; `encryptionBit` goes into tables and identity-mapped RAM.
    static func writePageTables(encryptionBit: UInt64, _ store: (_ address: Int, _ value: UInt64) -> Void) {
        let table: UInt64 = 0x63 | encryptionBit  // present, writable, accessed, dirty
        let leaf: UInt64 = 0xe3 | encryptionBit  // and 2 MiB
        store(0x1000, 0x2000 | table)
        store(0x2000, 0x3000 | table)
        store(0x2000 + 8 * 1, 0x7000 | table)
        store(0x2000 + 8 * 3, 0x4000 | table)
        for index in 0..<512 {
            store(0x3000 + 8 * index, UInt64(index) << 21 | leaf)
            // Shared memory and device registers are never private.
            store(0x7000 + 8 * index, UInt64(index) << 21 | 0xe3)
            store(0x4000 + 8 * index, (3 << 30 | UInt64(index) << 21) | 0xe3)
        }
    }

    /// Puts the registers into 64-bit mode with the fixture's tables.
    static func enter(_ sregs: inout KVMSpecialRegisters, encryptionBit: UInt64 = 0) {
        sregs.cs = KVMSegment(selector: 8, attributes: 0xa9b, limit: 0xffff_ffff, base: 0)
        let data = KVMSegment(selector: 16, attributes: 0xc93, limit: 0xffff_ffff, base: 0)
        (sregs.ds, sregs.es, sregs.fs, sregs.gs, sregs.ss) = (data, data, data, data, data)
        sregs.gdt = KVMDescriptorTable(base: UInt64(PlainMachine.gdtAddress), limit: 23)
        sregs.idt = KVMDescriptorTable(base: UInt64(PlainMachine.idtAddress), limit: 0xfff)
        sregs.cr0 = 0x8000_0031  // PG, NE, ET, PE
        sregs.cr3 = 0x1000 | encryptionBit
        sregs.cr4 = 0x20  // PAE
        sregs.efer = 0x500  // LMA, LME
    }

    /// A 64-bit interrupt gate [APM2 4.8.4], DPL 0, code selector 8.
    static func interruptGate(handler: UInt64) -> (low: UInt64, high: UInt64) {
        (handler & 0xffff | 8 << 16 | 0x8e00 << 32 | (handler >> 16 & 0xffff) << 48, handler >> 32)
    }
}

extension HostKernel {
    /// The argument of `KVM_SET_CPUID2` with everything that the kernel supports.
    func supportedCPUID(_ kvm: KernelHandle) throws(Errno) -> [UInt8] {
        var bytes = KVMCPUIDList.room(for: 256)
        try call(kvm, .getSupportedCPUID, bytes: &bytes)
        return KVMCPUIDList.encode(KVMCPUIDList.decode(bytes))
    }

    /// `KVM_CHECK_EXTENSION`.
    func check(_ handle: KernelHandle, _ capability: Capability) throws(Errno) -> Int32 {
        try call(handle, .checkExtension, value: UInt64(capability.rawValue))
    }
}
