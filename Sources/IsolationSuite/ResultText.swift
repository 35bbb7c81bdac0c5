// The findings as text for people: one paragraph per attack, and the table.

/// How a piece of text is meant, for whoever has colours.
public enum Emphasis: Sendable {
    case heading
    /// The attack was stopped, or noticed.
    case good
    /// The attack succeeded, as it was said that it would.
    case exposed
    /// Not what was promised.
    case wrong
    case faint
}

/// Findings as lines of text.
public struct ResultText: Sendable {
    /// Adds colours, or gives the text back as it is. Called with finished, padded text.
    public typealias Paint = @Sendable (String, Emphasis) -> String

    private let paint: Paint
    private let width: Int

    /// - Parameter width: Columns of the terminal, for wrapping.
    public init(width: Int = 110, paint: @escaping Paint = { text, _ in text }) {
        self.width = max(60, width)
        self.paint = paint
    }

    // MARK: One attack

    /// What the attacker does, what is promised, what happened.
    public func paragraph(_ scenario: Scenario, _ findings: [Finding]) -> String {
        var lines = [
            paint(scenario.title, .heading) + paint("  --scenario \(scenario.name)", .faint)
        ]
        lines += wrap(scenario.attack, indent: 2)
        if let threat = scenario.threat { lines.append(paint("  In AMD's threat table: \(threat).", .faint)) }
        for finding in findings { lines += describe(finding) }
        return lines.joined(separator: "\n") + "\n"
    }

    private func describe(_ finding: Finding) -> [String] {
        let label = pad(finding.subject.displayName, 8)
        let promise = finding.promise
        let promised =
            finding.subject == .plain
            ? "control: must succeed"
            : "promised: \(promise.effect.rawValue); \(promise.reason)"
                + (promise.reference.isEmpty ? "" : " \(promise.reference)")
        var lines = wrap("\(label)  \(promised)", indent: 2, hanging: 12)
        let happened = "happened: \(Self.outcome(finding))"
        lines.append(String(repeating: " ", count: 12) + paint(happened + Self.remark(finding), Self.emphasis(finding)))
        for line in finding.evidence { lines += wrap("· \(line)", indent: 12, hanging: 14).map { paint($0, .faint) } }
        return lines
    }

    // MARK: The table

    /// Scenarios down, kinds of guests across.
    public func table(_ report: SuiteReport) -> String {
        let first = max(8, report.scenarios.map(\.title.count).max() ?? 0) + 2
        let column = 13
        var lines = [
            paint(
                trimmed(pad("attack", first) + report.subjects.map { pad($0.displayName, column) }.joined()), .heading)
        ]
        var notes: [String] = []
        for scenario in report.scenarios {
            var line = pad(scenario.title, first)
            for subject in report.subjects {
                guard let finding = report.finding(scenario, subject) else { continue }
                line += paint(pad(cell(finding, &notes), column), Self.emphasis(finding))
            }
            lines.append(trimmed(line))
        }
        if !notes.isEmpty { lines.append("") }
        for (index, note) in notes.enumerated() { lines.append("  [\(index + 1)] not run: \(note)") }
        return lines.joined(separator: "\n") + "\n"
    }

    /// How many attacks ended how.
    public func summary(_ report: SuiteReport) -> String {
        func count(_ verdict: Verdict) -> Int { report.findings.filter { $0.verdict == verdict }.count }
        let text =
            "\(report.findings.count) attacks: \(count(.asPromised)) ended as promised, \(count(.wrong)) did not, "
            + "\(count(.broken)) broken, \(count(.notRun)) not run."
        return paint(text, report.isSound ? .good : .wrong) + "\n"
            + "Every attack must succeed on the plain guest: else it is the attack that does not work.\n"
    }

    private func cell(_ finding: Finding, _ notes: inout [String]) -> String {
        switch finding.verdict {
        case .asPromised: return Self.outcome(finding)
        case .wrong: return "WRONG"
        case .broken: return "BROKEN"
        case .notRun:
            let reason = finding.evidence.first ?? ""
            if !notes.contains(reason) { notes.append(reason) }
            return "not run [\((notes.firstIndex(of: reason) ?? 0) + 1)]"
        }
    }

    // MARK: Words

    private static func outcome(_ finding: Finding) -> String {
        switch finding.result {
        case .success(let observation):
            finding.subject == .plain && observation.effect == .notStopped ? "succeeds" : observation.effect.rawValue
        case .failure(.notRun): "not run"
        case .failure(.broken): "the scenario did not work"
        }
    }

    private static func remark(_ finding: Finding) -> String {
        finding.verdict == .wrong ? ", which is WRONG" : ""
    }

    private static func emphasis(_ finding: Finding) -> Emphasis {
        switch finding.verdict {
        case .wrong, .broken: .wrong
        case .notRun: .faint
        case .asPromised:
            finding.subject == .plain ? .faint : finding.effect == .notStopped ? .exposed : .good
        }
    }

    // MARK: Layout

    private func pad(_ text: String, _ count: Int) -> String {
        text + String(repeating: " ", count: max(0, count - text.count))
    }

    /// Spaces at the end of a line are of no use; escape sequences stay.
    private func trimmed(_ line: String) -> String {
        var line = line[...]
        while line.last == " " { line.removeLast() }
        return String(line)
    }

    private func wrap(_ text: String, indent: Int, hanging: Int? = nil) -> [String] {
        var lines: [String] = []
        var line = String(repeating: " ", count: indent)
        var isEmpty = true
        for word in text.split(separator: " ", omittingEmptySubsequences: false) {
            if !isEmpty, line.count + 1 + word.count > width {
                lines.append(line)
                line = String(repeating: " ", count: hanging ?? indent)
                isEmpty = true
            }
            line += (isEmpty ? "" : " ") + word
            isEmpty = false
        }
        return lines + [line]
    }
}
