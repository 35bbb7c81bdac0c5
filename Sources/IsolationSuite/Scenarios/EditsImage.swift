// The guest's program, changed before it starts.

extension Scenario {
    static let editsImage = Scenario(
        "edits-image", "host edits the image before launch",
        attack:
            "The host changes eight bytes of the guest's program before the launch, and hopes that it runs like that.",
        sev: Promise(
            .detected, "the measurement differs from the owner's: no secret is released", "[SEV 6.5]"),
        sevES: Promise(.detected, "as with SEV", "[SEV 6.5]"),
        snp: Promise(
            .stopped, "the firmware refuses to finish a launch whose digest is not that of the owner's signed ID block",
            "[SNP 8.18]")
    ) { (subject, laboratory) throws(Interruption) in
        let edit = LaunchEdit(
            what: "the image",
            apply: { image in
                let mark = littleEndian(VictimLayout.imageMark)
                let places = image.program.indices.dropLast(7).filter { Array(image.program[$0..<$0 + 8]) == mark }
                for place in places {
                    image.program.replaceSubrange(place..<place + 8, with: littleEndian(LaunchEdit.forged))
                }
            }, mark: (0, LaunchEdit.forged))
        return try edit.observe(on: subject, in: laboratory)
    }
}
