// A guest whose shell a test types into.

import TestSupport
import Testing

/// A running guest, with the prompt of its shell on the console.
final class GuestShell {
    private let process: ChildProcess
    /// Everything that the command and the guest have written.
    private(set) var transcript = ""

    /// Boots: `run` with these arguments.
    init(_ arguments: [String]) throws {
        let command = try #require(BuiltProgram.path("swift-snp-vmm"))
        process = try ChildProcess(command, ["run", "--quiet"] + arguments, mergesError: true)
        let boot = process.read(until: "guest:", timeoutMilliseconds: BootTests.patience)
        transcript = boot.output
        try #require(boot.found, "\(boot.output)")
    }

    /// The command's process.
    var identifier: Int32 { process.identifier }

    /// Types a line and returns what the guest writes until it has been carried out, the typed line itself included.
    func run(_ line: String) throws -> String {
        // What is typed is echoed: the mark must not be in it.
        process.write(line + "; echo mark-$((6 * 7))\n")
        let answer = process.read(until: "mark-42", timeoutMilliseconds: BootTests.patience)
        transcript += answer.output
        try #require(answer.found, "\(answer.output)")
        return answer.output
    }

    /// Ends the guest from within.
    func powerOff() -> ChildProcess.Ending {
        process.write("poweroff -f\n")
        transcript += process.readUntilItEnds(timeoutMilliseconds: BootTests.patience)
        return process.wait().ending
    }

    deinit { process.kill() }
}
