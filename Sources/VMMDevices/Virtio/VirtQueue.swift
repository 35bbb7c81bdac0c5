// One split virtqueue as the device sees it [virtio 2.7].
//
//     descriptor table  16 * size   addr: le64, len: le32, flags: le16, next: le16
//     driver area       6 + 2*size  flags, idx, ring[size]: le16; used_event: le16        ("available ring")
//     device area       6 + 8*size  flags, idx: le16, ring[size]: {id: le32, len: le32}; avail_event: le16  ("used ring")
//
// All three lie in memory that the guest may change at any moment and that it may have made private since the last
// look. So each descriptor and each index is read once, checked as a copy, and the copy used; every walk is bounded by
// the queue's size; and whatever is not right is a ``VirtQueueFault``.

import ABILayout
import Synchronization

/// The buffers of one request, in the driver's order.
public struct DescriptorChain: Equatable, Sendable {
    /// One buffer: shared memory when the chain was taken.
    public struct Segment: Equatable, Sendable {
        public var gpa: UInt64
        public var byteCount: UInt64
    }
    /// The index of the first descriptor, by which the driver knows the request.
    public var head: UInt16
    /// For the device to read.
    public var readable: [Segment] = []
    /// For the device to write.
    public var writable: [Segment] = []

    /// Bytes in ``readable``: below 4 GiB.
    public var readableByteCount: UInt64 { readable.reduce(0) { $0 &+ $1.byteCount } }
    /// Bytes in ``writable``: below 4 GiB.
    public var writableByteCount: UInt64 { writable.reduce(0) { $0 &+ $1.byteCount } }
}

/// A split virtqueue, without locks: ``VirtioQueues`` has them.
public struct VirtQueue: Sendable {
    /// QueueNumMax: a power of two.
    public let maximumSize: UInt16
    /// Descriptors in the queue.
    public var size: UInt32
    public var descriptorTable: UInt64 = 0
    public var driverArea: UInt64 = 0
    public var deviceArea: UInt64 = 0
    /// The driver has handed the queue over.
    public private(set) var isReady = false
    /// Differs between two uses of the queue: a request of an earlier one is void.
    public private(set) var generation: UInt64 = 0
    public var hasIndirectDescriptors = false
    public var hasEventIndex = false

    /// The available entry that comes next; counts on through 65536.
    private var nextAvailable: UInt16 = 0
    private var nextUsed: UInt16 = 0

    private static let flagNext: UInt16 = 1
    private static let flagWrite: UInt16 = 2
    private static let flagIndirect: UInt16 = 4
    private static let noInterrupt: UInt16 = 1
    private static let descriptorByteCount = 16

    public init(maximumSize: UInt16) {
        precondition(maximumSize.nonzeroBitCount == 1 && maximumSize <= 1 << 15, "a power of two up to 32768")
        self.maximumSize = maximumSize
        size = UInt32(maximumSize)
    }

    // MARK: Set-up

    /// The driver hands the queue over: QueueReady becomes 1.
    public mutating func start(in memory: some SharedGuestMemory) throws(VirtQueueFault) {
        guard !isReady else { return }
        guard size > 0, size.nonzeroBitCount == 1, size <= UInt32(maximumSize) else { throw .size(size) }
        let count = UInt64(size)
        let areas: [(gpa: UInt64, alignment: UInt64, byteCount: UInt64)] = [
            (descriptorTable, 16, 16 * count), (driverArea, 2, 6 + 2 * count), (deviceArea, 4, 6 + 8 * count),
        ]
        for area in areas {
            guard area.gpa & (area.alignment - 1) == 0 else { throw .misaligned(gpa: area.gpa) }
            guard memory.isShared(at: area.gpa, byteCount: area.byteCount) else { throw .ringNotShared(gpa: area.gpa) }
        }
        nextAvailable = 0
        nextUsed = 0
        isReady = true
    }

    /// The driver takes the queue back: requests that were taken are void.
    public mutating func stop() {
        isReady = false
        generation &+= 1
    }

    /// As after a reset of the device.
    public mutating func reset() {
        stop()
        self = VirtQueue(maximumSize: maximumSize, generation: generation)
    }

    private init(maximumSize: UInt16, generation: UInt64) {
        self.init(maximumSize: maximumSize)
        self.generation = generation
    }

    // MARK: Requests

    /// The next request that the driver has made available.
    ///
    /// - Returns: nil when there is none; then, with the event index, the driver was asked to tell of the next one.
    public mutating func take(from memory: some SharedGuestMemory) throws(VirtQueueFault) -> DescriptorChain? {
        guard isReady else { return nil }
        var index = try availableIndex(memory)
        if index == nextAvailable {
            guard hasEventIndex else { return nil }
            // avail_event: notify me of the entry that I wait for [virtio 2.7.10.1].
            try store(nextAvailable, at: deviceArea &+ 4 &+ 8 &* UInt64(size), memory)
            // The driver stores idx and then reads avail_event; we store avail_event and then read idx.
            atomicMemoryFence(ordering: .sequentiallyConsistent)
            index = try availableIndex(memory)
            if index == nextAvailable { return nil }
        }
        // Safe: sizes are powers of two up to 32768.
        let ahead = UInt32(index &- nextAvailable)
        guard ahead <= size else { throw .availableIndex(index, expected: nextAvailable) }
        let slot = UInt64(UInt32(nextAvailable) & (size - 1))
        let head = try field(at: driverArea &+ 4 &+ 2 &* slot, memory)
        let chain = try walk(from: head, memory)
        nextAvailable &+= 1
        return chain
    }

    /// Gives a request back.
    ///
    /// - Parameter written: Bytes that the device has written from the start of the writable buffers on.
    /// - Returns: True when the driver wants an interrupt.
    public mutating func complete(
        _ head: UInt16, written: UInt32, in memory: some SharedGuestMemory
    ) throws(VirtQueueFault) -> Bool {
        guard isReady else { return false }
        var element: [UInt8] = []
        element.reserveCapacity(8)
        element.appendLittleEndian(UInt32(head))
        element.appendLittleEndian(written)
        let slot = deviceArea &+ 4 &+ 8 &* UInt64(UInt32(nextUsed) & (size - 1))
        guard memory.write(element[...], at: slot) else { throw .ringNotShared(gpa: slot) }
        nextUsed &+= 1
        try store(nextUsed, at: deviceArea &+ 2, memory)
        // The driver stores used_event or flags and then reads idx; we store idx and then read those.
        atomicMemoryFence(ordering: .sequentiallyConsistent)
        if hasEventIndex {
            // used_event: interrupt me after this entry [virtio 2.7.7.2]. One entry has been added.
            let event = try field(at: driverArea &+ 4 &+ 2 &* UInt64(size), memory)
            return nextUsed &- event &- 1 < 1
        }
        return try field(at: driverArea, memory) & Self.noInterrupt == 0
    }

    // MARK: Descriptors

    private struct Descriptor {
        var gpa: UInt64
        var byteCount: UInt64
        var flags: UInt16
        var next: UInt16

        /// `bytes` has 16 at `offset`.
        init(_ bytes: [UInt8], at offset: Int = 0) {
            gpa = bytes.littleEndian(at: offset) ?? 0
            byteCount = UInt64(bytes.littleEndian(at: offset &+ 8, as: UInt32.self) ?? 0)
            flags = bytes.littleEndian(at: offset &+ 12) ?? 0
            next = bytes.littleEndian(at: offset &+ 14) ?? 0
        }
    }

    private func walk(
        from head: UInt16, _ memory: some SharedGuestMemory
    ) throws(VirtQueueFault) -> DescriptorChain {
        var chain = DescriptorChain(head: head)
        var collector = Collector(limit: size)
        var index = head
        while true {
            guard UInt32(index) < size else {
                throw .descriptorIndex(index, count: UInt16(truncatingIfNeeded: size))
            }
            let place = descriptorTable &+ UInt64(Self.descriptorByteCount) &* UInt64(index)
            guard let bytes = memory.read(at: place, byteCount: Self.descriptorByteCount) else {
                throw .ringNotShared(gpa: place)
            }
            let descriptor = Descriptor(bytes)
            let isLast = descriptor.flags & Self.flagNext == 0
            if descriptor.flags & Self.flagIndirect != 0 {
                guard hasIndirectDescriptors, isLast else { throw .indirectTable }
                try walkTable(descriptor, &chain, &collector, memory)
            } else {
                try collector.add(descriptor, to: &chain, memory)
            }
            if isLast { return chain }
            index = descriptor.next
        }
    }

    /// The table is copied once, and the copy walked.
    private func walkTable(
        _ table: Descriptor, _ chain: inout DescriptorChain, _ collector: inout Collector,
        _ memory: some SharedGuestMemory
    ) throws(VirtQueueFault) {
        let entry = UInt64(Self.descriptorByteCount)
        guard table.byteCount > 0, table.byteCount % entry == 0 else { throw .indirectTable }
        // A longer table than a chain can have is no mistake by itself: only what a chain can reach is copied.
        let count = min(table.byteCount / entry, 1 << 16)
        guard let bytes = memory.read(at: table.gpa, byteCount: Int(count * entry)) else {
            throw .ringNotShared(gpa: table.gpa)
        }
        var index: UInt16 = 0
        while true {
            guard UInt64(index) < count else {
                throw .descriptorIndex(index, count: UInt16(truncatingIfNeeded: count))
            }
            let descriptor = Descriptor(bytes, at: Int(index) &* Self.descriptorByteCount)
            guard descriptor.flags & Self.flagIndirect == 0 else { throw .indirectTable }
            try collector.add(descriptor, to: &chain, memory)
            if descriptor.flags & Self.flagNext == 0 { return }
            index = descriptor.next
        }
    }

    /// Adds buffers to a chain within its bounds.
    private struct Collector {
        /// A chain is never longer than its queue [virtio 2.7.5.3.1].
        let limit: UInt32
        var count: UInt32 = 0
        var byteCount: UInt64 = 0

        init(limit: UInt32) { self.limit = limit }

        mutating func add(
            _ descriptor: Descriptor, to chain: inout DescriptorChain, _ memory: some SharedGuestMemory
        ) throws(VirtQueueFault) {
            count &+= 1
            guard count <= limit else { throw .chainTooLong }
            // Safe: at most 32768 lengths of 32 bits.
            byteCount += descriptor.byteCount
            guard byteCount <= UInt64(UInt32.max) else { throw .tooManyBytes }
            guard memory.isShared(at: descriptor.gpa, byteCount: descriptor.byteCount) else {
                throw .bufferNotShared(gpa: descriptor.gpa, byteCount: descriptor.byteCount)
            }
            let segment = DescriptorChain.Segment(gpa: descriptor.gpa, byteCount: descriptor.byteCount)
            if descriptor.flags & VirtQueue.flagWrite != 0 {
                chain.writable.append(segment)
            } else if chain.writable.isEmpty {
                chain.readable.append(segment)
            } else {
                throw .readableAfterWritable
            }
        }
    }

    // MARK: Indices

    private func availableIndex(_ memory: some SharedGuestMemory) throws(VirtQueueFault) -> UInt16 {
        try field(at: driverArea &+ 2, memory)
    }

    private func field(at gpa: UInt64, _ memory: some SharedGuestMemory) throws(VirtQueueFault) -> UInt16 {
        guard let value = memory.loadIndex(at: gpa) else { throw .ringNotShared(gpa: gpa) }
        return value
    }

    private func store(_ value: UInt16, at gpa: UInt64, _ memory: some SharedGuestMemory) throws(VirtQueueFault) {
        guard memory.storeIndex(value, at: gpa) else { throw .ringNotShared(gpa: gpa) }
    }
}
