// The table of certificates that an extended guest request returns [GHCB 4.1.8.1], both ways.
//
//  entries of 24 bytes: GUID 16 (RFC 4122 byte order), u32 offset from the start, u32 length; an all-zero entry ends them
//  then the certificates, DER

import ABILayout

/// A certificate table.
public struct CertificateTable: Equatable, Sendable {
    /// What an entry is.
    public struct Identifier: Hashable, Sendable, CustomStringConvertible {
        /// 16 bytes in the order of the text form.
        public let bytes: [UInt8]

        /// Another number of bytes is a programmer error.
        public init(bytes: [UInt8]) {
            precondition(bytes.count == 16, "a GUID has 16 bytes")
            self.bytes = bytes
        }

        public static let vcek = Identifier(0x63da_758d_e664_4564, 0xadc5_f4b9_3be8_accd)
        public static let vlek = Identifier(0xa807_4bc2_a25a_483e, 0xaae6_39c0_45a0_b8a1)
        /// The ASVK, too.
        public static let ask = Identifier(0x4ab7_b379_bbac_4fe4, 0xa02f_05ae_f327_c782)
        public static let ark = Identifier(0xc0b4_06a4_a803_4952, 0x9743_3fb6_014c_d0ae)
        public static let crl = Identifier(0x92f8_1bc3_5811_4d3d, 0x97ff_d19f_88dc_67ea)

        private init(_ high: UInt64, _ low: UInt64) {
            bytes = [high, low].flatMap { word in
                (0..<8).map { UInt8(truncatingIfNeeded: word &>> UInt64(56 &- 8 &* $0)) }
            }
        }

        /// 8-4-4-4-12 digits in lower case.
        public var description: String {
            let text = Array(hexText(bytes))
            return [0..<8, 8..<12, 12..<16, 16..<20, 20..<32].map { String(text[$0]) }.joined(separator: "-")
        }
    }

    public struct Entry: Equatable, Sendable {
        public let identifier: Identifier
        public let bytes: [UInt8]

        public init(_ identifier: Identifier, _ bytes: [UInt8]) {
            self.identifier = identifier
            self.bytes = bytes
        }
    }

    public static let entryByteCount = 24
    /// More would not fit in what a guest asks for.
    public static let maximumEntryCount = 64

    public var entries: [Entry]

    public init(entries: [Entry]) { self.entries = entries }

    /// The first entry of a kind; readers must not rely on any order.
    public subscript(_ identifier: Identifier) -> [UInt8]? {
        entries.first { $0.identifier == identifier }?.bytes
    }

    /// Reads a table. Bytes behind the last certificate are ignored: tables come in whole pages.
    ///
    /// - Throws: ``AttestationError`` of category `malformed` for a table that does not end or an entry that does not lie
    ///   behind the table and inside the bytes.
    public init(bytes: [UInt8]) throws(AttestationError) {
        var heads: [(identifier: Identifier, offset: UInt32, length: UInt32)] = []
        var position = 0
        while true {
            guard heads.count <= Self.maximumEntryCount, position <= bytes.count - Self.entryByteCount else {
                throw Self.malformed(
                    "end of the table", expected: "an all-zero entry among the first \(Self.maximumEntryCount + 1)",
                    found: "none in \(bytes.count) bytes")
            }
            let head = bytes[position..<(position + Self.entryByteCount)]
            position += Self.entryByteCount
            if head.allSatisfy({ $0 == 0 }) { break }
            // Safe: the 24 bytes lie inside.
            heads.append(
                (Identifier(bytes: Array(head.prefix(16))), head.littleEndian(at: 16)!, head.littleEndian(at: 20)!))
        }
        entries = []
        for (identifier, offset, length) in heads {
            let end = UInt64(offset) &+ UInt64(length)
            guard offset >= position, end <= UInt64(bytes.count) else {
                throw Self.malformed(
                    "entry \(identifier)",
                    expected: "bytes behind the table (\(position)) and inside it (\(bytes.count))",
                    found: "offset \(offset), length \(length)")
            }
            entries.append(Entry(identifier, Array(bytes[Int(offset)..<Int(end)])))
        }
    }

    /// The table's bytes, without padding to pages.
    public var bytes: [UInt8] {
        precondition(entries.count <= Self.maximumEntryCount, "a certificate table of at most 64 entries")
        var head: [UInt8] = []
        var body: [UInt8] = []
        let start = (entries.count + 1) * Self.entryByteCount
        for entry in entries {
            head += entry.identifier.bytes
            head.appendLittleEndian(UInt32(start + body.count))
            head.appendLittleEndian(UInt32(entry.bytes.count))
            body += entry.bytes
        }
        return head + [UInt8](repeating: 0, count: Self.entryByteCount) + body
    }

    /// 4 KiB pages that the guest must offer for it.
    public var pageCount: Int { (bytes.count + 4095) / 4096 }

    private static func malformed(_ field: String, expected: String, found: String) -> AttestationError {
        AttestationError(
            .malformed, attempt: "read the certificate table", subject: "certificate table", field: field,
            expected: expected, found: found, likelyCause: "a file of another kind, or a damaged one",
            nextStep: "fetch the extended report again")
    }
}
