// Delivery of exceptions and interrupts: through a 64-bit IDT [APM2 8.9], gates of protected mode [APM2 8.7] and the
// real-mode vector table [APM2 8.6]; double and triple faults [APM2 8.2.9].

import CX86State
import X86Defs

extension Processor {
    /// Delivers an event at RIP. False: an exit has been prepared (shutdown, or the hypervisor must act first; then the
    /// event is kept and delivered by the next run), or it must be done alone (the event is kept, too).
    /// `rip`: where a fault on the way is reported, if not at RIP (software interrupts).
    func deliver(_ event: Event, faultsAt rip: UInt64? = nil) -> Bool {
        var event = event
        var attempts = 0
        if event.kind == .exception && event.vector == 1 { s.pointee.dr.7 &= ~(1 &<< 13) }  // GD.
        while true {
            // #AC whose delivery is misaligned leads to the next one, without end, as in a processor; but slices end.
            attempts &+= 1
            if attempts > 16 {
                prepareExit(.interrupt, at: s.pointee.rip)
                injected = event
                return false
            }
            s.pointee.shadow = 0
            if deliverOnce(event) { return true }
            if s.pointee.leave == UInt32(X86_LEAVE_EXIT) || s.pointee.leave == UInt32(X86_LEAVE_ALONE) {
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
        guard isProtectedMode else { return deliverInRealMode(event, at: rip) }
        guard isLongModeActive else { return deliverInProtectedMode(event, at: rip) }
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
        let newCPL = code.attributes & 4 != 0 ? s.pointee.cpl : UInt32(code.attributes &>> 5) & 3
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
        var frame: [UInt64] = [
            UInt64(s.pointee.ss.selector), get(s, Slot.rsp), flagsToPush(event), UInt64(s.pointee.cs.selector),
            instructionPointer(rip),
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
        put(s, Slot.rsp, bottom)
        enterHandler(code, selector, cpl: newCPL, target: target, interruptGate: type == 0xe)
        return true
    }

    /// RF is set for faults: the instruction is to be repeated. An instruction breakpoint is the exception: its handler sets
    /// RF [APM2 3.1.6].
    private func flagsToPush(_ event: Event) -> UInt64 {
        let flags = composeFlags(s)
        let isFault = event.kind == .exception && event.vector != 1 && event.vector != 3 && event.vector != 4
        return isFault || event.isDebugFault ? flags | RFLAGS.rf : flags
    }

    private func enterHandler(
        _ code: x86_segment, _ selector: UInt16, cpl: UInt32, target: UInt64, interruptGate: Bool
    ) {
        s.pointee.system_flags &= ~(RFLAGS.tf | RFLAGS.nt | RFLAGS.rf | RFLAGS.vm)
        if interruptGate { s.pointee.system_flags &= ~RFLAGS.if }
        enterCode(code, cpl: cpl)
        s.pointee.rip = linearInstruction(target)
        s.pointee.link = nil
    }

    // MARK: Without long mode

    /// Through the vector table: IP, CS and FLAGS, no error code.
    private func deliverInRealMode(_ event: Event, at rip: UInt64) -> Bool {
        let entry = UInt64(event.vector) &* 4
        guard entry &+ 3 <= UInt64(s.pointee.idt_limit) else {
            prepareException(13, error: UInt32(event.vector) &* 8 | 2, at: rip)
            return false
        }
        guard let target: UInt32 = read(s.pointee.idt_base &+ entry, user: false, at: rip) else { return false }
        if event.kind == .exception && event.vector == 14 { s.pointee.cr2 = s.pointee.fault_address }
        var stack = currentStack
        guard push(&stack, composeFlags(s), 2, at: rip), push(&stack, UInt64(s.pointee.cs.selector), 2, at: rip),
            push(&stack, instructionPointer(rip), 2, at: rip)
        else { return false }
        commit(stack)
        s.pointee.system_flags &= ~(RFLAGS.tf | RFLAGS.if | RFLAGS.ac | RFLAGS.rf)
        enterRealModeCode(UInt16(truncatingIfNeeded: target &>> 16))
        s.pointee.rip = linearInstruction(UInt64(target & 0xffff))
        s.pointee.link = nil
        return true
    }

    /// Through a 16-bit or 32-bit gate of 8 bytes.
    private func deliverInProtectedMode(_ event: Event, at rip: UInt64) -> Bool {
        let external: UInt32 = event.kind == .software ? 0 : 1
        let gateError = UInt32(event.vector) &* 8 | 2 | external
        if event.kind == .exception && event.vector == 14 { s.pointee.cr2 = s.pointee.fault_address }
        let gateOffset = UInt64(event.vector) &* 8
        guard gateOffset &+ 7 <= UInt64(s.pointee.idt_limit) else {
            prepareException(13, error: gateError, at: rip)
            return false
        }
        guard let gate: UInt64 = read(s.pointee.idt_base &+ gateOffset, user: false, at: rip) else { return false }
        let type = (gate &>> 40) & 0x1f
        let isTask = type == 5
        guard isTask || [6, 7, 14, 15].contains(type),
            event.kind != .software || (gate &>> 45) & 3 >= UInt64(s.pointee.cpl)
        else {
            prepareException(13, error: gateError, at: rip)
            return false
        }
        guard gate & (1 &<< 47) != 0 else {
            prepareException(11, error: gateError, at: rip)
            return false
        }
        if isTask {
            refuseTaskSwitch(at: rip)
            return false
        }
        let wide = type & 8 != 0
        let target = (gate & 0xffff) | (wide ? (gate &>> 32) & 0xffff_0000 : 0)
        let selector = UInt16(truncatingIfNeeded: gate &>> 16)
        guard let code = codeSegment(selector, external: external, at: rip) else { return false }
        let cpl = s.pointee.cpl, dpl = UInt32(code.attributes &>> 5) & 3
        guard dpl <= cpl else {
            prepareException(13, error: UInt32(selector & ~3) | external, at: rip)
            return false
        }
        let newCPL = code.attributes & 4 != 0 ? cpl : dpl
        var stack = currentStack
        let byteCount = wide ? 4 : 2
        if newCPL != cpl {
            guard let inner = innerStack(newCPL, external: external, at: rip) else { return false }
            stack = inner
            guard push(&stack, UInt64(s.pointee.ss.selector), byteCount, at: rip),
                push(&stack, get(s, Slot.rsp), byteCount, at: rip)
            else { return false }
        }
        guard target <= UInt64(code.limit) else {
            prepareException(13, error: external, at: rip)
            return false
        }
        guard push(&stack, flagsToPush(event), byteCount, at: rip),
            push(&stack, UInt64(s.pointee.cs.selector), byteCount, at: rip),
            push(&stack, instructionPointer(rip), byteCount, at: rip)
        else { return false }
        if let error = event.errorCode {
            guard push(&stack, UInt64(error), byteCount, at: rip) else { return false }
        }
        if newCPL != cpl { s.pointee.ss = stack.segment }
        commit(stack)
        enterHandler(code, selector, cpl: newCPL, target: target, interruptGate: type & 1 == 0)
        return true
    }
}
