// Random instruction bytes in every mode: real, protected with 16 and 32 bits, compatibility, 64-bit, with random control
// registers, descriptors, page tables and registers. One input is a machine in a mode and 256 sequences of bytes that run
// on it one after the other; the machine's memory keeps what they did to it.
//
//   linear = physical, where paging is on:
//   0x00000 real-mode vectors    0x02000 page tables of every kind    0x09000 GDT, TSS at 0x9800    0x0a000 64-bit IDT
//   0x0b000 32-bit IDT           0x0d000 HLT, stacks above            0x10000 code                  0x20000 data

import Glibc
import TestSupport
import X86Core
import X86Defs

let processorModesFuzzer = Fuzzer(
    name: "processor-modes", summary: "256 byte sequences in one of all modes", smokeIterations: 4000,
    parts: ModeRig.sequenceCount,
    generate: { $0.bytes(8) }, check: checkModes)

/// Guest pages that lie apart: whatever runs over a page's end meets one that nobody may touch.
private final class GuardedMemory: ProcessorMemory {
    static let pageCount = 64
    private let region: UnsafeMutableRawPointer
    var rescinded: UInt64 = 0
    /// Devices in the processor's reach, or outside it.
    var answersDevices = false

    init() {
        let byteCount = (2 * Self.pageCount + 1) * 4096
        guard let place = mmap(nil, byteCount, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), place != MAP_FAILED
        else { fatalError("no memory for the fuzzer") }
        region = place
        for page in 0..<Self.pageCount {
            guard mprotect(self.page(page), 4096, PROT_READ | PROT_WRITE) == 0 else {
                fatalError("no memory for the fuzzer")
            }
        }
    }
    deinit { munmap(region, (2 * Self.pageCount + 1) * 4096) }

    func page(_ number: Int) -> UnsafeMutableRawPointer { region + (2 * number + 1) * 4096 }

    func store(_ value: UInt64, _ address: Int) {
        page(address >> 12).storeBytes(of: value, toByteOffset: address & 0xfff, as: UInt64.self)
    }
    func store32(_ value: UInt32, _ address: Int) {
        page(address >> 12).storeBytes(of: value, toByteOffset: address & 0xfff, as: UInt32.self)
    }

    func translate(gpa: UInt64, encrypted: Bool, access: PhysicalAccess) -> PhysicalTranslation {
        let number = gpa >> 12
        guard number < UInt64(Self.pageCount) else { return number < 0x100 ? .fault : .device }
        if rescinded & 1 << number != 0 { return .notValidated }
        let readOnly = number == 0x2f
        if readOnly, access == .write || access == .pageTableWrite { return .fault }
        return .page(page(Int(number)), writable: !readOnly)
    }
    func pvalidate(gpa: UInt64, size: UInt32, validate: Bool) -> PValidateResult? {
        let number = gpa >> 12
        guard number < UInt64(Self.pageCount) else { return nil }
        let before = rescinded
        if validate { rescinded &= ~(1 << number) } else { rescinded |= 1 << number }
        return PValidateResult(code: 0, unchanged: rescinded == before)
    }
    func rmpadjust(gpa: UInt64, size: UInt32, attributes: UInt64) -> UInt64? {
        gpa >> 12 < UInt64(Self.pageCount) ? 0 : nil
    }
    func deviceRead(gpa: UInt64, byteCount: Int, into value: inout UInt64) -> Bool {
        value = gpa
        return answersDevices
    }
    func deviceWrite(gpa: UInt64, byteCount: Int, value: UInt64) -> Bool { answersDevices }
}

private enum Mode: Int, CaseIterable {
    case real, flatReal, protected16, protected32, twoLevels, physicalExtension, long, longFiveLevels, compatible32,
        compatible16

    var isReal: Bool { self == .real || self == .flatReal }
    var isLong: Bool { rawValue >= Mode.long.rawValue }
    var paging: Bool { rawValue >= Mode.twoLevels.rawValue }
    /// Code descriptor with CPL 0; the one with CPL 3 is five entries on.
    var codeSelector: UInt16 {
        switch self {
        case .long, .longFiveLevels: 0x08
        case .protected16, .compatible16: 0x20
        default: 0x18
        }
    }
}

/// One processor, used again and again, so that stale decoded code and translations would show.
private final class ModeRig {
    static let sequenceCount = 256
    static let sequenceStride = 32
    static let code = 0x10000
    let memory = GuardedMemory()
    let processor: Processor
    let encrypted: Bool
    var start = ProcessorState()
    var sane = true
    var mode = Mode.real

    init(encrypted: Bool, baseline: Bool) {
        self.encrypted = encrypted
        var configuration = Processor.Configuration()
        configuration.encryptedState = encrypted
        configuration.snp = encrypted
        configuration.cBit = encrypted ? 51 : nil
        configuration.sevStatus = encrypted ? 7 : 0
        configuration.announcedCR4 =
            baseline ? 0 : CR4.umip | CR4.la57 | CR4.pcide | CR4.smep | CR4.smap | 1 << 22 | CR4.fsgsbase | CR4.osxsave
        configuration.features = baseline ? .baseline : .milan
        processor = Processor(memory: memory, configuration: configuration)
        processor.sliceInstructionCount = 64
    }

    /// `type` with S in bit 4.
    private func descriptor(_ type: UInt64, dpl: UInt64, base: UInt64, limit: UInt64, flags: UInt64) -> UInt64 {
        limit & 0xffff | (base & 0xff_ffff) << 16 | (type | dpl << 5 | 0x80) << 40 | (limit >> 16 & 15) << 48
            | flags << 52 | (base >> 24 & 0xff) << 56
    }

    func prepare(_ r: inout SeededGenerator) {
        memory.rescinded = 0
        memory.answersDevices = r.below(2) == 0
        mode = Mode.allCases[r.below(Mode.allCases.count)]
        if encrypted, !mode.isLong { mode = r.below(8) == 0 ? mode : .long }
        for number in 0..<16 { memset(memory.page(number), 0, 4096) }
        let filled = memory.page(0x20)
        for i in 0..<512 { filled.storeBytes(of: r.edge(UInt64.self), toByteOffset: i * 8, as: UInt64.self) }
        for number in 0x21..<GuardedMemory.pageCount { memcpy(memory.page(number), filled, 4096) }
        for number in 0x13..<0x20 { memset(memory.page(number), 0xf4, 4096) }
        tables(&r)
        registers(&r)
        for page in 0..<2 {
            let place = memory.page(Self.code >> 12 + page)
            memset(place, 0xf4, 4096)
            for i in 0..<128 { bytes(&r, place + i * Self.sequenceStride) }
        }
        memset(memory.page(Self.code >> 12 + 2), 0xf4, 4096)
        processor.forgetAllDecodedCode()
    }

    private func tables(_ r: inout SeededGenerator) {
        // Real mode: every vector leads to the HLT.
        for vector in 0..<256 { memory.store32(0x0d00_0000, vector * 4) }
        memset(memory.page(0xd), 0xf4, 64)
        // Five levels, or four, or three, down to 4 KiB pages; and two.
        memory.store(0x3007, 0x2000)
        memory.store(0x4007, 0x3000)
        for i in 0..<4 { memory.store(0x5007, 0x4000 + i * 8) }
        memory.store(0x6007, 0x5000)
        for i in 0..<4 { memory.store(0x5001, 0x4800 + i * 8) }
        for i in 1..<512 { memory.store(UInt64(i) << 21 | 0xe7, 0x5000 + i * 8) }
        for i in 0..<512 { memory.store(UInt64(i) << 12 | 0x67, 0x6000 + i * 8) }
        memory.store32(0x8007, 0x7000)
        for i in 1..<1024 { memory.store32(UInt32(i) << 22 | 0xe7, 0x7000 + i * 4) }
        for i in 0..<1024 { memory.store32(UInt32(i) << 12 | 0x67, 0x8000 + i * 4) }
        for _ in 0..<r.below(6) {
            // Other rights, reserved bits, other pages; entries of levels above rarely.
            let bit: UInt64 = 1 << UInt64(r.below(64))
            let i = r.below(64)
            switch r.below(8) {
            case 0: memory.store(r.edge(), 0x2000 + r.below(8) * 0x200 * 8 / 8)
            case 1: memory.store(UInt64(r.below(512)) << 21 | 0xe7 ^ bit, 0x5000 + r.below(512) * 8)
            default:
                memory.store(UInt64(r.below(80)) << 12 | 0x67 ^ bit, 0x6000 + i * 8)
                memory.store32(UInt32(r.below(80)) << 12 | 0x67 ^ UInt32(truncatingIfNeeded: bit), 0x8000 + i * 4)
            }
        }
        // Two descriptors of a kind: for CPL 0 and, five entries on, for CPL 3.
        for (i, dpl) in [(1, 0), (6, 3)] as [(Int, UInt64)] {
            memory.store(descriptor(0x1b, dpl: dpl, base: 0, limit: 0xfffff, flags: 0xa), 0x9000 + i * 8)
            memory.store(descriptor(0x13, dpl: dpl, base: 0, limit: 0xfffff, flags: 0xc), 0x9008 + i * 8)
            memory.store(descriptor(0x1b, dpl: dpl, base: 0, limit: 0xfffff, flags: 0xc), 0x9010 + i * 8)
            memory.store(
                descriptor(0x1b, dpl: dpl, base: UInt64(Self.code), limit: 0xffff, flags: 0), 0x9018 + i * 8)
            memory.store(descriptor(0x13, dpl: dpl, base: 0x10000, limit: 0xffff, flags: 0), 0x9020 + i * 8)
        }
        let wide = mode.isLong
        memory.store(descriptor(wide ? 0x9 : 0xb, dpl: 0, base: 0x9800, limit: 0x7ff, flags: 0), 0x9060)
        memory.store(descriptor(0x2, dpl: 0, base: 0x9400, limit: 0xff, flags: 0), 0x9070)
        for place in stride(from: 0x9080, to: 0x9600, by: 8) {
            var d = r.next()
            if r.below(4) > 0 {
                d = descriptor(
                    UInt64(r.below(32)), dpl: UInt64(r.below(4)), base: UInt64(r.below(0x40000)),
                    limit: r.edge(UInt64.self) & 0xfffff, flags: UInt64(r.below(16)))
                // Gates lead to the selectors at the front.
                if d >> 44 & 1 == 0, r.below(2) == 0 { d = d & ~0xffff_0000 | UInt64(r.below(12)) << 19 }
            }
            memory.store(d, place)
        }
        for i in 0..<32 { memory.store(UInt64(0xe000 + r.below(0x1000)) & ~7, 0x9800 + i * 8 + (wide ? 4 : 0)) }
        if !wide { for i in 1..<4 { memory.store32(0x10, 0x9800 + i * 8) } }
        for vector in 0..<256 {
            let type: UInt64 = r.below(32) == 0 ? UInt64(r.below(32)) : 0xe, dpl: UInt64 = r.below(2) == 0 ? 3 : 0
            let gate = 0xd000 | 0x18 << 16 | (type | dpl << 5 | 0x80) << 40
            memory.store(r.below(64) == 0 ? r.next() : gate, 0xb000 + vector * 8)
            let ist = r.below(16) == 0 ? UInt64(r.below(8)) << 32 : 0
            memory.store(r.below(64) == 0 ? r.next() : gate & ~0xffff_0000 | 0x8_0000 | ist, 0xa000 + vector * 16)
        }
    }

    private func registers(_ r: inout SeededGenerator) {
        var s = ProcessorState()
        let cpl: UInt16 = mode.isReal ? 0 : r.below(2) == 0 ? 0 : 3
        let shift: UInt16 = cpl == 3 ? 40 : 0
        let bits16 = mode == .protected16 || mode == .compatible16
        if mode.isReal {
            s.cs = .init(selector: 0x1000, attributes: 0x9b, limit: 0xffff, base: 0x10000)
            let limit: UInt32 = mode == .flatReal ? .max : 0xffff
            s.ds = .init(selector: 0x2000, attributes: 0x93, limit: limit, base: 0x20000)
            (s.es, s.ss, s.fs, s.gs) = (s.ds, s.ds, s.ds, s.ds)
            s.cr0 = 0x10
            s.idtr = .init(base: 0, limit: 0x3ff)
        } else {
            let attributes: UInt16 = mode == .long || mode == .longFiveLevels ? 0xa9b : bits16 ? 0x9b : 0xc9b
            s.cs = .init(
                selector: mode.codeSelector + shift | cpl, attributes: attributes | cpl << 5,
                limit: bits16 ? 0xffff : .max, base: bits16 ? UInt64(Self.code) : 0)
            let flat = SegmentRegister(selector: 0x10 + shift | cpl, attributes: 0xc93 | cpl << 5, limit: .max)
            (s.ds, s.es, s.ss, s.fs, s.gs) = (flat, flat, flat, flat, flat)
            if bits16 {
                s.ss = .init(selector: 0x28 + shift | cpl, attributes: 0x93 | cpl << 5, limit: 0xffff, base: 0x20000)
                s.ds = s.ss
            }
            s.cr0 = 0x11
            s.idtr = .init(base: mode.isLong ? 0xa000 : 0xb000, limit: mode.isLong ? 0xfff : 0x7ff)
            s.tr = .init(selector: 0x60, attributes: 0x8b, limit: 0x7ff, base: 0x9800)
            s.ldtr = .init(selector: 0x70, attributes: 0x82, limit: 0xff, base: 0x9400)
        }
        s.gdtr = .init(base: 0x9000, limit: 0x5ff)
        if mode.paging { s.cr0 |= CR0.pg }
        s.cr0 |= UInt64(r.next()) & (CR0.wp | CR0.ne | CR0.am | CR0.mp)
        if r.below(8) == 0 { s.cr0 |= UInt64(r.next()) & (CR0.em | CR0.ts) }
        s.cr4 = r.next() & (CR4.tsd | CR4.de | CR4.mce | CR4.pge | CR4.pce)
        s.cr4 |= CR4.pse | (r.below(8) == 0 ? 0 : CR4.osfxsr | CR4.osxmmexcpt)
        s.efer = r.next() & (EFER.sce | EFER.nxe)
        s.xcr0 = 7
        if processor.features == .milan {
            s.cr4 |= r.next() & (CR4.umip | CR4.fsgsbase | CR4.osxsave | 1 << 22)
            if r.below(4) == 0 { s.cr4 |= CR4.smep }
            if r.below(4) == 0 { s.cr4 |= CR4.smap }
            s.xcr0 = [7, 3, 1][r.below(3)]
            s.pkru = r.below(2) == 0 ? 0 : UInt32(truncatingIfNeeded: r.next())
        }
        switch mode {
        case .twoLevels: s.cr3 = 0x7000
        case .physicalExtension:
            s.cr3 = 0x4800
            s.cr4 |= CR4.pae
        case .longFiveLevels where processor.features == .milan:
            s.cr3 = 0x2000
            s.cr4 |= CR4.pae | CR4.la57
        case .long, .longFiveLevels, .compatible32, .compatible16:
            s.cr3 = 0x3000
            s.cr4 |= CR4.pae
        default: break
        }
        if mode.isLong { s.efer |= EFER.lme | EFER.lma }
        s.rflags = 2 | r.next() & 0x4_0cd5 | (r.below(16) == 0 ? r.next() & 0x7100 : 0)
        for i in 0..<32 {
            s.xmm[i] = r.edge()
            s.ymmUpper[i] = r.edge()
        }
        for i in 0..<8 {
            s.x87Significand[i] = r.edge()
            s.x87Exponent[i] = r.edge()
        }
        s.mxcsr = 0x1f80 ^ (r.below(4) == 0 ? UInt32(truncatingIfNeeded: r.next()) & 0xffff : 0)
        s.fcw = 0x37f ^ (r.below(4) == 0 ? UInt16(truncatingIfNeeded: r.next()) & 0xf3f : 0)
        s.fsw = UInt16(truncatingIfNeeded: r.next()) & 0x7f00
        s.ftw = UInt8(truncatingIfNeeded: r.next())
        (s.star, s.lstar, s.cstar) = (r.next(), 0xd000, 0xd000)
        s.star = r.below(4) == 0 ? s.star : 0x0033_0008 << 32 | 0xd000
        (s.sysenterCS, s.sysenterESP, s.sysenterEIP) = (0x18, 0xe800, 0xd000)
        if r.below(8) == 0 {
            (s.dr0, s.dr1) = (UInt64(0x10000 + r.below(0x2000)), UInt64(0x20000 + r.below(0x1000)))
            s.dr7 = 0x400 | r.next() & 0xffff_03ff
        }
        sane = r.below(8) > 0
        if !sane {
            // What no processor would be in, but a host or a hostile VMSA may ask for.
            for _ in 0...r.below(6) {
                switch r.below(16) {
                case 0: s.cr0 ^= 1 << UInt64(r.below(64))
                case 1: s.cr4 ^= 1 << UInt64(r.below(64))
                case 2: s.efer ^= 1 << UInt64(r.below(64))
                case 3: s.cs = segment(&r)
                case 4: s.ss = segment(&r)
                case 5: s.ds = segment(&r)
                case 6: s.es = segment(&r)
                case 7: s.fs = segment(&r)
                case 8: s.tr = segment(&r)
                case 9: s.ldtr = segment(&r)
                case 10: s.gdtr = .init(base: r.edge(), limit: r.edge())
                case 11: s.idtr = .init(base: r.edge(), limit: r.edge())
                case 12: s.cr3 = r.edge()
                case 13: s.rflags = r.next()
                case 14: (s.xcr0, s.mxcsr) = (r.edge(), r.edge())
                default: (s.dr7, s.fcw, s.fsw, s.xss) = (r.edge(), r.edge(), r.edge(), r.edge())
                }
            }
        }
        start = s
    }

    private func segment(_ r: inout SeededGenerator) -> SegmentRegister {
        .init(selector: r.edge(), attributes: r.edge(), limit: r.edge(), base: r.edge())
    }

    private static let prefixes: [UInt8] = [0x66, 0xf2, 0xf3, 0xf0, 0x2e, 0x36, 0x3e, 0x26, 0x64, 0x65, 0x67]

    /// One sequence: mostly instructions that exist, up to 28 bytes.
    private func bytes(_ r: inout SeededGenerator, _ place: UnsafeMutableRawPointer) {
        var length = 0
        func add(_ byte: UInt8) {
            place.storeBytes(of: byte, toByteOffset: length, as: UInt8.self)
            length += 1
        }
        var v = r.next()
        func take(_ bits: UInt64) -> Int {
            defer { v >>= bits }
            return Int(v & (1 << bits - 1))
        }
        let instructions = 1 + take(1)
        for _ in 0..<instructions {
            v = r.next()
            if take(2) == 0 {
                add(Self.prefixes[take(4) % 11])
                if take(2) == 0 { add(Self.prefixes[take(4) % 11]) }
            }
            let rex = mode == .long || mode == .longFiveLevels
            if rex, take(2) == 0 { add(0x40 | UInt8(take(4))) }
            switch take(4) {
            case 0, 1, 2:
                add(0x0f)
                add(UInt8(take(8)))
            case 3:
                add(0x0f)
                add(take(1) == 0 ? 0x38 : 0x3a)
                add(UInt8(take(8)))
            case 4:
                add(0xc5)
                add(UInt8(take(8)) | (rex ? 0 : 0xc0))
                add(UInt8(take(8)))
            case 5:
                add(0xc4)
                add(UInt8(1 + take(2) % 3) | (rex ? UInt8(take(3)) << 5 : 0xe0))
                add(UInt8(take(8)))
                add(UInt8(take(8)))
            case 6:
                add(0x0f)
                add([0x01, 0xae, 0xc7, 0x00, 0x20, 0x22, 0x23, 0x30][take(3)])
            default: add(UInt8(take(8)))
            }
            add(UInt8(take(8)))
            v = r.next()
            for _ in 0..<take(3) { add(UInt8(take(8))) }
        }
    }
}

/// Made on first use by the one thread that fuzzes.
nonisolated(unsafe) private var modeRigs: [ModeRig] = []

/// What the processor may say that it lacks.
private let knownReasons: Set<String> = [
    "an instruction this processor does not have", "virtual-8086 mode", "a hardware task switch",
    "a store to code and to a device", "a device access by this instruction",
]

@Sendable private func checkModes(_ input: [UInt8]) -> Outcome {
    guard input.count == 8 else { return .uninteresting("no seed") }
    var r = SeededGenerator(seed: input.reduce(0) { $0 << 8 | UInt64($1) })
    if modeRigs.isEmpty {
        modeRigs = [
            ModeRig(encrypted: false, baseline: false), ModeRig(encrypted: false, baseline: true),
            ModeRig(encrypted: true, baseline: false),
        ]
    }
    let rig = modeRigs[[0, 0, 1, 2][r.below(4)]]
    rig.prepare(&r)
    let processor = rig.processor
    var keeps = false
    for index in 0..<ModeRig.sequenceCount {
        var s = rig.start
        for _ in 0..<4 {
            let v = r.next()
            s.generalRegisters[Int(v & 15)] =
                v & 0x10 == 0 ? 0x20000 + (v >> 8 & 0xffff) : v & 0x20 == 0 ? v >> (v >> 8 & 63) : r.edge()
        }
        s.generalRegisters[4] = 0x8000 + UInt64(index) * 16 + (rig.mode.isReal ? 0 : 0x20000)
        s.rip = UInt64(index * ModeRig.sequenceStride) + (rig.start.cs.base == 0 ? UInt64(ModeRig.code) : 0)
        processor.setState(s, keepingTranslations: keeps)
        if let what = runSequence(rig) { return .impossible("sequence \(index), \(rig.mode): \(what)") }
        let after = processor.state
        keeps = after.cr0 == s.cr0 && after.cr3 == s.cr3 && after.cr4 == s.cr4 && after.efer == s.efer
        if rig.sane, let what = nonsense(after) {
            return .impossible("sequence \(index), \(rig.mode): \(what)")
        }
    }
    return .fine("\(rig.mode)")
}

/// Runs until the sequence ends, or for a few slices; nil: as it should be.
private func runSequence(_ rig: ModeRig) -> String? {
    let processor = rig.processor
    for _ in 0..<4 {
        let exit = processor.run()
        switch exit {
        case .interrupt, .halt, .shutdown, .nestedPageFault: return nil
        case .unimplemented(let reason, _):
            if knownReasons.contains(reason) { return nil }
            return "left without a known reason: \(reason)"
        case .exception(let vector, _): return "exception \(vector) left, which nobody intercepts"
        case .cpuid, .vmgexit, .vmmcall, .cr8Write, .interruptWindow: break
        case .io(let access):
            guard [1, 2, 4].contains(access.byteCount) else { return "\(access)" }
            processor.completeIO(value: .max)
        case .readMSR: processor.completeMSR(value: 0)
        case .writeMSR: processor.injectException(vector: 13, errorCode: 0)
        case .mmio(_, let byteCount, let write, _):
            guard (1...8).contains(byteCount) else { return "MMIO of \(byteCount) bytes" }
            if !write { processor.completeMMIO(value: .max) }
        }
        if rig.encrypted {
            switch exit {
            case .cpuid, .io, .readMSR, .writeMSR, .mmio, .vmmcall: return "an SNP guest left with \(exit)"
            default: break
            }
        }
    }
    return nil
}

/// A state that instructions cannot lead to; nil: none.
private func nonsense(_ s: ProcessorState) -> String? {
    func hex(_ v: UInt64) -> String { "0x" + String(v, radix: 16) }
    if s.rflags & 2 == 0 || s.rflags & 0xffff_ffff_ffc0_8028 != 0 { return "RFLAGS \(hex(s.rflags))" }
    if s.cr0 >> 32 != 0 || s.cr0 & (CR0.pg | CR0.pe) == CR0.pg { return "CR0 \(hex(s.cr0))" }
    let active = s.efer & EFER.lma != 0
    if active != (s.efer & EFER.lme != 0 && s.cr0 & CR0.pg != 0) { return "EFER \(hex(s.efer))" }
    if active, s.cr4 & CR4.pae == 0 { return "long mode without CR4.PAE" }
    let code64 = active && s.cs.attributes & 0x200 != 0
    if !code64, s.rip >> 32 != 0 { return "EIP \(hex(s.rip))" }
    if s.cr0 & CR0.pe != 0, s.cs.attributes & 4 == 0, UInt16(s.cs.selector & 3) != s.cs.attributes >> 5 & 3 {
        return "CS \(hex(UInt64(s.cs.selector))) with attributes \(hex(UInt64(s.cs.attributes)))"
    }
    if s.mxcsr & ~0x2_ffff != 0 { return "MXCSR \(hex(UInt64(s.mxcsr)))" }
    if s.gdtr.base >> 47 != 0, s.gdtr.base >> 47 != 0x1ffff, s.cr4 & CR4.la57 == 0 { return "GDTR" }
    return nil
}
