// The initrd, changed before the launch.

extension Scenario {
    static let editsInitrd = Scenario(
        "edits-initrd", "host edits the initrd before launch",
        attack: "The host changes eight bytes of the initrd before the launch, and hopes that the guest uses it.",
        sev: Promise(
            .detected, "the initrd is part of the measured launch (here itself, under QEMU's firmware by its hash)",
            "[SEV 6.5]"),
        sevES: Promise(.detected, "as with SEV", "[SEV 6.5]"),
        snp: Promise(.stopped, "the launch digest differs from the signed ID block", "[SNP 8.18]")
    ) { (subject, laboratory) throws(Interruption) in
        let edit = LaunchEdit(
            what: "the initrd", apply: { $0.initrd = littleEndian(LaunchEdit.forged) }, mark: (1, LaunchEdit.forged))
        return try edit.observe(on: subject, in: laboratory)
    }
}
