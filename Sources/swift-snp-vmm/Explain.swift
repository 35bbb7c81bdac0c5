// `measure --explain A B`: two launches that should have had one digest.

import Attestation
import GuestImage
import GuestOwner
import LaunchMeasurement
import SNPVMM

/// One of the two: an image with its options, a launch log, a saved plan, or a report.
enum ExplainedSide {
    case image(Measure, GuestSource, LaunchRecord)
    case text(LaunchRecord)
    case report(LaunchRecord)

    /// A direct boot is planned anew for each vCPU count, which takes a moment.
    static let maximumPlannedCount = 16

    var record: LaunchRecord {
        switch self {
        case .image(_, _, let record), .text(let record), .report(let record): record
        }
    }

    /// - Parameters:
    ///   - text: A file, or an image and options as on a command line of `measure`.
    ///   - options: What an image that is named alone is measured with.
    init(_ text: String, options: Measure) throws {
        let file = InputFile(path: text)
        guard file.exists || !text.contains(" ") else {
            let words = try Self.words(text)
            let parsed: Measure
            do { parsed = try Measure.parse(words) } catch {
                throw CommandFailure.usage("--explain \(text): \(Measure.message(for: error))")
            }
            guard parsed.explain.isEmpty else {
                throw CommandFailure.usage("--explain \(text): one --explain is enough")
            }
            try self.init(image: parsed, name: text)
            return
        }
        let bytes = try file.read(as: "what to explain")
        if bytes.count == AttestationReport.byteCount, let report = try? AttestationReport(bytes: bytes) {
            self = .report(LaunchRecord(report, name: "report \(text)"))
            return
        }
        switch LaunchRecord.textForm(bytes) {
        case .launchLog: self = .text(try LaunchRecord(log: bytes, name: "launch log \(text)"))
        case .savedPlan: self = .text(try LaunchRecord(savedPlan: bytes, name: "saved plan \(text)"))
        case nil:
            var options = options
            options.explain = []
            options.guest.image = text
            try self.init(image: options, name: text)
        }
    }

    private init(image options: Measure, name: String) throws {
        _ = try options.guest.requiredTechnology()
        let source = try GuestSource(options.guest)
        let plan = try options.plan(of: source, on: try options.guest.machine())
        self = .image(options, source, LaunchRecord(plan, name: "plan of \(name)"))
    }

    /// Words as a shell takes them: spaces between, quotes and backslashes around.
    static func words(_ text: String) throws(CommandFailure) -> [String] {
        var words: [String] = []
        var word: String?
        var quote: Character?
        var isEscaped = false
        for character in text {
            if isEscaped {
                word = (word ?? "") + String(character)
                isEscaped = false
            } else if let open = quote {
                if character == open { quote = nil } else { word = (word ?? "") + String(character) }
            } else if character == "'" || character == "\"" {
                quote = character
                word = word ?? ""
            } else if character == "\\" {
                isEscaped = true
            } else if character == " " || character == "\t" {
                if let done = word { words.append(done) }
                word = nil
            } else {
                word = (word ?? "") + String(character)
            }
        }
        guard quote == nil, !isEscaped else { throw .usage("--explain \(text): a quote that does not end") }
        if let word { words.append(word) }
        return words
    }

    // MARK: What else the digest could be of

    /// The launch and its likely changes, one at a time.
    func variants() throws -> [(change: String, make: () throws -> DigestSearch.Variant)] {
        guard case .image(let options, let source, let record) = self else {
            let record = record
            return [("", { DigestSearch.Variant(change: "", hasFreeProcessorCount: true, record: record) })]
        }
        let machine = try options.guest.machine()
        func variant(
            _ change: String, _ source: GuestSource, _ machine: MachineDescription, _ options: Measure
        ) -> (String, () throws -> DigestSearch.Variant) {
            (
                change,
                {
                    let count = machine.processorCount
                    guard source.isFirmware else {
                        let plan = try options.plan(of: source, on: machine)
                        return DigestSearch.Variant(
                            change: change, hasFreeProcessorCount: false, record: LaunchRecord(plan, name: record.name))
                    }
                    // A second vCPU says what all others start with, where the firmware says it.
                    var more = machine
                    more.processorCount = max(2, count)
                    let plan = try (try? options.plan(of: source, on: more)) ?? options.plan(of: source, on: machine)
                    return DigestSearch.Variant(
                        change: change, hasFreeProcessorCount: true, processorCount: count,
                        record: LaunchRecord(plan, name: record.name))
                }
            )
        }
        var result = [variant("", source, machine, options)]
        switch source {
        case .firmware(let image, let kernel):
            for profile in VMMProfile.allCases where profile.rawValue != options.profile.lowercased() {
                var other = options
                other.profile = profile.rawValue
                result.append(variant("--vmm-profile \(profile.rawValue)", source, machine, other))
            }
            if let kernel {
                result.append(variant("no kernel hashes", .firmware(image, nil), machine, options))
                for (change, other) in Self.changes(of: kernel) {
                    result.append(variant(change, .firmware(image, other), machine, options))
                }
            }
        case .direct(let payload, let form):
            for count in 1...Self.maximumPlannedCount where count != machine.processorCount {
                var other = machine
                other.processorCount = count
                result.append(variant("\(count) vCPUs instead of \(machine.processorCount)", source, other, options))
            }
            for megabytes: UInt64 in [128, 256, 512, 1024, 2048, 4096] where megabytes << 20 != machine.memoryByteCount
            {
                var other = machine
                other.memoryByteCount = megabytes << 20
                result.append(variant("--memory \(megabytes)M", source, other, options))
            }
            for bit: UInt8 in [51, 47] where bit != machine.cBit {
                var other = machine
                other.cBit = bit
                result.append(variant("--c-bit \(bit)", source, other, options))
            }
            for (change, commandLine) in Self.changes(of: payload.commandLine) {
                var other = payload
                other.commandLine = commandLine
                result.append(variant(change, .direct(other, form: form), machine, options))
            }
            if !payload.initrd.isEmpty {
                var other = payload
                other.initrd = []
                result.append(variant("no initrd", .direct(other, form: form), machine, options))
            }
        case .igvm:
            var other = options
            other.nativeZero.toggle()
            result.append(
                variant(other.nativeZero ? "--native-zero" : "without --native-zero", source, machine, other))
        case .bare: break  // A plain machine, which nobody measures.
        }
        return result
    }

    private static func changes(of kernel: HashedKernel) -> [(String, HashedKernel)] {
        var result = changes(of: kernel.commandLine).map { change, commandLine in
            var other = kernel
            other.commandLine = commandLine
            return (change, other)
        }
        if !kernel.initrd.isEmpty {
            var other = kernel
            other.initrd = []
            result.append(("no initrd", other))
        }
        return result
    }

    /// What shells, files and boot loaders do to command lines.
    private static func changes(of commandLine: [UInt8]) -> [(String, [UInt8])] {
        let trimmed = Array(commandLine.reversed().drop { $0 == 0x20 || $0 == 0x0a }.reversed())
        let candidates: [(String, [UInt8])] = [
            ("a line end behind the command line", trimmed + [0x0a]),
            ("a space behind the command line", trimmed + [0x20]),
            ("nothing behind the command line's last word", trimmed), ("an empty command line", []),
            ("the default command line", Array(GuestOptions.defaultCommandLine.utf8)),
            ("\" initrd=initrd\" behind the command line", trimmed + Array(" initrd=initrd".utf8)),
        ]
        return candidates.filter { $0.1 != commandLine }
    }
}

/// What was found out about two sides.
struct Explanation {
    let a: LaunchRecord
    let b: LaunchRecord
    let differences: [LaunchDifference]
    /// The changes to the plan that give the report's digest; nil when none was found or none was looked for.
    var changes: [String]?
    /// What was tried in vain.
    var tried: String?

    var isSame: Bool { a.launchDigest != nil && a.launchDigest == b.launchDigest && a.technology == b.technology }

    init(_ first: ExplainedSide, _ second: ExplainedSide) throws {
        a = first.record
        b = second.record
        differences = a.differences(from: b)
        guard !isSame else { return }
        switch (first, second) {
        case (.report, .report): break
        case (.report(let report), let other), (let other, .report(let report)): try search(report, other)
        default: break
        }
    }

    private mutating func search(_ report: LaunchRecord, _ other: ExplainedSide) throws {
        guard other.record.technology == .snp, var search = DigestSearch(target: report) else { return }
        var names: [String] = []
        for (change, make) in try other.variants() {
            // A change that makes no plan is none that the host can have made.
            guard let variant = try? make() else { continue }
            if let found = search.changes(in: variant), found.count < changes?.count ?? .max { changes = found }
            if changes?.isEmpty == true || changes?.count == 1 { return }
            let name = change.contains(" vCPUs instead") ? "1 to \(ExplainedSide.maximumPlannedCount) vCPUs" : change
            if !name.isEmpty, names.last != name { names.append(name) }
        }
        guard changes == nil else { return }
        tried =
            "\(search.triedCount) launches: vCPU counts up to \(DigestSearch.maximumProcessorCount) where the image has the "
            + "same memory for all, the CPU signatures of \(search.signatureNames), each bit of SEV_FEATURES"
            + (names.isEmpty ? "" : ", and each with " + names.joined(separator: "; "))
    }

    var text: String {
        func head(_ letter: String, _ record: LaunchRecord) -> String {
            "\(letter): \(record.name) (\(record.technology?.rawValue ?? "no launch")), launch digest "
                + (record.launchDigest ?? "not known")
        }
        var lines = [head("A", a), head("B", b)]
        lines.append(
            isSame
                ? "The launch digests are the same."
                : "The launch digests differ." + (differences.contains(where: \.isMeasured) ? " Because of:" : ""))
        for difference in differences {
            lines.append(
                "\(difference.subject)  \(difference.place)" + (difference.isMeasured ? "" : " (not in the digest)"))
            lines.append("    A: \(printable(difference.a))")
            lines.append("    B: \(printable(difference.b))")
            if let note = difference.note { lines.append("    \(printable(note))") }
        }
        if let changes {
            lines.append(
                changes.isEmpty
                    ? "The plan itself gives the report's digest."
                    : "The report's digest is that of the plan with: " + changes.joined(separator: ", and ") + ".")
        } else if let tried {
            lines.append("No likely change to the plan gives the report's digest. Tried: \(tried).")
            lines.append(
                "Another image, another kernel, initrd or command line remain: compare with a launch log of the host "
                    + "(`run --launch-log`).")
        } else if !isSame, !differences.contains(where: \.isMeasured) {
            lines.append("What differs is not known on both sides.")
        }
        return lines.joined(separator: "\n")
    }

    var json: String {
        var object = JSONObject()
        object.add("same", isSame)
        for (key, record) in [("a", a), ("b", b)] {
            var side = JSONObject()
            side.add("name", record.name)
            if let technology = record.technology { side.add("technology", technology.rawValue) }
            if let digest = record.launchDigest { side.add("launchDigest", digest) }
            object.add(key, side)
        }
        object.add(
            "differences",
            differences.map { difference in
                var entry = JSONObject()
                entry.add("subject", difference.subject)
                entry.add("place", difference.place)
                entry.add("a", difference.a)
                entry.add("b", difference.b)
                entry.add("measured", difference.isMeasured)
                if let note = difference.note { entry.add("note", note) }
                return entry
            })
        if let changes { object.add("changes", changes) }
        if let tried { object.add("tried", tried) }
        return object.text
    }
}
