// One list of what the manual leaves undefined: the documentation's table is the one that the judge applies.

import ProcessorJudge
import TestSupport
import Testing

struct UndefinedFlagsTests {
    @Test func `the documented table is the judge's`() throws {
        let path = PackageFolder.path + "/Sources/X86Core/X86Core.docc/WhereProcessorsDiffer.md"
        let text = String(decoding: try #require(readFile(path)), as: UTF8.self)
        let lines = text.split(separator: "\n").map(String.init)
        let start = try #require(lines.firstIndex(of: "| instructions | undefined |"))
        let rows = lines[(start + 2)...].prefix { $0.hasPrefix("|") }
        #expect(Array(rows) == UndefinedFlags.rules.map { "| \($0.instructions) | \($0.flags.names) |" })
    }
}
