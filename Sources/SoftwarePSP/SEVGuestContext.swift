// What the firmware remembers of one SEV or SEV-ES guest. The host only knows its handle.

import Crypto
import SEVABI

/// GCTX of an SEV guest [SEV 4.2]. Only used under the secure processor's lock.
final class SEVGuestContext {
    let policy: SEVPolicy
    var state = SEVGuestState.launchUpdate
    /// 0 while no ASID is bound.
    var asid: UInt32 = 0
    /// VEK: AES-128-XTS, 32 bytes. Guests that share it hold the same object.
    let memoryKey: SecretBytes
    /// Until LAUNCH_FINISH: from then on nothing is addressed to the firmware with them.
    var transportKeys: TransportKeys?
    /// The digest of everything that was launched, while it grows.
    let hasher = SHA2Hasher(.sha256)
    /// What LAUNCH_MEASURE takes instead: for known answers whose launched bytes nobody knows.
    var preparedDigest: [UInt8]?
    /// LD, from LAUNCH_MEASURE on.
    var launchDigest: [UInt8] = []
    /// MEASURE, from LAUNCH_MEASURE on: it goes into the MAC of every secret.
    var measure: [UInt8] = []

    init(policy: SEVPolicy, memoryKey: SecretBytes, transportKeys: TransportKeys) {
        self.policy = policy
        self.memoryKey = memoryKey
        self.transportKeys = transportKeys
        hasher.start()
    }

    var isES: Bool { policy.requiresEncryptedState }
}

/// TEK and TIK: what guest owner and firmware have in common.
struct TransportKeys {
    /// Transport encryption key, 16 bytes.
    let encryption: SecretBytes
    /// Transport integrity key, 16 bytes.
    let integrity: SecretBytes

    init(encryption: SecretBytes, integrity: SecretBytes) {
        self.encryption = encryption
        self.integrity = integrity
    }

    /// Nobody's but the firmware's: for a launch without an owner.
    init(from entropy: inout EntropySource) {
        var encryption = entropy.bytes(16)
        var integrity = entropy.bytes(16)
        self.encryption = SecretBytes(taking: &encryption)
        self.integrity = SecretBytes(taking: &integrity)
    }

    /// Unwraps an owner's keys [SEV 6.2.1].
    ///
    /// Z is the X coordinate of the key agreement; master secret, KEK and KIK follow from it by the counter KDF. The
    /// wrapped keys are authentic under the KIK, and the policy is under the TIK, so an owner who sees the launch
    /// succeed knows that it has his policy.
    ///
    /// - Parameter sharedSecret: Z, 48 bytes big-endian; the caller wipes it.
    /// - Returns: nil when WRAP_MAC or POLICY_MAC does not match.
    init?(_ session: SEVLaunchSessionBlob, policy: SEVPolicy, sharedSecret z: borrowing [UInt8]) {
        var master = CounterKDF.derive(key: z, label: "sev-master-secret", context: session.nonce, byteCount: 16)
        var kek = CounterKDF.derive(key: master, label: "sev-kek", byteCount: 16)
        var kik = CounterKDF.derive(key: master, label: "sev-kik", byteCount: 16)
        defer {
            wipe(&master)
            wipe(&kek)
            wipe(&kik)
        }
        guard constantTimeEqual(HMACSHA256.authenticate(session.wrappedKeys, key: kik), session.wrapMAC) else {
            return nil
        }
        var keys = AES128CTR.apply(key: kek, counter: session.wrapIV, to: session.wrappedKeys)
        var tek = Array(keys[..<16])
        var tik = Array(keys[16...])
        wipe(&keys)
        encryption = SecretBytes(taking: &tek)
        integrity = SecretBytes(taking: &tik)
        var policyBytes: [UInt8] = []
        for shift: UInt32 in [0, 8, 16, 24] { policyBytes.append(UInt8(truncatingIfNeeded: policy.rawValue >> shift)) }
        let mac = integrity.withBytes { HMACSHA256.authenticate(policyBytes, key: $0) }
        guard constantTimeEqual(mac, session.policyMAC) else { return nil }
    }

    /// HMAC-SHA256 under the TIK.
    func authenticate(_ message: [UInt8]) -> [UInt8] {
        integrity.withBytes { HMACSHA256.authenticate(message, key: $0) }
    }
}
