// The instructions of 0F 38, 0F 3A and all VEX-coded integer ones: one handler, which finds the operation by number.
// The hot SSE2 forms have handlers of their own (SSE.swift).

import CX86State
import X86Defs

/// The `imm` of a `simd` uop: 7:0 immediate, 23:8 operation.
enum SIMDCode {
    static let vex: UInt64 = 1 << 24, wide: UInt64 = 1 << 25, immediateCount: UInt64 = 1 << 26
}

/// CR4.OSXSAVE = 1, XCR0 with SSE and AVX, CR0.TS = 0.
@inline(__always)
func avxIsOn(_ s: CPU) -> Bool {
    s.pointee.cr0 & CR0.ts == 0 && s.pointee.cr4 & CR4.osxsave != 0 && s.pointee.xcr0 & 6 == 6
}

@inline(never)
func avxIsOff(_ s: CPU, _ ip: IP) {
    let hidden = s.pointee.cr4 & CR4.osxsave == 0 || s.pointee.xcr0 & 6 != 6
    processor(s).prepareException(hidden ? 6 : 7, at: instructionAddress(s, ip))
}

@inline(__always)
func simdInstruction(_ s: CPU, _ ip: IP) {
    guard simdIsDone(s, ip) != 0 else { return }
    next(s, ip)
}

/// In front of a VEX instruction whose own uops do not look.
@inline(__always)
func vexCheck(_ s: CPU, _ ip: IP) {
    guard avxIsOn(s) else { return avxIsOff(s, ip) }
    next(s, ip)
}

// MARK: Loads and stores with VEX

enum VectorAlignment {
    case none, always, operand
}

@inline(__always)
func vexLoadScalar<T: Word>(_ s: CPU, _ ip: IP, _ type: T.Type) {
    guard avxIsOn(s) else { return avxIsOff(s, ip) }
    let a = address(s, ip)
    guard let p = readable(s, a, as: T.self) else { return slowRead(s, ip, a, MemoryLayout<T>.size) }
    putVector(s, ip.pointee.dst, Vector(UInt64(truncatingIfNeeded: p.loadUnaligned(as: T.self)), 0))
    putVector(s, ip.pointee.dst &+ Slot.upper, Vector())
    next(s, ip)
}

@inline(__always)
func vexStoreScalar<T: Word>(_ s: CPU, _ ip: IP, _ type: T.Type) {
    guard avxIsOn(s) else { return avxIsOff(s, ip) }
    let a = address(s, ip)
    guard let p = writable(s, a, as: T.self) else { return slowWrite(s, ip, a, MemoryLayout<T>.size, reads: false) }
    p.storeBytes(of: get(s, ip.pointee.src), as: T.self)
    next(s, ip)
}

@inline(__always)
func vexLoad(_ s: CPU, _ ip: IP, _ alignment: VectorAlignment, wide: Bool) {
    guard avxIsOn(s) else { return avxIsOff(s, ip) }
    let a = address(s, ip)
    if alignment == .always, a & (wide ? 31 : 15) != 0 { return misaligned(s, ip) }
    if wide {
        guard let p = readable(s, a, as: SIMD4<UInt64>.self) else { return slowRead(s, ip, a, 32) }
        let low = p.loadUnaligned(as: Vector.self)
        let high = (p + 16).loadUnaligned(as: Vector.self)
        putVector(s, ip.pointee.dst, low)
        putVector(s, ip.pointee.dst &+ Slot.upper, high)
    } else {
        guard let p = readable(s, a, as: Vector.self) else { return slowRead(s, ip, a, 16) }
        putVector(s, ip.pointee.dst, p.loadUnaligned(as: Vector.self))
        putVector(s, ip.pointee.dst &+ Slot.upper, Vector())
    }
    next(s, ip)
}

@inline(__always)
func vexStore(_ s: CPU, _ ip: IP, _ alignment: VectorAlignment, wide: Bool) {
    guard avxIsOn(s) else { return avxIsOff(s, ip) }
    let a = address(s, ip)
    if alignment == .always, a & (wide ? 31 : 15) != 0 { return misaligned(s, ip) }
    if wide {
        guard let p = writable(s, a, as: SIMD4<UInt64>.self) else { return slowWrite(s, ip, a, 32, reads: false) }
        p.storeBytes(of: getVector(s, ip.pointee.src), as: Vector.self)
        (p + 16).storeBytes(of: getVector(s, ip.pointee.src &+ Slot.upper), as: Vector.self)
    } else {
        guard let p = writable(s, a, as: Vector.self) else { return slowWrite(s, ip, a, 16, reads: false) }
        p.storeBytes(of: getVector(s, ip.pointee.src), as: Vector.self)
    }
    next(s, ip)
}

// MARK: Execution

/// Of a type of its own: the compiler makes one function of handlers that have one shape, and that calls through a pointer.
@inline(never)
private func simdIsDone(_ s: CPU, _ ip: IP) -> UInt64 { performSIMD(s, ip) ? 1 : 0 }

@inline(__always)
private func performSIMD(_ s: CPU, _ ip: IP) -> Bool {
    let u = ip.pointee
    let vex = u.imm & SIMDCode.vex != 0, wide = u.imm & SIMDCode.wide != 0
    guard vex ? avxIsOn(s) : sseIsOn(s) else {
        vex ? avxIsOff(s, ip) : sseIsOff(s, ip)
        return false
    }
    let number = UInt16(truncatingIfNeeded: u.imm &>> 8)
    let imm = u.imm & 0xff
    if number < SIMDOperation.pshufb.rawValue {
        let op = VectorOperation(rawValue: Int(number)).unsafelyUnwrapped
        let counts = op.countsByRegister
        let count = u.imm & SIMDCode.immediateCount != 0 ? Vector(imm, 0) : getVector(s, u.src)
        let low = vectorOperationByNumber(op, getVector(s, u.base), count)
        let high =
            wide
            ? vectorOperationByNumber(
                op, getVector(s, u.base &+ Slot.upper), counts ? count : getVector(s, u.src &+ Slot.upper))
            : Vector()
        putResult(s, u.dst, low, high, vex: vex)
        return true
    }
    let op = SIMDOperation(rawValue: number).unsafelyUnwrapped
    guard number < SIMDOperation.firstWhole else { return processor(s).wholeOperation(op, ip) }
    func lane(_ offset: UInt16, _ index: UInt64) -> Vector {
        let a = getVector(s, u.base &+ offset), b = getVector(s, u.src &+ offset)
        if number >= SIMDOperation.firstTernary {
            return laneOperation(op, a, b, mask: getVector(s, u.index &+ offset))
        }
        if number >= SIMDOperation.firstImmediate { return laneOperation(op, a, b, imm, lane: index) }
        return laneOperation(op, a, b)
    }
    let low = lane(0, 0)
    putResult(s, u.dst, low, wide ? lane(Slot.upper, 1) : Vector(), vex: vex)
    return true
}

/// AVX and AVX2 forms of the SSE2 integer operations; the last operand of a shift is its count, in both lanes.
@inline(__always)
func vexRR(_ s: CPU, _ ip: IP, _ op: VectorOperation, wide: Bool) {
    guard avxIsOn(s) else { return avxIsOff(s, ip) }
    let b = getVector(s, ip.pointee.src)
    let low = vectorOperation(op, getVector(s, ip.pointee.base), b)
    let high =
        wide
        ? vectorOperation(
            op, getVector(s, ip.pointee.base &+ Slot.upper),
            op.countsByRegister ? b : getVector(s, ip.pointee.src &+ Slot.upper))
        : Vector()
    putResult(s, ip.pointee.dst, low, high, vex: true)
    next(s, ip)
}

@inline(__always)
private func putResult(_ s: CPU, _ slot: UInt16, _ low: Vector, _ high: Vector, vex: Bool) {
    putVector(s, slot, low)
    if vex { putVector(s, slot &+ Slot.upper, high) }
}

extension Processor {
    private func quadword(_ slot: UInt16, _ index: Int) -> UInt64 {
        get(s, slot &+ UInt16(index & 1) &* 8 &+ (index > 1 ? Slot.upper : 0))
    }
    private func doubleword(_ slot: UInt16, _ index: Int) -> UInt32 {
        get(s, slot &+ UInt16(index & 3) &* 4 &+ (index > 3 ? Slot.upper : 0))
    }

    /// What is not done lane by lane. True: go on.
    fileprivate func wholeOperation(_ op: SIMDOperation, _ ip: IP) -> Bool {
        let u = ip.pointee
        let vex = u.imm & SIMDCode.vex != 0, wide = u.imm & SIMDCode.wide != 0
        let imm = u.imm & 0xff
        let lanes = wide ? 2 : 1
        switch op {
        case .ptest, .testSingles, .testDoubles:
            let mask: UInt64 = op == .ptest ? .max : op == .testSingles ? 0x8000_0000_8000_0000 : 1 &<< 63
            var both: UInt64 = 0, only: UInt64 = 0
            for i in 0..<(lanes &* 2) {
                let x = quadword(u.base, i), y = quadword(u.src, i)
                both |= x & y & mask
                only |= ~x & y & mask
            }
            spreadArithmeticFlags(s, (both == 0 ? RFLAGS.zf : 0) | (only == 0 ? RFLAGS.cf : 0))
        case .extendElements:
            let r = extendedElements(kind: Int(imm & 7), signed: imm & 0x10 == 0, u.src, lanes: lanes)
            putResult(s, u.dst, Vector(r[0], r[1]), Vector(r[2], r[3]), vex: vex)
        case .insert:
            var v = getVector(s, u.base)
            let size = imm &>> 4, index = imm & 15
            let bits: UInt64 = 8 &<< size
            let shift = (index &* bits) & 63
            let mask: UInt64 = (size == 3 ? .max : (1 &<< bits) &- 1)
            let value = (get(s, u.src, as: UInt64.self) & mask) &<< shift
            if index &* bits < 64 {
                v.x = v.x & ~(mask &<< shift) | value
            } else {
                v.y = v.y & ~(mask &<< shift) | value
            }
            putResult(s, u.dst, v, Vector(), vex: vex)
        case .extract:
            let size = imm &>> 4, index = imm & 15
            let bits: UInt64 = 8 &<< size
            let q = quadword(u.src, index &* bits < 64 ? 0 : 1) &>> ((index &* bits) & 63)
            put(s, u.dst, size == 3 ? q : q & ((1 &<< bits) &- 1))
        case .moveSigns:
            var r: UInt64 = 0
            for lane in 0..<lanes {
                let v = getVector(s, u.src &+ (lane == 1 ? Slot.upper : 0))
                switch imm {
                case 0: r |= (byteSigns(v.x) | byteSigns(v.y) &<< 8) &<< UInt64(lane &* 16)
                case 1:
                    let four = (v.x &>> 31) & 1 | (v.x &>> 62) & 2 | (v.y &>> 29) & 4 | (v.y &>> 60) & 8
                    r |= four &<< UInt64(lane &* 4)
                default: r |= (v.x &>> 63 | (v.y &>> 62) & 2) &<< UInt64(lane &* 2)
                }
            }
            put(s, u.dst, r)
        case .moveQuadword: putResult(s, u.dst, Vector(quadword(u.src, 0), 0), Vector(), vex: vex)
        case .moveFromRegister:
            let v: UInt64 = get(s, u.src)
            putResult(s, u.dst, Vector(imm != 0 ? v : v & 0xffff_ffff, 0), Vector(), vex: vex)
        case .broadcast:
            var v = getVector(s, u.src)
            switch imm {
            case 0: v = Vector(repeating: (v.x & 0xff) &* 0x0101_0101_0101_0101)
            case 1: v = Vector(repeating: (v.x & 0xffff) &* 0x0001_0001_0001_0001)
            case 2: v = Vector(repeating: (v.x & 0xffff_ffff) &* 0x0000_0001_0000_0001)
            case 3: v = Vector(repeating: v.x)
            default: break
            }
            putResult(s, u.dst, v, wide ? v : Vector(), vex: vex)
        case .permuteDoublewords:
            func chosen(_ i: Int) -> UInt64 { UInt64(doubleword(u.src, Int(doubleword(u.base, i) & 7))) }
            func pair(_ i: Int) -> UInt64 { chosen(i) | chosen(i &+ 1) &<< 32 }
            putResult(s, u.dst, Vector(pair(0), pair(2)), Vector(pair(4), pair(6)), vex: vex)
        case .permuteQuadwords:
            func part(_ i: Int) -> UInt64 { quadword(u.src, Int(imm &>> UInt64(i &* 2)) & 3) }
            putResult(s, u.dst, Vector(part(0), part(1)), Vector(part(2), part(3)), vex: vex)
        case .permuteLanes:
            func part(_ bits: UInt64) -> Vector {
                if bits & 8 != 0 { return Vector() }
                return getVector(s, (bits & 2 == 0 ? u.base : u.src) &+ (bits & 1 == 0 ? 0 : Slot.upper))
            }
            putResult(s, u.dst, part(imm), part(imm &>> 4), vex: vex)
        case .insertLane:
            let v = getVector(s, u.src)
            let low = getVector(s, u.base), high = getVector(s, u.base &+ Slot.upper)
            putResult(s, u.dst, imm & 1 == 0 ? v : low, imm & 1 == 0 ? high : v, vex: vex)
        case .extractLane:
            putResult(s, u.dst, getVector(s, u.src &+ (imm & 1 == 0 ? 0 : Slot.upper)), Vector(), vex: vex)
        case .maskedLoad, .maskedStore: return maskedVector(op, ip)
        case .gather: return gather(ip)
        case .zeroUpper, .zeroAll:
            for i in 0..<(s.pointee.legacy == 0 ? 16 : 8) {
                let slot = Slot.xmm0 &+ UInt16(i &* 16)
                putVector(s, slot &+ Slot.upper, Vector())
                if op == .zeroAll { putVector(s, slot, Vector()) }
            }
        case .pcmpestrm, .pcmpestri, .pcmpistrm, .pcmpistri: compareStrings(op, u)
        case .extractField, .insertField:
            // SSE4A: length and index from the instruction, or (bit 7) from the source: of EXTRQ in its low quadword, of
            // INSERTQ in its high one. A length of 0 means 64.
            var length = imm & 63, index = UInt64(u.index) & 63
            if imm & 0x80 != 0 {
                let control = quadword(u.src, op == .extractField ? 0 : 1)
                (length, index) = (control & 63, control &>> 8 & 63)
            }
            if op == .extractField {
                put(s, u.dst, bitField(quadword(u.dst, 0), length: length, index: index))
                put(s, u.dst &+ 8, 0 as UInt64)  // Undefined by the manual, zero in processors.
                return true
            }
            let mask = length == 0 ? UInt64.max : (1 &<< length) &- 1
            let v = quadword(u.dst, 0) & ~(mask &<< index) | (quadword(u.src, 0) & mask) &<< index
            put(s, u.dst, v)
            put(s, u.dst &+ 8, 0 as UInt64)
        default: break
        }
        return true
    }

    private func bitField(_ v: UInt64, length: UInt64, index: UInt64) -> UInt64 {
        let shifted = v &>> index
        return length == 0 ? shifted : shifted & ((1 &<< length) &- 1)
    }

    /// PMOVSX and PMOVZX: kinds BW, BD, BQ, WD, WQ, DQ.
    private func extendedElements(kind: Int, signed: Bool, _ slot: UInt16, lanes: Int) -> SIMD4<UInt64> {
        let from: UInt64 = kind < 3 ? 8 : kind < 5 ? 16 : 32
        let to: UInt64 = kind == 0 ? 16 : kind == 1 || kind == 3 ? 32 : 64
        var r = SIMD4<UInt64>()
        let low = quadword(slot, 0), high = quadword(slot, 1)
        for i in 0..<(UInt64(lanes) &* 128 / to) {
            let at = i &* from
            var v = (at < 64 ? low : high) &>> (at & 63)
            v &= (1 &<< from) &- 1
            if signed, v &>> (from &- 1) != 0 { v |= UInt64.max &<< from }
            if to < 64 { v &= (1 &<< to) &- 1 }
            let place = i &* to
            r[Int(place / 64)] |= v &<< (place & 63)
        }
        return r
    }

    // MARK: Masked memory

    /// A #GP for a non-canonical address is #SS when RSP or RBP was the base.
    private func vectorFault(onStack: Bool, _ a: UInt64) -> Bool {
        if onStack, s.pointee.leave == UInt32(X86_LEAVE_EXCEPTION), s.pointee.vector == 13, !isCanonical(a) {
            s.pointee.vector = 12
        }
        return false
    }

    /// VMASKMOV, VPMASKMOV: masked elements are not accessed, and fault in ascending order.
    private func maskedVector(_ op: SIMDOperation, _ ip: IP) -> Bool {
        let u = ip.pointee
        let rip = instructionAddress(s, ip)
        let quadwords = u.imm & 1 != 0, onStack = u.imm & 2 != 0
        let count = (u.imm & SIMDCode.wide != 0 ? 32 : 16) / (quadwords ? 8 : 4)
        let a: UInt64 = get(s, u.index)
        func selected(_ i: Int) -> Bool {
            quadwords ? quadword(u.base, i) &>> 63 != 0 : doubleword(u.base, i) &>> 31 != 0
        }
        let step: UInt64 = quadwords ? 8 : 4
        if op == .maskedStore {
            for i in 0..<count where selected(i) {
                for end in 0..<UInt64(2) {
                    let at = (a &+ UInt64(i) &* step &+ end &* (step &- 1)) & s.pointee.rip_mask
                    guard linearPointer(at, .write, user: userMode, at: rip) != nil else {
                        return vectorFault(onStack: onStack, at)
                    }
                }
            }
            for i in 0..<count where selected(i) {
                let at = (a &+ UInt64(i) &* step) & s.pointee.rip_mask
                let done =
                    quadwords
                    ? write(at, quadword(u.dst, i), user: userMode, at: rip)
                    : write(at, doubleword(u.dst, i), user: userMode, at: rip)
                guard done else { return false }
            }
            return runsOn(ip)
        }
        var r = SIMD4<UInt64>()
        for i in 0..<count where selected(i) {
            let at = (a &+ UInt64(i) &* step) & s.pointee.rip_mask
            if quadwords {
                guard let v: UInt64 = read(at, user: userMode, at: rip) else {
                    return vectorFault(onStack: onStack, at)
                }
                r[i] = v
            } else {
                guard let v: UInt32 = read(at, user: userMode, at: rip) else {
                    return vectorFault(onStack: onStack, at)
                }
                r[i / 2] |= UInt64(v) &<< UInt64(i & 1 &* 32)
            }
        }
        putVector(s, u.dst, Vector(r[0], r[1]))
        putVector(s, u.dst &+ Slot.upper, Vector(r[2], r[3]))
        return true
    }

    /// VGATHER and VPGATHER. What has been loaded before a fault is kept, with its mask element cleared.
    private func gather(_ ip: IP) -> Bool {
        let u = ip.pointee
        let rip = instructionAddress(s, ip)
        let quadwords = u.imm & 1 != 0, wideIndices = u.imm & 2 != 0, narrow = u.imm & 4 != 0
        let scale = u.imm &>> 4 & 3
        let length = u.imm & SIMDCode.wide != 0 ? 32 : 16
        let count = min(length / (quadwords ? 8 : 4), length / (wideIndices ? 8 : 4))
        let segment: UInt64 = get(s, UInt16(truncatingIfNeeded: u.imm &>> 48))
        let base: UInt64 = get(s, u.src, as: UInt64.self) &+ UInt64(bitPattern: Int64(u.disp))
        func place(_ i: Int, double: Bool) -> UInt16 {
            double
                ? UInt16(i & 1) &* 8 &+ (i > 1 ? Slot.upper : 0) : UInt16(i & 3) &* 4 &+ (i > 3 ? Slot.upper : 0)
        }
        if !amdOrder {
            // On Intel's processors the mask's elements become all sign or nothing first.
            for i in 0..<(length / (quadwords ? 8 : 4)) {
                if quadwords {
                    let m = quadword(u.base, i)
                    put(s, u.base &+ place(i, double: true), m &>> 63 != 0 ? UInt64.max : 0)
                } else {
                    store32(u.base &+ place(i, double: false), doubleword(u.base, i) &>> 31 != 0 ? .max : 0)
                }
            }
            if length == 16 { putVector(s, u.base &+ Slot.upper, Vector()) }
        }
        // AMD's processors do not check the alignment of what they gather.
        for i in 0..<count {
            let chosen = quadwords ? quadword(u.base, i) &>> 63 != 0 : doubleword(u.base, i) &>> 31 != 0
            guard chosen else {
                let slot = u.base &+ place(i, double: quadwords)
                quadwords ? put(s, slot, 0 as UInt64) : store32(slot, 0)
                continue
            }
            let index =
                wideIndices
                ? quadword(u.index, i)
                : UInt64(bitPattern: Int64(Int32(bitPattern: doubleword(u.index, i))))
            var a = base &+ index &<< scale
            // Outside 64-bit mode quadword indices lose their upper halves, too.
            if narrow || s.pointee.legacy != 0 { a &= 0xffff_ffff }
            a = a &+ segment
            if quadwords {
                guard let v: UInt64 = read(a, user: userMode, at: rip), amdOrder || isAligned(a, 8, at: rip) else {
                    return vectorFault(onStack: u.imm & 8 != 0, a)
                }
                put(s, u.dst &+ place(i, double: true), v)
                put(s, u.base &+ place(i, double: true), 0 as UInt64)
            } else {
                guard let v: UInt32 = read(a, user: userMode, at: rip), amdOrder || isAligned(a, 4, at: rip) else {
                    return vectorFault(onStack: u.imm & 8 != 0, a)
                }
                store32(u.dst &+ place(i, double: false), v)
                store32(u.base &+ place(i, double: false), 0)
            }
        }
        // Beyond the elements both registers are cleared.
        let used = count &* (quadwords ? 8 : 4)
        for register in 0..<2 {
            let slot = register == 0 ? u.dst : u.base
            if used == 8 { put(s, slot &+ 8, 0 as UInt64) }
            if used <= 16 { putVector(s, slot &+ Slot.upper, Vector()) }
        }
        putVector(s, u.base, Vector())
        putVector(s, u.base &+ Slot.upper, Vector())
        return true
    }

    private func store32(_ slot: UInt16, _ v: UInt32) {
        UnsafeMutableRawPointer(s).storeBytes(of: v, toByteOffset: Int(slot), as: UInt32.self)
    }

    // MARK: String comparison

    /// PCMPESTRI, PCMPESTRM, PCMPISTRI, PCMPISTRM [APM4]. The immediate: 1:0 element type, 3:2 comparison, 5:4 polarity,
    /// 6 which end or which mask. `index` is 1 when RAX and RDX count whole.
    private func compareStrings(_ op: SIMDOperation, _ u: x86_uop) {
        let imm = Int(u.imm & 0xff)
        let asWords = imm & 1 != 0, signed = imm & 2 != 0
        let count = asWords ? 8 : 16
        func element(_ slot: UInt16, _ i: Int) -> Int {
            if asWords {
                let v: UInt16 = get(s, slot &+ UInt16(i &* 2))
                return signed ? Int(Int16(bitPattern: v)) : Int(v)
            }
            let v: UInt8 = get(s, slot &+ UInt16(i))
            return signed ? Int(Int8(bitPattern: v)) : Int(v)
        }
        let explicit = op == .pcmpestri || op == .pcmpestrm
        func length(_ slot: UInt16, _ register: UInt16) -> Int {
            if explicit {
                let q: UInt64 = get(s, register)
                let n = u.index != 0 ? Int64(bitPattern: q) : Int64(Int32(truncatingIfNeeded: q))
                return n.magnitude >= UInt64(count) ? count : Int(n.magnitude)
            }
            for i in 0..<count where element(slot, i) == 0 { return i }
            return count
        }
        let n1 = length(u.base, 0), n2 = length(u.src, Slot.gpr(2))
        func first(_ i: Int) -> Int { element(u.base, i) }
        func second(_ i: Int) -> Int { element(u.src, i) }
        var result = 0
        for j in 0..<count {
            var holds = false
            switch imm &>> 2 & 3 {
            case 0:
                if j < n2 {
                    let wanted = second(j)
                    for i in 0..<n1 where first(i) == wanted { holds = true }
                }
            case 1:
                if j < n2 {
                    for i in stride(from: 0, to: n1 &- 1, by: 2)
                    where first(i) <= second(j) && second(j) <= first(i &+ 1) {
                        holds = true
                    }
                }
            case 2: holds = j < n1 && j < n2 ? first(j) == second(j) : j >= n1 && j >= n2
            default:
                holds = true
                var i = 0
                while i &+ j < count, i < n1 {
                    if i &+ j >= n2 || first(i) != second(i &+ j) {
                        holds = false
                        break
                    }
                    i &+= 1
                }
            }
            if holds { result |= 1 &<< j }
        }
        switch imm &>> 4 & 3 {
        case 1: result ^= (1 &<< count) &- 1
        case 3: result ^= (1 &<< n2) &- 1
        default: break
        }
        let vex = u.imm & SIMDCode.vex != 0
        if op == .pcmpestri || op == .pcmpistri {
            let index: Int
            if result == 0 {
                index = count
            } else {
                index = imm & 0x40 != 0 ? 63 &- result.leadingZeroBitCount : result.trailingZeroBitCount
            }
            put(s, Slot.gpr(1), UInt64(index))
        } else if imm & 0x40 != 0 {
            var r = Vector()
            for i in 0..<count where result &>> i & 1 != 0 {
                let at = i &* (asWords ? 16 : 8)
                r[at / 64] |= (asWords ? 0xffff : 0xff) &<< UInt64(at & 63)
            }
            putResult(s, Slot.xmm0, r, Vector(), vex: vex)
        } else {
            putResult(s, Slot.xmm0, Vector(UInt64(result), 0), Vector(), vex: vex)
        }
        spreadArithmeticFlags(
            s,
            (result != 0 ? RFLAGS.cf : 0) | (n2 < count ? RFLAGS.zf : 0) | (n1 < count ? RFLAGS.sf : 0)
                | (result & 1 != 0 ? RFLAGS.of : 0))
    }
}
