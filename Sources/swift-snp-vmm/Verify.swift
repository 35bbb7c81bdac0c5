// `verify`: is this report genuine, and is it about the guest that was wanted? Offline.

import ArgumentParser
import Attestation
import CProcess
import SNPVMM

struct Verify: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "verify", abstract: "Verifies an attestation report and compares it with a policy.",
        discussion: """
            Checks the report's signature, the certificate chain up to AMD's root (or one that you name), that chip and TCB \
            are the certificate's, revocations if there is a list, and dates. Then the policy, strict by default. Nothing is \
            fetched. Exit status 0: accepted; 5: refused; 3: files that cannot be used.

            Without a policy file, measurement and report data are compared only when the options name them; the output \
            says what was not compared.

            Example: swift-snp-vmm verify report.bin --certs certs/ --measurement "$(swift-snp-vmm measure guest.img)"
            Example: swift-snp-vmm verify report.bin --certs table.bin --policy policy.json --nonce 00112233
            """)

    @Argument(help: ArgumentHelp("The report: 1184 bytes.", valueName: "report"))
    var report: String
    @Option(
        help: ArgumentHelp(
            "Certificates and revocation lists: a store of `certs import` or another folder (with the folders in it), a file, "
                + "or the certificate table of an extended request. May be repeated.", valueName: "path"))
    var certs: [String]
    @Option(
        name: .customLong("trusted-root"),
        help: ArgumentHelp(
            "A root that you trust beside AMD's: the ARK of a software platform, for tests. May be repeated.",
            valueName: "file"))
    var trustedRoots: [String] = []
    @Option(help: ArgumentHelp("The policy, JSON.", valueName: "file"))
    var policy: String?
    @Option(
        help: ArgumentHelp(
            "What the guest had to put into REPORT_DATA: up to 64 bytes, zeroes behind them.", valueName: "hex"))
    var nonce: String?
    @Option(help: ArgumentHelp("A launch digest that is good, 96 hex digits. May be repeated.", valueName: "hex"))
    var measurement: [String] = []
    @Option(
        name: .customLong("host-data"),
        help: ArgumentHelp("What the host had to put into HOST_DATA, 64 hex digits.", valueName: "hex"))
    var hostData: String?
    @Option(
        name: .customLong("at-time"),
        help: ArgumentHelp("Check dates at this time instead of now: seconds since 1970.", valueName: "seconds"))
    var time: Int64?
    @Flag(name: .customLong("ignore-dates"), help: "Do not look at the certificates' dates.")
    var ignoresDates = false
    @Flag(help: "Prints one JSON object.")
    var json = false

    func validate() throws {
        if certs.isEmpty { throw ValidationError("Give --certs: the certificates of the report's chip.") }
        if time != nil, ignoresDates { throw ValidationError("--at-time and --ignore-dates exclude each other.") }
    }

    func run() throws {
        let bytes = try InputFile(path: report).read(as: "the report", byteCount: AttestationReport.byteCount)
        let policy = try wantedPolicy()
        let roots = try TrustedRoots(paths: trustedRoots)
        let verified: VerifiedReport
        do {
            let chain = try EndorsementChain(for: AttestationReport(bytes: bytes), in: certs, trusted: roots)
            verified = try chain.verify(bytes, at: ignoresDates ? nil : time ?? process_wall_clock())
        } catch let refusal as AttestationError {
            if json { print(Self.jsonText(notGenuine: refusal)) }
            throw refusal
        }
        for warning in verified.warnings { StandardError.write(line: "swift-snp-vmm: \(warning)") }
        let refusals = policy.refusals(of: verified)
        print(json ? jsonText(verified, policy, refusals) : text(verified, policy, refusals))
        guard let first = refusals.first else { return }
        throw CommandFailure(
            status: first.exitStatus, message: refusals.map(\.description).joined(separator: "\nswift-snp-vmm: "))
    }

    private func wantedPolicy() throws -> ReportPolicy {
        var wanted: ReportPolicy
        if let policy {
            wanted = try ReportPolicy(json: InputFile(path: policy).read(as: "the policy"))
        } else {
            wanted = ReportPolicy()
            // What is not compared is said in the output.
            wanted.measurements = nil
            wanted.reportData = nil
        }
        if !measurement.isEmpty {
            wanted.measurements = try measurement.map { try OptionValue.bytes($0, "--measurement", byteCount: 48) }
        }
        if let hostData { wanted.hostData = [try OptionValue.bytes(hostData, "--host-data", byteCount: 32)] }
        if let nonce {
            let digits = nonce.lowercased().hasPrefix("0x") ? nonce.utf8.count - 2 : nonce.utf8.count
            guard (2...128).contains(digits) else {
                throw CommandFailure.usage("--nonce: expected 1 to 64 bytes in hex, found \(digits) digits")
            }
            let bytes = try OptionValue.bytes(nonce, "--nonce", byteCount: (digits + 1) / 2)
            wanted.reportData = [bytes + [UInt8](repeating: 0, count: 64 - bytes.count)]
        }
        return wanted
    }

    private func text(_ verified: VerifiedReport, _ policy: ReportPolicy, _ refusals: [AttestationError]) -> String {
        let report = verified.report
        func compared(_ list: [[UInt8]]?, _ value: [UInt8], _ option: String) -> String {
            guard let list else { return " (not compared: no \(option))" }
            return list.contains(value) ? " (as expected)" : " (NOT as expected)"
        }
        let root =
            switch verified.standing {
            case .amd(let product): "AMD's, \(product)"
            case .named(let name), .software(let name): "\(name), TRUSTED ONLY BECAUSE YOU NAMED IT"
            }
        let lines = [
            "genuine:      yes, version \(report.version), signed by a \(verified.endorsement.kind)",
            "root:         \(root)",
            "chip:         \(report.chipID.map { hexText($0) } ?? "masked") (\(verified.endorsement.productName))",
            "reported TCB: \(verified.reportedTCB)",
            "dates:        \(verified.datesChecked ? "valid" : "not checked")",
            "revocations:  \(verified.revocationsChecked ? "none" : "not checked: no revocation list")",
            "measurement:  \(hexText(report.measurement))"
                + compared(policy.measurements, report.measurement, "--measurement or --policy"),
            "report data:  \(hexText(report.reportData))"
                + compared(policy.reportData, report.reportData, "--nonce or --policy"),
            "verdict:      " + verdict(policy, refusals),
        ]
        return lines.joined(separator: "\n")
    }

    /// What was not compared must not look like consent.
    private func verdict(_ policy: ReportPolicy, _ refusals: [AttestationError]) -> String {
        guard refusals.isEmpty else { return "REFUSED: " + refusals.map(\.field).joined(separator: ", ") }
        var open: [String] = []
        if policy.measurements == nil { open.append("MEASUREMENT") }
        if policy.reportData == nil { open.append("REPORT_DATA") }
        return open.isEmpty ? "accepted" : "accepted, but \(open.joined(separator: " and ")) NOT COMPARED"
    }

    private static func jsonText(notGenuine refusal: AttestationError) -> String {
        var object = JSONObject()
        object.add("accepted", false)
        object.add("genuine", false)
        object.add("refusals", [jsonObject(refusal)])
        return object.text
    }

    private static func jsonObject(_ refusal: AttestationError) -> JSONObject {
        JSONObject([
            ("subject", refusal.subject), ("field", refusal.field), ("expected", refusal.expected),
            ("found", refusal.found), ("likelyCause", refusal.likelyCause), ("nextStep", refusal.nextStep),
        ])
    }

    private func jsonText(_ verified: VerifiedReport, _ policy: ReportPolicy, _ refusals: [AttestationError]) -> String
    {
        var object = JSONObject()
        object.add("accepted", refusals.isEmpty)
        object.add("genuine", true)
        object.add("version", verified.report.version)
        object.add("signingKey", "\(verified.endorsement.kind)")
        object.add("product", verified.product.rawValue)
        if case .amd = verified.standing { object.add("rootIsAMD", true) } else { object.add("rootIsAMD", false) }
        object.add("warnings", verified.warnings.map { text in JSONObject([("text", text)]) })
        object.add("datesChecked", verified.datesChecked)
        object.add("revocationsChecked", verified.revocationsChecked)
        object.add("measurement", hexText(verified.report.measurement))
        object.add("measurementCompared", policy.measurements != nil)
        object.add("reportData", hexText(verified.report.reportData))
        object.add("reportDataCompared", policy.reportData != nil)
        object.add("reportedTCB", "\(verified.reportedTCB)")
        object.add("refusals", refusals.map(Self.jsonObject))
        return object.text
    }
}

extension JSONObject {
    init(_ members: [(String, String)]) {
        self.init()
        for (key, value) in members { add(key, value) }
    }
}

/// `report show`.
struct Report: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "report", abstract: "Shows attestation reports.", subcommands: [Show.self])

    struct Show: ParsableCommand {
        static let configuration = CommandConfiguration(
            commandName: "show", abstract: "Prints every field of a report. Nothing is verified.",
            discussion: "Example: swift-snp-vmm report show report.bin")

        @Argument(help: ArgumentHelp("The report: 1184 bytes.", valueName: "report"))
        var report: String
        @Flag(help: "Prints one JSON object.")
        var json = false

        func run() throws {
            let bytes = try InputFile(path: report).read(as: "the report", byteCount: AttestationReport.byteCount)
            let report = try AttestationReport(bytes: bytes)
            if json {
                print(JSONObject(report.fields.map { ($0.name, $0.value) }).text)
            } else {
                let width = report.fields.map(\.name.count).max() ?? 0
                for (name, value) in report.fields {
                    print(name + String(repeating: " ", count: width - name.count + 2) + value)
                }
                StandardError.write(line: "not verified: `swift-snp-vmm verify` does that")
            }
        }
    }
}
