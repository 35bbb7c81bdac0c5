// The requests of a plain VM on SoftwareKVM and on this machine's own kernel: same result, errno, bytes and state, but for
// the named differences.

import KVMABI
import KernelComparison
import Testing

@Suite(.enabled(if: HostModule.isPresent, Comment(rawValue: HostModule.absence)), .serialized)
struct RequestTests {
    /// A part of the list, spread over all of it; `make fuzz` takes any of it.
    @Test func conformanceList() throws {
        let list = RequestSweep.all
        try compare(stride(from: 0, to: list.count, by: 41).map { list[$0] }, "list of \(list.count)")
    }

    @Test func sequencesFromSeeds() throws {
        try compare((1...150).map { RequestSequence(seed: $0) }, "seeds 1 to 150")
    }

    /// Each was a difference once, of a kind that the sample above need not meet.
    @Test func pastDifferences() throws {
        func vcpu(_ request: IoctlRequest, _ byteCount: Int, _ changes: RequestStep.Change...) -> RequestStep {
            RequestStep(.vcpu(0), request, .bytes(.zeros(byteCount), changes))
        }
        let (plain, irqchip) = (RequestSetup(), RequestSetup(hasIRQChip: true))
        let halt = RequestSetup(code: [0xf4])
        try compare(
            [
                // APIC_BASE has rules without a local APIC, too.
                RequestSequence(
                    plain, [RequestStep(.vcpu(0), .setSpecialRegisters, .bytes(.current, [.init(0x110, 8, 1, .xor)]))]),
                // Unknown bits of KVM_SET_GUEST_DEBUG.
                RequestSequence(plain, [vcpu(.setGuestDebug, 72, .init(0, 4, 4))]),
                // A vector that the VMM injects does not wait for RFLAGS.IF.
                RequestSequence(halt, [vcpu(.interrupt, 4, .init(0, 4, 0x20)), RequestStep(.vcpu(0), .run)]),
                // The last of two vectors counts.
                RequestSequence(
                    plain, [vcpu(.interrupt, 4, .init(0, 4, 0x20)), vcpu(.interrupt, 4, .init(0, 4, 0x30))]),
                // Two NMIs wait at most.
                RequestSequence(irqchip, (0..<3).map { _ in RequestStep(.vcpu(0), .nmi) }),
                // A second vCPU without local APICs can run.
                RequestSequence(
                    RequestSetup(vcpuCount: 2), [RequestStep(.vcpu(1), .getMPState, .bytes(.zeros(4), []))]),
                // CR8 with reserved bits is ignored.
                RequestSequence(
                    plain, [RequestStep(.vcpu(0), .setSpecialRegisters, .bytes(.current, [.init(0x100, 8, 0x86)]))]),
                // The compacted format, and reserved bytes.
                RequestSequence(plain, [RequestStep(.vcpu(0), .setXSave, .bytes(.current, [.init(0x20f, 1, 0x80)]))]),
                RequestSequence(plain, [RequestStep(.vcpu(0), .setXSave, .bytes(.current, [.init(0x218, 1, 1)]))]),
                // Frames that nested paging does not reach.
                RequestSequence(
                    plain,
                    [
                        RequestStep(
                            .vm, .setUserMemoryRegion,
                            .bytes(
                                .zeros(32),
                                [.init(0, 4, 1), .init(8, 8, 1 << 62), .init(16, 8, 0x1000), .init(24, 8, 0, .pointer)])
                        )
                    ]),
                // A message that nobody hears.
                RequestSequence(
                    irqchip, [RequestStep(.vm, .signalMSI, .bytes(.zeros(32), [.init(0, 4, 0x7fff_ffff)]))]),
                RequestSequence(irqchip, [RequestStep(.vm, .getPIT2, .bytes(.zeros(112), []))]),
                RequestSequence(irqchip, [RequestStep(.vm, .getIRQChip, .bytes(.zeros(520), [.init(0, 4, 1)]))]),
                RequestSequence(irqchip, [RequestStep(.vm, .createPIT2, .bytes(.zeros(64), [.init(0, 4, 8)]))]),
                RequestSequence(plain, [RequestStep(.vm, .setBootCPUID, .value(0x1001))]),
                RequestSequence(RequestSetup(vcpuCount: 0), [RequestStep(.vm, .setBootCPUID, .value(0x1001))]),
            ], "past differences")
    }

    private func compare(_ sequences: [RequestSequence], _ what: String) throws {
        let pair = try KernelPair()
        var (compared, unemulated) = (0, 0)
        var named: [String: Int] = [:]
        var unknown: [String] = []
        for sequence in sequences {
            let verdict = try pair.run(sequence)
            compared += verdict.comparedCount
            if verdict.wasNotEmulated { unemulated += 1 }
            guard let difference = verdict.difference else { continue }
            if let known = NamedRequestDifference.of(difference) {
                named[known.name, default: 0] += 1
            } else {
                unknown.append("\(sequence): \(difference)")
            }
        }
        let names = named.sorted { $0.key < $1.key }.map { "\($0.key) \($0.value)" }
        print(
            "\(what): \(sequences.count) sequences, \(compared) answers equal, \(unemulated) not emulated; named: \(names)"
        )
        if !HostModule.isCompared, !unknown.isEmpty {
            try Test.cancel("a kernel that has not been compared before differs: \(unknown.joined(separator: "\n"))")
        }
        #expect(unknown == [])
        #expect(compared > sequences.count)
    }
}
