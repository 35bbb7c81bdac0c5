// What came after SSE2, as functions of 128-bit lanes. AVX's 256-bit forms apply them to each lane; whatever crosses lanes
// or touches memory is in SIMD.swift.

import CX86State

/// Numbers follow those of `VectorOperation`, which come first.
enum SIMDOperation: UInt16 {
    // destination = f(a, b), lane by lane. 0F 38 00…0B in order.
    case pshufb = 64
    case phaddw, phaddd, phaddsw, pmaddubsw, phsubw, phsubd, phsubsw, psignb, psignw, psignd, pmulhrsw
    case pabsb, pabsw, pabsd
    case pminsb, pminsd, pminuw, pminud, pmaxsb, pmaxsd, pmaxuw, pmaxud
    case pmuldq, pcmpeqq, packusdw, pmulld, pcmpgtq, phminposuw
    case movsldup, movshdup, movddup
    case aesenc, aesenclast, aesdec, aesdeclast, aesimc
    case psrlvd, psrlvq, psravd, psllvd, psllvq
    case permilps, permilpd
    case sha1nexte, sha1msg1, sha1msg2, sha256msg1, sha256msg2
    // With an immediate byte; the first seven in the order of `ShuffleOperation`.
    case pshufd, pshuflw, pshufhw, shufps, shufpd, psrldq, pslldq
    case palignr, pblendw, blendps, blendpd, vpblendd, mpsadbw, pclmulqdq, insertps, permilpsImmediate
    case permilpdImmediate, aeskeygenassist, sha1rnds4
    // With a third register.
    case pblendvb, blendvps, blendvpd, sha256rnds2
    // Everything else.
    case ptest, testSingles, testDoubles, extendElements, insert, extract, moveSigns, moveQuadword, moveFromRegister
    case broadcast, permuteDoublewords, permuteQuadwords, permuteLanes, insertLane, extractLane
    case maskedLoad, maskedStore, gather, zeroUpper, zeroAll
    case pcmpestrm, pcmpestri, pcmpistrm, pcmpistri
    case extractField, insertField

    init(_ base: SIMDOperation, _ offset: UInt8) {
        self = SIMDOperation(rawValue: base.rawValue &+ UInt16(offset)).unsafelyUnwrapped
    }

    static let firstImmediate = SIMDOperation.pshufd.rawValue
    static let firstTernary = SIMDOperation.pblendvb.rawValue
    static let firstWhole = SIMDOperation.ptest.rawValue
}

@inline(__always) private func whole<V: SIMD>(_ v: V) -> Vector { unsafeBitCast(v, to: Vector.self) }
@inline(__always) private func ones<V: SIMD>(_ mask: SIMDMask<V>) -> Vector { unsafeBitCast(mask, to: Vector.self) }

/// Adds or subtracts neighbours: the even elements with the odd ones, of `a` below those of `b`.
@inline(__always)
private func neighbours(_ a: Vector, _ b: Vector) -> (SIMD8<Int16>, SIMD8<Int16>) {
    let x = signedWords(a), y = signedWords(b)
    return (
        SIMD8(lowHalf: x.evenHalf, highHalf: y.evenHalf), SIMD8(lowHalf: x.oddHalf, highHalf: y.oddHalf)
    )
}

private func saturating(_ v: SIMD8<Int32>) -> Vector {
    whole(
        SIMD8<Int16>(
            truncatingIfNeeded: v.clamped(lowerBound: .init(repeating: -32768), upperBound: .init(repeating: 32767))))
}

private func negated<V: SIMD>(_ a: V, by b: V) -> V where V.Scalar: FixedWidthInteger & SignedInteger {
    let zero = V(repeating: 0)
    return a.replacing(with: zero &- a, where: b .< zero).replacing(with: zero, where: b .== zero)
}

private func choose<V: SIMD>(_ a: V, _ b: V, smaller: Bool) -> Vector where V.Scalar: Comparable {
    whole(smaller ? a.replacing(with: b, where: b .< a) : a.replacing(with: b, where: b .> a))
}

func laneOperation(_ op: SIMDOperation, _ a: Vector, _ b: Vector) -> Vector {
    switch op {
    case .pshufb:
        let x = bytes(a), m = bytes(b)
        var r = Bytes()
        for i in 0..<16 where m[i] & 0x80 == 0 { r[i] = x[Int(m[i] & 15)] }
        return whole(r)
    case .phaddw:
        let (e, o) = neighbours(a, b)
        return whole(e &+ o)
    case .phsubw:
        let (e, o) = neighbours(a, b)
        return whole(e &- o)
    case .phaddsw:
        let (e, o) = neighbours(a, b)
        return saturating(SIMD8<Int32>(truncatingIfNeeded: e) &+ SIMD8<Int32>(truncatingIfNeeded: o))
    case .phsubsw:
        let (e, o) = neighbours(a, b)
        return saturating(SIMD8<Int32>(truncatingIfNeeded: e) &- SIMD8<Int32>(truncatingIfNeeded: o))
    case .phaddd, .phsubd:
        let x = doublewords(a), y = doublewords(b)
        let e = Doublewords(lowHalf: x.evenHalf, highHalf: y.evenHalf)
        let o = Doublewords(lowHalf: x.oddHalf, highHalf: y.oddHalf)
        return whole(op == .phaddd ? e &+ o : e &- o)
    case .pmaddubsw:
        let x = bytes(a), y = signedBytes(b)
        let low = SIMD8<Int32>(truncatingIfNeeded: x.evenHalf) &* SIMD8<Int32>(truncatingIfNeeded: y.evenHalf)
        let high = SIMD8<Int32>(truncatingIfNeeded: x.oddHalf) &* SIMD8<Int32>(truncatingIfNeeded: y.oddHalf)
        return saturating(low &+ high)
    case .psignb: return whole(negated(signedBytes(a), by: signedBytes(b)))
    case .psignw: return whole(negated(signedWords(a), by: signedWords(b)))
    case .psignd: return whole(negated(signedDoublewords(a), by: signedDoublewords(b)))
    case .pmulhrsw:
        let p = SIMD8<Int32>(truncatingIfNeeded: signedWords(a)) &* SIMD8<Int32>(truncatingIfNeeded: signedWords(b))
        let r = (p &>> SIMD8<Int32>(repeating: 14)) &+ SIMD8<Int32>(repeating: 1)
        return whole(SIMD8<Int16>(truncatingIfNeeded: r &>> SIMD8<Int32>(repeating: 1)))
    case .pabsb:
        let x = signedBytes(b)
        return whole(x.replacing(with: 0 &- x, where: x .< .init(repeating: 0)))
    case .pabsw:
        let x = signedWords(b)
        return whole(x.replacing(with: 0 &- x, where: x .< .init(repeating: 0)))
    case .pabsd:
        let x = signedDoublewords(b)
        return whole(x.replacing(with: 0 &- x, where: x .< .init(repeating: 0)))
    case .pminsb: return choose(signedBytes(a), signedBytes(b), smaller: true)
    case .pminsd: return choose(signedDoublewords(a), signedDoublewords(b), smaller: true)
    case .pminuw: return choose(words(a), words(b), smaller: true)
    case .pminud: return choose(doublewords(a), doublewords(b), smaller: true)
    case .pmaxsb: return choose(signedBytes(a), signedBytes(b), smaller: false)
    case .pmaxsd: return choose(signedDoublewords(a), signedDoublewords(b), smaller: false)
    case .pmaxuw: return choose(words(a), words(b), smaller: false)
    case .pmaxud: return choose(doublewords(a), doublewords(b), smaller: false)
    case .pmuldq:
        func product(_ x: UInt64, _ y: UInt64) -> UInt64 {
            UInt64(bitPattern: Int64(Int32(truncatingIfNeeded: x)) &* Int64(Int32(truncatingIfNeeded: y)))
        }
        return Vector(product(a.x, b.x), product(a.y, b.y))
    case .pcmpeqq: return ones(a .== b)
    case .pcmpgtq:
        return ones(unsafeBitCast(a, to: SIMD2<Int64>.self) .> unsafeBitCast(b, to: SIMD2<Int64>.self))
    case .packusdw:
        let low = SIMD4<Int32>(repeating: 0), high = SIMD4<Int32>(repeating: 65535)
        let x = signedDoublewords(a).clamped(lowerBound: low, upperBound: high)
        let y = signedDoublewords(b).clamped(lowerBound: low, upperBound: high)
        return whole(
            Words(lowHalf: SIMD4<UInt16>(truncatingIfNeeded: x), highHalf: SIMD4<UInt16>(truncatingIfNeeded: y)))
    case .pmulld: return whole(doublewords(a) &* doublewords(b))
    case .phminposuw:
        let x = words(b)
        var least = x[0], at = 0
        for i in 1..<8 where x[i] < least { (least, at) = (x[i], i) }
        return Vector(UInt64(least) | UInt64(at) &<< 16, 0)
    case .movsldup:
        let x = doublewords(b)
        return whole(Doublewords(x[0], x[0], x[2], x[2]))
    case .movshdup:
        let x = doublewords(b)
        return whole(Doublewords(x[1], x[1], x[3], x[3]))
    case .movddup: return Vector(b.x, b.x)
    case .aesenc, .aesenclast, .aesdec, .aesdeclast: return AES.round(a, key: b, op)
    case .aesimc: return AES.inverseMixColumns(b)
    case .psrlvd:
        let x = doublewords(a), n = doublewords(b)
        return whole((x &>> n).replacing(with: 0, where: n .> 31))
    case .psllvd:
        let x = doublewords(a), n = doublewords(b)
        return whole((x &<< n).replacing(with: 0, where: n .> 31))
    case .psravd:
        let n = doublewords(b)
        let clamped = n.replacing(with: 31, where: n .> 31)
        return whole(signedDoublewords(a) &>> SIMD4<Int32>(truncatingIfNeeded: clamped))
    case .psrlvq: return (a &>> b).replacing(with: 0, where: b .> 63)
    case .psllvq: return (a &<< b).replacing(with: 0, where: b .> 63)
    case .permilps:
        let x = doublewords(a), m = doublewords(b)
        return whole(Doublewords(x[Int(m[0] & 3)], x[Int(m[1] & 3)], x[Int(m[2] & 3)], x[Int(m[3] & 3)]))
    case .permilpd: return Vector(b.x & 2 != 0 ? a.y : a.x, b.y & 2 != 0 ? a.y : a.x)
    case .sha1nexte, .sha1msg1, .sha1msg2, .sha256msg1, .sha256msg2: return SHA.message(op, a, b)
    default: return b
    }
}

/// `lane` counts 128-bit lanes: some immediates have bits of their own for each.
func laneOperation(_ op: SIMDOperation, _ a: Vector, _ b: Vector, _ imm: UInt64, lane: UInt64) -> Vector {
    switch op {
    case .pshufd, .pshuflw, .pshufhw, .shufps, .psrldq, .pslldq:
        let number = Int(op.rawValue &- SIMDOperation.firstImmediate)
        return shuffle(ShuffleOperation(rawValue: number).unsafelyUnwrapped, a, b, imm)
    case .shufpd: return shuffle(.shufpd, a, b, imm &>> (lane &* 2))
    case .palignr:
        let n = imm &* 8
        if n >= 256 { return Vector() }
        if n >= 128 { return shiftedRight(low: a, high: Vector(), n &- 128) }
        return shiftedRight(low: b, high: a, n)
    case .pblendw:
        var r = words(a)
        let y = words(b)
        for i in 0..<8 where imm &>> UInt64(i) & 1 != 0 { r[i] = y[i] }
        return whole(r)
    case .blendps, .vpblendd:
        var r = doublewords(a)
        let y = doublewords(b)
        for i in 0..<4 where imm &>> (UInt64(i) &+ lane &* 4) & 1 != 0 { r[i] = y[i] }
        return whole(r)
    case .blendpd:
        let bits = imm &>> (lane &* 2)
        return Vector(bits & 1 != 0 ? b.x : a.x, bits & 2 != 0 ? b.y : a.y)
    case .mpsadbw:
        let bits = imm &>> (lane &* 3)
        let x = bytes(a), y = bytes(b)
        let from = Int(bits &>> 2 & 1) &* 4, block = Int(bits & 3) &* 4
        var r = Words()
        for i in 0..<8 {
            var sum: UInt16 = 0
            for k in 0..<4 {
                let p = x[from &+ i &+ k], q = y[block &+ k]
                sum &+= UInt16(p > q ? p &- q : q &- p)
            }
            r[i] = sum
        }
        return whole(r)
    case .pclmulqdq: return carrylessProduct(imm & 1 != 0 ? a.y : a.x, imm & 16 != 0 ? b.y : b.x)
    case .insertps:
        var r = doublewords(a)
        r[Int(imm &>> 4 & 3)] = doublewords(b)[Int(imm &>> 6 & 3)]
        for i in 0..<4 where imm &>> UInt64(i) & 1 != 0 { r[i] = 0 }
        return whole(r)
    case .permilpsImmediate: return shuffle(.pshufd, b, b, imm)
    case .permilpdImmediate:
        let bits = imm &>> (lane &* 2)
        return Vector(bits & 1 != 0 ? b.y : b.x, bits & 2 != 0 ? b.y : b.x)
    case .aeskeygenassist: return AES.keyAssist(b, round: UInt32(truncatingIfNeeded: imm))
    case .sha1rnds4: return SHA.rounds1(a, b, function: Int(imm & 3))
    default: return b
    }
}

/// The low 128 bits of (high:low) >> n, n below 128.
private func shiftedRight(low: Vector, high: Vector, _ n: UInt64) -> Vector {
    let bit = n & 63
    func joined(_ x: UInt64, _ y: UInt64) -> UInt64 { bit == 0 ? x : x &>> bit | y &<< (64 &- bit) }
    return n < 64
        ? Vector(joined(low.x, low.y), joined(low.y, high.x)) : Vector(joined(low.y, high.x), joined(high.x, high.y))
}

/// The destination of a blend: `b` where the mask's sign bits are set.
func laneOperation(_ op: SIMDOperation, _ a: Vector, _ b: Vector, mask: Vector) -> Vector {
    switch op {
    case .pblendvb:
        return whole(bytes(a).replacing(with: bytes(b), where: signedBytes(mask) .< .init(repeating: 0)))
    case .blendvps:
        return whole(
            doublewords(a).replacing(with: doublewords(b), where: signedDoublewords(mask) .< .init(repeating: 0)))
    case .blendvpd:
        return Vector(mask.x &>> 63 != 0 ? b.x : a.x, mask.y &>> 63 != 0 ? b.y : a.y)
    default: return SHA.rounds256(a, b, mask)
    }
}

private func carrylessProduct(_ x: UInt64, _ y: UInt64) -> Vector {
    var low: UInt64 = 0, high: UInt64 = 0
    for i: UInt64 in 0..<64 where y &>> i & 1 != 0 {
        low ^= x &<< i
        if i != 0 { high ^= x &>> (64 &- i) }
    }
    return Vector(low, high)
}
