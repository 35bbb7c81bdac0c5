// To whom an owner gives which secret.

import Attestation
import Crypto
import SecretRelease

/// What an SNP guest must show, and what it gets for it.
public struct ReleasePolicy: Sendable {
    /// The report's fields. Its ``ReportPolicy/reportData`` is not looked at: the exchange says what must stand there.
    public var report: ReportPolicy
    /// Roots beside AMD's.
    public var trustedRoots: TrustedRoots
    /// The owner's own copies of certificates and revocation lists, used together with what the guest sends.
    public var certificates: CertificatePool
    /// Certificates must be valid at the time of the request.
    public var checksDates = true
    /// By name; 1 to 65536 bytes each.
    public var secrets: [SecretID: SecretBytes]

    public init(
        report: ReportPolicy, trustedRoots: TrustedRoots = .amd, certificates: CertificatePool = CertificatePool(),
        secrets: [SecretID: SecretBytes] = [:]
    ) {
        self.report = report
        self.trustedRoots = trustedRoots
        self.certificates = certificates
        self.secrets = secrets
    }

    /// What could only be a mistake is refused when the owner starts, not when a guest waits.
    public func validate() throws(OwnerError) {
        if let measurements = report.measurements, measurements.isEmpty {
            throw Self.refusal(
                "MEASUREMENT", expected: "a launch digest, or null to accept any", found: "none",
                cause: "neither an image nor a digest was given", next: "give the image of the guest, or its digest")
        }
        for (id, secret) in secrets
        where !(1...SecretReleaseMessage.maximumSecretByteCount).contains(secret.count) {
            throw OwnerError(
                .secret, attempt: "offer secrets", subject: "\(id)", field: "length",
                expected: "1 to \(SecretReleaseMessage.maximumSecretByteCount) bytes", found: "\(secret.count)",
                likelyCause: "another file in its place", nextStep: "release a key instead of what it opens")
        }
        // An empty report passes no policy, but an unusable policy says so before it looks at anything.
        guard let unusable = report.unusable else { return }
        throw Self.refusal(
            unusable.field, expected: unusable.expected, found: unusable.found, cause: unusable.likelyCause,
            next: unusable.nextStep)
    }

    private static func refusal(
        _ field: String, expected: String, found: String, cause: String, next: String
    ) -> OwnerError {
        OwnerError(
            .policy, attempt: "use the policy", subject: "policy", field: field, expected: expected, found: found,
            likelyCause: cause, nextStep: next)
    }
}
