// The terminal: raw while a guest has it, and as before on every way out.

import Testing
import TestSupport

@Suite struct TerminalTests {
    func start(_ image: String, on terminal: PseudoTerminal, _ more: [String] = []) throws -> ChildProcess {
        let command = try #require(BuiltProgram.path("swift-snp-vmm"))
        return try ChildProcess(
            command, ["run", "--backend", "software", "--memory", "64M", image] + more, on: terminal)
    }

    /// Guests that end in different ways, and a launch that is refused.
    @Test(
        .enabled(if: BuiltGuest.firmware("hello") != nil, "no flat guests: run `make firmware`"),
        arguments: [
            ("hello", [], 0), ("triple-fault", [], 6), ("terminate", [], 6), ("hello", ["--policy", "0x0"], 5),
        ]
            as [(String, [String], Int32)])
    func theTerminalIsAsBefore(_ name: String, _ more: [String], _ status: Int32) throws {
        let terminal = try PseudoTerminal()
        let before = terminal.modes
        try #require(before.count == 4 && !terminal.isRaw)
        let child = try start(try #require(BuiltGuest.firmware(name)), on: terminal, more)
        let output = child.readUntilItEnds(timeoutMilliseconds: 120_000)
        #expect(child.wait().ending == .exited(status), "\(output)")
        #expect(terminal.modes == before)
    }

    /// Guests that compute or sleep for ever: raw meanwhile, Ctrl-A h helps, Ctrl-A x ends them with status 0.
    @Test(
        .enabled(if: BuiltGuest.firmware("spin") != nil, "no flat guests: run `make firmware`"),
        arguments: [("spin", "spinning"), ("sleep", "sleeping")])
    func controlAEndsTheGuest(_ name: String, _ line: String) throws {
        let terminal = try PseudoTerminal()
        let before = terminal.modes
        let child = try start(try #require(BuiltGuest.firmware(name)), on: terminal)
        let boot = child.read(until: line, timeoutMilliseconds: 120_000)
        try #require(boot.found, "\(boot.output)")
        #expect(terminal.isRaw)
        child.write("\u{1}h")
        #expect(child.read(until: "this help", timeoutMilliseconds: 60_000).found)
        child.write("\u{1}x")
        let output = child.readUntilItEnds(timeoutMilliseconds: 120_000)
        #expect(child.wait().ending == .exited(0), "\(output)")
        #expect(terminal.modes == before)
    }

    /// Ended by a signal from outside.
    @Test(
        .enabled(if: BuiltGuest.firmware("spin") != nil, "no flat guests: run `make firmware`"),
        arguments: [("spin", "spinning"), ("sleep", "sleeping")])
    func aSignalGivesTheTerminalBack(_ name: String, _ line: String) throws {
        let terminal = try PseudoTerminal()
        let before = terminal.modes
        let child = try start(try #require(BuiltGuest.firmware(name)), on: terminal)
        let boot = child.read(until: line, timeoutMilliseconds: 120_000)
        try #require(boot.found, "\(boot.output)")
        #expect(terminal.isRaw)
        child.terminate()
        _ = child.readUntilItEnds(timeoutMilliseconds: 120_000)
        #expect(child.wait().ending != .exited(0))
        #expect(terminal.modes == before)
    }
}
