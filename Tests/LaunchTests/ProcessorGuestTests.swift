// KVM_RUN on the software processor: exits, memory behind the guest's back, interrupts, immediate_exit.

import Dispatch
import KVMABI
import SEVABI
import SoftwareKVM
import Testing

@Suite struct ProcessorGuestTests {
    // MARK: SNP

    @Test func terminationByTheMSR() throws {
        let guest = try ProcessorGuest(snp: true, code: Code.vmgexit(msr: 0x02_1100))
        #expect(guest.run() == .success(.systemEvent))
        #expect(guest.runPage.systemEvent == RunPage.SystemEvent(type: .sevTermination, data: [0x02_1100]))
    }

    @Test func triplefault() throws {
        // ud2 with an IDT limit of zero.
        let guest = try ProcessorGuest(
            snp: true, code: [0x0f, 0x01, 0x1c, 0x25, 0x00, 0x80, 0x00, 0x00, 0x0f, 0x0b],
            data: [(0x8000, [UInt8](repeating: 0, count: 10))])
        #expect(guest.run() == .success(.shutdown))
    }

    @Test func plaintextIsWhatTheGuestReads() throws {
        // The termination reason is the guest's own byte: low half of the MSR from memory.
        let value: UInt64 = 0x77_1100
        let code: [UInt8] =
            Code.load(0x8000) + [0xb9, 0x30, 0x01, 0x01, 0xc0, 0x31, 0xd2, 0x0f, 0x30, 0xf3, 0x0f, 0x01, 0xd9]
        let guest = try ProcessorGuest(snp: true, code: code, data: [(0x8000, value.kernelBytes)])
        #expect(guest.run() == .success(.systemEvent))
        #expect(guest.runPage.systemEvent.data == [value])
    }

    @Test func swappedPagesAreNeverRead() throws {
        let code: [UInt8] =
            Code.load(0x8000) + [0xb9, 0x30, 0x01, 0x01, 0xc0, 0x31, 0xd2, 0x0f, 0x30, 0xf3, 0x0f, 0x01, 0xd9]
        let guest = try ProcessorGuest(
            snp: true, code: code,
            data: [(0x8000, UInt64(0x77_1100).kernelBytes), (0x9000, UInt64(0x66_1100).kernelBytes)])
        guest.vm.kernel.swapPages(8, 9, in: guest.vm.memfd)
        #expect(guest.run() == .failure(.EFAULT))
        #expect(guest.runPage.exitReason == .memoryFault)
        #expect(guest.runPage.memoryFault.gpa == 0x8000)
        // Put back, the guest goes on.
        guest.vm.kernel.swapPages(8, 9, in: guest.vm.memfd)
        #expect(guest.run() == .success(.systemEvent))
        #expect(guest.runPage.systemEvent.data == [0x77_1100])
    }

    @Test func aReplacedPageIsNotValidated() throws {
        let guest = try ProcessorGuest(snp: true, code: Code.load(0x8000) + Code.vmgexit(msr: 0x100))
        // The host takes the page away; the next one at this address was never accepted: #VC 0x404, and no handler.
        try guest.vm.kernel.punchHole(guest.vm.memfd, offset: 8 * 4096, byteCount: 4096)
        #expect(guest.run() == .success(.shutdown))
    }

    @Test func attributeChangedBehindTheGuest() throws {
        let guest = try ProcessorGuest(snp: true, code: Code.load(0x8000) + Code.vmgexit(msr: 0x100))
        try guest.vm.setPrivate(0x8000, 4096, false)
        #expect(guest.run() == .failure(.EFAULT))
        #expect(guest.runPage.memoryFault == RunPage.MemoryFault(flags: 8, gpa: 0x8000, byteCount: 4096))
        try guest.vm.setPrivate(0x8000, 4096)
        #expect(guest.run() == .success(.systemEvent))
    }

    @Test func sharedMemoryIsTheVMMs() throws {
        // Reads a shared page, adds one, writes it back.
        let code = Code.load(0x8000) + [0x48, 0xff, 0xc0] + Code.store(0x8008) + Code.vmgexit(msr: 0x100)
        let guest = try ProcessorGuest(snp: true, code: code, sharedRange: 0x8000..<0x9000)
        guest.vm.shared?.store(0x1234 as UInt64, at: 0x8000)
        #expect(guest.run() == .success(.systemEvent))
        #expect(guest.vm.shared?.load(at: 0x8008, as: UInt64.self) == 0x1235)
    }

    @Test func privateStoresDoNotReachTheVMM() throws {
        let code = [0x48, 0xc7, 0xc0, 0x78, 0x56, 0x34, 0x12] + Code.store(0x8000) + Code.vmgexit(msr: 0x100)
        let guest = try ProcessorGuest(snp: true, code: code)
        #expect(guest.run() == .success(.systemEvent))
        #expect(guest.vm.shared?.load(at: 0x8000, as: UInt64.self) == 0)
        // Nor does the page show it on the memory bus.
        let page = try #require(guest.vm.kernel.systemAddress(ofPage: 8, in: guest.vm.memfd))
        let memory = try guest.vm.kernel.open(.memory)
        let view = try guest.vm.kernel.map(memory, offset: Int64(page.rawValue), byteCount: 4096)
        #expect(view.load(at: 0, as: UInt64.self) != 0x1234_5678)
    }

    @Test func pageStateChangeAndBack() throws {
        let code =
            Code.vmgexit(msr: 2 << 52 | 0x8000 | 0x014) + Code.vmgexit(msr: 1 << 52 | 0x8000 | 0x014)
            + Code.vmgexit(msr: 0x100)
        let guest = try ProcessorGuest(snp: true, code: code)
        #expect(guest.run() == .success(.hypercall))
        #expect(guest.runPage.hypercall.arguments[0] == 0x8000)
        try guest.vm.setPrivate(0x8000, 4096, false)
        #expect(guest.run() == .success(.hypercall))
        try guest.vm.setPrivate(0x8000, 4096)
        #expect(guest.run() == .success(.systemEvent))
    }

    @Test func anUnlaunchedVCPUDoesNotEnter() throws {
        let vm = try TestVM(readyForLaunch: true)
        try vm.kernel.call(vm.vcpu, .run)
        #expect(vm.runPage?.exitReason == .failEntry)
    }

    // MARK: Plain

    @Test func portsAndMMIO() throws {
        // in al, 0x61 is the kernel's without a PIT? No PIT: the VMM's. out 0x80, al; mov eax, [0x200000 → no memory].
        let code: [UInt8] = [0xe4, 0x42, 0xe6, 0x80] + Code.halt
        let guest = try ProcessorGuest(snp: false, code: code)
        #expect(guest.run() == .success(.io))
        #expect(guest.runPage.portIO == RunPage.PortIO(isWrite: false, size: 1, port: 0x42))
        guest.runPage.setPortData([0x5a], guest.runPage.portIO)
        #expect(guest.run() == .success(.io))
        #expect(guest.runPage.portIO == RunPage.PortIO(isWrite: true, size: 1, port: 0x80))
        #expect(guest.runPage.portData(guest.runPage.portIO) == [0x5a])
    }

    @Test func memoryThatTheVMMNeverMapped() throws {
        let guest = try ProcessorGuest(snp: false, code: Code.load(0x10_0000) + Code.halt)
        var region = KVMUserspaceMemoryRegion2()
        region.slot = 5
        region.guestPhysicalAddress = 0x10_0000
        region.memoryByteCount = 4096
        region.userspaceAddress = 0x1000
        try guest.vm.kernel.call(guest.vm.vm, .setUserMemoryRegion2, reading: region)
        #expect(guest.run() == .failure(.EFAULT))
    }

    @Test func immediateExit() throws {
        let guest = try ProcessorGuest(snp: false, code: Code.spin)
        guest.runPage.immediateExit = true
        #expect(guest.run() == .failure(.EINTR))
        // Nothing was entered, so there is no exit to tell of: the last one's reason stays.
        #expect(guest.runPage.exitReason == .unknown)
    }

    // Threads of their own: the test's thread is inside KVM_RUN, and may be the only one that runs tasks.

    @Test func anotherThreadStopsASpinningGuest() throws {
        let guest = try ProcessorGuest(snp: false, code: Code.spin)
        let page = guest.runPage
        DispatchQueue.global().async { page.immediateExit = true }
        #expect(guest.run() == .failure(.EINTR))
    }

    @Test func haltEndsWithAnInterrupt() throws {
        // sti; hlt; then out 0x80, al. The IDT entry 0x34 is at 0x6000 + 0x340 and points to an iretq at 0x10100.
        var code: [UInt8] = [0x0f, 0x01, 0x1c, 0x25, 0x00, 0x70, 0x00, 0x00]  // lidt [0x7000]
        // Local APIC on, LVT0 masked, by xAPIC MMIO through rbx.
        for (register, value): (UInt32, UInt32) in [(0xf0, 0x1ff), (0x350, 0x10000)] {
            code += [0xbb] + (0x1ff000 + register).kernelBytes + [0xc7, 0x03] + value.kernelBytes
        }
        code += [0xfb, 0xf4, 0xe6, 0x80] + Code.halt
        var gate = [UInt8](repeating: 0, count: 16)
        gate.replaceSubrange(0..<8, with: [0x00, 0x01, 0x10, 0x00, 0x00, 0x8e, 0x01, 0x00])
        let descriptors: [UInt8] = [
            0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0, 0, 0, 0x9b, 0xaf, 0, 0xff, 0xff, 0, 0, 0,
            0x93,
            0xcf, 0,
        ]
        // The last 4 KiB of the mapped 2 MiB is the local APIC.
        let apicPage: UInt64 = 0xfee0_0000 | 0x13
        let guest = try ProcessorGuest(
            snp: false, code: [0x0f, 0x01, 0x14, 0x25, 0x10, 0x70, 0x00, 0x00] + code,
            data: [
                (0x1_0100, [0x48, 0xcf]), (0x6340, gate),
                (0x7000, UInt16(0xfff).kernelBytes + UInt64(0x6000).kernelBytes),
                (0x7010, UInt16(31).kernelBytes + UInt64(0x7020).kernelBytes), (0x7020, descriptors),
                (0x5000 + 8 * 511, apicPage.kernelBytes),
            ])
        let kernel = guest.vm.kernel
        let vm = guest.vm.vm
        var message = KVMMSI()
        message.addressLow = 0xfee0_0000
        message.data = 0x34
        DispatchQueue.global().async { [message] in
            // Dropped until the local APIC is on; then it arrives.
            while (try? kernel.call(vm, .signalMSI, reading: message)) == 0 {}
        }
        #expect(guest.run() == .success(.io))
        #expect(guest.runPage.portIO.port == 0x80)
    }

    @Test func pageTableInReadOnlyMemory() throws {
        // The walk sets no accessed bit where a slot forbids stores, and goes on.
        let guest = try ProcessorGuest(snp: false, code: Code.report)
        let kernel = guest.vm.kernel
        let table = try kernel.map(.anonymous, offset: 0, byteCount: 4096)
        table.store(0x3003 as UInt64, at: 0)
        try kernel.call(
            guest.vm.vm, .setUserMemoryRegion,
            reading: KVMUserspaceMemoryRegion(
                slot: 7, flags: KVMUserspaceMemoryRegion.readOnly, guestPhysicalAddress: 0x20_0000,
                memoryByteCount: 4096, userspaceAddress: table.address))
        var sregs = KVMSpecialRegisters()
        try kernel.call(guest.vm.vcpu, .getSpecialRegisters, &sregs)
        sregs.cr3 = 0x20_0000
        try kernel.call(guest.vm.vcpu, .setSpecialRegisters, reading: sregs)
        #expect(guest.run() == .success(.io))
        #expect(table.load(at: 0, as: UInt64.self) == 0x3003)
    }
}
