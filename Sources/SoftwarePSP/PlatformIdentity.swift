// What makes one chip this chip, and its platform this platform: the seed in its fuses, and three keys that may change.
//
//     chip seed ──► CEK, chip ID            for ever
//               ──► VCEK                    for each product and reported TCB version
//     OCA           self-made, or the certificate of an external owner, who keeps the key
//     PEK           signed by OCA and CEK
//     PDH           signed by the PEK       guest owners make sessions for this key
//
// The certificates follow from the keys: signatures are deterministic, so two processes with the same keys export the same
// bytes.

import Crypto
import SEVABI

struct PlatformIdentity: Sendable {
    /// The certificates that an external owner has imported.
    struct Import: Sendable {
        var oca: SEVCertificate
        /// Signed by the OCA in one of its slots.
        var pek: SEVCertificate
    }

    static let chipSeedByteCount = 32

    let chipSeed: SecretBytes
    /// The private OCA; nil when the platform is owned by somebody else.
    var oca: P384PrivateKey?
    var pek: P384PrivateKey
    var pdh: P384PrivateKey
    /// Not nil exactly when `oca` is.
    var imported: Import?

    init(chipSeed: SecretBytes, oca: P384PrivateKey?, pek: P384PrivateKey, pdh: P384PrivateKey, imported: Import?) {
        self.chipSeed = chipSeed
        self.oca = oca
        self.pek = pek
        self.pdh = pdh
        self.imported = imported
    }

    /// A new chip with a platform that owns itself.
    init(from entropy: inout EntropySource) {
        var seed = entropy.bytes(Self.chipSeedByteCount)
        chipSeed = SecretBytes(taking: &seed)
        oca = entropy.key("sev-oca")
        pek = entropy.key("sev-pek")
        pdh = entropy.key("sev-pdh")
    }

    var isExternallyOwned: Bool { imported != nil }

    /// Back to self-ownership with new keys: PLATFORM_RESET and PEK_GEN.
    mutating func renew(from entropy: inout EntropySource) {
        oca = entropy.key("sev-oca")
        pek = entropy.key("sev-pek")
        pdh = entropy.key("sev-pdh")
        imported = nil
    }

    /// CEK: the key in the chip.
    var cek: P384PrivateKey { chipSeed.withBytes { P384PrivateKey(derivedFrom: $0, label: "sev-cek") } }

    /// What GET_ID tells of one socket, and reports of the first: 64 bytes, of which the product may leave most zero.
    func chipID(socket: Int, of product: ProcessorProduct) -> [UInt8] {
        let bytes = chipSeed.withBytes {
            CounterKDF.derive(
                key: $0, label: "chip-id", context: [UInt8(truncatingIfNeeded: socket)], byteCount: 64, hash: .sha384)
        }
        let count = product.chipIDByteCount
        return bytes.prefix(count) + [UInt8](repeating: 0, count: 64 - count)
    }
}

extension EntropySource {
    /// A new private key.
    mutating func key(_ label: String) -> P384PrivateKey {
        var secret = bytes(48)
        defer { wipe(&secret) }
        return P384PrivateKey(derivedFrom: secret, label: label)
    }
}

/// The platform's certificates, as PDH_CERT_EXPORT gives them.
struct PlatformCertificates: Sendable {
    let pdh: SEVCertificate
    let pek: SEVCertificate
    let oca: SEVCertificate
    /// Without a signature: that is the manufacturer's to give.
    let cek: SEVCertificate

    init(_ identity: PlatformIdentity, _ profile: PlatformProfile) {
        let cekKey = identity.cek
        cek = .unsigned(.cek, cekKey.publicKey, profile)
        var pek: SEVCertificate
        if let imported = identity.imported {
            oca = imported.oca
            pek = imported.pek
            // The owner's signature goes to slot 1, whichever it came in.
            pek.setSignature(pek.signatures.first { $0.usage == .oca } ?? .init(), slot: 0)
        } else {
            guard let key = identity.oca else { preconditionFailure("a platform without an owner") }
            var own = SEVCertificate.unsigned(.oca, key.publicKey, profile)
            own.sign(with: key, usage: .oca, slot: 0)
            oca = own
            pek = .unsigned(.pek, identity.pek.publicKey, profile)
            pek.sign(with: key, usage: .oca, slot: 0)
        }
        pek.sign(with: cekKey, usage: .cek, slot: 1)
        self.pek = pek
        var pdh = SEVCertificate.unsigned(.pdh, identity.pdh.publicKey, profile)
        pdh.sign(with: identity.pek, usage: .pek, slot: 0)
        self.pdh = pdh
    }

    /// PEK ‖ OCA ‖ CEK.
    var chain: [UInt8] { pek.bytes + oca.bytes + cek.bytes }
}

extension SEVCertificate {
    /// A certificate of one of the platform's keys, with empty signatures.
    static func unsigned(_ usage: Usage, _ key: P384PublicKey, _ profile: PlatformProfile) -> SEVCertificate {
        make(
            usage: usage, algorithm: usage == .pdh ? .ecdhSHA256 : .ecdsaSHA256, apiMajor: profile.apiMajor,
            apiMinor: profile.apiMinor, x: key.littleEndianX, y: key.littleEndianY)
    }

    /// Signs with ECDSA and SHA-256.
    mutating func sign(with key: P384PrivateKey, usage: Usage, slot: Int) {
        let (r, s) = key.sign(signedBytes, hash: .sha256)
        setSignature(Signature(usage: usage, algorithm: .ecdsaSHA256, r: r, s: s), slot: slot)
    }

    /// The P-384 key in it, if that is what it is.
    var p384Key: P384PublicKey? {
        let field = publicKey
        // Behind curve and coordinates there are zeroes.
        guard field.curve == PublicKeyField.p384, field.bytes[148...].allSatisfy({ $0 == 0 }) else { return nil }
        return P384PublicKey(littleEndianX: field.x, y: field.y)
    }

    /// One slot has a valid ECDSA signature of that key, and the other one is empty.
    func isSigned(by key: P384PublicKey, usage: Usage) -> Bool {
        let message = signedBytes
        let slots = signatures
        return zip(slots, slots.reversed()).contains { signature, other in
            other == Signature() && signature.usage == usage && signature.algorithm == .ecdsaSHA256
                && signature.value.bytes[144...].allSatisfy { $0 == 0 }
                && key.isValidSignature(
                    littleEndianR: signature.value.r, s: signature.value.s, of: message, hash: .sha256)
        }
    }

    /// An owner's certificate authority that signs itself.
    var isOwnerAuthority: Bool {
        version == Self.currentVersion && usage == .oca && algorithm == .ecdsaSHA256 && hasZeroPadding
            && p384Key != nil
    }

    /// Bytes 6 and 7 are reserved.
    var hasZeroPadding: Bool { bytes[6] == 0 && bytes[7] == 0 }
}
