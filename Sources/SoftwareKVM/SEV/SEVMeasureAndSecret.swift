// What the guest owner sees and sends: LAUNCH_MEASURE, LAUNCH_SECRET, and the attestation report [SEV 6.5, 6.6, 6.8].

import KVMABI
import SEVABI

extension VirtualMachine {
    // MARK: KVM_SEV_LAUNCH_MEASURE

    /// A length of 0 asks for the length: it comes back together with the firmware's refusal.
    func sevLaunchMeasure(_ command: KVMSEVCommand) throws(EncryptFailure) {
        let sev = try requireSEV()
        var argument = try commandData(KVMSEVLaunchMeasure.self, command)
        let output = try outputBlob(argument.userAddress, byteCount: argument.byteCount)
        var buffer = SEVLaunchMeasure(
            handle: sev.handle ?? 0, address: output?.address ?? .zero, byteCount: UInt32(output?.byteCount ?? 0)
        ).bytes
        try deliver(output, to: argument.userAddress, isQuery: argument.byteCount == 0) { () throws(EncryptFailure) in
            try issue(sev, .launchMeasure, &buffer)
        } lengthKnown: { () throws(EncryptFailure) in
            argument.byteCount = SEVLaunchMeasure(bytes: buffer)?.byteCount ?? 0
            try copyBack(argument, command)
        }
    }

    // MARK: KVM_SEV_GET_ATTESTATION_REPORT

    func sevAttestationReport(_ command: KVMSEVCommand) throws(EncryptFailure) {
        let sev = try requireSEV()
        var argument = try commandData(KVMSEVAttestationReport.self, command)
        let output = try outputBlob(argument.userAddress, byteCount: argument.byteCount)
        var buffer = SEVAttestation(
            handle: sev.handle ?? 0, address: output?.address ?? .zero,
            nonce: output == nil ? [UInt8](repeating: 0, count: 16) : (0..<16).map { argument.nonce[$0] },
            byteCount: UInt32(output?.byteCount ?? 0)
        ).bytes
        try deliver(output, to: argument.userAddress, isQuery: argument.byteCount == 0) { () throws(EncryptFailure) in
            try issue(sev, .attestation, &buffer)
        } lengthKnown: { () throws(EncryptFailure) in
            argument.byteCount = SEVAttestation(bytes: buffer)?.byteCount ?? 0
            try copyBack(argument, command)
        }
    }

    /// Room for the firmware's answer: none for a query, and none for a NULL address, which the firmware then refuses.
    private func outputBlob(_ address: UInt64, byteCount: UInt32) throws(EncryptFailure) -> FirmwareBuffer? {
        if byteCount == 0 || address == 0 { return nil }
        if byteCount > FirmwareBuffer.blobLimit { throw EncryptFailure(.EINVAL) }
        return try FirmwareBuffer.output(byteCount: Int(byteCount), kernel.secureProcessor)
    }

    /// Runs the command; its bytes go to the caller, then the structure with the length. For a query the structure goes
    /// back also after a refusal.
    private func deliver(
        _ output: FirmwareBuffer?, to address: UInt64, isQuery: Bool, _ body: () throws(EncryptFailure) -> Void,
        lengthKnown: () throws(EncryptFailure) -> Void
    ) throws(EncryptFailure) {
        var refusal: EncryptFailure?
        do throws(EncryptFailure) { try body() } catch { refusal = error }
        if let refusal, !isQuery { throw refusal }
        var bad: EncryptFailure?
        if let output, refusal == nil {
            do throws(EncryptFailure) { try kernel.copyOut(output.contents(), to: address) } catch { bad = error }
        }
        do throws(EncryptFailure) { try lengthKnown() } catch { bad = error }
        if let bad { throw EncryptFailure(bad.errno, refusal?.status ?? .success) }
        if let refusal { throw refusal }
    }

    // MARK: KVM_SEV_LAUNCH_SECRET

    /// The target must be physically contiguous: in practice inside one page.
    func sevLaunchSecret(_ command: KVMSEVCommand) throws(EncryptFailure) {
        let sev = try requireSEV()
        let argument = try commandData(KVMSEVLaunchSecret.self, command)
        let byteCount = UInt64(argument.guestByteCount)
        try requirePinnable(sev, argument.guestAddress, byteCount: byteCount)
        try requirePages(argument.guestAddress, byteCount: byteCount)
        if (argument.guestAddress & 4095) + byteCount > 4096 { throw EncryptFailure(.EINVAL) }
        let payload = try kernel.firmwareBlob(argument.transportAddress, byteCount: argument.transportByteCount)
        let header = try kernel.firmwareBlob(argument.headerAddress, byteCount: argument.headerByteCount)
        try kernel.encryptedMemory.withPinnedPieces(
            argument.guestAddress, byteCount: byteCount, of: self, writesBack: true
        ) { (target, count) throws(EncryptFailure) in
            var buffer = SEVLaunchSecret(
                handle: sev.handle ?? 0, headerAddress: header.address,
                headerByteCount: UInt32(header.byteCount), guestAddress: target,
                guestByteCount: UInt32(truncatingIfNeeded: count), transportAddress: payload.address,
                transportByteCount: UInt32(payload.byteCount)
            ).bytes
            try issue(sev, .launchSecret, &buffer)
        }
    }
}
