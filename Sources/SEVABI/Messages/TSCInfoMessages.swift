// MSG_TSC_INFO_REQ and MSG_TSC_INFO_RSP: what a guest with Secure TSC puts into the VMSAs of its other vCPUs.

/// MSG_TSC_INFO_REQ: 128 zero bytes [SNP 7.10].
public enum TSCInfoRequest {
    public static let byteCount = 128
}

/// MSG_TSC_INFO_RSP, 128 bytes [SNP 7.10].
public struct TSCInfoResponse: Equatable, Sendable {
    public static let byteCount = 128
    /// GUEST_TSC_SCALE of a guest that counts as fast as the host.
    public static let unitScale: UInt64 = 1 << 32

    public var status: GuestMessageStatus
    /// GUEST_TSC_SCALE: fixed point with 32 bits behind the point.
    public var scale: UInt64
    /// GUEST_TSC_OFFSET: added after scaling, modulo 2^64.
    public var offset: UInt64
    /// TSC_FACTOR: how far the mean frequency is below the nominal one, in 1/100000.
    public var factor: UInt32

    public init(status: GuestMessageStatus = .success, scale: UInt64 = 0, offset: UInt64 = 0, factor: UInt32 = 0) {
        self.status = status
        self.scale = scale
        self.offset = offset
        self.factor = factor
    }

    /// Returns nil unless there are exactly 128 bytes.
    public init?(bytes: [UInt8]) {
        guard bytes.count == Self.byteCount else { return nil }
        status = GuestMessageStatus(rawValue: bytes.field(0))
        scale = bytes.field(8)
        offset = bytes.field(0x10)
        factor = bytes.field(0x18)
    }

    public var bytes: [UInt8] {
        var bytes = [UInt8](repeating: 0, count: Self.byteCount)
        bytes.setField(0, status.rawValue)
        bytes.setField(8, scale)
        bytes.setField(0x10, offset)
        bytes.setField(0x18, factor)
        return bytes
    }
}
