// Paging in all its forms: where an access leads, and the error code when it leads nowhere [APM2 5.2 to 5.6, 8.4.2].

import TestSupport
import Testing
import X86Core
import X86Defs

/// Protected mode with page tables of the test's own at 0x2_0000: the first 64 KiB, the code and the stack are mapped to
/// themselves, and linear 0x40_0000 is what the test is about.
private final class PagingGuest {
    let guest: LegacyGuest
    static let target: UInt64 = 0x40_0000
    enum Form { case twoLevels, pae, fourLevels, fiveLevels }
    let form: Form
    /// Where the entries for ``target`` are, top to bottom.
    var path: [Int] = []

    init(_ form: Form, cr4: UInt64 = 0, efer: UInt64 = 0, announced: UInt64 = 0) {
        self.form = form
        var configuration = Processor.Configuration()
        configuration.announcedCR4 = announced
        guest = LegacyGuest(.protected, configuration: configuration)
        let memory = guest.memory
        let low = 0x3_0000
        switch form {
        case .twoLevels:
            memory[0x2_0000] = UInt32(low | 7)
            memory[0x2_0004] = UInt32(0x3_1000 | 7)
            for page in 0..<256 { memory[low + page * 4] = UInt32(page << 12 | 7) }
            memory[0x3_1000] = 0x5_0007 as UInt32
            path = [0x2_0004, 0x3_1000]
        case .pae, .fourLevels, .fiveLevels:
            var top = 0x2_0000
            if form == .fiveLevels {
                memory[top] = 0x2_1007 as UInt64
                path.append(top)
                top = 0x2_1000
            }
            if form != .pae {
                memory[top] = 0x2_2007 as UInt64
                path.append(top)
                top = 0x2_2000
            }
            memory[top] = (form == .pae ? 0x2_3001 : 0x2_3007) as UInt64
            memory[0x2_3000] = UInt64(low | 7)
            memory[0x2_3010] = 0x3_1007 as UInt64
            for page in 0..<256 { memory[low + page * 8] = UInt64(page << 12 | 7) }
            memory[0x3_1000] = 0x5_0007 as UInt64
            path += [top, 0x2_3010, 0x3_1000]
        }
        memory[0x5_0000] = 0x1234_5678 as UInt32
        guest.state.cr3 = 0x2_0000
        guest.state.cr0 = 0x8000_0011
        guest.state.cr4 = cr4 | (form == .twoLevels ? 0 : CR4.pae) | (form == .fiveLevels ? CR4.la57 : 0)
        guest.state.efer = efer
        if form == .fourLevels || form == .fiveLevels {
            // 64-bit code, and interrupt gates of 16 bytes.
            guest.state.efer |= EFER.lme | EFER.lma
            guest.state.cs = .init(selector: 0x38, attributes: 0xa9b, limit: 0xffff_ffff)
            for vector in 0..<128 {
                memory[0xa000 + vector * 16] = UInt64(0x9000 + vector * 4) & 0xffff | 0x38 << 16 | 0x8e << 40
                memory[0xa008 + vector * 16] = 0 as UInt64
            }
        }
        guest.state.generalRegisters[7] = Self.target
    }

    func entry(_ level: Int) -> UInt64 {
        form == .twoLevels ? UInt64(guest.memory[path[level], as: UInt32.self]) : guest.memory[path[level]]
    }
    func setEntry(_ level: Int, _ value: UInt64) {
        if form == .twoLevels {
            guest.memory[path[level]] = UInt32(truncatingIfNeeded: value)
        } else {
            guest.memory[path[level]] = value
        }
    }
    var leaf: Int { path.count - 1 }

    /// The error code of the page fault, nil if there was none.
    func fault(_ bytes: [UInt8]) -> UInt64? {
        guard guest.run(bytes) == .halt else { return .max }
        let s = guest.processor.state
        guard s.rip >= 0x9000, s.rip < 0x9200 else { return nil }
        guard s.rip == 0x9000 + 14 * 4 + 1, s.cr2 == Self.target else { return .max - 1 }
        let place = Int(s.generalRegisters[4])
        return guest.memory[place, as: UInt64.self] & 0xffff_ffff
    }
}

// The same bytes in 32-bit and 64-bit code.
private let load = code("mov eax, [rdi]; hlt", "8b07f4")
private let store = code("mov [rdi], eax; hlt", "8907f4")
private let fetch = code("jmp rdi", "ffe7")

@Suite struct PagingTests {
    private static let forms: [PagingGuest.Form] = [.twoLevels, .pae, .fourLevels, .fiveLevels]

    private func make(_ form: PagingGuest.Form, cr4: UInt64 = 0, efer: UInt64 = 0) -> PagingGuest {
        PagingGuest(
            form, cr4: cr4, efer: efer, announced: CR4.la57 | CR4.smep | CR4.smap | CR4.pcide | 1 << 22)
    }

    @Test("accessed and dirty bits", arguments: [0, 1, 2, 3])
    func marks(_ n: Int) {
        let g = make(Self.forms[n])
        #expect(g.fault(load) == nil)
        #expect(g.guest.processor[0] == 0x1234_5678)
        #expect(g.entry(g.leaf) & 0x60 == 0x20)
        #expect(g.fault(store) == nil)
        #expect(g.entry(g.leaf) & 0x60 == 0x60)
    }

    @Test("not present, and read-only", arguments: [0, 1, 2, 3])
    func presence(_ n: Int) {
        let g = make(Self.forms[n])
        g.setEntry(g.leaf, 0x5_0005)
        #expect(g.fault(store) == nil, "a supervisor without CR0.WP")
        g.guest.state.cr0 |= CR0.wp
        #expect(g.fault(store) == 3)
        #expect(g.fault(load) == nil)
        g.setEntry(g.leaf, 0x5_0006)
        #expect(g.fault(load) == 0)
        #expect(g.fault(store) == 2)
        #expect(g.fault(fetch) == 0)
    }

    @Test("reserved bits", arguments: [1, 2, 3])
    func reserved(_ n: Int) {
        let g = make(Self.forms[n])
        g.setEntry(g.leaf, 0x5_0007 | 1 << 50)
        #expect(g.fault(load) == 9)
        g.setEntry(g.leaf, 0x5_0007 | 1 << 63)
        #expect(g.fault(load) == 9, "NX without EFER.NXE")
        g.guest.state.efer |= EFER.nxe
        #expect(g.fault(load) == nil)
        #expect(g.fault(fetch) == 17)
    }

    @Test func pageSizeExtension() {
        let g = make(.twoLevels, cr4: CR4.pse)
        g.setEntry(0, 0x87)
        g.guest.memory[0x0, as: UInt32.self] = 0xabcd
        #expect(g.fault(load) == nil)
        #expect(g.guest.processor[0] == 0xabcd)
        g.setEntry(0, 0x87 | 1 << 21)
        #expect(g.fault(load) == 9)
        // Without CR4.PSE the bit means nothing.
        g.guest.state.cr4 = 0
        g.setEntry(0, 0x3_1087)
        #expect(g.fault(load) == nil)
        #expect(g.guest.processor[0] == 0x1234_5678)
    }

    @Test("SMEP and SMAP", arguments: [0, 1, 2, 3])
    func supervisorOnUserPages(_ n: Int) {
        let g = make(Self.forms[n])
        // Everything else becomes a supervisor page.
        for page in 0..<256 {
            let low = 0x3_0000
            if g.form == .twoLevels {
                g.guest.memory[low + page * 4] = UInt32(page << 12 | 3)
            } else {
                g.guest.memory[low + page * 8] = UInt64(page << 12 | 3)
            }
        }
        g.guest.memory[0x5_0000] = 0xf4 as UInt8
        g.guest.state.cr4 |= CR4.smep
        #expect(g.fault(fetch) == 17)
        #expect(g.fault(load) == nil)
        g.guest.state.cr4 |= CR4.smap
        #expect(g.fault(load) == 1)
        #expect(g.fault(store) == 3)
        #expect(g.fault(code("stac; mov eax, [rdi]; hlt", "0f01cb8b07f4")) == nil)
        #expect(g.fault(code("stac; mov eax, [rdi]; clac; mov eax, [rdi]; hlt", "0f01cb8b070f01ca8b07f4")) == 1)
    }

    @Test("protection keys", arguments: [2, 3])
    func keys(_ n: Int) {
        let g = make(Self.forms[n], cr4: 1 << 22)
        g.setEntry(g.leaf, 0x5_0007 | 5 << 59)
        g.guest.state.pkru = 1 << 10
        #expect(g.fault(load) == 0x21)
        g.guest.state.pkru = 2 << 10
        #expect(g.fault(load) == nil)
        #expect(g.fault(store) == nil, "a supervisor without CR0.WP")
        g.guest.state.cr0 |= CR0.wp
        #expect(g.fault(store) == 0x23)
    }

    @Test func directoryPointers() {
        let g = make(.pae)
        // MOV CR3 looks at all four.
        g.guest.memory[0x2_0018] = 0x2_3003 as UInt64
        let bytes = code("mov eax, cr3; mov cr3, eax; hlt", "0f20d80f22d8f4")
        #expect(g.guest.run(bytes) == .halt)
        #expect(g.guest.caught()?.vector == 13)
        g.guest.memory[0x2_0018] = 0 as UInt64
        #expect(g.guest.run(bytes) == .halt)
        #expect(g.guest.caught() == nil)
    }
}
