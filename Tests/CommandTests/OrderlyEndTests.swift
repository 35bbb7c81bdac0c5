// Signals that ask for an end: the guest's power button first, then force; and what a killed command leaves behind.

import Glibc
import TestSupport
import Testing

@Suite struct OrderlyEndTests {
    static let patience: Int32 = 120_000

    func start(_ arguments: [String]) throws -> ChildProcess {
        let command = try #require(BuiltProgram.path("swift-snp-vmm"))
        return try ChildProcess(command, ["run", "--backend", "software"] + arguments, mergesError: true)
    }

    /// Debian's kernel hears the button, its user space powers off, and that is status 0.
    @Test(
        .enabled(if: BuiltGuest.image != nil, "no default guest: run `make guest`"), arguments: ["snp", "none"])
    func aGuestPowersOffWhenASignalAsks(_ technology: String) throws {
        let guest = try start(["--confidential", technology, try #require(BuiltGuest.image)])
        let boot = guest.read(until: "guest:", timeoutMilliseconds: BootTests.patience)
        try #require(boot.found, "\(boot.output)")
        // The shell is there; the listener may be a moment behind it.
        guest.write("while ! pidof head; do sleep 0.1; done > /dev/null; echo now=$((6 * 7))\n")
        let listening = guest.read(until: "now=42", timeoutMilliseconds: BootTests.patience)
        try #require(listening.found, "\(listening.output)")
        guest.terminate()
        let output = guest.readUntilItEnds(timeoutMilliseconds: BootTests.patience)
        #expect(guest.wait().ending == .exited(0), "\(output)")
        #expect(output.contains("The power button was pressed.") && output.contains("Power down"), "\(output)")
        #expect(output.contains("powered off, as a signal asked"), "\(output)")
    }

    /// A guest that has opened the button's line and does nothing: the grace, or a second signal, ends it, and the command
    /// by the signal.
    @Test(
        .enabled(if: BuiltGuest.firmware("deaf") != nil, "no flat guests: run `make firmware`"),
        arguments: [(["--power-off-grace", "1"], "did not power off within 1 s"), ([], "a second signal")])
    func aGuestThatDoesNotPowerOffIsEnded(_ options: [String], _ reason: String) throws {
        let guest = try start(["--confidential", "none", try #require(BuiltGuest.firmware("deaf"))] + options)
        let boot = guest.read(until: "deaf", timeoutMilliseconds: Self.patience)
        try #require(boot.found, "\(boot.output)")
        guest.terminate()
        let asked = guest.read(until: "asked the guest to power off", timeoutMilliseconds: Self.patience)
        try #require(asked.found, "\(asked.output)")
        if options.isEmpty { guest.terminate() }
        let output = guest.readUntilItEnds(timeoutMilliseconds: Self.patience)
        #expect(output.contains(reason), "\(output)")
        #expect(guest.wait().ending == .signalled(15), "\(output)")
    }

    /// A vCPU that waits inside a real kernel hears of the end by a signal only, so no vCPU's thread may block it.
    @Test(.enabled(if: BuiltGuest.firmware("spin") != nil, "no flat guests: run `make firmware`"))
    func everyVCPUsThreadCanBeInterrupted() throws {
        let guest = try start([
            try #require(BuiltGuest.firmware("spin")), "--confidential", "none", "--memory", "32M", "--cpus", "4",
        ])
        defer { guest.kill() }
        let boot = guest.read(until: "spinning", timeoutMilliseconds: Self.patience)
        try #require(boot.found, "\(boot.output)")
        let tasks = "/proc/\(guest.identifier)/task"
        // SIGUSR1 is bit 9 of the mask of blocked signals.
        func hearing() -> Int {
            folderEntries(tasks).count { thread in
                let status = String(decoding: readFile("\(tasks)/\(thread)/status") ?? [], as: UTF8.self)
                let mask = status.split(separator: "\n").first { $0.hasPrefix("SigBlk:") }?.dropFirst(7)
                    .filter(\.isHexDigit)
                return mask.flatMap { UInt64($0, radix: 16) }.map { $0 & 0x200 == 0 } ?? false
            }
        }
        for _ in 0..<1000 where hearing() < 4 { usleep(10_000) }
        #expect(hearing() >= 4)
    }

    /// A guest that cannot hear is not waited for.
    @Test(.enabled(if: BuiltGuest.firmware("spin") != nil, "no flat guests: run `make firmware`"))
    func aGuestThatDoesNotListenIsEndedAtOnce() throws {
        let guest = try start([try #require(BuiltGuest.firmware("spin")), "--power-off-grace", "60000"])
        let boot = guest.read(until: "spinning", timeoutMilliseconds: Self.patience)
        try #require(boot.found, "\(boot.output)")
        guest.terminate()
        let output = guest.readUntilItEnds(timeoutMilliseconds: Self.patience)
        #expect(output.contains("does not listen to its power button"), "\(output)")
        #expect(guest.wait().ending == .signalled(15), "\(output)")
    }

    /// Killed in the middle of a run: nothing in its folders but what it was told to write, no other process, and the socket's
    /// name, which nobody is left to remove, is no hindrance.
    @Test(.enabled(if: BuiltGuest.firmware("spin") != nil, "no flat guests: run `make firmware`"))
    func aKilledCommandLeavesNothingBehind() throws {
        let workshop = try Workshop("killed", exportsCertificates: false)
        let image = try #require(BuiltGuest.firmware("spin"))
        let folders = ["/dev/shm", "/tmp", workshop.folder]
        _ = try ChildProcess.run("mkdir", ["-p", workshop.folder])
        let arguments = [
            image, "--confidential", "sev-es", "--platform-state", workshop.state, "--vsock", "3,\(workshop.socket)",
            "--launch-log", workshop.folder + "/log", "--report", workshop.folder + "/page.html",
        ]
        for round in 1...2 {
            let guest = try start(arguments)
            let boot = guest.read(until: "spinning", timeoutMilliseconds: Self.patience)
            try #require(boot.found, "\(boot.output)")
            let children = readFile("/proc/\(guest.identifier)/task/\(guest.identifier)/children")
            #expect(children?.isEmpty ?? true)
            if round == 1 {
                guest.kill()
            } else {
                guest.terminate()
            }
            _ = guest.readUntilItEnds(timeoutMilliseconds: Self.patience)
            #expect(guest.wait().ending == .signalled(round == 1 ? 9 : 15))
            // The number by itself: inside a longer word or number it is somebody else's.
            let named = #".*[^0-9A-Za-z]\#(guest.identifier)\([^0-9A-Za-z].*\)?"#
            let listing = try ChildProcess.run("find", folders + ["-maxdepth", "2", "-regex", named])
            #expect(listing.output.split(separator: "\n").filter { !$0.hasPrefix("find:") } == [])
            let left = try ChildProcess.run("ls", ["-A", workshop.folder]).output.split(separator: "\n").sorted()
            // The page and the log are files that it was told to write.
            let expected = ["log"] + (round == 1 ? ["owner.socket"] : []) + ["page.html", "state"]
            #expect(left.map(String.init) == expected)
        }
    }
}
