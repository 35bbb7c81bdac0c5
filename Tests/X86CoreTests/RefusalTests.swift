// What this processor does not do, it refuses by name: the exit says what and where, and nothing has changed. A VMM sees
// KVM_EXIT_INTERNAL_ERROR.

import Testing
import X86Core
import X86Defs

struct RefusedCase: Sendable, CustomTestStringConvertible {
    let name: String, reason: String, bytes: [UInt8], offset: Int
    init(_ name: String, _ reason: String, _ bytes: [UInt8], at offset: Int = 0) {
        (self.name, self.reason, self.bytes, self.offset) = (name, reason, bytes, offset)
    }
    var testDescription: String { name }
}

@Suite struct RefusalTests {
    static let taskSwitch = "a hardware task switch"
    /// 32-bit code. 0x50 is a TSS of 32 bits, 0x70 one of 16, 0x78 and the gates of vectors 6 and 0x40 lead to the first.
    static let cases = [
        RefusedCase("far JMP to a TSS", taskSwitch, [0xea, 0, 0, 0, 0, 0x50, 0]),
        RefusedCase("far JMP to a TSS of 16 bits", taskSwitch, [0xea, 0, 0, 0, 0, 0x70, 0]),
        RefusedCase("far CALL to a TSS", taskSwitch, [0x9a, 0, 0, 0, 0, 0x50, 0]),
        RefusedCase("far JMP through memory", taskSwitch, [0xff, 0x2d, 0x06, 0, 1, 0, 0, 0, 0, 0, 0x50, 0]),
        RefusedCase("far CALL through a task gate", taskSwitch, [0x9a, 0, 0, 0, 0, 0x78, 0]),
        // Its event waits for the next run; RIP is behind.
        RefusedCase("INT through a task gate", taskSwitch, [0xcd, 0x40], at: 2),
        RefusedCase("an exception through a task gate", taskSwitch, [0x0f, 0x0b]),
        // PUSHFD; OR dword [ESP], NT; POPFD; IRETD
        RefusedCase(
            "IRET with NT", taskSwitch, [0x9c, 0x81, 0x0c, 0x24, 0, 0x40, 0, 0, 0x9d, 0xcf], at: 9),
        // PUSH flags with VM; PUSH 8; PUSH 0; IRETD
        RefusedCase(
            "IRET to virtual-8086 mode", "virtual-8086 mode", [0x68, 2, 0, 2, 0, 0x6a, 8, 0x6a, 0, 0xcf], at: 9),
    ]

    @Test(arguments: cases) func `refused by name, nothing changed`(_ item: RefusedCase) {
        let guest = LegacyGuest(.protected)
        guest.memory[0x8070] = LegacyGuest.descriptor(0x7000, 0x2b, 0x081)
        guest.memory[0x8078] = LegacyGuest.gate(0x50, 0, 0xe5)
        guest.memory[0xa000 + 6 * 8] = LegacyGuest.gate(0x50, 0, 0xe5)
        guest.memory[0xa000 + 0x40 * 8] = LegacyGuest.gate(0x50, 0, 0xe5)
        let exit = guest.run(item.bytes)
        guard case .unimplemented(let reason, let bytes) = exit else {
            Issue.record("\(exit)")
            return
        }
        #expect(reason == item.reason)
        #expect(bytes.prefix(item.bytes.count - item.offset) == item.bytes[item.offset...])
        let after = guest.processor.state
        #expect(after.rip == UInt64(LegacyGuest.protectedCode + item.offset))
        #expect(after.cs == guest.state.cs && after.tr == guest.state.tr && after.ss == guest.state.ss)
        // Each run of pushes leaves three doublewords or none.
        #expect(after.generalRegisters[4] == guest.state.generalRegisters[4] - (item.bytes[0] == 0x68 ? 12 : 0))
        // Asked again, it refuses again.
        #expect(guest.processor.run() == exit)
    }

    /// In long mode there are none: what would be one is an ordinary fault [APM2 12.2.4].
    @Test func `long mode has no task switches`() throws {
        let machine = FlatMachine()
        machine.map(0x40_0000, to: 0x1_0000, FlatMachine.present | FlatMachine.writable)
        machine.memory.write([0x48, 0xcf, 0xf4], at: 0x1_0000)  // IRETQ
        var state = FlatMachine.state(cpl: 0)
        state.rip = 0x40_0000
        state.rflags |= 0x4000
        machine.processor.state = state
        #expect(machine.run() == .halt)
        #expect(try #require(machine.caught()).vector == 13)
    }
}
