// Integrity of memory: junk.

extension Scenario {
    static let hostCorruptsMemory = Scenario(
        "host-corrupts-memory", "host writes guest memory",
        attack: """
            The guest fills a page. The host overwrites 16 bytes of it where they lie: in its own mapping, or, for private \
            memory, in DRAM with kernel privileges. It hopes that the guest goes on with what is there now.
            """,
        threat: "Data corruption",
        sev: Promise(
            .notStopped, "encryption is not authenticated: the block deciphers to something, and nobody notices",
            "[WP 1] Data corruption"),
        sevES: Promise(.notStopped, "as with SEV: only the VMSA is checked", "[WP 1] Data corruption"),
        snp: Promise(
            .stopped, "the RMP refuses the host's store to a page of a guest", "[WP 1] Data corruption; [APM2 15.36.10]"
        )
    ) { (subject, laboratory) throws(Interruption) in
        let victim = try laboratory.victim(subject)
        let pattern = Pattern(seed: 0x0dd_ba11_0000_0001)
        try victim.perform(.fill(page: 0, pattern))
        let junk = [UInt8](repeating: 0xa5, count: 16)
        var evidence: [String] = []
        if subject.hasPrivateMemory {
            let privileges = try laboratory.requirePrivileges()
            let address = try victim.physicalPage(0)
            evidence.append(
                "store to DRAM at \(hex(address)): " + (privileges.writePhysical(address, junk) ?? "done"))
        }
        try victim.hostWrite(junk, toPage: 0)
        evidence.append("16 bytes in the host's mapping: written")
        let view = try victim.look(atPage: 0, for: pattern)
        evidence.append("the guest looks: \(view)")
        return Observation(view == .same ? .stopped : .notStopped, evidence)
    }
}
