// Who of a machine's vCPUs runs: one at a time, in the order in which they come.
//
// The processors of a machine share memory without any agreement about single accesses: what one of them does between
// two looks at the gate is atomic to the others. That makes every LOCK, every exchange and every update of a page-table
// entry right by construction, and a processor inside may reach into the caches of those outside.

import Synchronization

/// The way into the guest of one machine.
final class GuestGate: Sendable {
    /// A thread that waits.
    private final class Waiter: Sendable {
        let place = SleepingPlace()
        let isAdmitted = Atomic(false)
    }

    private struct State: Sendable {
        var isTaken = false
        /// First come, first served.
        var waiters: [Waiter] = []
    }
    private let state = Mutex(State())

    /// Runs `body` while no other thread is inside.
    func withLock<Result>(_ body: () -> Result) -> Result {
        enter()
        defer { leave() }
        return body()
    }

    private func enter() {
        let waiter: Waiter? = state.withLock { state in
            if !state.isTaken {
                state.isTaken = true
                return nil
            }
            let waiter = Waiter()
            state.waiters.append(waiter)
            return waiter
        }
        guard let waiter else { return }
        // A signal for this thread ends a sleep, and not the wait: whoever sent it has said more than the signal.
        while !waiter.isAdmitted.load(ordering: .acquiring) { _ = waiter.place.sleep(nanoseconds: 1_000_000_000) }
    }

    private func leave() {
        let next: Waiter? = state.withLock { state in
            if state.waiters.isEmpty {
                state.isTaken = false
                return nil
            }
            return state.waiters.removeFirst()
        }
        guard let next else { return }
        next.isAdmitted.store(true, ordering: .releasing)
        next.place.wake()
    }
}
