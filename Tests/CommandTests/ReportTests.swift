// `run --report` and the end of the launch log.

import TestSupport
import Testing

@Suite(.enabled(if: BuiltGuest.firmware("hello") != nil, "no flat guests: run `make firmware`"))
struct ReportTests {
    private struct Result {
        let ending: ChildProcess.Ending
        let output: String
        let page: String
        let log: [Substring]
    }

    private func run(_ arguments: [String]) throws -> Result {
        let command = try #require(BuiltProgram.path("swift-snp-vmm"))
        let stem = "/tmp/snpvmm-report-test-\(BuiltProgram.processIdentifier)-\(UInt32.random(in: 0 ... .max))"
        defer {
            removeFile(stem + ".html")
            removeFile(stem + ".log")
            _ = try? ChildProcess.run("rm", ["-rf", stem + ".platform"])
        }
        let (ending, output) = try ChildProcess.run(
            command,
            ["run", "--backend", "software", "--memory", "64M"] + arguments + [
                "--report", stem + ".html", "--launch-log", stem + ".log", "--platform-state", stem + ".platform",
            ], timeoutMilliseconds: 60_000)
        let page = String(decoding: readFile(stem + ".html") ?? [], as: UTF8.self)
        let log = String(decoding: readFile(stem + ".log") ?? [], as: UTF8.self)
        return Result(ending: ending, output: output, page: page, log: log.split(separator: "\n"))
    }

    private func report(_ result: Result) throws -> Substring {
        let lines = result.log.filter { $0.hasPrefix("{\"report\":") }
        #expect(lines.count == 1)
        return try #require(lines.first)
    }

    @Test
    func theWholePictureOfAnSNPRun() throws {
        let image = try #require(BuiltGuest.firmware("hello"))
        let result = try run([image])
        #expect(result.ending == .exited(0), "\(result.output)")
        for text in [
            "<title>hello.elf: SEV-SNP run</title>", "This run protected nothing.", "<code>SNP_LAUNCH_START</code>",
            "<code>SNP_LAUNCH_UPDATE</code>", "<code>SNP_LAUNCH_FINISH</code>", "key slot 1: hello.elf",
            "loads the key of ASID 1", "✓ as expected", "private, measured", "KVM_EXIT_IO",
            "The guest switched the machine off.",
        ] {
            #expect(result.page.contains(text), "\(text)")
        }
        let report = try report(result)
        for text in [
            "\"technology\":\"snp\"", "\"asid\":1", "\"vmsa\":\"0x", "\"ghcb\":\"0x", "\"state\":\"shared\"",
            "\"name\":\"SNP_LAUNCH_FINISH\"", "\"softwareMachine\":true",
        ] {
            #expect(report.contains(text), "\(text)")
        }
        // The digest of the page is the one that was announced.
        let announced = result.output.split(separator: "\n").first { $0.contains("measured before launch") }
        let digest = try #require(announced?.split(separator: " ").last)
        #expect(digest.count == 96)
        #expect(result.page.contains(digest) && report.contains(digest))
    }

    @Test(arguments: ["sev", "sev-es"])
    func theStepsOfALegacyLaunch(_ technology: String) throws {
        let image = try #require(BuiltGuest.firmware("hello"))
        let result = try run([image, "--confidential", technology, "--launch-only"])
        #expect(result.ending == .exited(0), "\(result.output)")
        for command in ["LAUNCH_START", "LAUNCH_UPDATE_DATA", "LAUNCH_MEASURE", "LAUNCH_FINISH"] {
            #expect(result.page.contains("<code>\(command)</code>"), "\(command)")
        }
        #expect(result.page.contains("<code>LAUNCH_UPDATE_VMSA</code>") == (technology == "sev-es"))
        #expect(!result.page.contains("<code>LAUNCH_SECRET</code>"))
        #expect(result.page.contains("5 LAUNCH_SECRET (no secret was given)"))
        #expect(result.page.contains("Launched, and not run"))
        #expect(result.page.contains("none yet: the guest has not run") == (technology == "sev-es"))
        #expect(result.page.contains("SEV measures no registers") == (technology == "sev"))
        #expect(try report(result).contains("\"after\":null"))
    }

    @Test
    func aRefusedLaunchHasAPageToo() throws {
        let image = try #require(BuiltGuest.firmware("hello"))
        // Reserved bits: the firmware refuses START.
        let result = try run([image, "--confidential", "sev", "--policy", "0x80"])
        #expect(result.ending != .exited(0))
        #expect(result.page.contains("The launch failed: could not start the launch"))
        #expect(result.page.contains("class=\"arrow failed\""))
        #expect(result.page.contains("Likely cause:"))
        #expect(result.page.contains("ASID not there: the launch failed"))
        #expect(!result.page.contains("not told to user space by this host"), "this host would have told")
        #expect(result.page.contains("<code>LAUNCH_START</code>"))
        #expect(!result.page.contains("<code>LAUNCH_UPDATE_DATA</code>"))
        #expect(try report(result).contains("\"success\":false"))
    }

    @Test
    func plainVMHasNoLaunch() throws {
        let image = try #require(BuiltGuest.firmware("hello"))
        let result = try run([image, "--confidential", "none"])
        #expect(result.ending == .exited(0), "\(result.output)")
        #expect(!result.page.contains("LAUNCH_"))
        #expect(try report(result).contains("\"keySlots\":null"))
    }

    @Test(
        .enabled(if: BuiltGuest.firmware("spin") != nil, "no flat guests: run `make firmware`"),
        arguments: [("spin", "spinning"), ("sleep", "sleeping")])
    func aRunThatASignalEndsHasItsPage(_ name: String, _ line: String) throws {
        let command = try #require(BuiltProgram.path("swift-snp-vmm"))
        let image = try #require(BuiltGuest.firmware(name))
        let stem = "/tmp/snpvmm-report-signal-\(BuiltProgram.processIdentifier)-\(name)"
        defer {
            removeFile(stem + ".html")
            _ = try? ChildProcess.run("rm", ["-rf", stem + ".platform"])
        }
        let child = try ChildProcess(
            command,
            [
                "run", image, "--backend", "software", "--memory", "64M", "--report", stem + ".html",
                "--platform-state", stem + ".platform",
            ], mergesError: true)
        let boot = child.read(until: line, timeoutMilliseconds: 60_000)
        try #require(boot.found, "\(boot.output)")
        child.terminate()
        _ = child.readUntilItEnds(timeoutMilliseconds: 60_000)
        #expect(child.wait().ending == .signalled(15))
        let page = String(decoding: readFile(stem + ".html") ?? [], as: UTF8.self)
        #expect(page.contains("Ended by the user.") && page.hasSuffix("</html>\n"))
    }

    @Test
    func aPathThatCannotBeWrittenIsFoundBeforeTheLaunch() throws {
        let command = try #require(BuiltProgram.path("swift-snp-vmm"))
        let image = try #require(BuiltGuest.firmware("hello"))
        let (ending, output) = try ChildProcess.run(
            command, ["run", image, "--backend", "software", "--report", "/nonexistent/out.html"])
        #expect(ending == .exited(3))
        #expect(output.contains("could not write the report to /nonexistent/out.html"))
        #expect(!output.contains("launch digest"))
    }
}
