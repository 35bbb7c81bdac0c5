// ATTESTATION_REPORT [SNP 7.3], parsed and not yet believed.
//
//  0x000 VERSION, GUEST_SVN, POLICY, FAMILY_ID, IMAGE_ID, VMPL, SIGNATURE_ALGO
//  0x038 CURRENT_TCB, PLATFORM_INFO, key information
//  0x050 REPORT_DATA 64
//  0x090 MEASUREMENT 48
//  0x0C0 HOST_DATA 32, ID_KEY_DIGEST 48, AUTHOR_KEY_DIGEST 48
//  0x140 REPORT_ID 32, REPORT_ID_MA 32
//  0x180 REPORTED_TCB, CPUID family, model, stepping (version 3)
//  0x1A0 CHIP_ID 64
//  0x1E0 COMMITTED_TCB, versions, LAUNCH_TCB, mitigation vectors (version 5)
//  0x2A0 SIGNATURE: R 72, S 72, little-endian, then zeroes; over bytes 0x000…0x29F

import ABILayout
import SEVABI

/// A report as it came, its fields readable. Whether anything in it is true is for ``EndorsementChain/verify(_:at:)``.
public struct AttestationReport: Sendable {
    public static let byteCount = 0x4a0
    /// Bytes that the signature is over.
    public static let signedByteCount = 0x2a0

    /// All 1184 bytes, as received.
    public let bytes: [UInt8]

    /// VERSION: 2, 3, 4 (whose meaning is not public; it is read as 3) or 5.
    public let version: UInt32
    /// GUEST_SVN of the ID block.
    public let guestSVN: UInt32
    public let policy: GuestPolicy
    /// VMPL that the request was for.
    public let vmpl: UInt32
    /// Raw: its layout depends on the product, see ``SecurityVersions``.
    public let currentTCB: UInt64
    public let platformInfo: PlatformInfo
    public let keyInformation: KeyInformation
    /// The TCB whose certificate signs this report.
    public let reportedTCB: UInt64
    public let committedTCB: UInt64
    public let launchTCB: UInt64
    public let currentVersion: FirmwareVersion
    public let committedVersion: FirmwareVersion
    /// Combined CPUID family, model and stepping; nil before version 3.
    public let processor: Processor?
    /// Nil before version 5.
    public let launchMitigationVector: UInt64?
    /// Nil before version 5.
    public let currentMitigationVector: UInt64?

    /// FAMILY_ID of the ID block.
    public var familyID: [UInt8] { Array(bytes[0x10..<0x20]) }
    /// IMAGE_ID of the ID block.
    public var imageID: [UInt8] { Array(bytes[0x20..<0x30]) }
    public var reportData: [UInt8] { Array(bytes[0x50..<0x90]) }
    /// MEASUREMENT: the launch digest.
    public var measurement: [UInt8] { Array(bytes[0x90..<0xc0]) }
    public var hostData: [UInt8] { Array(bytes[0xc0..<0xe0]) }
    /// Nil when the guest was launched without an ID block.
    public var idKeyDigest: [UInt8]? { nonzero(0xe0..<0x110) }
    /// Nil when the ID block's key was not signed by an author key.
    public var authorKeyDigest: [UInt8]? { nonzero(0x110..<0x140) }
    /// Random for each guest.
    public var reportID: [UInt8] { Array(bytes[0x140..<0x160]) }
    /// REPORT_ID_MA; nil without a migration agent, which is all ones in the report.
    public var migrationAgentReportID: [UInt8]? {
        bytes[0x160..<0x180].allSatisfy { $0 == 0xff } ? nil : Array(bytes[0x160..<0x180])
    }
    /// Nil when the host masks it (MASK_CHIP_ID).
    public var chipID: [UInt8]? { nonzero(0x1a0..<0x1e0) }

    /// 72 bytes each, little-endian.
    public var signatureR: [UInt8] { Array(bytes[0x2a0..<0x2e8]) }
    public var signatureS: [UInt8] { Array(bytes[0x2e8..<0x330]) }
    public var signedBytes: [UInt8] { Array(bytes[..<Self.signedByteCount]) }

    public struct Processor: Hashable, Sendable {
        public let family: UInt8
        public let model: UInt8
        public let stepping: UInt8

        public init(family: UInt8, model: UInt8, stepping: UInt8) {
            self.family = family
            self.model = model
            self.stepping = stepping
        }
    }

    /// The product as far as the report itself says it: by CPUID since version 3; in version 2 by the zeroes in a chip id
    /// that only Turin has. Nil when it cannot be known.
    public var product: ProductLine? {
        if let processor {
            guard case .known(let product) = ProductLine.identify(family: processor.family, model: processor.model)
            else { return nil }
            return product
        }
        guard chipID != nil else { return nil }
        // Milan and Genoa have the same layout of TCB_VERSION, but this much only says that it is one of the two.
        return bytes[0x1a8..<0x1e0].allSatisfy { $0 == 0 } ? .turin : nil
    }

    /// The layout of the TCB fields for showing a report that nothing else is known of.
    public var layout: ProductLine? {
        if let product { return product }
        return processor == nil && chipID != nil ? .milan : nil
    }

    /// Reads a report.
    ///
    /// - Parameter bytes: Exactly 1184 bytes.
    /// - Throws: ``AttestationError`` of category `malformed` for another length, an unknown version, or a reserved field
    ///   that is not zero.
    public init(bytes: [UInt8]) throws(AttestationError) {
        guard bytes.count == Self.byteCount else {
            throw Self.malformed(
                "length", expected: "1184 bytes", found: "\(bytes.count) bytes",
                cause: "the response buffer of the driver (report at its offset 0x20), text, or another file",
                next: "give the report alone, as MSG_REPORT_RSP has it")
        }
        let version: UInt32 = Self.field(bytes, 0)
        guard (2...5).contains(version) else {
            throw Self.malformed(
                "VERSION", expected: "2, 3, 4 or 5", found: "\(version)",
                cause: version > 5 && version < 64 ? "firmware that is newer than this program" : "not a report",
                next: "check the file, or use a program that knows this version")
        }
        self.bytes = bytes
        self.version = version
        guestSVN = Self.field(bytes, 0x04)
        policy = GuestPolicy(rawValue: Self.field(bytes, 0x08))
        vmpl = Self.field(bytes, 0x30)
        currentTCB = Self.field(bytes, 0x38)
        platformInfo = PlatformInfo(rawValue: Self.field(bytes, 0x40))
        keyInformation = KeyInformation(rawValue: Self.field(bytes, 0x48))
        reportedTCB = Self.field(bytes, 0x180)
        processor =
            version >= 3 ? Processor(family: bytes[0x188], model: bytes[0x189], stepping: bytes[0x18a]) : nil
        committedTCB = Self.field(bytes, 0x1e0)
        currentVersion = FirmwareVersion(major: bytes[0x1ea], minor: bytes[0x1e9], build: bytes[0x1e8])
        committedVersion = FirmwareVersion(major: bytes[0x1ee], minor: bytes[0x1ed], build: bytes[0x1ec])
        launchTCB = Self.field(bytes, 0x1f0)
        launchMitigationVector = version >= 5 ? Self.field(bytes, 0x1f8) : nil
        currentMitigationVector = version >= 5 ? Self.field(bytes, 0x200) : nil
        try checkFixedFields()
    }

    private func checkFixedFields() throws(AttestationError) {
        let algorithm: UInt32 = Self.field(bytes, 0x34)
        guard algorithm == 1 else {
            throw Self.malformed(
                "SIGNATURE_ALGO", expected: "1 (ECDSA P-384 with SHA-384)", found: "\(algorithm)",
                cause: "not a report, or a damaged one", next: "fetch the report again")
        }
        guard vmpl <= 3 else {
            throw Self.malformed(
                "VMPL", expected: "0 to 3", found: hexText(vmpl), cause: "not a report, or a damaged one",
                next: "fetch the report again")
        }
        guard keyInformation.rawValue & KeyInformation.reservedMask == 0 else {
            throw Self.malformed(
                "key information, bits 31:5", expected: "zero", found: hexText(keyInformation.rawValue),
                cause: "a damaged report", next: "fetch the report again")
        }
        for range in Self.reservedRanges(version: version) {
            guard let offset = range.first(where: { bytes[$0] != 0 }) else { continue }
            throw Self.malformed(
                "reserved bytes \(hexText(range.lowerBound)) to \(hexText(range.upperBound - 1))", expected: "zeroes",
                found: "\(hexText(bytes[offset])) at \(hexText(offset))",
                cause: "a damaged report, or fields of firmware that is newer than this program",
                next: "fetch the report again")
        }
    }

    /// What must be zero, by version. The signature's numbers have 48 bytes in fields of 72.
    private static func reservedRanges(version: UInt32) -> [Range<Int>] {
        [
            0x4c..<0x50, (version >= 3 ? 0x18b : 0x188)..<0x1a0, 0x1eb..<0x1ec, 0x1ef..<0x1f0,
            (version >= 5 ? 0x208 : 0x1f8)..<0x2a0, 0x2d0..<0x2e8, 0x318..<0x330, 0x330..<0x4a0,
        ]
    }

    private func nonzero(_ range: Range<Int>) -> [UInt8]? {
        bytes[range].allSatisfy { $0 == 0 } ? nil : Array(bytes[range])
    }

    private static func field<T: FixedWidthInteger>(_ bytes: [UInt8], _ offset: Int) -> T {
        // Safe: every offset here lies inside the 1184 bytes that were checked.
        bytes.littleEndian(at: offset)!
    }

    private static func malformed(
        _ field: String, expected: String, found: String, cause: String, next: String
    ) -> AttestationError {
        AttestationError(
            .malformed, attempt: "read the report", subject: "report", field: field, expected: expected, found: found,
            likelyCause: cause, nextStep: next)
    }
}

/// PLATFORM_INFO of a report.
public struct PlatformInfo: OptionSet, Hashable, Sendable {
    public var rawValue: UInt64
    public init(rawValue: UInt64) { self.rawValue = rawValue }

    /// SMT is on.
    public static let smt = PlatformInfo(rawValue: 1 << 0)
    /// TSME is on.
    public static let tsme = PlatformInfo(rawValue: 1 << 1)
    /// ECC memory is in use.
    public static let ecc = PlatformInfo(rawValue: 1 << 2)
    /// RAPL is off.
    public static let raplDisabled = PlatformInfo(rawValue: 1 << 3)
    /// Ciphertext hiding for DRAM is on.
    public static let ciphertextHiding = PlatformInfo(rawValue: 1 << 4)
    /// The check for aliased memory was done since the last reset.
    public static let aliasCheckComplete = PlatformInfo(rawValue: 1 << 5)
    /// Set on Turin.
    public static let iommuWriteSafe = PlatformInfo(rawValue: 1 << 6)
    /// SEV-TIO is on.
    public static let tio = PlatformInfo(rawValue: 1 << 7)
    /// All that have a meaning.
    public static let known = PlatformInfo(rawValue: 0xff)

    /// Every bit by its name in policies and messages.
    public static let names: [(bit: PlatformInfo, name: String)] = [
        (.smt, "smt"), (.tsme, "tsme"), (.ecc, "ecc"), (.raplDisabled, "rapl-disabled"),
        (.ciphertextHiding, "ciphertext-hiding"), (.aliasCheckComplete, "alias-check"),
        (.iommuWriteSafe, "iommu-write-safe"), (.tio, "tio"),
    ]

    /// `0x25 (smt, ecc, alias-check)`.
    public var text: String {
        let named = Self.names.filter { contains($0.bit) }.map(\.name)
        return hexText(rawValue) + (named.isEmpty ? "" : " (\(named.joined(separator: ", ")))")
    }
}

/// The key information of a report, at offset 0x48.
public struct KeyInformation: RawRepresentable, Hashable, Sendable {
    public var rawValue: UInt32
    public init(rawValue: UInt32) { self.rawValue = rawValue }

    /// Bits 31:5.
    public static let reservedMask: UInt32 = ~0 << 5

    /// AUTHOR_KEY_EN.
    public var hasAuthorKey: Bool { rawValue & 1 != 0 }
    /// MASK_CHIP_KEY: the firmware wrote zeroes instead of a signature.
    public var masksChipKey: Bool { rawValue & 2 != 0 }
    public var signingKey: SigningKey { SigningKey(rawValue: UInt8(truncatingIfNeeded: rawValue &>> 2 & 7)) }
}

/// SIGNING_KEY: which key signed a report.
public struct SigningKey: RawRepresentable, Hashable, Sendable, CustomStringConvertible {
    public var rawValue: UInt8
    public init(rawValue: UInt8) { self.rawValue = rawValue }

    public static let vcek = SigningKey(rawValue: 0)
    public static let vlek = SigningKey(rawValue: 1)
    public static let none = SigningKey(rawValue: 7)

    public var description: String {
        switch self {
        case .vcek: "VCEK"
        case .vlek: "VLEK"
        case .none: "none"
        default: "reserved (\(rawValue))"
        }
    }
}
