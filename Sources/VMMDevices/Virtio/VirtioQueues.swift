// The device's side of a transport: its queues, its interrupt, and what has gone wrong.
//
// One lock guards the queues, the status and the interrupt line, so that a request is taken once, that levels arrive in
// order, and that nothing is written into the guest's memory after the driver has taken its buffers back: each request
// remembers the generation of its queue, and each use compares it under the lock.

import Synchronization

/// A request that a device has taken from a queue.
public struct VirtioRequest: Sendable {
    /// The queue's number.
    public let queue: Int
    let generation: UInt64
    let chain: DescriptorChain
    /// Bytes for the device to read.
    public let readableByteCount: UInt64
    /// Bytes for the device to write.
    public let writableByteCount: UInt64

    init(_ chain: DescriptorChain, queue: Int, generation: UInt64) {
        self.chain = chain
        self.queue = queue
        self.generation = generation
        readableByteCount = chain.readableByteCount
        writableByteCount = chain.writableByteCount
    }
}

/// The queues of one device, as the device uses them. Any thread may.
public final class VirtioQueues: Sendable {
    /// Bits of InterruptStatus [virtio 4.2.2].
    enum Interrupt {
        static let usedBuffer: UInt32 = 1
        static let configurationChange: UInt32 = 2
    }

    struct State: Sendable {
        var queues: [VirtQueue]
        var status: UInt32 = 0
        var interruptStatus: UInt32 = 0
        var configurationGeneration: UInt32 = 0
        var statistics = VirtioStatistics()

        /// The driver is ready and the device has not given up.
        var isRunning: Bool {
            status & (VirtioStatus.driverOK | VirtioStatus.needsReset | VirtioStatus.failed) == VirtioStatus.driverOK
        }
    }

    private let state: Mutex<State>
    private let memory: any SharedGuestMemory
    private let interrupt: @Sendable (Bool) -> Void

    init(
        sizes: [UInt16], memory: any SharedGuestMemory, interrupt: @escaping @Sendable (Bool) -> Void
    ) {
        state = Mutex(State(queues: sizes.map { VirtQueue(maximumSize: $0) }))
        self.memory = memory
        self.interrupt = interrupt
    }

    // MARK: For the device

    /// The next request of a queue; nil when there is none, or when the driver is not ready.
    public func take(_ queue: Int) -> VirtioRequest? {
        locked { (state) -> VirtioRequest? in
            guard state.isRunning, state.queues.indices.contains(queue) else { return nil }
            do throws(VirtQueueFault) {
                guard let chain = try state.queues[queue].take(from: memory) else { return nil }
                state.statistics.requests &+= 1
                return VirtioRequest(chain, queue: queue, generation: state.queues[queue].generation)
            } catch {
                stop(because: error, &state)
                return nil
            }
        }
    }

    /// True unless the driver has taken the request's queue back, or the device has stopped.
    public func isCurrent(_ request: VirtioRequest) -> Bool {
        locked { isCurrent(request, $0) }
    }

    /// A copy of bytes that the driver gave with a request.
    ///
    /// - Returns: nil when the request is void, and when it has no such bytes, or the guest has made them private since;
    ///   then the device has stopped.
    public func read(_ request: VirtioRequest, at offset: UInt64, byteCount: Int) -> [UInt8]? {
        locked { (state) -> [UInt8]? in
            guard isCurrent(request, state) else { return nil }
            var bytes: [UInt8] = []
            do throws(VirtQueueFault) {
                try Self.pieces(of: request.chain.readable, at: offset, byteCount: byteCount) {
                    (gpa, piece) throws(VirtQueueFault) in
                    guard let part = memory.read(at: gpa, byteCount: piece.count) else {
                        throw .bufferNotShared(gpa: gpa, byteCount: UInt64(piece.count))
                    }
                    if part.count == byteCount { bytes = part } else { bytes += part }
                }
            } catch {
                stop(because: error, &state)
                return nil
            }
            state.statistics.bytesRead &+= UInt64(bytes.count)
            return bytes
        }
    }

    /// Writes into the buffers that the driver gave for the answer.
    ///
    /// - Returns: False when the request is void, and when it has no such bytes, or the guest has made them private
    ///   since; then the device has stopped.
    public func write(_ bytes: ArraySlice<UInt8>, to request: VirtioRequest, at offset: UInt64) -> Bool {
        locked { state in
            guard isCurrent(request, state) else { return false }
            do throws(VirtQueueFault) {
                try Self.pieces(of: request.chain.writable, at: offset, byteCount: bytes.count) {
                    (gpa, piece) throws(VirtQueueFault) in
                    let first = bytes.startIndex + piece.lowerBound  // Safe: the piece lies inside.
                    guard memory.write(bytes[first..<first + piece.count], at: gpa) else {
                        throw .bufferNotShared(gpa: gpa, byteCount: UInt64(piece.count))
                    }
                }
            } catch {
                stop(because: error, &state)
                return false
            }
            state.statistics.bytesWritten &+= UInt64(bytes.count)
            return true
        }
    }

    /// Gives a request back to the driver; a void one is dropped.
    ///
    /// - Parameter written: Bytes written from the start of the request's writable buffers on.
    public func complete(_ request: VirtioRequest, written: UInt64) {
        locked { state in
            guard isCurrent(request, state) else { return }
            do throws(VirtQueueFault) {
                let written = UInt32(truncatingIfNeeded: min(written, request.writableByteCount))
                if try state.queues[request.queue].complete(request.chain.head, written: written, in: memory) {
                    raise(Interrupt.usedBuffer, &state)
                }
            } catch {
                stop(because: error, &state)
            }
        }
    }

    /// The configuration space has changed: the driver is told to read it again [virtio 2.5].
    public func announceConfigurationChange() {
        locked { state in
            state.configurationGeneration &+= 1
            if state.status & VirtioStatus.driverOK != 0 { raise(Interrupt.configurationChange, &state) }
        }
    }

    /// The device cannot go on with this driver: DEVICE_NEEDS_RESET [virtio 2.1.2].
    public func stop(because fault: VirtQueueFault) {
        locked { stop(because: fault, &$0) }
    }

    /// Counts so far.
    public var statistics: VirtioStatistics { locked { $0.statistics } }

    // MARK: For the transport

    /// Runs `body` under the lock.
    func locked<Result>(_ body: (inout State) -> Result) -> Result {
        state.withLock { state in body(&state) }
    }

    /// The driver hands a queue over or takes it back.
    func setReady(_ isReady: Bool, queue: Int) {
        locked { state in
            guard state.queues.indices.contains(queue) else { return }
            guard isReady else { return state.queues[queue].stop() }
            do throws(VirtQueueFault) { try state.queues[queue].start(in: memory) } catch {
                stop(because: error, &state)
            }
        }
    }

    /// The driver has seen these interrupts.
    func acknowledge(_ bits: UInt32) {
        locked { state in
            let was = state.interruptStatus
            state.interruptStatus &= ~bits
            if was != 0, state.interruptStatus == 0 { interrupt(false) }
        }
    }

    func reset() {
        locked { state in
            for index in state.queues.indices { state.queues[index].reset() }
            state.status = 0
            if state.interruptStatus != 0 { interrupt(false) }
            state.interruptStatus = 0
        }
    }

    private func raise(_ bit: UInt32, _ state: inout State) {
        let was = state.interruptStatus
        state.interruptStatus |= bit
        guard was == 0 else { return }
        state.statistics.interrupts &+= 1
        interrupt(true)
    }

    private func stop(because fault: VirtQueueFault, _ state: inout State) {
        state.statistics.faults &+= 1
        state.statistics.lastFault = fault.description
        let isNew = state.status & VirtioStatus.needsReset == 0
        state.status |= VirtioStatus.needsReset
        if isNew, state.status & VirtioStatus.driverOK != 0 { raise(Interrupt.configurationChange, &state) }
    }

    private func isCurrent(_ request: VirtioRequest, _ state: State) -> Bool {
        state.isRunning && state.queues[request.queue].generation == request.generation
    }

    /// Cuts `byteCount` bytes from `offset` on along the segments; each piece comes with its range among those bytes.
    private static func pieces(
        of segments: [DescriptorChain.Segment], at offset: UInt64, byteCount: Int,
        _ body: (_ gpa: UInt64, _ piece: Range<Int>) throws(VirtQueueFault) -> Void
    ) throws(VirtQueueFault) {
        precondition(byteCount >= 0)
        var skip = offset
        var done = 0
        for segment in segments where done < byteCount {
            if skip >= segment.byteCount {
                skip -= segment.byteCount
                continue
            }
            let count = Int(min(segment.byteCount - skip, UInt64(byteCount - done)))
            // Safe: a segment's end was checked when the chain was taken.
            try body(segment.gpa + skip, done..<done + count)
            done += count
            skip = 0
        }
        guard done == byteCount else { throw .request("a request that is too short") }
    }
}
