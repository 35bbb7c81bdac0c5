// An eventfd, as VMMs share them with a kernel.

import CProcess
import Glibc

/// A counter that one side raises and the other takes; it does not block.
public final class EventDescriptor: Sendable {
    /// The descriptor's number.
    public let rawValue: Int32

    public init() {
        rawValue = wake_create()
        precondition(rawValue >= 0, "no eventfd")
    }

    deinit { close(rawValue) }

    /// Adds one.
    public func signal() { wake_send(rawValue) }

    /// How often it was signalled since the last look; 0 when it was not.
    public func take() -> UInt64 {
        var count: UInt64 = 0
        return read(rawValue, &count, 8) == 8 ? count : 0
    }
}
