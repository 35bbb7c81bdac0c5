import Synchronization
import Testing
import VMMDevices

/// A UART on a bench: its line out and every level of its interrupt line are recorded.
private final class Bench: Sendable {
    let sent = Mutex<[UInt8]>([])
    let levels = Mutex<[Bool]>([])
    private let device = Mutex<Serial16550?>(nil)

    init() {
        let uart = Serial16550(
            interrupt: { [weak self] level in self?.levels.withLock { $0.append(level) } },
            transmit: { [weak self] byte in self?.sent.withLock { $0.append(byte) } })
        device.withLock { $0 = uart }
    }

    var uart: Serial16550 { device.withLock { $0! } }
    var line: [UInt8] { sent.withLock { $0 } }
    var level: Bool { levels.withLock { $0.last ?? false } }
    var edges: Int { levels.withLock { $0.count { $0 } } }

    func get(_ register: UInt64) -> UInt8 { UInt8(truncatingIfNeeded: uart.read(offset: register, byteCount: 1)) }
    func set(_ register: UInt64, _ value: UInt8) { uart.write(offset: register, byteCount: 1, value: UInt64(value)) }

    /// As a driver opens the port: FIFO on, DTR, RTS and OUT2 on.
    func open(ier: UInt8, fcr: UInt8 = 0x01) {
        set(2, fcr)
        set(4, 0x0b)
        set(1, ier)
    }
}

@Suite struct Serial16550Tests {
    @Test func transmitsEveryByteInOrder() {
        let bench = Bench()
        for byte in Array("hello".utf8) {
            #expect(bench.get(5) & 0x60 == 0x60)
            bench.set(0, byte)
        }
        #expect(bench.line == Array("hello".utf8))
    }

    @Test func registersAfterReset() {
        let bench = Bench()
        #expect((1...7).map { bench.get($0) } == [0, 0x01, 0, 0, 0x60, 0xb0, 0])
        #expect(bench.get(0) == 0)
    }

    @Test func scratchLineControlAndInterruptEnableKeepTheirBits() {
        let bench = Bench()
        bench.set(7, 0xa5)
        bench.set(3, 0x1b)
        bench.set(1, 0xff)
        bench.set(4, 0xff)
        #expect(bench.get(7) == 0xa5)
        #expect(bench.get(3) == 0x1b)
        #expect(bench.get(1) == 0x0f)
        #expect(bench.get(4) == 0x1f)
    }

    @Test func divisorLatchHidesDataAndInterruptEnable() {
        let bench = Bench()
        bench.set(1, 0x05)
        bench.set(3, 0x83)
        bench.set(0, 0x34)
        bench.set(1, 0x12)
        #expect(bench.get(0) == 0x34)
        #expect(bench.get(1) == 0x12)
        bench.set(3, 0x03)
        #expect(bench.get(1) == 0x05)
        #expect(bench.line.isEmpty)
    }

    @Test func fifoIsRecognisedAsA16550A() {
        let bench = Bench()
        #expect(bench.get(2) == 0x01)
        bench.set(2, 0x01)
        #expect(bench.get(2) == 0xc1)
        bench.set(2, 0x00)
        #expect(bench.get(2) == 0x01)
    }

    @Test func loopbackWiresTheModemLines() {
        let bench = Bench()
        // The presence test of drivers: RTS and OUT2 in loopback read back as CTS and DCD.
        bench.set(4, 0x1a)
        #expect(bench.get(6) & 0xf0 == 0x90)
        bench.set(4, 0x15)
        #expect(bench.get(6) & 0xf0 == 0x60)
        bench.set(4, 0x00)
        #expect(bench.get(6) & 0xf0 == 0xb0)
    }

    @Test func modemStatusDeltasClearOnRead() {
        let bench = Bench()
        bench.set(4, 0x10)
        #expect(bench.get(6) == 0x0b)  // CTS, DSR and DCD fell.
        #expect(bench.get(6) == 0x00)
        bench.set(4, 0x14)
        #expect(bench.get(6) == 0x40)  // RI rising is no event,
        bench.set(4, 0x10)
        #expect(bench.get(6) == 0x04)  // falling is.
    }

    @Test func loopbackReturnsDataAndOverruns() {
        let bench = Bench()
        bench.set(4, 0x10)
        bench.set(0, 0x41)
        #expect(bench.line.isEmpty)
        #expect(bench.get(5) == 0x61)
        bench.set(0, 0x42)  // No FIFO: nowhere to go.
        #expect(bench.get(5) == 0x63)
        #expect(bench.get(5) == 0x61)
        #expect(bench.get(0) == 0x41)
        #expect(bench.get(5) == 0x60)
    }

    @Test func enablingTheTransmitterInterruptRaisesItOnce() {
        let bench = Bench()
        bench.open(ier: 0x02)
        #expect(bench.level)
        #expect(bench.get(2) == 0xc2)
        #expect(!bench.level)
        #expect(bench.get(2) == 0xc1)
        bench.set(0, 0x55)
        #expect(bench.level)
        #expect(bench.edges == 2)
        bench.set(1, 0)
        #expect(!bench.level)
    }

    @Test func interruptLineNeedsOut2AndNoLoopback() {
        let bench = Bench()
        bench.set(1, 0x02)
        #expect(bench.get(2) == 0x02)
        bench.set(0, 0x20)
        #expect(!bench.level)
        bench.set(4, 0x08)
        #expect(bench.level)
        bench.set(4, 0x18)
        #expect(!bench.level)
    }

    @Test func prioritiesAreLineStatusDataTransmitterModem() {
        let bench = Bench()
        bench.set(4, 0x10)
        bench.set(1, 0x0f)
        bench.set(0, 0x01)
        bench.set(0, 0x02)  // Overrun, data ready, transmitter empty and modem deltas are all pending.
        #expect(bench.get(2) == 0x06)
        _ = bench.get(5)
        #expect(bench.get(2) == 0x04)
        _ = bench.get(0)
        #expect(bench.get(2) == 0x02)
        #expect(bench.get(2) == 0x00)
        _ = bench.get(6)
        #expect(bench.get(2) == 0x01)
    }

    @Test func triggerLevelTellsDataFromTimeout() {
        let bench = Bench()
        bench.open(ier: 0x01, fcr: 0x81)  // Trigger at 8.
        bench.uart.receive([UInt8](repeating: 7, count: 7))
        #expect(bench.get(2) == 0xcc)
        bench.uart.receive([7])
        #expect(bench.get(2) == 0xc4)
        #expect(bench.level)
        for _ in 0..<8 { _ = bench.get(0) }
        #expect(!bench.level)
        #expect(bench.get(2) == 0xc1)
    }

    @Test func inputQueueRefillsTheFIFOInOrder() {
        let bench = Bench()
        bench.open(ier: 0x01)
        let bytes = (0..<10_000).map { UInt8(truncatingIfNeeded: $0) }
        #expect(bench.uart.receive(bytes) == bytes.count)
        var got: [UInt8] = []
        while bench.get(5) & 1 != 0 { got.append(bench.get(0)) }
        #expect(got == bytes)
        #expect(bench.uart.pendingInputByteCount == 0)
    }

    @Test func inputBeyondTheQueueIsRefused() {
        let bench = Bench()
        bench.set(4, 0x01)
        let taken = bench.uart.receive([UInt8](repeating: 1, count: Serial16550.inputCapacity + 5))
        #expect(taken == Serial16550.inputCapacity)
        #expect(bench.uart.receive([1]) == 0)
    }

    @Test func farEndWaitsForRequestToSend() {
        let bench = Bench()
        bench.set(4, 0x01)  // DTR only, as a boot console leaves it.
        bench.uart.receive(Array("typed ahead".utf8))
        #expect(bench.get(5) & 1 == 0)
        bench.set(2, 0x07)  // The driver opens the port: clears the FIFO, then asserts RTS.
        bench.set(4, 0x0b)
        bench.set(1, 0x01)
        var got: [UInt8] = []
        while bench.get(5) & 1 != 0 { got.append(bench.get(0)) }
        #expect(got == Array("typed ahead".utf8))
    }

    @Test func guestThatNeverProgramsMCRGetsInput() {
        let bench = Bench()
        bench.uart.receive([9])
        #expect(bench.get(5) & 1 == 1)
        #expect(bench.get(0) == 9)
    }

    @Test func clearedInputIsSentAgain() {
        let bench = Bench()
        bench.open(ier: 1)
        bench.uart.receive((0..<20).map { UInt8($0) })
        bench.set(2, 0x03)
        bench.set(2, 0x00)
        bench.set(2, 0x07)
        var got: [UInt8] = []
        while bench.get(5) & 1 != 0 { got.append(bench.get(0)) }
        #expect(got == (0..<20).map { UInt8($0) })
    }

    @Test func typedAheadInputSurvivesADriverThatStarts() {
        let bench = Bench()
        bench.uart.receive(Array("ls\n".utf8))
        // Linux: presence test, loopback test, then a start with reads "for luck" before the receiver is enabled.
        for value: UInt8 in [0x00, 0x0f, 0x00] { bench.set(1, value) }
        bench.set(4, 0x1a)
        bench.set(4, 0x00)
        bench.set(2, 0x07)
        bench.set(2, 0x00)
        for register: UInt64 in [5, 0, 2, 6] { _ = bench.get(register) }
        bench.set(4, 0x0b)
        bench.set(1, 0x02)
        bench.set(1, 0x00)
        for register: UInt64 in [5, 0, 2, 6] { _ = bench.get(register) }
        bench.set(1, 0x05)
        bench.set(2, 0x01)
        bench.set(2, 0x81)
        #expect(bench.level)
        var got: [UInt8] = []
        while bench.get(5) & 1 != 0 { got.append(bench.get(0)) }
        #expect(got == Array("ls\n".utf8))
    }

    @Test func loopbackBytesStayInLoopback() {
        let bench = Bench()
        bench.uart.receive([1])
        bench.set(4, 0x12)
        bench.set(0, 0x41)
        bench.set(4, 0x02)
        #expect(bench.get(0) == 1)
        #expect(bench.get(5) & 1 == 0)
    }

    @Test func wideAccessesAreByteAccesses() {
        let bench = Bench()
        bench.set(7, 0x77)
        #expect(bench.uart.read(offset: 4, byteCount: 4) == 0x77b0_6000)
        bench.uart.write(offset: 3, byteCount: 2, value: 0x021b)
        #expect(bench.get(3) == 0x1b)
        #expect(bench.get(4) == 0x02)
        #expect(bench.uart.read(offset: 7, byteCount: 4) == 0xffff_ff77)
    }
}
