// The engine's side of a comparison: the same two code pages and two data pages as the native child has, at CPL 3, and
// nothing else mapped. Every exception ends in a HLT that tells its vector.

import CNativeJudge
import X86Core
import X86Defs

private final class EngineMemory: ProcessorMemory {
    static let byteCount = 0x2_0000
    let base = UnsafeMutableRawPointer.allocate(byteCount: byteCount, alignment: 4096)
    init() { base.initializeMemory(as: UInt8.self, repeating: 0, count: Self.byteCount) }
    deinit { base.deallocate() }

    func translate(gpa: UInt64, encrypted: Bool, access: PhysicalAccess) -> PhysicalTranslation {
        gpa < UInt64(Self.byteCount) ? .page(base + Int(gpa & ~0xfff), writable: true) : .fault
    }
    func pvalidate(gpa: UInt64, size: UInt32, validate: Bool) -> PValidateResult? { nil }
    func rmpadjust(gpa: UInt64, size: UInt32, attributes: UInt64) -> UInt64? { nil }
    func deviceRead(gpa: UInt64, byteCount: Int, into value: inout UInt64) -> Bool { false }
    func deviceWrite(gpa: UInt64, byteCount: Int, value: UInt64) -> Bool { false }
}

final class EngineMachine {
    //  physical: 0x1000…0x9fff page tables, 0xa000 IDT, 0xb000 GDT and TSS, 0xc000 HLT stubs, 0xd000 stack, 0xe000 code,
    //  0x1_0000 data
    private static let supervisor: UInt64 = 0xffff_8000_0000_0000
    private static let codePlace = 0xe000, dataPlace = 0x1_0000
    private let memory = EngineMemory()
    let processor: Processor
    private var nextTable = 0x2000
    private let start: ProcessorState
    private var loadedImage = UInt32.max
    private var images: UnsafePointer<UInt64>

    init(images: UnsafePointer<UInt64>) {
        self.images = images
        var configuration = Processor.Configuration()
        configuration.features = .milan
        processor = Processor(memory: memory, configuration: configuration)
        var s = ProcessorState()
        s.cr0 = 0x8005_0033
        s.cr3 = 0x1000
        s.cr4 = 0x6a0 | CR4.osxsave | CR4.fsgsbase | CR4.umip
        s.efer = 0xd01
        s.xcr0 = 7
        s.idtr = .init(base: Self.supervisor, limit: 0xfff)
        s.gdtr = .init(base: Self.supervisor + 0x1000, limit: 0x7f)
        s.tr = .init(selector: 0x40, attributes: 0x8b, limit: 104, base: Self.supervisor + 0x1100)
        s.ldtr = .init()
        start = s
        processor.sliceInstructionCount = 4000
        let leaf: UInt64 = 1, writable: UInt64 = 2, user: UInt64 = 4, noExecute: UInt64 = 1 << 63
        for i: UInt64 in 0..<4 {
            map(Self.supervisor + i * 0x1000, 0xa000 + i * 0x1000, i == 2 ? leaf : leaf | writable | noExecute)
        }
        for i: UInt64 in 0..<2 {
            map(UInt64(JUDGE_CODE) + i * 0x1000, UInt64(Self.codePlace) + i * 0x1000, leaf | user)
            map(
                UInt64(JUDGE_DATA) + i * 0x1000, UInt64(Self.dataPlace) + i * 0x1000,
                leaf | writable | user | noExecute)
        }
        for vector in 0..<256 {
            // Software interrupts may use only gates 3 and 4, as under Linux.
            let dpl: UInt64 = vector == 3 || vector == 4 ? 3 : 0
            let target = Self.supervisor + 0x2000 + UInt64(vector) * 16
            put(
                0xa000 + vector * 16,
                target & 0xffff | 0x10 << 16 | (0x8e | dpl << 5) << 40 | (target >> 16 & 0xffff) << 48)
            put(0xa008 + vector * 16, target >> 32)
            memory.base.storeBytes(of: 0xf4, toByteOffset: 0xc000 + vector * 16, as: UInt8.self)
        }
        // Linux's: 0x08 to 0x18 the kernel's, 0x20 32-bit user code, 0x28 user data, 0x30 user code, 0x40 TSS, 0x50 no LDT,
        // 0x60 no TLS, 0x78 the processor's number as a limit.
        let descriptors: [UInt64] = [
            0, 0x00cf_9b00_0000_ffff, 0x00af_9b00_0000_ffff, 0x00cf_9300_0000_ffff,
            0x00cf_fb00_0000_ffff, 0x00cf_f300_0000_ffff, 0x00af_fb00_0000_ffff, 0,
            0x0000_8b00_1100_0068, 0xffff_8000, 0, 0, 0, 0, 0, 0x0040_f500_0000_0000,
        ]
        for (i, d) in descriptors.enumerated() { put(0xb000 + i * 8, d) }
        memory.base.storeBytes(of: Self.supervisor + 0x4000, toByteOffset: 0xb104, as: UInt64.self)
        memory.base.storeBytes(of: 104, toByteOffset: 0xb166, as: UInt16.self)
    }

    /// One of the selectors a case may begin with, as its descriptor says.
    private func segment(_ selector: UInt16, base: UInt64 = 0) -> SegmentRegister {
        switch selector & ~3 {
        case 0x20: .init(selector: selector, attributes: 0xcfb, limit: .max, base: base)
        case 0x28: .init(selector: selector, attributes: 0xcf3, limit: .max, base: base)
        case 0x30: .init(selector: selector, attributes: 0xafb, limit: .max, base: base)
        default: .init(selector: selector, base: base)
        }
    }

    private func put(_ place: Int, _ value: UInt64) {
        memory.base.storeBytes(of: value, toByteOffset: place, as: UInt64.self)
    }
    private func word(_ place: Int) -> UInt64 { memory.base.load(fromByteOffset: place, as: UInt64.self) }

    private func map(_ linear: UInt64, _ place: UInt64, _ flags: UInt64) {
        var table = 0x1000
        for shift: UInt64 in [39, 30, 21] {
            let slot = table + Int(linear >> shift & 511) * 8
            if word(slot) == 0 {
                put(slot, UInt64(nextTable) | 7)
                nextTable += 0x1000
                precondition(nextTable <= 0xa000, "out of page tables")
            }
            table = Int(word(slot) & 0xf_ffff_f000)
        }
        put(table + Int(linear >> 12 & 511) * 8, place | flags)
    }

    /// New contents of both code pages.
    func setCode(_ bytes: UnsafeRawPointer) {
        (memory.base + Self.codePlace).copyMemory(from: bytes, byteCount: Int(JUDGE_AREA))
        processor.forgetAllDecodedCode()
    }

    /// Bytes of the first instruction in the buffer; nil: longer than 15, or it does not end in it.
    func length(_ bytes: [UInt8], compatible: Bool) -> Int? {
        if isCompatible != compatible {
            var s = start
            s.cs = segment(compatible ? 0x23 : 0x33)
            s.ss = segment(0x2b)
            s.rip = UInt64(JUDGE_CODE)
            processor.setState(s, keepingTranslations: true)
            isCompatible = compatible
        }
        return processor.instructionLength(bytes)
    }
    /// The mode the processor was last put in to measure a length.
    private var isCompatible: Bool?

    /// What the engine made of the case; `changes` as the native side reports them. False: it left otherwise than by an
    /// exception.
    func run(_ c: judge_state, into r: inout judge_result, exit: inout String) -> Bool {
        if loadedImage != c.image {
            (memory.base + Self.dataPlace).copyMemory(
                from: images + Int(c.image % UInt32(JUDGE_IMAGES)) * Int(JUDGE_WORDS), byteCount: Int(JUDGE_AREA))
            loadedImage = c.image
        }
        isCompatible = nil
        var s = start
        (s.cs, s.ss, s.ds, s.es) = (segment(c.cs), segment(c.ss), segment(c.ds), segment(c.es))
        (s.fs, s.gs) = (segment(c.fs, base: c.fs_base), segment(c.gs, base: c.gs_base))
        for i in 0..<16 { s.generalRegisters[i] = tupleWord(c.gpr, i) }
        s.rip = c.rip
        s.rflags = c.rflags & 0x40cd5 | 0x202
        s.fcw = c.fcw
        s.fsw = c.fsw
        s.ftw = UInt8(truncatingIfNeeded: c.ftw)
        s.fop = c.fop
        s.fip = c.fip
        s.fdp = c.fdp
        s.mxcsr = c.mxcsr
        for i in 0..<8 {
            s.x87Significand[i] = tupleWord(c.st_mantissa, i)
            s.x87Exponent[i] = UInt16(truncatingIfNeeded: tupleWord(c.st_exponent, i))
        }
        for i in 0..<32 {
            s.xmm[i] = tupleWord(c.xmm, i)
            s.ymmUpper[i] = tupleWord(c.ymmh, i)
        }
        processor.setState(s, keepingTranslations: true)
        var left = VMExit.interrupt
        // Longer than a 16-bit LOOP that the host's processor ends within its time.
        for _ in 0..<40 {
            left = processor.run()
            if left != .interrupt { break }
        }
        guard left == .halt, processor.rip & 15 == 1, processor.rip >> 12 == (Self.supervisor + 0x2000) >> 12 else {
            exit = "\(left)"
            loadedImage = .max
            if left == .interrupt {
                r.vector = UInt32(JUDGE_HANG)
                return true
            }
            return false
        }
        let after = processor.state
        r.vector = UInt32(processor.rip >> 4 & 255)
        var frame = Int(after.generalRegisters[4] - Self.supervisor) + 0xa000
        r.error = 0
        if [8, 10, 11, 12, 13, 14, 17, 21, 29, 30].contains(r.vector) {
            r.error = UInt32(truncatingIfNeeded: word(frame))
            frame += 8
        }
        r.cr2 = after.cr2
        withUnsafeMutablePointer(to: &r.state) { p in
            p.pointee.rip = word(frame)
            p.pointee.rflags = word(frame + 16)
            p.pointee.cs = UInt16(truncatingIfNeeded: word(frame + 8))
            p.pointee.ss = UInt16(truncatingIfNeeded: word(frame + 32))
            (p.pointee.ds, p.pointee.es) = (after.ds.selector, after.es.selector)
            (p.pointee.fs, p.pointee.gs) = (after.fs.selector, after.gs.selector)
            (p.pointee.fs_base, p.pointee.gs_base) = (after.fs.base, after.gs.base)
            withUnsafeMutableBytes(of: &p.pointee.gpr) { b in
                for i in 0..<16 { b.storeBytes(of: after.generalRegisters[i], toByteOffset: i * 8, as: UInt64.self) }
                b.storeBytes(of: word(frame + 24), toByteOffset: 32, as: UInt64.self)
            }
            withUnsafeMutableBytes(of: &p.pointee.xmm) { b in
                for i in 0..<32 { b.storeBytes(of: after.xmm[i], toByteOffset: i * 8, as: UInt64.self) }
            }
            withUnsafeMutableBytes(of: &p.pointee.ymmh) { b in
                for i in 0..<32 { b.storeBytes(of: after.ymmUpper[i], toByteOffset: i * 8, as: UInt64.self) }
            }
            withUnsafeMutableBytes(of: &p.pointee.st_mantissa) { b in
                for i in 0..<8 { b.storeBytes(of: after.x87Significand[i], toByteOffset: i * 8, as: UInt64.self) }
            }
            withUnsafeMutableBytes(of: &p.pointee.st_exponent) { b in
                for i in 0..<8 { b.storeBytes(of: UInt64(after.x87Exponent[i]), toByteOffset: i * 8, as: UInt64.self) }
            }
            p.pointee.mxcsr = after.mxcsr
            (p.pointee.fcw, p.pointee.fsw, p.pointee.fop) = (after.fcw, after.fsw, after.fop)
            p.pointee.ftw = UInt16(after.ftw)
            (p.pointee.fip, p.pointee.fdp) = (after.fip, after.fdp)
        }
        let data = (memory.base + Self.dataPlace).assumingMemoryBound(to: UInt64.self)
        let image = images + Int(c.image % UInt32(JUDGE_IMAGES)) * Int(JUDGE_WORDS)
        var count = 0
        withUnsafeMutableBytes(of: &r.change_index) { index in
            withUnsafeMutableBytes(of: &r.change_value) { value in
                for i in 0..<Int(JUDGE_WORDS) where data[i] != image[i] {
                    index.storeBytes(of: UInt16(i), toByteOffset: count * 2, as: UInt16.self)
                    value.storeBytes(of: data[i], toByteOffset: count * 8, as: UInt64.self)
                    data[i] = image[i]
                    count += 1
                }
            }
        }
        r.change_count = UInt32(count)
        return true
    }
}

/// A C array of quadwords by index.
func tupleWord<T>(_ tuple: T, _ index: Int) -> UInt64 {
    withUnsafeBytes(of: tuple) { $0.load(fromByteOffset: index * 8, as: UInt64.self) }
}
