// Threads of a known kind. Dispatch lends its threads to one queue after the other, and what a thread has given up it
// never gets back: each of these is made for one purpose and ends with it.

import CProcess
import Dispatch
import KVMABI
import Synchronization

/// One thread of its own.
public final class WorkerThread: Sendable {
    private static let waiting = Mutex<(next: UInt64, bodies: [UInt64: @Sendable () -> Void])>((0, [:]))

    private let ended = DispatchSemaphore(value: 0)

    /// Starts a thread, which enters the sandbox as its kind first.
    ///
    /// - Throws: `EAGAIN` or `ENOMEM` when this user or this process has no room for a thread.
    public init(_ kind: ThreadKind, _ body: @escaping @Sendable () -> Void) throws(Errno) {
        let ended = ended
        let number = Self.waiting.withLock { waiting in
            waiting.next += 1
            waiting.bodies[waiting.next] = {
                Sandbox.enter(kind)
                body()
                ended.signal()
            }
            return waiting.next
        }
        let result = thread_start({ WorkerThread.run($0) }, number)
        guard result == 0 else {
            Self.waiting.withLock { _ = $0.bodies.removeValue(forKey: number) }
            throw Errno(rawValue: -result)
        }
    }

    /// Returns when the thread's work is done.
    public func join() {
        ended.wait()
        ended.signal()
    }

    private static func run(_ number: UInt64) {
        waiting.withLock { $0.bodies.removeValue(forKey: number) }?()
    }
}

/// Work that is done one after the other, on one thread.
public final class WorkQueue: Sendable {
    private final class Line: Sendable {
        let work = Mutex<[@Sendable () -> Void]>([])
        let signal = DispatchSemaphore(value: 0)

        /// Each piece of work has a signal; one without any is the end.
        func run() {
            while true {
                signal.wait()
                guard let next = work.withLock({ $0.isEmpty ? nil : $0.removeFirst() }) else { return }
                next()
            }
        }
    }
    private let line = Line()

    /// - Throws: As ``WorkerThread/init(_:_:)``.
    public init(_ kind: ThreadKind) throws(Errno) {
        let line = line
        _ = try WorkerThread(kind) { line.run() }
    }

    deinit { line.signal.signal() }

    /// Adds work behind what there is.
    public func async(_ work: @escaping @Sendable () -> Void) {
        line.work.withLock { $0.append(work) }
        line.signal.signal()
    }

    /// Returns when everything that was added before is done.
    public func finish() {
        let done = DispatchSemaphore(value: 0)
        async { done.signal() }
        done.wait()
    }
}
