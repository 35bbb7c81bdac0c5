// Integrity of register state.

import KVMABI

extension Scenario {
    static let changesRegisters = Scenario(
        "changes-registers", "host changes registers (VMSA)",
        attack: """
            The guest has numbers in its registers when it exits to the host. The host changes one with KVM_SET_REGS and, \
            with kernel privileges, writes into the page where the processor has saved them (VMSA). It hopes that the guest \
            goes on with other registers than its own.
            """,
        threat: nil,
        sev: Promise(
            .notStopped, "the registers of a SEV guest are the hypervisor's to set at every entry", "[APM2 15.34]"),
        sevES: Promise(
            .detected,
            "the page can be written, but the processor keeps an integrity value of it and refuses to enter the guest",
            "[APM2 15.35.8]"),
        snp: Promise(
            .stopped, "KVM refuses the call, and the RMP the store to the VMSA page", "[APM2 15.36.10, 15.36.12]")
    ) { (subject, laboratory) throws(Interruption) in
        let victim = try laboratory.victim(subject)
        let own: UInt64 = 0x6000_d000_0000_0001
        let forged: UInt64 = 0x0bad_0000_0000_0001
        victim.post(.hold(own))
        guard try victim.resume() == .doorbell else { throw .broken("the guest did not hand over its registers") }
        var evidence = ["the guest holds \(hex(own)) in R12"]
        do throws(Errno) {
            var registers = KVMRegisters()
            try victim.kernel.call(victim.vcpu, .getRegisters, &registers)
            registers.r12 = forged
            try victim.kernel.call(victim.vcpu, .setRegisters, &registers)
            evidence.append("KVM_SET_REGS with R12 = \(hex(forged)): done")
        } catch {
            evidence.append("KVM_GET_REGS and KVM_SET_REGS: \(error)")
        }
        if subject.hasProtectedState {
            let privileges = try laboratory.requirePrivileges()
            guard let address = privileges.vmsaAddress(of: victim.vcpu) else { throw .broken("the vCPU has no VMSA") }
            // R12's place in the save area [APM2 B.4].
            let refusal = privileges.writePhysical(address + 0x360, littleEndian(forged))
            evidence.append("store to the VMSA at \(hex(address)): \(refusal ?? "done")")
        }
        let ending = try victim.resume()
        guard ending == .doorbell else {
            evidence.append("\(ending)")
            return Observation(.detected, evidence)
        }
        let reply = victim.reply
        evidence.append("the guest goes on; R12 is \(hex(reply.results[1])), \(reply.results[0]) registers changed")
        return Observation(reply.results[0] == 0 ? .stopped : .notStopped, evidence)
    }
}
