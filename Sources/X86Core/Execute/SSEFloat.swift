// SSE, AVX and FMA floating point: one general executor on the integer core. In front of it stands, on x86 hosts, the
// host's own instruction (HostArithmetic.swift); on others the host's arithmetic for the common case: default control,
// precision flag already set, nothing denormal or infinite in sight.

import CX86State
import X86Defs

func performSSEFloat(_ s: CPU, _ ip: IP) -> Bool {
    let vex = ip.pointee.imm & 0x1000 != 0
    if vex ? avxIsOn(s) : sseIsOn(s) {
        #if arch(x86_64)
            if s.pointee.host & UInt32(X86_HOST_FLOAT) != 0, hostFloatByNumber(s, ip.pointee) { return true }
        #else
            if fastArithmetic(s, ip) { return true }
        #endif
    }
    return processor(s).sseFloat(ip)
}

/// Results of one instruction, lowest element first; in place, because nothing here may allocate.
struct Elements {
    private var values = SIMD8<UInt64>()
    private(set) var count = 0

    init() {}
    init(_ only: UInt64) { append(only) }

    mutating func append(_ value: UInt64) {
        values[count & 7] = value
        count &+= 1
    }
    /// What stands above a packed result of 8 bytes.
    mutating func appendTwoZeros() {
        append(0)
        append(0)
    }
    subscript(index: Int) -> UInt64 { values[index & 7] }
}

/// The uop's `imm`: 7:0 opcode, 9:8 prefix (0 none, 1 66, 2 F3, 3 F2; elsewhere bit 8 binary64, bit 9 scalar), 10 W,
/// 11 memory operand, 12 VEX, 13 256 bits, 23:16 immediate. `base` is the first source, `src` the second.
struct FloatCode {
    var opcode: UInt8
    var prefix: Int
    var wideInteger: Bool
    var fromMemory: Bool
    var immediate: UInt8
    var vex: Bool
    var wide: Bool

    init(_ imm: UInt64) {
        opcode = UInt8(truncatingIfNeeded: imm)
        prefix = Int((imm &>> 8) & 3)
        wideInteger = imm & 0x400 != 0
        fromMemory = imm & 0x800 != 0
        immediate = UInt8(truncatingIfNeeded: imm &>> 16)
        vex = imm & 0x1000 != 0
        wide = imm & 0x2000 != 0
    }
    var isScalar: Bool { prefix >= 2 }
    /// Elements are binary64.
    var isDouble: Bool { prefix & 1 != 0 }
    var isFused: Bool { opcode >= 0x96 && opcode <= 0xbf }
    /// Elements of the operation.
    var count: Int { isScalar ? 1 : (isDouble ? 2 : 4) &* (wide ? 2 : 1) }
}

/// Which operands a fused multiply-add multiplies and adds, and with which signs [APM4, VFMADDPD].
struct FusedForm {
    /// The operand order: 0 132, 1 213, 2 231.
    var order: Int
    var negatesProduct: Bool
    /// Of even and odd elements.
    var negatesAddend: (Bool, Bool)

    init(opcode: UInt8) {
        order = Int(opcode &>> 4) &- 9
        let low = opcode & 15
        negatesProduct = low >= 12
        switch low {
        case 6: negatesAddend = (true, false)
        case 7: negatesAddend = (false, true)
        case 8, 9, 12, 13: negatesAddend = (false, false)
        default: negatesAddend = (true, true)
        }
    }
}

#if !arch(x86_64)

    /// The common instructions by the host. False: not this case.
    private func fastArithmetic(_ s: CPU, _ ip: IP) -> Bool {
        // All exceptions masked, round to nearest, no DAZ, no FTZ, and PE set already: inexact results change no flag.
        guard s.pointee.mxcsr & 0xffe0 == 0x1fa0 else { return false }
        let u = ip.pointee
        let code = FloatCode(u.imm)
        return code.isDouble
            ? fastArithmetic(s, u, code, Double.self) : fastArithmetic(s, u, code, Float.self)
    }

    /// Normal numbers and zeros only, in and out: nothing but the precision flag can come up.
    @inline(__always)
    private func fastArithmetic<F: BinaryFloatingPoint & BitwiseCopyable>(
        _ s: CPU, _ u: x86_uop, _ code: FloatCode, _ type: F.Type
    ) -> Bool {
        let size = MemoryLayout<F>.size
        let source = UnsafeRawPointer(s) + Int(u.src)
        let first = UnsafeRawPointer(s) + Int(u.base)
        let target = UnsafeMutableRawPointer(s) + Int(u.dst)
        let upper = Int(Slot.upper)
        switch code.opcode {
        case 0x2e, 0x2f:
            let a = target.load(as: F.self), b = source.load(as: F.self)
            guard a.isNormal || a.isZero, b.isNormal || b.isZero else { return false }
            spreadArithmeticFlags(s, a == b ? RFLAGS.zf : a < b ? RFLAGS.cf : 0)
            return true
        case 0x2a where code.isScalar:
            let v = code.wideInteger ? Int64(bitPattern: get(s, u.src)) : Int64(Int32(bitPattern: get(s, u.src)))
            startScalarResult(s, u, code)
            target.storeBytes(of: F(v), as: F.self)
            return true
        case 0x2c where code.isScalar:
            let a = source.load(as: F.self)
            guard a.isNormal || a.isZero, a.magnitude < 0x1p31 else { return false }
            let v = Int64(a)
            code.wideInteger ? put(s, u.dst, UInt64(bitPattern: v)) : put(s, u.dst, UInt32(truncatingIfNeeded: v))
            return true
        case 0x51, 0x58, 0x59, 0x5c...0x5f: break
        case 0x96...0xbf: break
        default: return false
        }
        let form = FusedForm(opcode: code.isFused ? code.opcode : 0x98)
        let lane = 16 / size
        var results = (F(0), F(0), F(0), F(0), F(0), F(0), F(0), F(0))
        return withUnsafeMutableBytes(of: &results) { out in
            for i in 0..<code.count {
                let at = i < lane ? i &* size : (i &- lane) &* size &+ upper
                let a = first.load(fromByteOffset: at, as: F.self)
                let b = source.load(fromByteOffset: at, as: F.self)
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
                    case 0x5e:
                        guard !b.isZero else { return false }
                        r = a / b
                    default:
                        let c = target.load(fromByteOffset: at, as: F.self)
                        guard c.isNormal || c.isZero else { return false }
                        let (x, y, z) = form.order == 0 ? (c, b, a) : form.order == 1 ? (a, c, b) : (a, b, c)
                        let minus = i & 1 == 0 ? form.negatesAddend.0 : form.negatesAddend.1
                        r = (minus ? -z : z).addingProduct(form.negatesProduct ? -x : x, y)
                        // An exact zero has rules of its own, an inexact one is an underflow.
                        if r.isZero { return false }
                    }
                    // A product or quotient may have become zero by underflow.
                    if r.isZero, code.opcode == 0x59 || code.opcode == 0x5e, !(a.isZero || b.isZero) { return false }
                }
                guard r.isZero || r.isNormal && r.magnitude > F.leastNormalMagnitude else { return false }
                out.storeBytes(of: r, toByteOffset: i &* size, as: F.self)
            }
            guard let bytes = out.baseAddress else { return false }
            if code.isScalar { startScalarResult(s, u, code) }
            let total = code.count &* size
            target.copyMemory(from: bytes, byteCount: min(total, 16))
            if code.vex, !code.isScalar {
                if total > 16 {
                    (target + upper).copyMemory(from: bytes + 16, byteCount: 16)
                } else {
                    putVector(s, u.dst &+ Slot.upper, Vector())
                }
            }
            return true
        }
    }

    /// A VEX scalar result stands on the first source; the upper half of the register is cleared.
    private func startScalarResult(_ s: CPU, _ u: x86_uop, _ code: FloatCode) {
        guard code.vex else { return }
        if !code.isFused { putVector(s, u.dst, getVector(s, u.base)) }
        putVector(s, u.dst &+ Slot.upper, Vector())
    }

#endif

extension Processor {
    var floatStatus: FloatStatus {
        let m = s.pointee.mxcsr
        var status = FloatStatus()
        status.rounding = UInt8((m &>> 13) & 3)
        status.masks = UInt16((m &>> 7) & 0x3f)
        status.flushToZero = m & 0x8000 != 0
        status.denormalsAreZeros = m & 0x40 != 0
        return status
    }

    /// Enters the flags into MXCSR. False: an unmasked exception; the destination stays.
    func commit(_ status: FloatStatus, at rip: UInt64) -> Bool {
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

    func element(_ slot: UInt16, _ index: Int, double: Bool) -> UInt64 {
        if double {
            return get(s, slot &+ UInt16((index & 1) &* 8) &+ (index > 1 ? Slot.upper : 0))
        }
        return UInt64(get(s, slot &+ UInt16((index & 3) &* 4) &+ (index > 3 ? Slot.upper : 0), as: UInt32.self))
    }

    func number(_ slot: UInt16, _ index: Int, double: Bool, _ status: FloatStatus) -> SoftNumber {
        let n = SoftNumber(bits: element(slot, index, double: double), wide: double)
        return n.denormal && status.denormalsAreZeros ? .zero(n.negative) : n
    }

    /// Writes the result's low elements. Legacy forms leave the rest of the register alone, VEX forms clear it; a VEX
    /// scalar stands on the first source.
    func putElements(_ u: x86_uop, _ values: Elements, double: Bool, _ code: FloatCode) {
        let slot = u.dst
        if code.vex {
            if code.isScalar {
                if !code.isFused { putVector(s, slot, getVector(s, u.base)) }
            } else if values.count &* (double ? 8 : 4) < 16 {
                putVector(s, slot, Vector())
            }
            putVector(s, slot &+ Slot.upper, Vector())
        }
        for i in 0..<values.count {
            let v = values[i]
            let at =
                double ? (i & 1) &* 8 &+ (i > 1 ? Int(Slot.upper) : 0) : (i & 3) &* 4 &+ (i > 3 ? Int(Slot.upper) : 0)
            let p = UnsafeMutableRawPointer(s) + Int(slot) + at
            double
                ? p.storeBytes(of: v, as: UInt64.self)
                : p.storeBytes(of: UInt32(truncatingIfNeeded: v), as: UInt32.self)
        }
    }

    func sseFloat(_ ip: IP) -> Bool {
        let rip = instructionAddress(s, ip)
        let u = ip.pointee
        let code = FloatCode(u.imm)
        if code.vex {
            guard avxIsOn(s) else {
                avxIsOff(s, ip)
                return false
            }
        } else {
            guard mayUseSSE(at: rip) else { return false }
        }
        switch code.opcode {
        case 0x51, 0x58, 0x59, 0x5c...0x5f, 0xc2: return arithmetic(code, u, at: rip)
        case 0x52, 0x53: return approximate(code, u)
        case 0x2e, 0x2f: return compareOrdered(code, u.dst, u.src, at: rip)
        case 0x5a: return convertFormat(code, u, at: rip)
        case 0x5b, 0xe6: return convertPackedInteger(code, u, at: rip)
        case 0x7c, 0x7d, 0xd0: return horizontal(code, u, at: rip)
        case 0x96...0xbf: return fused(code, u, at: rip)
        case 0x08: return roundElements(code, u, at: rip)
        case 0x40, 0x41: return dotProduct(code, u, at: rip)
        case 0x13: return convertFromHalf(code, u, at: rip)
        case 0x1d: return convertToHalf(code, u, at: rip)
        case 0x2a:
            return code.isScalar
                ? convertFromRegister(code, u, at: rip) : convertFromMMX(code, u, at: rip)
        default:
            return code.isScalar
                ? convertToRegister(code, u.dst, u.src, at: rip) : convertToMMX(code, Int(u.dst), u.src, at: rip)
        }
    }

    /// ADD, SUB, MUL, DIV with SSE's rule for NaNs: the first operand's, else the second's.
    private func binary(
        _ opcode: UInt8, _ a: SoftNumber, _ b: SoftNumber, _ format: FloatFormat, _ status: inout FloatStatus
    ) -> SoftNumber {
        if a.isNaN || b.isNaN {
            if a.kind == .signalingNaN || b.kind == .signalingNaN { status.flags |= FloatFlag.invalid }
            return (a.isNaN ? a : b).quieted
        }
        switch opcode {
        case 0x58: return status.add(a, b, format)
        case 0x5c:
            var minus = b
            minus.negative.toggle()
            return status.add(a, minus, format)
        case 0x59: return status.multiply(a, b, format)
        default: return status.divide(a, b, format)
        }
    }

    private func arithmetic(_ code: FloatCode, _ u: x86_uop, at rip: UInt64) -> Bool {
        var status = floatStatus
        let double = code.isDouble
        let format = double ? FloatFormat.double : .single
        var results = Elements()
        for i in 0..<code.count {
            let a = number(u.base, i, double: double, status), b = number(u.src, i, double: double, status)
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
                    results.append(
                        b.isZero ? b.bits(wide: double) : element(u.src, i, double: double))
                    continue
                }
                if a.denormal || b.denormal { status.flags |= FloatFlag.denormal }
                let order = FloatStatus.compare(a, b) ?? 0
                let first = code.opcode == 0x5d ? order < 0 : order > 0
                let chosen = first ? a : b
                results.append(
                    chosen.isZero ? chosen.bits(wide: double) : element(first ? u.base : u.src, i, double: double))
            case 0xc2: results.append(compares(code, a, b, &status) ? .max : 0)
            default: results.append(binary(code.opcode, a, b, format, &status).bits(wide: double))
            }
        }
        guard commit(status, at: rip) else { return false }
        putElements(u, results, double: double, code)
        return true
    }

    /// CMPPS and kin. Each predicate is a set of relations: 1 less, 2 equal, 4 greater, 8 unordered.
    private func compares(_ code: FloatCode, _ a: SoftNumber, _ b: SoftNumber, _ status: inout FloatStatus) -> Bool {
        let predicate = Int(code.immediate & (code.vex ? 31 : 7))
        // Four bits for each predicate, the first lowest: 2, 1, 3, 8, 13, 14, 12, 7, 10, 9, 11, 0, 5, 6, 4, 15.
        let relations: UInt64 = 0xf465_0b9a_7ced_8312
        let quietBelow = predicate & 3 == 0 || predicate & 3 == 3
        let quiet = quietBelow == (predicate < 16)
        if a.kind == .signalingNaN || b.kind == .signalingNaN || !quiet && (a.isNaN || b.isNaN) {
            status.flags |= FloatFlag.invalid
        } else if !(a.isNaN || b.isNaN), a.denormal || b.denormal {
            status.flags |= FloatFlag.denormal
        }
        let order = FloatStatus.compare(a, b)
        let relation: UInt64 = order.map { $0 < 0 ? 1 : $0 == 0 ? 2 : 4 } ?? 8
        return relations &>> UInt64((predicate & 15) &* 4) & relation != 0
    }

    /// HADD, HSUB, ADDSUB.
    private func horizontal(_ code: FloatCode, _ u: x86_uop, at rip: UInt64) -> Bool {
        var status = floatStatus
        let double = code.isDouble
        let format = double ? FloatFormat.double : .single
        let lane = double ? 2 : 4
        var results = Elements()
        for i in 0..<code.count {
            let x: SoftNumber, y: SoftNumber
            let subtracts: Bool
            if code.opcode == 0xd0 {
                (x, y) = (number(u.base, i, double: double, status), number(u.src, i, double: double, status))
                subtracts = i & 1 == 0
            } else {
                // The lower half of each lane comes from the first source.
                let within = i % lane, start = i - within
                let slot = within < lane / 2 ? u.base : u.src
                let at = start &+ within % (lane / 2) &* 2
                (x, y) = (number(slot, at, double: double, status), number(slot, at &+ 1, double: double, status))
                subtracts = code.opcode == 0x7d
            }
            results.append(binary(subtracts ? 0x5c : 0x58, x, y, format, &status).bits(wide: double))
        }
        guard commit(status, at: rip) else { return false }
        putElements(u, results, double: double, code)
        return true
    }

    private func fused(_ code: FloatCode, _ u: x86_uop, at rip: UInt64) -> Bool {
        var status = floatStatus
        let double = code.isDouble
        let format = double ? FloatFormat.double : .single
        let form = FusedForm(opcode: code.opcode)
        var results = Elements()
        for i in 0..<code.count {
            let one = number(u.dst, i, double: double, status), two = number(u.base, i, double: double, status)
            let three = number(u.src, i, double: double, status)
            var (x, y, z) =
                form.order == 0 ? (one, three, two) : form.order == 1 ? (two, one, three) : (two, three, one)
            if x.isNaN || y.isNaN || z.isNaN {
                if x.kind == .signalingNaN || y.kind == .signalingNaN || z.kind == .signalingNaN {
                    status.flags |= FloatFlag.invalid
                }
                results.append((x.isNaN ? x : y.isNaN ? y : z).quieted.bits(wide: double))
                continue
            }
            if form.negatesProduct { x.negative.toggle() }
            if i & 1 == 0 ? form.negatesAddend.0 : form.negatesAddend.1 { z.negative.toggle() }
            results.append(status.multiplyAdd(x, y, z, format).bits(wide: double))
        }
        guard commit(status, at: rip) else { return false }
        putElements(u, results, double: double, code)
        return true
    }

    /// ROUNDPS and kin. The immediate: 1:0 mode, 2 use MXCSR's instead, 3 no precision exception.
    private func roundElements(_ code: FloatCode, _ u: x86_uop, at rip: UInt64) -> Bool {
        var status = floatStatus
        let double = code.isDouble
        if code.immediate & 4 == 0 { status.rounding = code.immediate & 3 }
        var results = Elements()
        for i in 0..<code.count {
            var n = number(u.src, i, double: double, status)
            if n.isNaN {
                if n.kind == .signalingNaN { status.flags |= FloatFlag.invalid }
                results.append(n.quieted.bits(wide: double))
                continue
            }
            n.denormal = false
            results.append(status.roundToIntegral(n).bits(wide: double))
        }
        if code.immediate & 8 != 0 { status.flags &= ~FloatFlag.precision }
        guard commit(status, at: rip) else { return false }
        putElements(u, results, double: double, code)
        return true
    }

    /// DPPS and DPPD: products of the chosen elements, summed in pairs, to the chosen places.
    private func dotProduct(_ code: FloatCode, _ u: x86_uop, at rip: UInt64) -> Bool {
        var status = floatStatus
        let double = code.isDouble
        let format = double ? FloatFormat.double : .single
        let lane = double ? 2 : 4
        var results = Elements()
        typealias Products = (SoftNumber, SoftNumber, SoftNumber, SoftNumber)
        func multiply(_ start: Int, _ status: inout FloatStatus) -> Products {
            var products = (
                SoftNumber.zero(false), SoftNumber.zero(false), SoftNumber.zero(false), SoftNumber.zero(false)
            )
            for i in 0..<lane where code.immediate & (0x10 &<< UInt8(i)) != 0 {
                let a = number(u.base, start &+ i, double: double, status)
                let b = number(u.src, start &+ i, double: double, status)
                let product = binary(0x59, a, b, format, &status)
                switch i {
                case 0: products.0 = product
                case 1: products.1 = product
                case 2: products.2 = product
                default: products.3 = product
                }
            }
            return products
        }
        let low = multiply(0, &status), high = code.count > lane ? multiply(lane, &status) : low
        for start in stride(from: 0, to: code.count, by: lane) {
            // An unmasked exception in the products ends it there.
            guard status.flags & ~status.masks == 0 else { break }
            let products = start == 0 ? low : high
            func settled(_ n: SoftNumber) -> SoftNumber {
                let r = SoftNumber(bits: n.bits(wide: double), wide: double)
                return r.denormal && status.denormalsAreZeros ? .zero(r.negative) : r
            }
            var sum = binary(0x58, settled(products.0), settled(products.1), format, &status)
            var reversed = sum
            if lane == 4 {
                let other = binary(0x58, settled(products.2), settled(products.3), format, &status)
                (sum, reversed) = (
                    binary(0x58, settled(sum), settled(other), format, &status),
                    binary(0x58, settled(other), settled(sum), format, &status)
                )
            }
            var bits = sum.bits(wide: double)
            for i in 0..<lane {
                // Intel's processors sum the upper places the other way round, which a NaN shows.
                if i == 2, !amdOrder { bits = reversed.bits(wide: double) }
                results.append(code.immediate & (1 &<< UInt8(i)) != 0 ? bits : 0)
            }
        }
        guard commit(status, at: rip) else { return false }
        putElements(u, results, double: double, code)
        return true
    }

    /// RCPPS, RSQRTPS and scalar forms: within 1.5 × 2^-12 of the exact value, here to 12 bits; no exceptions.
    private func approximate(_ code: FloatCode, _ u: x86_uop) -> Bool {
        var results = Elements()
        for i in 0..<code.count {
            let bits = UInt32(truncatingIfNeeded: element(u.src, i, double: false))
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
        putElements(u, results, double: false, code)
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
}
