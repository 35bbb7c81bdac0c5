// The socket device under Debian's own driver, in an SNP guest: programs on both sides of `run --vsock`.

import CProcess
import Synchronization
import TestSupport
import Testing

@Suite(.enabled(if: BuiltGuest.kernel != nil && BuiltGuest.initrd != nil, "no default guest: run `make guest`"))
struct VsockGuestTests {
    static let patience: Int32 = 240_000
    static let byteCount = 1 << 20
    static let connections = 3

    let folder: ScratchFolder
    let path: String

    init() throws {
        folder = try ScratchFolder()
        path = folder.path + "/guest"
    }

    /// 1 MiB in each direction on each of several connections at once, begun by the host and begun by the guest; refusals
    /// on both sides; and the socket's name goes with the guest.
    @Test func bytesGoBothWaysOnSeveralConnectionsAtOnce() throws {
        let guest = try boot()
        guest.write("vsock-probe serve 7777 &\n")
        let serving = guest.read(until: "serving 7777", timeoutMilliseconds: Self.patience)
        try #require(serving.found, "\(serving.output)")

        // From the host.
        let answers = Mutex<[String]>([])
        let threads = (0..<Self.connections).map { number in
            BackgroundThread { [path] in
                let answer = Self.exchange(path: path, port: 7777, seed: UInt64(number))
                answers.withLock { $0.append(answer) }
            }
        }
        for thread in threads { thread.join() }
        #expect(answers.withLock { $0 } == [String](repeating: "the same", count: Self.connections))
        let refused = try SocketPeer(connectingTo: path)
        refused.write("CONNECT 7778\n")
        #expect(refused.isAtEnd)

        // From the guest.
        let listener = try folder.listen("guest_5000")
        let echo = BackgroundThread {
            let threads = (0..<Self.connections).map { _ in
                let peer = try? SocketPeer(acceptedFrom: listener)
                return BackgroundThread {
                    while let bytes = peer?.read(1 << 16), !bytes.isEmpty { peer?.write(bytes) }
                    peer?.finishWriting()
                }
            }
            for thread in threads { thread.join() }
        }
        guest.write("vsock-probe send 5000 \(Self.byteCount) \(Self.connections)\n")
        let all = "echoed: \(Self.connections) of \(Self.connections)"
        let echoed = guest.read(until: all, timeoutMilliseconds: Self.patience)
        #expect(echoed.found, "\(echoed.output)")
        echo.join()
        file_close(listener)
        guest.write("vsock-probe send 5001 1 1\n")
        let reset = guest.read(until: "connect: Connection reset by peer", timeoutMilliseconds: Self.patience)
        #expect(reset.found, "\(reset.output)")

        guest.write("poweroff -f\n")
        while guest.read(timeoutMilliseconds: Self.patience) != nil {}
        #expect(guest.wait().ending == .exited(0))
        #expect(!folder.exists("guest"))
    }

    /// Sends bytes to a port of the guest that sends them back.
    private static func exchange(path: String, port: UInt32, seed: UInt64) -> String {
        do {
            var numbers = SeededGenerator(seed: seed)
            let bytes = numbers.bytes(byteCount)
            let peer = try SocketPeer(connectingTo: path)
            peer.write("CONNECT \(port)\n")
            let answer = try peer.readLine()
            guard answer.hasPrefix("OK ") else { return answer }
            let writer = BackgroundThread {
                peer.write(bytes)
                peer.finishWriting()
            }
            let received = try peer.readExactly(byteCount + 1)
            writer.join()
            return received == bytes ? "the same" : "\(received.count) bytes, which differ"
        } catch { return "\(error)" }
    }

    /// The default guest with the probe beside its own programs, at its shell.
    private func boot() throws -> ChildProcess {
        let probe = folder.path + "/vsock-probe"
        let source = PackageFolder.path + "/Tests/GuestPrograms/vsock-probe.c"
        let compiler = try ChildProcess("clang", ["-static", "-O1", "-o", probe, source], mergesError: true)
        let complaint = compiler.readUntilItEnds(timeoutMilliseconds: Self.patience)
        try #require(compiler.wait().ending == .exited(0), "\(complaint)")
        let original = try #require(BuiltGuest.initrd)
        var initrd = try #require(readFile(original))
        initrd += Self.archive("bin/vsock-probe", try #require(readFile(probe)))
        let initrdPath = folder.path + "/initrd"
        try #require(writeFile(initrdPath, initrd))

        let command = try #require(BuiltProgram.path("swift-snp-vmm"))
        let guest = try ChildProcess(
            command,
            [
                "run", "--backend", "software", "--kernel", try #require(BuiltGuest.kernel), "--initrd", initrdPath,
                "--cmdline",
                "console=ttyS0 quiet panic=-1 reboot=a 8250.nr_uarts=1 pci=off cryptomgr.notests", "--memory", "256M",
                "--vsock", "cid=3,path=\(path)",
            ], mergesError: true)
        let boot = guest.read(until: "guest:", timeoutMilliseconds: Self.patience)
        try #require(boot.found, "\(boot.output)")
        return guest
    }

    /// An archive of one program, as the kernel takes it behind another one [Linux initramfs buffer format].
    private static func archive(_ name: String, _ contents: [UInt8]) -> [UInt8] {
        func entry(_ name: String, mode: Int, _ contents: [UInt8]) -> [UInt8] {
            let fields = [0, mode, 0, 0, 1, 0, contents.count, 0, 0, 0, 0, name.utf8.count + 1, 0]
            let header =
                "070701"
                + fields.map { field in
                    let digits = String(field, radix: 16)
                    return String(repeating: "0", count: 8 - digits.count) + digits
                }.joined()
            var bytes = Array(header.utf8) + Array(name.utf8) + [0]
            while bytes.count % 4 != 0 { bytes.append(0) }
            bytes += contents
            while bytes.count % 4 != 0 { bytes.append(0) }
            return bytes
        }
        return entry(name, mode: 0o100755, contents) + entry("TRAILER!!!", mode: 0, [])
    }
}
