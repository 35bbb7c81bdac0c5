// A fixed part of `make conformance-cpu`: the engine and the processor under it agree.

import ProcessorJudge
import TestSupport
import Testing

@Suite(.enabled(if: Judge.absence() == nil, "\(Judge.absence() ?? "")"), .serialized)
struct NativeJudgeTests {
    private func check(_ judge: Judge) {
        judge.flush()
        #expect(judge.report.compared > 1000)
        #expect(judge.report.differenceCount == 0, "\(judge.report.differences.joined(separator: "\n"))")
    }

    @Test func `every hundredth form`() throws {
        let judge = try #require(Judge())
        for form in stride(from: 7, to: Judge.formCount, by: 97) { judge.addSystematic(form, seed: 20_261_123) }
        check(judge)
    }

    @Test func `random instructions`() throws {
        let judge = try #require(Judge())
        for seed: UInt64 in 0..<10_000 { judge.addRandom(seed: seed &* 0x9e37_79b9_7f4a_7c15) }
        check(judge)
    }

    @Test func `what differed once`() throws {
        let judge = try #require(Judge())
        let path = PackageFolder.path + "/Tests/ProcessorJudge/Failures/cases.txt"
        let text = String(decoding: try #require(readFile(path)), as: UTF8.self)
        let lines = text.split(separator: "\n").filter { !$0.hasPrefix(";") }
        #expect(!lines.isEmpty)
        for line in lines {
            let difference = judge.difference(ofLine: line)
            #expect(difference == nil, "\(line): \(difference ?? "")")
        }
    }
}
