import SEVABI
import Testing

@Suite("CPUID table and profile")
struct CPUIDTests {
    static let profile = CPUIDProfile(supported: [
        CPUIDTableEntry(function: 0, eax: 7, ebx: 0x6874_7541, ecx: 0x444d_4163, edx: 0x6974_6e65),
        CPUIDTableEntry(function: 1, eax: 0x00a0_0f11, ebx: 0x0001_0800, ecx: 0xc020_2000, edx: 0x078b_fbff),
        CPUIDTableEntry(function: 7, index: 0, eax: 0, ebx: 1 << 18),
        CPUIDTableEntry(function: 0x8000_0000, eax: 0x8000_001f, ebx: 0x6874_7541, ecx: 0x444d_4163, edx: 0x6974_6e65),
        CPUIDTableEntry(function: 0x8000_001f, eax: 0x1a, ebx: 51 | 1 << 6, ecx: 509, edx: 100),
    ])

    @Test("table bytes")
    func bytes() throws {
        let entry = CPUIDTableEntry(
            function: 0x8000_001d, index: 2, xcr0: 3, xss: 4, eax: 5, ebx: 6, ecx: 7, edx: 0x0102_0304)
        let table = CPUIDTable(entries: [entry, CPUIDTableEntry(function: 1)])
        let bytes = table.bytes
        #expect(bytes.count == 4096)
        #expect(Array(bytes[0..<16]) == [2] + [UInt8](repeating: 0, count: 15))
        #expect(
            Array(bytes[16..<64]) == [
                0x1d, 0, 0, 0x80, 2, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0,
                5, 0, 0, 0, 6, 0, 0, 0, 7, 0, 0, 0, 4, 3, 2, 1, 0, 0, 0, 0, 0, 0, 0, 0,
            ])
        #expect(CPUIDTable(bytes: bytes) == table)
        var bad = bytes
        bad[0] = 65
        #expect(CPUIDTable(bytes: bad) == nil)
        bad[0] = 64
        #expect(CPUIDTable(bytes: bad)?.entries.count == 64)
        bad[15] = 1
        #expect(CPUIDTable(bytes: bad) == nil)
        #expect(CPUIDTable(bytes: [UInt8](repeating: 0xff, count: 4096)) == nil)
    }

    @Test("what the processor supports is accepted as it is")
    func native() {
        for entry in Self.profile.supported { #expect(Self.profile.corrected(entry) == entry) }
    }

    @Test("features may go away but not come; identity must be true; maxima may shrink")
    func rules() {
        func corrected(_ entry: CPUIDTableEntry) -> CPUIDTableEntry { Self.profile.corrected(entry) }
        var leaf1 = Self.profile.supported[1]
        leaf1.edx = 1
        leaf1.eax = 0x0080_0f12
        leaf1.ebx = 0x0504_0000
        leaf1.ecx = 1 << 27 | 1 << 31
        #expect(corrected(leaf1) == leaf1)
        leaf1.ecx |= 1 << 24
        leaf1.edx |= 1 << 30
        let fixed = corrected(leaf1)
        #expect(fixed.ecx == 1 << 27 | 1 << 31 && fixed.edx == 1)
        #expect(corrected(CPUIDTableEntry(function: 0, eax: 5, ebx: 0x756e_6547)).ebx == 0x6874_7541)
        #expect(corrected(CPUIDTableEntry(function: 0, eax: 0xd)).eax == 7)
        #expect(corrected(CPUIDTableEntry(function: 0, eax: 1)).eax == 1)
        #expect(corrected(CPUIDTableEntry(function: 0x8000_001f, eax: 0x1a, ebx: 47)).ebx == 51)
        #expect(corrected(CPUIDTableEntry(function: 7, index: 0, ebx: 3 << 18)).ebx == 1 << 18)
        // An index the processor does not have, a leaf it does not have.
        #expect(corrected(CPUIDTableEntry(function: 7, index: 1, ebx: 1 << 18)).ebx == 0)
        #expect(corrected(CPUIDTableEntry(function: 0x8000_0021, eax: 1)).eax == 0)
        // Hypervisor leaves pass.
        let kvm = CPUIDTableEntry(function: 0x4000_0001, eax: .max, ebx: .max, ecx: .max, edx: .max)
        #expect(corrected(kvm) == kvm)
        // The index plays no part in leaves without one.
        let indexed = CPUIDTableEntry(function: 1, index: 5, edx: 1)
        #expect(corrected(indexed) == indexed)
    }

    @Test("a correction is stable")
    func idempotent() {
        var seed: UInt64 = 1
        func random() -> UInt32 {
            seed = seed &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
            return UInt32(truncatingIfNeeded: seed >> 32)
        }
        for function in [
            0, 1, 2, 4, 7, 0xd, 0x10, 0x4000_0000, 0x8000_0000, 0x8000_0001, 0x8000_0008, 0x8000_001f, 0xffff_ffff,
        ] as [UInt32] {
            for _ in 0..<20 {
                let entry = CPUIDTableEntry(
                    function: function, index: random() & 3, eax: random(), ebx: random(), ecx: random(), edx: random())
                let once = Self.profile.corrected(entry)
                #expect(Self.profile.corrected(once) == once)
            }
        }
    }
}
