// Runs as they could have been, one per technology, and one that an enemy wrote.

import RunReport

enum SampleRuns {
    static let all: [(name: String, data: RunReportData)] = [
        ("snp", snp), ("sev-es", sevES), ("sev", sev), ("plain", plain), ("hostile", hostile), ("empty", empty),
    ]

    private static let mebibyte: UInt64 = 1 << 20

    private static func digest(_ byteCount: Int, seed: UInt64) -> String {
        var state = seed
        var text = ""
        for _ in 0..<byteCount * 2 {
            state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
            text += String(state >> 60, radix: 16)
        }
        return text
    }

    private static func wave(_ count: Int, _ height: UInt64, from: Int = 0, until: Int? = nil) -> [UInt64] {
        var state: UInt64 = height &+ 7
        return (0..<count).map { index in
            guard index >= from, index < until ?? count else { return 0 }
            state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
            return height / 4 + (state >> 33) % max(1, height)
        }
    }

    private static func kind(_ name: String, _ bins: [UInt64]) -> RunReportData.ExitTimeline.Kind {
        .init(name: name, total: bins.reduce(0, +), bins: bins)
    }

    private static let exits = RunReportData.ExitTimeline(
        binNanoseconds: 20_000_000, runNanoseconds: 2_310_000_000,
        kinds: [
            kind("KVM_EXIT_IO", wave(116, 220, from: 4)), kind("KVM_EXIT_HYPERCALL", wave(116, 9, from: 3, until: 30)),
            kind("KVM_EXIT_MMIO", wave(116, 3, from: 60, until: 80)), kind("EINTR", wave(116, 1, from: 110)),
            kind("KVM_EXIT_SYSTEM_EVENT", [UInt64](repeating: 0, count: 115) + [1]),
        ])

    private static func launched(_ technology: RunReportData.Technology) -> [RunReportData.Region] {
        let snp = technology == .snp
        var regions: [RunReportData.Region] = [
            .init(start: 0, byteCount: 512 * mebibyte, state: snp ? .validated : .untouched, label: ""),
            .init(start: 0x2000, byteCount: 0x6000, state: .measured, label: "page tables"),
            .init(start: 0x9000, byteCount: 0x1000, state: .measured, label: "boot parameters"),
            .init(start: 0xa000, byteCount: 0x1000, state: .measured, label: "command line"),
            .init(start: 0xb000, byteCount: 0x1000, state: .measured, label: "setup_data"),
        ]
        if snp {
            regions += [
                .init(start: 0xc000, byteCount: 0x1000, state: .measured, label: "CC blob"),
                .init(start: 0xd000, byteCount: 0x1000, state: .firmware, label: "secrets page"),
                .init(start: 0xe000, byteCount: 0x1000, state: .firmware, label: "CPUID page"),
            ]
        } else {
            regions += [.init(start: 0xc000, byteCount: 0x1000, state: .secret, label: "secret area")]
        }
        return regions + [
            .init(start: 0x10000, byteCount: 0x1000, state: .measured, label: "ACPI tables"),
            .init(start: 0x1000000, byteCount: 0x2a38000, state: .measured, label: "kernel"),
            .init(start: 0x1f000000, byteCount: 0x180000, state: .measured, label: "initrd"),
        ]
    }

    static var snp: RunReportData {
        let launchDigest = digest(48, seed: 11)
        var data = RunReportData(
            title: "guest.img", program: "swift-snp-vmm 0.3.0", technology: .snp, isSoftwareMachine: true,
            outcome: .init(text: "The guest switched the machine off.", isSuccess: true),
            firmware: .init(facts: [
                .init("platform", "SNP INIT"), .init("API", "1.58, build 3"), .init("guest state", "RUNNING"),
                .init("pages taken", "131 072"),
            ]),
            hypervisor: .init(
                name: "swift-snp-vmm", backend: "software",
                facts: [
                    .init("VM type", "KVM_X86_SNP_VM"), .init("memory", "guest_memfd, 512 MiB"),
                    .init("devices", "16550A serial line, power block"),
                ]),
            memoryController: .init(
                keySlots: [.init(asid: 1, label: "guest.img")], facts: [.init("RMP", "checked at each access")]),
            machines: [
                .init(
                    name: "guest.img", technology: .snp, asid: 1,
                    processors: [.init(index: 0, vmcb: nil, vmsa: 0x1_0fa0_5000, ghcb: 0x3ba_b000)],
                    memoryByteCount: 512 * mebibyte, privateByteCount: 448 * mebibyte, sharedByteCount: 64 * mebibyte)
            ])
        data.startedAt = "2026-11-23 09:12 UTC"
        data.highlights = [
            .init("memory", "512 MiB"), .init("vCPUs", "1"), .init("launch", "412 ms"),
            .init("first output after", "38 ms"),
            .init("ran", "2.31 s"), .init("exits", "16 480"),
        ]
        data.messages = [
            .init(
                number: 1, from: .hypervisor, to: .firmware, name: "SNP_LAUNCH_START", nanoseconds: 1_810_000,
                detail: "policy 0x30000"),
            .init(
                number: 2, from: .hypervisor, to: .firmware, name: "SNP_LAUNCH_UPDATE", callCount: 61,
                byteCount: 512 * mebibyte, nanoseconds: 392_000_000, detail: "11 328 pages measured with contents"),
            .init(
                number: 3, from: .hypervisor, to: .firmware, name: "SNP_LAUNCH_FINISH", nanoseconds: 410_000,
                detail: "1 VMSA, no ID block"),
        ]
        data.policy = .init(
            rawValue: 0x30000,
            items: [
                .init("ABI", "any firmware interface version"), .init("SMT", "may run with SMT on"),
                .init("MIGRATE_MA", "no migration agent"), .init("DEBUG", "the host may not decipher memory"),
                .init("SINGLE_SOCKET", "any number of sockets"),
            ], allowsDebug: false)
        data.measurements = [
            .init(
                title: "Launch digest, computed before the launch", value: launchDigest,
                note: "What the plan must measure to, by LaunchMeasurement."),
            .init(
                title: "Launch digest, from what passed to the kernel", value: launchDigest,
                note: "By the launch log, command by command.", isAsExpected: true),
        ]
        data.steps = [
            .init(name: "read a unified kernel image", group: .prepare, nanoseconds: 8_100_000),
            .init(name: "host", group: .prepare, nanoseconds: 21_000_000),
            .init(name: "plan", group: .prepare, nanoseconds: 5_400_000),
            .init(name: "measure", group: .prepare, nanoseconds: 61_000_000),
            .init(name: "create the VM", group: .machine, nanoseconds: 41_000),
            .init(name: "KVM_SEV_INIT2", group: .machine, nanoseconds: 3_600),
            .init(name: "memory", detail: "512 MiB", group: .machine, nanoseconds: 210_000),
            .init(name: "processors", detail: "1", group: .machine, nanoseconds: 96_000),
            .init(name: "SNP_LAUNCH_START", detail: "policy 0x30000", group: .launch, nanoseconds: 1_810_000),
            .init(name: "NORMAL kernel", detail: "10 808 pages at 0x1000000", group: .launch, nanoseconds: 190_000_000),
            .init(name: "NORMAL initrd", detail: "384 pages at 0x1f000000", group: .launch, nanoseconds: 9_000_000),
            .init(name: "SECRETS secrets page", detail: "1 page at 0xd000", group: .launch, nanoseconds: 22_000),
            .init(name: "CPUID CPUID page", detail: "1 page at 0xe000", group: .launch, nanoseconds: 24_500),
            .init(name: "ZERO RAM", detail: "119 840 pages at 0x11000", group: .launch, nanoseconds: 171_000_000),
            .init(name: "SNP_LAUNCH_FINISH", detail: "1 VMSA", group: .launch, nanoseconds: 410_000),
            .init(name: "first output", group: .boot, nanoseconds: 38_000_000),
        ]
        let before = launched(.snp)
        data.memory = .init(
            before: before,
            after: before + [
                .init(start: 0x16000000, byteCount: 64 * mebibyte, state: .shared, label: "bounce buffers"),
                .init(start: 0x3bab000, byteCount: 0x2000, state: .shared, label: "GHCB"),
                .init(start: 0x1a400000, byteCount: 0x3000, state: .shared),
            ],
            outside: [.init(start: 0xffff_ffff_f000, byteCount: 0x1000, state: .vmsa, label: "VMSA of vCPU 0")])
        data.exits = exits
        return data
    }

    static var sevES: RunReportData {
        var data = legacy(.sevES)
        data.messages.insert(
            .init(
                number: 3, from: .hypervisor, to: .firmware, name: "LAUNCH_UPDATE_VMSA", byteCount: 4096,
                nanoseconds: 90_000, detail: "vCPU 0"), at: 4)
        return data
    }

    static var sev: RunReportData {
        var data = legacy(.sev)
        data.owner = nil
        data.messages.removeAll { $0.from == .owner || $0.to == .owner || $0.number == 5 }
        data.machines.append(
            .init(
                name: "neighbour", technology: .sevES, asid: 2, processors: [.init(index: 0)],
                memoryByteCount: 256 * mebibyte))
        data.memoryController.keySlots?.append(.init(asid: 2, label: "neighbour"))
        data.memoryController.keySlots?.append(.init(asid: 102, label: "", isLoaded: false))
        data.isSoftwareMachine = false
        data.hypervisor.backend = "kvm"
        return data
    }

    private static func legacy(_ technology: RunReportData.Technology) -> RunReportData {
        let es = technology == .sevES
        let asid: UInt32 = es ? 1 : 100
        let measurement = digest(32, seed: 5)
        var data = RunReportData(
            title: "guest.img", program: "swift-snp-vmm 0.3.0", technology: technology, isSoftwareMachine: true,
            outcome: .init(text: "The guest switched the machine off.", isSuccess: true),
            firmware: .init(facts: [
                .init("platform", "WORKING"), .init("API", "0.24, build 15"), .init("guest handle", "1"),
                .init("guest state", "RUNNING"),
            ]),
            hypervisor: .init(
                name: "swift-snp-vmm", backend: "software",
                facts: [
                    .init("VM type", es ? "KVM_X86_SEV_ES_VM" : "KVM_X86_SEV_VM"), .init("memory", "its own, 512 MiB"),
                ]),
            memoryController: .init(keySlots: [.init(asid: asid, label: "guest.img")]),
            machines: [
                .init(
                    name: "guest.img", technology: technology, asid: asid,
                    processors: [.init(index: 0, vmsa: es ? 0x1_0fa0_5000 : nil, ghcb: es ? 0x3ba_b000 : nil)],
                    memoryByteCount: 512 * mebibyte)
            ])
        data.owner = .init(
            place: "owner.sock",
            facts: [
                .init("chain", "ARK, ASK, CEK, PEK checked"),
                .init("verdict", "measurement as expected, secret released"),
            ])
        data.highlights = [
            .init("memory", "512 MiB"), .init("vCPUs", "1"), .init("launch", "233 ms"),
            .init("first output after", "41 ms"),
            .init("ran", "2.7 s"), .init("exits", "18 231"),
        ]
        data.messages = [
            .init(
                number: 1, from: .hypervisor, to: .owner, name: "certificates", byteCount: 8336,
                detail: "PDH, PEK, OCA, CEK"),
            .init(
                number: 1, from: .owner, to: .hypervisor, name: "session", byteCount: 2212,
                detail: "GODH certificate, wrapped TEK and TIK"),
            .init(
                number: 1, from: .hypervisor, to: .firmware, name: "LAUNCH_START", nanoseconds: 2_100_000,
                detail: "policy 0x\(es ? "5" : "1"), with session"),
            .init(
                number: 2, from: .hypervisor, to: .firmware, name: "LAUNCH_UPDATE_DATA", callCount: 7,
                byteCount: 45 * mebibyte,
                nanoseconds: 201_000_000),
            .init(
                number: 4, from: .firmware, to: .hypervisor, name: "LAUNCH_MEASURE", byteCount: 48, nanoseconds: 60_000,
                detail: "measurement \(measurement.prefix(16))…"),
            .init(number: 4, from: .hypervisor, to: .owner, name: "measurement", byteCount: 48),
            .init(number: 5, from: .owner, to: .hypervisor, name: "secret packet", byteCount: 132),
            .init(
                number: 5, from: .hypervisor, to: .firmware, name: "LAUNCH_SECRET", byteCount: 80, nanoseconds: 75_000,
                detail: "to GPA 0xc010"),
            .init(number: 6, from: .hypervisor, to: .firmware, name: "LAUNCH_FINISH", nanoseconds: 21_000),
        ]
        data.policy = .init(
            rawValue: es ? 5 : 0,
            items: [
                .init(
                    "NODBG", es ? "the host may not decipher memory" : "the host may decipher memory", isWarning: !es),
                .init("NOKS", "keys may be shared with other guests"),
                .init("ES", es ? "SEV-ES is required" : "SEV is enough"),
                .init("API", "any firmware"),
            ], allowsDebug: !es)
        data.measurements = [
            .init(
                title: "Launch digest, computed before the launch", value: digest(32, seed: 4),
                note: "SHA-256 of all pages and VMSAs in order."),
            .init(
                title: "Measurement (LAUNCH_MEASURE)", value: measurement,
                note: "HMAC by the firmware over policy, digest and nonce, with the owner's key.", isAsExpected: true),
        ]
        data.steps = [
            .init(name: "plan", group: .prepare, nanoseconds: 5_400_000),
            .init(name: "create the VM", group: .machine, nanoseconds: 41_000),
            .init(name: "LAUNCH_START", group: .launch, nanoseconds: 2_100_000),
            .init(
                name: "LAUNCH_UPDATE_DATA kernel", detail: "10 808 pages at 0x1000000", group: .launch,
                nanoseconds: 201_000_000),
            .init(name: "wait for the owner", detail: "owner.sock", group: .launch, nanoseconds: 14_000_000),
            .init(name: "LAUNCH_FINISH", group: .launch, nanoseconds: 21_000),
        ]
        data.memory = .init(
            before: launched(technology), after: nil,
            note:
                "The C-bits are in the guest's page tables: after the first instruction only the guest knows which pages are "
                + "private.")
        data.exits = exits
        return data
    }

    static var plain: RunReportData {
        var data = RunReportData(
            title: "vmlinuz", program: "swift-snp-vmm 0.3.0", technology: .plain, isSoftwareMachine: false,
            outcome: .init(
                text: "The guest asked for a reset, which a measured launch does not have.", isSuccess: false),
            hypervisor: .init(name: "swift-snp-vmm", backend: "kvm"),
            machines: [
                .init(name: "vmlinuz", technology: .plain, processors: [.init(index: 0)], memoryByteCount: 5 << 30)
            ])
        data.steps = [.init(name: "copy kernel", detail: "42 MiB at 0x1000000", group: .launch, nanoseconds: 9_000_000)]
        data.memory = .init(
            before: [
                .init(start: 0, byteCount: 3 << 30, state: .plain),
                .init(start: 4 << 30, byteCount: 2 << 30, state: .plain),
                .init(start: 0x1000000, byteCount: 42 * mebibyte, state: .plain, label: "kernel"),
            ],
            after: [
                .init(start: 0, byteCount: 3 << 30, state: .plain),
                .init(start: 4 << 30, byteCount: 2 << 30, state: .plain),
            ])
        data.exits = .init(
            binNanoseconds: 1_000_000, runNanoseconds: 1_000_000,
            kinds: [.init(name: "KVM_EXIT_SHUTDOWN", total: 1, bins: [1])])
        return data
    }

    /// Nothing but what the initialiser demands.
    static var empty: RunReportData {
        RunReportData(
            title: "", program: "", technology: .snp, isSoftwareMachine: false,
            outcome: .init(text: "", isSuccess: false),
            hypervisor: .init(name: "", backend: ""))
    }

    /// Text that wants to be markup, numbers at their extremes, and very much of everything.
    static var hostile: RunReportData {
        let bad =
            "</style></title><script>document.title='owned'</script><img src=x onerror=alert(1)>\"'&\u{202e}gnp\u{0}\u{7}"
        let long = String(repeating: "W", count: 5000)
        var data = snp
        data.title = bad
        data.program = bad
        data.startedAt = long
        data.outcome = .init(text: bad + long, isSuccess: false)
        data.highlights = [.init(bad, long), .init(long, bad), .init("nothing", nil)]
        data.firmware.facts = [.init(bad, long), .init("unknown", nil)]
        data.hypervisor = .init(name: long, backend: bad, facts: [.init(long, long)])
        data.owner = .init(place: bad + long, facts: [.init(bad, bad)])
        data.memoryController.keySlots = (0..<600).map { .init(asid: .max - $0, label: bad) }
        data.machines = (0..<40).map { _ in
            .init(
                name: bad, technology: .snp, asid: .max,
                processors: (0..<300).map { .init(index: $0, vmcb: .max, vmsa: .max, ghcb: .max) },
                memoryByteCount: .max,
                privateByteCount: .max, sharedByteCount: .max)
        }
        data.messages = (0..<100).map {
            .init(
                number: $0 &- 5, from: .owner, to: .hypervisor, name: bad, callCount: .max, byteCount: .max,
                nanoseconds: .max,
                detail: long, failure: bad)
        }
        data.messages.append(.init(number: .max, from: .hypervisor, to: .firmware, name: long, detail: bad))
        data.policy?.items = [.init(bad, long, isWarning: true)]
        data.measurements = [.init(title: bad, value: long, note: bad, isAsExpected: false)]
        data.steps = (0..<500).map {
            .init(name: bad, detail: $0 == 1 ? long : "", group: .boot, nanoseconds: $0 == 0 ? 0 : .max)
        }
        data.memory.before = [
            .init(start: .max, byteCount: .max, state: .shared, label: bad),
            .init(start: 0, byteCount: .max, state: .measured, label: long),
            .init(start: 5, byteCount: 0, state: .vmsa),
        ]
        data.memory.after = (0..<6000).map {
            .init(start: UInt64($0) * 0x5000, byteCount: 0x3000, state: $0 % 2 == 0 ? .shared : .private)
        }
        data.memory.outside = [.init(start: .max, byteCount: .max, state: .vmsa, label: bad)]
        data.memory.note = bad
        data.exits = .init(
            binNanoseconds: .max, runNanoseconds: .max,
            kinds: (0..<60).map { .init(name: $0 == 0 ? bad : "\(long)\($0)", total: .max, bins: [.max, 0, 1]) })
        return data
    }
}
