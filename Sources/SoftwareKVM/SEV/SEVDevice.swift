// /dev/sev: SEV_ISSUE_CMD, its only request: dispatch, status, configuration [KVM drivers/crypto/ccp].
//
// The seam's open has no mode: every handle is one that was opened for writing.

import KVMABI
import MemoryController
import SEVABI

extension SoftwareKVM {
    func sevRequest(_ request: IoctlRequest, _ argument: IoctlArgument) throws(Errno) -> Int32 {
        guard request == .sevIssueCommand else { throw .EINVAL }
        var command: SEVIssueCommand = try argument.load()
        if command.command > SEVDeviceCommand.snpVLEKLoad.rawValue { throw .EINVAL }
        var failure: EncryptFailure?
        do throws(EncryptFailure) {
            let name = SEVDeviceCommand(rawValue: command.command).description
            if let refusal = script.refusal(of: [name, IoctlRequest.sevIssueCommand.description]) { throw refusal }
            try secureProcessor.withCommandLock { () throws(EncryptFailure) in
                try run(SEVDeviceCommand(rawValue: command.command), command.data)
            }
        } catch {
            failure = error
        }
        // The envelope goes back also after a failure; where the firmware was not reached, with the caller's own value.
        if failure?.status != .success { command.error = failure?.status.rawValue ?? 0 }
        try argument.store(command)
        if let failure { throw failure.errno }
        return 0
    }

    private func run(_ command: SEVDeviceCommand, _ data: UInt64) throws(EncryptFailure) {
        switch command {
        case .factoryReset: try factoryReset()
        case .platformStatus: try platformStatus(data)
        case .pekGenerate: try generateKey(.pekGenerate)
        case .pekCSR: try signingRequest(data)
        case .pdhGenerate: try generateKey(.pdhGenerate)
        case .pdhCertificateExport: try exportCertificates(data)
        case .pekCertificateImport: try importCertificates(data)
        case .getID: try identity(data)
        case .getID2: try identityOfAnyLength(data)
        case .snpPlatformStatus: try snpPlatformStatus(data)
        case .snpCommit:
            var buffer = SNPCommit().bytes
            try submit(.snpCommit, &buffer)
        case .snpSetConfig: try snpSetConfig(data)
        case .snpVLEKLoad: try loadVLEK(data)
        default: throw EncryptFailure(.EINVAL)
        }
    }

    /// A command; a refusal is EIO with the status.
    func submit(_ command: SEVCommand, _ buffer: inout [UInt8]) throws(EncryptFailure) {
        let status = secureProcessor.processor.submit(command, &buffer)
        if status != .success { throw EncryptFailure(.EIO, status) }
    }

    // MARK: Status

    /// SEV_PLATFORM_STATUS: 12 bytes.
    private func platformStatus(_ address: UInt64) throws(EncryptFailure) {
        var buffer = [UInt8](repeating: 0, count: 12)
        try submit(.platformStatus, &buffer)
        try copyOut(Array(buffer.prefix(12)), to: address)
    }

    /// SNP_PLATFORM_STATUS: 32 bytes, through a page that is the firmware's for the time of the command.
    private func snpPlatformStatus(_ address: UInt64) throws(EncryptFailure) {
        if address == 0 { throw EncryptFailure(.EINVAL) }
        let output = try FirmwareBuffer.output(byteCount: SNPPlatformStatus.byteCount, secureProcessor)
        var buffer = SNPAddressBuffer(address: output.address).bytes
        try submit(.snpPlatformStatus, &buffer)
        try copyOut(output.contents(), to: address)
    }

    // MARK: Configuration

    /// SNP_SET_CONFIG: 64 bytes.
    private func snpSetConfig(_ address: UInt64) throws(EncryptFailure) {
        if address == 0 { throw EncryptFailure(.EINVAL) }
        var buffer: [UInt8]
        do { buffer = try user.read(address, byteCount: 64) } catch { throw EncryptFailure(error) }
        try submit(.snpConfig, &buffer)
    }

    /// SNP_VLEK_LOAD: 432 bytes of a wrapped hashstick.
    private func loadVLEK(_ address: UInt64) throws(EncryptFailure) {
        if address == 0 { throw EncryptFailure(.EINVAL) }
        let argument = try deviceData(SNPUserVLEKLoad.self, address)
        if argument.byteCount != UInt32(MemoryLayout<SNPUserVLEKLoad>.size) || argument.version != 0 {
            throw EncryptFailure(.EINVAL)
        }
        let hashstick = try firmwareBlob(
            argument.address, byteCount: UInt32(SNPUserVLEKLoad.hashstickByteCount))
        var buffer = argument
        buffer.address = hashstick.address.rawValue
        var bytes = buffer.kernelBytes
        try withExtendedLifetime(hashstick) { () throws(EncryptFailure) in try submit(.snpVLEKLoad, &bytes) }
    }

    /// Copy-in of a command's own structure.
    func deviceData<Structure: KernelStructure>(_ type: Structure.Type, _ address: UInt64) throws(EncryptFailure)
        -> Structure
    {
        do { return try user.read(type, from: address) } catch { throw EncryptFailure(error) }
    }
}
