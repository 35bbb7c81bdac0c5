// Rare instructions, one uop each: `src` names the operation, `dst` and `base` are register slots, `imm` an operand.
// Memory operands come as an address in a temporary.
//
// The intercept rules are those of a guest with encrypted state [APM2 15.35]: what leaves the processor in a plain
// guest becomes #VC here, with the exit code as error code.

import CX86State
import X86Defs

enum SystemOperation: UInt16 {
    case cpuid, rdmsr, wrmsr, rdtsc, rdtscp, rdpmc, hlt, pause
    case inPort, outPort, ins, outs
    case readCR, writeCR, readDR, writeDR, clts, lmsw, smsw
    case lgdt, lidt, sgdt, sidt, lldt, ltr, sldt, str, verr, verw, lar, lsl
    case moveToSegment, moveFromSegment, invlpg, wbinvd, invd, swapgs, flushLine
    case syscall, sysret, sysenter, sysexit, iret, farReturn, farIndirect, farDirect
    case pushf, popf, cli, sti, intN, int3, sahf, lahf
    case vmmcall, vmgexit, pvalidate, rmpadjust, rdrand, rdseed, monitor, mwait
    case undefined, unimplemented
    case movs, cmps, stos, lods, scas
    case cmpxchg8b, cmpxchg16b, enter, xlat, popSegment
    case fxsave, fxrstor, loop
    case requirePrivilege, ldmxcsr, stmxcsr, maskedMove
    case requireProtectedMode, protectionFault, protectionFaultIfTemporary
    case invpcid, stac, clac, rdpkru, wrpkru
    case int1, into, bound, arpl, pushAll, popAll, decimalAdjust, asciiAdjust, salc, loadFarPointer
}

/// Runs a rare instruction; true: go on with the next uop.
@inline(never)
private func perform(_ s: CPU, _ ip: IP) -> Bool {
    let p = processor(s)
    // Many of these wait until all earlier stores are seen [APM2 7.4.3].
    if s.pointee.shared != 0 { x86_fence() }
    if p.system(ip) { return p.runsOn(ip) }
    // CMPXCHG16B's alignment is looked at first.
    let isMisaligned =
        ip.pointee.src == SystemOperation.cmpxchg16b.rawValue && get(s, ip.pointee.dst, as: UInt64.self) & 15 != 0
    if !isMisaligned { p.turnIntoStackFault(ip) }
    return false
}

@inline(__always)
func systemInstruction(_ s: CPU, _ ip: IP) {
    guard perform(s, ip) else { return }
    next(s, ip)
}

extension Processor {
    func system(_ ip: IP) -> Bool {
        let s = self.s
        let rip = instructionAddress(s, ip), next = nextInstruction(s, ip)
        let u = ip.pointee
        s.pointee.leave = UInt32(X86_LEAVE_LOOKUP)
        func gp() -> Bool {
            prepareException(13, error: 0, at: rip)
            return false
        }
        func ud() -> Bool {
            prepareException(6, at: rip)
            return false
        }
        func vc(_ code: UInt32) -> Bool {
            prepareVC(code, at: rip)
            return false
        }
        func leave(_ exit: VMExit, at place: UInt64) -> Bool {
            prepareExit(exit, at: place)
            return false
        }
        func proceed(check: Bool = false) -> Bool {
            continueAt(next, check: check)
            return false
        }
        let encrypted = configuration.encryptedState
        let privileged = s.pointee.cpl == 0

        switch SystemOperation(rawValue: u.src).unsafelyUnwrapped {
        case .cpuid:
            if encrypted { return vc(0x72) }
            return leave(.cpuid, at: next)
        case .rdmsr:
            guard privileged else { return gp() }
            let index: UInt32 = get(s, Slot.gpr(1))
            guard owns(index), let value = readOwnMSR(index) else {
                instructionBehindExit = next
                return encrypted ? vc(0x7c) : leave(.readMSR(index), at: rip)
            }
            put(s, 0, value & 0xffff_ffff)
            put(s, Slot.gpr(2), value &>> 32)
        case .wrmsr:
            guard privileged else { return gp() }
            let index: UInt32 = get(s, Slot.gpr(1))
            let value = get(s, 0, as: UInt64.self) & 0xffff_ffff | get(s, Slot.gpr(2), as: UInt64.self) &<< 32
            switch owns(index) ? writeProcessorMSR(index, value) : .foreign {
            case .done: return proceed()
            case .refused: return gp()
            case .foreign:
                instructionBehindExit = next
                return encrypted ? vc(0x7c) : leave(.writeMSR(index, value), at: rip)
            }
        case .rdtsc, .rdtscp:
            if s.pointee.cr4 & CR4.tsd != 0, !privileged { return gp() }
            let t = tsc
            put(s, 0, t & 0xffff_ffff)
            put(s, Slot.gpr(2), t &>> 32)
            if u.src == SystemOperation.rdtscp.rawValue { put(s, Slot.gpr(1), s.pointee.tsc_aux & 0xffff_ffff) }
        case .rdpmc:
            guard privileged || s.pointee.cr4 & CR4.pce != 0 else { return gp() }
            if encrypted { return vc(0x6f) }
            // Four counters that count nothing, as under KVM; bits 31:30 of the number mean nothing here.
            guard get(s, Slot.gpr(1), as: UInt32.self) & 0x3fff_ffff < 4 else { return gp() }
            put(s, 0, 0 as UInt64)
            put(s, Slot.gpr(2), 0 as UInt64)
        case .hlt:
            guard privileged else { return gp() }
            // The single-step trap would wake it at once.
            if s.pointee.system_flags & RFLAGS.tf != 0 { return proceed(check: true) }
            s.pointee.shadow = 0
            return leave(.halt, at: next)
        case .pause:
            pause()
            return true
        case .inPort, .outPort: return portIO(ip, at: rip)
        case .ins, .outs: return stringIO(ip, at: rip)

        case .readCR:
            guard privileged else { return gp() }
            let value: UInt64
            switch u.imm {
            case 0: value = s.pointee.cr0
            case 2: value = s.pointee.cr2
            case 3: value = s.pointee.cr3
            case 4: value = s.pointee.cr4
            case 8: value = s.pointee.cr8
            default: return ud()
            }
            is64BitCode ? put(s, u.dst, value) : put(s, u.dst, UInt32(truncatingIfNeeded: value))
        case .writeCR:
            guard privileged else { return gp() }
            let value: UInt64 = get(s, u.dst)
            return writeControlRegister(
                Int(truncatingIfNeeded: u.imm), is64BitCode ? value : value & 0xffff_ffff, at: rip, next: next)
        case .readDR:
            guard privileged else { return gp() }
            let n = Int(truncatingIfNeeded: u.imm & 7)
            if n == 7 || n == 5, encrypted { return vc(0x27) }
            if n == 4 || n == 5, s.pointee.cr4 & CR4.de != 0 { return ud() }
            if generalDetect(at: rip) { return false }
            put(s, u.dst, debugRegister(n == 4 ? 6 : n == 5 ? 7 : n))
        case .writeDR:
            guard privileged else { return gp() }
            let n = Int(truncatingIfNeeded: u.imm & 7)
            if n == 7 || n == 5, encrypted { return vc(0x37) }
            if n == 4 || n == 5, s.pointee.cr4 & CR4.de != 0 { return ud() }
            if generalDetect(at: rip) { return false }
            let value = is64BitCode ? get(s, u.dst, as: UInt64.self) : get(s, u.dst, as: UInt64.self) & 0xffff_ffff
            let slot = n == 4 ? 6 : n == 5 ? 7 : n
            if slot >= 6, value &>> 32 != 0 { return gp() }
            setDebugRegister(
                slot, slot == 6 ? value & 0xe00f | 0xffff_0ff0 : slot == 7 ? value & 0xffff_2bff | 0x400 : value)
            updateBreakpoints()
            return proceed()
        case .clts:
            guard privileged else { return gp() }
            s.pointee.cr0 &= ~CR0.ts
            return proceed()
        case .lmsw:
            guard privileged else { return gp() }
            // PE can be set this way, not cleared.
            let v = get(s, u.dst, as: UInt64.self) & 0xf
            return writeControlRegister(0, s.pointee.cr0 & ~0xe | v, at: rip, next: next)
        case .smsw:
            if s.pointee.cr4 & CR4.umip != 0, s.pointee.cpl == 3 { return gp() }
            put(s, u.dst, s.pointee.cr0)

        case .lgdt, .lidt:
            guard privileged else { return gp() }
            let a: UInt64 = get(s, u.dst)
            guard let limit: UInt16 = read(a, user: false, at: rip) else { return false }
            var base: UInt64
            if is64BitCode {
                guard let v: UInt64 = read(a &+ 2, user: false, at: rip) else { return false }
                base = v
            } else {
                guard let v: UInt32 = read((a &+ 2) & 0xffff_ffff, user: false, at: rip) else { return false }
                base = UInt64(u.scale == 2 ? v & 0xff_ffff : v)  // 16-bit operands: 24 address bits.
            }
            guard isCanonical(base) else { return gp() }
            if u.src == SystemOperation.lgdt.rawValue {
                s.pointee.gdt_base = base
                s.pointee.gdt_limit = limit
            } else {
                s.pointee.idt_base = base
                s.pointee.idt_limit = limit
            }
        case .sgdt, .sidt:
            let a: UInt64 = get(s, u.dst)
            let gdt = u.src == SystemOperation.sgdt.rawValue
            if s.pointee.cr4 & CR4.umip != 0, s.pointee.cpl == 3 { return gp() }
            let base = gdt ? s.pointee.gdt_base : s.pointee.idt_base
            guard
                is64BitCode
                    ? write(a &+ 2, base, user: userMode, at: rip)
                    : write(
                        (a &+ 2) & 0xffff_ffff, UInt32(truncatingIfNeeded: base), user: userMode, at: rip),
                write(a, gdt ? s.pointee.gdt_limit : s.pointee.idt_limit, user: userMode, at: rip)
            else { return false }
        case .lldt, .ltr:
            guard privileged else { return gp() }
            return loadSystemSegment(get(s, u.dst), task: u.src == SystemOperation.ltr.rawValue, at: rip)
        case .sldt:
            if s.pointee.cr4 & CR4.umip != 0, s.pointee.cpl == 3 { return gp() }
            put(s, u.dst, UInt64(s.pointee.ldtr.selector))
        case .str:
            if s.pointee.cr4 & CR4.umip != 0, s.pointee.cpl == 3 { return gp() }
            put(s, u.dst, UInt64(s.pointee.tr.selector))
        case .verr, .verw, .lar, .lsl: return inspectSelector(ip, at: rip)

        case .moveToSegment, .popSegment:
            guard let index = SegmentIndex(rawValue: Int(truncatingIfNeeded: u.imm)), index != .cs else { return ud() }
            let oldContext = s.pointee.context, mask = stackMask
            guard loadSegment(index, get(s, u.dst), at: rip) else { return false }
            // The instruction behind MOV SS is protected from interrupts, so that it can load RSP [APM2 8.5].
            if index == .ss { s.pointee.shadow = 2 }
            if u.src == SystemOperation.popSegment.rawValue {
                setStackPointer(get(s, Slot.rsp, as: UInt64.self) &+ UInt64(u.scale), mask: mask)
            }
            // What follows in this block was decoded for other segments.
            if s.pointee.context != oldContext { return proceed(check: index == .ss) }
        case .moveFromSegment:
            guard let index = SegmentIndex(rawValue: Int(truncatingIfNeeded: u.imm)) else { return ud() }
            put(s, u.dst, UInt64(selector(index)))
        case .invlpg:
            guard privileged else { return gp() }
            flushLinearTranslations()
            return proceed()
        case .wbinvd:
            guard privileged else { return gp() }
            if encrypted { return vc(0x89) }
        case .invd:
            guard privileged else { return gp() }
            if encrypted { return vc(0x76) }
        case .swapgs:
            guard privileged else { return gp() }
            swap(&s.pointee.gs_base, &s.pointee.kernel_gs_base)
        case .flushLine:
            guard linearPointer(get(s, u.dst), .read, user: userMode, at: rip) != nil else { return false }

        case .syscall:
            systemCall(at: rip, next: next)
            return false
        case .sysret:
            systemReturn(wide: u.imm != 0, at: rip)
            return false
        case .sysenter:
            systemEnter(at: rip)
            return false
        case .sysexit:
            systemExit(at: rip)
            return false
        case .iret:
            interruptReturn(Int(u.scale), at: rip)
            return false
        case .farReturn:
            farReturn(Int(u.scale), release: u.imm, at: rip)
            return false
        case .farIndirect:
            guard let (selector, offset) = farPointer(u, at: rip) else { return false }
            farTransfer(call: u.base != 0, selector, offset, Int(u.imm & 0xff), at: rip, next: next)
            return false
        case .farDirect:
            farTransfer(
                call: u.base != 0, UInt16(truncatingIfNeeded: u.imm &>> 32), u.imm & 0xffff_ffff, Int(u.scale), at: rip,
                next: next)
            return false

        case .pushf: put(s, u.dst, composeFlags(s) & ~(RFLAGS.rf | RFLAGS.vm))
        case .popf:
            let keep: UInt64 = u.imm == 2 ? composeFlags(s) & ~0xffff : 0
            let value = u.imm == 2 ? get(s, u.dst, as: UInt64.self) & 0xffff | keep : get(s, u.dst)
            setFlags(value, cpl: s.pointee.cpl)
            // Outside 64-bit mode the stack pointer has been moved already.
            if u.base == 0 { put(s, Slot.rsp, get(s, Slot.rsp, as: UInt64.self) &+ u.imm) }
            return proceed(check: true)
        case .cli:
            guard s.pointee.cpl <= iopl else { return gp() }
            s.pointee.system_flags &= ~RFLAGS.if
        case .sti:
            guard s.pointee.cpl <= iopl else { return gp() }
            if s.pointee.system_flags & RFLAGS.if == 0 {
                s.pointee.system_flags |= RFLAGS.if
                s.pointee.shadow = 1
                return proceed(check: true)
            }
        case .int3, .intN:
            let vector = u.src == SystemOperation.int3.rawValue ? 3 : UInt8(truncatingIfNeeded: u.imm)
            softwareInterrupt(vector, at: rip, next: next)
            return false
        case .sahf:
            let ah: UInt8 = get(s, 1)
            spreadArithmeticFlags(s, composeFlags(s) & RFLAGS.of | UInt64(ah) & 0xd5)
        case .lahf: put(s, 1, UInt8(truncatingIfNeeded: composeFlags(s) & 0xd5 | 2))

        case .vmmcall:
            if encrypted { return vc(0x81) }
            return leave(.vmmcall, at: next)
        case .vmgexit:
            if encrypted { return leave(.vmgexit, at: next) }
            return leave(.vmmcall, at: next)
        case .pvalidate:
            guard configuration.snp else { return ud() }
            guard privileged else { return gp() }
            return pageValidate(at: rip)
        case .rmpadjust:
            guard configuration.snp, is64BitCode else { return ud() }
            guard privileged else { return gp() }
            return adjustRMP(at: rip)
        case .rdrand, .rdseed:
            let value = UInt64.random(in: 0...UInt64.max)
            switch u.imm {
            case 2: put(s, u.dst, UInt16(truncatingIfNeeded: value))
            case 4: put(s, u.dst, UInt32(truncatingIfNeeded: value))
            default: put(s, u.dst, value)
            }
            spreadArithmeticFlags(s, RFLAGS.cf)
        case .monitor, .mwait:
            guard privileged else { return ud() }
            if encrypted { return vc(u.src == SystemOperation.monitor.rawValue ? 0x8a : 0x8b) }
        case .undefined: return ud()
        case .unimplemented:
            prepareUnimplemented("an instruction this processor does not have", at: rip)
            return false

        case .movs, .cmps, .stos, .lods, .scas: return stringOperation(ip, at: rip)
        case .cmpxchg8b, .cmpxchg16b: return compareExchangePair(ip, at: rip)
        case .enter: return enterFrame(ip, at: rip)
        case .xlat:
            guard let v: UInt8 = read(get(s, u.dst), user: userMode, at: rip) else { return false }
            put(s, 0, v)
        case .invpcid: return invalidateContext(ip, at: rip, next: next)
        case .stac, .clac: return setAccessFlag(u.src == SystemOperation.stac.rawValue, at: rip)
        case .rdpkru: return accessKeyRights(write: false, at: rip)
        case .wrpkru: return accessKeyRights(write: true, at: rip)
        case .requireProtectedMode: if !isProtectedMode { return ud() }
        case .protectionFault: return gp()
        case .protectionFaultIfTemporary: if get(s, Slot.tmp(0), as: UInt8.self) != 0 { return gp() }
        case .int1:
            debugInstruction(at: rip, next: next)
            return false
        case .into:
            if !flagO(s) { return proceed() }
            softwareInterrupt(4, at: rip, next: next)
            return false
        case .bound: return checkBound(ip, at: rip)
        case .arpl: return adjustRPL(ip, at: rip)
        case .pushAll: return pushAll(Int(u.scale), at: rip)
        case .popAll: return popAll(Int(u.scale), at: rip)
        case .decimalAdjust: decimalAdjust(u.scale)
        case .asciiAdjust: return asciiAdjust(u.scale, UInt8(truncatingIfNeeded: u.imm), at: rip)
        case .salc: put(s, 0, flagC(s) ? 0xff as UInt8 : 0)
        case .loadFarPointer: return loadFarPointer(ip, at: rip, next: next)
        case .requirePrivilege: if !privileged { return gp() }
        case .maskedMove: return maskedMove(ip, at: rip)
        case .ldmxcsr: return loadMXCSR(ip, at: rip)
        case .stmxcsr: return storeMXCSR(ip, at: rip)
        case .loop: decideLoop(kind: u.scale, addressBytes: u.dst)
        case .fxsave: return saveFPU(get(s, u.dst), wide: u.imm != 0, at: rip)
        case .fxrstor: return restoreFPU(get(s, u.dst), wide: u.imm != 0, at: rip)
        }
        return true
    }

    var iopl: UInt32 { UInt32((s.pointee.system_flags & RFLAGS.iopl) &>> 12) }

    func hex(_ v: UInt64) -> String { "0x" + String(v, radix: 16) }

    /// INT n and INT3: the frame names the next instruction, a fault on the way the INT itself.
    func softwareInterrupt(_ vector: UInt8, at rip: UInt64, next: UInt64) {
        // INT3, and not the two bytes of INT 3, is an exception to the hypervisor.
        if exceptionIntercepts & 8 != 0, vector == 3, next &- rip == 1 {
            return prepareExit(.exception(vector: 3, errorCode: nil), at: rip)
        }
        s.pointee.rip = next
        if deliver(Event(vector: vector, errorCode: nil, kind: .software), faultsAt: rip) {
            stepSuppressed = true
            s.pointee.leave = UInt32(X86_LEAVE_LOOKUP)
        }
    }

    /// LOOPNE, LOOPE, LOOP, JRCXZ (in opcode order): counts RCX, leaves "taken" in the first temporary. `addressBytes`: 0
    /// for 64 bits, 4 or 2.
    private func decideLoop(kind: UInt8, addressBytes: UInt16) {
        let mask: UInt64 = addressBytes == 4 ? 0xffff_ffff : addressBytes == 2 ? 0xffff : .max
        var count = get(s, Slot.gpr(1), as: UInt64.self) & mask
        var taken: Bool
        if kind == 3 {
            taken = count == 0
        } else {
            count = (count &- 1) & mask
            putSized(Slot.gpr(1), count, addressBytes == 0 ? 8 : Int(addressBytes))
            taken = count != 0
            if kind == 0 { taken = taken && !flagZ(s) }
            if kind == 1 { taken = taken && flagZ(s) }
        }
        put(s, Slot.tmp(0), taken ? 1 as UInt64 : 0)
    }

    func putSized(_ slot: UInt16, _ value: UInt64, _ byteCount: Int) {
        switch byteCount {
        case 1: put(s, slot, UInt8(truncatingIfNeeded: value))
        case 2: put(s, slot, UInt16(truncatingIfNeeded: value))
        case 4: put(s, slot, UInt32(truncatingIfNeeded: value))
        default: put(s, slot, value)
        }
    }

    /// After a store by the engine the running block may have been forgotten: go on through the run loop then.
    func runsOn(_ ip: IP) -> Bool {
        if let exit = pendingMMIOWrite, (ip + 1).pointee.off != ip.pointee.off {
            pendingMMIOWrite = nil
            prepareExit(exit, at: nextInstruction(s, ip))
            return false
        }
        guard codeForgotten || pendingDebug != 0, (ip + 1).pointee.off != ip.pointee.off else { return true }
        codeForgotten = false
        continueAt(nextInstruction(s, ip), check: false)
        return false
    }
}
