// What the four rows about edits before the launch have in common: the host launches something else than the owner wants.

import GuestImage
import KVMABI
import SEVABI

/// One thing that a host can edit, and how the guest shows that it runs with the edited one.
struct LaunchEdit: Sendable {
    /// "the image".
    var what: String
    var apply: @Sendable (inout VictimImage) -> Void
    /// Which of the guest's marks, and what it is after the edit.
    var mark: (index: Int, forged: UInt64)

    /// The word that the host writes in place of a mark.
    static let forged: UInt64 = 0x0bad_0bad_0bad_0bad

    /// Launches a victim honestly (owner and firmware must accept that), then with the edit.
    func observe(on subject: Subject, in laboratory: Laboratory) throws(Interruption) -> Observation {
        let honest = try VictimMachine(subject, in: laboratory)
        let owner = VictimOwner(plan: honest.plan)
        var evidence: [String] = []
        if let objection = try launch(honest, for: owner, &evidence) {
            throw .broken("the unedited launch was refused: \(objection)")
        }
        evidence = []
        let edited = try VictimMachine(subject, in: laboratory)
        apply(&edited.image)
        if let objection = try launch(edited, for: owner, &evidence) {
            evidence.append(objection)
            // The firmware's refusal is final; the owner's is a decision that comes before any secret.
            return Observation(subject == .snp ? .stopped : .detected, evidence)
        }
        try edited.start()
        let found = try edited.perform(.marks)[mark.index]
        evidence.append("the guest runs; its mark of \(what) is \(hex(found))")
        return Observation(found == mark.forged ? .notStopped : .stopped, evidence)
    }

    /// Launches a guest under its owner's eyes. Returns the refusal of the owner or the firmware, nil if it may run.
    private func launch(_ victim: VictimMachine, for owner: VictimOwner, _ evidence: inout [String])
        throws(Interruption) -> String?
    {
        switch victim.subject {
        case .plain:
            try victim.launch()
            return nil
        case .sev, .sevES:
            let session = try owner.session(on: victim)
            try victim.addVCPU()
            try victim.require(
                victim.startSEV(session: session.launch), "KVM_SEV_LAUNCH_START with the owner's session")
            try victim.fillSEV()
            let measurement = try victim.measure()
            evidence.append("LAUNCH_MEASURE: \(hex(measurement.measure)), nonce \(hex(measurement.nonce))")
            if let objection = try owner.objection(to: measurement, by: victim.firmwareVersion(), in: session) {
                return objection
            }
            evidence.append("the owner accepts the measurement")
            try victim.require(victim.command(.launchFinish), "KVM_SEV_LAUNCH_FINISH")
            return nil
        case .snp:
            let identity = try owner.signedIDBlock()
            try victim.addVCPU()
            try victim.require(victim.startSNP(), "KVM_SEV_SNP_LAUNCH_START")
            for region in victim.plan.regions {
                try victim.require(victim.update(region), "KVM_SEV_SNP_LAUNCH_UPDATE of \(region.label)")
            }
            let outcome = withKernelAddress(of: identity.block) { block in
                withKernelAddress(of: identity.authentication) { authentication in
                    victim.finishSNP { finish in
                        finish.idBlockAddress = block
                        finish.idAuthAddress = authentication
                        finish.idBlockEnabled = 1
                    }
                }
            }
            guard !outcome.isSuccess else { return nil }
            guard outcome.errno == .EIO, outcome.status == .badMeasurement else {
                throw .broken("KVM_SEV_SNP_LAUNCH_FINISH: \(outcome)")
            }
            return "LAUNCH_FINISH with the owner's signed ID block: \(outcome)"
        }
    }
}
