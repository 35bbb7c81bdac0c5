// KVM_SEV_SNP_LAUNCH_FINISH: one VMSA per vCPU, then the end of the launch [SNP 8.18 SNP_LAUNCH_FINISH].
//
// The VMSAs are sealed first, so a refused ID block cannot be repaired: the VM is lost.

import KVMABI
import MemoryController
import SEVABI
import X86Defs

extension VirtualMachine {
    func launchFinish(_ command: KVMSEVCommand) throws(EncryptFailure) {
        guard let snp else { throw EncryptFailure(.ENOTTY) }
        guard let context = snp.context else { throw EncryptFailure(.EINVAL) }
        let argument = try commandData(KVMSNPLaunchFinish.self, command)
        if argument.flags != 0 { throw EncryptFailure(.EINVAL) }

        for vcpu in vcpus { try sealVCPU(vcpu, snp, context, command) }

        var idBlockPage: SPA?
        var idAuthPage: SPA?
        defer {
            for page in [idBlockPage, idAuthPage] {
                if let page { _ = kernel.systemMemory.freePages(page, 1) }
            }
        }
        if argument.idBlockEnabled != 0 {
            idBlockPage = try blob(argument.idBlockAddress, byteCount: 96)
            idAuthPage = try blob(argument.idAuthAddress, byteCount: 4096)
        }
        try requireSEVHandle(snp.sevHandle)
        var finish = SNPLaunchFinish(
            context: context, idBlock: idBlockPage ?? .zero, idAuthentication: idAuthPage ?? .zero,
            usesIDBlock: argument.idBlockEnabled != 0,
            usesAuthorKey: argument.idBlockEnabled != 0 && argument.authorKeyEnabled != 0,
            disablesVCEK: argument.vcekDisabled != 0, hostData: (0..<32).map { argument.hostData[$0] }
        ).bytes
        try firmware(.snpLaunchFinish, &finish)
        snp.isFinished = true
    }

    /// psp_copy_user_blob: into a page that the firmware can read.
    private func blob(_ address: UInt64, byteCount: Int) throws(EncryptFailure) -> SPA {
        if address == 0 { throw EncryptFailure(.EINVAL) }
        let bytes: [UInt8]
        do { bytes = try kernel.user.read(address, byteCount: byteCount) } catch { throw EncryptFailure(error) }
        guard let page = kernel.systemMemory.allocatePages(1) else { throw EncryptFailure(.ENOMEM) }
        do { try kernel.systemMemory.hostWrite(page, bytes) } catch { throw EncryptFailure(.EFAULT) }
        return page
    }

    private func sealVCPU(_ vcpu: VirtualCPU, _ snp: SNPGuest, _ context: SPA, _ command: KVMSEVCommand)
        throws(EncryptFailure)
    {
        var failure: EncryptFailure?
        vcpu.lockedForSealing {
            do throws(EncryptFailure) {
                let state = try vcpu.stateForSealing()
                guard let page = kernel.systemMemory.allocatePages(1) else { throw EncryptFailure(.ENOMEM) }
                let vmsa = VMSA(processor: state, sevFeatures: snp.vmsaFeatures)
                let memory = kernel.systemMemory
                do { try memory.hostWrite(page, vmsa.page) } catch { throw EncryptFailure(.EFAULT) }
                guard memory.rmpUpdate(page, .preGuest(gpa: PageInfo.vmsaGPA, asid: snp.asid)) == .success else {
                    _ = memory.freePages(page, 1)
                    throw EncryptFailure(.EFAULT)
                }
                do throws(EncryptFailure) {
                    try requireSEVHandle(command.sevHandle)
                    let status = snp.driver.processor.launchUpdate(context: context, page: page, type: .vmsa)
                    if status != .success { throw EncryptFailure(.EIO, status) }
                } catch {
                    snp.driver.reclaim(page)
                    throw error
                }
                snp.vmsaPages.append(page)
                vcpu.seal(vmsaPage: page)
            } catch {
                failure = error
            }
        }
        if let failure { throw failure }
    }
}
