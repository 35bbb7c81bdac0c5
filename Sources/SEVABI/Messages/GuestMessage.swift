// The messages between a guest and the firmware: the page that the hypervisor carries and cannot read.
//
//     0x00  AUTHTAG 32     0x20  MSG_SEQNO     0x28  0
//     0x30  ALGO 1   0x31 HDR_VERSION 1   0x32 HDR_SIZE 0x60   0x34 MSG_TYPE   0x35 MSG_VERSION   0x36 MSG_SIZE
//     0x38  0        0x3C MSG_VMPCK       0x3D 0
//     0x60  MSG_SIZE bytes of ciphertext; the rest of the page is zero
//
// Bytes 0x30 to 0x5F are authenticated with the payload.

/// MSG_TYPE [SNP 7.1, table 98].
public struct GuestMessageType: RawRepresentable, Hashable, Sendable, CustomStringConvertible {
    public var rawValue: UInt8
    public init(rawValue: UInt8) { self.rawValue = rawValue }

    /// MSG_CPUID_REQ
    public static let cpuidRequest = GuestMessageType(rawValue: 1)
    /// MSG_KEY_REQ
    public static let keyRequest = GuestMessageType(rawValue: 3)
    /// MSG_KEY_RSP
    public static let keyResponse = GuestMessageType(rawValue: 4)
    /// MSG_REPORT_REQ
    public static let reportRequest = GuestMessageType(rawValue: 5)
    /// MSG_REPORT_RSP
    public static let reportResponse = GuestMessageType(rawValue: 6)
    /// MSG_EXPORT_REQ
    public static let exportRequest = GuestMessageType(rawValue: 7)
    /// MSG_IMPORT_REQ
    public static let importRequest = GuestMessageType(rawValue: 9)
    /// MSG_ABSORB_REQ
    public static let absorbRequest = GuestMessageType(rawValue: 11)
    /// MSG_VMRK_REQ
    public static let vmrkRequest = GuestMessageType(rawValue: 13)
    /// MSG_ABSORB_NOMA_REQ
    public static let absorbWithoutAgentRequest = GuestMessageType(rawValue: 15)
    /// MSG_TSC_INFO_REQ
    public static let tscInfoRequest = GuestMessageType(rawValue: 17)
    /// MSG_TSC_INFO_RSP
    public static let tscInfoResponse = GuestMessageType(rawValue: 18)

    /// The answer's type: the next number.
    public var response: GuestMessageType { GuestMessageType(rawValue: rawValue &+ 1) }

    /// Name or number.
    public var description: String {
        switch self {
        case .cpuidRequest: "MSG_CPUID_REQ"
        case .keyRequest: "MSG_KEY_REQ"
        case .keyResponse: "MSG_KEY_RSP"
        case .reportRequest: "MSG_REPORT_REQ"
        case .reportResponse: "MSG_REPORT_RSP"
        case .exportRequest: "MSG_EXPORT_REQ"
        case .importRequest: "MSG_IMPORT_REQ"
        case .absorbRequest: "MSG_ABSORB_REQ"
        case .vmrkRequest: "MSG_VMRK_REQ"
        case .absorbWithoutAgentRequest: "MSG_ABSORB_NOMA_REQ"
        case .tscInfoRequest: "MSG_TSC_INFO_REQ"
        case .tscInfoResponse: "MSG_TSC_INFO_RSP"
        default: "guest message \(rawValue)"
        }
    }
}

/// The header of a guest message, 0x60 bytes [SNP 7.1].
public struct GuestMessageHeader: Equatable, Sendable {
    public static let byteCount = 0x60
    /// Header and payload, sealed or not, are one page.
    public static let pageByteCount = 4096
    /// Payload bytes that fit.
    public static let maximumPayloadByteCount = 4096 - 0x60
    /// ALGO of AES-256-GCM: the only one there is.
    public static let aes256GCM: UInt8 = 1
    /// HDR_VERSION.
    public static let currentVersion: UInt8 = 1
    /// Offset of the authenticated part.
    public static let authenticatedOffset = 0x30

    /// The 16 bytes of AUTHTAG that AES-GCM uses.
    public var tag = [UInt8](repeating: 0, count: 16)
    /// MSG_SEQNO.
    public var sequenceNumber: UInt64
    public var algorithm = aes256GCM
    public var headerVersion = currentVersion
    public var headerByteCount = UInt16(byteCount)
    public var type: GuestMessageType
    public var messageVersion: UInt8
    /// MSG_SIZE: bytes of the payload.
    public var payloadByteCount: UInt16
    /// MSG_VMPCK: which key sealed it, 0 to 3.
    public var keyIndex: UInt8
    /// The unused part of AUTHTAG and the bytes between the fields are zero.
    public private(set) var hasValidReservedBytes = true

    /// A header whose tag is still to come.
    public init(
        type: GuestMessageType, messageVersion: UInt8 = 1, payloadByteCount: Int, keyIndex: UInt8,
        sequenceNumber: UInt64
    ) {
        self.type = type
        self.messageVersion = messageVersion
        self.payloadByteCount = UInt16(truncatingIfNeeded: payloadByteCount)
        self.keyIndex = keyIndex
        self.sequenceNumber = sequenceNumber
    }

    /// From the start of a page; nil for fewer than 0x60 bytes. Any values parse.
    public init?(bytes: [UInt8]) {
        guard bytes.count >= Self.byteCount else { return nil }
        tag = Array(bytes[0..<16])
        sequenceNumber = bytes.field(0x20)
        algorithm = bytes[0x30]
        headerVersion = bytes[0x31]
        headerByteCount = bytes.field(0x32)
        type = GuestMessageType(rawValue: bytes[0x34])
        messageVersion = bytes[0x35]
        payloadByteCount = bytes.field(0x36)
        keyIndex = bytes[0x3c]
        hasValidReservedBytes =
            bytes.isZero(0x10..<0x20) && bytes.isZero(0x28..<0x30) && bytes.isZero(0x38..<0x3c)
            && bytes.isZero(0x3d..<0x60)
    }

    /// The 0x60 bytes; reserved ones are zero.
    public var bytes: [UInt8] {
        var bytes = [UInt8](repeating: 0, count: Self.byteCount)
        bytes.setBytes(0, Array(tag.prefix(16)))
        bytes.setField(0x20, sequenceNumber)
        bytes[0x30] = algorithm
        bytes[0x31] = headerVersion
        bytes.setField(0x32, headerByteCount)
        bytes[0x34] = type.rawValue
        bytes[0x35] = messageVersion
        bytes.setField(0x36, payloadByteCount)
        bytes[0x3c] = keyIndex
        return bytes
    }

    /// The nonce of AES-GCM: MSG_SEQNO and four zero bytes.
    public var nonce: [UInt8] {
        var bytes = [UInt8](repeating: 0, count: 12)
        bytes.setField(0, sequenceNumber)
        return bytes
    }
}

/// STATUS at the start of every response payload [SNP 7].
public struct GuestMessageStatus: RawRepresentable, Hashable, Sendable {
    public var rawValue: UInt32
    public init(rawValue: UInt32) { self.rawValue = rawValue }

    public static let success = GuestMessageStatus(rawValue: 0)
    /// INVALID_PARAM
    public static let invalidParameters = GuestMessageStatus(rawValue: 0x16)
    /// INVALID_KEY: the key that was asked for is not there, or may not be used.
    public static let invalidKey = GuestMessageStatus(rawValue: 0x27)
}
