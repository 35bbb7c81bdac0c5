// What a driver can get wrong about a queue.

/// Why a device stopped using its queues: the driver broke a rule of the ring [virtio 2.7].
///
/// The device sets DEVICE_NEEDS_RESET and touches guest memory no more until the driver resets it.
public enum VirtQueueFault: Error, Equatable, Sendable {
    /// A queue became ready with a size that is no power of two or exceeds QueueNumMax.
    case size(UInt32)
    /// An area of the ring is not aligned: 16 bytes for descriptors, 2 for the driver area, 4 for the device area.
    case misaligned(gpa: UInt64)
    /// Ring or indirect table, at least in part, outside the memory that the guest shares.
    case ringNotShared(gpa: UInt64)
    /// A buffer, at least in part, outside the memory that the guest shares.
    case bufferNotShared(gpa: UInt64, byteCount: UInt64)
    /// The available index is more than a whole queue ahead.
    case availableIndex(UInt16, expected: UInt16)
    /// A descriptor index beyond the queue or its table.
    case descriptorIndex(UInt16, count: UInt16)
    /// More descriptors in a chain than the queue has: a loop, or a chain that is forbidden.
    case chainTooLong
    /// More than 4 GiB in a chain.
    case tooManyBytes
    /// A buffer for the device to read behind one for it to write.
    case readableAfterWritable
    /// An indirect table that was not negotiated, is nested, goes on, or whose length is no multiple of 16 or zero.
    case indirectTable
    /// A request that the device cannot make sense of, in a word or two.
    case request(String)
}

extension VirtQueueFault: CustomStringConvertible {
    public var description: String {
        func hex(_ value: UInt64) -> String { "0x" + String(value, radix: 16) }
        return switch self {
        case .size(let size): "queue size \(size)"
        case .misaligned(let gpa): "a ring at \(hex(gpa)), which is not aligned"
        case .ringNotShared(let gpa): "a ring at \(hex(gpa)), outside shared memory"
        case .bufferNotShared(let gpa, let byteCount):
            "a buffer of \(byteCount) bytes at \(hex(gpa)), outside shared memory"
        case .availableIndex(let index, let expected):
            "available index \(index), more than a queue beyond \(expected)"
        case .descriptorIndex(let index, let count): "descriptor \(index) of \(count)"
        case .chainTooLong: "a chain longer than its queue"
        case .tooManyBytes: "a chain of more than 4 GiB"
        case .readableAfterWritable: "a readable buffer behind a writable one"
        case .indirectTable: "a malformed indirect table"
        case .request(let what): what
        }
    }
}
