// The guest's serial line on this process's terminal.
//
// The main thread is the vCPU's and writes what the guest sends; a second thread reads what is typed. Ctrl-A begins a
// command of ours: x ends the run, p presses the power button, h helps, Ctrl-A sends itself. Input that is no terminal passes through as it is.

import CProcess
import Glibc
import SNPVMM
import Sandbox
import Synchronization

/// Standard input and output as a serial console.
final class Console: Sendable {
    static let help = """
        \r
        Ctrl-A h       this help\r
        Ctrl-A p       press the guest's power button\r
        Ctrl-A x       end the guest at once\r
        Ctrl-A Ctrl-A  send Ctrl-A\r

        """
    /// What a press of the button without any effect is told as.
    static let nobodyListens = "the guest does not listen to its power button"
    private static let escape: UInt8 = 0x01

    private let input: Int32 = 0
    private let output: Int32 = 1
    private let isTerminal: Bool
    private let ended = Atomic(false)

    init() { isTerminal = terminal_is_interactive(0) != 0 }

    /// True when keys go to the guest one by one.
    var isInteractive: Bool { isTerminal }

    /// A byte from the guest. A closed output loses it, not the guest.
    func write(_ byte: UInt8) { _ = file_write_byte(output, byte) }

    /// Puts the terminal into raw mode and starts reading for `machine`.
    func attach(to machine: Machine) {
        if isTerminal { _ = terminal_enter_raw(input) }
        _ = try? WorkerThread(.terminal) { self.readLoop(machine) }
    }

    /// Stops reading and gives the terminal back.
    func detach() {
        ended.store(true, ordering: .releasing)
        terminal_stop_reading()
        terminal_restore()
    }

    private func readLoop(_ machine: Machine) {
        var afterEscape = false
        while true {
            let result = terminal_read_byte(input)
            // At the end of the input the guest runs on; it gets nothing more to read.
            guard result >= 0, let byte = UInt8(exactly: result) else { return }
            guard isTerminal else {
                deliver(byte, machine)
                continue
            }
            if afterEscape {
                afterEscape = false
                switch byte {
                case UInt8(ascii: "x"), UInt8(ascii: "X"): machine.stop()
                case UInt8(ascii: "p"), UInt8(ascii: "P"):
                    if !machine.pressPowerButton() { StandardError.write("\r\n\(Self.nobodyListens)\r\n") }
                case UInt8(ascii: "h"), UInt8(ascii: "H"), UInt8(ascii: "?"): StandardError.write(Self.help)
                case Self.escape: deliver(byte, machine)
                default: break
                }
            } else if byte == Self.escape {
                afterEscape = true
            } else {
                deliver(byte, machine)
            }
        }
    }

    /// Waits while the line's queue is full: a pipe then waits too.
    private func deliver(_ byte: UInt8, _ machine: Machine) {
        while machine.type(CollectionOfOne(byte)) == 0, !ended.load(ordering: .acquiring) {
            // A person cannot type 64 KiB ahead: drop rather than make Ctrl-A x wait.
            if isTerminal { return }
            usleep(10_000)
        }
    }
}
