// One non-automatic exit: the registers that the guest has put into its GHCB, taken once, and the answer that goes back.
//
// The GHCB is shared memory and changes under us. So the page is copied when the exit comes, the bitmap is cleared there,
// and everything that follows uses the copy; only results are written.

import SEVABI

/// The registers KVM consumes from a GHCB, and where the answer goes.
package struct GHCBSession: Equatable, Sendable {
    /// GPA of the GHCB, page aligned.
    package let gpa: UInt64
    package var rax: UInt64 = 0
    package var rbx: UInt64 = 0
    package var rcx: UInt64 = 0
    package var rdx: UInt64 = 0
    package var rsi: UInt64 = 0
    package var cpl: UInt64 = 0
    package var exitCode: UInt64 = 0
    package var exitInfo1: UInt64 = 0
    package var exitInfo2: UInt64 = 0
    package var scratch: UInt64 = 0
    /// RAX and RBX were valid: where certificates go, and how many pages that is.
    package var hasCertificateBuffer = false

    /// Registers without a valid bit read as zero.
    package init(gpa: UInt64, ghcb: GHCB) {
        self.gpa = gpa
        rax = ghcb[.rax] ?? 0
        rbx = ghcb[.rbx] ?? 0
        rcx = ghcb[.rcx] ?? 0
        rdx = ghcb[.rdx] ?? 0
        rsi = ghcb[.rsi] ?? 0
        cpl = ghcb[.cpl] ?? 0
        exitCode = ghcb[.exitCode] ?? 0
        exitInfo1 = ghcb[.exitInfo1] ?? 0
        exitInfo2 = ghcb[.exitInfo2] ?? 0
        scratch = ghcb[.scratch] ?? 0
        hasCertificateBuffer = ghcb.isValid(.rax) && ghcb.isValid(.rbx)
    }

    /// What is wrong with the input, nil if nothing [GHCB 4.1; KVM sev_es_validate_vmgexit].
    ///
    /// - Parameter isSNP: Events that only SNP has are refused to others as if something were missing.
    package static func refusal(of ghcb: GHCB, isSNP: Bool = true) -> GHCBMalformedInput? {
        if ghcb.usage != 0 { return .invalidUsage }
        guard let code = ghcb[.exitCode], let info1 = ghcb[.exitInfo1], let info2 = ghcb[.exitInfo2] else {
            return .missingInput
        }
        func needs(_ fields: GHCB.Field...) -> GHCBMalformedInput? {
            fields.allSatisfy { ghcb.isValid($0) } ? nil : .missingInput
        }
        switch GHCBEvent(rawValue: code) {
        case .pageStateChange, .apCreation, .guestRequest, .extendedGuestRequest: if !isSNP { return .missingInput }
        default: break
        }
        switch GHCBEvent(rawValue: code) {
        case .writeDR7: return needs(.rax)
        case .rdpmc: return needs(.rcx)
        case .cpuid: return needs(.rax, .rcx) ?? (ghcb[.rax] == 0xd ? needs(.xcr0) : nil)
        case .ioio:
            if info1 & IOIOInformation.string != 0 { return needs(.scratch) }
            return info1 & IOIOInformation.isInput == 0 ? needs(.rax) : nil
        case .msr: return needs(.rcx) ?? (info1 != 0 ? needs(.rax, .rdx) : nil)
        case .vmmcall: return needs(.rax, .cpl)
        case .monitor: return needs(.rax, .rcx, .rdx)
        case .mwait: return needs(.rax, .rcx)
        case .mmioRead, .mmioWrite, .pageStateChange: return needs(.scratch)
        case .apCreation: return info1 & 0xffff_ffff != 2 ? needs(.rax) : nil
        case .guestRequest, .extendedGuestRequest:
            // KVM has one reason for everything that these events lack. RAX and RBX matter for some messages only.
            return (info1 | info2) & 4095 != 0 || info1 == info2 ? .missingInput : nil
        case .readDR7, .rdtsc, .invd, .rdtscp, .wbinvd, .nmiComplete, .apResetHold, .apJumpTable, .hypervisorFeatures,
            .termination, .unsupported:
            return nil
        default: return .invalidEvent
        }
    }
}

/// SW_EXITINFO1 of an IOIO exit, as the processor's EXITINFO1 [APM2 15.10.2].
enum IOIOInformation {
    static let isInput: UInt64 = 1 << 0
    static let string: UInt64 = 1 << 2

    static func byteCount(_ information: UInt64) -> Int? {
        switch information >> 4 & 7 {
        case 1: 1
        case 2: 2
        case 4: 4
        default: nil
        }
    }

    static func port(_ information: UInt64) -> UInt16 { UInt16(truncatingIfNeeded: information >> 16) }
}

extension VirtualCPU {
    // MARK: Answering

    /// SW_EXITINFO1 and 2, marked valid.
    func answer(_ session: GHCBSession, info1: UInt64, info2: UInt64) {
        guard let page = vm.memory.userPage(gpa: session.gpa, writing: true) else { return }
        page.setField(.exitInfo1, info1)
        page.setField(.exitInfo2, info2)
    }

    /// RAX, RBX, RCX, RDX, marked valid: KVM writes them on every way back.
    func writeRegisters(_ session: GHCBSession) {
        guard let page = vm.memory.userPage(gpa: session.gpa, writing: true) else { return }
        page.setField(.rax, session.rax)
        page.setField(.rbx, session.rbx)
        page.setField(.rcx, session.rcx)
        page.setField(.rdx, session.rdx)
    }

    /// Malformed input: the guest is told why, and runs on.
    func refuse(_ session: GHCBSession, _ reason: GHCBMalformedInput) -> RunStep {
        answer(session, info1: 2, info2: reason.rawValue)
        writeRegisters(session)
        return .resume
    }

    /// An exception for the guest, in EVENTINJ format: valid, type 3.
    func inject(_ session: GHCBSession, vector: UInt64) -> RunStep {
        answer(session, info1: 1, info2: 0x8000_0300 | vector)
        writeRegisters(session)
        return .resume
    }

    /// Done; the registers go back.
    func finish(_ session: GHCBSession) -> RunStep {
        writeRegisters(session)
        return .resume
    }
}

extension HostPage {
    /// Stores a field of the save area and its valid bit.
    func setField(_ field: GHCB.Field, _ value: UInt64) {
        store(value, at: field.offset)
        let byte = 0x3f0 + field.validBit / 8
        store(load(at: byte, as: UInt8.self) | 1 << UInt8(field.validBit & 7), at: byte)
    }

    func clearValidBitmap() {
        store(0 as UInt64, at: 0x3f0)
        store(0 as UInt64, at: 0x3f8)
    }
}
