// The digest of SEV and SEV-ES: all plaintext in order, nothing else.

import Crypto
import GuestImage
import LaunchMeasurement
import SEVABI
import TestSupport
import Testing
import X86Defs

struct ContentsDigestTests {
    private func region(_ gpa: UInt64, _ contents: [UInt8]) -> LaunchPlan.Region {
        LaunchPlan.Region(
            label: "data", pageType: .normal, gpa: gpa, byteCount: UInt64(contents.count), contents: contents)
    }

    private func measure(
        _ regions: [LaunchPlan.Region], _ technology: GuestTechnology = .sev, processors: [ProcessorState] = []
    ) -> MeasuredLaunch {
        MeasuredLaunch(
            of: LaunchPlan(regions: regions, processors: processors, guestFeatures: 0, technology: technology))
    }

    private func sha256(_ bytes: [UInt8]) -> [UInt8] {
        let digest = SHA256.hash(bytes)
        return (0..<32).map { digest[$0] }
    }

    @Test func nothingIsTheHashOfNothing() {
        let digest = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
        #expect(measure([]).digestText == digest && measure([], .sevES).digestText == digest)
        #expect(RunningContentsDigest().digestBytes.hex == digest)
    }

    @Test func addressesAndBordersDoNotEnter() {
        var generator = SeededGenerator(seed: 0x5e7)
        let contents = generator.bytes(4096 + 176)
        let whole = measure([region(0, contents)])
        let parts = measure([region(0x8000, Array(contents.prefix(16))), region(0x10, Array(contents.dropFirst(16)))])
        #expect(whole.digestBytes == sha256(contents) && parts.digestBytes == whole.digestBytes)
        let exchanged = measure([region(0, Array(contents.dropFirst(16))), region(0, Array(contents.prefix(16)))])
        #expect(exchanged.digestBytes != whole.digestBytes)
    }

    @Test func stepsOfSEV() {
        let measured = measure(
            [region(0x1000, [UInt8](repeating: 1, count: 4096)), region(0x9010, [UInt8](repeating: 2, count: 176))],
            processors: [ProcessorState()])
        #expect(measured.technology == .sev && measured.steps.map(\.label) == ["data", "data"])
        #expect(measured.steps.map(\.gpa) == [0x1000, 0x9010] && measured.steps.map(\.byteCount) == [4096, 176])
        #expect(measured.steps.map(\.pageCount) == [1, 1] && measured.steps.allSatisfy { $0.pageType == .normal })
        #expect(measured.steps[0].digestBytes == sha256([UInt8](repeating: 1, count: 4096)))
        #expect(measured.steps[1].digestBytes == measured.digestBytes && measured.digestBytes.count == 32)
    }

    /// The sealed states come last, in order, and only where state is encrypted.
    @Test func statesOfSEVES() {
        var other = ProcessorState()
        other.rip = 0x1234
        let data = region(0, [UInt8](repeating: 3, count: 4096))
        let measured = measure([data], .sevES, processors: [ProcessorState(), other])
        let pages = [ProcessorState(), other].map { SealedState(of: $0, guestFeatures: 0).page }
        #expect(measured.digestBytes == sha256(data.contents + pages[0] + pages[1]))
        #expect(measured.steps.map(\.label) == ["data", "VMSA 0", "VMSA 1"])
        #expect(measured.steps[1].digestBytes == sha256(data.contents + pages[0]))
        #expect(measured.steps[2].contentsDigest == LaunchDigest(SHA384.hash(pages[1])))
        #expect(measure([data], .sev, processors: [other]).digestBytes == sha256(data.contents))
        #expect(pages[0][0x3b0] == 0)
    }

    /// What a launch log does: bytes as they pass, the digest after each.
    @Test func runningDigest() {
        let running = RunningContentsDigest()
        var sum: [UInt8] = []
        for count in [16, 4096, 176] {
            let bytes = [UInt8](repeating: UInt8(truncatingIfNeeded: count), count: count)
            running.extend(bytes)
            sum += bytes
            #expect(running.digestBytes == sha256(sum))
        }
        let state = SealedState(of: ProcessorState(), guestFeatures: 0)
        running.extend(state)
        #expect(running.digestBytes == sha256(sum + state.page))
    }

    /// Both digests of the same direct boot, and what tells them apart.
    @Test func oneByteAnywhereChangesTheDigest() throws {
        var plan = LaunchPlan(
            regions: [
                region(0, [UInt8](repeating: 0, count: 4096)), region(0x1000, [UInt8](repeating: 0, count: 176)),
            ],
            processors: [ProcessorState()], guestFeatures: 0, technology: .sevES)
        let digest = MeasuredLaunch(of: plan).digestBytes
        for (index, offset) in [(0, 0), (0, 4095), (1, 175)] {
            plan.regions[index].contents[offset] ^= 1
            #expect(MeasuredLaunch(of: plan).digestBytes != digest)
            plan.regions[index].contents[offset] ^= 1
        }
        plan.processors[0].generalRegisters[6] = 1
        #expect(MeasuredLaunch(of: plan).digestBytes != digest)
        plan.policy = 0
        plan.processors[0].generalRegisters[6] = 0
        #expect(MeasuredLaunch(of: plan).digestBytes == digest)
    }
}
