// FXSAVE and FXRSTOR [APM2 11.4.4]; MXCSR.

import CX86State
import X86Defs

extension Processor {
    /// x87 and SSE need CR0.EM = 0 and CR0.TS = 0.
    func mayUseFPU(at rip: UInt64) -> Bool {
        guard s.pointee.cr0 & (CR0.ts | CR0.em) == 0 else {
            prepareException(7, at: rip)
            return false
        }
        return true
    }

    func saveFPU(_ a: UInt64, wide: Bool, at rip: UInt64) -> Bool {
        guard mayUseFPU(at: rip) else { return false }
        guard isAligned(a, 4, at: rip) else { return false }
        guard a & 15 == 0 else {
            prepareException(13, error: 0, at: rip)
            return false
        }
        let image = fxsaveImage(wide: wide)
        let user = userMode
        guard linearPointer((a &+ 511) & s.pointee.rip_mask, .write, user: user, at: rip) != nil,
            linearPointer(a, .write, user: user, at: rip) != nil
        else { return false }
        for (i, value) in image.enumerated() where i < savedQuadwords {
            guard write((a &+ UInt64(i &* 8)) & s.pointee.rip_mask, value, user: user, at: rip) else { return false }
        }
        return true
    }

    func restoreFPU(_ a: UInt64, wide: Bool, at rip: UInt64) -> Bool {
        guard mayUseFPU(at: rip) else { return false }
        guard isAligned(a, 4, at: rip) else { return false }
        guard a & 15 == 0 else {
            prepareException(13, error: 0, at: rip)
            return false
        }
        guard linearPointer((a &+ 511) & s.pointee.rip_mask, .read, user: userMode, at: rip) != nil else {
            return false
        }
        var image: [UInt64] = []
        image.reserveCapacity(52)
        for i in 0..<52 {
            guard let v: UInt64 = read((a &+ UInt64(i &* 8)) & s.pointee.rip_mask, user: userMode, at: rip) else {
                return false
            }
            image.append(v)
        }
        guard UInt32(truncatingIfNeeded: image[3]) & ~mxcsrMask == 0 else {
            prepareException(13, error: 0, at: rip)  // Reserved MXCSR bits.
            return false
        }
        loadFXImage(image, wide: wide)
        return true
    }

    /// Outside 64-bit mode XMM8 to XMM15 stay out of it.
    var savedQuadwords: Int { s.pointee.legacy == 0 ? 52 : 36 }

    /// The first 416 bytes of the FXSAVE area as 52 quadwords; the rest is not written.
    func fxsaveImage(wide: Bool) -> [UInt64] {
        let c = s
        var q = [UInt64](repeating: 0, count: 52)
        q[0] = UInt64(c.pointee.fcw) | UInt64(c.pointee.fsw) &<< 16 | UInt64(c.pointee.ftw) &<< 32
        // The pointers mean something only while an exception is pending; without one they are zero.
        if c.pointee.fsw & 0x80 != 0 {
            q[0] |= UInt64(c.pointee.fop) &<< 48
            q[1] = wide ? c.pointee.fip : c.pointee.fip & 0xffff_ffff
            q[2] = wide ? c.pointee.fdp : c.pointee.fdp & 0xffff_ffff
        }
        q[3] = UInt64(c.pointee.mxcsr) | UInt64(mxcsrMask) &<< 32
        let top = Int(c.pointee.fsw &>> 11) & 7
        for i in 0..<8 {
            let p = (top &+ i) & 7
            q[4 &+ i &* 2] = mantissa(p)
            q[5 &+ i &* 2] = UInt64(exponent(p))
        }
        withUnsafeBytes(of: c.pointee.xmm) { x in
            for i in 0..<32 { q[20 &+ i] = x.load(fromByteOffset: i &* 8, as: UInt64.self) }
        }
        return q
    }

    func loadFXImage(_ q: [UInt64], wide: Bool) {
        let c = s
        c.pointee.fcw = UInt16(truncatingIfNeeded: q[0]) & 0x1f7f | 0x40
        c.pointee.fsw = UInt16(truncatingIfNeeded: q[0] &>> 16)
        c.pointee.ftw = UInt8(truncatingIfNeeded: q[0] &>> 32)
        c.pointee.fop = UInt16(truncatingIfNeeded: q[0] &>> 48) & 0x7ff
        // Of an address a processor keeps as many bits as its linear addresses can have, and their sign.
        let lost: Int64 = configuration.announcedCR4 & CR4.la57 != 0 ? 7 : 16
        func kept(_ v: UInt64) -> UInt64 { UInt64(bitPattern: (Int64(bitPattern: v) &<< lost) &>> lost) }
        c.pointee.fip = wide ? kept(q[1]) : q[1] & 0xffff_ffff
        c.pointee.fdp = wide ? kept(q[2]) : q[2] & 0xffff_ffff
        c.pointee.mxcsr = UInt32(truncatingIfNeeded: q[3]) & mxcsrMask
        let top = Int(c.pointee.fsw &>> 11) & 7
        for i in 0..<8 {
            let p = (top &+ i) & 7
            setST(p, q[4 &+ i &* 2], UInt16(truncatingIfNeeded: q[5 &+ i &* 2]))
        }
        updateX87Summary()
        withUnsafeMutableBytes(of: &c.pointee.xmm) { x in
            for i in 0..<savedQuadwords &- 20 { x.storeBytes(of: q[20 &+ i], toByteOffset: i &* 8, as: UInt64.self) }
        }
    }

    /// Physical x87 registers.
    func mantissa(_ p: Int) -> UInt64 {
        withUnsafeBytes(of: s.pointee.st_mantissa) { $0.load(fromByteOffset: (p & 7) &* 8, as: UInt64.self) }
    }
    func exponent(_ p: Int) -> UInt16 {
        withUnsafeBytes(of: s.pointee.st_exponent) { $0.load(fromByteOffset: (p & 7) &* 2, as: UInt16.self) }
    }
    func setST(_ p: Int, _ mantissa: UInt64, _ exponent: UInt16) {
        withUnsafeMutableBytes(of: &s.pointee.st_mantissa) {
            $0.storeBytes(of: mantissa, toByteOffset: (p & 7) &* 8, as: UInt64.self)
        }
        withUnsafeMutableBytes(of: &s.pointee.st_exponent) {
            $0.storeBytes(of: exponent, toByteOffset: (p & 7) &* 2, as: UInt16.self)
        }
    }
}
