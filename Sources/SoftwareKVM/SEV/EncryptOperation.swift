// KVM_MEMORY_ENCRYPT_OP: the envelope, and which command may come when [KVM amd-memory-encryption.rst].

import KVMABI
import SEVABI

/// How a command failed: errno, and what goes into `kvm_sev_cmd.error`.
struct EncryptFailure: Error {
    var errno: Errno
    var status: SEVStatus

    init(_ errno: Errno, _ status: SEVStatus = .success) {
        self.errno = errno
        self.status = status
    }
}

extension VirtualMachine {
    /// The ioctl's argument is the address of a `kvm_sev_cmd`.
    func encryptOperation(_ argument: IoctlArgument) throws(Errno) -> Int32 {
        if !kernel.configuration.scenario.hasSEV { throw .ENOTTY }
        // NULL asks whether SEV is there at all.
        if argument.number == 0 { return 0 }
        var command: KVMSEVCommand = try argument.load()
        var failure: EncryptFailure?
        try locked { () throws(Errno) in
            if snp != nil && command.id < SEVCommandID.snpLaunchStart.rawValue { throw .EPERM }
            do throws(EncryptFailure) {
                if let refusal = kernel.script.refusal(of: [SEVCommandID(rawValue: command.id).description]) {
                    throw refusal
                }
                switch SEVCommandID(rawValue: command.id) {
                case .initialize: try initializeLegacy(isES: false)
                case .initializeES: try initializeLegacy(isES: true)
                case .initialize2: try initialize2(command)
                case .snpLaunchStart: try launchStart(command)
                case .snpLaunchUpdate: try launchUpdate(command)
                case .snpLaunchFinish: try launchFinish(command)
                case .snpEnableCertificateRequests: try enableCertificateRequests()
                case .launchStart: try sevLaunchStart(command)
                case .launchUpdateData: try sevLaunchUpdateData(command)
                case .launchUpdateVMSA: try sevLaunchUpdateVMSA()
                case .launchMeasure: try sevLaunchMeasure(command)
                case .launchSecret: try sevLaunchSecret(command)
                case .launchFinish: try sevHandleCommand(.launchFinish)
                case .guestStatus: try sevGuestStatus(command)
                case .debugDecrypt: try sevDebug(command, decrypts: true)
                case .debugEncrypt: try sevDebug(command, decrypts: false)
                case .getAttestationReport: try sevAttestationReport(command)
                case .sendStart: try sevSendStart(command)
                case .sendUpdateData: try sevSendUpdateData(command)
                case .sendFinish: try sevHandleCommand(.sendFinish)
                case .sendCancel: try sevHandleCommand(.sendCancel)
                case .receiveStart: try sevReceiveStart(command)
                case .receiveUpdateData: try sevReceiveUpdateData(command)
                case .receiveFinish: try sevHandleCommand(.receiveFinish)
                default: throw EncryptFailure(.EINVAL)
                }
            } catch {
                failure = error
            }
        }
        if case .EINVAL? = failure?.errno, !Self.isKnown(command.id) { throw .EINVAL }
        // The envelope goes back also after a failure; where the firmware was not reached, with the caller's own value.
        if failure?.status != .success { command.error = failure?.status.rawValue ?? 0 }
        try argument.store(command)
        if let failure { throw failure.errno }
        return 0
    }

    private static func isKnown(_ id: UInt32) -> Bool {
        switch id {
        case 10, 14, 19: false
        case 0...22, 100...103: true
        default: false
        }
    }

    /// `kvm_sev_cmd.sev_fd` is an open /dev/sev, else EBADF.
    func requireSEVHandle(_ handle: UInt32) throws(EncryptFailure) {
        guard case .sev? = kernel.handleFile(handle) else { throw EncryptFailure(.EBADF) }
    }

    /// Copy-in of a command's own structure.
    func commandData<Structure: KernelStructure>(_ type: Structure.Type, _ command: KVMSEVCommand)
        throws(EncryptFailure) -> Structure
    {
        do { return try kernel.user.read(type, from: command.data) } catch { throw EncryptFailure(error) }
    }

    func copyBack<Structure: KernelStructure>(_ structure: Structure, _ command: KVMSEVCommand) throws(EncryptFailure) {
        do { try kernel.user.write(structure.kernelBytes, to: command.data) } catch { throw EncryptFailure(error) }
    }
}
