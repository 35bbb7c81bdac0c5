// Who of a machine's vCPUs runs: as many at a time as the host has processors, in the order in which they come; or one
// that must be alone.
//
//   word    low half: how many are inside; `queueing`: somebody waits, and who comes or goes takes the lock;
//           `alone`: one keeps all others out
//
// More than the host can run would only be waited for: whoever wants to be alone waits until all that are inside have
// come to the end of a block, and a thread that the host does not run takes its time. Entering and leaving is one
// exchange each as long as nobody waits.

import Synchronization
import X86Core

/// The way into the guest of one machine.
package final class GuestGate: ProcessorGate {
    /// A thread that waits.
    private final class Waiter: Sendable {
        let place = SleepingPlace()
        let isAdmitted = Atomic(false)
    }

    private struct Queues: Sendable {
        var alone: [Waiter] = []
        /// First come, first served.
        var entering: [Waiter] = []
    }
    private let queues = Mutex(Queues())
    private let word = Atomic<UInt64>(0)

    private static let queueing: UInt64 = 1 << 32, alone: UInt64 = 1 << 33, flags: UInt64 = queueing | alone
    private let capacity: UInt64
    /// Looks before a thread goes to sleep: some microseconds, a multiple of 64.
    private static let spins = 256

    /// - Parameter capacity: How many processors run at a time, 1 or more.
    package init(capacity: Int = GuestGate.hostCapacity) { self.capacity = UInt64(max(1, capacity)) }

    /// The host's processors. Guests are promised the memory order of x86, which a host of another kind does not keep:
    /// there they take turns.
    package static var hostCapacity: Int {
        #if arch(x86_64)
            HostProcessors.count
        #else
            1
        #endif
    }

    package var isParallel: Bool { capacity > 1 }
    package var isContended: Bool { word.load(ordering: .relaxed) & Self.queueing != 0 }

    /// Runs `body` as one of those inside.
    @discardableResult
    package func inside<Result>(_ body: () -> Result) -> Result {
        enter()
        defer { leave() }
        return body()
    }

    // MARK: One of many

    private func enter() {
        let now = word.load(ordering: .relaxed)
        if now < capacity, word.compareExchange(expected: now, desired: now + 1, ordering: .acquiring).exchanged {
            return
        }
        let waiter = Waiter()
        // Whoever leaves from now on takes the lock; and `admit` may let this one in at once.
        let woken = queues.withLock { queues in
            word.bitwiseOr(Self.queueing, ordering: .acquiringAndReleasing)
            queues.entering.append(waiter)
            return admit(&queues)
        }
        for other in woken where other !== waiter { other.place.wake() }
        // A signal for this thread ends a sleep, and not the wait: whoever sent it has said more than the signal.
        while !waiter.isAdmitted.load(ordering: .acquiring) { _ = waiter.place.sleep(nanoseconds: 1_000_000_000) }
    }

    private func leave() {
        var now = word.load(ordering: .relaxed)
        while now & Self.flags == 0 {
            let (isDone, found) = word.weakCompareExchange(expected: now, desired: now - 1, ordering: .releasing)
            if isDone { return }
            now = found
        }
        wake { _ in word.subtract(1, ordering: .acquiringAndReleasing) }
    }

    /// Changes something under the lock, then lets in who may come.
    private func wake(_ change: (inout Queues) -> Void) {
        let woken = queues.withLock { queues in
            change(&queues)
            return admit(&queues)
        }
        for waiter in woken { waiter.place.wake() }
    }

    /// Under the lock. The flags keep all others away from the word.
    private func admit(_ queues: inout Queues) -> [Waiter] {
        var admitted: [Waiter] = []
        func admit(_ waiter: Waiter) {
            waiter.isAdmitted.store(true, ordering: .releasing)
            admitted.append(waiter)
        }
        var now = word.load(ordering: .acquiring)
        guard now & Self.alone == 0 else { return [] }
        if !queues.alone.isEmpty {
            if now & ~Self.flags == 0 {
                word.bitwiseOr(Self.alone, ordering: .acquiringAndReleasing)
                admit(queues.alone.removeFirst())
            }
            return admitted
        }
        while now & ~Self.flags < capacity, !queues.entering.isEmpty {
            word.add(1, ordering: .acquiringAndReleasing)
            now += 1
            admit(queues.entering.removeFirst())
        }
        if queues.entering.isEmpty { word.bitwiseAnd(~Self.queueing, ordering: .acquiringAndReleasing) }
        return admitted
    }

    // MARK: Alone

    /// Runs `body` while nobody is inside. Not from inside.
    package func alone<Result>(kick: () -> Void, _ body: () -> Result) -> Result {
        enterAlone(isInside: false, kick: kick)
        defer { leaveAlone(staysInside: false) }
        return body()
    }

    package func enterAlone(isInside: Bool, kick: () -> Void) {
        // Nobody else is there: the usual case of a machine with one vCPU.
        let usual: UInt64 = isInside ? 1 : 0
        if word.compareExchange(expected: usual, desired: Self.alone, ordering: .acquiringAndReleasing).exchanged {
            return
        }
        let waiter = Waiter()
        wake { queues in
            word.bitwiseOr(Self.queueing, ordering: .acquiringAndReleasing)
            if isInside { word.subtract(1, ordering: .acquiringAndReleasing) }
            queues.alone.append(waiter)
        }
        // Those inside are usually out within a microsecond; a thread that the host does not run is not.
        var looks = 0
        while !waiter.isAdmitted.load(ordering: .acquiring) {
            // Again, because a processor's own counting can undo a kick.
            if looks & 63 == 0 {
                let now = word.load(ordering: .relaxed)
                if now & Self.alone == 0, now & ~Self.flags != 0 { kick() }
            }
            if looks < Self.spins { pauseHost() } else { _ = waiter.place.sleep(nanoseconds: 50_000) }
            looks += looks < Self.spins ? 1 : 64
        }
    }

    package func leaveAlone(staysInside: Bool) {
        if word.compareExchange(expected: Self.alone, desired: staysInside ? 1 : 0, ordering: .acquiringAndReleasing)
            .exchanged
        {
            return
        }
        wake { _ in
            if staysInside { word.add(1, ordering: .acquiringAndReleasing) }
            word.bitwiseAnd(~Self.alone, ordering: .acquiringAndReleasing)
        }
    }
}
