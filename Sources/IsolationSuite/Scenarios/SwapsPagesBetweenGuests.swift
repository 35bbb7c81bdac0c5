// Confidentiality between guests.

import KVMABI

extension Scenario {
    static let swapsPagesBetweenGuests = Scenario(
        "swaps-pages-between-guests", "host gives a page to another guest",
        attack: """
            A second guest belongs to the attacker. The host backs a page of it with the first guest's page, and hopes that \
            it reads the first guest's secret, deciphered by the processor.
            """,
        threat: "VM memory",
        sev: Promise(
            .stopped, "the second guest has another key: it reads garbage (its own integrity is another row)",
            "[WP 1] VM memory; [APM2 15.34.5]"),
        sevES: Promise(.stopped, "as with SEV", "[WP 1] VM memory; [APM2 15.34.5]"),
        snp: Promise(
            .stopped, "the RMP knows whose the page is: the second guest's access is a nested page fault",
            "[WP 1] VM memory; [APM2 15.36.10]")
    ) { (subject, laboratory) throws(Interruption) in
        let victim = try laboratory.victim(subject)
        let accomplice = try laboratory.victim(subject)
        let secret = Pattern(seed: 0x5ec2_0002_0000_0001)
        try victim.perform(.fill(page: 0, secret))
        var evidence: [String] = []
        if subject.hasPrivateMemory {
            let privileges = try laboratory.requirePrivileges()
            let address = try victim.physicalPage(0)
            privileges.map(address, asPage: VictimLayout.page(0) >> 12, of: accomplice.memfd, in: accomplice.vm)
            evidence.append("the second guest's nested page table shows the first one's page at \(hex(address))")
        } else {
            _ = try victim.hostBytes(ofPage: 0)
            try step("back a slot of the second guest with the first one's page") { () throws(Errno) in
                try accomplice.remap([0: 0], of: victim.ram)
            }
            evidence.append("a memory slot of the second guest has the first one's page behind it")
        }
        switch try accomplice.tell(.read(address: VictimLayout.page(0))) {
        case .reply(let reply) where reply.fault == nil:
            let view = try accomplice.look(atPage: 0, for: secret)
            evidence.append("the second guest reads \(hex(reply.results[0])), the secret is \(hex(secret[0])): \(view)")
            return Observation(view == .same ? .notStopped : .stopped, evidence)
        case .reply(let reply):
            evidence.append("the second guest's read ends in \(reply.fault?.description ?? "nothing")")
        case .stopped(let ending): evidence.append("the second guest's read: \(ending)")
        }
        return Observation(.stopped, evidence)
    }
}
