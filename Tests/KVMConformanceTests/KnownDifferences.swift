// Where a kernel is known to answer differently, by name, with the reason. The test named here is cancelled on that
// kernel, visibly, and only if it shows the symptom: a kernel that does better is held to the list like any other.

import KVMABI
import Testing

/// One test that one kernel is known to end otherwise.
struct KnownDifference: Sendable {
    var kernel: String
    var test: String
    /// How it shows: the exit that comes instead.
    var symptom: ExitReason
    var reason: Comment
}

let knownDifferences: [KnownDifference] = [
    KnownDifference(
        kernel: "LinuxKVM", test: "x87 and SSE state reaches the guest and comes back", symptom: .internalError,
        reason: "this host's KVM emulates every guest instruction, and its emulator lacks most of SSE"),
    KnownDifference(
        kernel: "LinuxKVM", test: "a resampled line lasts until the guest's EOI, which is told", symptom: .io,
        reason: "this host's KVM tells of the end already when the handler begins, before the guest's EOI"),
]

extension KernelUnderTest {
    /// Cancels the calling test if the table knows that this kernel ends it with `reason`.
    func cancelIfKnown(_ reason: ExitReason, _ function: String = #function) throws {
        let test = function.split(separator: "(").first.map { $0.filter { $0 != "`" } } ?? function
        if let entry = knownDifferences.first(where: {
            $0.kernel == name && $0.test == test && $0.symptom == reason
        }) {
            try Test.cancel(entry.reason)
        }
    }
}
