// `platform` for SNP as a program: products, versions and their rules, certificates, a VLEK, and two processes at once.

import Glibc
import Synchronization
import TestSupport
import Testing

@Suite("The platform's commands for SNP")
struct PlatformCommandTests {
    private static let path = (environment("TMPDIR") ?? "/tmp") + "/snp-vmm-platform-\(BuiltProgram.processIdentifier)"
    private static let counter = Mutex(0)

    /// A fresh folder; it goes when the process does.
    func folder() throws -> String {
        let number = Self.counter.withLock { count in
            if count == 0 { atexit { _ = try? ChildProcess.run("rm", ["-rf", PlatformCommandTests.path]) } }
            count += 1
            return count
        }
        #expect(mkdir(Self.path, 0o700) == 0 || errno == EEXIST)
        let path = Self.path + "/\(number)"
        try #require(mkdir(path, 0o700) == 0)
        return path
    }

    func command(_ arguments: [String]) throws -> (ending: ChildProcess.Ending, output: String) {
        try ChildProcess.run(
            try #require(BuiltProgram.path("swift-snp-vmm")), arguments, timeoutMilliseconds: 300_000)
    }

    /// A platform of a product.
    struct Lab {
        let tests: PlatformCommandTests
        let folder: String
        var options: [String] { ["--backend", "software", "--platform-state", folder + "/state"] }

        init(_ tests: PlatformCommandTests, _ arguments: [String]) throws {
            self.tests = tests
            folder = try tests.folder()
            let made = try tests.command(
                ["platform", "create", "--seed", "tests", "--platform-state", folder + "/state"] + arguments)
            try #require(made.ending == .exited(0), "\(made.output)")
        }

        func platform(_ arguments: [String]) throws -> (ending: ChildProcess.Ending, output: String) {
            try tests.command(["platform"] + arguments + options)
        }

        /// What must work.
        func must(_ arguments: [String]) throws -> String {
            let (ending, output) = try platform(arguments)
            #expect(ending == .exited(0), "\(arguments): \(output)")
            return output
        }
    }

    @Test("products and report versions: what `show` says, and that a guest is launched by the same plan")
    func products() throws {
        let cases: [([String], [String])] = [
            ([], ["Milan (family 25, model 1)", "1.55.29", "version 3", "snpSPL=24"]),
            (
                ["--product", "Genoa", "--report-version", "5"],
                ["Genoa (family 25, model 17)", "1.55.43", "version 5"]
            ),
            (["--product", "turin"], ["Turin (family 26, model 2)", "1.58.1", "version 5", "fmcSPL=1", "(8 bytes)"]),
        ]
        for (arguments, texts) in cases {
            let lab = try Lab(self, arguments)
            let shown = try lab.must(["show"])
            for text in texts where text != "(8 bytes)" { #expect(shown.contains(text), "\(shown)") }
            // Turin's chip id ends after 8 bytes.
            #expect(shown.contains(String(repeating: "0", count: 112)) == texts.contains("(8 bytes)"), "\(shown)")
            let json = try lab.must(["show", "--json"])
            #expect(
                json.contains(
                    "\"product\":\"\(shown.contains("Milan") ? "Milan" : shown.contains("Genoa") ? "Genoa" : "Turin")\""
                ))
            #expect(json.contains("\"vlekLoaded\":false") && json.contains("\"committedVersions\":"))
            if let guest = BuiltGuest.firmware("hello") {
                let measured = try command(["measure", guest])
                let run = try command(["run", guest] + lab.options)
                #expect(run.ending == .exited(0), "\(run.output)")
                let digest = measured.output.split(separator: "\n").last.map(String.init) ?? "none"
                #expect(run.output.contains(digest), "\(run.output)")
            }
        }
    }

    @Test("what is no platform is refused by name")
    func refusedProducts() throws {
        let state = ["--platform-state", try folder() + "/state"]
        let cases: [([String], String)] = [
            (["--product", "venice"], "are not public"), (["--product", "Bergamo"], "give genoa"),
            (["--product", "rome"], "expected one of milan, genoa, turin"),
            (["--report-version", "4"], "expected 2, 3 or 5"),
        ]
        for (arguments, text) in cases {
            let refused = try command(["platform", "create"] + state + arguments)
            #expect(refused.ending == .exited(2) && refused.output.contains(text), "\(refused.output)")
        }
        #expect(folderEntries(state[1]).isEmpty, "nothing was made")
    }

    @Test("set-tcb: the firmware's rules, each refusal with its status, and what stays")
    func versions() throws {
        let lab = try Lab(self, ["--product", "genoa"])
        #expect(
            try lab.must(["set-tcb", "--current", "snpSPL=25,ucodeSPL=90"]).contains(
                "current TCB:   blSPL=10 teeSPL=0 snpSPL=25 ucodeSPL=90"))
        let cases: [([String], Int32, String)] = [
            (["--reported", "snpSPL=24"], 4, "INVALID_PARAM (0x16)"),
            (["--committed", "snpSPL=26"], 4, "INVALID_PARAM (0x16)"),
            (["--committed", "snpSPL=22"], 4, "BAD_SVN (0x21)"), (["--current", "snpSPL=22"], 4, "BAD_SVN (0x21)"),
            (["--current", "ucodeSPL=83"], 4, "cannot be rolled back"),
            (["--reported", "fmcSPL=1"], 2, "components of Genoa"),
            (["--reported", "snpSPL=256"], 2, "up to 255"), (["--reported", "snp"], 2, "blSPL="),
            ([], 2, "at least one"),
            (["--commit", "--committed", "snpSPL=24"], 2, "exclude each other"),
            (["--mask-chip-id", "maybe"], 2, "mask-chip-id"),
        ]
        let before = try lab.must(["show", "--json"])
        for (arguments, status, text) in cases {
            let refused = try lab.platform(["set-tcb"] + arguments)
            #expect(
                refused.ending == .exited(status) && refused.output.contains(text), "\(arguments): \(refused.output)")
        }
        #expect(try lab.must(["show", "--json"]) == before)
        #expect(
            try lab.must(["set-tcb", "--committed", "snpSPL=24"]).contains("reported TCB:  blSPL=10 teeSPL=0 snpSPL=23")
        )
        #expect(
            try lab.must(["set-tcb", "--reported", "committed", "--mask-chip-id", "on"]).contains(
                "reported TCB:  blSPL=10 teeSPL=0 snpSPL=24"))
        #expect(try lab.must(["show"]).contains("(masked)"))
        #expect(
            try lab.must(["set-tcb", "--commit"]).contains("reported TCB:  blSPL=10 teeSPL=0 snpSPL=25 ucodeSPL=90"))
        let shown = try lab.must(["show"])
        #expect(shown.contains("(masked)"), "SNP_COMMIT leaves the masks alone")
        #expect(try lab.must(["set-tcb", "--mask-chip-id", "off", "--mask-chip-key", "on"]).contains("snpSPL=25"))
        #expect(try lab.must(["show"]).contains("nobody: the chip's key is masked"))
    }

    @Test("certificates: of the platform's product and TCB, for openssl too, and the same each time")
    func certificates() throws {
        let lab = try Lab(self, ["--product", "turin"])
        let names = ["ark.pem", "ask.pem", "asvk.pem", "crl.pem", "vcek.pem"]
        _ = try lab.must(["export-certs", lab.folder + "/a"])
        #expect(folderEntries(lab.folder + "/a").filter { $0.hasSuffix(".pem") } == names)
        _ = try lab.must(["set-tcb", "--reported", "snpSPL=3"])
        _ = try lab.must(["load-vlek"])
        #expect(try lab.must(["show"]).contains("the loaded VLEK"))
        _ = try lab.must(["export-certs", lab.folder + "/b"])
        #expect(folderEntries(lab.folder + "/b").contains("vlek.pem"))
        for name in names {
            let same = readFile(lab.folder + "/a/" + name) == readFile(lab.folder + "/b/" + name)
            #expect(same == (name != "vcek.pem"), "\(name)")
        }
        let listed = try command(["certs", "show", lab.folder + "/b"])
        #expect(listed.ending == .exited(0) && listed.output.contains("snpSPL=3"), "\(listed.output)")
        #expect(!listed.output.contains("left out"), "SEV's certificates lie beside them: \(listed.output)")
        _ = try lab.must(["load-vlek", "--remove"])
        #expect(try lab.must(["show"]).contains("the chip's VCEK"))
        let blob = lab.folder + "/blob"
        writeFile(blob, [UInt8](repeating: 0, count: 432))
        let foreign = try lab.platform(["load-vlek", blob])
        #expect(foreign.ending == .exited(4) && foreign.output.contains("BAD_MEASUREMENT"), "\(foreign.output)")
        writeFile(blob, [1])
        #expect(try lab.platform(["load-vlek", blob]).ending == .exited(3))
    }

    @Test("two processes that change different things at the same time: neither change is lost")
    func processes() throws {
        let lab = try Lab(self, [])
        let program = try #require(BuiltProgram.path("swift-snp-vmm"))
        let changes = [
            ["--mask-chip-id", "on"], ["--reported", "snpSPL=20"], ["--current", "ucodeSPL=230"],
            ["--mask-chip-key", "on"],
        ]
        let children = try changes.map {
            try ChildProcess(program, ["platform", "set-tcb"] + $0 + lab.options, mergesError: true)
        }
        for child in children {
            var output: [UInt8] = []
            while let more = child.read(timeoutMilliseconds: 120_000) { output += more }
            #expect(child.wait().ending == .exited(0), "\(String(decoding: output, as: UTF8.self))")
        }
        let json = try lab.must(["show", "--json"])
        for text in [
            "\"masksChipID\":true", "\"masksChipKey\":true", "\"reportedVersions\":\"blSPL=4 teeSPL=0 snpSPL=20",
            "\"currentVersions\":\"blSPL=4 teeSPL=0 snpSPL=24 ucodeSPL=230\"",
        ] { #expect(json.contains(text), "\(text) in \(json)") }
    }

    @Test("run --certs: what cannot be handed to a guest is refused before anything is launched")
    func runCertificates() throws {
        let guest = try #require(BuiltGuest.firmware("hello"), Comment(rawValue: BuiltGuest.absence))
        let lab = try Lab(self, [])
        _ = try lab.must(["export-certs", lab.folder + "/certs"])
        let good = try command(["run", guest, "--certs", lab.folder + "/certs"] + lab.options)
        #expect(good.ending == .exited(0), "\(good.output)")
        let table = lab.folder + "/table.bin"
        let made = try command([
            "certs", "export", lab.folder + "/certs", "--trusted-root", lab.folder + "/certs/ark.pem", "--chip",
            try chipID(lab), "--table", table,
        ])
        #expect(made.ending == .exited(0), "\(made.output)")
        #expect(try command(["run", guest, "--certs", table] + lab.options).ending == .exited(0))
        var long = try #require(readFile(table))
        long += [UInt8](repeating: 0, count: 0x4001 - long.count)
        writeFile(lab.folder + "/long.bin", long)
        writeFile(lab.folder + "/odd.bin", [1, 2, 3])
        mkdir(lab.folder + "/empty", 0o700)
        mkdir(lab.folder + "/wrong", 0o700)
        for (from, to) in [("vcek.pem", "vcek.pem"), ("asvk.pem", "ask.pem"), ("ark.pem", "ark.pem")] {
            writeFile(lab.folder + "/wrong/" + to, try #require(readFile(lab.folder + "/certs/" + from)))
        }
        let cases: [(String, [String], Int32, String)] = [
            ("/long.bin", [], 3, "expected at most 16384"), ("/odd.bin", [], 3, "certificate table"),
            ("/empty", [], 3, "neither a VCEK nor a VLEK"), ("/none", [], 3, "ENOENT"),
            ("/wrong", [], 3, "ASK certificate"),
            ("/certs", ["--confidential", "sev-es"], 2, "belongs to --confidential snp"),
        ]
        for (path, options, status, text) in cases {
            let refused = try command(["run", guest, "--certs", lab.folder + path] + options + lab.options)
            #expect(refused.ending == .exited(status) && refused.output.contains(text), "\(path): \(refused.output)")
            #expect(!refused.output.contains("LAUNCH_FINISH"), "\(refused.output)")
        }
    }

    private func chipID(_ lab: Lab) throws -> String {
        let shown = try lab.must(["show"])
        let line = try #require(shown.split(separator: "\n").first { $0.hasPrefix("chip id:") })
        return String(try #require(line.split(separator: " ").last))
    }
}
