import HostDiagnosis
import KVMABI
import SNPVMM
import Testing

@Suite("The catalogue of errors")
struct ErrorCatalogueTests {
    @Test("every refusal has a cause, a next step and a status")
    func everyRefusal() {
        let statuses: [FirmwareStatus?] = [nil] + FirmwareStatus.named + (0x40...0x48).map { .init(rawValue: $0) }
        for request in ErrorQuestion.requests {
            for errno in Errno.named + [Errno(rawValue: 0), Errno(rawValue: 200)] {
                for status in errno == .EIO ? statuses : [nil] {
                    let error = VMMError(step: "try", request: request, errno: errno, firmwareStatus: status)
                    #expect(!error.likelyCause.isEmpty && !error.nextStep.isEmpty)
                    #expect([.hostCannot, .launchRefused, .guestFailed].contains(error.exitStatus))
                }
            }
        }
    }

    @Test("no two rows have the same cause, so no two refusals the same message")
    func causesAreDistinct() {
        var seen: [String: String] = [:]
        for entry in ErrorCatalogue.entries {
            let name =
                "\(entry.request ?? "any") \(entry.errno.map { "\($0)" } ?? "") \(entry.firmwareStatus.map { "\($0)" } ?? "")"
            for cause in entry.causes {
                #expect(seen[cause.text] == nil, "\(name) and \(seen[cause.text] ?? ""): \(cause.text)")
                seen[cause.text] = name
                #expect(!cause.text.isEmpty && !cause.nextStep.isEmpty && cause.check != "")
            }
            #expect(!entry.causes.isEmpty)
        }
    }

    @Test("one row for each request, errno and status, and all of them can be reached")
    func rowsAreReachable() {
        var keys: Set<String> = []
        for entry in ErrorCatalogue.entries {
            let key = "\(entry.request ?? "-") \(entry.errno?.rawValue ?? -1) \(entry.firmwareStatus?.rawValue ?? 999)"
            #expect(keys.insert(key).inserted, "\(key)")
            let found = ErrorCatalogue.explain(
                request: entry.request ?? "a request of its own", errno: entry.errno ?? Errno(rawValue: 200),
                firmwareStatus: entry.firmwareStatus)
            #expect(found.likelyCause == entry.likelyCause, "\(entry)")
        }
    }

    @Test("every firmware status has a row of its own")
    func statuses() {
        for status in FirmwareStatus.named {
            #expect(ErrorCatalogue.entries.contains { $0.request == nil && $0.firmwareStatus == status }, "\(status)")
        }
    }

    /// What the kernel's own checks give, by the tables of the ABI; the firmware's refusals come beside them.
    static let refusals: [(String, [Errno])] = [
        ("open /dev/kvm", [.ENOENT, .EACCES, .EPERM, .ENODEV, .EBUSY]),
        ("open /dev/sev", [.ENOENT, .EACCES, .EPERM, .ENODEV]),
        ("KVM_CREATE_VM", [.EINVAL, .ENOMEM, .EMFILE, .EBUSY]),
        ("KVM_GET_SUPPORTED_CPUID", [.E2BIG]),
        ("KVM_GET_DEVICE_ATTR", [.ENXIO, .EFAULT]),
        ("KVM_ENABLE_CAP", [.EINVAL]),
        ("KVM_MEMORY_ENCRYPT_OP", [.ENOTTY]),
        ("KVM_CREATE_IRQCHIP", [.EEXIST, .EINVAL]), ("KVM_CREATE_PIT2", [.EEXIST, .ENOENT, .EINVAL]),
        ("KVM_SET_GSI_ROUTING", [.EINVAL]), ("KVM_IRQ_LINE", [.ENXIO]), ("KVM_SIGNAL_MSI", [.EINVAL]),
        ("KVM_SET_TSS_ADDR", [.EINVAL]), ("KVM_SET_IDENTITY_MAP_ADDR", [.EINVAL]), ("KVM_SET_BOOT_CPU_ID", [.EBUSY]),
        ("KVM_SET_CLOCK", [.EINVAL]), ("KVM_SET_TSC_KHZ", [.EINVAL]),
        ("KVM_CREATE_GUEST_MEMFD", [.EINVAL, .ENOTTY]), ("KVM_SET_USER_MEMORY_REGION", [.EINVAL, .EEXIST]),
        ("KVM_SET_USER_MEMORY_REGION2", [.EINVAL, .EEXIST, .EBADF, .ENOTTY]),
        ("KVM_SET_MEMORY_ATTRIBUTES", [.EINVAL, .ENOTTY]), ("KVM_PRE_FAULT_MEMORY", [.EOPNOTSUPP]),
        ("KVM_MEMORY_ENCRYPT_REG_REGION", [.EINVAL, .ENOMEM, .ENOTTY]),
        ("KVM_MEMORY_ENCRYPT_UNREG_REGION", [.EINVAL, .ENOTTY]),
        ("KVM_CREATE_VCPU", [.EINVAL, .EEXIST]), ("KVM_SET_CPUID2", [.EINVAL, .E2BIG]),
        ("KVM_SET_SREGS", [.EINVAL]), ("KVM_SET_REGS", [.EINVAL]), ("KVM_GET_REGS", [.EINVAL]),
        ("KVM_GET_SREGS", [.EINVAL]), ("KVM_SET_FPU", [.EINVAL]), ("KVM_SET_XSAVE", [.EINVAL]),
        ("KVM_SET_XCRS", [.EINVAL]), ("KVM_SET_DEBUGREGS", [.EINVAL]), ("KVM_SET_MP_STATE", [.EINVAL]),
        ("KVM_SET_LAPIC", [.EINVAL]), ("KVM_SET_VCPU_EVENTS", [.EINVAL]), ("KVM_SET_GUEST_DEBUG", [.EINVAL]),
        ("KVM_INTERRUPT", [.ENXIO]), ("KVM_RUN", [.EINVAL, .EFAULT, .EIO, .ENOMEM, .EHWPOISON]),
        ("KVM_SEV_INIT", [.EINVAL]), ("KVM_SEV_ES_INIT", [.EINVAL, .ENOTTY]),
        ("KVM_SEV_INIT2", [.EINVAL, .ENOTTY, .EBUSY, .EPERM, .EFAULT, .EIO, .ETIMEDOUT]),
        ("KVM_SEV_LAUNCH_START", [.ENOTTY, .EBADF, .EINVAL, .EFAULT, .EBUSY]),
        ("KVM_SEV_LAUNCH_UPDATE_DATA", [.ENOTTY, .ENOMEM, .EINVAL, .EFAULT]),
        ("KVM_SEV_LAUNCH_UPDATE_VMSA", [.ENOTTY, .EINVAL, .EBUSY]),
        ("KVM_SEV_LAUNCH_MEASURE", [.ENOTTY, .EINVAL, .EFAULT]),
        ("KVM_SEV_LAUNCH_SECRET", [.ENOTTY, .EINVAL, .EFAULT]), ("KVM_SEV_LAUNCH_FINISH", [.ENOTTY]),
        ("KVM_SEV_GUEST_STATUS", [.ENOTTY]), ("KVM_SEV_GET_ATTESTATION_REPORT", [.ENOTTY]),
        ("KVM_SEV_DBG_DECRYPT", [.EINVAL]), ("KVM_SEV_DBG_ENCRYPT", [.EINVAL]),
        ("KVM_SEV_SNP_LAUNCH_START", [.ENOTTY, .EFAULT, .EINVAL, .EBADF, .EBUSY]),
        ("KVM_SEV_SNP_LAUNCH_UPDATE", [.EINVAL, .EFAULT, .EAGAIN, .EINTR, .EBUSY]),
        ("KVM_SEV_SNP_LAUNCH_FINISH", [.ENOTTY, .EINVAL, .EFAULT, .EBUSY, .EBADF, .ENOMEM]),
        ("KVM_SEV_SNP_ENABLE_REQ_CERTS", [.EINVAL]),
        ("SEV_FACTORY_RESET", [.EBUSY, .EPERM]), ("SEV_PLATFORM_STATUS", [.EBUSY, .ETIMEDOUT, .ENODEV, .EFAULT]),
        ("SEV_PEK_GEN", [.EPERM]), ("SEV_PDH_GEN", [.EPERM]), ("SEV_PEK_CSR", [.EPERM, .EFAULT]),
        ("SEV_PDH_CERT_EXPORT", [.EPERM, .EFAULT]), ("SEV_PEK_CERT_IMPORT", [.EPERM, .EINVAL]),
        ("SEV_GET_ID", [.EFAULT]), ("SEV_GET_ID2", [.ENOMEM, .EFAULT]),
        ("SNP_PLATFORM_STATUS", [.EINVAL, .EFAULT, .EBUSY]), ("SNP_SET_CONFIG", [.EPERM, .EINVAL, .EFAULT, .ENODEV]),
        ("SNP_VLEK_LOAD", [.EPERM, .EINVAL, .EFAULT]), ("SEV_ISSUE_CMD", [.EINVAL, .EBUSY]),
        ("mmap", [.EINVAL, .ENOMEM, .ENODEV]),
    ]

    @Test("every errno that a request can give has a row that names the request")
    func kernelRefusals() {
        for (request, errnos) in Self.refusals {
            #expect(ErrorQuestion.requests.contains(request), "\(request)")
            for errno in errnos {
                #expect(
                    ErrorCatalogue.explain(request: request, errno: errno).request == request, "\(request) \(errno)")
            }
        }
    }

    @Test func launchCommandsAreRefusalsOfTheLaunch() {
        // Some rows know better: a limit on locked memory, a kernel without SEV, a host without memory.
        let hosts: [String: [Errno]] = [
            "KVM_SEV_LAUNCH_START": [.ENOTTY, .EBADF, .EBUSY, .ENOMEM], "KVM_SEV_LAUNCH_UPDATE_DATA": [.ENOMEM],
            "KVM_SEV_LAUNCH_UPDATE_VMSA": [.ENOTTY, .ENOMEM], "KVM_SEV_LAUNCH_SECRET": [.ENOMEM],
        ]
        for request in ErrorQuestion.requests where request.contains("_LAUNCH_") {
            for number in Int32(1)...133 {
                let errno = Errno(rawValue: number)
                let status = VMMError(step: "try", request: request, errno: errno).exitStatus
                #expect(
                    status == (hosts[request]?.contains(errno) == true ? .hostCannot : .launchRefused),
                    "\(request) \(errno)")
            }
        }
    }

    @Test func theClosestRowWins() {
        func cause(_ request: String, _ errno: Errno, _ status: FirmwareStatus?) -> String {
            ErrorCatalogue.explain(request: request, errno: errno, firmwareStatus: status).likelyCause
        }
        let finish = "KVM_SEV_SNP_LAUNCH_FINISH"
        #expect(cause(finish, .EIO, .badMeasurement).contains("launch digest"))
        #expect(cause(finish, .EIO, .policyFailure) != cause("KVM_SEV_SNP_LAUNCH_START", .EIO, .policyFailure))
        #expect(cause(finish, .EIO, .hardwareUnsafe) == cause("KVM_SEV_SNP_LAUNCH_START", .EIO, .hardwareUnsafe))
    }

    @Test func messageHasAllParts() {
        let error = VMMError(
            step: "finish the launch", request: "KVM_SEV_SNP_LAUNCH_FINISH", context: "with an ID block", errno: .EIO,
            firmwareStatus: .badMeasurement)
        let lines = error.description.split(separator: "\n")
        #expect(lines.count == 5)
        #expect(lines[0] == "could not finish the launch")
        #expect(lines[1] == "  tried:        KVM_SEV_SNP_LAUNCH_FINISH: with an ID block")
        #expect(lines[2] == "  came back:    EIO (5), firmware: BAD_MEASUREMENT (0xb)")
        #expect(lines[3].hasPrefix("  likely cause: "))
        #expect(lines[4].hasPrefix("  next step:    "))
    }
}

@Suite("Questions to the catalogue")
struct ErrorQuestionTests {
    func titles(_ text: String) throws -> [String] { ErrorAnswer(try ErrorQuestion(text)).sections.map(\.title) }

    @Test(
        "spellings of one question",
        arguments: [
            "KVM_SEV_SNP_LAUNCH_START EINVAL", "SNP_LAUNCH_START -22", "snp_launch_start errno=22",
            "SNP_LAUNCH_START ret=-22 fw_error=0 ''", "KVM_SEV_SNP_LAUNCH_START: EINVAL (22)",
        ])
    func spellings(_ text: String) throws {
        #expect(try titles(text) == ["KVM_SEV_SNP_LAUNCH_START: EINVAL (22)"])
    }

    @Test(
        "what is found first",
        arguments: [
            ("-22", "EINVAL (22)"), ("EBUSY", "EBUSY (16)"), ("0x16", "firmware: INVALID_PARAM (0x16)"),
            ("INVALID_PARAM", "firmware: INVALID_PARAM (0x16)"),
            ("SEV_RET_POLICY_FAILURE", "firmware: POLICY_FAILURE (0x7)"),
            ("/dev/kvm EACCES", "open /dev/kvm: EACCES (13)"), ("open /dev/sev ENOENT", "open /dev/sev: ENOENT (2)"),
            ("SNP_LAUNCH_UPDATE EIO fw_error=0", "KVM_SEV_SNP_LAUNCH_UPDATE: EIO (5), firmware: SUCCESS (0x0)"),
            (
                "SNP_LAUNCH_FINISH ret=-5 fw_error=11",
                "KVM_SEV_SNP_LAUNCH_FINISH: EIO (5), firmware: BAD_MEASUREMENT (0xb)"
            ),
            ("SNP_LAUNCH_START ret=-5 fw_error=0x14", "firmware: HWSEV_RET_UNSAFE (0x14)"),
            ("KVM_EXIT_MEMORY_FAULT", "KVM_EXIT_MEMORY_FAULT (39)"),
            ("suberror=1", "KVM_INTERNAL_ERROR_EMULATION (1)"), ("1/2", "the guest's termination, reason 1/2"),
            ("0x21100", "the guest's termination, reason 1/2"), ("CREATE_VM EINVAL", "KVM_CREATE_VM: EINVAL (22)"),
        ])
    func found(_ text: String, _ title: String) throws {
        #expect(try titles(text).first == title)
    }

    @Test("a bare number is an errno and a status")
    func bareNumber() throws {
        let titles = try titles("22")
        #expect(titles.contains("EINVAL (22)") && titles.contains("firmware: INVALID_PARAM (0x16)"))
    }

    @Test("every row, exit and termination is found by its own names")
    func everything() throws {
        for entry in ErrorCatalogue.entries {
            let words = [entry.request, entry.errno?.name, entry.firmwareStatus.map { "fw_error=\($0.rawValue)" }]
            let answer = ErrorAnswer(try ErrorQuestion(words.compactMap(\.self).joined(separator: " ")))
            #expect(answer.sections.contains { $0.causes == entry.causes }, "\(words)")
            #expect(answer.text.contains(entry.likelyCause) && answer.json.text.hasPrefix("{\"answers\":[{\"title\":"))
        }
        for end in GuestEnd.exits + GuestEnd.internalErrors + GuestEnd.systemEvents {
            #expect(try titles(end.name) == ["\(end.name) (\(end.number))"])
        }
        for row in TerminationReason.all {
            let text = ErrorAnswer(try ErrorQuestion("\(row.set)/\(row.reason)")).text
            #expect(text.contains(row.meaning))
        }
    }

    @Test(
        "what means nothing is named",
        arguments: [
            ("", ""), ("fish", "fish"), ("EINVAL fish", "fish"), ("ret=", "ret="),
            ("ret=99999999999", "ret=99999999999"),
            ("1/999", "1/999"), ("/", "/"), ("=", "="), ("0x", "0x"), ("--", "--"),
            ("9999999999999999999999", "9999999999999999999999"),
            ("x=1", "x=1"),
        ])
    func nonsense(_ text: String, _ word: String) {
        #expect(throws: ErrorQuestion.Failure(word: word)) { try ErrorQuestion(text) }
    }

    @Test("no text traps")
    func hostileText() {
        var state: UInt64 = 7
        let pieces = [
            "-", "0x", "=", "/", "EIO", "ret", "fw_error", "18446744073709551615", "KVM_", "'", " ", "é", "256", "\n",
        ]
        for _ in 0..<2_000 {
            var text = ""
            for _ in 0..<6 {
                state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
                text += pieces[Int(state >> 33) % pieces.count]
            }
            if let question = try? ErrorQuestion(text) { #expect(!ErrorAnswer(question).json.text.isEmpty) }
        }
    }
}
