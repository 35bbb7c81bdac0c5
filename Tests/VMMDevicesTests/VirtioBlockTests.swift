import ABILayout
import Synchronization
import Testing
import VMMDevices
import VirtioTestSupport

/// A disk in memory that writes down what it is asked for and fails when a test wants it.
final class TestDisk: BlockBackend {
    struct State: Sendable {
        var bytes: [UInt8]
        var calls: [String] = []
        var failures: [String: BlockError] = [:]
    }
    let state: Mutex<State>
    let byteCount: UInt64
    let isReadOnly: Bool

    init(sectors: Int, isReadOnly: Bool = false) {
        byteCount = UInt64(sectors * 512)
        self.isReadOnly = isReadOnly
        state = Mutex(State(bytes: (0..<sectors * 512).map { UInt8(truncatingIfNeeded: $0 &* 7 &+ $0 >> 9) }))
    }

    var calls: [String] { state.withLock { $0.calls } }
    var bytes: [UInt8] { state.withLock { $0.bytes } }
    func fail(_ call: String, _ error: BlockError?) { state.withLock { $0.failures[call] = error } }

    private func act<Result>(
        _ name: String, _ detail: String, _ body: (inout State) -> Result
    ) throws(BlockError) -> Result {
        let result = state.withLock { (state) -> Swift.Result<Result, BlockError> in
            state.calls.append(detail.isEmpty ? name : "\(name) \(detail)")
            if let error = state.failures[name] { return .failure(error) }
            return .success(body(&state))
        }
        return try result.get()
    }

    func read(at offset: UInt64, byteCount: Int) throws(BlockError) -> [UInt8] {
        try act("read", "\(offset)+\(byteCount)") { Array($0.bytes[Int(offset)..<Int(offset) + byteCount]) }
    }
    func write(_ bytes: [UInt8], at offset: UInt64) throws(BlockError) {
        try act("write", "\(offset)+\(bytes.count)") {
            $0.bytes.replaceSubrange(Int(offset)..<Int(offset) + bytes.count, with: bytes)
        }
    }
    func flush() throws(BlockError) { try act("flush", "") { _ in } }
    func discard(at offset: UInt64, byteCount: UInt64) throws(BlockError) {
        try act("discard", "\(offset)+\(byteCount)") { _ in }
    }
    func writeZeroes(at offset: UInt64, byteCount: UInt64, mayDeallocate: Bool) throws(BlockError) {
        try act("zero", "\(offset)+\(byteCount)\(mayDeallocate ? " unmap" : "")") { state in
            for index in Int(offset)..<Int(offset + byteCount) { state.bytes[index] = 0 }
        }
    }
}

/// A block device with its driver. Work is done at once unless a test holds it.
private struct Rig {
    let disk: TestDisk
    let driver: VirtioDriver
    let transport: VirtioMMIO
    let messages = Messages()

    final class Messages: Sendable {
        let list = Mutex<[String]>([])
    }

    init(_ disk: TestDisk, features: UInt64? = nil) {
        self.disk = disk
        let memory = TestGuestMemory(byteCount: 4 << 20)
        let device = VirtioBlock(disk, identifier: "disk7", perform: { $0() }) { [messages] text in
            messages.list.withLock { $0.append(text) }
        }
        transport = VirtioMMIO(device, memory: memory) { _ in }
        driver = VirtioDriver(transport, memory: memory)
        #expect(driver.negotiate(features))
        driver.start(sizes: [128])
    }

    static func header(_ type: UInt32, _ sector: UInt64) -> [UInt8] {
        var bytes: [UInt8] = []
        bytes.appendLittleEndian(type)
        bytes.appendLittleEndian(UInt32(0))
        bytes.appendLittleEndian(sector)
        return bytes
    }

    /// - Returns: Status, bytes the device says it wrote, and the data.
    @discardableResult
    func ask(
        _ type: UInt32, _ sector: UInt64 = 0, _ data: [[UInt8]] = [], room: [Int] = [], indirect: Bool = false
    ) -> (status: UInt8?, written: UInt32?, data: [UInt8]) {
        let request = driver.add([Self.header(type, sector)] + data, writable: room + [1], indirect: indirect)
        // No request ends with this by itself.
        driver.memory.store(UInt8(0xaa), at: request.writable[room.count].gpa)
        driver.kick()
        let bytes = driver.answer(request)
        return (bytes.last, driver.used().last?.written, Array(bytes.dropLast()))
    }

    static func range(_ sector: UInt64, _ count: UInt32, flags: UInt32 = 0) -> [UInt8] {
        var bytes: [UInt8] = []
        bytes.appendLittleEndian(sector)
        bytes.appendLittleEndian(count)
        bytes.appendLittleEndian(flags)
        return bytes
    }
}

private let writeThrough = VirtioFeatures.required
private let writeBack = VirtioFeatures.required | VirtioBlock.Feature.flush
private let (ok, ioError, unsupported) = (UInt8(0), UInt8(1), UInt8(2))

@Suite struct VirtioBlockTests {
    @Test func configuration() {
        let rig = Rig(TestDisk(sectors: 2048))
        let read = { (offset: UInt64, byteCount: Int) in
            rig.driver.device.read(offset: 0x100 + offset, byteCount: byteCount)
        }
        #expect(rig.driver.read(0x08) == 2)
        #expect(read(0, 8) == 2048)
        #expect(read(8, 4) == 1 << 20)
        #expect(read(12, 4) == 126)
        #expect(read(20, 4) == 512)
        #expect(read(32, 1) == 1)
        #expect(read(36, 4) == 1 << 22 && read(40, 4) == 16 && read(44, 4) == 1)
        #expect(read(48, 4) == 1 << 22 && read(52, 4) == 16 && read(56, 1) == 1)
        let bits: UInt64 = 1 << 1 | 1 << 2 | 1 << 6 | 1 << 9 | 1 << 11 | 1 << 13 | 1 << 14
        #expect(rig.driver.offeredFeatures == VirtioFeatures.offered | bits)
        let readOnly = Rig(TestDisk(sectors: 8, isReadOnly: true))
        #expect(readOnly.driver.offeredFeatures == VirtioFeatures.offered | 1 << 1 | 1 << 2 | 1 << 5 | 1 << 6)
    }

    @Test(arguments: [false, true]) func readsAndWrites(indirect: Bool) {
        let rig = Rig(TestDisk(sectors: 64))
        let before = rig.disk.bytes
        let read = rig.ask(0, 3, room: [512, 1024, 512], indirect: indirect)
        #expect(read.status == ok && read.written == 2049)
        #expect(read.data == Array(before[3 * 512..<7 * 512]))
        let data = (0..<1536).map { UInt8(truncatingIfNeeded: $0 &* 13) }
        let write = rig.ask(1, 60, [Array(data[..<100]), Array(data[100...])], indirect: indirect)
        #expect(write.status == ok && write.written == 1)
        #expect(rig.disk.bytes == before[..<(60 * 512)] + data + before[(63 * 512)...])
        #expect(rig.messages.list.withLock { $0 }.isEmpty)
    }

    @Test func largeRequestsGoInPieces() {
        let rig = Rig(TestDisk(sectors: 2048))
        let read = rig.ask(0, 1, room: [300 * 1024, 212 * 1024])
        #expect(read.data == Array(rig.disk.bytes[512..<512 + 512 * 1024]))
        #expect(rig.disk.calls == ["read 512+262144", "read 262656+262144"])
        rig.ask(1, 0, [[UInt8](repeating: 1, count: 262144 + 512)])
        #expect(rig.disk.calls.suffix(2) == ["write 0+262144", "write 262144+512"])
    }

    @Test func identifier() {
        let rig = Rig(TestDisk(sectors: 8))
        let answer = rig.ask(8, room: [20])
        #expect(answer.status == ok && answer.written == 21)
        #expect(answer.data == Array("disk7".utf8) + [UInt8](repeating: 0, count: 15))
        // A buffer that is too short gets what fits.
        #expect(rig.ask(8, room: [2]).data == Array("di".utf8))
    }

    // MARK: Durability

    /// In write-through, nothing is answered before it has been flushed.
    @Test func writeThroughFlushesEveryWrite() {
        let rig = Rig(TestDisk(sectors: 64), features: writeThrough)
        #expect(rig.driver.device.read(offset: 0x100 + 32, byteCount: 1) == 0)
        rig.ask(1, 0, [[UInt8](repeating: 1, count: 512)])
        rig.ask(1, 1, [[UInt8](repeating: 2, count: 512)])
        #expect(rig.disk.calls == ["write 0+512", "flush", "write 512+512", "flush"])
    }

    @Test func writeBackFlushesWhenAsked() {
        let rig = Rig(TestDisk(sectors: 64), features: writeBack)
        rig.ask(1, 0, [[UInt8](repeating: 1, count: 512)])
        rig.ask(1, 1, [[UInt8](repeating: 2, count: 512)])
        #expect(rig.disk.calls == ["write 0+512", "write 512+512"])
        #expect(rig.ask(4).status == ok)
        #expect(rig.disk.calls.last == "flush")
        // `writeback` belongs to a feature that was not negotiated.
        rig.driver.device.write(offset: 0x100 + 32, byteCount: 1, value: 0)
        #expect(rig.driver.device.read(offset: 0x100 + 32, byteCount: 1) == 1)
    }

    @Test func theCacheCanBeSwitchedOff() {
        let rig = Rig(TestDisk(sectors: 64))
        let cache = { (value: UInt64) in rig.driver.device.write(offset: 0x100 + 32, byteCount: 1, value: value) }
        rig.ask(1, 0, [[UInt8](repeating: 1, count: 512)])
        cache(0)
        #expect(rig.driver.device.read(offset: 0x100 + 32, byteCount: 1) == 0)
        rig.ask(1, 1, [[UInt8](repeating: 2, count: 512)])
        rig.ask(13, 0, [Rig.range(4, 1)])
        rig.ask(11, 0, [Rig.range(8, 2)])
        cache(1)
        rig.ask(1, 2, [[UInt8](repeating: 3, count: 512)])
        #expect(
            rig.disk.calls == [
                "write 0+512", "write 512+512", "flush", "zero 2048+512", "flush", "discard 4096+1024", "flush",
                "write 1024+512",
            ])
        // A reset brings the cache back.
        cache(0)
        #expect(rig.driver.negotiate())
        #expect(rig.driver.device.read(offset: 0x100 + 32, byteCount: 1) == 1)
    }

    /// The answer must not be there while the flush still is to come.
    @Test func theAnswerComesAfterTheFlush() {
        let memory = TestGuestMemory(byteCount: 1 << 20)
        let order = Mutex<[String]>([])
        let disk = TestDisk(sectors: 8)
        let pending = Mutex<[@Sendable () -> Void]>([])
        let device = VirtioBlock(disk, identifier: "", perform: { work in pending.withLock { $0.append(work) } })
        let transport = VirtioMMIO(device, memory: memory) { level in
            if level { order.withLock { $0.append("interrupt after \(disk.calls.joined(separator: ", "))") } }
        }
        let driver = VirtioDriver(transport, memory: memory)
        #expect(driver.negotiate(writeThrough))
        driver.start(sizes: [128])
        driver.add([Rig.header(1, 0), [UInt8](repeating: 1, count: 512)], writable: [1])
        driver.kick()
        driver.kick()
        #expect(driver.used().isEmpty)
        let works = pending.withLock { $0 }
        #expect(works.count == 1, "a worker that is on its way is not called again")
        works[0]()
        #expect(driver.used().count == 1)
        #expect(order.withLock { $0 } == ["interrupt after write 0+512, flush"])
    }

    @Test func aFailedFlushIsNotForgotten() {
        let rig = Rig(TestDisk(sectors: 64), features: writeBack)
        rig.disk.fail("flush", BlockError("Input/output error"))
        #expect(rig.ask(4).status == ioError)
        rig.disk.fail("flush", nil)
        // The host has dropped the pages: a flush that succeeds now would be a lie.
        #expect(rig.ask(4).status == ioError)
        #expect(rig.ask(1, 0, [[UInt8](repeating: 1, count: 512)]).status == ioError)
        #expect(rig.disk.calls == ["flush"])
        #expect(rig.ask(0, 0, room: [512]).status == ok)
        // Nor by a reset.
        #expect(rig.driver.negotiate())
        rig.driver.start(sizes: [128])
        #expect(rig.ask(4).status == ioError)
        #expect(rig.messages.list.withLock { $0 } == ["could not flush: Input/output error"])
    }

    // MARK: Refusals

    @Test func whatIsNotOnTheDiskIsAnError() {
        let rig = Rig(TestDisk(sectors: 64))
        let cases: [(UInt32, UInt64, [[UInt8]], [Int])] = [
            (0, 64, [], [512]), (0, 63, [], [1024]), (0, .max, [], [512]), (0, 1 << 55, [], [512]),
            (0, 0, [], [511]), (1, 64, [[UInt8](repeating: 0, count: 512)], []), (1, 0, [[1, 2, 3]], []),
            (11, 0, [Rig.range(64, 1)], []), (11, 0, [Rig.range(0, 65)], []), (11, 0, [Rig.range(.max, 1)], []),
            (11, 0, [Rig.range(0, .max)], []), (11, 0, [[1, 2, 3]], []), (11, 0, [], []),
            (13, 0, [Rig.range(0, 1), Rig.range(63, 2)], []),
            (13, 0, [[UInt8]](repeating: Rig.range(0, 1), count: 17), []),
        ]
        for (type, sector, data, room) in cases {
            let answer = rig.ask(type, sector, data, room: room)
            #expect(answer.status == ioError, "type \(type) sector \(sector)")
        }
        #expect(rig.disk.calls.isEmpty, "nothing is begun that cannot be finished")
        #expect(rig.ask(0, 64, room: []).status == ok, "no bytes at the end of the disk")
    }

    @Test func unknownRequestsAndFlagsAreUnsupported() {
        let rig = Rig(TestDisk(sectors: 64))
        for type in [2, 3, 5, 7, 9, 10, 12, 14, 0x8000_0000, .max] as [UInt32] {
            #expect(rig.ask(type, 0, room: [512]).status == unsupported)
        }
        // Discard has no flags; write zeroes has one.
        #expect(rig.ask(11, 0, [Rig.range(0, 1, flags: 1)]).status == unsupported)
        #expect(rig.ask(13, 0, [Rig.range(0, 1, flags: 2)]).status == unsupported)
        #expect(rig.disk.calls.isEmpty)
        // Not negotiated.
        let plain = Rig(TestDisk(sectors: 64), features: writeBack)
        #expect(plain.ask(11, 0, [Rig.range(0, 1)]).status == unsupported)
        #expect(plain.ask(13, 0, [Rig.range(0, 1)]).status == unsupported)
    }

    @Test func discardsAndZeroes() {
        let rig = Rig(TestDisk(sectors: 64))
        #expect(rig.ask(13, 0, [Rig.range(1, 2), Rig.range(10, 1, flags: 1), Rig.range(3, 0)]).status == ok)
        #expect(rig.ask(11, 0, [Rig.range(20, 4)]).status == ok)
        #expect(rig.disk.calls == ["zero 512+1024", "zero 5120+512 unmap", "discard 10240+2048"])
        rig.disk.fail("discard", BlockError("Operation not supported", isUnsupported: true))
        #expect(rig.ask(11, 0, [Rig.range(20, 4)]).status == unsupported)
        #expect(rig.messages.list.withLock { $0 }.isEmpty)
    }

    @Test func aReadOnlyDiskIsNotWritten() {
        let rig = Rig(TestDisk(sectors: 64, isReadOnly: true))
        #expect(rig.ask(1, 0, [[UInt8](repeating: 0, count: 512)]).status == ioError)
        #expect(rig.ask(11, 0, [Rig.range(0, 1)]).status == unsupported)
        #expect(rig.ask(13, 0, [Rig.range(0, 1)]).status == unsupported)
        #expect(rig.ask(4).status == ok)
        #expect(rig.disk.calls.isEmpty)
        #expect(rig.ask(0, 0, room: [512]).status == ok)
    }

    @Test func errorsOfTheDiskReachGuestAndPerson() {
        let rig = Rig(TestDisk(sectors: 64))
        rig.disk.fail("write", BlockError("No space left on device"))
        for _ in 0..<20 {
            #expect(rig.ask(1, 4, [[UInt8](repeating: 0, count: 512)]).status == ioError)
        }
        let messages = rig.messages.list.withLock { $0 }
        #expect(messages.count == VirtioBlock.maximumMessageCount)
        #expect(messages[0] == "could not write at offset 2048: No space left on device")
        rig.disk.fail("read", BlockError("Input/output error"))
        let read = rig.ask(0, 0, room: [512])
        #expect(read.status == ioError && read.written == 0)
        // What is left works.
        rig.disk.fail("write", nil)
        #expect(rig.ask(1, 4, [[UInt8](repeating: 0, count: 512)]).status == ok)
    }

    @Test func requestsWithoutHeaderOrStatusStopTheDevice() {
        for shape in [([[1, 2, 3]], [1]), ([Rig.header(0, 0)], [])] as [([[UInt8]], [Int])] {
            let rig = Rig(TestDisk(sectors: 8))
            rig.driver.add(shape.0, writable: shape.1)
            rig.driver.kick()
            #expect(rig.driver.status & VirtioStatus.needsReset != 0)
            #expect(rig.transport.queues.statistics.lastFault == "a block request without header or status")
        }
    }

    @Test func aDriverThatWantsNoFlushButTheCacheSwitch() {
        let rig = Rig(
            TestDisk(sectors: 8), features: VirtioFeatures.required | VirtioBlock.Feature.configurableCache)
        #expect(rig.driver.device.read(offset: 0x100 + 32, byteCount: 1) == 0)
        rig.ask(1, 0, [[UInt8](repeating: 1, count: 512)])
        #expect(rig.disk.calls == ["write 0+512", "flush"])
    }
}
