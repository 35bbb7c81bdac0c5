// The flat guests of Firmware/ on SoftwareKVM and on this machine's own kernel: the same transcript, line by line, but for
// the named differences.

import KernelComparison
import TestSupport
import Testing

@Suite(
    .enabled(if: HostModule.isPresent, Comment(rawValue: HostModule.absence)),
    .enabled(if: BuiltGuest.firmware("hello") != nil, "no flat guests: run `make firmware`"), .serialized)
struct GuestTests {
    /// Guests that need two processors are not helped: no instruction of theirs could be executed for them atomically.
    @Test(arguments: [
        "hello", "unknown-bytes", "unknown-bytes-bare", "self-modifying", "page-faults", "embedded-swift", "paging",
        "segments", "exceptions", "single-step", "breakpoints", "apic-timer", "transfers", "msrs", "triple-fault",
        "interprocessor",
    ])
    func transcriptsAreEqual(_ guest: String) throws {
        let path = try #require(BuiltGuest.firmware(guest))
        let image = try #require(readFile(path))
        let isAlone = guest != "interprocessor"
        let comparison = try GuestComparison.run(image: image, processorCount: isAlone ? 1 : 2, assisted: isAlone)
        let verdict = comparison.verdict(guest: guest)
        let gaps = comparison.real.unemulated.sorted { $0.key < $1.key }.map { "\($0.key) ×\($0.value)" }
        print(
            "\(guest): \(comparison.software.exitCount) and \(comparison.real.exitCount) exits, \(verdict.equalCount) lines equal;",
            "known differences: \(verdict.names.sorted());", "executed for the kernel: \(gaps)", verdict.end ?? "")
        if !HostModule.isCompared, !verdict.unknown.isEmpty {
            try Test.cancel(
                "a kernel that has not been compared before differs: \(verdict.unknown.joined(separator: "\n"))")
        }
        #expect(verdict.unknown == [])
        #expect(verdict.equalCount > 0)
        guard HostModule.isCompared else { return }
        for difference in NamedGuestDifference.all where difference.guest == guest && !difference.dependsOnTime {
            let isBehindTheEnd = verdict.end != nil && !verdict.names.contains(difference.name)
            #expect(verdict.names.contains(difference.name) || isBehindTheEnd, "no longer met: \(difference.name)")
        }
    }

    /// The names and the documentation's page are one list.
    @Test func everyDifferenceIsInTheDocumentation() throws {
        let path = PackageFolder.path + "/Sources/SoftwareKVM/SoftwareKVM.docc/Decisions/TheTwoKernelsCompared.md"
        let page = String(decoding: try #require(readFile(path)), as: UTF8.self)
        for name in NamedGuestDifference.all.map(\.name) + NamedRequestDifference.all.map(\.name) {
            #expect(page.contains("| \(name) |"), "\(name)")
        }
    }
}
