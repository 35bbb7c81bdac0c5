// MSG_REPORT_REQ and MSG_REPORT_RSP: a guest asks for a report about itself.

/// KEY_SEL: which endorsement key signs a report or is the root of a key [SNP 7.2, 7.3].
public struct EndorsementKeySelection: RawRepresentable, Hashable, Sendable {
    public var rawValue: UInt8
    public init(rawValue: UInt8) { self.rawValue = rawValue }

    /// The VLEK when one is loaded, else the VCEK.
    public static let automatic = EndorsementKeySelection(rawValue: 0)
    public static let vcek = EndorsementKeySelection(rawValue: 1)
    public static let vlek = EndorsementKeySelection(rawValue: 2)
}

/// MSG_REPORT_REQ, 96 bytes [SNP 7.3].
public struct ReportRequest: Equatable, Sendable {
    public static let byteCount = 96

    /// REPORT_DATA, 64 bytes of the guest's choice.
    public var reportData: [UInt8]
    public var vmpl: UInt32
    public var keySelection: EndorsementKeySelection
    public private(set) var hasValidReservedBits = true

    /// Report data beyond 64 bytes is cut, missing bytes are zero.
    public init(reportData: [UInt8], vmpl: UInt32 = 0, keySelection: EndorsementKeySelection = .automatic) {
        self.reportData = Array((reportData + [UInt8](repeating: 0, count: 64)).prefix(64))
        self.vmpl = vmpl
        self.keySelection = keySelection
    }

    /// Returns nil unless there are exactly 96 bytes.
    public init?(bytes: [UInt8]) {
        guard bytes.count == Self.byteCount else { return nil }
        reportData = Array(bytes[0..<64])
        vmpl = bytes.field(0x40)
        let flags: UInt32 = bytes.field(0x44)
        keySelection = EndorsementKeySelection(rawValue: UInt8(truncatingIfNeeded: flags & 3))
        hasValidReservedBits = flags & ~3 == 0 && bytes.isZero(0x48..<0x60)
    }

    public var bytes: [UInt8] {
        var bytes = [UInt8](repeating: 0, count: Self.byteCount)
        bytes.setBytes(0, Array(reportData.prefix(64)))
        bytes.setField(0x40, vmpl)
        bytes.setField(0x44, UInt32(keySelection.rawValue & 3))
        return bytes
    }
}

/// MSG_REPORT_RSP, 0x20 bytes and the report [SNP 7.3].
public struct ReportResponse: Equatable, Sendable {
    public static let headByteCount = 0x20
    public static let byteCount = headByteCount + AttestationReportBody.reportByteCount

    public var status: GuestMessageStatus
    /// 0x4A0 bytes; none with another status than success.
    public var report: [UInt8]

    public init(report: [UInt8]) {
        status = .success
        self.report = report
    }

    public init(status: GuestMessageStatus) {
        self.status = status
        report = []
    }

    /// Returns nil for another length than 0x4C0, or a REPORT_SIZE that is not inside.
    public init?(bytes: [UInt8]) {
        guard bytes.count == Self.byteCount else { return nil }
        status = GuestMessageStatus(rawValue: bytes.field(0))
        let count: UInt32 = bytes.field(4)
        guard count <= UInt32(AttestationReportBody.reportByteCount) else { return nil }
        report = Array(bytes[Self.headByteCount..<(Self.headByteCount &+ Int(count))])
    }

    /// Always 0x4C0 bytes: without a report there are zeroes in its place.
    public var bytes: [UInt8] {
        var bytes = [UInt8](repeating: 0, count: Self.byteCount)
        bytes.setField(0, status.rawValue)
        let report = self.report.prefix(AttestationReportBody.reportByteCount)
        bytes.setField(4, UInt32(truncatingIfNeeded: report.count))
        bytes.setBytes(Self.headByteCount, Array(report))
        return bytes
    }
}
