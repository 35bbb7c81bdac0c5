// Conversions of SSE and AVX between binary16, binary32, binary64 and integers.

import CX86State
import X86Defs

extension Processor {
    private func convert(_ n: SoftNumber, _ format: FloatFormat, _ status: inout FloatStatus) -> SoftNumber {
        if n.isNaN {
            if n.kind == .signalingNaN { status.flags |= FloatFlag.invalid }
            return n.quieted
        }
        if n.denormal { status.flags |= FloatFlag.denormal }
        return status.round(n, format)
    }

    /// CVTPS2PD, CVTPD2PS, CVTSS2SD, CVTSD2SS.
    func convertFormat(_ code: FloatCode, _ u: x86_uop, at rip: UInt64) -> Bool {
        var status = floatStatus
        let fromDouble = code.isDouble
        let format = fromDouble ? FloatFormat.single : .double
        var results = Elements()
        for i in 0..<(code.isScalar ? 1 : code.wide ? 4 : 2) {
            let n = number(u.src, i, double: fromDouble, status)
            results.append(convert(n, format, &status).bits(wide: !fromDouble))
        }
        guard commit(status, at: rip) else { return false }
        if fromDouble, !code.isScalar, !code.wide { results.appendTwoZeros() }
        putElements(u, results, double: !fromDouble, code)
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
    func convertPackedInteger(_ code: FloatCode, _ u: x86_uop, at rip: UInt64) -> Bool {
        var status = floatStatus
        func int32(_ i: Int) -> Int64 {
            Int64(Int32(truncatingIfNeeded: element(u.src, i, double: false)))
        }
        let lanes = code.wide ? 2 : 1
        var results = Elements()
        var double = false
        switch (code.opcode, code.prefix) {
        case (0x5b, 0): for i in 0..<(4 &* lanes) { results.append(fromInteger(int32(i), double: false, &status)) }
        case (0x5b, _):
            for i in 0..<(4 &* lanes) {
                let n = number(u.src, i, double: false, status)
                results.append(toInteger(n, wide: false, truncating: code.prefix == 2, &status))
            }
        case (_, 2):
            double = true
            for i in 0..<(2 &* lanes) { results.append(fromInteger(int32(i), double: true, &status)) }
        default:
            for i in 0..<(2 &* lanes) {
                let n = number(u.src, i, double: true, status)
                results.append(toInteger(n, wide: false, truncating: code.prefix == 1, &status))
            }
            if lanes == 1 { results.appendTwoZeros() }
        }
        guard commit(status, at: rip) else { return false }
        var packed = code
        packed.prefix = 0
        putElements(u, results, double: double, packed)
        return true
    }

    /// CVTSI2SS, CVTSI2SD.
    func convertFromRegister(_ code: FloatCode, _ u: x86_uop, at rip: UInt64) -> Bool {
        var status = floatStatus
        let v = code.wideInteger ? Int64(bitPattern: get(s, u.src)) : Int64(Int32(bitPattern: get(s, u.src)))
        let r = fromInteger(v, double: code.isDouble, &status)
        guard commit(status, at: rip) else { return false }
        putElements(u, Elements(r), double: code.isDouble, code)
        return true
    }

    /// CVTSS2SI, CVTTSS2SI, CVTSD2SI, CVTTSD2SI.
    func convertToRegister(_ code: FloatCode, _ dst: UInt16, _ src: UInt16, at rip: UInt64) -> Bool {
        var status = floatStatus
        let n = number(src, 0, double: code.isDouble, status)
        let r = toInteger(n, wide: code.wideInteger, truncating: code.opcode == 0x2c, &status)
        guard commit(status, at: rip) else { return false }
        put(s, dst, r)
        return true
    }

    /// CVTPI2PS, CVTPI2PD. A memory operand leaves the x87 state alone.
    func convertFromMMX(_ code: FloatCode, _ u: x86_uop, at rip: UInt64) -> Bool {
        let entersMMX = !code.fromMemory
        if entersMMX { guard noPendingX87(at: rip) else { return false } }
        var status = floatStatus
        let q: UInt64 = get(s, u.src)
        var v = Elements(fromInteger(Int64(Int32(truncatingIfNeeded: q)), double: code.isDouble, &status))
        v.append(fromInteger(Int64(Int32(truncatingIfNeeded: q &>> 32)), double: code.isDouble, &status))
        if entersMMX { enterMMX() }
        guard commit(status, at: rip) else { return false }
        putElements(u, v, double: code.isDouble, code)
        return true
    }

    /// CVTPS2PI, CVTTPS2PI, CVTPD2PI, CVTTPD2PI.
    func convertToMMX(_ code: FloatCode, _ register: Int, _ src: UInt16, at rip: UInt64) -> Bool {
        guard noPendingX87(at: rip) else { return false }
        var status = floatStatus
        var v: UInt64 = 0
        for i in 0..<2 {
            let n = number(src, i, double: code.isDouble, status)
            v |= toInteger(n, wide: false, truncating: code.opcode == 0x2c, &status) &<< UInt64(i &* 32)
        }
        enterMMX()
        guard commit(status, at: rip) else { return false }
        putMMX(register, v)
        return true
    }

    // MARK: binary16

    /// VCVTPH2PS: exact; denormal sources raise nothing.
    func convertFromHalf(_ code: FloatCode, _ u: x86_uop, at rip: UInt64) -> Bool {
        var status = floatStatus
        var results = Elements()
        for i in 0..<(code.wide ? 8 : 4) {
            let bits = UInt64(get(s, u.src &+ UInt16(i &* 2), as: UInt16.self))
            let negative = bits &>> 15 != 0
            let field = Int(bits &>> 10 & 31), fraction = bits & 0x3ff
            let n: SoftNumber
            if field == 31 {
                let kind: SoftNumber.Kind =
                    fraction == 0 ? .infinity : fraction & 0x200 != 0 ? .quietNaN : .signalingNaN
                n = SoftNumber(kind: kind, negative: negative, significand: fraction &<< 53 | 1 &<< 63)
            } else if field == 0 {
                n = SoftNumber(negative: negative, exponent: -14, unnormalized: fraction &<< 53)
            } else {
                n = SoftNumber(
                    kind: .finite, negative: negative, exponent: field &- 15, significand: fraction &<< 53 | 1 &<< 63)
            }
            results.append(convert(n, .single, &status).bits(wide: false))
        }
        guard commit(status, at: rip) else { return false }
        var packed = code
        packed.prefix = 0
        putElements(u, results, double: false, packed)
        return true
    }

    /// VCVTPS2PH: rounded as the immediate says; MXCSR.FTZ does not count.
    func convertToHalf(_ code: FloatCode, _ u: x86_uop, at rip: UInt64) -> Bool {
        var status = floatStatus
        status.flushToZero = false
        if code.immediate & 4 == 0 { status.rounding = code.immediate & 3 }
        let format = FloatFormat(precision: 11, minimum: -14, maximum: 15)
        let count = code.wide ? 8 : 4
        var words = Vector()
        for i in 0..<count {
            let n = convert(number(u.src, i, double: false, status), format, &status)
            let sign: UInt64 = n.negative ? 0x8000 : 0
            let fraction = (n.significand & ~(1 &<< 63)) &>> 53
            let bits: UInt64
            switch n.kind {
            case .zero: bits = sign
            case .infinity: bits = sign | 0x7c00
            case .quietNaN, .signalingNaN, .unsupported: bits = sign | 0x7c00 | fraction
            case .finite:
                bits =
                    n.significand &>> 63 == 0
                    ? sign | fraction : sign | UInt64(truncatingIfNeeded: n.exponent &+ 15) &<< 10 | fraction
            }
            words[i / 4] |= (bits & 0xffff) &<< UInt64(i % 4 &* 16)
        }
        guard commit(status, at: rip) else { return false }
        putVector(s, u.dst, Vector(words[0], words[1]))
        putVector(s, u.dst &+ Slot.upper, Vector())
        return true
    }
}
