// Descriptors and segment registers in long mode [APM2 4.8], far transfers, SYSCALL and friends.

import CX86State
import X86Defs

enum SegmentIndex: Int {
    case es, cs, ss, ds, fs, gs
}

extension Processor {
    /// The 8 bytes of a descriptor, with its address; nil: #GP (or a fault of the table access) is prepared.
    func descriptor(_ selector: UInt16, vector: UInt32 = 13, external: UInt32 = 0, at rip: UInt64) -> (UInt64, UInt64)?
    {
        let offset = UInt64(selector & ~7)
        let local = selector & 4 != 0
        let base = local ? s.pointee.ldtr.base : s.pointee.gdt_base
        let limit = local ? UInt64(s.pointee.ldtr.limit) : UInt64(s.pointee.gdt_limit)
        guard offset &+ 7 <= limit, !local || s.pointee.ldtr.selector & ~3 != 0 else {
            prepareException(vector, error: UInt32(selector & ~3) | external, at: rip)
            return nil
        }
        guard let d: UInt64 = read(base &+ offset, user: false, at: rip) else { return nil }
        return (d, base &+ offset)
    }

    func unpack(_ d: UInt64, _ selector: UInt16) -> x86_segment {
        let attributes = UInt16(truncatingIfNeeded: (d &>> 40) & 0xff | (d &>> 44) & 0xf00)
        var limit = UInt32(truncatingIfNeeded: d & 0xffff | (d &>> 32) & 0xf_0000)
        if attributes & 0x800 != 0 { limit = limit &<< 12 | 0xfff }
        let base = (d &>> 16) & 0xff_ffff | (d &>> 32) & 0xff00_0000
        return x86_segment(base: base, limit: limit, selector: selector, attributes: attributes)
    }

    /// A present code segment for an interrupt or far transfer.
    func codeSegment(_ selector: UInt16, external: UInt32 = 0, at rip: UInt64) -> x86_segment? {
        guard selector & ~3 != 0 else {
            prepareException(13, error: external, at: rip)
            return nil
        }
        guard let (d, address) = descriptor(selector, external: external, at: rip) else { return nil }
        let segment = unpack(d, selector)
        guard segment.attributes & 0x18 == 0x18 else {
            prepareException(13, error: UInt32(selector & ~3) | external, at: rip)
            return nil
        }
        guard segment.attributes & 0x80 != 0 else {
            prepareException(11, error: UInt32(selector & ~3) | external, at: rip)
            return nil
        }
        return markAccessed(d, address, at: rip) ? segment : nil
    }

    private func markAccessed(_ d: UInt64, _ address: UInt64, at rip: UInt64) -> Bool {
        d & (1 &<< 40) != 0 || write(address, d | (1 &<< 40), user: false, at: rip)
    }

    /// MOV or POP to ES, SS, DS, FS, GS.
    func loadSegment(_ index: SegmentIndex, _ selector: UInt16, at rip: UInt64) -> Bool {
        let cpl = UInt16(s.pointee.cpl)
        if selector & ~3 == 0 {
            if index == .ss, cpl == 3 || selector & 3 != cpl {
                prepareException(13, error: 0, at: rip)
                return false
            }
            // A null selector keeps the base of FS and GS on AMD processors only if nothing else; it is cleared here.
            setSegment(index, x86_segment(base: 0, limit: 0, selector: selector, attributes: 0))
            return true
        }
        guard let (d, address) = descriptor(selector, at: rip) else { return false }
        let segment = unpack(d, selector)
        let type = segment.attributes & 0x1f, dpl = (segment.attributes &>> 5) & 3, rpl = selector & 3
        let isData = type & 0x18 == 0x10
        let wrong: Bool
        if index == .ss {
            wrong = !isData || type & 2 == 0 || rpl != cpl || dpl != cpl
        } else {
            let readable = isData || type & 0x1a == 0x1a
            let conforming = type & 0x1c == 0x1c
            wrong = !readable || (!conforming && (rpl > dpl || cpl > dpl))
        }
        guard !wrong else {
            prepareException(13, error: UInt32(selector & ~3), at: rip)
            return false
        }
        guard segment.attributes & 0x80 != 0 else {
            prepareException(index == .ss ? 12 : 11, error: UInt32(selector & ~3), at: rip)
            return false
        }
        guard markAccessed(d, address, at: rip) else { return false }
        setSegment(index, segment)
        return true
    }

    private func setSegment(_ index: SegmentIndex, _ value: x86_segment) {
        switch index {
        case .es: s.pointee.es = value
        case .cs: s.pointee.cs = value
        case .ss: s.pointee.ss = value
        case .ds: s.pointee.ds = value
        case .fs:
            s.pointee.fs_seg = value
            s.pointee.fs_base = value.base
        case .gs:
            s.pointee.gs_seg = value
            s.pointee.gs_base = value.base
        }
    }

    func selector(_ index: SegmentIndex) -> UInt16 {
        switch index {
        case .es: return s.pointee.es.selector
        case .cs: return s.pointee.cs.selector
        case .ss: return s.pointee.ss.selector
        case .ds: return s.pointee.ds.selector
        case .fs: return s.pointee.fs_seg.selector
        case .gs: return s.pointee.gs_seg.selector
        }
    }

    /// LLDT and LTR: a 16-byte system descriptor.
    func loadSystemSegment(_ selector: UInt16, task: Bool, at rip: UInt64) -> Bool {
        if !task && selector & ~3 == 0 {
            s.pointee.ldtr = x86_segment(base: 0, limit: 0, selector: selector, attributes: 0)
            return true
        }
        guard selector & ~3 != 0, selector & 4 == 0 else {
            prepareException(13, error: UInt32(selector & ~3), at: rip)
            return false
        }
        guard let (d, address) = descriptor(selector, at: rip) else { return false }
        guard UInt64(selector & ~7) &+ 15 <= UInt64(s.pointee.gdt_limit),
            let high: UInt64 = read(address &+ 8, user: false, at: rip)
        else {
            if s.pointee.leave == UInt32(X86_LEAVE_LOOKUP) {
                prepareException(13, error: UInt32(selector & ~3), at: rip)
            }
            return false
        }
        var segment = unpack(d, selector)
        segment.base |= (high & 0xffff_ffff) &<< 32
        guard segment.attributes & 0x1f == (task ? 9 : 2) else {
            prepareException(13, error: UInt32(selector & ~3), at: rip)
            return false
        }
        guard segment.attributes & 0x80 != 0 else {
            prepareException(11, error: UInt32(selector & ~3), at: rip)
            return false
        }
        if task {
            guard write(address, d | (2 &<< 40), user: false, at: rip) else { return false }  // Busy.
            segment.attributes |= 2
            s.pointee.tr = segment
        } else {
            s.pointee.ldtr = segment
        }
        return true
    }

    // MARK: Far transfers

    private func enterCode(_ cs: x86_segment, cpl: UInt32) {
        s.pointee.cs = cs
        s.pointee.cs.selector = (cs.selector & ~3) | UInt16(cpl)
        s.pointee.cpl = cpl
        updateJumpKey()
    }

    /// IRETQ.
    func interruptReturn(at rip: UInt64) {
        let user = userMode
        let rsp: UInt64 = get(s, Slot.rsp)
        guard let newRIP: UInt64 = read(rsp, user: user, at: rip),
            let newCS: UInt64 = read(rsp &+ 8, user: user, at: rip),
            let newFlags: UInt64 = read(rsp &+ 16, user: user, at: rip),
            let newRSP: UInt64 = read(rsp &+ 24, user: user, at: rip),
            let newSS: UInt64 = read(rsp &+ 32, user: user, at: rip)
        else { return }
        let selector = UInt16(truncatingIfNeeded: newCS), ss = UInt16(truncatingIfNeeded: newSS)
        guard let code = codeSegment(selector, at: rip) else { return }
        let rpl = UInt32(selector & 3), dpl = UInt32(code.attributes &>> 5) & 3
        guard rpl >= s.pointee.cpl, code.attributes & 4 != 0 ? dpl <= rpl : dpl == rpl else {
            prepareException(13, error: UInt32(selector & ~3), at: rip)
            return
        }
        guard code.attributes & 0x200 != 0 else {
            return prepareUnimplemented("a return to compatibility mode", at: rip)
        }
        guard isCanonical(newRIP) else {
            prepareException(13, error: 0, at: rip)
            return
        }
        let oldCPL = s.pointee.cpl
        if ss & ~3 == 0 {
            guard rpl != 3, UInt32(ss & 3) == rpl else {
                prepareException(13, error: UInt32(ss & ~3), at: rip)
                return
            }
            s.pointee.ss = x86_segment(base: 0, limit: 0, selector: ss, attributes: 0)
        } else {
            guard let (d, _) = descriptor(ss, at: rip) else { return }
            let segment = unpack(d, ss)
            let stackDPL = UInt32(segment.attributes &>> 5) & 3
            guard UInt32(ss & 3) == rpl, stackDPL == rpl, segment.attributes & 0x1a == 0x12 else {
                prepareException(13, error: UInt32(ss & ~3), at: rip)
                return
            }
            guard segment.attributes & 0x80 != 0 else {
                prepareException(12, error: UInt32(ss & ~3), at: rip)
                return
            }
            s.pointee.ss = segment
        }
        setFlags(newFlags, cpl: oldCPL)
        enterCode(code, cpl: rpl)
        put(s, Slot.rsp, newRSP)
        continueAt(newRIP, check: true)
    }

    /// RET far with a 64-bit or 32-bit operand.
    func farReturn(wide: Bool, release: UInt64, at rip: UInt64) {
        let user = userMode
        let rsp: UInt64 = get(s, Slot.rsp)
        let newRIP: UInt64, newCS: UInt64
        if wide {
            guard let a: UInt64 = read(rsp, user: user, at: rip), let b: UInt64 = read(rsp &+ 8, user: user, at: rip)
            else {
                return
            }
            (newRIP, newCS) = (a, b)
        } else {
            guard let a: UInt32 = read(rsp, user: user, at: rip), let b: UInt32 = read(rsp &+ 4, user: user, at: rip)
            else {
                return
            }
            (newRIP, newCS) = (UInt64(a), UInt64(b))
        }
        guard farJump(to: newRIP, UInt16(truncatingIfNeeded: newCS), returning: true, at: rip) else { return }
        put(s, Slot.rsp, rsp &+ (wide ? 16 : 8) &+ release)
    }

    /// A far jump, or a far return at the same level.
    @discardableResult
    func farJump(to target: UInt64, _ selector: UInt16, returning: Bool, at rip: UInt64) -> Bool {
        guard let code = codeSegment(selector, at: rip) else { return false }
        guard code.attributes & 0x200 != 0, !returning || UInt32(selector & 3) == s.pointee.cpl else {
            prepareUnimplemented("a far transfer out of 64-bit mode or between privilege levels", at: rip)
            return false
        }
        guard isCanonical(target) else {
            prepareException(13, error: 0, at: rip)
            return false
        }
        enterCode(code, cpl: s.pointee.cpl)
        continueAt(target, check: false)
        return true
    }

    func systemCall(at rip: UInt64, next: UInt64) {
        guard s.pointee.efer & EFER.sce != 0 else { return prepareException(6, at: rip) }
        put(s, Slot.gpr(1), next)
        put(s, Slot.gpr(11), composeFlags(s) & ~RFLAGS.rf)
        let selector = UInt16(truncatingIfNeeded: s.pointee.star &>> 32) & ~3
        setFlags(composeFlags(s) & ~s.pointee.sfmask & ~RFLAGS.rf, cpl: 0)
        s.pointee.ss = x86_segment(base: 0, limit: 0xffff_ffff, selector: selector &+ 8, attributes: 0xc93)
        enterCode(x86_segment(base: 0, limit: 0xffff_ffff, selector: selector, attributes: 0xa9b), cpl: 0)
        continueAt(s.pointee.lstar, check: false)
    }

    func systemReturn(wide: Bool, at rip: UInt64) {
        guard s.pointee.efer & EFER.sce != 0 else { return prepareException(6, at: rip) }
        guard s.pointee.cpl == 0 else { return prepareException(13, error: 0, at: rip) }
        guard wide else { return prepareUnimplemented("SYSRET to compatibility mode", at: rip) }
        let base = UInt16(truncatingIfNeeded: s.pointee.star &>> 48)
        setFlags(get(s, Slot.gpr(11)), cpl: 0)
        // SYSRET changes only the selector of SS; the rest of it was set by SYSCALL or the kernel.
        s.pointee.ss = x86_segment(base: 0, limit: 0xffff_ffff, selector: (base &+ 8) | 3, attributes: 0xcf3)
        enterCode(x86_segment(base: 0, limit: 0xffff_ffff, selector: base &+ 16, attributes: 0xafb), cpl: 3)
        continueAt(get(s, Slot.gpr(1)), check: true)
    }

    func continueAt(_ rip: UInt64, check: Bool) {
        s.pointee.rip = rip
        s.pointee.link = nil
        s.pointee.leave = UInt32(check ? X86_LEAVE_CHECK : X86_LEAVE_LOOKUP)
    }

    /// Sets RFLAGS as POPF, IRET or SYSRET may at this privilege.
    func setFlags(_ value: UInt64, cpl: UInt32) {
        var writable = RFLAGS.tf | RFLAGS.df | RFLAGS.nt | RFLAGS.ac | RFLAGS.id
        if cpl == 0 { writable |= RFLAGS.iopl }
        if cpl <= UInt32((s.pointee.system_flags & RFLAGS.iopl) &>> 12) { writable |= RFLAGS.if }
        let old = s.pointee.system_flags
        s.pointee.system_flags = (old & ~writable) | (value & writable)
        spreadArithmeticFlags(s, value)
        if (old ^ s.pointee.system_flags) & RFLAGS.ac != 0 { updateJumpKey() }
    }
}
