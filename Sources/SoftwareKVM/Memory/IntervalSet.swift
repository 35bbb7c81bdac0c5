// A set of frame numbers kept as disjoint, sorted ranges: which part of guest physical memory is private.

package struct IntervalSet: Equatable, Sendable {
    /// Sorted, disjoint, not adjacent, none empty.
    package private(set) var ranges: [Range<UInt64>] = []

    package init() {}

    /// Index of the first range that ends above `value`.
    private func firstEnding(above value: UInt64) -> Int {
        var low = 0
        var high = ranges.count
        while low < high {
            let middle = (low + high) / 2
            if ranges[middle].upperBound > value { high = middle } else { low = middle + 1 }
        }
        return low
    }

    package func contains(_ value: UInt64) -> Bool {
        let index = firstEnding(above: value)
        return index < ranges.count && ranges[index].lowerBound <= value
    }

    /// True when all of `range` is in the set.
    package func contains(_ range: Range<UInt64>) -> Bool {
        let index = firstEnding(above: range.lowerBound)
        return index < ranges.count && ranges[index].lowerBound <= range.lowerBound
            && ranges[index].upperBound >= range.upperBound
    }

    package mutating func insert(_ range: Range<UInt64>) {
        if range.isEmpty { return }
        var merged = range
        // Neighbours that touch are joined.
        let first = range.lowerBound == 0 ? 0 : firstEnding(above: range.lowerBound - 1)
        var last = first
        while last < ranges.count, ranges[last].lowerBound <= merged.upperBound {
            merged = min(merged.lowerBound, ranges[last].lowerBound)..<max(merged.upperBound, ranges[last].upperBound)
            last += 1
        }
        ranges.replaceSubrange(first..<last, with: CollectionOfOne(merged))
    }

    package mutating func remove(_ range: Range<UInt64>) {
        if range.isEmpty { return }
        let first = firstEnding(above: range.lowerBound)
        var last = first
        var rest: [Range<UInt64>] = []
        while last < ranges.count, ranges[last].lowerBound < range.upperBound {
            let old = ranges[last]
            if old.lowerBound < range.lowerBound { rest.append(old.lowerBound..<range.lowerBound) }
            if old.upperBound > range.upperBound { rest.append(range.upperBound..<old.upperBound) }
            last += 1
        }
        ranges.replaceSubrange(first..<last, with: rest)
    }
}
