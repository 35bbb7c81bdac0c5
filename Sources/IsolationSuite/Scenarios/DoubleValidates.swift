// A page that was accepted once, and another one in its place.

import KVMABI

extension Scenario {
    static let doubleValidates = Scenario(
        "double-validates", "host replaces a validated page (double validation)",
        attack: """
            The guest has accepted a page and uses it. The host puts a fresh page behind the same address, given to the guest \
            by RMPUPDATE, and hopes that the guest goes on with empty memory, or accepts the address a second time.
            """,
        threat: "Memory re-mapping",
        sev: Promise(
            .notStopped, "there is no acceptance: the guest reads whatever is there", "[WP 1] Memory re-mapping"),
        sevES: Promise(.notStopped, "as with SEV", "[WP 1] Memory re-mapping"),
        snp: Promise(
            .detected,
            "RMPUPDATE clears the validated bit: the access raises #VC 0x404, and a PVALIDATE that changes something on an "
                + "address which was valid tells a guest that it must stop", "[APM2 15.36.6]; [APM3 PVALIDATE]")
    ) { (subject, laboratory) throws(Interruption) in
        let victim = try laboratory.victim(subject)
        let pattern = Pattern(seed: 0x0a1d_0000_0000_0001)
        try victim.perform(.fill(page: 0, pattern))
        var evidence: [String] = []
        var original: UInt64 = 0
        if subject.hasPrivateMemory {
            let privileges = try laboratory.requirePrivileges()
            original = try victim.physicalPage(0)
            guard let fresh = privileges.allocatePage(), let asid = privileges.asid(of: victim.vm) else {
                throw .broken("no page or no ASID to do it with")
            }
            let result = privileges.updateRMP(fresh, gpa: VictimLayout.page(0), asid: asid)
            evidence.append(
                "RMPUPDATE of \(hex(fresh)) to GPA \(hex(VictimLayout.page(0))), ASID \(asid): RAX \(result)")
            privileges.map(fresh, asPage: VictimLayout.page(0) >> 12, of: victim.memfd, in: victim.vm)
        } else {
            let fresh = VictimLayout.launchedPageCount
            try step("back the slot with another page") { () throws(Errno) in try victim.remap([0: fresh]) }
            evidence.append("the memory slot has a page behind it that the guest never wrote")
        }
        let view = try victim.look(atPage: 0, for: pattern)
        evidence.append("the guest reads its page: \(view)")
        switch view {
        case .same: return Observation(.stopped, evidence)
        case .differs: return Observation(.notStopped, evidence)
        case .stopped: return Observation(.stopped, evidence)
        case .fault(let fault):
            guard fault.isNotValidated else { return Observation(.detected, evidence) }
            let report = try victim.perform(.validate(page: 0, true))
            let changed = report[0] == 0 && report[1] == 0
            evidence.append(
                "the guest's PVALIDATE: RAX \(report[0]), CF \(report[1]): "
                    + (changed ? "the page was not valid any more, so this is not its page" : "nothing changed"))
            evidence.append(try victim.afterValidatingTwice(original, pattern))
            return Observation(changed ? .detected : .notStopped, evidence)
        }
    }
}

extension VictimMachine {
    /// Why a guest must stop there: with two pages validated for one address, the host can show either at will.
    fileprivate func afterValidatingTwice(_ original: UInt64, _ old: Pattern) throws(Interruption) -> String {
        try perform(.fill(page: 0, Pattern(seed: 0x0a1d_0000_0000_0002)))
        try laboratory.requirePrivileges().map(
            original, asPage: VictimLayout.page(0) >> 12, of: memfd, in: vm)
        let view = try look(atPage: 0, for: old)
        return "a guest that goes on all the same writes the new page, the host shows the old one again: "
            + (view == .same ? "the guest reads its old contents, and nothing stops that any more" : "\(view)")
    }
}
