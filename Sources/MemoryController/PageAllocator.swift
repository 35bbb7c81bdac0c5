// Which pages of system memory are free: the host kernel's page allocator, as far as the picture needs one.

/// Free pages as sorted, disjoint, non-adjacent runs. First fit: a machine that has just started allocates upwards.
struct PageAllocator {
    /// A run of free pages.
    struct Run: Equatable {
        var first: Int
        var count: Int
        var end: Int { first &+ count }
    }

    private(set) var runs: [Run]
    let pageCount: Int

    init(pageCount: Int) {
        self.pageCount = pageCount
        runs = [Run(first: 0, count: pageCount)]
    }

    /// `count` consecutive pages, the first a multiple of `alignment` pages. Returns nil when no run is long enough.
    mutating func allocate(_ count: Int, alignment: Int) -> Int? {
        for index in runs.indices {
            let run = runs[index]
            let first = (run.first + alignment - 1) / alignment * alignment
            let skipped = first - run.first
            guard run.count >= skipped, run.count - skipped >= count else { continue }
            let rest = Run(first: first + count, count: run.count - skipped - count)
            if skipped > 0 {
                runs[index].count = skipped
                if rest.count > 0 { runs.insert(rest, at: index + 1) }
            } else if rest.count > 0 {
                runs[index] = rest
            } else {
                runs.remove(at: index)
            }
            return first
        }
        return nil
    }

    /// Takes pages back. Returns false when one of them is free already.
    mutating func free(_ pages: Range<Int>) -> Bool {
        // The first run that ends behind the start of the pages.
        var low = 0
        var high = runs.count
        while low < high {
            let middle = (low + high) / 2
            if runs[middle].end <= pages.lowerBound { low = middle + 1 } else { high = middle }
        }
        if low < runs.count, runs[low].first < pages.upperBound { return false }
        let joinsPrevious = low > 0 && runs[low - 1].end == pages.lowerBound
        let joinsNext = low < runs.count && runs[low].first == pages.upperBound
        switch (joinsPrevious, joinsNext) {
        case (true, true):
            runs[low - 1].count += pages.count + runs[low].count
            runs.remove(at: low)
        case (true, false): runs[low - 1].count += pages.count
        case (false, true): runs[low] = Run(first: pages.lowerBound, count: pages.count + runs[low].count)
        case (false, false): runs.insert(Run(first: pages.lowerBound, count: pages.count), at: low)
        }
        return true
    }

    /// Pages that are free.
    var freeCount: Int { runs.reduce(0) { $0 + $1.count } }
}
