// Nonces: each is good once, for a while, and there are only so many.

import Crypto
import SecretRelease
import Synchronization

/// Gives out nonces and takes them back once.
///
/// Any number of threads may use it. Its memory is bounded: a nonce is kept until its time is over, used or not, so that a
/// second use can be told from an invention; when there are too many, no more are given out until some are too old.
public final class NonceStore: Sendable {
    /// What a nonce that comes back is.
    public enum Standing: Hashable, Sendable {
        case fresh
        /// It came back before.
        case used
        /// It came too late.
        case expired
        /// It was never given out here, or so long ago that it is forgotten.
        case unknown
    }

    private struct Entry {
        let nonce: [UInt8]
        let deadline: Int64
        var isUsed = false
    }

    private struct State {
        /// In the order of their deadlines.
        var entries: [Entry] = []
        /// Where a nonce stands in `entries`, counted from the first that was ever there.
        var positions: [[UInt8]: Int] = [:]
        var removedCount = 0

        /// Forgets what is over for as long again as it was good.
        mutating func forget(before time: Int64) {
            let count = entries.prefix { $0.deadline < time }.count
            for entry in entries.prefix(count) { positions[entry.nonce] = nil }
            entries.removeFirst(count)
            removedCount += count
        }
    }

    /// How long a nonce is good, in milliseconds.
    public let lifetimeMilliseconds: Int64
    /// Nonces that are kept.
    public let capacity: Int
    private let state = Mutex(State())

    public init(lifetimeMilliseconds: Int64 = 120_000, capacity: Int = 4096) {
        precondition(lifetimeMilliseconds > 0 && capacity > 0, "a lifetime and a capacity above 0")
        self.lifetimeMilliseconds = lifetimeMilliseconds
        self.capacity = capacity
    }

    /// A nonce of 32 bytes; nil when there are too many.
    ///
    /// - Parameter now: Milliseconds of a clock that never goes back.
    public func issue(at now: Int64) -> [UInt8]? {
        state.withLock { state in
            state.forget(before: now &- lifetimeMilliseconds)
            guard state.entries.count < capacity else { return nil }
            let nonce = randomBytes(SecretReleaseMessage.nonceByteCount)
            state.positions[nonce] = state.removedCount + state.entries.count
            state.entries.append(Entry(nonce: nonce, deadline: now &+ lifetimeMilliseconds))
            return nonce
        }
    }

    /// Takes a nonce back. `fresh` is the answer at most once for each.
    public func take(_ nonce: [UInt8], at now: Int64) -> Standing {
        state.withLock { state in
            state.forget(before: now &- lifetimeMilliseconds)
            guard let position = state.positions[nonce] else { return .unknown }
            // Safe: positions are those of the entries that were not removed.
            let index = position - state.removedCount
            if state.entries[index].isUsed { return .used }
            state.entries[index].isUsed = true
            return now <= state.entries[index].deadline ? .fresh : .expired
        }
    }

    /// Nonces that are kept now.
    public var count: Int { state.withLock { $0.entries.count } }
}
