// Hand-made cases: a few pages of code and data, and what became of them.
//
//   0x40_0000, 0x40_1000   code, writable too        → 0x1_0000, 0x1_1000
//   0x50_0000…0x50_2fff    data                      → 0x1_2000…0x1_4fff     (0x50_3000 is not mapped)
//   0x60_0000              a device                  → 0x1000_0000

import TestSupport
import X86Core
import X86Defs

/// Machine code: the assembly is for the reader (Intel syntax), the bytes are what runs.
func code(_ assembly: String, _ hex: String) -> [UInt8] { [UInt8](hex: hex) ?? [] }

final class EngineGuest {
    static let code: UInt64 = 0x40_0000, data: UInt64 = 0x50_0000, device: UInt64 = 0x60_0000
    static let deviceGPA: UInt64 = 0x1000_0000
    let machine: FlatMachine
    var memory: FlatMemory { machine.memory }
    var processor: Processor { machine.processor }
    var state: ProcessorState

    init(cpl: Int = 0, configuration: Processor.Configuration = .init()) {
        machine = FlatMachine(configuration: configuration)
        let user = cpl == 3 ? FlatMachine.user : 0
        let all = FlatMachine.present | FlatMachine.writable | user
        for i: UInt64 in 0..<2 { machine.map(Self.code + i * 0x1000, to: 0x1_0000 + i * 0x1000, all) }
        for i: UInt64 in 0..<3 {
            machine.map(Self.data + i * 0x1000, to: 0x1_2000 + i * 0x1000, all | FlatMachine.noExecute)
        }
        machine.map(Self.device, to: Self.deviceGPA, all | FlatMachine.noExecute)
        machine.memory.devices = [Self.deviceGPA]
        state = FlatMachine.state(cpl: cpl)
        state.rip = Self.code
        if cpl == 3 { state.generalRegisters[4] = Self.data + 0x2800 }
        state.generalRegisters[7] = Self.data
    }

    /// Puts code at 0x40_0000, sets the state, runs.
    func run(_ bytes: [UInt8]) -> VMExit {
        memory.write(bytes, at: 0x1_0000)
        processor.forgetCode(at: memory.base + 0x1_0000, byteCount: 4096)
        processor.state = state
        return machine.run()
    }

    /// The exception that stopped it, if one did.
    func fault(_ bytes: [UInt8]) -> CaughtException? {
        guard run(bytes) == .halt else { return nil }
        return machine.caught()
    }

    subscript(_ register: Int) -> UInt64 { processor[register] }
    func data(_ offset: Int) -> UInt64 { memory[0x1_2000 + offset] }
    func setData(_ offset: Int, _ value: UInt64) { memory[0x1_2000 + offset] = value }
}
