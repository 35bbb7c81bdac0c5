// The differential judge as a program: every opcode form once or more, then random ones.

import ProcessorJudge

@main
struct Conformance {
    static func main() {
        var systematic = 1, random = 0, seed: UInt64 = 1, first = 0, kept = 3
        var limit = Int.max
        var lines: [String] = []
        var beginning: [UInt8]?
        var compatible = false, isShrinking = true
        var arguments = CommandLine.arguments.dropFirst()[...]
        func number() -> UInt64 {
            arguments = arguments.dropFirst()
            guard let text = arguments.first, let value = UInt64(text) else { return 0 }
            return value
        }
        while let argument = arguments.first {
            switch argument {
            case "--passes": systematic = Int(number())
            case "--random": random = Int(number())
            case "--seed": seed = number()
            case "--first": first = Int(number())
            case "--limit": limit = Int(number())
            case "--kept": kept = Int(number())
            case "--32": compatible = true
            case "--as-given": isShrinking = false
            case "--beginning":
                arguments = arguments.dropFirst()
                let text = arguments.first ?? ""
                beginning = stride(from: 0, to: text.count & ~1, by: 2).map {
                    UInt8(text.dropFirst($0).prefix(2), radix: 16) ?? 0x90
                }
            case "--help":
                print(
                    "usage: conformance [--passes N] [--random N] [--seed N] [--first FORM] [--limit FORMS] [--kept N] [--as-given] [LINE…]\n"
                        + "       conformance --random N --beginning BYTES [--32]: only instructions that begin with them"
                )
                return
            default: lines.append(argument)
            }
            arguments = arguments.dropFirst()
        }
        if let absence = Judge.absence() {
            print("conformance: skipped: \(absence)")
            return
        }
        guard let judge = Judge() else {
            print("conformance: the native child could not be started")
            return
        }
        judge.keptPerOpcode = kept
        if !lines.isEmpty {
            for line in lines {
                print(
                    isShrinking ? judge.shrunk(line[...]) : judge.difference(ofLine: line[...]) ?? "the same: \(line)")
            }
            return
        }
        if let beginning {
            for i in 0..<random {
                judge.addRandom(
                    beginning: beginning, compatible: compatible, seed: seed &* 0x2545_f491_4f6c_dd1d &+ UInt64(i))
            }
            judge.flush()
            print(judge.summary(systematic: 0))
            return
        }
        for pass in 0..<systematic {
            let end = min(Judge.formCount, first &+ limit < 0 ? Judge.formCount : first + min(limit, Judge.formCount))
            for form in first..<max(first, end) {
                judge.addSystematic(form, seed: seed &+ UInt64(pass) &* 0x1_0000_0001)
            }
        }
        judge.flush()
        let systematicCount = judge.report.compared
        for i in 0..<random { judge.addRandom(seed: seed &* 0x2545_f491_4f6c_dd1d &+ UInt64(i)) }
        judge.flush()
        print(judge.summary(systematic: systematicCount))
    }
}
