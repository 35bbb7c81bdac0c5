// KVM_RUN: a few instructions of 64-bit code, and the exit that they must give [KVM KVM_RUN].

import KVMABI
import TestSupport
import Testing

@Suite struct RunTests {
    @Test(arguments: KernelUnderTest.all)
    func `immediate_exit is EINTR and the guest has not moved`(_ candidate: KernelUnderTest) throws {
        let machine = try PlainMachine(candidate.start(), code: [0xf4])
        machine.page.immediateExit = true
        #expect(throws: Errno.EINTR) { try machine.run() }
        #expect(try machine.registers.rip == 0x8000)
        machine.page.immediateExit = false
        #expect(try machine.run() == .halt)
    }

    @Test(arguments: KernelUnderTest.all)
    func `KVM_RUN takes no argument and no unknown register sets`(_ candidate: KernelUnderTest) throws {
        let machine = try PlainMachine(candidate.start(), code: [0xf4])
        #expect(throws: Errno.EINVAL) { try machine.kernel.call(machine.vcpu, .run, value: 1) }
        machine.page.validRegisters = .max
        #expect(throws: Errno.EINVAL) { try machine.run() }
        machine.page.validRegisters = 0
        machine.page.dirtyRegisters = .max
        #expect(throws: Errno.EINVAL) { try machine.run() }
        machine.page.dirtyRegisters = 0
        #expect(try machine.run() == .halt)
    }

    @Test(arguments: KernelUnderTest.all)
    func `HLT is an exit without a local APIC, and the guest goes on behind it`(_ candidate: KernelUnderTest) throws {
        let machine = try PlainMachine(candidate.start(), code: [0xf4, 0x90, 0xf4])
        #expect(try machine.run() == .halt)
        #expect(try machine.registers.rip == 0x8001)
        #expect(try machine.run() == .halt)
        #expect(try machine.registers.rip == 0x8003)
    }

    @Test(arguments: KernelUnderTest.all)
    func `OUT gives port, width and data`(_ candidate: KernelUnderTest) throws {
        let machine = try PlainMachine(
            candidate.start(),
            code: [
                0xb8, 0x44, 0x33, 0x22, 0x11,  // mov eax, 0x11223344
                0xe6, 0x80,  // out 0x80, al
                0x66, 0xba, 0xf8, 0x03,  // mov dx, 0x3f8
                0x66, 0xef,  // out dx, ax
                0xef,  // out dx, eax
                0xf4,  // hlt
            ])
        #expect(try machine.runToPortWrite(0x80) == [0x44])
        #expect(machine.page.portIO.size == 1 && machine.page.portIO.count == 1)
        #expect(try machine.runToPortWrite(0x3f8) == [0x44, 0x33])
        #expect(try machine.runToPortWrite(0x3f8) == [0x44, 0x33, 0x22, 0x11])
        #expect(try machine.run() == .halt)
    }

    @Test(arguments: KernelUnderTest.all)
    func `IN merges narrow data and zero-extends 32 bits`(_ candidate: KernelUnderTest) throws {
        let machine = try PlainMachine(
            candidate.start(),
            code: [
                0xe4, 0x60,  // in al, 0x60
                0x48, 0x89, 0xc3,  // mov rbx, rax
                0x66, 0xe5, 0x61,  // in ax, 0x61
                0x48, 0x89, 0xc1,  // mov rcx, rax
                0xe5, 0x62,  // in eax, 0x62
                0xf4,  // hlt
            ])
        try machine.setRegisters { $0.rax = 0x1111_2222_3333_4444 }
        for (port, answer) in [(0x60, [0xaa]), (0x61, [0xbb, 0xcc]), (0x62, [1, 2, 3, 4])] as [(UInt16, [UInt8])] {
            #expect(try machine.run() == .io)
            let io = machine.page.portIO
            #expect(!io.isWrite && io.port == port && io.size == answer.count)
            #expect(machine.page.setPortData(answer, io))
        }
        #expect(try machine.run() == .halt)
        let registers = try machine.registers
        #expect(registers.rbx == 0x1111_2222_3333_44aa)
        #expect(registers.rcx == 0x1111_2222_3333_ccbb)
        #expect(registers.rax == 0x0403_0201)
    }

    /// How many elements one exit carries is the kernel's choice; the bytes are not.
    @Test(arguments: KernelUnderTest.all)
    func `REP OUTS and INS move strings in order`(_ candidate: KernelUnderTest) throws {
        let machine = try PlainMachine(
            candidate.start(),
            code: [
                0xf3, 0x6e,  // rep outsb
                0xb9, 0x03, 0x00, 0x00, 0x00,  // mov ecx, 3
                0xf3, 0x66, 0x6d,  // rep insw
                0xf4,  // hlt
            ])
        let text = Array("hello, port".utf8)
        machine.ram.write(text, at: 0xa000)
        try machine.setRegisters {
            $0.rsi = 0xa000
            $0.rdi = 0xb000
            $0.rcx = UInt64(text.count)
            $0.rdx = 0x402
        }
        var written: [UInt8] = []
        var answer = [UInt8](1...6)
        loop: while true {
            let reason = try machine.run()
            switch reason {
            case .io:
                let io = machine.page.portIO
                try #require(io.port == 0x402)
                if io.isWrite {
                    written += try #require(machine.page.portData(io))
                } else {
                    let byteCount = Int(io.size) * Int(io.count)
                    try #require(byteCount <= answer.count)
                    machine.page.setPortData(Array(answer.prefix(byteCount)), io)
                    answer.removeFirst(byteCount)
                }
                try #require(written.count <= text.count)
            case .halt: break loop
            default: Issue.record("\(reason)"); break loop
            }
        }
        #expect(written == text)
        #expect(machine.ram.copyBytes(at: 0xb000, count: 7) == [1, 2, 3, 4, 5, 6, 0])
        #expect(try machine.registers.rdi == 0xb006)
    }

    @Test(arguments: KernelUnderTest.all)
    func `a write without memory behind it is MMIO`(_ candidate: KernelUnderTest) throws {
        let machine = try PlainMachine(
            candidate.start(),
            code: [
                0x48, 0x89, 0x03,  // mov [rbx], rax
                0x89, 0x43, 0x10,  // mov [rbx+16], eax
                0x66, 0x89, 0x43, 0x20,  // mov [rbx+32], ax
                0x88, 0x43, 0x30,  // mov [rbx+48], al
                0xc7, 0x43, 0x40, 0x78, 0x56, 0x34, 0x12,  // mov dword [rbx+64], 0x12345678
                0xf4,  // hlt
            ])
        try machine.setRegisters {
            $0.rax = 0x8877_6655_4433_2211
            $0.rbx = 0x1000_0000
        }
        let expected: [(UInt64, UInt32, UInt64)] = [
            (0x1000_0000, 8, 0x8877_6655_4433_2211), (0x1000_0010, 4, 0x4433_2211), (0x1000_0020, 2, 0x2211),
            (0x1000_0030, 1, 0x11), (0x1000_0040, 4, 0x1234_5678),
        ]
        for (address, byteCount, data) in expected {
            try #require(try machine.run() == .mmio)
            let access = machine.page.mmio
            #expect(access.isWrite && access.physicalAddress == address && access.byteCount == byteCount)
            let mask = byteCount == 8 ? UInt64.max : (1 << (8 * UInt64(byteCount))) - 1
            #expect(access.data & mask == data)
        }
        #expect(try machine.run() == .halt)
    }

    @Test(arguments: KernelUnderTest.all)
    func `a read without memory behind it is MMIO and takes the answer`(_ candidate: KernelUnderTest) throws {
        let machine = try PlainMachine(
            candidate.start(),
            code: [
                0x48, 0x8b, 0x03,  // mov rax, [rbx]
                0x8b, 0x4b, 0x10,  // mov ecx, [rbx+16]
                0x0f, 0xb6, 0x53, 0x20,  // movzx edx, byte [rbx+32]
                0x48, 0x0f, 0xbf, 0x73, 0x30,  // movsx rsi, word [rbx+48]
                0xf4,  // hlt
            ])
        try machine.setRegisters {
            $0.rbx = 0x1000_0000
            ($0.rcx, $0.rdx, $0.rsi) = (.max, .max, 0)
        }
        for byteCount: UInt32 in [8, 4, 1, 2] {
            try #require(try machine.run() == .mmio)
            let access = machine.page.mmio
            #expect(!access.isWrite && access.byteCount == byteCount)
            machine.page.mmioData = 0xf8f7_f6f5_f4f3_f2f1
        }
        #expect(try machine.run() == .halt)
        let registers = try machine.registers
        #expect(registers.rax == 0xf8f7_f6f5_f4f3_f2f1)
        #expect(registers.rcx == 0xf4f3_f2f1)
        #expect(registers.rdx == 0xf1)
        #expect(registers.rsi == 0xffff_ffff_ffff_f2f1)
    }

    @Test(arguments: KernelUnderTest.all)
    func `immediate_exit finishes the pending read first`(_ candidate: KernelUnderTest) throws {
        let machine = try PlainMachine(
            candidate.start(), code: [0xe4, 0x60, 0xf4])
        #expect(try machine.run() == .io)
        machine.page.setPortData([0x5a], machine.page.portIO)
        machine.page.immediateExit = true
        #expect(throws: Errno.EINTR) { try machine.run() }
        let registers = try machine.registers
        #expect(registers.rax & 0xff == 0x5a && registers.rip == 0x8002)
    }

    @Test(arguments: KernelUnderTest.all)
    func `a triple fault is SHUTDOWN`(_ candidate: KernelUnderTest) throws {
        let machine = try PlainMachine(candidate.start(), code: [0x0f, 0x0b])
        var sregs = KVMSpecialRegisters()
        try machine.kernel.call(machine.vcpu, .getSpecialRegisters, &sregs)
        sregs.idt = KVMDescriptorTable(base: 0, limit: 0)
        try machine.kernel.call(machine.vcpu, .setSpecialRegisters, reading: sregs)
        #expect(try machine.run() == .shutdown)
    }

    @Test(arguments: KernelUnderTest.all)
    func `exceptions reach the guest's handler`(_ candidate: KernelUnderTest) throws {
        let machine = try PlainMachine(
            candidate.start(),
            code: [
                0x0f, 0x0b,  // ud2
                0xf4,  // hlt, skipped by the handler's choice of address
            ])
        machine.setGate(vector: 6, handler: 0x8100)
        machine.ram.write([0x48, 0x8b, 0x04, 0x24, 0xe6, 0x80, 0xf4], at: 0x8100)  // mov rax, [rsp]; out 0x80, al; hlt
        #expect(try machine.runToPortWrite(0x80) == [0x00], "the low byte of the faulting RIP")
        #expect(try machine.registers.rax == 0x8000)
    }

    @Test(arguments: KernelUnderTest.all)
    func `a page fault has its address and error code`(_ candidate: KernelUnderTest) throws {
        let machine = try PlainMachine(
            candidate.start(), code: [0x48, 0x89, 0x03])  // mov [rbx], rax
        machine.setGate(vector: 14, handler: 0x8100)
        machine.ram.write(
            [
                0x59,  // pop rcx
                0x0f, 0x20, 0xd2,  // mov rdx, cr2
                0xf4,  // hlt
            ], at: 0x8100)
        try machine.setRegisters { $0.rbx = 0x80_1234_5678 }
        #expect(try machine.run() == .halt)
        let registers = try machine.registers
        #expect(registers.rdx == 0x80_1234_5678)
        #expect(registers.rcx == 2, "a write by the supervisor to a page that is not present")
    }

    @Test(arguments: KernelUnderTest.all)
    func `CPUID gives what was set`(_ candidate: KernelUnderTest) throws {
        let machine = try PlainMachine(
            candidate.start(),
            code: [
                0x31, 0xc0,  // xor eax, eax
                0x31, 0xc9,  // xor ecx, ecx
                0x0f, 0xa2,  // cpuid
                0xf4,  // hlt
            ])
        let leaves = KVMCPUIDList.decode(try machine.kernel.supportedCPUID(machine.kvm))
        let leaf = try #require(leaves.first { $0.function == 0 })
        #expect(try machine.run() == .halt)
        let registers = try machine.registers
        #expect(registers.rax == UInt64(leaf.eax) && registers.rbx == UInt64(leaf.ebx))
        #expect(registers.rcx == UInt64(leaf.ecx) && registers.rdx == UInt64(leaf.edx))
    }

    @Test(arguments: KernelUnderTest.all)
    func `the guest's MSRs are the VMM's`(_ candidate: KernelUnderTest) throws {
        let machine = try PlainMachine(
            candidate.start(),
            code: [
                0xb9, 0x82, 0x00, 0x00, 0xc0,  // mov ecx, LSTAR
                0x0f, 0x32,  // rdmsr
                0xff, 0xc0,  // inc eax
                0x0f, 0x30,  // wrmsr
                0xf4,  // hlt
            ])
        var set = KVMMSRList.encode([KVMMSREntry(index: 0xc000_0082, data: 0xffff_ffff_8100_0000)])
        #expect(try machine.kernel.call(machine.vcpu, .setMSRs, bytes: &set) == 1)
        #expect(try machine.run() == .halt)
        var get = KVMMSRList.encode(reading: [0xc000_0082])
        #expect(try machine.kernel.call(machine.vcpu, .getMSRs, bytes: &get) == 1)
        #expect(KVMMSRList.decode(get).first?.data == 0xffff_ffff_8100_0001)
    }

    @Test(arguments: KernelUnderTest.all)
    func `memory that the VMM writes is memory that the guest reads`(_ candidate: KernelUnderTest) throws {
        let machine = try PlainMachine(
            candidate.start(),
            code: [
                0x8b, 0x04, 0x25, 0x00, 0xa0, 0x00, 0x00,  // mov eax, [0xa000]
                0xf4,  // hlt
                0xff, 0xc0,  // inc eax
                0x89, 0x04, 0x25, 0x04, 0xa0, 0x00, 0x00,  // mov [0xa004], eax
                0xf4,  // hlt
                0xeb, 0xec,  // jmp to the start
            ])
        machine.ram.store(0x1234 as UInt32, at: 0xa000)
        #expect(try machine.run() == .halt)
        #expect(try machine.registers.rax == 0x1234)
        #expect(try machine.run() == .halt)
        #expect(machine.ram.load(at: 0xa004, as: UInt32.self) == 0x1235)
        machine.ram.store(0x77 as UInt32, at: 0xa000)
        #expect(try machine.run() == .halt)
        #expect(try machine.registers.rax == 0x77)
    }

    /// Code written by the VMM between two exits, at an address that has run before.
    @Test(arguments: KernelUnderTest.all)
    func `code that the VMM replaces is the code that runs`(_ candidate: KernelUnderTest) throws {
        let machine = try PlainMachine(
            candidate.start(),
            code: [0xb0, 0x01, 0xe6, 0x80, 0xeb, 0xfa])  // mov al, 1; out 0x80, al; jmp to the start
        #expect(try machine.runToPortWrite(0x80) == [1])
        machine.ram.store(2 as UInt8, at: 0x8001)
        #expect(try machine.runToPortWrite(0x80) == [2])
    }

    @Test(arguments: KernelUnderTest.all)
    func `code without memory behind it is an internal error`(_ candidate: KernelUnderTest) throws {
        let machine = try PlainMachine(
            candidate.start(), code: [0xff, 0xe3])  // jmp rbx
        try machine.setRegisters { $0.rbx = 0x1000_0000 }
        #expect(try machine.run() == .internalError)
        #expect(machine.page.internalError.kind == .emulation)
    }

    /// Real kernels emulate a task switch; this one says by name that it does not.
    @Test(arguments: [KernelUnderTest.software])
    func `a task switch is an internal error with its instruction`(_ candidate: KernelUnderTest) throws {
        let machine = try PlainMachine(candidate.start(), code: [0xcf, 0x90])  // iretd
        var sregs = KVMSpecialRegisters()
        try machine.kernel.call(machine.vcpu, .getSpecialRegisters, &sregs)
        sregs.cr0 = 0x11
        sregs.cr4 = 0
        sregs.efer = 0
        sregs.cs.l = 0
        sregs.cs.db = 1
        try machine.kernel.call(machine.vcpu, .setSpecialRegisters, &sregs)
        try machine.setRegisters { $0.rflags = 0x4002 }  // NT
        #expect(try machine.run() == .internalError)
        let error = machine.page.internalError
        #expect(error.kind == .emulation)
        // Flags: bytes follow; then how many, and the first of them.
        #expect(error.data.count == 3 && error.data[0] == 1)
        #expect(error.data[1] & 0xffffff == 0x90_cf0f)
        #expect(try machine.registers.rip == UInt64(PlainMachine.codeAddress))
    }

    @Test(arguments: KernelUnderTest.all)
    func `writes to a read-only slot are MMIO, reads are memory`(_ candidate: KernelUnderTest) throws {
        let machine = try PlainMachine(
            candidate.start(),
            code: [
                0x8b, 0x03,  // mov eax, [rbx]
                0x89, 0x43, 0x04,  // mov [rbx+4], eax
                0xf4,  // hlt
            ])
        guard try machine.kernel.check(machine.vm, .readOnlyMemory) > 0 else {
            try Test.cancel("this kernel has no read-only slots")
        }
        let rom = try machine.kernel.map(.anonymous, offset: 0, byteCount: 0x1000)
        rom.store(0xcafe as UInt32, at: 0)
        try machine.kernel.call(
            machine.vm, .setUserMemoryRegion,
            reading: KVMUserspaceMemoryRegion(
                slot: 1, flags: KVMUserspaceMemoryRegion.readOnly, guestPhysicalAddress: 0x10_0000,
                memoryByteCount: 0x1000, userspaceAddress: rom.address))
        try machine.setRegisters { $0.rbx = 0x10_0000 }
        #expect(try machine.run() == .mmio)
        #expect(
            machine.page.mmio == RunPage.MMIO(physicalAddress: 0x10_0004, data: 0xcafe, byteCount: 4, isWrite: true))
        #expect(try machine.run() == .halt)
        #expect(rom.load(at: 4, as: UInt32.self) == 0)
    }

    @Test(arguments: KernelUnderTest.all)
    func `deleting a slot turns its memory into MMIO`(_ candidate: KernelUnderTest) throws {
        let machine = try PlainMachine(
            candidate.start(), code: [0x8b, 0x03, 0xf4, 0xeb, 0xfb])  // mov eax, [rbx]; hlt; jmp
        let extra = try machine.kernel.map(.anonymous, offset: 0, byteCount: 0x1000)
        extra.store(0x11 as UInt32, at: 0)
        var region = KVMUserspaceMemoryRegion(
            slot: 1, guestPhysicalAddress: 0x10_0000, memoryByteCount: 0x1000, userspaceAddress: extra.address)
        try machine.kernel.call(machine.vm, .setUserMemoryRegion, reading: region)
        try machine.setRegisters { $0.rbx = 0x10_0000 }
        #expect(try machine.run() == .halt)
        #expect(try machine.registers.rax == 0x11)
        region.memoryByteCount = 0
        try machine.kernel.call(machine.vm, .setUserMemoryRegion, reading: region)
        #expect(try machine.run() == .mmio)
        #expect(machine.page.mmio.physicalAddress == 0x10_0000)
    }

    @Test(arguments: KernelUnderTest.all)
    func `x87 and SSE state reaches the guest and comes back`(_ candidate: KernelUnderTest) throws {
        let machine = try PlainMachine(
            candidate.start(),
            code: [
                0x66, 0x48, 0x0f, 0x7e, 0xc0,  // movq rax, xmm0
                0x66, 0x0f, 0xef, 0xc9,  // pxor xmm1, xmm1
                0x66, 0x48, 0x0f, 0x6e, 0xd0,  // movq xmm2, rax
                0xdb, 0x04, 0x25, 0x00, 0xa0, 0x00, 0x00,  // fild dword [0xa000]
                0xf4,  // hlt
            ])
        var sregs = KVMSpecialRegisters()
        try machine.kernel.call(machine.vcpu, .getSpecialRegisters, &sregs)
        sregs.cr4 |= 0x600  // OSFXSR, OSXMMEXCPT
        try machine.kernel.call(machine.vcpu, .setSpecialRegisters, reading: sregs)
        var fpu = KVMFPU()
        try machine.kernel.call(machine.vcpu, .getFPU, &fpu)
        #expect(fpu.fcw == 0x37f)
        for index in 0..<256 { fpu.xmm[index] = UInt8(index) }
        try machine.kernel.call(machine.vcpu, .setFPU, reading: fpu)
        machine.ram.store(1 as UInt32, at: 0xa000)
        let reason = try machine.run()
        try candidate.cancelIfKnown(reason)
        try #require(reason == .halt)
        #expect(try machine.registers.rax == 0x0706_0504_0302_0100)
        try machine.kernel.call(machine.vcpu, .getFPU, &fpu)
        let xmm = (0..<256).map { fpu.xmm[$0] }
        #expect(xmm[16..<32].allSatisfy { $0 == 0 }, "xmm1")
        #expect(xmm[32..<48] == [0, 1, 2, 3, 4, 5, 6, 7, 0, 0, 0, 0, 0, 0, 0, 0], "xmm2")
        #expect(xmm[48...].elementsEqual((48..<256).map { UInt8($0) }), "the others")
        // What FILD pushed: the top is register 7, it alone is in use, and it is 1.0.
        #expect(fpu.fsw >> 11 & 7 == 7 && fpu.ftwx == 0x80)
        #expect((0..<10).map { fpu.fpr[$0] } == [0, 0, 0, 0, 0, 0, 0, 0x80, 0xff, 0x3f])
    }

    @Test(arguments: KernelUnderTest.all)
    func `another thread stops a spinning guest`(_ candidate: KernelUnderTest) throws {
        let machine = try PlainMachine(candidate.start(), code: [0xeb, 0xfe])  // jmp to itself
        RunGuard.interrupting(machine.page) {
            #expect(throws: Errno.EINTR) { try machine.run() }
        }
        #expect(try machine.registers.rip == 0x8000)
    }
}
