// Descriptors and segment registers [APM2 4.6 to 4.8].

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

    func markAccessed(_ d: UInt64, _ address: UInt64, at rip: UInt64) -> Bool {
        d & (1 &<< 40) != 0 || write(address, d | (1 &<< 40), user: false, at: rip)
    }

    /// MOV or POP to ES, SS, DS, FS, GS.
    func loadSegment(_ index: SegmentIndex, _ selector: UInt16, at rip: UInt64) -> Bool {
        let cpl = UInt16(s.pointee.cpl)
        guard isProtectedMode else {
            // Real mode: the base is all that changes; limit and rights stay, which is what "unreal" mode lives on.
            var segment = segmentRegister(index.rawValue)
            segment.selector = selector
            segment.base = UInt64(selector) &<< 4
            setSegment(index, segment)
            return true
        }
        if selector & ~3 == 0 {
            // Only 64-bit code can run without a stack segment, and not at CPL 3.
            if index == .ss, !is64BitCode || cpl == 3 || selector & 3 != cpl {
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

    func setSegment(_ index: SegmentIndex, _ value: x86_segment) {
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
        if !is64BitCode { updateContext() }
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

    /// LLDT and LTR: a system descriptor, of 16 bytes in long mode.
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
        var segment = unpack(d, selector)
        if isLongModeActive {
            guard UInt64(selector & ~7) &+ 15 <= UInt64(s.pointee.gdt_limit) else {
                prepareException(13, error: UInt32(selector & ~3), at: rip)
                return false
            }
            guard let high: UInt64 = read(address &+ 8, user: false, at: rip) else { return false }
            segment.base |= (high & 0xffff_ffff) &<< 32
            guard isCanonical(segment.base) else {
                prepareException(13, error: UInt32(selector & ~3), at: rip)
                return false
            }
        }
        let type = segment.attributes & 0x1f
        guard type == (task ? 9 : 2) || task && type == 1 && !isLongModeActive else {
            prepareException(13, error: UInt32(selector & ~3), at: rip)
            return false
        }
        guard segment.attributes & 0x80 != 0 else {
            prepareException(11, error: UInt32(selector & ~3), at: rip)
            return false
        }
        if task {
            guard setBusy(d, at: address, at: rip) else { return false }
            segment.attributes |= 2
            s.pointee.tr = segment
        } else {
            s.pointee.ldtr = segment
        }
        return true
    }

    /// Marks a TSS descriptor as busy; false: prepared to leave. The byte is the descriptor's alone, so it is in one piece.
    private func setBusy(_ d: UInt64, at address: UInt64, at rip: UInt64) -> Bool {
        guard let p = linearPointer(address &+ 5, .write, user: false, at: rip) else { return false }
        var type = UInt8(truncatingIfNeeded: d &>> 40)
        while !compareExchange(p, &type, type | 2) {}
        if debugArmed { noteDataAccess(address &+ 5, 1, write: true) }
        return true
    }

    func enterCode(_ cs: x86_segment, cpl: UInt32) {
        s.pointee.cs = cs
        s.pointee.cs.selector = (cs.selector & ~3) | UInt16(cpl)
        s.pointee.cpl = cpl
        updateContext()
    }

    /// Goes on at a linear address.
    func continueAt(_ rip: UInt64, check: Bool) {
        s.pointee.rip = rip & s.pointee.rip_mask
        s.pointee.link = nil
        s.pointee.leave = UInt32(check ? X86_LEAVE_CHECK : X86_LEAVE_LOOKUP)
    }

    /// Sets RFLAGS as POPF, IRET or SYSRET may at this privilege; RF only where the instruction takes it.
    func setFlags(_ value: UInt64, cpl: UInt32, resume: Bool = false) {
        var writable = RFLAGS.tf | RFLAGS.df | RFLAGS.nt | RFLAGS.ac | RFLAGS.id | RFLAGS.rf
        if cpl == 0 { writable |= RFLAGS.iopl }
        if cpl <= UInt32((s.pointee.system_flags & RFLAGS.iopl) &>> 12) { writable |= RFLAGS.if }
        let old = s.pointee.system_flags
        s.pointee.system_flags = (old & ~writable) | (value & writable)
        if !resume { s.pointee.system_flags &= ~RFLAGS.rf }
        spreadArithmeticFlags(s, value)
        if (old ^ s.pointee.system_flags) & RFLAGS.ac != 0 { updateJumpKey() }
    }
}
