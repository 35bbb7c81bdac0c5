// The set of private frames, against one Boolean per frame.

import SoftwareKVM
import TestSupport
import Testing

@Suite struct IntervalSetTests {
    @Test(arguments: [1, 2, 3] as [UInt64])
    func agreesWithOneBitPerFrame(seed: UInt64) {
        var random = SeededGenerator(seed: seed)
        var set = IntervalSet()
        var model = [Bool](repeating: false, count: 128)
        for _ in 0..<2000 {
            let start = random.next() % 128
            let range = start..<start + random.next() % (129 - start)
            if random.next() & 1 == 0 {
                set.insert(range)
                for frame in range { model[Int(frame)] = true }
            } else {
                set.remove(range)
                for frame in range { model[Int(frame)] = false }
            }
            #expect((0..<128).allSatisfy { set.contains($0) == model[Int($0)] })
            let probe = random.next() % 100
            let part = probe..<probe + 1 + random.next() % 20
            #expect(set.contains(part) == part.allSatisfy { model[Int($0)] })
        }
        // Disjoint, sorted, never touching: no more ranges than changes in the model.
        let changes = (1..<128).count { model[$0] && !model[$0 - 1] } + (model[0] ? 1 : 0)
        #expect(set.ranges.count == changes)
    }

    @Test func extremes() {
        var set = IntervalSet()
        set.insert(0..<UInt64.max)
        #expect(set.contains(0))
        #expect(!set.contains(.max))
        set.remove(5..<6)
        #expect(set.ranges == [0..<5, 6..<UInt64.max])
        set.insert(3..<3)
        set.remove(7..<7)
        #expect(set.ranges.count == 2)
    }
}
