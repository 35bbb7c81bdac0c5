// Several processors at the same time: what they do to one memory must be what some order of it does.

import SoftwareKVM
import TestSupport
import Testing
import X86Core

/// Two at a time on any host: they share a host processor if there is but one. And more than are let in.
@Suite(.serialized)
struct ParallelProcessorTests {
    static let crowds = [(2, 2), (4, 4), (5, 2), (3, 1)]
    static let data = ParallelMachine.data

    @Test(arguments: crowds)
    func lockedInstructionsLoseNothing(_ count: Int, _ capacity: Int) {
        let rounds: UInt64 = 10_000
        let program = code(
            """
            1: lock inc qword [rdi]; lock add dword [rdi+8], 1; mov eax, 1; lock xadd [rdi+16], rax; mov rax, [rdi+24];
            2: lea rdx, [rax+1]; lock cmpxchg [rdi+24], rdx; jne 2b; lock dec word [rdi+32]; clc; lock adc byte [rdi+40], 1;
            lock neg qword [rdi+56]; lock sub dword [rdi+64], ecx; lock xor [rdi+72], rcx; lock btc qword [rdi+80], 63;
            lock bts dword [rdi+88], ebp; dec ecx; jnz 1b; hlt
            """,
            "f048ff07f083470801b801000000f0480fc14710488b4718488d5001f0480fb1571875f466f0ff4f20f8f080572801f048f75f38"
                + "f0294f40f048314f48f0480fba7f503ff00fab6f58ffc975b3f4")
        let machine = ParallelMachine(
            (0..<count).map {
                ParallelProgram(code: program, registers: [7: Self.data, 1: rounds, 5: UInt64($0) * 37])
            }, capacity: capacity)
        let at = Int(Self.data)
        machine.memory[at + 56] = 77 as UInt64
        #expect(machine.run())
        let total = rounds * UInt64(count)
        #expect(machine.memory[at, as: UInt64.self] == total)
        #expect(machine.memory[at + 8, as: UInt32.self] == UInt32(total))
        #expect(machine.memory[at + 16, as: UInt64.self] == total)
        #expect(machine.memory[at + 24, as: UInt64.self] == total)
        #expect(machine.memory[at + 32, as: UInt16.self] == 0 &- UInt16(truncatingIfNeeded: total))
        #expect(machine.memory[at + 40, as: UInt8.self] == UInt8(truncatingIfNeeded: total))
        #expect(machine.memory[at + 56, as: UInt64.self] == 77)
        let sum = UInt32(truncatingIfNeeded: UInt64(count) * rounds * (rounds + 1) / 2)
        #expect(machine.memory[at + 64, as: UInt32.self] == 0 &- sum)
        #expect(machine.memory[at + 72, as: UInt64.self] == (count % 2 == 0 ? 0 : (1...rounds).reduce(0, ^)))
        #expect(machine.memory[at + 80, as: UInt64.self] == 0)
        for i in 0..<count {
            let byte: UInt8 = machine.memory[at + 88 + i * 37 / 8]
            #expect(byte >> (i * 37 & 7) & 1 == 1)
        }
    }

    @Test(arguments: crowds)
    func spinLocksExclude(_ count: Int, _ capacity: Int) {
        let spin = code(
            "1: mov al, 1; xchg al, [rdi]; test al, al; jz 3f; 2: pause; cmp byte [rdi], 0; jne 2b; jmp 1b; "
                + "3: mov rdx, [rdi+8]; inc rdx; mov [rdi+8], rdx; mov byte [rdi], 0; dec ecx; jnz 1b; hlt",
            "b001860784c07409f390803f0075f9ebef488b570848ffc248895708c60700ffc975ddf4")
        let ticket = code(
            "1: mov eax, 1; lock xadd [rdi+128], eax; 2: cmp eax, [rdi+192]; je 3f; pause; jmp 2b; "
                + "3: add qword [rdi+256], 1; inc dword [rdi+192]; dec ecx; jnz 1b; hlt",
            "b801000000f00fc187800000003b87c00000007404f390ebf44883870001000001ff87c0000000ffc975d5f4")
        for (program, at) in [(spin, 8), (ticket, 256)] {
            let machine = ParallelMachine(
                (0..<count).map { _ in ParallelProgram(code: program, registers: [7: Self.data, 1: 1000]) },
                capacity: capacity)
            #expect(machine.run())
            #expect(machine.memory[Int(Self.data) + at, as: UInt64.self] == 1000 * UInt64(count))
        }
    }

    /// The low half goes up, the high half down: one that was read or written in two pieces shows.
    @Test(arguments: crowds)
    func pairsStayTogether(_ count: Int, _ capacity: Int) {
        let sixteen = code(
            "mov rbp, rcx; mov rax, [rdi]; mov rdx, [rdi+8]; 1: lea rbx, [rax+1]; mov rcx, rdx; sub rcx, 1; "
                + "lock cmpxchg16b [rdi]; jne 1b; lea rbx, [rax+1]; dec rbp; jnz 1b; hlt",
            "4889cd488b07488b5708488d58014889d14883e901f0480fc70f75ee488d580148ffcd75e5f4")
        let eight = code(
            "mov rbp, rcx; mov eax, [rdi]; mov edx, [rdi+4]; 1: lea ebx, [rax+1]; lea ecx, [rdx-1]; lock cmpxchg8b [rdi]; "
                + "jne 1b; dec rbp; jnz 1b; hlt",
            "4889cd8b078b57048d58018d4afff00fc70f75f448ffcd75eff4")
        func run(_ program: [UInt8], at place: UInt64) -> ParallelMemory {
            let machine = ParallelMachine(
                (0..<count).map { _ in ParallelProgram(code: program, registers: [7: place, 1: 500]) },
                capacity: capacity)
            #expect(machine.run())
            return machine.memory
        }
        // Each round of a processor succeeds once.
        let total = UInt64(count) * 500
        let pair = run(sixteen, at: Self.data), at = Int(Self.data)
        #expect(pair[at, as: UInt64.self] == total)
        #expect(pair[at + 8, as: UInt64.self] == 0 &- total)
        // Aligned, across cache lines, across pages.
        for offset in [0, 60, 4092] {
            let memory = run(eight, at: Self.data + UInt64(offset))
            #expect(memory[at + offset, as: UInt32.self] == UInt32(total))
            #expect(memory[at + offset + 4, as: UInt32.self] == 0 &- UInt32(total))
        }
    }

    @Test(arguments: crowds)
    func locksHoldAcrossLinesAndPages(_ count: Int, _ capacity: Int) {
        let program = code(
            "1: lock inc dword [rdi-2]; lock add qword [rdi+61], 3; lock inc word [rdi+4095]; mov eax, 1; "
                + "lock xadd dword [rdi+4094], eax; lock bts dword [rdi+201], 5; dec ecx; jnz 1b; hlt",
            "f0ff47fef04883473d0366f0ff87ff0f0000b801000000f00fc187fe0f0000f00fbaafc900000005ffc975d4f4")
        let machine = ParallelMachine(
            (0..<count).map { _ in ParallelProgram(code: program, registers: [7: Self.data, 1: 400]) },
            capacity: capacity)
        #expect(machine.run())
        let total = UInt32(count) * 400, at = Int(Self.data)
        #expect(machine.memory[at - 2, as: UInt32.self] == total)
        #expect(machine.memory[at + 61, as: UInt64.self] == UInt64(total) * 3)
        // A word's increments one byte further up.
        #expect(machine.memory[at + 4094, as: UInt32.self] == total * 257)
        #expect(machine.memory[at + 201, as: UInt32.self] == 32)
    }

    /// Each stores to its own place and loads the other's: with a fence or a locked instruction between, one of them at
    /// least sees the other's store.
    @Test(arguments: [false, true])
    func storesAreSeenBehindFences(_ byExchange: Bool) {
        let fenced = code(
            "1: mov byte [rdi+rcx], 1; mfence; mov al, [rsi+rcx]; mov [rdx+rcx], al; inc rcx; cmp rcx, rbp; jne 1b; hlt",
            "c6040f010faef08a040e88040a48ffc14839e975ebf4")
        let exchanged = code(
            "1: mov byte [rdi+rcx], 1; xchg rbx, [r8]; mov al, [rsi+rcx]; mov [rdx+rcx], al; inc rcx; cmp rcx, rbp; "
                + "jne 1b; hlt", "c6040f014987188a040e88040a48ffc14839e975ebf4")
        let rounds = 0x1_0000, places: UInt64 = 0x10_0000
        let machine = ParallelMachine(
            (0..<2).map { i in
                ParallelProgram(
                    code: byExchange ? exchanged : fenced,
                    registers: [
                        7: places + i * 0x1_0000, 6: places + (1 - i) * 0x1_0000, 2: places + 0x2_0000 + i * 0x1_0000,
                        1: 0, 5: UInt64(rounds), 8: Self.data + i * 64,
                    ])
            }, capacity: 2)
        #expect(machine.run())
        let unseen = (0..<rounds).filter { round in
            (0..<2).allSatisfy { machine.memory[Int(places) + 0x2_0000 + $0 * 0x1_0000 + round, as: UInt8.self] == 0 }
        }
        #expect(unseen == [])
    }

    /// Stores are seen in the order in which they were made: the second value, which counts down, is never ahead.
    @Test func storesKeepTheirOrder() {
        let writer = code("1: mov [rdi], rcx; mov [rsi], rcx; dec rcx; jnz 1b; hlt", "48890f48890e48ffc975f5f4")
        let reader = code(
            "1: mov rax, [rsi]; mov rdx, [rdi]; cmp rdx, rax; jbe 2f; inc qword [r8]; 2: cmp rax, 1; ja 1b; hlt",
            "488b06488b174839c2760349ff004883f80177ecf4")
        let machine = ParallelMachine(
            [
                ParallelProgram(code: writer, registers: [7: Self.data, 6: Self.data + 0x1040, 1: 1_000_000]),
                ParallelProgram(
                    code: reader, registers: [7: Self.data, 6: Self.data + 0x1040, 8: Self.data + 0x2000]),
            ], capacity: 2)
        machine.memory[Int(Self.data)] = UInt64.max
        machine.memory[Int(Self.data) + 0x1040] = UInt64.max
        #expect(machine.run())
        #expect(machine.memory[Int(Self.data) + 0x2000, as: UInt64.self] == 0)
    }

    /// One changes the other's code and says so; the other runs what it was told of, never what was there before.
    @Test(arguments: [1, 2])
    func codeIsChangedForOthers(_ capacity: Int) {
        let writer = code(
            "1: mov [rdi+1], ecx; mov [rsi], rcx; 2: pause; cmp [rsi+64], rcx; jne 2b; dec rcx; jnz 1b; hlt",
            "894f0148890ef39048394e4075f848ffc975edf4")
        let runner = code(
            "1: mov rcx, [rsi]; cmp rcx, rbx; jne 2f; pause; jmp 1b; 2: call rdi; cmp rax, rcx; je 3f; inc qword [r8]; "
                + "3: mov rbx, rcx; mov [rsi+64], rcx; cmp rcx, 1; jne 1b; hlt",
            "488b0e4839d97504f390ebf4ffd74839c8740349ff004889cb48894e404883f90175ddf4")
        let function: UInt64 = 0x3_0000
        let machine = ParallelMachine(
            [
                ParallelProgram(code: writer, registers: [7: function, 6: Self.data, 1: 200]),
                ParallelProgram(code: runner, registers: [7: function, 6: Self.data, 8: Self.data + 0x2000, 3: 0]),
            ], capacity: capacity)
        machine.memory.write(code("mov eax, 0; ret", "b800000000c3"), at: Int(function))
        #expect(machine.run())
        #expect(machine.memory[Int(Self.data) + 0x2000, as: UInt64.self] == 0)
        #expect(machine.memory[Int(Self.data) + 64, as: UInt64.self] == 1)
    }

    /// A page walk sets marks in an entry that another processor changes: neither loses what the other did.
    @Test func walksMarkEntriesThatOthersChange() {
        let toucher = code(
            "1: invlpg [rdi]; mov rax, [rdi]; mov [rdi], rcx; cmp byte [r8], 0; je 1b; hlt",
            "0f013f488b0748890f4180380074f1f4")
        let changer = code(
            "mov r10, 1; shl r10, 52; 1: lock add [rsi], r10; lock btr qword [rsi], 5; lock btr qword [rsi], 6; dec rcx; "
                + "jnz 1b; mov byte [r8], 1; hlt",
            "49c7c20100000049c1e234f04c0116f0480fba3605f0480fba360648ffc975eb41c60001f4")
        let page: UInt64 = 0x5_0000, entry = 0x4000 + Int(page >> 12) * 8
        let machine = ParallelMachine(
            [
                ParallelProgram(code: toucher, registers: [7: page, 8: Self.data]),
                // Bits 58:52 are the software's, 62:59 count only with protection keys: 2047 additions fit.
                ParallelProgram(code: changer, registers: [6: UInt64(entry), 8: Self.data, 1: 2047]),
            ], capacity: 2)
        #expect(machine.run())
        let found: UInt64 = machine.memory[entry]
        #expect(found & ~0x60 == page | 3 | 2047 << 52)
    }

    /// A page that is taken from the guest is read by nobody from the moment the instruction is done.
    @Test(arguments: [false, true])
    func pagesLeaveEveryProcessor(_ byAdjusting: Bool) {
        let validator = code(
            "1: mov rax, rdi; xor ecx, ecx; xor edx, edx; pvalidate; mov rax, rdi; xor ecx, ecx; mov edx, 1; pvalidate; "
                + "dec rbp; jnz 1b; mov byte [r8], 1; hlt",
            "4889f831c931d2f20f01ff4889f831c9ba01000000f20f01ff48ffcd75e241c60001f4")
        let adjuster = code(
            "1: mov rax, rdi; xor ecx, ecx; mov edx, 0x701; rmpadjust; mov rax, rdi; xor ecx, ecx; mov edx, 0xf01; "
                + "rmpadjust; dec rbp; jnz 1b; mov byte [r8], 1; hlt",
            "4889f831c9ba01070000f30f01fe4889f831c9ba010f0000f30f01fe48ffcd75df41c60001f4")
        let reader = code(
            "1: mov rax, [rdi]; cmp rax, rbx; jne 2f; cmp byte [r8], 0; je 1b; hlt; 2: mov [r9], rax; jmp 1b",
            "488b074839d875074180380074f2f4498901ebec")
        let page: UInt64 = 0x5_0000
        let readers = ParallelProgram(
            code: reader,
            registers: [7: page, 3: ParallelMemory.good, 8: Self.data, 9: Self.data + 0x1000])
        let machine = ParallelMachine(
            [
                ParallelProgram(
                    code: byAdjusting ? adjuster : validator, registers: [7: page, 8: Self.data, 5: 1000]),
                readers, readers,
            ], capacity: 3)
        machine.memory[Int(page)] = ParallelMemory.good
        #expect(machine.run())
        #expect(machine.memory[Int(Self.data) + 0x1000, as: UInt64.self] == 0)
    }
}
