// For every bit of CPUID that the engine knows: announced, its instructions work; hidden, they are #UD.

import Testing
import X86Core
import X86Defs

struct ProcessorFeatureTests {
    /// One instruction of each group; they run at CPL 0 with all of the operating system's switches on.
    private static let instructions: [(ProcessorFeatures, [UInt8])] = [
        (.sse3, [0xf2, 0x0f, 0x7c, 0xc1]),  // HADDPS
        (.pclmulqdq, [0x66, 0x0f, 0x3a, 0x44, 0xc1, 0x00]),
        (.ssse3, [0x66, 0x0f, 0x38, 0x00, 0xc1]),  // PSHUFB
        (.fma, [0xc4, 0xe2, 0xf1, 0x98, 0xc2]),  // VFMADD132PD
        (.cmpxchg16b, [0x48, 0x0f, 0xc7, 0x0b]),
        (.sse41, [0x66, 0x0f, 0x38, 0x17, 0xc1]),  // PTEST
        (.sse42, [0xf2, 0x0f, 0x38, 0xf1, 0xc3]),  // CRC32
        (.movbe, [0x0f, 0x38, 0xf0, 0x03]),
        (.popcnt, [0xf3, 0x0f, 0xb8, 0xc3]),
        (.aes, [0x66, 0x0f, 0x38, 0xdc, 0xc1]),
        (.xsave, [0x0f, 0xae, 0x23]),
        (.avx, [0xc5, 0xf4, 0x58, 0xc2]),  // VADDPS, 256 bits
        (.f16c, [0xc4, 0xe2, 0x7d, 0x13, 0xc1]),
        (.rdrand, [0x0f, 0xc7, 0xf0]),
        (.fsgsbase, [0xf3, 0x48, 0x0f, 0xae, 0xc0]),
        (.bmi1, [0xc4, 0xe2, 0x60, 0xf2, 0xc1]),  // ANDN
        (.avx2, [0xc5, 0xf5, 0xfe, 0xc2]),  // VPADDD, 256 bits
        (.bmi2, [0xc4, 0xe2, 0x63, 0xf5, 0xc1]),  // PDEP
        (.rdseed, [0x0f, 0xc7, 0xf8]),
        (.adx, [0x66, 0x0f, 0x38, 0xf6, 0xc3]),
        (.clflushopt, [0x66, 0x0f, 0xae, 0x3b]),
        (.clwb, [0x66, 0x0f, 0xae, 0x33]),
        (.sha, [0x0f, 0x38, 0xc9, 0xc1]),
        (.rdpid, [0xf3, 0x0f, 0xc7, 0xf8]),
        (.vaes, [0xc4, 0xe2, 0x75, 0xdc, 0xc2]),
        (.vpclmulqdq, [0xc4, 0xe3, 0x75, 0x44, 0xc2, 0x00]),
        (.sse4a, [0x66, 0x0f, 0x79, 0xc1]),  // EXTRQ
        (.rdtscp, [0x0f, 0x01, 0xf9]),
        (.xsaveopt, [0x0f, 0xae, 0x33]),
        (.xsavec, [0x0f, 0xc7, 0x23]),
        (.xsaves, [0x0f, 0xc7, 0x2b]),
        (.lahf, [0x9f]),
        (.clzero, [0x0f, 0x01, 0xfc]),
        (.invpcid, [0x66, 0x0f, 0x38, 0x82, 0x13]),
    ]

    /// The group's own needs: a group without them is never announced.
    private static func needs(_ feature: ProcessorFeatures) -> ProcessorFeatures {
        switch feature {
        case .avx, .xsaveopt, .xsavec, .xsaves, .xgetbv1: .xsave
        case .avx2, .fma, .f16c: [.xsave, .avx]
        case .vaes: [.xsave, .avx, .aes]
        case .vpclmulqdq: [.xsave, .avx, .pclmulqdq]
        default: []
        }
    }

    /// Runs the bytes on a processor with these groups; nil: no exception.
    private func exception(_ bytes: [UInt8], _ features: ProcessorFeatures, rcx: UInt64 = 0) throws -> Int? {
        var configuration = Processor.Configuration()
        configuration.features = features
        let machine = FlatMachine(configuration: configuration)
        machine.map(0x40_0000, to: 0x1_0000, FlatMachine.present | FlatMachine.writable)
        machine.memory.write(bytes + [0xf4], at: 0x1_0800)
        var s = FlatMachine.state(cpl: 0)
        s.rip = 0x40_0800
        s.cr4 |= CR4.osfxsr | CR4.osxmmexcpt
        if features.contains(.xsave) { s.cr4 |= CR4.osxsave }
        if features.contains(.fsgsbase) { s.cr4 |= CR4.fsgsbase }
        s.xcr0 = features.contains(.avx) ? 7 : 3
        s.generalRegisters[0] = 0x40_0400
        s.generalRegisters[1] = rcx
        s.generalRegisters[2] = 0
        s.generalRegisters[3] = 0x40_0400
        machine.processor.state = s
        for _ in 0..<10 {
            switch machine.processor.run() {
            case .halt:
                let rip = machine.processor.rip
                return rip == 0x40_0800 + UInt64(bytes.count) + 1 ? nil : Int(rip >> 4 & 255)
            case .interrupt: continue
            case let other:
                Issue.record("\(other)")
                return -1
            }
        }
        return -1
    }

    @Test(arguments: instructions.indices)
    func `announced works, hidden is undefined`(_ index: Int) throws {
        let (feature, bytes) = Self.instructions[index]
        let minimal: ProcessorFeatures = [feature, Self.needs(feature), .amdOrder]
        #expect(try exception(bytes, minimal) == nil)
        #expect(try exception(bytes, .milan) == nil)
        #expect(try exception(bytes, ProcessorFeatures.milan.subtracting(feature)) == 6)
        #expect(try exception(bytes, minimal.subtracting(feature)) == 6)
    }

    /// Those that hide an operand, a result or a use, not an opcode.
    @Test func `groups within an opcode`() throws {
        // XGETBV with ECX 1.
        #expect(try exception([0x0f, 0x01, 0xd0], .milan, rcx: 1) == nil)
        #expect(try exception([0x0f, 0x01, 0xd0], ProcessorFeatures.milan.subtracting(.xgetbv1), rcx: 1) == 13)
        // MXCSR.MM: LDMXCSR of it is a general protection exception where it does not exist.
        let load: [UInt8] = [0xc7, 0x03, 0x80, 0x1f, 0x02, 0x00, 0x0f, 0xae, 0x13]
        #expect(try exception(load, .milan) == nil)
        #expect(try exception(load, ProcessorFeatures.milan.subtracting(.misalignedSSE)) == 13)
        // LZCNT without ABM is BSR, PREFETCHW without its bit a hint like any other: no exceptions.
        for bytes in [[0xf3, 0x0f, 0xbd, 0xc3], [0x0f, 0x0d, 0x0b]] as [[UInt8]] {
            #expect(try exception(bytes, .milan) == nil)
            #expect(try exception(bytes, .baseline) == nil)
        }
    }

    @Test func `every bit has its test`() {
        var tested: ProcessorFeatures = [.xgetbv1, .misalignedSSE, .abm, .prefetchw, .amdOrder]
        for (feature, _) in Self.instructions { tested.insert(feature) }
        #expect(tested.isSuperset(of: .milan))
    }
}
