// Whatever bytes a guest executes: the processor raises an exception, leaves with a reason that names what it lacks, or
// goes on. It never traps, and never reads or writes outside the guest's memory.

import TestSupport
import X86Core
import X86Defs

let processorFuzzers = [
    Fuzzer(
        name: "processor-plain", summary: "instruction-like bytes in a plain guest", smokeIterations: 20_000,
        generate: instructionBytes, check: { checkProcessor($0, encrypted: false) }),
    Fuzzer(
        name: "processor-snp", summary: "instruction-like bytes in an SNP guest", smokeIterations: 20_000,
        generate: instructionBytes, check: { checkProcessor($0, encrypted: true) }),
]

/// Eight bytes that seed the registers, then code.
@Sendable private func instructionBytes(_ numbers: inout SeededGenerator) -> [UInt8] {
    let prefixes: [UInt8] = [0x66, 0xf2, 0xf3, 0xf0, 0x2e, 0x36, 0x3e, 0x26, 0x64, 0x65, 0x67]
    var bytes = numbers.bytes(8)
    for _ in 0...numbers.below(10) {
        while numbers.below(4) == 0 { bytes.append(prefixes[numbers.below(prefixes.count)]) }
        if numbers.below(3) == 0 { bytes.append(0x40 | UInt8(truncatingIfNeeded: numbers.next() & 15)) }
        switch numbers.below(8) {
        case 0: bytes += [0x0f, UInt8(truncatingIfNeeded: numbers.next())]
        case 1: bytes += [0x0f, [0x38, 0x3a, 0x01, 0xae, 0xc7, 0x0d, 0x18, 0x00][numbers.below(8)], numbers.edge()]
        default: bytes.append(UInt8(truncatingIfNeeded: numbers.next()))
        }
        if numbers.below(4) > 0 { bytes.append(UInt8(truncatingIfNeeded: numbers.next())) }
        let immediate: UInt64 = numbers.edge()
        for index in 0..<[0, 0, 1, 1, 2, 4, 8][numbers.below(7)] {
            bytes.append(UInt8(truncatingIfNeeded: immediate >> UInt64(8 * index)))
        }
    }
    return bytes
}

/// A few pages of guest memory, mapped one to one; everything else is a device or is not there.
private final class SmallMemory: ProcessorMemory {
    static let pageCount = 64
    let bytes = UnsafeMutableRawPointer.allocate(byteCount: pageCount * 4096, alignment: 4096)
    /// Pages that the guest rescinded.
    var rescinded: Set<UInt64> = []

    deinit { bytes.deallocate() }

    func translate(gpa: UInt64, encrypted: Bool, access: PhysicalAccess) -> PhysicalTranslation {
        let page = gpa >> 12
        guard page < UInt64(Self.pageCount) else { return page < 0x100 ? .fault : .device }
        if rescinded.contains(page) { return .notValidated }
        if page == 7, access == .write || access == .pageTableWrite { return .fault }
        return .page(bytes + Int(page) * 4096, writable: page != 7)
    }

    func pvalidate(gpa: UInt64, size: UInt32, validate: Bool) -> PValidateResult? {
        let page = gpa >> 12
        guard page < UInt64(Self.pageCount) else { return nil }
        let changed = validate ? rescinded.remove(page) != nil : rescinded.insert(page).inserted
        return PValidateResult(code: 0, unchanged: !changed)
    }

    func rmpadjust(gpa: UInt64, size: UInt32, attributes: UInt64) -> UInt64? {
        gpa >> 12 < UInt64(Self.pageCount) ? 0 : nil
    }

    func deviceRead(gpa: UInt64, byteCount: Int, into value: inout UInt64) -> Bool {
        value = .max
        return gpa & 0x1000 == 0
    }

    func deviceWrite(gpa: UInt64, byteCount: Int, value: UInt64) -> Bool { gpa & 0x1000 == 0 }
}

/// A processor that is used again and again, so that stale decoded code and translations would show.
private final class Rig {
    static let codeAddress: UInt64 = 0x10ff0  // the code crosses into the next page
    let memory = SmallMemory()
    let processor: Processor
    let start: ProcessorState

    init(encrypted: Bool) {
        var configuration = Processor.Configuration()
        configuration.encryptedState = encrypted
        configuration.snp = encrypted
        configuration.cBit = encrypted ? 51 : nil
        configuration.sevStatus = encrypted ? 7 : 0
        processor = Processor(memory: memory, configuration: configuration)

        var state = ProcessorState()
        state.cs = SegmentRegister(selector: 8, attributes: 0xa9b, limit: .max)
        let data = SegmentRegister(selector: 16, attributes: 0xc93, limit: .max)
        state.ds = data
        state.es = data
        state.ss = data
        state.fs = data
        state.gs = data
        state.gdtr = DescriptorTableRegister(base: 0x5000, limit: 23)
        state.idtr = DescriptorTableRegister(base: 0x6000, limit: 0xfff)
        state.cr0 = 0x8001_0033
        state.cr4 = 0x620
        state.efer = 0xd01
        state.cr3 = 0x1000
        state.rip = Self.codeAddress
        start = state
    }

    /// Everything as at the start: tables, code, registers.
    func reset(_ input: [UInt8]) {
        var numbers = SeededGenerator(seed: input.prefix(8).reduce(0) { $0 << 8 | UInt64($1) })
        let bytes = memory.bytes
        // HLT wherever execution may stray to: it would take long to run over zeros that are stores into themselves.
        bytes.initializeMemory(as: UInt8.self, repeating: 0xf4, count: SmallMemory.pageCount * 4096)
        bytes.initializeMemory(as: UInt8.self, repeating: 0, count: 0x10000)
        memory.rescinded = []
        func store(_ value: UInt64, _ address: Int) {
            bytes.storeBytes(of: value, toByteOffset: address, as: UInt64.self)
        }
        // PML4 → PDPT → PD: 4 KiB pages for the first 2 MiB, then 2 MiB leaves.
        store(0x2007, 0x1000)
        store(0x3007, 0x2000)
        store(0x4007, 0x3000)
        for index in 1..<512 { store(UInt64(index) << 21 | 0x87, 0x3000 + 8 * index) }
        for index in 0..<512 { store(UInt64(index) << 12 | 7, 0x4000 + 8 * index) }
        store(0x00af_9b00_0000_ffff, 0x5008)
        store(0x00cf_9300_0000_ffff, 0x5010)
        for vector in 0..<256 {
            // All gates lead to HLT at 0x9000.
            store(0x0000_8e00_0008_9000, 0x6000 + 16 * vector)
        }
        store(0xf4f4_f4f4_f4f4_f4f4, 0x9000)
        var address = Int(Self.codeAddress)
        for byte in input.dropFirst(8) {
            bytes.storeBytes(of: byte, toByteOffset: address, as: UInt8.self)
            address += 1
        }
        bytes.storeBytes(of: 0xf4, toByteOffset: address, as: UInt8.self)
        processor.forgetCode(at: UnsafeRawPointer(bytes), byteCount: SmallMemory.pageCount * 4096)

        var state = start
        for register in 0..<16 {
            // Addresses in memory, at its borders, or any number.
            state.generalRegisters[register] =
                numbers.below(2) == 0 ? UInt64(0x20000 + numbers.below(0x1f000)) : numbers.edge()
        }
        state.generalRegisters[4] = UInt64(0x30000 + numbers.below(0x8000)) & ~7
        for index in 0..<32 { state.xmm[index] = numbers.edge() }
        state.rflags = 2 | numbers.next() & 0xcd5
        processor.state = state
    }
}

/// Made on first use by the one thread that fuzzes.
nonisolated(unsafe) private var rigs: [Bool: Rig] = [:]

private func checkProcessor(_ input: [UInt8], encrypted: Bool) -> Outcome {
    guard input.count >= 8, input.count < 1000 else { return .uninteresting("no code") }
    let rig = rigs[encrypted] ?? Rig(encrypted: encrypted)
    rigs[encrypted] = rig
    rig.reset(input)
    let processor = rig.processor
    let before = processor.instructionCount
    var kinds = "end"
    for _ in 0..<4 {
        let exit = processor.run()
        guard processor.instructionCount >= before else { return .impossible("the instruction count went back") }
        switch exit {
        case .interrupt: kinds = "slice over"
        case .halt: return .fine("halt")
        case .shutdown: return .fine("shutdown")
        case .unimplemented(let reason, _):
            return reason.isEmpty ? .impossible("unimplemented without a reason") : .fine("unimplemented")
        case .cpuid: kinds = "cpuid"
        case .vmgexit, .vmmcall, .cr8Write, .interruptWindow: kinds = "other exit"
        case .io(let access):
            guard [1, 2, 4].contains(access.byteCount) else { return .impossible("\(access)") }
            processor.completeIO(value: .max)
            kinds = "io"
        case .readMSR:
            processor.completeMSR(value: 0)
            kinds = "msr"
        case .writeMSR:
            processor.injectException(vector: 13, errorCode: 0)
            kinds = "msr"
        case .mmio(_, let byteCount, let write, _):
            guard (1...8).contains(byteCount) else { return .impossible("MMIO of \(byteCount) bytes") }
            if !write { processor.completeMMIO(value: .max) }
            kinds = "mmio"
        case .exception(let vector, _): return .impossible("exception \(vector) left, which nobody intercepts")
        case .nestedPageFault:
            return .fine("nested page fault")
        }
        if encrypted {
            switch exit {
            case .cpuid, .io, .readMSR, .writeMSR, .mmio, .vmmcall:
                return .impossible("an SNP guest left with \(exit) instead of #VC")
            default: break
            }
        }
    }
    return .fine(kinds)
}
