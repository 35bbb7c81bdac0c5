// Random accesses by a SEV guest and its host, in every order, against what can be known about the outcome: a block keeps
// what its last view wrote until the other view or the host touches it.

import KVMABI
import SEVABI
import SoftwareKVM
import Testing
import TestSupport

@Suite struct SEVMemoryModelTests {
    /// Sixteen pages that the guest sees at two addresses, with C=1 and C=0.
    private static let offset = SEVTestVM.aliasOffset
    private static let byteCount = 0x1_0000
    /// mov rax, [rbx]; hlt. mov [rdi], rcx; hlt.
    private static let load = SEVTestVM.codeGPA
    private static let store = SEVTestVM.codeGPA + 0x10

    /// What is known of one quadword through one view.
    private struct Known {
        var encrypted: UInt64?
        var shared: UInt64?
    }

    @Test(arguments: [1, 2, 3, 4] as [UInt64]) func randomAccesses(seed: UInt64) throws {
        var random = SeededGenerator(seed: seed)
        let code: [UInt8] = [0x48, 0x8b, 0x03, 0xf4] + [UInt8](repeating: 0x90, count: 12) + [0x48, 0x89, 0x0f, 0xf4]
        let vm = try SEVTestVM.launched(try LaunchKernel.software(), .sev, code: code)
        let target = try vm.kernel.map(.anonymous, offset: 0, byteCount: 4096)
        var known = [Known](repeating: Known(), count: Self.byteCount / 8)

        func access(_ position: Int, encrypted: Bool, writing value: UInt64?) throws -> UInt64 {
            let gpa = UInt64(8 * position) + (Bool.random(using: &random) ? UInt64(Self.offset) : SEVTestVM.aliasGPA)
            let linear = gpa + (encrypted ? 0 : UInt64(SEVTestVM.window))
            var registers = KVMRegisters()
            registers.rip = UInt64(value == nil ? Self.load : Self.store)
            registers.rflags = 2
            (registers.rbx, registers.rdi, registers.rcx) = (linear, linear, value ?? 0)
            try vm.kernel.call(vm.vcpu, .setRegisters, reading: registers)
            try #require(vm.run() == .success(.halt))
            try vm.kernel.call(vm.vcpu, .getRegisters, &registers)
            return registers.rax
        }
        /// The block, and of a page that the host wrote to behind the guest's back all blocks.
        func forget(_ range: Range<Int>, encrypted: Bool = true, shared: Bool = true) {
            for position in range {
                if encrypted { known[position].encrypted = nil }
                if shared { known[position].shared = nil }
            }
        }

        for _ in 0..<1500 {
            let position = Int.random(in: 0..<known.count, using: &random)
            let block = position & ~1..<position & ~1 + 2
            let page = position & ~511..<position & ~511 + 512
            let value = random.next()
            switch Int.random(in: 0..<12, using: &random) {
            case 0, 1, 2:
                _ = try access(position, encrypted: true, writing: value)
                known[position].encrypted = value
                forget(block, encrypted: false)
            case 3, 4, 5:
                let found = try access(position, encrypted: true, writing: nil)
                if let expected = known[position].encrypted { #expect(found == expected) }
                known[position].encrypted = found
            case 6, 7:
                _ = try access(position, encrypted: false, writing: value)
                forget(block, shared: false)
                known[position].shared = value
            case 8:
                let found = try access(position, encrypted: false, writing: nil)
                if let expected = known[position].shared { #expect(found == expected) }
                known[position].shared = found
                // Ciphertext does not change by being looked at, and is not the plaintext.
                if let plain = known[position].encrypted { #expect(found != plain) }
                #expect(try access(position, encrypted: false, writing: nil) == found)
            case 9:
                vm.memory.store(value, at: Self.offset + 8 * position)
                forget(page)
            case 10: try vm.flush(Self.offset + 8 * position & ~4095, 4096 * Int.random(in: 1...3, using: &random))
            default:
                var debug = KVMSEVDebug(
                    sourceAddress: vm.memory.address + UInt64(Self.offset + 8 * block.lowerBound),
                    destinationAddress: target.address, byteCount: 16)
                #expect(vm.command(.debugDecrypt, &debug) == .success)
                for other in block {
                    guard let expected = known[other].encrypted else { continue }
                    #expect(target.load(at: 8 * (other - block.lowerBound), as: UInt64.self) == expected)
                }
            }
        }
    }
}
