// The driver's side of virtio-mmio, for tests: a memory with shared and private ranges, rings in it, and the registers.

import ABILayout
import Synchronization
import VMMDevices

/// Guest memory from address 0 on; all of it shared until ``setPrivate(_:)``.
public final class TestGuestMemory: SharedGuestMemory {
    private struct State {
        var bytes: [UInt8]
        var isPrivate = RangeSet<UInt64>()
    }
    private let state: Mutex<State>

    public init(byteCount: Int) { state = Mutex(State(bytes: [UInt8](repeating: 0, count: byteCount))) }

    /// Makes a range private: devices must not get at it any more.
    public func setPrivate(_ range: Range<UInt64>) { state.withLock { $0.isPrivate.insert(contentsOf: range) } }

    private static func range(_ gpa: UInt64, _ byteCount: UInt64, _ state: State) -> Range<Int>? {
        let (end, overflow) = gpa.addingReportingOverflow(byteCount)
        guard !overflow, end <= UInt64(state.bytes.count), state.isPrivate.isDisjoint(RangeSet(gpa..<end)) else {
            return nil
        }
        return Int(gpa)..<Int(end)
    }

    public func isShared(at gpa: UInt64, byteCount: UInt64) -> Bool {
        state.withLock { Self.range(gpa, byteCount, $0) != nil }
    }

    public func read(at gpa: UInt64, byteCount: Int) -> [UInt8]? {
        state.withLock { state in
            Self.range(gpa, UInt64(byteCount), state).map { Array(state.bytes[$0]) }
        }
    }

    public func write(_ bytes: ArraySlice<UInt8>, at gpa: UInt64) -> Bool {
        state.withLock { state in
            guard let range = Self.range(gpa, UInt64(bytes.count), state) else { return false }
            state.bytes.replaceSubrange(range, with: bytes)
            return true
        }
    }

    public func loadIndex(at gpa: UInt64) -> UInt16? {
        gpa & 1 == 0 ? read(at: gpa, byteCount: 2)?.littleEndian(at: 0) : nil
    }

    public func storeIndex(_ index: UInt16, at gpa: UInt64) -> Bool {
        gpa & 1 == 0 && write([UInt8(truncatingIfNeeded: index), UInt8(truncatingIfNeeded: index >> 8)], at: gpa)
    }

    /// As the guest itself writes, wherever it likes.
    public func store<Value: FixedWidthInteger>(_ value: Value, at gpa: UInt64) {
        state.withLock { $0.bytes.storeLittleEndian(value, at: Int(gpa)) }
    }

    /// As the guest itself reads.
    public func load<Value: FixedWidthInteger>(_ type: Value.Type, at gpa: UInt64) -> Value {
        state.withLock { $0.bytes.littleEndian(at: Int(gpa))! }
    }
}

/// The interrupt line of a device.
public final class TestInterruptLine: Sendable {
    private let levels = Mutex<[Bool]>([])
    public init() {}
    public func set(_ level: Bool) { levels.withLock { $0.append(level) } }
    /// Every change so far.
    public var changes: [Bool] { levels.withLock { $0 } }
    public var isHigh: Bool { levels.withLock { $0.last ?? false } }
}

/// A driver of one virtio-mmio device, as far as tests need it.
public final class VirtioDriver {
    /// One descriptor as it stands in the table.
    public struct Descriptor {
        public var gpa: UInt64
        public var byteCount: UInt32
        public var flags: UInt16
        public var next: UInt16
        public init(_ gpa: UInt64, _ byteCount: UInt32, flags: UInt16 = 0, next: UInt16 = 0) {
            self.gpa = gpa
            self.byteCount = byteCount
            self.flags = flags
            self.next = next
        }
    }

    /// A request in flight: where its buffers lie.
    public struct Request {
        public var head: UInt16
        public var readable: [UInt64]
        public var writable: [(gpa: UInt64, byteCount: Int)]
    }

    /// Where a queue's three areas lie, and how far the driver is.
    public struct Ring {
        public var size: UInt16
        public var descriptors: UInt64
        public var driverArea: UInt64
        public var deviceArea: UInt64
        public var nextDescriptor: UInt16 = 0
        public var availableIndex: UInt16 = 0
        public var usedIndex: UInt16 = 0
    }

    public static let flagNext: UInt16 = 1
    public static let flagWrite: UInt16 = 2
    public static let flagIndirect: UInt16 = 4

    public let memory: TestGuestMemory
    public let device: any BusDevice
    public private(set) var rings: [Ring] = []
    public private(set) var features: UInt64 = 0
    /// Buffers come from here upwards, and are never given back until ``reset()``.
    public private(set) var nextBuffer: UInt64 = 0x2_0000

    public init(_ device: any BusDevice, memory: TestGuestMemory) {
        self.device = device
        self.memory = memory
    }

    // MARK: Registers

    public func read(_ register: UInt64) -> UInt32 {
        UInt32(truncatingIfNeeded: device.read(offset: register, byteCount: 4))
    }

    public func write(_ register: UInt64, _ value: UInt32) {
        device.write(offset: register, byteCount: 4, value: UInt64(value))
    }

    public var status: UInt32 { read(0x70) }

    public var offeredFeatures: UInt64 {
        write(0x14, 0)
        let low = read(0x10)
        write(0x14, 1)
        return UInt64(read(0x10)) << 32 | UInt64(low)
    }

    // MARK: Life

    /// Resets and negotiates.
    /// - Parameter wanted: Accepted as far as offered; nil: everything.
    /// - Returns: Whether the device has taken the features.
    public func negotiate(_ wanted: UInt64? = nil) -> Bool {
        write(0x70, 0)
        write(0x70, 1)
        write(0x70, 3)
        features = wanted ?? offeredFeatures
        write(0x24, 0)
        write(0x20, UInt32(truncatingIfNeeded: features))
        write(0x24, 1)
        write(0x20, UInt32(truncatingIfNeeded: features >> 32))
        write(0x70, 11)
        return status & 8 != 0
    }

    /// Sets the queues up, one after the other from 0x1000 on, and says DRIVER_OK.
    public func start(sizes: [UInt16]) {
        rings = []
        var place: UInt64 = 0x1000
        for (number, size) in sizes.enumerated() {
            let driver = place + 16 * UInt64(size)
            let device = (driver + 6 + 2 * UInt64(size) + 3) & ~3
            rings.append(Ring(size: size, descriptors: place, driverArea: driver, deviceArea: device))
            place = (device + 6 + 8 * UInt64(size) + 0xfff) & ~0xfff
            _ = memory.write(
                [UInt8](repeating: 0, count: Int(place - rings[number].descriptors))[...], at: rings[number].descriptors
            )
            hand(over: number)
        }
        write(0x70, 15)
    }

    /// Tells the device where a queue is.
    public func hand(over number: Int) {
        let ring = rings[number]
        write(0x30, UInt32(number))
        write(0x38, UInt32(ring.size))
        for (register, gpa) in [(0x80, ring.descriptors), (0x90, ring.driverArea), (0xa0, ring.deviceArea)]
            as [(UInt64, UInt64)]
        {
            write(register, UInt32(truncatingIfNeeded: gpa))
            write(register + 4, UInt32(truncatingIfNeeded: gpa >> 32))
        }
        write(0x44, 1)
    }

    // MARK: Requests

    /// Takes fresh memory for a buffer.
    public func allocate(_ byteCount: Int) -> UInt64 {
        defer { nextBuffer += UInt64(byteCount + 15) & ~15 }
        return nextBuffer
    }

    /// Writes one descriptor of a queue's table.
    public func store(_ descriptor: Descriptor, at index: UInt16, of queue: Int = 0) {
        store(descriptor, table: rings[queue].descriptors, index: index)
    }

    public func store(_ descriptor: Descriptor, table: UInt64, index: UInt16) {
        let place = table + 16 * UInt64(index)
        memory.store(descriptor.gpa, at: place)
        memory.store(descriptor.byteCount, at: place + 8)
        memory.store(descriptor.flags, at: place + 12)
        memory.store(descriptor.next, at: place + 14)
    }

    /// Makes a head available without telling the device.
    public func offer(_ head: UInt16, to queue: Int = 0) {
        let ring = rings[queue]
        memory.store(head, at: ring.driverArea + 4 + 2 * UInt64(ring.availableIndex & (ring.size - 1)))
        rings[queue].availableIndex &+= 1
        memory.store(rings[queue].availableIndex, at: ring.driverArea + 2)
    }

    public func kick(_ queue: Int = 0) { write(0x50, UInt32(queue)) }

    /// Puts a request into a queue; ``kick(_:)`` tells of it.
    @discardableResult
    public func add(
        _ readable: [[UInt8]], writable: [Int] = [], to queue: Int = 0, indirect: Bool = false
    ) -> Request {
        var request = Request(head: rings[queue].nextDescriptor, readable: [], writable: [])
        var descriptors: [Descriptor] = []
        for bytes in readable {
            let gpa = allocate(bytes.count)
            _ = memory.write(bytes[...], at: gpa)
            request.readable.append(gpa)
            descriptors.append(Descriptor(gpa, UInt32(bytes.count)))
        }
        for byteCount in writable {
            let gpa = allocate(byteCount)
            request.writable.append((gpa, byteCount))
            descriptors.append(Descriptor(gpa, UInt32(byteCount), flags: Self.flagWrite))
        }
        let mask = rings[queue].size - 1
        if indirect {
            let table = allocate(16 * descriptors.count)
            for index in descriptors.indices {
                if index + 1 < descriptors.count {
                    descriptors[index].flags |= Self.flagNext
                    descriptors[index].next = UInt16(index + 1)
                }
                store(descriptors[index], table: table, index: UInt16(index))
            }
            store(
                Descriptor(table, UInt32(16 * descriptors.count), flags: Self.flagIndirect), at: request.head, of: queue
            )
            rings[queue].nextDescriptor = (request.head &+ 1) & mask
        } else {
            for (index, descriptor) in descriptors.enumerated() {
                var descriptor = descriptor
                if index + 1 < descriptors.count {
                    descriptor.flags |= Self.flagNext
                    descriptor.next = (request.head &+ UInt16(index) &+ 1) & mask
                }
                store(descriptor, at: (request.head &+ UInt16(index)) & mask, of: queue)
            }
            rings[queue].nextDescriptor = (request.head &+ UInt16(descriptors.count)) & mask
        }
        offer(request.head, to: queue)
        return request
    }

    /// What the device has given back since the last call.
    public func used(_ queue: Int = 0) -> [(head: UInt32, written: UInt32)] {
        let ring = rings[queue]
        let index = memory.load(UInt16.self, at: ring.deviceArea + 2)
        var result: [(UInt32, UInt32)] = []
        while rings[queue].usedIndex != index {
            let place = ring.deviceArea + 4 + 8 * UInt64(rings[queue].usedIndex & (ring.size - 1))
            result.append((memory.load(UInt32.self, at: place), memory.load(UInt32.self, at: place + 4)))
            rings[queue].usedIndex &+= 1
        }
        // used_event: with the event index, an interrupt for the next one.
        memory.store(index, at: ring.driverArea + 4 + 2 * UInt64(ring.size))
        return result
    }

    /// The bytes of a request's writable buffers.
    public func answer(_ request: Request) -> [UInt8] {
        request.writable.flatMap { memory.read(at: $0.gpa, byteCount: $0.byteCount) ?? [] }
    }
}
