// The command line, changed before the launch.

extension Scenario {
    static let editsCommandLine = Scenario(
        "edits-command-line", "host edits the command line before launch",
        attack: "The host changes the kernel command line before the launch, and hopes that the guest obeys it.",
        sev: Promise(
            .detected, "the command line is part of the measured launch", "[SEV 6.5]"),
        sevES: Promise(.detected, "as with SEV", "[SEV 6.5]"),
        snp: Promise(.stopped, "the launch digest differs from the signed ID block", "[SNP 8.18]")
    ) { (subject, laboratory) throws(Interruption) in
        let edit = LaunchEdit(
            what: "the command line", apply: { $0.commandLine = littleEndian(LaunchEdit.forged) },
            mark: (2, LaunchEdit.forged))
        return try edit.observe(on: subject, in: laboratory)
    }
}
