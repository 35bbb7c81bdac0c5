// A processor that is not what the host says.

import KVMABI
import SEVABI

extension Scenario {
    static let liesAboutCPUID = Scenario(
        "lies-about-cpuid", "host lies in CPUID",
        attack: """
            The host claims features that no processor has: leaf 7 EBX is all ones. It hopes that the guest believes it and, \
            for instance, relies on an instruction or a defence that is not there.
            """,
        threat: "Trusted CPUID information",
        sev: Promise(
            .notStopped, "CPUID is intercepted and answered by the hypervisor", "[WP 1] Trusted CPUID information"),
        sevES: Promise(
            .notStopped, "CPUID raises #VC, and the answer comes from the hypervisor through the GHCB",
            "[WP 1] Trusted CPUID information; [GHCB 4.1.1]"),
        snp: Promise(
            .stopped,
            "the firmware compares the guest's CPUID page with the processor and refuses this one; a guest that uses its "
                + "page does not ask the host", "[WP 1] Trusted CPUID information; [SNP 8.17.2.6]")
    ) { (subject, laboratory) throws(Interruption) in
        let lie: UInt32 = 0xffff_ffff
        func tellLies(_ entries: inout [KVMCPUIDEntry]) {
            for index in entries.indices where entries[index].function == 7 && entries[index].index == 0 {
                entries[index].ebx = lie
            }
        }
        var evidence: [String] = []
        let victim: VictimMachine
        if subject == .snp {
            // First the page itself.
            let forged = try VictimMachine(subject, in: laboratory)
            tellLies(&forged.cpuid)
            try forged.addVCPU()
            try forged.require(forged.startSNP(), "KVM_SEV_SNP_LAUNCH_START")
            guard let region = forged.plan.regions.first(where: { $0.pageType == .cpuid }) else {
                throw .broken("the plan has no CPUID page")
            }
            let outcome = forged.update(region)
            evidence.append("LAUNCH_UPDATE of a CPUID page with leaf 7 EBX = \(hex(UInt64(lie))): \(outcome)")
            if outcome.isSuccess { return Observation(.notStopped, evidence) }
            // Then what the host answers a guest whose page is true.
            victim = try VictimMachine(subject, in: laboratory)
            let honest = victim.cpuidTable
            tellLies(&victim.cpuid)
            try victim.launch(cpuidPage: honest)
        } else {
            victim = try VictimMachine(subject, in: laboratory)
            tellLies(&victim.cpuid)
            try victim.launch()
        }
        try victim.start()
        let truth = victim.supportedCPUID.first { $0.function == 7 && $0.index == 0 }?.ebx ?? 0
        let believed = UInt32(truncatingIfNeeded: try victim.perform(.cpuid(function: 7, index: 0))[1])
        if subject.hasProtectedState {
            let asked = try victim.perform(.askHostForCPUID(function: 7))[1]
            evidence.append("the host answers through the GHCB: leaf 7 EBX = \(hex(asked))")
        }
        evidence.append(
            "the guest believes: leaf 7 EBX = \(hex(UInt64(believed))); the processor has \(hex(UInt64(truth)))")
        // KVM takes back what it cannot let a guest believe; what is left is enough.
        return Observation(believed & ~truth != 0 ? .notStopped : .stopped, evidence)
    }
}
