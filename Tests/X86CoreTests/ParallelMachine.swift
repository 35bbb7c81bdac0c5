// Several processors on threads over one memory of 2 MiB, mapped one to one in pages of 4 KiB; all of it supervisor memory.
//
//   0x1000…0x4fff   page tables             0x8000   IDT: 29 (#VC) is dropped and tried again
//   0x9000          GDT                     0xa000   that handler
//   0x1_0000…       programs, a page each   0x4_0000…  data          0x8_0000…  stacks, a page each

import Dispatch
import Glibc
import SoftwareKVM
import Synchronization
import Testing
import X86Core
import X86Defs

/// Memory whose pages can go away and come back while processors run.
final class ParallelMemory: ProcessorMemory, @unchecked Sendable {
    static let byteCount = 0x20_0000
    // Guest memory: whoever touches it agrees with the processors, as guests do.
    let base: UnsafeMutableRawPointer
    /// Not validated, and not readable.
    private let gone = Mutex<(validation: Set<UInt64>, permission: Set<UInt64>)>(([], []))
    static let poison: UInt64 = 0xdead_dead_dead_dead, good: UInt64 = 0x600d_600d_600d_600d

    init() {
        base = .allocate(byteCount: Self.byteCount, alignment: 4096)
        base.initializeMemory(as: UInt8.self, repeating: 0, count: Self.byteCount)
    }
    deinit { base.deallocate() }

    func translate(gpa: UInt64, encrypted: Bool, access: PhysicalAccess) -> PhysicalTranslation {
        guard gpa < UInt64(Self.byteCount) else { return .device }
        let page = gpa & ~0xfff
        let (isGone, isForbidden) = gone.withLock { ($0.validation.contains(page), $0.permission.contains(page)) }
        return isGone ? .notValidated : isForbidden ? .fault : .page(base + Int(page), writable: true)
    }

    /// A page that is not validated holds something else at once: whoever still reads it is found out.
    func pvalidate(gpa: UInt64, size: UInt32, validate: Bool) -> PValidateResult? {
        if validate {
            self[Int(gpa)] = Self.good
            gone.withLock { _ = $0.validation.remove(gpa) }
        } else {
            gone.withLock { _ = $0.validation.insert(gpa) }
            self[Int(gpa)] = Self.poison
        }
        return PValidateResult(code: 0)
    }
    /// Bit 11 (RDX 15:8, bit 3): the page can be read.
    func rmpadjust(gpa: UInt64, size: UInt32, attributes: UInt64) -> UInt64? {
        if attributes & 0x800 != 0 {
            self[Int(gpa)] = Self.good
            gone.withLock { _ = $0.permission.remove(gpa) }
        } else {
            gone.withLock { _ = $0.permission.insert(gpa) }
            self[Int(gpa)] = Self.poison
        }
        return 0
    }
    func deviceRead(gpa: UInt64, byteCount: Int, into value: inout UInt64) -> Bool { false }
    func deviceWrite(gpa: UInt64, byteCount: Int, value: UInt64) -> Bool { false }

    subscript<T: BitwiseCopyable>(_ gpa: Int, as type: T.Type = T.self) -> T {
        get { (base + gpa).loadUnaligned(as: T.self) }
        set { (base + gpa).storeBytes(of: newValue, as: T.self) }
    }
    func write(_ bytes: [UInt8], at gpa: Int) {
        for (i, b) in bytes.enumerated() { base.storeBytes(of: b, toByteOffset: gpa + i, as: UInt8.self) }
    }
}

/// One processor's program and what its registers hold at first.
struct ParallelProgram {
    var code: [UInt8]
    /// By encoding number; RSP is the machine's.
    var registers: [Int: UInt64] = [:]
}

final class ParallelMachine: @unchecked Sendable {
    static let data: UInt64 = 0x4_0000
    let memory = ParallelMemory()
    let gate: GuestGate
    private let group: ProcessorGroup
    private let processors: [Processor]

    /// - Parameter capacity: How many processors the gate lets in at a time.
    init(_ programs: [ParallelProgram], capacity: Int) {
        gate = GuestGate(capacity: capacity)
        let group = ProcessorGroup(gate: gate)
        self.group = group
        memory[0x1000] = 0x2003 as UInt64
        memory[0x2000] = 0x3003 as UInt64
        memory[0x3000] = 0x4003 as UInt64
        for i in 0..<512 { memory[0x4000 + i * 8] = UInt64(i) << 12 | 3 }
        memory[0x8000 + 29 * 16] = 0xa000 | 0x10 << 16 | 0x8e << 40 as UInt64
        memory[0x9010] = 0x00af_9b00_0000_ffff as UInt64
        memory[0x9018] = 0x00cf_9300_0000_ffff as UInt64
        memory.write([0x48, 0x83, 0xc4, 0x08, 0x48, 0xcf], at: 0xa000)  // add rsp, 8; iretq
        var configuration = Processor.Configuration()
        configuration.encryptedState = true
        configuration.snp = true
        let memory = memory, gate = gate
        processors = programs.enumerated().map { index, program in
            memory.write(program.code, at: 0x1_0000 + index * 0x1000)
            let processor = Processor(memory: memory, configuration: configuration, group: group)
            var state = ProcessorState()
            state.cr0 = 0x8005_0033
            state.cr3 = 0x1000
            state.cr4 = 0x6a0
            state.efer = 0xd01
            state.idtr = .init(base: 0x8000, limit: 0xfff)
            state.gdtr = .init(base: 0x9000, limit: 0x1f)
            state.cs = .init(selector: 0x10, attributes: 0xa9b, limit: 0xffff_ffff)
            state.ss = .init(selector: 0x18, attributes: 0xc93, limit: 0xffff_ffff)
            state.rflags = 2
            for (register, value) in program.registers { state.generalRegisters[register] = value }
            state.generalRegisters[4] = 0x8_1000 + UInt64(index) * 0x1000
            state.rip = 0x1_0000 + UInt64(index) * 0x1000
            gate.inside { processor.state = state }
            return processor
        }
    }

    /// Runs every program on a thread of its own to its HLT. False: one of them ended otherwise.
    func run() -> Bool {
        let ended = DispatchGroup()
        let failures = Mutex<[String]>([])
        for index in processors.indices {
            DispatchQueue(label: "processor \(index)").async(group: ended) { [self] in
                while true {
                    if processors[index].hasSpun { sched_yield() }
                    switch gate.inside({ processors[index].run() }) {
                    case .interrupt, .nestedPageFault: continue
                    case .halt: return
                    case let exit:
                        failures.withLock { $0.append("\(exit)") }
                        return
                    }
                }
            }
        }
        ended.wait()
        let found = failures.withLock { $0 }
        #expect(found == [])
        return found.isEmpty
    }
}
