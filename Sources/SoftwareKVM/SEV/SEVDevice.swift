// /dev/sev: SEV_ISSUE_CMD, its only request [KVM drivers/crypto/ccp, facts of `sev_issue_cmd`].

import KVMABI
import MemoryController
import SEVABI

extension SoftwareKVM {
    func sevRequest(_ request: IoctlRequest, _ argument: IoctlArgument) throws(Errno) -> Int32 {
        guard request == .sevIssueCommand else { throw .EINVAL }
        var command: SEVIssueCommand = try argument.load()
        if command.command > 13 { throw .EINVAL }
        var status = SEVStatus.success
        var failure: Errno?
        do throws(EncryptFailure) {
            switch SEVDeviceCommand(rawValue: command.command) {
            case .platformStatus: try platformStatus(command.data)
            case .snpPlatformStatus: try snpPlatformStatus(command.data)
            case .snpCommit:
                var buffer = SNPCommit().bytes
                try submit(.snpCommit, &buffer)
            case .snpSetConfig: try snpSetConfig(command.data)
            default:
                // SEV and SEV-ES platform management: this firmware answers UNSUPPORTED to it.
                throw try unsupported(SEVDeviceCommand(rawValue: command.command))
            }
        } catch {
            status = error.status
            failure = error.errno
        }
        command.error = status.rawValue
        try argument.store(command)
        if let failure { throw failure }
        return 0
    }

    private func unsupported(_ command: SEVDeviceCommand) throws(EncryptFailure) -> EncryptFailure {
        switch command {
        case .factoryReset, .pekGenerate, .pekCSR, .pdhGenerate, .pdhCertificateExport, .pekCertificateImport, .getID,
            .getID2, .snpVLEKLoad:
            EncryptFailure(.EIO, .unsupported)
        default: EncryptFailure(.EINVAL)
        }
    }

    private func submit(_ command: SEVCommand, _ buffer: inout [UInt8]) throws(EncryptFailure) {
        let status = secureProcessor.processor.submit(command, &buffer)
        if status != .success { throw EncryptFailure(.EIO, status) }
    }

    private func copyOut(_ bytes: [UInt8], _ address: UInt64) throws(EncryptFailure) {
        do { try user.write(bytes, to: address) } catch { throw EncryptFailure(error) }
    }

    /// SEV_PLATFORM_STATUS: 12 bytes.
    private func platformStatus(_ address: UInt64) throws(EncryptFailure) {
        var buffer = [UInt8](repeating: 0, count: 12)
        try submit(.platformStatus, &buffer)
        try copyOut(Array(buffer.prefix(12)), address)
    }

    /// SNP_PLATFORM_STATUS: 32 bytes, through a page that is the firmware's for the time of the command.
    private func snpPlatformStatus(_ address: UInt64) throws(EncryptFailure) {
        if address == 0 { throw EncryptFailure(.EINVAL) }
        guard let page = systemMemory.allocatePages(1) else { throw EncryptFailure(.ENOMEM) }
        guard systemMemory.rmpUpdate(page, .firmware) == .success else { throw EncryptFailure(.EFAULT) }
        var buffer = SNPAddressBuffer(address: page).bytes
        let status = secureProcessor.processor.submit(.snpPlatformStatus, &buffer)
        guard secureProcessor.takeBack(page) else { throw EncryptFailure(.EIO, status) }
        let bytes = systemMemory.hostSnapshot(spa: page, byteCount: SNPPlatformStatus.byteCount)
        _ = systemMemory.freePages(page, 1)
        if status != .success { throw EncryptFailure(.EIO, status) }
        guard let bytes else { throw EncryptFailure(.EFAULT) }
        try copyOut(bytes, address)
    }

    /// SNP_SET_CONFIG: 64 bytes.
    private func snpSetConfig(_ address: UInt64) throws(EncryptFailure) {
        if address == 0 { throw EncryptFailure(.EINVAL) }
        var buffer: [UInt8]
        do { buffer = try user.read(address, byteCount: 64) } catch { throw EncryptFailure(error) }
        try submit(.snpConfig, &buffer)
    }
}
