// The machine for bare-metal test images and foreign firmware: a PC's interrupt parts and the ports that such programs
// expect, and none of the devices that our own guests get.

import GuestImage
import KVMABI
import VMMDevices

/// What a bare machine has besides RAM, a serial line and the kernel's interrupt controllers and timer.
public struct BareMachineConfiguration: Sendable {
    /// A write of v here ends the machine; nil: no such port.
    public var debugExitPort: UInt16?
    /// Text written here goes to the console; nil: no such port.
    public var debugConsolePort: UInt16?

    public init(debugExitPort: UInt16? = nil, debugConsolePort: UInt16? = nil) {
        self.debugExitPort = debugExitPort
        self.debugConsolePort = debugConsolePort
    }
}

/// The bare machine's devices that can end a run.
struct BareDevices: Sendable {
    let exit = DebugExit()
    let shutdown = ShutdownPort()
    let keyboardController = KeyboardController()
    let systemControl = ResetPorts(.systemControl)
    let resetControl = ResetPorts(.resetControl)

    /// How the run ends, if a device says so.
    var outcome: RunOutcome? {
        if let value = exit.value { return .exited(value) }
        if shutdown.isRequested { return .powerOff }
        if keyboardController.isResetRequested || systemControl.isRequested || resetControl.isRequested {
            return .resetRequested
        }
        return nil
    }

    /// Attaches everything to the machine's port and memory space.
    ///
    /// - Throws: ``VMMError`` when a chosen port is taken.
    init(
        _ configuration: BareMachineConfiguration, memoryByteCount: UInt64, processorCount: Int, ports: inout Bus,
        mmio: inout Bus, output: ConsoleOutput, setLine: @escaping @Sendable (UInt32, Bool) -> Void
    ) throws(VMMError) {
        let memory = GuestAddressMap.ramRanges(memoryByteCount: memoryByteCount)
        ports.attach(
            FirmwareConfiguration(
                memoryByteCount: memoryByteCount, processorCount: processorCount,
                files: [("etc/e820", Self.memoryMap(memory))]),
            base: FirmwareConfiguration.port, byteCount: FirmwareConfiguration.portCount)
        ports.attach(
            ConfigurationRAM(
                memoryByteCount: memoryByteCount, processorCount: processorCount,
                lowMemoryEnd: memory.first?.upperBound ?? 0),
            base: ConfigurationRAM.port, byteCount: ConfigurationRAM.portCount)
        ports.attach(keyboardController, base: 0x60, byteCount: 5)
        ports.attach(systemControl, base: 0x92, byteCount: 1)
        // With the ports of PCI's configuration space, where nothing is: it must not hear their doublewords.
        ports.attach(resetControl, base: 0xcf8, byteCount: 8)
        ports.attach(PortLatch(), base: 0xe0, byteCount: 4)
        ports.attach(IgnoredPort(), base: 0xe4, byteCount: 4)
        ports.attach(
            InterruptLines(set: setLine), base: InterruptLines.port, byteCount: InterruptLines.portCount)
        ports.attach(shutdown, base: 0x8900, byteCount: 1)
        if let port = configuration.debugExitPort {
            guard ports.isFree(UInt64(port), byteCount: DebugExit.portCount) else {
                throw Self.taken("--debug-exit", port)
            }
            ports.attach(exit, base: UInt64(port), byteCount: DebugExit.portCount)
        }
        if let port = configuration.debugConsolePort {
            guard ports.isFree(UInt64(port), byteCount: 1) else { throw Self.taken("--debug-console", port) }
            ports.attach(DebugConsole(transmit: { output.send($0) }), base: UInt64(port), byteCount: 1)
        }
        // Memory that is a device.
        mmio.attach(PortLatch(byteCount: 0x1_0000), base: 0xff00_0000, byteCount: 0x1_0000)
    }

    private static func taken(_ option: String, _ port: UInt16) -> VMMError {
        VMMError(
            .usage, step: "make the machine", request: option, finding: "port \(hex(UInt64(port))) is in use",
            likelyCause: "another device of the bare machine answers there", nextStep: "choose another port")
    }

    /// Base, length and type 1 of each range of RAM, 20 bytes each.
    private static func memoryMap(_ ranges: [Range<UInt64>]) -> [UInt8] {
        ranges.flatMap { range in
            [range.lowerBound, range.upperBound - range.lowerBound].flatMap { value in
                (0..<8).map { UInt8(truncatingIfNeeded: value >> UInt64(8 * $0)) }
            } + [1, 0, 0, 0]
        }
    }
}
