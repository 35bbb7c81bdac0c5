// /dev/sev: the platform's keys, certificates and identity [SEV 5.4 to 5.13].
//
// A length query is a command without room: the firmware refuses it with INVALID_LEN and fills in the length, which goes
// back to the caller with the refusal.

import KVMABI
import SEVABI

extension SoftwareKVM {
    /// SEV_FACTORY_RESET: not while there are guests. A platform in INIT is shut down first.
    func factoryReset() throws(EncryptFailure) {
        switch secureProcessor.platformState {
        case .working: throw EncryptFailure(.EBUSY)
        case .initialized:
            let status = secureProcessor.shutDownSEV()
            if status != .success { throw EncryptFailure(.EIO, status) }
        default: break
        }
        var none: [UInt8] = []
        try submit(.platformReset, &none)
    }

    /// SEV_PEK_GEN, SEV_PDH_GEN.
    func generateKey(_ command: SEVCommand) throws(EncryptFailure) {
        try requireInitialized()
        var none: [UInt8] = []
        try submit(command, &none)
    }

    /// SEV_PEK_CSR.
    func signingRequest(_ address: UInt64) throws(EncryptFailure) {
        var argument = try deviceData(SEVUserPEKCSR.self, address)
        var output: FirmwareBuffer?
        if argument.address.value != 0 && argument.byteCount != 0 {
            if argument.byteCount > FirmwareBuffer.blobLimit { throw EncryptFailure(.EFAULT) }
            output = try .output(byteCount: Int(argument.byteCount), secureProcessor)
        }
        try requireInitialized()
        var buffer = SEVOutputBuffer(
            address: output?.address ?? .zero, byteCount: UInt32(output?.byteCount ?? 0)
        ).bytes
        let refusal = refusal(of: .pekCSR, &buffer)
        argument.byteCount = SEVOutputBuffer(bytes: buffer)?.byteCount ?? 0
        try finish(refusal, argument.kernelBytes, to: address, [(output, argument.address.value, argument.byteCount)])
    }

    /// SEV_PEK_CERT_IMPORT.
    func importCertificates(_ address: UInt64) throws(EncryptFailure) {
        let argument = try deviceData(SEVUserPEKCertificateImport.self, address)
        let pek = try firmwareBlob(argument.pekAddress.value, byteCount: argument.pekByteCount)
        let oca = try firmwareBlob(argument.ocaAddress.value, byteCount: argument.ocaByteCount)
        try requireInitialized()
        var buffer = SEVPEKCertificateImport(
            pekAddress: pek.address, pekByteCount: argument.pekByteCount, ocaAddress: oca.address,
            ocaByteCount: argument.ocaByteCount
        ).bytes
        try withExtendedLifetime((pek, oca)) { () throws(EncryptFailure) in
            try submit(.pekCertificateImport, &buffer)
        }
    }

    /// SEV_PDH_CERT_EXPORT: any zero is a length query.
    func exportCertificates(_ address: UInt64) throws(EncryptFailure) {
        try requireInitialized()
        var argument = try deviceData(SEVUserPDHExport.self, address)
        var pdh: FirmwareBuffer?
        var chain: FirmwareBuffer?
        if argument.certificateAddress != 0 && argument.certificateByteCount != 0 && argument.chainAddress != 0
            && argument.chainByteCount != 0
        {
            if max(argument.certificateByteCount, argument.chainByteCount) > FirmwareBuffer.blobLimit {
                throw EncryptFailure(.EFAULT)
            }
            pdh = try .output(byteCount: Int(argument.certificateByteCount), secureProcessor)
            chain = try .output(byteCount: Int(argument.chainByteCount), secureProcessor)
        }
        var buffer = SEVPDHCertificateExport(
            pdhAddress: pdh?.address ?? .zero, pdhByteCount: UInt32(pdh?.byteCount ?? 0),
            chainAddress: chain?.address ?? .zero, chainByteCount: UInt32(chain?.byteCount ?? 0)
        ).bytes
        let refusal = refusal(of: .pdhCertificateExport, &buffer)
        let result = SEVPDHCertificateExport(bytes: buffer)
        argument.certificateByteCount = result?.pdhByteCount ?? 0
        argument.chainByteCount = result?.chainByteCount ?? 0
        try finish(
            refusal, argument.kernelBytes, to: address,
            [
                (pdh, argument.certificateAddress, argument.certificateByteCount),
                (chain, argument.chainAddress, argument.chainByteCount),
            ])
    }

    // MARK: Identity

    /// SEV_GET_ID: 64 bytes for each of two sockets, zeroes for one that is not there.
    func identity(_ address: UInt64) throws(EncryptFailure) {
        let output = try FirmwareBuffer.output(byteCount: MemoryLayout<SEVUserGetID>.size, secureProcessor)
        var buffer = SEVOutputBuffer(address: output.address, byteCount: UInt32(output.byteCount)).bytes
        try submit(.getID, &buffer)
        try copyOut(output.contents(), to: address)
    }

    /// SEV_GET_ID2.
    func identityOfAnyLength(_ address: UInt64) throws(EncryptFailure) {
        var argument = try deviceData(SEVUserGetID2.self, address)
        var output: FirmwareBuffer?
        if argument.address.value != 0 && argument.byteCount != 0 {
            // What the kernel's page allocator gives at once.
            if argument.byteCount > 4 << 20 { throw EncryptFailure(.ENOMEM) }
            output = try .output(byteCount: Int(argument.byteCount), secureProcessor)
        }
        var buffer = SEVOutputBuffer(
            address: output?.address ?? .zero, byteCount: UInt32(output?.byteCount ?? 0)
        ).bytes
        let refusal = refusal(of: .getID, &buffer)
        argument.byteCount = SEVOutputBuffer(bytes: buffer)?.byteCount ?? 0
        try finish(refusal, argument.kernelBytes, to: address, [(output, argument.address.value, argument.byteCount)])
    }

    // MARK: Shared

    /// Moves the platform to INIT if it is not there: EIO with the firmware's status.
    private func requireInitialized() throws(EncryptFailure) {
        let status = secureProcessor.initializeSEV()
        if status != .success { throw EncryptFailure(.EIO, status) }
    }

    private func refusal(of command: SEVCommand, _ buffer: inout [UInt8]) -> EncryptFailure? {
        do throws(EncryptFailure) { try submit(command, &buffer) } catch { return error }
        return nil
    }

    /// The structure with its lengths goes back after a refusal too; the bytes only without one.
    private func finish(
        _ refusal: EncryptFailure?, _ structure: [UInt8], to address: UInt64,
        _ outputs: [(buffer: FirmwareBuffer?, address: UInt64, byteCount: UInt32)]
    ) throws(EncryptFailure) {
        let status = refusal?.status ?? .success
        do throws(EncryptFailure) {
            try copyOut(structure, to: address)
            if refusal == nil {
                for output in outputs {
                    guard let buffer = output.buffer else { continue }
                    try copyOut(Array(buffer.contents().prefix(Int(output.byteCount))), to: output.address)
                }
            }
        } catch {
            throw EncryptFailure(error.errno, status)
        }
        if let refusal { throw refusal }
    }
}
