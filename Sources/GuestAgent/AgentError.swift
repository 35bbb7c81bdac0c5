// Why the agent could not do what it was asked for, told so that its reader can act.

/// A failure: what was tried, on what, what came back, why that usually is, what next.
public struct AgentError: Error, Equatable, Sendable, CustomStringConvertible {
    /// What the process ends with.
    public enum Status: Int32, Sendable {
        /// The command line is wrong.
        case usage = 2
        /// A file or another input cannot be used.
        case badInput = 3
        /// This machine has no such device, or the owner cannot be reached.
        case unavailable = 4
        /// The firmware, the hypervisor or the owner said no.
        case refused = 5
    }

    public var status: Status
    /// "ask for a report".
    public var attempt: String
    /// "/dev/sev-guest".
    public var subject: String
    public var found: String
    public var likelyCause: String
    public var nextStep: String

    public init(
        _ status: Status, attempt: String, subject: String, found: String, likelyCause: String, nextStep: String
    ) {
        self.status = status
        self.attempt = attempt
        self.subject = subject
        self.found = found
        self.likelyCause = likelyCause
        self.nextStep = nextStep
    }

    public var description: String {
        "could not \(attempt): \(subject): \(found). Likely cause: \(likelyCause). Next step: \(nextStep)."
    }
}
