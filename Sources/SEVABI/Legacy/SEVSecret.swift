// The owner's secret on its way into a guest: the packet of LAUNCH_SECRET, and the table inside it.

import ABILayout

/// Header of a secret packet, 52 bytes [SEV 6.6.1].
///
/// `MAC = HMAC-SHA256(TIK, 0x01 ‖ FLAGS ‖ IV ‖ guest length ‖ transfer length ‖ ciphertext ‖ MEASURE)`.
public struct SEVSecretHeader: Equatable, Sendable {
    public static let byteCount = 52
    /// Bit 0 of the flags.
    public static let compressed: UInt32 = 1

    public var flags: UInt32  // 0x00
    /// IV, 16 bytes: the first counter block.
    public var iv: [UInt8]  // 0x04
    /// MAC, 32 bytes.
    public var mac: [UInt8]  // 0x14

    /// Another length of a field is a programmer error.
    public init(flags: UInt32 = 0, iv: [UInt8], mac: [UInt8]) {
        precondition(iv.count == 16 && mac.count == 32, "an IV of 16 bytes and a MAC of 32")
        self.flags = flags
        self.iv = iv
        self.mac = mac
    }

    /// Returns nil unless there are exactly 52 bytes.
    public init?(bytes: [UInt8]) {
        guard bytes.count == Self.byteCount else { return nil }
        flags = bytes.field(0)
        iv = Array(bytes[0x04..<0x14])
        mac = Array(bytes[0x14..<0x34])
    }

    public var bytes: [UInt8] { Self.littleEndian(flags) + iv + mac }

    /// What the MAC is over.
    ///
    /// - Parameters:
    ///   - guestByteCount: GUEST_LENGTH.
    ///   - ciphertext: As it is transferred; its length is TRANS_LENGTH.
    ///   - measure: MEASURE, 32 bytes.
    public static func message(
        flags: UInt32, iv: [UInt8], guestByteCount: UInt32, ciphertext: [UInt8], measure: [UInt8]
    ) -> [UInt8] {
        [1] + littleEndian(flags) + iv + littleEndian(guestByteCount)
            + littleEndian(UInt32(truncatingIfNeeded: ciphertext.count)) + ciphertext + measure
    }

    private static func littleEndian(_ value: UInt32) -> [UInt8] {
        (0..<4).map { UInt8(truncatingIfNeeded: value &>> UInt32(8 &* $0)) }
    }
}

/// A secret packet: what the owner sends for LAUNCH_SECRET, and the file that `--secret` names.
public struct SEVSecretPacket: Equatable, Sendable {
    /// LAUNCH_SECRET takes at most 16 KiB [SEV 6.6].
    public static let maximumPayloadByteCount = 16384

    /// ``SEVSecretHeader``, 52 bytes.
    public var header: [UInt8]
    /// Ciphertext, a positive multiple of 16 bytes.
    public var payload: [UInt8]

    public init(header: [UInt8], payload: [UInt8]) {
        self.header = header
        self.payload = payload
    }

    /// Header ‖ payload. Returns nil unless the payload has 16 to 16384 bytes and a multiple of 16.
    public init?(bytes: [UInt8]) {
        let payloadByteCount = bytes.count &- SEVSecretHeader.byteCount
        guard payloadByteCount > 0, payloadByteCount <= Self.maximumPayloadByteCount, payloadByteCount % 16 == 0 else {
            return nil
        }
        header = Array(bytes.prefix(SEVSecretHeader.byteCount))
        payload = Array(bytes.dropFirst(SEVSecretHeader.byteCount))
    }

    public var bytes: [UInt8] { header + payload }
}

/// The table that a guest finds in its secret area.
///
/// ```
/// 0x00 GUID 1e74f542-71dd-4d66-963e-ef4287ff173b
/// 0x10 length of the whole table
/// 0x14 entries: GUID, length of the entry (head included), data
/// ```
public struct SecretTable: Equatable, Sendable {
    /// One secret.
    public struct Entry: Equatable, Sendable {
        public var guid: GUID
        public var data: [UInt8]

        public init(guid: GUID, data: [UInt8]) {
            self.guid = guid
            self.data = data
        }
    }

    /// Of the table.
    public static let guid = GUID("1e74f542-71dd-4d66-963e-ef4287ff173b")
    /// Of a disk's passphrase, the one entry that guests agree on.
    public static let diskPassphrase = GUID("736869e5-84f0-4973-92ec-06879ce3da0b")
    /// GUID and length, of the table and of each entry.
    public static let headByteCount = 20

    public var entries: [Entry]

    public init(entries: [Entry]) { self.entries = entries }

    /// Length of ``bytes``.
    public var byteCount: Int { entries.reduce(Self.headByteCount) { $0 + Self.headByteCount + $1.data.count } }

    /// The table, without padding.
    public var bytes: [UInt8] { bytes(paddedTo: 1) }

    /// The table with zeroes behind it, up to a multiple of `alignment`. One storage: growing would leave copies of secrets.
    public func bytes(paddedTo alignment: Int) -> [UInt8] {
        precondition(alignment > 0, "an alignment")
        let padding = (alignment - byteCount % alignment) % alignment
        var result: [UInt8] = []
        result.reserveCapacity(byteCount + padding)
        result += Self.guid.bytes
        result.appendLittleEndian(UInt32(truncatingIfNeeded: byteCount))
        for entry in entries {
            result += entry.guid.bytes
            result.appendLittleEndian(UInt32(truncatingIfNeeded: Self.headByteCount + entry.data.count))
            result += entry.data
        }
        result.append(contentsOf: repeatElement(0, count: padding))
        return result
    }

    /// Reads the table at the start of an area. Returns nil when there is none, or when a length points outside of it.
    public init?(area: [UInt8]) {
        guard let whole = Self.head(of: area[...], Self.guid) else { return nil }
        var rest = whole.dropFirst(Self.headByteCount)
        entries = []
        while !rest.isEmpty {
            guard let entry = Self.head(of: rest, nil) else { return nil }
            entries.append(
                Entry(guid: GUID(stored: Array(entry.prefix(16))), data: Array(entry.dropFirst(Self.headByteCount))))
            rest = rest.dropFirst(entry.count)
        }
    }

    /// The bytes that a head at the start of `bytes` counts, head included.
    private static func head(of bytes: ArraySlice<UInt8>, _ guid: GUID?) -> ArraySlice<UInt8>? {
        guard bytes.count >= headByteCount, let length: UInt32 = bytes.littleEndian(at: 16) else { return nil }
        if let guid, !bytes.starts(with: guid.bytes) { return nil }
        guard let count = Int(exactly: length), count >= headByteCount, count <= bytes.count else { return nil }
        return bytes.prefix(count)
    }
}
