// Single-stepping over instructions that leave for the hypervisor: #DB follows when the exit is over.

import Testing
import X86Core

@Suite struct SteppedExitTests {
    private func stepped(_ bytes: [UInt8], interruptFlag: Bool = false) -> (EngineGuest, VMExit) {
        let g = EngineGuest()
        g.state.rflags = interruptFlag ? 0x302 : 0x102
        g.state.dr6 = 0xffff_0ff0
        return (g, g.run(bytes))
    }

    private func expectTrap(_ g: EngineGuest, at rip: UInt64) {
        #expect(g.machine.run() == .halt)
        let e = g.machine.caught()
        #expect(e?.vector == 1)
        #expect(e?.rip == rip)
        #expect(g.processor.state.dr6 == 0xffff_4ff0)
    }

    @Test func cpuid() {
        let (g, exit) = stepped(code("cpuid; hlt", "0fa2f4"))
        #expect(exit == .cpuid)
        // Neither an interrupt nor another event comes between.
        #expect(g.processor.hasPendingEvent)
        #expect(!g.processor.canTakeInterrupt)
        expectTrap(g, at: EngineGuest.code + 2)
    }

    @Test func foreignMSR() {
        let g = EngineGuest()
        g.state.rflags = 0x102
        g.state.dr6 = 0xffff_0ff0
        g.state.generalRegisters[1] = 0x4b56_4d01
        #expect(g.run(code("rdmsr; hlt", "0f32f4")) == .readMSR(0x4b56_4d01))
        g.processor.completeMSR(value: 5)
        expectTrap(g, at: EngineGuest.code + 2)
        #expect(g.machine.run() == .interrupt || g[0] == 5)
    }

    @Test func deviceStore() {
        let g = EngineGuest()
        g.state.rflags = 0x102
        g.state.dr6 = 0xffff_0ff0
        g.state.generalRegisters[7] = EngineGuest.device
        #expect(
            g.run(code("mov [rdi], al; hlt", "8807f4"))
                == .mmio(gpa: EngineGuest.deviceGPA, byteCount: 1, write: true, value: 0))
        expectTrap(g, at: EngineGuest.code + 2)
    }

    @Test("HLT does not sleep: the trap wakes it")
    func halt() {
        let (g, exit) = stepped(code("hlt", "f4"), interruptFlag: true)
        #expect(exit == .halt)
        let e = g.machine.caught()
        #expect(e?.vector == 1)
        #expect(e?.rip == EngineGuest.code + 1)
    }

    @Test("an NMI that waits for IRET is seen right behind it")
    func window() {
        let g = EngineGuest()
        // A handler that returns at once, at the stub of vector 2.
        g.memory.write([0x48, 0xcf], at: 0xb020)
        g.state.rip = EngineGuest.code
        g.memory.write(code("nop; nop; hlt", "9090f4"), at: 0x1_0000)
        g.processor.state = g.state
        g.processor.injectNMI()
        g.processor.nmiWindowRequested = true
        #expect(g.processor.nmiBlocked)
        #expect(g.processor.run() == .interrupt)
        #expect(!g.processor.nmiBlocked)
        #expect(g.processor.rip == EngineGuest.code)
    }
}
