// Runs another program with its output in a pipe, for tests of the command and for benchmarks.

import Glibc
import Synchronization

/// A program that was started.
public final class ChildProcess {
    /// How a program ended.
    public enum Ending: Equatable, Sendable {
        case exited(Int32)
        case signalled(Int32)
    }

    public struct StartFailure: Error, CustomStringConvertible {
        public var description: String
    }

    /// The process id, for `/proc`.
    public let identifier: pid_t
    private let output: Int32
    private var input: Int32
    private var isReaped = false
    /// The last read gave up waiting.
    public private(set) var timedOut = false

    /// Starts a program: standard input from a pipe, standard output (and error, if asked) into another.
    ///
    /// - Parameter path: With a slash a path, else a name looked up on PATH.
    public init(_ path: String, _ arguments: [String], mergesError: Bool = false) throws {
        var inputPipe: [Int32] = [-1, -1]
        var outputPipe: [Int32] = [-1, -1]
        // One start at a time: no end of a pipe may leak into another child.
        identifier = try Self.starting.withLock { _ in
            guard pipe(&inputPipe) == 0, pipe(&outputPipe) == 0 else {
                throw StartFailure(description: "cannot make a pipe: \(String(cString: strerror(errno)))")
            }
            for end in inputPipe + outputPipe { _ = fcntl(end, F_SETFD, FD_CLOEXEC) }
            defer {
                close(inputPipe[0])
                close(outputPipe[1])
            }
            do {
                return try Self.spawn(
                    path, arguments, .files(inputPipe[0], outputPipe[1], mergesError ? outputPipe[1] : 2))
            } catch {
                close(inputPipe[1])
                close(outputPipe[0])
                throw error
            }
        }
        output = outputPipe[0]
        input = inputPipe[1]
    }

    /// Starts a program on a terminal: ``write(_:)`` types, ``read(timeoutMilliseconds:)`` reads the screen.
    public init(_ path: String, _ arguments: [String], on terminal: PseudoTerminal) throws {
        let ends = try Self.starting.withLock { _ in
            let ends = (dup(terminal.master), dup(terminal.master))
            _ = fcntl(ends.0, F_SETFD, FD_CLOEXEC)
            _ = fcntl(ends.1, F_SETFD, FD_CLOEXEC)
            return (try Self.spawn(path, arguments, .terminal(terminal.path)), ends)
        }
        identifier = ends.0
        (output, input) = ends.1
    }

    private static let starting = Mutex(())

    private enum StandardFiles {
        case files(Int32, Int32, Int32)
        /// The path of a terminal that the program gets as its controlling one.
        case terminal(String)
    }

    private static func spawn(_ path: String, _ arguments: [String], _ files: StandardFiles) throws -> pid_t {
        var actions = posix_spawn_file_actions_t()
        posix_spawn_file_actions_init(&actions)
        defer { posix_spawn_file_actions_destroy(&actions) }
        var flags = Int16(POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSIGMASK)
        switch files {
        case .files(let input, let output, let error):
            for (number, file) in [input, output, error].enumerated() {
                posix_spawn_file_actions_adddup2(&actions, file, Int32(truncatingIfNeeded: number))
            }
        case .terminal(let terminal):
            // POSIX_SPAWN_SETSID. The first terminal that a session's leader opens becomes its own.
            flags |= 0x80
            posix_spawn_file_actions_addopen(&actions, 0, terminal, O_RDWR, 0)
            posix_spawn_file_actions_adddup2(&actions, 0, 1)
            posix_spawn_file_actions_adddup2(&actions, 0, 2)
        }

        var words: [UnsafeMutablePointer<CChar>?] = ([path] + arguments).map { strdup($0) }
        words.append(nil)
        defer { words.forEach { free($0) } }
        var child: pid_t = 0
        // A write to a program that has ended must not end this one; the program itself gets the default back.
        signal(SIGPIPE, SIG_IGN)
        var attributes = posix_spawnattr_t()
        posix_spawnattr_init(&attributes)
        defer { posix_spawnattr_destroy(&attributes) }
        var defaults = sigset_t()
        sigemptyset(&defaults)
        sigaddset(&defaults, SIGPIPE)
        posix_spawnattr_setsigdefault(&attributes, &defaults)
        // The threads that tests run on block signals; the program must get them.
        var none = sigset_t()
        sigemptyset(&none)
        posix_spawnattr_setsigmask(&attributes, &none)
        posix_spawnattr_setflags(&attributes, flags)
        let code = posix_spawnp(&child, path, &actions, &attributes, words, environ)
        guard code == 0 else {
            throw StartFailure(description: "cannot start \(path): \(String(cString: strerror(code)))")
        }
        return child
    }

    /// Sends bytes to the program's standard input.
    public func write(_ text: String) {
        let bytes = Array(text.utf8)
        _ = Glibc.write(input, bytes, bytes.count)
    }

    /// Ends the program's standard input.
    public func closeInput() {
        if input >= 0 { close(input) }
        input = -1
    }

    /// The next bytes of its output; nil at the end, or when nothing came for so long.
    public func read(timeoutMilliseconds: Int32 = -1) -> [UInt8]? {
        var wait = pollfd(fd: output, events: Int16(POLLIN), revents: 0)
        while true {
            let ready = poll(&wait, 1, timeoutMilliseconds)
            if ready < 0 && errno == EINTR { continue }
            timedOut = ready == 0
            guard ready > 0 else { return nil }
            var buffer = [UInt8](repeating: 0, count: 65536)
            let count = Glibc.read(output, &buffer, buffer.count)
            if count < 0 && errno == EINTR { continue }
            return count > 0 ? Array(buffer.prefix(count)) : nil
        }
    }

    /// Reads until `text` came or the output ends. Returns everything read, and whether the text was there.
    public func read(until text: String, timeoutMilliseconds: Int32) -> (output: String, found: Bool) {
        let wanted = Array(text.utf8)
        var bytes: [UInt8] = []
        while let more = read(timeoutMilliseconds: timeoutMilliseconds) {
            let searched = max(0, bytes.count - wanted.count)
            bytes += more
            if contains(wanted, in: bytes, from: searched) { return (String(decoding: bytes, as: UTF8.self), true) }
        }
        return (String(decoding: bytes, as: UTF8.self), false)
    }

    /// Reads until the program has ended; for a terminal, which has no end of its own. After so long without any output
    /// the program is killed.
    public func readUntilItEnds(timeoutMilliseconds: Int32) -> String {
        let step: Int32 = 50
        var silent: Int32 = 0
        var bytes: [UInt8] = []
        while true {
            // Asked first: what was written before the end is read after this.
            let ended = hasEnded
            if let more = read(timeoutMilliseconds: step) {
                bytes += more
                silent = 0
            } else if ended {
                return String(decoding: bytes, as: UTF8.self)
            } else {
                silent += step
                if silent > timeoutMilliseconds { kill() }
            }
        }
    }

    /// The program is no longer running.
    private var hasEnded: Bool {
        var information = siginfo_t()
        guard waitid(P_PID, id_t(identifier), &information, WEXITED | WNOHANG | WNOWAIT) == 0 else { return true }
        return information.si_signo != 0
    }

    /// Asks the program to end (SIGTERM).
    public func terminate() {
        if !isReaped { _ = Glibc.kill(identifier, SIGTERM) }
    }

    /// Ends the program by force.
    public func kill() {
        if !isReaped { _ = Glibc.kill(identifier, SIGKILL) }
    }

    /// Waits for its end, and says how much memory it had resident at most, in KiB.
    public func wait() -> (ending: Ending, peakKiB: Int) {
        var status: Int32 = 0
        var usage = rusage()
        while wait4(identifier, &status, 0, &usage) < 0 && errno == EINTR {}
        isReaped = true
        let signal = status & 0x7f
        return (signal == 0 ? .exited(status >> 8 & 0xff) : .signalled(signal), usage.ru_maxrss)
    }

    deinit {
        closeInput()
        close(output)
        if !isReaped {
            kill()
            _ = wait()
        }
    }

    /// Runs a program to its end.
    public static func run(
        _ path: String, _ arguments: [String], input: String = "", timeoutMilliseconds: Int32 = 120_000
    ) throws -> (ending: Ending, output: String) {
        let child = try ChildProcess(path, arguments, mergesError: true)
        if !input.isEmpty { child.write(input) }
        child.closeInput()
        var bytes: [UInt8] = []
        while let more = child.read(timeoutMilliseconds: timeoutMilliseconds) { bytes += more }
        if child.timedOut { child.kill() }
        return (child.wait().ending, String(decoding: bytes, as: UTF8.self))
    }
}

private func contains(_ wanted: [UInt8], in bytes: [UInt8], from start: Int) -> Bool {
    guard !wanted.isEmpty, bytes.count >= wanted.count else { return wanted.isEmpty }
    var index = max(0, start)
    while index + wanted.count <= bytes.count {
        if bytes[index] == wanted[0], bytes[index..<index + wanted.count].elementsEqual(wanted) { return true }
        index += 1
    }
    return false
}
