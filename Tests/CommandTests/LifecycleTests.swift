// Two thousand machines, one after the other, leave nothing behind in their process.

import Testing
import TestSupport

@Suite(.enabled(if: BuiltGuest.firmware("hello") != nil, "no flat guests: run `make firmware`"))
struct LifecycleTests {
    /// Kind of guest, machines, vCPUs of each.
    @Test(arguments: [
        ("none", 1000, 1), ("sev", 300, 1), ("sev-es", 300, 1), ("snp", 400, 1), ("none", 100, 2), ("snp", 100, 2),
    ])
    func nothingIsLeftBehind(_ technology: String, _ count: Int, _ processorCount: Int) throws {
        let program = try #require(BuiltProgram.path("lifecycles"))
        let (ending, output) = try ChildProcess.run(
            program, [try #require(BuiltGuest.firmware("hello")), technology, "\(count)", "\(processorCount)"],
            timeoutMilliseconds: 240_000)
        try #require(ending == .exited(0), "\(output)")
        let lines = output.split(separator: "\n").filter { $0.hasPrefix("descriptors ") }
        try #require(lines.count == 2, "\(output)")
        let (before, after) = (numbers(lines[0]), numbers(lines[1]))
        try #require(before.count == 4 && after.count == 4, "\(output)")
        #expect(after[0] == before[0], "descriptors: \(output)")
        // Dispatch keeps threads for the next vCPUs, for a while: a handful, however many machines there were.
        #expect(after[1] <= before[1] + processorCount + 2, "threads: \(output)")
        // The allocator may split or join what it has.
        #expect(after[2] <= before[2] + 4, "mappings: \(output)")
        // The allocator's own wavering, and less than a KiB for each machine.
        #expect(after[3] <= before[3] + 512 + count, "memory: \(output)")
    }

    private func numbers(_ line: Substring) -> [Int] { line.split(separator: " ").compactMap { Int($0) } }
}
