// KVM_SEV_SNP_LAUNCH_START: a guest context in firmware, bound to the VM's ASID [SNP 8.15 SNP_LAUNCH_START, 8.2 SNP_ACTIVATE].

import KVMABI
import SEVABI

extension VirtualMachine {
    func launchStart(_ command: KVMSEVCommand) throws(EncryptFailure) {
        guard let snp else { throw EncryptFailure(.ENOTTY) }
        let argument = try commandData(KVMSNPLaunchStart.self, command)
        if snp.context != nil { throw EncryptFailure(.EINVAL) }
        if argument.flags != 0 { throw EncryptFailure(.EINVAL) }
        if argument.policy & ~kernel.acceptedPolicyBits != 0 { throw EncryptFailure(.EINVAL) }
        let required = GuestPolicy.reservedOneMask | kernel.configuration.scenario.requiredPolicyBits
        if argument.policy & required != required { throw EncryptFailure(.EINVAL) }

        let created = snp.driver.createContext()
        guard let context = created.context else { throw EncryptFailure(.ENOTTY, created.status) }
        do throws(EncryptFailure) {
            try requireSEVHandle(command.sevHandle)
            var start = SNPLaunchStart(
                context: context, policy: GuestPolicy(rawValue: argument.policy),
                gosvw: (0..<16).map { argument.gosvw[$0] }
            ).bytes
            try firmware(.snpLaunchStart, &start)
            snp.sevHandle = command.sevHandle
            var activate = SNPActivate(context: context, asid: snp.asid).bytes
            try firmware(.snpActivate, &activate)
        } catch {
            snp.driver.decommission(context)
            throw error
        }
        snp.context = context
    }

    /// Submits a command; a refusal is EIO with the status.
    func firmware(_ command: SEVCommand, _ buffer: inout [UInt8]) throws(EncryptFailure) {
        let status = kernel.secureProcessor.submit(command, &buffer)
        if status != .success { throw EncryptFailure(.EIO, status) }
    }
}
