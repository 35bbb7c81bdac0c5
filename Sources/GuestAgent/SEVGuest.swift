// What a guest asks of the firmware: reports about itself, and keys of its own.

import Crypto
import KVMABI
import SEVABI

/// The firmware as this guest sees it.
public struct SEVGuest {
    /// The most that Linux lets a guest ask for in one go (`SEV_FW_BLOB_MAX_SIZE`).
    public static let certificateByteCount = 0x4000
    /// Newer kernels allow more; a hypervisor that wants more than this is refused.
    public static let certificateByteLimit = 1 << 20

    private let driver: any SEVGuestDriver

    public init(_ driver: any SEVGuestDriver) { self.driver = driver }

    /// A report: 0x4A0 bytes as the firmware signed them.
    public func report(_ request: ReportRequest) throws(AgentError) -> [UInt8] {
        let reply = try send(SEVGuestRequest(operation: .report, payload: request.bytes), "ask for a report")
        return try report(in: reply, .report)
    }

    /// A report and the certificates that the hypervisor gives with it, as a table [GHCB 4.1.8.1]; empty when it has none.
    public func extendedReport(
        _ request: ReportRequest
    ) throws(AgentError) -> (report: [UInt8], certificates: [UInt8]) {
        let attempt = "ask for a report with certificates"
        var message = SEVGuestRequest(
            operation: .extendedReport, payload: request.bytes, certificateByteCount: Self.certificateByteCount)
        var reply = driver.send(message)
        if reply.errno != nil, reply.hypervisorStatus == 1,
            reply.neededCertificateByteCount > message.certificateByteCount,
            reply.neededCertificateByteCount <= Self.certificateByteLimit
        {
            message.certificateByteCount = (reply.neededCertificateByteCount + 4095) & ~4095
            reply = driver.send(message)
        }
        try check(reply, .extendedReport, attempt)
        // An empty table is a single all-zero entry.
        let certificates = reply.certificates.prefix(16).allSatisfy { $0 == 0 } ? [] : reply.certificates
        return (try report(in: reply, .extendedReport), certificates)
    }

    /// A key of 32 bytes that this guest, launched in the same way on the same chip, gets again.
    public func derivedKey(_ request: KeyRequest) throws(AgentError) -> SecretBytes {
        var reply = try send(
            SEVGuestRequest(
                operation: .derivedKey, messageVersion: request.messageVersion, payload: request.bytes),
            "derive a key")
        defer { wipe(&reply.payload) }
        guard var response = KeyResponse(bytes: reply.payload) else {
            throw Self.misshapen(.derivedKey, "\(reply.payload.count) bytes, expected \(KeyResponse.byteCount)")
        }
        try Self.check(response.status, .derivedKey, "derive a key")
        return SecretBytes(taking: &response.key)
    }

    private func send(_ request: SEVGuestRequest, _ attempt: String) throws(AgentError) -> SEVGuestReply {
        let reply = driver.send(request)
        try check(reply, request.operation, attempt)
        return reply
    }

    private func report(
        in reply: SEVGuestReply, _ operation: SEVGuestRequest.Operation
    ) throws(AgentError) -> [UInt8] {
        guard let response = ReportResponse(bytes: Array(reply.payload.prefix(ReportResponse.byteCount))) else {
            throw Self.misshapen(operation, "no MSG_REPORT_RSP in \(reply.payload.count) bytes")
        }
        try Self.check(response.status, operation, "ask for a report")
        guard response.report.count == AttestationReportBody.reportByteCount else {
            throw Self.misshapen(
                operation,
                "a report of \(response.report.count) bytes, expected \(AttestationReportBody.reportByteCount)")
        }
        return response.report
    }

    // MARK: What can go wrong

    private func check(
        _ reply: SEVGuestReply, _ operation: SEVGuestRequest.Operation, _ attempt: String
    ) throws(AgentError) {
        guard let errno = reply.errno else { return }
        let found: String
        let (cause, next): (String, String)
        switch (reply.hypervisorStatus, reply.firmwareStatus.rawValue) {
        case (1, _):
            found = "\(errno), the hypervisor wants room for \(reply.neededCertificateByteCount) bytes of certificates"
            (cause, next) = (
                "a table larger than this kernel takes", "ask for a plain report, and give the owner the certificates"
            )
        case (2, _):
            found = "\(errno), the hypervisor is busy"
            (cause, next) = ("it allows so many requests a second", "try again in a minute")
        // The driver's value for "the firmware was not called", old and new.
        case (0, 0), (0, 0xff), (0, 0xffff_ffff):
            found = "\(errno), and the firmware was not asked"
            (cause, next) = Self.explain(errno)
        case (0, _):
            found = "\(errno), firmware: \(reply.firmwareStatus)"
            (cause, next) = (
                "the firmware refused the message, or the hypervisor damaged it",
                "look at dmesg; the driver takes no more requests until the guest restarts"
            )
        default:
            found = "\(errno), hypervisor status \(reply.hypervisorStatus)"
            (cause, next) = ("the hypervisor refused to pass the message on", "look at its log")
        }
        throw AgentError(
            .refused, attempt: attempt, subject: "\(operation.name) on \(LinuxSEVGuestDriver.path)", found: found,
            likelyCause: cause, nextStep: next)
    }

    private static func explain(_ errno: Errno) -> (String, String) {
        switch errno {
        case .ENOTTY:
            (
                "the driver has given up its key (VMPCK) after an earlier failure, or knows no such request",
                "look at dmesg, and restart the guest"
            )
        case .EINVAL: ("the kernel is older or newer than this request", "look at dmesg")
        default: ("the driver failed before it sent the message", "look at dmesg")
        }
    }

    /// STATUS of the answer itself.
    private static func check(
        _ status: GuestMessageStatus, _ operation: SEVGuestRequest.Operation, _ attempt: String
    ) throws(AgentError) {
        guard status != .success else { return }
        let (name, cause, next) =
            switch status {
            case .invalidParameters:
                (
                    "INVALID_PARAM", "a VMPL below the guest's own, or a field that may not be mixed",
                    "ask for VMPL 0, and for what this firmware knows"
                )
            case .invalidKey:
                (
                    "INVALID_KEY", "the platform has no such key loaded, or its owner forbids its use",
                    "ask for another key, or for none in particular"
                )
            default: ("unknown", "newer firmware", "look it up in the firmware's specification")
            }
        throw AgentError(
            .refused, attempt: attempt, subject: "\(operation.name) on \(LinuxSEVGuestDriver.path)",
            found: "status \(name) (0x\(String(status.rawValue, radix: 16))) in the firmware's answer",
            likelyCause: cause, nextStep: next)
    }

    private static func misshapen(_ operation: SEVGuestRequest.Operation, _ found: String) -> AgentError {
        AgentError(
            .refused, attempt: "read the firmware's answer",
            subject: "\(operation.name) on \(LinuxSEVGuestDriver.path)",
            found: found, likelyCause: "a driver that passes on something else", nextStep: "look at dmesg")
    }
}
