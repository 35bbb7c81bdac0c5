// The run loop: finds blocks, links them, delivers events, and turns what handlers left behind into #VMEXITs.

import CX86State
import X86Defs

struct Event {
    enum Kind { case interrupt, exception, software }
    var vector: UInt8
    var errorCode: UInt32?
    var kind: Kind
    /// #DB from general detect, which is a fault.
    var isDebugFault = false
}

extension Processor {
    /// Runs guest instructions until something needs the hypervisor, for at most a slice: whoever waits for the processor
    /// to come out need do nothing else.
    public func run() -> VMExit {
        let s = self.s
        let slice = sliceInstructionCount
        s.pointee.budget = slice
        defer {
            _ = x86_settle_kick(s)
            retired &+= UInt64(bitPattern: max(0, slice &- s.pointee.budget))
        }
        s.pointee.link = nil
        wantsAlone = nil
        pauses = 0
        hasSpun = false
        if x86_take_request(s) { return .interrupt }
        if let group, cBitMask == 0 {
            let epoch = group.codeEpoch.load(ordering: .acquiring)
            if epoch != codeEpoch { lookAtCodeAgain(epoch) }
        }
        if let exit = pendingExit {
            pendingExit = nil
            return exit
        }
        if !laterMMIOWrites.isEmpty {
            exit = laterMMIOWrites.removeFirst()
            return exit
        }
        if trapBehindExit, !deliverTrapBehindExit(), !wantsToDeliverAlone { return exit }
        if let event = injected {
            injected = nil
            s.pointee.shadow = 0
            if !deliver(event), !wantsToDeliverAlone { return exit }
        }
        while true {
            if s.pointee.window != 0, canTakeInterrupt || nmiWindowRequested && canTakeNMI { return .interruptWindow }
            let stepping = isStepping
            stepSuppressed = false
            stepAfterAll = false
            codeForgotten = false
            s.pointee.leave = UInt32(X86_LEAVE_LOOKUP)
            if let reason = wantsAlone {
                wantsAlone = nil
                if let exit = runAlone(reason) { return exit }
            } else if stepping || s.pointee.shadow != 0 && s.pointee.window != 0 {
                if !breakpointHere() { runOneInstruction() }
            } else if debugArmed || s.pointee.system_flags & RFLAGS.rf != 0, needsSingleInstruction() {
                if !breakpointHere() { runOneInstruction() }
            } else if let block = findBlock(s.pointee.rip) {
                let first = IP(block.first)
                // Read after the look-up: decoding may have thrown away all blocks, and the link with them.
                let link = s.pointee.link
                s.pointee.link = nil
                if block.secondPage == 0 {
                    if let link { patch(link, first, s.pointee.rip) }
                    if hasJumpKey(block.rip) {
                        let e = s.pointee.jumps + Int((block.rip ^ (block.rip &>> 12)) & UInt64(X86_JUMP_SIZE - 1))
                        e.pointee = x86_jump_entry(key: block.rip ^ s.pointee.jump_key, target: first)
                    }
                }
                let shadow = s.pointee.shadow, rip = s.pointee.rip
                s.pointee.shadow = 0
                enter(s, first)
                // A kick came before the instruction in the shadow.
                if shadow != 0, s.pointee.leave == UInt32(X86_LEAVE_BUDGET), s.pointee.rip == rip {
                    s.pointee.shadow = shadow
                }
            }
            repeatUops()
            if stepping || stepAfterAll || pendingDebug != 0 { debugTrap(stepping: stepping) }
            switch Int(s.pointee.leave) {
            case Int(X86_LEAVE_LOOKUP), Int(X86_LEAVE_CHECK): if s.pointee.budget < 0 { return .interrupt }
            case Int(X86_LEAVE_BUDGET): return .interrupt
            case Int(X86_LEAVE_EXCEPTION):
                pendingMMIOWrite = nil
                var event = preparedException
                event.isDebugFault = debugFault
                debugFault = false
                if intercept(event) { return exit }
                if !deliver(event), !wantsToDeliverAlone { return exit }
                // A handler that faults on its first byte would otherwise keep this loop for ever.
                s.pointee.budget &-= 1
                if s.pointee.budget < 0 { return .interrupt }
            case Int(X86_LEAVE_EXIT):
                if stepping || stepAfterAll || pendingDebug != 0 { noteTrapBehindExit() }
                return exit
            case Int(X86_LEAVE_ALONE):
                pendingMMIOWrite = nil
                s.pointee.budget &-= 1
                if s.pointee.budget < 0 { return .interrupt }
            default: break
            }
        }
    }

    /// An event could not be delivered because others run; it is kept for ``runAlone(_:)``.
    private var wantsToDeliverAlone: Bool { s.pointee.leave == UInt32(X86_LEAVE_ALONE) }

    /// Does while nobody else runs what could not be done otherwise.
    private func runAlone(_ reason: AloneReason) -> VMExit? {
        becomeAlone()
        defer { stopBeingAlone() }
        s.pointee.link = nil
        if let event = injected {
            injected = nil
            stepSuppressed = true
            return deliver(event) ? nil : exit
        }
        switch reason {
        case .decode: _ = findBlock(s.pointee.rip)
        case .instruction: runOneInstructionAlone()
        }
        return nil
    }

    private func runOneInstructionAlone() {
        let rip = s.pointee.rip
        // A kick by somebody who did not see yet that this one is alone must not end it before it has done anything.
        for _ in 0..<4 {
            _ = x86_settle_kick(s)
            s.pointee.leave = UInt32(X86_LEAVE_LOOKUP)
            runOneInstruction()
            repeatUops()
            if s.pointee.leave != UInt32(X86_LEAVE_BUDGET) || s.pointee.rip != rip { break }
        }
        s.pointee.link = nil
    }

    /// An instruction that ends with an exit is followed by its traps as any other: once the exit is over.
    private func noteTrapBehindExit() {
        switch exit {
        case .cpuid, .vmmcall, .mmio(_, _, true, _): trapBehindExit = true
        default: break
        }
    }

    /// The guest steps, or the hypervisor does.
    var isStepping: Bool { s.pointee.system_flags & RFLAGS.tf != 0 || singleSteps }

    /// False: an exit has been prepared.
    private func deliverTrapBehindExit() -> Bool {
        trapBehindExit = false
        stepSuppressed = false
        stepAfterAll = false
        s.pointee.leave = UInt32(X86_LEAVE_LOOKUP)
        debugTrap(stepping: isStepping)
        if s.pointee.leave != UInt32(X86_LEAVE_EXCEPTION) { return true }
        return !intercept(preparedException) && deliver(preparedException)
    }

    /// Makes `run` return `.interrupt` at the next block.
    func endSlice() {
        guard s.pointee.budget >= 0 else { return }
        // What is taken from the budget has not been executed.
        retired &-= UInt64(bitPattern: s.pointee.budget) &+ 1
        s.pointee.budget = -1
    }

    /// Uops that slow paths made possible.
    private func repeatUops() {
        while s.pointee.leave == UInt32(X86_LEAVE_REDO) {
            s.pointee.leave = UInt32(X86_LEAVE_LOOKUP)
            let again = s.pointee.resume_uop.unsafelyUnwrapped
            again.pointee.fn(s, again)
        }
    }

    /// Finishes the instruction whose port or device access the hypervisor has completed, so that its registers and RIP
    /// are final before anything else runs. What follows from it (a fault, the write half of a read-modify-write) is
    /// kept for the next run.
    func finishInstruction() {
        s.pointee.budget = sliceInstructionCount
        // There is no slice here: what an access to a device takes from one is nothing that has not been executed.
        let retiredBefore = retired
        let answers = (completedIO, completedMMIO), rip = s.pointee.rip
        repeat {
            _ = x86_settle_kick(s)
            s.pointee.leave = UInt32(X86_LEAVE_LOOKUP)
            runOneInstruction()
            repeatUops()
            if s.pointee.leave == UInt32(X86_LEAVE_ALONE) {
                (completedIO, completedMMIO) = answers
                wantsAlone = nil
                pendingMMIOWrite = nil
                becomeAlone()
                runOneInstructionAlone()
                stopBeingAlone()
            }
            // A kick came first: the answer must not be lost.
        } while s.pointee.leave == UInt32(X86_LEAVE_BUDGET) && s.pointee.rip == rip
            && (completedIO != nil || !completedMMIO.isEmpty)
        retired = retiredBefore
        s.pointee.link = nil
        switch Int(s.pointee.leave) {
        case Int(X86_LEAVE_EXCEPTION):
            if intercept(preparedException) || !deliver(preparedException) && !wantsToDeliverAlone {
                pendingExit = exit
            }
        case Int(X86_LEAVE_EXIT):
            pendingExit = exit
            if isStepping || pendingDebug != 0 { noteTrapBehindExit() }
        default:
            retired &+= 1
            if isStepping || pendingDebug != 0 {
                debugTrap(stepping: isStepping)
                if s.pointee.leave == UInt32(X86_LEAVE_EXCEPTION),
                    intercept(preparedException) || !deliver(preparedException) && !wantsToDeliverAlone
                {
                    pendingExit = exit
                }
            }
        }
    }

    /// Runs the instruction at RIP alone, which ends an interrupt shadow.
    private func runOneInstruction() {
        guard let page = executablePage(s.pointee.rip, at: s.pointee.rip),
            let block = decodeBlock(s.pointee.rip, page, single: true)
        else { return }
        let shadow = s.pointee.shadow
        s.pointee.shadow = 0
        // With a budget of one instruction a branch does not run on in the block that it knows.
        var isKicked = x86_settle_kick(s)
        let budget = s.pointee.budget
        s.pointee.budget = 1
        enter(s, IP(block.first))
        repeatUops()
        if x86_settle_kick(s) {
            isKicked = true
            if s.pointee.leave == UInt32(X86_LEAVE_BUDGET), s.pointee.rip == block.rip {
                // It has not run.
                s.pointee.shadow = shadow
                s.pointee.budget = budget
                return
            }
        }
        defer { if isKicked { x86_kick(s) } }
        if s.pointee.budget >= 0 {
            if s.pointee.leave == UInt32(X86_LEAVE_BUDGET) { s.pointee.leave = UInt32(X86_LEAVE_LOOKUP) }
            s.pointee.budget = budget &- 1
        } else {
            // The slice was ended on the way.
            retired &-= UInt64(bitPattern: budget &- 1)
        }
    }

    /// Links a direct branch to its target. Near links hold for ever, far ones for this TLB generation.
    private func patch(_ link: UnsafeMutablePointer<x86_uop>, _ target: IP, _ rip: UInt64) {
        link.pointee.imm = UInt64(UInt(bitPattern: target))
        UnsafeMutableRawPointer(link).storeBytes(of: s.pointee.generation, toByteOffset: 12, as: UInt32.self)
    }

    // MARK: Leaving a handler

    func prepareException(_ vector: UInt32, error: UInt32? = nil, at rip: UInt64) {
        s.pointee.rip = rip
        s.pointee.vector = vector
        s.pointee.has_error_code = error == nil ? 0 : 1
        s.pointee.error_code = error ?? 0
        s.pointee.leave = UInt32(X86_LEAVE_EXCEPTION)
    }

    /// What ``prepareException(_:error:at:)`` left.
    var preparedException: Event {
        Event(
            vector: UInt8(truncatingIfNeeded: s.pointee.vector),
            errorCode: s.pointee.has_error_code != 0 ? s.pointee.error_code : nil, kind: .exception)
    }

    /// #VC with the exit code of the intercept as error code [APM2 15.35.5].
    func prepareVC(_ code: UInt32, at rip: UInt64) { prepareException(29, error: code, at: rip) }

    func prepareExit(_ exit: VMExit, at rip: UInt64) {
        s.pointee.rip = rip
        self.exit = exit
        s.pointee.leave = UInt32(X86_LEAVE_EXIT)
    }

    /// Never a wrong result: what is not implemented stops the processor and names the bytes.
    func prepareUnimplemented(_ reason: String, at rip: UInt64) {
        prepareExit(.unimplemented(reason: reason, bytes: instructionBytes(at: rip)), at: rip)
    }

    /// Up to 15 bytes at RIP, as far as they can be fetched now.
    func instructionBytes(at rip: UInt64) -> [UInt8] {
        let slot = fetchCache + Int((rip &>> 12) & 255)
        guard slot.pointee.tag & ~3 == rip & ~0xfff, slot.pointee.tag != 0,
            let page = UnsafePointer<UInt8>(bitPattern: UInt(slot.pointee.page))
        else { return [] }
        let offset = Int(rip & 0xfff)
        return (offset..<min(offset &+ 15, 4096)).map { page[$0] }
    }
}

/// An exception of the instruction that `ip` belongs to, without error code.
@inline(never)
func raise(_ s: CPU, _ ip: IP, vector: UInt32) {
    processor(s).prepareException(vector, at: instructionAddress(s, ip))
}
