// Why an exchange cannot go on, told so that its reader can act.

/// Bytes that are no message, or a message that has no place where it came.
public struct SecretReleaseError: Error, Equatable, Sendable, CustomStringConvertible {
    /// What was tried: "read a message".
    public var attempt: String
    /// Which part: "a challenge".
    public var subject: String
    public var expected: String
    public var found: String
    public var likelyCause: String
    public var nextStep: String

    init(
        attempt: String, subject: String, expected: String, found: String, likelyCause: String, nextStep: String
    ) {
        self.attempt = attempt
        self.subject = subject
        self.expected = expected
        self.found = found
        self.likelyCause = likelyCause
        self.nextStep = nextStep
    }

    public var description: String {
        "could not \(attempt): \(subject): expected \(expected), found \(found). Likely cause: \(likelyCause). "
            + "Next step: \(nextStep)."
    }
}
