// The catalogue's answer to a question: the rows that fit, the closest first, as text and as JSON.

import JSONText
import KVMABI

/// What may be behind an error.
public struct ErrorAnswer: Sendable {
    /// One way to read the question.
    public struct Section: Sendable {
        /// "KVM_CREATE_VM: EINVAL (22)".
        public var title: String
        /// What it means by itself; nil where the causes say it.
        public var meaning: String?
        /// Who has to act; nil where nothing was refused.
        public var outcome: ErrorCatalogue.Outcome?
        /// The likeliest first.
        public var causes: [ErrorCatalogue.Cause]
    }

    public let sections: [Section]

    public init(_ question: ErrorQuestion) {
        sections =
            Self.rows(question).map { Section($0) }
            + question.ends.map {
                Section(title: $0.name + " (\($0.number))", meaning: $0.meaning, outcome: nil, causes: $0.causes)
            }
            + question.terminations.map { Self.section($0.set, $0.reason) }
    }

    // MARK: Rows

    private static func rows(_ question: ErrorQuestion) -> [ErrorCatalogue.Entry] {
        let entries = ErrorCatalogue.entries
        if let request = question.request {
            let own = entries.filter { entry in
                entry.request == request && (question.errno == nil || entry.errno == question.errno)
                    && (question.firmwareStatus == nil
                        || (entry.firmwareStatus ?? question.firmwareStatus)
                            == question.firmwareStatus)
            }
            // A status without a row of this request has one of its own.
            let status = question.firmwareStatus.flatMap { status in
                own.contains { $0.firmwareStatus == status } || (question.errno ?? .EIO) != .EIO
                    ? nil : entries.first { $0.request == nil && $0.firmwareStatus == status }
            }
            let found = own.sorted { $0.specificity > $1.specificity } + (status.map { [$0] } ?? [])
            if !found.isEmpty { return found }
            return [
                ErrorCatalogue.explain(
                    request: request, errno: question.errno ?? .EIO, firmwareStatus: question.firmwareStatus)
            ]
        }
        var rows: [ErrorCatalogue.Entry] = []
        if let errno = question.errno, errno != .EIO || question.firmwareStatus == nil {
            rows += entries.filter { $0.request == nil && $0.errno == errno && $0.firmwareStatus == nil }
            rows += entries.filter { $0.request != nil && $0.errno == errno && $0.firmwareStatus == nil }
        }
        if let status = question.firmwareStatus {
            rows += entries.filter { $0.request == nil && $0.firmwareStatus == status }
            rows += entries.filter { $0.request != nil && $0.firmwareStatus == status }
        }
        return rows.isEmpty && (question.errno != nil || question.firmwareStatus != nil)
            ? [ErrorCatalogue.fallback] : rows
    }

    private static func section(_ set: UInt8, _ reason: UInt8) -> Section {
        let row = TerminationReason.of(set: set, reason: reason)
        return Section(
            title: "the guest's termination, reason \(set)/\(reason)",
            meaning: row?.meaning ?? "not a defined reason", outcome: .guestFailed,
            causes: row?.likelyCause.map {
                [.init($0, next: "boot the guest with earlyprintk=serial to see what it did last")]
            } ?? [])
    }

    // MARK: Output

    /// For people.
    public var text: String {
        sections.map { section in
            var lines = [section.title]
            if let meaning = section.meaning { lines.append("  " + meaning) }
            for (index, cause) in section.causes.enumerated() {
                lines.append("  \(index + 1). " + cause.text)
                if let check = cause.check { lines.append("     check: " + check) }
                lines.append("     next:  " + cause.nextStep)
            }
            return lines.joined(separator: "\n")
        }.joined(separator: "\n\n")
    }

    /// `{"answers":[{"title":…,"meaning":…,"outcome":…,"causes":[{"cause":…,"check":…,"nextStep":…}]}]}`.
    public var json: JSONObject {
        var object = JSONObject()
        object.add(
            "answers",
            sections.map { section in
                var answer = JSONObject()
                answer.add("title", section.title)
                if let meaning = section.meaning { answer.add("meaning", meaning) }
                if let outcome = section.outcome { answer.add("outcome", outcome.rawValue) }
                answer.add(
                    "causes",
                    section.causes.map { cause in
                        var item = JSONObject()
                        item.add("cause", cause.text)
                        if let check = cause.check { item.add("check", check) }
                        item.add("nextStep", cause.nextStep)
                        return item
                    })
                return answer
            })
        return object
    }
}

extension ErrorAnswer.Section {
    fileprivate init(_ entry: ErrorCatalogue.Entry) {
        var parts: [String] = []
        if let errno = entry.errno, entry.request != nil || entry.firmwareStatus == nil { parts.append("\(errno)") }
        if let status = entry.firmwareStatus { parts.append("firmware: \(status)") }
        let answer = parts.isEmpty ? "any answer" : parts.joined(separator: ", ")
        self.init(
            title: entry.request.map { $0 + ": " + answer } ?? answer, meaning: nil, outcome: entry.outcome,
            causes: entry.causes)
    }
}
