// An ID block and its authentication: what an owner signs so that only one launch may become the guest [SNP 8.18].

import ABILayout
import Crypto
import SEVABI

/// An ID block with the signatures and keys that SNP_LAUNCH_FINISH checks.
public struct SignedIDBlock: Equatable, Sendable {
    public let block: IDBlock
    public let authentication: IDAuthentication

    /// Takes both as they are; ``check(launchDigest:policy:)`` says whether firmware would.
    public init(block: IDBlock, authentication: IDAuthentication) {
        self.block = block
        self.authentication = authentication
    }

    /// Signs a block.
    ///
    /// - Parameters:
    ///   - idKey: Signs the block.
    ///   - authorKey: Signs the ID key; nil for a launch without AUTH_KEY_EN.
    public init(signing block: IDBlock, idKey: P384PrivateKey, authorKey: P384PrivateKey? = nil) {
        self.block = block
        var authentication = IDAuthentication()
        let signature = idKey.sign(block.bytes, hash: .sha384)
        authentication.idBlockSignature = SignatureField(r: signature.r, s: signature.s)
        authentication.idKey = Self.field(idKey.publicKey)
        if let authorKey {
            let signature = authorKey.sign(authentication.idKey.bytes, hash: .sha384)
            authentication.idKeySignature = SignatureField(r: signature.r, s: signature.s)
            authentication.authorKey = Self.field(authorKey.publicKey)
        }
        self.authentication = authentication
    }

    /// There is an author key, so the launch needs AUTH_KEY_EN.
    public var hasAuthorKey: Bool { authentication.authorKey.bytes.contains { $0 != 0 } }
    /// ID_KEY_DIGEST that reports will have.
    public var idKeyDigest: [UInt8] { SHA384.hash(authentication.idKey.bytes).array }
    /// AUTHOR_KEY_DIGEST that reports will have; nil without an author key.
    public var authorKeyDigest: [UInt8]? { hasAuthorKey ? SHA384.hash(authentication.authorKey.bytes).array : nil }

    /// Checks what the firmware checks, in its order.
    ///
    /// - Parameters:
    ///   - launchDigest: Of the launch that it is for; nil: not compared.
    ///   - policy: Of the launch that it is for; nil: not compared.
    /// - Throws: ``AttestationError`` with the status that the firmware would give.
    public func check(launchDigest: LaunchDigest? = nil, policy: GuestPolicy? = nil) throws(AttestationError) {
        try requireSignature(
            authentication.idBlockSignature, on: block.bytes, by: authentication.idKey, "ID_BLOCK_SIG",
            cause: "the block was changed after it was signed, or another ID key")
        if hasAuthorKey {
            try requireSignature(
                authentication.idKeySignature, on: authentication.idKey.bytes, by: authentication.authorKey,
                "ID_KEY_SIG", cause: "another author key, or another ID key than it signed")
        }
        if let launchDigest, launchDigest != block.launchDigest {
            throw Self.refusal(
                "LD", expected: "\(launchDigest), the launch's", found: "\(block.launchDigest)",
                status: "BAD_MEASUREMENT (0x0b)", cause: "a block for another image or other options",
                next: "make the block anew with the digest that `measure` prints")
        }
        if let policy, policy != block.policy {
            throw Self.refusal(
                "POLICY", expected: "\(hexText(policy.rawValue)), the launch's", found: hexText(block.policy.rawValue),
                status: "POLICY_FAILURE (0x07)", cause: "a block for another policy",
                next: "make the block anew, or launch with its policy")
        }
        for (field, value) in [
            ("VERSION", block.version), ("ID_KEY_ALGO", authentication.idKeyAlgorithm),
            ("AUTH_KEY_ALGO", hasAuthorKey ? authentication.authorKeyAlgorithm : 1),
        ] where value != 1 {
            throw Self.refusal(
                field, expected: "1", found: "\(value)", status: "INVALID_PARAM (0x16)",
                cause: "a file of another kind, or a newer form", next: "make the block anew")
        }
    }

    private func requireSignature(
        _ signature: SignatureField, on message: [UInt8], by key: PublicKeyField, _ field: String, cause: String
    ) throws(AttestationError) {
        guard key.curve == PublicKeyField.p384, key.bytes.dropFirst(148).allSatisfy({ $0 == 0 }),
            let publicKey = P384PublicKey(littleEndianX: key.x, y: key.y)
        else {
            throw Self.refusal(
                field == "ID_BLOCK_SIG" ? "ID_KEY" : "AUTHOR_KEY", expected: "a point on P-384 (curve 2)",
                found: "curve \(key.curve), \(hexText(key.x.prefix(8)))…", status: "BAD_SIGNATURE (0x0a)",
                cause: "a damaged file, or big-endian coordinates", next: "make the block anew")
        }
        guard signature.bytes.dropFirst(144).allSatisfy({ $0 == 0 }),
            publicKey.isValidSignature(littleEndianR: signature.r, s: signature.s, of: message, hash: .sha384)
        else {
            throw Self.refusal(
                field, expected: "a valid ECDSA signature, P-384 with SHA-384", found: "one that does not verify",
                status: "BAD_SIGNATURE (0x0a)", cause: cause, next: "make the block anew with the right keys")
        }
    }

    private static func field(_ key: P384PublicKey) -> PublicKeyField {
        PublicKeyField(x: key.littleEndianX, y: key.littleEndianY)
    }

    private static func refusal(
        _ field: String, expected: String, found: String, status: String, cause: String, next: String
    ) -> AttestationError {
        AttestationError(
            .signature, attempt: "accept the ID block", subject: "ID block", field: field, expected: expected,
            found: "\(found); SNP_LAUNCH_FINISH would answer \(status)", likelyCause: cause, nextStep: next)
    }
}
