// `measure --explain` as a program: plans, saved plans and reports.

import Foundation
import TestSupport
import Testing

@Suite("measure --explain", .enabled(if: ForeignVectors.arePresent, Comment(rawValue: ForeignVectors.absence)))
struct ExplainCommandTests {
    private static let folder = (ForeignVectors.folder ?? "") + "/launch-digest/"
    private static let kernel =
        "--firmware \(folder)fw/ovmf-amdsev-suffix.bin --kernel \(folder)files/kernel-1.bin --initrd \(folder)files/initrd-1.bin"

    private let tool = VerifyTests()

    private func explain(_ arguments: String...) throws -> (ending: ChildProcess.Ending, output: String) {
        try tool.command(["measure"] + arguments)
    }

    /// A report with this digest; nobody has signed it.
    private func report(_ id: String) throws -> String {
        struct File: Decodable {
            struct Vector: Decodable {
                var id: String?
                var digest: String?
            }
            var vectors: [Vector]
        }
        let bytes = try #require(ForeignVectors.bytes("launch-digest/vectors.json"))
        let vectors = try JSONDecoder().decode(File.self, from: Data(bytes)).vectors
        let digest = try #require(vectors.first { $0.id == id }?.digest)
        var report = try #require(ForeignVectors.bytes("report-real/oak-genoa-v5/report.bin"))
        report.replaceSubrange(0x90..<0xc0, with: try #require([UInt8](hex: digest)))
        return try tool.file("report-\(id).bin", report)
    }

    @Test func plans() throws {
        let image = Self.folder + "fw/synth-a.bin"
        let same = try explain("--explain", image, "\(image) --cpus 1")
        #expect(same.ending == .exited(0) && same.output.contains("The launch digests are the same."), "\(same.output)")
        let found = try explain("--explain", "\(image) --cpus 2", "\(image) --cpus 3 --vcpu-type EPYC-Milan")
        #expect(found.ending == .exited(5), "\(found.output)")
        #expect(found.output.contains("vCPU count  VMSAs") && found.output.contains("EPYC and EPYC-Milan"))
        let line = try explain("--explain", Self.kernel + " --cmdline 'a b'", Self.kernel + " --cmdline 'a  b'")
        #expect(line.ending == .exited(5) && line.output.contains("the hashes of command line"), "\(line.output)")
    }

    @Test func savedPlans() throws {
        let image = Self.folder + "fw/synth-a.bin"
        let saved = try explain(image, "--cpus", "2", "--json", "--pages")
        let path = try tool.file("plan.json", Array(saved.output.utf8))
        #expect(try explain("--explain", path, "\(image) --cpus 2").ending == .exited(0))
        let other = try explain("--json", "--explain", path, "\(image) --cpus 2 --vmm-profile ec2")
        #expect(other.ending == .exited(5))
        #expect(other.output.contains(#""place":"vCPU 0, CS.attributes","a":"0x9b","b":"0x9a""#), "\(other.output)")
    }

    @Test func reports() throws {
        // (report, plan, what would give its digest)
        let cases = [
            ("s04", Self.kernel + " --cmdline 'console=ttyS0 loglevel=7'", "CPU signature 0x830f10 (EPYC-Rome)"),
            ("s05", Self.kernel, "no initrd, and 8 vCPUs instead of 1, and CPU signature 0xa00f11 (EPYC-Milan)"),
            ("s06", Self.kernel, "--vmm-profile ec2, and 2 vCPUs instead of 1"),
            ("s09", Self.kernel, "No likely change to the plan gives the report's digest. Tried: "),
        ]
        for (id, plan, text) in cases {
            let result = try explain("--explain", plan, try report(id))
            #expect(result.ending == .exited(5) && result.output.contains(text), "\(id): \(result.output)")
        }
    }

    @Test func usage() throws {
        for arguments in [
            ["--explain", "a"], ["--explain", "a", "b", "--json"], ["x", "--explain", "a", "b"], ["--pages", "x"],
        ] {
            #expect(try tool.command(["measure"] + arguments).ending == .exited(2), "\(arguments)")
        }
        for side in ["a 'b", "x --nonsense", "x --explain y z"] {
            #expect(try explain("--explain", side, side).ending == .exited(2), "\(side)")
        }
        #expect(try explain("--explain", "/nowhere", "/nowhere").ending == .exited(3))
    }
}
