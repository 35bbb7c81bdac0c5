// The 8042 of the bare machine: what firmware asks it, and the two ways to a reset.

import Testing
import VMMDevices

@Suite struct KeyboardControllerTests {
    private let device = KeyboardController()

    private func command(_ byte: UInt64) { device.write(offset: 4, byteCount: 1, value: byte) }
    private func data(_ byte: UInt64) { device.write(offset: 0, byteCount: 1, value: byte) }
    private func answers() -> [UInt64] {
        var bytes: [UInt64] = []
        while device.read(offset: 4, byteCount: 1) & 1 != 0 { bytes.append(device.read(offset: 0, byteCount: 1)) }
        return bytes
    }

    @Test func controller() {
        command(0xaa)
        #expect(answers() == [0x55])
        command(0x60)
        data(0x61)
        command(0x20)
        #expect(answers() == [0x61])
        command(0xab)
        #expect(answers() == [0])
        #expect(device.read(offset: 4, byteCount: 1) & 2 == 0)
    }

    @Test func keyboard() {
        data(0xff)
        #expect(answers() == [0xfa, 0xaa])
        data(0xed)
        data(0xff)
        #expect(answers() == [0xfa, 0xfa])
        data(0xf2)
        #expect(answers() == [0xfa, 0xab, 0x83])
    }

    @Test func nothingIsKeptForEver() {
        for _ in 0..<1000 { data(0xf4) }
        #expect(answers().count == 16)
    }

    @Test func reset() {
        command(0xff)
        #expect(!device.isResetRequested)
        command(0xfe)
        #expect(device.isResetRequested)
    }

    @Test func resetByOutputPort() {
        command(0xd1)
        data(3)
        #expect(!device.isResetRequested)
        command(0xd1)
        data(2)
        #expect(device.isResetRequested)
    }

    @Test("port 0xCF9 hears bytes only: PCI's address register is around it")
    func resetControl() {
        let ports = ResetPorts(.resetControl)
        ports.write(offset: 0, byteCount: 4, value: 0x8000_ffff)
        #expect(!ports.isRequested)
        #expect(ports.read(offset: 0, byteCount: 4) == .max)
        ports.write(offset: 1, byteCount: 1, value: 6)
        #expect(ports.isRequested)
    }
}
