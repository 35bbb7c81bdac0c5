// Page state changes from a GHCB: entries that touch are merged into one exit to the VMM, progress goes back to the guest
// [GHCB 4.1.6; KVM snp_begin_psc].
//
// A value with no I/O: the caller copies the structure in, asks for the next range, and stores what `writes` holds.

import SEVABI

package struct PageStateChange: Equatable, Sendable {
    package enum Step: Equatable, Sendable {
        /// Ask the VMM (KVM_HC_MAP_GPA_RANGE).
        case convert(gpa: UInt64, pageCount: UInt64, attributes: UInt64)
        /// SW_EXITINFO2.
        case finished(PageStateChangeResult)
    }

    /// `KVM_MAP_GPA_RANGE_PAGE_SZ_2M`.
    package static let size2MiB: UInt64 = 1
    /// `KVM_MAP_GPA_RANGE_ENCRYPTED`.
    package static let encrypted: UInt64 = 1 << 4

    package private(set) var header: PageStateChangeHeader
    package private(set) var entries: [PageStateChangeEntry]
    /// Entries in the exit that is under way.
    private var inflight: Range<Int> = 0..<0

    /// What the guest must see: byte offsets in the structure, and values of 2 (header) or 8 (entry) bytes.
    package enum Write: Equatable, Sendable {
        case currentEntry(UInt16)
        case entry(index: Int, PageStateChangeEntry)
    }
    package private(set) var writes: [Write] = []

    /// A copy of the guest's structure. `entries` are those up to `end_entry` that could be read.
    package init(header: PageStateChangeHeader, entries: [PageStateChangeEntry]) {
        self.header = header
        self.entries = entries
    }

    /// Progress that the caller has stored.
    package mutating func takeWrites() -> [Write] {
        defer { writes = [] }
        return writes
    }

    /// Finds the next range to convert.
    package mutating func next() -> Step {
        while true {
            guard Int(header.endEntry) < PageStateChangeHeader.maximumEntryCount, Int(header.endEntry) < entries.count
            else {
                return .finished(.invalidHeader)
            }
            var index = Int(header.currentEntry)
            let end = Int(header.endEntry)
            var frame: UInt64 = 0
            var pageCount: UInt64 = 0
            var isLarge = false
            while index <= end {
                let entry = entries[index]
                frame = entry.frame
                isLarge = entry.is2MiB
                pageCount = isLarge ? 512 : 1
                if UInt64(entry.currentPage) > pageCount || frame & (pageCount - 1) != 0 {
                    return .finished(.invalidEntry)
                }
                if entry.currentPage != 0 {
                    // A 2 MiB entry that is partly done goes on in 4 KiB pages.
                    pageCount -= UInt64(entry.currentPage)
                    frame += UInt64(entry.currentPage)
                    isLarge = false
                }
                if pageCount != 0 { break }
                index += 1
                header.currentEntry = UInt16(truncatingIfNeeded: index)
                writes.append(.currentEntry(header.currentEntry))
            }
            if index > end { return .finished(.success) }

            let first = entries[index]
            let start = index
            index += 1
            while index <= end {
                let entry = entries[index]
                guard entry.operation == first.operation, entry.frame == frame &+ pageCount, entry.currentPage == 0,
                    entry.is2MiB == isLarge
                else { break }
                pageCount += isLarge ? 512 : 1
                index += 1
            }
            inflight = start..<index
            switch first.operation {
            case .makePrivate, .makeShared:
                return .convert(
                    gpa: frame << 12, pageCount: pageCount,
                    attributes: (first.operation == .makePrivate ? Self.encrypted : 0)
                        | (first.is2MiB ? Self.size2MiB : 0))
            default:
                // PSMASH and UNSMASH are hints; KVM takes them as done.
                complete()
            }
        }
    }

    /// The range under way was converted.
    package mutating func complete() {
        for index in inflight {
            entries[index].currentPage = entries[index].is2MiB ? 512 : 1
            writes.append(.entry(index: index, entries[index]))
        }
        header.currentEntry = UInt16(truncatingIfNeeded: inflight.upperBound)
        writes.append(.currentEntry(header.currentEntry))
        inflight = 0..<0
    }
}
