// KVM_SEV_INIT2, and the two calls that it replaced: a VM becomes confidential and gets its ASID [KVM-SEV KVM_SEV_INIT2].

import KVMABI
import SEVABI

extension VirtualMachine {
    func initialize2(_ command: KVMSEVCommand) throws(EncryptFailure) {
        let technology: GuestTechnology
        switch type {
        case .sev: technology = .sev
        case .sevES: technology = .sevES
        case .snp: technology = .snp
        default: throw EncryptFailure(.EINVAL)
        }
        if self.technology != nil { throw EncryptFailure(.EINVAL) }
        try initialize(technology, commandData(KVMSEVInit.self, command), isLegacy: false)
    }

    /// KVM_SEV_INIT and KVM_SEV_ES_INIT: default VMs only, the oldest GHCB protocol, no features.
    func initializeLegacy(isES: Bool) throws(EncryptFailure) {
        guard type == .plain else { throw EncryptFailure(.EINVAL) }
        var argument = KVMSEVInit()
        if isES { argument.ghcbVersion = 1 }
        try initialize(isES ? .sevES : .sev, argument, isLegacy: true)
    }

    private func initialize(_ technology: GuestTechnology, _ argument: KVMSEVInit, isLegacy: Bool)
        throws(EncryptFailure)
    {
        if !vcpus.isEmpty { throw EncryptFailure(.EINVAL) }
        if argument.flags != 0 { throw EncryptFailure(.EINVAL) }
        let features = technology.encryptsState ? SoftwareKVM.supportedVMSAFeatures : 0
        if argument.vmsaFeatures & ~features != 0 { throw EncryptFailure(.EINVAL) }
        if argument.ghcbVersion > 2 || (!technology.encryptsState && argument.ghcbVersion != 0) {
            throw EncryptFailure(.EINVAL)
        }
        if technology == .snp && argument.ghcbVersion == 1 { throw EncryptFailure(.EINVAL) }
        if self.technology != nil { throw EncryptFailure(.EINVAL) }

        let driver = kernel.secureProcessor
        let kind: SecureProcessorDriver.ASIDClass = technology.encryptsState ? .encryptedState : .memoryOnly
        if !driver.hasASIDs(kind) { throw EncryptFailure(.ENOTTY) }
        guard let asid = driver.takeASID(kind) else { throw EncryptFailure(.EBUSY) }
        let status = driver.initializePlatform()
        if status != .success {
            driver.giveBack(asid: asid)
            throw EncryptFailure(.EIO, status)
        }
        let version: UInt16 = technology.encryptsState && argument.ghcbVersion == 0 ? 2 : argument.ghcbVersion
        if technology == .snp {
            snp = SNPGuest(driver: driver, asid: asid, vmsaFeatures: argument.vmsaFeatures | 1, ghcbVersion: version)
        } else {
            sev = SEVGuest(
                driver: driver, asid: asid, isES: technology == .sevES, ghcbVersion: version,
                vmsaFeatures: argument.vmsaFeatures, usesLegacyInit: isLegacy)
        }
    }
}
