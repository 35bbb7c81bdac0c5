// The bytes of a platform's storage.
//
//     0x0000 "SNPVMPSP"     0x0008 version      0x000c flags: bit 0 owned by somebody else
//     0x0010 chip seed 32   0x0030 OCA 48         0x0060 PEK 48         0x0090 PDH 48      private numbers, big-endian
//     0x00c0 OCA certificate 2084                 0x08e4 PEK certificate 2084              of an external owner, or zeroes
//     0x1108 version 1: SHA-256 of all before     0x1128
//
//     version 2: flags bit 1 MASK_CHIP_ID, bit 2 MASK_CHIP_KEY, bit 3 VLEK loaded
//     0x1108 product, API major, minor, build     0x110c report version u32
//     0x1110 current TCB    0x1118 committed TCB  0x1120 reported TCB
//     0x1128 VLEK's TCB     0x1130 its hashstick 384                                       or zeroes
//     0x12b0 SHA-256 of all before                0x12d0
//
// Version 1 is a platform that never knew SNP's settings: it has those of whatever machine it is put into.

import Crypto
import SEVABI

/// What is stored.
struct StoredPlatform: Sendable {
    var identity: PlatformIdentity
    var settings: PlatformSettings?

    private static let magic = Array("SNPVMPSP".utf8)
    private static let digestByteCount = 32
    private static let keysByteCount = 0x1108
    private static let vlekOffset = 0x1128
    private static let products: [ProcessorProduct] = [.milan, .genoa, .turin]

    /// Without and with settings.
    static let byteCounts = (keysByteCount + digestByteCount, 0x12d0)

    // MARK: Writing

    var bytes: [UInt8] {
        var bytes: [UInt8] = []
        bytes.reserveCapacity(Self.byteCounts.1)
        bytes += Self.magic
        bytes += Self.littleEndian(UInt32(settings == nil ? 1 : 2))
        bytes += Self.littleEndian(flags)
        identity.chipSeed.withBytes { bytes += $0 }
        bytes += identity.oca?.bigEndianScalar ?? [UInt8](repeating: 0, count: 48)
        bytes += identity.pek.bigEndianScalar
        bytes += identity.pdh.bigEndianScalar
        let none = [UInt8](repeating: 0, count: SEVCertificate.byteCount)
        bytes += identity.imported?.oca.bytes ?? none
        bytes += identity.imported?.pek.bytes ?? none
        if let settings {
            bytes.append(UInt8(truncatingIfNeeded: Self.products.firstIndex(of: settings.product) ?? 0))
            bytes += [settings.apiMajor, settings.apiMinor, settings.build]
            bytes += Self.littleEndian(settings.reportVersion)
            for version in [settings.currentTCB, settings.committedTCB, settings.reportedTCB] {
                bytes += Self.littleEndian(version.rawValue)
            }
            bytes += Self.littleEndian(settings.vlek?.tcb.rawValue ?? 0)
            if let vlek = settings.vlek {
                vlek.hashstick.withBytes { bytes += $0 }
            } else {
                bytes += [UInt8](repeating: 0, count: VLEKHashstick.byteCount)
            }
        }
        return bytes + SHA2Hasher(.sha256).hash(bytes)
    }

    private var flags: UInt32 {
        (identity.isExternallyOwned ? 1 : 0) | (settings?.masksChipID == true ? 2 : 0)
            | (settings?.masksChipKey == true ? 4 : 0) | (settings?.vlek != nil ? 8 : 0)
    }

    // MARK: Reading

    init(identity: PlatformIdentity, settings: PlatformSettings?) {
        self.identity = identity
        self.settings = settings
    }

    /// Reads what may be anything.
    init(bytes: [UInt8]) throws(PlatformStorageError) {
        guard bytes.count == Self.byteCounts.0 || bytes.count == Self.byteCounts.1, bytes.starts(with: Self.magic)
        else { throw .notPlatformState(byteCount: bytes.count) }
        let version: UInt32 = Self.number(bytes, 8)
        guard (1...2).contains(version) else { throw .version(version) }
        let hasSettings = version == 2
        guard bytes.count == (hasSettings ? Self.byteCounts.1 : Self.byteCounts.0) else {
            throw .damaged("\(bytes.count) bytes are not the length of version \(version)")
        }
        let checked = bytes.count - Self.digestByteCount
        guard SHA2Hasher(.sha256).hash(Array(bytes[..<checked])) == Array(bytes[checked...]) else {
            throw .damaged("its checksum does not match")
        }
        let flags: UInt32 = Self.number(bytes, 0xc)
        guard flags <= (hasSettings ? 15 : 1) else { throw .damaged("unknown flags 0x\(String(flags, radix: 16))") }
        identity = try Self.identity(bytes, isOwned: flags & 1 != 0)
        settings = hasSettings ? try Self.settings(bytes, flags) : nil
    }

    private static func identity(_ bytes: [UInt8], isOwned: Bool) throws(PlatformStorageError) -> PlatformIdentity {
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
                let pekCertificate = SEVCertificate(bytes: Array(bytes[middle..<keysByteCount])),
                let ocaKey = ocaCertificate.p384Key, ocaCertificate.isOwnerAuthority,
                ocaCertificate.isSigned(by: ocaKey, usage: .oca), pekCertificate.isSigned(by: ocaKey, usage: .oca),
                let pekKey = pekCertificate.p384Key, pekKey.littleEndianX == pek.publicKey.littleEndianX
            else { throw .damaged("the owner's certificates do not fit the platform's keys") }
            imported = .init(oca: ocaCertificate, pek: pekCertificate)
        } else if bytes[certificates..<keysByteCount].contains(where: { $0 != 0 }) {
            throw .damaged("a platform that owns itself has no owner's certificates")
        }
        return PlatformIdentity(
            chipSeed: SecretBytes(Array(bytes[0x10..<0x30])), oca: isOwned ? nil : try key(0x30, "OCA"), pek: pek,
            pdh: pdh, imported: imported)
    }

    private static func settings(_ bytes: [UInt8], _ flags: UInt32) throws(PlatformStorageError) -> PlatformSettings {
        guard Int(bytes[0x1108]) < products.count else { throw .damaged("no product \(bytes[0x1108]) is known") }
        func version(_ offset: Int) -> TCBVersion { TCBVersion(rawValue: number(bytes, offset)) }
        var settings = PlatformSettings(
            product: products[Int(bytes[0x1108])], api: (bytes[0x1109], bytes[0x110a], bytes[0x110b]),
            reportVersion: number(bytes, 0x110c), current: version(0x1110), committed: version(0x1118),
            reported: version(0x1120))
        settings.masksChipID = flags & 2 != 0
        settings.masksChipKey = flags & 4 != 0
        let hashstick = vlekOffset + 8
        if flags & 8 != 0 {
            var secret = Array(bytes[hashstick..<(hashstick + VLEKHashstick.byteCount)])
            settings.vlek = LoadedVLEK(hashstick: VLEKHashstick(taking: &secret), tcb: version(vlekOffset))
        } else if bytes[vlekOffset..<(hashstick + VLEKHashstick.byteCount)].contains(where: { $0 != 0 }) {
            throw .damaged("a VLEK that is not loaded")
        }
        guard settings.isConsistent else { throw .damaged("its versions contradict each other") }
        return settings
    }

    private static func littleEndian<T: FixedWidthInteger>(_ value: T) -> [UInt8] {
        (0..<(T.bitWidth / 8)).map { UInt8(truncatingIfNeeded: value &>> T(8 &* $0)) }
    }

    private static func number<T: FixedWidthInteger>(_ bytes: [UInt8], _ offset: Int) -> T {
        (0..<(T.bitWidth / 8)).reduce(0) { $0 | T(bytes[offset + $1]) &<< T(8 &* $1) }
    }
}

// MARK: Changes

extension StoredPlatform {
    /// What is kept now, with the changes from `base` to `new` on top: of two processes that change different things, neither
    /// loses.
    ///
    /// - Throws: `replaced` when another chip is kept, `damaged` when the two changes do not go together.
    func merging(from base: StoredPlatform, to new: StoredPlatform) throws(PlatformStorageError) -> StoredPlatform {
        guard identity.chipSeed == base.identity.chipSeed else { throw .replaced }
        var result = self
        // OCA and PEK sign each other's certificates and change together; so does the PDH with them.
        if !new.identity.hasSameOwner(as: base.identity) {
            result.identity = new.identity
        } else if new.identity.pdh.publicKey.littleEndianX != base.identity.pdh.publicKey.littleEndianX {
            result.identity.pdh = new.identity.pdh
        }
        if let changed = new.settings, let before = base.settings, changed != before {
            result.settings = .merged(settings ?? before, from: before, to: changed)
        }
        guard result.settings?.isConsistent != false else {
            throw .damaged("another process has changed its versions so that this change contradicts them")
        }
        return result
    }
}

extension PlatformIdentity {
    /// The keys that make a platform's owner and its PEK are those of `other`.
    fileprivate func hasSameOwner(as other: PlatformIdentity) -> Bool {
        pek.publicKey.littleEndianX == other.pek.publicKey.littleEndianX
            && oca?.publicKey.littleEndianX == other.oca?.publicKey.littleEndianX
            && imported?.oca.bytes == other.imported?.oca.bytes && imported?.pek.bytes == other.imported?.pek.bytes
    }
}
