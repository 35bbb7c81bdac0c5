// A page-state change that did not happen.

import KVMABI

extension Scenario {
    static let liesAboutPageState = Scenario(
        "lies-about-page-state", "host answers a page-state change falsely",
        attack: """
            A page is shared with the host. The guest asks to have it made private, and the host says that it is done, but \
            does nothing. It hopes that the guest puts a secret into memory that the host can read.
            """,
        threat: "VM memory",
        sev: Promise(
            .stopped, "the guest's own page tables decide (C-bit): the host's answer changes nothing", "[APM2 15.34.5]"),
        sevES: Promise(.stopped, "as with SEV", "[APM2 15.34.5]"),
        snp: Promise(
            .stopped, "PVALIDATE needs a page that the RMP gives to the guest: it does not complete on a shared one",
            "[APM2 15.36.6]; [GHCB 4.1.6]")
    ) { (subject, laboratory) throws(Interruption) in
        let victim = try laboratory.victim(subject)
        let page = VictimLayout.launchedPageCount
        let secret = Pattern(seed: 0x5ec2_0003_0000_0001)
        if subject.hasPrivateMemory {
            try step("have the page shared") { () throws(Errno) in
                try victim.setPrivate(false, at: VictimLayout.page(page), byteCount: VictimLayout.pageByteCount)
            }
        }
        victim.pageStateAnswer = .liesAboutDoingIt
        let answer: UInt64
        if subject == .plain {
            // There is no such request: the guest leaves it in the mailbox, and the answer comes from there.
            victim.post(.pageState(page: page, isPrivate: true))
            guard try victim.resume() == .doorbell else { throw .broken("the guest did not ask") }
            victim.ram.store(0 as UInt64, at: Int(VictimLayout.mailbox) + 136)
            guard try victim.resume() == .doorbell else { throw .broken("the guest did not take the answer") }
            answer = victim.reply.results[0]
        } else {
            answer = try victim.perform(.pageState(page: page, isPrivate: true))[0]
        }
        guard answer == 0 else { throw .broken("the guest got \(hex(answer)) for an answer, not the lie") }
        var evidence = ["the guest asks for a private page, the host answers \"done\" and does nothing"]
        if subject.hasPrivateMemory {
            switch try victim.tell(.validate(page: page, true)) {
            case .stopped(let ending):
                evidence.append("the guest's PVALIDATE: \(ending)")
                return Observation(.stopped, evidence)
            case .reply(let reply):
                evidence.append(
                    "the guest's PVALIDATE: \(reply.fault?.description ?? "RAX \(reply.results[0])")")
                if reply.fault != nil || reply.results[0] != 0 { return Observation(.detected, evidence) }
            }
        }
        switch try victim.tell(.fill(page: page, secret)) {
        case .stopped(let ending):
            evidence.append("the guest writes its secret: \(ending)")
            return Observation(.stopped, evidence)
        case .reply(let reply):
            if let fault = reply.fault {
                evidence.append("the guest writes its secret: \(fault)")
                return Observation(.detected, evidence)
            }
        }
        let bytes = try victim.hostBytes(ofPage: page)
        let leaks = secret.leaks(into: bytes)
        evidence.append(
            "the guest writes its secret; the host reads \(hex(bytes)): \(leaks ? "the secret" : "ciphertext")")
        return Observation(leaks ? .notStopped : .stopped, evidence)
    }
}
