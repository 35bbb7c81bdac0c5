// `verify`, `report show` and `id-block` as programs: verdicts, what is said, and with which status they end.

import Glibc
import TestSupport
import Testing

@Suite(
    "The commands about attestation", .enabled(if: ForeignVectors.arePresent, Comment(rawValue: ForeignVectors.absence))
)
struct VerifyTests {
    static let vectors = ForeignVectors.folder ?? ""
    /// 2025-10-01: all certificates of the vectors are valid.
    static let time = ["--at-time", "1759276800"]

    func command(_ arguments: [String]) throws -> (ending: ChildProcess.Ending, output: String) {
        let command = try #require(BuiltProgram.path("swift-snp-vmm"))
        return try ChildProcess.run(command, arguments, timeoutMilliseconds: 60_000)
    }

    func verify(_ sample: String, certs: String? = nil, _ options: [String] = time) throws -> (
        ending: ChildProcess.Ending, output: String
    ) {
        let folder = Self.vectors + "/" + sample
        return try command(
            ["verify", folder + "/report.bin", "--certs", certs.map { Self.vectors + "/" + $0 } ?? folder] + options)
    }

    /// A file that goes when the process does.
    func file(_ name: String, _ bytes: [UInt8]) throws -> String {
        let path = try folder() + "/" + name
        try #require(writeFile(path, bytes))
        return path
    }

    func folder() throws -> String {
        let path = Self.temporary
        try #require(mkdir(path, 0o700) == 0 || errno == EEXIST)
        return path
    }

    private static let temporary: String = {
        atexit { _ = try? ChildProcess.run("rm", ["-rf", VerifyTests.temporary]) }
        return (environment("TMPDIR") ?? "/tmp") + "/snp-vmm-verify-\(BuiltProgram.processIdentifier)"
    }()

    @Test func genuineReports() throws {
        let genoa = try verify("report-real/oak-genoa-v5")
        #expect(genoa.ending == .exited(0), "\(genoa.output)")
        #expect(genoa.output.contains("AMD's, Genoa"))
        #expect(genoa.output.contains("accepted, but MEASUREMENT and REPORT_DATA NOT COMPARED"))
        let digest =
            "c57729018b0a6fb90dc17bb138b0aa35e4401004283ff4a2c24d3739ff3750f52384370e77b7032862a08c440a9bc4dc"
        let nonce = "8100555af0ad8e7525be6dffeed0af83e30bbacbf03b76e175e6894d1ed057ce"
        let whole = try verify(
            "report-real/oak-genoa-v5", certs: "cert-table/vcek.bin",
            Self.time + ["--measurement", digest, "--nonce", nonce])
        #expect(whole.ending == .exited(0) && whole.output.contains("verdict:      accepted\n"), "\(whole.output)")
    }

    @Test func refusedReports() throws {
        // (sample, certificates, options, status, what is said)
        let synthetic = "report-synthetic/synth-turin-v5"
        let root = ["--trusted-root", "\(Self.vectors)/\(synthetic)/ark.der"]
        let cases: [(String, String?, [String], Int32, String)] = [
            ("report-real/oak-genoa-v5", nil, Self.time + ["--nonce", "00"], 5, "REPORT_DATA: expected 0000"),
            (
                "report-real/oak-genoa-v5", nil, Self.time + ["--measurement", String(repeating: "0", count: 96)], 5,
                "MEASUREMENT: expected 0000"
            ),
            ("report-real/gsg-milan-v2", nil, Self.time, 5, "POLICY.DEBUG: expected 0, found 1"),
            ("report-real/gsg-milan-v2", "report-real/oak-genoa-v5", Self.time, 5, "the certificate is another chip's"),
            ("report-real/trustee-milan-v3-vlek", nil, [], 5, "VLEK, notAfter"),
            (synthetic, nil, Self.time, 5, "ARK, key fingerprint"),
            (synthetic, nil, Self.time + root, 5, "WARNING: NOT AN AMD CHAIN"),
            (synthetic, nil, Self.time + root, 5, "HOST_DATA: expected 0000"),
            ("report-real/oak-genoa-v5", "cert-only", Self.time, 5, "could not verify"),
            ("report-real/oak-genoa-v5", "id-block", Self.time, 3, "VCEK certificate: expected one"),
            ("report-real/oak-genoa-v5", "nowhere", Self.time, 3, "ENOENT"),
            ("report-real/oak-genoa-v5", "id-block/id_auth.bin", Self.time, 3, "certificate table"),
            ("report-real/oak-genoa-v5", nil, Self.time + ["--nonce", "0g"], 2, "not a hex digit"),
            ("report-real/oak-genoa-v5", nil, Self.time + ["--ignore-dates"], 2, "exclude each other"),
        ]
        for (sample, certs, options, status, text) in cases {
            let result = try verify(sample, certs: certs, options)
            #expect(result.ending == .exited(status), "\(sample) \(options): \(result.output)")
            #expect(result.output.contains(text), "\(sample) \(options): \(result.output)")
        }
        let other = try command(
            ["verify", Self.vectors + "/README.md", "--certs", Self.vectors + "/report-real/oak-genoa-v5"])
        #expect(other.ending == .exited(3))
    }

    @Test func namedRootsAndPolicies() throws {
        let sample = "report-synthetic/synth-turin-v5"
        let policy = try file(
            "policy.json",
            Array(
                #"{"measurement": null, "reportData": null, "hostData": null, "minimumTCB": {"fmc": 1, "snp": 4}}"#.utf8
            ))
        let root = ["--trusted-root", "\(Self.vectors)/\(sample)/ark.der"]
        let good = try verify(sample, Self.time + root + ["--policy", policy])
        #expect(
            good.ending == .exited(0) && good.output.contains("TRUSTED ONLY BECAUSE YOU NAMED IT"), "\(good.output)")
        let strict = try file("strict.json", Array(#"{"minimumTCB": {"fmc": 2}}"#.utf8))
        let refused = try verify(sample, Self.time + root + ["--policy", strict, "--json"])
        #expect(refused.ending == .exited(5))
        for text in [#""field":"MEASUREMENT""#, "fmcSPL at least 2", #""rootIsAMD":false"#, "NOT AN AMD CHAIN"] {
            #expect(refused.output.contains(text), "\(refused.output)")
        }
        let wrong = try file("wrong.json", Array(#"{"measurment": null}"#.utf8))
        let mistaken = try verify(sample, Self.time + root + ["--policy", wrong])
        #expect(mistaken.ending == .exited(3) && mistaken.output.contains("measurment"), "\(mistaken.output)")
        let unnamed = try verify(sample, Self.time + ["--json"])
        #expect(unnamed.ending == .exited(5) && unnamed.output.contains(#""genuine":false"#), "\(unnamed.output)")
        let leaf = try verify(sample, Self.time + ["--trusted-root", "\(Self.vectors)/\(sample)/vcek.der"])
        #expect(leaf.ending == .exited(3) && leaf.output.contains("give the ARK"), "\(leaf.output)")
    }

    @Test func showsReports() throws {
        let shown = try command(["report", "show", Self.vectors + "/report-real/oak-genoa-v5/report.bin"])
        #expect(shown.ending == .exited(0) && shown.output.contains("not verified"))
        #expect(shown.output.contains("MEASUREMENT         c57729018b0a6fb9"))
        let json = try command([
            "report", "show", Self.vectors + "/report-synthetic/synth-turin-v5/report.bin", "--json",
        ])
        #expect(json.output.contains(#""REPORTED_TCB":"fmcSPL=1 blSPL=1 teeSPL=1 snpSPL=4 ucodeSPL=81""#))
        #expect(try command(["report", "show", Self.vectors + "/id-block/id_auth.bin"]).ending == .exited(3))
    }

    @Test func idBlocks() throws {
        // A key on P-384 for this test alone: ECPrivateKey [RFC 5915] with the curve's name and no public key.
        let der =
            [0x30, 0x3e, 0x02, 0x01, 0x01, 0x04, 0x30] + [UInt8](repeating: 7, count: 48)
            + [0xa0, 0x07, 0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x22]
        let key = try file("id.der", der)
        let out = try folder() + "/block"
        let digest = String(repeating: "5a", count: 48)
        let made = try command(
            [
                "id-block", "create", out, "--id-key", key, "--author-key", key, "--launch-digest", digest,
                "--guest-svn",
                "3", "--policy", "0x30000",
            ])
        #expect(made.ending == .exited(0) && made.output.contains("guest SVN:         3"), "\(made.output)")
        let files = ["--id-block", out + "/id-block.bin", "--id-auth", out + "/id-auth.bin"]
        let good = try command(["id-block", "check"] + files + ["--launch-digest", digest, "--policy", "0x30000"])
        #expect(good.ending == .exited(0) && good.output == made.output, "\(good.output)")
        let policy = try command(["id-block", "check"] + files + ["--policy", "0xb0000"])
        #expect(policy.ending == .exited(5) && policy.output.contains("POLICY_FAILURE"), "\(policy.output)")
        var block = try #require(readFile(out + "/id-block.bin"))
        block[0x54] ^= 1
        let changed = try file("changed.bin", block)
        let forged = try command(["id-block", "check", "--id-block", changed] + files.suffix(2))
        #expect(forged.ending == .exited(5) && forged.output.contains("ID_BLOCK_SIG"), "\(forged.output)")
        let exchanged = try command(["id-block", "check", "--id-block", files[3], "--id-auth", files[1]])
        #expect(exchanged.ending == .exited(3))
        let noKey = try command(
            ["id-block", "create", out, "--id-key", files[1], "--launch-digest", digest])
        #expect(noKey.ending == .exited(2), "the key would be overwritten: \(noKey.output)")
        let wrongKey = try command(["id-block", "create", out, "--id-key", changed, "--launch-digest", digest])
        #expect(wrongKey.ending == .exited(3) && wrongKey.output.contains("secp384r1"), "\(wrongKey.output)")
        let foreign = try command(
            [
                "id-block", "check", "--id-block", Self.vectors + "/id-block/id_block.bin", "--id-auth",
                Self.vectors + "/id-block/id_auth.bin",
            ])
        #expect(foreign.ending == .exited(0) && foreign.output.contains("59fb2c686dfa4fef"), "\(foreign.output)")
    }
}
