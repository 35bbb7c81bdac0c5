// A session in a file, between `owner session` and `owner secret`. It has the keys in clear: whoever reads it can read and
// forge everything between owner and firmware.
//
//     0x000 "SEVOWNER"      0x008 version 1      0x00c policy
//     0x010 TEK 16          0x020 TIK 16         0x030 session 128      0x0b0 GODH certificate 2084
//     0x8d4 SHA-256 of everything before         0x8f4

import ABILayout
import Crypto
import SEVABI

extension OwnerSession {
    static let magic = Array("SEVOWNER".utf8)
    static let storedVersion: UInt32 = 1
    /// Length of ``storedBytes()``.
    public static let storedByteCount = 0x8f4

    /// For a file that nobody else may read. The caller has to wipe it.
    public func storedBytes() -> [UInt8] {
        var bytes: [UInt8] = []
        // One storage, so that growing leaves no copies of the keys behind.
        bytes.reserveCapacity(Self.storedByteCount)
        bytes += Self.magic
        bytes.appendLittleEndian(Self.storedVersion)
        bytes += policy.littleEndianBytes
        tek.withBytes { bytes += $0 }
        tik.withBytes { bytes += $0 }
        bytes += launch.session + launch.ownerCertificate
        bytes += RootCertificates.bytes(SHA256.hash(bytes))
        return bytes
    }

    /// Reads what ``storedBytes()`` made.
    public init(stored bytes: [UInt8]) throws(OwnerError) {
        func refusal(_ field: String, expected: String, found: String, cause: String) -> OwnerError {
            OwnerError(
                .session, attempt: "read the owner's state", subject: "the state", field: field, expected: expected,
                found: found, likelyCause: cause,
                nextStep: "give the file that `owner session` wrote, or make a new session and launch with that")
        }
        guard bytes.starts(with: Self.magic) else {
            throw refusal("magic", expected: "SEVOWNER", found: hexText(bytes.prefix(8)), cause: "another file")
        }
        let version: UInt32? = bytes.littleEndian(at: 8)
        guard version == Self.storedVersion else {
            throw refusal(
                "version", expected: "\(Self.storedVersion)", found: version.map { "\($0)" } ?? "the end of the file",
                cause: "a state of another version of this program")
        }
        guard bytes.count == Self.storedByteCount else {
            throw refusal(
                "length", expected: "\(Self.storedByteCount) bytes", found: "\(bytes.count)",
                cause: "a file that was cut off, or that grew")
        }
        var checked = Array(bytes[..<0x8d4])
        defer { wipe(&checked) }
        guard constantTimeEqual(RootCertificates.bytes(SHA256.hash(checked)), Array(bytes[0x8d4...])) else {
            throw refusal("checksum", expected: "the one of its contents", found: "another", cause: "a damaged file")
        }
        let policy = SEVPolicy(rawValue: bytes.littleEndian(at: 0xc) ?? 0)
        var tek = Array(bytes[0x10..<0x20])
        var tik = Array(bytes[0x20..<0x30])
        self.init(
            policy: policy, tek: SecretBytes(taking: &tek), tik: SecretBytes(taking: &tik),
            launch: SEVLaunchSession(
                policy: policy, ownerCertificate: Array(bytes[0xb0..<0x8d4]), session: Array(bytes[0x30..<0xb0])))
    }
}
