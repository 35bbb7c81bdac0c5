// ATTESTATION: the launch digest, signed by the platform.

import MemoryController
import SEVABI

extension Firmware {
    /// ATTESTATION [SEV 6.8]: a report of 208 bytes.
    ///
    /// - Returns: INVALID_GUEST_STATE while the guest is in LUPDATE: the digest is final from LAUNCH_MEASURE on;
    ///   INVALID_LENGTH, with the length filled in; INVALID_ADDRESS, INVALID_PAGE_STATE.
    mutating func attest(_ buffer: inout SEVAttestation) -> SEVStatus {
        var result = buffer
        let status = withGuest(buffer.handle) { firmware, guest in
            guard guest.state == .launchSecret || guest.state == .running else { return .invalidGuestState }
            guard result.byteCount >= UInt32(SEVGuestReport.byteCount) else {
                result.byteCount = UInt32(SEVGuestReport.byteCount)
                return .invalidLength
            }
            var report = SEVGuestReport(
                nonce: buffer.nonce, launchDigest: guest.launchDigest, policy: guest.policy)
            (report.r, report.s) = firmware.withIdentity { $0.pek.sign(report.signedBytes, hash: .sha256) }
            // Numbers of 48 bytes in fields of 72.
            let padding = [UInt8](repeating: 0, count: 24)
            report.r += padding
            report.s += padding
            let output = firmware.writeOutput(report.bytes, to: result.address)
            if output == .success { result.byteCount = UInt32(SEVGuestReport.byteCount) }
            return output
        }
        buffer = result
        return status
    }
}
