import Testing
import VMMDevices

@Suite struct PowerBlockTests {
    private func machine() -> (PowerBlock, Bus) {
        let block = PowerBlock(softOffSleepType: 5, resetValue: 0x42)
        var bus = Bus()
        block.attach(to: &bus, sleepControl: 0x600, sleepStatus: 0x601, reset: 0x602)
        return (block, bus)
    }

    @Test func softOffNeedsSleepEnableAndTheS5Type() {
        for value in UInt64(0)...0xff {
            let (block, bus) = machine()
            bus.write(0x600, byteCount: 1, value: value)
            let off = value & 0x20 != 0 && value >> 2 & 7 == 5
            #expect(block.requestedEvent == (off ? .powerOff : nil), "\(value)")
        }
    }

    @Test func powerOffAsLinuxDoesIt() {
        let (block, bus) = machine()
        bus.write(0x601, byteCount: 1, value: 0x80)
        #expect(block.requestedEvent == nil)
        bus.write(0x600, byteCount: 1, value: 5 << 2 | 0x20)
        #expect(block.requestedEvent == .powerOff)
    }

    @Test func onlyTheResetValueResets() {
        for value in UInt64(0)...0xff {
            let (block, bus) = machine()
            bus.write(0x602, byteCount: 1, value: value)
            #expect(block.requestedEvent == (value == 0x42 ? .reset : nil))
        }
    }

    @Test func registersReadAsZeroAndTheFirstRequestStays() {
        let (block, bus) = machine()
        #expect(bus.read(0x600, byteCount: 4) == 0xff00_0000)
        bus.write(0x602, byteCount: 1, value: 0x42)
        bus.write(0x600, byteCount: 1, value: 5 << 2 | 0x20)
        #expect(block.requestedEvent == .reset)
    }
}
