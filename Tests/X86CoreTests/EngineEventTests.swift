// Exceptions, interrupts, system calls, single-stepping, exits.

import TestSupport
import Testing
import X86Core
import X86Defs

@Suite struct EngineEventTests {
    // MARK: Exceptions and their delivery

    @Test func divideErrors() {
        let g = EngineGuest()
        g.state.generalRegisters[1] = 0
        #expect(
            g.fault(code("nop; div ecx", "90f7f1"))
                == CaughtException(
                    vector: 0, rip: EngineGuest.code + 1, rflags: 0x1_0202, rsp: g.state.generalRegisters[4], cs: 0x10))
        g.state.generalRegisters[1] = 1
        g.state.generalRegisters[2] = 1
        #expect(g.fault(code("div ecx", "f7f1"))?.vector == 0)
        g.state.generalRegisters[0] = 1 << 63
        g.state.generalRegisters[1] = ~0
        #expect(g.fault(code("cqo; idiv rcx", "489948f7f9"))?.vector == 0)
    }

    @Test func stackOfAnException() {
        // From user mode to RSP0; the frame is aligned.
        let g = EngineGuest(cpl: 3)
        let e = g.fault(code("ud2", "0f0b"))
        #expect(e?.vector == 6)
        #expect(e?.cs == 0x33)
        #expect(e?.rsp == g.state.generalRegisters[4])
        #expect(g[4] == FlatMachine.stackTop - 40)
        #expect(g.processor.cpl == 0)
        // In kernel mode the stack stays, aligned down to 16.
        let k = EngineGuest()
        k.state.generalRegisters[4] = FlatMachine.stackTop - 0x103
        #expect(k.fault(code("ud2", "0f0b"))?.rsp == FlatMachine.stackTop - 0x103)
        #expect(k[4] == FlatMachine.stackTop - 0x110 - 40)
    }

    @Test func interruptStackTable() {
        let g = EngineGuest()
        g.machine.setGate(14, ist: 2)
        g.state.generalRegisters[7] = 0x50_3000
        let e = g.fault(code("mov rax, [rdi]", "488b07"))
        #expect(e?.vector == 14)
        #expect(g[4] == FlatMachine.ist2Top - 48)
    }

    @Test func doubleFault() {
        let g = EngineGuest(cpl: 3)
        // No ring-0 stack: the page fault cannot be delivered.
        g.memory[0xa104] = FlatMachine.supervisor + 0x9000
        g.machine.setGate(8, ist: 1)
        g.state.generalRegisters[7] = 0x50_3000
        let e = g.fault(code("mov rax, [rdi]", "488b07"))
        #expect(e?.vector == 8)
        #expect(e?.errorCode == 0)
        #expect(e?.rip == EngineGuest.code)
        #expect(g.processor.state.cr2 == FlatMachine.supervisor + 0x8ff8)
    }

    @Test func tripleFault() {
        let g = EngineGuest(cpl: 3)
        g.memory[0xa104] = FlatMachine.supervisor + 0x9000
        g.state.generalRegisters[7] = 0x50_3000
        #expect(g.run(code("mov rax, [rdi]", "488b07")) == .shutdown)
        let k = EngineGuest()
        k.state.idtr.limit = 0
        #expect(k.run(code("ud2", "0f0b")) == .shutdown)
    }

    @Test func missingGates() {
        // A benign exception with an absent gate is #NP, with the gate in the error code.
        let g = EngineGuest()
        g.memory[0x9000 + 6 * 16] = g.memory[0x9000 + 6 * 16, as: UInt64.self] & ~(1 << 47)
        let e = g.fault(code("ud2", "0f0b"))
        #expect(e?.vector == 11)
        #expect(e?.errorCode == 6 * 8 + 3)
        // A contributory one becomes #DF.
        g.memory[0x9000 + 13 * 16] = g.memory[0x9000 + 13 * 16, as: UInt64.self] & ~(1 << 47)
        g.state.generalRegisters[7] = 1 << 63
        #expect(g.fault(code("mov rax, [rdi]", "488b07"))?.vector == 8)
    }

    @Test func softwareInterrupts() {
        let g = EngineGuest(cpl: 3)
        #expect(g.fault(code("int 0x80", "cd80"))?.rip == EngineGuest.code + 2)
        g.machine.setGate(0x80, dpl: 0)
        let e = g.fault(code("int 0x80", "cd80"))
        #expect(e?.vector == 13)
        #expect(e?.errorCode == 0x80 * 8 + 2)
        #expect(e?.rip == EngineGuest.code)
    }

    private static let privilegedInstructions = [
        code("hlt", "f4"), code("cli", "fa"), code("mov rax, cr0", "0f20c0"), code("wrmsr", "0f30"),
        code("invlpg [rdi]", "0f013f"), code("swapgs", "0f01f8"), code("in al, dx", "ec"), code("lgdt [rdi]", "0f0117"),
        code("wbinvd", "0f09"), code("clts", "0f06"), code("mov rax, dr7", "0f21f8"),
    ]

    @Test("privileged instructions in user mode", arguments: privilegedInstructions)
    func privileged(_ bytes: [UInt8]) {
        let e = EngineGuest(cpl: 3).fault(bytes)
        #expect(e?.vector == 13)
        #expect(e?.errorCode == 0)
    }

    // MARK: Interrupts

    /// An NMI that comes between STI and the instruction behind it waits for one instruction.
    @Test func anNMIWaitsForTheInstructionBehindSTI() {
        let g = EngineGuest()
        g.state.rflags = 2
        g.state.generalRegisters[1] = 4096
        g.state.generalRegisters[7] = EngineGuest.data
        g.memory.write(code("rep stosb; sti; nop; hlt", "f3aafb90f4"), at: 0x1_0000)
        g.processor.state = g.state
        // The string uses the slice up: it ends where the engine next looks, which is behind STI.
        g.processor.sliceInstructionCount = 100
        #expect(g.processor.run() == .interrupt)
        #expect(g.processor.rip == EngineGuest.code + 3 && g.processor.isInInterruptShadow)
        g.processor.nmiWindowRequested = true
        g.processor.interruptWindowRequested = true
        #expect(g.processor.run() == .interruptWindow)
        #expect(g.processor.rip == EngineGuest.code + 4 && !g.processor.isInInterruptShadow)
    }

    @Test func theShadowOfSTIEndsWithoutBeingAskedFor() {
        let g = EngineGuest()
        g.state.rflags = 2
        g.memory.write(code("sti; nop; cpuid", "fb900fa2"), at: 0x1_0000)
        g.processor.state = g.state
        #expect(g.machine.run() == .cpuid)
        #expect(!g.processor.isInInterruptShadow)
    }

    @Test func interruptWindowBehindSTI() {
        let g = EngineGuest()
        g.state.rflags = 2
        g.memory.write(code("nop; sti; nop; nop; hlt", "90fb9090f4"), at: 0x1_0000)
        g.processor.state = g.state
        g.processor.interruptWindowRequested = true
        #expect(!g.processor.canTakeInterrupt)
        #expect(g.machine.run() == .interruptWindow)
        // The instruction behind STI is protected.
        #expect(g.processor.rip == EngineGuest.code + 3)
        #expect(g.processor.canTakeInterrupt)
        g.processor.interruptWindowRequested = false
        g.processor.injectInterrupt(vector: 0x41)
        #expect(g.processor.hasPendingEvent)
        #expect(g.machine.run() == .halt)
        #expect(g.machine.caught()?.vector == 0x41)
        #expect(g.machine.caught()?.rip == EngineGuest.code + 3)
        #expect(g.processor.rflags & 0x200 == 0)
        #expect(!g.processor.hasPendingEvent)
    }

    @Test func haltWakesByInterrupt() {
        let g = EngineGuest()
        g.state.rflags = 2
        #expect(g.run(code("sti; hlt; inc ebx; hlt", "fbf4ffc3f4")) == .halt)
        #expect(g.processor.canTakeInterrupt)
        g.processor.injectInterrupt(vector: 0x30)
        #expect(g.machine.run() == .halt)
        #expect(g.machine.caught()?.rip == EngineGuest.code + 2)
    }

    @Test func injectedExceptionAndNMI() {
        let g = EngineGuest()
        g.memory.write(code("nop; hlt", "90f4"), at: 0x1_0000)
        g.processor.state = g.state
        g.processor.injectException(vector: 13, errorCode: 0x18)
        #expect(g.machine.run() == .halt)
        #expect(g.machine.caught()?.errorCode == 0x18)
        g.processor.state = g.state
        g.processor.injectNMI()
        #expect(g.machine.run() == .halt)
        #expect(g.machine.caught()?.vector == 2)
    }

    @Test func interruptReturn() {
        let g = EngineGuest()
        g.machine.map(0x50_0000, to: 0x1_2000, 7)
        g.machine.map(0x40_1000, to: 0x1_1000, 5)
        g.memory.write(code("int3", "cc"), at: 0x1_1000)
        let exit = g.run(
            code(
                "push 0x2b; push 0x500800; push 0x202; push 0x33; push 0x401000; iretq",
                "6a2b680008500068020200006a33680010400048cf"))
        #expect(exit == .halt)
        let e = g.machine.caught()
        #expect(e == CaughtException(vector: 3, rip: 0x40_1001, rflags: 0x202, rsp: 0x50_0800, cs: 0x33))
    }

    // MARK: System calls

    @Test func systemCall() {
        let g = EngineGuest(cpl: 3)
        g.machine.map(0x40_1000, to: 0x1_1000, 1)
        g.memory.write(
            code("pushfq; pop rbx; mov r12, cs; mov r13, ss; sysretq", "9c5b418ccc418cd5480f07"), at: 0x1_1000)
        g.state.star = 0x10 << 32 | 0x23 << 48
        g.state.lstar = 0x40_1000
        g.state.sfmask = 0x200
        g.state.rflags = 0x206
        // SYSCALL does not change the stack; here the kernel pushes onto the user's.
        let e = g.fault(code("syscall; int3", "0f05cc"))
        #expect(
            e
                == CaughtException(
                    vector: 3, rip: EngineGuest.code + 3, rflags: 0x206, rsp: g.state.generalRegisters[4], cs: 0x33))
        #expect(g[1] == EngineGuest.code + 2)
        #expect(g[11] == 0x206)
        #expect(g[3] == 6)
        #expect(g[12] == 0x10)
        #expect(g[13] == 0x18)
        g.state.efer &= ~EFER.sce
        #expect(g.fault(code("syscall", "0f05"))?.vector == 6)
    }

    // MARK: Single-stepping

    @Test func singleStep() {
        let g = EngineGuest()
        g.state.rflags = 0x302
        let e = g.fault(code("inc eax; inc eax; hlt", "ffc0ffc0f4"))
        #expect(e?.vector == 1)
        #expect(e?.rip == EngineGuest.code + 2)
        #expect((e?.rflags ?? 0) & 0x100 != 0)
        #expect(g[0] == 1)
        #expect(g.processor.state.dr6 & 0x4000 != 0)
        #expect(g.processor.rflags & 0x100 == 0)
    }

    @Test func singleStepFromPOPF() {
        // The trap comes behind the instruction that follows POPF.
        let g = EngineGuest()
        let e = g.fault(code("push 0x302; popfq; inc eax; inc eax; hlt", "68020300009dffc0ffc0f4"))
        #expect(e?.vector == 1)
        #expect(e?.rip == EngineGuest.code + 8)
        #expect(g[0] == 1)
    }

    @Test func singleStepTakenBranch() {
        let g = EngineGuest()
        g.state.rflags = 0x302
        #expect(g.fault(code("jmp l; nop; l: hlt", "eb0190f4"))?.rip == EngineGuest.code + 3)
    }

    // MARK: Exits

    @Test func portInput() {
        let g = EngineGuest()
        g.state.generalRegisters[0] = 0xffff_ffff_ffff_ff00
        g.state.generalRegisters[2] = 0x3fd
        #expect(
            g.run(code("in al, dx; mov rbx, rax; in eax, 0x80; hlt", "ec4889c3e580f4"))
                == .io(IOAccess(port: 0x3fd, byteCount: 1, write: false)))
        #expect(g.processor.rip == EngineGuest.code)
        g.processor.completeIO(value: 0x60)
        #expect(g.machine.run() == .io(IOAccess(port: 0x80, byteCount: 4, write: false)))
        #expect(g[3] == 0xffff_ffff_ffff_ff60)
        g.processor.completeIO(value: 0x8000_0001)
        #expect(g.machine.run() == .halt)
        #expect(g[0] == 0x8000_0001)
    }

    @Test func portOutput() {
        let g = EngineGuest()
        g.state.generalRegisters[0] = 0x1234_5678
        g.state.generalRegisters[2] = 0x3f8
        #expect(
            g.run(code("out dx, ax; hlt", "66eff4"))
                == .io(IOAccess(port: 0x3f8, byteCount: 2, write: true, value: 0x5678)))
        g.processor.completeIO(value: 0)
        #expect(g.machine.run() == .halt)
    }

    @Test func stringOutputAndInput() {
        let g = EngineGuest()
        g.memory.write(Array("abc".utf8), at: 0x1_2000)
        g.state.generalRegisters[6] = 0x50_0000
        g.state.generalRegisters[1] = 3
        g.state.generalRegisters[2] = 0xe9
        var seen: [UInt32] = []
        var exit = g.run(
            code("rep outsb; mov edi, 0x500100; mov ecx, 2; rep insw; hlt", "f36ebf00015000b90200000066f36df4"))
        while case .io(let access) = exit, access.write {
            seen.append(access.value)
            g.processor.completeIO(value: 0)
            exit = g.machine.run()
        }
        #expect(seen == [0x61, 0x62, 0x63])
        // Two elements are to come; who asks for one only gets the other as an exit of its own.
        #expect(exit == .io(IOAccess(port: 0xe9, byteCount: 2, write: false, elementCount: 2)))
        #expect(g.processor.completeIO(value: 0x1111))
        #expect(g.machine.run() == .io(IOAccess(port: 0xe9, byteCount: 2, write: false)))
        g.processor.completeIO(value: 0x2222)
        #expect(g.machine.run() == .halt)
        #expect(g.data(0x100) == 0x2222_1111)
        #expect(g[7] == 0x50_0104)
        #expect(g[1] == 0)
    }

    @Test func modelSpecificRegisters() {
        let g = EngineGuest()
        g.state.generalRegisters[1] = 0x1b
        g.state.generalRegisters[0] = 5
        g.state.generalRegisters[2] = 6
        #expect(g.run(code("rdmsr; mov ebx, eax; wrmsr; hlt", "0f3289c30f30f4")) == .readMSR(0x1b))
        g.processor.completeMSR(value: 0x0000_0001_fee0_0900)
        #expect(g.machine.run() == .writeMSR(0x1b, 0x0000_0001_fee0_0900))
        #expect(g[3] == 0xfee0_0900)
        g.processor.completeMSR(value: 0)
        #expect(g.machine.run() == .halt)
        // Its own registers never leave.
        g.state.generalRegisters[1] = 0xc000_0101
        #expect(g.run(code("wrmsr; swapgs; hlt", "0f300f01f8f4")) == .halt)
        #expect(g.processor.state.kernelGSBase == 0x0000_0006_0000_0005)
    }

    @Test func cpuidAndHypercall() {
        let g = EngineGuest()
        #expect(g.run(code("cpuid; vmmcall; hlt", "0fa20f01d9f4")) == .cpuid)
        #expect(g.processor.rip == EngineGuest.code + 2)
        g.processor[0] = 1
        #expect(g.machine.run() == .vmmcall)
        #expect(g.machine.run() == .halt)
        #expect(g[0] == 1)
    }

    @Test func timeSlices() {
        let g = EngineGuest()
        g.memory.write(code("l: jmp l", "ebfe"), at: 0x1_0000)
        g.processor.state = g.state
        let before = g.processor.instructionCount
        #expect(g.processor.run() == .interrupt)
        #expect(g.processor.instructionCount > before)
        #expect(g.processor.rip == EngineGuest.code)
    }

    @Test func instructionsAreCounted() {
        let g = EngineGuest()
        #expect(g.run(code("mov ecx, 1000; l: dec ecx; jnz l; hlt", "b9e8030000ffc975fcf4")) == .halt)
        #expect(g.processor.instructionCount == 2002)
    }

    // MARK: Floating-point state

    @Test func deviceNotAvailable() {
        let g = EngineGuest()
        g.state.cr0 |= CR0.ts
        let vectorInstructions = [
            code("movups xmm0, [rdi]", "0f1007"), code("pxor xmm0, xmm1", "660fefc1"),
            code("addsd xmm0, xmm1", "f20f58c1"), code("paddb mm0, mm1", "0ffcc1"),
        ]
        let others = [
            code("fld1", "d9e8"), code("fxsave [rdi]", "0fae07"), code("fwait", "9b"), code("ldmxcsr [rdi]", "0fae17"),
        ]
        for bytes in vectorInstructions + others {
            #expect(g.fault(bytes)?.vector == 7, "\(bytes.hex)")
        }
        g.state.cr0 = g.state.cr0 & ~CR0.ts | CR0.em
        for bytes in vectorInstructions {
            #expect(g.fault(bytes)?.vector == 6, "\(bytes.hex)")
        }
        #expect(g.fault(code("fld1", "d9e8"))?.vector == 7)
        // CLTS and going on.
        g.state.cr0 = g.state.cr0 & ~CR0.em | CR0.ts
        #expect(g.run(code("clts; pxor xmm0, xmm0; hlt", "0f06660fefc0f4")) == .halt)
        #expect(g.machine.caught() == nil)
    }

    @Test func withoutOSFXSR() {
        let g = EngineGuest()
        g.state.cr4 &= ~CR4.osfxsr
        #expect(g.fault(code("pxor xmm0, xmm1", "660fefc1"))?.vector == 6)
        #expect(g.run(code("paddb mm0, mm1; hlt", "0ffcc1f4")) == .halt)
        #expect(g.machine.caught() == nil)
    }

    @Test func numericExceptions() {
        let g = EngineGuest()
        g.state.mxcsr = 0x1d80  // Zero divide unmasked.
        g.state.xmm[0] = 0x3ff0_0000_0000_0000
        #expect(g.fault(code("divsd xmm0, xmm1", "f20f5ec1"))?.vector == 19)
        #expect(g.processor.state.mxcsr == 0x1d84)
        #expect(g.processor.state.xmm[0] == 0x3ff0_0000_0000_0000)
        g.state.cr4 &= ~CR4.osxmmexcpt
        #expect(g.fault(code("divsd xmm0, xmm1", "f20f5ec1"))?.vector == 6)
        // x87 reports at the next waiting instruction.
        g.state.fcw = 0x37b
        let e = g.fault(code("fld1; fldz; fdivp st(1), st; fnstsw ax; fwait", "d9e8d9eedef9dfe09b"))
        #expect(e?.vector == 16)
        #expect(e?.rip == EngineGuest.code + 8)
        #expect(g[0] & 0x80ff == 0x8084)
    }

    @Test func saveAndRestore() {
        let g = EngineGuest()
        for i in 0..<32 { g.state.xmm[i] = UInt64(i) &* 0x0101_0101_0101_0101 }
        g.state.mxcsr = 0x1fa0
        let exit = g.run(
            code(
                "fninit; fld1; fldpi; fxsave64 [rdi]; fninit; pxor xmm3, xmm3; mov dword ptr [rdi+512], 0x1f80; ldmxcsr [rdi+512]; fxrstor64 [rdi]; fxsave64 [rdi+1024]; hlt",
                "dbe3d9e8d9eb480fae07dbe3660fefdbc78700020000801f00000fae9700020000480fae0f480fae8700040000f4"))
        #expect(exit == .halt)
        #expect(g.data(0) & 0xffff_ffff_ffff == 0x00c0_3000_037f)
        #expect(g.data(24) == 0x0002_ffff_0000_1fa0)
        #expect(g.data(32) == 0xc90f_daa2_2168_c235)
        #expect(g.data(40) == 0x4000)
        #expect(g.data(48) == 0x8000_0000_0000_0000)
        #expect(g.data(160 + 48) == 6 &* 0x0101_0101_0101_0101)
        for i in 0..<52 { #expect(g.data(i * 8) == g.data(1024 + i * 8), "quadword \(i)") }
        #expect(g.processor.state.xmm[6] == 6 &* 0x0101_0101_0101_0101)
        #expect(g.fault(code("fxsave [rdi+8]", "0fae4708"))?.vector == 13)
    }

    @Test func environment() {
        let g = EngineGuest()
        let exit = g.run(
            code(
                "fninit; fldpi; fldz; fnsave [rdi]; fnstsw ax; frstor [rdi]; fstp qword ptr [rdi+256]; fstp qword ptr [rdi+264]; hlt",
                "dbe3d9ebd9eedd37dfe0dd27dd9f00010000dd9f08010000f4"))
        #expect(exit == .halt)
        #expect(g[0] & 0xffff == 0)
        #expect(g.data(0) & 0xffff == 0x37f)
        #expect(g.data(8) & 0xffff == 0x1fff)
        #expect(g.data(256) == 0)
        #expect(g.data(264) == 0x4009_21fb_5444_2d18)
    }
}
