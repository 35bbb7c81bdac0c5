// The kernel's driver for guest messages as values: what goes into one of its three requests, and what comes back. The
// driver seals and opens the messages; payloads are what the firmware reads and writes.

import KVMABI

/// One request to the driver [Linux sev-guest.rst].
public struct SEVGuestRequest: Equatable, Sendable {
    public enum Operation: UInt32, Sendable {
        /// `SNP_GET_REPORT`
        case report = 0
        /// `SNP_GET_DERIVED_KEY`
        case derivedKey = 1
        /// `SNP_GET_EXT_REPORT`: a report, and the certificates that the hypervisor has for it.
        case extendedReport = 2

        /// In the kernel's spelling.
        public var name: String {
            switch self {
            case .report: "SNP_GET_REPORT"
            case .derivedKey: "SNP_GET_DERIVED_KEY"
            case .extendedReport: "SNP_GET_EXT_REPORT"
            }
        }

        /// Bytes that the driver may write for the answer's payload.
        public var responseByteCount: Int {
            switch self {
            case .report, .extendedReport: 4000
            case .derivedKey: 64
            }
        }
    }

    public var operation: Operation
    /// MSG_VERSION.
    public var messageVersion: UInt8
    /// MSG_REPORT_REQ or MSG_KEY_REQ.
    public var payload: [UInt8]
    /// Room for certificates, a multiple of 4096; 0 except for an extended report.
    public var certificateByteCount: Int

    public init(operation: Operation, messageVersion: UInt8 = 1, payload: [UInt8], certificateByteCount: Int = 0) {
        self.operation = operation
        self.messageVersion = messageVersion
        self.payload = payload
        self.certificateByteCount = certificateByteCount
    }
}

/// What the driver answers.
public struct SEVGuestReply: Equatable, Sendable {
    /// Nil for success.
    public var errno: Errno?
    /// EXITINFO2 of the guest request: the firmware's status below, the hypervisor's above.
    public var exitInformation: UInt64
    /// The answer's payload, and zeroes up to the size of the driver's buffer.
    public var payload: [UInt8]
    /// As much as there was room for.
    public var certificates: [UInt8] = []
    /// Room that the hypervisor asks for, when what there was is too small.
    public var neededCertificateByteCount = 0

    public init(
        errno: Errno? = nil, exitInformation: UInt64 = 0, payload: [UInt8], certificates: [UInt8] = [],
        neededCertificateByteCount: Int = 0
    ) {
        self.errno = errno
        self.exitInformation = exitInformation
        self.payload = payload
        self.certificates = certificates
        self.neededCertificateByteCount = neededCertificateByteCount
    }

    /// Lower half of EXITINFO2.
    public var firmwareStatus: FirmwareStatus {
        FirmwareStatus(rawValue: UInt32(truncatingIfNeeded: exitInformation))
    }
    /// Upper half of EXITINFO2 [GHCB 4.1.7]: 1 for too little room, 2 for busy.
    public var hypervisorStatus: UInt32 { UInt32(truncatingIfNeeded: exitInformation &>> 32) }
}

/// Whoever takes such requests: the kernel, or a test.
public protocol SEVGuestDriver {
    func send(_ request: SEVGuestRequest) -> SEVGuestReply
}
