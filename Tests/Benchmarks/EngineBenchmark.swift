// Instructions per second of the processor's run loop, on three small programs: integer chains, a byte loop over memory,
// and recursive calls. Each result is compared with the same computation in Swift.

import TestSupport
import X86Core
import X86Defs

enum EngineBenchmark {
    /// Three programs, each ending in HLT, at offsets 0, 0x40 and 0x80:
    ///
    ///     integer  2 000 000 rounds of: add rax, rbx; xor rdx, rax; shl rax, 3; lea r8, [rax + rdx*4 + 3];
    ///              sub r8, rbx; mov rax, r8; and edx, 0x7fffffff; dec ecx; jnz
    ///     memory   50 times over 64 KiB: eax += byte, += 7 if it is 0x80 or more; store AL elsewhere
    ///     calls    fib(27), recursively
    private static let programs =
        """
        b980841e00b801000000bbb979379e31d24801d84831c248c1e0034c8d4490034929d84c89c081e2ffffff7fffc975e1f4662e0f1f8400000000
        000f1f44000041b932000000be00000200bf0000030031c931c00fb6140e01d080fa80720383c00788040fffc181f90000010072e541ffc975d2
        f4662e0f1f84000000000090bf1b000000e801000000f483ff02730389f8c357ffcfe8f0ffffff5f5083ef02e8e6ffffff5a01d0c3
        """

    /// Vectors, each 1 000 000 rounds, ending in HLT with the result in RAX, at offsets 0, 0x80 and 0x100:
    ///
    ///     double   mulsd, addsd, divsd, subsd, addpd, mulpd, ucomisd, addsd on chains of registers
    ///     avx2     vpaddd, vpxor, vpmullw, vpshufb, vpsubb, vpaddq, vpor, vpcmpgtw on ymm registers
    ///     aes      aesenc three times, aesenclast, aesdec, aesdeclast, pclmulqdq, pxor
    private static let vectorPrograms =
        """
        b940420f00b803000000f20f2ac8b807000000f20f2ad0660f28c2f20f59c1f20f58c2f20f5ec2f20f5cd1660f58d8660f59e3660f2ec2f20f58d1ff
        c975dc66480f7ec0f4662e0f1f840000000000662e0f1f840000000000662e0f1f840000000000662e0f1f840000000000662e0f1f84000000000066
        0f1f840000000000b940420f00b804030201c5f96ec0c4e27d58c0c5f576c9c5fdfed1c5edefd8c5e5d5e2c4e25d00ebc5d5f8c1c5fdd4c2c5cdebf0
        c5fd65feffc975dbc4e1f97ec0f4662e0f1f840000000000662e0f1f840000000000662e0f1f840000000000662e0f1f840000000000662e0f1f8400
        00000000662e0f1f8400000000006690b940420f00b804030201660f6ec0660f6ec8660f38dcc1660f38dcc1660f38dcc1660f38ddc1660f38dec166
        0f38dfc1660f3a44c801660fefc8ffc975d466480f7ec0f4662e0f1f840000000000662e0f1f840000000000662e0f1f840000000000662e0f1f8400
        00000000662e0f1f840000000000662e0f1f840000000000
        """

    /// 1 MiB of RAM, mapped one to one, nothing else.
    private final class Memory: ProcessorMemory {
        static let byteCount = 1 << 20
        let bytes = UnsafeMutableRawPointer.allocate(byteCount: byteCount, alignment: 4096)

        init() { bytes.initializeMemory(as: UInt8.self, repeating: 0, count: Self.byteCount) }
        deinit { bytes.deallocate() }

        func store(_ contents: [UInt8], at address: Int) {
            bytes.advanced(by: address).copyMemory(from: contents, byteCount: contents.count)
        }
        func translate(gpa: UInt64, encrypted: Bool, access: PhysicalAccess) -> PhysicalTranslation {
            gpa < UInt64(Self.byteCount) ? .page(bytes + Int(gpa & ~0xfff), writable: true) : .device
        }
        func pvalidate(gpa: UInt64, size: UInt32, validate: Bool) -> PValidateResult? { nil }
        func rmpadjust(gpa: UInt64, size: UInt32, attributes: UInt64) -> UInt64? { nil }
        func deviceRead(gpa: UInt64, byteCount: Int, into value: inout UInt64) -> Bool { false }
        func deviceWrite(gpa: UInt64, byteCount: Int, value: UInt64) -> Bool { false }
    }

    static func run() throws {
        guard let code = [UInt8](hex: programs) else { throw BenchmarkFailure(description: "the programs are not hex") }
        var numbers = SeededGenerator(seed: 64)
        let data = numbers.bytes(0x10000)
        print("engine")
        try run("integer", code, 0, data, expected: integer())
        try run("memory", code, 0x40, data, expected: memory(data))
        try run("calls", code, 0x80, data, expected: 196_418)
        guard let vectors = [UInt8](hex: vectorPrograms) else {
            throw BenchmarkFailure(description: "the programs are not hex")
        }
        for (index, name) in ["double", "avx2", "aes"].enumerated() {
            // The engine's own way says what must come out, and what the host's instructions are worth.
            let (computed, slow) = try measure(name, vectors, UInt64(index) * 0x80, data, usesHostArithmetic: false)
            let (result, fast) = try measure(name, vectors, UInt64(index) * 0x80, data)
            guard result == computed else {
                throw BenchmarkFailure(description: "\(name) ended with \(result), computed in integers \(computed)")
            }
            print(
                "  \(name): \(decimal(fast / 1e6, 0)) M/s, \(decimal(slow / 1e6, 0)) M/s without the host's instructions,"
                    + " ratio \(decimal(fast / slow, 1)), result \(result)")
        }
    }

    private static func run(_ name: String, _ code: [UInt8], _ offset: UInt64, _ data: [UInt8], expected: UInt64) throws
    {
        let (result, perSecond) = try measure(name, code, offset, data)
        guard result == expected else {
            throw BenchmarkFailure(description: "\(name) ended with RAX \(result), expected \(expected)")
        }
        print("  \(name): \(decimal(perSecond / 1e6, 0)) M/s, result \(expected)")
    }

    /// RAX at the end, and instructions per second.
    private static func measure(
        _ name: String, _ code: [UInt8], _ offset: UInt64, _ data: [UInt8], usesHostArithmetic: Bool = true
    ) throws -> (result: UInt64, perSecond: Double) {
        let memory = Memory()
        memory.store(code, at: 0x10000)
        memory.store(data, at: 0x20000)
        // PML4 → PDPT → one PD with a 2 MiB leaf.
        for (address, entry) in [(0x1000, UInt64(0x2003)), (0x2000, 0x3003), (0x3000, 0x83)] {
            memory.bytes.storeBytes(of: entry, toByteOffset: address, as: UInt64.self)
        }
        var configuration = Processor.Configuration()
        configuration.usesHostArithmetic = usesHostArithmetic
        let processor = Processor(memory: memory, configuration: configuration)
        var state = ProcessorState()
        state.cs = SegmentRegister(selector: 8, attributes: 0xa9b, limit: .max)
        for segment in [\ProcessorState.ds, \.es, \.ss, \.fs, \.gs] {
            state[keyPath: segment] = SegmentRegister(selector: 16, attributes: 0xc93, limit: .max)
        }
        state.cr0 = 0x8000_0033
        state.cr4 = 0x4_0620  // PAE, OSFXSR, OSXMMEXCPT, OSXSAVE
        state.xcr0 = 7
        state.mxcsr = 0x1f80
        state.efer = 0x500
        state.cr3 = 0x1000
        state.generalRegisters[4] = 0x80000
        state.rip = 0x10000 + offset
        processor.state = state

        let start = now()
        var exit = processor.run()
        while exit == .interrupt { exit = processor.run() }
        let seconds = now() - start
        guard exit == .halt else {
            throw BenchmarkFailure(description: "\(name) ended with \(exit), expected HLT")
        }
        return (processor[0], Double(processor.instructionCount) / seconds)
    }

    private static func integer() -> UInt64 {
        let rbx: UInt64 = 0x9e37_79b9
        var rax: UInt64 = 1
        var rdx: UInt64 = 0
        for _ in 0..<2_000_000 {
            rax &+= rbx
            rdx ^= rax
            rax <<= 3
            rax = rax &+ rdx &* 4 &+ 3 &- rbx
            rdx &= 0x7fff_ffff
        }
        return rax
    }

    private static func memory(_ data: [UInt8]) -> UInt64 {
        // Each of the 50 passes does the same, so one is enough.
        data.reduce(0) { $0 &+ UInt64($1) &+ ($1 >= 0x80 ? 7 : 0) } & 0xffff_ffff
    }
}
