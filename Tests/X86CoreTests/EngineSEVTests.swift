// SEV and SEV-ES without SNP: a C-bit, perhaps encrypted state, no page instructions [APM2 15.34, 15.35].

import TestSupport
import Testing
import X86Core
import X86Defs

@Suite struct EngineSEVTests {
    private func guest(encryptedState: Bool = false) -> EngineGuest {
        var c = Processor.Configuration()
        c.encryptedState = encryptedState
        c.cBit = 51
        c.sevStatus = encryptedState ? 3 : 1
        return EngineGuest(configuration: c)
    }

    @Test(
        "intercepts leave a SEV guest",
        arguments: [
            (code("cpuid", "0fa2"), VMExit.cpuid), (code("vmmcall", "0f01d9"), .vmmcall),
            (code("rep vmmcall", "f30f01d9"), .vmmcall), (code("hlt", "f4"), .halt),
        ])
    func intercepts(_ bytes: [UInt8], _ exit: VMExit) { #expect(guest().run(bytes) == exit) }

    @Test func registersOfSEV() {
        let g = guest()
        g.state.generalRegisters[1] = 0xc001_0131
        #expect(g.run(code("rdmsr; hlt", "0f32f4")) == .halt)
        #expect(g[0] == 1)
        g.state.generalRegisters[1] = 0xc001_0130
        #expect(g.run(code("rdmsr; hlt", "0f32f4")) == .readMSR(0xc001_0130))
        let es = guest(encryptedState: true)
        es.state.generalRegisters[1] = 0xc001_0131
        #expect(es.run(code("rdmsr; hlt", "0f32f4")) == .halt)
        #expect(es[0] == 3)
    }

    @Test(arguments: [false, true]) func pageInstructionsDoNotExist(encryptedState: Bool) {
        for bytes in [code("pvalidate", "f20f01ff"), code("rmpadjust", "f30f01fe")] {
            #expect(guest(encryptedState: encryptedState).fault(bytes)?.vector == 6)
        }
    }

    @Test(arguments: [0, 1 << 51] as [UInt64]) func devicesWithAndWithoutCBit(_ cBit: UInt64) {
        let sev = guest()
        sev.machine.map(EngineGuest.device, to: EngineGuest.deviceGPA | cBit, 3)
        sev.state.generalRegisters[7] = EngineGuest.device
        let exit = sev.run(code("mov eax, [rdi]", "8b07"))
        #expect(exit == .mmio(gpa: EngineGuest.deviceGPA, byteCount: 4, write: false, value: 0))
        let es = guest(encryptedState: true)
        es.machine.map(EngineGuest.device, to: EngineGuest.deviceGPA | cBit, 3)
        es.state.generalRegisters[7] = EngineGuest.device
        let e = es.fault(code("mov eax, [rdi]", "8b07"))
        #expect(e?.vector == 29)
        #expect(e?.errorCode == 0x400)
    }

    @Test func codeAndPageTablesAreEncryptedAccesses() {
        // Nothing is mapped with the C-bit here.
        let g = guest()
        #expect(g.run(code("mov rax, [rdi]; hlt", "488b07f4")) == .halt)
        #expect(g.memory.encryptionSeen[0x1_0000] == [true])
        #expect(g.memory.encryptionSeen[0x1_2000] == [false])
        #expect(g.memory.encryptionSeen[0x1000] == [true])
        let plain = EngineGuest()
        #expect(plain.run(code("mov rax, [rdi]; hlt", "488b07f4")) == .halt)
        #expect(plain.memory.encryptionSeen[0x1_0000] == [false])
    }

    @Test func movedPageIsSeenOnceForgotten() {
        let g = guest()
        g.setData(0, 1)
        g.memory[0x1_4000] = 2 as UInt64
        #expect(g.run(code("mov rax, [rdi]; hlt", "488b07f4")) == .halt)
        #expect(g[0] == 1)
        g.memory.moved[0x1_2000] = 0x1_4000
        g.processor.rip = EngineGuest.code
        #expect(g.machine.run() == .halt)
        #expect(g[0] == 1)
        g.processor.forgetTranslations(toHostPages: [UInt(bitPattern: g.memory.base + 0x1_2000)])
        g.processor.rip = EngineGuest.code
        #expect(g.machine.run() == .halt)
        #expect(g[0] == 2)
    }

    @Test func codeOfAForgottenPageIsDecodedAgain() {
        let g = guest()
        #expect(g.run(code("mov eax, 1; hlt", "b801000000f4")) == .halt)
        #expect(g[0] == 1)
        g.memory.write(code("mov eax, 2", "b802000000"), at: 0x1_0000)
        g.processor.forgetTranslations(toHostPages: [UInt(bitPattern: g.memory.base + 0x1_0000)])
        g.processor.rip = EngineGuest.code
        #expect(g.machine.run() == .halt)
        #expect(g[0] == 2)
    }

    @Test func pageMovesWhileItIsAskedFor() {
        // The first page's translation ends in the middle of an instruction that uses two: it is not used again.
        let g = guest()
        g.setData(0, 0x11)
        g.memory[0x1_4000] = 0x22 as UInt64
        g.state.generalRegisters[6] = EngineGuest.data
        g.state.generalRegisters[7] = EngineGuest.data + 0x1000
        let (memory, processor) = (g.memory, g.processor)
        memory.beforeAnswer = { page in
            guard page == 0x1_3000 else { return }
            memory.moved[0x1_2000] = 0x1_4000
            processor.forgetTranslations(toHostPages: [UInt(bitPattern: memory.base + 0x1_2000)])
        }
        #expect(g.run(code("movsq; mov rax, [rsi-8]; hlt", "48a5488b46f8f4")) == .halt)
        #expect(g[0] == 0x22)
        memory.beforeAnswer = nil
    }

    @Test func accessedBitsInReadOnlyTables() {
        let g = guest()
        g.memory.readOnly = [0x1000]
        let before: UInt64 = g.memory[0x1000]
        #expect(before & 0x20 == 0)
        #expect(g.run(code("mov rax, [rdi]; hlt", "488b07f4")) == .halt)
        #expect(g.memory[0x1000] as UInt64 == before)
    }
}
