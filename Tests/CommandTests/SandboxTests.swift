// `run` with its sandbox: the guest's process, from outside.

import Glibc
import TestSupport
import Testing

@Suite(.enabled(if: BuiltGuest.kernel != nil && BuiltGuest.initrd != nil, "no default guest: run `make guest`"))
struct RunSandboxTests {
    /// While a guest with all kinds of devices runs, every thread of the process has given up what it does not need, and
    /// its devices work.
    @Test func everyThreadIsConfined() throws {
        let folder = try ScratchFolder()
        #expect(writeFile(folder.path + "/disk", [UInt8](repeating: 0x41, count: 1 << 20)))
        let guest = try GuestShell([
            "--backend", "software", "--kernel", try #require(BuiltGuest.kernel), "--initrd",
            try #require(BuiltGuest.initrd), "--cmdline",
            "console=ttyS0 quiet panic=-1 reboot=a 8250.nr_uarts=1 pci=off cryptomgr.notests", "--memory", "256M",
            "--confidential", "none", "--cpus", "2", "--rng", "--disk", folder.path + "/disk", "--vsock",
            "3," + folder.path + "/vsock", "--report", folder.path + "/report.html",
        ])
        let process = "/proc/\(guest.identifier)"
        let threads = folderEntries(process + "/task")
        // Two vCPUs, console, disk, sockets, signals.
        #expect(threads.count >= 6)
        for thread in threads {
            let status = fields(try #require(readFile("\(process)/task/\(thread)/status")))
            #expect(status["Seccomp"] == "2", "thread \(thread) \(status["Name"] ?? "")")
            #expect(status["NoNewPrivs"] == "1")
            #expect(status["CapEff"] == "0000000000000000")
            #expect(status["CapPrm"] == "0000000000000000")
        }
        #expect(guest.powerOff() == .exited(0))
        #expect(readFile(folder.path + "/report.html")?.isEmpty == false)
        // Its socket is gone with it.
        #expect(folderEntries(folder.path) == ["disk", "report.html"])
    }

    /// Whoever may use the files needs no other right: not root, no capability, no group.
    @Test(.enabled(if: getuid() == 0, "needs root, to become somebody else"))
    func anyUserCanRunAGuest() throws {
        let command = try #require(BuiltProgram.path("swift-snp-vmm"))
        let firmware = try #require(BuiltGuest.firmware("hello"))
        let folder = try ScratchFolder()
        // Others must be able to reach what they are given.
        for (name, path) in [("command", command), ("hello.elf", firmware)] {
            #expect(writeFile(folder.path + "/" + name, try #require(readFile(path))))
            chmod(folder.path + "/" + name, 0o755)
        }
        chmod(folder.path, 0o777)
        let run = try ChildProcess(
            "setpriv",
            [
                "--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all", "env", "-i", "HOME=/nonexistent",
                folder.path + "/command", "run", "--backend", "software", "--platform-state", folder.path + "/none",
                "--kernel", folder.path + "/hello.elf", "--memory", "16M",
            ], mergesError: true)
        let output = run.readUntilItEnds(timeoutMilliseconds: 60_000)
        #expect(run.wait().ending == .exited(0), "\(output)")
    }

    private func fields(_ bytes: [UInt8]) -> [String: String] {
        var result: [String: String] = [:]
        for line in String(decoding: bytes, as: UTF8.self).split(separator: "\n") {
            let parts = line.split(separator: ":", maxSplits: 1)
            if parts.count == 2 { result[String(parts[0])] = parts[1].filter { $0 != "\t" && $0 != " " } }
        }
        return result
    }
}
