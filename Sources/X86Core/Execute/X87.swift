// x87 instructions: one executor for all, which decodes the opcode (D8-DF and ModRM) itself. Nothing the kernel or a
// modern user program does often is here. Arithmetic is in X87Arithmetic.swift, on the integer core of SoftFloat.swift.

import CX86State
import X86Defs

func performX87(_ s: CPU, _ ip: IP) -> Bool {
    let p = processor(s)
    if p.x87(ip) { return true }
    p.turnIntoStackFault(ip)
    return false
}

/// Bits of the status word.
enum FSW {
    static let ie: UInt16 = 1, de: UInt16 = 2, ze: UInt16 = 4, oe: UInt16 = 8, ue: UInt16 = 0x10, pe: UInt16 = 0x20
    static let sf: UInt16 = 0x40, es: UInt16 = 0x80, c0: UInt16 = 0x100, c1: UInt16 = 0x200, c2: UInt16 = 0x400
    static let c3: UInt16 = 0x4000, busy: UInt16 = 0x8000
}

extension Processor {
    /// The uop's `imm`: 7:0 opcode, 15:8 ModRM, 24 operand-size prefix; `dst` holds the operand's linear address, `index` is its
    /// segment + 1 (0 in 64-bit mode but for FS and GS).
    func x87(_ ip: IP) -> Bool {
        let rip = instructionAddress(s, ip)
        let code = ip.pointee.imm
        let opcode = UInt8(truncatingIfNeeded: code), modrm = UInt8(truncatingIfNeeded: code &>> 8)
        if opcode == 0x9b {
            // WAIT looks at TS only together with MP.
            if s.pointee.cr0 & (CR0.mp | CR0.ts) == CR0.mp | CR0.ts {
                prepareException(7, at: rip)
                return false
            }
            return noPendingX87(at: rip)
        }
        if Self.isUndefinedX87(opcode, modrm) { return x87Undefined(at: rip) }
        guard mayUseFPU(at: rip) else { return false }
        let op = Int((modrm &>> 3) & 7), i = Int(modrm & 7)
        if modrm >= 0xc0 {
            if let done = x87Control(opcode, modrm) { return done }
            guard noPendingX87(at: rip) else { return false }
            noteX87(opcode, modrm, rip, 0)
            return x87Register(opcode, op, i, at: rip)
        }
        let a: UInt64 = get(s, ip.pointee.dst)
        if let done = x87ControlMemory(opcode, op, a, narrow: code & 0x100_0000 != 0, at: rip) { return done }
        guard noPendingX87(at: rip), x87Memory(opcode, op, a, at: rip) else { return false }
        let base = ip.pointee.index == 0 ? 0 : segmentRegister(Int(ip.pointee.index) &- 1).base
        noteX87(opcode, modrm, rip, (a &- base) & s.pointee.rip_mask)
        return true
    }

    /// The pointers of the last instruction that was no control instruction.
    private func noteX87(_ opcode: UInt8, _ modrm: UInt8, _ rip: UInt64, _ operand: UInt64) {
        s.pointee.fop = UInt16(opcode & 7) &<< 8 | UInt16(modrm)
        s.pointee.fip = instructionPointer(rip)
        if modrm < 0xc0 { s.pointee.fdp = operand }
    }

    /// Encodings without an instruction: #UD comes before everything else.
    private static func isUndefinedX87(_ opcode: UInt8, _ modrm: UInt8) -> Bool {
        let op = (modrm &>> 3) & 7
        if modrm < 0xc0 {
            return opcode == 0xd9 && op == 1 || opcode == 0xdb && (op == 4 || op == 6) || opcode == 0xdd && op == 5
        }
        switch (opcode, modrm) {
        case (0xd9, 0xd1...0xd7), (0xd9, 0xe2), (0xd9, 0xe3), (0xd9, 0xe6), (0xd9, 0xe7), (0xd9, 0xef): return true
        case (0xda, 0xe9): return false
        case (0xda, 0xe0...), (0xdb, 0xe5...0xe7), (0xdb, 0xf8...), (0xdd, 0xf0...): return true
        case (0xde, 0xd8), (0xde, 0xda...0xdf), (0xdf, 0xe1...0xe7), (0xdf, 0xf8...): return true
        default: return false
        }
    }

    func x87Undefined(at rip: UInt64) -> Bool {
        prepareException(6, at: rip)
        return false
    }

    // MARK: The stack

    var x87Top: Int { Int(s.pointee.fsw &>> 11) & 7 }
    func setX87Top(_ top: Int) { s.pointee.fsw = s.pointee.fsw & ~0x3800 | UInt16(top & 7) &<< 11 }

    /// ES and B follow the unmasked exception flags.
    func updateX87Summary() {
        if s.pointee.fsw & ~s.pointee.fcw & 0x3f != 0 {
            s.pointee.fsw |= FSW.es | FSW.busy
        } else {
            s.pointee.fsw &= ~(FSW.es | FSW.busy)
        }
    }

    func isEmpty(_ i: Int) -> Bool { s.pointee.ftw & (1 &<< UInt8((x87Top &+ i) & 7)) == 0 }

    /// ST(i) as a number.
    func readST(_ i: Int) -> SoftNumber {
        let p = (x87Top &+ i) & 7
        return SoftNumber(significand: mantissa(p), signAndExponent: exponent(p))
    }

    func writeST(_ i: Int, _ n: SoftNumber) {
        let p = (x87Top &+ i) & 7
        let (m, e) = n.extended
        setST(p, m, e)
        s.pointee.ftw |= 1 &<< UInt8(p)
    }

    func popX87() {
        s.pointee.ftw &= ~(1 &<< UInt8(x87Top))
        setX87Top(x87Top &+ 1)
    }

    /// A push; onto a full stack it is an invalid operation, whose masked answer is the indefinite NaN.
    /// False: nothing was pushed.
    @discardableResult
    func pushX87(_ n: SoftNumber) -> Bool {
        s.pointee.fsw &= ~FSW.c1
        if !isEmpty(7) {
            guard stackFault(overflow: true) else { return false }
            setX87Top(x87Top &- 1)
            writeST(0, .indefinite)
            return true
        }
        setX87Top(x87Top &- 1)
        writeST(0, n)
        return true
    }

    /// A stack fault: IE, SF, C1 tells which kind. True: masked.
    func stackFault(overflow: Bool) -> Bool {
        s.pointee.fsw |= FSW.ie | FSW.sf
        s.pointee.fsw = overflow ? s.pointee.fsw | FSW.c1 : s.pointee.fsw & ~FSW.c1
        updateX87Summary()
        return s.pointee.fcw & FSW.ie != 0
    }

    // MARK: Control instructions

    /// Register forms that do not wait for pending exceptions, and so on; nil: none of these.
    private func x87Control(_ opcode: UInt8, _ modrm: UInt8) -> Bool? {
        switch (opcode, modrm) {
        case (0xdb, 0xe0), (0xdb, 0xe1), (0xdb, 0xe4): return true  // FNENI, FNDISI, FNSETPM: nothing since the 387.
        case (0xdb, 0xe2): s.pointee.fsw &= 0x7f00  // FNCLEX
        case (0xdb, 0xe3): initializeX87()
        case (0xdf, 0xe0): put(s, 0, s.pointee.fsw)  // FNSTSW AX
        default: return nil
        }
        return true
    }

    private func initializeX87() {
        s.pointee.fcw = 0x37f
        s.pointee.fsw = 0
        s.pointee.ftw = 0
        (s.pointee.fop, s.pointee.fip, s.pointee.fdp) = (0, 0, 0)
    }

    private func x87ControlMemory(_ opcode: UInt8, _ op: Int, _ a: UInt64, narrow: Bool, at rip: UInt64) -> Bool? {
        switch (opcode, op) {
        case (0xd9, 5):  // FLDCW
            guard noPendingX87(at: rip), let v: UInt16 = loadOperand(a, at: rip) else { return false }
            setControlWord(v)
        case (0xd9, 7): return storeOperand(a, s.pointee.fcw, at: rip)  // FNSTCW
        case (0xdd, 7): return storeOperand(a, s.pointee.fsw, at: rip)  // FNSTSW
        case (0xd9, 4), (0xd9, 6), (0xdd, 4), (0xdd, 6):
            let withRegisters = opcode == 0xdd
            return op == 4
                ? loadEnvironment(a, withRegisters: withRegisters, narrow: narrow, at: rip)
                : storeEnvironment(a, withRegisters: withRegisters, narrow: narrow, at: rip)
        default: return nil
        }
        return true
    }

    private func setControlWord(_ v: UInt16) {
        s.pointee.fcw = v & 0x1f7f | 0x40
        updateX87Summary()
    }

    /// FNSTENV and FNSAVE, the protected-mode images: 28 bytes, or 14 with 16-bit operands, and 80 of registers.
    private func storeEnvironment(_ a: UInt64, withRegisters: Bool, narrow: Bool, at rip: UInt64) -> Bool {
        let step: UInt64 = narrow ? 2 : 4
        guard isAligned(a, step, at: rip) else { return false }
        var tags: UInt32 = 0
        for p in 0..<8 {
            let tag: UInt32
            if s.pointee.ftw & (1 &<< UInt8(p)) == 0 {
                tag = 3
            } else {
                let n = SoftNumber(significand: mantissa(p), signAndExponent: exponent(p))
                tag = n.isZero ? 1 : n.kind == .finite && !n.denormal ? 0 : 2
            }
            tags |= tag &<< UInt32(p &* 2)
        }
        let c = s
        let words: [UInt32] = [
            UInt32(c.pointee.fcw) | 0xffff_0000, UInt32(c.pointee.fsw) | 0xffff_0000, tags | 0xffff_0000,
            UInt32(truncatingIfNeeded: c.pointee.fip), UInt32(c.pointee.fop) &<< 16,
            UInt32(truncatingIfNeeded: c.pointee.fdp), 0xffff_0000,
        ]
        let count = step &* 7 &+ (withRegisters ? 80 : 0)
        guard linearPointer(a, .write, user: userMode, at: rip) != nil,
            linearPointer(a &+ count &- 1, .write, user: userMode, at: rip) != nil
        else { return false }
        for (i, w) in words.enumerated() {
            let place = a &+ UInt64(i) &* step
            // The opcode has no room in the narrow image.
            let half = i == 4 ? 0 : UInt16(truncatingIfNeeded: w)
            guard
                narrow
                    ? write(place, i == 6 ? 0 : half, user: userMode, at: rip)
                    : write(place, w, user: userMode, at: rip)
            else { return false }
        }
        if withRegisters {
            for i in 0..<8 {
                let p = (x87Top &+ i) & 7, at = a &+ step &* 7 &+ UInt64(i &* 10)
                guard write(at, mantissa(p), user: userMode, at: rip),
                    write(at &+ 8, exponent(p), user: userMode, at: rip)
                else { return false }
            }
            initializeX87()
        } else {
            setControlWord(s.pointee.fcw | 0x3f)
        }
        return true
    }

    /// FLDENV and FRSTOR.
    private func loadEnvironment(_ a: UInt64, withRegisters: Bool, narrow: Bool, at rip: UInt64) -> Bool {
        let step: UInt64 = narrow ? 2 : 4
        guard noPendingX87(at: rip), isAligned(a, step, at: rip) else { return false }
        var words: [UInt32] = []
        for i in 0..<7 {
            let place = a &+ UInt64(i) &* step
            if narrow {
                guard let w: UInt16 = read(place, user: userMode, at: rip) else { return false }
                words.append(i == 4 ? 0 : UInt32(w))
            } else {
                guard let w: UInt32 = read(place, user: userMode, at: rip) else { return false }
                words.append(w)
            }
        }
        var registers: [(UInt64, UInt16)] = []
        if withRegisters {
            for i in 0..<8 {
                let at = a &+ step &* 7 &+ UInt64(i &* 10)
                guard let m: UInt64 = read(at, user: userMode, at: rip),
                    let e: UInt16 = read(at &+ 8, user: userMode, at: rip)
                else { return false }
                registers.append((m, e))
            }
        }
        s.pointee.fsw = UInt16(truncatingIfNeeded: words[1])
        setControlWord(UInt16(truncatingIfNeeded: words[0]))
        s.pointee.ftw = 0
        for p in 0..<8 where (words[2] &>> UInt32(p &* 2)) & 3 != 3 { s.pointee.ftw |= 1 &<< UInt8(p) }
        s.pointee.fip = UInt64(words[3])
        s.pointee.fop = UInt16(truncatingIfNeeded: words[4] &>> 16) & 0x7ff
        s.pointee.fdp = UInt64(words[5])
        for (i, r) in registers.enumerated() { setST((x87Top &+ i) & 7, r.0, r.1) }
        return true
    }

    // MARK: Register forms

    private func x87Register(_ opcode: UInt8, _ op: Int, _ i: Int, at rip: UInt64) -> Bool {
        switch (opcode, op) {
        case (0xd8, 2), (0xdc, 2), (0xd8, 3), (0xdc, 3), (0xde, 2):
            compareX87(i, quiet: false, pops: op == 2 && opcode != 0xde ? 0 : 1)
        case (0xd8, _): x87ArithmeticRegisters(op, target: 0, source: i, pop: false)
        case (0xdc, _): x87ArithmeticRegisters(op ^ (op >= 4 ? 1 : 0), target: i, source: 0, pop: false)
        case (0xde, 3):
            guard i == 1 else { return x87Undefined(at: rip) }
            compareX87(1, quiet: false, pops: 2)
        case (0xde, _): x87ArithmeticRegisters(op ^ (op >= 4 ? 1 : 0), target: i, source: 0, pop: true)

        case (0xd9, 0): loadRegister(i)
        case (0xd9, 1), (0xdd, 1), (0xdf, 1): exchangeX87(i)
        case (0xd9, 2):
            guard i == 0 else { return x87Undefined(at: rip) }  // FNOP
        case (0xd9, 3):  // An old FSTP that does not look whether ST(0) is empty.
            let p = x87Top, q = (p &+ i) & 7
            let empty = isEmpty(0)
            s.pointee.fsw &= ~FSW.c1
            if !empty || !amdOrder { setST(q, mantissa(p), exponent(p)) }
            if !empty { s.pointee.ftw |= 1 &<< UInt8(q) } else if !amdOrder { s.pointee.ftw &= ~(1 &<< UInt8(q)) }
            popX87()
        case (0xdd, 2), (0xdd, 3), (0xdf, 2), (0xdf, 3): storeRegister(i, pop: !(opcode == 0xdd && op == 2))
        case (0xd9, 4):
            switch i {
            case 0, 1: changeSign(absolute: i == 1)
            case 4: testX87()
            case 5: examineX87()
            default: return x87Undefined(at: rip)
            }
        case (0xd9, 5):
            guard i < 7 else { return x87Undefined(at: rip) }
            pushConstant(i)
        case (0xd9, _): return x87Function(op == 6 ? i : i &+ 8, at: rip)

        case (0xda, 0...3), (0xdb, 0...3): conditionalMoveX87(op, i, negated: opcode == 0xdb)
        case (0xda, 5):
            guard i == 1 else { return x87Undefined(at: rip) }
            compareX87(1, quiet: true, pops: 2)
        case (0xdb, 5), (0xdf, 5): compareX87Flags(i, quiet: true, pop: opcode == 0xdf)
        case (0xdb, 6), (0xdf, 6): compareX87Flags(i, quiet: false, pop: opcode == 0xdf)
        case (0xdd, 0), (0xdf, 0):
            s.pointee.fsw &= ~FSW.c1
            s.pointee.ftw &= ~(1 &<< UInt8((x87Top &+ i) & 7))
            if opcode == 0xdf { popX87() }
        case (0xdd, 4), (0xdd, 5): compareX87(i, quiet: true, pops: op &- 4)
        default: return x87Undefined(at: rip)
        }
        return true
    }

    private func loadRegister(_ i: Int) {
        s.pointee.fsw &= ~FSW.c1
        guard !isEmpty(i) else {
            guard isEmpty(7) || i == 7 || amdOrder else {
                pushX87(.indefinite)
                return
            }
            guard stackFault(overflow: false) else { return }
            setX87Top(x87Top &- 1)
            return writeST(0, .indefinite)
        }
        let p = (x87Top &+ i) & 7
        let (m, e) = (mantissa(p), exponent(p))
        guard isEmpty(7) else {
            pushX87(.indefinite)
            return
        }
        pushX87(.zero(false))
        setST(x87Top, m, e)
    }

    private func exchangeX87(_ i: Int) {
        s.pointee.fsw &= ~FSW.c1
        if isEmpty(0) || isEmpty(i) {
            guard stackFault(overflow: false) else { return }
            if isEmpty(0) { writeST(0, .indefinite) }
            if isEmpty(i) { writeST(i, .indefinite) }
        }
        let p = x87Top, q = (p &+ i) & 7
        let (m, e) = (mantissa(p), exponent(p))
        setST(p, mantissa(q), exponent(q))
        setST(q, m, e)
    }

    private func storeRegister(_ i: Int, pop: Bool) {
        s.pointee.fsw &= ~FSW.c1
        if isEmpty(0) {
            guard stackFault(overflow: false) else { return }
            writeST(i, .indefinite)
        } else {
            let p = x87Top, q = (p &+ i) & 7
            setST(q, mantissa(p), exponent(p))
            s.pointee.ftw |= 1 &<< UInt8(q)
        }
        if pop { popX87() }
    }

    /// FCHS and FABS: no operand is invalid to them.
    private func changeSign(absolute: Bool) {
        s.pointee.fsw &= ~FSW.c1
        if isEmpty(0) {
            guard stackFault(overflow: false) else { return }
            return writeST(0, .indefinite)
        }
        let p = x87Top, e = exponent(p)
        setST(p, mantissa(p), absolute ? e & 0x7fff : e ^ 0x8000)
    }

    private func conditionalMoveX87(_ op: Int, _ i: Int, negated: Bool) {
        if isEmpty(0) || isEmpty(i) {
            guard stackFault(overflow: false) else { return }
            return writeST(0, .indefinite)
        }
        let holds: Bool
        switch op {
        case 0: holds = flagC(s)
        case 1: holds = flagZ(s)
        case 2: holds = flagC(s) || flagZ(s)
        default: holds = flagP(s)
        }
        guard holds != negated else { return }
        let q = (x87Top &+ i) & 7
        setST(x87Top, mantissa(q), exponent(q))
    }
}
