// The design as a picture, with this run's data on it: who holds what, and who said what to whom.

/// The diagram.
struct Diagram {
    let data: RunReportData

    private var isPlain: Bool { data.technology == .plain }

    var markup: Markup {
        let ownerMessages = data.messages.filter { $0.from == .owner || $0.to == .owner }
        return """
            <figure class="diagram\(ownerMessages.isEmpty ? " alone" : "")" aria-label="The machine and the guest owner">
            <div class="outside">\(owner)\(wire(ownerMessages, "outer", label: "Between the guest owner and the hypervisor"))</div>
            <div class="server"><span class="place">one server</span>
            \(hypervisor)
            \(wire(data.messages.filter { $0.from != .owner && $0.to != .owner }, "launch", label: "The launch"))
            \(firmware)
            <div class="link loads">\(Figures.drop())<span>\(loads)</span></div>
            \(controller)
            <div class="link stores">\(Figures.drop(bothWays: true))<span>\(stores)</span></div>
            \(memory)
            \(access)
            <div class="link enters">\(Figures.drop(bothWays: true))<span><span class="route">hypervisor ↔ VM: </span>\(enters)\
            </span></div>
            <div class="machines">\(machines)</div>
            </div></figure>
            <ul class="trust"><li><i></i>trusted by the guest owner\(data.isSoftwareMachine ? ", on real hardware" : "")</li>\
            <li class="host"><i></i>not trusted</li></ul>
            \(absentSteps)
            """
    }

    // MARK: Boxes

    private var owner: Markup {
        guard let owner = data.owner else {
            return box(
                "idle", "Guest owner", role: isPlain ? "has nothing to check" : "took no part in this run",
                facts: [],
                isPlain
                    ? nil
                    : """
                    <p class="note">Whoever owns the guest compares the measurement with what it must be, outside this \
                    machine, before a secret goes in.</p>
                    """)
        }
        return box("", "Guest owner", role: "outside: \(Readable.short(owner.place))", facts: owner.facts)
    }

    private var hypervisor: Markup {
        box(
            "host hypervisor", "Hypervisor",
            role: "\(Readable.short(data.hypervisor.name)), backend \(Readable.short(data.hypervisor.backend))",
            facts: data.hypervisor.facts)
    }

    private var firmware: Markup {
        box(
            isPlain ? "idle firmware" : "firmware", "Firmware",
            role: isPlain ? "the AMD secure processor takes no part" : "the AMD secure processor",
            facts: data.firmware.facts)
    }

    private var controller: Markup {
        let keys: Markup
        if isPlain {
            keys = ""
        } else if let slots = data.memoryController.keySlots {
            let items = slots.prefix(Self.maximumShownCount).map { slot -> Markup in
                """
                <li\(slot.isLoaded ? "" : " class=\"free\"" as Markup)>\(slot.isLoaded ? Figures.lock : Figures.openSlot)\
                <span>key slot \(slot.asid): \(slot.isLoaded ? Readable.short(slot.label) : "empty, scrubbed")</span></li>
                """
            }
            keys = "<ul class=\"keys\">\(items)</ul>\(more(slots.count))"
        } else {
            keys = "<p class=\"untold\">key slots: \(missing)</p>"
        }
        return box(
            isPlain ? "idle controller" : "controller", "Memory controller",
            role: isPlain ? "no key: memory is stored as it is" : "one AES key per ASID, never outside",
            facts: data.memoryController.facts, keys)
    }

    private var memory: Markup {
        let machines = data.machines.filter { $0.memoryByteCount > 0 }
        let items = machines.prefix(Self.maximumShownCount).map { machine -> Markup in
            "<li>\(Readable.short(machine.name)): \(Readable.bytes(machine.memoryByteCount))\(machine.technology == .plain ? ", plain" : "")</li>"
        }
        return box(
            "host memory", "Memory",
            role: isPlain ? "DRAM, as the guest wrote it" : "DRAM: ciphertext of private pages",
            facts: [], "<ul class=\"sides\">\(items)</ul>\(more(machines.count))")
    }

    private var machines: Markup {
        "\(data.machines.prefix(Self.maximumShownCount).map(machine))\(more(data.machines.count))"
    }

    private func machine(_ machine: RunReportData.VirtualMachine) -> Markup {
        let plain = machine.technology == .plain
        var role = machine.technology.displayName
        if let asid = machine.asid { role += ", ASID \(asid)" } else if !plain { role += ", ASID \(missing)" }
        let processors = machine.processors.prefix(Self.maximumShownCount).map { processor($0, of: machine) }
        return box(
            plain ? "host" : "", "VM", role: role, facts: [],
            "<p class=\"role\">\(Readable.short(machine.name))</p>\(processors)\(more(machine.processors.count))\(sides(of: machine))"
        )
    }

    private func processor(
        _ processor: RunReportData.VirtualMachine.Processor, of machine: RunReportData.VirtualMachine
    ) -> Markup {
        var pages: Markup = """
            <div class="host broad"><b>VMCB</b>\(address(processor.vmcb))<small>the hypervisor's own</small></div>
            """
        if machine.technology.encryptsState {
            pages += """
                <div class="guest"><b>VMSA</b>\(address(processor.vmsa))<small>SPA; registers, encrypted</small></div>\
                <div class="both"><b>GHCB</b>\(address(processor.ghcb, missing: missingGHCB))<small>GPA; shared, for calls</small></div>
                """
        } else if machine.technology == .sev {
            pages += "<div class=\"host\"><b>registers</b><small>in the clear: the hypervisor reads them</small></div>"
        }
        return
            "<div class=\"processor\"><span class=\"title\">vCPU \(processor.index)</span><div class=\"pages\">\(pages)</div></div>"
    }

    private func sides(of machine: RunReportData.VirtualMachine) -> Markup {
        if machine.technology == .plain {
            return """
                \(bar([(.plain, 1)]))<ul class="sides"><li>\(Figures.swatch(.plain))\
                \(Readable.bytes(machine.memoryByteCount)), all of it open to the host</li></ul>
                """
        }
        guard let isPrivate = machine.privateByteCount, let shared = machine.sharedByteCount else {
            return """
                <ul class="sides"><li>\(Readable.bytes(machine.memoryByteCount)): the guest's page tables say which pages \
                are encrypted (C-bit)</li></ul>
                """
        }
        let whole = Double(max(1, isPrivate &+ shared))
        return """
            \(bar([(.private, Double(isPrivate) / whole), (.shared, Double(shared) / whole)]))
            <ul class="sides"><li>\(Figures.swatch(.private))\(Readable.bytes(isPrivate)) private, with this guest's key</li>\
            <li>\(Figures.swatch(.shared))\(Readable.bytes(shared)) shared with the hypervisor</li></ul>
            """
    }

    private func bar(_ parts: [(RunReportData.PageState, Double)]) -> Markup {
        var x = 0.0
        let rectangles = parts.map { state, share -> Markup in
            defer { x += share * 100 }
            return """
                <rect x="\(Readable.percent(x))" width="\(Readable.percent(share * 100))" height="100%" \
                fill="\(Figures.fill(state))"/>
                """
        }
        return "<svg class=\"share\" aria-hidden=\"true\">\(rectangles)</svg>"
    }

    // MARK: Arrows

    private func wire(_ messages: [RunReportData.Message], _ name: String, label: String) -> Markup {
        if messages.isEmpty { return "" }
        return
            "<ol class=\"wire \(name)\" aria-label=\"\(label)\">\(messages.prefix(Self.maximumArrowCount).map(arrow))</ol>"
    }

    private func arrow(_ message: RunReportData.Message) -> Markup {
        let toRight = message.from == .owner || (message.from == .hypervisor && message.to == .firmware)
        var classes = message.failure == nil ? "arrow" : "arrow failed"
        if message.from == .owner { classes += " from-owner" }
        if message.to == .owner { classes += " to-owner" }
        var parts: [String] = []
        if message.callCount > 1 { parts.append(Readable.counted(message.callCount, "call")) }
        if message.byteCount > 0, message.byteCount % 4096 == 0 {
            parts.append(Readable.counted(message.byteCount / 4096, "page"))
        }
        if message.byteCount > 0 { parts.append(Readable.bytes(message.byteCount)) }
        if let time = message.nanoseconds { parts.append(Readable.duration(time)) }
        let number = (1...99).contains(message.number) ? "\(message.number)" : "?"
        let amount: Markup? = parts.isEmpty ? nil : "<span class=\"detail\">\(parts.joined(separator: " · "))</span>"
        let detail: Markup? =
            message.detail.isEmpty ? nil : "<span class=\"detail\">\(Readable.short(message.detail, 160))</span>"
        let failure: Markup? = message.failure.map {
            "<span class=\"detail bad\">refused: \(Readable.short($0, 160))</span>"
        }
        return """
            <li class="\(classes)"><span class="name"><span class="badge">\(number)</span><code>\(Readable.short(message.name, 40))</code>\
            </span><span class="route">\(message.from.displayName) → \(message.to.displayName)</span>\
            \(Figures.shaft(toRight: toRight))\(amount)\(detail)\(failure)</li>
            """
    }

    private var access: Markup {
        let lines: [(String, String)] =
            isPlain
            ? [("reads and writes", "no encryption")]
            : [("C-bit 1", "private: with the key of its ASID"), ("C-bit 0", "shared: without a key")]
        let arrows = lines.map { name, detail -> Markup in
            """
            <li class="arrow"><span class="name"><code>\(name)</code></span><span class="route">VM → memory controller</span>\
            \(Figures.shaft(toRight: true))<span class="detail">\(detail)</span></li>
            """
        }
        return "<ul class=\"wire access\" aria-label=\"How the VM reaches memory\">\(arrows)</ul>"
    }

    private var loads: String {
        if isPlain { return "no key to load" }
        let asids = data.machines.compactMap(\.asid)
        guard !asids.isEmpty else { return "loads one key per ASID" }
        return "loads the key of ASID " + asids.map { "\($0)" }.joined(separator: ", ")
    }

    private var stores: String { isPlain ? "plaintext" : "enciphers on write, deciphers on read" }

    private var enters: String {
        data.exits.total == 0 ? "VMRUN" : "VMRUN, and \(Readable.counted(data.exits.total, "exit")) to the VMM"
    }

    /// The numbers are AMD's order; a run that skips a step says so.
    private var absentSteps: Markup? {
        let present = Set(data.messages.map(\.number))
        let all: [(Int, String)] =
            switch data.technology {
            case .plain, .snp: []
            case .sev, .sevES:
                [
                    (1, "LAUNCH_START"), (2, "LAUNCH_UPDATE_DATA"), (3, "LAUNCH_UPDATE_VMSA"), (4, "LAUNCH_MEASURE"),
                    (5, "LAUNCH_SECRET"), (6, "LAUNCH_FINISH"),
                ]
            }
        let absent = all.filter { !present.contains($0.0) }
        guard !absent.isEmpty, absent.count < all.count else { return nil }
        let names = absent.map { number, name in
            let reason =
                switch number {
                case 3: data.technology == .sev ? " (SEV does not encrypt registers)" : ""
                case 5: " (no secret was given)"
                default: ""
                }
            return "\(number) \(name)\(reason)"
        }
        return "<p class=\"note\">Not in this run: \(names.joined(separator: ", ")).</p>"
    }

    // MARK: Pieces

    static let untold = "not told to user space by this host"

    /// Why a value is missing: the kernel keeps it to itself, or the launch failed and left nothing to look at.
    private var missing: String {
        guestRan || data.outcome.isSuccess ? Self.untold : "not there: the launch failed"
    }
    /// The same for what the guest registers itself.
    private var missingGHCB: String {
        guestRan || !data.outcome.isSuccess ? missing : "none yet: the guest has not run"
    }
    private var guestRan: Bool { data.exits.kinds.contains { $0.total > 0 } }

    static let maximumShownCount = 8
    static let maximumArrowCount = 24

    private func more(_ count: Int) -> Markup? {
        count > Self.maximumShownCount ? "<p class=\"note\">and \(count - Self.maximumShownCount) more</p>" : nil
    }

    private func address(_ value: UInt64?, missing: String? = nil) -> Markup {
        guard let value else { return "<small class=\"untold\">\(missing ?? self.missing)</small>" }
        return "<code>\(Readable.hex(value))</code>"
    }

    private func box(
        _ classes: String, _ title: String, role: String, facts: [RunReportData.Fact], _ rest: Markup? = nil
    ) -> Markup {
        "<section class=\"box \(classes)\"><h3>\(title)</h3><p class=\"role\">\(role)</p>\(FactList(facts: facts, missing: missing).markup)\(rest)</section>"
    }
}

/// Names and values.
struct FactList {
    let facts: [RunReportData.Fact]
    /// What is said of a value that is nil.
    var missing = Diagram.untold

    var markup: Markup? {
        guard !facts.isEmpty else { return nil }
        let rows = facts.map { fact -> Markup in
            let value: Markup =
                fact.value.map { "\(Readable.short($0, 200))" } ?? "<span class=\"untold\">\(missing)</span>"
            return "<dt>\(Readable.short(fact.name, 60))</dt><dd>\(value)</dd>"
        }
        return "<dl class=\"facts\">\(rows)</dl>"
    }
}
