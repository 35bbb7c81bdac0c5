// The leaf helpers under every layout module.

import ABILayout
import Testing

@Suite struct ABILayoutTests {
    @Test func `bit fields`() {
        let frame = BitField<UInt64>(50, 12)
        #expect(frame.width == 39)
        #expect(frame.mask == 0x0007_ffff_ffff_f000)
        #expect(frame[0xffff_0000_1234_5678] == 0x7_0000_1234_5)
        #expect(frame.setting(0x3, in: .max) == ~frame.mask | 0x3000)
        #expect(frame.setting(.max, in: 0) == frame.mask)
        let whole = BitField<UInt8>(7, 0)
        #expect(whole.maximum == 255 && whole[0xab] == 0xab)
        #expect(BitField<UInt32>(bit: 31).mask == 0x8000_0000)
    }

    @Test func `little-endian integers in arrays`() {
        let bytes: [UInt8] = [1, 2, 3, 4, 5, 6, 7, 8, 9]
        #expect(bytes.littleEndian(at: 1, as: UInt64.self) == 0x0908_0706_0504_0302)
        #expect(bytes.littleEndian(at: 2, as: UInt64.self) == nil)
        #expect(bytes.littleEndian(at: 8, as: UInt8.self) == 9)
        #expect(bytes.littleEndian(at: -1, as: UInt8.self) == nil)
        #expect(bytes.littleEndian(at: .max, as: UInt16.self) == nil)
        #expect(bytes[4...].littleEndian(at: 0, as: UInt16.self) == 0x0605)
        #expect([0xff, 0xff].littleEndian(at: 0, as: Int16.self) == -1)
        var out: [UInt8] = []
        out.appendLittleEndian(0x0102_0304 as UInt32)
        out.appendLittleEndian(-2 as Int16)
        #expect(out == [4, 3, 2, 1, 0xfe, 0xff])
        out.storeLittleEndian(0xaabb as UInt16, at: 1)
        #expect(out == [4, 0xbb, 0xaa, 1, 0xfe, 0xff])
    }

    @Test func `fixed arrays`() throws {
        let array = try #require([3 of UInt8](exactly: [1, 2, 3]))
        #expect([3 of UInt8](exactly: [1, 2]) == nil)
        #expect(array.array == [1, 2, 3])
        #expect(array.elementsEqual([1, 2, 3]) && !array.elementsEqual([1, 2, 4]))
        #expect(([0, 0] as [2 of UInt8]).allSatisfy(equal: 0) && !array.allSatisfy(equal: 1))
    }
}
