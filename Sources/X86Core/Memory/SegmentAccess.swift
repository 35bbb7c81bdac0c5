// Segments outside 64-bit mode: limits, types, and the way from an offset to a linear address [APM2 4.7, 4.12].
//
// Flat segments cost nothing but the cut to 32 bits; for all others the decoder puts one uop in front of the access,
// which checks what the segment allows and leaves the linear address in a temporary.

import CX86State
import X86Defs

/// Operand of the checking uop: which segment, how many bytes, whether they are written, and the offset's width.
enum SegmentCheck {
    static func pack(_ segment: SegmentIndex, byteCount: Int, write: Bool, mask: UInt64) -> UInt64 {
        UInt64(segment.rawValue) | UInt64(byteCount &- 1) &<< 8 | (write ? 1 &<< 31 : 0) | mask &<< 32
    }
    @inline(__always) static func segment(_ imm: UInt64) -> Int { Int(imm & 7) }
    @inline(__always) static func extra(_ imm: UInt64) -> UInt64 { (imm &>> 8) & 0x7f_ffff }
    @inline(__always) static func isWrite(_ imm: UInt64) -> Bool { imm & (1 &<< 31) != 0 }
    @inline(__always) static func mask(_ imm: UInt64) -> UInt64 { imm &>> 32 }
}

/// The uop: temporary `dst` = linear address of the operand, or a fault.
@inline(__always)
func checkedAddress(_ s: CPU, _ ip: IP) {
    // Not the shape of `simdInstruction`: the compiler would make one function of the two, which calls through a pointer.
    if faults(s, ip) { return }
    next(s, ip)
}

@inline(never)
private func faults(_ s: CPU, _ ip: IP) -> Bool {
    let imm = ip.pointee.imm
    let offset = address(s, ip) & SegmentCheck.mask(imm)
    let p = processor(s)
    guard
        let linear = p.linear(
            SegmentCheck.segment(imm), offset, Int(SegmentCheck.extra(imm)) &+ 1, write: SegmentCheck.isWrite(imm),
            at: instructionAddress(s, ip))
    else { return true }
    put(s, ip.pointee.dst, linear)
    return false
}

/// The uop of indirect near branches: temporary 1 = linear address of the target in `src`, or #GP beyond the limit.
@inline(__always)
func codeTarget<T: Word>(_ s: CPU, _ ip: IP, _ type: T.Type) {
    let target = UInt64(truncatingIfNeeded: get(s, ip.pointee.src, as: T.self))
    guard target <= UInt64(s.pointee.cs.limit) else { return raiseProtection(s, ip) }
    put(s, Slot.tmp(1), (s.pointee.code_base &+ target) & 0xffff_ffff)
    next(s, ip)
}

@inline(never)
private func raiseProtection(_ s: CPU, _ ip: IP) {
    processor(s).prepareException(13, error: 0, at: instructionAddress(s, ip))
}

extension Processor {
    /// A segment register with the base that counts (FS and GS have theirs where MSRs can reach them).
    func segmentRegister(_ index: Int) -> x86_segment {
        switch index & 7 {
        case 0: return s.pointee.es
        case 1: return s.pointee.cs
        case 2: return s.pointee.ss
        case 3: return s.pointee.ds
        case 4:
            var v = s.pointee.fs_seg
            v.base = s.pointee.fs_base
            return v
        default:
            var v = s.pointee.gs_seg
            v.base = s.pointee.gs_base
            return v
        }
    }

    /// Does the segment allow these bytes? Types count in protected mode only.
    func allows(_ segment: x86_segment, _ offset: UInt64, _ byteCount: Int, write: Bool) -> Bool {
        let a = segment.attributes
        if isProtectedMode {
            guard a & 0x90 == 0x90 else { return false }
            if write ? a & 0xa != 2 : a & 0xa == 8 { return false }
        }
        let last = offset &+ UInt64(truncatingIfNeeded: byteCount &- 1)
        if a & 0xc == 4 {
            // Expand-down: everything above the limit.
            return offset > UInt64(segment.limit) && last <= (a & 0x400 != 0 ? 0xffff_ffff : 0xffff)
        }
        return last <= UInt64(segment.limit)
    }

    /// How many bytes from `offset` on (or, backward, up to it) lie in the segment.
    func reach(_ segment: x86_segment, _ offset: UInt64, backward: Bool) -> UInt64 {
        let isExpandDown = segment.attributes & 0xc == 4
        let limit = UInt64(segment.limit)
        let low = isExpandDown ? limit &+ 1 : 0
        let high = isExpandDown ? (segment.attributes & 0x400 != 0 ? 0xffff_ffff : 0xffff) : limit
        guard offset >= low, offset <= high else { return 0 }
        return backward ? offset &- low &+ 1 : high &- offset &+ 1
    }

    /// The linear address of an operand in the current mode. nil: #GP or #SS has been prepared.
    func linear(_ index: Int, _ offset: UInt64, _ byteCount: Int, write: Bool, at rip: UInt64) -> UInt64? {
        let segment = segmentRegister(index)
        if is64BitCode { return index >= 4 ? offset &+ segment.base : offset }
        guard allows(segment, offset, byteCount, write: write) else {
            prepareException(index == SegmentIndex.ss.rawValue ? 12 : 13, error: 0, at: rip)
            return nil
        }
        return (segment.base &+ offset) & 0xffff_ffff
    }
}
