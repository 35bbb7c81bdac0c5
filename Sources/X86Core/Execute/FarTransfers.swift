// Far jumps, calls, returns and IRET in every mode [APM2 4.7, APM3]: direct, through call gates, between privilege
// levels, and between 16-bit, 32-bit and 64-bit code. Task switches and virtual-8086 mode stop with their names.

import CX86State
import X86Defs

extension Processor {
    private func fault(_ vector: UInt32, _ error: UInt16, at rip: UInt64) {
        prepareException(vector, error: UInt32(error), at: rip)
    }

    private func truncated(_ value: UInt64, _ byteCount: Int) -> UInt64 {
        byteCount == 2 ? value & 0xffff : byteCount == 4 ? value & 0xffff_ffff : value
    }

    func refuseTaskSwitch(at rip: UInt64) { prepareUnimplemented("a hardware task switch", at: rip) }

    /// Is the offset inside the code segment, or canonical for 64-bit code? Else #GP(0).
    private func isTarget(_ offset: UInt64, of code: x86_segment, at rip: UInt64) -> Bool {
        let good =
            isLongModeActive && code.attributes & 0x200 != 0 ? isCanonical(offset) : offset <= UInt64(code.limit)
        if !good { fault(13, 0, at: rip) }
        return good
    }

    /// A code descriptor for a transfer, without looking at privilege. L together with D is reserved in long mode.
    private func codeDescriptor(_ selector: UInt16, at rip: UInt64) -> (segment: x86_segment, raw: UInt64, at: UInt64)?
    {
        guard selector & ~3 != 0 else {
            fault(13, 0, at: rip)
            return nil
        }
        guard let (d, address) = descriptor(selector, at: rip) else { return nil }
        return (unpack(d, selector), d, address)
    }

    // MARK: JMP and CALL

    /// A far JMP or CALL with an operand of `byteCount` offset bytes.
    func farTransfer(call: Bool, _ selector: UInt16, _ offset: UInt64, _ byteCount: Int, at rip: UInt64, next: UInt64) {
        let offset = truncated(offset, byteCount)
        guard isProtectedMode else {
            guard offset <= UInt64(s.pointee.cs.limit) else { return fault(13, 0, at: rip) }
            if call {
                var stack = currentStack
                guard push(&stack, UInt64(s.pointee.cs.selector), byteCount, at: rip),
                    push(&stack, instructionPointer(next), byteCount, at: rip)
                else { return }
                commit(stack)
            }
            enterRealModeCode(selector)
            return continueAt(linearInstruction(offset), check: false)
        }
        guard let found = codeDescriptor(selector, at: rip) else { return }
        let code = found.segment
        let dpl = UInt32(code.attributes &>> 5) & 3, rpl = UInt32(selector & 3), cpl = s.pointee.cpl
        let type = code.attributes & 0x1f
        guard type & 0x10 != 0 else {
            return throughSystemDescriptor(call: call, code, found.raw, found.at, at: rip, next: next)
        }
        let allowed = type & 4 != 0 ? dpl <= cpl : rpl <= cpl && dpl == cpl
        guard type & 8 != 0, allowed, !(isLongModeActive && code.attributes & 0x600 == 0x600) else {
            return fault(13, selector & ~3, at: rip)
        }
        guard code.attributes & 0x80 != 0 else { return fault(11, selector & ~3, at: rip) }
        var target = offset
        if !(isLongModeActive && code.attributes & 0x200 != 0) { target &= 0xffff_ffff }
        guard isTarget(target, of: code, at: rip) else { return }
        if call {
            var stack = currentStack
            guard push(&stack, UInt64(s.pointee.cs.selector), byteCount, at: rip),
                push(&stack, instructionPointer(next), byteCount, at: rip), markAccessed(found.raw, found.at, at: rip)
            else { return }
            commit(stack)
        } else {
            guard markAccessed(found.raw, found.at, at: rip) else { return }
        }
        enterCode(code, cpl: cpl)
        continueAt(linearInstruction(target), check: false)
    }

    func enterRealModeCode(_ selector: UInt16) {
        s.pointee.cs.selector = selector
        s.pointee.cs.base = UInt64(selector) &<< 4
        updateContext()
    }

    /// A transfer to something that is no code segment: a call gate, or a task.
    private func throughSystemDescriptor(
        call: Bool, _ segment: x86_segment, _ d: UInt64, _ address: UInt64, at rip: UInt64, next: UInt64
    ) {
        let selector = segment.selector, type = segment.attributes & 0xf
        let long = isLongModeActive
        let dpl = UInt32(segment.attributes &>> 5) & 3
        let isGate = type == 0xc || !long && type == 4
        let isTask = !long && (type == 5 || type == 1 || type == 9)
        guard isGate || isTask, dpl >= s.pointee.cpl, dpl >= UInt32(selector & 3) else {
            return fault(13, selector & ~3, at: rip)
        }
        guard segment.attributes & 0x80 != 0 else { return fault(11, selector & ~3, at: rip) }
        if isTask { return refuseTaskSwitch(at: rip) }
        var target = (d & 0xffff) | (type == 4 ? 0 : (d &>> 32) & 0xffff_0000)
        if long {
            // The second half: bits 63:32 of the target, and a type field that must be 0.
            let limit = selector & 4 != 0 ? UInt64(s.pointee.ldtr.limit) : UInt64(s.pointee.gdt_limit)
            guard UInt64(selector & ~7) &+ 15 <= limit else { return fault(13, selector & ~3, at: rip) }
            guard let high: UInt64 = read(address &+ 8, user: false, at: rip) else { return }
            guard (high &>> 40) & 0x1f == 0 else { return fault(13, selector & ~3, at: rip) }
            target |= (high & 0xffff_ffff) &<< 32
        }
        let codeSelector = UInt16(truncatingIfNeeded: d &>> 16)
        guard let found = codeDescriptor(codeSelector, at: rip) else { return }
        let code = found.segment
        let codeDPL = UInt32(code.attributes &>> 5) & 3, cpl = s.pointee.cpl
        let conforming = code.attributes & 4 != 0
        guard code.attributes & 0x18 == 0x18, call || conforming ? codeDPL <= cpl : codeDPL == cpl,
            !long || code.attributes & 0x600 == 0x200
        else { return fault(13, codeSelector & ~3, at: rip) }
        guard code.attributes & 0x80 != 0 else { return fault(11, codeSelector & ~3, at: rip) }
        let byteCount = long ? 8 : type == 4 ? 2 : 4
        guard call else {
            guard isTarget(target, of: code, at: rip), markAccessed(found.raw, found.at, at: rip) else { return }
            enterCode(code, cpl: cpl)
            return continueAt(linearInstruction(target), check: false)
        }
        let cs = UInt64(s.pointee.cs.selector), back = instructionPointer(next)
        if conforming || codeDPL == cpl {
            var stack = currentStack
            if long { stack.mask = .max }
            guard isTarget(target, of: code, at: rip), push(&stack, cs, byteCount, at: rip),
                push(&stack, back, byteCount, at: rip), markAccessed(found.raw, found.at, at: rip)
            else { return }
            enterCode(code, cpl: cpl)
            setStackPointer(stack.pointer, mask: stack.mask)
            return continueAt(linearInstruction(target), check: false)
        }
        // A more privileged stack, with the caller's parameters copied to it.
        let old = currentStack
        guard var stack = innerStack(codeDPL, external: 0, at: rip) else { return }
        guard isTarget(target, of: code, at: rip), push(&stack, UInt64(s.pointee.ss.selector), byteCount, at: rip),
            push(&stack, get(s, Slot.rsp), byteCount, at: rip)
        else { return }
        var count = long ? 0 : Int((d &>> 32) & 31)
        while count > 0 {
            count &-= 1
            var from = old
            from.pointer = old.pointer &+ UInt64(count &* byteCount)
            guard let v = pop(&from, byteCount, at: rip), push(&stack, v, byteCount, at: rip) else { return }
        }
        guard push(&stack, cs, byteCount, at: rip), push(&stack, back, byteCount, at: rip),
            markAccessed(found.raw, found.at, at: rip)
        else { return }
        s.pointee.ss = stack.segment
        enterCode(code, cpl: codeDPL)
        setStackPointer(stack.pointer, mask: long ? .max : stack.mask)
        continueAt(linearInstruction(target), check: false)
    }

    /// The stack of a more privileged level, from the TSS [APM2 12.2.2, 12.3.1]. nil: #TS, #SS or a fault of the TSS's
    /// page has been prepared.
    func innerStack(_ level: UInt32, external: UInt32, at rip: UInt64) -> StackView? {
        if isLongModeActive {
            guard let v = readTSS(4 &+ UInt64(level) &* 8, at: rip) else { return nil }
            return StackView(
                segment: x86_segment(base: 0, limit: 0, selector: UInt16(level), attributes: 0), pointer: v, mask: .max,
                user: false)
        }
        let wide = s.pointee.tr.attributes & 8 != 0
        let place = wide ? 4 &+ UInt64(level) &* 8 : 2 &+ UInt64(level) &* 4
        guard place &+ (wide ? 7 : 3) <= UInt64(s.pointee.tr.limit) else {
            prepareException(10, error: UInt32(s.pointee.tr.selector & ~7) | external, at: rip)
            return nil
        }
        let base = s.pointee.tr.base &+ place
        let pointer: UInt64, selector: UInt16
        if wide {
            guard let p: UInt32 = read(base, user: false, at: rip),
                let v: UInt16 = read(base &+ 4, user: false, at: rip)
            else { return nil }
            (pointer, selector) = (UInt64(p), v)
        } else {
            guard let p: UInt16 = read(base, user: false, at: rip),
                let v: UInt16 = read(base &+ 2, user: false, at: rip)
            else { return nil }
            (pointer, selector) = (UInt64(p), v)
        }
        let error = UInt32(selector & ~3) | external
        guard selector & ~3 != 0 else {
            prepareException(10, error: external, at: rip)
            return nil
        }
        guard let (d, address) = descriptor(selector, vector: 10, external: external, at: rip) else { return nil }
        let segment = unpack(d, selector)
        guard UInt32(selector & 3) == level, UInt32(segment.attributes &>> 5) & 3 == level,
            segment.attributes & 0x1a == 0x12
        else {
            prepareException(10, error: error, at: rip)
            return nil
        }
        guard segment.attributes & 0x80 != 0 else {
            prepareException(12, error: error, at: rip)
            return nil
        }
        guard markAccessed(d, address, at: rip) else { return nil }
        return StackView(
            segment: segment, pointer: pointer, mask: segment.attributes & 0x400 != 0 ? 0xffff_ffff : 0xffff,
            user: level == 3, errorCode: error)
    }

    /// A stack pointer out of a 64-bit TSS.
    func readTSS(_ offset: UInt64, at rip: UInt64) -> UInt64? {
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

    // MARK: RET and IRET

    /// The code segment that a return names, present and of the level that its RPL says.
    private func returnCode(_ selector: UInt16, at rip: UInt64) -> x86_segment? {
        guard let found = codeDescriptor(selector, at: rip) else { return nil }
        let code = found.segment
        let rpl = UInt32(selector & 3), dpl = UInt32(code.attributes &>> 5) & 3
        guard code.attributes & 0x18 == 0x18, rpl >= s.pointee.cpl, code.attributes & 4 != 0 ? dpl <= rpl : dpl == rpl,
            !(isLongModeActive && code.attributes & 0x600 == 0x600)
        else {
            fault(13, selector & ~3, at: rip)
            return nil
        }
        guard code.attributes & 0x80 != 0 else {
            fault(11, selector & ~3, at: rip)
            return nil
        }
        return markAccessed(found.raw, found.at, at: rip) ? code : nil
    }

    /// The stack segment that a return names.
    private func returnStack(_ selector: UInt16, level: UInt32, to code: x86_segment, at rip: UInt64) -> x86_segment? {
        guard selector & ~3 != 0 else {
            // Only 64-bit code below CPL 3 can do without.
            guard isLongModeActive, code.attributes & 0x200 != 0, level != 3, UInt32(selector & 3) == level else {
                fault(13, selector & ~3, at: rip)
                return nil
            }
            return x86_segment(base: 0, limit: 0, selector: selector, attributes: 0)
        }
        guard let (d, address) = descriptor(selector, at: rip) else { return nil }
        let segment = unpack(d, selector)
        guard UInt32(selector & 3) == level, UInt32(segment.attributes &>> 5) & 3 == level,
            segment.attributes & 0x1a == 0x12
        else {
            fault(13, selector & ~3, at: rip)
            return nil
        }
        guard segment.attributes & 0x80 != 0 else {
            fault(12, selector & ~3, at: rip)
            return nil
        }
        return markAccessed(d, address, at: rip) ? segment : nil
    }

    /// On the way to a less privileged level: data segments that it may not have become null. The bases of FS and GS stay,
    /// as processors keep them.
    private func dropPrivilegedSegments() {
        let cpl = UInt16(s.pointee.cpl)
        for index in [SegmentIndex.es, .ds, .fs, .gs] {
            let segment = segmentRegister(index.rawValue)
            let isConforming = segment.attributes & 0x1c == 0x1c
            if segment.attributes & 0x80 != 0, !isConforming, (segment.attributes &>> 5) & 3 < cpl {
                let base = index == .fs ? s.pointee.fs_base : index == .gs ? s.pointee.gs_base : 0
                setSegment(index, x86_segment(base: base, limit: 0, selector: 0, attributes: 0))
            }
        }
    }

    private func mask(ofStack segment: x86_segment, under code: x86_segment) -> UInt64 {
        if isLongModeActive && code.attributes & 0x200 != 0 { return .max }
        return segment.attributes & 0x400 != 0 ? 0xffff_ffff : 0xffff
    }

    /// RET far; `release`: bytes of parameters.
    func farReturn(_ byteCount: Int, release: UInt64, at rip: UInt64) {
        // The selector is looked at first.
        var first = currentStack, stack = first
        stack.pointer = stack.pointer & ~stack.mask | (stack.pointer &+ UInt64(byteCount)) & stack.mask
        guard let cs = pop(&stack, byteCount, at: rip), let pointer = pop(&first, byteCount, at: rip) else { return }
        let selector = UInt16(truncatingIfNeeded: cs)
        stack.pointer = stack.pointer & ~stack.mask | (stack.pointer &+ release) & stack.mask
        guard isProtectedMode else {
            guard pointer <= UInt64(s.pointee.cs.limit) else { return fault(13, 0, at: rip) }
            commit(stack)
            enterRealModeCode(selector)
            return continueAt(linearInstruction(pointer), check: false)
        }
        let level = UInt32(selector & 3)
        if level != s.pointee.cpl, features.contains(.amdOrder) {
            // Another privilege level: AMD's processors look at the other stack's selector before anything is checked.
            var outer = stack
            outer.pointer = outer.pointer & ~outer.mask | (outer.pointer &+ UInt64(byteCount)) & outer.mask
            guard pop(&outer, byteCount, at: rip) != nil else { return }
        }
        guard let code = returnCode(selector, at: rip), isTarget(pointer, of: code, at: rip) else { return }
        guard level > s.pointee.cpl else {
            commit(stack)
            enterCode(code, cpl: level)
            return continueAt(linearInstruction(pointer), check: false)
        }
        guard let sp = pop(&stack, byteCount, at: rip), let ss = pop(&stack, byteCount, at: rip),
            let segment = returnStack(UInt16(truncatingIfNeeded: ss), level: level, to: code, at: rip)
        else { return }
        s.pointee.ss = segment
        enterCode(code, cpl: level)
        let mask = mask(ofStack: segment, under: code)
        put(s, Slot.rsp, truncated(sp, byteCount))
        setStackPointer(sp &+ release, mask: mask)
        dropPrivilegedSegments()
        continueAt(linearInstruction(pointer), check: false)
    }

    /// IRET, IRETD, IRETQ.
    func interruptReturn(_ byteCount: Int, at rip: UInt64) {
        if isProtectedMode, s.pointee.system_flags & RFLAGS.nt != 0 {
            if isLongModeActive { return fault(13, 0, at: rip) }
            return refuseTaskSwitch(at: rip)
        }
        if nmiBlocked {
            nmiBlocked = false
            if nmiWindowRequested { endSlice() }
        }
        var stack = currentStack
        guard let pointer = pop(&stack, byteCount, at: rip), let cs = pop(&stack, byteCount, at: rip),
            var flags = pop(&stack, byteCount, at: rip)
        else { return }
        let selector = UInt16(truncatingIfNeeded: cs)
        if byteCount == 2 { flags = flags & 0xffff | composeFlags(s) & ~0xffff & ~RFLAGS.rf }
        guard isProtectedMode else {
            guard pointer <= UInt64(s.pointee.cs.limit) else { return fault(13, 0, at: rip) }
            commit(stack)
            setFlags(flags, cpl: 0, resume: true)
            enterRealModeCode(selector)
            return continueAt(linearInstruction(pointer), check: true)
        }
        if flags & RFLAGS.vm != 0, s.pointee.cpl == 0, !isLongModeActive {
            return prepareUnimplemented("virtual-8086 mode", at: rip)
        }
        guard let code = returnCode(selector, at: rip) else { return }
        let level = UInt32(selector & 3), oldCPL = s.pointee.cpl
        // 64-bit code always pops its stack.
        guard is64BitCode || level > oldCPL else {
            guard isTarget(pointer, of: code, at: rip) else { return }
            commit(stack)
            setFlags(flags, cpl: oldCPL, resume: true)
            enterCode(code, cpl: level)
            return continueAt(linearInstruction(pointer), check: true)
        }
        guard let sp = pop(&stack, byteCount, at: rip), let ss = pop(&stack, byteCount, at: rip),
            isTarget(pointer, of: code, at: rip),
            let segment = returnStack(UInt16(truncatingIfNeeded: ss), level: level, to: code, at: rip)
        else { return }
        setFlags(flags, cpl: oldCPL, resume: true)
        s.pointee.ss = segment
        enterCode(code, cpl: level)
        setStackPointer(sp, mask: mask(ofStack: segment, under: code))
        if level > oldCPL { dropPrivilegedSegments() }
        continueAt(linearInstruction(pointer), check: true)
    }
}
