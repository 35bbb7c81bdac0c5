// A kernel for tests of what happens before a kernel runs.

/// The smallest bzImage that can be launched and measured.
public enum SyntheticKernel {
    /// A bzImage of protocol 2.15 with two setup sectors and `codeByteCount` bytes of code (a multiple of 16).
    public static func bzImage(codeByteCount: Int = 0x800, initByteCount: UInt64 = 0x4000) -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: 0x600)
        func set(_ offset: Int, _ value: UInt64, width: Int) {
            for index in 0..<width { bytes[offset + index] = UInt8(truncatingIfNeeded: value >> UInt64(8 * index)) }
        }
        set(0x1f1, 2, width: 1)
        set(0x1f4, UInt64(codeByteCount / 16), width: 4)
        set(0x1fe, 0xaa55, width: 2)
        // A short jump over the header, which ends at 0x26c.
        set(0x200, 0x6aeb, width: 2)
        bytes.replaceSubrange(0x202..<0x206, with: Array("HdrS".utf8))
        set(0x206, 0x020f, width: 2)
        set(0x211, 1, width: 1)
        set(0x22c, 0x7fff_ffff, width: 4)
        set(0x230, 0x20_0000, width: 4)
        set(0x234, 1, width: 1)
        set(0x235, 21, width: 1)
        set(0x236, 0x7f, width: 2)
        set(0x238, 2047, width: 4)
        set(0x258, 0x100_0000, width: 8)
        set(0x260, initByteCount, width: 4)
        return bytes + (0..<codeByteCount).map { UInt8(truncatingIfNeeded: $0 &* 7) }
    }
}
