// The block device [virtio 5.2] over a ``BlockBackend``.
//
// When is a write durable? The driver decides by what it negotiates [virtio 5.2.6.2]:
//
//     VIRTIO_BLK_F_CONFIG_WCE   the `writeback` byte of the configuration space, at any time
//     else VIRTIO_BLK_F_FLUSH   write-back: a write is durable when a later flush has been answered
//     else                      write-through
//
// In write-through every write is flushed before it is answered. A flush is answered after the backend's. If that ever
// fails, nobody knows what of the data before it is lost, and the host's next flush may well succeed: so all later
// writes and flushes fail, until the disk is opened anew.

import ABILayout
import Synchronization

/// virtio-blk: one queue, requests answered in the order in which they come.
public final class VirtioBlock: VirtioDevice {
    /// Feature bits [virtio 5.2.3].
    public enum Feature {
        public static let segmentSizeLimit: UInt64 = 1 << 1
        public static let segmentCountLimit: UInt64 = 1 << 2
        public static let readOnly: UInt64 = 1 << 5
        public static let blockSize: UInt64 = 1 << 6
        public static let flush: UInt64 = 1 << 9
        public static let configurableCache: UInt64 = 1 << 11
        public static let discard: UInt64 = 1 << 13
        public static let writeZeroes: UInt64 = 1 << 14
    }

    public static let sectorByteCount: UInt64 = 512
    /// Bytes that are copied at a time; a request may have many times more.
    static let pieceByteCount = 1 << 18
    static let queueSize: UInt16 = 128
    /// size_max.
    static let maximumSegmentByteCount: UInt32 = 1 << 20
    /// seg_max: header and status byte need a descriptor each.
    static let maximumSegmentCount = UInt32(queueSize) - 2
    /// Sectors of one discard or write-zeroes range: 2 GiB.
    static let maximumRangeSectorCount: UInt32 = 1 << 22
    /// Ranges of one discard or write-zeroes request.
    static let maximumRangeCount = 16

    private struct State: Sendable {
        var features: UInt64 = 0
        /// The `writeback` byte: the cache keeps writes until a flush.
        var isWriteBack = true
        /// A flush has failed.
        var isBroken = false
        /// The worker is told already, and has not looked since.
        var isScheduled = false
        /// Messages given so far, by their first word: an error that repeats is told a few times only.
        var messageCount = 0
    }

    private let backend: any BlockBackend
    private let identifier: [UInt8]
    private let perform: @Sendable (@escaping @Sendable () -> Void) -> Void
    private let report: @Sendable (String) -> Void
    private let state = Mutex(State())

    /// - Parameters:
    ///   - identifier: What the guest sees as the disk's serial number: at most 20 bytes of ASCII.
    ///   - perform: Runs work that waits for the disk, one piece after the other, on a thread that is not a vCPU's.
    ///   - report: Gets a message for the person who runs the VMM when the disk refuses something; at most
    ///     ``maximumMessageCount`` of them.
    public init(
        _ backend: any BlockBackend, identifier: String,
        perform: @escaping @Sendable (@escaping @Sendable () -> Void) -> Void,
        report: @escaping @Sendable (String) -> Void = { _ in }
    ) {
        self.backend = backend
        self.identifier = Array(Array(identifier.utf8).prefix(20))
        self.perform = perform
        self.report = report
    }

    /// A disk that fails goes on failing: nobody reads the hundredth message.
    public static let maximumMessageCount = 10

    // MARK: The device

    public let deviceID = VirtioDeviceID.block
    public let queueSizes: [UInt16] = [VirtioBlock.queueSize]

    public var features: UInt64 {
        let common = Feature.segmentSizeLimit | Feature.segmentCountLimit | Feature.blockSize
        if backend.isReadOnly { return common | Feature.readOnly }
        return common | Feature.flush | Feature.configurableCache | Feature.discard | Feature.writeZeroes
    }

    private static let writeBackOffset = 32

    /// struct virtio_blk_config [virtio 5.2.4]; what has no feature bit is zero.
    public var configuration: [UInt8] {
        var bytes = [UInt8](repeating: 0, count: 60)
        bytes.storeLittleEndian(backend.byteCount / Self.sectorByteCount, at: 0)
        bytes.storeLittleEndian(Self.maximumSegmentByteCount, at: 8)
        bytes.storeLittleEndian(Self.maximumSegmentCount, at: 12)
        bytes.storeLittleEndian(UInt32(Self.sectorByteCount), at: 20)
        guard !backend.isReadOnly else { return bytes }
        bytes[Self.writeBackOffset] = state.withLock { $0.isWriteBack ? 1 : 0 }
        bytes.storeLittleEndian(Self.maximumRangeSectorCount, at: 36)
        bytes.storeLittleEndian(UInt32(Self.maximumRangeCount), at: 40)
        bytes.storeLittleEndian(UInt32(1), at: 44)
        bytes.storeLittleEndian(Self.maximumRangeSectorCount, at: 48)
        bytes.storeLittleEndian(UInt32(Self.maximumRangeCount), at: 52)
        // write_zeroes_may_unmap.
        bytes[56] = 1
        return bytes
    }

    /// Only `writeback` can be written, and only by a driver that has negotiated it [virtio 5.2.5.1].
    public func writeConfiguration(_ bytes: [UInt8], at offset: Int) {
        guard bytes.count == 1, offset == Self.writeBackOffset else { return }
        state.withLock { state in
            if state.features & Feature.configurableCache != 0 { state.isWriteBack = bytes[0] & 1 != 0 }
        }
    }

    public func activate(features: UInt64, queues: VirtioQueues) {
        state.withLock { state in
            state.features = features
            // Without a flush there is no cache that could be flushed [virtio 5.2.5.2].
            state.isWriteBack = features & Feature.flush != 0
        }
    }

    public func reset() {
        state.withLock { state in
            state.features = 0
            state.isWriteBack = true
        }
    }

    public func notify(queue: Int, of queues: VirtioQueues) {
        let isNew = state.withLock { state in
            defer { state.isScheduled = true }
            return !state.isScheduled
        }
        guard isNew else { return }
        perform { [self] in
            // First, so that what comes from here on is worth a new look.
            state.withLock { $0.isScheduled = false }
            while let request = queues.take(queue) { serve(request, queues) }
        }
    }

    // MARK: Requests

    private enum RequestType {
        static let read: UInt32 = 0
        static let write: UInt32 = 1
        static let flush: UInt32 = 4
        static let identifier: UInt32 = 8
        static let discard: UInt32 = 11
        static let writeZeroes: UInt32 = 13
    }

    private enum Answer: UInt8, Error {
        case ok = 0
        case ioError = 1
        case unsupported = 2
    }

    private static let headerByteCount = 16

    /// A request on its way: `written` counts what has come into the guest's buffers.
    private struct Work {
        let request: VirtioRequest
        let queues: VirtioQueues
        var written: UInt64 = 0
    }

    private func serve(_ request: VirtioRequest, _ queues: VirtioQueues) {
        guard request.readableByteCount >= UInt64(Self.headerByteCount), request.writableByteCount >= 1 else {
            return queues.stop(because: .request("a block request without header or status"))
        }
        // Void by now, or the device has stopped.
        guard let header = queues.read(request, at: 0, byteCount: Self.headerByteCount) else { return }
        let type = header.littleEndian(at: 0, as: UInt32.self) ?? 0
        let sector = header.littleEndian(at: 8, as: UInt64.self) ?? 0
        var work = Work(request: request, queues: queues)
        let answer: Answer
        do throws(Answer) {
            try serve(type, sector, &work)
            answer = .ok
        } catch {
            answer = error
        }
        // The status is the last byte that the device may write.
        let place = request.writableByteCount - 1
        guard queues.write([answer.rawValue], to: request, at: place) else { return }
        // Bytes written from the start on: up to the status only when all before it were.
        queues.complete(request, written: work.written == place ? place + 1 : work.written)
    }

    private func serve(_ type: UInt32, _ sector: UInt64, _ work: inout Work) throws(Answer) {
        switch type {
        case RequestType.read: try read(sector, &work)
        case RequestType.write: try write(sector, &work)
        case RequestType.flush: try flush()
        case RequestType.identifier:
            // Twenty bytes; a NUL only when it is shorter [virtio 5.2.6].
            let count = Int(min(20, work.request.writableByteCount - 1))
            let bytes = identifier + [UInt8](repeating: 0, count: 20 - identifier.count)
            guard work.queues.write(bytes[..<count], to: work.request, at: 0) else { throw .ioError }
            work.written = UInt64(count)
        case RequestType.discard where has(Feature.discard):
            try change(work, allowedFlags: 0, "discard") { (offset, byteCount, _) throws(BlockError) in
                try self.backend.discard(at: offset, byteCount: byteCount)
            }
        case RequestType.writeZeroes where has(Feature.writeZeroes):
            try change(work, allowedFlags: 1, "write zeroes") { (offset, byteCount, flags) throws(BlockError) in
                try self.backend.writeZeroes(at: offset, byteCount: byteCount, mayDeallocate: flags & 1 != 0)
            }
        default: throw .unsupported
        }
    }

    private func has(_ feature: UInt64) -> Bool { state.withLock { $0.features & feature != 0 } }

    /// The place of so many bytes on the disk; they must be whole sectors inside it.
    private func offset(_ sector: UInt64, _ byteCount: UInt64) throws(Answer) -> UInt64 {
        let (offset, overflow) = sector.multipliedReportingOverflow(by: Self.sectorByteCount)
        guard byteCount % Self.sectorByteCount == 0, !overflow, offset <= backend.byteCount,
            byteCount <= backend.byteCount - offset
        else { throw .ioError }
        return offset
    }

    private func read(_ sector: UInt64, _ work: inout Work) throws(Answer) {
        let byteCount = work.request.writableByteCount - 1
        let start = try offset(sector, byteCount)
        while work.written < byteCount {
            let count = Int(min(UInt64(Self.pieceByteCount), byteCount - work.written))
            let bytes: [UInt8]
            do { bytes = try backend.read(at: start + work.written, byteCount: count) } catch {
                throw failure("read", error, at: start + work.written)
            }
            guard bytes.count == count, work.queues.write(bytes[...], to: work.request, at: work.written) else {
                throw .ioError
            }
            work.written += UInt64(count)
        }
    }

    private func write(_ sector: UInt64, _ work: inout Work) throws(Answer) {
        let byteCount = work.request.readableByteCount - UInt64(Self.headerByteCount)
        let start = try offset(sector, byteCount)
        try refuseUnlessWritable()
        var done: UInt64 = 0
        while done < byteCount {
            let count = Int(min(UInt64(Self.pieceByteCount), byteCount - done))
            guard let bytes = work.queues.read(work.request, at: UInt64(Self.headerByteCount) + done, byteCount: count)
            else { throw .ioError }
            do { try backend.write(bytes, at: start + done) } catch {
                throw failure("write", error, at: start + done)
            }
            done += UInt64(count)
        }
        try flushIfWriteThrough()
    }

    /// Discard and write-zeroes: ranges of 16 bytes, sector, count and flags. All are checked before the first is done.
    private func change(
        _ work: Work, allowedFlags: UInt32, _ name: String,
        _ act: (_ offset: UInt64, _ byteCount: UInt64, _ flags: UInt32) throws(BlockError) -> Void
    ) throws(Answer) {
        let byteCount = work.request.readableByteCount - UInt64(Self.headerByteCount)
        guard byteCount > 0, byteCount % 16 == 0, byteCount / 16 <= UInt64(Self.maximumRangeCount) else {
            throw .ioError
        }
        try refuseUnlessWritable()
        guard
            let bytes = work.queues.read(
                work.request, at: UInt64(Self.headerByteCount), byteCount: Int(byteCount))
        else { throw .ioError }
        var ranges: [(offset: UInt64, byteCount: UInt64, flags: UInt32)] = []
        for place in stride(from: 0, to: bytes.count, by: 16) {
            let sector = bytes.littleEndian(at: place, as: UInt64.self) ?? 0
            let count = bytes.littleEndian(at: place + 8, as: UInt32.self) ?? 0
            let flags = bytes.littleEndian(at: place + 12, as: UInt32.self) ?? 0
            guard flags & ~allowedFlags == 0 else { throw .unsupported }
            guard count <= Self.maximumRangeSectorCount else { throw .ioError }
            let byteCount = UInt64(count) * Self.sectorByteCount
            ranges.append((try offset(sector, byteCount), byteCount, flags))
        }
        for range in ranges where range.byteCount > 0 {
            do { try act(range.offset, range.byteCount, range.flags) } catch {
                throw failure(name, error, at: range.offset)
            }
        }
        try flushIfWriteThrough()
    }

    private func refuseUnlessWritable() throws(Answer) {
        guard !backend.isReadOnly, !state.withLock({ $0.isBroken }) else { throw .ioError }
    }

    /// Asked after the write: what counts is that the cache was off all the time until the answer.
    private func flushIfWriteThrough() throws(Answer) {
        if !state.withLock({ $0.isWriteBack }) { try flush() }
    }

    private func flush() throws(Answer) {
        if backend.isReadOnly { return }
        try refuseUnlessWritable()
        do { try backend.flush() } catch {
            state.withLock { $0.isBroken = true }
            throw failure("flush", error, at: 0)
        }
    }

    private func failure(_ what: String, _ error: BlockError, at offset: UInt64) -> Answer {
        if error.isUnsupported { return .unsupported }
        let isNew = state.withLock { state in
            state.messageCount += 1
            return state.messageCount <= Self.maximumMessageCount
        }
        if isNew {
            let place = what == "flush" ? "" : " at offset \(offset)"
            report("could not \(what)\(place): \(error.reason)")
        }
        return .ioError
    }
}
