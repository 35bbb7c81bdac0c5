// The flat guests of Firmware/, each run by the command on the software kernel: what it prints and how it ends.

import Testing
import TestSupport

@Suite(.enabled(if: BuiltGuest.firmware("hello") != nil, "no flat guests: run `make firmware`"))
struct FirmwareGuestTests {
    /// Runs a guest; 64 MiB, one vCPU, SNP unless told.
    func run(_ name: String, confidential: String = "snp", cpus: Int = 1, _ more: [String] = []) throws -> (
        ending: ChildProcess.Ending, output: String
    ) {
        let command = try #require(BuiltProgram.path("swift-snp-vmm"))
        let image = try #require(BuiltGuest.firmware(name))
        return try ChildProcess.run(
            command,
            [
                "run", image, "--backend", "software", "--confidential", confidential, "--memory", "64M", "--cpus",
                "\(cpus)",
            ] + more,
            timeoutMilliseconds: 60_000)
    }

    /// Guests that check themselves: every line is "ok", the last one PASS, then they power off.
    @Test(arguments: [
        "hello", "msr-protocol", "page-state", "rmpadjust", "vc-codes", "ghcb-fields", "unknown-bytes",
        "self-modifying",
        "page-faults", "embedded-swift", "paging", "segments", "exceptions", "single-step", "apic-timer",
        "transfers", "rmp-instructions", "vmgexit", "counters",
    ])
    func selfCheckingGuestPasses(_ name: String) throws {
        let (ending, output) = try run(name)
        let lines = output.split(whereSeparator: \.isNewline)
        #expect(lines.filter { $0.hasPrefix("BAD") } == [], "\(output)")
        #expect(lines.contains { $0.hasPrefix("PASS") }, "\(output)")
        #expect(ending == .exited(0), "\(output)")
    }

    /// Two vCPUs: creation of the second one, atomic operations, changed code and rescinded pages between both.
    @Test func twoProcessorsShareMemory() throws {
        let (ending, output) = try run("processors", cpus: 2)
        let lines = output.split(whereSeparator: \.isNewline)
        #expect(lines.filter { $0.hasPrefix("BAD") } == [], "\(output)")
        #expect(lines.contains { $0.hasPrefix("PASS") }, "\(output)")
        #expect(ending == .exited(0), "\(output)")
    }

    /// Those that use nothing of SNP, as ordinary guests.
    @Test(arguments: [
        "hello", "unknown-bytes", "self-modifying", "page-faults", "embedded-swift", "paging", "segments", "exceptions",
        "single-step", "breakpoints", "apic-timer", "transfers", "msrs", "counters",
    ])
    func plainGuestPasses(_ name: String) throws {
        let (ending, output) = try run(name, confidential: "none")
        let lines = output.split(whereSeparator: \.isNewline)
        #expect(lines.filter { $0.hasPrefix("BAD") } == [], "\(output)")
        #expect(lines.contains { $0.hasPrefix("PASS") }, "\(output)")
        #expect(ending == .exited(0), "\(output)")
    }

    /// SEV guests print by ports, SEV-ES guests through a GHCB that nobody registered.
    @Test(arguments: ["hello", "sev-memory", "unknown-bytes", "self-modifying", "page-faults"], ["sev", "sev-es"])
    func guestWithoutRMPPasses(_ name: String, _ technology: String) throws {
        try passes(name, technology)
    }

    /// INIT and SIPI, IPIs, NMIs, shoot-down and atomic operations among vCPUs.
    @Test(arguments: [2, 4]) func plainProcessorsWorkTogether(_ cpus: Int) throws {
        let (ending, output) = try run("interprocessor", confidential: "none", cpus: cpus)
        #expect(output.split(whereSeparator: \.isNewline).filter { $0.hasPrefix("BAD") } == [], "\(output)")
        #expect(ending == .exited(0), "\(output)")
    }

    @Test(arguments: [
        "sev-es-ghcb", "vc-codes", "paging", "exceptions", "single-step", "apic-timer", "vmgexit", "counters",
    ])
    func encryptedStateGuestPasses(_ name: String) throws {
        try passes(name, "sev-es")
    }

    func passes(_ name: String, _ technology: String, cpus: Int = 1, _ more: [String] = []) throws {
        let (ending, output) = try run(name, confidential: technology, cpus: cpus, more)
        let lines = output.split(whereSeparator: \.isNewline)
        #expect(lines.filter { $0.hasPrefix("BAD") } == [], "\(output)")
        #expect(lines.contains { $0.hasPrefix("PASS") }, "\(output)")
        #expect(ending == .exited(0), "\(output)")
    }

    @Test(arguments: [
        ("terminate", "termination"), ("terminate-event", "termination"), ("triple-fault", "triple fault"),
    ])
    func encryptedStateGuestThatCrashesIsReported(_ name: String, _ reason: String) throws {
        let (ending, output) = try run(name, confidential: "sev-es")
        #expect(ending == .exited(6), "\(output)")
        #expect(output.lowercased().contains(reason), "\(output)")
        #expect(!output.contains("BAD"), "\(output)")
    }

    /// Guests that end themselves badly: status 6, and the reason in words.
    @Test(arguments: [
        ("terminate", "PVALIDATE"), ("terminate-event", "termination"), ("triple-fault", "triple fault"),
        ("unknown-bytes-bare", "triple fault"), ("unregistered-ghcb", "KVM_RUN"), ("unsupported-event", "KVM_RUN"),
    ])
    func guestThatCrashesIsReported(_ name: String, _ reason: String) throws {
        let (ending, output) = try run(name)
        #expect(ending == .exited(6), "\(output)")
        #expect(output.lowercased().contains(reason.lowercased()), "\(output)")
        #expect(!output.contains("BAD"), "\(output)")
    }

    /// Garbage in every field of the GHCB: the guest may be ended, the VMM may not.
    @Test func noiseInTheGHCBDoesNotHurtTheVMM() throws {
        let (ending, output) = try run("ghcb-noise")
        #expect(output.contains("noise begins"), "\(output)")
        #expect(ending == .exited(0) || ending == .exited(6), "\(ending): \(output)")
    }
}
