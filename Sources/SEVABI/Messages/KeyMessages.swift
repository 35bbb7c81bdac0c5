// MSG_KEY_REQ and MSG_KEY_RSP: a guest derives a key that it gets again after a restart, and nobody else gets.

/// MSG_KEY_REQ, 0x20 bytes in version 1, 0x28 in version 2 [SNP 7.2].
public struct KeyRequest: Equatable, Sendable {
    /// GUEST_FIELD_SELECT: what of the guest goes into the key.
    public struct Fields: OptionSet, Hashable, Sendable {
        public var rawValue: UInt64
        public init(rawValue: UInt64) { self.rawValue = rawValue }

        public static let policy = Fields(rawValue: 1 << 0)
        public static let imageID = Fields(rawValue: 1 << 1)
        public static let familyID = Fields(rawValue: 1 << 2)
        public static let measurement = Fields(rawValue: 1 << 3)
        public static let guestSVN = Fields(rawValue: 1 << 4)
        public static let tcbVersion = Fields(rawValue: 1 << 5)
        /// Version 2 only.
        public static let launchMitigationVector = Fields(rawValue: 1 << 6)

        /// Every field of a message version.
        public static func all(messageVersion: UInt8) -> Fields {
            Fields(rawValue: messageVersion >= 2 ? 0x7f : 0x3f)
        }
    }

    /// Length of the payload; nil for versions that do not exist.
    public static func byteCount(messageVersion: UInt8) -> Int? {
        switch messageVersion {
        case 1: 0x20
        case 2: 0x28
        default: nil
        }
    }

    /// ROOT_KEY_SELECT: the VMRK instead of an endorsement key.
    public var usesVMRK: Bool
    public var keySelection: EndorsementKeySelection
    public var fields: Fields
    /// VMPL to mix.
    public var vmpl: UInt32
    /// GUEST_SVN to mix.
    public var guestSVN: UInt32
    /// TCB_VERSION to mix.
    public var tcbVersion: TCBVersion
    /// LAUNCH_MIT_VECTOR to mix; 0 in version 1.
    public var launchMitigationVector: UInt64
    /// 1 or 2.
    public let messageVersion: UInt8
    public private(set) var hasValidReservedBits = true

    public init(
        usesVMRK: Bool = false, keySelection: EndorsementKeySelection = .automatic, fields: Fields = [],
        vmpl: UInt32 = 0, guestSVN: UInt32 = 0, tcbVersion: TCBVersion = TCBVersion(rawValue: 0),
        launchMitigationVector: UInt64 = 0, messageVersion: UInt8 = 1
    ) {
        precondition(Self.byteCount(messageVersion: messageVersion) != nil, "MSG_KEY_REQ has versions 1 and 2")
        self.usesVMRK = usesVMRK
        self.keySelection = keySelection
        self.fields = fields
        self.vmpl = vmpl
        self.guestSVN = guestSVN
        self.tcbVersion = tcbVersion
        self.launchMitigationVector = launchMitigationVector
        self.messageVersion = messageVersion
    }

    /// Returns nil for an unknown version, or bytes of another length than the version's.
    public init?(bytes: [UInt8], messageVersion: UInt8) {
        guard bytes.count == Self.byteCount(messageVersion: messageVersion) else { return nil }
        let root: UInt32 = bytes.field(0)
        usesVMRK = root & 1 != 0
        keySelection = EndorsementKeySelection(rawValue: UInt8(truncatingIfNeeded: root &>> 1 & 3))
        fields = Fields(rawValue: bytes.field(8))
        vmpl = bytes.field(0x10)
        guestSVN = bytes.field(0x14)
        tcbVersion = TCBVersion(rawValue: bytes.field(0x18))
        launchMitigationVector = messageVersion >= 2 ? bytes.field(0x20) : 0
        self.messageVersion = messageVersion
        hasValidReservedBits =
            root & ~7 == 0 && bytes.isZero(4..<8) && fields.isSubset(of: .all(messageVersion: messageVersion))
    }

    public var bytes: [UInt8] {
        var bytes = [UInt8](repeating: 0, count: Self.byteCount(messageVersion: messageVersion) ?? 0x20)
        bytes.setField(0, UInt32(usesVMRK ? 1 : 0) | UInt32(keySelection.rawValue & 3) &<< 1)
        bytes.setField(8, fields.rawValue)
        bytes.setField(0x10, vmpl)
        bytes.setField(0x14, guestSVN)
        bytes.setField(0x18, tcbVersion.rawValue)
        if messageVersion >= 2 { bytes.setField(0x20, launchMitigationVector) }
        return bytes
    }
}

/// MSG_KEY_RSP, 64 bytes [SNP 7.2].
public struct KeyResponse: Equatable, Sendable {
    public static let byteCount = 64

    public var status: GuestMessageStatus
    /// DERIVED_KEY, 32 bytes; zeroes with another status than success.
    public var key: [UInt8]

    public init(key: [UInt8]) {
        precondition(key.count == 32, "a derived key has 32 bytes")
        status = .success
        self.key = key
    }

    public init(status: GuestMessageStatus) {
        self.status = status
        key = [UInt8](repeating: 0, count: 32)
    }

    /// Returns nil unless there are exactly 64 bytes.
    public init?(bytes: [UInt8]) {
        guard bytes.count == Self.byteCount else { return nil }
        status = GuestMessageStatus(rawValue: bytes.field(0))
        key = Array(bytes[32..<64])
    }

    public var bytes: [UInt8] {
        var bytes = [UInt8](repeating: 0, count: Self.byteCount)
        bytes.setField(0, status.rawValue)
        bytes.setBytes(32, key)
        return bytes
    }
}
