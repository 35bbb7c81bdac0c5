// Instructions that exist only outside 64-bit mode [APM3]: decimal arithmetic, BOUND, ARPL, PUSHA and POPA; and the far
// pointer loads.

import CX86State
import X86Defs

extension Processor {
    /// 1, 2, 4 or 8 bytes of memory; nil: a fault has been prepared.
    func readInteger(_ a: UInt64, _ byteCount: Int, at rip: UInt64) -> UInt64? {
        switch byteCount {
        case 1: return read(a, as: UInt8.self, user: userMode, at: rip).map { UInt64($0) }
        case 2: return read(a, as: UInt16.self, user: userMode, at: rip).map { UInt64($0) }
        case 4: return read(a, as: UInt32.self, user: userMode, at: rip).map { UInt64($0) }
        default: return read(a, as: UInt64.self, user: userMode, at: rip)
        }
    }

    /// BOUND: `base` is the register, `dst` holds the address in the segment `index` - 1, `scale` a bound's
    /// bytes.
    func checkBound(_ ip: IP, at rip: UInt64) -> Bool {
        let u = ip.pointee
        let a: UInt64 = get(s, u.dst), size = Int(u.scale)
        guard isAligned(a, UInt64(size), at: rip) else { return false }
        guard let low = readInteger(a, size, at: rip) else { return false }
        // The segment has been asked about the first bound only.
        let index = Int(u.index) &- 1, segment = segmentRegister(index)
        guard allows(segment, ((a &- segment.base) & 0xffff_ffff) &+ UInt64(size), size, write: false) else {
            prepareException(index == SegmentIndex.ss.rawValue ? 12 : 13, error: 0, at: rip)
            return false
        }
        guard let high = readInteger((a &+ UInt64(size)) & 0xffff_ffff, size, at: rip)
        else { return false }
        func signed(_ v: UInt64) -> Int32 {
            size == 2 ? Int32(Int16(truncatingIfNeeded: v)) : Int32(truncatingIfNeeded: v)
        }
        let value = signed(get(s, u.base))
        guard value >= signed(low), value <= signed(high) else {
            prepareException(5, at: rip)
            return false
        }
        return true
    }

    /// ARPL: the selector in `dst` gets at least the RPL of the one in `base`. `index`: it is in memory, at the address in
    /// `dst` of the segment `index` - 1, and is written only if it changes.
    func adjustRPL(_ ip: IP, at rip: UInt64) -> Bool {
        let u = ip.pointee
        let source: UInt16 = get(s, u.base)
        var target: UInt16 = get(s, u.dst)
        let a: UInt64 = get(s, u.dst)
        if u.index != 0 {
            guard isAligned(a, 2, at: rip), let v: UInt16 = read(a, user: userMode, at: rip) else { return false }
            target = v
        }
        let raise = target & 3 < source & 3
        if raise, u.index == 0 { put(s, u.dst, target & ~3 | source & 3) }
        if raise, u.index != 0 {
            let index = Int(u.index) &- 1
            guard segmentRegister(index).attributes & 0xa == 2 else {
                prepareException(index == SegmentIndex.ss.rawValue ? 12 : 13, error: 0, at: rip)
                return false
            }
            guard write(a, target & ~3 | source & 3, user: userMode, at: rip) else { return false }
        }
        let f = composeFlags(s) & ~RFLAGS.zf
        spreadArithmeticFlags(s, raise ? f | RFLAGS.zf : f)
        return true
    }

    /// The far pointer at the address in `dst`: `scale` bytes of offset, and the selector. Outside 64-bit mode the segment,
    /// bits 15:8 of `imm` less 1, has been asked about the offset; the selector has its own turn, behind the end of a
    /// segment of 4 GiB at its beginning. nil: prepared to leave.
    func farPointer(_ u: x86_uop, at rip: UInt64) -> (selector: UInt16, offset: UInt64)? {
        let a: UInt64 = get(s, u.dst), size = Int(u.scale)
        let next = (a &+ UInt64(size)) & s.pointee.rip_mask
        guard isAligned(a, UInt64(size), at: rip), let offset = readInteger(a, size, at: rip) else {
            _ = stackOperandFault(u, a)
            return nil
        }
        let index = Int(u.imm &>> 8 & 0xff) &- 1
        if index >= 0 {
            let segment = segmentRegister(index)
            guard allows(segment, (next &- segment.base) & 0xffff_ffff, 2, write: false) else {
                prepareException(index == SegmentIndex.ss.rawValue ? 12 : 13, error: 0, at: rip)
                return nil
            }
        }
        guard let selector: UInt16 = read(next, user: userMode, at: rip) else {
            _ = stackOperandFault(u, a)
            return nil
        }
        return (selector, offset)
    }

    /// The fault of a far pointer's address: #SS if it was to lie on the stack (`index`) and is not canonical. False.
    func stackOperandFault(_ u: x86_uop, _ a: UInt64) -> Bool {
        if u.index != 0, s.pointee.vector == 13, s.pointee.leave == UInt32(X86_LEAVE_EXCEPTION), !isCanonical(a) {
            s.pointee.vector = 12
        }
        return false
    }

    func pushAll(_ byteCount: Int, at rip: UInt64) -> Bool {
        var stack = currentStack
        for n in 0..<8 {
            guard push(&stack, get(s, Slot.gpr(n)), byteCount, at: rip) else { return false }
        }
        commit(stack)
        return true
    }

    func popAll(_ byteCount: Int, at rip: UInt64) -> Bool {
        var stack = currentStack
        var values = SIMD8<UInt64>()
        for n in 0..<8 {
            guard let v = pop(&stack, byteCount, at: rip) else { return false }
            values[n] = v
        }
        for n in 0..<8 where n != 4 { putSized(Slot.gpr(n), values[7 &- n], byteCount) }
        commit(stack)
        return true
    }

    /// DAA (27), DAS (2F), AAA (37), AAS (3F).
    func decimalAdjust(_ opcode: UInt8) {
        let ax: UInt16 = get(s, 0)
        let al = UInt8(truncatingIfNeeded: ax)
        let carry = flagC(s), adjust = flagA(s) || al & 15 > 9
        if opcode & 0x10 != 0 {
            // AAA, AAS: the half-carry goes to AH.
            var result = ax
            if adjust { result = opcode == 0x37 ? ax &+ 0x106 : (ax &- 6) &- 0x100 }
            result &= 0xff0f
            put(s, 0, result)
            setDecimalFlags(UInt8(truncatingIfNeeded: result), carry: adjust, adjust: adjust)
            return
        }
        var result = al, newCarry = carry
        if adjust {
            result = opcode == 0x27 ? result &+ 6 : result &- 6
            newCarry = carry || (opcode == 0x27 ? al > 0xf9 : al < 6)
        }
        if al > 0x99 || carry {
            result = opcode == 0x27 ? result &+ 0x60 : result &- 0x60
            newCarry = true
        }
        put(s, 0, result)
        setDecimalFlags(result, carry: newCarry, adjust: adjust)
    }

    private func setDecimalFlags(_ result: UInt8, carry: Bool, adjust: Bool) {
        var f: UInt64 = carry ? RFLAGS.cf : 0
        if adjust { f |= RFLAGS.af }
        if result == 0 { f |= RFLAGS.zf }
        if result & 0x80 != 0 { f |= RFLAGS.sf }
        if result.nonzeroBitCount & 1 == 0 { f |= RFLAGS.pf }
        spreadArithmeticFlags(s, f)
    }

    /// AAM (D4), AAD (D5).
    func asciiAdjust(_ opcode: UInt8, _ base: UInt8, at rip: UInt64) -> Bool {
        let ax: UInt16 = get(s, 0)
        let al = UInt8(truncatingIfNeeded: ax), ah = UInt8(truncatingIfNeeded: ax &>> 8)
        let result: UInt16
        if opcode == 0xd4 {
            guard base != 0 else {
                prepareException(0, at: rip)
                return false
            }
            result = UInt16(al / base) &<< 8 | UInt16(al % base)
        } else {
            result = UInt16(al &+ ah &* base)
        }
        put(s, 0, result)
        setDecimalFlags(UInt8(truncatingIfNeeded: result), carry: false, adjust: false)
        return true
    }

    /// LES, LDS, LSS, LFS, LGS: `dst` holds the address, `base` is the register, `imm` the segment.
    func loadFarPointer(_ ip: IP, at rip: UInt64, next: UInt64) -> Bool {
        let u = ip.pointee
        guard let index = SegmentIndex(rawValue: Int(u.imm & 0xff)), let (selector, offset) = farPointer(u, at: rip)
        else { return false }
        let context = s.pointee.context
        guard loadSegment(index, selector, at: rip) else { return false }
        putSized(u.base, offset, Int(u.scale))
        if index == .ss { s.pointee.shadow = 2 }
        if s.pointee.context != context {
            continueAt(next, check: index == .ss)
            return false
        }
        return true
    }

    /// INT1: #DB as a trap, whatever the gate's privilege.
    func debugInstruction(at rip: UInt64, next: UInt64) {
        s.pointee.rip = next
        // What MOV SS has put off comes with it.
        if pendingDebug != 0 { setDebugStatus(pendingDebug) }
        pendingDebug = 0
        if deliver(Event(vector: 1, errorCode: nil, kind: .exception), faultsAt: rip) {
            stepSuppressed = true
            s.pointee.leave = UInt32(X86_LEAVE_LOOKUP)
        }
    }
}
