// Confidentiality of memory.

import KVMABI

extension Scenario {
    static let hostReadsMemory = Scenario(
        "host-reads-memory", "host reads guest memory",
        attack: """
            The guest fills a page with a secret. The host flushes the caches, then reads the page in its own mapping of \
            the guest's memory, asks the firmware to decipher it (DBG_DECRYPT), tries to map the guest's private memory, \
            and, with kernel privileges, reads the page where it lies in DRAM.
            """,
        threat: "VM memory",
        sev: Promise(
            .stopped, "DRAM holds ciphertext under a key that only the memory controller and the firmware have",
            "[WP 1] VM memory; [APM2 15.34.5]"),
        sevES: Promise(.stopped, "as with SEV", "[WP 1] VM memory; [APM2 15.34.5]"),
        snp: Promise(
            .stopped, "ciphertext, and the private page is in no mapping of the host's",
            "[WP 1] VM memory; [APM2 15.34.5]")
    ) { (subject, laboratory) throws(Interruption) in
        let victim = try laboratory.victim(subject)
        let secret = Pattern(seed: 0x5ec2_e7c0_ffee_0001)
        try victim.perform(.fill(page: 0, secret))
        var evidence: [String] = ["the guest's page begins with \(hex(secret.page))"]
        var views: [[UInt8]] = []
        func saw(_ where_: String, _ bytes: [UInt8]) {
            evidence.append("\(where_): \(hex(bytes))")
            views.append(bytes)
        }
        saw("the host's mapping shows", try victim.hostBytes(ofPage: 0))
        if subject == .sev || subject == .sevES {
            let (outcome, bytes) = try victim.debugDecrypt(page: 0)
            evidence.append("KVM_SEV_DBG_DECRYPT: \(outcome)")
            if outcome.isSuccess { views.append(bytes) }
        }
        if subject.hasPrivateMemory {
            do throws(Errno) {
                let mapping = try victim.kernel.map(victim.memfd, offset: 0, byteCount: VictimLayout.ramByteCount)
                saw("mmap of the guest_memfd shows", mapping.copyBytes(at: Int(VictimLayout.page(0)), count: 4096))
            } catch {
                evidence.append("mmap of the guest_memfd: \(error)")
            }
            if let privileges = laboratory.privileges {
                let address = try victim.physicalPage(0)
                guard let bytes = privileges.readPhysical(address, byteCount: 4096) else {
                    throw .broken("no memory at \(hex(address))")
                }
                saw("DRAM at \(hex(address)) holds", bytes)
            } else {
                evidence.append("DRAM was not read: needs host kernel privileges")
            }
        }
        guard try victim.look(atPage: 0, for: secret) == .same else {
            throw .broken("the guest lost its page although the host only read it")
        }
        let found = views.contains { secret.leaks(into: $0) }
        evidence.append(found ? "the secret is in it" : "no word of the secret is in any of it")
        return Observation(found ? .notStopped : .stopped, evidence)
    }
}

extension Pattern {
    /// True if any word of the pattern is in the bytes, at any multiple of 8.
    func leaks(into bytes: [UInt8]) -> Bool {
        let words = Set((0..<512).map { self[$0] })
        return stride(from: 0, to: bytes.count - 7, by: 8).contains { words.contains(word(bytes, at: $0)) }
    }
}
