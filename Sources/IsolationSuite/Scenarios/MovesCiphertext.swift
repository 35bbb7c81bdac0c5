// Integrity of memory: ciphertext and place.

extension Scenario {
    static let movesCiphertext = Scenario(
        "moves-ciphertext", "host moves ciphertext to another page",
        attack: """
            The host copies the bytes of one page over another page of the same guest, without changing any mapping. It \
            hopes that the guest deciphers them there to the contents of the first.
            """,
        sev: Promise(
            .stopped,
            "the encryption is tweaked with the physical address: elsewhere the same ciphertext is garbage (which the "
                + "guest does not notice: that is the row about corruption)", "[APM2 7.10]"),
        sevES: Promise(.stopped, "as with SEV", "[APM2 7.10]"),
        snp: Promise(
            .stopped, "the RMP refuses the store, and the ciphertext is tweaked", "[APM2 15.36.10]; [APM2 7.10]")
    ) { (subject, laboratory) throws(Interruption) in
        let victim = try laboratory.victim(subject)
        let first = Pattern(seed: 0xaaaa_2000_0000_0001)
        let second = Pattern(seed: 0xbbbb_2000_0000_0002)
        try victim.perform(.fill(page: 0, first))
        try victim.perform(.fill(page: 1, second))
        var evidence: [String] = []
        if subject.hasPrivateMemory {
            let privileges = try laboratory.requirePrivileges()
            let (from, to) = (try victim.physicalPage(0), try victim.physicalPage(1))
            guard let bytes = privileges.readPhysical(from, byteCount: 4096) else {
                throw .broken("no memory at \(hex(from))")
            }
            evidence.append(
                "copy of \(hex(from)) to \(hex(to)): " + (privileges.writePhysical(to, bytes) ?? "done"))
        } else {
            let bytes = try victim.hostBytes(ofPage: 0)
            try victim.hostWrite(bytes, toPage: 1)
            evidence.append("page 0 (\(hex(bytes))) is copied over page 1")
        }
        let view = try victim.look(atPage: 1, for: first)
        evidence.append("the guest compares page 1 with page 0: \(view)")
        return Observation(view == .same ? .notStopped : .stopped, evidence)
    }
}
