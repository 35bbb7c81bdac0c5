// Integrity of memory: freshness.

extension Scenario {
    static let replaysPage = Scenario(
        "replays-page", "host replays an old page",
        attack: """
            The host keeps a copy of a page as it lies in memory. The guest changes the page, for instance a counter of \
            failed passwords. The host puts the old bytes back and hopes that the guest believes them.
            """,
        threat: "Replay protection",
        sev: Promise(
            .notStopped, "the same page under the same key: old ciphertext deciphers to the old contents",
            "[WP 1] Replay protection"),
        sevES: Promise(.notStopped, "as with SEV", "[WP 1] Replay protection"),
        snp: Promise(
            .stopped, "the RMP refuses the host's store to a page of a guest",
            "[WP 1] Replay protection; [APM2 15.36.10]")
    ) { (subject, laboratory) throws(Interruption) in
        let victim = try laboratory.victim(subject)
        let old = Pattern(seed: 0x01d_0000_0000_0001)
        let new = Pattern(seed: 0x4e3_0000_0000_0002)
        try victim.perform(.fill(page: 0, old))
        var evidence: [String] = []
        if subject.hasPrivateMemory {
            let privileges = try laboratory.requirePrivileges()
            let address = try victim.physicalPage(0)
            guard let copy = privileges.readPhysical(address, byteCount: 4096) else {
                throw .broken("no memory at \(hex(address))")
            }
            evidence.append("copy of DRAM: \(hex(copy))")
            try victim.perform(.fill(page: 0, new))
            evidence.append(
                "store of the copy to \(hex(address)): \(privileges.writePhysical(address, copy) ?? "done")")
        } else {
            let copy = try victim.hostBytes(ofPage: 0)
            evidence.append("copy of the page: \(hex(copy))")
            try victim.perform(.fill(page: 0, new))
            evidence.append("after the guest's change the page is: \(hex(try victim.hostBytes(ofPage: 0)))")
            try victim.hostWrite(copy, toPage: 0)
            evidence.append("the copy is put back")
        }
        let seesOld = try victim.look(atPage: 0, for: old) == .same
        let seesNew = try victim.look(atPage: 0, for: new) == .same
        evidence.append(
            "the guest sees \(seesOld ? "the old contents" : seesNew ? "the new contents" : "neither of the two")")
        return Observation(seesNew ? .stopped : .notStopped, evidence)
    }
}
