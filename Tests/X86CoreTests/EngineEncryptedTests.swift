// A guest with encrypted state: what would leave the processor becomes #VC [APM2 15.35], and the SNP instructions.

import TestSupport
import Testing
import X86Core
import X86Defs

@Suite struct EngineEncryptedTests {
    private func guest(cpl: Int = 0) -> EngineGuest {
        var c = Processor.Configuration()
        c.encryptedState = true
        c.snp = true
        c.cBit = 51
        c.sevStatus = 7
        return EngineGuest(cpl: cpl, configuration: c)
    }

    private static let intercepts: [([UInt8], UInt64)] = [
        (code("cpuid", "0fa2"), 0x72), (code("in al, dx", "ec"), 0x7b), (code("out 0x80, al", "e680"), 0x7b),
        (code("rep outsb", "f36e"), 0x7b),
        (code("rdmsr", "0f32"), 0x7c), (code("wrmsr", "0f30"), 0x7c), (code("wbinvd", "0f09"), 0x89),
        (code("vmmcall", "0f01d9"), 0x81), (code("mov rax, dr7", "0f21f8"), 0x27),
        (code("mov dr7, rax", "0f23f8"), 0x37), (code("monitor", "0f01c8"), 0x8a), (code("mwait", "0f01c9"), 0x8b),
        (code("rdpmc", "0f33"), 0x6f),
    ]

    @Test("#VC carries the exit code", arguments: intercepts)
    func communicationException(_ bytes: [UInt8], _ error: UInt64) {
        let g = guest()
        g.state.generalRegisters[1] = 0x1b
        let e = g.fault(bytes)
        #expect(e?.vector == 29)
        #expect(e?.errorCode == error)
        #expect(e?.rip == EngineGuest.code)
    }

    @Test func cpuidInUserMode() {
        let e = guest(cpl: 3).fault(code("cpuid", "0fa2"))
        #expect(e?.vector == 29)
        #expect(e?.errorCode == 0x72)
    }

    private static let accesses = [
        code("mov eax, [rdi]", "8b07"), code("mov [rdi], eax", "8907"), code("add [rdi], eax", "0107"),
    ]

    @Test("device accesses", arguments: accesses)
    func device(_ bytes: [UInt8]) {
        let g = guest()
        g.state.generalRegisters[7] = EngineGuest.device
        let e = g.fault(bytes)
        #expect(e?.vector == 29)
        #expect(e?.errorCode == 0x400)
    }

    @Test func encryptedMappingOfADevice() {
        let g = guest()
        g.machine.map(EngineGuest.device, to: EngineGuest.deviceGPA | 1 << 51, 3)
        g.state.generalRegisters[7] = EngineGuest.device
        #expect(
            g.run(code("mov eax, [rdi]", "8b07"))
                == .nestedPageFault(gpa: EngineGuest.deviceGPA, encrypted: true, access: .read))
    }

    @Test func pageNotValidated() {
        let g = guest()
        g.memory.notValidated = [0x1_2000]
        let e = g.fault(code("mov eax, [rdi]", "8b07"))
        #expect(e?.vector == 29)
        #expect(e?.errorCode == 0x404)
    }

    @Test func exitAndItsMSR() {
        let g = guest()
        g.state.generalRegisters[1] = 0xc001_0130
        g.state.generalRegisters[0] = 0x1_2345
        g.state.generalRegisters[2] = 0x7
        #expect(g.run(code("wrmsr; rep vmmcall; rdmsr; hlt", "0f30f30f01d90f32f4")) == .vmgexit)
        #expect(g.processor.rip == EngineGuest.code + 6)
        #expect(g.processor.ghcbMSR == 0x7_0001_2345)
        g.processor.ghcbMSR = 0x55
        #expect(g.machine.run() == .halt)
        #expect(g[0] == 0x55)
        #expect(g[2] == 0)
    }

    @Test func sevStatus() {
        let g = guest()
        g.state.generalRegisters[1] = 0xc001_0131
        #expect(g.run(code("rdmsr; hlt", "0f32f4")) == .halt)
        #expect(g[0] == 7)
    }

    @Test func validatePage() {
        let g = guest()
        g.state.generalRegisters[0] = 0x50_1000
        g.state.generalRegisters[1] = 0
        g.state.generalRegisters[2] = 1
        g.state.rflags = 0x203
        #expect(g.run(code("pvalidate; setc bl; hlt", "f20f01ff0f92c3f4")) == .halt)
        #expect(g.memory.pvalidateCalls.count == 1)
        #expect(g.memory.pvalidateCalls.first?.0 == 0x1_3000)
        #expect(g.memory.pvalidateCalls.first?.1 == 0)
        #expect(g.memory.pvalidateCalls.first?.2 == true)
        #expect(g[0] == 0)
        #expect(g[3] & 1 == 0)
        g.memory.pvalidateResult = PValidateResult(code: 0, unchanged: true)
        #expect(g.run(code("pvalidate; setc bl; hlt", "f20f01ff0f92c3f4")) == .halt)
        #expect(g[3] & 1 == 1)
        g.memory.pvalidateResult = nil
        #expect(
            g.run(code("pvalidate; hlt", "f20f01fff4"))
                == .nestedPageFault(gpa: 0x1_3000, encrypted: true, access: .write))
        #expect(g.processor.rip == EngineGuest.code)
        let user = guest(cpl: 3)
        #expect(user.fault(code("pvalidate", "f20f01ff"))?.vector == 13)
        #expect(EngineGuest().fault(code("pvalidate", "f20f01ff"))?.vector == 6)
    }

    /// Below VMPL 0 pages are not validated, and a fetch says whose it is.
    @Test func lowerPrivilegeLevel() {
        var configuration = Processor.Configuration()
        configuration.encryptedState = true
        configuration.snp = true
        configuration.cBit = 51
        configuration.vmpl = 1
        for cpl in [0, 3] {
            let machine = FlatMachine(configuration: configuration)
            machine.map(0x40_0000, to: 0x1_0000, 7)
            machine.memory.write([0xf2, 0x0f, 0x01, 0xff], at: 0x1_0000)
            var state = FlatMachine.state(cpl: cpl)
            state.rip = 0x40_0000
            state.generalRegisters[0] = 0x40_0000
            machine.processor.state = state
            #expect(machine.run() == .halt)
            #expect(machine.caught()?.vector == 13)
            #expect(machine.memory.pvalidateCalls.isEmpty)
            #expect(machine.memory.accessesSeen[0x1_0000]?.contains(cpl == 3 ? .userExecute : .execute) == true)
            #expect(machine.memory.accessesSeen[0x1_0000]?.contains(cpl == 3 ? .execute : .userExecute) == false)
        }
    }

    @Test func adjustPermissions() {
        let g = guest()
        g.state.generalRegisters[0] = 0x50_2000
        g.state.generalRegisters[1] = 0
        g.state.generalRegisters[2] = 0x1_0f01
        #expect(g.run(code("rmpadjust; sete bl; hlt", "f30f01fe0f94c3f4")) == .halt)
        #expect(g.memory.rmpadjustCalls.count == 1)
        #expect(g.memory.rmpadjustCalls.first?.0 == 0x1_4000)
        #expect(g.memory.rmpadjustCalls.first?.2 == 0x1_0f01)
        #expect(g[3] & 1 == 1)
        g.memory.rmpadjustResult = 2
        #expect(g.run(code("rmpadjust; sete bl; hlt", "f30f01fe0f94c3f4")) == .halt)
        #expect(g[0] == 2)
        #expect(g[3] & 1 == 0)
    }
}
