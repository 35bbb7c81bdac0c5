// Confidentiality of register state.

import KVMABI

extension Scenario {
    static let hostReadsRegisters = Scenario(
        "host-reads-registers", "host reads registers",
        attack: """
            The guest holds a secret in its registers when it exits to the host. The host reads them with KVM_GET_REGS, \
            and, with kernel privileges, looks through the page where the processor has saved them (VMSA).
            """,
        threat: "VM register state",
        sev: Promise(
            .notStopped, "the registers of a SEV guest are saved in the clear at every exit",
            "[WP 1] VM register state"),
        sevES: Promise(
            .stopped, "the processor saves them in a VMSA that is encrypted with the guest's key",
            "[WP 1] VM register state; [APM2 15.35.3]"),
        snp: Promise(.stopped, "as with SEV-ES", "[WP 1] VM register state; [APM2 15.35.3]")
    ) { (subject, laboratory) throws(Interruption) in
        let victim = try laboratory.victim(subject)
        let secret: UInt64 = 0x5ec2_e7c0_ffee_0100
        victim.post(.hold(secret))
        guard try victim.resume() == .doorbell else { throw .broken("the guest did not hand over its registers") }
        var evidence = ["the guest holds \(hex(secret)) in R12 and its successors in R13 to R15"]
        var found = false
        var registers = KVMRegisters()
        do throws(Errno) {
            try victim.kernel.call(victim.vcpu, .getRegisters, &registers)
            evidence.append("KVM_GET_REGS: R12 = \(hex(registers.r12)), R13 = \(hex(registers.r13))")
            found = registers.r12 == secret
        } catch {
            evidence.append("KVM_GET_REGS: \(error)")
        }
        if subject.hasProtectedState {
            if let privileges = laboratory.privileges {
                guard let address = privileges.vmsaAddress(of: victim.vcpu),
                    let bytes = privileges.readPhysical(address, byteCount: 4096)
                else { throw .broken("the vCPU has no VMSA") }
                let leaks = stride(from: 0, to: 4096, by: 8).contains { word(bytes, at: $0) &- secret < 4 }
                evidence.append(
                    "VMSA at \(hex(address)): R12's place holds \(hex(word(bytes, at: 0x360))), the secret is "
                        + (leaks ? "in the page" : "nowhere in the page"))
                found = found || leaks
            } else {
                evidence.append("the VMSA was not read: needs host kernel privileges")
            }
        }
        let ending = try victim.resume()
        guard ending == .doorbell, victim.reply.results[0] == 0 else {
            throw .broken("the guest lost its registers although the host only read them: \(ending)")
        }
        return Observation(found ? .notStopped : .stopped, evidence)
    }
}
