// Eventfds between a VMM and the kernel: a guest's writes that signal one, and one that interrupts a guest
// [KVM KVM_IOEVENTFD, KVM_IRQFD].

import Glibc
import KVMABI
import TestSupport
import Testing

@Suite(.serialized) struct EventDescriptorTests {
    // MARK: What is refused

    @Test(arguments: KernelUnderTest.all)
    func `doorbells and lines want eventfds`(_ candidate: KernelUnderTest) throws {
        let machine = try PlainMachine(candidate.start(), code: [0xf4], withIRQChip: true)
        var doorbell = KVMIOEventFD()
        (doorbell.address, doorbell.byteCount, doorbell.fd) = (0x1000, 3, 0)
        #expect(throws: Errno.EINVAL) { try machine.kernel.call(machine.vm, .ioeventfd, &doorbell) }
        (doorbell.byteCount, doorbell.fd) = (4, -1)
        #expect(throws: Errno.EBADF) { try machine.kernel.call(machine.vm, .ioeventfd, &doorbell) }
        var line = KVMIRQFD()
        line.fd = .max
        #expect(throws: Errno.EBADF) { try machine.kernel.call(machine.vm, .irqfd, &line) }
        line.flags = 4
        #expect(throws: Errno.EINVAL) { try machine.kernel.call(machine.vm, .irqfd, &line) }
    }

    @Test(arguments: KernelUnderTest.all)
    func `an eventfd has one line, and a doorbell is there once`(_ candidate: KernelUnderTest) throws {
        let machine = try PlainMachine(candidate.start(), code: [0xf4], withIRQChip: true)
        let event = EventDescriptor()
        try setLine(machine, event, gsi: 4)
        #expect(throws: Errno.EBUSY) { try setLine(machine, event, gsi: 5) }
        try setDoorbell(machine, event, 0xb_8000, 4, match: 7)
        #expect(throws: Errno.EEXIST) { try setDoorbell(machine, event, 0xb_8000, 4, match: 7) }
        #expect(throws: Errno.ENOENT) { try setDoorbell(machine, event, 0xb_8000, 4, match: 8, flags: 4) }
        try setDoorbell(machine, event, 0xb_8000, 4, match: 7, flags: 4)
        #expect(throws: Errno.ENOENT) { try setDoorbell(machine, event, 0xb_8000, 4, match: 7, flags: 4) }
    }

    // MARK: From the guest

    @Test(arguments: KernelUnderTest.all)
    func `a guest's MMIO write signals and is no exit`(_ candidate: KernelUnderTest) throws {
        let machine = try PlainMachine(
            candidate.start(),
            code: [
                0x89, 0x03,  // mov [rbx], eax: matches
                0x89, 0x03,  // mov [rbx], eax: again
                0x89, 0x0b,  // mov [rbx], ecx: another value
                0x66, 0x89, 0x03,  // mov [rbx], ax: another width
                0x89, 0x4b, 0x08,  // mov [rbx+8], ecx: any value
                0x8b, 0x03,  // mov eax, [rbx]: no write
                0xf4,
            ])
        try machine.setRegisters {
            $0.rax = 0x1234_5678
            $0.rbx = 0xb_8000
            $0.rcx = 0x1234_5679
        }
        let (matching, any) = (EventDescriptor(), EventDescriptor())
        try setDoorbell(machine, matching, 0xb_8000, 4, match: 0x1234_5678)
        try setDoorbell(machine, any, 0xb_8008, 4)
        #expect(try machine.run() == .mmio)
        #expect(machine.page.mmio == .init(physicalAddress: 0xb_8000, data: 0x1234_5679, byteCount: 4, isWrite: true))
        #expect(matching.take() == 2)
        #expect(try machine.run() == .mmio)
        #expect(machine.page.mmio.byteCount == 2 && machine.page.mmio.isWrite)
        #expect(any.take() == 0)
        #expect(try machine.run() == .mmio)
        #expect(!machine.page.mmio.isWrite)
        #expect(matching.take() == 0 && any.take() == 1)
        #expect(try machine.run() == .halt)
    }

    @Test(arguments: KernelUnderTest.all)
    func `a guest's port write signals until the doorbell is taken away`(_ candidate: KernelUnderTest) throws {
        let machine = try PlainMachine(
            candidate.start(),
            code: [
                0x66, 0xef,  // out dx, ax
                0xee,  // out dx, al
                0x66, 0xef,  // out dx, ax
                0xf4,
            ])
        try machine.setRegisters {
            $0.rax = 0xbeef
            $0.rdx = 0x510
        }
        let event = EventDescriptor()
        try setDoorbell(machine, event, 0x510, 2, match: 0xbeef, flags: 2)
        #expect(try machine.runToPortWrite(0x510) == [0xef], "one byte is another width")
        #expect(event.take() == 1)
        try setDoorbell(machine, event, 0x510, 2, match: 0xbeef, flags: 2 | 4)
        #expect(try machine.runToPortWrite(0x510) == [0xef, 0xbe])
        #expect(try machine.run() == .halt)
        #expect(event.take() == 0)
    }

    // MARK: To the guest

    /// Local APIC on, LINT0 masked, pin 4 with the low half given; says 1 and waits for interrupts, and says 2 behind
    /// each. The handler of vector 0x24 says 0x24, and 0x25 behind its EOI.
    private func machineThatWaits(_ candidate: KernelUnderTest, redirection: [UInt8]) throws -> PlainMachine {
        let machine = try PlainMachine(
            candidate.start(),
            code: [
                0xc7, 0x83, 0xf0, 0x00, 0x00, 0x00, 0xff, 0x01, 0x00, 0x00,  // mov dword [rbx+0xf0], 0x1ff: on
                0xc7, 0x83, 0x50, 0x03, 0x00, 0x00, 0x00, 0x00, 0x01, 0x00,  // mov dword [rbx+0x350], 0x10000
                0xc7, 0x01, 0x19, 0x00, 0x00, 0x00,  // mov dword [rcx], 0x19: pin 4, high half
                0xc7, 0x41, 0x10, 0x00, 0x00, 0x00, 0x00,  // mov dword [rcx+16], 0: APIC 0
                0xc7, 0x01, 0x18, 0x00, 0x00, 0x00,  // mov dword [rcx], 0x18: low half
                0xc7, 0x41, 0x10,  // mov dword [rcx+16], …
            ] + redirection + [
                0xb0, 0x01,  // mov al, 1
                0xe6, 0x80,  // out 0x80, al: ready
                0xfb,  // sti
                0xf4,  // hlt: nothing comes before it
                0xfa,  // cli
                0xb0, 0x02,  // mov al, 2
                0xe6, 0x80,  // out 0x80, al
                0xeb, 0xf7,  // jmp to sti
            ], withIRQChip: true)
        machine.setGate(vector: 0x24, handler: 0x8100)
        machine.ram.write(
            [
                0xb0, 0x24, 0xe6, 0x80,  // mov al, 0x24; out 0x80, al
                0xc7, 0x83, 0xb0, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,  // mov dword [rbx+0xb0], 0: EOI
                0xb0, 0x25, 0xe6, 0x80,  // mov al, 0x25; out 0x80, al
                0x48, 0xcf,  // iretq
            ], at: 0x8100)
        try machine.setRegisters {
            $0.rbx = 0xfee0_0000
            $0.rcx = 0xfec0_0000
        }
        #expect(try machine.runToPortWrite(0x80) == [1])
        return machine
    }

    @Test(arguments: KernelUnderTest.all)
    func `an eventfd reaches the guest's handler`(_ candidate: KernelUnderTest) throws {
        let machine = try machineThatWaits(candidate, redirection: [0x24, 0x00, 0x00, 0x00])
        let event = EventDescriptor()
        try setLine(machine, event, gsi: 4)
        for _ in 0..<3 {
            event.signal()
            #expect(try machine.runToPortWrite(0x80) == [0x24])
            #expect(event.take() == 0, "the kernel has taken it")
            #expect(try machine.runToPortWrite(0x80) == [0x25])
            #expect(try machine.runToPortWrite(0x80) == [2])
        }
        try setLine(machine, event, gsi: 4, flags: 1)
        event.signal()
        #expect(event.take() == 1, "nobody takes it any more")
    }

    @Test(arguments: KernelUnderTest.all)
    func `a resampled line lasts until the guest's EOI, which is told`(_ candidate: KernelUnderTest) throws {
        // Level, vector 0x24.
        let machine = try machineThatWaits(candidate, redirection: [0x24, 0x80, 0x00, 0x00])
        let (event, end) = (EventDescriptor(), EventDescriptor())
        try setLine(machine, event, gsi: 4, flags: 2, resample: end)
        for _ in 0..<2 {
            event.signal()
            #expect(try machine.runToPortWrite(0x80) == [0x24])
            let early = end.take()
            try candidate.cancelIfKnown(early == 0 ? .unknown : .io)
            #expect(early == 0)
            #expect(try machine.runToPortWrite(0x80) == [0x25])
            #expect(end.take() == 1)
            // The line has fallen: the handler does not come again.
            #expect(try machine.runToPortWrite(0x80) == [2])
        }
        try setLine(machine, event, gsi: 4, flags: 1)
        // Somebody else's level is not ended by the EOI.
        try machine.kernel.call(machine.vm, .irqLine, reading: KVMIRQLevel(irq: 4, level: 1))
        #expect(try machine.runToPortWrite(0x80) == [0x24])
        #expect(try machine.runToPortWrite(0x80) == [0x25])
        #expect(try machine.runToPortWrite(0x80) == [0x24])
        #expect(end.take() == 0)
    }

    // MARK: Descriptors

    /// Not in parallel with anything that opens files: the numbers are the process's.
    @Test func `a line that cannot be set keeps no descriptor`() throws {
        let machine = try PlainMachine(KernelUnderTest.software.start(), code: [0xf4], withIRQChip: true)
        let (event, end) = (EventDescriptor(), EventDescriptor())
        // The end that is no eventfd, and the line that is there already.
        #expect(throws: Errno.EINVAL) { try setLine(machine, event, gsi: 4, flags: 2, resampleDescriptor: 0) }
        try setLine(machine, event, gsi: 4, flags: 2, resample: end)
        #expect(throws: Errno.EBUSY) { try setLine(machine, event, gsi: 4, flags: 2, resample: end) }
        #expect(copies(of: event) == 2)
        #expect(copies(of: end) == 2)
        try setLine(machine, event, gsi: 4, flags: 1)
        #expect(copies(of: event) == 1)
        #expect(copies(of: end) == 1)
    }

    /// Descriptors of this process for the same eventfd, by the number that the kernel gave it.
    private func copies(of event: EventDescriptor) -> Int {
        guard let identity = identity(event.rawValue) else { return 0 }
        return (0..<Int32(4096)).count { self.identity($0) == identity }
    }

    private func identity(_ descriptor: Int32) -> String? {
        let file = open("/proc/self/fdinfo/\(descriptor)", O_RDONLY | O_CLOEXEC)
        if file < 0 { return nil }
        defer { close(file) }
        var text = [UInt8](repeating: 0, count: 512)
        let count = max(0, read(file, &text, text.count))
        let lines = String(decoding: text.prefix(count), as: UTF8.self).split(separator: "\n")
        return lines.first { $0.hasPrefix("eventfd-id:") }.map(String.init)
    }

    // MARK: Requests

    private func setDoorbell(
        _ machine: PlainMachine, _ event: EventDescriptor, _ address: UInt64, _ byteCount: UInt32, match: UInt64? = nil,
        flags: UInt32 = 0
    ) throws(Errno) {
        var doorbell = KVMIOEventFD()
        (doorbell.address, doorbell.byteCount, doorbell.fd) = (address, byteCount, event.rawValue)
        doorbell.flags = flags | (match == nil ? 0 : 1)
        doorbell.dataMatch = match ?? 0
        try machine.kernel.call(machine.vm, .ioeventfd, &doorbell)
    }

    private func setLine(
        _ machine: PlainMachine, _ event: EventDescriptor, gsi: UInt32, flags: UInt32 = 0,
        resample: EventDescriptor? = nil, resampleDescriptor: Int32? = nil
    ) throws(Errno) {
        var line = KVMIRQFD()
        (line.fd, line.gsi, line.flags) = (UInt32(bitPattern: event.rawValue), gsi, flags)
        line.resampleFD = UInt32(bitPattern: resample?.rawValue ?? resampleDescriptor ?? 0)
        try machine.kernel.call(machine.vm, .irqfd, &line)
    }
}
