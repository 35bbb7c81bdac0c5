// Two thousand machines, one after the other, leave nothing behind in their process.

import Testing
import TestSupport

@Suite(.enabled(if: BuiltGuest.firmware("hello") != nil, "no flat guests: run `make firmware`"))
struct LifecycleTests {
    @Test(arguments: [("none", 1000), ("sev", 300), ("sev-es", 300), ("snp", 400)])
    func nothingIsLeftBehind(_ technology: String, _ count: Int) throws {
        let program = try #require(BuiltProgram.path("lifecycles"))
        let (ending, output) = try ChildProcess.run(
            program, [try #require(BuiltGuest.firmware("hello")), technology, "\(count)"], timeoutMilliseconds: 240_000)
        try #require(ending == .exited(0), "\(output)")
        let lines = output.split(separator: "\n").filter { $0.hasPrefix("descriptors ") }
        try #require(lines.count == 2, "\(output)")
        let (before, after) = (numbers(lines[0]), numbers(lines[1]))
        try #require(before.count == 4 && after.count == 4, "\(output)")
        #expect(after[0] == before[0], "descriptors: \(output)")
        #expect(after[1] == before[1], "threads: \(output)")
        // The allocator may split or join what it has.
        #expect(after[2] <= before[2] + 4, "mappings: \(output)")
        // A page left by each machine would be more.
        #expect(after[3] <= before[3] + 1024, "memory: \(output)")
    }

    private func numbers(_ line: Substring) -> [Int] { line.split(separator: " ").compactMap { Int($0) } }
}
