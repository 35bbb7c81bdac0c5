// What a thread that an attacker has taken over can still do: each test enters the sandbox on a thread of its own and
// tries.

import CProcess
import Glibc
import Sandbox
import Synchronization
import TestSupport
import Testing

/// What calls gave on a thread of a kind: 0 or more, or a negated errno.
private func onThread(
    _ kind: ThreadKind, cleaning folder: String? = nil, _ attempts: @escaping @Sendable () -> [String: Int]
) throws -> [String: Int] {
    let results = Mutex<[String: Int]>([:])
    // A thread of its own: what it gives up is gone for good.
    let thread = try WorkerThread(kind) {
        let gaps = Sandbox.enter(kind, cleaning: folder)
        let found = gaps.isEmpty ? attempts() : ["\(gaps)": 0]
        results.withLock { $0 = found }
    }
    thread.join()
    return results.withLock { $0 }
}

private func result(_ value: some BinaryInteger) -> Int { value < 0 ? -Int(errno) : Int(value) }

private let eperm = -Int(EPERM)

@Suite struct SandboxTests {
    static let kinds: [(String, ThreadKind)] = [
        ("processor", .processor), ("device", .device), ("terminal", .terminal), ("sockets", .sockets),
    ]

    @Test(arguments: kinds.indices) func `opens no file and starts no program`(_ index: Int) throws {
        let results = try onThread(Self.kinds[index].1) {
            [
                "read": result(open("/etc/passwd", O_RDONLY)),
                "write": result(open("/tmp/sandbox-test", O_WRONLY | O_CREAT, 0o600)),
                "start": spawn("/bin/true"),
                "become": result(execv("/bin/true", [nil])),
                "rename": result(rename("/tmp/sandbox-a", "/tmp/sandbox-b")),
                "remove": result(unlink("/tmp/sandbox-test")),
                "kill": result(kill(getppid(), 0)),
            ]
        }
        for (attempt, value) in results { #expect(value == eperm, "\(Self.kinds[index].0): \(attempt)") }
        #expect(results.count == 7, "\(results)")
    }

    @Test(arguments: kinds.indices) func `talks to nobody new`(_ index: Int) throws {
        let (name, kind) = Self.kinds[index]
        let results = try onThread(kind) {
            [
                "internet": result(socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)),
                "netlink": result(socket(AF_NETLINK, Int32(SOCK_RAW.rawValue), 0)),
                "vsock": result(socket(40, Int32(SOCK_STREAM.rawValue), 0)),
                "unix": result(socket(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0)),
            ]
        }
        for (attempt, value) in results where attempt != "unix" { #expect(value == eperm, "\(name): \(attempt)") }
        let unix = try #require(results["unix"])
        if name == "sockets" { #expect(unix >= 0) } else { #expect(unix == eperm, "\(name)") }
        if unix >= 0 { close(Int32(unix)) }
    }

    /// The terminal's modes, but no typing for the user; nothing of the terminal for devices.
    @Test func `asks devices only for what they are for`() throws {
        let descriptor = open("/dev/ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC)
        try #require(descriptor >= 0)
        defer { close(descriptor) }
        let attempts: @Sendable () -> [String: Int] = {
            var mode = termios()
            var letter: CChar = 0x78
            return [
                "modes": result(ioctl(descriptor, UInt(TCGETS), &mode)),
                "typing": result(ioctl(descriptor, UInt(TIOCSTI), &letter)),
                // The filter lets it pass, and the descriptor is none of KVM's.
                "KVM": result(ioctl(descriptor, 0xae80, 0)),
            ]
        }
        let reader = try onThread(.terminal, attempts)
        #expect(reader["modes"] == 0)
        #expect(reader["typing"] == eperm)
        #expect(reader["KVM"] == -Int(ENOTTY))
        let device = try onThread(.device, attempts)
        #expect(device["modes"] == eperm)
        #expect(device["KVM"] == -Int(ENOTTY))
    }

    @Test func `goes on with what is open, with memory, time and threads`() throws {
        let folder = try ScratchFolder()
        let descriptor = open(folder.path + "/disk", O_RDWR | O_CREAT | O_CLOEXEC, 0o600)
        try #require(descriptor >= 0)
        defer { close(descriptor) }
        let results = try onThread(.device) {
            let bytes = [UInt8](repeating: 0x5a, count: 1 << 20)
            let worker = try? WorkerThread(.device) { usleep(1) }
            worker?.join()
            return [
                "write": result(pwrite(descriptor, bytes, bytes.count, 0)),
                "sync": result(fdatasync(descriptor)),
                "memory": [UInt8](repeating: 1, count: 64 << 20).count, "threads": worker == nil ? 0 : 1,
            ]
        }
        #expect(results == ["write": 1 << 20, "sync": 0, "memory": 64 << 20, "threads": 1])
    }

    @Test func `removes files in its folder only`() throws {
        let (own, other) = (try ScratchFolder(), try ScratchFolder())
        for folder in [own, other] { #expect(writeFile(folder.path + "/socket", [1])) }
        let (inside, outside) = (own.path + "/socket", other.path + "/socket")
        let results = try onThread(.processor, cleaning: own.path) {
            ["inside": result(unlink(inside)), "outside": result(unlink(outside))]
        }
        // Where the kernel has no Landlock nothing is removed at all.
        let hasLandlock = results["inside"] == 0
        #expect(results["inside"] == 0 || results["inside"] == eperm)
        #expect(results["outside"] == (hasLandlock ? -Int(EACCES) : eperm))
    }

    @Test func `does nothing before it is asked`() throws {
        let thread = try WorkerThread(.device) {}
        thread.join()
        let queue = try WorkQueue(.device)
        let order = Mutex<[Int]>([])
        for number in 0..<100 { queue.async { order.withLock { $0.append(number) } } }
        queue.finish()
        #expect(order.withLock { $0 } == Array(0..<100))
        let file = open("/dev/null", O_RDONLY)
        #expect(file >= 0)
        close(file)
    }
}

/// Starts another program.
private func spawn(_ path: String) -> Int {
    var child: pid_t = 0
    return -Int(posix_spawn(&child, path, nil, nil, [nil], nil))
}
