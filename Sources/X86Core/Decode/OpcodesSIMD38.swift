// The three-byte opcode maps 0F 38 and 0F 3A [APM3 A.1], with and without VEX: SSSE3 to SSE4.2, AES, SHA, AVX, AVX2, FMA.

import CX86State

extension Decoder {
    // MARK: Emitting

    /// `a` is the first source, `b` the r/m operand, `third` a mask register.
    mutating func emitSIMD(
        _ op: SIMDOperation, dst: UInt16, a: UInt16 = 0, b: UInt16 = 0, third: UInt16 = 0, imm: UInt64 = 0,
        lanesOfResult wide: Bool? = nil
    ) {
        emitSIMD(number: Int(op.rawValue), dst: dst, a: a, b: b, third: third, imm: imm, wide: wide)
    }

    mutating func emitSIMD(shuffle op: ShuffleOperation, dst: UInt16, a: UInt16, b: UInt16, imm: UInt64) {
        emitSIMD(number: Int(SIMDOperation.pshufd.rawValue) &+ op.rawValue, dst: dst, a: a, b: b, imm: imm)
    }

    /// Operations by number: those of `VectorOperation` first, then `SIMDOperation`.
    mutating func emitSIMD(
        number: Int, dst: UInt16, a: UInt16, b: UInt16, third: UInt16 = 0, imm: UInt64 = 0,
        countIsImmediate: Bool = false, wide: Bool? = nil
    ) {
        var code = imm & 0xff | UInt64(truncatingIfNeeded: number) &<< 8
        if vex { code |= SIMDCode.vex }
        if wide ?? vexL { code |= SIMDCode.wide }
        if countIsImmediate { code |= SIMDCode.immediateCount }
        var handler = Handler.simd
        let isWide = code & SIMDCode.wide != 0
        if number < Int(SIMDOperation.pshufb.rawValue) {
            if vex, !countIsImmediate { handler = Handler.vexRR &+ number &* 2 &+ (isWide ? 1 : 0) }
        } else if let lane = hostLane(number) {
            handler = Handler.hostLane &+ lane &* 3 &+ (vex ? isWide ? 2 : 1 : 0)
        }
        emit(handler, dst: dst, src: b, base: a, index: third, imm: code)
    }

    /// The number of an operation that the host's own instruction does.
    private func hostLane(_ number: Int) -> Int? {
        #if arch(x86_64)
            guard let op = SIMDOperation(rawValue: UInt16(truncatingIfNeeded: number)),
                let (lane, feature) = HostLane.of(op), processor.s.pointee.host & feature != 0
            else { return nil }
            return lane.rawValue
        #else
            return nil
        #endif
    }

    /// The r/m operand from memory of `1 << size` bytes (zero-extended), or a register.
    private mutating func narrowOperand(_ size: Int) -> UInt16 {
        if isRegister { return vectorSlot(rm) }
        if vex {
            emitMemory(Handler.vexLoad &+ size, dst: Slot.xtmp)
        } else {
            emitMemory(Handler.vectorLoad &+ [5, 6, 0, 1, 4][size], dst: Slot.xtmp)
        }
        return Slot.xtmp
    }

    private var firstSource: UInt16 { vectorSlot(vex ? vexRegister : reg) }
    private var hasNoVVVV: Bool { !vex || vvvv == 0 }

    /// `legacy` is the feature of the form without VEX (nil: none); `wide` that of the 256-bit form (nil: none).
    private func exists(_ legacy: ProcessorFeatures?, wide: ProcessorFeatures? = nil) -> Bool {
        guard vex else { return legacy.map { has($0) } ?? false }
        guard vexL else { return true }
        return wide.map { has($0) } ?? false
    }

    private mutating func binary(_ op: SIMDOperation, imm: UInt64 = 0) {
        let source = vectorOperand()
        emitSIMD(op, dst: vectorSlot(reg), a: firstSource, b: source, imm: imm)
    }

    private mutating func unary(_ op: SIMDOperation) {
        guard hasNoVVVV else { return undefined() }
        let source = vectorOperand()
        emitSIMD(op, dst: vectorSlot(reg), a: vectorSlot(reg), b: source)
    }

    private mutating func binaryImmediate(_ op: SIMDOperation) {
        let source = vectorOperand()
        let imm = UInt64(byte())
        emitSIMD(op, dst: vectorSlot(reg), a: firstSource, b: source, imm: imm)
    }

    // MARK: 0F 38

    mutating func decodeSIMD38(_ opcode: UInt8, _ prefix: OpcodePrefix) {
        if !vex {
            switch opcode {
            case 0xc8...0xcd: return decodeSHA(opcode, prefix)
            case 0xf0, 0xf1: return decodeMoveBigEndian(opcode)
            case 0xf6: return decodeAddCarry()
            case 0x00...0x0b, 0x1c...0x1e: if prefix == .none { return decodeMMX38(opcode) }
            default: break
            }
        }
        guard prefix == .p66 else { return undefined() }
        switch opcode {
        case 0x00...0x0b:
            guard exists(.ssse3, wide: .avx2) else { return undefined() }
            binary(SIMDOperation(SIMDOperation.pshufb, opcode))
        case 0x1c...0x1e:
            guard exists(.ssse3, wide: .avx2) else { return undefined() }
            unary(SIMDOperation(SIMDOperation.pabsb, opcode &- 0x1c))
        case 0x10, 0x14, 0x15:
            guard !vex, has(.sse41) else { return undefined() }
            let source = vectorOperand()
            emitSIMD(
                opcode == 0x10 ? .pblendvb : opcode == 0x14 ? .blendvps : .blendvpd, dst: vectorSlot(reg),
                a: vectorSlot(reg), b: source, third: vectorSlot(0))
        case 0x17:
            guard exists(.sse41, wide: .avx), hasNoVVVV else { return undefined() }
            let source = vectorOperand()
            emitSIMD(.ptest, dst: 0, a: vectorSlot(reg), b: source)
        case 0x20...0x25, 0x30...0x35:
            guard exists(.sse41, wide: .avx2), hasNoVVVV else { return undefined() }
            // Bytes read for 128-bit results, as a power of two: BW 8, BD 4, BQ 2, WD 8, WQ 4, DQ 8.
            let size = [3, 2, 1, 3, 2, 3][Int(opcode & 7)] &+ (vexL ? 1 : 0)
            let source = narrowOperand(size)
            emitSIMD(.extendElements, dst: vectorSlot(reg), b: source, imm: UInt64(opcode & 0x17))
        case 0x28, 0x29, 0x2b, 0x38...0x3f, 0x40:
            guard exists(.sse41, wide: .avx2) else { return undefined() }
            let op: SIMDOperation
            switch opcode {
            case 0x28: op = .pmuldq
            case 0x29: op = .pcmpeqq
            case 0x2b: op = .packusdw
            case 0x40: op = .pmulld
            default: op = SIMDOperation(.pminsb, opcode &- 0x38)
            }
            binary(op)
        case 0x2a:
            guard exists(.sse41, wide: .avx2), hasNoVVVV, !isRegister else { return undefined() }
            emitMemory(vex ? Handler.vexLoad &+ (vexL ? 7 : 5) : Handler.vectorLoad &+ 3, dst: vectorSlot(reg))
        case 0x37:
            guard exists(.sse42, wide: .avx2) else { return undefined() }
            binary(.pcmpgtq)
        case 0x41:
            guard exists(.sse41) else { return undefined() }
            unary(.phminposuw)
        case 0xdb:
            guard exists(.aes), !vex || has(.aes) else { return undefined() }
            unary(.aesimc)
        case 0xdc...0xdf:
            guard exists(.aes, wide: .vaes), !vex || has(.aes) else { return undefined() }
            binary(SIMDOperation(.aesenc, opcode &- 0xdc))
        default:
            guard vex else { return undefined() }
            decodeAVX38(opcode)
        }
    }

    /// Forms that exist with VEX only.
    private mutating func decodeAVX38(_ opcode: UInt8) {
        let w = rex & 8 != 0
        switch opcode {
        case 0x0c, 0x0d:
            guard !w else { return undefined() }
            binary(opcode == 0x0c ? .permilps : .permilpd)
        case 0x0e, 0x0f:
            guard !w, vvvv == 0 else { return undefined() }
            let source = vectorOperand()
            emitSIMD(opcode == 0x0e ? .testSingles : .testDoubles, dst: 0, a: vectorSlot(reg), b: source)
        case 0x13:
            guard has(.f16c), !w, vvvv == 0 else { return undefined() }
            let source = narrowOperand(vexL ? 4 : 3)
            emitFloat(0x13, prefix: 1, dst: vectorSlot(reg), a: vectorSlot(reg), b: source)
        case 0x16, 0x36:
            guard has(.avx2), vexL, !w else { return undefined() }
            let source = vectorOperand()
            emitSIMD(.permuteDoublewords, dst: vectorSlot(reg), a: vexSource, b: source)
        case 0x18, 0x19, 0x1a, 0x58, 0x59, 0x5a, 0x78, 0x79: decodeBroadcast(opcode)
        case 0x2c...0x2f:
            guard !w, !isRegister else { return undefined() }
            decodeMaskedVector(store: opcode >= 0x2e, wide: opcode & 1 != 0)
        case 0x8c, 0x8e:
            guard has(.avx2), !isRegister else { return undefined() }
            decodeMaskedVector(store: opcode == 0x8e, wide: w)
        case 0x45...0x47:
            guard has(.avx2), opcode != 0x46 || !w else { return undefined() }
            binary([w ? .psrlvq : .psrlvd, .psravd, w ? .psllvq : .psllvd][Int(opcode &- 0x45)])
        case 0x90...0x93: decodeGather(opcode)
        case 0x96...0x9f, 0xa6...0xaf, 0xb6...0xbf:
            guard has(.fma) else { return undefined() }
            let low = opcode & 15
            let scalar = low >= 9 && low & 1 != 0
            let source = scalar ? scalarOperand(wide: w) : vectorOperand()
            emitFloat(
                opcode, prefix: (scalar ? 2 : 0) | (w ? 1 : 0), dst: vectorSlot(reg), a: vexSource, b: source)
        default: undefined()
        }
    }

    private mutating func decodeBroadcast(_ opcode: UInt8) {
        guard rex & 8 == 0, vvvv == 0 else { return undefined() }
        let needsAVX2 = opcode >= 0x58 || isRegister
        guard !needsAVX2 || has(.avx2) else { return undefined() }
        let size: Int
        switch opcode {
        case 0x78: size = 0
        case 0x79: size = 1
        case 0x18, 0x58: size = 2
        case 0x59: size = 3
        case 0x19:
            guard vexL else { return undefined() }
            size = 3
        default:
            guard vexL, !isRegister else { return undefined() }
            size = 4
        }
        let source = narrowOperand(size)
        emitSIMD(.broadcast, dst: vectorSlot(reg), b: source, imm: UInt64(size))
    }

    /// VMASKMOV and VPMASKMOV: `a` is the mask, `third` the slot of the address.
    private mutating func decodeMaskedVector(store: Bool, wide: Bool) {
        let onStack = memory.isOnStack
        noteAccess(1, write: store)
        emitAddress(0)
        emitSIMD(
            store ? .maskedStore : .maskedLoad, dst: vectorSlot(reg), a: vexSource, third: Slot.tmp(0),
            imm: (wide ? 1 : 0) | (onStack ? 2 : 0))
    }

    /// VGATHER and VPGATHER: vector SIB addressing.
    private mutating func decodeGather(_ opcode: UInt8) {
        guard has(.avx2), !isRegister, modrm & 7 == 4 else { return undefined() }
        // The operand was read as an ordinary one; only where it ended counts.
        used = firstUop
        ripFixups = 0
        immediateFixup = -1
        let sib = bytes[modRMPosition &+ 1]
        let index = Int((sib &>> 3) & 7) | Int(rex & 2) &<< 2
        guard index != reg, index != vexRegister, reg != vexRegister else { return undefined() }
        var displacement: Int32 = 0
        var base = Slot.gpr(Int(sib & 7) | Int(rex & 1) &<< 3)
        switch modrm &>> 6 {
        case 1: displacement = Int32(Int8(bitPattern: bytes[modRMPosition &+ 2]))
        case 0 where sib & 7 != 5: break
        default:
            var v: UInt32 = 0
            for i in 0..<4 { v |= UInt32(bytes[modRMPosition &+ 2 &+ i]) &<< UInt32(i &* 8) }
            displacement = Int32(bitPattern: v)
            if modrm &>> 6 == 0 { base = Slot.zero }
        }
        let w = rex & 8 != 0
        emitSIMD(.gather, dst: vectorSlot(reg), a: vexSource, third: vectorSlot(index))
        let last = used &- 1
        // Bits 0: quadword elements, 1: quadword indices, 2: 32-bit addresses, 3: on the stack; scale, base and segment.
        out[last].imm |=
            (w ? 1 : 0) | (opcode & 1 != 0 ? 2 : 0) | (address32 ? 4 : 0)
            | (base == Slot.rsp || base == Slot.rbp ? 8 : 0) | UInt64(sib &>> 6) &<< 4
            | UInt64(segmentSlot) &<< 48
        out[last].src = base
        out[last].disp = displacement
    }

    private mutating func decodeSHA(_ opcode: UInt8, _ prefix: OpcodePrefix) {
        guard has(.sha), prefix == .none else { return undefined() }
        let source = shaOperand()
        let op: SIMDOperation
        switch opcode {
        case 0xc8: op = .sha1nexte
        case 0xc9: op = .sha1msg1
        case 0xca: op = .sha1msg2
        case 0xcb: op = .sha256rnds2
        case 0xcc: op = .sha256msg1
        default: op = .sha256msg2
        }
        emitSIMD(op, dst: vectorSlot(reg), a: vectorSlot(reg), b: source, third: vectorSlot(0))
    }

    /// AMD's processors do not insist on the operand's alignment.
    private mutating func shaOperand() -> UInt16 {
        guard !isRegister, has(.amdOrder) else { return vectorOperand() }
        emitMemory(Handler.vectorLoad &+ 2, dst: Slot.xtmp)
        return Slot.xtmp
    }

    /// SSSE3 on MMX registers.
    private mutating func decodeMMX38(_ opcode: UInt8) {
        guard has(.ssse3) else { return undefined() }
        let op = opcode < 0x1c ? SIMDOperation(.pshufb, opcode) : SIMDOperation(.pabsb, opcode &- 0x1c)
        emitMMX(0x38, source: mmxSource(8), imm: UInt64(op.rawValue))
    }

    // MARK: 0F 3A

    mutating func decodeSIMD3A(_ opcode: UInt8, _ prefix: OpcodePrefix) {
        if !vex, prefix == .none {
            if opcode == 0x0f {
                guard has(.ssse3) else { return undefined() }
                let source = mmxSource(8)
                let imm = UInt64(byte())
                return emitMMX(0x3a, source: source, imm: imm)
            }
            guard opcode == 0xcc, has(.sha) else { return undefined() }
            let source = shaOperand()
            let imm = UInt64(byte())
            return emitSIMD(.sha1rnds4, dst: vectorSlot(reg), a: vectorSlot(reg), b: source, imm: imm)
        }
        guard prefix == .p66 else { return undefined() }
        let w = rex & 8 != 0
        switch opcode {
        case 0x08, 0x09:
            guard exists(.sse41, wide: .avx), hasNoVVVV else { return undefined() }
            decodeRound(opcode, scalar: false)
        case 0x0a, 0x0b:
            guard vex || has(.sse41) else { return undefined() }
            decodeRound(opcode, scalar: true)
        case 0x0c, 0x0d:
            guard exists(.sse41, wide: .avx) else { return undefined() }
            binaryImmediate(opcode == 0x0c ? .blendps : .blendpd)
        case 0x0e:
            guard exists(.sse41, wide: .avx2) else { return undefined() }
            binaryImmediate(.pblendw)
        case 0x0f:
            guard exists(.ssse3, wide: .avx2) else { return undefined() }
            binaryImmediate(.palignr)
        case 0x14...0x17: decodeExtract(opcode)
        case 0x20, 0x22: decodeInsert(opcode)
        case 0x21:
            guard exists(.sse41) else { return undefined() }
            let fromRegister = isRegister
            let source = scalarOperand(wide: false)
            var imm = UInt64(byte())
            if !fromRegister { imm &= 0x3f }
            emitSIMD(.insertps, dst: vectorSlot(reg), a: firstSource, b: source, imm: imm)
        case 0x40, 0x41:
            guard exists(.sse41, wide: opcode == 0x40 ? .avx : nil) else { return undefined() }
            let source = vectorOperand()
            let imm = UInt64(byte())
            emitFloat(opcode, prefix: opcode & 1, dst: vectorSlot(reg), a: firstSource, b: source, imm: imm)
        case 0x42:
            guard exists(.sse41, wide: .avx2) else { return undefined() }
            binaryImmediate(.mpsadbw)
        case 0x44:
            guard exists(.pclmulqdq, wide: .vpclmulqdq), !vex || has(.pclmulqdq) else { return undefined() }
            binaryImmediate(.pclmulqdq)
        case 0x60...0x63:
            guard exists(.sse42), hasNoVVVV else { return undefined() }
            let source = stringOperand()
            let imm = UInt64(byte())
            emitSIMD(
                SIMDOperation(.pcmpestrm, opcode &- 0x60), dst: 0, a: vectorSlot(reg), b: source, third: w ? 1 : 0,
                imm: imm)
        case 0xdf:
            guard exists(.aes), hasNoVVVV, !vex || has(.aes) else { return undefined() }
            binaryImmediate(.aeskeygenassist)
        default:
            guard vex else { return undefined() }
            decodeAVX3A(opcode)
        }
    }

    /// The string comparisons do not insist on alignment.
    private mutating func stringOperand() -> UInt16 {
        if isRegister { return vectorSlot(rm) }
        emitMemory(vex ? Handler.vexLoad &+ 4 : Handler.vectorLoad &+ 2, dst: Slot.xtmp)
        return Slot.xtmp
    }

    private mutating func decodeAVX3A(_ opcode: UInt8) {
        let w = rex & 8 != 0
        switch opcode {
        case 0x00, 0x01:
            // AMD's processors do not look at W.
            guard has(.avx2), vexL, w || has(.amdOrder), vvvv == 0 else { return undefined() }
            binaryImmediate(.permuteQuadwords)
        case 0x02:
            guard has(.avx2), !w else { return undefined() }
            binaryImmediate(.vpblendd)
        case 0x04, 0x05:
            guard !w, vvvv == 0 else { return undefined() }
            binaryImmediate(opcode == 0x04 ? .permilpsImmediate : .permilpdImmediate)
        case 0x06, 0x46:
            guard vexL, !w, opcode == 0x06 || has(.avx2) else { return undefined() }
            binaryImmediate(.permuteLanes)
        case 0x18, 0x38:
            guard vexL, !w, opcode == 0x18 || has(.avx2) else { return undefined() }
            let source = narrowOperand(4)
            let imm = UInt64(byte())
            emitSIMD(.insertLane, dst: vectorSlot(reg), a: vexSource, b: source, imm: imm)
        case 0x19, 0x39:
            guard vexL, !w, vvvv == 0, opcode == 0x19 || has(.avx2) else { return undefined() }
            let imm = UInt64(0)
            if isRegister {
                let lane = UInt64(byte())
                emitSIMD(.extractLane, dst: vectorSlot(rm), b: vectorSlot(reg), imm: lane)
            } else {
                let lane = byte() & 1
                emitMemory(
                    Handler.vexStore &+ 4, src: vectorSlot(reg) &+ (lane != 0 ? Slot.upper : 0), imm: imm)
            }
        case 0x1d:
            guard has(.f16c), !w, vvvv == 0 else { return undefined() }
            let imm = UInt64(byte())
            let target = isRegister ? vectorSlot(rm) : Slot.xtmp
            if !isRegister {
                emit(Handler.vexCheck)
                // On AMD's processors the store's faults come before the conversion's flags.
                if has(.amdOrder) { emitMemory(Handler.loadForWrite &+ 3, dst: Slot.tmp(0)) }
            }
            emitFloat(0x1d, prefix: 0, dst: target, a: vectorSlot(reg), b: vectorSlot(reg), imm: imm)
            if !isRegister { emitMemory(Handler.vexStore &+ (vexL ? 4 : 3), src: Slot.xtmp) }
        case 0x4a...0x4c:
            guard !w, opcode != 0x4c || !vexL || has(.avx2) else { return undefined() }
            let source = vectorOperand()
            let mask = Int(byte() &>> 4) & (legacy ? 7 : 15)
            emitSIMD(
                opcode == 0x4c ? .pblendvb : opcode == 0x4a ? .blendvps : .blendvpd, dst: vectorSlot(reg), a: vexSource,
                b: source, third: vectorSlot(mask))
        default: undefined()
        }
    }

    private mutating func decodeRound(_ opcode: UInt8, scalar: Bool) {
        let wide = opcode & 1 != 0
        let source = scalar ? scalarOperand(wide: wide) : vectorOperand()
        let imm = UInt64(byte())
        emitFloat(
            0x08, prefix: (scalar ? 2 : 0) | (wide ? 1 : 0), dst: vectorSlot(reg), a: firstSource, b: source, imm: imm)
    }

    /// PEXTRB, PEXTRW, PEXTRD, PEXTRQ, EXTRACTPS. The immediate's upper half names the size.
    private mutating func decodeExtract(_ opcode: UInt8) {
        guard exists(.sse41), hasNoVVVV, !legacy || rex & 8 == 0 || opcode != 0x16 else { return undefined() }
        let size = opcode == 0x14 ? 0 : opcode == 0x15 ? 1 : opcode == 0x16 && rex & 8 != 0 ? 3 : 2
        let register = isRegister
        let imm = UInt64(byte()) & [15, 7, 3, 1][size]
        emitSIMD(
            .extract, dst: register ? Slot.gpr(rm) : Slot.tmp(0), b: vectorSlot(reg), imm: imm | UInt64(size) &<< 4)
        if !register { emitMemory(Handler.store &+ size, src: Slot.tmp(0)) }
    }

    /// PINSRB, PINSRD, PINSRQ.
    private mutating func decodeInsert(_ opcode: UInt8) {
        guard exists(.sse41), !legacy || rex & 8 == 0 || opcode == 0x20 else { return undefined() }
        let size = opcode == 0x20 ? 0 : rex & 8 != 0 ? 3 : 2
        if !isRegister { emit(vex ? Handler.vexCheck : Handler.sseCheck) }
        let source = isRegister ? Slot.gpr(rm) : rmValue(size)
        let imm = UInt64(byte()) & [15, 7, 3, 1][size]
        emitSIMD(.insert, dst: vectorSlot(reg), a: firstSource, b: source, imm: imm | UInt64(size) &<< 4)
    }
}
