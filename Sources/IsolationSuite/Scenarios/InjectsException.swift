// Exceptions from nowhere.

import KVMABI

extension Scenario {
    static let injectsException = Scenario(
        "injects-exception", "host injects an exception",
        attack: """
            The guest runs with interrupts off, at an instruction that cannot fault. The host makes the processor deliver a \
            #GP there (KVM_SET_VCPU_EVENTS), and hopes that the guest's handler runs and draws conclusions.
            """,
        threat: "Malicious interrupt/exception injection",
        sev: Promise(
            .notStopped, "events are injected by the hypervisor, whatever the guest's flags say",
            "[WP 1] Malicious interrupt/exception injection"),
        sevES: Promise(
            .notStopped, "the guest's registers are encrypted, but what is injected is still the hypervisor's choice",
            "[WP 1] Malicious interrupt/exception injection"),
        snp: Promise(
            .notStopped,
            "AMD's table says \"optional\": restricted or alternate injection stops it, and KVM offers neither",
            "[WP 1] Malicious interrupt/exception injection; [APM2 15.36.16]")
    ) { (subject, laboratory) throws(Interruption) in
        let victim = try laboratory.victim(subject)
        var evidence: [String] = []
        do throws(Errno) {
            var events = KVMVCPUEvents()
            events.exceptionInjected = 1
            events.exceptionNumber = 13
            events.exceptionHasErrorCode = 1
            events.exceptionErrorCode = 0x2468
            try victim.kernel.call(victim.vcpu, .setVCPUEvents, reading: events)
            evidence.append("KVM_SET_VCPU_EVENTS with #GP, error code 0x2468: done")
        } catch {
            evidence.append("KVM_SET_VCPU_EVENTS: \(error)")
            return Observation(.stopped, evidence)
        }
        try victim.perform(.idle)
        let report = try victim.perform(.events)
        guard report[0] > 0 else {
            evidence.append("the guest saw no exception")
            return Observation(.stopped, evidence)
        }
        evidence.append(
            "the guest's handler ran \(report[0]) time(s), last for vector \(report[1] &- 1) with error code \(hex(report[2]))"
        )
        return Observation(.notStopped, evidence)
    }
}
