// Exits over time, one small chart per kind on one time axis. Every chart has its own height scale, and says what its
// highest column is: kinds differ by factors of a million, and a common scale would hide all but one.

/// The exits.
struct ExitChart {
    let exits: RunReportData.ExitTimeline

    private static let maximumKindCount = 24
    private static let maximumBinCount = 160

    var markup: Markup {
        guard exits.total > 0 else {
            return "<p class=\"note\">No exit was counted: the guest did not run.</p>"
        }
        let kinds = exits.kinds.filter { $0.total > 0 }.sorted { ($1.total, $0.name) < ($0.total, $1.name) }
        var whole: [UInt64] = []
        for kind in kinds {
            for (index, count) in kind.bins.enumerated() {
                if index < whole.count { whole[index] &+= count } else { whole.append(count) }
            }
        }
        let (_, binNanoseconds) = binned(whole)
        let all = row("All exits", "", exits.total, whole, classes: "exit all")
        let rows = kinds.prefix(Self.maximumKindCount).map {
            row(Readable.short($0.name, 60), Self.meaning(of: $0.name), $0.total, $0.bins)
        }
        let rest: Markup? =
            kinds.count > Self.maximumKindCount
            ? "<p class=\"note\">and \(kinds.count - Self.maximumKindCount) rarer kinds</p>" : nil
        let axis: Markup? =
            whole.isEmpty
            ? nil
            : """
            <div class="exit" aria-hidden="true"><span class="what"></span><span class="total"></span><div class="plot">\
            \(timeAxis(whole))</div></div>
            """
        let lead: Markup =
            whole.isEmpty
            ? "<p class=\"note\">Only totals are known.</p>"
            : """
            <p class="note">From the first KVM_RUN to the end, \(Readable.duration(exits.runNanoseconds)). A column is \
            \(Readable.duration(binNanoseconds)). Every row has its own height scale; its highest column is written under it.</p>
            """
        return "\(lead)<div class=\"exits\">\(all)\(rows)\(axis)</div>\(rest)"
    }

    /// To the end of the last column, which is a little later than that of the run.
    private func timeAxis(_ bins: [UInt64]) -> Markup {
        let (columns, width) = binned(bins)
        let end = width.multipliedReportingOverflow(by: UInt64(columns.count))
        let last = end.overflow ? exits.runNanoseconds : end.partialValue
        let half = last / 2
        return """
            <svg style="height:18px;border:0;overflow:visible"><text x="0" y="13">0</text><text x="50%" y="13" \
            text-anchor="middle">\(Readable.duration(half))</text><text x="100%" y="13" text-anchor="end">\
            \(Readable.duration(last))</text></svg>
            """
    }

    private func row(
        _ name: String, _ meaning: String, _ total: UInt64, _ bins: [UInt64], classes: String = "exit"
    ) -> Markup {
        let (columns, width) = binned(bins)
        let note: Markup? = meaning.isEmpty ? nil : "<small>\(meaning)</small>"
        let share: Markup? = total == exits.total ? nil : "<small>\(Readable.share(total, of: exits.total))</small>"
        let title: Markup = classes == "exit" ? "<code>\(name)</code>" : "<b>\(name)</b>"
        var plot = Markup()
        if let highest = columns.max(), highest > 0 {
            plot = """
                <svg viewBox="0 0 \(columns.count) 100" preserveAspectRatio="none" role="img" \
                aria-label="\(name) over time, at most \(Readable.count(highest)) in \(Readable.duration(width))">\
                <path d="\(Self.path(columns, highest: highest))"/></svg><small>highest column \(Readable.count(highest)), \
                \(Self.rate(highest, in: width))</small>
                """
        }
        return """
            <div class="\(classes)"><span class="what">\(title)\(note)</span><span class="total">\(Readable.count(total))\
            \(share)</span><div class="plot">\(plot)</div></div>
            """
    }

    /// Spans from the first KVM_RUN to the end, those without an exit too.
    private var spanCount: Int {
        let known = exits.kinds.reduce(0) { max($0, $1.bins.count) }
        guard exits.binNanoseconds > 0 else { return known }
        let all = (exits.runNanoseconds - min(1, exits.runNanoseconds)) / exits.binNanoseconds + 1
        // More than a page could mean: a run that claims nonsense shows what it has.
        return max(known, all <= 1 << 20 ? Int(all) : 0)
    }

    /// Fewer and wider columns when there are too many; the last one covers the end of the run.
    private func binned(_ bins: [UInt64]) -> (columns: [UInt64], nanoseconds: UInt64) {
        let known = spanCount
        let factor = max(1, (known + Self.maximumBinCount - 1) / Self.maximumBinCount)
        var columns = [UInt64](repeating: 0, count: (known + factor - 1) / factor)
        for (index, count) in bins.enumerated() { columns[index / factor] &+= count }
        return (columns, exits.binNanoseconds &* UInt64(factor))
    }

    /// Columns as one outline. What is not zero is at least three percent high, so that it can be seen.
    private static func path(_ columns: [UInt64], highest: UInt64) -> Markup {
        var path = ""
        var index = 0
        while index < columns.count {
            guard columns[index] > 0 else {
                index += 1
                continue
            }
            path += "M\(index),100"
            while index < columns.count, columns[index] > 0 {
                let height = max(3, Double(columns[index]) / Double(highest) * 96)
                path += "V" + Readable.coordinate(100 - height) + "h1"
                index += 1
            }
            path += "V100z"
        }
        return Markup(stringLiteral: path)
    }

    private static func rate(_ count: UInt64, in nanoseconds: UInt64) -> String {
        guard nanoseconds > 0 else { return "" }
        let perSecond = Double(count) / (Double(nanoseconds) / 1e9)
        guard perSecond >= 1, perSecond < 1e18 else { return "less than one per second" }
        return "\(Readable.count(UInt64(perSecond.rounded()))) per second"
    }

    private static func meaning(of name: String) -> String {
        switch name {
        case "KVM_EXIT_IO": "the guest uses a port: the serial line"
        case "KVM_EXIT_MMIO": "the guest uses a device's memory"
        case "KVM_EXIT_HYPERCALL": "the guest changes pages between private and shared"
        case "KVM_EXIT_MEMORY_FAULT": "an access with the other C-bit: the VMM converts the page"
        case "KVM_EXIT_HLT": "the guest sleeps"
        case "KVM_EXIT_INTR", "EINTR": "the VMM's own signal"
        case "EAGAIN": "KVM_RUN asked to be called again"
        case "KVM_EXIT_SYSTEM_EVENT": "power-off, reset or termination"
        case "KVM_EXIT_SHUTDOWN": "a triple fault"
        case "KVM_EXIT_IRQ_WINDOW_OPEN": "the guest takes interrupts again"
        case "KVM_EXIT_INTERNAL_ERROR": "the host kernel cannot go on"
        case "KVM_EXIT_VMGEXIT": "a GHCB call that the VMM answers"
        default: ""
        }
    }
}
