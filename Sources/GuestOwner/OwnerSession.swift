// The owner's keys for one launch: made here, wrapped for one platform, kept until the secrets are released.

import Crypto
import SEVABI

/// The transport keys TEK and TIK of one launch, and what LAUNCH_START needs to give them to the firmware [SEV 2.2, 6.2].
public struct OwnerSession: Sendable {
    public let policy: SEVPolicy
    /// Transport encryption key, 16 bytes.
    public let tek: SecretBytes
    /// Transport integrity key, 16 bytes.
    public let tik: SecretBytes
    /// For the VMM: policy, GODH certificate and session buffer. Not secret.
    public let launch: SEVLaunchSession

    /// Fresh keys for a launch on a platform that has been verified.
    public init(for platform: VerifiedPlatform, policy: SEVPolicy) throws(OwnerError) {
        guard policy.hasValidReservedBits else {
            throw OwnerError(
                .policy, attempt: "make a session", subject: "the policy", field: "bits 15:6", expected: "zero",
                found: "\(policy)",
                likelyCause: "a policy of another technology (SNP's has 64 bits), or a mistyped one",
                nextStep: "give an SEV policy, for example 0x1 for SEV or 0x5 for SEV-ES, without debugging")
        }
        var tek = randomBytes(16)
        var tik = randomBytes(16)
        let session = OwnerSession(
            pdh: platform.pdh, ownerKey: .random(), policy: policy, tek: SecretBytes(taking: &tek),
            tik: SecretBytes(taking: &tik), nonce: randomBytes(16), wrapIV: randomBytes(16),
            apiMajor: platform.certificate.apiMajor, apiMinor: platform.certificate.apiMinor)
        guard let session else {
            preconditionFailure("two valid keys agree")
        }
        self = session
    }

    /// With every value given: for known answers. Nonce and IV have 16 bytes; they must never be used twice.
    ///
    /// Returns nil only when the keys do not agree on a secret, which valid ones do.
    ///
    /// - Parameters:
    ///   - pdh: The platform's Diffie-Hellman key.
    ///   - ownerKey: GODH, the owner's.
    public init?(
        pdh: P384PublicKey, ownerKey: P384PrivateKey, policy: SEVPolicy, tek: SecretBytes, tik: SecretBytes,
        nonce: [UInt8], wrapIV: [UInt8], apiMajor: UInt8 = 0, apiMinor: UInt8 = 0
    ) {
        precondition(tek.count == 16 && tik.count == 16, "TEK and TIK have 16 bytes")
        guard var shared = ownerKey.sharedSecret(with: pdh) else { return nil }
        var keys = SessionKeys(sharedSecret: shared, nonce: nonce)
        var transport = tek.withBytes { tek in tik.withBytes { tek + $0 } }
        defer {
            wipe(&shared)
            keys.wipeAll()
            wipe(&transport)
        }
        let wrapped = AES128CTR.apply(key: keys.kek, counter: wrapIV, to: transport)
        let blob = SEVLaunchSessionBlob(
            nonce: nonce, wrappedKeys: wrapped, wrapIV: wrapIV,
            wrapMAC: HMACSHA256.authenticate(wrapped, key: keys.kik),
            policyMAC: tik.withBytes { HMACSHA256.authenticate(policy.littleEndianBytes, key: $0) })
        // The firmware reads the key and nothing else of this certificate; it needs no signature [SEV 6.2].
        let certificate = SEVCertificate.make(
            usage: .pdh, algorithm: .ecdhSHA256, apiMajor: apiMajor, apiMinor: apiMinor,
            x: ownerKey.publicKey.littleEndianX, y: ownerKey.publicKey.littleEndianY)
        self.policy = policy
        self.tek = tek
        self.tik = tik
        launch = SEVLaunchSession(policy: policy, ownerCertificate: certificate.bytes, session: blob.bytes)
    }

    init(policy: SEVPolicy, tek: SecretBytes, tik: SecretBytes, launch: SEVLaunchSession) {
        self.policy = policy
        self.tek = tek
        self.tik = tik
        self.launch = launch
    }
}

/// The keys that wrap TEK and TIK [SEV 2.2.2].
struct SessionKeys {
    private(set) var kek: [UInt8]
    private(set) var kik: [UInt8]

    /// - Parameters:
    ///   - sharedSecret: Z, 48 bytes.
    ///   - nonce: Of the session, 16 bytes.
    init(sharedSecret: [UInt8], nonce: [UInt8]) {
        var master = CounterKDF.derive(key: sharedSecret, label: "sev-master-secret", context: nonce, byteCount: 16)
        defer { wipe(&master) }
        kek = CounterKDF.derive(key: master, label: "sev-kek", byteCount: 16)
        kik = CounterKDF.derive(key: master, label: "sev-kik", byteCount: 16)
    }

    mutating func wipeAll() {
        wipe(&kek)
        wipe(&kik)
    }
}
