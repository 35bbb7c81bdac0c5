// The owner's secret packet, used otherwise than the owner meant.

import Crypto
import GuestOwner
import KVMABI
import SEVABI

extension Scenario {
    static let replaysSecretElsewhere = Scenario(
        "replays-secret-elsewhere", "host replays the secret packet in another launch",
        attack: """
            The host keeps the packet that the owner sent after it had accepted a launch. It launches a second time, measures, \
            and injects the old packet, in the hope that a guest of its own gets the owner's secret.
            """,
        sev: Promise(
            .stopped, "the packet's MAC covers the measurement, whose nonce is new in every launch: BAD_MEASUREMENT",
            "[SEV 6.6]"),
        sevES: Promise(.stopped, "as with SEV", "[SEV 6.6]"),
        snp: Promise(
            .stopped, "there is no LAUNCH_SECRET: secrets go to the attested guest itself, on a channel of its own",
            "[SNP 7.3]; [KVM-SEV]")
    ) { (subject, laboratory) throws(Interruption) in
        let secret = SecretDelivery(subject)
        let victim = try VictimMachine(subject, in: laboratory)
        let packet = try secret.deliver(to: victim)
        var evidence = ["the first launch: \(secret.description(packet.outcome))"]
        let second = try VictimMachine(subject, in: laboratory)
        if subject == .plain {
            try second.launch()
            second.ram.write(secret.plaintext, at: Int(VictimLayout.page(2)))
        } else if subject != .snp {
            // The same session, so that even the keys are the same.
            try second.addVCPU()
            try second.require(second.startSEV(session: packet.session), "KVM_SEV_LAUNCH_START with the old session")
            try second.fillSEV()
            _ = try second.measure()
        } else {
            try second.launch()
        }
        if subject != .plain {
            let outcome = second.inject(packet.packet, at: VictimLayout.page(2))
            evidence.append("KVM_SEV_LAUNCH_SECRET of the same packet in a second launch: \(outcome)")
            if !outcome.isSuccess { return Observation(.stopped, evidence) }
            if subject != .snp { try second.require(second.command(.launchFinish), "KVM_SEV_LAUNCH_FINISH") }
        }
        try second.start()
        let found = try second.perform(.read(address: VictimLayout.page(2)))[0]
        evidence.append("the second guest finds \(hex(found)), the secret begins with \(hex(word(secret.plaintext)))")
        return Observation(found == word(secret.plaintext) ? .notStopped : .stopped, evidence)
    }

    static let replaysSecretTwice = Scenario(
        "replays-secret-twice", "host injects the secret packet twice",
        attack: """
            The host injects the owner's packet into the launch that it was made for, and then again, at an address of its \
            choice. It hopes that the guest takes the second for something new.
            """,
        sev: Promise(
            .notStopped,
            "the MAC covers neither address nor count: the same secret can be put into the same guest again and elsewhere, "
                + "so a guest must not read anything into where it finds it", "[SEV 6.6]"),
        sevES: Promise(.notStopped, "as with SEV", "[SEV 6.6]"),
        snp: Promise(.stopped, "there is no LAUNCH_SECRET", "[SNP 7.3]; [KVM-SEV]")
    ) { (subject, laboratory) throws(Interruption) in
        let secret = SecretDelivery(subject)
        let victim = try VictimMachine(subject, in: laboratory)
        let packet = try secret.deliver(to: victim)
        var evidence = ["the first time: \(secret.description(packet.outcome))"]
        if subject == .plain {
            victim.ram.write(secret.plaintext, at: Int(VictimLayout.page(3)))
        } else {
            let outcome = victim.inject(packet.packet, at: VictimLayout.page(3))
            evidence.append("KVM_SEV_LAUNCH_SECRET of the same packet at another address: \(outcome)")
            if !outcome.isSuccess { return Observation(.stopped, evidence) }
            try victim.require(victim.command(.launchFinish), "KVM_SEV_LAUNCH_FINISH")
        }
        try victim.start()
        let found = try victim.perform(.read(address: VictimLayout.page(3)))[0]
        evidence.append("the guest finds \(hex(found)) there, the secret begins with \(hex(word(secret.plaintext)))")
        return Observation(found == word(secret.plaintext) ? .notStopped : .stopped, evidence)
    }
}

/// An owner that sends a secret to a launch it has accepted.
private struct SecretDelivery {
    let subject: Subject
    /// 32 bytes.
    let plaintext: [UInt8] = Array(Pattern(seed: 0x5ec2_0007_0000_0001).page.prefix(32))

    init(_ subject: Subject) { self.subject = subject }

    struct Packet {
        var packet: SEVSecretPacket
        var session: SEVLaunchSession?
        /// What the injection gave; nil where the host writes the secret itself.
        var outcome: CommandOutcome?
    }

    func description(_ outcome: CommandOutcome?) -> String {
        outcome.map { "KVM_SEV_LAUNCH_SECRET: \($0)" } ?? "the host writes the secret into the guest's memory"
    }

    /// Launches the guest up to and with the secret; SEV and SEV-ES guests are left in the state in which the firmware takes
    /// more secrets.
    func deliver(to victim: VictimMachine) throws(Interruption) -> Packet {
        switch subject {
        case .plain:
            try victim.launch()
            victim.ram.write(plaintext, at: Int(VictimLayout.page(2)))
            return Packet(packet: SEVSecretPacket(header: [], payload: []))
        case .sev, .sevES:
            let owner = VictimOwner(plan: victim.plan)
            let session = try owner.session(on: victim)
            try victim.addVCPU()
            try victim.require(victim.startSEV(session: session.launch), "KVM_SEV_LAUNCH_START")
            try victim.fillSEV()
            let measurement = try victim.measure()
            let firmware = try victim.firmwareVersion()
            if let objection = try owner.objection(to: measurement, by: firmware, in: session) {
                throw .broken(objection)
            }
            let packet = session.makeSecret(
                plaintext: plaintext, iv: randomBytes(16), measurement: measurement, firmware: firmware)
            let outcome = victim.inject(packet, at: VictimLayout.page(2))
            try victim.require(outcome, "KVM_SEV_LAUNCH_SECRET")
            return Packet(packet: packet, session: session.launch, outcome: outcome)
        case .snp:
            // The best that a host can try: the command, with any packet.
            try victim.launch()
            let packet = SEVSecretPacket(
                header: [UInt8](repeating: 0, count: SEVSecretHeader.byteCount), payload: plaintext)
            return Packet(packet: packet, outcome: victim.inject(packet, at: VictimLayout.page(2)))
        }
    }
}
