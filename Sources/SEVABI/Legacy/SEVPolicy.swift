// The policy a guest owner fixes for an SEV or SEV-ES guest.

/// Guest policy [SEV 3], 32 bits.
///
/// ```
///  31        24 23        16 15      6  5   4   3   2   1   0
/// +------------+------------+---------+---+---+---+---+---+---+
/// | API minor  | API major  |  zero   |SEV|DOM|NSD|ES |NKS|NDB|
/// +------------+------------+---------+---+---+---+---+---+---+
/// ```
public struct SEVPolicy: RawRepresentable, Hashable, Sendable, CustomStringConvertible {
    public var rawValue: UInt32
    public init(rawValue: UInt32) { self.rawValue = rawValue }

    /// Bits 15:6.
    public static let reservedZeroMask: UInt32 = 0xffc0

    /// NODBG: the host may not decrypt the guest's memory for debugging.
    public static let noDebug: UInt32 = 1 << 0
    /// NOKS: no other guest may share the key.
    public static let noKeySharing: UInt32 = 1 << 1
    /// ES: the guest's registers must be encrypted.
    public static let requiresES: UInt32 = 1 << 2
    /// NOSEND: the guest may not be sent to another platform.
    public static let noSend: UInt32 = 1 << 3
    /// DOMAIN: the guest may only be sent to a platform of the same owner.
    public static let domain: UInt32 = 1 << 4
    /// SEV: the guest may only be sent to a platform that has SEV.
    public static let sevOnly: UInt32 = 1 << 5

    public var allowsDebug: Bool { rawValue & Self.noDebug == 0 }
    public var allowsKeySharing: Bool { rawValue & Self.noKeySharing == 0 }
    public var requiresEncryptedState: Bool { rawValue & Self.requiresES != 0 }
    public var allowsSend: Bool { rawValue & Self.noSend == 0 }
    /// The least firmware API major version.
    public var minimumAPIMajor: UInt8 { UInt8(truncatingIfNeeded: rawValue >> 16) }
    /// The least firmware API minor version.
    public var minimumAPIMinor: UInt8 { UInt8(truncatingIfNeeded: rawValue >> 24) }
    /// Bits 15:6 are zero.
    public var hasValidReservedBits: Bool { rawValue & Self.reservedZeroMask == 0 }

    /// The four bytes that the MACs cover.
    public var littleEndianBytes: [UInt8] { (0..<4).map { UInt8(truncatingIfNeeded: rawValue &>> UInt32(8 &* $0)) } }

    /// "0x00000005 (no debugging, SEV-ES)".
    public var description: String {
        let names: [(UInt32, String)] = [
            (Self.noDebug, "no debugging"), (Self.noKeySharing, "no key sharing"), (Self.requiresES, "SEV-ES"),
            (Self.noSend, "no sending"), (Self.domain, "same domain"), (Self.sevOnly, "SEV platforms only"),
        ]
        var parts = names.filter { rawValue & $0.0 != 0 }.map(\.1)
        if !hasValidReservedBits { parts.append("reserved bits") }
        if rawValue >> 16 != 0 { parts.append("firmware API \(minimumAPIMajor).\(minimumAPIMinor) or later") }
        let digits = String(rawValue, radix: 16)
        let number = "0x" + String(repeating: "0", count: 8 - digits.utf8.count) + digits
        return parts.isEmpty ? number : "\(number) (\(parts.joined(separator: ", ")))"
    }
}
