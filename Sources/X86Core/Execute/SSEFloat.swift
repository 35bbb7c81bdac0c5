// SSE and SSE2 floating point. One general executor on the integer core, and in front of it the host's own arithmetic
// for the common case: default control, precision flag already set, nothing denormal or infinite in sight.

import CX86State
import X86Defs

func performSSEFloat(_ s: CPU, _ ip: IP) -> Bool {
    if sseIsOn(s), fastArithmetic(s, ip) { return true }
    return processor(s).sseFloat(ip)
}

/// The uop's `imm`: 7:0 opcode, 9:8 prefix (0 none, 1 66, 2 F3, 3 F2), 10 REX.W, 11 memory operand, 23:16 immediate.
private struct FloatCode {
    var opcode: UInt8
    var prefix: Int
    var wideInteger: Bool
    var fromMemory: Bool
    var immediate: UInt8

    init(_ imm: UInt64) {
        opcode = UInt8(truncatingIfNeeded: imm)
        prefix = Int((imm &>> 8) & 3)
        wideInteger = imm & 0x400 != 0
        fromMemory = imm & 0x800 != 0
        immediate = UInt8(truncatingIfNeeded: imm &>> 16)
    }
    var isScalar: Bool { prefix >= 2 }
    /// Elements are binary64.
    var isDouble: Bool { prefix & 1 != 0 }
}

/// The common instructions by the host. False: not this case.
private func fastArithmetic(_ s: CPU, _ ip: IP) -> Bool {
    // All exceptions masked, round to nearest, no DAZ, no FTZ, and PE set already: inexact results change no flag.
    guard s.pointee.mxcsr & 0xffe0 == 0x1fa0 else { return false }
    let u = ip.pointee
    let code = FloatCode(u.imm)
    switch code.prefix {
    case 0: return fastArithmetic(s, u, code, Float.self, 4)
    case 1: return fastArithmetic(s, u, code, Double.self, 2)
    case 2: return fastArithmetic(s, u, code, Float.self, 1)
    default: return fastArithmetic(s, u, code, Double.self, 1)
    }
}

/// Normal numbers and zeros only, in and out: nothing but the precision flag can come up.
@inline(__always)
private func fastArithmetic<F: BinaryFloatingPoint & BitwiseCopyable>(
    _ s: CPU, _ u: x86_uop, _ code: FloatCode, _ type: F.Type, _ count: Int
) -> Bool {
    let size = MemoryLayout<F>.size
    let source = UnsafeRawPointer(s) + Int(u.src)
    let target = UnsafeMutableRawPointer(s) + Int(u.dst)
    switch code.opcode {
    case 0x2e, 0x2f:
        let a = target.load(as: F.self), b = source.load(as: F.self)
        guard a.isNormal || a.isZero, b.isNormal || b.isZero else { return false }
        spreadArithmeticFlags(s, a == b ? RFLAGS.zf : a < b ? RFLAGS.cf : 0)
        return true
    case 0x2a where code.isScalar:
        let v = code.wideInteger ? Int64(bitPattern: get(s, u.src)) : Int64(Int32(bitPattern: get(s, u.src)))
        target.storeBytes(of: F(v), as: F.self)
        return true
    case 0x2c where code.isScalar:
        let a = source.load(as: F.self)
        guard a.isNormal || a.isZero, a.magnitude < 0x1p31 else { return false }
        let v = Int64(a)
        code.wideInteger ? put(s, u.dst, UInt64(bitPattern: v)) : put(s, u.dst, UInt32(truncatingIfNeeded: v))
        return true
    case 0x51, 0x58, 0x59, 0x5c...0x5f: break
    default: return false
    }
    var results = (F(0), F(0), F(0), F(0))
    return withUnsafeMutableBytes(of: &results) { out in
        for i in 0..<count {
            let a = target.load(fromByteOffset: i &* size, as: F.self)
            let b = source.load(fromByteOffset: i &* size, as: F.self)
            guard b.isNormal || b.isZero else { return false }
            let r: F
            if code.opcode == 0x51 {
                guard b >= 0 else { return false }
                r = b.squareRoot()
            } else {
                guard a.isNormal || a.isZero else { return false }
                switch code.opcode {
                case 0x58: r = a + b
                case 0x5c: r = a - b
                case 0x59: r = a * b
                case 0x5d: r = a < b ? a : b
                case 0x5f: r = a > b ? a : b
                default:
                    guard !b.isZero else { return false }
                    r = a / b
                }
                // A product or quotient may have become zero by underflow.
                if r.isZero, code.opcode == 0x59 || code.opcode == 0x5e, !(a.isZero || b.isZero) { return false }
            }
            guard r.isZero || r.isNormal && r.magnitude > F.leastNormalMagnitude else { return false }
            out.storeBytes(of: r, toByteOffset: i &* size, as: F.self)
        }
        guard let bytes = out.baseAddress else { return false }
        target.copyMemory(from: bytes, byteCount: count &* size)
        return true
    }
}

extension Processor {
    private var floatStatus: FloatStatus {
        let m = s.pointee.mxcsr
        var status = FloatStatus()
        status.rounding = UInt8((m &>> 13) & 3)
        status.masks = UInt16((m &>> 7) & 0x3f)
        status.flushToZero = m & 0x8000 != 0
        status.denormalsAreZeros = m & 0x40 != 0
        return status
    }

    /// Enters the flags into MXCSR. False: an unmasked exception; the destination stays.
    private func commit(_ status: FloatStatus, at rip: UInt64) -> Bool {
        let unmasked = status.flags & ~status.masks
        if unmasked & FloatFlag.early != 0 {
            s.pointee.mxcsr |= UInt32(status.flags & FloatFlag.early)
        } else {
            s.pointee.mxcsr |= UInt32(status.flags)
        }
        guard unmasked != 0 else { return true }
        prepareException(s.pointee.cr4 & CR4.osxmmexcpt != 0 ? 19 : 6, at: rip)
        return false
    }

    private func element(_ slot: UInt16, _ index: Int, double: Bool) -> UInt64 {
        double
            ? get(s, slot &+ UInt16(index &* 8)) : UInt64(get(s, slot &+ UInt16(index &* 4), as: UInt32.self))
    }

    private func number(_ slot: UInt16, _ index: Int, double: Bool, _ status: FloatStatus) -> SoftNumber {
        let n = SoftNumber(bits: element(slot, index, double: double), wide: double)
        return n.denormal && status.denormalsAreZeros ? .zero(n.negative) : n
    }

    /// Writes the low `count` elements of a register; the rest stays.
    private func putElements(_ slot: UInt16, _ values: [UInt64], double: Bool) {
        for (i, v) in values.enumerated() {
            let at = Int(slot) &+ i &* (double ? 8 : 4)
            let p = UnsafeMutableRawPointer(s) + at
            double
                ? p.storeBytes(of: v, as: UInt64.self)
                : p.storeBytes(of: UInt32(truncatingIfNeeded: v), as: UInt32.self)
        }
    }

    func sseFloat(_ ip: IP) -> Bool {
        let rip = instructionAddress(s, ip)
        guard mayUseSSE(at: rip) else { return false }
        let u = ip.pointee
        let code = FloatCode(u.imm)
        switch code.opcode {
        case 0x51, 0x58, 0x59, 0x5c...0x5f, 0xc2: return arithmetic(code, u.dst, u.src, at: rip)
        case 0x52, 0x53: return approximate(code, u.dst, u.src)
        case 0x2e, 0x2f: return compareOrdered(code, u.dst, u.src, at: rip)
        case 0x5a: return convertFormat(code, u.dst, u.src, at: rip)
        case 0x5b, 0xe6: return convertPackedInteger(code, u.dst, u.src, at: rip)
        case 0x2a:
            return code.isScalar
                ? convertFromRegister(code, u.dst, u.src, at: rip) : convertFromMMX(code, u.dst, u.src, at: rip)
        default:
            return code.isScalar
                ? convertToRegister(code, u.dst, u.src, at: rip) : convertToMMX(code, Int(u.dst), u.src, at: rip)
        }
    }

    private func arithmetic(_ code: FloatCode, _ dst: UInt16, _ src: UInt16, at rip: UInt64) -> Bool {
        var status = floatStatus
        let double = code.isDouble
        let format = double ? FloatFormat.double : .single
        let count = code.isScalar ? 1 : double ? 2 : 4
        var results: [UInt64] = []
        results.reserveCapacity(4)
        for i in 0..<count {
            let a = number(dst, i, double: double, status), b = number(src, i, double: double, status)
            switch code.opcode {
            case 0x51:
                if b.isNaN {
                    if b.kind == .signalingNaN { status.flags |= FloatFlag.invalid }
                    results.append(b.quieted.bits(wide: double))
                } else {
                    results.append(status.squareRoot(b, format).bits(wide: double))
                }
            case 0x5d, 0x5f:
                // The second operand wins ties of zeros and anything unordered.
                if a.isNaN || b.isNaN {
                    status.flags |= FloatFlag.invalid
                    results.append(element(src, i, double: double))
                    continue
                }
                if a.denormal || b.denormal { status.flags |= FloatFlag.denormal }
                let order = FloatStatus.compare(a, b) ?? 0
                let first = code.opcode == 0x5d ? order < 0 : order > 0
                let chosen = first ? a : b
                results.append(
                    chosen.isZero ? chosen.bits(wide: double) : element(first ? dst : src, i, double: double))
            case 0xc2:
                let predicate = code.immediate & 7
                let quiet = predicate & 3 == 0 || predicate & 3 == 3
                if a.kind == .signalingNaN || b.kind == .signalingNaN || !quiet && (a.isNaN || b.isNaN) {
                    status.flags |= FloatFlag.invalid
                } else if !(a.isNaN || b.isNaN), a.denormal || b.denormal {
                    status.flags |= FloatFlag.denormal
                }
                let order = FloatStatus.compare(a, b)
                var holds: Bool
                switch predicate & 3 {
                case 0: holds = order == 0
                case 1: holds = order.map { $0 < 0 } ?? false
                case 2: holds = order.map { $0 <= 0 } ?? false
                default: holds = order == nil
                }
                if predicate & 4 != 0 { holds.toggle() }
                results.append(holds ? .max : 0)
            default:
                if a.isNaN || b.isNaN {
                    if a.kind == .signalingNaN || b.kind == .signalingNaN { status.flags |= FloatFlag.invalid }
                    results.append((a.isNaN ? a : b).quieted.bits(wide: double))
                    continue
                }
                let r: SoftNumber
                switch code.opcode {
                case 0x58: r = status.add(a, b, format)
                case 0x5c:
                    var minus = b
                    minus.negative.toggle()
                    r = status.add(a, minus, format)
                case 0x59: r = status.multiply(a, b, format)
                default: r = status.divide(a, b, format)
                }
                results.append(r.bits(wide: double))
            }
        }
        guard commit(status, at: rip) else { return false }
        putElements(dst, results, double: double)
        return true
    }

    /// RCPPS, RSQRTPS and scalar forms: within 1.5 × 2^-12 of the exact value, here to 12 bits; no exceptions.
    private func approximate(_ code: FloatCode, _ dst: UInt16, _ src: UInt16) -> Bool {
        var results: [UInt64] = []
        for i in 0..<(code.isScalar ? 1 : 4) {
            let bits = UInt32(truncatingIfNeeded: element(src, i, double: false))
            var x = Float(bitPattern: bits)
            if x.isNaN {
                results.append(UInt64(bits | 0x40_0000))
                continue
            }
            if x.isSubnormal { x = x.sign == .minus ? -0.0 : 0 }
            if code.opcode == 0x52, x < 0 {
                results.append(0xffc0_0000)
                continue
            }
            let exact = code.opcode == 0x53 ? 1 / Double(x) : 1 / Double(x).squareRoot()
            let r = Float(exact)
            if r.isSubnormal || r.isZero {
                results.append(x.sign == .minus ? 0x8000_0000 : 0)
            } else if r.isInfinite {
                results.append(UInt64(r.bitPattern))
            } else {
                results.append(UInt64((r.bitPattern &+ 0x400) & ~0x7ff))
            }
        }
        putElements(dst, results, double: false)
        return true
    }

    /// COMISS, UCOMISS and their double forms.
    private func compareOrdered(_ code: FloatCode, _ dst: UInt16, _ src: UInt16, at rip: UInt64) -> Bool {
        var status = floatStatus
        let a = number(dst, 0, double: code.isDouble, status), b = number(src, 0, double: code.isDouble, status)
        let signals = code.opcode == 0x2f
        if a.isNaN || b.isNaN {
            if signals || a.kind == .signalingNaN || b.kind == .signalingNaN { status.flags |= FloatFlag.invalid }
        } else if a.denormal || b.denormal {
            status.flags |= FloatFlag.denormal
        }
        guard commit(status, at: rip) else { return false }
        setComparisonFlags(FloatStatus.compare(a, b))
        return true
    }

    /// ZF, PF and CF of a floating-point comparison; the others become 0.
    func setComparisonFlags(_ order: Int?) {
        guard let order else { return spreadArithmeticFlags(s, RFLAGS.zf | RFLAGS.pf | RFLAGS.cf) }
        spreadArithmeticFlags(s, order == 0 ? RFLAGS.zf : order < 0 ? RFLAGS.cf : 0)
    }

    // MARK: Conversions

    private func convert(_ n: SoftNumber, _ format: FloatFormat, _ status: inout FloatStatus) -> SoftNumber {
        if n.isNaN {
            if n.kind == .signalingNaN { status.flags |= FloatFlag.invalid }
            return n.quieted
        }
        if n.denormal { status.flags |= FloatFlag.denormal }
        return status.round(n, format)
    }

    /// CVTPS2PD, CVTPD2PS, CVTSS2SD, CVTSD2SS.
    private func convertFormat(_ code: FloatCode, _ dst: UInt16, _ src: UInt16, at rip: UInt64) -> Bool {
        var status = floatStatus
        let fromDouble = code.isDouble
        let format = fromDouble ? FloatFormat.single : .double
        var results: [UInt64] = []
        for i in 0..<(code.isScalar ? 1 : 2) {
            let n = number(src, i, double: fromDouble, status)
            results.append(convert(n, format, &status).bits(wide: !fromDouble))
        }
        guard commit(status, at: rip) else { return false }
        if code.isScalar {
            putElements(dst, results, double: !fromDouble)
        } else if fromDouble {
            putVector(s, dst, Vector(results[0] | results[1] &<< 32, 0))
        } else {
            putVector(s, dst, Vector(results[0], results[1]))
        }
        return true
    }

    private func toInteger(_ n: SoftNumber, wide: Bool, truncating: Bool, _ status: inout FloatStatus) -> UInt64 {
        let width = wide ? 64 : 32
        guard let v = status.integer(n, width: width, truncating: truncating) else {
            status.flags |= FloatFlag.invalid
            return 1 &<< UInt64(width &- 1)
        }
        return UInt64(bitPattern: v) & (wide ? .max : 0xffff_ffff)
    }

    private func fromInteger(_ v: Int64, double: Bool, _ status: inout FloatStatus) -> UInt64 {
        status.round(SoftNumber(integer: v), double ? .double : .single).bits(wide: double)
    }

    /// CVTDQ2PS, CVTPS2DQ, CVTTPS2DQ (5B); CVTDQ2PD, CVTPD2DQ, CVTTPD2DQ (E6).
    private func convertPackedInteger(_ code: FloatCode, _ dst: UInt16, _ src: UInt16, at rip: UInt64) -> Bool {
        var status = floatStatus
        func int32(_ i: Int) -> Int64 { Int64(Int32(bitPattern: get(s, src &+ UInt16(i &* 4)))) }
        let r: Vector
        switch (code.opcode, code.prefix) {
        case (0x5b, 0):
            let v = (0..<4).map { fromInteger(int32($0), double: false, &status) }
            r = Vector(v[0] | v[1] &<< 32, v[2] | v[3] &<< 32)
        case (0x5b, _):
            let v = (0..<4).map {
                toInteger(number(src, $0, double: false, status), wide: false, truncating: code.prefix == 2, &status)
            }
            r = Vector(v[0] | v[1] &<< 32, v[2] | v[3] &<< 32)
        case (_, 2):
            r = Vector(fromInteger(int32(0), double: true, &status), fromInteger(int32(1), double: true, &status))
        default:
            let v = (0..<2).map {
                toInteger(number(src, $0, double: true, status), wide: false, truncating: code.prefix == 1, &status)
            }
            r = Vector(v[0] | v[1] &<< 32, 0)
        }
        guard commit(status, at: rip) else { return false }
        putVector(s, dst, r)
        return true
    }

    /// CVTSI2SS, CVTSI2SD.
    private func convertFromRegister(_ code: FloatCode, _ dst: UInt16, _ src: UInt16, at rip: UInt64) -> Bool {
        var status = floatStatus
        let v = code.wideInteger ? Int64(bitPattern: get(s, src)) : Int64(Int32(bitPattern: get(s, src)))
        let r = fromInteger(v, double: code.isDouble, &status)
        guard commit(status, at: rip) else { return false }
        putElements(dst, [r], double: code.isDouble)
        return true
    }

    /// CVTSS2SI, CVTTSS2SI, CVTSD2SI, CVTTSD2SI.
    private func convertToRegister(_ code: FloatCode, _ dst: UInt16, _ src: UInt16, at rip: UInt64) -> Bool {
        var status = floatStatus
        let n = number(src, 0, double: code.isDouble, status)
        let r = toInteger(n, wide: code.wideInteger, truncating: code.opcode == 0x2c, &status)
        guard commit(status, at: rip) else { return false }
        put(s, dst, r)
        return true
    }

    /// CVTPI2PS, CVTPI2PD. A memory operand leaves the x87 state alone.
    private func convertFromMMX(_ code: FloatCode, _ dst: UInt16, _ src: UInt16, at rip: UInt64) -> Bool {
        let entersMMX = !code.fromMemory
        if entersMMX { guard noPendingX87(at: rip) else { return false } }
        var status = floatStatus
        let q: UInt64 = get(s, src)
        let parts = [Int64(Int32(truncatingIfNeeded: q)), Int64(Int32(truncatingIfNeeded: q &>> 32))]
        let v = parts.map { fromInteger($0, double: code.isDouble, &status) }
        if entersMMX { enterMMX() }
        guard commit(status, at: rip) else { return false }
        putElements(dst, v, double: code.isDouble)
        return true
    }

    /// CVTPS2PI, CVTTPS2PI, CVTPD2PI, CVTTPD2PI.
    private func convertToMMX(_ code: FloatCode, _ register: Int, _ src: UInt16, at rip: UInt64) -> Bool {
        guard noPendingX87(at: rip) else { return false }
        var status = floatStatus
        let v = (0..<2).map {
            toInteger(
                number(src, $0, double: code.isDouble, status), wide: false, truncating: code.opcode == 0x2c, &status)
        }
        enterMMX()
        guard commit(status, at: rip) else { return false }
        putMMX(register, v[0] | v[1] &<< 32)
        return true
    }
}
