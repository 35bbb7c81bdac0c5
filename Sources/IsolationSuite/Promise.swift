// What a technology promises about an attack, what happened, and whether the two agree.

/// What becomes of an attack.
public enum Effect: String, Sendable {
    /// The attacker does not get what it wanted, and cannot: it is refused, or left with ciphertext.
    case stopped
    /// The attacker can do it, but the guest or its owner notices before anything is lost, and goes no further.
    case detected
    /// The attacker gets what it wanted, and nobody notices.
    case notStopped = "not stopped"
}

/// What one technology says about one attack.
public struct Promise: Sendable {
    public var effect: Effect
    /// Why, in a sentence or two.
    public var reason: String
    /// Where AMD says so: "[WP 1] Replay protection", "[APM2 15.36.10]".
    public var reference: String

    public init(_ effect: Effect, _ reason: String, _ reference: String) {
        self.effect = effect
        self.reason = reason
        self.reference = reference
    }
}

/// What happened when a scenario was run.
public struct Observation: Sendable {
    public var effect: Effect
    /// What was seen, in order: bytes, errno, exits, firmware status, what the guest reported.
    public var evidence: [String]

    public init(_ effect: Effect, _ evidence: [String]) {
        self.effect = effect
        self.evidence = evidence
    }
}

/// Why a scenario gave no observation.
public enum Interruption: Error, Equatable, Sendable {
    /// It cannot be run here: the kernel does not offer the technology, or host kernel privileges are missing.
    case notRun(String)
    /// A step that should have worked did not, so nothing can be said about the attack.
    case broken(String)
}

/// Promise and observation, compared.
public enum Verdict: String, Sendable {
    case asPromised = "as promised"
    /// The observation is not what was promised; for the control: the attack did not succeed.
    case wrong
    case notRun = "not run"
    /// The scenario itself did not work.
    case broken
}

/// One cell of the table.
public struct Finding: Sendable {
    public let scenario: Scenario
    public let subject: Subject
    public let promise: Promise
    public let result: Result<Observation, Interruption>

    public var verdict: Verdict {
        switch result {
        case .success(let observation): observation.effect == promise.effect ? .asPromised : .wrong
        case .failure(.notRun): .notRun
        case .failure(.broken): .broken
        }
    }

    /// What was observed, if the scenario ran.
    public var effect: Effect? { (try? result.get())?.effect }

    /// What was seen, or why there is nothing.
    public var evidence: [String] {
        switch result {
        case .success(let observation): observation.evidence
        case .failure(.notRun(let reason)), .failure(.broken(let reason)): [reason]
        }
    }
}
