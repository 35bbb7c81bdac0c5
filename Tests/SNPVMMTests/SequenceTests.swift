// The exact requests of a launch, byte for byte, against files that were reviewed: Tests/Fixtures/Sequences.
//
// The kernel is scripted, so nothing of the host is in them. After a change that is meant, run the tests once with
// SNPVMM_RECORD_SEQUENCES=1, which writes the files anew, and review the difference; SNPVMM.docc,
// Decisions/TheLaunchSequence says what each step is and how other VMMs do it.

import GuestImage
import KVMABI
import SEVABI
import SNPVMM
import TestSupport
import Testing

/// One configuration with a file of its own.
private struct Configuration: CustomTestStringConvertible, Sendable {
    var name: String
    var technology: GuestTechnology?
    var processorCount = 1
    var hasOwner = false
    var isSigned = false

    var testDescription: String { name }

    var plan: LaunchPlan {
        var plan = technology.map { $0 == .snp ? samplePlan() : sevPlan($0) } ?? plainPlan
        while plan.processors.count < processorCount { plan.processors.append(plan.processors[0]) }
        return plan
    }

    private var plainPlan: LaunchPlan {
        var plan = samplePlan(features: 0)
        plan.regions = [plan.regions[0]]
        return plan
    }

    var identity: LaunchIdentity {
        guard isSigned else { return LaunchIdentity() }
        var block = IDBlock(bytes: [UInt8](repeating: 0, count: 96))!
        block.guestSVN = 7
        var hostData = [32 of UInt8](repeating: 0)
        for index in 0..<32 { hostData[index] = UInt8(index) }
        return LaunchIdentity(
            hostData: hostData,
            identityBlock: (block, IDAuthentication(bytes: [UInt8](repeating: 0x1d, count: 4096))!),
            disablesVCEK: true)
    }
}

private let configurations = [
    Configuration(name: "plain", technology: nil),
    Configuration(name: "plain-2-vcpus", technology: nil, processorCount: 2),
    Configuration(name: "sev", technology: .sev),
    Configuration(name: "sev-owner", technology: .sev, hasOwner: true),
    Configuration(name: "sev-es", technology: .sevES),
    Configuration(name: "sev-es-owner", technology: .sevES, hasOwner: true),
    Configuration(name: "snp", technology: .snp),
    Configuration(name: "snp-2-vcpus-id-block", technology: .snp, processorCount: 2, isSigned: true),
]

@Suite struct SequenceTests {
    @Test(arguments: configurations)
    private func `the launch is the reviewed one`(_ configuration: Configuration) throws {
        let recorder = SequenceRecorder(ScriptedKernel())
        let host = try Host(recorder)
        let cpuid = try host.guestCPUID(
            processorCount: configuration.processorCount, technology: configuration.technology)
        let owner = ScriptedOwner(.init(session: ScriptedOwner.session, packets: [SEVLaunchTests.packet]))
        let machine = try Machine(
            host: host,
            configuration: MachineConfiguration(
                technology: configuration.technology, memoryByteCount: 16 << 20, plan: configuration.plan,
                cpuid: cpuid, identity: configuration.identity),
            owner: configuration.hasOwner ? owner : nil, console: { _ in })
        let text = recorder.text
        withExtendedLifetime(machine) {}

        let file = PackageFolder.path + "/Tests/Fixtures/Sequences/\(configuration.name).txt"
        if environment("SNPVMM_RECORD_SEQUENCES") != nil {
            let written = writeFile(file, Array(text.utf8))
            #expect(written)
            return
        }
        let reviewed = String(decoding: try #require(readFile(file), "no \(file)"), as: UTF8.self)
        let (expected, found) = (
            reviewed.split(separator: "\n", omittingEmptySubsequences: false),
            text.split(separator: "\n", omittingEmptySubsequences: false)
        )
        let difference = zip(expected, found).enumerated().first { $1.0 != $1.1 }
        if let (line, (expected, found)) = difference {
            Issue.record("line \(line + 1): \(found); reviewed: \(expected)")
        }
        #expect(expected.count == found.count)
    }
}
