// The figures of a run, as text.

extension Judge {
    public static var formCount: Int { CaseGenerator.formCount }

    private static let maps = ["one byte", "0F", "0F 38", "0F 3A", "VEX 0F", "VEX 0F 38", "VEX 0F 3A"]

    /// What was compared, what differed, what is covered, and what is not.
    public func summary(systematic: Int) -> String {
        var out: [String] = []
        out.append(
            "compared    \(report.compared) cases: \(systematic) systematic, \(report.compared - systematic) random")
        out.append("differences \(report.differenceCount)")
        out.append("undefined   \(report.faults) of the cases are #UD on both sides; \(report.hangs) never end")
        out.append(
            "covered     \(report.forms.count) opcode forms (prefix, operand size, field, register or memory, mode)")
        for (map, counts) in report.opcodes.enumerated() {
            let covered = counts.indices.filter { counts[$0] > 0 }
            let mode = map < 7 ? "64-bit code" : "32-bit code"
            out.append("covered     \(mode), \(Self.maps[map % 7]): \(Self.ranges(covered))")
        }
        for (reason, count) in report.skipped.sorted(by: { $0.key < $1.key }) {
            out.append("not covered \(reason) (\(count))")
        }
        for (name, count) in report.differing.sorted(by: { $0.value > $1.value }) {
            out.append("differs     \(name): \(count)")
        }
        for line in report.differences.prefix(200) { out.append("difference  \(shrunk(line[...]))") }
        return out.joined(separator: "\n")
    }

    private static func ranges(_ numbers: [Int]) -> String {
        var parts: [String] = []
        var i = 0
        func text(_ n: Int) -> String { (n < 16 ? "0" : "") + hex(UInt64(n)) }
        while i < numbers.count {
            var k = i
            while k + 1 < numbers.count, numbers[k + 1] == numbers[k] + 1 { k += 1 }
            parts.append(i == k ? text(numbers[i]) : text(numbers[i]) + "-" + text(numbers[k]))
            i = k + 1
        }
        return parts.isEmpty ? "none" : parts.joined(separator: " ")
    }
}
