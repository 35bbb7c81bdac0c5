// Floating point, AES and SHA by the host's own instructions, where the host is an x86 processor: exact by construction,
// flags and NaNs included. A guest's operation runs under the host's MXCSR, which says the same as the guest's nearly
// always: same rounding, all exceptions masked. What the operation adds to the host's sticky flags is compared with what
// the guest has already; only if something is new, or the guest's control is another, the operation is repeated under
// the guest's MXCSR. Exceptions that are not masked, and other hosts, are the business of the integer core (SSEFloat.swift).

import CX86State
import X86Defs

#if arch(x86_64)

    /// Same control, and no flag that the guest does not have.
    @inline(__always)
    private func hostAgrees(_ s: CPU) -> Bool {
        let host = x86_host_mxcsr(s), guest = s.pointee.mxcsr
        return ((host ^ guest) & 0xffc0) | (host & ~guest & 0x3f) == 0
    }

    /// Does the uop the long way and goes on behind it.
    @inline(never)
    private func floatTheLongWay(_ s: CPU, _ ip: IP) {
        guard performSSEFloat(s, ip) else { return }
        s.pointee.resume_uop = ip + 1
        s.pointee.leave = UInt32(X86_LEAVE_REDO)
    }

    @inline(__always)
    private func isOn(_ s: CPU, vex: Bool) -> Bool { vex ? avxIsOn(s) : sseIsOn(s) }
    @inline(__always)
    private func isOff(_ s: CPU, _ ip: IP, vex: Bool) { vex ? avxIsOff(s, ip) : sseIsOff(s, ip) }

    @inline(__always)
    private func put(_ s: CPU, _ slot: UInt16, _ low: Vector, _ high: Vector, vex: Bool) {
        putVector(s, slot, low)
        if vex { putVector(s, slot &+ Slot.upper, high) }
    }

    /// ADDPS and kin: `type` 0 PS, 1 PD, 2 SS, 3 SD.
    @inline(__always)
    func hostFloat(_ s: CPU, _ ip: IP, _ operation: Int, _ type: Int32, vex: Bool, wide: Bool) {
        guard isOn(s, vex: vex) else { return isOff(s, ip, vex: vex) }
        let op = Int32(truncatingIfNeeded: operation)
        let low = x86_host_arithmetic(op, type, getVector(s, ip.pointee.base), getVector(s, ip.pointee.src))
        let high =
            wide
            ? x86_host_arithmetic(
                op, type, getVector(s, ip.pointee.base &+ Slot.upper), getVector(s, ip.pointee.src &+ Slot.upper))
            : Vector()
        guard hostAgrees(s) else { return floatTheLongWay(s, ip) }
        put(s, ip.pointee.dst, low, high, vex: vex)
        next(s, ip)
    }

    /// UCOMISS, COMISS and their double forms.
    @inline(__always)
    func hostCompare(_ s: CPU, _ ip: IP, isDouble: Bool, signals: Bool, vex: Bool) {
        guard isOn(s, vex: vex) else { return isOff(s, ip, vex: vex) }
        let f = x86_host_compare(
            isDouble ? 1 : 0, signals ? 1 : 0, getVector(s, ip.pointee.dst), getVector(s, ip.pointee.src))
        guard hostAgrees(s) else { return floatTheLongWay(s, ip) }
        s.pointee.fz = ~f & RFLAGS.zf
        s.pointee.fs = (~f & RFLAGS.pf) &>> 2
        s.pointee.fc = f &<< 63 | (f & RFLAGS.cf) &<< 62
        next(s, ip)
    }

    /// CVTSI2SS, CVTSI2SD.
    @inline(__always)
    func hostFromInteger(_ s: CPU, _ ip: IP, isDouble: Bool, wide: Bool, vex: Bool) {
        guard isOn(s, vex: vex) else { return isOff(s, ip, vex: vex) }
        let r = x86_host_from_integer(
            isDouble ? 1 : 0, wide ? 1 : 0, getVector(s, ip.pointee.base), get(s, ip.pointee.src))
        guard hostAgrees(s) else { return floatTheLongWay(s, ip) }
        put(s, ip.pointee.dst, r, Vector(), vex: vex)
        next(s, ip)
    }

    /// CVTSS2SI, CVTTSS2SI and their double forms.
    @inline(__always)
    func hostToInteger(_ s: CPU, _ ip: IP, isDouble: Bool, wide: Bool, truncates: Bool, vex: Bool) {
        guard isOn(s, vex: vex) else { return isOff(s, ip, vex: vex) }
        let r = x86_host_to_integer(
            isDouble ? 1 : 0, wide ? 1 : 0, truncates ? 1 : 0, getVector(s, ip.pointee.src))
        guard hostAgrees(s) else { return floatTheLongWay(s, ip) }
        put(s, ip.pointee.dst, r)
        next(s, ip)
    }

    /// CVTSS2SD, CVTSD2SS.
    @inline(__always)
    func hostFormat(_ s: CPU, _ ip: IP, fromDouble: Bool, vex: Bool) {
        guard isOn(s, vex: vex) else { return isOff(s, ip, vex: vex) }
        let r = x86_host_scalar_format(
            fromDouble ? 1 : 0, getVector(s, ip.pointee.base), getVector(s, ip.pointee.src))
        guard hostAgrees(s) else { return floatTheLongWay(s, ip) }
        put(s, ip.pointee.dst, r, Vector(), vex: vex)
        next(s, ip)
    }

    /// What the host does lane by lane without looking at MXCSR. The generator's table has the same order.
    enum HostLane: Int {
        case pshufb, aesenc, aesenclast, aesdec, aesdeclast, aesimc, pclmulqdq
        case sha1nexte, sha1msg1, sha1msg2, sha256msg1, sha256msg2, sha1rnds4, sha256rnds2

        /// The operation's number and the host's X86_HOST_* that it takes.
        static func of(_ op: SIMDOperation) -> (HostLane, UInt32)? {
            switch op {
            case .pshufb: return (.pshufb, UInt32(X86_HOST_FLOAT))
            case .aesenc: return (.aesenc, UInt32(X86_HOST_AES))
            case .aesenclast: return (.aesenclast, UInt32(X86_HOST_AES))
            case .aesdec: return (.aesdec, UInt32(X86_HOST_AES))
            case .aesdeclast: return (.aesdeclast, UInt32(X86_HOST_AES))
            case .aesimc: return (.aesimc, UInt32(X86_HOST_AES))
            case .pclmulqdq: return (.pclmulqdq, UInt32(X86_HOST_PCLMULQDQ))
            case .sha1nexte: return (.sha1nexte, UInt32(X86_HOST_SHA))
            case .sha1msg1: return (.sha1msg1, UInt32(X86_HOST_SHA))
            case .sha1msg2: return (.sha1msg2, UInt32(X86_HOST_SHA))
            case .sha256msg1: return (.sha256msg1, UInt32(X86_HOST_SHA))
            case .sha256msg2: return (.sha256msg2, UInt32(X86_HOST_SHA))
            case .sha1rnds4: return (.sha1rnds4, UInt32(X86_HOST_SHA))
            case .sha256rnds2: return (.sha256rnds2, UInt32(X86_HOST_SHA))
            default: return nil
            }
        }
    }

    @inline(__always)
    private func lane(_ op: HostLane, _ a: Vector, _ b: Vector, _ third: Vector, _ imm: Int32) -> Vector {
        switch op {
        case .pshufb: return x86_host_pshufb(a, b)
        case .aesenc, .aesenclast, .aesdec, .aesdeclast, .aesimc:
            return x86_host_aes(Int32(truncatingIfNeeded: op.rawValue &- HostLane.aesenc.rawValue), a, b)
        case .pclmulqdq: return x86_host_pclmulqdq(imm, a, b)
        case .sha1nexte, .sha1msg1, .sha1msg2, .sha256msg1, .sha256msg2:
            return x86_host_sha_message(Int32(truncatingIfNeeded: op.rawValue &- HostLane.sha1nexte.rawValue), a, b)
        case .sha1rnds4: return x86_host_sha1_rounds(imm & 3, a, b)
        case .sha256rnds2: return x86_host_sha256_rounds(a, b, third)
        }
    }

    @inline(__always)
    func hostLane(_ s: CPU, _ ip: IP, _ op: HostLane, vex: Bool, wide: Bool) {
        guard isOn(s, vex: vex) else { return isOff(s, ip, vex: vex) }
        let imm = Int32(truncatingIfNeeded: ip.pointee.imm & 0xff)
        let third = op == .sha256rnds2 ? getVector(s, ip.pointee.index) : Vector()
        let low = lane(op, getVector(s, ip.pointee.base), getVector(s, ip.pointee.src), third, imm)
        let high =
            wide
            ? lane(
                op, getVector(s, ip.pointee.base &+ Slot.upper), getVector(s, ip.pointee.src &+ Slot.upper), third, imm)
            : Vector()
        put(s, ip.pointee.dst, low, high, vex: vex)
        next(s, ip)
    }

    /// A uop of the general handler under the guest's MXCSR. False: the integer core must do it.
    @inline(never)
    func hostFloatByNumber(_ s: CPU, _ u: x86_uop) -> Bool {
        // With an exception unmasked, the operation may have to stop; tiny results raise other flags, too.
        guard s.pointee.mxcsr & 0x1f80 == 0x1f80 else { return false }
        let code = FloatCode(u.imm)
        // The MMX forms.
        if code.opcode == 0x2a || code.opcode == 0x2c || code.opcode == 0x2d, !code.isScalar { return false }
        // A general register among the operands stands on no boundary of 16 bytes.
        func lanes(_ slot: UInt16) -> (Vector, Vector) {
            let p = UnsafeRawPointer(s) + Int(slot)
            return (
                p.loadUnaligned(as: Vector.self), p.loadUnaligned(fromByteOffset: Int(Slot.upper), as: Vector.self)
            )
        }
        var r = (Vector(), Vector())
        let a = lanes(u.base), b = lanes(u.src), c = lanes(u.dst)
        let flags = withUnsafePointer(to: a) { a in
            withUnsafePointer(to: b) { b in
                withUnsafePointer(to: c) { c in
                    withUnsafeMutablePointer(to: &r) { r in
                        x86_host_float(
                            u.imm, s.pointee.host, s.pointee.mxcsr,
                            UnsafeMutableRawPointer(r).assumingMemoryBound(to: Vector.self),
                            UnsafeRawPointer(a).assumingMemoryBound(to: Vector.self),
                            UnsafeRawPointer(b).assumingMemoryBound(to: Vector.self),
                            UnsafeRawPointer(c).assumingMemoryBound(to: Vector.self))
                    }
                }
            }
        }
        guard flags >= 0 else { return false }
        s.pointee.mxcsr |= UInt32(truncatingIfNeeded: flags)
        switch code.opcode {
        case 0x2e, 0x2f: spreadArithmeticFlags(s, r.0.x)
        case 0x2c, 0x2d: put(s, u.dst, r.0.x)
        default: put(s, u.dst, r.0, r.1, vex: code.vex)
        }
        return true
    }

#endif
