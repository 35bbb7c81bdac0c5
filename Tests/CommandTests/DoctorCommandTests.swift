// `doctor`, `explain` and `run --scenario` as programs.

import TestSupport
import Testing

@Suite("doctor, explain and hosts in trouble")
struct DoctorCommandTests {
    private let tool = VerifyTests()

    private func command(_ arguments: [String]) throws -> (ending: ChildProcess.Ending, output: String) {
        try tool.command(arguments)
    }

    @Test("this machine is examined, whatever it is, and its dump says the same elsewhere")
    func thisMachine() throws {
        let (ending, output) = try command(["doctor", "--json"])
        #expect(ending == .exited(0) || ending == .exited(4), "\(output)")
        #expect(
            output.hasPrefix("{\"confidential\":\"snp\",\"canLaunch\":") && output.contains("\"id\":\"kernel.release\"")
        )
        let path = try tool.file("host.json", [])
        let dumped = try command(["doctor", "--host-dump", path, "--confidential", "none"])
        #expect(dumped.output.contains("wrote \(path)"), "\(dumped.output)")
        let here = try command(["doctor", "--confidential", "none"])
        let there = try command(["doctor", "--confidential", "none", "--from", path])
        #expect(there.ending == here.ending && there.output.contains("ok    Kernel: "), "\(there.output)")
        let text = String(decoding: readFile(path) ?? [], as: UTF8.self)
        #expect(text.hasPrefix("{\"format\":\"swift-snp-vmm host facts 1\"") && !text.contains("chip.id"))
    }

    @Test("the software machine is healthy, and sick as a scenario wants it")
    func softwareMachine() throws {
        for kind in ["snp", "sev-es", "sev", "none"] {
            let (ending, output) = try command(["doctor", "--backend", "software", "--confidential", kind])
            #expect(ending == .exited(0) && !output.contains("FAIL"), "\(output)")
        }
        let (ending, output) = try command(["doctor", "--scenario", "iommu-missing"])
        #expect(ending == .exited(4) && output.contains("FAIL  IOMMU: none"), "\(output)")
        #expect(output.contains("First: IOMMU: none"))
        let list = try command(["doctor", "--scenarios"])
        #expect(list.ending == .exited(0) && list.output.contains("\nno-snp-in-bios "))
    }

    @Test("what is no host, no scenario and no code is refused, each with its status")
    func wrongInput() throws {
        let file = try tool.file("bad.json", Array("{\"format\":1}".utf8))
        let cases: [([String], Int32, String)] = [
            (["doctor", "--from", file], 3, "no \"format\""), (["doctor", "--from", "/no/such/file"], 3, "ENOENT"),
            (["doctor", "--scenario", "fish"], 2, "no such scenario"),
            (["doctor", "--scenario", file], 3, "the unknown member \"format\""),
            (["doctor", "--scenario", "healthy", "--backend", "kvm"], 2, "--backend kvm"),
            (["doctor", "--from", file, "--with-chip-id"], 2, "--from examines a file"),
            (["explain"], 2, "nothing to look up"), (["explain", "fish"], 2, "\"fish\" is not known"),
        ]
        for (arguments, status, text) in cases {
            let (ending, output) = try command(arguments)
            #expect(
                ending == .exited(status) && output.contains(text),
                "\(arguments): \(ending) \(output)")
        }
    }

    @Test("explain takes what logs show")
    func explain() throws {
        let (ending, output) = try command(["explain", "SNP_LAUNCH_START", "ret=-22", "fw_error=0", "''"])
        #expect(ending == .exited(0) && output.hasPrefix("KVM_SEV_SNP_LAUNCH_START: EINVAL (22)\n  1. "), "\(output)")
        #expect(try command(["explain", "-22"]).output.hasPrefix("EINVAL (22)\n"))
        #expect(
            try command(["explain", "--json", "0x16"]).output.hasPrefix(
                "{\"answers\":[{\"title\":\"firmware: INVALID_PARAM"))
    }

    @Test(
        "a run on a host in trouble names the trouble, each its own",
        .enabled(if: BuiltGuest.firmware("hello") != nil, Comment(rawValue: BuiltGuest.absence)))
    func runs() throws {
        let guest = try #require(BuiltGuest.firmware("hello"))
        let state = try tool.file("doctor-state", [])
        let cases: [(String, String, Int32, String)] = [
            ("no-snp-in-bios", "snp", 4, "SNP is off in the BIOS"), ("iommu-missing", "snp", 4, "IOMMU: none"),
            ("snp-module-off", "snp", 4, "kvm_amd sev_snp: off"), ("sev-without-permission", "snp", 4, "udev rule"),
            ("asids-in-use", "snp", 4, "every ASID"), ("rmp-not-initialised", "snp", 5, "the RMP is not initialised"),
            ("cpuid-refused", "snp", 5, "leaf 0x7 EBX"), ("memlock-limit", "sev", 4, "locked memory"),
            ("partial-updates", "snp", 0, ""), ("psp-busy", "snp", 0, ""), ("kernel-6.12", "snp", 0, ""),
        ]
        var causes: Set<String> = []
        for (scenario, kind, status, text) in cases {
            let (ending, output) = try command(
                [
                    "run", guest, "--launch-only", "--quiet", "--memory", "32M", "--confidential", kind, "--scenario",
                    scenario,
                ]
                    + ["--platform-state", state + ".d"])
            #expect(ending == .exited(status), "\(scenario): \(ending) \(output)")
            // The text of a trouble; a guest that was launched all the same has nothing to say.
            if !text.isEmpty { #expect(output.contains(text), "\(scenario): \(output)") }
            guard status != 0 else { continue }
            let cause = output.split(separator: "\n").first { $0.contains("likely cause:") }
            #expect(causes.insert(String(cause ?? "none")).inserted, "\(scenario): \(output)")
        }
        // The same guest goes on without the feature where that is asked for, and says so.
        let corrected = try command(
            [
                "run", guest, "--launch-only", "--quiet", "--memory", "32M", "--scenario", "cpuid-refused",
                "--accept-cpuid-correction", "--platform-state", state + ".d",
            ])
        #expect(corrected.ending == .exited(0), "\(corrected.output)")
        #expect(corrected.output.contains("warning: CPUID leaf 0x7 EBX: offered"), "\(corrected.output)")
        let policy = try command(
            ["run", guest, "--launch-only", "--memory", "32M", "--policy", "0x20000", "--scenario", "kernel-6.12"]
                + ["--platform-state", state + ".d"])
        #expect(policy.ending == .exited(5) && policy.output.contains("bit 16 (SMT)"), "\(policy.output)")
        #expect(policy.output.contains("other causes: swift-snp-vmm explain KVM_SEV_SNP_LAUNCH_START EINVAL"))
    }
}
