// Why a report, a certificate or a table is not accepted, told so that its reader can act.

/// One refusal: what was tried, on what, what was expected and found, the likely cause, what to do next.
public struct AttestationError: Error, Equatable, Sendable, CustomStringConvertible {
    /// What kind of refusal it is.
    public enum Category: Hashable, Sendable {
        /// The bytes are not what they should be: a file of another kind, cut off or damaged.
        case malformed
        /// A certificate that is needed is not there.
        case missing
        /// The root is not one that is trusted.
        case untrusted
        /// A certificate, or its place in the chain.
        case chain
        /// Dates.
        case validity
        /// A certificate that was revoked, or a revocation list that cannot be used.
        case revocation
        /// The report's signature.
        case signature
        /// Report and certificate are about different chips, versions or keys.
        case binding
        /// Genuine, but not what the policy asks for.
        case policy
        /// A policy that cannot mean anything.
        case unusablePolicy
    }

    public var category: Category
    /// What was tried: "verify the report".
    public var attempt: String
    /// Which part: "VCEK", "report".
    public var subject: String
    /// The field, in the specification's spelling.
    public var field: String
    public var expected: String
    public var found: String
    public var likelyCause: String
    public var nextStep: String

    public init(
        _ category: Category, attempt: String, subject: String, field: String, expected: String, found: String,
        likelyCause: String, nextStep: String
    ) {
        self.category = category
        self.attempt = attempt
        self.subject = subject
        self.field = field
        self.expected = expected
        self.found = found
        self.likelyCause = likelyCause
        self.nextStep = nextStep
    }

    public var description: String {
        "could not \(attempt): \(subject), \(field): expected \(expected), found \(found). Likely cause: \(likelyCause). "
            + "Next step: \(nextStep)."
    }
}
