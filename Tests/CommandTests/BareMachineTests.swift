// `run --machine bare`: a Multiboot image and a ROM, how they end, and what is refused.

import TestSupport
import Testing

@Suite(.enabled(if: BuiltGuest.bareImage("modes") != nil, "no bare images: run `make firmware`"))
struct BareMachineTests {
    private func run(_ arguments: [String]) throws -> (ending: ChildProcess.Ending, output: String) {
        let command = try #require(BuiltProgram.path("swift-snp-vmm"))
        return try ChildProcess.run(
            command, ["run", "--machine", "bare", "--backend", "software", "--memory", "64M"] + arguments,
            timeoutMilliseconds: 60_000)
    }

    @Test func everyModeAndItsWayBack() throws {
        let image = try #require(BuiltGuest.bareImage("modes"))
        let (ending, output) = try run([image, "--cmdline", "words for the image", "--debug-exit", "0xf4"])
        let lines = output.split(whereSeparator: \.isNewline)
        #expect(lines.contains("words for the image"))
        #expect(lines.filter { $0.hasPrefix("ok ") }.count == 9, "\(output)")
        #expect(!lines.contains { $0.hasPrefix("BAD") }, "\(output)")
        #expect(ending == .exited(1))
    }

    @Test func resetVector() throws {
        let rom = try #require(BuiltGuest.bareImage("reset"))
        let (ending, output) = try run(["--rom", rom, "--debug-exit", "0xf4", "--debug-console", "0xe9"])
        #expect(output.contains("reset"))
        #expect(ending == .exited(1), "\(output)")
    }

    @Test(arguments: [
        ["--kernel", "x"], ["--confidential", "snp", "x"], ["x", "--rom", "y"], ["--rom", "y", "--cmdline", "z"],
        ["x", "--debug-exit", "0x10000"],
    ])
    func usage(_ arguments: [String]) throws {
        #expect(try run(arguments).ending == .exited(2))
    }

    @Test func takenPort() throws {
        let image = try #require(BuiltGuest.bareImage("modes"))
        #expect(try run([image, "--debug-exit", "0x3f8"]).ending == .exited(2))
    }

    @Test func notMultiboot() throws {
        let rom = try #require(BuiltGuest.bareImage("reset"))
        let (ending, output) = try run([rom])
        #expect(ending == .exited(3))
        #expect(output.contains("Multiboot"))
    }
}
