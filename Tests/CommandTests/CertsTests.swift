// `certs` as a program: a store is made, shown, used and exported from; what does not belong is refused.

import Glibc
import TestSupport
import Testing

@Suite("Certificate stores", .enabled(if: ForeignVectors.arePresent, Comment(rawValue: ForeignVectors.absence)))
struct CertsTests {
    static let vectors = ForeignVectors.folder ?? ""
    static let time = ["--at-time", "1759276800"]

    private let tool = VerifyTests()

    private func certs(_ arguments: String...) throws -> (ending: ChildProcess.Ending, output: String) {
        try tool.command(["certs"] + arguments)
    }

    /// A folder of this test's own, which is empty.
    private func folder(_ name: String) throws -> String {
        let path = try tool.folder() + "/certs-" + name
        _ = try ChildProcess.run("rm", ["-rf", path])
        return path
    }

    private func make(_ path: String) throws {
        #expect(try ChildProcess.run("mkdir", ["-p", path]).ending == .exited(0))
    }

    @Test func aStoreOfManyChips() throws {
        let store = try folder("many")
        let real = try certs("import", store, Self.vectors + "/report-real")
        #expect(real.ending == .exited(0), "\(real.output)")
        #expect(
            real.output.contains("added  VLEK  vlek/v1/Milan/CN_cc-us-east-2.amazonaws.com/bl04_tee00_snp24_ucode217_"))
        let more = try certs(
            "import", store, Self.vectors + "/cert-only/turin-vcek.der", Self.vectors + "/cert-only/turin-ask.pem",
            Self.vectors + "/cert-only/turin-ark.pem", Self.vectors + "/cert-table/vcek.bin")
        #expect(more.output.contains("added  VCEK  vcek/1e550a8ee5cf9f4d/bl00_tee00_snp00_ucode09_fmc00_vcek.der"))
        #expect(more.output.contains("present  ASK and ARK  vcek/v1/Genoa/cert_chain"), "\(more.output)")
        // Roots that are not AMD's must be named, and lie apart.
        let synthetic = Self.vectors + "/report-synthetic/synth-turin-v5"
        let refused = try certs("import", store, synthetic)
        #expect(refused.ending == .exited(5) && refused.output.contains("Simulated Micro Devices"), "\(refused.output)")
        let named = try certs("import", store, synthetic, "--trusted-root", synthetic + "/ark.der")
        #expect(named.ending == .exited(0) && named.output.contains("added  VCEK  roots/"), "\(named.output)")

        for sample in folderEntries(Self.vectors + "/report-real") where !sample.hasSuffix(".md") {
            let report = Self.vectors + "/report-real/\(sample)/report.bin"
            let verified = try tool.command(["verify", report, "--certs", store] + Self.time)
            #expect(verified.output.contains("genuine:      yes"), "\(sample): \(verified.output)")
        }
        let turin = try tool.command(
            ["verify", synthetic + "/report.bin", "--certs", store, "--trusted-root", synthetic + "/ark.der"]
                + Self.time)
        #expect(turin.output.contains("TRUSTED ONLY BECAUSE YOU NAMED IT"), "\(turin.output)")

        let shown = try certs("show", store)
        #expect(shown.ending == .exited(0) && shown.output.contains("chain:         to AMD's root"))
        #expect(shown.output.contains("WHICH IS NOT KNOWN HERE AS AMD'S"))
        let json = try certs("show", store, "--json")
        for text in [
            #""kind":"VLEK""#, #""providerID":"CN=cc-us-east-2.amazonaws.com""#, #""hardwareID":"1e550a8ee5cf9f4d""#,
            #""ucodeSPL":217"#, #""root":"AMD""#, #""damaged":[]"#,
        ] { #expect(json.output.contains(text), "\(text)") }

        // Both ways between stores and tables.
        let report = Self.vectors + "/report-real/oak-genoa-v5/report.bin"
        let table = try folder("table")
        let exported = try certs("export", store, "--report", report, "--table", table)
        #expect(exported.ending == .exited(0), "\(exported.output)")
        #expect(readFile(table) == readFile(Self.vectors + "/cert-table/vcek.bin"))
        let files = try folder("files")
        let vlek = try certs("export", store, "--vlek", "--product", "milan", "--folder", files)
        #expect(vlek.ending == .exited(0), "\(vlek.output)")
        #expect(folderEntries(files) == ["ark.pem", "asvk.pem", "vlek.pem"])
        let again = try tool.command(
            ["verify", Self.vectors + "/report-real/trustee-milan-v3-vlek/report.bin", "--certs", files] + Self.time)
        #expect(again.output.contains("genuine:      yes"), "\(again.output)")
        let chip = try certs(
            "export", store, "--chip", "1e550a8ee5cf9f4d", "--tcb", "ucodeSPL=9", "--folder", files, "--der")
        #expect(chip.ending == .exited(0) && chip.output.contains("VCEK of Turin 1e550a8ee5cf9f4d"), "\(chip.output)")
        #expect(readFile(files + "/vcek.der") == readFile(Self.vectors + "/cert-only/turin-vcek.der"))
        let noCRL = try certs("export", store, "--chip", "1e550a8ee5cf9f4d", "--table", table, "--crl")
        #expect(noCRL.ending == .exited(3) && noCRL.output.contains("CRL"), "\(noCRL.output)")
    }

    @Test func whatIsRefused() throws {
        let store = try folder("refused")
        let junk = try tool.file("junk.der", [0x30, 3, 2, 1, 1])
        let genoa = Self.vectors + "/report-real/oak-genoa-v5"
        let cases: [([String], Int32, String)] = [
            ([junk], 3, "neither"), ([genoa + "/report.bin"], 3, "certificate table"),
            ([genoa + "/vcek.der"], 3, "ASK certificate: expected one"), ([store + "/nowhere"], 3, "ENOENT"),
            ([Self.vectors + "/guest-message"], 3, "found none"),
            ([Self.vectors + "/cert-only"], 5, "milan-vcek-badsig-raw-hwid.der, signature"), ([], 2, "source"),
        ]
        for (sources, status, text) in cases {
            let result = try tool.command(["certs", "import", store] + sources)
            #expect(result.ending == .exited(status) && result.output.contains(text), "\(sources): \(result.output)")
        }
        #expect(folderEntries(store).allSatisfy { $0 == ".lock" }, "nothing was imported")
        let damaged = try certs("show", junk)
        #expect(damaged.ending == .exited(3) && damaged.output.contains("neither"))
        // A name that says something else than the certificate.
        let other = try folder("exchanged")
        try make("\(other)/vcek/1e550a8ee5cf9f4d")
        try #require(writeFile("\(other)/vcek/1e550a8ee5cf9f4d/vcek.der", try #require(readFile(genoa + "/vcek.der"))))
        let exchanged = try certs("import", store, other, genoa)
        #expect(exchanged.ending == .exited(5) && exchanged.output.contains("as its name says"), "\(exchanged.output)")
    }

    @Test func linksInAStoreAreNotFollowed() throws {
        let store = try folder("links")
        let outside = try folder("outside")
        try make(store)
        try make(outside)
        let genoa = Self.vectors + "/report-real/oak-genoa-v5"
        try #require(symlink(outside, store + "/vcek") == 0)
        let refused = try certs("import", store, genoa)
        #expect(refused.ending == .exited(3) && refused.output.contains("a link in the place"), "\(refused.output)")
        #expect(folderEntries(outside).isEmpty)
        // A link in a file's place is not written through either.
        unlink(store + "/vcek")
        try make(store + "/vcek/v1/Genoa")
        let victim = try tool.file("victim", [1, 2, 3])
        try #require(symlink(victim, store + "/vcek/v1/Genoa/cert_chain") == 0)
        let second = try certs("import", store, genoa)
        #expect(second.ending == .exited(3), "\(second.output)")
        #expect(readFile(victim) == [1, 2, 3])
        // Folders that link to themselves end.
        let loop = try folder("loop")
        try make(loop)
        try #require(symlink(".", loop + "/again") == 0)
        let name = "\u{1b}[2Jvcek.der"
        try #require(writeFile(loop + "/" + name, [0x30, 0]))
        let shown = try certs("show", loop)
        #expect(shown.ending == .exited(3) && !shown.output.contains("\u{1b}"), "\(shown.output)")
    }
}
