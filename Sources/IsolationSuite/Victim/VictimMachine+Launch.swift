// Launching a victim: the plan executed, as far as its technology has steps.

import GuestImage
import KVMABI
import SEVABI

extension VictimMachine {
    /// The CPUID page that goes with ``cpuid``: maxima, vendor, features, the SEV leaf.
    var cpuidTable: CPUIDTable {
        let leaves: [UInt32] = [0x0, 0x1, 0x7, 0x8000_0000, 0x8000_0001, 0x8000_001f]
        return CPUIDTable(
            entries: cpuid.filter { leaves.contains($0.function) && $0.index == 0 }.map { entry in
                var leaf = CPUIDTableEntry(
                    function: entry.function, eax: entry.eax, ebx: entry.ebx, ecx: entry.ecx, edx: entry.edx)
                // What firmware refuses on real hardware although the kernel offers it: TSC deadline timer, TSC_ADJUST,
                // speculation controls, nested virtualisation.
                if entry.function == 1 { leaf.ecx &= ~(1 << 24) }
                if entry.function == 7 {
                    leaf.ebx &= ~(1 << 1)
                    leaf.edx = 0
                }
                if entry.function == 0x8000_0001 { leaf.ecx &= ~(1 << 2) }
                return leaf
            })
    }

    /// The launch that ``image`` and ``cpuid`` ask for.
    var plan: LaunchPlan { image.plan(cpuid: cpuidTable) }

    /// Launches the guest; the launch must go well.
    ///
    /// - Parameter cpuidPage: What an SNP guest gets; nil takes the one of ``cpuid``.
    func launch(cpuidPage: CPUIDTable? = nil) throws(Interruption) {
        let plan = image.plan(cpuid: cpuidPage ?? cpuidTable)
        switch subject {
        case .plain:
            load(plan)
            try addVCPU()
        case .sev, .sevES:
            try addVCPU()
            try require(startSEV(), "KVM_SEV_LAUNCH_START")
            try fillSEV()
            _ = try measure()
            try require(command(.launchFinish), "KVM_SEV_LAUNCH_FINISH")
        case .snp:
            try addVCPU()
            try require(startSNP(), "KVM_SEV_SNP_LAUNCH_START")
            for region in plan.regions { try require(update(region), "KVM_SEV_SNP_LAUNCH_UPDATE of \(region.label)") }
            try require(finishSNP(), "KVM_SEV_SNP_LAUNCH_FINISH")
        }
    }

    /// Ends the scenario where a step of the launch is refused.
    func require(_ outcome: CommandOutcome, _ what: String) throws(Interruption) {
        if !outcome.isSuccess { throw .broken("\(what): \(outcome)") }
    }

    /// Writes the plan's bytes into the VMM's memory, where the launch of other than SNP guests takes them.
    func load(_ plan: LaunchPlan) {
        for region in plan.regions { ram.write(region.contents, at: Int(region.gpa)) }
    }

    // MARK: SNP

    func startSNP() -> CommandOutcome {
        var data = KVMSNPLaunchStart()
        data.policy = image.policy
        return command(.snpLaunchStart, &data)
    }

    /// One region, in as many calls as the kernel wants.
    func update(_ region: LaunchPlan.Region) -> CommandOutcome {
        staging.write(region.contents, at: 0)
        var data = KVMSNPLaunchUpdate()
        data.gfnStart = region.gpa >> 12
        data.userAddress = staging.address
        data.byteCount = region.byteCount
        data.type = region.pageType.rawValue
        while data.byteCount > 0 {
            let before = data.byteCount
            let outcome = command(.snpLaunchUpdate, &data)
            if !outcome.isSuccess || data.byteCount >= before { return outcome }
        }
        return .success
    }

    func finishSNP(_ change: (inout KVMSNPLaunchFinish) -> Void = { _ in }) -> CommandOutcome {
        var data = KVMSNPLaunchFinish()
        change(&data)
        return command(.snpLaunchFinish, &data)
    }
}
