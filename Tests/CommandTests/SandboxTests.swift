// `run` with its sandbox: the guest's process, from outside.

import Glibc
import TestSupport
import Testing

@Suite(.enabled(if: BuiltGuest.kernel != nil && BuiltGuest.initrd != nil, "no default guest: run `make guest`"))
struct RunSandboxTests {
    /// While a guest with all kinds of devices runs, every thread of the process has given up what it does not need, and
    /// its devices work. An SNP guest's certificates are the software machine's own, which are made when it asks.
    @Test(arguments: ["none", "sev-es", "snp"]) func everyThreadIsConfined(_ technology: String) throws {
        let folder = try ScratchFolder()
        #expect(writeFile(folder.path + "/disk", [UInt8](repeating: 0x41, count: 1 << 20)))
        let guest = try GuestShell([
            "--backend", "software", "--kernel", try #require(BuiltGuest.kernel), "--initrd",
            try #require(BuiltGuest.initrd), "--cmdline",
            "console=ttyS0 quiet panic=-1 reboot=a 8250.nr_uarts=1 pci=off cryptomgr.notests", "--memory", "256M",
            "--confidential", technology, "--cpus", "2", "--rng", "--disk", folder.path + "/disk", "--vsock",
            "3," + folder.path + "/vsock", "--report", folder.path + "/report.html", "--platform-state",
            folder.path + "/platform",
        ])
        // Two vCPUs, console, disk, sockets, signals.
        try expectConfined(guest.identifier, threadCount: 6)
        #expect(guest.powerOff() == .exited(0))
        #expect(readFile(folder.path + "/report.html")?.isEmpty == false)
        // Its socket is gone with it.
        #expect(folderEntries(folder.path) == ["disk", "platform", "report.html"])
    }

    /// The same for flat guests, in the other configurations that make threads: memory made by several of them, and vCPUs on
    /// processors of the host.
    @Test(
        .enabled(if: BuiltGuest.firmware("spin") != nil, "no flat guests: run `make firmware`"),
        arguments: ["none", "sev", "sev-es", "snp"])
    func noThreadIsLeftOut(_ technology: String) throws {
        let command = try #require(BuiltProgram.path("swift-snp-vmm"))
        let folder = try ScratchFolder()
        let guest = try ChildProcess(
            command,
            [
                "run", try #require(BuiltGuest.firmware("spin")), "--backend", "software", "--confidential", technology,
                "--memory", "64M", "--prefault", "--huge-pages", "off", "--cpu-affinity", "all:0", "--cpus", "3",
                "--launch-log", folder.path + "/log", "--platform-state", folder.path + "/platform",
            ], mergesError: true)
        defer { guest.kill() }
        let boot = guest.read(until: "spinning", timeoutMilliseconds: 120_000)
        try #require(boot.found, "\(boot.output)")
        // Three vCPUs, console or not, signals.
        try expectConfined(guest.identifier, threadCount: 4)
    }

    private func expectConfined(_ identifier: Int32, threadCount: Int) throws {
        let process = "/proc/\(identifier)"
        // The last vCPU's thread may begin after the guest has.
        for _ in 0..<1000 where folderEntries(process + "/task").count < threadCount { usleep(10_000) }
        let threads = folderEntries(process + "/task")
        #expect(threads.count >= threadCount)
        for thread in threads {
            let status = fields(try #require(readFile("\(process)/task/\(thread)/status")))
            #expect(status["Seccomp"] == "2", "thread \(thread) \(status["Name"] ?? "")")
            #expect(status["NoNewPrivs"] == "1")
            #expect(status["CapEff"] == "0000000000000000")
            #expect(status["CapPrm"] == "0000000000000000")
        }
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
