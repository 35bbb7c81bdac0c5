// The processor that a guest is told of, by product: what CPUID announces works, what it hides does not; five levels of
// paging where the product has them; and the levels below VMPL 0.

import TestSupport
import Testing

extension FirmwareGuestTests {
    /// A guest's options for the software machine as this product; nil: the default, Milan.
    private func platform(_ product: String, _ shop: Workshop) throws -> [String] {
        let made = try shop.command(
            ["platform", "create", "--seed", "truth", "--product", product, "--platform-state", shop.state])
        try #require(made.ending == .exited(0), "\(made.output)")
        return ["--platform-state", shop.state]
    }

    @Test(arguments: ["milan", "genoa", "turin"], ["none", "sev", "sev-es", "snp"])
    func announcedInstructionsWorkHiddenOnesDoNot(_ product: String, _ technology: String) throws {
        let shop = try Workshop("truth-\(product)-\(technology)", exportsCertificates: false)
        // With 5-level paging shown, too: CPUID has no more to say than that.
        let (ending, output) = try run(
            "features", confidential: technology, try platform(product, shop) + ["--la57"])
        let lines = output.split(whereSeparator: \.isNewline)
        #expect(lines.filter { $0.hasPrefix("BAD") || $0.hasPrefix("THERE") || $0.hasPrefix("UNTESTED") } == [])
        // Of each kind there are some.
        #expect(lines.contains("ok  AVX2  0xffffffffffffffff") && lines.contains("ok  AVX-512  0x6"), "\(output)")
        #expect(ending == .exited(0), "\(output)")
    }

    @Test(arguments: ["none", "sev", "sev-es", "snp"])
    func fiveLevelsOfPaging(_ technology: String) throws {
        let shop = try Workshop("levels-\(technology)", exportsCertificates: false)
        let genoa = try platform("genoa", shop)
        let shown = try run("five-levels", confidential: technology, genoa + ["--la57"])
        #expect(shown.ending == .exited(0) && !shown.output.contains("BAD"), "\(shown.output)")
        #expect(shown.output.contains("ok  a load through the fifth level"), "\(shown.output)")
        // Hidden unless asked for, and by a product that has none.
        for options in [genoa, ["--la57"]] {
            let hidden = try run("five-levels", confidential: technology, options)
            #expect(hidden.ending == .exited(0) && hidden.output.contains("no LA57"), "\(hidden.output)")
        }
    }

    /// Debian's kernel, shown them, leaves long mode to switch to them, as an SNP guest too.
    @Test(.enabled(if: BuiltGuest.kernel != nil && BuiltGuest.initrd != nil, "no default guest: run `make guest`"))
    func debiansKernelUsesFiveLevels() throws {
        let shop = try Workshop("five", exportsCertificates: false)
        let guest = try ChildProcess(
            try #require(BuiltProgram.path("swift-snp-vmm")),
            [
                "run", "--backend", "software", "--kernel", try #require(BuiltGuest.kernel), "--initrd",
                try #require(BuiltGuest.initrd), "--memory", "256M", "--la57", "--cmdline",
                "console=ttyS0 quiet panic=-1 reboot=a 8250.nr_uarts=1 pci=off cryptomgr.notests",
            ] + platform("genoa", shop), mergesError: true)
        let boot = guest.read(until: "guest:", timeoutMilliseconds: 240_000)
        try #require(boot.found, "\(boot.output)")
        // The kernel takes the flag away where it does not use it.
        guest.write("echo five=$(grep -o -m1 la57 /proc/cpuinfo)=\n")
        let levels = guest.read(until: "five=la57=", timeoutMilliseconds: 240_000)
        #expect(levels.found, "\(levels.output)")
        guest.write("poweroff -f\n")
        while guest.read(timeoutMilliseconds: 240_000) != nil {}
        #expect(guest.wait().ending == .exited(0))
    }

    /// A vCPU at VMPL 1 does what VMPL 0 has granted it.
    @Test func lowerPrivilegeLevelHasItsPermissions() throws { try passes("vmpl", "snp", cpus: 2) }

    /// What it has not been granted is a nested page fault that nobody resolves.
    @Test(arguments: [
        ("r", "VMPL 1 reads"), ("w", "VMPL 1 writes"), ("x", "VMPL 1 executes what"), ("u", "VMPL 1 executes at"),
    ])
    func lowerPrivilegeLevelHasNoMore(_ letter: String, _ attempt: String) throws {
        let (ending, output) = try run("vmpl", cpus: 2, ["--cmdline", "vmpl=\(letter)"])
        #expect(ending == .exited(6), "\(output)")
        #expect(output.contains(attempt) && output.contains("below VMPL 0 without the permission"), "\(output)")
        #expect(!output.contains("BAD"), "\(output)")
    }

    @Test func privilegeLevelThatDoesNotExistDoesNotRun() throws {
        let (ending, output) = try run("vmpl", cpus: 2, ["--cmdline", "vmpl=v"])
        #expect(ending == .exited(6) && output.contains("VMRUN failed"), "\(output)")
    }
}
