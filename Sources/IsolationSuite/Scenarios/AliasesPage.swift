// Integrity of memory: one page in two places.

import KVMABI

extension Scenario {
    static let aliasesPage = Scenario(
        "aliases-page", "host aliases one page at two GPAs",
        attack: """
            The host backs two addresses of the guest with one page. It hopes that what the guest writes to the one changes \
            the other behind its back.
            """,
        threat: "Memory aliasing",
        sev: Promise(
            .notStopped, "nothing ties a page to one address of the guest", "[WP 1] Memory aliasing"),
        sevES: Promise(.notStopped, "as with SEV", "[WP 1] Memory aliasing"),
        snp: Promise(
            .stopped, "an RMP entry holds one GPA: at a second one the access is a nested page fault",
            "[WP 1] Memory aliasing; [APM2 15.36.10]")
    ) { (subject, laboratory) throws(Interruption) in
        let victim = try laboratory.victim(subject)
        let first = Pattern(seed: 0xaaaa_1000_0000_0001)
        let second = Pattern(seed: 0xbbbb_1000_0000_0002)
        try victim.perform(.fill(page: 0, first))
        try victim.perform(.fill(page: 1, second))
        var evidence: [String] = []
        if subject.hasPrivateMemory {
            let privileges = try laboratory.requirePrivileges()
            let address = try victim.physicalPage(0)
            privileges.map(address, asPage: VictimLayout.page(1) >> 12, of: victim.memfd, in: victim.vm)
            evidence.append("the nested page table shows \(hex(address)) at both GPAs")
        } else {
            try step("back two slots with one page") { () throws(Errno) in try victim.remap([1: 0]) }
            evidence.append("two memory slots have the same userspace_addr")
        }
        let third = Pattern(seed: 0xcccc_1000_0000_0003)
        try victim.perform(.fill(page: 0, third))
        let view = try victim.look(atPage: 1, for: third)
        evidence.append("the guest writes page 0, then compares page 1 with what it wrote: \(view)")
        return try Observation(victim.effect(of: view, onPage: 1, holding: second), evidence)
    }
}
