// Breakpoints, single-stepping, DR6 and DR7 [APM2 13.1].
//
// Pages with a data breakpoint never enter the TLB: every access to them takes the slow path, which compares. Code on a
// page with an instruction breakpoint runs one instruction at a time. Without enabled breakpoints nothing of this costs
// anything.

import CX86State
import X86Defs

/// R/W field of a breakpoint.
private enum BreakpointKind: UInt64 {
    case execute, write, port, access
}

/// Breakpoints of the hypervisor, in place of the guest's.
public struct HostBreakpoints: Sendable, Equatable {
    /// DR0 to DR3.
    public var addresses: [4 of UInt64]
    public var dr7: UInt64
    public init(addresses: [4 of UInt64], dr7: UInt64) {
        self.addresses = addresses
        self.dr7 = dr7
    }

    public static func == (a: Self, b: Self) -> Bool {
        a.dr7 == b.dr7 && (0..<4).allSatisfy { a.addresses[$0] == b.addresses[$0] }
    }
}

extension Processor {
    private var armedDR7: UInt64 { hostBreakpoints?.dr7 ?? s.pointee.dr.7 }

    /// DR0…DR3 that DR7 enables: number, address, R/W field, bytes.
    private var enabledBreakpoints: [(Int, UInt64, BreakpointKind, UInt64)] {
        let dr7 = armedDR7
        return (0..<4).compactMap { n in
            guard dr7 &>> UInt64(n &* 2) & 3 != 0 else { return nil }
            let field = dr7 &>> UInt64(16 &+ n &* 4)
            let byteCount: UInt64 = [1, 2, 8, 4][Int((field &>> 2) & 3)]
            let address = hostBreakpoints?.addresses[n] ?? debugRegister(n)
            return (n, address & ~(byteCount &- 1), BreakpointKind(rawValue: field & 3) ?? .execute, byteCount)
        }
    }

    /// After a change of a debug register.
    func updateBreakpoints() {
        let wasArmed = debugArmed
        debugArmed = armedDR7 & 0xff != 0
        guard wasArmed || debugArmed else { return }
        watchedPages = enabledBreakpoints.filter { $0.2 == .write || $0.2 == .access }.map { $0.1 & ~0xfff }
        flushLinearTranslations()
    }

    func isWatched(_ a: UInt64) -> Bool { watchedPages.contains(a & ~0xfff) }

    /// Compares an access with the data breakpoints. True: #DB follows the instruction.
    @discardableResult
    func noteDataAccess(_ a: UInt64, _ byteCount: Int, write: Bool) -> Bool {
        var hit: UInt64 = 0
        for (n, base, kind, length) in enabledBreakpoints where kind == .access || kind == .write && write {
            if a &- base < length || base &- a < UInt64(byteCount) { hit |= 1 &<< UInt64(n) }
        }
        pendingDebug |= hit
        return hit != 0
    }

    func notePortAccess(_ port: UInt16, _ byteCount: Int) {
        guard s.pointee.cr4 & CR4.de != 0 else { return }
        for (n, base, kind, length) in enabledBreakpoints where kind == .port {
            let port = UInt64(port)
            if port &- base < length || base &- port < UInt64(byteCount) { pendingDebug |= 1 &<< UInt64(n) }
        }
    }

    /// Must the instruction at RIP run alone? Its page has a breakpoint, RF protects it, or it stands behind MOV SS.
    func needsSingleInstruction() -> Bool {
        if s.pointee.system_flags & RFLAGS.rf != 0 || s.pointee.shadow == 2 { return true }
        let page = s.pointee.rip & ~0xfff
        return enabledBreakpoints.contains { $0.2 == .execute && $0.1 & ~0xfff == page }
    }

    /// An instruction breakpoint at RIP: #DB as a fault is prepared. RF is spent either way.
    func breakpointHere() -> Bool {
        if s.pointee.system_flags & RFLAGS.rf != 0 {
            s.pointee.system_flags &= ~RFLAGS.rf
            return false
        }
        guard debugArmed else { return false }
        var hit: UInt64 = 0
        for (n, base, kind, _) in enabledBreakpoints where kind == .execute && base == s.pointee.rip {
            hit |= 1 &<< UInt64(n)
        }
        guard hit != 0 else { return false }
        setDebugStatus(hit)
        prepareException(1, at: s.pointee.rip)
        return true
    }

    /// Behind an instruction: #DB if it was stepped, or touched what is watched. MOV SS puts the trap off; a fault of the
    /// instruction takes its place.
    func debugTrap(stepping: Bool) {
        let leave = Int(s.pointee.leave)
        guard leave == Int(X86_LEAVE_LOOKUP) || leave == Int(X86_LEAVE_CHECK) else {
            if leave == Int(X86_LEAVE_EXCEPTION) { pendingDebug = 0 }
            return
        }
        if s.pointee.shadow == 2 { return }
        let stepped = stepping && !stepSuppressed || stepAfterAll
        guard stepped || pendingDebug != 0 else { return }
        setDebugStatus(pendingDebug | (stepped ? 0x4000 : 0))
        pendingDebug = 0
        prepareException(1, at: s.pointee.rip)
    }

    /// DR7.GD: an access to a debug register is a #DB itself.
    func generalDetect(at rip: UInt64) -> Bool {
        guard armedDR7 & (1 &<< 13) != 0 else { return false }
        setDebugStatus(1 &<< 13)
        debugFault = true
        prepareException(1, at: rip)
        return true
    }

    /// B0 to B3 say only what happened last; the others stay until software clears them. What is intercepted is no concern
    /// of the guest's DR6.
    func setDebugStatus(_ bits: UInt64) {
        if exceptionIntercepts & 2 != 0 {
            interceptedDebugStatus = 0xffff_0ff0 | bits
        } else {
            s.pointee.dr.6 = s.pointee.dr.6 & ~15 | bits
        }
    }

    // MARK: Interception

    /// True: the event is the hypervisor's, and its exit is prepared.
    func intercept(_ event: Event) -> Bool {
        guard exceptionIntercepts &>> UInt32(event.vector & 31) & 1 != 0 else { return false }
        exit = .exception(vector: event.vector, errorCode: event.errorCode)
        return true
    }

    /// May this address be in the jump cache? With five levels of paging only those that look as with four.
    func hasJumpKey(_ rip: UInt64) -> Bool {
        canonicalShift == 16 || Int64(bitPattern: rip) &>> 47 == Int64(bitPattern: rip) &>> 63
    }
}
