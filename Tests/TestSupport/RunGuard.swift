// Guests of a few instructions that never come back would hang the whole test run. Every KVM_RUN of the fixtures is
// watched: after far more time than it can need, it is interrupted, and the test fails with EINTR.

import Glibc
import KVMABI
import Synchronization

/// Takes threads out of KVM_RUN: at once, repeatedly, or when they have been in it for too long.
public final class RunGuard: Sendable {
    private struct Entry: Sendable {
        var page: RunPage
        var thread: pthread_t
        /// Looks that it may still stay; one look a second.
        var looksLeft: Int
    }

    private struct State: Sendable {
        var nextKey = 0
        var entries: [Int: Entry] = [:]
    }

    private let state = Mutex(State())

    private static let shared: RunGuard = {
        signal(SIGUSR1) { _ in }
        var thread = pthread_t()
        let code = pthread_create(
            &thread, nil,
            { _ in
                while true {
                    usleep(1_000_000)
                    RunGuard.shared.look()
                }
            }, nil)
        precondition(code == 0, "no thread to watch the guests with")
        return RunGuard()
    }()

    /// Runs `body`, which is inside KVM_RUN on this thread; interrupts it after about a minute, or as long as told.
    public static func watching<Result>(
        _ page: RunPage, seconds: Int = 60, _ body: () throws(Errno) -> Result
    ) throws(Errno) -> Result {
        let key = shared.state.withLock { state in
            state.nextKey += 1
            state.entries[state.nextKey] = Entry(page: page, thread: pthread_self(), looksLeft: seconds)
            return state.nextKey
        }
        defer { shared.state.withLock { state in _ = state.entries.removeValue(forKey: key) } }
        return try withUnblockedSignal(body)
    }

    /// Runs `body` while another thread interrupts it again and again.
    public static func interrupting(_ page: RunPage, _ body: () throws -> Void) rethrows {
        let key = shared.state.withLock { state in
            state.nextKey += 1
            state.entries[state.nextKey] = Entry(page: page, thread: pthread_self(), looksLeft: 0)
            return state.nextKey
        }
        defer { shared.state.withLock { state in _ = state.entries.removeValue(forKey: key) } }
        try body()
    }

    private func look() {
        state.withLock { state in
            for (key, entry) in state.entries {
                if entry.looksLeft > 0 {
                    state.entries[key]?.looksLeft -= 1
                } else {
                    // The signal takes the thread out of the real kernel; a kernel in this process looks at the byte.
                    // Under the lock, so that the thread cannot have left and gone.
                    entry.page.immediateExit = true
                    pthread_kill(entry.thread, SIGUSR1)
                }
            }
        }
    }

    /// The threads that tests run on have signals blocked, and a blocked signal does not interrupt KVM_RUN.
    private static func withUnblockedSignal<Result>(_ body: () throws(Errno) -> Result) throws(Errno) -> Result {
        var wanted = sigset_t()
        var before = sigset_t()
        sigemptyset(&wanted)
        sigaddset(&wanted, SIGUSR1)
        pthread_sigmask(SIG_UNBLOCK, &wanted, &before)
        defer { pthread_sigmask(SIG_SETMASK, &before, nil) }
        return try body()
    }
}
