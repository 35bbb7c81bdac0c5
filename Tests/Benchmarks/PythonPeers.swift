// Other people's tools in Python, which do the same work: installed by `make deps-bench` where a package index can be
// reached, otherwise skipped.

import TestSupport

enum PythonPeers {
    /// One tool's time for one operation, and what it found.
    struct Result {
        var name: String
        /// Nil when the tool refuses the input.
        var seconds: Double?
        var result: String
    }

    /// The interpreter that has them.
    static var python: String? {
        let path = environment("SNPVMM_BENCH_PYTHON") ?? PackageFolder.path + "/.build/bench-peers/bin/python3"
        return readFile(path) == nil ? nil : path
    }

    /// Runs `peers.py`. Says why there is nothing to compare with where that is so.
    static func run(_ arguments: String...) throws -> [Result] {
        guard let python else {
            print(
                "  Python peers: skipped, not installed (`make deps-bench` does it where a package index can be reached)"
            )
            return []
        }
        let script = PackageFolder.path + "/Tests/Benchmarks/peers.py"
        let (ending, output) = try ChildProcess.run(python, [script] + arguments, timeoutMilliseconds: 300_000)
        guard ending == .exited(0) else {
            throw BenchmarkFailure(description: "peers.py ended with \(ending): \(output)")
        }
        return output.split(separator: "\n").compactMap { line in
            let words = line.split(separator: " ", maxSplits: 2).map(String.init)
            return words.count == 3 ? Result(name: words[0], seconds: Double(words[1]), result: words[2]) : nil
        }
    }
}
