// The software kernel and this machine's own, asked the same: sequences of requests from a seed, and cases of the
// conformance list. Where /dev/kvm does not open there is nothing to compare.

import KernelComparison
import TestSupport

let bothKernelsFuzzers = [
    Fuzzer(
        name: "both-kernels",
        summary: "the same requests to SoftwareKVM and to /dev/kvm: results, errno, bytes, state, exits",
        smokeIterations: 150, parts: 10, generate: { $0.bytes(8) }, check: { check(RequestSequence(seed: number($0))) }),
    Fuzzer(
        name: "both-kernels-list",
        summary: "any case of the list of requests with good and bad arguments, on both kernels",
        smokeIterations: 200, generate: { $0.bytes(8) },
        check: { check(list[Int(number($0) % UInt64(list.count))]) }),
]

private let list = RequestSweep.all
/// Made when it is first asked for; nil without a real kernel.
private let pair: KernelPair? = HostModule.isPresent ? try? KernelPair() : nil

@Sendable private func number(_ input: [UInt8]) -> UInt64 { input.prefix(8).reduce(0) { $0 << 8 | UInt64($1) } }

@Sendable private func check(_ sequence: RequestSequence) -> Outcome {
    guard let pair else { return .uninteresting("no /dev/kvm") }
    do {
        let verdict = try pair.run(sequence)
        guard let difference = verdict.difference else {
            return verdict.wasNotEmulated ? .uninteresting("not emulated by the real kernel") : .fine("equal")
        }
        if let known = NamedRequestDifference.of(difference) { return .fine("known: \(known.name)") }
        if !HostModule.isCompared { return .uninteresting("differs, on a kernel that has not been compared") }
        let short = sequence.shortened { shorter in
            guard let difference = try? pair.run(shorter).difference else { return false }
            return NamedRequestDifference.of(difference) == nil
        }
        let cause = (try? pair.run(short).difference) ?? difference
        return .impossible("\(short): \(cause)")
    } catch {
        return .impossible("a VM could not be made: \(error)")
    }
}
