// Paging, page-crossing accesses, self-modifying code, devices.

import TestSupport
import Testing
import X86Core
import X86Defs

@Suite struct EngineMemoryTests {
    // MARK: Page faults

    @Test(
        "page-fault error codes",
        arguments: [
            (0, false, UInt64(0)), (0, true, 2), (3, false, 4), (3, true, 6),
        ])
    func notPresent(_ cpl: Int, _ write: Bool, _ error: UInt64) {
        let g = EngineGuest(cpl: cpl)
        g.state.generalRegisters[7] = 0x50_3010
        let e = g.fault(write ? code("mov [rdi], rax", "488907") : code("mov rax, [rdi]", "488b07"))
        #expect(e?.vector == 14)
        #expect(e?.errorCode == error)
        #expect(e?.rip == EngineGuest.code)
        #expect(g.processor.state.cr2 == 0x50_3010)
    }

    @Test(
        "writes to a read-only page", arguments: [(3, true, UInt64?(7)), (3, false, 7), (0, true, 3), (0, false, nil)])
    func readOnly(_ cpl: Int, _ protect: Bool, _ error: UInt64?) {
        let g = EngineGuest(cpl: cpl)
        let leaf = g.machine.leaf(EngineGuest.data)
        g.memory[leaf] = g.memory[leaf, as: UInt64.self] & ~2
        if !protect { g.state.cr0 &= ~CR0.wp }
        g.state.generalRegisters[0] = 77
        let exit = g.run(cpl == 0 ? code("mov [rdi], rax; hlt", "488907f4") : code("mov [rdi], rax; int3", "488907cc"))
        #expect(exit == .halt)
        #expect(g.machine.caught()?.errorCode == error)
        #expect(g.data(0) == (error == nil ? 77 : 0))
        #expect(g.memory[leaf, as: UInt64.self] & 0x60 == (error == nil ? 0x60 : 0))
    }

    @Test func supervisorPageFromUser() {
        let g = EngineGuest(cpl: 3)
        g.state.generalRegisters[7] = FlatMachine.gdt
        let e = g.fault(code("mov rax, [rdi]", "488b07"))
        #expect(e?.vector == 14)
        #expect(e?.errorCode == 5)
    }

    @Test("fetch from a no-execute page", arguments: [(0, UInt64(0x11)), (3, 0x15)])
    func noExecute(_ cpl: Int, _ error: UInt64) {
        let g = EngineGuest(cpl: cpl)
        let e = g.fault(code("jmp rdi", "ffe7"))
        #expect(e?.errorCode == error)
        #expect(e?.rip == EngineGuest.data)
    }

    @Test func reservedBits() {
        let g = EngineGuest()
        let leaf = g.machine.leaf(EngineGuest.data)
        g.memory[leaf] = g.memory[leaf, as: UInt64.self] | 1 << 50
        #expect(g.fault(code("mov rax, [rdi]", "488b07"))?.errorCode == 9)
    }

    @Test func accessedAndDirty() {
        let g = EngineGuest()
        let leaf = g.machine.leaf(EngineGuest.data)
        g.memory[leaf] = g.memory[leaf, as: UInt64.self] & ~0x60
        #expect(g.run(code("mov rax, [rdi]; hlt", "488b07f4")) == .halt)
        #expect(g.memory[leaf, as: UInt64.self] & 0x60 == 0x20)
        #expect(g.run(code("mov rax, [rdi]; mov [rdi], rax; hlt", "488b07488907f4")) == .halt)
        #expect(g.memory[leaf, as: UInt64.self] & 0x60 == 0x60)
    }

    @Test func nonCanonical() {
        let g = EngineGuest()
        g.state.generalRegisters[7] = 0x8000_0000_0000
        g.state.generalRegisters[5] = 0x8000_0000_0000
        #expect(g.fault(code("mov rax, [rdi]", "488b07"))?.vector == 13)
        #expect(g.fault(code("mov rax, [rbp]", "488b4500"))?.vector == 12)
    }

    @Test func invalidatePage() {
        // The second load sees the new mapping only after INVLPG or a CR3 write.
        let g = EngineGuest()
        g.setData(0, 1)
        g.setData(0x1000, 2)
        let leaf = g.machine.leaf(EngineGuest.data)
        let tableGPA = UInt64(leaf & ~0xfff)
        g.machine.map(0x50_4000, to: tableGPA, FlatMachine.present | FlatMachine.writable)
        g.state.generalRegisters[6] = 0x50_4000 + UInt64(leaf & 0xfff)
        g.state.generalRegisters[3] = 0x1_3000 | 3
        #expect(
            g.run(
                code("mov rax, [rdi]; mov [rsi], rbx; invlpg [rdi]; mov rcx, [rdi]; hlt", "488b0748891e0f013f488b0ff4"))
                == .halt)
        #expect(g[0] == 1)
        #expect(g[1] == 2)
    }

    // MARK: Page-crossing operands

    @Test func crossingAccesses() {
        let g = EngineGuest()
        g.memory.write([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16], at: 0x1_2ff8)
        g.state.generalRegisters[7] = 0x50_0ffd
        let exit = g.run(
            code(
                "mov rax, [rdi]; add dword ptr [rdi], 0x01010101; mov ecx, [rdi]; movups xmm0, [rdi-5]; movups [0x500100], xmm0; mov [rdi-4], rax; hlt",
                "488b078107010101018b0f0f1047fb0f11042500015000488947fcf4"))
        #expect(exit == .halt)
        #expect(g[0] == 0x0d0c_0b0a_0908_0706)
        #expect(g[1] == 0x0a09_0807)
        #expect(g.data(0x100) == 0x0908_0705_0403_0201 &+ 0)
        #expect(g.data(0x108) == 0x100f_0e0d_0c0b_0a0a)
        #expect(g.data(0xff9) == 0x0d0c_0b0a_0908_0706)
    }

    /// A crossing push, pop, call and return, with the frames on both pages.
    @Test func crossingStack() {
        let g = EngineGuest()
        g.state.generalRegisters[4] = 0x50_1004
        let exit = g.run(
            code(
                "mov rax, 0x1122334455667788; push rax; pop rbx; call f; jmp e; f: mov rcx, [rsp]; ret; e: hlt",
                "48b88877665544332211505be802000000eb05488b0c24c3f4"))
        #expect(exit == .halt)
        #expect(g[3] == 0x1122_3344_5566_7788)
        #expect(g[1] == EngineGuest.code + 0x11)
        #expect(g[4] == 0x50_1004)
    }

    @Test("a store whose second page faults changes nothing", arguments: [false, true])
    func crossingFault(_ modify: Bool) {
        let g = EngineGuest()
        g.state.generalRegisters[7] = 0x50_2ffc
        g.setData(0x2ff8, 0x1234_5678_9abc_def0)
        let e = g.fault(modify ? code("add qword ptr [rdi], 1", "48830701") : code("mov [rdi], rdi", "48893f"))
        #expect(e?.vector == 14)
        #expect(e?.errorCode == 2)
        #expect(g.processor.state.cr2 == 0x50_3000)
        #expect(g.data(0x2ff8) == 0x1234_5678_9abc_def0)
    }

    // MARK: Self-modifying code

    @Test func modifiesItsOwnBlock() {
        let g = EngineGuest()
        #expect(g.run(code("mov byte ptr [0x400009], 2; mov eax, 1; hlt", "c604250900400002b801000000f4")) == .halt)
        #expect(g[0] == 2)
    }

    @Test func modifiesAnotherBlock() {
        let g = EngineGuest()
        let exit = g.run(
            code(
                "call f; mov ebx, eax; mov byte ptr [0x400016], 7; call f; hlt; .org 0x15; f: mov eax, 3; ret",
                "e81000000089c3c604251600400007e801000000f4b803000000c3"))
        #expect(exit == .halt)
        #expect(g[3] == 3)
        #expect(g[0] == 7)
    }

    @Test func modifiesAnotherPage() {
        let g = EngineGuest()
        g.memory.write(code("mov eax, 3; ret", "b803000000c3"), at: 0x1_1000)
        let exit = g.run(
            code(
                "mov esi, 0x401000; call rsi; mov ebx, eax; mov byte ptr [rsi+1], 7; call rsi; hlt",
                "be00104000ffd689c3c6460107ffd6f4"))
        #expect(exit == .halt)
        #expect(g[3] == 3)
        #expect(g[0] == 7)
    }

    /// An instruction that lies on two pages dies with either of them.
    @Test func modifiesACrossingInstruction() {
        let g = EngineGuest()
        g.memory.write(code("mov eax, 0x01020304; ret", "b804030201c3"), at: 0x1_0ffe)
        let exit = g.run(
            code(
                "mov esi, 0x400ffe; call rsi; mov ebx, eax; mov byte ptr [rsi+4], 9; call rsi; hlt",
                "befe0f4000ffd689c3c6460409ffd6f4"))
        #expect(exit == .halt)
        #expect(g[3] == 0x0102_0304)
        #expect(g[0] == 0x0902_0304)
    }

    @Test func stringStoreIntoCode() {
        let g = EngineGuest()
        let exit = g.run(
            code(
                "call f; mov ebx, eax; mov edi, 0x400021; mov al, 7; mov ecx, 1; rep stosb; call f; hlt; .org 0x20; f: mov eax, 3; ret",
                "e81b00000089c3bf21004000b007b901000000f3aae806000000f40000000000b803000000c3"))
        #expect(exit == .halt)
        #expect(g[3] == 3)
        #expect(g[0] == 7)
    }

    /// The engine's own stores (strings, x87) are seen by the block that runs.
    @Test func stringStoreIntoItsOwnBlock() {
        let g = EngineGuest()
        #expect(
            g.run(
                code(
                    "mov edi, 0x400010; mov al, 7; mov ecx, 1; rep stosb; nop; mov ebx, 3; hlt",
                    "bf10004000b007b901000000f3aa90bb03000000f4")) == .halt)
        #expect(g[3] == 7)
        #expect(
            g.run(
                code(
                    "fld1; mov ecx, 0x40000a; fist dword ptr [rcx]; mov ebx, 0x55555555; hlt",
                    "d9e8b90a004000db11bb55555555f4")) == .halt)
        #expect(g[3] == 1)
    }

    @Test func changedFromOutside() {
        let g = EngineGuest()
        #expect(g.run(code("mov eax, 1; hlt", "b801000000f4")) == .halt)
        g.memory[0x1_0001] = 5 as UInt8
        g.processor.forgetCode(at: g.memory.base + 0x1_0000, byteCount: 1)
        g.processor.rip = EngineGuest.code
        #expect(g.machine.run() == .halt)
        #expect(g[0] == 5)
    }

    // MARK: Devices and nested faults

    @Test func deviceRead() {
        let g = EngineGuest()
        g.state.generalRegisters[7] = EngineGuest.device + 0x30
        let exit = g.run(code("movsx rax, word ptr [rdi]; hlt", "480fbf07f4"))
        #expect(exit == .mmio(gpa: EngineGuest.deviceGPA + 0x30, byteCount: 2, write: false, value: 0))
        #expect(g.processor.rip == EngineGuest.code)
        g.processor.completeMMIO(value: 0x8001)
        #expect(g.machine.run() == .halt)
        #expect(g[0] == 0xffff_ffff_ffff_8001)
    }

    @Test func deviceWrite() {
        let g = EngineGuest()
        g.state.generalRegisters[7] = EngineGuest.device + 0x80
        g.state.generalRegisters[0] = 0x1234_5678_9abc_def0
        let exit = g.run(code("mov [rdi], eax; inc ebx; hlt", "8907ffc3f4"))
        #expect(exit == .mmio(gpa: EngineGuest.deviceGPA + 0x80, byteCount: 4, write: true, value: 0x9abc_def0))
        #expect(g.processor.rip == EngineGuest.code + 2)
        #expect(g.machine.run() == .halt)
        #expect(g[3] == 1)
    }

    @Test func deviceReadModifyWrite() {
        let g = EngineGuest()
        g.state.generalRegisters[7] = EngineGuest.device
        #expect(
            g.run(code("add dword ptr [rdi], 5; hlt", "830705f4"))
                == .mmio(gpa: EngineGuest.deviceGPA, byteCount: 4, write: false, value: 0))
        g.processor.completeMMIO(value: 10)
        #expect(g.machine.run() == .mmio(gpa: EngineGuest.deviceGPA, byteCount: 4, write: true, value: 15))
        #expect(g.machine.run() == .halt)
    }

    @Test func localDevice() {
        let g = EngineGuest()
        g.state.generalRegisters[7] = EngineGuest.device
        g.memory.localDevice[EngineGuest.deviceGPA + 0x20] = 0x0100_0000
        g.memory.localWrites[EngineGuest.deviceGPA + 0xb0] = 0
        #expect(g.run(code("mov eax, [rdi+0x20]; mov [rdi+0xb0], eax; hlt", "8b47208987b0000000f4")) == .halt)
        #expect(g[0] == 0x0100_0000)
        #expect(g.memory.localWrites[EngineGuest.deviceGPA + 0xb0] == 0x0100_0000)
    }

    @Test func nestedPageFault() {
        let g = EngineGuest()
        g.memory.faulting = [0x1_2000]
        g.setData(0, 99)
        #expect(
            g.run(code("mov rax, [rdi]; hlt", "488b07f4"))
                == .nestedPageFault(gpa: 0x1_2000, encrypted: false, access: .read))
        #expect(g.processor.rip == EngineGuest.code)
        g.memory.faulting = []
        #expect(g.machine.run() == .halt)
        #expect(g[0] == 99)
    }

    // MARK: Strings

    @Test func moveAcrossPages() {
        let g = EngineGuest()
        for i in 0..<0x1000 { g.memory[0x1_2000 + i] = UInt8(truncatingIfNeeded: i &* 7) }
        g.state.generalRegisters[6] = 0x50_0000
        g.state.generalRegisters[7] = 0x50_1801
        g.state.generalRegisters[1] = 0x1000
        #expect(g.run(code("rep movsb; hlt", "f3a4f4")) == .halt)
        for i in 0..<0x1000 where g.memory[0x1_3801 + i, as: UInt8.self] != UInt8(truncatingIfNeeded: i &* 7) {
            Issue.record("byte \(i)")
            break
        }
        #expect(g[1] == 0)
        #expect(g[6] == 0x50_1000)
        #expect(g[7] == 0x50_2801)
    }

    @Test func overlappingMoveRepeatsThePattern() {
        let g = EngineGuest()
        g.setData(0, 0x4241)
        g.state.generalRegisters[6] = 0x50_0000
        g.state.generalRegisters[7] = 0x50_0002
        g.state.generalRegisters[1] = 14
        #expect(g.run(code("rep movsb; hlt", "f3a4f4")) == .halt)
        #expect(g.data(8) == 0x4241_4241_4241_4241)
    }

    @Test func backwardMove() {
        let g = EngineGuest()
        g.setData(0x1000, 0x0004_0003_0002_0001)
        g.state.generalRegisters[6] = 0x50_1006
        g.state.generalRegisters[7] = 0x50_2002
        g.state.generalRegisters[1] = 4
        #expect(g.run(code("std; rep movsw; cld; hlt", "fd66f3a5fcf4")) == .halt)
        #expect(g.data(0x1ffc) == 0x0004_0003_0002_0001)
        #expect(g[6] == 0x50_0ffe)
        #expect(g[7] == 0x50_1ffa)
    }

    @Test func storeFaultsInTheMiddle() {
        let g = EngineGuest()
        g.state.generalRegisters[7] = 0x50_2f00
        g.state.generalRegisters[1] = 0x40
        g.state.generalRegisters[0] = 0x5555
        let e = g.fault(code("nop; rep stosq", "90f348ab"))
        #expect(e?.vector == 14)
        #expect(e?.errorCode == UInt64(2))
        #expect(e?.rip == EngineGuest.code + 1)
        #expect(g.processor.state.cr2 == 0x50_3000)
        #expect(g[1] == 0x20)
        #expect(g[7] == 0x50_3000)
        #expect(g.data(0x2ff8) == 0x5555)
    }

    @Test func moveFaultsAtACrossingElement() {
        let g = EngineGuest()
        g.state.generalRegisters[6] = 0x50_0000
        g.state.generalRegisters[7] = 0x50_2fec
        g.state.generalRegisters[1] = 8
        g.setData(0, 1)
        g.setData(8, 2)
        g.setData(16, 3)
        let e = g.fault(code("rep movsq", "f348a5"))
        #expect(e?.vector == 14)
        #expect(g.processor.state.cr2 == 0x50_3000)
        #expect(g[1] == 6)
        #expect(g[6] == 0x50_0010)
        #expect(g[7] == 0x50_2ffc)
        #expect(g.memory[0x1_4ffc, as: UInt32.self] == 0)
    }

    @Test func compareAndScan() {
        let g = EngineGuest()
        g.memory.write([1, 2, 3, 4, 5], at: 0x1_2000)
        g.memory.write([1, 2, 3, 9, 5], at: 0x1_3000)
        g.state.generalRegisters[6] = 0x50_0000
        g.state.generalRegisters[7] = 0x50_1000
        g.state.generalRegisters[1] = 5
        #expect(
            g.run(
                code(
                    "repe cmpsb; setb bl; mov edx, ecx; mov edi, 0x500000; mov ecx, 100; mov al, 4; repne scasb; sete bh; hlt",
                    "f3a60f92c389cabf00005000b964000000b004f2ae0f94c7f4")) == .halt)
        #expect(g[3] == 0x0101)
        #expect(g[2] == 1)
        #expect(g[1] == 96)
        #expect(g[7] == 0x50_0004)
    }
}
