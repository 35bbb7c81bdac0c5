// What a guest owner signs beforehand: the launch that may become this guest.

/// The ID block, 96 bytes [SNP 8.18.2].
public struct IDBlock: Equatable, Sendable {
    public static let byteCount = 96
    /// The only version there is.
    public static let currentVersion: UInt32 = 1

    /// LD: the launch digest that the guest must have.
    public var launchDigest: LaunchDigest
    /// FAMILY_ID, 16 bytes, free for the owner.
    public var familyID: [16 of UInt8]
    /// IMAGE_ID, 16 bytes, free for the owner.
    public var imageID: [16 of UInt8]
    public var version: UInt32
    /// GUEST_SVN.
    public var guestSVN: UInt32
    public var policy: GuestPolicy

    public init(
        launchDigest: LaunchDigest, familyID: [16 of UInt8] = .init(repeating: 0),
        imageID: [16 of UInt8] = .init(repeating: 0), version: UInt32 = currentVersion, guestSVN: UInt32 = 0,
        policy: GuestPolicy = .default
    ) {
        self.launchDigest = launchDigest
        self.familyID = familyID
        self.imageID = imageID
        self.version = version
        self.guestSVN = guestSVN
        self.policy = policy
    }

    /// Returns nil unless there are exactly 96 bytes.
    public init?(bytes: [UInt8]) {
        guard bytes.count == Self.byteCount else { return nil }
        launchDigest = LaunchDigest(.init { bytes[$0] })
        familyID = .init { bytes[0x30 &+ $0] }
        imageID = .init { bytes[0x40 &+ $0] }
        version = bytes.field(0x50)
        guestSVN = bytes.field(0x54)
        policy = GuestPolicy(rawValue: bytes.field(0x58))
    }

    /// The 96 bytes that are signed.
    public var bytes: [UInt8] {
        var bytes = launchDigest.array
        for index in 0..<16 { bytes.append(familyID[index]) }
        for index in 0..<16 { bytes.append(imageID[index]) }
        bytes += [UInt8](repeating: 0, count: 16)
        bytes.setField(0x50, version)
        bytes.setField(0x54, guestSVN)
        bytes.setField(0x58, policy.rawValue)
        return bytes
    }

    public static func == (a: Self, b: Self) -> Bool { a.bytes == b.bytes }
}

/// The ID authentication information, one page [SNP 8.18.3]: signatures and keys, kept as bytes.
public struct IDAuthentication: Equatable, Sendable {
    public static let byteCount = 4096
    /// ECDSA P-384 with SHA-384: the only algorithm there is.
    public static let ecdsaP384: UInt32 = 1

    public private(set) var bytes: [UInt8]

    /// Returns nil unless there are exactly 4096 bytes.
    public init?(bytes: [UInt8]) {
        guard bytes.count == Self.byteCount else { return nil }
        self.bytes = bytes
    }

    /// ID_KEY_ALGO and AUTH_KEY_ALGO with empty signatures and keys.
    public init() {
        bytes = [UInt8](repeating: 0, count: Self.byteCount)
        bytes[0] = 1
        bytes[4] = 1
    }

    public var idKeyAlgorithm: UInt32 {
        get { bytes.field(0) }
        set { bytes.setField(0, newValue) }
    }
    public var authorKeyAlgorithm: UInt32 {
        get { bytes.field(4) }
        set { bytes.setField(4, newValue) }
    }
    /// ID_BLOCK_SIG: over the ID block, by the ID key.
    public var idBlockSignature: SignatureField {
        get { SignatureField(bytes, at: 0x40) }
        set { bytes.setBytes(0x40, newValue.bytes) }
    }
    public var idKey: PublicKeyField {
        get { PublicKeyField(bytes, at: 0x240) }
        set { bytes.setBytes(0x240, newValue.bytes) }
    }
    /// ID_KEY_SIG: over the 0x404 bytes of the ID key's field, by the author key.
    public var idKeySignature: SignatureField {
        get { SignatureField(bytes, at: 0x680) }
        set { bytes.setBytes(0x680, newValue.bytes) }
    }
    public var authorKey: PublicKeyField {
        get { PublicKeyField(bytes, at: 0x880) }
        set { bytes.setBytes(0x880, newValue.bytes) }
    }
}

/// An ECDSA signature as the firmware writes it, 512 bytes: R 72, S 72, little-endian and zero-padded, then zeroes.
public struct SignatureField: Equatable, Sendable {
    public static let byteCount = 512
    public let bytes: [UInt8]

    init(_ page: [UInt8], at offset: Int) { bytes = Array(page[offset..<(offset &+ Self.byteCount)]) }

    /// From little-endian numbers of at most 72 bytes; longer ones are a programmer error.
    public init(r: [UInt8], s: [UInt8]) {
        precondition(r.count <= 72 && s.count <= 72, "R and S have at most 72 bytes")
        var bytes = [UInt8](repeating: 0, count: Self.byteCount)
        bytes.setBytes(0, r)
        bytes.setBytes(72, s)
        self.bytes = bytes
    }

    /// 72 bytes, little-endian.
    public var r: [UInt8] { Array(bytes[0..<72]) }
    /// 72 bytes, little-endian.
    public var s: [UInt8] { Array(bytes[72..<144]) }
}

/// An ECDSA public key as the firmware writes it, 0x404 bytes: curve u32, QX 72, QY 72, little-endian, then zeroes.
/// The key's digest in reports is the SHA-384 of these bytes.
public struct PublicKeyField: Equatable, Sendable {
    public static let byteCount = 0x404
    /// Curve number of P-384.
    public static let p384: UInt32 = 2
    public let bytes: [UInt8]

    init(_ page: [UInt8], at offset: Int) { bytes = Array(page[offset..<(offset &+ Self.byteCount)]) }

    /// From little-endian coordinates of at most 72 bytes; longer ones are a programmer error.
    public init(curve: UInt32 = p384, x: [UInt8], y: [UInt8]) {
        precondition(x.count <= 72 && y.count <= 72, "QX and QY have at most 72 bytes")
        var bytes = [UInt8](repeating: 0, count: Self.byteCount)
        bytes.setField(0, curve)
        bytes.setBytes(4, x)
        bytes.setBytes(76, y)
        self.bytes = bytes
    }

    public var curve: UInt32 { bytes.field(0) }
    /// 72 bytes, little-endian.
    public var x: [UInt8] { Array(bytes[4..<76]) }
    /// 72 bytes, little-endian.
    public var y: [UInt8] { Array(bytes[76..<148]) }
}
