// Delivery of exceptions and interrupts through a 64-bit IDT [APM2 8.9], double and triple faults [APM2 8.2.9].

import CX86State
import X86Defs

extension Processor {
    /// Delivers an event at RIP. False: an exit has been prepared (shutdown, or the hypervisor must act first; then the
    /// event is kept and delivered by the next run).
    /// `rip`: where a fault on the way is reported, if not at RIP (software interrupts).
    func deliver(_ event: Event, faultsAt rip: UInt64? = nil) -> Bool {
        var event = event
        while true {
            s.pointee.shadow = 0
            if deliverOnce(event) { return true }
            if s.pointee.leave == UInt32(X86_LEAVE_EXIT) {
                injected = event
                return false
            }
            let second = UInt8(truncatingIfNeeded: s.pointee.vector)
            if second == 14 { s.pointee.cr2 = s.pointee.fault_address }  // Also when it becomes a double fault.
            if event.kind == .exception && event.vector == 8 {
                prepareExit(.shutdown, at: s.pointee.rip)
                return false
            }
            if let rip { s.pointee.rip = rip }
            let isDouble =
                event.kind == .exception
                && (isContributory(event.vector) && isContributory(second)
                    || event.vector == 14 && (isContributory(second) || second == 14))
            event = isDouble ? Event(vector: 8, errorCode: 0, kind: .exception) : preparedException
        }
    }

    private func isContributory(_ vector: UInt8) -> Bool {
        switch vector {
        case 0, 10, 11, 12, 13, 29: return true
        default: return false
        }
    }

    private func deliverOnce(_ event: Event) -> Bool {
        let s = self.s
        let rip = s.pointee.rip
        let external: UInt32 = event.kind == .software ? 0 : 1
        let selectorError = UInt32(event.vector) &* 8 | 2 | external
        if event.kind == .exception && event.vector == 14 { s.pointee.cr2 = s.pointee.fault_address }
        let gateOffset = UInt64(event.vector) &* 16
        guard gateOffset &+ 15 <= UInt64(s.pointee.idt_limit) else {
            prepareException(13, error: selectorError, at: rip)
            return false
        }
        let gateAddress = s.pointee.idt_base &+ gateOffset
        guard let low: UInt64 = read(gateAddress, user: false, at: rip),
            let high: UInt64 = read(gateAddress &+ 8, user: false, at: rip)
        else { return false }
        let type = (low &>> 40) & 0x1f
        guard type == 0xe || type == 0xf, event.kind != .software || (low &>> 45) & 3 >= UInt64(s.pointee.cpl) else {
            prepareException(13, error: selectorError, at: rip)
            return false
        }
        guard low & (1 &<< 47) != 0 else {
            prepareException(11, error: selectorError, at: rip)
            return false
        }
        let target = (low & 0xffff) | (low &>> 32) & 0xffff_0000 | (high & 0xffff_ffff) &<< 32
        let selector = UInt16(truncatingIfNeeded: low &>> 16)
        guard let code = codeSegment(selector & ~3, external: external, at: rip) else { return false }
        let newCPL = code.attributes & 0x400 != 0 ? s.pointee.cpl : UInt32(code.attributes &>> 5) & 3
        guard newCPL <= s.pointee.cpl, code.attributes & 0x200 != 0, isCanonical(target) else {
            prepareException(13, error: UInt32(selector & ~7) | external, at: rip)
            return false
        }
        // The stack: IST entry, else RSPn of the new level, else the current one.
        let ist = (low &>> 32) & 7
        var rsp: UInt64
        if ist != 0 {
            guard let v: UInt64 = readTSS(28 &+ ist &* 8, at: rip) else { return false }
            rsp = v
        } else if newCPL != s.pointee.cpl {
            guard let v: UInt64 = readTSS(4 &+ UInt64(newCPL) &* 8, at: rip) else { return false }
            rsp = v
        } else {
            rsp = get(s, Slot.rsp)
        }
        rsp &= ~15
        var flags = composeFlags(s)
        if event.kind == .exception && event.vector != 1 && event.vector != 3 && event.vector != 4 {
            flags |= RFLAGS.rf
        }
        var frame: [UInt64] = [
            UInt64(s.pointee.ss.selector), get(s, Slot.rsp), flags, UInt64(s.pointee.cs.selector), rip,
        ]
        if let error = event.errorCode { frame.append(UInt64(error)) }
        let bottom = rsp &- UInt64(frame.count &* 8)
        let user = newCPL == 3
        for (i, value) in frame.enumerated() {
            guard write(rsp &- UInt64((i &+ 1) &* 8), value, user: user, at: rip) else { return false }
        }
        if newCPL != s.pointee.cpl {
            s.pointee.ss = x86_segment(base: 0, limit: 0, selector: UInt16(newCPL), attributes: 0)
        }
        s.pointee.cs = code
        s.pointee.cs.selector = (selector & ~3) | UInt16(newCPL)
        put(s, Slot.rsp, bottom)
        s.pointee.system_flags &= ~(RFLAGS.tf | RFLAGS.nt | RFLAGS.rf | RFLAGS.vm)
        if type == 0xe { s.pointee.system_flags &= ~RFLAGS.if }
        s.pointee.cpl = newCPL
        updateJumpKey()
        s.pointee.rip = target
        s.pointee.link = nil
        return true
    }

    private func readTSS(_ offset: UInt64, at rip: UInt64) -> UInt64? {
        guard offset &+ 7 <= UInt64(s.pointee.tr.limit) else {
            prepareException(10, error: UInt32(s.pointee.tr.selector & ~7), at: rip)
            return nil
        }
        guard let v: UInt64 = read(s.pointee.tr.base &+ offset, user: false, at: rip) else { return nil }
        guard isCanonical(v) else {
            prepareException(12, error: 0, at: rip)
            return nil
        }
        return v
    }
}
