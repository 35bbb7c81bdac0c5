// Debian's unmodified kernels, booted by the command as a user would: to the shell and back.

import Testing
import TestSupport

@Suite(.enabled(if: BuiltGuest.image != nil, "no default guest: run `make guest`"), .serialized)
struct BootTests {
    static let encryptionBanner = "Memory Encryption Features active: AMD SEV SEV-ES SEV-SNP"
    static let cpuidBanner = "SEV: Using SNP CPUID table"
    /// Without any output for so long a boot hangs. No measure of speed: only an end to waiting.
    static let patience: Int32 = 240_000

    func start(_ arguments: [String]) throws -> ChildProcess {
        let command = try #require(BuiltProgram.path("swift-snp-vmm"))
        return try ChildProcess(command, arguments + ["--backend", "software"], mergesError: true)
    }

    /// The default guest to its shell: what the kernel says, an answer to a typed command, `exit`, status 0.
    @Test func theDefaultGuestAnswersInItsShell() throws {
        let guest = try start(["run", try #require(BuiltGuest.image)])
        let boot = guest.read(until: "guest:", timeoutMilliseconds: Self.patience)
        try #require(boot.found, "\(boot.output)")
        #expect(boot.output.contains(Self.encryptionBanner), "\(boot.output)")
        #expect(boot.output.contains(Self.cpuidBanner), "\(boot.output)")
        guest.write("echo sum=$((40 + 2)) on $(uname -m)\n")
        let answer = guest.read(until: "sum=42 on x86_64", timeoutMilliseconds: Self.patience)
        #expect(answer.found, "\(answer.output)")
        guest.write("exit\n")
        let rest = guest.read(until: "Power down", timeoutMilliseconds: Self.patience)
        #expect(rest.found, "\(rest.output)")
        while guest.read(timeoutMilliseconds: Self.patience) != nil {}
        #expect(guest.wait().ending == .exited(0))
    }

    /// Kernel, initrd and command line as files; nothing but the kernel's own defaults otherwise.
    @Test func kernelInitrdAndCommandLineBoot() throws {
        let (ending, output) = try finish(
            start([
                "run", "--kernel", try #require(BuiltGuest.kernel), "--initrd", try #require(BuiltGuest.initrd),
                "--cmdline", "console=ttyS0 quiet panic=-1 reboot=a snp.autotest", "--memory", "256M",
            ]))
        #expect(ending == .exited(0), "\(output)")
        #expect(output.contains("BOOT-OK"), "\(output)")
        #expect(output.contains(Self.encryptionBanner), "\(output)")
    }

    /// The same machine as a plain virtual machine. The place for an owner's secret is there, as a stock kernel shows it, and
    /// is empty.
    @Test func theSameGuestBootsWithoutEncryption() throws {
        let (ending, output) = try finish(
            start([
                "run", "--confidential", "none", "--kernel", try #require(BuiltGuest.kernel), "--initrd",
                try #require(BuiltGuest.initrd), "--cmdline",
                "console=ttyS0 quiet panic=-1 reboot=a cryptomgr.notests snp.launch-secret snp.autotest",
            ]))
        #expect(ending == .exited(0), "\(output)")
        #expect(output.contains("launch secret: none (the place for it is empty)"), "\(output)")
        #expect(output.contains("BOOT-OK"), "\(output)")
        #expect(!output.contains("AMD SEV"), "\(output)")
    }

    /// The amd64 kernel, by its bzImage entry: the XZ payload is unpacked by the guest itself.
    @Test(.enabled(if: BuiltGuest.kernelAMD64 != nil, "no amd64 guest: run `make guest-amd64`"))
    func theAMD64KernelBoots() throws {
        let (ending, output) = try finish(
            start([
                "run", "--kernel", try #require(BuiltGuest.kernelAMD64), "--initrd", try #require(BuiltGuest.initrd),
                "--cmdline", "console=ttyS0 quiet panic=-1 reboot=a cryptomgr.notests snp.autotest",
            ]))
        #expect(ending == .exited(0), "\(output)")
        #expect(output.contains("BOOT-OK"), "\(output)")
        #expect(output.contains(Self.encryptionBanner), "\(output)")
    }

    /// A reboot is not a power-off: status 6, and said so.
    @Test func aRebootEndsTheGuestWithStatus6() throws {
        let guest = try start(["run", try #require(BuiltGuest.image)])
        let boot = guest.read(until: "guest:", timeoutMilliseconds: Self.patience)
        try #require(boot.found, "\(boot.output)")
        guest.write("reboot\n")
        var output = ""
        while let more = guest.read(timeoutMilliseconds: Self.patience) {
            output += String(decoding: more, as: UTF8.self)
        }
        #expect(guest.wait().ending == .exited(6), "\(output)")
        #expect(output.contains("reset"), "\(output)")
    }

    private func finish(_ guest: ChildProcess) throws -> (ending: ChildProcess.Ending, output: String) {
        guest.closeInput()
        var bytes: [UInt8] = []
        while let more = guest.read(timeoutMilliseconds: Self.patience) { bytes += more }
        if guest.timedOut { guest.kill() }
        return (guest.wait().ending, String(decoding: bytes, as: UTF8.self))
    }
}
