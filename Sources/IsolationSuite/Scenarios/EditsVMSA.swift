// The register state that the guest starts with.

extension Scenario {
    static let editsVMSA = Scenario(
        "edits-vmsa", "host edits the initial registers before launch",
        attack: """
            The host changes a register that the guest starts with, and hopes that the guest starts like that: with another \
            register, it could start the guest's code at another place.
            """,
        sev: Promise(
            .notStopped, "SEV measures memory only: registers are neither measured nor protected", "[SEV 6.4]"),
        sevES: Promise(.detected, "the VMSA is measured (LAUNCH_UPDATE_VMSA)", "[SEV 6.4, 6.5]"),
        snp: Promise(.stopped, "the VMSA page is part of the launch digest", "[SNP 8.17, 8.18]")
    ) { (subject, laboratory) throws(Interruption) in
        let edit = LaunchEdit(
            what: "the register state", apply: { $0.processor.generalRegisters[3] = LaunchEdit.forged },
            mark: (3, LaunchEdit.forged))
        return try edit.observe(on: subject, in: laboratory)
    }
}
