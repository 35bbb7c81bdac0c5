// KVM_SEV_SNP_ENABLE_REQ_CERTS: reports with certificates become exits to the VMM [KVM-SEV].

import SEVABI

extension VirtualMachine {
    /// Cannot be taken back; every vCPU must know it from its start.
    func enableCertificateRequests() throws(EncryptFailure) {
        guard let snp, vcpus.isEmpty else { throw EncryptFailure(.EINVAL) }
        snp.requestsCertificates = true
    }
}
