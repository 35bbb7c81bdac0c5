// The chip's own storage: what survives when the machine is switched off.
//
// Whoever starts a machine gives the bytes of last time, and a closure that keeps new ones. A guest owner makes a session
// for one PDH, so the process that launches must have the same platform as the one that exported the certificates.
//
//     0x0000 "SNPVMPSP"     0x0008 version 1      0x000c flags: bit 0 owned by somebody else
//     0x0010 chip seed 32   0x0030 OCA 48         0x0060 PEK 48         0x0090 PDH 48      private numbers, big-endian
//     0x00c0 OCA certificate 2084                 0x08e4 PEK certificate 2084              of an external owner, or zeroes
//     0x1108 SHA-256 of all before                0x1128

import Crypto
import SEVABI

/// Why bytes are no platform state.
public enum PlatformStorageError: Error, Equatable, Sendable, CustomStringConvertible {
    /// Not 4392 bytes, or another magic number.
    case notPlatformState(byteCount: Int)
    /// Of a later program.
    case version(UInt32)
    /// The checksum or a value does not fit.
    case damaged(String)

    public var description: String {
        switch self {
        case .notPlatformState(let count):
            "cannot use \(count) bytes as platform state: it has \(PlatformStorage.byteCount) and begins with SNPVMPSP. "
                + "Likely another file; name the right one, or remove it to start with a new platform"
        case .version(let version):
            "cannot use platform state of version \(version): this program knows version "
                + "\(PlatformStorage.currentVersion). Likely a later program wrote it; use that one, or remove the state "
                + "to start with a new platform"
        case .damaged(let what):
            "cannot use the platform state: \(what). Likely the file was damaged; restore it, or remove it to start with "
                + "a new platform (sessions made for the old one will be refused)"
        }
    }
}

/// The persistent state of a platform, and how changes of it are kept.
public struct PlatformStorage: Sendable {
    /// Length of the state.
    public static let byteCount = 0x1128
    static let currentVersion: UInt32 = 1
    private static let magic = Array("SNPVMPSP".utf8)
    private static let checkedByteCount = 0x1108

    let identity: PlatformIdentity
    let save: @Sendable ([UInt8]) -> Void

    /// - Parameters:
    ///   - bytes: What `save` was last given; empty for a chip that is switched on for the first time.
    ///   - entropy: Where the keys of a new chip come from.
    ///   - save: Keeps the state. It contains private keys: nobody else may read it. Called before this returns for a
    ///     new chip, and by the commands that change keys or owner, one at a time, on their thread.
    public init(
        bytes: [UInt8], entropy: Entropy = .system, save: @escaping @Sendable ([UInt8]) -> Void
    ) throws(PlatformStorageError) {
        self.save = save
        if bytes.isEmpty {
            var source = EntropySource(entropy)
            identity = PlatformIdentity(from: &source)
            save(Self.bytes(of: identity))
        } else {
            identity = try Self.identity(from: bytes)
        }
    }

    /// The same state with another Diffie-Hellman key: for known answers.
    ///
    /// - Parameter pdh: The private number, 48 bytes big-endian.
    package static func replacing(pdh: [UInt8], in bytes: [UInt8]) -> [UInt8]? {
        guard var identity = try? identity(from: bytes), let key = P384PrivateKey(bigEndianScalar: pdh) else {
            return nil
        }
        identity.pdh = key
        return Self.bytes(of: identity)
    }

    // MARK: Format

    static func bytes(of identity: PlatformIdentity) -> [UInt8] {
        var bytes: [UInt8] = []
        bytes.reserveCapacity(byteCount)
        bytes += magic
        bytes += littleEndian(currentVersion)
        bytes += littleEndian(identity.isExternallyOwned ? 1 : 0)
        bytes += identity.chipSeed.copied()
        bytes += identity.oca?.bigEndianScalar ?? [UInt8](repeating: 0, count: 48)
        bytes += identity.pek.bigEndianScalar
        bytes += identity.pdh.bigEndianScalar
        let none = [UInt8](repeating: 0, count: SEVCertificate.byteCount)
        bytes += identity.imported?.oca.bytes ?? none
        bytes += identity.imported?.pek.bytes ?? none
        return bytes + SHA2Hasher(.sha256).hash(bytes)
    }

    private static func identity(from bytes: [UInt8]) throws(PlatformStorageError) -> PlatformIdentity {
        guard bytes.count == byteCount, bytes.starts(with: magic) else {
            throw .notPlatformState(byteCount: bytes.count)
        }
        let version = number(bytes, 8)
        guard version == currentVersion else { throw .version(version) }
        guard SHA2Hasher(.sha256).hash(Array(bytes[..<checkedByteCount])) == Array(bytes[checkedByteCount...]) else {
            throw .damaged("its checksum does not match")
        }
        let flags = number(bytes, 0xc)
        guard flags <= 1 else { throw .damaged("unknown flags 0x\(String(flags, radix: 16))") }
        let isOwned = flags == 1
        func key(_ offset: Int, _ name: String) throws(PlatformStorageError) -> P384PrivateKey {
            guard let key = P384PrivateKey(bigEndianScalar: Array(bytes[offset..<(offset + 48)])) else {
                throw .damaged("the \(name) is not a private key")
            }
            return key
        }
        let pek = try key(0x60, "PEK")
        let pdh = try key(0x90, "PDH")
        let certificates = 0xc0
        var imported: PlatformIdentity.Import?
        if isOwned {
            let middle = certificates + SEVCertificate.byteCount
            guard let ocaCertificate = SEVCertificate(bytes: Array(bytes[certificates..<middle])),
                let pekCertificate = SEVCertificate(bytes: Array(bytes[middle..<(middle + SEVCertificate.byteCount)])),
                let ocaKey = ocaCertificate.p384Key, ocaCertificate.isOwnerAuthority,
                ocaCertificate.isSigned(by: ocaKey, usage: .oca), pekCertificate.isSigned(by: ocaKey, usage: .oca),
                let pekKey = pekCertificate.p384Key, pekKey.littleEndianX == pek.publicKey.littleEndianX
            else { throw .damaged("the owner's certificates do not fit the platform's keys") }
            imported = .init(oca: ocaCertificate, pek: pekCertificate)
        } else if bytes[certificates..<checkedByteCount].contains(where: { $0 != 0 }) {
            throw .damaged("a platform that owns itself has no owner's certificates")
        }
        return PlatformIdentity(
            chipSeed: SecretBytes(Array(bytes[0x10..<0x30])), oca: isOwned ? nil : try key(0x30, "OCA"), pek: pek,
            pdh: pdh, imported: imported)
    }

    private static func littleEndian(_ value: UInt32) -> [UInt8] {
        (0..<4).map { UInt8(truncatingIfNeeded: value &>> UInt32(8 &* $0)) }
    }

    private static func number(_ bytes: [UInt8], _ offset: Int) -> UInt32 {
        (0..<4).reduce(0) { $0 | UInt32(bytes[offset + $1]) << UInt32(8 * $1) }
    }
}
