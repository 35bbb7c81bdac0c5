// What a fuzzer is, and how one is driven: every iteration has its own generator made from the seed and its number, so
// each can be repeated alone.

import Glibc
import TestSupport

/// How one input was taken.
enum Outcome {
    /// Accepted, or answered by the protocol's own means. The text groups outcomes in the statistics.
    case fine(String)
    /// Refused at once: such inputs say little.
    case uninteresting(String)
    /// Must not happen; says what did.
    case impossible(String)
}

/// One subject of fuzzing.
struct Fuzzer: Sendable {
    /// As on the command line.
    var name: String
    var summary: String
    /// Iterations of `smoke`: a second or two.
    var smokeIterations: Int
    /// What one input consists of, if not of one thing: byte sequences.
    var parts = 1
    /// Makes an input.
    var generate: @Sendable (inout SeededGenerator) -> [UInt8]
    /// Feeds it.
    var check: @Sendable ([UInt8]) -> Outcome
}

/// What a run found.
struct Report {
    var counts: [String: Int] = [:]
    /// Iteration and what happened.
    var finds: [(iteration: UInt64, what: String)] = []
}

/// A different generator for each iteration; the same for the same seed, fuzzer and iteration.
func generator(seed: UInt64, name: String, iteration: UInt64) -> SeededGenerator {
    let salt = name.utf8.reduce(UInt64(0xcbf2_9ce4_8422_2325)) { ($0 ^ UInt64($1)) &* 0x100_0000_01b3 }
    var first = SeededGenerator(seed: seed ^ salt)
    return SeededGenerator(seed: first.next() &+ iteration)
}

extension Fuzzer {
    /// Runs iterations `first`..<`first + count`.
    func run(seed: UInt64, first: UInt64, count: Int) -> Report {
        var report = Report()
        for step in 0..<UInt64(count) {
            let iteration = first &+ step
            var numbers = generator(seed: seed, name: name, iteration: iteration)
            let input = generate(&numbers)
            LastInput.set(name: name, seed: seed, iteration: iteration)
            switch check(input) {
            case .fine(let kind): report.counts["fine: " + kind, default: 0] += 1
            case .uninteresting(let kind): report.counts["uninteresting: " + kind, default: 0] += 1
            case .impossible(let what):
                report.counts["IMPOSSIBLE", default: 0] += 1
                report.finds.append((iteration, what))
                if report.finds.count >= 10 { return report }
            }
        }
        return report
    }
}

/// Names the input at work when the program traps, so that it can be made again.
enum LastInput {
    /// Written by the one thread that fuzzes, read by the signal handler on that same thread.
    nonisolated(unsafe) private static let text = UnsafeMutablePointer<CChar>.allocate(capacity: 256)

    static func set(name: String, seed: UInt64, iteration: UInt64) {
        set(
            "\nTRAP or endless loop in fuzzer \(name)."
                + " Again: fuzz --seed \(seed) --first \(iteration) --iterations 1 \(name)\n")
    }

    /// What to say if the program traps now, or has not gone on within 20 seconds.
    static func set(_ line: String) {
        alarm(20)
        // SAFETY: 256 bytes were allocated; the line is cut to fit with its zero byte.
        strncpy(text, line, 255)
    }

    static func reportTraps() {
        text.initialize(repeating: 0, count: 256)
        for number in [SIGILL, SIGTRAP, SIGSEGV, SIGBUS, SIGABRT, SIGFPE, SIGALRM] {
            signal(number) { _ in
                // Only calls that are allowed in a signal handler.
                _ = write(2, LastInput.text, strlen(LastInput.text))
                _exit(1)
            }
        }
    }
}
