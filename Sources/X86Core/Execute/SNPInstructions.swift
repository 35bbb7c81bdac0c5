// PVALIDATE and RMPADJUST: the guest's half of the RMP [APM2 15.36.6].

import CX86State
import X86Defs

extension Processor {
    /// PVALIDATE: RAX address, ECX size, EDX validate. Result in RAX and CF; #GP below VMPL 0 [APM3 PVALIDATE].
    func pageValidate(at rip: UInt64) -> Bool {
        let a: UInt64 = get(s, 0), size: UInt32 = get(s, Slot.gpr(1)), validate: UInt32 = get(s, Slot.gpr(2))
        guard configuration.vmpl == 0 else {
            prepareException(13, error: 0, at: rip)
            return false
        }
        guard let page = instructionOperandPage(a, at: rip) else { return false }
        // A page that is no longer validated leaves every processor's TLB.
        guard validate & 1 != 0 || !othersRun else { return prepareAlone(at: rip) }
        let before = memory.translate(gpa: page.gpa & ~0xfff, encrypted: true, access: .read)
        guard let result = memory.pvalidate(gpa: page.gpa & ~0xfff, size: size, validate: validate & 1 != 0) else {
            prepareExit(.nestedPageFault(gpa: page.gpa & ~0xfff, encrypted: true, access: .write), at: rip)
            return false
        }
        // A page that is no longer validated must leave every TLB; one that was not validated is in none.
        if validate & 1 == 0, result.code == 0, !result.unchanged {
            if size == 0, case .page(let host, _) = before {
                forEveryProcessor { $0.dropTranslations(to: UInt(bitPattern: host)) }
            } else {
                forEveryProcessor { $0.flushTLB() }
            }
        }
        put(s, 0, result.code)
        let f = composeFlags(s) & ~RFLAGS.arithmetic
        spreadArithmeticFlags(s, result.unchanged ? f | RFLAGS.cf : f)
        return true
    }

    /// RMPADJUST: RAX address, RCX size, RDX attributes. Result in RAX and ZF; #VC on a page that is not validated
    /// [APM3 RMPADJUST].
    func adjustRMP(at rip: UInt64) -> Bool {
        let a: UInt64 = get(s, 0), size: UInt32 = get(s, Slot.gpr(1)), attributes: UInt64 = get(s, Slot.gpr(2))
        guard let page = instructionOperandPage(a, at: rip) else { return false }
        if case .notValidated = memory.translate(gpa: page.gpa & ~0xfff, encrypted: true, access: .read) {
            prepareVC(0x404, at: rip)
            return false
        }
        guard !othersRun else { return prepareAlone(at: rip) }
        guard let code = memory.rmpadjust(gpa: page.gpa & ~0xfff, size: size, attributes: attributes) else {
            prepareExit(.nestedPageFault(gpa: page.gpa & ~0xfff, encrypted: true, access: .write), at: rip)
            return false
        }
        forEveryProcessor { $0.flushTLB() }
        put(s, 0, code)
        spreadArithmeticFlags(s, code == 0 ? RFLAGS.zf : 0)
        return true
    }

    /// This one, which is alone, and the machine's others.
    private func forEveryProcessor(_ body: (Processor) -> Void) {
        if let group { group.forAll(body) } else { body(self) }
    }

    private func instructionOperandPage(_ a: UInt64, at rip: UInt64) -> LinearPage? {
        guard isCanonical(a) else {
            prepareException(13, error: 0, at: rip)
            return nil
        }
        return walk(a, .read, user: false, at: rip)
    }
}
