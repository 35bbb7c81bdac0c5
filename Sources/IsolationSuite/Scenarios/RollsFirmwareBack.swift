// The firmware below everything: its version, and who says so.

import GuestOwner
import KVMABI
import SEVABI

extension Scenario {
    static let rollsTCBBack = Scenario(
        "rolls-tcb-back", "host rolls the firmware back and hides it",
        attack: """
            The host starts its machine with an older firmware, whose holes are known, and makes the machine look as if it \
            ran the new one. It hopes that owners trust it as before.
            """,
        threat: "TCB rollback",
        sev: Promise(
            .notStopped,
            "the chip's identity (CEK) is the same under every firmware, so nothing that the owner verifies says which one "
                + "runs; all there is is the version that the firmware itself puts into the measurement",
            "[WP 1] TCB rollback"),
        sevES: Promise(.notStopped, "as with SEV", "[WP 1] TCB rollback"),
        snp: Promise(
            .stopped,
            "reports show the TCB version and are signed by a key that is derived from it; SNP_SET_CONFIG refuses a version "
                + "that is not there", "[WP 1] TCB rollback; [SNP 8.6]")
    ) { (subject, laboratory) throws(Interruption) in
        let older = try laboratory.withOlderFirmware()
        switch subject {
        case .plain:
            let victim = try older.victim(.plain)
            try victim.perform(.idle)
            return Observation(.notStopped, ["a plain guest runs on the old firmware; nobody asks which one it is"])
        case .sev, .sevES:
            let newIdentity = try VictimMachine(subject, in: laboratory).exportPlatform()
            let victim = try VictimMachine(subject, in: older)
            let oldIdentity = try victim.exportPlatform()
            let (new, old) = (try newIdentity.chipKey, try oldIdentity.chipKey)
            var evidence = [
                "the chip's key (CEK) under the new firmware: \(hex(new)), under the old: \(hex(old))"
            ]
            if new != old { return Observation(.detected, evidence) }
            let owner = VictimOwner(plan: victim.plan)
            let session = try owner.session(on: victim)
            try victim.addVCPU()
            try victim.require(
                victim.startSEV(session: session.launch), "KVM_SEV_LAUNCH_START with the owner's session")
            try victim.fillSEV()
            let measurement = try victim.measure()
            let firmware = try victim.firmwareVersion()
            let objection = try owner.objection(to: measurement, by: firmware, in: session)
            evidence.append("launch on firmware \(firmware): \(objection ?? "the owner accepts the measurement")")
            return Observation(objection == nil ? .notStopped : .detected, evidence)
        case .snp:
            let new = try VictimMachine(.snp, in: laboratory).snpStatus()
            let victim = try VictimMachine(.snp, in: older)
            let before = try victim.snpStatus()
            var config = SNPUserConfig()
            config.reportedTCB = new.currentTCB
            let outcome = victim.deviceCommand(.snpSetConfig, &config)
            let after = try victim.snpStatus()
            let evidence = [
                "current TCB under the new firmware: \(hex(new.currentTCB)), under the old: \(hex(before.currentTCB))",
                "SNP_SET_CONFIG with reported TCB \(hex(new.currentTCB)) on the old firmware: \(outcome)",
                "the old firmware reports \(hex(after.reportedTCB))",
            ]
            return Observation(after.reportedTCB == new.currentTCB ? .notStopped : .stopped, evidence)
        }
    }

    static let launchesOnOldFirmware = Scenario(
        "launches-on-old-firmware", "host launches on firmware older than the policy allows",
        attack: """
            The owner's policy names the oldest firmware version that it accepts, and this machine's is older. The host \
            launches all the same.
            """,
        sev: Promise(
            .stopped,
            "LAUNCH_START compares the policy's minimum API version: POLICY_FAILURE (as far as this firmware can "
                + "be believed: see the row about rollback)", "[SEV 3, 6.2]"),
        sevES: Promise(.stopped, "as with SEV", "[SEV 3, 6.2]"),
        snp: Promise(.stopped, "SNP_LAUNCH_START compares ABI_MAJOR and ABI_MINOR: POLICY_FAILURE", "[SNP 4.3, 8.15]")
    ) { (subject, laboratory) throws(Interruption) in
        let victim = try VictimMachine(subject, in: laboratory)
        if subject == .plain {
            try victim.launch()
            try victim.start()
            return Observation(.notStopped, ["a plain guest has no policy and runs"])
        }
        let firmware = try victim.firmwareVersion()
        func launch(_ victim: VictimMachine, minor: UInt8) throws(Interruption) -> CommandOutcome {
            victim.image.minimumVersion = (firmware.apiMajor, minor)
            try victim.addVCPU()
            return subject == .snp ? victim.startSNP() : victim.startSEV()
        }
        let allowed = try launch(try VictimMachine(subject, in: laboratory), minor: firmware.apiMinor)
        try victim.require(allowed, "LAUNCH_START with a policy that asks for just this firmware, \(firmware),")
        let outcome = try launch(victim, minor: firmware.apiMinor &+ 1)
        let evidence = [
            "the firmware is \(firmware); LAUNCH_START with a policy that asks for "
                + "\(firmware.apiMajor).\(firmware.apiMinor &+ 1): \(outcome)"
        ]
        if outcome.isSuccess { return Observation(.notStopped, evidence) }
        guard outcome.status == .policyFailure else { throw .broken("refused for another reason: \(outcome)") }
        return Observation(.stopped, evidence)
    }
}

extension SEVPlatformCertificates {
    /// The public key of the chip's certificate (CEK), the last of the chain.
    fileprivate var chipKey: [UInt8] {
        get throws(Interruption) {
            guard let cek = SEVCertificate(bytes: Array(chain.suffix(SEVCertificate.byteCount))) else {
                throw .broken("the platform's chain ends in no certificate")
            }
            return Array(cek.publicKey.x.prefix(48)) + Array(cek.publicKey.y.prefix(48))
        }
    }
}

extension VictimMachine {
    /// SNP_PLATFORM_STATUS.
    fileprivate func snpStatus() throws(Interruption) -> SNPUserStatus {
        var status = SNPUserStatus()
        try require(deviceCommand(.snpPlatformStatus, &status), "SNP_PLATFORM_STATUS")
        return status
    }
}
