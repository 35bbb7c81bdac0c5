// A terminal without a screen: what a program does to it can be looked at from outside.

import Glibc

/// One pseudo-terminal. A program on it has it as its controlling terminal and standard files.
public final class PseudoTerminal {
    public struct Failure: Error {}

    let master: Int32
    /// The path of the program's side.
    let path: String
    /// The program's side; open here too, so that its settings can be read after the program has ended.
    private let programSide: Int32

    public init() throws {
        let master = open("/dev/ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC)
        var number: UInt32 = 0
        var unlocked: Int32 = 0
        // TIOCSPTLCK and TIOCGPTN: the C library's own functions for this are GNU extensions that Swift does not see.
        guard master >= 0, ioctl(master, 0x4004_5431, &unlocked) == 0, ioctl(master, 0x8004_5430, &number) == 0 else {
            throw Failure()
        }
        path = "/dev/pts/\(number)"
        let side = open(path, O_RDWR | O_NOCTTY | O_CLOEXEC)
        guard side >= 0 else {
            close(master)
            throw Failure()
        }
        self.master = master
        programSide = side
    }

    deinit {
        close(master)
        close(programSide)
    }

    /// Input, output, control and local modes, in this order.
    public var modes: [UInt32] {
        var settings = termios()
        guard tcgetattr(programSide, &settings) == 0 else { return [] }
        return [settings.c_iflag, settings.c_oflag, settings.c_cflag, settings.c_lflag]
    }

    /// Keys come one by one: neither lines nor signals nor echo.
    public var isRaw: Bool {
        modes.count == 4 && modes[3] & UInt32(ICANON | ECHO | ISIG) == 0
    }
}
