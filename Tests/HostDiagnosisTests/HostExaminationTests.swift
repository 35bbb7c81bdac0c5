import HostDiagnosis
import SEVABI
import TestSupport
import Testing

/// Facts of hosts without trouble.
enum HealthyHost {
    static let names = ["milan", "genoa", "turin"]

    static func bytes(_ name: String) throws -> [UInt8] {
        try #require(readFile(PackageFolder.path + "/Tests/Fixtures/hosts/\(name).json"))
    }

    static func facts(_ name: String) throws -> HostFacts { try HostFacts(json: bytes(name)) }
}

@Suite("The doctor")
struct HostExaminationTests {
    static let technologies: [GuestTechnology?] = [nil, .sev, .sevES, .snp]

    @Test("hosts without trouble: nothing red, for any kind of guest", arguments: HealthyHost.names)
    func healthy(_ name: String) throws {
        let facts = try HealthyHost.facts(name)
        for technology in Self.technologies {
            let examination = HostExamination(facts, for: technology)
            #expect(
                examination.cause == nil && examination.count(.unknown) == 0, "\(examination.text(coloured: false))")
            #expect(examination.text(coloured: false).contains("nothing found that stops them"))
            #expect(examination.json.text.contains("\"canLaunch\":true"))
        }
        // What a kernel before 7.0 lacks is worth a word, no more.
        #expect(HostExamination(facts, for: .snp).count(.warning) == (name == "turin" ? 0 : 1))
    }

    /// What is changed on a healthy host, for which guests, and the first red (or else yellow) line that must come of it.
    static let troubles: [(HostFact, HostValue, GuestTechnology?, String)] = [
        (.cpuVendor, .text("GenuineIntel"), .snp, "cpu.vendor"),
        (.cpuIsGuest, .flag(true), .sev, "cpu.guest"),
        (.cpuSignature, .number(0x0083_0f10), .snp, "cpu.generation"),
        (.sevFeatures, .number(0b1011), .snp, "cpu.features"),
        (.sevFeatures, .number(0b0011), .sevES, "cpu.features"),
        (.sevFeatures, .number(0), .sev, "cpu.features"),
        (.syscfg, .number(0), .sev, "bios.smee"),
        (.hwcr, .number(0), .sevES, "bios.smmlock"),
        (.sevMinimumASID, .number(1), .snp, "bios.asids"),
        (.sevMinimumASID, .number(5000), .sev, "bios.asids"),
        (.rmpBase, .number(0), .snp, "bios.rmp"),
        (.rmpEnd, .number(0x4010_0000), .snp, "bios.rmp"),
        (.kernelRelease, .text("6.1.0-56-amd64"), .snp, "kernel.release"),
        (.kernelOptions, .text("iommu=pt"), .snp, "kernel.options"),
        (.kernelOptions, .text("mem_encrypt=on kvm_amd.sev=0"), .sev, "kernel.options"),
        (.iommuCount, .number(0), .snp, "iommu"),
        (.iommuDomain, .text("identity"), .snp, "iommu"),
        (.ccpIsLoaded, .flag(false), .sev, "module.ccp"),
        (.kvmAMDIsLoaded, .flag(false), .snp, "module.kvm_amd"),
        (.parameterSEV, .text("N"), .sev, "module.kvm_amd.sev"),
        (.parameterSEVES, .text("0"), .sevES, "module.kvm_amd.sev_es"),
        (.parameterSNP, .text("N"), .snp, "module.kvm_amd.sev_snp"),
        (.parameterSNP, .unreadable("ENOENT"), .snp, "module.kvm_amd.sev_snp"),
        (.syscfg, .number(1 << 23), .snp, "kernel.snp"),
        (.nodeKVM, .text("EACCES"), nil, "node.kvm"),
        (.userIsInKVMGroup, .flag(false), nil, "user.group"),
        (.nodeSEV, .text("ENOENT"), .snp, "node.sev"),
        (.firmwareAnswer, .text("SEV_PLATFORM_STATUS EBUSY"), .sev, "firmware.answer"),
        (.firmwareAPI, .text("1.49"), .snp, "firmware.version"),
        (.firmwareAPI, .text("1.51"), .snp, "firmware.version"),
        (.firmwareState, .number(0), .snp, "firmware.state"),
        (.firmwareFlags, .number(0), .sevES, "firmware.state"),
        (.snpAnswer, .text("SNP_PLATFORM_STATUS EIO INVALID_COMMAND"), .snp, "snp.answer"),
        (.snpState, .number(0), .snp, "snp.state"),
        (.snpRMPFlags, .number(0), .snp, "snp.state"),
        (.reportedTCB, .number(0), .snp, "snp.tcb"),
        (.snpFlags, .number(2), .snp, "snp.masks"),
        (.kvmVersion, .number(11), nil, "kvm.api"),
        (.vmsaFeatures, .unreadable("ENXIO"), .sev, "kvm.init2"),
        (.vmTypes, .number(1), .snp, "kvm.type"),
        (.vmTypes, .number(0b101), .sevES, "kvm.type"),
        (.guestMemfd, .number(0), .snp, "kvm.memory"),
        (.policyBits, .number(0), .snp, "kvm.policy"),
        (.certificateRequests, .unreadable("ENXIO"), .snp, "kvm.certificates"),
        (.initializeSNP, .text("KVM_SEV_INIT2 EBUSY"), .snp, "kvm.launch"),
        (.initializeSEV, .text("KVM_CREATE_VM ENOMEM"), .sev, "kvm.launch"),
        (.usedSEVES, .number(99), .snp, "cgroup.asids"),
        (.capacitySEV, .number(0), .sev, "cgroup.asids"),
        (.memoryAvailable, .number(1 << 20), nil, "memory"),
        (.limitMemoryLock, .number(65536), .sev, "limit.memlock"),
        (.limitOpenFiles, .number(10), nil, "limit.nofile"),
    ]

    @Test("each trouble has its line, with what mends it")
    func eachTrouble() throws {
        var seen: Set<String> = []
        var lines: Set<String> = []
        for (fact, value, technology, id) in Self.troubles {
            var facts = try HealthyHost.facts("turin")
            facts[fact] = value
            let examination = HostExamination(facts, for: technology)
            let found =
                examination.findings.first { $0.verdict == .failed }
                ?? examination.findings.first { $0.verdict == .warning }
            #expect(found?.id == id, "\(fact) \(value): \(found.map { "\($0)" } ?? "nothing")")
            guard let found else { continue }
            #expect(found.mend?.isEmpty == false)
            #expect(lines.insert(found.detail).inserted || fact == .sevFeatures, "\(found.detail)")
            seen.insert(found.id)
            #expect(examination.text(coloured: false).contains(found.detail))
            #expect(examination.json.text.contains("\"verdict\":\"\(found.verdict.rawValue)\""))
        }
        // Every link of the chain can break.
        let healthy = try HealthyHost.facts("turin")
        let all = Self.technologies.flatMap { HostExamination(healthy, for: $0).findings.map(\.id) }
        #expect(Set(all) == seen, "\(Set(all).symmetricDifference(seen).sorted())")
    }

    @Test("what cannot be looked at is not called red")
    func nothingKnown() {
        for technology in Self.technologies {
            let examination = HostExamination(HostFacts(), for: technology)
            #expect(examination.cause == nil && examination.count(.unknown) > 0)
        }
    }

    @Test("no value traps")
    func extremes() throws {
        let values: [HostValue] = [
            .number(0), .number(1), .number(.max), .number(1 << 63), .flag(true), .flag(false), .text(""), .text("-1"),
            .text("99999999999999999999.1"), .text("1.2.3"), .text("."), .text("ok"), .text("' EINVAL 0x"),
            .unreadable(""),
        ]
        let healthy = try HealthyHost.facts("milan")
        for technology in Self.technologies {
            for fact in HostFact.allCases {
                for value in values {
                    var facts = healthy
                    facts[fact] = value
                    #expect(!HostExamination(facts, for: technology).findings.isEmpty)
                }
            }
        }
        for value in values {
            var facts = HostFacts()
            for fact in HostFact.allCases { facts[fact] = value }
            for technology in Self.technologies { #expect(!HostExamination(facts, for: technology).json.text.isEmpty) }
        }
    }
}

@Suite("Facts of a host as a file")
struct HostFactsTests {
    @Test("read and written again: the same", arguments: HealthyHost.names)
    func roundTrip(_ name: String) throws {
        let bytes = try HealthyHost.bytes(name)
        let facts = try HostFacts(json: bytes)
        #expect(Array((facts.json.text + "\n").utf8) == bytes)
        #expect(try HostFacts(json: Array(facts.json.text.utf8)) == facts)
    }

    @Test("every fact has a name of its own, a meaning, and a place in the file")
    func names() {
        #expect(Set(HostFact.allCases.map(\.rawValue)).count == HostFact.allCases.count)
        #expect(Set(HostFact.allCases.map(\.meaning)).count == HostFact.allCases.count)
        // The chip's id is never in a file that somebody made without asking for it.
        for name in HealthyHost.names { #expect((try? HostFacts(json: HealthyHost.bytes(name)))?[.chipID] == nil) }
    }

    @Test(
        "what is no such file is refused by name",
        arguments: [
            ("", "line 1: the end of the text"), ("[]", "something else than an object"), ("{}", "no \"format\""),
            ("{\"format\":\"x\"}", "no \"format\""), (head + "}", "no \"facts\""),
            (head + ",\"facts\":[]}", "facts that are no object"),
            (head + ",\"facts\":{\"cpu.fish\":1}}", "the unknown fact \"cpu.fish\""),
            (head + ",\"facts\":{},\"more\":1}", "the unknown member \"more\""),
            (head + ",\"facts\":{\"cpu.vendor\":1}}", "cpu.vendor: a value that is no text"),
            (head + ",\"facts\":{\"cpu.isGuest\":\"Y\"}}", "cpu.isGuest: a value that is no flag"),
            (head + ",\"facts\":{\"msr.syscfg\":\"0xzz\"}}", "msr.syscfg: a value that is no mask"),
            (head + ",\"facts\":{\"msr.syscfg\":\"0x11111111111111111\"}}", "msr.syscfg: a value that is no mask"),
            (
                head + ",\"facts\":{\"msr.syscfg\":{\"unreadable\":\"\\u001b[31m\"}}}",
                "msr.syscfg: a value that is no mask"
            ),
            (head + ",\"facts\":{\"cpu.brand\":\"\\u202e\"}}", "cpu.brand: a value that is no text"),
            (
                head + ",\"facts\":{\"cpu.brand\":\"" + String(repeating: "x", count: 513) + "\"}}",
                "cpu.brand: a value that is no text"
            ),
            (
                head + ",\"facts\":{\"memory.total\":-1}}",
                "line 1: something that is no value, or no whole number from 0"
            ),
        ])
    func refusals(_ text: String, _ message: String) {
        do throws(HostFacts.Failure) {
            _ = try HostFacts(json: Array(text.utf8))
            Issue.record("taken: \(text)")
        } catch { #expect(error.description.hasPrefix(message), "\(error)") }
    }

    private static let head = "{\"format\":\"\(HostFacts.format)\""

    @Test("a file with any byte changed is read or refused, and examined without a trap")
    func changedBytes() throws {
        let bytes = try HealthyHost.bytes("genoa")
        var state: UInt64 = 3
        func next() -> UInt64 {
            state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
            return state >> 33
        }
        for _ in 0..<3000 {
            var changed = bytes
            for _ in 0...next() % 3 { changed[Int(next()) % bytes.count] = UInt8(truncatingIfNeeded: next()) }
            if next() % 8 == 0 { changed.removeLast(Int(next()) % bytes.count) }
            guard let facts = try? HostFacts(json: changed) else { continue }
            #expect(!HostExamination(facts, for: .snp).text(coloured: true).isEmpty)
        }
    }

    @Test("what comes from a host is made fit for a terminal")
    func plainText() {
        #expect(HostFacts.plain("a\u{1b}[31mb\u{202e}\n") == .text("a[31mb"))
        guard case .text(let text) = HostFacts.plain(String(repeating: "é", count: 400)) else { return }
        #expect(text.utf8.count == 512)
    }
}
