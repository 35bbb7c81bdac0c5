// Accesses to devices that are more than one: wide operands, operands across pages, stacks, string instructions with a
// device on both sides. The hypervisor sees pieces of at most 8 bytes, as from KVM.

import Testing
import X86Core

@Suite struct DeviceAccessTests {
    private static let device = EngineGuest.device, gpa = EngineGuest.deviceGPA

    private func load(_ offset: UInt64, _ byteCount: Int) -> VMExit {
        .mmio(gpa: Self.gpa + offset, byteCount: byteCount, write: false, value: 0)
    }
    private func store(_ offset: UInt64, _ byteCount: Int, _ value: UInt64) -> VMExit {
        .mmio(gpa: Self.gpa + offset, byteCount: byteCount, write: true, value: value)
    }

    @Test func sixteenBytes() {
        let g = EngineGuest()
        g.state.generalRegisters[7] = Self.device + 0x100
        #expect(g.run(code("movups xmm0, [rdi]; movups [rdi+32], xmm0; hlt", "0f10070f114720f4")) == load(0x100, 8))
        g.processor.completeMMIO(value: 0x1111_2222_3333_4444)
        #expect(g.machine.run() == load(0x108, 8))
        #expect(g.processor.rip == EngineGuest.code)
        g.processor.completeMMIO(value: 0x5555_6666_7777_8888)
        #expect(g.machine.run() == store(0x120, 8, 0x1111_2222_3333_4444))
        #expect(g.machine.run() == store(0x128, 8, 0x5555_6666_7777_8888))
        #expect(g.machine.run() == .halt)
    }

    @Test("two bytes of memory, two of the device behind it")
    func acrossPages() {
        let g = EngineGuest()
        // The page behind the last one of data.
        g.machine.map(EngineGuest.data + 0x3000, to: Self.gpa, 3 | FlatMachine.noExecute)
        g.state.generalRegisters[7] = EngineGuest.data + 0x2ffe
        g.setData(0x2ff8, 0xbbaa_0000_0000_0000)
        #expect(g.run(code("add dword ptr [rdi], 1; hlt", "830701f4")) == load(0, 2))
        g.processor.completeMMIO(value: 0xddcc)
        #expect(g.machine.run() == store(0, 2, 0xddcc))
        #expect(g.machine.run() == .halt)
        #expect(g.data(0x2ff8) >> 48 == 0xbbab)
    }

    @Test("a stack in a device")
    func stack() {
        let g = EngineGuest()
        g.state.generalRegisters[4] = Self.device + 0x1000
        g.state.generalRegisters[5] = 0x7788
        #expect(
            g.run(code("xchg r8, rsp; xchg r8, rsp; enter 0x20, 0; xchg r8, rsp; hlt", "4987e04987e0c82000004987e0f4"))
                == store(0xff8, 8, 0x7788))
        #expect(g.machine.run() == .halt)
        #expect(g.processor.rip == EngineGuest.code + 14)
        #expect(g[8] == Self.device + 0x1000 - 0x28)
        #expect(g[5] == Self.device + 0xff8)
        #expect(g[4] == 0)
    }

    @Test("REPE CMPS between two places of a device")
    func compare() {
        let g = EngineGuest()
        g.state.generalRegisters[6] = Self.device
        g.state.generalRegisters[7] = Self.device + 0x100
        g.state.generalRegisters[1] = 5
        #expect(g.run(code("nop; repe cmpsd; hlt", "90f3a7f4")) == load(0, 4))
        for (element, right) in [(UInt64(0), UInt64(7)), (1, 8)] {
            if element > 0 { #expect(g.machine.run() == load(element * 4, 4)) }
            g.processor.completeMMIO(value: 7)
            #expect(g.machine.run() == load(0x100 + element * 4, 4))
            g.processor.completeMMIO(value: right)
        }
        #expect(g.machine.run() == .halt)
        #expect(g[1] == 3)
        #expect(g[6] == Self.device + 8)
    }

    @Test("REP INS into a device")
    func input() {
        let g = EngineGuest()
        g.state.generalRegisters[7] = Self.device + 0x10
        g.state.generalRegisters[2] = 0xe0
        g.state.generalRegisters[1] = 2
        let port = VMExit.io(IOAccess(port: 0xe0, byteCount: 1, write: false, value: 0))
        let first = VMExit.io(IOAccess(port: 0xe0, byteCount: 1, write: false, value: 0, elementCount: 2))
        #expect(g.run(code("nop; rep insb; hlt", "90f36cf4")) == first)
        g.processor.completeIO(value: 0x99)
        #expect(g.machine.run() == store(0x10, 1, 0x99))
        #expect(g.machine.run() == port)
        g.processor.completeIO(value: 0x98)
        #expect(g.machine.run() == store(0x11, 1, 0x98))
        #expect(g.machine.run() == .halt)
        #expect(g[1] == 0)
    }

    @Test("a store that the kernel's device takes ends the slice: it may have raised an interrupt")
    func localStoreEndsTheSlice() {
        let g = EngineGuest()
        g.state.generalRegisters[7] = Self.device
        g.memory.localWrites[Self.gpa + 0xb0] = 0
        g.memory.write(code("mov [rdi+0xb0], eax; nop; hlt", "8987b000000090f4"), at: 0x1_0000)
        g.processor.state = g.state
        #expect(g.processor.run() == .interrupt)
        #expect(g.processor.rip == EngineGuest.code + 6)
        #expect(g.processor.run() == .halt)
    }
}
