// x87 memory operands: loads, stores and conversions.

import CX86State
import X86Defs

extension Processor {
    func x87Memory(_ opcode: UInt8, _ op: Int, _ a: UInt64, at rip: UInt64) -> Bool {
        switch (opcode, op) {
        case (0xd8, _), (0xda, _), (0xdc, _), (0xde, _):
            guard let n = x87Load(opcode, a, at: rip) else { return false }
            x87Arithmetic(op, with: n)
        case (0xd9, 0), (0xdd, 0):
            guard let n = x87Load(opcode == 0xd9 ? 0xd8 : 0xdc, a, at: rip) else { return false }
            pushConverted(n)
        case (0xdb, 0):
            guard let v: UInt32 = loadOperand(a, at: rip) else { return false }
            pushX87(SoftNumber(integer: Int64(Int32(bitPattern: v))))
        case (0xdf, 0):
            guard let v: UInt16 = loadOperand(a, at: rip) else { return false }
            pushX87(SoftNumber(integer: Int64(Int16(bitPattern: v))))
        case (0xdf, 5):
            guard let v: UInt64 = loadOperand(a, at: rip) else { return false }
            pushX87(SoftNumber(integer: Int64(bitPattern: v)))
        case (0xdb, 5):
            guard isAligned(a, 8, at: rip), let (m, e) = readTenBytes(a, at: rip) else { return false }
            if pushX87(.zero(false)), s.pointee.fsw & FSW.c1 == 0 { setST(x87Top, m, e) }
        case (0xdf, 4):
            guard isAligned(a, 8, at: rip), let (m, e) = readTenBytes(a, at: rip) else { return false }
            var v: Int64 = 0
            for shift in stride(from: 4, through: 0, by: -4) { v = v &* 10 &+ Int64((e &>> UInt16(shift)) & 15) }
            for shift in stride(from: 60, through: 0, by: -4) { v = v &* 10 &+ Int64((m &>> UInt64(shift)) & 15) }
            var n = SoftNumber(integer: v)
            n.negative = e & 0x8000 != 0
            pushX87(n)
        case (0xd9, 2), (0xd9, 3): return storeReal(a, wide: false, pop: op == 3, at: rip)
        case (0xdd, 2), (0xdd, 3): return storeReal(a, wide: true, pop: op == 3, at: rip)
        case (0xdb, 2), (0xdb, 3): return storeInteger(a, 4, pop: op == 3, at: rip)
        case (0xdf, 2), (0xdf, 3): return storeInteger(a, 2, pop: op == 3, at: rip)
        case (0xdb, 1): return storeInteger(a, 4, pop: true, truncating: true, at: rip)
        case (0xdd, 1): return storeInteger(a, 8, pop: true, truncating: true, at: rip)
        case (0xdf, 1): return storeInteger(a, 2, pop: true, truncating: true, at: rip)
        case (0xdf, 7): return storeInteger(a, 8, pop: true, at: rip)
        case (0xdb, 7): return storeExtended(a, at: rip)
        case (0xdf, 6): return storeDecimal(a, at: rip)
        default: return x87Undefined(at: rip)
        }
        return true
    }

    /// The operand of D8 (binary32), DA (32-bit integer), DC (binary64), DE (16-bit integer).
    private func x87Load(_ opcode: UInt8, _ a: UInt64, at rip: UInt64) -> SoftNumber? {
        switch opcode {
        case 0xd8: return loadOperand(a, as: UInt32.self, at: rip).map { SoftNumber(bits: UInt64($0), wide: false) }
        case 0xda:
            return loadOperand(a, as: UInt32.self, at: rip).map { SoftNumber(integer: Int64(Int32(bitPattern: $0))) }
        case 0xdc: return loadOperand(a, as: UInt64.self, at: rip).map { SoftNumber(bits: $0, wide: true) }
        default:
            return loadOperand(a, as: UInt16.self, at: rip).map { SoftNumber(integer: Int64(Int16(bitPattern: $0))) }
        }
    }

    private func readTenBytes(_ a: UInt64, at rip: UInt64) -> (UInt64, UInt16)? {
        guard let m: UInt64 = read(a, user: userMode, at: rip), let e: UInt16 = read(a &+ 8, user: userMode, at: rip)
        else { return nil }
        return (m, e)
    }

    /// FLD of binary32 and binary64.
    private func pushConverted(_ n: SoftNumber) {
        s.pointee.fsw &= ~FSW.c1
        guard isEmpty(7) else {
            pushX87(n)
            return
        }
        var status = x87Status
        if n.kind == .signalingNaN { status.flags |= FloatFlag.invalid }
        if n.denormal { status.flags |= FloatFlag.denormal }
        // AMD's processors push a denormal operand even if its exception is unmasked.
        let stopping = features.contains(.amdOrder) ? FloatFlag.early & ~FloatFlag.denormal : FloatFlag.early
        guard commitX87(status, stopping: stopping) else { return }
        pushX87(n.isNaN ? n.quieted : n)
    }

    // MARK: Stores

    /// The common part of stores. An exception that keeps the value from being stored comes first, then the faults of
    /// the memory operand, then flags, value and pop. `stack`: ST(0) is empty.
    private func store(
        _ a: UInt64, _ byteCount: UInt64, alignment: UInt64, _ status: FloatStatus, stack: Bool, stopping: UInt16,
        pop: Bool, at rip: UInt64, _ write: () -> Bool
    ) -> Bool {
        let stops = stack ? s.pointee.fcw & FSW.ie == 0 : status.flags & ~status.masks & stopping != 0
        if !stops || amdOrder {
            guard isAligned(a, alignment, at: rip), linearPointer(a, .write, user: userMode, at: rip) != nil,
                linearPointer(a &+ byteCount &- 1, .write, user: userMode, at: rip) != nil
            else { return false }
        }
        s.pointee.fsw &= ~FSW.c1
        if stack {
            guard stackFault(overflow: false) else { return true }
        } else {
            guard commitX87(status, stopping: stopping) else { return true }
        }
        guard write() else { return false }
        if pop { popX87() }
        return true
    }

    /// FST and FSTP to binary32 or binary64.
    private func storeReal(_ a: UInt64, wide: Bool, pop: Bool, at rip: UInt64) -> Bool {
        var status = x87Status
        var n = readST(0)
        let stack = isEmpty(0)
        if stack {
            n = .indefinite
        } else if n.isNaN || n.kind == .unsupported {
            if n.kind != .quietNaN { status.flags |= FloatFlag.invalid }
            n = n.isNaN ? n.quieted : .indefinite
        } else {
            n = status.round(n, wide ? .double : .single)
        }
        let bits = n.bits(wide: wide)
        // Unmasked overflow and underflow leave memory and stack alone, too.
        return store(
            a, wide ? 8 : 4, alignment: wide ? 8 : 4, status, stack: stack,
            stopping: FloatFlag.early | FloatFlag.overflow | FloatFlag.underflow, pop: pop, at: rip
        ) {
            wide ? storeOperand(a, bits, at: rip) : storeOperand(a, UInt32(truncatingIfNeeded: bits), at: rip)
        }
    }

    /// FIST, FISTP and FISTTP.
    private func storeInteger(
        _ a: UInt64, _ byteCount: Int, pop: Bool, truncating: Bool = false, at rip: UInt64
    ) -> Bool {
        let width = byteCount &* 8
        var v: Int64 = .min &>> Int64(64 &- width)
        var status = x87Status
        let stack = isEmpty(0)
        if !stack {
            if let r = status.integer(readST(0), width: width, truncating: truncating) {
                v = r
            } else {
                status.flags |= FloatFlag.invalid
            }
        }
        return store(
            a, UInt64(byteCount), alignment: UInt64(byteCount), status, stack: stack, stopping: FloatFlag.early,
            pop: pop,
            at: rip
        ) {
            switch byteCount {
            case 2: return storeOperand(a, UInt16(truncatingIfNeeded: v), at: rip)
            case 4: return storeOperand(a, UInt32(truncatingIfNeeded: v), at: rip)
            default: return storeOperand(a, UInt64(bitPattern: v), at: rip)
            }
        }
    }

    private func storeTenBytes(
        _ a: UInt64, _ m: UInt64, _ e: UInt16, _ status: FloatStatus, stack: Bool, at rip: UInt64
    ) -> Bool {
        store(a, 10, alignment: 8, status, stack: stack, stopping: FloatFlag.early, pop: true, at: rip) {
            write(a, m, user: userMode, at: rip) && write(a &+ 8, e, user: userMode, at: rip)
        }
    }

    /// FSTP m80.
    private func storeExtended(_ a: UInt64, at rip: UInt64) -> Bool {
        let stack = isEmpty(0)
        let (m, e) = stack ? SoftNumber.indefinite.extended : (mantissa(x87Top), exponent(x87Top))
        return storeTenBytes(a, m, e, x87Status, stack: stack, at: rip)
    }

    /// FBSTP: 18 decimal digits.
    private func storeDecimal(_ a: UInt64, at rip: UInt64) -> Bool {
        var m: UInt64 = 0xc000_0000_0000_0000, e: UInt16 = 0xffff
        var status = x87Status
        let n = readST(0)
        if let v = status.integer(n, width: 64, truncating: false), v.magnitude < 1_000_000_000_000_000_000 {
            var rest = v.magnitude
            var digits = [UInt64](repeating: 0, count: 18)
            for i in 0..<18 {
                digits[i] = rest % 10
                rest /= 10
            }
            m = (0..<16).reduce(0) { $0 | digits[$1] &<< UInt64($1 &* 4) }
            e = UInt16(digits[16] | digits[17] &<< 4) | (n.negative ? 0x8000 : 0)
        } else {
            status.flags = FloatFlag.invalid
            status.roundedUp = false
        }
        let stack = isEmpty(0)
        if stack { (m, e) = (0xc000_0000_0000_0000, 0xffff) }
        return storeTenBytes(a, m, e, status, stack: stack, at: rip)
    }
}
