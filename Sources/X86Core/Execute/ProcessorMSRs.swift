// The MSRs that live in the processor and are never intercepted (what KVM passes through to a guest with encrypted
// state), and RDTSC's clock.

import CX86State
import Glibc
import X86Defs

enum MSRWrite {
    case done, refused, foreign
}

extension Processor {
    /// Nanoseconds scaled to the guest's frequency.
    var scaledTime: UInt64 {
        var t = timespec()
        clock_gettime(CLOCK_MONOTONIC, &t)
        let ns = UInt64(bitPattern: Int64(t.tv_sec)) &* 1_000_000_000 &+ UInt64(bitPattern: Int64(t.tv_nsec))
        if tscKHz == 1_000_000 { return ns }
        let (high, low) = ns.multipliedFullWidth(by: UInt64(tscKHz))
        return high < 1_000_000 ? UInt64(1_000_000).dividingFullWidth((high, low)).quotient : .max
    }

    /// MSRs by number: nil = not the processor's own.
    public func readOwnMSR(_ index: UInt32) -> UInt64? {
        let c = s.pointee
        switch index {
        case 0x10: return tsc
        case 0x174: return c.sysenter_cs
        case 0x175: return c.sysenter_esp
        case 0x176: return c.sysenter_eip
        case 0x277: return c.pat
        case 0xda0: return features.contains(.xsaves) ? c.xss : nil
        case 0xc000_0080: return c.efer
        case 0xc000_0081: return c.star
        case 0xc000_0082: return c.lstar
        case 0xc000_0083: return c.cstar
        case 0xc000_0084: return c.sfmask
        case 0xc000_0100: return c.fs_base
        case 0xc000_0101: return c.gs_base
        case 0xc000_0102: return c.kernel_gs_base
        case 0xc000_0103: return c.tsc_aux
        case 0xc001_0130: return configuration.encryptedState ? c.ghcb_msr : nil
        case 0xc001_0131: return configuration.cBit != nil ? c.sev_status : nil
        default: return nil
        }
    }

    /// A guest's RDMSR and WRMSR of the processor's own MSRs stay inside, but for what is intercepted: TSC_AUX without an
    /// instruction that shows it [KVM svm_recalc_msr_intercepts].
    func owns(_ index: UInt32) -> Bool {
        if interceptsOwnMSRs { return false }
        return index != 0xc000_0103 || features.contains(.rdtscp) || features.contains(.rdpid)
    }

    /// Returns false if the MSR is not the processor's own, or the value is refused.
    public func writeOwnMSR(_ index: UInt32, _ value: UInt64) -> Bool { writeProcessorMSR(index, value) == .done }

    func writeProcessorMSR(_ index: UInt32, _ value: UInt64) -> MSRWrite {
        switch index {
        // KVM keeps TSC_ADJUST beside it.
        case 0x10: return .foreign
        case 0x174: s.pointee.sysenter_cs = value
        case 0x175: s.pointee.sysenter_esp = value
        case 0x176: s.pointee.sysenter_eip = value
        case 0x277:
            for i in 0..<8 {
                let type = (value &>> UInt64(i &* 8)) & 0xff
                if type > 7 || type == 2 || type == 3 { return .refused }
            }
            s.pointee.pat = value
        case 0xda0:
            // No supervisor components.
            guard features.contains(.xsaves) else { return .foreign }
            guard value == 0 else { return .refused }
        case 0xc000_0080:
            let known = EFER.sce | EFER.lme | EFER.lma | EFER.nxe | EFER.svme
            guard value & ~known == 0 else { return .refused }
            if (value ^ s.pointee.efer) & EFER.lme != 0, s.pointee.cr0 & CR0.pg != 0 { return .refused }
            s.pointee.efer = value & ~EFER.lma | s.pointee.efer & EFER.lma
            flushLinearTranslations()
        case 0xc000_0081: s.pointee.star = value
        case 0xc000_0082, 0xc000_0083, 0xc000_0100, 0xc000_0101, 0xc000_0102:
            guard isCanonical(value) else { return .refused }
            switch index {
            case 0xc000_0082: s.pointee.lstar = value
            case 0xc000_0083: s.pointee.cstar = value
            case 0xc000_0100: s.pointee.fs_base = value
            case 0xc000_0101: s.pointee.gs_base = value
            default: s.pointee.kernel_gs_base = value
            }
        case 0xc000_0084: s.pointee.sfmask = value & 0xffff_ffff
        case 0xc000_0103: s.pointee.tsc_aux = value & 0xffff_ffff
        case 0xc001_0130:
            guard configuration.encryptedState else { return .foreign }
            s.pointee.ghcb_msr = value
        case 0xc001_0131: return configuration.cBit != nil ? .refused : .foreign
        default: return .foreign
        }
        return .done
    }
}
