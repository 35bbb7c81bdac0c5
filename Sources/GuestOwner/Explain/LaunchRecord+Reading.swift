// Launches from text: the log of `run --launch-log`, and what `measure --json` printed.

import ABILayout
import Attestation
import LaunchMeasurement
import SEVABI

extension LaunchRecord {
    /// What a text seems to be.
    public enum TextForm: Sendable {
        case launchLog
        case savedPlan
    }

    /// By its beginning; nil when it is neither.
    public static func textForm(_ text: [UInt8]) -> TextForm? {
        let head = String(decoding: text.prefix(64), as: UTF8.self)
        if head.hasPrefix("{\"sequence\":") { return .launchLog }
        if head.hasPrefix("{\"launchDigest\":") { return .savedPlan }
        return nil
    }

    /// Reads a launch log: the SEV commands in it that the firmware carried out.
    ///
    /// - Throws: ``AttestationError`` when a line is none of a log, or there is no launch.
    public init(log text: [UInt8], name: String) throws(AttestationError) {
        self.init(name: name)
        var runs: [Run] = []
        var sealsStates = false
        for (index, line) in text.split(separator: 0x0a).enumerated() {
            // Most lines of a log are about other things.
            guard Self.mentionsSEV(line) else { continue }
            guard let value = try? JSONInput(text: Array(line)), case .string(let request)? = value["request"] else {
                throw Self.unusable(name, "line \(index + 1)", expected: "a line of a launch log")
            }
            let arguments = value["arguments"] ?? .null
            guard value["errno"] == nil || request == "KVM_SEV_SNP_LAUNCH_UPDATE" else { continue }
            switch request {
            case "KVM_SEV_SNP_LAUNCH_START", "KVM_SEV_LAUNCH_START":
                technology = request == "KVM_SEV_LAUNCH_START" ? .sev : .snp
                policy = arguments["policy"]?.hexNumber
            case "KVM_SEV_SNP_LAUNCH_UPDATE":
                guard let run = Self.update(value, arguments) else {
                    throw Self.unusable(name, "line \(index + 1)", expected: "pages of a launch")
                }
                if run.byteCount > 0 { runs.append(run) }
            case "KVM_SEV_LAUNCH_UPDATE_DATA":
                guard let gpa = arguments["gpa"]?.hexNumber, case .number(let count)? = arguments["byteCount"] else {
                    throw Self.unusable(name, "line \(index + 1)", expected: "data of a launch")
                }
                runs.append(
                    Run(
                        label: "data", pageType: .normal, gpa: gpa, byteCount: count,
                        pageDigests: value["pageDigests"]?.text.flatMap(PageDigests.parse),
                        launchDigest: value["launchDigest"]?.text))
            case "KVM_SEV_LAUNCH_UPDATE_VMSA", "KVM_SEV_SNP_LAUNCH_FINISH":
                sealsStates = request == "KVM_SEV_LAUNCH_UPDATE_VMSA"
                if sealsStates { technology = .sevES }
                launchDigest = value["launchDigest"]?.text
                states = Self.states(value["vmsas"])
                hostData = arguments["hostData"]?.text
            default: break
            }
        }
        guard technology != nil else {
            throw Self.unusable(name, "requests", expected: "a SEV or SNP launch, KVM_SEV_…LAUNCH_START")
        }
        self.runs = runs
        launchDigest = launchDigest ?? runs.last?.launchDigest
        if technology == .sev { states = [] }
    }

    /// Reads what `measure --json` printed; with `--pages` it knows every page.
    ///
    /// - Throws: ``AttestationError`` when it is something else.
    public init(savedPlan text: [UInt8], name: String) throws(AttestationError) {
        self.init(name: name)
        guard let value = try? JSONInput(text: text), let digest = value["launchDigest"]?.text,
            let technologyName = value["technology"]?.text, let known = GuestTechnology(rawValue: technologyName),
            case .array(let steps)? = value["steps"]
        else { throw Self.unusable(name, "contents", expected: "what `measure --json` prints") }
        technology = known
        launchDigest = digest
        policy = value["policy"]?.hexNumber
        states = []
        var runs: [Run] = []
        for (index, step) in steps.enumerated() {
            guard let label = step["label"]?.text, let type = step["pageType"]?.text.flatMap(Self.pageType),
                let gpa = step["gpa"]?.hexNumber
            else { throw Self.unusable(name, "step \(index + 1)", expected: "label, pageType and gpa") }
            if type == .vmsa {
                if let page = step["vmsa"]?.text.flatMap(Self.state) { states?.append(page) } else { states = nil }
                continue
            }
            var count: UInt64 = 0
            if case .number(let pages)? = step["pageCount"], pages < 1 << 40 { count = pages &* 4096 }
            if case .number(let bytes)? = step["byteCount"] { count = bytes }
            runs.append(
                Run(
                    label: label, pageType: type, gpa: gpa, byteCount: count,
                    pageDigests: step["pageDigests"]?.text.flatMap(PageDigests.parse),
                    launchDigest: step["launchDigest"]?.text))
        }
        self.runs = runs
    }

    private static func mentionsSEV(_ line: ArraySlice<UInt8>) -> Bool {
        // `"request":` stands near the beginning of each line.
        String(decoding: line.prefix(96), as: UTF8.self).contains("\"request\":\"KVM_SEV_")
    }

    private static func update(_ value: JSONInput, _ arguments: JSONInput) -> Run? {
        guard let gfn = arguments["gfn"]?.hexNumber, case .number(let count)? = arguments["byteCount"],
            let type = arguments["pageType"]?.text.flatMap(pageType), gfn < 1 << 40
        else { return nil }
        var left: UInt64 = 0
        if case .number(let value)? = value["bytesLeft"] { left = value }
        if value["errno"] != nil, value["bytesLeft"] == nil { left = count }
        return Run(
            label: "\(type)", pageType: type, gpa: gfn &<< 12, byteCount: count >= left ? count &- left : 0,
            pageDigests: value["pageDigests"]?.text.flatMap(PageDigests.parse),
            launchDigest: value["launchDigest"]?.text)
    }

    private static func states(_ value: JSONInput?) -> [[UInt8]]? {
        guard case .array(let values)? = value else { return nil }
        let states = values.compactMap { $0.text.flatMap(state) }
        return states.count == values.count ? states : nil
    }

    /// A VMSA without the zeroes at its end.
    private static func state(_ text: String) -> [UInt8]? {
        guard let state = ABILayout.bytes(hexadecimal: text), state.count <= VMSA.pageByteCount else { return nil }
        return state + [UInt8](repeating: 0, count: VMSA.pageByteCount - state.count)
    }

    private static func pageType(_ name: String) -> PageType? {
        (1...6).map { PageType(rawValue: $0) }.first { "\($0)" == name }
    }

    private static func unusable(_ name: String, _ field: String, expected: String) -> AttestationError {
        AttestationError(
            .malformed, attempt: "read a launch", subject: name, field: field, expected: expected,
            found: "something else",
            likelyCause: "a file of another kind, or one that is cut off",
            nextStep: "give what `run --launch-log` or `measure --json --pages` wrote")
    }
}

extension JSONInput {
    fileprivate var text: String? {
        guard case .string(let text) = self else { return nil }
        return text
    }

    /// "0x30000".
    fileprivate var hexNumber: UInt64? {
        guard let text, text.hasPrefix("0x"), text.utf8.count > 2, text.utf8.count <= 18 else { return nil }
        let digits = text.dropFirst(2)
        return digits.first == "+" || digits.first == "-" ? nil : UInt64(digits, radix: 16)
    }
}
