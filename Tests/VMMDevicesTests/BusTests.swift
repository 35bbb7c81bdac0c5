import Synchronization
import Testing
import VMMDevices

/// Answers with its offset, and keeps what is written.
private final class Recorder: BusDevice {
    let writes = Mutex<[[UInt64]]>([])
    func read(offset: UInt64, byteCount: Int) -> UInt64 { 0x1111_1111_1111_1110 &+ offset }
    func write(offset: UInt64, byteCount: Int, value: UInt64) {
        writes.withLock { $0.append([offset, UInt64(byteCount), value]) }
    }
}

@Suite struct BusTests {
    @Test(arguments: [1, 2, 4, 8]) func unclaimedReadsAreAllOnes(byteCount: Int) {
        let bus = Bus()
        let ones: UInt64 = byteCount == 8 ? .max : (1 << UInt64(8 * byteCount)) - 1
        for address in [0, 0xcfc, 0xfee0_0000, UInt64.max] as [UInt64] {
            #expect(bus.read(address, byteCount: byteCount) == ones)
            bus.write(address, byteCount: byteCount, value: 5)
        }
    }

    @Test func accessInsideIsOneAccess() {
        let device = Recorder()
        var bus = Bus()
        bus.attach(device, base: 0x100, byteCount: 8)
        #expect(bus.read(0x104, byteCount: 4) == 0x1111_1114)
        bus.write(0x102, byteCount: 2, value: 0xdead_beef)
        #expect(device.writes.withLock { $0 } == [[2, 2, 0xbeef]])
    }

    @Test func accessAcrossAnEdgeIsSplit() {
        let device = Recorder()
        var bus = Bus()
        bus.attach(device, base: 0x100, byteCount: 2)
        #expect(bus.read(0x101, byteCount: 4) == 0xffff_ff11)
        #expect(bus.read(0xff, byteCount: 2) == 0x10ff)
        bus.write(0xff, byteCount: 4, value: 0x4433_2211)
        #expect(device.writes.withLock { $0 } == [[0, 1, 0x22], [1, 1, 0x33]])
    }

    @Test func neighboursAreKeptApart() {
        let low = Recorder()
        let high = Recorder()
        var bus = Bus()
        bus.attach(high, base: 0x108, byteCount: 8)
        bus.attach(low, base: 0x100, byteCount: 8)
        bus.write(0x107, byteCount: 1, value: 1)
        bus.write(0x108, byteCount: 1, value: 2)
        bus.write(0x110, byteCount: 1, value: 3)
        #expect(low.writes.withLock { $0 } == [[7, 1, 1]])
        #expect(high.writes.withLock { $0 } == [[0, 1, 2]])
    }

    @Test func oddSizesAreDoneByteByByte() {
        let device = Recorder()
        var bus = Bus()
        bus.attach(device, base: 0, byteCount: 8)
        #expect(bus.read(1, byteCount: 3) == 0x131211)
    }
}
