// The doctor: rules over a host's facts, in the order in which one thing needs the other. The first red finding is the cause,
// as a rule; what is red behind it mostly follows from it.

import JSONText
import SEVABI

/// What the doctor says of one link of the chain.
public struct HostFinding: Sendable, Equatable {
    public enum Verdict: String, Sendable, CaseIterable {
        case ok
        /// It works, but not as well as it could, or not for everything.
        case warning
        /// A guest of this kind cannot be launched.
        case failed
        /// It could not be looked at.
        case unknown
    }

    /// "bios.rmp": stays the same.
    public var id: String
    public var title: String
    public var verdict: Verdict
    public var detail: String
    /// The command or the BIOS entry that mends it.
    public var mend: String?
}

/// A look at a host for one kind of guest.
public struct HostExamination: Sendable {
    public let facts: HostFacts
    /// Nil: plain guests.
    public let technology: GuestTechnology?
    /// In the order of the chain.
    public let findings: [HostFinding]

    public init(_ facts: HostFacts, for technology: GuestTechnology?) {
        (self.facts, self.technology) = (facts, technology)
        let patient = Patient(facts: facts, technology: technology)
        findings = HostRule.all.compactMap { rule in
            guard rule.applies(to: technology), let result = rule.judge(patient) else { return nil }
            return HostFinding(
                id: rule.id, title: rule.title, verdict: result.verdict, detail: result.detail, mend: result.mend)
        }
    }

    /// The first red finding: the likeliest reason why a guest cannot be launched.
    public var cause: HostFinding? { findings.first { $0.verdict == .failed } }

    public func count(_ verdict: HostFinding.Verdict) -> Int { findings.count { $0.verdict == verdict } }

    // MARK: Output

    /// - Parameter coloured: With the escapes of a terminal.
    public func text(coloured: Bool) -> String {
        var lines = findings.flatMap { finding in
            let (mark, colour) =
                switch finding.verdict {
                case .ok: ("ok  ", "32")
                case .warning: ("warn", "33")
                case .failed: ("FAIL", "31")
                case .unknown: ("?   ", "90")
                }
            let shown = coloured ? "\u{1b}[\(colour)m\(mark)\u{1b}[0m" : mark
            return ["\(shown)  \(finding.title): \(finding.detail)"]
                + (finding.mend.map { ["        mend: " + $0] } ?? [])
        }
        let what = technology.map { "\($0.displayName) guests" } ?? "plain guests"
        lines.append("")
        lines.append(
            cause.map { "\(what): cannot be launched here. First: \($0.title): \($0.detail)." }
                ?? "\(what): nothing found that stops them; \(count(.warning)) warnings, \(count(.unknown)) not looked at."
        )
        return lines.joined(separator: "\n")
    }

    /// `{"confidential":"snp","canLaunch":true,"findings":[{"id":…,"title":…,"verdict":…,"detail":…,"mend":…}],…}`, and the
    /// facts.
    public var json: JSONObject {
        var object = JSONObject()
        object.add("confidential", technology?.rawValue ?? "none")
        object.add("canLaunch", cause == nil)
        object.add(
            "findings",
            findings.map { finding in
                var item = JSONObject()
                item.add("id", finding.id)
                item.add("title", finding.title)
                item.add("verdict", finding.verdict.rawValue)
                item.add("detail", finding.detail)
                if let mend = finding.mend { item.add("mend", mend) }
                return item
            })
        object.add("host", facts.json)
        return object
    }
}

/// The facts and what they are needed for.
struct Patient {
    let facts: HostFacts
    let technology: GuestTechnology?
}

/// What a rule finds.
struct Judgement {
    var verdict: HostFinding.Verdict
    var detail: String
    var mend: String?

    static func ok(_ detail: String) -> Judgement { .init(verdict: .ok, detail: detail, mend: nil) }
    static func warning(_ detail: String, _ mend: String) -> Judgement {
        .init(verdict: .warning, detail: detail, mend: mend)
    }
    static func failed(_ detail: String, _ mend: String) -> Judgement {
        .init(verdict: .failed, detail: detail, mend: mend)
    }
    static func unknown(_ detail: String, _ mend: String? = nil) -> Judgement {
        .init(verdict: .unknown, detail: detail, mend: mend)
    }
}

/// One link of the chain.
struct HostRule: Sendable {
    /// Which guests need it.
    enum Need: Sendable { case all, confidential, snp, stateOrSNP, pinned }

    let id: String
    let title: String
    let need: Need
    /// Nil where there is nothing to say.
    let judge: @Sendable (Patient) -> Judgement?

    init(_ id: String, _ title: String, _ need: Need, _ judge: @escaping @Sendable (Patient) -> Judgement?) {
        (self.id, self.title, self.need, self.judge) = (id, title, need, judge)
    }

    func applies(to technology: GuestTechnology?) -> Bool {
        switch need {
        case .all: true
        case .confidential: technology != nil
        case .snp: technology == .snp
        case .stateOrSNP: technology == .snp || technology == .sevES
        case .pinned: technology == .sev || technology == .sevES
        }
    }

    static let all: [HostRule] = board + kernel + nodes + firmware + kvm + resources
}
