// What bare-metal test images find beside a PC: latches to read back, interrupt lines to pull, memory that is a device.

import Synchronization

/// Ports 0xE0 to 0xE3: what was written is read back, in any width.
public final class PortLatch: BusDevice {
    private let bytes: Mutex<[UInt8]>
    public init(byteCount: Int = 4) { bytes = Mutex([UInt8](repeating: 0, count: byteCount)) }

    public func read(offset: UInt64, byteCount: Int) -> UInt64 {
        bytes.withLock { bytes in
            (0..<byteCount).reversed().reduce(0) { value, n in
                // Safe: the bus keeps offset + byteCount inside the attached range.
                value << 8 | UInt64(bytes[Int(offset) + n])
            }
        }
    }
    public func write(offset: UInt64, byteCount: Int, value: UInt64) {
        bytes.withLock { bytes in
            for n in 0..<byteCount { bytes[Int(offset) + n] = UInt8(truncatingIfNeeded: value >> UInt64(8 * n)) }
        }
    }
}

/// Ports 0x2000 + n: sets interrupt line n to 0 or 1.
public final class InterruptLines: BusDevice {
    private let set: @Sendable (UInt32, Bool) -> Void
    public static let port: UInt64 = 0x2000, portCount: UInt64 = 24

    public init(set: @escaping @Sendable (UInt32, Bool) -> Void) { self.set = set }

    public func read(offset: UInt64, byteCount: Int) -> UInt64 { 0 }
    public func write(offset: UInt64, byteCount: Int, value: UInt64) {
        set(UInt32(truncatingIfNeeded: offset), value != 0)
    }
}

/// Swallows writes: a request to drop a page's mapping, which the host does whenever it likes anyway.
public final class IgnoredPort: BusDevice {
    public init() {}
    public func read(offset: UInt64, byteCount: Int) -> UInt64 { 0 }
    public func write(offset: UInt64, byteCount: Int, value: UInt64) {}
}

/// The battery-backed RAM behind ports 0x70 and 0x71, as far as firmware asks: memory sizes, and a clock that stands.
public final class ConfigurationRAM: BusDevice {
    private struct State {
        var index = 0
        var bytes = [UInt8](repeating: 0, count: 128)
    }
    private let state: Mutex<State>
    public static let port: UInt64 = 0x70, portCount: UInt64 = 2

    public init(memoryByteCount: UInt64, processorCount: Int, lowMemoryEnd: UInt64) {
        var state = State()
        func word(_ at: Int, _ value: UInt64) {
            state.bytes[at] = UInt8(truncatingIfNeeded: value)
            state.bytes[at + 1] = UInt8(truncatingIfNeeded: value >> 8)
        }
        let low = min(memoryByteCount, lowMemoryEnd)
        word(0x15, 640)
        let extended = min((low - min(low, 1 << 20)) >> 10, 0xffff)
        word(0x17, extended)
        word(0x30, extended)
        word(0x34, min((low - min(low, 16 << 20)) >> 16, 0xffff))
        let high = (memoryByteCount - low) >> 16
        word(0x5b, high)
        state.bytes[0x5d] = UInt8(truncatingIfNeeded: high >> 16)
        state.bytes[0x5f] = UInt8(truncatingIfNeeded: processorCount - 1)
        // 24 hours, BCD; the first of January 2000; the battery is good.
        state.bytes[0x0a] = 0x26
        state.bytes[0x0b] = 0x02
        state.bytes[0x0d] = 0x80
        state.bytes[6...8] = [7, 1, 1]
        state.bytes[0x32] = 0x20
        self.state = Mutex(state)
    }

    public func read(offset: UInt64, byteCount: Int) -> UInt64 {
        state.withLock { offset == 0 ? 0xff : UInt64($0.bytes[$0.index]) }
    }

    public func write(offset: UInt64, byteCount: Int, value: UInt64) {
        state.withLock { state in
            if offset == 0 {
                state.index = Int(value & 0x7f)
            } else if state.index > 0x0d {
                state.bytes[state.index] = UInt8(truncatingIfNeeded: value)
            }
        }
    }
}
