// Hybrid public key encryption [RFC 9180] in base mode, with the one suite that this project speaks: DHKEM(P-384,
// HKDF-SHA384), HKDF-SHA384, AES-256-GCM. Who knows the public key can write to its owner; nobody says who wrote.

/// HPKE [RFC 9180], base mode, DHKEM(P-384, HKDF-SHA384) / HKDF-SHA384 / AES-256-GCM.
///
/// Points are uncompressed, and are checked to lie on the curve before they are used [RFC 9180 7.1.4].
public enum HPKE {
    /// Npk and Nenc: an uncompressed point.
    public static let publicKeyByteCount = 97
    /// What a ciphertext has more than its plaintext.
    public static let tagByteCount = AES256GCM.tagByteCount

    /// `SealBase`: encrypts one message to a public key.
    ///
    /// - Parameters:
    ///   - info: What the exchange is about; the receiver must give the same.
    ///   - authenticatedData: Not encrypted; the receiver must give the same.
    /// - Returns: The encapsulated key (97 bytes), and the ciphertext with its tag at the end.
    public static func seal(
        _ plaintext: [UInt8], to recipient: P384PublicKey, info: [UInt8], authenticating authenticatedData: [UInt8] = []
    ) -> (encapsulatedKey: [UInt8], ciphertext: [UInt8]) {
        let sender = HPKESender(to: recipient, info: info)
        return (sender.encapsulatedKey, sender.seal(plaintext, authenticating: authenticatedData))
    }

    /// `OpenBase`: decrypts one message.
    ///
    /// - Returns: nil when the encapsulated key is no point of the curve, or when key, info, authenticated data and
    ///   ciphertext do not belong together. The plaintext is a secret that the caller has to ``wipe(_:)``.
    public static func open(
        _ ciphertext: [UInt8], encapsulatedKey: [UInt8], with key: P384PrivateKey, info: [UInt8],
        authenticating authenticatedData: [UInt8] = []
    ) -> [UInt8]? {
        HPKEReceiver(encapsulatedKey: encapsulatedKey, with: key, info: info)?
            .open(ciphertext, authenticating: authenticatedData)
    }

    /// `DeriveKeyPair` [RFC 9180 7.1.3]: the same key for the same secret.
    ///
    /// - Parameter keyMaterial: At least 48 bytes that nobody can guess; fewer are a programmer error.
    public static func deriveKeyPair(from keyMaterial: [UInt8]) -> P384PrivateKey {
        precondition(keyMaterial.count >= P384Curve.byteCount, "key material of at least 48 bytes")
        var key = HPKESuite.kem.extract(salt: [], "dkp_prk", keyMaterial)
        defer { wipe(&key) }
        for counter in UInt8.min...UInt8.max {
            // The mask of P-384 is 0xFF: no bit of a candidate is dropped.
            var candidate = HPKESuite.kem.expand(key, "candidate", [counter], byteCount: P384Curve.byteCount)
            defer { wipe(&candidate) }
            if let found = P384PrivateKey(bigEndianScalar: candidate) { return found }
        }
        preconditionFailure("256 candidates for a key were all outside 1…n-1, which has a probability below 2^-45000")
    }
}

/// The sender's context: any number of messages, which the receiver opens in the same order. For one owner at a time.
public final class HPKESender {
    /// What the receiver needs besides the ciphertexts: 97 bytes, no secret.
    public let encapsulatedKey: [UInt8]
    private let schedule: HPKESchedule

    /// `SetupBaseS`.
    public convenience init(to recipient: P384PublicKey, info: [UInt8]) {
        self.init(to: recipient, info: info, ephemeral: .random())
    }

    /// With a given ephemeral key, for known answers: who uses one twice gives both plaintexts away.
    package init(to recipient: P384PublicKey, info: [UInt8], ephemeral: P384PrivateKey) {
        encapsulatedKey = ephemeral.publicKey.uncompressedPoint
        // Safe: both keys are points of the curve, whose order is prime; the product is never at infinity.
        schedule = HPKESchedule(
            privateKey: ephemeral, publicKey: recipient,
            kemContext: encapsulatedKey + recipient.uncompressedPoint, info: info)!
    }

    /// `Context.Seal`. A sender that has used up 2^64-1 nonces is a programmer error.
    public func seal(_ plaintext: [UInt8], authenticating authenticatedData: [UInt8] = []) -> [UInt8] {
        let (ciphertext, tag) = schedule.key.withBytes {
            AES256GCM.seal(plaintext, authenticating: authenticatedData, key: $0, nonce: schedule.nonce)
        }
        schedule.advance()
        return ciphertext + tag
    }

    /// `Context.Export`: a secret that sender and receiver share and that nobody else can compute.
    public func export(_ context: [UInt8], byteCount: Int) -> [UInt8] { schedule.export(context, byteCount: byteCount) }
}

/// The receiver's context. For one owner at a time.
public final class HPKEReceiver {
    private let schedule: HPKESchedule

    /// `SetupBaseR`.
    ///
    /// - Returns: nil when `encapsulatedKey` is not an uncompressed point of the curve.
    public init?(encapsulatedKey: [UInt8], with key: P384PrivateKey, info: [UInt8]) {
        guard let ephemeral = P384PublicKey(uncompressedPoint: encapsulatedKey),
            let schedule = HPKESchedule(
                privateKey: key, publicKey: ephemeral, kemContext: encapsulatedKey + key.publicKey.uncompressedPoint,
                info: info)
        else { return nil }
        self.schedule = schedule
    }

    /// `Context.Open`: the next message.
    ///
    /// - Returns: nil when it is not the next message of the sender; the context still expects that one then.
    public func open(_ ciphertext: [UInt8], authenticating authenticatedData: [UInt8] = []) -> [UInt8]? {
        guard ciphertext.count >= HPKE.tagByteCount, ciphertext.count < Int(Int32.max) else { return nil }
        let plaintext = schedule.key.withBytes {
            AES256GCM.open(
                Array(ciphertext.dropLast(HPKE.tagByteCount)), tag: Array(ciphertext.suffix(HPKE.tagByteCount)),
                authenticating: authenticatedData, key: $0, nonce: schedule.nonce)
        }
        if plaintext != nil { schedule.advance() }
        return plaintext
    }

    /// `Context.Export`.
    public func export(_ context: [UInt8], byteCount: Int) -> [UInt8] { schedule.export(context, byteCount: byteCount) }
}

/// The labelled derivations of one suite identifier [RFC 9180 4].
private struct HPKESuite {
    let identifier: [UInt8]

    /// "KEM" and DHKEM(P-384, HKDF-SHA384) [RFC 9180 7.1].
    static let kem = HPKESuite(identifier: Array("KEM".utf8) + [0x00, 0x11])
    /// "HPKE", the KEM, HKDF-SHA384 and AES-256-GCM [RFC 9180 5.1].
    static let whole = HPKESuite(identifier: Array("HPKE".utf8) + [0x00, 0x11, 0x00, 0x02, 0x00, 0x02])

    private static let version = Array("HPKE-v1".utf8)

    /// `LabeledExtract`.
    func extract(salt: [UInt8], _ label: String, _ keyMaterial: [UInt8]) -> [UInt8] {
        var input: [UInt8] = []
        // One storage: growing would leave key bytes in memory.
        input.reserveCapacity(Self.version.count + identifier.count + label.utf8.count + keyMaterial.count)
        input += Self.version
        input += identifier
        input += label.utf8
        input += keyMaterial
        defer { wipe(&input) }
        return HKDF.extract(input, salt: salt, hash: .sha384)
    }

    /// `LabeledExpand`.
    func expand(_ key: [UInt8], _ label: String, _ info: [UInt8], byteCount: Int) -> [UInt8] {
        // Safe: expand() itself refuses more than 255 · 48 bytes.
        let length = [UInt8(truncatingIfNeeded: byteCount >> 8), UInt8(truncatingIfNeeded: byteCount)]
        return HKDF.expand(
            key, info: length + Self.version + identifier + Array(label.utf8) + info, byteCount: byteCount,
            hash: .sha384)
    }
}

/// What both sides derive from the shared secret [RFC 9180 5.1], and where they are in it.
private final class HPKESchedule {
    let key: SecretBytes
    private let baseNonce: [UInt8]
    private let exporter: SecretBytes
    private var sequence: UInt64 = 0

    /// - Parameter kemContext: The encapsulated key and the recipient's public key.
    /// - Returns: nil when there is no shared secret.
    init?(privateKey: P384PrivateKey, publicKey: P384PublicKey, kemContext: [UInt8], info: [UInt8]) {
        guard var agreed = privateKey.sharedSecret(with: publicKey) else { return nil }
        // ExtractAndExpand [RFC 9180 4.1].
        var extracted = HPKESuite.kem.extract(salt: [], "eae_prk", agreed)
        var shared = HPKESuite.kem.expand(extracted, "shared_secret", kemContext, byteCount: 48)
        // KeySchedule for mode_base, whose pre-shared key and its name are empty [RFC 9180 5.1].
        let suite = HPKESuite.whole
        let context =
            [0x00] + suite.extract(salt: [], "psk_id_hash", []) + suite.extract(salt: [], "info_hash", info)
        var secret = suite.extract(salt: shared, "secret", [])
        var keyBytes = suite.expand(secret, "key", context, byteCount: AES256GCM.keyByteCount)
        var exporterBytes = suite.expand(secret, "exp", context, byteCount: 48)
        key = SecretBytes(taking: &keyBytes)
        baseNonce = suite.expand(secret, "base_nonce", context, byteCount: AES256GCM.nonceByteCount)
        exporter = SecretBytes(taking: &exporterBytes)
        wipe(&agreed)
        wipe(&extracted)
        wipe(&shared)
        wipe(&secret)
    }

    /// The nonce of the next message [RFC 9180 5.2].
    var nonce: [UInt8] {
        var nonce = baseNonce
        for byte in 0..<8 {
            nonce[nonce.count - 1 - byte] ^= UInt8(truncatingIfNeeded: sequence &>> UInt64(8 &* byte))
        }
        return nonce
    }

    func advance() {
        precondition(sequence < .max, "an HPKE context for fewer than 2^64 messages")
        sequence += 1
    }

    func export(_ context: [UInt8], byteCount: Int) -> [UInt8] {
        exporter.withBytes { HPKESuite.whole.expand($0, "sec", context, byteCount: byteCount) }
    }
}
