// What is asked of the host for this process's own threads and limits. No matter of the kernel that runs guests: the same
// calls, whichever that is.

internal import CKVM

/// This process, as its host sees it.
public enum OwnProcess {
    /// The processors of the host that a thread may be told to run on: below this number.
    public static let processorLimit = 8 * Int(CKVM_PROCESSOR_BYTES)

    /// The host's processors that the calling thread may run on, in order.
    public static func processors() throws(Errno) -> [Int] {
        var bits = [UInt8](repeating: 0, count: Int(CKVM_PROCESSOR_BYTES))
        try check(withKernelAddress(ofMutable: &bits) { ckvm_get_processors($0) })
        return (0..<processorLimit).filter { bits[$0 / 8] >> UInt8($0 % 8) & 1 != 0 }
    }

    /// From here on the calling thread runs on these processors of the host only.
    ///
    /// - Throws: `EINVAL` when none of them is there for this process.
    public static func run(on processors: [Int]) throws(Errno) {
        var bits = [UInt8](repeating: 0, count: Int(CKVM_PROCESSOR_BYTES))
        for processor in processors where (0..<processorLimit).contains(processor) {
            bits[processor / 8] |= 1 << UInt8(processor % 8)
        }
        try check(withKernelAddress(of: bits) { ckvm_set_processors($0) })
    }

    /// From here on memory that the calling thread is the first to touch, and what the kernel takes for it, comes from this NUMA
    /// node; threads that it makes inherit that.
    ///
    /// - Throws: As ``KernelMapping/bind(toNode:)``.
    public static func bindMemory(toNode node: UInt32) throws(Errno) { try check(ckvm_bind_thread_memory(node)) }

    /// From here on the calling thread gets this signal. Threads of Dispatch block all that they can, so that a signal sent to
    /// one of them would interrupt nothing.
    public static func unblock(signal number: Int32) { _ = ckvm_unblock_signal(number) }

    /// Raises the limit on locked memory (`RLIMIT_MEMLOCK`) as far as this user may.
    ///
    /// - Returns: The limit in bytes; nil for none.
    @discardableResult
    public static func raiseMemoryLockLimit() -> UInt64? {
        let limit = ckvm_raise_memory_lock_limit()
        return limit == .max ? nil : limit
    }

    static func check(_ answer: Int32) throws(Errno) {
        if answer < 0 { throw Errno(rawValue: 0 &- answer) }
    }
}
