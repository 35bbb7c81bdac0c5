// Interrupt controllers: order of creation, and interrupts that arrive [KVM KVM_CREATE_IRQCHIP, KVM_IRQ_LINE].

import KVMABI
import Testing

@Suite struct InterruptTests {
    @Test(arguments: KernelUnderTest.all)
    func `controllers come once and before the vCPUs`(_ candidate: KernelUnderTest) throws {
        let kernel = try candidate.start()
        let with = try PlainMachine(kernel, withIRQChip: true)
        #expect(throws: Errno.EEXIST) { try kernel.call(with.vm, .createIRQChip) }
        let without = try PlainMachine(kernel)
        #expect(throws: Errno.EINVAL) { try kernel.call(without.vm, .createIRQChip) }
    }

    @Test(arguments: KernelUnderTest.all)
    func `without controllers there is nothing to read or raise`(_ candidate: KernelUnderTest) throws {
        let machine = try PlainMachine(candidate.start())
        #expect(throws: Errno.ENXIO) {
            try machine.kernel.call(machine.vm, .irqLine, reading: KVMIRQLevel(irq: 4, level: 1))
        }
        #expect(throws: Errno.EINVAL) { try machine.kernel.call(machine.vcpu, .getLAPIC, reading: KVMLAPICState()) }
        #expect(throws: Errno.ENXIO) {
            try machine.kernel.call(machine.vm, .getIRQChip, reading: KVMIRQChip(chipID: 2))
        }
    }

    @Test(arguments: KernelUnderTest.all)
    func `a vector is injected by hand only without a local APIC`(_ candidate: KernelUnderTest) throws {
        let kernel = try candidate.start()
        let with = try PlainMachine(kernel, withIRQChip: true)
        #expect(throws: Errno.ENXIO) { try kernel.call(with.vcpu, .interrupt, reading: KVMInterrupt(irq: 0x20)) }
        let without = try PlainMachine(kernel)
        #expect(throws: Errno.EINVAL) { try kernel.call(without.vcpu, .interrupt, reading: KVMInterrupt(irq: 256)) }
    }

    @Test(arguments: KernelUnderTest.all)
    func `the local APIC's registers after reset`(_ candidate: KernelUnderTest) throws {
        let machine = try PlainMachine(candidate.start(), withIRQChip: true)
        var apic = KVMLAPICState()
        try machine.kernel.call(machine.vcpu, .getLAPIC, &apic)
        #expect(apic[offset: 0x20] == 0, "ID")
        #expect(apic[offset: 0x30] & 0xff >= 0x14 && apic[offset: 0x30] & 0xff <= 0x15, "version")
        #expect(apic[offset: 0xf0] == 0xff, "spurious vector, software disabled")
        #expect(apic[offset: 0x320] & 1 << 16 != 0, "the timer is masked")
        apic[offset: 0x80] = 0x20
        try machine.kernel.call(machine.vcpu, .setLAPIC, &apic)
        var again = KVMLAPICState()
        try machine.kernel.call(machine.vcpu, .getLAPIC, &again)
        #expect(again[offset: 0x80] == 0x20, "TPR")
        var state = KVMMPState.runnable
        try machine.kernel.call(machine.vcpu, .setMPState, reading: KVMMPState.halted)
        try machine.kernel.call(machine.vcpu, .getMPState, &state)
        #expect(state == .halted)
    }

    @Test(arguments: KernelUnderTest.all)
    func `a SIPI that user space says was received starts the vCPU`(_ candidate: KernelUnderTest) throws {
        let machine = try PlainMachine(candidate.start(), withIRQChip: true)
        var events = KVMVCPUEvents()
        events.flags = 2  // SIPI_VECTOR
        events.sipiVector = 0x12
        try machine.kernel.call(machine.vcpu, .setVCPUEvents, reading: events)
        try machine.kernel.call(machine.vcpu, .setMPState, reading: KVMMPState.sipiReceived)
        var state = KVMMPState(state: 99)
        try machine.kernel.call(machine.vcpu, .getMPState, &state)
        #expect(state == .runnable)
        var registers = KVMSpecialRegisters()
        try machine.kernel.call(machine.vcpu, .getSpecialRegisters, &registers)
        #expect(registers.cs.selector == 0x1200 && registers.cs.base == 0x12000)
    }

    /// What INIT resets and what it leaves [APM2 14.1.3].
    @Test(arguments: KernelUnderTest.all)
    func `an INIT leaves floating point, XCR0 and MSRs`(_ candidate: KernelUnderTest) throws {
        let machine = try PlainMachine(candidate.start(), withIRQChip: true)
        let kernel = machine.kernel
        try machine.setRegisters { $0.r15 = 15 }
        var fpu = KVMFPU()
        try kernel.call(machine.vcpu, .getFPU, &fpu)
        fpu.xmm[17] = 0x5a
        fpu.fcw = 0x27f
        try kernel.call(machine.vcpu, .setFPU, reading: fpu)
        var xcrs = KVMXCRs()
        xcrs.count = 1
        xcrs.xcrs[0] = KVMXCR(xcr: 0, value: 7)
        try kernel.call(machine.vcpu, .setXCRs, reading: xcrs)
        var msrs = KVMMSRList.encode([KVMMSREntry(index: 0xc000_0082, data: 0x1234_5000)])
        #expect(try kernel.call(machine.vcpu, .setMSRs, bytes: &msrs) == 1)
        var special = KVMSpecialRegisters()
        try kernel.call(machine.vcpu, .getSpecialRegisters, &special)
        special.cr0 |= 0x4000_0000
        special.cr2 = 0x1234
        try kernel.call(machine.vcpu, .setSpecialRegisters, reading: special)
        var events = KVMVCPUEvents()
        try kernel.call(machine.vcpu, .getVCPUEvents, &events)
        events.latchedInit = 1
        events.nmiMasked = 1
        try kernel.call(machine.vcpu, .setVCPUEvents, reading: events)

        var state = KVMMPState(state: 99)
        try kernel.call(machine.vcpu, .getMPState, &state)
        #expect(state == .runnable, "a boot processor runs on")
        let registers = try machine.registers
        #expect(registers.rip == 0xfff0 && registers.r15 == 0 && registers.rflags == 2)
        try kernel.call(machine.vcpu, .getSpecialRegisters, &special)
        #expect(special.cr0 == 0x4000_0010 && special.cr2 == 0 && special.cr3 == 0 && special.cr4 == 0)
        #expect(special.efer == 0 && special.cs.base == 0xffff_0000 && special.gdt.base == 0)
        var after = KVMFPU()
        try kernel.call(machine.vcpu, .getFPU, &after)
        #expect(after.xmm[17] == 0x5a && after.fcw == 0x27f)
        try kernel.call(machine.vcpu, .getXCRs, &xcrs)
        #expect(xcrs.xcrs[0].value == 7)
        #expect(try kernel.call(machine.vcpu, .getMSRs, bytes: &msrs) == 1)
        #expect(KVMMSRList.decode(msrs).first?.data == 0x1234_5000)
        try kernel.call(machine.vcpu, .getVCPUEvents, &events)
        #expect(events.latchedInit == 0)
    }

    /// Not on every kernel: under kvm_pvm, which emulates a guest's kernel code, the guest comes to HLT first.
    @Test func `an NMI waits for the end of an interrupt shadow that user space has set`() throws {
        let machine = try PlainMachine(KernelUnderTest.software.start(), withIRQChip: true)
        // To the APIC with id 0; INIT, asserted.
        var message = KVMMSI()
        message.addressLow = 0xfee0_0000
        message.data = 0x4500
        try machine.kernel.call(machine.vm, .signalMSI, reading: message)
        var state = KVMMPState(state: 99)
        try machine.kernel.call(machine.vcpu, .getMPState, &state)
        #expect(state == .runnable)
        var registers = KVMRegisters()
        try machine.kernel.call(machine.vcpu, .getRegisters, &registers)
        #expect(registers.rip == 0xfff0)
    }

    @Test(arguments: KernelUnderTest.all)
    func `the APIC timer wakes a halted vCPU`(_ candidate: KernelUnderTest) throws {
        let machine = try PlainMachine(
            candidate.start(),
            code: [
                0xc7, 0x83, 0xf0, 0x00, 0x00, 0x00, 0xff, 0x01, 0x00, 0x00,  // mov dword [rbx+0xf0], 0x1ff: on
                0xc7, 0x83, 0xe0, 0x03, 0x00, 0x00, 0x0b, 0x00, 0x00, 0x00,  // mov dword [rbx+0x3e0], 11: divide by 1
                0xc7, 0x83, 0x20, 0x03, 0x00, 0x00, 0x40, 0x00, 0x00, 0x00,  // mov dword [rbx+0x320], 0x40: one shot
                0xc7, 0x83, 0x80, 0x03, 0x00, 0x00, 0x10, 0x27, 0x00, 0x00,  // mov dword [rbx+0x380], 10000: go
                0xfb,  // sti
                0xf4,  // hlt
                0xb0, 0x02,  // mov al, 2
                0xe6, 0x80,  // out 0x80, al
                0xf4,
            ], withIRQChip: true)
        machine.setGate(vector: 0x40, handler: 0x8100)
        machine.ram.write(
            [
                0xb0, 0x01,  // mov al, 1
                0xe6, 0x80,  // out 0x80, al
                0xc7, 0x83, 0xb0, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,  // mov dword [rbx+0xb0], 0: EOI
                0x48, 0xcf,  // iretq
            ], at: 0x8100)
        try machine.setRegisters { $0.rbx = 0xfee0_0000 }
        #expect(try machine.runToPortWrite(0x80) == [1], "the handler")
        #expect(try machine.runToPortWrite(0x80) == [2], "behind HLT")
    }

    @Test(arguments: KernelUnderTest.all)
    func `an interrupt line goes through the I/O APIC to the guest`(_ candidate: KernelUnderTest) throws {
        let machine = try PlainMachine(
            candidate.start(),
            code: [
                0xc7, 0x83, 0xf0, 0x00, 0x00, 0x00, 0xff, 0x01, 0x00, 0x00,  // mov dword [rbx+0xf0], 0x1ff: on
                // The PICs are wired to the same line, and KVM starts the boot CPU with LINT0 open for them: mask it.
                0xc7, 0x83, 0x50, 0x03, 0x00, 0x00, 0x00, 0x00, 0x01, 0x00,  // mov dword [rbx+0x350], 0x10000
                0xc7, 0x01, 0x19, 0x00, 0x00, 0x00,  // mov dword [rcx], 0x19: pin 4, high half
                0xc7, 0x41, 0x10, 0x00, 0x00, 0x00, 0x00,  // mov dword [rcx+16], 0: APIC 0
                0xc7, 0x01, 0x18, 0x00, 0x00, 0x00,  // mov dword [rcx], 0x18: low half
                0xc7, 0x41, 0x10, 0x24, 0x00, 0x00, 0x00,  // mov dword [rcx+16], 0x24: vector, edge, fixed
                0xb0, 0x01,  // mov al, 1
                0xe6, 0x80,  // out 0x80, al: ready
                0xfb,  // sti
                0xf4,  // hlt
                0xf4,
            ], withIRQChip: true)
        machine.setGate(vector: 0x24, handler: 0x8100)
        machine.ram.write([0xb0, 0x24, 0xe6, 0x80, 0xf4], at: 0x8100)  // mov al, 0x24; out 0x80, al; hlt
        try machine.setRegisters {
            $0.rbx = 0xfee0_0000
            $0.rcx = 0xfec0_0000
        }
        #expect(try machine.runToPortWrite(0x80) == [1])
        try machine.kernel.call(machine.vm, .irqLine, reading: KVMIRQLevel(irq: 4, level: 1))
        try machine.kernel.call(machine.vm, .irqLine, reading: KVMIRQLevel(irq: 4, level: 0))
        #expect(try machine.runToPortWrite(0x80) == [0x24])
    }
}
