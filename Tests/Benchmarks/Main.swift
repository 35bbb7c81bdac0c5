// The benchmark driver. It compares, it promises no absolute numbers: the machine it runs on is not ours.
//
//   bench                    everything: engine, digest, attestation, start, boot (5 runs each)
//   bench start [--runs N]
//   bench boot [--runs N] [--command-line notests|default|both]
//   bench engine | digest | attestation
//   bench smoke              engine, and the others but boot on little data; used by a test
//
// Exit status: 0, or 1 when a benchmark could not run or its result was wrong.

import Glibc
import TestSupport

@main
enum Bench {
    static func main() {
        var arguments = CommandLine.arguments.dropFirst()
        var runs = 5
        var lines = BootBenchmark.CommandLineKind.allCases
        var names: [String] = []
        while let word = arguments.popFirst() {
            switch word {
            case "--runs":
                guard let value = arguments.popFirst(), let number = Int(value), number > 0 else { usage() }
                runs = number
            case "--command-line":
                guard let value = arguments.popFirst() else { usage() }
                if value == "both" { continue }
                guard let kind = BootBenchmark.CommandLineKind(rawValue: value) else { usage() }
                lines = [kind]
            case "boot", "digest", "engine", "attestation", "start", "smoke": names.append(word)
            default: usage()
            }
        }
        if names.isEmpty { names = ["engine", "digest", "attestation", "start", "boot"] }
        do {
            for name in names {
                switch name {
                case "digest":
                    try DigestBenchmark.run(
                        memoryByteCount: 512 << 20, contentsByteCount: 64 << 20,
                        expected: "04e53ef44fdd9e9c3910ea71e2190ddc")
                    try DigestBenchmark.runWhole(byteCount: 256 << 20, rounds: 3)
                    try DigestBenchmark.runAgainstPeers()
                case "engine": try EngineBenchmark.run()
                case "start": try StartBenchmark(runs: runs).run()
                case "attestation": try AttestationBenchmark.run(count: 400)
                case "smoke":
                    try EngineBenchmark.run()
                    try DigestBenchmark.run(
                        memoryByteCount: 16 << 20, contentsByteCount: 1 << 20,
                        expected: "cf73fa49a67a31f2a5bfa38d3e75c4ac")
                    try DigestBenchmark.runWhole(byteCount: 2 << 20, rounds: 1)
                    try AttestationBenchmark.run(count: 2)
                default: try BootBenchmark(runs: runs, kinds: lines).run()
                }
            }
        } catch {
            print("bench: \(error)")
            exit(1)
        }
    }

    static func usage() -> Never {
        print(
            "usage: bench [boot [--runs N] [--command-line notests|default|both]] [start] [engine] [digest] [attestation] | smoke"
        )
        exit(2)
    }
}

/// Why a benchmark gave no number.
struct BenchmarkFailure: Error, CustomStringConvertible {
    var description: String
}

/// Seconds of a clock that only goes forward.
func now() -> Double {
    var time = timespec()
    clock_gettime(CLOCK_MONOTONIC, &time)
    return Double(time.tv_sec) + Double(time.tv_nsec) / 1e9
}

/// The middle one; of an even number the mean of the two middle ones.
func median(_ values: [Double]) -> Double {
    let sorted = values.sorted()
    guard !sorted.isEmpty else { return .nan }
    let middle = sorted.count / 2
    return sorted.count % 2 == 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2
}

/// With a fixed number of decimals.
func decimal(_ value: Double, _ places: Int) -> String {
    guard value.isFinite else { return "-" }
    var scale = 1.0
    for _ in 0..<places { scale *= 10 }
    let scaled = (value.magnitude * scale).rounded()
    let whole = (value < 0 ? "-" : "") + String(Int(scaled / scale))
    let fraction = String(Int(scaled) % Int(scale))
    return places == 0 ? whole : whole + "." + String(repeating: "0", count: places - fraction.count) + fraction
}
