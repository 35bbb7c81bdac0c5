// A processor over one flat buffer, with page tables, IDT, GDT and TSS of its own: every exception ends in a HLT whose
// address tells the vector.
//
//   physical                      linear
//   0x1000…0x8fff  page tables
//   0x9000         IDT            0xffff_8000_0000_0000   supervisor only
//   0xa000         GDT, TSS       0xffff_8000_0000_1000
//   0xb000         HLT stubs      0xffff_8000_0000_2000
//   0xc000…0xffff  stacks         0xffff_8000_0000_3000…6fff
//   0x1_0000…      free           mapped by the test

import X86Core
import X86Defs

/// Guest memory as one buffer; some pages can be made special.
final class FlatMemory: ProcessorMemory {
    let base: UnsafeMutableRawPointer
    let byteCount: Int
    var devices: Set<UInt64> = []
    var notValidated: Set<UInt64> = []
    var faulting: Set<UInt64> = []
    /// Pages that lie elsewhere in the buffer than at their address.
    var moved: [UInt64: UInt64] = [:]
    var readOnly: Set<UInt64> = []
    /// C-bits of the accesses asked for, by page.
    var encryptionSeen: [UInt64: Set<Bool>] = [:]
    /// What was asked for, by page.
    var accessesSeen: [UInt64: Set<PhysicalAccess>] = [:]
    /// Called with the page before each answer.
    var beforeAnswer: ((UInt64) -> Void)?
    /// Answers device loads before the processor exits.
    var localDevice: [UInt64: UInt64] = [:]
    var localWrites: [UInt64: UInt64] = [:]
    var pvalidateCalls: [(UInt64, UInt32, Bool)] = []
    var rmpadjustCalls: [(UInt64, UInt32, UInt64)] = []
    var pvalidateResult: PValidateResult? = PValidateResult(code: 0)
    var rmpadjustResult: UInt64? = 0

    init(byteCount: Int) {
        self.byteCount = byteCount
        base = .allocate(byteCount: byteCount, alignment: 4096)
        base.initializeMemory(as: UInt8.self, repeating: 0, count: byteCount)
    }
    deinit { base.deallocate() }

    func translate(gpa: UInt64, encrypted: Bool, access: PhysicalAccess) -> PhysicalTranslation {
        let page = gpa & ~0xfff
        encryptionSeen[page, default: []].insert(encrypted)
        accessesSeen[page, default: []].insert(access)
        beforeAnswer?(page)
        if devices.contains(page) { return .device }
        if notValidated.contains(page) { return .notValidated }
        if faulting.contains(page) { return .fault }
        guard page < UInt64(byteCount) else { return .device }
        return .page(base + Int(moved[page] ?? page), writable: !readOnly.contains(page))
    }
    func pvalidate(gpa: UInt64, size: UInt32, validate: Bool) -> PValidateResult? {
        pvalidateCalls.append((gpa, size, validate))
        return pvalidateResult
    }
    func rmpadjust(gpa: UInt64, size: UInt32, attributes: UInt64) -> UInt64? {
        rmpadjustCalls.append((gpa, size, attributes))
        return rmpadjustResult
    }
    func deviceRead(gpa: UInt64, byteCount: Int, into value: inout UInt64) -> Bool {
        guard let v = localDevice[gpa] else { return false }
        value = v
        return true
    }
    func deviceWrite(gpa: UInt64, byteCount: Int, value: UInt64) -> Bool {
        guard localWrites[gpa] != nil else { return false }
        localWrites[gpa] = value
        return true
    }

    subscript<T: BitwiseCopyable>(_ gpa: Int, as type: T.Type = T.self) -> T {
        get { (base + gpa).loadUnaligned(as: T.self) }
        set { (base + gpa).storeBytes(of: newValue, as: T.self) }
    }
    func write(_ bytes: [UInt8], at gpa: Int) {
        for (i, b) in bytes.enumerated() { base.storeBytes(of: b, toByteOffset: gpa + i, as: UInt8.self) }
    }
}

/// What stopped the guest: an exception caught by its stub, or an exit.
struct CaughtException: Equatable {
    var vector: Int
    var errorCode: UInt64?
    var rip: UInt64
    var rflags: UInt64
    var rsp: UInt64
    var cs: UInt64 = 0x33
}

final class FlatMachine {
    static let supervisor: UInt64 = 0xffff_8000_0000_0000
    static let idt = supervisor, gdt = supervisor + 0x1000, stubs = supervisor + 0x2000
    static let tss = gdt + 0x100
    /// Tops of the ring-0 stack and of IST stacks 1 and 2.
    static let stackTop = supervisor + 0x4000, ist1Top = supervisor + 0x5000, ist2Top = supervisor + 0x6000
    static let present: UInt64 = 1, writable: UInt64 = 2, user: UInt64 = 4, noExecute: UInt64 = 1 << 63

    let memory: FlatMemory
    let processor: Processor
    private var nextTable = 0x2000

    init(byteCount: Int = 0x4_0000, configuration: Processor.Configuration = .init()) {
        memory = FlatMemory(byteCount: byteCount)
        processor = Processor(memory: memory, configuration: configuration)
        for i in 0..<7 {
            let flags = i == 2 ? Self.present : Self.present | Self.writable | Self.noExecute
            map(Self.supervisor + UInt64(i) * 0x1000, to: 0x9000 + UInt64(i) * 0x1000, flags)
        }
        for vector in 0..<256 { setGate(vector) }
        // HLT every 16 bytes.
        for vector in 0..<256 { memory[0xb000 + vector * 16] = 0xf4 as UInt8 }
        let descriptors: [UInt64] = [
            0, 0, 0x00af_9b00_0000_ffff, 0x00cf_9300_0000_ffff,  // 10: kernel code, 18: kernel data
            0, 0x00cf_f300_0000_ffff, 0x00af_fb00_0000_ffff, 0,  // 28: user data, 30: user code
        ]
        for (i, d) in descriptors.enumerated() { memory[0xa000 + i * 8] = d }
        memory[0xa100 + 4] = Self.stackTop
        memory[0xa100 + 36] = Self.ist1Top
        memory[0xa100 + 44] = Self.ist2Top
        memory[0xa100 + 102] = 104 as UInt16
    }

    /// An interrupt gate to the vector's stub.
    func setGate(_ vector: Int, target: UInt64? = nil, ist: UInt64 = 0, dpl: UInt64 = 3) {
        let t = target ?? Self.stubs + UInt64(vector) * 16
        let low = t & 0xffff | 0x10 << 16 | ist << 32 | (0x8e | dpl << 5) << 40 | (t >> 16 & 0xffff) << 48
        memory[0x9000 + vector * 16] = low
        memory[0x9000 + vector * 16 + 8] = t >> 32
    }

    /// Maps one page; flags are those of the leaf.
    func map(_ linear: UInt64, to gpa: UInt64, _ flags: UInt64) {
        var table = 0x1000
        for shift: UInt64 in [39, 30, 21] {
            let slot = table + Int(linear >> shift & 511) * 8
            if memory[slot, as: UInt64.self] == 0 {
                memory[slot] = UInt64(nextTable) | 7
                nextTable += 0x1000
                precondition(nextTable <= 0x9000, "out of page tables")
            }
            table = Int(memory[slot, as: UInt64.self] & 0xf_ffff_f000)
        }
        memory[table + Int(linear >> 12 & 511) * 8] = gpa | flags
    }

    /// The address of a leaf entry.
    func leaf(_ linear: UInt64) -> Int {
        var table = 0x1000
        for shift: UInt64 in [39, 30, 21] {
            table = Int(memory[table + Int(linear >> shift & 511) * 8, as: UInt64.self] & 0xf_ffff_f000)
        }
        return table + Int(linear >> 12 & 511) * 8
    }

    /// 64-bit mode with these tables, at CPL 0 or 3.
    static func state(cpl: Int) -> ProcessorState {
        var s = ProcessorState()
        s.cr0 = 0x8005_0033
        s.cr3 = 0x1000
        s.cr4 = 0x6a0 | 0x600
        s.efer = 0xd01
        s.idtr = .init(base: idt, limit: 0xfff)
        s.gdtr = .init(base: gdt, limit: 0x3f)
        s.tr = .init(selector: 0x40, attributes: 0x8b, limit: 104, base: tss)
        s.rflags = 0x202
        if cpl == 3 {
            s.cs = .init(selector: 0x33, attributes: 0xafb, limit: 0xffff_ffff)
            s.ss = .init(selector: 0x2b, attributes: 0xcf3, limit: 0xffff_ffff)
        } else {
            s.cs = .init(selector: 0x10, attributes: 0xa9b, limit: 0xffff_ffff)
            s.ss = .init(selector: 0x18, attributes: 0xc93, limit: 0xffff_ffff)
            s.generalRegisters[4] = stackTop - 0x100
        }
        s.ds = .init()
        s.es = .init()
        s.fs = .init()
        s.gs = .init()
        return s
    }

    /// Runs on through ends of time slices.
    func run() -> VMExit {
        for _ in 0..<1000 {
            let exit = processor.run()
            if exit != .interrupt { return exit }
        }
        return .interrupt
    }

    static func hasErrorCode(_ vector: Int) -> Bool { [8, 10, 11, 12, 13, 14, 17, 21, 29, 30].contains(vector) }

    /// After `.halt`: the exception whose stub halted, or nil if another HLT ran.
    func caught() -> CaughtException? {
        let at = processor.rip &- Self.stubs
        guard at < 0x1000, at & 15 == 1 else { return nil }
        let vector = Int(at >> 4)
        // The frame, by its physical place.
        var p = Int(processor[4] - Self.supervisor) + 0x9000
        var exception = CaughtException(vector: vector, errorCode: nil, rip: 0, rflags: 0, rsp: 0)
        if Self.hasErrorCode(vector) {
            exception.errorCode = memory[p, as: UInt64.self]
            p += 8
        }
        exception.rip = memory[p]
        exception.cs = memory[p + 8]
        exception.rflags = memory[p + 16]
        exception.rsp = memory[p + 24]
        return exception
    }
}
