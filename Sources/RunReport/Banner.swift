// What the run protects, in plain words.

/// The banner at the top.
struct Banner {
    let data: RunReportData

    /// The first sentence, and what follows from it.
    var text: (claim: String, rest: String, isCalm: Bool) {
        if data.isSoftwareMachine {
            return (
                "This run protected nothing.",
                "The processor, the secure processor and the memory encryption were software, inside an ordinary process: "
                    + "whoever runs it sees everything that the guest does. The page shows what happens on real hardware, step "
                    + "for step. Use it to learn and to test, never for secrets.", false
            )
        }
        if data.technology == .plain {
            return (
                "Nothing is hidden from the host.",
                "A plain VM: the hypervisor and everybody who controls it can read and change the guest's memory and "
                    + "registers.", false
            )
        }
        if data.policy?.allowsDebug == true {
            return (
                "The policy allows debugging: the host may read everything.",
                "With DEBUG allowed the host asks the firmware to decipher the guest's memory. No secret belongs in this "
                    + "guest.", false
            )
        }
        let checked = "Worth something only when the guest's owner has compared the measurement with the expected one."
        switch data.technology {
        case .sev:
            return (
                "The guest's memory is encrypted, and no more than that.",
                "The host cannot read private pages. It can read and change registers, put old pages back, and move them. "
                    + checked, true
            )
        case .sevES:
            return (
                "The guest's memory and registers are encrypted.",
                "The host cannot read private pages or registers. It can still put old pages back and move them. "
                    + checked,
                true
            )
        default:
            return (
                "The guest's memory and registers are encrypted, and the host cannot change them unseen.",
                "The host can refuse to run the guest, and it sees shared pages, timing and sizes. " + checked, true
            )
        }
    }

    var markup: Markup {
        let (claim, rest, isCalm) = text
        return """
            <div class="banner \(isCalm ? "calm" : "caution")" role="note">\(isCalm ? Figures.shield : Figures.warning)\
            <p><b>\(claim)</b> \(rest)</p></div>
            """
    }
}
