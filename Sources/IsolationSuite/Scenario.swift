// One attack. Each scenario has a file of its own in Scenarios/, as a static member of `Scenario`.

/// An attack, what each technology promises about it, and the body that really does it.
public struct Scenario: Sendable {
    /// For `--scenario` and for tests: "host-reads-memory".
    public let name: String
    /// The row's heading: "host reads guest memory".
    public let title: String
    /// What the attacker does and hopes for, in whole sentences.
    public let attack: String
    /// The row of AMD's threat table that it belongs to, as AMD calls it; nil where the table has none.
    public let threat: String?
    private let promises: [Subject: Promise]
    private let body: @Sendable (Subject, Laboratory) throws(Interruption) -> Observation

    /// - Parameters:
    ///   - sev, sevES, snp: What each promises. The plain guest's promise is always that the attack succeeds.
    ///   - body: Does it to a guest of the given kind.
    init(
        _ name: String, _ title: String, attack: String, threat: String? = nil, sev: Promise, sevES: Promise,
        snp: Promise, body: @escaping @Sendable (Subject, Laboratory) throws(Interruption) -> Observation
    ) {
        self.name = name
        self.title = title
        self.attack = attack
        self.threat = threat
        promises = [
            .plain: Promise(.notStopped, "the control: nothing protects a plain guest", ""), .sev: sev, .sevES: sevES,
            .snp: snp,
        ]
        self.body = body
    }

    /// What is promised about this attack on a kind of guest.
    public func promise(_ subject: Subject) -> Promise {
        guard let promise = promises[subject] else { preconditionFailure("every subject has a promise") }
        return promise
    }

    /// Attacks a fresh guest of a kind.
    public func run(on subject: Subject, in laboratory: Laboratory) -> Finding {
        let result: Result<Observation, Interruption>
        do throws(Interruption) {
            try laboratory.requireGuests(of: subject)
            result = .success(try body(subject, laboratory))
        } catch {
            result = .failure(error)
        }
        return Finding(scenario: self, subject: subject, promise: promise(subject), result: result)
    }
}
