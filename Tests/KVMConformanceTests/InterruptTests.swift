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
