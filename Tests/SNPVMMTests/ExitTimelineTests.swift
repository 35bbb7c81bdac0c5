import GuestImage
import KVMABI
import SNPVMM
import Synchronization
import Testing

@Suite struct ExitTimelineTests {
    /// A run of exits, each of which takes some time.
    private func statistics(_ exits: [ScriptedKernel.Exit]) throws -> RunStatistics {
        let kernel = ScriptedKernel()
        var plan = samplePlan()
        plan.regions = [plan.regions[0]]
        let machine = try launch(kernel, plan: plan, confidential: false)
        kernel.with { $0.exits = exits }
        _ = machine.run()
        return machine.statistics
    }

    private static let halt = ScriptedKernel.Exit { (page) throws(Errno) in page.exitReason = .halt }
    private static let interrupted = ScriptedKernel.Exit { (_) throws(Errno) in throw .EINTR }

    @Test func bucketsAddUpToTheCounts() throws {
        let exits = Array(repeating: Self.halt, count: 5000) + [Self.interrupted, Self.halt]
        let statistics = try statistics(exits)
        var sum: ExitTimeline.Counts = [:]
        for bucket in statistics.exitTimeline.buckets { sum.merge(bucket, uniquingKeysWith: +) }
        #expect(sum == statistics.exits)
        #expect(statistics.exits == ["KVM_EXIT_HLT": 5001, "EINTR": 1, "KVM_EXIT_SYSTEM_EVENT": 1])
        #expect(statistics.exitTimeline.kinds == ["KVM_EXIT_HLT", "EINTR", "KVM_EXIT_SYSTEM_EVENT"])
        #expect(statistics.exitTimeline.buckets.count <= 128)
        #expect(statistics.exitTimeline.bucketDuration >= .milliseconds(1))
    }

    @Test func longRunsHaveLongerBuckets() throws {
        // 300 ms do not fit into 128 buckets of 1 ms.
        let slow = ScriptedKernel.Exit { (page) throws(Errno) in
            let end = ContinuousClock.now + .milliseconds(10)
            while ContinuousClock.now < end {}
            page.exitReason = .halt
        }
        let timeline = try statistics(Array(repeating: slow, count: 30)).exitTimeline
        #expect(timeline.bucketDuration >= .milliseconds(4))
        #expect(timeline.buckets.count <= 128)
        #expect(timeline.buckets.compactMap { $0["KVM_EXIT_HLT"] }.reduce(0, +) == 30)
        // Not all in one: the exits are 10 ms apart.
        #expect(timeline.buckets.count { !$0.isEmpty } > 2)
    }

    @Test func aMachineThatHasNotRunHasNone() throws {
        #expect(try launch(ScriptedKernel()).statistics.exitTimeline == ExitTimeline())
    }
}
