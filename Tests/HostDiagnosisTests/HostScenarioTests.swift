import GuestImage
import HostDiagnosis
import KVMABI
import SEVABI
import SNPVMM
import SoftwareKVM
import Testing
import X86Defs

@Suite("A host in trouble")
struct HostScenarioTests {
    func kernel(_ scenario: HostScenario) throws -> SoftwareKVM {
        var configuration = SoftwareKVM.Configuration()
        configuration.scenario = scenario
        return try SoftwareKVM(configuration: configuration)
    }

    func facts(_ kernel: SoftwareKVM) -> HostFacts {
        var facts = kernel.systemFacts
        facts.merge(HostProbe.facts(of: kernel))
        return facts
    }

    /// A plan with pages of every type that a launch has, for a guest that is never run.
    func plan(_ technology: GuestTechnology, _ cpuid: [CPUIDLeaf]) throws -> LaunchPlan {
        func pages(_ label: String, _ type: PageType, _ gpa: UInt64, _ count: Int, _ contents: [UInt8] = [])
            -> LaunchPlan.Region
        {
            .init(label: label, pageType: type, gpa: gpa, byteCount: UInt64(count) << 12, contents: contents)
        }
        var regions = [pages("code", .normal, 0x1000, 8, [UInt8](repeating: 0x90, count: 8 << 12))]
        if technology == .snp {
            let entries = cpuid.filter { $0.function >> 28 != 4 }.prefix(64).map {
                CPUIDTableEntry(
                    function: $0.function, index: $0.index, eax: $0.eax, ebx: $0.ebx, ecx: $0.ecx, edx: $0.edx)
            }
            regions += [
                pages("CPUID", .cpuid, 0x20000, 1, CPUIDTable(entries: Array(entries)).bytes),
                pages("secrets", .secrets, 0x21000, 1), pages("RAM", .zero, 0x100000, 4096 - 256),
            ]
        }
        var state = ProcessorState()
        state.rip = 0x1000
        return LaunchPlan(
            regions: regions, processors: [state], guestFeatures: technology == .snp ? 1 : 0,
            policy: MachineDescription.defaultPolicy(for: technology), technology: technology)
    }

    /// What a launch comes to: nil, or its refusal.
    func launch(_ technology: GuestTechnology, _ kernel: SoftwareKVM) throws -> VMMError? {
        do throws(VMMError) {
            let host = try Host(kernel)
            try host.require(technology)
            let cpuid = try host.guestCPUID(processorCount: 1, technology: technology)
            guard let plan = try? plan(technology, cpuid) else { return nil }
            _ = try Machine(
                host: host,
                configuration: MachineConfiguration(
                    technology: technology, memoryByteCount: 16 << 20, plan: plan, cpuid: cpuid),
                console: { _ in })
            return nil
        } catch { return error }
    }

    @Test("names are unlike, and the first is the healthy host")
    func names() {
        #expect(Set(HostScenario.builtIn.map(\.name)).count == HostScenario.builtIn.count)
        #expect(Set(HostScenario.builtIn.map(\.about)).count == HostScenario.builtIn.count)
        #expect(HostScenario.builtIn.first?.name == "healthy" && HostScenario.named("no-such") == nil)
    }

    @Test("what a scenario stops is refused, and nothing else is", arguments: HostScenario.builtIn.map(\.name))
    func stops(_ name: String) throws {
        let scenario = try #require(HostScenario.named(name))
        for technology in [GuestTechnology.sev, .sevES, .snp] {
            let error = try launch(technology, kernel(scenario))
            if technology == scenario.stops {
                #expect(error != nil, "\(technology)")
            } else if scenario.stops == nil {
                #expect(error == nil, "\(technology): \(error.map { "\($0)" } ?? "")")
            }
        }
    }

    @Test("no two troubles come to the same message")
    func messages() throws {
        var seen: [String: String] = [:]
        for scenario in HostScenario.builtIn {
            guard let technology = scenario.stops, let error = try launch(technology, kernel(scenario)) else {
                continue
            }
            // As `run` says it: the kernel's answer, and for a host that cannot, what the doctor finds first.
            let cause = HostExamination(facts(try kernel(scenario)), for: technology).cause
            let message = "\(error.exitStatus == .hostCannot ? cause?.detail ?? error.likelyCause : error.likelyCause)"
            #expect(seen[message] == nil, "\(scenario.name) and \(seen[message] ?? ""): \(message)")
            seen[message] = scenario.name
        }
        #expect(seen.count > 30)
    }

    /// What real kernels and firmwares answer: errno, request, firmware status.
    static let answers: [(String, GuestTechnology, String, Errno?, FirmwareStatus?)] = [
        ("kvm-without-permission", .snp, "open /dev/kvm", .EACCES, nil),
        ("no-sev-node", .snp, "open /dev/sev", .ENOENT, nil),
        ("no-snp-in-bios", .snp, "KVM_CHECK_EXTENSION", nil, nil),
        ("kernel-6.1", .sev, "KVM_CHECK_EXTENSION", nil, nil),
        ("no-sev-asids", .sev, "KVM_SEV_INIT2", .ENOTTY, nil),
        ("asids-in-use", .sevES, "KVM_SEV_INIT2", .EBUSY, nil),
        ("firmware-damaged", .snp, "KVM_SEV_INIT2", .EIO, .secureDataInvalid),
        ("rmp-not-initialised", .snp, "KVM_SEV_SNP_LAUNCH_START", .ENOTTY, .invalidPlatformState),
        ("firmware-too-old", .snp, "KVM_SEV_SNP_LAUNCH_START", .ENOTTY, .invalidCommand),
        ("psp-dead", .snp, "KVM_SEV_SNP_LAUNCH_START", .ENOTTY, nil),
        ("psp-dead", .sev, "KVM_SEV_LAUNCH_START", .EBUSY, nil),
        ("policy-refused", .snp, "KVM_SEV_SNP_LAUNCH_START", .EIO, .policyFailure),
        ("cpuid-refused", .snp, "KVM_SEV_SNP_LAUNCH_UPDATE", .EIO, .invalidParameter),
        ("psp-busy-for-ever", .snp, "KVM_SEV_SNP_LAUNCH_UPDATE", .EAGAIN, nil),
        ("out-of-memory", .snp, "KVM_SEV_SNP_LAUNCH_UPDATE", .EIO, .success),
        ("memlock-limit", .sev, "KVM_MEMORY_ENCRYPT_REG_REGION", .ENOMEM, nil),
        ("no-memory-for-vm", .snp, "KVM_CREATE_VM", .ENOMEM, nil),
        ("too-many-files", .snp, "KVM_CREATE_GUEST_MEMFD", .EMFILE, nil),
    ]

    @Test("the answers are the real kernel's")
    func realAnswers() throws {
        for (name, technology, request, errno, status) in Self.answers {
            let error = try launch(technology, kernel(try #require(HostScenario.named(name))))
            #expect(
                error?.request == request && error?.errno == errno && error?.firmwareStatus == status,
                "\(name): \(error.map { "\($0)" } ?? "launched")")
        }
    }

    @Test("a kernel of 6.1 has neither the capabilities nor the requests")
    func oldKernel() throws {
        let kernel = try kernel(try #require(HostScenario.named("kernel-6.1")))
        let facts = facts(kernel)
        #expect(facts.number(.vmTypes) == 0 && facts.number(.guestMemfd) == 0 && facts.number(.memoryAttributes) == 0)
        #expect(facts[.vmsaFeatures] == .unreadable("ENXIO"))
        let system = try kernel.open(.kvm)
        #expect(throws: Errno.EINVAL) { try kernel.call(system, .createVM, value: 4) }
        let vm = KernelHandle(rawValue: try kernel.call(system, .createVM, value: 0))
        var memfd = KVMCreateGuestMemfd()
        memfd.byteCount = 4096
        #expect(throws: Errno.ENOTTY) { try kernel.call(vm, .createGuestMemfd, &memfd) }
    }

    @Test("the doctor's first red line is the trouble")
    func doctor() throws {
        let lines: [(String, GuestTechnology, String)] = [
            ("no-amd", .snp, "cpu.vendor"), ("virtual-host", .snp, "cpu.guest"), ("rome", .snp, "cpu.generation"),
            ("no-sev-in-bios", .sev, "bios.smee"), ("no-snp-in-bios", .snp, "bios.rmp"),
            ("rmp-too-small", .snp, "bios.rmp"),
            ("no-snp-asids", .snp, "bios.asids"), ("no-sev-asids", .sev, "bios.asids"),
            ("iommu-missing", .snp, "iommu"),
            ("iommu-passthrough", .snp, "kernel.options"), ("sev-module-off", .sev, "module.kvm_amd.sev"),
            ("sev-es-module-off", .sevES, "module.kvm_amd.sev_es"), ("snp-module-off", .snp, "module.kvm_amd.sev_snp"),
            ("kernel-6.10", .snp, "module.kvm_amd.sev_snp"), ("no-kvm-node", .snp, "module.kvm_amd"),
            ("kvm-without-permission", .snp, "node.kvm"), ("no-sev-node", .snp, "module.ccp"),
            ("sev-without-permission", .snp, "node.sev"), ("rmp-not-initialised", .snp, "snp.state"),
            ("firmware-too-old", .snp, "firmware.version"), ("psp-dead", .snp, "firmware.answer"),
            ("asids-in-use", .snp, "kvm.launch"), ("too-many-files", .snp, "limit.nofile"),
        ]
        for (name, technology, id) in lines {
            let facts = facts(try kernel(try #require(HostScenario.named(name))))
            #expect(HostExamination(facts, for: technology).cause?.id == id, "\(name)")
        }
        for technology in [GuestTechnology.sev, .sevES, .snp] {
            let examination = HostExamination(facts(try kernel(HostScenario())), for: technology)
            #expect(
                examination.cause == nil && examination.count(.warning) == 0, "\(examination.text(coloured: false))")
        }
        let uncommitted = facts(try kernel(try #require(HostScenario.named("firmware-uncommitted"))))
        #expect(HostExamination(uncommitted, for: .snp).findings.first { $0.verdict == .warning }?.id == "snp.tcb")
    }

    @Test("a chip's id is recorded only when it is asked for")
    func chipID() throws {
        let kernel = try kernel(HostScenario())
        #expect(HostProbe.facts(of: kernel)[.chipID] == nil)
        #expect(HostProbe.facts(of: kernel, chipID: true).text(.chipID)?.count == 128)
    }
}

@Suite("A scenario as a file")
struct HostScenarioFileTests {
    @Test("every member")
    func everyMember() throws {
        let scenario = try HostScenario(
            json: Array(
                """
                {"name":"my-host","about":"SNP is off","stops":"snp","vmTypes":["plain","sev","sev-es"],
                 "closedNodes":{"/dev/sev":"EACCES"},"withoutCapabilities":["KVM_CAP_GUEST_MEMFD"],"deviceAttributes":1,
                 "acceptedPolicyBits":"0x7ffff","requiredPolicyBits":"0x10000","lockedMemory":65536,"memory":8388608,
                 "pagesPerUpdate":3,"asids":{"snp":0,"sev":410,"inUse":true},
                 "firmware":{"api":"1.49","build":3,"initialisesSNP":false,"reportedTCB":"0x1",
                  "refusedCPUID":[{"leaf":7,"register":"ebx","bits":"0x20"}]},
                 "answers":[{"request":"KVM_SEV_SNP_LAUNCH_UPDATE","errno":"EAGAIN","firmwareStatus":"SUCCESS","after":1,
                  "times":3,"every":2}],"facts":{"msr.rmpBase":"0x0"}}
                """.utf8))
        #expect(scenario.name == "my-host" && scenario.about == "SNP is off" && scenario.stops == .snp)
        #expect(scenario.vmTypes == [.plain, .sev, .sevES] && scenario.closedNodes == [.sev: .EACCES])
        #expect(scenario.missingCapabilities == [.guestMemfd] && scenario.deviceAttributeCount == 1)
        #expect(scenario.acceptedPolicyBits == 0x7ffff && scenario.requiredPolicyBits == 0x10000)
        #expect(scenario.lockedMemoryLimit == 65536 && scenario.systemMemoryByteCount == 8 << 20)
        #expect(scenario.pagesPerUpdate == 3 && scenario.hasASIDsInUse)
        #expect(scenario.stateASIDCount == 0 && scenario.memoryASIDCount == 410)
        #expect(
            scenario.firmwareAPI == FirmwareVersion(apiMajor: 1, apiMinor: 49, build: 3) && !scenario.initializesSNP)
        #expect(scenario.reportedTCB?.rawValue == 1)
        #expect(scenario.refusedCPUID == [.init(leaf: 7, register: .ebx, bits: 0x20)])
        #expect(scenario.answers == [.init("KVM_SEV_SNP_LAUNCH_UPDATE", .EAGAIN, after: 1, times: 3, every: 2)])
        #expect(scenario.facts.number(.rmpBase) == 0)
    }

    @Test(
        "what is no scenario is refused by its place",
        arguments: [
            ("", "line 1"), ("[]", "the scenario: expected an object"),
            ("{\"fish\":1}", "the scenario: the unknown member \"fish\""),
            ("{\"stops\":\"tdx\"}", "stops: expected"), ("{\"vmTypes\":[\"tdx\"]}", "vmTypes: expected one of"),
            ("{\"vmTypes\":\"snp\"}", "the scenario, vmTypes: expected a list"),
            ("{\"closedNodes\":{\"/dev/null\":\"EACCES\"}}", "closedNodes: the unknown member"),
            ("{\"closedNodes\":{\"/dev/kvm\":\"EFISH\"}}", "closedNodes, /dev/kvm: expected an errno"),
            ("{\"withoutCapabilities\":[\"KVM_CAP_FISH\"]}", "withoutCapabilities: expected one of"),
            ("{\"deviceAttributes\":4}", "the scenario, deviceAttributes: expected a number up to 3"),
            ("{\"asids\":{\"snp\":100}}", "asids, snp: expected a number up to 99"),
            ("{\"asids\":{\"inUse\":1}}", "asids, inUse: expected true or false"),
            ("{\"firmware\":{\"api\":\"1\"}}", "firmware, api: expected two numbers"),
            ("{\"firmware\":{\"refusedCPUID\":[{\"register\":\"efx\"}]}}", "register: expected one of"),
            ("{\"answers\":[{\"request\":\"KVM_FISH\",\"errno\":\"EIO\"}]}", "answers: a request that is not known"),
            ("{\"answers\":[{\"request\":\"KVM_RUN\"}]}", "answers: KVM_RUN without an errno"),
            (
                "{\"answers\":[{\"request\":\"KVM_RUN\",\"errno\":\"EIO\",\"firmwareStatus\":\"FISH\"}]}",
                "answers: the firmware status FISH"
            ),
            ("{\"facts\":{\"fish\":1}}", "facts: the unknown fact \"fish\""),
            ("{\"lockedMemory\":\"0xfffffffffffffffff\"}", "the scenario, lockedMemory: expected a number"),
        ])
    func refusals(_ text: String, _ message: String) {
        do throws(HostScenario.FileError) {
            _ = try HostScenario(json: Array(text.utf8))
            Issue.record("taken: \(text)")
        } catch { #expect(error.description.hasPrefix(message), "\(error)") }
    }

    @Test("no numbers trap a machine")
    func extremes() throws {
        let files = [
            "{\"memory\":0}", "{\"pagesPerUpdate\":0}", "{\"asids\":{\"snp\":99,\"sev\":410}}",
            "{\"asids\":{\"snp\":0,\"sev\":0}}",
            "{\"answers\":[{\"request\":\"KVM_CREATE_VM\",\"errno\":\"EIO\",\"after\":18446744073709551615,\"every\":0}]}",
            "{\"answers\":[{\"request\":\"KVM_GET_API_VERSION\",\"errno\":\"EIO\",\"times\":18446744073709551615}]}",
            "{\"vmTypes\":[]}", "{\"requiredPolicyBits\":18446744073709551615,\"lockedMemory\":0}",
            "{\"acceptedPolicyBits\":0}", "{\"withoutCapabilities\":[\"KVM_CAP_VM_TYPES\",\"KVM_CAP_IRQCHIP\"]}",
        ]
        let tests = HostScenarioTests()
        for file in files {
            let scenario = try HostScenario(json: Array(file.utf8))
            guard let kernel = try? tests.kernel(scenario) else { continue }
            _ = try tests.launch(.snp, kernel)
            #expect(!HostExamination(tests.facts(kernel), for: .snp).findings.isEmpty, "\(file)")
        }
    }
}
