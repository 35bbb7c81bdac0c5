// The fuzz driver's short run, always the same inputs, and its canary; the benchmarks' tiny run.

import Testing
import TestSupport

@Suite struct FuzzDriverTests {
    @Test func theShortRunFindsNothing() throws {
        let driver = try #require(BuiltProgram.path("fuzz"))
        let (ending, output) = try ChildProcess.run(driver, ["smoke"])
        #expect(ending == .exited(0), "\(output)")
    }

    @Test func theDriverReportsWhatItFinds() throws {
        let driver = try #require(BuiltProgram.path("fuzz"))
        let (ending, output) = try ChildProcess.run(driver, ["canary"])
        #expect(ending == .exited(0), "\(output)")
    }

    /// Inputs that were found once stay found: Tests/Fuzz/Failures/FUZZER-anything.
    @Test func earlierFindsStayFixed() throws {
        let driver = try #require(BuiltProgram.path("fuzz"))
        let names = try ChildProcess.run(driver, ["list"]).output.split(separator: "\n").compactMap {
            $0.split(separator: ":").first.map(String.init)
        }
        #expect(!names.isEmpty)
        for file in folderEntries(PackageFolder.path + "/Tests/Fuzz/Failures") {
            guard let name = names.first(where: { file.hasPrefix($0 + "-") }) else { continue }
            let (ending, output) = try ChildProcess.run(
                driver, ["--input", PackageFolder.path + "/Tests/Fuzz/Failures/" + file, name])
            #expect(ending == .exited(0), "\(file): \(output)")
        }
    }

    @Test func wrongUseOfTheDriverIsRefused() throws {
        let driver = try #require(BuiltProgram.path("fuzz"))
        #expect(try ChildProcess.run(driver, ["--seed"]).ending == .exited(2))
        #expect(try ChildProcess.run(driver, ["--seed", "x", "all"]).ending == .exited(2))
        #expect(try ChildProcess.run(driver, ["no-such-fuzzer"]).ending == .exited(2))
    }

    @Test func theDigestBenchmarkGivesItsKnownResult() throws {
        let bench = try #require(BuiltProgram.path("bench"))
        let (ending, output) = try ChildProcess.run(bench, ["smoke"])
        #expect(ending == .exited(0), "\(output)")
    }
}
