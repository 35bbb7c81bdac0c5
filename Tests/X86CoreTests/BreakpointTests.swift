// Breakpoints, RF, general detect, single-stepping and MOV SS [APM2 13.1].

import TestSupport
import Testing
import X86Core
import X86Defs

@Suite struct BreakpointTests {
    private static let data = EngineGuest.data, start = EngineGuest.code

    private func guest(_ dr7: UInt64, _ dr0: UInt64) -> EngineGuest {
        let g = EngineGuest()
        g.state.dr7 = dr7 | 0x400
        g.state.dr0 = dr0
        g.state.dr6 = 0xffff_0ff0
        return g
    }

    @Test("data breakpoints trap behind the access")
    func data() {
        // R/W 01, four bytes.
        let write = guest(1 | 1 << 16 | 3 << 18, Self.data + 8)
        let e = write.fault(code("mov eax, [rdi+8]; mov [rdi+8], eax; nop; hlt", "8b470889470890f4"))
        #expect(e?.vector == 1)
        #expect(e?.rip == Self.start + 6)
        #expect(write.processor.state.dr6 == 0xffff_0ff1)
        // R/W 11, a byte of the doubleword; the neighbours do not count.
        let access = guest(1 | 3 << 16, Self.data + 11)
        #expect(access.fault(code("mov al, [rdi+10]; mov eax, [rdi+8]; hlt", "8a470a8b4708f4"))?.rip == Self.start + 6)
        let beside = guest(1 | 3 << 16, Self.data + 12)
        #expect(beside.fault(code("mov eax, [rdi+8]; push rax; hlt", "8b470850f4")) == nil)
    }

    @Test("a string instruction stops behind the element")
    func string() {
        let g = guest(1 | 1 << 16, Self.data + 3)
        g.state.generalRegisters[1] = 8
        let e = g.fault(code("rep stosb; hlt", "f3aaf4"))
        #expect(e?.vector == 1)
        #expect(e?.rip == Self.start)
        #expect(g[1] == 4)
    }

    @Test("single-stepping traps behind every element of a string")
    func steppedString() {
        let g = guest(0, 0)
        g.state.rflags |= 0x100
        g.state.generalRegisters[1] = 3
        g.state.generalRegisters[6] = Self.data
        let bytes = code("rep lodsb; nop; hlt", "f3ac90f4")
        for left: UInt64 in [2, 1] {
            let e = g.fault(bytes)
            #expect(e?.vector == 1)
            #expect(e?.rip == Self.start)
            #expect(g[1] == left)
            for register in [1, 6] { g.state.generalRegisters[register] = g[register] }
        }
        #expect(g.fault(bytes)?.rip == Self.start + 2)
        #expect(g[1] == 0)
    }

    @Test("instruction breakpoints are faults that RF passes over; the handler sets it")
    func instruction() {
        let g = guest(1, Self.start + 1)
        let bytes = code("nop; nop; hlt", "9090f4")
        let e = g.fault(bytes)
        #expect(e?.vector == 1)
        #expect(e?.rip == Self.start + 1)
        #expect(e.map { $0.rflags & 0x1_0000 } == 0)
        g.state.rip = Self.start + 1
        g.state.rflags |= 0x1_0000
        #expect(g.fault(bytes) == nil)
        #expect(g.processor.rip == Self.start + 3)
    }

    @Test func generalDetect() {
        let g = guest(1 << 13, 0)
        let e = g.fault(code("mov rax, dr0; hlt", "0f21c0f4"))
        #expect(e?.vector == 1)
        #expect(e?.rip == Self.start)
        #expect(g.processor.state.dr6 & 1 << 13 != 0)
        #expect(g.processor.state.dr7 & 1 << 13 == 0)
    }

    @Test("MOV SS puts the trap off by one instruction")
    func stackSegment() {
        let g = guest(0, 0)
        g.state.rflags |= 0x100
        g.state.generalRegisters[0] = 0x18
        let e = g.fault(code("mov ss, eax; nop; nop; hlt", "8ed09090f4"))
        #expect(e?.vector == 1)
        #expect(e?.rip == Self.start + 3)
        #expect(g.processor.state.dr6 & 0x4000 != 0)
    }

    @Test("SYSCALL that masks TF does not trap, SYSRET that restores it does")
    func systemCalls() {
        let g = guest(0, 0)
        g.state.rflags |= 0x100
        g.state.efer |= EFER.sce
        g.state.lstar = Self.start + 0x20
        g.state.sfmask = 0x100
        g.state.star = 0x0010 << 32
        let e = g.run(code("syscall; …; nop; hlt", "0f05" + String(repeating: "90", count: 30) + "90f4"))
        #expect(e == .halt)
        #expect(g.processor.rip == Self.start + 0x22)
    }
}
