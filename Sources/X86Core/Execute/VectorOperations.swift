// Packed integer operations, as functions of values. The 64-bit MMX forms use the same functions on the low halves.

import CX86State

typealias Vector = SIMD2<UInt64>
typealias Bytes = SIMD16<UInt8>
typealias Words = SIMD8<UInt16>
typealias Doublewords = SIMD4<UInt32>

/// Operations `destination = f(destination, source)` on whole registers. The generator's table has the same order.
enum VectorOperation: Int {
    case punpcklbw, punpcklwd, punpckldq, packsswb, pcmpgtb, pcmpgtw, pcmpgtd, packuswb
    case punpckhbw, punpckhwd, punpckhdq, packssdw, punpcklqdq, punpckhqdq
    case pcmpeqb, pcmpeqw, pcmpeqd
    case psrlw, psrld, psrlq, paddq, pmullw, psubusb, psubusw, pminub, pand, paddusb, paddusw, pmaxub, pandn
    case pavgb, psraw, psrad, pavgw, pmulhuw, pmulhw, psubsb, psubsw, pminsw, por, paddsb, paddsw, pmaxsw, pxor
    case psllw, pslld, psllq, pmuludq, pmaddwd, psadbw, psubb, psubw, psubd, psubq, paddb, paddw, paddd
    case movss, movsd, movhlps, movlhps, movdqa

    /// The operation of a two-byte opcode in the integer part of the map (60-FE).
    static func integer(_ opcode: UInt8) -> VectorOperation? {
        switch opcode {
        case 0x60...0x6d: return VectorOperation(rawValue: Int(opcode) &- 0x60)
        case 0x74: return .pcmpeqb
        case 0x75: return .pcmpeqw
        case 0x76: return .pcmpeqd
        case 0xd1: return .psrlw
        case 0xd2: return .psrld
        case 0xd3: return .psrlq
        case 0xd4: return .paddq
        case 0xd5: return .pmullw
        case 0xd8...0xdf: return VectorOperation(rawValue: Int(opcode) &- 0xd8 &+ VectorOperation.psubusb.rawValue)
        case 0xe0...0xe5: return VectorOperation(rawValue: Int(opcode) &- 0xe0 &+ VectorOperation.pavgb.rawValue)
        case 0xe8...0xef: return VectorOperation(rawValue: Int(opcode) &- 0xe8 &+ VectorOperation.psubsb.rawValue)
        case 0xf1...0xf6: return VectorOperation(rawValue: Int(opcode) &- 0xf1 &+ VectorOperation.psllw.rawValue)
        case 0xf8...0xfe: return VectorOperation(rawValue: Int(opcode) &- 0xf8 &+ VectorOperation.psubb.rawValue)
        default: return nil
        }
    }

    /// MMX has no 128-bit-only forms, and PSHUFB and the like are hidden.
    var existsInMMX: Bool { self != .punpcklqdq && self != .punpckhqdq }
}

@inline(__always) func bytes(_ v: Vector) -> Bytes { unsafeBitCast(v, to: Bytes.self) }
@inline(__always) func words(_ v: Vector) -> Words { unsafeBitCast(v, to: Words.self) }
@inline(__always) func doublewords(_ v: Vector) -> Doublewords { unsafeBitCast(v, to: Doublewords.self) }
@inline(__always) func signedBytes(_ v: Vector) -> SIMD16<Int8> { unsafeBitCast(v, to: SIMD16<Int8>.self) }
@inline(__always) func signedWords(_ v: Vector) -> SIMD8<Int16> { unsafeBitCast(v, to: SIMD8<Int16>.self) }
@inline(__always) func signedDoublewords(_ v: Vector) -> SIMD4<Int32> { unsafeBitCast(v, to: SIMD4<Int32>.self) }
@inline(__always) private func whole<V: SIMD>(_ v: V) -> Vector { unsafeBitCast(v, to: Vector.self) }

@inline(__always)
private func ones<V: SIMD>(_ mask: SIMDMask<V>) -> Vector { unsafeBitCast(mask, to: Vector.self) }

@inline(__always)
private func interleave(_ a: SIMD8<UInt8>, _ b: SIMD8<UInt8>) -> Vector {
    var r = Bytes()
    r.evenHalf = a
    r.oddHalf = b
    return whole(r)
}
@inline(__always)
private func interleave(_ a: SIMD4<UInt16>, _ b: SIMD4<UInt16>) -> Vector {
    var r = Words()
    r.evenHalf = a
    r.oddHalf = b
    return whole(r)
}
@inline(__always)
private func interleave(_ a: SIMD2<UInt32>, _ b: SIMD2<UInt32>) -> Vector {
    var r = Doublewords()
    r.evenHalf = a
    r.oddHalf = b
    return whole(r)
}

// The library's pointwiseMin and pointwiseMax are calls; this becomes one instruction.
@inline(__always)
private func minimum<V: SIMD>(_ a: V, _ b: V) -> V where V.Scalar: Comparable { a.replacing(with: b, where: b .< a) }
@inline(__always)
private func maximum<V: SIMD>(_ a: V, _ b: V) -> V where V.Scalar: Comparable { a.replacing(with: b, where: b .> a) }

@inline(__always)
private func byteSum(_ v: UInt64) -> UInt64 {
    let pairs = (v & 0x00ff_00ff_00ff_00ff) &+ ((v &>> 8) & 0x00ff_00ff_00ff_00ff)
    return (pairs &* 0x0001_0001_0001_0001) &>> 48
}

/// Signed addition or subtraction that saturates: where the sign is wrong, the result is the extreme of `a`'s sign.
@inline(__always)
private func saturated<V: SIMD>(_ r: V, _ wrong: V, _ a: V) -> V where V.Scalar: FixedWidthInteger {
    let extreme = (a &>> V(repeating: V.Scalar(V.Scalar.bitWidth - 1))) ^ V(repeating: V.Scalar.max)
    return r.replacing(with: extreme, where: wrong .< V(repeating: 0))
}

@inline(__always)
func vectorOperation(_ op: VectorOperation, _ a: Vector, _ b: Vector) -> Vector {
    switch op {
    case .punpcklbw: return interleave(bytes(a).lowHalf, bytes(b).lowHalf)
    case .punpcklwd: return interleave(words(a).lowHalf, words(b).lowHalf)
    case .punpckldq: return interleave(doublewords(a).lowHalf, doublewords(b).lowHalf)
    case .punpckhbw: return interleave(bytes(a).highHalf, bytes(b).highHalf)
    case .punpckhwd: return interleave(words(a).highHalf, words(b).highHalf)
    case .punpckhdq: return interleave(doublewords(a).highHalf, doublewords(b).highHalf)
    case .punpcklqdq, .movlhps: return Vector(a.x, b.x)
    case .punpckhqdq: return Vector(a.y, b.y)
    case .packsswb, .packuswb:
        let low: Int16 = op == .packsswb ? -128 : 0, high: Int16 = op == .packsswb ? 127 : 255
        let x = signedWords(a).clamped(lowerBound: .init(repeating: low), upperBound: .init(repeating: high))
        let y = signedWords(b).clamped(lowerBound: .init(repeating: low), upperBound: .init(repeating: high))
        return whole(
            Bytes(lowHalf: SIMD8<UInt8>(truncatingIfNeeded: x), highHalf: SIMD8<UInt8>(truncatingIfNeeded: y)))
    case .packssdw:
        let x = signedDoublewords(a).clamped(lowerBound: .init(repeating: -32768), upperBound: .init(repeating: 32767))
        let y = signedDoublewords(b).clamped(lowerBound: .init(repeating: -32768), upperBound: .init(repeating: 32767))
        return whole(
            Words(lowHalf: SIMD4<UInt16>(truncatingIfNeeded: x), highHalf: SIMD4<UInt16>(truncatingIfNeeded: y)))
    case .pcmpgtb: return ones(signedBytes(a) .> signedBytes(b))
    case .pcmpgtw: return ones(signedWords(a) .> signedWords(b))
    case .pcmpgtd: return ones(signedDoublewords(a) .> signedDoublewords(b))
    case .pcmpeqb: return ones(bytes(a) .== bytes(b))
    case .pcmpeqw: return ones(words(a) .== words(b))
    case .pcmpeqd: return ones(doublewords(a) .== doublewords(b))

    case .psrlw: return b.x > 15 ? Vector() : whole(words(a) &>> Words(repeating: UInt16(truncatingIfNeeded: b.x)))
    case .psrld:
        return b.x > 31 ? Vector() : whole(doublewords(a) &>> Doublewords(repeating: UInt32(truncatingIfNeeded: b.x)))
    case .psrlq: return b.x > 63 ? Vector() : a &>> Vector(repeating: b.x)
    case .psllw: return b.x > 15 ? Vector() : whole(words(a) &<< Words(repeating: UInt16(truncatingIfNeeded: b.x)))
    case .pslld:
        return b.x > 31 ? Vector() : whole(doublewords(a) &<< Doublewords(repeating: UInt32(truncatingIfNeeded: b.x)))
    case .psllq: return b.x > 63 ? Vector() : a &<< Vector(repeating: b.x)
    case .psraw: return whole(signedWords(a) &>> .init(repeating: Int16(truncatingIfNeeded: min(b.x, 15))))
    case .psrad: return whole(signedDoublewords(a) &>> .init(repeating: Int32(truncatingIfNeeded: min(b.x, 31))))

    case .paddb: return whole(bytes(a) &+ bytes(b))
    case .paddw: return whole(words(a) &+ words(b))
    case .paddd: return whole(doublewords(a) &+ doublewords(b))
    case .paddq: return a &+ b
    case .psubb: return whole(bytes(a) &- bytes(b))
    case .psubw: return whole(words(a) &- words(b))
    case .psubd: return whole(doublewords(a) &- doublewords(b))
    case .psubq: return a &- b
    case .paddusb:
        let r = bytes(a) &+ bytes(b)
        return whole(r.replacing(with: 255, where: r .< bytes(a)))
    case .paddusw:
        let r = words(a) &+ words(b)
        return whole(r.replacing(with: 65535, where: r .< words(a)))
    case .psubusb: return whole(maximum(bytes(a), bytes(b)) &- bytes(b))
    case .psubusw: return whole(maximum(words(a), words(b)) &- words(b))
    case .paddsb:
        let x = signedBytes(a), y = signedBytes(b), r = x &+ y
        return whole(saturated(r, (x ^ r) & (y ^ r), x))
    case .paddsw:
        let x = signedWords(a), y = signedWords(b), r = x &+ y
        return whole(saturated(r, (x ^ r) & (y ^ r), x))
    case .psubsb:
        let x = signedBytes(a), y = signedBytes(b), r = x &- y
        return whole(saturated(r, (x ^ r) & (x ^ y), x))
    case .psubsw:
        let x = signedWords(a), y = signedWords(b), r = x &- y
        return whole(saturated(r, (x ^ r) & (x ^ y), x))
    case .pavgb:
        let x = bytes(a), y = bytes(b)
        return whole((x | y) &- ((x ^ y) &>> Bytes(repeating: 1)))
    case .pavgw:
        let x = words(a), y = words(b)
        return whole((x | y) &- ((x ^ y) &>> Words(repeating: 1)))
    case .pminub: return whole(minimum(bytes(a), bytes(b)))
    case .pmaxub: return whole(maximum(bytes(a), bytes(b)))
    case .pminsw: return whole(minimum(signedWords(a), signedWords(b)))
    case .pmaxsw: return whole(maximum(signedWords(a), signedWords(b)))
    case .pand: return a & b
    case .pandn: return ~a & b
    case .por: return a | b
    case .pxor: return a ^ b

    case .pmullw: return whole(words(a) &* words(b))
    case .pmulhuw:
        let p = SIMD8<UInt32>(truncatingIfNeeded: words(a)) &* SIMD8<UInt32>(truncatingIfNeeded: words(b))
        return whole(Words(truncatingIfNeeded: p &>> SIMD8<UInt32>(repeating: 16)))
    case .pmulhw:
        let p = SIMD8<Int32>(truncatingIfNeeded: signedWords(a)) &* SIMD8<Int32>(truncatingIfNeeded: signedWords(b))
        return whole(SIMD8<Int16>(truncatingIfNeeded: p &>> SIMD8<Int32>(repeating: 16)))
    case .pmuludq: return (a & Vector(repeating: 0xffff_ffff)) &* (b & Vector(repeating: 0xffff_ffff))
    case .pmaddwd:
        let p = SIMD8<Int32>(truncatingIfNeeded: signedWords(a)) &* SIMD8<Int32>(truncatingIfNeeded: signedWords(b))
        return whole(p.evenHalf &+ p.oddHalf)
    case .psadbw:
        let x = bytes(a), y = bytes(b)
        let d = whole(maximum(x, y) &- minimum(x, y))
        return Vector(byteSum(d.x), byteSum(d.y))

    case .movss: return Vector((a.x & ~0xffff_ffff) | (b.x & 0xffff_ffff), a.y)
    case .movsd: return Vector(b.x, a.y)
    case .movhlps: return Vector(b.y, a.y)
    case .movdqa: return b
    }
}

/// The sign bit of each byte.
@inline(__always)
func byteSigns(_ v: UInt64) -> UInt64 {
    (((v &>> 7) & 0x0101_0101_0101_0101) &* 0x0102_0408_1020_4080) &>> 56
}

/// Operations with an immediate byte.
enum ShuffleOperation: Int {
    case pshufd, pshuflw, pshufhw, shufps, shufpd, psrldq, pslldq
}

@inline(__always)
func shuffle(_ op: ShuffleOperation, _ a: Vector, _ b: Vector, _ imm: UInt64) -> Vector {
    @inline(__always) func dword(_ v: Vector, _ n: UInt64) -> UInt64 {
        ((n & 2 == 0 ? v.x : v.y) &>> ((n & 1) &* 32)) & 0xffff_ffff
    }
    @inline(__always) func four(_ q: UInt64) -> UInt64 {
        var r: UInt64 = 0
        for i: UInt64 in 0..<4 { r |= ((q &>> (((imm &>> (i &* 2)) & 3) &* 16)) & 0xffff) &<< (i &* 16) }
        return r
    }
    switch op {
    case .pshufd:
        return Vector(
            dword(b, imm & 3) | dword(b, (imm &>> 2) & 3) &<< 32,
            dword(b, (imm &>> 4) & 3) | dword(b, (imm &>> 6) & 3) &<< 32)
    case .shufps:
        return Vector(
            dword(a, imm & 3) | dword(a, (imm &>> 2) & 3) &<< 32,
            dword(b, (imm &>> 4) & 3) | dword(b, (imm &>> 6) & 3) &<< 32)
    case .shufpd: return Vector(imm & 1 == 0 ? a.x : a.y, imm & 2 == 0 ? b.x : b.y)
    case .pshuflw: return Vector(four(b.x), b.y)
    case .pshufhw: return Vector(b.x, four(b.y))
    case .psrldq:
        let n = min(imm & 0xff, 16) &* 8
        if n >= 64 { return Vector(n >= 128 ? 0 : a.y &>> (n &- 64), 0) }
        return n == 0 ? a : Vector(a.x &>> n | a.y &<< (64 &- n), a.y &>> n)
    case .pslldq:
        let n = min(imm & 0xff, 16) &* 8
        if n >= 64 { return Vector(0, n >= 128 ? 0 : a.x &<< (n &- 64)) }
        return n == 0 ? a : Vector(a.x &<< n, a.y &<< n | a.x &>> (64 &- n))
    }
}
