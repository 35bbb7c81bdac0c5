// An ASID and its key, from one guest to the next.

import KVMABI

extension Scenario {
    static let reusesASIDUnflushed = Scenario(
        "reuses-asid-unflushed", "host re-uses an ASID without a flush",
        attack: """
            A guest ends. The host gives its ASID to a guest of the attacker's at once, without WBINVD and DF_FLUSH, and \
            hopes that lines of the first guest are still deciphered in caches and write buffers.
            """,
        threat: "VM memory",
        sev: Promise(.stopped, "the firmware does not activate a guest on an ASID before DF_FLUSH", "[SEV 5.9, 6.1]"),
        sevES: Promise(.stopped, "as with SEV", "[SEV 5.9, 6.1]"),
        snp: Promise(.stopped, "as with SEV: SNP_ACTIVATE wants SNP_DF_FLUSH", "[SNP 8.4]")
    ) { (subject, laboratory) throws(Interruption) in
        let secret = Pattern(seed: 0x5ec2_0004_0000_0001)
        let remains = try Remains(of: subject, holding: secret, in: laboratory)
        var evidence = remains.evidence
        if let asid = remains.asid {
            try laboratory.requirePrivileges().forceNextASID(asid, flushing: false)
        }
        let accomplice = try VictimMachine(subject, in: laboratory, ram: subject.hasPrivateMemory ? nil : remains.ram)
        if subject == .plain {
            try accomplice.launch()
            try accomplice.start()
            let view = try accomplice.look(atPage: 0, for: secret)
            evidence.append("a second guest in the same memory compares it with the secret: \(view)")
            return Observation(view == .same ? .notStopped : .stopped, evidence)
        }
        try accomplice.addVCPU()
        let outcome = subject == .snp ? accomplice.startSNP() : accomplice.startSEV()
        evidence.append("LAUNCH_START and ACTIVATE of a second guest on it: \(outcome)")
        if outcome.isSuccess { return Observation(.notStopped, evidence) }
        guard outcome.status == .dfFlushRequired else { throw .broken("refused for another reason: \(outcome)") }
        return Observation(.stopped, evidence)
    }

    static let sharesASID = Scenario(
        "shares-asid", "host activates a second guest on a live ASID",
        attack: """
            While the guest is there, the host asks the firmware to activate a guest of the attacker's on the same ASID. It \
            hopes that both then have the same key.
            """,
        threat: "VM memory",
        sev: Promise(
            .stopped,
            "an ASID has one owner: ACTIVATE answers ASID_OWNED (a hypervisor that enters a control block of its own with "
                + "this ASID, without asking the firmware, is another attack: SEV and SEV-ES do not promise to stop it)",
            "[SEV 6.1]"),
        sevES: Promise(.stopped, "as with SEV", "[SEV 6.1]"),
        snp: Promise(
            .stopped, "as with SEV, and a register state that is no VMSA of the guest's cannot be entered",
            "[SNP 8.4]; [APM2 15.36.12]")
    ) { (subject, laboratory) throws(Interruption) in
        let secret = Pattern(seed: 0x5ec2_0005_0000_0001)
        let victim = try laboratory.victim(subject)
        try victim.perform(.fill(page: 0, secret))
        if subject == .plain {
            let accomplice = try VictimMachine(subject, in: laboratory, ram: victim.ram)
            try accomplice.launch()
            try accomplice.start()
            let view = try accomplice.look(atPage: 0, for: secret)
            return Observation(
                view == .same ? .notStopped : .stopped,
                ["a second guest in the same memory compares it with the secret: \(view)"])
        }
        let privileges = try laboratory.requirePrivileges()
        guard let asid = privileges.asid(of: victim.vm) else { throw .broken("the guest has no ASID") }
        privileges.forceNextASID(asid, flushing: false)
        let accomplice = try VictimMachine(subject, in: laboratory)
        try accomplice.addVCPU()
        let outcome = subject == .snp ? accomplice.startSNP() : accomplice.startSEV()
        let evidence = ["the guest has ASID \(asid)", "LAUNCH_START and ACTIVATE of a second guest on it: \(outcome)"]
        if outcome.isSuccess { return Observation(.notStopped, evidence) }
        guard outcome.status == .asidOwned else { throw .broken("refused for another reason: \(outcome)") }
        guard try victim.look(atPage: 0, for: secret) == .same else { throw .broken("the guest lost its page") }
        return Observation(.stopped, evidence)
    }

    static let reusesASIDFlushed = Scenario(
        "reuses-asid-flushed", "host re-uses an ASID with the old pages",
        attack: """
            A guest ends. The host flushes as it should and gives its ASID to a guest of the attacker's, together with the \
            pages of the first guest as they lie in DRAM. It hopes that the same ASID deciphers them.
            """,
        threat: "VM memory",
        sev: Promise(.stopped, "every guest gets a key of its own, whatever its ASID", "[APM2 15.34.5]; [SEV 6.2]"),
        sevES: Promise(.stopped, "as with SEV", "[APM2 15.34.5]; [SEV 6.2]"),
        snp: Promise(.stopped, "as with SEV", "[APM2 15.34.5]; [SNP 8.15]")
    ) { (subject, laboratory) throws(Interruption) in
        let secret = Pattern(seed: 0x5ec2_0006_0000_0001)
        let remains = try Remains(of: subject, holding: secret, in: laboratory)
        var evidence = remains.evidence
        if let asid = remains.asid {
            try laboratory.requirePrivileges().forceNextASID(asid, flushing: true)
        }
        let accomplice = try VictimMachine(subject, in: laboratory, ram: subject.hasPrivateMemory ? nil : remains.ram)
        var page = 0
        if subject.hasPrivateMemory {
            // The page is put back where it was, as it was, and given to the new guest like any other.
            let privileges = try laboratory.requirePrivileges()
            guard let address = remains.address, try laboratory.claim(address), let asid = remains.asid else {
                throw .broken("the old page is not free any more")
            }
            if let refusal = privileges.writePhysical(address, remains.ciphertext) { throw .broken(refusal) }
            page = VictimLayout.launchedPageCount
            try accomplice.launch()
            let result = privileges.updateRMP(address, gpa: VictimLayout.page(page), asid: asid)
            guard result == 0 else { throw .broken("RMPUPDATE of \(hex(address)): RAX \(result)") }
            privileges.map(address, asPage: VictimLayout.page(page) >> 12, of: accomplice.memfd, in: accomplice.vm)
            try accomplice.start()
            try accomplice.perform(.validate(page: page, true))
            evidence.append("the second guest has accepted the page at \(hex(address))")
        } else {
            try accomplice.launch()
            try accomplice.start()
        }
        if let asid = remains.asid, laboratory.privileges?.asid(of: accomplice.vm) != asid {
            throw .broken("the second guest did not get ASID \(asid)")
        }
        let view = try accomplice.look(atPage: page, for: secret)
        evidence.append("the second guest compares the old page with the secret: \(view)")
        return Observation(view == .same ? .notStopped : .stopped, evidence)
    }
}

/// What a guest that has ended leaves behind.
private struct Remains {
    /// Nil for plain guests.
    var asid: UInt32?
    var ram: KernelMapping
    /// A page of the guest's as DRAM held it, and where; for private memory.
    var ciphertext: [UInt8] = []
    var address: UInt64?
    var evidence: [String]

    /// Runs a guest that fills page 0 with a secret, and ends it.
    init(of subject: Subject, holding secret: Pattern, in laboratory: Laboratory) throws(Interruption) {
        let victim = try laboratory.victim(subject)
        try victim.perform(.fill(page: 0, secret))
        let bytes = try victim.hostBytes(ofPage: 0)
        ram = victim.ram
        evidence = []
        guard subject != .plain else { return }
        let privileges = try laboratory.requirePrivileges()
        guard let asid = privileges.asid(of: victim.vm) else { throw .broken("the guest has no ASID") }
        self.asid = asid
        evidence = ["a guest with ASID \(asid) fills a page with a secret and ends"]
        ciphertext = bytes
        if subject.hasPrivateMemory {
            let address = try victim.physicalPage(0)
            guard let bytes = privileges.readPhysical(address, byteCount: 4096) else {
                throw .broken("no memory at \(hex(address))")
            }
            self.address = address
            ciphertext = bytes
        }
        evidence.append("its page as DRAM holds it: \(hex(ciphertext))")
    }
}
