// The fuzz driver.
//
//   fuzz list
//   fuzz smoke                                        every fuzzer for a second or two, always the same inputs
//   fuzz [--seed N] [--first N] [--iterations N | --rounds N] NAME… | all
//                                                     a round is as many inputs as `smoke` takes
//   fuzz --seed N --first N --dump FILE NAME          writes one input to a file instead of feeding it
//   fuzz --input FILE NAME                            feeds a file
//   fuzz canary                                       a fuzzer that must find something: shows that the driver reports
//
// Exit status: 0 nothing found, 1 something impossible happened (or a trap), 2 usage.

import Glibc
import TestSupport

@main
enum Fuzz {
    static let fuzzers: [Fuzzer] =
        imageFuzzers + processorFuzzers + [processorModesFuzzer] + ghcbFuzzers + ioctlFuzzers + sevCommandFuzzers
        + ownerFuzzers
        + attestationFuzzers + storeFuzzers + platformStateFuzzers + vsockFuzzers + virtioFuzzers + secretFuzzers
        + hostFuzzers + bothKernelsFuzzers

    static let canary = Fuzzer(
        name: "canary", summary: "must find the byte string that starts with two equal bytes", smokeIterations: 10_000,
        generate: { $0.bytes(4) },
        check: { $0[0] == $0[1] ? .impossible("two equal bytes: \($0.hex)") : .uninteresting("different") })

    struct Options {
        var seed: UInt64 = 1
        var first: UInt64 = 0
        var iterations: Int?
        var rounds = 10
        var dump: String?
        var input: String?
        var names: [String] = []
    }

    static func main() {
        guard let options = parse(Array(CommandLine.arguments.dropFirst())), !options.names.isEmpty else { usage() }
        LastInput.reportTraps()
        switch options.names {
        case ["list"]:
            for fuzzer in fuzzers { print("\(fuzzer.name): \(fuzzer.summary)") }
        case ["smoke"]:
            var found = false
            for fuzzer in fuzzers { found = run(fuzzer, options, count: fuzzer.smokeIterations) || found }
            exit(found ? 1 : 0)
        case ["canary"]:
            let report = canary.run(seed: options.seed, first: 0, count: canary.smokeIterations)
            print(report.finds.isEmpty ? "canary: nothing found, the driver is blind" : "canary: found, as it must be")
            exit(report.finds.isEmpty ? 1 : 0)
        default:
            let chosen = options.names == ["all"] ? fuzzers : fuzzers.filter { options.names.contains($0.name) }
            guard options.names == ["all"] || chosen.count == options.names.count else { usage() }
            var found = false
            for fuzzer in chosen {
                if let path = options.dump {
                    var numbers = generator(seed: options.seed, name: fuzzer.name, iteration: options.first)
                    guard writeFile(path, fuzzer.generate(&numbers)) else { fail("cannot write \(path)") }
                } else if let path = options.input {
                    guard let bytes = readFile(path) else { fail("cannot read \(path)") }
                    LastInput.set("\nTRAP or endless loop with \(path)\n")
                    let outcome = fuzzer.check(bytes)
                    print("\(fuzzer.name): \(outcome)")
                    if case .impossible = outcome { found = true }
                } else {
                    let count = options.iterations ?? fuzzer.smokeIterations &* options.rounds
                    found = run(fuzzer, options, count: count) || found
                }
            }
            exit(found ? 1 : 0)
        }
    }

    /// Prints statistics and finds; true when there was one.
    static func run(_ fuzzer: Fuzzer, _ options: Options, count: Int) -> Bool {
        let report = fuzzer.run(seed: options.seed, first: options.first, count: count)
        let parts = fuzzer.parts > 1 ? " of \(fuzzer.parts) parts, \(count &* fuzzer.parts) in all" : ""
        print("\(fuzzer.name): \(count) inputs\(parts), seed \(options.seed)")
        for (kind, number) in report.counts.sorted(by: { $0.key < $1.key }) { print("  \(number)  \(kind)") }
        for find in report.finds {
            print("  FOUND \(find.what)")
            print("  again: fuzz --seed \(options.seed) --first \(find.iteration) --iterations 1 \(fuzzer.name)")
        }
        return !report.finds.isEmpty
    }

    static func parse(_ arguments: [String]) -> Options? {
        var options = Options()
        var rest = arguments[...]
        while let word = rest.popFirst() {
            guard word.hasPrefix("--") else {
                options.names.append(word)
                continue
            }
            guard let value = rest.popFirst() else { return nil }
            switch word {
            case "--seed": guard let number = UInt64(value) else { return nil }; options.seed = number
            case "--first": guard let number = UInt64(value) else { return nil }; options.first = number
            case "--iterations":
                guard let number = Int(value), number > 0 else { return nil }
                options.iterations = number
            case "--rounds":
                guard let number = Int(value), number > 0, number <= 1_000_000 else { return nil }
                options.rounds = number
            case "--dump": options.dump = value
            case "--input": options.input = value
            default: return nil
            }
        }
        return options
    }

    static func usage() -> Never {
        fail(
            """
            usage: fuzz list | smoke | canary
                   fuzz [--seed N] [--first N] [--iterations N | --rounds N] [--dump FILE | --input FILE] NAME... | all
            fuzzers: \(fuzzers.map(\.name).joined(separator: " "))
            """, status: 2)
    }

    static func fail(_ message: String, status: Int32 = 1) -> Never {
        _ = (message + "\n").withCString { write(2, $0, strlen($0)) }
        exit(status)
    }
}
