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
    case syscall, sysret, iretq, farReturn, farJump
    case pushf, popf, cli, sti, intN, int3, sahf, lahf
    case vmmcall, vmgexit, pvalidate, rmpadjust, rdrand, rdseed, monitor, mwait
    case undefined, unimplemented
    case movs, cmps, stos, lods, scas
    case cmpxchg8b, cmpxchg16b, enter, xlat, popSegment
    case fxsave, fxrstor, loop
    case requirePrivilege, ldmxcsr, stmxcsr, maskedMove
}

/// Runs a rare instruction; true: go on with the next uop.
@inline(never)
private func perform(_ s: CPU, _ ip: IP) -> Bool {
    let p = processor(s)
    if p.system(ip) { return p.runsOn(ip) }
    p.turnIntoStackFault(ip)
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
            guard let value = readOwnMSR(index) else {
                return encrypted ? vc(0x7c) : leave(.readMSR(index), at: rip)
            }
            put(s, 0, value & 0xffff_ffff)
            put(s, Slot.gpr(2), value &>> 32)
        case .wrmsr:
            guard privileged else { return gp() }
            let index: UInt32 = get(s, Slot.gpr(1))
            let value = get(s, 0, as: UInt64.self) & 0xffff_ffff | get(s, Slot.gpr(2), as: UInt64.self) &<< 32
            switch writeProcessorMSR(index, value) {
            case .done: return proceed()
            case .refused: return gp()
            case .foreign: return encrypted ? vc(0x7c) : leave(.writeMSR(index, value), at: rip)
            }
        case .rdtsc, .rdtscp:
            if s.pointee.cr4 & CR4.tsd != 0, !privileged { return gp() }
            let t = tsc
            put(s, 0, t & 0xffff_ffff)
            put(s, Slot.gpr(2), t &>> 32)
            if u.src == SystemOperation.rdtscp.rawValue { put(s, Slot.gpr(1), s.pointee.tsc_aux & 0xffff_ffff) }
        case .rdpmc:
            guard privileged || s.pointee.cr4 & CR4.pce != 0 else { return gp() }
            return encrypted ? vc(0x6f) : gp()
        case .hlt:
            guard privileged else { return gp() }
            s.pointee.shadow = 0
            return leave(.halt, at: next)
        case .pause: return true
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
            put(s, u.dst, value)
        case .writeCR:
            guard privileged else { return gp() }
            return writeControlRegister(Int(truncatingIfNeeded: u.imm), get(s, u.dst), at: rip, next: next)
        case .readDR:
            guard privileged else { return gp() }
            let n = Int(truncatingIfNeeded: u.imm & 7)
            if n == 7 || n == 5, encrypted { return vc(0x27) }
            if n == 4 || n == 5, s.pointee.cr4 & CR4.de != 0 { return ud() }
            put(s, u.dst, debugRegister(n == 4 ? 6 : n == 5 ? 7 : n))
        case .writeDR:
            guard privileged else { return gp() }
            let n = Int(truncatingIfNeeded: u.imm & 7)
            if n == 7 || n == 5, encrypted { return vc(0x37) }
            if n == 4 || n == 5, s.pointee.cr4 & CR4.de != 0 { return ud() }
            let value: UInt64 = get(s, u.dst)
            let slot = n == 4 ? 6 : n == 5 ? 7 : n
            if slot >= 6, value &>> 32 != 0 { return gp() }
            if slot == 7, value & 0xff != 0 {
                prepareUnimplemented("hardware breakpoints (DR7 = \(hex(value)))", at: rip)
                return false
            }
            setDebugRegister(
                slot, slot == 6 ? value & 0xe00f | 0xffff_0ff0 : slot == 7 ? value & 0xffff_2bff | 0x400 : value)
        case .clts:
            guard privileged else { return gp() }
            s.pointee.cr0 &= ~CR0.ts
            return proceed()
        case .lmsw:
            guard privileged else { return gp() }
            let v = get(s, u.dst, as: UInt64.self) & 0xf
            s.pointee.cr0 = s.pointee.cr0 & ~0xe | v | s.pointee.cr0 & 1
            return proceed()
        case .smsw: put(s, u.dst, s.pointee.cr0)

        case .lgdt, .lidt:
            guard privileged else { return gp() }
            let a: UInt64 = get(s, u.dst)
            guard let limit: UInt16 = read(a, user: false, at: rip),
                let base: UInt64 = read(a &+ 2, user: false, at: rip)
            else { return false }
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
            guard write(a &+ 2, gdt ? s.pointee.gdt_base : s.pointee.idt_base, user: userMode, at: rip),
                write(a, gdt ? s.pointee.gdt_limit : s.pointee.idt_limit, user: userMode, at: rip)
            else { return false }
        case .lldt, .ltr:
            guard privileged else { return gp() }
            return loadSystemSegment(get(s, u.dst), task: u.src == SystemOperation.ltr.rawValue, at: rip)
        case .sldt: put(s, u.dst, UInt64(s.pointee.ldtr.selector))
        case .str: put(s, u.dst, UInt64(s.pointee.tr.selector))
        case .verr, .verw, .lar, .lsl: return inspectSelector(ip, at: rip)

        case .moveToSegment, .popSegment:
            guard let index = SegmentIndex(rawValue: Int(truncatingIfNeeded: u.imm)), index != .cs else { return ud() }
            guard loadSegment(index, get(s, u.dst), at: rip) else { return false }
            // The instruction behind MOV SS is protected from interrupts, so that it can load RSP [APM2 8.5].
            if index == .ss { s.pointee.shadow = 1 }
            if u.src == SystemOperation.popSegment.rawValue {
                put(s, Slot.rsp, get(s, Slot.rsp, as: UInt64.self) &+ UInt64(u.scale))
            }
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
        case .iretq:
            interruptReturn(at: rip)
            return false
        case .farReturn:
            farReturn(wide: u.dst != 0, release: u.imm, at: rip)
            return false
        case .farJump:
            let a: UInt64 = get(s, u.dst)
            if u.imm == 8 {
                guard let t: UInt64 = read(a, user: userMode, at: rip),
                    let c: UInt16 = read(a &+ 8, user: userMode, at: rip)
                else { return false }
                farJump(to: t, c, returning: false, at: rip)
            } else {
                guard let t: UInt32 = read(a, user: userMode, at: rip),
                    let c: UInt16 = read(a &+ 4, user: userMode, at: rip)
                else { return false }
                farJump(to: UInt64(t), c, returning: false, at: rip)
            }
            return false

        case .pushf: put(s, u.dst, composeFlags(s) & ~(RFLAGS.rf | RFLAGS.vm))
        case .popf:
            let keep: UInt64 = u.imm == 2 ? composeFlags(s) & ~0xffff : 0
            let value = u.imm == 2 ? get(s, u.dst, as: UInt64.self) & 0xffff | keep : get(s, u.dst)
            setFlags(value, cpl: s.pointee.cpl)
            put(s, Slot.rsp, get(s, Slot.rsp, as: UInt64.self) &+ u.imm)
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
            guard configuration.snp else { return ud() }
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
        case .requirePrivilege: if !privileged { return gp() }
        case .maskedMove: return maskedMove(ip, at: rip)
        case .ldmxcsr: return loadMXCSR(ip, at: rip)
        case .stmxcsr: return storeMXCSR(ip, at: rip)
        case .loop: decideLoop(kind: u.scale, narrow: u.dst != 0)
        case .fxsave: return saveFPU(get(s, u.dst), wide: u.imm != 0, at: rip)
        case .fxrstor: return restoreFPU(get(s, u.dst), wide: u.imm != 0, at: rip)
        }
        return true
    }

    var iopl: UInt32 { UInt32((s.pointee.system_flags & RFLAGS.iopl) &>> 12) }

    func hex(_ v: UInt64) -> String { "0x" + String(v, radix: 16) }

    /// INT n and INT3: the frame names the next instruction, a fault on the way the INT itself.
    private func softwareInterrupt(_ vector: UInt8, at rip: UInt64, next: UInt64) {
        s.pointee.rip = next
        if deliver(Event(vector: vector, errorCode: nil, kind: .software), faultsAt: rip) {
            stepSuppressed = true
            s.pointee.leave = UInt32(X86_LEAVE_LOOKUP)
        }
    }

    private func debugRegister(_ n: Int) -> UInt64 {
        withUnsafeBytes(of: s.pointee.dr) { $0.load(fromByteOffset: (n & 7) &* 8, as: UInt64.self) }
    }
    private func setDebugRegister(_ n: Int, _ value: UInt64) {
        withUnsafeMutableBytes(of: &s.pointee.dr) {
            $0.storeBytes(of: value, toByteOffset: (n & 7) &* 8, as: UInt64.self)
        }
    }

    private func writeControlRegister(_ n: Int, _ value: UInt64, at rip: UInt64, next: UInt64) -> Bool {
        func gp() -> Bool {
            prepareException(13, error: 0, at: rip)
            return false
        }
        switch n {
        case 0:
            guard value &>> 32 == 0 else { return gp() }
            if value & CR0.pg != 0 && value & CR0.pe == 0 || value & CR0.nw != 0 && value & CR0.cd == 0 { return gp() }
            let old = s.pointee.cr0
            s.pointee.cr0 = value & 0xe005_003f | CR0.et
            if (old ^ value) & CR0.pg != 0 {
                if value & CR0.pg == 0 {
                    s.pointee.efer &= ~EFER.lma
                } else if s.pointee.efer & EFER.lme != 0 {
                    s.pointee.efer |= EFER.lma
                }
            }
            if (old ^ value) & (CR0.pg | CR0.wp | CR0.pe) != 0 { flushLinearTranslations() }
            updateJumpKey()
        case 2: s.pointee.cr2 = value
        case 3:
            guard value & ~(physicalMask | cBitMask | 0xfff) == 0 else { return gp() }
            s.pointee.cr3 = value
            flushLinearTranslations()
        case 4:
            let known =
                CR4.vme | CR4.pvi | CR4.tsd | CR4.de | CR4.pse | CR4.pae | CR4.mce | CR4.pge | CR4.pce | CR4.osfxsr
                | CR4.osxmmexcpt
            guard value & ~known == 0, value & CR4.pae != 0 || s.pointee.efer & EFER.lma == 0 else { return gp() }
            let old = s.pointee.cr4
            s.pointee.cr4 = value
            if (old ^ value) & (CR4.pge | CR4.pae | CR4.pse) != 0 { flushLinearTranslations() }
        case 8:
            guard value &>> 4 == 0 else { return gp() }
            s.pointee.cr8 = value
            prepareExit(.cr8Write, at: next)
            return false
        default:
            prepareException(6, at: rip)
            return false
        }
        continueAt(next, check: false)
        return false
    }

    /// LOOPNE, LOOPE, LOOP, JRCXZ (in opcode order): counts RCX, leaves "taken" in the first temporary.
    private func decideLoop(kind: UInt8, narrow: Bool) {
        var count: UInt64 = get(s, Slot.gpr(1))
        if narrow { count &= 0xffff_ffff }
        var taken: Bool
        if kind == 3 {
            taken = count == 0
        } else {
            count = count &- 1
            if narrow {
                put(s, Slot.gpr(1), UInt32(truncatingIfNeeded: count))
                count &= 0xffff_ffff
            } else {
                put(s, Slot.gpr(1), count)
            }
            taken = count != 0
            if kind == 0 { taken = taken && !flagZ(s) }
            if kind == 1 { taken = taken && flagZ(s) }
        }
        put(s, Slot.tmp(0), taken ? 1 as UInt64 : 0)
    }

    /// VERR, VERW, LAR, LSL: look at a descriptor without faulting on it. `base` is the selector's slot.
    private func inspectSelector(_ ip: IP, at rip: UInt64) -> Bool {
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
            putSized(u.dst, (d &>> 32) & 0x00f0_ff00, Int(u.scale))
        default:
            guard isSegment || type == 2 || type == 9 || type == 11 else { return true }
            s.pointee.fz = 0
            putSized(u.dst, UInt64(segment.limit), Int(u.scale))
        }
        return true
    }

    func putSized(_ slot: UInt16, _ value: UInt64, _ byteCount: Int) {
        switch byteCount {
        case 1: put(s, slot, UInt8(truncatingIfNeeded: value))
        case 2: put(s, slot, UInt16(truncatingIfNeeded: value))
        case 4: put(s, slot, UInt32(truncatingIfNeeded: value))
        default: put(s, slot, value)
        }
    }

    /// CMPXCHG8B and CMPXCHG16B at the address in `dst`.
    private func compareExchangePair(_ ip: IP, at rip: UInt64) -> Bool {
        let a: UInt64 = get(s, ip.pointee.dst)
        let user = userMode
        let equal: Bool
        guard isAligned(a, 8, at: rip) else { return false }
        if ip.pointee.src == SystemOperation.cmpxchg16b.rawValue {
            guard a & 15 == 0 else {
                prepareException(13, error: 0, at: rip)
                return false
            }
            guard let p = linearPointer(a, .write, user: user, at: rip) else { return false }
            let low = p.load(as: UInt64.self), high = p.load(fromByteOffset: 8, as: UInt64.self)
            equal = low == get(s, 0, as: UInt64.self) && high == get(s, Slot.gpr(2), as: UInt64.self)
            if equal {
                p.storeBytes(of: get(s, Slot.gpr(3)), as: UInt64.self)
                p.storeBytes(of: get(s, Slot.gpr(1)), toByteOffset: 8, as: UInt64.self)
            } else {
                put(s, 0, low)
                put(s, Slot.gpr(2), high)
            }
        } else {
            guard linearPointer(a, .write, user: user, at: rip) != nil,
                linearPointer(a &+ 7, .write, user: user, at: rip) != nil,
                let old: UInt64 = read(a, user: user, at: rip)
            else { return false }
            let expected = get(s, 0, as: UInt64.self) & 0xffff_ffff | get(s, Slot.gpr(2), as: UInt64.self) &<< 32
            equal = old == expected
            if equal {
                let new =
                    get(s, Slot.gpr(3), as: UInt64.self) & 0xffff_ffff | get(s, Slot.gpr(1), as: UInt64.self) &<< 32
                guard write(a, new, user: user, at: rip) else { return false }
            } else {
                put(s, 0, UInt32(truncatingIfNeeded: old))
                put(s, Slot.gpr(2), UInt32(truncatingIfNeeded: old &>> 32))
            }
        }
        let f = composeFlags(s) & ~RFLAGS.zf
        spreadArithmeticFlags(s, equal ? f | RFLAGS.zf : f)
        return true
    }

    /// After a store by the engine the running block may have been forgotten: go on through the run loop then.
    func runsOn(_ ip: IP) -> Bool {
        guard codeForgotten, (ip + 1).pointee.off != ip.pointee.off else { return true }
        codeForgotten = false
        continueAt(nextInstruction(s, ip), check: false)
        return false
    }

    /// ENTER imm16, imm8; `scale`: bytes per stack element.
    private func enterFrame(_ ip: IP, at rip: UInt64) -> Bool {
        let u = ip.pointee
        let level = Int(truncatingIfNeeded: (u.imm &>> 16) & 31), byteCount = u.imm & 0xffff
        let step = UInt64(u.scale)
        let user = userMode
        func mayTouch(_ a: UInt64) -> Bool {
            if !isCanonical(a) {
                prepareException(12, error: 0, at: rip)
                return false
            }
            if alignmentChecking, a & (step &- 1) != 0 {
                prepareException(17, error: 0, at: rip)
                return false
            }
            return true
        }
        func push(_ a: UInt64, _ value: UInt64) -> Bool {
            guard mayTouch(a) else { return false }
            return step == 2
                ? write(a, UInt16(truncatingIfNeeded: value), user: user, at: rip)
                : write(a, value, user: user, at: rip)
        }
        func load(_ a: UInt64) -> UInt64? {
            guard mayTouch(a) else { return nil }
            return step == 2
                ? read(a, as: UInt16.self, user: user, at: rip).map { UInt64($0) } : read(a, user: user, at: rip)
        }
        let rsp: UInt64 = get(s, Slot.rsp), rbp: UInt64 = get(s, Slot.rbp)
        var sp = rsp &- step
        guard push(sp, rbp) else { return false }
        let frame = sp
        if level > 0 {
            var source = rbp
            for _ in 1..<level {
                source = source &- step
                guard let v = load(source) else { return false }
                sp = sp &- step
                guard push(sp, v) else { return false }
            }
            sp = sp &- step
            guard push(sp, frame) else { return false }
        }
        // The processor probes the new stack top for writing.
        let top = sp &- byteCount
        guard mayTouch(top), linearPointer(top, .write, user: user, at: rip) != nil else { return false }
        step == 2 ? put(s, Slot.rbp, UInt16(truncatingIfNeeded: frame)) : put(s, Slot.rbp, frame)
        put(s, Slot.rsp, top)
        return true
    }

    // MARK: SNP

    /// PVALIDATE: RAX address, ECX size, EDX validate. Result in RAX and CF [APM3 PVALIDATE].
    private func pageValidate(at rip: UInt64) -> Bool {
        let a: UInt64 = get(s, 0), size: UInt32 = get(s, Slot.gpr(1)), validate: UInt32 = get(s, Slot.gpr(2))
        guard let page = instructionOperandPage(a, at: rip) else { return false }
        let before = memory.translate(gpa: page.gpa & ~0xfff, encrypted: true, access: .read)
        guard let result = memory.pvalidate(gpa: page.gpa & ~0xfff, size: size, validate: validate & 1 != 0) else {
            prepareExit(.nestedPageFault(gpa: page.gpa & ~0xfff, encrypted: true, access: .write), at: rip)
            return false
        }
        // A page that is no longer validated must leave every TLB; one that was not validated is in none.
        if validate & 1 == 0, result.code == 0, !result.unchanged {
            if size == 0, case .page(let host, _) = before { dropTranslations(to: host) } else { flushTLB() }
        }
        put(s, 0, result.code)
        let f = composeFlags(s) & ~RFLAGS.arithmetic
        spreadArithmeticFlags(s, result.unchanged ? f | RFLAGS.cf : f)
        return true
    }

    /// RMPADJUST: RAX address, RCX size, RDX attributes. Result in RAX and ZF [APM3 RMPADJUST].
    private func adjustRMP(at rip: UInt64) -> Bool {
        let a: UInt64 = get(s, 0), size: UInt32 = get(s, Slot.gpr(1)), attributes: UInt64 = get(s, Slot.gpr(2))
        guard let page = instructionOperandPage(a, at: rip) else { return false }
        guard let code = memory.rmpadjust(gpa: page.gpa & ~0xfff, size: size, attributes: attributes) else {
            prepareExit(.nestedPageFault(gpa: page.gpa & ~0xfff, encrypted: true, access: .write), at: rip)
            return false
        }
        flushTLB()
        put(s, 0, code)
        spreadArithmeticFlags(s, code == 0 ? RFLAGS.zf : 0)
        return true
    }

    private func instructionOperandPage(_ a: UInt64, at rip: UInt64) -> LinearPage? {
        guard isCanonical(a) else {
            prepareException(13, error: 0, at: rip)
            return nil
        }
        return walk(a, .read, user: false, at: rip)
    }

    /// Drops what leads to one host page, whichever linear addresses do.
    private func dropTranslations(to host: UnsafeMutableRawPointer) {
        let page = UInt(bitPattern: host)
        for table in [supervisorTLB, userTLB] {
            for i in 0..<Int(X86_TLB_SIZE) {
                let e = table + i
                if e.pointee.read != 1, UInt(truncatingIfNeeded: e.pointee.read &+ e.pointee.addend) == page {
                    e.pointee = x86_tlb_entry(read: 1, write: 1, unused: 0, addend: 0)
                }
            }
        }
        for i in 0..<256 where fetchCache[i].page == page { fetchCache[i].tag = 0 }
        for i in 0..<512 where UInt(bitPattern: walkCache[i].host) == page { walkCache[i].page = 1 }
    }
}
