// `measure` as a guest owner uses it: the digests that another tool found for the same options, and clear refusals.

import Foundation
import TestSupport
import Testing

/// One case of the foreign launch-digest vectors, as far as the command line can say it.
struct MeasureCase: Decodable, Sendable, CustomTestStringConvertible {
    var id: String?
    var test: String?
    var mode: String
    var vcpus: Int?
    var vcpu_type: String?
    var vcpu_sig: String?
    var firmware: String
    var kernel: String?
    var initrd: String?
    var append: String?
    var vmm_type: String?
    var guest_features: String?
    var digest: String?
    var expect_error: Bool?

    var testDescription: String { id ?? test ?? firmware }

    static let technologies = ["snp": "snp", "seves": "sev-es", "sev": "sev"]

    static let all: [MeasureCase] = {
        struct File: Decodable { var vectors: [MeasureCase] }
        return ["vectors.json", "upstream-expected.json"].flatMap { name -> [MeasureCase] in
            guard let bytes = ForeignVectors.bytes("launch-digest/" + name),
                let file = try? JSONDecoder().decode(File.self, from: Data(bytes))
            else { return [] }
            // One of the firmware images lies in a package of Debian's and may be absent; its cases are also in
            // LaunchMeasurementTests.
            return file.vectors.filter {
                technologies[$0.mode] != nil && ForeignVectors.bytes("launch-digest/fw/" + $0.firmware) != nil
            }
        }
    }()

    /// `measure` with the options of this case.
    func arguments(emptyFile: String) -> [String] {
        let folder = (ForeignVectors.folder ?? "") + "/launch-digest/"
        func file(_ name: String) -> String { name == "EMPTY FILE" ? emptyFile : folder + "files/" + name }
        var arguments = ["measure", "--firmware", folder + "fw/" + firmware]
        if let technology = Self.technologies[mode], technology != "snp" {
            arguments += ["--confidential", technology]
        }
        if let vcpus { arguments += ["--cpus", "\(vcpus)"] }
        if let vcpu_type {
            arguments += ["--vcpu-type", vcpu_type]
        } else if let vcpu_sig {
            arguments += ["--vcpu-sig", vcpu_sig]
        }
        if let kernel {
            arguments += ["--kernel", file(kernel)]
            if let initrd { arguments += ["--initrd", file(initrd)] }
            if let append { arguments += ["--cmdline", append] }
        }
        if let guest_features { arguments += ["--guest-features", guest_features] }
        if let vmm_type { arguments += ["--vmm-profile", vmm_type] }
        return arguments
    }
}

@Suite struct MeasureTests {
    func measure(_ arguments: [String]) throws -> (ending: ChildProcess.Ending, output: String) {
        let command = try #require(BuiltProgram.path("swift-snp-vmm"))
        return try ChildProcess.run(command, arguments, timeoutMilliseconds: 120_000)
    }

    @Test(.enabled(if: !MeasureCase.all.isEmpty, "\(ForeignVectors.absence)"), arguments: MeasureCase.all)
    func foreignDigests(_ vector: MeasureCase) throws {
        let empty =
            (environment("TMPDIR") ?? "/tmp") + "/snp-vmm-test-\(BuiltProgram.processIdentifier)-empty-"
            + vector.testDescription
        try #require(writeFile(empty, []))
        defer { removeFile(empty) }
        let (ending, output) = try measure(vector.arguments(emptyFile: empty))
        if vector.expect_error == true {
            #expect(ending == .exited(3), "\(output)")
            #expect(output.contains("Next step"), "\(output)")
        } else {
            #expect(ending == .exited(0), "\(output)")
            // SEV_FEATURES that mean nothing are said to, on standard error.
            #expect(output.split(separator: "\n").contains { $0 == vector.digest ?? "" }, "\(output)")
            let isIgnored = vector.mode != "snp" && vector.guest_features != nil
            #expect(output.contains("note: --guest-features") == isIgnored, "\(output)")
        }
    }

    @Test(.enabled(if: BuiltGuest.firmware("hello") != nil, "no flat guests: run `make firmware`"))
    func technologiesHaveDigestsOfTheirOwn() throws {
        let image = try #require(BuiltGuest.firmware("hello"))
        var digests: Set<String> = []
        for (technology, digits) in [("snp", 96), ("sev-es", 64), ("sev", 64)] {
            let (ending, output) = try measure(["measure", "--confidential", technology, "--memory", "64M", image])
            #expect(ending == .exited(0), "\(output)")
            #expect(output.utf8.count == digits + 1 && output.allSatisfy { $0.isHexDigit || $0 == "\n" }, "\(output)")
            digests.insert(output)
        }
        #expect(digests.count == 3)
        // The policy enters the measurement, not the digest.
        for technology in ["sev-es", "sev"] {
            let base = ["measure", "--memory", "64M", image, "--confidential", technology]
            #expect(try measure(base).output == measure(base + ["--policy", "0"]).output)
        }
    }

    @Test(.enabled(if: BuiltGuest.firmware("hello") != nil, "no flat guests: run `make firmware`"))
    func stepsAsJSON() throws {
        struct Report: Decodable {
            struct Step: Decodable {
                var label: String
                var byteCount: Int?
                var pageCount: Int?
                var launchDigest: String
                var contentsDigest: String?
            }
            var launchDigest: String
            var technology: String
            var policy: String
            var guestFeatures: String
            var steps: [Step]
        }
        let image = try #require(BuiltGuest.firmware("hello"))
        for (technology, policy, features) in [
            ("snp", "0x30000", "0x1"), ("sev-es", "0x7", "0x0"), ("sev", "0x3", "0x0"),
        ] {
            let (ending, output) = try measure([
                "measure", "--confidential", technology, "--memory", "64M", "--json", image,
            ])
            #expect(ending == .exited(0), "\(output)")
            let report = try JSONDecoder().decode(Report.self, from: Data(output.utf8))
            #expect(report.technology == technology && report.policy == policy && report.guestFeatures == features)
            #expect(report.steps.last?.launchDigest == report.launchDigest)
            #expect(report.steps.contains { $0.label == "VMSA 0" && $0.contentsDigest != nil } == (technology != "sev"))
            #expect(report.steps.contains { $0.label == "secret node" } == (technology != "snp"))
            #expect(report.steps.allSatisfy { ($0.byteCount == nil) == (technology == "snp") })
            #expect(report.steps.allSatisfy { ($0.pageCount == nil) == (technology != "snp") })
        }
    }

    /// The page tables hold the C-bit, so the host's processor enters the digest of a direct boot.
    @Test(.enabled(if: BuiltGuest.firmware("hello") != nil, "no flat guests: run `make firmware`"))
    func theCBitEntersTheDigest() throws {
        let image = try #require(BuiltGuest.firmware("hello"))
        for technology in ["snp", "sev-es", "sev"] {
            let base = ["measure", "--memory", "64M", image, "--confidential", technology]
            let standard = try measure(base).output
            #expect(try measure(base + ["--c-bit", "51"]).output == standard)
            #expect(try measure(base + ["--c-bit", "47"]).output != standard)
            #expect(try measure(base + ["--c-bit", "45"]).ending == .exited(3))
            #expect(try measure(base + ["--c-bit", "x"]).ending == .exited(2))
        }
    }

    @Test(arguments: [
        ["--confidential", "none", "x"], ["--confidential", "tdx", "x"],
        ["--confidential", "sev", "--policy", "0x100000000", "x"],
        ["--confidential", "sev-es", "--host-data", String(repeating: "0", count: 64), "x"],
        ["--confidential", "sev", "--id-block", "a", "--id-auth", "b", "x"],
    ])
    func wrongUseIsStatus2(_ arguments: [String]) throws {
        let (ending, output) = try measure(["measure"] + arguments)
        #expect(ending == .exited(2), "\(output)")
        #expect(!output.isEmpty)
    }
}
