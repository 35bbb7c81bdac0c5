// An 8042 with a keyboard that nobody touches: it answers firmware that looks for one, and carries the reset line and A20.

import Synchronization

/// Ports 0x60 (data) and 0x64 (status and commands) [8042 as in the PC/AT].
public final class KeyboardController: BusDevice {
    private struct State {
        /// Bytes for port 0x60.
        var output: [UInt8] = []
        /// What the next byte at port 0x60 is for: a controller command that takes one, or the keyboard.
        var command: UInt8?
        /// Interrupts and translation as after a reset.
        var configuration: UInt8 = 0x45
        var resetRequested = false
        /// The keyboard command that takes an argument.
        var keyboardCommand: UInt8?
    }
    private let state = Mutex(State())

    public init() {}

    /// The pulse of output line 0, or a clear bit 0 of the output port.
    public var isResetRequested: Bool { state.withLock { $0.resetRequested } }

    /// - Parameter offset: 0 is port 0x60, 4 is port 0x64; others read as nothing.
    public func read(offset: UInt64, byteCount: Int) -> UInt64 {
        state.withLock { state in
            switch offset {
            case 0: return state.output.isEmpty ? 0 : UInt64(state.output.removeFirst())
            // System flag, keyboard enabled, and "output full"; the input is always taken at once.
            case 4: return 0x14 | (state.output.isEmpty ? 0 : 1)
            default: return .max
            }
        }
    }

    public func write(offset: UInt64, byteCount: Int, value: UInt64) {
        let byte = UInt8(truncatingIfNeeded: value)
        state.withLock { state in
            if offset == 4 { Self.command(byte, &state) } else if offset == 0 { Self.data(byte, &state) }
        }
    }

    private static func command(_ byte: UInt8, _ state: inout State) {
        state.command = nil
        switch byte {
        case 0x20: answer([state.configuration], &state)
        case 0x60, 0xd1, 0xd2, 0xd3, 0xd4: state.command = byte
        // The controller's self-test; the lines of the two ports.
        case 0xaa: answer([0x55], &state)
        case 0xa9, 0xab: answer([0], &state)
        // The output port: no reset, A20 on.
        case 0xd0: answer([3], &state)
        // Pulses of the low output lines; line 0 is the reset.
        case 0xf0...0xff: if byte & 1 == 0 { state.resetRequested = true }
        default: break
        }
    }

    private static func data(_ byte: UInt8, _ state: inout State) {
        let command = state.command
        state.command = nil
        switch command {
        case 0x60: state.configuration = byte
        case 0xd1: if byte & 1 == 0 { state.resetRequested = true }
        case 0xd2: answer([byte], &state)
        // There is no mouse.
        case 0xd3, 0xd4: break
        default: keyboard(byte, &state)
        }
    }

    private static func keyboard(_ byte: UInt8, _ state: inout State) {
        if state.keyboardCommand != nil {
            state.keyboardCommand = nil
            return answer([0xfa], &state)
        }
        switch byte {
        case 0xff: answer([0xfa, 0xaa], &state)
        case 0xf2: answer([0xfa, 0xab, 0x83], &state)
        case 0xee: answer([0xee], &state)
        default:
            // LEDs, scan code set and repeat rate take one byte more.
            if byte == 0xed || byte == 0xf0 || byte == 0xf3 { state.keyboardCommand = byte }
            answer([0xfa], &state)
        }
    }

    /// A controller's buffer is small: what a guest does not fetch is dropped.
    private static func answer(_ bytes: [UInt8], _ state: inout State) {
        if state.output.count + bytes.count <= 16 { state.output += bytes }
    }
}
