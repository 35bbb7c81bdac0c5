// Where everything of a victim lies; Firmware/victim/victim.s knows the same numbers.
//
//     0x0_1000  page tables, GDT, IDT    0x0_C000  GHCB, shared        0x1_0000  pages to fight about: 4 of the
//     0x0_8000  program                  0x0_D000  mailbox, shared               launch, 4 that the guest has to
//     0x0_A000  variables                0x0_E000  CPUID page (SNP)              accept itself (SNP)
//     0x0_B000  stack                    0x0_F000  initrd, command line
//
// The first 2 MiB are identity mapped with the C-bit; the next 2 MiB show them again without it.

import SEVABI
import X86Defs

enum VictimLayout {
    static let pageByteCount = 4096
    static let pml4: UInt64 = 0x1000
    static let pageDirectoryPointers: UInt64 = 0x2000
    static let pageDirectory: UInt64 = 0x3000
    static let privateTable: UInt64 = 0x4000
    static let gdt: UInt64 = 0x5000
    static let idt: UInt64 = 0x6000
    static let sharedTable: UInt64 = 0x7000
    static let program: UInt64 = 0x8000
    /// 32 stubs of 16 bytes.
    static let exceptionStubs: UInt64 = 0x9000
    static let stackTop: UInt64 = 0xc000
    static let ghcb: UInt64 = 0xc000
    static let mailbox: UInt64 = 0xd000
    static let cpuidPage: UInt64 = 0xe000
    static let initrd: UInt64 = 0xf000
    static let commandLine: UInt64 = 0xf800
    /// Everything below is one memory slot; every page from here on has its own.
    static let firstPage: UInt64 = 0x1_0000
    /// Pages that the launch puts in, then pages that it leaves to the guest.
    static let launchedPageCount = 4
    static let pageCount = 8
    static let ramByteCount = 0x1_8000
    /// The guest's view of its memory without encryption.
    static let sharedWindow: UInt64 = 0x20_0000
    /// What the guest writes to when it is the host's turn.
    static let doorbellPort: UInt16 = 0xa0

    /// The marks that a guest reports of what it was launched with.
    static let imageMark: UInt64 = 0x0065_676d_6149_2121
    static let initrdMark: UInt64 = 0x6472_7469_6e69_2121
    static let commandLineMark: UInt64 = 0x3d74_6f6f_7220_6f72
    static let entryMark: UInt64 = 0x7972_746e_6520_2121

    /// GPA of one of the pages to fight about.
    static func page(_ index: Int) -> UInt64 { firstPage + UInt64(index * pageByteCount) }

    static let isShared: @Sendable (UInt64) -> Bool = { $0 == ghcb || $0 == mailbox }
}

/// The bytes and registers that a victim is launched with, as a host may have edited them.
struct VictimImage {
    /// The program with its exception stubs.
    var program = VictimProgram.bytes
    /// The page of the initrd.
    var initrd = littleEndian(VictimLayout.initrdMark)
    var commandLine = littleEndian(VictimLayout.commandLineMark)
    /// The register state at entry.
    var processor = ProcessorState()
    /// The oldest firmware that the owner's policy allows.
    var minimumVersion: (major: UInt8, minor: UInt8) = (0, 0)
    let subject: Subject
    /// The C-bit as a mask; 0 for plain guests.
    let encryptionBit: UInt64

    init(_ subject: Subject, encryptionBit: UInt64) {
        self.subject = subject
        self.encryptionBit = subject.isEncrypted ? encryptionBit : 0
        processor.cs = SegmentRegister(selector: 8, attributes: 0xa9b, limit: 0xffff_ffff)
        let data = SegmentRegister(selector: 16, attributes: 0xc93, limit: 0xffff_ffff)
        processor.ds = data
        processor.es = data
        processor.fs = data
        processor.gs = data
        processor.ss = data
        processor.gdtr = DescriptorTableRegister(base: VictimLayout.gdt, limit: 23)
        processor.idtr = DescriptorTableRegister(base: VictimLayout.idt, limit: 511)
        processor.cr0 = 0x8000_0031  // PG, NE, ET, PE
        processor.cr3 = VictimLayout.pml4 | self.encryptionBit
        processor.cr4 = 0x20  // PAE
        processor.efer = 0x500  // LMA, LME
        processor.rip = VictimLayout.program
        processor.generalRegisters[4] = VictimLayout.stackTop
        processor.generalRegisters[3] = VictimLayout.entryMark
        processor.generalRegisters[7] = UInt64(Subject.allCases.firstIndex(of: subject) ?? 0)
    }

    /// Everything below ``VictimLayout/firstPage`` but the shared pages and the CPUID page.
    var memory: [UInt8] {
        var memory = [UInt8](repeating: 0, count: Int(VictimLayout.firstPage))
        func put(_ bytes: [UInt8], at gpa: UInt64) {
            memory.replaceSubrange(Int(gpa)..<Int(gpa) + bytes.count, with: bytes)
        }
        func put(_ word: UInt64, at gpa: UInt64) { put(littleEndian(word), at: gpa) }
        let table = 0x63 | encryptionBit  // present, writable, accessed, dirty
        put(VictimLayout.pageDirectoryPointers | table, at: VictimLayout.pml4)
        put(VictimLayout.pageDirectory | table, at: VictimLayout.pageDirectoryPointers)
        put(VictimLayout.privateTable | table, at: VictimLayout.pageDirectory)
        put(VictimLayout.sharedTable | table, at: VictimLayout.pageDirectory + 8)
        for index in 0..<UInt64(512) {
            put(index << 12 | table, at: VictimLayout.privateTable + 8 * index)
            put(index << 12 | 0x63, at: VictimLayout.sharedTable + 8 * index)
        }
        // Null, 64-bit code at selector 8, data at selector 16.
        put(0x00af_9b00_0000_ffff, at: VictimLayout.gdt + 8)
        put(0x00cf_9300_0000_ffff, at: VictimLayout.gdt + 16)
        for vector in 0..<UInt64(32) {
            // A 64-bit interrupt gate [APM2 4.8.4]; the stubs lie below 64 KiB.
            put(
                VictimLayout.exceptionStubs + 16 * vector | 8 << 16 | 0x8e00 << 32, at: VictimLayout.idt + 16 * vector)
        }
        put(program, at: VictimLayout.program)
        put(initrd, at: VictimLayout.initrd)
        put(commandLine, at: VictimLayout.commandLine)
        return memory
    }
}

/// The eight bytes of a word.
func littleEndian(_ word: UInt64) -> [UInt8] {
    (0..<8).map { UInt8(truncatingIfNeeded: word >> UInt64(8 * $0)) }
}

/// The word at an offset of a byte array; 0 past its end.
func word(_ bytes: [UInt8], at offset: Int = 0) -> UInt64 {
    (0..<8).reduce(0) { $0 | (offset + $1 < bytes.count ? UInt64(bytes[offset + $1]) << UInt64(8 * $1) : 0) }
}

/// What a guest fills a page with, made from a seed: no two words are alike.
struct Pattern {
    var seed: UInt64
    /// As in the victim.
    static let increment: UInt64 = 0x9e37_79b9_7f4a_7c15

    subscript(index: Int) -> UInt64 { seed &+ UInt64(index) &* Self.increment }

    /// The whole page.
    var page: [UInt8] { (0..<512).flatMap { littleEndian(self[$0]) } }
}
