// The guest's address space, cut into cells that have one state before the run and one after it.

/// Cells in the order of their addresses.
package struct AddressSpace {
    package struct Cell: Equatable, Sendable {
        package var start: UInt64
        package var byteCount: UInt64
        package var label: String
        package var before: RunReportData.PageState?
        package var after: RunReportData.PageState?

        /// Safe: cells are made inside the address space.
        var end: UInt64 { start &+ byteCount }
    }

    /// Regions that are looked at; a guest can make many, and a page has to be read by people.
    package static let maximumRegionCount = 20_000

    package private(set) var cells: [Cell] = []
    package private(set) var wasCut: Bool

    package init(_ map: RunReportData.MemoryMap) {
        wasCut = map.before.count > Self.maximumRegionCount || (map.after?.count ?? 0) > Self.maximumRegionCount
        let before = Self.flat(map.before)
        let after = map.after.map(Self.flat)
        cells = Self.merge(Self.overlay(before, after))
    }

    /// Regions without overlaps, in order; where they overlapped, the later one counts.
    private static func flat(_ regions: [RunReportData.Region]) -> [RunReportData.Region] {
        let regions = regions.prefix(maximumRegionCount).compactMap { region -> RunReportData.Region? in
            var region = region
            // A region that runs over the end of the address space ends there.
            region.byteCount = min(region.byteCount, UInt64.max - region.start)
            return region.byteCount > 0 ? region : nil
        }
        let sorted = regions.enumerated().sorted { ($0.element.start, $0.offset) < ($1.element.start, $1.offset) }
        let overlaps = zip(sorted, sorted.dropFirst()).contains {
            $0.element.start &+ $0.element.byteCount > $1.element.start
        }
        guard overlaps else { return sorted.map(\.element) }
        // From the last to the first: what is already taken stays with the later region.
        var taken = RangeSet<UInt64>()
        var result: [RunReportData.Region] = []
        for region in regions.reversed() {
            var free = RangeSet(region.start..<(region.start &+ region.byteCount))
            free.subtract(taken)
            for range in free.ranges {
                var piece = region
                piece.start = range.lowerBound
                piece.byteCount = range.upperBound - range.lowerBound
                result.append(piece)
            }
            taken.formUnion(free)
        }
        return result.sorted { $0.start < $1.start }
    }

    private static func overlay(_ before: [RunReportData.Region], _ after: [RunReportData.Region]?) -> [Cell] {
        var edges = before.flatMap { [$0.start, $0.start &+ $0.byteCount] }
        edges += (after ?? []).flatMap { [$0.start, $0.start &+ $0.byteCount] }
        edges = edges.sorted()
        var first = before[...]
        var second = (after ?? [])[...]
        var cells: [Cell] = []
        for (start, end) in zip(edges, edges.dropFirst()) where start < end {
            while let region = first.first, region.start &+ region.byteCount <= start { first.removeFirst() }
            while let region = second.first, region.start &+ region.byteCount <= start { second.removeFirst() }
            let old = first.first.flatMap { $0.start <= start ? $0 : nil }
            let new = second.first.flatMap { $0.start <= start ? $0 : nil }
            guard old != nil || new != nil else { continue }
            let label = [old?.label, new?.label].compactMap { $0 }.first { !$0.isEmpty } ?? ""
            cells.append(
                Cell(
                    start: start, byteCount: end - start, label: label, before: old?.state,
                    after: after == nil ? nil : new?.state))
        }
        return cells
    }

    private static func merge(_ cells: [Cell]) -> [Cell] {
        var result: [Cell] = []
        for cell in cells {
            if let last = result.last, last.end == cell.start, last.label == cell.label, last.before == cell.before,
                last.after == cell.after
            {
                result[result.count - 1].byteCount &+= cell.byteCount
            } else {
                result.append(cell)
            }
        }
        return result
    }

    // MARK: Places on a strip

    /// One axis for all cells: to scale, with holes of the address space shortened.
    struct Axis {
        /// Runs of memory without a hole: where they begin, on the strip and in memory.
        let pieces: [(start: UInt64, byteCount: UInt64, x: Double, width: Double)]

        /// Share of the strip that one hole takes, in percent.
        static let holeWidth = 2.5

        init(_ cells: [Cell]) {
            var runs: [(start: UInt64, end: UInt64)] = []
            for cell in cells {
                if let last = runs.last, last.end == cell.start {
                    runs[runs.count - 1].end = cell.end
                } else {
                    runs.append((cell.start, cell.end))
                }
            }
            let total = runs.reduce(0.0) { $0 + Double($1.end - $1.start) }
            // Many holes share a quarter of the strip.
            let hole = runs.count > 1 ? min(Self.holeWidth, 25 / Double(runs.count - 1)) : 0
            let scale = (100 - hole * Double(max(0, runs.count - 1))) / max(1, total)
            var x = 0.0
            pieces = runs.map { run in
                let width = Double(run.end - run.start) * scale
                defer { x += width + hole }
                return (run.start, run.end - run.start, x, width)
            }
        }

        func position(_ address: UInt64) -> Double {
            var low = 0
            var high = pieces.count
            while high - low > 1 {
                let middle = (low + high) / 2
                if pieces[middle].start <= address { low = middle } else { high = middle }
            }
            guard low < pieces.count, address >= pieces[low].start else { return 0 }
            let piece = pieces[low]
            let share = Double(address - piece.start) / Double(max(1, piece.byteCount))
            return piece.x + piece.width * min(1, share)
        }
    }

    var axis: Axis { Axis(cells) }

    /// Groups of neighbours that are too small to be seen on the whole strip.
    func smallGroups(_ axis: Axis) -> [ArraySlice<Cell>] {
        var groups: [Range<Int>] = []
        for (index, cell) in cells.enumerated() {
            let x = axis.position(cell.start)
            let end = axis.position(cell.start &+ (cell.byteCount - 1))
            guard end - x < 1.5 else { continue }
            if let last = groups.last, x - axis.position(cells[last.upperBound - 1].start) < 3 {
                groups[groups.count - 1] = last.lowerBound..<index + 1
            } else {
                groups.append(index..<index + 1)
            }
        }
        // What has no name and did not change is only there to separate the others.
        return groups.compactMap { group in
            guard let first = group.first(where: { isOfInterest(cells[$0]) }),
                let last = group.last(where: { isOfInterest(cells[$0]) })
            else { return nil }
            return cells[first...last]
        }
    }

    private func isOfInterest(_ cell: Cell) -> Bool {
        !cell.label.isEmpty || (cell.after != nil && cell.after != cell.before)
    }
}
