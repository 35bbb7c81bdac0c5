// Integrity of memory: which page is where.

import KVMABI

extension Scenario {
    static let remapsPage = Scenario(
        "remaps-page", "host remaps a GPA to another page",
        attack: """
            Two pages of the guest have different contents. The host changes what is behind their addresses: the first now \
            shows the second page. It hopes that the guest reads the second page where it expects the first.
            """,
        threat: "Memory re-mapping",
        sev: Promise(
            .notStopped,
            "the encryption depends on the physical address, not on the guest's: any page of the guest deciphers "
                + "anywhere in it", "[WP 1] Memory re-mapping"),
        sevES: Promise(.notStopped, "as with SEV", "[WP 1] Memory re-mapping"),
        snp: Promise(
            .stopped, "the RMP knows at which GPA a page belongs; elsewhere the access is a nested page fault",
            "[WP 1] Memory re-mapping; [APM2 15.36.10]")
    ) { (subject, laboratory) throws(Interruption) in
        let victim = try laboratory.victim(subject)
        let first = Pattern(seed: 0xaaaa_0000_0000_0001)
        let second = Pattern(seed: 0xbbbb_0000_0000_0002)
        try victim.perform(.fill(page: 0, first))
        try victim.perform(.fill(page: 1, second))
        var evidence = ["page 0 begins with \(hex(first[0])), page 1 with \(hex(second[0]))"]
        // With guest_memfd a page can be in one slot only, so the two change places.
        try step("exchange the pages behind two memory slots") { () throws(Errno) in
            try victim.remap(subject.hasPrivateMemory ? [0: 1, 1: 0] : [0: 1])
        }
        evidence.append("GPA \(hex(VictimLayout.page(0))) is now backed by page 1 (KVM_SET_USER_MEMORY_REGION)")
        let view = try victim.look(atPage: 0, for: second)
        evidence.append("the guest reads page 0 and compares it with page 1: \(view)")
        return try Observation(victim.effect(of: view, onPage: 0, holding: first), evidence)
    }
}
