// Instructions that are rare and long: selector inspection, CMPXCHG8B and CMPXCHG16B, ENTER.

import CX86State
import X86Defs

extension Processor {
    /// VERR, VERW, LAR, LSL: look at a descriptor without faulting on it. `base` is the selector's slot.
    func inspectSelector(_ ip: IP, at rip: UInt64) -> Bool {
        let u = ip.pointee
        let selector: UInt16 = get(s, u.base)
        let operation = SystemOperation(rawValue: u.src).unsafelyUnwrapped
        s.pointee.fz = 1
        let offset = UInt64(selector & ~7), local = selector & 4 != 0
        let base = local ? s.pointee.ldtr.base : s.pointee.gdt_base
        let limit = local ? UInt64(s.pointee.ldtr.limit) : UInt64(s.pointee.gdt_limit)
        guard selector & ~3 != 0, offset &+ 7 <= limit else { return true }
        guard let d: UInt64 = read(base &+ offset, user: false, at: rip) else { return false }
        let segment = unpack(d, selector)
        let type = segment.attributes & 0x1f, dpl = (segment.attributes &>> 5) & 3
        let isSegment = type & 0x10 != 0, isCode = type & 0x18 == 0x18
        let visible = isCode && type & 4 != 0 || dpl >= max(UInt16(s.pointee.cpl), selector & 3)
        guard visible else { return true }
        switch operation {
        case .verr: if isSegment && (!isCode || type & 2 != 0) { s.pointee.fz = 0 }
        case .verw: if isSegment && !isCode && type & 2 != 0 { s.pointee.fz = 0 }
        case .lar:
            guard isSegment || type == 2 || type == 9 || type == 11 || type == 12 else { return true }
            s.pointee.fz = 0
            // AMD's processors show the limit's upper bits too.
            putSized(u.dst, (d &>> 32) & (features.contains(.amdOrder) ? 0x00ff_ff00 : 0x00f0_ff00), Int(u.scale))
        default:
            guard isSegment || type == 2 || type == 9 || type == 11 else { return true }
            s.pointee.fz = 0
            putSized(u.dst, UInt64(segment.limit), Int(u.scale))
        }
        return true
    }

    /// CMPXCHG8B and CMPXCHG16B at the address in `dst`.
    func compareExchangePair(_ ip: IP, at rip: UInt64) -> Bool {
        let a: UInt64 = get(s, ip.pointee.dst)
        let user = userMode
        let equal: Bool
        if ip.pointee.src == SystemOperation.cmpxchg16b.rawValue {
            guard a & 15 == 0 else {
                prepareException(13, error: 0, at: rip)
                return false
            }
            guard let p = linearPointer(a, .write, user: user, at: rip) else { return false }
            var low: UInt64 = get(s, 0), high: UInt64 = get(s, Slot.gpr(2))
            equal = x86_compare_exchange_128(p, &low, &high, get(s, Slot.gpr(3)), get(s, Slot.gpr(1)))
            if !equal {
                put(s, 0, low)
                put(s, Slot.gpr(2), high)
            }
        } else {
            guard isAligned(a, 8, at: rip) else { return false }
            // Two cache lines, or two pages: the host's own would not do.
            guard a & 7 == 0 || !othersRun else { return prepareAlone(at: rip) }
            guard let p = linearPointer(a, .write, user: user, at: rip),
                linearPointer(a &+ 7, .write, user: user, at: rip) != nil
            else { return false }
            let expected = get(s, 0, as: UInt64.self) & 0xffff_ffff | get(s, Slot.gpr(2), as: UInt64.self) &<< 32
            let new = get(s, Slot.gpr(3), as: UInt64.self) & 0xffff_ffff | get(s, Slot.gpr(1), as: UInt64.self) &<< 32
            var old = expected
            if a & 7 == 0 {
                equal = compareExchange(p, &old, new)
            } else {
                guard let found: UInt64 = read(a, user: user, at: rip) else { return false }
                old = found
                equal = old == expected
                if equal, !write(a, new, user: user, at: rip) { return false }
            }
            if !equal {
                put(s, 0, UInt32(truncatingIfNeeded: old))
                put(s, Slot.gpr(2), UInt32(truncatingIfNeeded: old &>> 32))
            }
        }
        let f = composeFlags(s) & ~RFLAGS.zf
        spreadArithmeticFlags(s, equal ? f | RFLAGS.zf : f)
        return true
    }

    /// ENTER imm16, imm8; `scale`: bytes per stack element.
    func enterFrame(_ ip: IP, at rip: UInt64) -> Bool {
        let u = ip.pointee
        let level = Int(truncatingIfNeeded: (u.imm &>> 16) & 31), byteCount = u.imm & 0xffff
        let step = Int(u.scale)
        func push(_ stack: inout StackView, _ value: UInt64) -> Bool { self.push(&stack, value, step, at: rip) }
        let rbp: UInt64 = get(s, Slot.rbp)
        var stack = currentStack
        guard push(&stack, rbp) else { return false }
        let frame = stack.pointer
        if level > 0 {
            var source = stack
            source.pointer = rbp
            for _ in 1..<level {
                source.pointer = source.pointer &- UInt64(step)
                var element = source
                guard let v = pop(&element, step, at: rip), push(&stack, v) else { return false }
            }
            guard push(&stack, frame) else { return false }
        }
        // The processor probes the new stack top for writing.
        let top = (stack.pointer &- byteCount) & stack.mask
        stack.pointer = stack.pointer & ~stack.mask | top
        guard let probe = stackAddress(stack, top, step, write: true, at: rip),
            linearPointer(probe, .write, user: userMode, at: rip) != nil || takeDeviceHit() != nil
        else { return false }
        putSized(Slot.rbp, frame, step == 2 ? 2 : stack.mask == 0xffff ? 2 : step)
        commit(stack)
        return true
    }
}
