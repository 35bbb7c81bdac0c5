// SEND_* and RECEIVE_*: KVM's own checks, and the command. This machine's firmware knows no migration: it answers
// UNSUPPORTED, so that no buffer is ever filled [SEV 6.9 to 6.15].

import KVMABI
import SEVABI

extension VirtualMachine {
    // MARK: KVM_SEV_SEND_START

    func sevSendStart(_ command: KVMSEVCommand) throws(EncryptFailure) {
        let sev = try requireSEV()
        let argument = try commandData(KVMSEVSendStart.self, command)
        if argument.sessionByteCount == 0 {
            try query(sev, .sendStart) { () throws(EncryptFailure) in try copyBack(argument, command) }
            return
        }
        if argument.certificateAddress == 0 || argument.certificateByteCount == 0 || argument.sessionAddress == 0
            || argument.sessionByteCount > FirmwareBuffer.blobLimit
        {
            throw EncryptFailure(.EINVAL)
        }
        _ = try kernel.firmwareBlob(argument.certificateAddress, byteCount: argument.certificateByteCount)
        _ = try kernel.firmwareBlob(
            argument.platformCertificatesAddress, byteCount: argument.platformCertificatesByteCount)
        _ = try kernel.firmwareBlob(argument.amdCertificatesAddress, byteCount: argument.amdCertificatesByteCount)
        try issueUnsupported(sev, .sendStart)
    }

    // MARK: KVM_SEV_SEND_UPDATE_DATA

    func sevSendUpdateData(_ command: KVMSEVCommand) throws(EncryptFailure) {
        let sev = try requireSEV()
        var argument = try commandData(KVMSEVMigrationPacket.self, command)
        if argument.transportByteCount == 0 || argument.headerByteCount == 0 {
            try query(sev, .sendUpdateData) { () throws(EncryptFailure) in
                argument.headerByteCount = 0
                argument.transportByteCount = 0
                try copyBack(argument, command)
            }
            return
        }
        if argument.transportAddress == 0 || argument.guestAddress == 0 || argument.guestByteCount == 0
            || argument.headerAddress == 0
        {
            throw EncryptFailure(.EINVAL)
        }
        try requireInsideOnePage(argument)
        try requirePinnable(sev, argument.guestAddress & ~4095, byteCount: 4096)
        try requirePages(argument.guestAddress & ~4095, byteCount: 4096, writing: false)
        try issueUnsupported(sev, .sendUpdateData)
    }

    // MARK: KVM_SEV_RECEIVE_START

    func sevReceiveStart(_ command: KVMSEVCommand) throws(EncryptFailure) {
        _ = try requireSEV()
        let argument = try commandData(KVMSEVReceiveStart.self, command)
        if argument.certificateAddress == 0 || argument.certificateByteCount == 0 || argument.sessionAddress == 0
            || argument.sessionByteCount == 0
        {
            throw EncryptFailure(.EINVAL)
        }
        _ = try kernel.firmwareBlob(argument.certificateAddress, byteCount: argument.certificateByteCount)
        _ = try kernel.firmwareBlob(argument.sessionAddress, byteCount: argument.sessionByteCount)
        try requireSEVHandle(command.sevHandle)
        var buffer: [UInt8] = []
        try firmware(.receiveStart, &buffer)
    }

    // MARK: KVM_SEV_RECEIVE_UPDATE_DATA

    func sevReceiveUpdateData(_ command: KVMSEVCommand) throws(EncryptFailure) {
        // EINVAL, unlike every other command.
        guard let sev else { throw EncryptFailure(.EINVAL) }
        let argument = try commandData(KVMSEVMigrationPacket.self, command)
        if argument.headerAddress == 0 || argument.headerByteCount == 0 || argument.guestAddress == 0
            || argument.guestByteCount == 0 || argument.transportAddress == 0 || argument.transportByteCount == 0
        {
            throw EncryptFailure(.EINVAL)
        }
        try requireInsideOnePage(argument)
        _ = try kernel.firmwareBlob(argument.headerAddress, byteCount: argument.headerByteCount)
        _ = try kernel.firmwareBlob(argument.transportAddress, byteCount: argument.transportByteCount)
        try requirePinnable(sev, argument.guestAddress & ~4095, byteCount: 4096)
        try requirePages(argument.guestAddress & ~4095, byteCount: 4096)
        try issueUnsupported(sev, .receiveUpdateData)
    }

    // MARK: Shared

    private func requireInsideOnePage(_ packet: KVMSEVMigrationPacket) throws(EncryptFailure) {
        if (packet.guestAddress & 4095) + UInt64(packet.guestByteCount) > 4096 { throw EncryptFailure(.EINVAL) }
    }

    /// The command without its buffer, which this firmware does not look at.
    private func issueUnsupported(_ sev: SEVGuest, _ command: SEVCommand) throws(EncryptFailure) {
        var buffer: [UInt8] = []
        try issue(sev, command, &buffer)
    }

    /// A length query: the structure goes back whatever the firmware says.
    private func query(
        _ sev: SEVGuest, _ command: SEVCommand, _ goesBack: () throws(EncryptFailure) -> Void
    ) throws(EncryptFailure) {
        var refusal: EncryptFailure?
        do throws(EncryptFailure) { try issueUnsupported(sev, command) } catch { refusal = error }
        try goesBack()
        if let refusal { throw refusal }
    }
}
