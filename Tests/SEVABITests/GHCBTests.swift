import SEVABI
import Testing

@Suite("GHCB")
struct GHCBTests {
    /// Offset and valid bit of every field, from the table of the facts.
    static let fields: [(GHCB.Field, Int, Int)] = [
        (.cpl, 0xcb, 25), (.xss, 0x140, 40), (.dr7, 0x160, 44), (.rip, 0x178, 47), (.rsp, 0x1d8, 59), (.rax, 0x1f8, 63),
        (.rcx, 0x308, 97), (.rdx, 0x310, 98), (.rbx, 0x318, 99), (.rbp, 0x328, 101), (.rsi, 0x330, 102),
        (.rdi, 0x338, 103), (.r8, 0x340, 104), (.r9, 0x348, 105), (.r10, 0x350, 106), (.r11, 0x358, 107),
        (.r12, 0x360, 108), (.r13, 0x368, 109), (.r14, 0x370, 110), (.r15, 0x378, 111), (.exitCode, 0x390, 114),
        (.exitInfo1, 0x398, 115), (.exitInfo2, 0x3a0, 116), (.scratch, 0x3a8, 117), (.xcr0, 0x3e8, 125),
    ]

    @Test("offsets, valid bits, and that a field reads only when valid", arguments: fields.indices)
    func field(_ index: Int) throws {
        let (field, offset, bit) = Self.fields[index]
        #expect(field.offset == offset && field.validBit == bit)
        var ghcb = GHCB()
        #expect(ghcb[field] == nil)
        ghcb[field] = 0x1122_3344_5566_7788
        #expect(ghcb[field] == (field == .cpl ? 0x88 : 0x1122_3344_5566_7788))
        #expect(ghcb.bytes[0x3f0 + bit / 8] == 1 << UInt8(bit % 8))
        #expect(ghcb.bytes[offset] == 0x88)
        // Only this field became valid.
        for (other, _, _) in Self.fields where other != field { #expect(ghcb[other] == nil) }
        ghcb[field] = nil
        #expect(ghcb[field] == nil && ghcb.bytes[offset] == 0x88)
        ghcb[field] = 1
        ghcb.clearValidBitmap()
        #expect(ghcb[field] == nil)
    }

    @Test("any bytes are a GHCB; only the length counts")
    func bytes() throws {
        let bytes = [UInt8](repeating: 0xff, count: 4096)
        let ghcb = try #require(GHCB(bytes: bytes))
        for (field, _, _) in Self.fields { #expect(ghcb[field] == (field == .cpl ? 0xff : .max)) }
        #expect(ghcb.usage == .max && ghcb.protocolVersion == 0xffff)
        #expect(GHCB(bytes: [UInt8](repeating: 0, count: 4095)) == nil)
    }

    @Test("version and usage")
    func tail() {
        var ghcb = GHCB()
        ghcb.protocolVersion = 2
        ghcb.usage = 0x0a0b_0c0d
        #expect(Array(ghcb.bytes[0xffa...]) == [2, 0, 0x0d, 0x0c, 0x0b, 0x0a])
    }

    @Test("scratch areas inside the shared buffer, at its edges and beyond")
    func scratch() {
        let gpa: UInt64 = 0x7_f000
        #expect(GHCB.pageOffset(ofScratch: gpa + 0x800, byteCount: 2032, ghcbGPA: gpa) == 0x800)
        #expect(GHCB.pageOffset(ofScratch: gpa + 0x800, byteCount: 2033, ghcbGPA: gpa) == nil)
        #expect(GHCB.pageOffset(ofScratch: gpa + 0x7ff, byteCount: 1, ghcbGPA: gpa) == nil)
        #expect(GHCB.pageOffset(ofScratch: gpa + 0xfef, byteCount: 1, ghcbGPA: gpa) == 0xfef)
        #expect(GHCB.pageOffset(ofScratch: gpa + 0xff0, byteCount: 1, ghcbGPA: gpa) == nil)
        #expect(GHCB.pageOffset(ofScratch: gpa - 1, byteCount: 1, ghcbGPA: gpa) == nil)
        #expect(GHCB.pageOffset(ofScratch: .max, byteCount: .max, ghcbGPA: gpa) == nil)
        #expect(GHCB.pageOffset(ofScratch: 0, byteCount: 1, ghcbGPA: .max) == nil)
        #expect(GHCB.pageOffset(ofScratch: gpa + 0x800, byteCount: -1, ghcbGPA: gpa) == nil)
    }

    @Test("MSR protocol")
    func msr() {
        #expect(GHCBMSR.sevInfo(maximumVersion: 2, cBit: 51).rawValue == 0x0002_0001_3300_0001)
        let cpuid = GHCBMSR(rawValue: 0x8000_001f_4000_0004)
        #expect(cpuid.code == .cpuidRequest && cpuid.cpuidFunction == 0x8000_001f && cpuid.cpuidRegister == 1)
        #expect(GHCBMSR.cpuidResponse(register: 1, value: 0x73).rawValue == 0x0000_0073_4000_0005)
        let register = GHCBMSR(.registerGHCBRequest, data: 0x1234)
        #expect(register.rawValue == 0x0123_4012 && register.data == 0x1234)
        let change = GHCBMSR(rawValue: 0x0010_0012_3456_7014)
        #expect(change.code == .pageStateChangeRequest && change.pageStateFrame == 0x1_2345_67)
        #expect(change.pageStateOperation == .makePrivate)
        #expect(GHCBMSR.pageStateChangeResponse(error: 5).rawValue == 0x5_0000_0015)
        let end = GHCBMSR(rawValue: 0x0002_1100)
        #expect(end.code == .terminationRequest && end.terminationReasonSet == 1 && end.terminationReason == 2)
        #expect(GHCBMSR(rawValue: 0x7f000).code == .ghcbAddress)
    }

    @Test("page state change header and entries")
    func pageStateChange() throws {
        let header = try #require(PageStateChangeHeader(bytes: [1, 0, 0xfc, 0, 0xff, 0xff, 0xff, 0xff]))
        #expect(header == PageStateChangeHeader(currentEntry: 1, endEntry: 252))
        #expect(header.bytes == [1, 0, 0xfc, 0, 0, 0, 0, 0])
        #expect(PageStateChangeHeader(bytes: [0, 0, 0, 0, 0, 0, 0]) == nil)
        var entry = PageStateChangeEntry(
            frame: 0xab_cdef_0123, operation: .makeShared, is2MiB: true, currentPage: 0x1ff)
        #expect(entry.rawValue == 0x012a_bcde_f012_31ff)
        #expect(
            entry.frame == 0xab_cdef_0123 && entry.operation == .makeShared && entry.is2MiB
                && entry.currentPage == 0x1ff)
        entry.currentPage = 0x200
        #expect(entry.rawValue == 0x012a_bcde_f012_3200)
    }
}
