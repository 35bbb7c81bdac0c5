import SEVABI
import Testing
import X86Defs

#if canImport(Glibc)
    import Glibc
#endif

@Suite("VMSA")
struct VMSATests {
    /// A state in which no two fields are equal.
    static var distinctState: ProcessorState {
        var state = ProcessorState()
        for index in 0..<16 { state.generalRegisters[index] = 0x1000 + UInt64(index) }
        state.rip = 0x2000
        state.rflags = 0x2001
        func segment(_ n: UInt16) -> SegmentRegister {
            SegmentRegister(selector: n, attributes: n + 1, limit: UInt32(n) + 2, base: UInt64(n) + 3)
        }
        state.es = segment(0x100)
        state.cs = segment(0x110)
        state.ss = segment(0x160)
        state.ds = segment(0x120)
        state.fs = segment(0x130)
        state.gs = segment(0x140)
        state.ldtr = segment(0x150)
        state.tr = segment(0x170)
        state.gdtr = DescriptorTableRegister(base: 0x180, limit: 0x181)
        state.idtr = DescriptorTableRegister(base: 0x190, limit: 0x191)
        state.cr0 = 0x3000
        state.cr2 = 0x3002
        state.cr3 = 0x3003
        state.cr4 = 0x3004
        state.efer = 0x3005
        state.xcr0 = 0x3006
        state.xss = 0x3007
        state.pkru = 0x3008
        state.dr0 = 0x4000
        state.dr1 = 0x4001
        state.dr2 = 0x4002
        state.dr3 = 0x4003
        state.dr6 = 0x4006
        state.dr7 = 0x4007
        state.star = 0x5000
        state.lstar = 0x5001
        state.cstar = 0x5002
        state.sfmask = 0x5003
        state.kernelGSBase = 0x5004
        state.tscAux = 0x5005
        state.sysenterCS = 0x5006
        state.sysenterESP = 0x5007
        state.sysenterEIP = 0x5008
        state.pat = 0x5009
        state.fcw = 0x6000
        state.fsw = 0x6001
        state.ftw = 0x62
        state.fop = 0x6003
        state.fip = 0x6004
        state.fdp = 0x6005
        state.mxcsr = 0x6006
        for index in 0..<8 {
            state.x87Significand[index] = 0x7000 + UInt64(index)
            state.x87Exponent[index] = 0x7100 + UInt16(index)
        }
        for index in 0..<32 { state.xmm[index] = 0x8000 + UInt64(index) }
        return state
    }

    @Test("offsets of the table, through a state with distinct values")
    func offsets() {
        let vmsa = VMSA(processor: Self.distinctState, sevFeatures: 0x21, vmpl: 1)
        func quad(_ offset: Int) -> UInt64 {
            (0..<8).reduce(0) { $0 | UInt64(vmsa.bytes[offset + $1]) << UInt64(8 * $1) }
        }
        func half(_ offset: Int) -> UInt16 { UInt16(truncatingIfNeeded: quad(offset)) }
        func word(_ offset: Int) -> UInt32 { UInt32(truncatingIfNeeded: quad(offset)) }
        #expect(half(0x00) == 0x100 && half(0x02) == 0x101 && word(0x04) == 0x102 && quad(0x08) == 0x103)
        #expect(half(0x10) == 0x110 && half(0x20) == 0x160 && half(0x30) == 0x120 && half(0x40) == 0x130)
        #expect(half(0x50) == 0x140 && half(0x70) == 0x150 && half(0x90) == 0x170)
        #expect(word(0x64) == 0x181 && quad(0x68) == 0x180 && word(0x84) == 0x191 && quad(0x88) == 0x190)
        // CPL is SS.DPL: attributes 0x161, bits 6:5.
        #expect(vmsa.bytes[0xca] == 1 && vmsa.bytes[0xcb] == 3)
        let quads: [(Int, UInt64)] = [
            (0xd0, 0x3005), (0x140, 0x3007), (0x148, 0x3004), (0x150, 0x3003), (0x158, 0x3000), (0x160, 0x4007),
            (0x168, 0x4006), (0x170, 0x2001), (0x178, 0x2000), (0x180, 0x4000), (0x188, 0x4001), (0x190, 0x4002),
            (0x198, 0x4003), (0x1d8, 0x1004), (0x1f8, 0x1000), (0x200, 0x5000), (0x208, 0x5001), (0x210, 0x5002),
            (0x218, 0x5003), (0x220, 0x5004), (0x228, 0x5006), (0x230, 0x5007), (0x238, 0x5008), (0x240, 0x3002),
            (0x268, 0x5009), (0x308, 0x1001), (0x310, 0x1002), (0x318, 0x1003), (0x328, 0x1005), (0x330, 0x1006),
            (0x338, 0x1007), (0x340, 0x1008), (0x378, 0x100f), (0x3b0, 0x21), (0x3e8, 0x3006), (0x400, 0x6005),
            (0x418, 0x6004), (0x420, 0x7000), (0x458, 0x7007), (0x470, 0x8000), (0x568, 0x801f),
        ]
        for (offset, value) in quads { #expect(quad(offset) == value, "offset 0x\(String(offset, radix: 16))") }
        #expect(word(0x2e8) == 0x3008 && word(0x2ec) == 0x5005 && word(0x408) == 0x6006)
        #expect(half(0x40c) == 0x62 && half(0x40e) == 0x6001 && half(0x410) == 0x6000 && half(0x412) == 0x6003)
        #expect(half(0x460) == 0x7100 && half(0x46e) == 0x7107)
        #expect(vmsa.page.count == 4096 && vmsa.page[0x670...].allSatisfy { $0 == 0 })
    }

    @Test("a state survives the way through a VMSA")
    func roundTrip() throws {
        let state = Self.distinctState
        let page = VMSA(processor: state, sevFeatures: 1).page
        let vmsa = try #require(VMSA(bytes: page))
        #expect(vmsa.processorState == state)
        #expect(VMSA(bytes: Array(page.prefix(0x66f))) == nil)
    }

    /// QEMU's reset state as measured (facts 1.3), against the vectors of an independent tool.
    @Test(
        "measured reset states equal the foreign vectors byte for byte",
        .enabled(if: vectors != nil, "the foreign vectors are not here (SNPVMM_VECTORS)"),
        arguments: [("s02-bsp.bin", UInt64(0xffff_fff0)), ("s06-bsp.bin", 0xffff_fff0), ("s07-bsp.bin", 0xffff_fff0)])
    func vectorsEqual(_ name: String, _ eip: UInt64) throws {
        let expected = try #require(readFile("\(Self.vectors!)/launch-digest/vmsa/\(name)"))
        let vmsa = try #require(VMSA(bytes: expected))
        // Load, store, compare: every non-zero byte of the foreign page is in a field that we know.
        let again = VMSA(processor: vmsa.processorState, sevFeatures: vmsa[VMSA.sevFeatures], vmpl: vmsa[VMSA.vmpl])
        #expect(again == vmsa)
        #expect(vmsa[VMSA.rip] == eip & 0xffff && vmsa.segment(VMSA.cs).base == eip & 0xffff_0000)
        #expect(vmsa[VMSA.dr6] == 0xffff_0ff0 && vmsa[VMSA.dr7] == 0x400 && vmsa[VMSA.rflags] == 2)
        #expect(vmsa[VMSA.efer] == VMSA.eferSVME && vmsa[VMSA.xcr0] == 1)
    }

    static let vectors: String? = {
        let folder = unsafe getenv("SNPVMM_VECTORS").map { unsafe String(cString: $0) } ?? "../shared/vectors"
        return readFile("\(folder)/launch-digest/vmsa/s02-bsp.bin") == nil ? nil : folder
    }()
}

/// The bytes of a file, or nil.
func readFile(_ path: String) -> [UInt8]? {
    guard let file = unsafe fopen(path, "rb") else { return nil }
    defer { unsafe fclose(file) }
    var bytes: [UInt8] = []
    var chunk = [UInt8](repeating: 0, count: 65536)
    while true {
        let count = unsafe fread(&chunk, 1, chunk.count, file)
        if count == 0 { return bytes }
        bytes += chunk[..<count]
    }
}
