// The report's memory map and exits, from the machine's.

import RunReport
import SEVABI
import SNPVMM

extension RunReportData.MemoryMap {
    /// Where KVM measures a VMSA: outside the guest's memory.
    private static let vmsaAddress: UInt64 = 0xffff_ffff_f000

    init(_ map: SNPVMM.MemoryMap, _ technology: GuestTechnology?, processorCount: Int, ghcbs: [UInt64]) {
        self.init()
        before = map.atLaunch.map { area in
            .init(area.range, Self.base(area.state, technology))
        }
        before += map.regions.map { region in
            let state = Self.state(ofType: region.type, technology)
            // Memory that is launched as zero has no name worth telling.
            return .init(region.range, state, state == .validated ? "" : region.label)
        }
        if let secret = map.secretArea { before.append(.init(secret, .secret, "owner's secret")) }
        switch technology {
        case .snp:
            let shared = RangeSet(map.now.filter { $0.state == .shared }.map(\.range))
            let wasShared = RangeSet(map.atLaunch.filter { $0.state == .shared }.map(\.range))
            after =
                before + shared.ranges.map { .init($0, .shared) }
                + wasShared.subtracting(shared).ranges.map { .init($0, .private) }
                + ghcbs.filter { shared.contains($0) }.map {
                    .init(start: $0, byteCount: 4096, state: .shared, label: "GHCB")
                }
            outside = (0..<processorCount).map {
                .init(start: Self.vmsaAddress, byteCount: 4096, state: .vmsa, label: "VMSA of vCPU \($0)")
            }
        case .sev, .sevES:
            note = """
                The C-bit is in the guest's page tables: from its first instruction on, only the guest knows which pages are \
                encrypted. \(technology == .sevES ? "VMSAs have no guest address." : "")
                """
        case nil: note = "A plain VM's memory stays as it is: open to the host."
        }
    }

    private static func base(
        _ state: SNPVMM.MemoryMap.State, _ technology: GuestTechnology?
    ) -> RunReportData.PageState {
        switch state {
        case .private, .decidedByGuest: .untouched
        case .shared: technology == nil ? .plain : .shared
        }
    }

    private static func state(ofType type: String, _ technology: GuestTechnology?) -> RunReportData.PageState {
        guard technology != nil else { return .plain }
        return switch type {
        case "NORMAL": .measured
        case "SECRETS", "CPUID": .firmware
        case "VMSA": .vmsa
        default: .validated
        }
    }
}

extension RangeSet<UInt64> {
    fileprivate init(_ ranges: [Range<UInt64>]) {
        self.init()
        for range in ranges { insert(contentsOf: range) }
    }
}

extension RunReportData.Region {
    fileprivate init(_ range: Range<UInt64>, _ state: RunReportData.PageState, _ label: String = "") {
        self.init(start: range.lowerBound, byteCount: range.upperBound - range.lowerBound, state: state, label: label)
    }
}

extension RunReportData.ExitTimeline {
    init(_ statistics: RunStatistics) {
        let timeline = statistics.exitTimeline
        self.init(
            binNanoseconds: timeline.bucketDuration.reportNanoseconds,
            runNanoseconds: statistics.running.reportNanoseconds,
            kinds: statistics.exits.sorted { ($1.value, $0.key) < ($0.value, $1.key) }.map { name, total in
                .init(name: name, total: total, bins: timeline.buckets.map { $0[name] ?? 0 })
            })
    }
}
