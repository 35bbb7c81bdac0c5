// XSAVE and its relatives [APM2 11.5, APM4], FSGSBASE, RDPID, CLZERO.
//
//   0     legacy region: as FXSAVE writes it
//   512   header: XSTATE_BV, XCOMP_BV, zeros
//   576   AVX: the upper halves of YMM0…15 (standard and compacted format alike: it is the first component here)
//   2432  PKRU, 8 bytes, in the standard format; in the compacted one behind AVX, or in its place if that is left out
//
// A component counts as in use when it differs from its initial state; the modified optimisation is not made: XSAVEOPT
// and XSAVES write every component in use.

import CX86State
import X86Defs

enum ExtendedOperation: UInt16 {
    case xsave, xsaveopt, xsavec, xsaves, xrstor, xrstors, xgetbv, xsetbv
    case readBase, writeBase, rdpid, clzero
}

/// State components, as bits of XCR0.
enum StateComponent {
    static let x87: UInt64 = 1, sse: UInt64 = 2, avx: UInt64 = 4, pkru: UInt64 = 1 &<< 9
    /// Where PKRU is in the standard format of AMD's processors.
    static let pkruOffset: UInt64 = 0x980
    static let compacted: UInt64 = 1 &<< 63
}

@inline(__always)
func extendedInstruction(_ s: CPU, _ ip: IP) {
    guard extendedIsDone(s, ip) != 0 else { return }
    next(s, ip)
}

/// Of a type of its own, as `simdIsDone`.
@inline(never)
private func extendedIsDone(_ s: CPU, _ ip: IP) -> UInt32 { performExtended(s, ip) ? 1 : 0 }

@inline(__always)
private func performExtended(_ s: CPU, _ ip: IP) -> Bool {
    let p = processor(s)
    if p.extended(ip) { return p.runsOn(ip) }
    p.turnIntoStackFault(ip)
    return false
}

extension Processor {
    /// What XCR0 may contain.
    var supportedXCR0: UInt64 {
        (features.contains(.avx) ? 7 : 3)
            | (configuration.announcedCR4 & CR4.pke != 0 ? StateComponent.pkru : 0)
    }

    /// Offset of PKRU in an area whose compacted layout has these components, or in the standard format.
    private func pkruOffset(compacted layout: UInt64?) -> UInt64 {
        guard let layout else { return StateComponent.pkruOffset }
        return layout & StateComponent.avx != 0 ? 832 : 576
    }

    fileprivate func extended(_ ip: IP) -> Bool {
        let u = ip.pointee
        let rip = instructionAddress(s, ip)
        func fault(_ vector: UInt32) -> Bool {
            prepareException(vector, error: vector == 13 ? 0 : nil, at: rip)
            return false
        }
        let op = ExtendedOperation(rawValue: u.src).unsafelyUnwrapped
        let osxsave = s.pointee.cr4 & CR4.osxsave != 0
        switch op {
        case .xsave, .xsaveopt, .xsavec, .xsaves, .xrstor, .xrstors:
            guard osxsave else { return fault(6) }
            let supervisor = op == .xsaves || op == .xrstors
            if supervisor, s.pointee.cpl != 0 { return fault(13) }
            if s.pointee.cr0 & CR0.ts != 0 { return fault(7) }
            let a: UInt64 = get(s, u.dst)
            let requested = get(s, 0, as: UInt64.self) & 0xffff_ffff | get(s, Slot.gpr(2), as: UInt64.self) &<< 32
            guard isCanonical(a), a & 63 == 0 else {
                return features.contains(.amdOrder) || isAligned(a, 4, at: rip) ? fault(13) : false
            }
            let components = requested & s.pointee.xcr0
            return op == .xrstor || op == .xrstors
                ? restoreExtended(a, components, onlyCompacted: supervisor, wide: u.imm != 0, at: rip)
                : saveExtended(op, a, components, wide: u.imm != 0, at: rip)
        case .xgetbv:
            guard osxsave else { return fault(6) }
            let index: UInt32 = get(s, Slot.gpr(1))
            guard index == 0 || index == 1 && features.contains(.xgetbv1) else { return fault(13) }
            let value = index == 0 ? s.pointee.xcr0 : s.pointee.xcr0 & componentsInUse
            put(s, 0, value & 0xffff_ffff)
            put(s, Slot.gpr(2), value &>> 32)
        case .xsetbv:
            guard osxsave else { return fault(6) }
            let value = get(s, 0, as: UInt64.self) & 0xffff_ffff | get(s, Slot.gpr(2), as: UInt64.self) &<< 32
            guard s.pointee.cpl == 0, get(s, Slot.gpr(1), as: UInt32.self) == 0, isValidXCR0(value) else {
                return fault(13)
            }
            s.pointee.xcr0 = value
            continueAt(nextInstruction(s, ip), check: false)
            return false
        case .readBase, .writeBase:
            guard s.pointee.cr4 & CR4.fsgsbase != 0 else { return fault(6) }
            let gs = u.imm != 0
            if op == .readBase {
                putSized(u.dst, gs ? s.pointee.gs_base : s.pointee.fs_base, Int(u.scale))
                return true
            }
            let value: UInt64 = u.scale == 8 ? get(s, u.dst) : UInt64(get(s, u.dst, as: UInt32.self))
            guard isCanonical(value) else { return fault(13) }
            if gs { s.pointee.gs_base = value } else { s.pointee.fs_base = value }
        case .rdpid: put(s, u.dst, s.pointee.tsc_aux & 0xffff_ffff)
        case .clzero:
            let a = get(s, u.dst, as: UInt64.self) & ~63
            guard let p = linearPointer(a, .write, user: userMode, at: rip) else { return false }
            p.initializeMemory(as: UInt8.self, repeating: 0, count: 64)
        }
        return true
    }

    /// x87 always, AVX only with SSE [APM2 11.5.2].
    public func isValidXCR0(_ value: UInt64) -> Bool {
        value & ~supportedXCR0 == 0 && value & 1 != 0 && value & 6 != 4
    }

    /// XINUSE: components that are not in their initial state.
    var componentsInUse: UInt64 {
        let c = s
        var used: UInt64 = 0
        var significands: UInt64 = 0, exponents: UInt64 = 0
        for i in 0..<8 {
            significands |= mantissa(i)
            exponents |= UInt64(exponent(i))
        }
        if c.pointee.fcw != 0x37f || c.pointee.fsw != 0 || c.pointee.ftw != 0 || c.pointee.fop != 0
            || c.pointee.fip != 0
            || c.pointee.fdp != 0 || significands | exponents != 0
        {
            used |= StateComponent.x87
        }
        if !isZero(Slot.xmm0) { used |= StateComponent.sse }
        if !isZero(Slot.xmm0 &+ Slot.upper) { used |= StateComponent.avx }
        if c.pointee.pkru != 0 { used |= StateComponent.pkru }
        return used
    }

    /// Sixteen vectors from a slot on are all zero.
    private func isZero(_ slot: UInt16) -> Bool {
        var any = Vector()
        for i in 0..<16 { any |= getVector(s, slot &+ UInt16(i &* 16)) }
        return any == Vector()
    }

    // MARK: Saving

    private func saveExtended(
        _ op: ExtendedOperation, _ a: UInt64, _ components: UInt64, wide: Bool, at rip: UInt64
    ) -> Bool {
        let compacts = op == .xsavec || op == .xsaves
        var used = componentsInUse
        // MXCSR is no part of what XINUSE looks at, but the compacted forms keep it.
        if compacts, s.pointee.mxcsr != 0x1f80 { used |= StateComponent.sse }
        let written = op == .xsave ? components : components & used
        let user = userMode
        // The whole area first: nothing is written if any of it faults.
        let pkruOffset = pkruOffset(compacted: compacts ? components : nil)
        let byteCount: UInt64 =
            components & StateComponent.pkru != 0
            ? pkruOffset &+ 8 : components & StateComponent.avx != 0 ? 832 : 576
        for at in [a, a &+ byteCount &- 1] {
            guard linearPointer(at, .write, user: user, at: rip) != nil else { return false }
        }
        var header: UInt64 = components & used
        if !compacts {
            guard let old: UInt64 = read(a &+ 512, user: user, at: rip) else { return false }
            header |= old & ~components
        }
        let image = fxsaveImage(wide: wide)
        func put(_ first: Int, _ last: Int) -> Bool {
            for i in first...last {
                guard write(a &+ UInt64(i &* 8), image[i], user: user, at: rip) else { return false }
            }
            return true
        }
        if written & StateComponent.x87 != 0 { guard put(0, 2), put(4, 19) else { return false } }
        if compacts ? written & StateComponent.sse != 0 : components & (StateComponent.sse | StateComponent.avx) != 0 {
            guard put(3, 3) else { return false }
        }
        if written & StateComponent.sse != 0 { guard put(20, savedQuadwords &- 1) else { return false } }
        if written & StateComponent.avx != 0 {
            for i in 0..<savedQuadwords &- 20 {
                let value: UInt64 = get(s, Slot.xmm0 &+ Slot.upper &+ UInt16(i &* 8))
                guard write(a &+ 576 &+ UInt64(i &* 8), value, user: user, at: rip) else { return false }
            }
        }
        if written & StateComponent.pkru != 0 {
            guard write(a &+ pkruOffset, UInt64(s.pointee.pkru), user: user, at: rip) else { return false }
        }
        guard write(a &+ 512, header, user: user, at: rip) else { return false }
        guard compacts else { return true }
        return write(a &+ 520, components | StateComponent.compacted, user: user, at: rip)
    }

    // MARK: Restoring

    private func restoreExtended(
        _ a: UInt64, _ components: UInt64, onlyCompacted: Bool, wide: Bool, at rip: UInt64
    ) -> Bool {
        let user = userMode
        func gp() -> Bool {
            prepareException(13, error: 0, at: rip)
            return false
        }
        guard linearPointer(a, .read, user: user, at: rip) != nil else { return false }
        var header = [UInt64](repeating: 0, count: 8)
        for i in 0..<8 {
            guard let v: UInt64 = read(a &+ 512 &+ UInt64(i &* 8), user: user, at: rip) else { return false }
            header[i] = v
        }
        let present = header[0], format = header[1]
        if format & StateComponent.compacted != 0 {
            guard features.contains(.xsavec) else { return gp() }
            let layout = format & ~StateComponent.compacted
            guard layout & ~s.pointee.xcr0 == 0, present & ~layout == 0, header[2...].allSatisfy({ $0 == 0 }) else {
                return gp()
            }
        } else {
            guard !onlyCompacted, present & ~s.pointee.xcr0 == 0, format == 0, header[2] == 0 else { return gp() }
        }
        let compacted = format & StateComponent.compacted != 0
        let loaded = components & present
        // Read everything before anything changes.
        var image = [UInt64](repeating: 0, count: 52)
        let initial = initialImage
        for i in 0..<52 {
            let component = i == 3 ? StateComponent.sse : i < 20 ? StateComponent.x87 : StateComponent.sse
            image[i] = initial[i]
            guard loaded & component != 0 else { continue }
            guard let v: UInt64 = read(a &+ UInt64(i &* 8), user: user, at: rip) else { return false }
            image[i] = v
        }
        // The standard format takes MXCSR whenever SSE or AVX is asked for.
        let takesControl =
            compacted
            ? components & StateComponent.sse != 0 : components & (StateComponent.sse | StateComponent.avx) != 0
        if takesControl {
            if !compacted {
                guard let v: UInt64 = read(a &+ 24, user: user, at: rip) else { return false }
                image[3] = v
            }
            guard UInt32(truncatingIfNeeded: image[3]) & ~mxcsrMask == 0 else { return gp() }
        }
        var upper = [UInt64](repeating: 0, count: 32)
        if loaded & StateComponent.avx != 0 {
            for i in 0..<32 {
                guard let v: UInt64 = read(a &+ 576 &+ UInt64(i &* 8), user: user, at: rip) else { return false }
                upper[i] = v
            }
        }
        var pkru: UInt32 = 0
        if loaded & StateComponent.pkru != 0 {
            let layout = compacted ? format & ~StateComponent.compacted : nil
            guard let v: UInt32 = read(a &+ pkruOffset(compacted: layout), user: user, at: rip) else { return false }
            pkru = v
        }
        // What was not asked for stays.
        let now = fxsaveImage(wide: true)
        let keepsX87 = components & StateComponent.x87 == 0, keepsSSE = components & StateComponent.sse == 0
        for i in 0..<52 where i != 3 {
            if i < 20 ? keepsX87 : keepsSSE { image[i] = now[i] }
        }
        if !takesControl { image[3] = now[3] }
        loadFXImage(image, wide: wide || keepsX87)
        if components & StateComponent.avx != 0 {
            for i in 0..<savedQuadwords &- 20 {
                UnsafeMutableRawPointer(s).storeBytes(
                    of: upper[i], toByteOffset: Int(Slot.xmm0 &+ Slot.upper) &+ i &* 8, as: UInt64.self)
            }
        }
        if components & StateComponent.pkru != 0 { setKeyRights(pkru) }
        return true
    }

    /// The legacy region of the initial state.
    private var initialImage: [UInt64] {
        var image = [UInt64](repeating: 0, count: 52)
        image[0] = 0x37f
        image[3] = 0x1f80
        return image
    }

    /// The bits that MXCSR has.
    var mxcsrMask: UInt32 { features.contains(.misalignedSSE) ? 0x2_ffff : 0xffff }
}
