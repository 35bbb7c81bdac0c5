// The secure processor beside any VM: what it is, and the certificates that prove it. By `SEV_ISSUE_CMD` on `/dev/sev`.

import KVMABI
import SEVABI

/// An open `/dev/sev`.
public final class SEVPlatform: Sendable {
    private let kernel: any HostKernel
    private let device: KernelHandle

    /// Opens the device.
    public init(_ kernel: any HostKernel) throws(VMMError) {
        self.kernel = kernel
        device = try request("ask the platform", "open /dev/sev") { () throws(Errno) in try kernel.open(.sev) }
    }

    deinit { kernel.close(device) }

    /// SEV_PLATFORM_STATUS [SEV 5.6].
    public func status() throws(VMMError) -> SEVUserStatus {
        var status = SEVUserStatus()
        try run("read the platform's status", .platformStatus, &status)
        return status
    }

    /// The firmware's version, which measurements cover: from SEV_PLATFORM_STATUS.
    public func version() throws(VMMError) -> FirmwareVersion {
        let status = try status()
        return FirmwareVersion(apiMajor: status.apiMajor, apiMinor: status.apiMinor, build: status.build)
    }

    /// SNP_PLATFORM_STATUS [SNP 8.3]. Refused by a platform without SNP.
    public func snpStatus() throws(VMMError) -> SNPUserStatus {
        var status = SNPUserStatus()
        try run("read the platform's SNP status", .snpPlatformStatus, &status)
        return status
    }

    /// SEV_PDH_CERT_EXPORT [SEV 5.11]. The CEK in it has no signature of the manufacturer.
    public func certificates() throws(VMMError) -> SEVPlatformCertificates {
        var pdh = [UInt8](repeating: 0, count: SEVCertificate.byteCount)
        var chain = [UInt8](repeating: 0, count: SEVPlatformCertificates.chainByteCount)
        var export = SEVUserPDHExport()
        export.certificateByteCount = UInt32(pdh.count)
        export.chainByteCount = UInt32(chain.count)
        let step = "export the platform's certificates"
        try withKernelAddress(ofMutable: &pdh) { (pdhAddress) throws(VMMError) in
            try withKernelAddress(ofMutable: &chain) { (chainAddress) throws(VMMError) in
                export.certificateAddress = pdhAddress
                export.chainAddress = chainAddress
                try run(step, .pdhCertificateExport, &export)
            }
        }
        let found = (Int(export.certificateByteCount), Int(export.chainByteCount))
        guard found == (pdh.count, chain.count) else {
            throw VMMError(
                .hostCannot, step: step, request: "SEV_PDH_CERT_EXPORT",
                finding: "\(found.0) and \(found.1) bytes, expected \(pdh.count) and \(chain.count)",
                likelyCause: "a firmware with another form of certificates", nextStep: "update this program")
        }
        return SEVPlatformCertificates(pdh: pdh, chain: chain)
    }

    /// SEV_GET_ID2 [SEV 5.12]: names the chip to AMD's key server. 64 bytes a socket, of which Turin uses 8.
    public func chipID() throws(VMMError) -> [UInt8] {
        let step = "read the chip's id"
        var query = SEVUserGetID2()
        // Without room the kernel answers with the length, as a success or as INVALID_LEN.
        if let error = refusal(step, .getID2, &query), query.byteCount == 0 { throw error }
        let byteCount = min(query.byteCount, 4096)
        guard byteCount > 0 else { return [] }
        var id = [UInt8](repeating: 0, count: Int(byteCount))
        try withKernelAddress(ofMutable: &id) { (address) throws(VMMError) in
            var command = SEVUserGetID2(address: address, byteCount: byteCount)
            try run(step, .getID2, &command)
        }
        return id
    }

    // MARK: SNP's configuration

    /// SNP_SET_CONFIG [SNP 8.6]: what reports say from now on.
    ///
    /// - Parameter reportedTCB: In the product's layout; 0 puts it back to the committed version.
    public func configureSNP(reportedTCB: UInt64, masksChipID: Bool, masksChipKey: Bool) throws(VMMError) {
        var config = SNPUserConfig()
        config.reportedTCB = reportedTCB
        config.flags = (masksChipID ? 1 : 0) | (masksChipKey ? 2 : 0)
        try run("configure what the platform reports", .snpSetConfig, &config)
    }

    /// SNP_COMMIT [SNP 8.5]: the current version can never be rolled back, and is reported.
    public func commitSNP() throws(VMMError) {
        // The command has no structure of its own.
        if let error = refusal("commit the firmware", .snpCommit, data: 0) { throw error }
    }

    /// SNP_VLEK_LOAD [SNP 8.31].
    ///
    /// - Parameter wrapped: The hashstick as the manufacturer has wrapped it for this chip, 432 bytes.
    public func loadVLEK(_ wrapped: [UInt8]) throws(VMMError) {
        precondition(wrapped.count == SNPUserVLEKLoad.hashstickByteCount, "a wrapped hashstick of 432 bytes")
        try withKernelAddress(of: wrapped) { (address) throws(VMMError) in
            var load = SNPUserVLEKLoad(address: address)
            try run("load the VLEK", .snpVLEKLoad, &load)
        }
    }

    private func run<Structure: KernelStructure>(
        _ step: String, _ command: SEVDeviceCommand, _ structure: inout Structure
    ) throws(VMMError) {
        if let error = refusal(step, command, &structure) { throw error }
    }

    private func refusal<Structure: KernelStructure>(
        _ step: String, _ command: SEVDeviceCommand, _ structure: inout Structure
    ) -> VMMError? {
        withKernelAddress(of: &structure) { refusal(step, command, data: $0) }
    }

    private func refusal(_ step: String, _ command: SEVDeviceCommand, data: UInt64) -> VMMError? {
        var issue = SEVIssueCommand(command, data: data)
        do throws(Errno) {
            try kernel.call(device, .sevIssueCommand, &issue)
            return nil
        } catch {
            return VMMError(
                step: step, request: "\(command)", errno: error,
                firmwareStatus: error == .EIO ? FirmwareStatus(rawValue: issue.error) : nil)
        }
    }
}
