// Code outside 64-bit mode: real mode, 16-bit and 32-bit protected mode, their segments and far transfers. The expected
// results are those of the manuals.

import TestSupport
import Testing
import X86Core
import X86Defs

enum LegacyMode: Sendable { case real, protected }

struct RegisterCase: Sendable, CustomTestStringConvertible {
    let mode: LegacyMode, name: String, bytes: [UInt8], expected: [Int: UInt64]
    init(_ mode: LegacyMode, _ name: String, _ bytes: [UInt8], _ expected: [Int: UInt64]) {
        (self.mode, self.name, self.bytes, self.expected) = (mode, name, bytes, expected)
    }
    var testDescription: String { "\(mode): \(name)" }
}

struct FaultCase: Sendable, CustomTestStringConvertible {
    let mode: LegacyMode, name: String, bytes: [UInt8], vector: Int, errorCode: UInt64?, offset: UInt64
    init(_ mode: LegacyMode, _ name: String, _ bytes: [UInt8], _ vector: Int, _ errorCode: UInt64?, at offset: UInt64) {
        (self.mode, self.name, self.bytes, self.vector) = (mode, name, bytes, vector)
        (self.errorCode, self.offset) = (errorCode, offset)
    }
    var testDescription: String { "\(mode): \(name)" }
}

/// One megabyte of memory, tables of real and protected mode, and a HLT for each vector.
///
///     0x0000   vector table          0x7000   32-bit TSS        0x8000   GDT        0xa000   32-bit IDT
///     0x9000   HLT stubs, 4 bytes each                          0x1_0000 code (real mode: segment 0x100 at 0x1000)
final class LegacyGuest {
    let memory = FlatMemory(byteCount: 0x10_0000)
    let processor: Processor
    var state = ProcessorState()
    let mode: LegacyMode
    static let realCode = 0x1000, protectedCode = 0x1_0000
    /// Base, limit and the attribute bytes of a descriptor.
    static func descriptor(_ base: UInt64, _ limit: UInt64, _ attributes: UInt64) -> UInt64 {
        limit & 0xffff | (base & 0xff_ffff) << 16 | (attributes & 0xff) << 40 | (limit >> 16 & 15) << 48
            | (attributes >> 8 & 15) << 52 | (base >> 24 & 0xff) << 56
    }
    static func gate(_ selector: UInt64, _ offset: UInt64, _ attributes: UInt64) -> UInt64 {
        offset & 0xffff | selector << 16 | attributes << 40 | (offset >> 16) << 48
    }

    init(_ mode: LegacyMode, configuration: Processor.Configuration = .init()) {
        self.mode = mode
        processor = Processor(memory: memory, configuration: configuration)
        for vector in 0..<256 {
            memory[0x9000 + vector * 4] = 0xf4 as UInt8
            memory[vector * 4] = UInt32(0x0900_0000 | vector * 4)
            memory[0xa000 + vector * 8] = Self.gate(8, 0x9000 + UInt64(vector) * 4, 0xee)
        }
        let d = Self.descriptor
        let descriptors: [Int: UInt64] = [
            0x08: d(0, 0xf_ffff, 0xc9b), 0x10: d(0, 0xf_ffff, 0xc93), 0x18: d(0x1_0000, 0xffff, 0x09b),
            0x20: d(0x2_0000, 0xfff, 0x493), 0x28: d(0, 0xf_ffff, 0xcfb), 0x30: d(0, 0xf_ffff, 0xcf3),
            0x38: d(0, 0xf_ffff, 0xa9b), 0x40: Self.gate(8, 0x1_0080, 0xec), 0x48: Self.gate(8, 0x1_00c0, 0xec),
            0x50: d(0x7000, 0x67, 0x089), 0x58: d(0x2_0000, 0xfff, 0x497), 0x68: d(0x2_0000, 0xfff, 0x491),
            0x80: d(0, 0xf_ffff, 0xc13),
        ]
        for (place, value) in descriptors { memory[0x8000 + place] = value }
        memory[0x7004] = 0x2_8000 as UInt32
        memory[0x7008] = 0x10 as UInt16
        state.generalRegisters[4] = mode == .real ? 0x100 : 0x2_8000
        state.generalRegisters[2] = 0
        if mode == .real {
            for segment in [\ProcessorState.cs, \.ds, \.es, \.ss] {
                state[keyPath: segment] = .init(selector: 0x100, attributes: 0x93, limit: 0xffff, base: 0x1000)
            }
            state.cs.attributes = 0x9b
            state.rip = 0
        } else {
            state.cr0 = 0x11
            for segment in [\ProcessorState.ds, \.es, \.fs, \.gs, \.ss] {
                state[keyPath: segment] = .init(selector: 0x10, attributes: 0xc93, limit: 0xffff_ffff)
            }
            state.cs = .init(selector: 8, attributes: 0xc9b, limit: 0xffff_ffff)
            state.gdtr = .init(base: 0x8000, limit: 0x8f)
            state.idtr = .init(base: 0xa000, limit: 0x7ff)
            state.rip = UInt64(Self.protectedCode)
        }
    }

    func run(_ bytes: [UInt8]) -> VMExit {
        memory.write(bytes, at: mode == .real ? Self.realCode : Self.protectedCode)
        processor.forgetCode(at: memory.base, byteCount: 0x10_0000)
        processor.state = state
        for _ in 0..<100 {
            let exit = processor.run()
            if exit != .interrupt { return exit }
        }
        return .interrupt
    }

    /// The vector whose stub halted, and its frame; nil if another HLT ran.
    func caught() -> (vector: Int, errorCode: UInt64?, offset: UInt64)? {
        let s = processor.state
        let at = s.cs.base &+ s.rip &- 0x9000
        guard at < 0x400, at & 3 == 1 else { return nil }
        let vector = Int(at >> 2)
        var p = Int(s.ss.base &+ s.generalRegisters[4])
        if mode == .real { return (vector, nil, UInt64(memory[p, as: UInt16.self])) }
        var error: UInt64?
        if FlatMachine.hasErrorCode(vector) {
            error = UInt64(memory[p, as: UInt32.self])
            p += 4
        }
        return (vector, error, UInt64(memory[p, as: UInt32.self]) &- UInt64(Self.protectedCode))
    }
}

@Suite struct LegacyModeTests {
    static let registerCases = [
        RegisterCase(
            .real, "16-bit addressing wraps",
            code(
                "mov bx,0xffff; mov si,3; mov word ptr [2],0x1234; mov ax,[bx+si]; hlt",
                "bbffffbe0300c706020034128b00f4"), [0: 0x1234]),
        RegisterCase(
            .real, "BP goes to the stack segment",
            code(
                "mov ax,0x200; mov ss,ax; mov bp,0x10; mov word ptr ss:[0x12],0x55; mov ax,[bp+2]; mov dx,ds:[bp+0x1002]; hlt",
                "b800028ed0bd100036c706120055008b46023e8b960210f4"), [0: 0x55, 2: 0x55]),
        RegisterCase(
            .real, "push and pop 16",
            code(
                "mov sp,0x100; mov ax,0x1111; push ax; push 0x2222; pop bx; pop cx; hlt", "bc0001b81111506822225b59f4"),
            [3: 0x2222, 1: 0x1111, 4: 0x100]),
        RegisterCase(
            .real, "push 32 with prefix",
            code("mov sp,0x100; mov eax,0x12345678; push eax; pop cx; pop dx; hlt", "bc000166b8785634126650595af4"),
            [1: 0x5678, 2: 0x1234, 4: 0x100]),
        RegisterCase(
            .real, "SP wraps",
            code("mov sp,0; mov ax,0xabcd; push ax; mov bx,ss:[0xfffe]; hlt", "bc0000b8cdab50368b1efefff4"),
            [4: 0xfffe, 3: 0xabcd]),
        RegisterCase(
            .real, "PUSHA and POPA",
            code(
                "mov sp,0x100; mov ax,1; mov cx,2; mov dx,3; mov bx,4; mov bp,5; mov si,6; mov di,7; pusha; xor ax,ax; xor cx,cx; xor di,di; mov bx,ss:[0xf6]; popa; hlt",
                "bc0001b80100b90200ba0300bb0400bd0500be0600bf07006031c031c931ff368b1ef60061f4"),
            [0: 0x1, 1: 0x2, 2: 0x3, 3: 0x4, 7: 0x7, 4: 0x100]),
        RegisterCase(
            .real, "near call and return",
            code("mov sp,0x100; call 1f; mov bx,2; hlt; 1: mov ax,1; ret; hlt", "bc0001e80400bb0200f4b80100c3f4"),
            [0: 0x1, 3: 0x2, 4: 0x100]),
        RegisterCase(
            .real, "far return",
            code(
                "mov sp,0x100; push 0x101; push 0x20; retf; .org 0x30; mov ax,cs; hlt",
                "bc00016801016a20cb0000000000000000000000000000000000000000000000000000000000000000000000000000008cc8f4"
            ), [0: 0x101]),
        RegisterCase(
            .real, "INT and IRET",
            code(
                "mov sp,0x100; mov word ptr fs:[0x40*4],0x40; mov word ptr fs:[0x40*4+2],0x100; sti; int 0x40; mov bx,ax; pushf; pop dx; hlt; .org 0x40; pushf; pop ax; mov cx,7; iret; hlt",
                "bc000164c7060001400064c70602010001fbcd4089c39c5af40000000000000000000000000000000000000000000000000000000000000000000000000000009c58b90700cff4"
            ), [0: 0x2, 1: 0x7, 2: 0x202, 3: 0x2, 4: 0x100]),
        RegisterCase(
            .real, "LOOP counts CX",
            code("mov ecx,0x10003; xor ax,ax; 1: inc ax; loop 1b; hlt", "66b90300010031c040e2fdf4"),
            [0: 0x3, 1: 0x10000]),
        RegisterCase(
            .real, "JCXZ and JECXZ",
            code(
                "mov ecx,0x10000; jcxz 1f; hlt; 1: mov ax,1; jecxz 2f; mov bx,2; 2:; hlt",
                "66b900000100e301f4b8010067e303bb0200f4"), [0: 0x1, 3: 0x2]),
        RegisterCase(
            .real, "REP MOVSB with 16-bit registers",
            code(
                "mov si,0x40; mov di,0x60; mov dword ptr [0x40],0x44332211; mov ecx,0x10004; rep movsb; mov eax,es:[0x60]; hlt",
                "be4000bf600066c70640001122334466b904000100f3a42666a16000f4"),
            [0: 0x44332211, 1: 0x10000, 6: 0x44, 7: 0x64]),
        RegisterCase(
            .real, "LES loads both",
            code(
                "mov word ptr [0x210],0x1234; mov word ptr [0x212],0x300; les bx,[0x210]; mov ax,es; hlt",
                "c70610023412c70612020003c41e10028cc0f4"), [3: 0x1234, 0: 0x300]),
        RegisterCase(
            .real, "32-bit address in real mode",
            code(
                "mov ebx,0x100; mov ecx,4; mov dword ptr [0x110],0x77; mov eax,[ebx+ecx*4]; hlt",
                "66bb0001000066b90400000066c70610017700000067668b048bf4"), [0: 0x77]),
        RegisterCase(
            .real, "DAA", code("mov al,0x79; add al,0x35; daa; pushf; pop bx; and bx,1; hlt", "b0790435279c5b83e301f4"),
            [0: 0x14, 3: 0x1]),
        RegisterCase(.real, "DAS", code("mov al,0x35; sub al,0x47; das; hlt", "b0352c472ff4"), [0: 0x88]),
        RegisterCase(.real, "AAA", code("mov ax,0x0009; add al,8; aaa; hlt", "b80900040837f4"), [0: 0x107]),
        RegisterCase(
            .real, "AAM and AAD", code("mov al,77; aam; mov bx,ax; aad; hlt", "b04dd40a89c3d50af4"),
            [0: 0x4d, 3: 0x707]),
        RegisterCase(
            .real, "SALC", code("stc; .byte 0xd6; mov bl,al; clc; .byte 0xd6; hlt", "f9d688c3f8d6f4"),
            [0: 0x0, 3: 0xff]),
        RegisterCase(
            .real, "LEA 16",
            code("mov bx,0xfff0; mov si,0x20; mov eax,-1; lea eax,[bx+si]; hlt", "bbf0ffbe200066b8ffffffff668d00f4"),
            [0: 0x10]),
        RegisterCase(
            .real, "XLAT",
            code("mov bx,0x50; mov byte ptr [0x57],0x99; mov ax,7; xlatb; hlt", "bb5000c606570099b80700d7f4"), [0: 0x99]
        ),
        RegisterCase(
            .real, "ENTER and LEAVE",
            code(
                "mov sp,0x100; mov bp,0x1234; enter 0x10,0; mov ax,sp; mov bx,bp; leave; hlt",
                "bc0001bd3412c810000089e089ebc9f4"), [0: 0xee, 3: 0xfe, 5: 0x1234, 4: 0x100]),
        RegisterCase(
            .real, "BOUND in range",
            code(
                "mov word ptr [0x20],-5; mov word ptr [0x22],10; mov ax,-5; bound ax,[0x20]; mov bx,1; hlt",
                "c7062000fbffc70622000a00b8fbff62062000bb0100f4"), [3: 0x1]),
        RegisterCase(
            .real, "bit string behind the operand",
            code(
                "mov eax,35; mov dword ptr [0x84],0x8; bt dword ptr [0x80],eax; setc bl; hlt",
                "66b82300000066c706840008000000660fa30680000f92c3f4"), [3: 0x1]),
        RegisterCase(
            .real, "PUSH SP stores the old value", code("mov sp,0x100; push sp; pop ax; hlt", "bc00015458f4"),
            [0: 0x100]),
        RegisterCase(
            .real, "POP to memory through SP",
            code(
                "mov esp,0x100; push 0x77; pop word ptr [esp+4]; mov ax,ss:[0x104]; hlt",
                "66bc000100006a77678f44240436a10401f4"), [0: 0x77]),
        RegisterCase(
            .protected, "32-bit arithmetic and stack",
            code("mov eax,0x80000000; push eax; add eax,eax; adc ebx,0; pop ecx; hlt", "b8000000805001c083d30059f4"),
            [0: 0x0, 3: 0x1, 1: 0x80000000]),
        RegisterCase(
            .protected, "addresses wrap at 4 GiB",
            code(
                "mov dword ptr [0x20000],0x1234; mov ebx,0x20000; mov ecx,0xffffffff; mov eax,[ebx+ecx*1+1]; hlt",
                "c7050000020034120000bb00000200b9ffffffff8b440b01f4"), [0: 0x1234]),
        RegisterCase(
            .protected, "ESP and EBP address the stack",
            code("mov ebp,esp; mov dword ptr [ebp-4],5; mov eax,[esp-4]; hlt", "89e5c745fc050000008b4424fcf4"), [0: 0x5]
        ),
        RegisterCase(
            .protected, "INC and DEC keep CF",
            code("stc; mov eax,0xffffffff; inc eax; setc bl; dec eax; setz cl; hlt", "f9b8ffffffff400f92c3480f94c1f4"),
            [0: 0xffffffff, 3: 0x1, 1: 0x0]),
        RegisterCase(
            .protected, "near call, indirect",
            code(
                "mov eax,0x10040; call eax; mov ebx,2; hlt; .org 0x40; mov ecx,3; ret 0; hlt",
                "b840000100ffd0bb02000000f4000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000b903000000c20000f4"
            ), [3: 0x2, 1: 0x3]),
        RegisterCase(
            .protected, "PUSHAD and POPAD",
            code(
                "mov eax,1; mov edi,8; pushad; mov eax,0; mov edi,0; popad; hlt",
                "b801000000bf0800000060b800000000bf0000000061f4"), [0: 0x1, 7: 0x8]),
        RegisterCase(
            .protected, "ARPL",
            code("mov ax,0x10; mov bx,0x13; arpl ax,bx; setz cl; hlt", "66b8100066bb130063d80f94c1f4"),
            [0: 0x13, 1: 0x1]),
        RegisterCase(
            .protected, "string with 32-bit registers",
            code(
                "mov edi,0x20000; mov eax,0x5a5a5a5a; mov ecx,3; rep stosd; mov ebx,[0x20008]; hlt",
                "bf00000200b85a5a5a5ab903000000f3ab8b1d08000200f4"), [3: 0x5a5a5a5a, 7: 0x2000c, 1: 0x0]),
        RegisterCase(
            .protected, "16-bit address in 32-bit code",
            code(
                "mov ebx,0xffff0010; mov dword ptr [0x14],0x99; mov eax,[bx+4]; hlt",
                "bb1000ffffc7051400000099000000678b4704f4"), [0: 0x99]),
        RegisterCase(
            .protected, "limited data segment",
            code(
                "mov ax,0x20; mov es,ax; mov dword ptr [0x20ffc],0x31; mov eax,es:[0xffc]; hlt",
                "66b820008ec0c705fc0f02003100000026a1fc0f0000f4"), [0: 0x31]),
        RegisterCase(
            .protected, "far jump to 16-bit code and back",
            code(
                ".byte 0xea; .long 0x40; .word 0x18; .org 0x40; .code16; mov ax,0x1234; .byte 0x66,0xea; .long 0x10060; .word 8; .org 0x60; .code32; mov bx,cs; hlt",
                "ea400000001800000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000b8341266ea600001000800000000000000000000000000000000000000000000668ccbf4"
            ), [0: 0x1234, 3: 0x8]),
        RegisterCase(
            .protected, "call gate to the same level",
            code(
                ".byte 0x9a; .long 0; .word 0x40; mov ebx,1; hlt; .org 0x80; mov ecx,[esp+4]; retf; hlt",
                "9a000000004000bb01000000f4000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000008b4c2404cbf4"
            ), [3: 0x1, 1: 0x8]),
        RegisterCase(
            .protected, "LAR, LSL, VERR, VERW",
            code(
                "mov eax,0x20; lsl ebx,eax; lar ecx,eax; verw ax; setz dl; mov ax,8; verw ax; setz dh; hlt",
                "b8200000000f03d80f02c80f00e80f94c266b808000f00e80f94c6f4"), [3: 0xfff, 1: 0x409300, 2: 0x1]),
        RegisterCase(
            .protected, "down to CPL 3 and back by a call gate",
            code(
                "mov ax,0x50; ltr ax; push 0x33; push 0x30000; push 0x2b; push 0x100a0; retf; .org 0xa0; mov eax,cs; .byte 0x9a; .long 0; .word 0x4b; .org 0xc0; mov ebx,cs; mov ecx,[esp+8]; mov edx,[esp+4]; mov esi,[esp+12]; hlt",
                "66b850000f00d86a3368000003006a2b68a0000100cb0000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000008cc89a000000004b0000000000000000000000000000000000000000000000008ccb8b4c24088b5424048b74240cf4"
            ), [0: 0x2b, 3: 0x8, 1: 0x30000, 2: 0x2b, 6: 0x33]),
        RegisterCase(
            .protected, "IRET to CPL 3, INT back",
            code(
                "mov ax,0x50; ltr ax; push 0x33; push 0x30000; push 0x3002; push 0x2b; push 0x100a0; iretd; .org 0xa0; mov ax,ds; mov bx,cs; int 0x80; hlt",
                "66b850000f00d86a33680000030068023000006a2b68a0000100cf00000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000668cd8668ccbcd80f4"
            ), [0: 0x0, 3: 0x2b]),
        RegisterCase(
            .protected, "expand-down",
            code(
                "mov ax,0x58; mov es,ax; mov dword ptr [0x25000],0x66; mov eax,es:[0x5000]; hlt",
                "66b858008ec0c705005002006600000026a100500000f4"), [0: 0x66]),
        RegisterCase(
            .protected, "PREFETCH does not ask its segment",
            code(
                "mov ax,0x20; mov es,ax; prefetcht0 es:[0x1000]; mov ebx,7; hlt",
                "66b820008ec0260f180d00100000bb07000000f4"),
            [3: 7]),
        RegisterCase(
            .protected, "SYSENTER and SYSEXIT",
            code(
                "mov ax,0x50; ltr ax; mov ecx,0x174; mov eax,0x60; xor edx,edx; wrmsr; mov ecx,0x175; mov eax,0x28000; wrmsr; mov ecx,0x176; mov eax,0x10080; wrmsr; sysenter; .org 0x80; mov eax,esp; mov ebx,cs; mov ecx,0x30000; mov edx,0x100a0; sysexit; .org 0xa0; mov esi,cs; mov edi,ss; .byte 0xcd,0x80; hlt",
                "66b850000f00d8b974010000b86000000031d20f30b975010000b8008002000f30b976010000b8800001000f300f3400000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000089e08ccbb900000300baa00001000f35000000000000000000000000000000008cce8cd7cd80f4"
            ), [0: 0x28000, 3: 0x60, 6: 0x73, 7: 0x7b]),
    ]

    static let faultCases = [
        FaultCase(
            .protected, "beyond the limit",
            code("mov ax,0x20; mov es,ax; mov eax,es:[0xffd]", "66b820008ec026a1fd0f0000"), 13, 0x0, at: 0x6),
        FaultCase(
            .protected, "below an expand-down limit",
            code("mov ax,0x58; mov es,ax; mov eax,es:[0xffe]", "66b858008ec026a1fe0f0000"), 13, 0x0, at: 0x6),
        FaultCase(
            .protected, "null selector", code("xor eax,eax; mov es,ax; mov eax,es:[0]", "31c08ec026a100000000"), 13,
            0x0, at: 0x4),
        FaultCase(.protected, "write through CS", code("mov cs:[0x20000],eax", "2ea300000200"), 13, 0x0, at: 0x0),
        FaultCase(
            .protected, "stack operand beyond the limit",
            code(
                "mov ax,0x20; mov ss,ax; mov esp,0x800; mov ebp,0xffd; mov eax,[ebp]",
                "66b820008ed0bc00080000bdfd0f00008b4500"), 12, 0x0, at: 0x10),
        FaultCase(
            .protected, "write to a read-only segment",
            code("mov ax,0x68; mov es,ax; mov eax,es:[0]; mov es:[0],eax", "66b868008ec026a10000000026a300000000"), 13,
            0x0, at: 0xc),
        FaultCase(
            .protected, "selector beyond the table", code("mov ax,0x1f8; mov ds,ax", "66b8f8018ed8"), 13, 0x1f8, at: 0x4
        ),
        FaultCase(.protected, "segment not present", code("mov ax,0x80; mov ds,ax", "66b880008ed8"), 11, 0x80, at: 0x4),
        FaultCase(
            .protected, "stack segment of another level", code("mov ax,0x33; mov ss,ax", "66b833008ed0"), 13, 0x30,
            at: 0x4),
        FaultCase(.protected, "null stack segment", code("xor eax,eax; mov ss,ax", "31c08ed0"), 13, 0x0, at: 0x2),
        FaultCase(
            .protected, "jump beyond the code limit", code(".byte 0xea; .long 0x20000; .word 0x18", "ea000002001800"),
            13, 0x0, at: 0x0),
        FaultCase(
            .protected, "far jump to data", code(".byte 0xea; .long 0; .word 0x10", "ea000000001000"), 13, 0x10, at: 0x0
        ),
        FaultCase(
            .protected, "INTO reports the next instruction",
            code("mov eax,0x7fffffff; inc eax; into; nop", "b8ffffff7f40ce90"), 4, nil, at: 0x7),
        FaultCase(
            .protected, "BOUND",
            code(
                "mov dword ptr [0x20000],1; mov dword ptr [0x20004],5; mov eax,6; bound eax,[0x20000]",
                "c7050000020001000000c7050400020005000000b806000000620500000200"), 5, nil, at: 0x19),
        FaultCase(.protected, "AAM by 0", code(".byte 0xd4,0", "d400"), 0, nil, at: 0x0),
        FaultCase(
            .protected, "NW without CD", code("mov eax,0x20000001; mov cr0,eax", "b8010000200f22c0"), 13, 0x0, at: 0x5),
        FaultCase(
            .protected, "PG without PE", code("mov eax,0x80000000; mov cr0,eax", "b8000000800f22c0"), 13, 0x0, at: 0x5),
        FaultCase(
            .protected, "long mode without PAE",
            code(
                "mov ecx,0xc0000080; mov eax,0x100; xor edx,edx; wrmsr; mov eax,0x80000001; mov cr0,eax",
                "b9800000c0b80001000031d20f30b8010000800f22c0"), 13, 0x0, at: 0x13),
        FaultCase(.protected, "stack that is code", code("mov ax,8; mov ss,ax", "66b808008ed0"), 13, 0x8, at: 0x4),
        FaultCase(.protected, "SYSCALL without SCE", code("syscall", "0f05"), 6, nil, at: 0x0),
        FaultCase(.protected, "SWAPGS", code("swapgs", "0f01f8"), 6, nil, at: 0x0),
        FaultCase(
            .protected, "byte of a dword beyond 4 GiB", code("mov ebx,-2; mov eax,[ebx]", "bbfeffffff8b03"), 13, 0x0,
            at: 0x5),
        FaultCase(
            .protected, "IRET of a nested task is refused elsewhere: busy TSS",
            code("mov ax,0x50; ltr ax; ltr ax", "66b850000f00d80f00d8"), 13, 0x50, at: 0x7),
        FaultCase(.real, "word at the segment end", code("mov ax,[0xffff]", "a1ffff"), 13, nil, at: 0x0),
        FaultCase(
            .real, "stack operand at the end", code("mov bp,0xffff; mov ax,[bp]", "bdffff8b4600"), 12, nil, at: 0x3),
        FaultCase(.real, "LLDT", code("lldt ax", "0f00d0"), 6, nil, at: 0x0),
        FaultCase(.real, "division", code("xor cx,cx; div cx", "31c9f7f1"), 0, nil, at: 0x2),
        FaultCase(.real, "INT3 reports the next instruction", code("int3;", "cc"), 3, nil, at: 0x1),
    ]

    @Test("results", arguments: registerCases)
    func results(_ c: RegisterCase) {
        let guest = LegacyGuest(c.mode)
        #expect(guest.run(c.bytes) == .halt)
        for (register, value) in c.expected {
            #expect(guest.processor[register] == value, "register \(register)")
        }
    }

    @Test("faults", arguments: faultCases)
    func faults(_ c: FaultCase) {
        let guest = LegacyGuest(c.mode)
        #expect(guest.run(c.bytes) == .halt)
        let caught = guest.caught()
        #expect(caught?.vector == c.vector)
        #expect(caught?.errorCode == c.errorCode)
        #expect(caught?.offset == c.offset)
    }
}
