// The map of guest memory: what each state means, the whole address space before and after the run, and the small pieces
// larger.

/// The memory map.
struct MemoryMapFigure {
    let map: RunReportData.MemoryMap
    let technology: RunReportData.Technology

    private static let maximumZoomCount = 6
    private static let maximumZoomCellCount = 18
    private static let maximumRowCount = 60

    var markup: Markup {
        let space = AddressSpace(map)
        guard !space.cells.isEmpty else { return "<p class=\"note\">No memory was recorded.</p>" }
        let axis = space.axis
        let groups = Self.chosen(space.smallGroups(axis))
        let note: Markup? = map.note.isEmpty ? nil : "<p class=\"note\">\(map.note)</p>"
        let cut: Markup? =
            space.wasCut
            ? "<p class=\"note\">The guest cut its memory into very many pieces; the first are shown.</p>" : nil
        let after: Markup? =
            map.after == nil
            ? nil
            : "<p class=\"rowname\">At the end of the run</p>\(strip(space, axis, \.after, "At the end of the run"))"
        return """
            \(note)\(cut)<p class="rowname">After the launch, before the first instruction</p>
            \(strip(space, axis, \.before, "After the launch"))\(after)\(ruler(axis, groups))
            \(legend(space))
            \(zooms(groups))
            \(table(space))
            """
    }

    /// Those with names come first when there are too many; in the order of their addresses again.
    private static func chosen(_ groups: [ArraySlice<AddressSpace.Cell>]) -> [ArraySlice<AddressSpace.Cell>] {
        guard groups.count > maximumZoomCount else { return groups }
        let named = groups.filter { $0.contains { !$0.label.isEmpty } }
        let rest = groups.filter { !$0.contains { !$0.label.isEmpty } }
        return (named + rest).prefix(maximumZoomCount).sorted { $0.startIndex < $1.startIndex }
    }

    // MARK: The whole

    private func strip(
        _ space: AddressSpace, _ axis: AddressSpace.Axis, _ state: KeyPath<AddressSpace.Cell, RunReportData.PageState?>,
        _ name: String
    ) -> Markup {
        // What is wide is drawn in order; what is narrower than a hair is drawn on top of it, once per place and state.
        var wide = Markup()
        var hairs = Markup()
        var drawn: Set<String> = []
        var index = 0
        let cells = space.cells
        while index < cells.count {
            guard let current = cells[index][keyPath: state] else {
                index += 1
                continue
            }
            var end = index + 1
            while end < cells.count, cells[end][keyPath: state] == current, cells[end].start == cells[end - 1].end {
                end += 1
            }
            let x = axis.position(cells[index].start)
            let width = max(0, axis.position(cells[end - 1].end &- 1) - x)
            index = end
            if width >= 0.3 {
                wide += rectangle(x, width, current)
            } else {
                let place = min(99.7, Double(Int(x / 0.3)) * 0.3)
                guard drawn.insert("\(place) \(current)").inserted else { continue }
                hairs += rectangle(place, 0.3, current)
            }
        }
        let holes = zip(axis.pieces, axis.pieces.dropFirst()).map { left, right -> Markup in
            let middle = (left.x + left.width + right.x) / 2
            return
                "<text x=\"\(Readable.percent(middle))\" y=\"27\" text-anchor=\"middle\" aria-hidden=\"true\">⋯</text>"
        }
        return
            "<svg class=\"strip\" role=\"img\" aria-label=\"\(name): guest memory by state; the table has the numbers\">\(wide)\(hairs)\(holes)</svg>"
    }

    private func rectangle(_ x: Double, _ width: Double, _ state: RunReportData.PageState) -> Markup {
        "<rect x=\"\(Readable.percent(x))\" width=\"\(Readable.percent(width))\" height=\"100%\" fill=\"\(Figures.fill(state))\"/>"
    }

    /// Addresses below the strips, and the letters of the pieces that are shown larger.
    private func ruler(_ axis: AddressSpace.Axis, _ groups: [ArraySlice<AddressSpace.Cell>]) -> Markup {
        let letters = groups.enumerated().compactMap { index, group -> Markup? in
            guard let first = group.first, let last = group.last else { return nil }
            let x = (axis.position(first.start) + axis.position(last.end &- 1)) / 2
            let place = Readable.percent(min(98.8, max(1.2, x)))
            return """
                <text x="\(place)" y="14" text-anchor="middle" style="font-weight:700;fill:var(--ink)">\(Self.letter(index))</text>
                """
        }
        var ticks = Markup()
        // Labels of the longest runs only, so that they have room.
        for piece in axis.pieces where piece.width > 24 {
            for (address, part, anchor) in [
                (piece.start, 0.0, "start"), (piece.start &+ piece.byteCount / 2, 0.5, "middle"),
                (piece.start &+ piece.byteCount, 1.0, "end"),
            ] {
                ticks += """
                    <text x="\(Readable.percent(piece.x + piece.width * part))" y="14" text-anchor="\(anchor)">\
                    \(Readable.address(address))</text>
                    """
            }
        }
        let marks: Markup? = letters.isEmpty ? nil : "<svg class=\"axis\" aria-hidden=\"true\">\(letters)</svg>"
        return "\(marks)<svg class=\"axis\" aria-hidden=\"true\">\(ticks)</svg>"
    }

    static func letter(_ index: Int) -> String {
        // Safe: at most `maximumZoomCount` pieces have letters.
        String(UnicodeScalar(UInt8(truncatingIfNeeded: 0x41 + index % 26)))
    }

    // MARK: Legend

    private func legend(_ space: AddressSpace) -> Markup {
        var before: [RunReportData.PageState: UInt64] = [:]
        var after: [RunReportData.PageState: UInt64] = [:]
        for cell in space.cells {
            if let state = cell.before { before[state, default: 0] &+= cell.byteCount }
            if let state = cell.after { after[state, default: 0] &+= cell.byteCount }
        }
        for region in map.outside { before[region.state, default: 0] &+= region.byteCount }
        if map.after != nil { for region in map.outside { after[region.state, default: 0] &+= region.byteCount } }
        let rows = RunReportData.PageState.allCases.filter { before[$0] != nil || after[$0] != nil }.map {
            state -> Markup in
            let end: Markup? =
                map.after == nil
                ? nil : "<td class=\"number\" data-label=\"at the end\">\(Readable.bytes(after[state] ?? 0))</td>"
            return """
                <tr><td>\(Figures.swatch(state))\(Self.name(of: state))</td>\
                <td class="meaning" data-label="">\(Self.meaning(of: state, technology))</td>\
                <td class="number" data-label="after the launch">\(Readable.bytes(before[state] ?? 0))</td>\(end)</tr>
                """
        }
        let end: Markup? = map.after == nil ? nil : "<th class=\"number\">at the end</th>"
        return """
            <table class="legend stack"><thead><tr><th>state</th><th>meaning</th><th class="number">after the launch</th>\
            \(end)</tr></thead><tbody>\(rows)</tbody></table>
            """
    }

    static func name(of state: RunReportData.PageState) -> String {
        switch state {
        case .measured: "private, measured"
        case .validated: "private, validated"
        case .private: "private, by the guest"
        case .untouched: "not launched"
        case .shared: "shared"
        case .secret: "owner's secret"
        case .firmware: "firmware's pages"
        case .vmsa: "VMSA"
        case .plain: "plain"
        }
    }

    static func meaning(of state: RunReportData.PageState, _ technology: RunReportData.Technology) -> String {
        switch state {
        case .measured: "encrypted; its contents are part of the measurement"
        case .validated: "encrypted and validated at launch as zero or unmeasured pages"
        case .private:
            technology == .snp
                ? "encrypted; the guest itself validated it or took it back" : "encrypted; set up by the guest"
        case .untouched:
            technology == .snp
                ? "private, but not validated: the guest has to accept it first"
                : "never enciphered: reads as garbage with the guest's key"
        case .shared: "host and guest both read and write it; devices use it"
        case .secret: "filled by the firmware with what the owner sent"
        case .firmware: "made by the firmware: secrets page, CPUID page"
        case .vmsa: "a processor's registers, encrypted and measured"
        case .plain: "the host reads and writes all of it"
        }
    }

    // MARK: The small pieces

    private func zooms(_ groups: [ArraySlice<AddressSpace.Cell>]) -> Markup? {
        guard !groups.isEmpty else { return nil }
        let figures = groups.enumerated().map { index, group in zoom(Array(group), letter: Self.letter(index)) }
        return """
            <h3>The small pieces, larger</h3><p class="note">Where the letters are above. Widths show order and rough size \
            only; the numbers are in the table.</p><div class="zooms">\(figures)</div>
            """
    }

    private func zoom(_ group: [AddressSpace.Cell], letter: String) -> Markup {
        guard let first = group.first, let last = group.last else { return "" }
        let shown = group.prefix(Self.maximumZoomCellCount)
        let weights = shown.map { 2 + Readable.log2(max(1, $0.byteCount / 4096)) * 0.5 }
        let total = weights.reduce(0, +)
        var x = 0.0
        var cells = Markup()
        for (index, cell) in shown.enumerated() {
            let width = weights[index] / max(1, total) * 100
            let parts: [(RunReportData.PageState?, String, String)] =
                map.after == nil ? [(cell.before, "0", "42")] : [(cell.before, "0", "20"), (cell.after, "22", "20")]
            for (state, y, height) in parts {
                guard let state else { continue }
                cells += """
                    <rect x="\(Readable.percent(x))" y="\(y)" width="\(Readable.percent(width - 0.4))" height="\(height)" rx="2" \
                    fill="\(Figures.fill(state))"/>
                    """
            }
            cells += """
                <text x="\(Readable.percent(x + width / 2))" y="56" text-anchor="middle">\(index + 1)</text>
                """
            x += width
        }
        let rest: Markup? = group.count > shown.count ? "<li>and \(group.count - shown.count) more</li>" : nil
        let isSingle = group.count == 1
        let picture: Markup? = isSingle ? nil : "<svg class=\"cells\" aria-hidden=\"true\">\(cells)</svg>"
        let names = shown.map { cell -> Markup in
            "<li><code>\(Readable.hex(cell.start))</code> \(name(of: cell)), \(Readable.bytes(cell.byteCount))</li>"
        }
        return """
            <div class="zoom"><h4>\(letter): \(Readable.hex(first.start)) to \(Readable.hex(last.end))</h4>
            \(picture)<ol class="pieces\(isSingle ? " single" : "")">\(names)\(rest)</ol></div>
            """
    }

    /// Its label, and what happened to it when something did.
    private func name(of cell: AddressSpace.Cell) -> String {
        let before = cell.before.map(Self.name) ?? "no memory"
        let after = cell.after.map(Self.name) ?? "no memory"
        let states = map.after == nil || before == after ? before : "\(before), then \(after)"
        if cell.label.isEmpty { return states }
        return Readable.short(cell.label, 60) + (states == before ? "" : ": " + states)
    }

    // MARK: The table

    private func table(_ space: AddressSpace) -> Markup {
        // What has a name comes first when there is too much; then what changed; then what is large.
        func rank(_ cell: AddressSpace.Cell) -> (Int, UInt64) {
            (cell.label.isEmpty ? (map.after != nil && cell.before != cell.after ? 1 : 0) : 2, cell.byteCount)
        }
        var chosen = Array(space.cells.indices)
        if chosen.count > Self.maximumRowCount {
            chosen.sort { rank(space.cells[$0]) > rank(space.cells[$1]) }
            chosen = Array(chosen.prefix(Self.maximumRowCount)).sorted()
        }
        let rows = chosen.map { row(space.cells[$0]) }
        let outside = map.outside.prefix(Self.maximumRowCount).map { region in
            row(
                AddressSpace.Cell(
                    start: region.start, byteCount: region.byteCount,
                    label: region.label + ", outside the guest's memory", before: region.state,
                    after: map.after == nil ? nil : region.state))
        }
        let end: Markup? = map.after == nil ? nil : "<th>at the end</th>"
        let missing = space.cells.count - chosen.count
        let rest: Markup? = missing > 0 ? "<p class=\"note\">and \(missing) smaller pieces without a name</p>" : nil
        return """
            <h3>Every piece</h3><table class="regions stack"><thead><tr><th>address (GPA)</th><th class="number">size</th><th>what</th>\
            <th>after the launch</th>\(end)</tr></thead><tbody>\(rows)\(outside)</tbody></table>\(rest)
            """
    }

    private func row(_ cell: AddressSpace.Cell) -> Markup {
        let changed = map.after != nil && cell.before != cell.after
        func state(_ value: RunReportData.PageState?) -> Markup {
            value.map { "<span>\(Figures.swatch($0))\(Self.name(of: $0))</span>" } ?? "<span>no memory</span>"
        }
        let end: Markup? =
            map.after == nil
            ? nil
            : "<td\(changed ? " class=\"changed\"" as Markup : "") data-label=\"at the end\">\(state(cell.after))</td>"
        return """
            <tr><td><code>\(Readable.hex(cell.start))</code></td><td class="number" data-label="size">\
            \(Readable.bytes(cell.byteCount))</td><td data-label="what">\(Readable.short(cell.label, 120))</td>\
            <td data-label="after the launch">\(state(cell.before))</td>\(end)</tr>
            """
    }
}
