// vCPUs: creation, registers, lists [KVM 4, "vcpu ioctls"].

import KVMABI
import TestSupport
import Testing

@Suite struct VCPUTests {
    @Test(arguments: KernelUnderTest.all)
    func `a vCPU number is used once`(_ candidate: KernelUnderTest) throws {
        let machine = try PlainMachine(candidate.start())
        #expect(throws: Errno.EEXIST) { try machine.kernel.call(machine.vm, .createVCPU, value: 0) }
        #expect(throws: Errno.EINVAL) { try machine.kernel.call(machine.vm, .createVCPU, value: 0xffff_0000) }
    }

    /// The state nobody has touched: what a VMM that sets nothing gets measured.
    @Test(arguments: KernelUnderTest.all)
    func `the reset state is the architecture's`(_ candidate: KernelUnderTest) throws {
        let kernel = try candidate.start()
        let kvm = try kernel.open(.kvm)
        let vm = KernelHandle(rawValue: try kernel.call(kvm, .createVM, value: 0))
        let vcpu = KernelHandle(rawValue: try kernel.call(vm, .createVCPU, value: 0))
        defer { for handle in [vcpu, vm, kvm] { kernel.close(handle) } }
        var registers = KVMRegisters()
        try kernel.call(vcpu, .getRegisters, &registers)
        #expect(registers.rip == 0xfff0)
        #expect(registers.rflags == 2)
        var sregs = KVMSpecialRegisters()
        try kernel.call(vcpu, .getSpecialRegisters, &sregs)
        #expect(sregs.cs.base == 0xffff_0000 && sregs.cs.selector == 0xf000 && sregs.cs.limit == 0xffff)
        #expect(sregs.ds.limit == 0xffff && sregs.gdt.limit == 0xffff && sregs.idt.limit == 0xffff)
        // CD and NW depend on a quirk; ET is always there, PE and PG never.
        #expect(sregs.cr0 & ~0x6000_0000 == 0x10)
        #expect(sregs.cr4 == 0 && sregs.efer == 0)
        var hwcr = KVMMSRList.encode(reading: [0xc001_0015])
        #expect(try kernel.call(vcpu, .getMSRs, bytes: &hwcr) == 1 && KVMMSRList.decode(hwcr).first?.data == 0)
        #expect(sregs.apicBase & 0xffff_f000 == 0xfee0_0000)
    }

    @Test(arguments: KernelUnderTest.all)
    func `general registers keep what was set`(_ candidate: KernelUnderTest) throws {
        let machine = try PlainMachine(candidate.start())
        var set = KVMRegisters()
        let pattern: [WritableKeyPath<KVMRegisters, UInt64>] = [
            \.rax, \.rbx, \.rcx, \.rdx, \.rsi, \.rdi, \.rsp, \.rbp, \.r8, \.r9, \.r10, \.r11, \.r12, \.r13, \.r14,
            \.r15,
            \.rip,
        ]
        for (index, path) in pattern.enumerated() { set[keyPath: path] = 0x0101_0101_0101_0101 &* UInt64(index + 1) }
        set.rip = 0xffff_ffff_8000_0000
        set.rflags = 0x246
        try machine.kernel.call(machine.vcpu, .setRegisters, reading: set)
        #expect(try machine.registers == set)
        set.rflags = 0
        try machine.kernel.call(machine.vcpu, .setRegisters, reading: set)
        #expect(try machine.registers.rflags == 2, "bit 1 is always set")
    }

    @Test(arguments: KernelUnderTest.all)
    func `special registers keep what was set`(_ candidate: KernelUnderTest) throws {
        let machine = try PlainMachine(candidate.start())
        var sregs = KVMSpecialRegisters()
        try machine.kernel.call(machine.vcpu, .getSpecialRegisters, &sregs)
        #expect(sregs.efer == 0x500 && sregs.cr0 == 0x8000_0031 && sregs.cr3 == 0x1000 && sregs.cr4 == 0x20)
        #expect(sregs.cs.attributes == 0xa9b && sregs.ss.attributes == 0xc93)
        #expect(sregs.gdt.base == 0x5000 && sregs.gdt.limit == 23 && sregs.idt.base == 0x6000)
        sregs.fs.base = 0xffff_8000_1234_5678
        sregs.gs.base = 0x7fff_0000_0000
        sregs.cr2 = 0xdead_beef
        try machine.kernel.call(machine.vcpu, .setSpecialRegisters, reading: sregs)
        var again = KVMSpecialRegisters()
        try machine.kernel.call(machine.vcpu, .getSpecialRegisters, &again)
        #expect(again.kernelBytes == sregs.kernelBytes)

        var sregs2 = KVMSpecialRegisters2()
        try machine.kernel.call(machine.vcpu, .getSpecialRegisters2, &sregs2)
        #expect(sregs2.kernelBytes.prefix(0x118) == again.kernelBytes.prefix(0x118))
    }

    @Test(arguments: KernelUnderTest.all)
    func `impossible mode combinations are EINVAL`(_ candidate: KernelUnderTest) throws {
        let machine = try PlainMachine(candidate.start())
        var good = KVMSpecialRegisters()
        try machine.kernel.call(machine.vcpu, .getSpecialRegisters, &good)
        func refuse(_ what: Comment, _ change: (inout KVMSpecialRegisters) -> Void) {
            var sregs = good
            change(&sregs)
            #expect(throws: Errno.EINVAL, what) {
                try machine.kernel.call(machine.vcpu, .setSpecialRegisters, reading: sregs)
            }
        }
        refuse("long mode without PAE") { $0.cr4 = 0 }
        refuse("paging with LME but not LMA") { $0.efer = 0x100 }
        refuse("LMA without paging") { $0.cr0 = 0x31 }
        refuse("paging without protection") { $0.cr0 = 0x8000_0030 }
        refuse("reserved bits of CR0") { $0.cr0 |= 1 << 40 }
        refuse("NW without CD") { $0.cr0 |= 1 << 29 }
        refuse("reserved bits of CR4") { $0.cr4 |= 1 << 63 }
        refuse("CR3 beyond the physical address space") { $0.cr3 |= 1 << 62 }
    }

    @Test(arguments: KernelUnderTest.all)
    func `CPUID is what was set, and needs room`(_ candidate: KernelUnderTest) throws {
        let machine = try PlainMachine(candidate.start())
        var leaves = KVMCPUIDList.decode(try machine.kernel.supportedCPUID(machine.kvm))
        let index = try #require(leaves.firstIndex { $0.function == 0 })
        leaves[index].ebx = 0x6c70_6d49  // A vendor nobody has.
        var bytes = KVMCPUIDList.encode(leaves)
        try machine.kernel.call(machine.vcpu, .setCPUID2, bytes: &bytes)
        var short = KVMCPUIDList.room(for: 1)
        #expect(throws: Errno.E2BIG) { try machine.kernel.call(machine.vcpu, .getCPUID2, bytes: &short) }
        var room = KVMCPUIDList.room(for: 256)
        try machine.kernel.call(machine.vcpu, .getCPUID2, bytes: &room)
        let back = KVMCPUIDList.decode(room)
        #expect(back.count == leaves.count)
        #expect(back.first { $0.function == 0 }?.ebx == 0x6c70_6d49)
        var many = KVMCPUIDList.room(for: 257)
        #expect(throws: Errno.E2BIG, "more than 256 leaves") {
            try machine.kernel.call(machine.vcpu, .setCPUID2, bytes: &many)
        }
    }

    /// Beyond the last level a guest still reads the subleaf and its x2APIC id.
    @Test func topologyBeyondItsLastLevel() throws {
        let machine = try PlainMachine(KernelUnderTest.software.start(), code: [0x0f, 0xa2, 0xf4])  // cpuid; hlt
        let supported = KVMCPUIDList.decode(try machine.kernel.supportedCPUID(machine.kvm))
        #expect(supported.filter { $0.function == 0xb }.map { [$0.index, $0.eax, $0.ebx, $0.ecx] } == [[0, 0, 0, 0]])
        var bytes = KVMCPUIDList.encode(
            supported + [KVMCPUIDEntry(function: 0xb, index: 1, eax: 1, ebx: 2, ecx: 0x201, edx: 9)])
        try machine.kernel.call(machine.vcpu, .setCPUID2, bytes: &bytes)
        try machine.setRegisters {
            $0.rax = 0xb
            $0.rcx = 0x1_05
        }
        #expect(try machine.run() == .halt)
        let registers = try machine.registers
        #expect(registers.rax == 0 && registers.rbx == 0 && registers.rcx == 5 && registers.rdx == 9)
    }

    /// Without an instruction that shows TSC_AUX the guest has no such MSR; the VMM always has.
    @Test(arguments: [true, false])
    func tscAux(_ isAnnounced: Bool) throws {
        let machine = try PlainMachine(
            KernelUnderTest.software.start(),
            // mov ecx, TSC_AUX; rdmsr; out 0x80, eax
            code: [0xb9, 0x03, 0x01, 0x00, 0xc0, 0x0f, 0x32, 0xe7, 0x80, 0xf4])
        machine.ram.write([0xb8, 0xff, 0, 0, 0, 0xe7, 0x80, 0xf4], at: 0x8100)  // mov eax, 0xff; out 0x80, eax
        machine.setGate(vector: 13, handler: 0x8100)
        let leaves = KVMCPUIDList.decode(try machine.kernel.supportedCPUID(machine.kvm)).map { leaf in
            var leaf = leaf
            if leaf.function == 0x8000_0001 { leaf.edx &= ~(1 << 27) }
            if leaf.function == 7, !isAnnounced { leaf.ecx &= ~(1 << 22) }
            return leaf
        }
        var bytes = KVMCPUIDList.encode(leaves)
        try machine.kernel.call(machine.vcpu, .setCPUID2, bytes: &bytes)
        var list = KVMMSRList.encode([KVMMSREntry(index: 0xc000_0103, data: 0x77)])
        #expect(try machine.kernel.call(machine.vcpu, .setMSRs, bytes: &list) == 1)
        #expect(try machine.runToPortWrite(0x80) == [isAnnounced ? 0x77 : 0xff, 0, 0, 0])
    }

    /// Machine check registers as a vCPU starts with them: all banks, off, without MCG_CTL; and as they are set up.
    @Test(arguments: KernelUnderTest.all)
    func `machine check banks are there and can be set up`(_ candidate: KernelUnderTest) throws {
        let kernel = try candidate.start()
        let machine = try PlainMachine(kernel)
        func read(_ numbers: UInt32...) throws -> [UInt64] {
            var list = KVMMSRList.encode(reading: numbers)
            #expect(try kernel.call(machine.vcpu, .getMSRs, bytes: &list) == numbers.count)
            return KVMMSRList.decode(list).map(\.data)
        }
        func accepts(_ number: UInt32, _ value: UInt64) throws -> Bool {
            var list = KVMMSRList.encode([KVMMSREntry(index: number, data: value)])
            return try kernel.call(machine.vcpu, .setMSRs, bytes: &list) == 1
        }
        #expect(try read(0x179, 0x17a, 0x400, 0x401, 0x47c) == [32, 0, 0, 0, 0])
        #expect(try accepts(0x17a, 5) && read(0x17a) == [5])
        #expect(try !accepts(0x17b, .max), "no MCG_CTL")
        #expect(try accepts(0x400, .max) && accepts(0x400, ~0x401) && accepts(0x400, 0))
        #expect(try !accepts(0x400, 0xff), "half of a bank")
        #expect(try accepts(0x401, 0x8000_0000_0000_0001), "the VMM may write a status")
        #expect(try !accepts(0x480, 0), "there are 32 banks")

        for capabilities: UInt64 in [0, 33, 1 << 40 | 1] {
            var bytes = (0..<8).map { UInt8(truncatingIfNeeded: capabilities >> UInt64(8 * $0)) }
            #expect(throws: Errno.EINVAL) { try kernel.call(machine.vcpu, .setupMCE, bytes: &bytes) }
        }
        var bytes: [UInt8] = [10, 1, 0, 0, 0, 0, 0, 0]  // ten banks and MCG_CTL
        try kernel.call(machine.vcpu, .setupMCE, bytes: &bytes)
        #expect(try read(0x179, 0x17b, 0x400, 0x424) == [0x10a, .max, .max, .max])
        #expect(try accepts(0x17b, 0) && !accepts(0x17b, 1))
        #expect(try !accepts(0x428, 0), "there are ten banks")
    }

    @Test(arguments: KernelUnderTest.all)
    func `MSR lists stop at the first refused entry`(_ candidate: KernelUnderTest) throws {
        let machine = try PlainMachine(candidate.start())
        let kernel = machine.kernel
        let star: UInt32 = 0xc000_0081
        let lstar: UInt32 = 0xc000_0082
        let kernelGSBase: UInt32 = 0xc000_0102
        let unknown: UInt32 = 0xdead_0000
        var set = KVMMSRList.encode([
            KVMMSREntry(index: star, data: 0x0013_0008 << 32), KVMMSREntry(index: lstar, data: 0xffff_ffff_8100_0000),
            KVMMSREntry(index: kernelGSBase, data: 0x1234),
        ])
        #expect(try kernel.call(machine.vcpu, .setMSRs, bytes: &set) == 3)
        var get = KVMMSRList.encode(reading: [star, lstar, kernelGSBase])
        #expect(try kernel.call(machine.vcpu, .getMSRs, bytes: &get) == 3)
        #expect(KVMMSRList.decode(get).map(\.data) == [0x0013_0008 << 32, 0xffff_ffff_8100_0000, 0x1234])

        var stopped = KVMMSRList.encode(reading: [star, unknown, lstar])
        #expect(try kernel.call(machine.vcpu, .getMSRs, bytes: &stopped) == 1)
        var refused = KVMMSRList.encode([
            KVMMSREntry(index: star, data: 1), KVMMSREntry(index: unknown, data: 1), KVMMSREntry(index: lstar, data: 1),
        ])
        #expect(try kernel.call(machine.vcpu, .setMSRs, bytes: &refused) == 1)
        var nonCanonical = KVMMSRList.encode([KVMMSREntry(index: lstar, data: 1 << 62)])
        #expect(try kernel.call(machine.vcpu, .setMSRs, bytes: &nonCanonical) == 0)
        var none = KVMMSRList.encode([])
        #expect(try kernel.call(machine.vcpu, .getMSRs, bytes: &none) == 0)
        var tooMany = KVMMSRList.encode(.init(repeating: KVMMSREntry(index: star), count: 257))
        #expect(throws: Errno.E2BIG) { try kernel.call(machine.vcpu, .getMSRs, bytes: &tooMany) }
    }

    /// The development machines' KVM does not know it at all.
    @Test func `IA32_XSS is known, and nothing but 0`() throws {
        let machine = try PlainMachine(KernelUnderTest.software.start())
        var set = KVMMSRList.encode([KVMMSREntry(index: 0xda0, data: 0)])
        #expect(try machine.kernel.call(machine.vcpu, .setMSRs, bytes: &set) == 1)
        var refused = KVMMSRList.encode([KVMMSREntry(index: 0xda0, data: 1 << 40)])
        #expect(try machine.kernel.call(machine.vcpu, .setMSRs, bytes: &refused) == 0)
        var get = KVMMSRList.encode(reading: [0xda0])
        #expect(try machine.kernel.call(machine.vcpu, .getMSRs, bytes: &get) == 1)
        #expect(KVMMSRList.decode(get).map(\.data) == [0])
    }

    @Test(arguments: KernelUnderTest.all)
    func `shadow pages can be limited, to no fewer than 64`(_ candidate: KernelUnderTest) throws {
        let machine = try PlainMachine(candidate.start())
        #expect(throws: Errno.EINVAL) { try machine.kernel.call(machine.vm, .setMMUPageCount, value: 63) }
        try machine.kernel.call(machine.vm, .setMMUPageCount, value: 64)
    }

    @Test(arguments: KernelUnderTest.all)
    func `multiprocessor state needs a local APIC to be anything but runnable`(_ candidate: KernelUnderTest) throws {
        let machine = try PlainMachine(candidate.start())
        var state = KVMMPState(state: 99)
        try machine.kernel.call(machine.vcpu, .getMPState, &state)
        #expect(state == .runnable)
        #expect(throws: Errno.EINVAL) {
            try machine.kernel.call(machine.vcpu, .setMPState, reading: KVMMPState.halted)
        }
        #expect(throws: Errno.EINVAL) {
            try machine.kernel.call(machine.vcpu, .setMPState, reading: KVMMPState(state: 77))
        }
        try machine.kernel.call(machine.vcpu, .setMPState, reading: KVMMPState.runnable)
    }

    @Test(arguments: KernelUnderTest.all)
    func `extended control registers and debug registers`(_ candidate: KernelUnderTest) throws {
        let machine = try PlainMachine(candidate.start())
        var debug = KVMDebugRegisters()
        try machine.kernel.call(machine.vcpu, .getDebugRegisters, &debug)
        #expect(debug.dr6 == 0xffff_0ff0 && debug.dr7 == 0x400)
        debug.db[0] = 0x1000
        debug.db[3] = 0x4000
        try machine.kernel.call(machine.vcpu, .setDebugRegisters, reading: debug)
        var again = KVMDebugRegisters()
        try machine.kernel.call(machine.vcpu, .getDebugRegisters, &again)
        #expect(again.db[0] == 0x1000 && again.db[3] == 0x4000)
        debug.flags = 1
        #expect(throws: Errno.EINVAL) { try machine.kernel.call(machine.vcpu, .setDebugRegisters, reading: debug) }

        var events = KVMVCPUEvents()
        try machine.kernel.call(machine.vcpu, .getVCPUEvents, &events)
        #expect(events.exceptionInjected == 0 && events.nmiPending == 0)
    }

    @Test(arguments: KernelUnderTest.all)
    func `kvmclock takes a value and goes on from there`(_ candidate: KernelUnderTest) throws {
        let machine = try PlainMachine(candidate.start())
        var clock = KVMClockData()
        clock.clock = 1_000_000_000_000
        try machine.kernel.call(machine.vm, .setClock, reading: clock)
        var first = KVMClockData()
        try machine.kernel.call(machine.vm, .getClock, &first)
        var second = KVMClockData()
        try machine.kernel.call(machine.vm, .getClock, &second)
        #expect(first.clock >= 1_000_000_000_000 && second.clock >= first.clock)
    }
}
