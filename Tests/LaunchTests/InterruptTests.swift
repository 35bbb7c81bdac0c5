// Local APIC, I/O APIC and kvmclock, reached as an SNP guest reaches them: through its GHCB.

import KVMABI
import SEVABI
import SoftwareKVM
import Testing

@Suite struct InterruptTests {
    /// A guest whose local APIC is in x2APIC mode and software-enabled.
    private func x2apicGuest() throws -> GHCBGuest {
        let guest = try GHCBGuest()
        #expect(guest.readMSR(0x1b) == 0xfee0_0900)
        #expect(guest.readMSR(0x802) == nil)
        #expect(guest.writeMSR(0x1b, 0xfee0_0d00))
        #expect(guest.writeMSR(0x80f, 0x1ff))
        return guest
    }

    @Test func modes() throws {
        let guest = try x2apicGuest()
        #expect(guest.readMSR(0x802) == 0)
        #expect(guest.readMSR(0x803) == 0x0005_0014)
        #expect(guest.readMSR(0x80d) == 1)
        #expect(guest.readMSR(0x80e) == nil)
        // Back to xAPIC only by way of "disabled"; x2APIC without enable never.
        #expect(!guest.writeMSR(0x1b, 0xfee0_0900))
        #expect(!guest.writeMSR(0x1b, 0xfee0_0500))
        #expect(guest.writeMSR(0x1b, 0xfee0_0100))
        #expect(guest.writeMSR(0x1b, 0xfee0_0900))
        #expect(guest.readMMIO(0xfee0_0030) == 0x0005_0014)
    }

    @Test func xapicByMMIO() throws {
        let guest = try GHCBGuest()
        #expect(guest.readMMIO(0xfee0_0020) == 0)
        // KVM's boot processor starts in virtual-wire mode.
        #expect(guest.readMMIO(0xfee0_0350) == 0x700)
        guest.writeMMIO(0xfee0_00f0, 0x1ff)
        guest.writeMMIO(0xfee0_0310, 0)
        guest.writeMMIO(0xfee0_0300, 0x4_0055)
        #expect(guest.vcpu.takeInterrupt() == 0x55)
        #expect(guest.readMMIO(0xfee0_0120) == 1 << 21)
        guest.writeMMIO(0xfee0_00b0, 0)
        #expect(guest.readMMIO(0xfee0_0120) == 0)
    }

    @Test func priorities() throws {
        let guest = try x2apicGuest()
        // Self-IPIs 0x41 and 0x61: the higher class first, the other after EOI.
        #expect(guest.writeMSR(0x83f, 0x41))
        #expect(guest.writeMSR(0x83f, 0x61))
        #expect(guest.vcpu.takeInterrupt() == 0x61)
        #expect(guest.vcpu.takeInterrupt() == nil)
        #expect(guest.readMSR(0x80a) == 0x60)
        #expect(guest.writeMSR(0x80b, 0))
        #expect(guest.vcpu.takeInterrupt() == 0x41)
        #expect(guest.writeMSR(0x80b, 0))
        // TPR holds a class back.
        #expect(guest.writeMSR(0x808, 0x50))
        #expect(guest.writeMSR(0x83f, 0x51))
        #expect(guest.vcpu.takeInterrupt() == nil)
        #expect(guest.writeMSR(0x808, 0))
        #expect(guest.vcpu.takeInterrupt() == 0x51)
        #expect(!guest.writeMSR(0x80b, 1))
    }

    @Test func oneShotTimer() throws {
        let guest = try x2apicGuest()
        #expect(guest.writeMSR(0x83e, 0xb))
        #expect(guest.writeMSR(0x832, 0xec))
        #expect(guest.writeMSR(0x838, 1))
        // One bus cycle is over by the time anyone looks.
        while guest.readMSR(0x839) != 0 {}
        #expect(guest.vcpu.takeInterrupt() == 0xec)
        #expect(guest.writeMSR(0x80b, 0))
        #expect(guest.vcpu.takeInterrupt() == nil)
        // Far away: counts down, does not fire.
        #expect(guest.writeMSR(0x838, 0xffff_ffff))
        let first = guest.readMSR(0x839) ?? 0
        let second = guest.readMSR(0x839) ?? 0
        #expect(first > second)
        #expect(second > 0)
        #expect(guest.vcpu.takeInterrupt() == nil)
        #expect(guest.writeMSR(0x838, 0))
        #expect(guest.readMSR(0x839) == 0)
        // Masked: nothing arrives.
        #expect(guest.writeMSR(0x832, 0x100ec))
        #expect(guest.writeMSR(0x838, 1))
        while guest.readMSR(0x839) != 0 {}
        #expect(guest.vcpu.takeInterrupt() == nil)
    }

    private func writeIOAPIC(_ guest: GHCBGuest, _ register: UInt32, _ value: UInt32) {
        guest.writeMMIO(0xfec0_0000, register)
        guest.writeMMIO(0xfec0_0010, value)
    }

    private func readIOAPIC(_ guest: GHCBGuest, _ register: UInt32) -> UInt32? {
        guest.writeMMIO(0xfec0_0000, register)
        return guest.readMMIO(0xfec0_0010)
    }

    private func setLine(_ guest: GHCBGuest, _ gsi: UInt32, _ level: UInt32) throws {
        try guest.vm.kernel.call(guest.vm.vm, .irqLine, reading: KVMIRQLevel(irq: gsi, level: level))
    }

    /// The 8259 pair hears lines 0 to 15 too, until it is masked.
    private func maskPIC(_ guest: GHCBGuest) {
        for port: UInt64 in [0x21, 0xa1] {
            #expect(guest.event(.ioio, info1: port << 16 | 1 << 4) { $0[.rax] = 0xff } == .resume)
        }
    }

    @Test func unprogrammedPICDeliversItsResetVector() throws {
        let guest = try x2apicGuest()
        try setLine(guest, 4, 1)
        #expect(guest.vcpu.takeInterrupt() == 4)
    }

    @Test func routingWithoutThePIC() throws {
        let guest = try x2apicGuest()
        var routing: [UInt8] = UInt32(1).kernelBytes + UInt32(0).kernelBytes
        // GSI 4, type IRQCHIP, no flags, chip 2 (I/O APIC), pin 4.
        for word: UInt32 in [4, 1, 0, 0, 2, 4, 0, 0, 0, 0, 0, 0] { routing += word.kernelBytes }
        try guest.vm.kernel.call(guest.vm.vm, .setGSIRouting, bytes: &routing)
        writeIOAPIC(guest, 0x18, 0x34)
        try setLine(guest, 4, 1)
        #expect(guest.vcpu.takeInterrupt() == 0x34)
        routing[8 + 20] = 24
        #expect(errno { try guest.vm.kernel.call(guest.vm.vm, .setGSIRouting, bytes: &routing) } == .EINVAL)
    }

    @Test func ioapicEdge() throws {
        let guest = try x2apicGuest()
        maskPIC(guest)
        #expect(readIOAPIC(guest, 1) == 0x0017_0011)
        #expect(readIOAPIC(guest, 0x10) == 0x10000)
        writeIOAPIC(guest, 0x18, 0x34)
        writeIOAPIC(guest, 0x19, 0)
        try setLine(guest, 4, 1)
        #expect(guest.vcpu.takeInterrupt() == 0x34)
        #expect(guest.writeMSR(0x80b, 0))
        // Still high: no second edge.
        try setLine(guest, 4, 1)
        #expect(guest.vcpu.takeInterrupt() == nil)
        try setLine(guest, 4, 0)
        try setLine(guest, 4, 1)
        #expect(guest.vcpu.takeInterrupt() == 0x34)
    }

    @Test func ioapicLevel() throws {
        let guest = try x2apicGuest()
        writeIOAPIC(guest, 0x10 + 2 * 20, 0x8000 | 0x45)
        try setLine(guest, 20, 1)
        #expect(guest.vcpu.takeInterrupt() == 0x45)
        #expect(readIOAPIC(guest, 0x10 + 2 * 20) == 0xc045)
        #expect(guest.vcpu.takeInterrupt() == nil)
        // EOI while the line is up: again.
        #expect(guest.writeMSR(0x80b, 0))
        #expect(guest.vcpu.takeInterrupt() == 0x45)
        try setLine(guest, 20, 0)
        #expect(guest.writeMSR(0x80b, 0))
        #expect(guest.vcpu.takeInterrupt() == nil)
        #expect(readIOAPIC(guest, 0x10 + 2 * 20) == 0x8045)
        // Masked, raised, unmasked.
        writeIOAPIC(guest, 0x10 + 2 * 20, 0x1_8045)
        try setLine(guest, 20, 1)
        #expect(guest.vcpu.takeInterrupt() == nil)
        writeIOAPIC(guest, 0x10 + 2 * 20, 0x8045)
        #expect(guest.vcpu.takeInterrupt() == 0x45)
    }

    @Test func picInVirtualWireMode() throws {
        let guest = try GHCBGuest()
        func out(_ port: UInt64, _ value: UInt64) {
            #expect(guest.event(.ioio, info1: port << 16 | 1 << 4) { $0[.rax] = value } == .resume)
        }
        for (port, value): (UInt64, UInt64) in [
            (0x20, 0x11), (0x21, 0x30), (0x21, 4), (0x21, 1), (0xa0, 0x11), (0xa1, 0x38), (0xa1, 2), (0xa1, 1),
            (0x21, 0xfb & 0xef), (0xa1, 0xfe),
        ] {
            out(port, value)
        }
        try setLine(guest, 4, 1)
        #expect(guest.vcpu.takeInterrupt() == 0x34)
        out(0x20, 0x20)
        try setLine(guest, 8, 1)
        #expect(guest.vcpu.takeInterrupt() == 0x38)
        out(0xa0, 0x20)
        out(0x20, 0x20)
        #expect(guest.vcpu.takeInterrupt() == nil)
    }

    @Test func messageSignalled() throws {
        let guest = try x2apicGuest()
        var message = KVMMSI()
        message.addressLow = 0xfee0_0000
        message.data = 0x77
        #expect(try guest.vm.kernel.call(guest.vm.vm, .signalMSI, reading: message) == 1)
        #expect(guest.vcpu.takeInterrupt() == 0x77)
        message.addressLow = 0xfee0_5000
        #expect(try guest.vm.kernel.call(guest.vm.vm, .signalMSI, reading: message) == 0)
    }

    @Test func lapicState() throws {
        let guest = try x2apicGuest()
        let kernel = guest.vm.kernel
        #expect(guest.writeMSR(0x83f, 0x51))
        var state = KVMLAPICState()
        try kernel.call(guest.vm.vcpu, .getLAPIC, &state)
        #expect(state[offset: 0x220] == 1 << 17)
        #expect(state[offset: 0xf0] == 0x1ff)
        state[offset: 0x220] = 0
        try kernel.call(guest.vm.vcpu, .setLAPIC, reading: state)
        #expect(guest.vcpu.takeInterrupt() == nil)
    }

    @Test func clockPage() throws {
        let guest = try GHCBGuest()
        #expect(guest.writeMSR(0x4b56_4d01, 0x3000 | 1))
        let page = guest.page
        #expect(page.load(at: 0x3000, as: UInt32.self) == 2)
        #expect(page.load(at: 0x3018, as: UInt32.self) == 1 << 31)
        #expect(page.load(at: 0x301c, as: UInt8.self) == 1)
        #expect(page.load(at: 0x301d, as: UInt8.self) == 1)
        let first = page.load(at: 0x3010, as: UInt64.self)
        #expect(guest.writeMSR(0x4b56_4d01, 0x3000 | 1))
        #expect(page.load(at: 0x3000, as: UInt32.self) == 4)
        #expect(page.load(at: 0x3010, as: UInt64.self) >= first)
        #expect(guest.writeMSR(0x4b56_4d00, 0x3100))
        #expect(page.load(at: 0x3100, as: UInt32.self) == 2)
        #expect(page.load(at: 0x3104, as: UInt32.self) > 1_700_000_000)
        // Nowhere: ignored, as the kernel does.
        #expect(guest.writeMSR(0x4b56_4d01, 0x7000_0000_0001))
    }
}
