// Exits over time, by kind, in constant memory: when the run outgrows the buckets, neighbours merge and the buckets become
// twice as long.

import KVMABI

/// How many exits of each kind happened when.
public struct ExitTimeline: Equatable, Sendable {
    /// What happened during one bucket, by the kernel's name: `KVM_EXIT_IO`, `EINTR`.
    public typealias Counts = [String: UInt64]

    /// The length of every bucket; the last one of a run is only begun.
    public var bucketDuration: Duration
    /// In order, from the first KVM_RUN on. Empty buckets are there, too.
    public var buckets: [Counts]

    public init(bucketDuration: Duration = .zero, buckets: [Counts] = []) {
        self.bucketDuration = bucketDuration
        self.buckets = buckets
    }

    /// The kinds that occur, most frequent first.
    public var kinds: [String] {
        var totals: Counts = [:]
        for bucket in buckets { totals.merge(bucket, uniquingKeysWith: &+) }
        return totals.sorted { ($1.value, $0.key) < ($0.value, $1.key) }.map(\.key)
    }
}

/// Exit counters for the run loop: an addition and a look at the clock per exit.
struct ExitCounts: Sendable {
    private static let otherLane = 48
    private static let interruptedLane = 49
    private static let againLane = 50
    private static let laneCount = 51
    private static let bucketCount = 128
    private static let firstBucketNanoseconds: Int64 = 1_000_000

    /// `bucketCount` buckets of `laneCount` counters.
    private var counters = [UInt32](repeating: 0, count: Self.bucketCount * Self.laneCount)
    private var bucketNanoseconds = Self.firstBucketNanoseconds
    private let start: ContinuousClock.Instant
    private var lastBucket = 0
    /// Memory faults in a row that changed nothing.
    var repeatedFaults = 0

    init(start: ContinuousClock.Instant) { self.start = start }

    /// An exit.
    mutating func count(_ reason: ExitReason) { add(reason.rawValue < 48 ? Int(reason.rawValue) : Self.otherLane) }
    /// A KVM_RUN that ended with `EINTR`.
    mutating func countInterrupted() { add(Self.interruptedLane) }
    /// A KVM_RUN that ended with `EAGAIN`.
    mutating func countAgain() { add(Self.againLane) }

    private mutating func add(_ lane: Int) {
        let (seconds, attoseconds) = start.duration(to: .now).components
        // A run of 292 years has a wrong last bucket, and no trap.
        let elapsed = seconds &* 1_000_000_000 &+ attoseconds / 1_000_000_000
        var bucket = elapsed / bucketNanoseconds
        while bucket >= Self.bucketCount {
            mergeNeighbours()
            bucket = elapsed / bucketNanoseconds
        }
        lastBucket = max(0, Int(bucket))
        counters[lastBucket * Self.laneCount + lane] &+= 1
    }

    /// Adds another vCPU's counts of the same run.
    mutating func add(_ other: ExitCounts) {
        var other = other
        while bucketNanoseconds < other.bucketNanoseconds { mergeNeighbours() }
        while other.bucketNanoseconds < bucketNanoseconds { other.mergeNeighbours() }
        for index in counters.indices { counters[index] &+= other.counters[index] }
        lastBucket = max(lastBucket, other.lastBucket)
    }

    private mutating func mergeNeighbours() {
        let half = Self.bucketCount / 2
        for bucket in 0..<half {
            for lane in 0..<Self.laneCount {
                counters[bucket * Self.laneCount + lane] =
                    counters[2 * bucket * Self.laneCount + lane] &+ counters[(2 * bucket + 1) * Self.laneCount + lane]
            }
        }
        for index in (half * Self.laneCount)..<counters.count { counters[index] = 0 }
        bucketNanoseconds &*= 2
        lastBucket /= 2
    }

    private static func name(_ lane: Int) -> String {
        switch lane {
        case otherLane: "other exits"
        case interruptedLane: "EINTR"
        case againLane: "EAGAIN"
        default: "\(ExitReason(rawValue: UInt32(lane)))"
        }
    }

    var timeline: ExitTimeline {
        var buckets: [ExitTimeline.Counts] = []
        for bucket in 0...lastBucket {
            var counts: ExitTimeline.Counts = [:]
            for lane in 0..<Self.laneCount {
                let count = counters[bucket * Self.laneCount + lane]
                if count > 0 { counts[Self.name(lane)] = UInt64(count) }
            }
            buckets.append(counts)
        }
        while buckets.last?.isEmpty == true { buckets.removeLast() }
        return ExitTimeline(bucketDuration: .nanoseconds(bucketNanoseconds), buckets: buckets)
    }

    /// All counts of the run.
    static func totals(_ timeline: ExitTimeline) -> ExitTimeline.Counts {
        timeline.buckets.reduce(into: [:]) { $0.merge($1, uniquingKeysWith: &+) }
    }
}
