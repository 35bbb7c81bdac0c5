// What the VMM knows of the guest's pages: what it launched, and who can read what.

import GuestImage
import KVMABI
import SEVABI

/// The guest physical address space of a machine.
public struct MemoryMap: Equatable, Sendable {
    /// Who can read a page, as far as the VMM knows.
    public enum State: String, Sendable {
        /// Only the guest: private by the kernel's memory attribute (SNP).
        case `private`
        /// Host and guest.
        case shared
        /// The guest decides with the C-bit of its page tables, and tells nobody (SEV, SEV-ES).
        case decidedByGuest = "decided by the guest"
    }

    /// A run of pages in one state.
    public struct Area: Equatable, Sendable {
        public var range: Range<UInt64>
        public var state: State

        public init(range: Range<UInt64>, state: State) {
            self.range = range
            self.state = state
        }
    }

    /// What the launch put somewhere.
    public struct LaunchedRegion: Equatable, Sendable {
        /// The plan's word: "kernel", "CPUID page".
        public var label: String
        /// "NORMAL", "ZERO", "SECRETS"; for SEV and SEV-ES always "NORMAL".
        public var type: String
        public var range: Range<UInt64>

        public init(label: String, type: String, range: Range<UInt64>) {
            self.label = label
            self.type = type
            self.range = range
        }
    }

    /// In the plan's order. Bytes, not pages: regions of SEV and SEV-ES may be parts of pages.
    public var regions: [LaunchedRegion] = []
    /// Where LAUNCH_SECRET put the owner's secrets; nil when there were none.
    public var secretArea: Range<UInt64>?
    /// Every page of every slot, lowest first, as the launch left them.
    public var atLaunch: [Area] = []
    /// The same now.
    public var now: [Area] = []

    public init() {}
}

extension MemoryMap {
    init(_ plan: LaunchPlan) {
        regions = plan.regions.map { region in
            let end = region.gpa.addingReportingOverflow(region.byteCount)
            return LaunchedRegion(
                label: region.label, type: "\(region.pageType)",
                range: region.gpa..<(end.overflow ? region.gpa : end.partialValue))
        }
    }
}

extension GuestMemory {
    /// The states of all pages.
    var areas: [MemoryMap.Area] {
        let isPrivate = privateRanges
        return slots.flatMap { slot -> [MemoryMap.Area] in
            guard slot.memfd != nil else {
                return [.init(range: slot.range, state: isEncryptedInPlace ? .decidedByGuest : .shared)]
            }
            let all = RangeSet(slot.range)
            let inside = all.intersection(isPrivate)
            let areas =
                inside.ranges.map { MemoryMap.Area(range: $0, state: .private) }
                + all.subtracting(inside).ranges.map { MemoryMap.Area(range: $0, state: .shared) }
            return areas.sorted { $0.range.lowerBound < $1.range.lowerBound }
        }
    }
}
