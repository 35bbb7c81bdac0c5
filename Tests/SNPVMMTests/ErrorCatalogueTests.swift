import KVMABI
import SNPVMM
import Testing

@Suite struct ErrorCatalogueTests {
    /// Every request that the VMM issues.
    static let requests = [
        "open /dev/kvm", "open /dev/sev", "mmap", "KVM_GET_API_VERSION", "KVM_CHECK_EXTENSION",
        "KVM_GET_SUPPORTED_CPUID",
        "KVM_GET_DEVICE_ATTR", "KVM_CREATE_VM", "KVM_ENABLE_CAP", "KVM_CREATE_IRQCHIP", "KVM_SET_GSI_ROUTING",
        "KVM_SEV_INIT2",
        "KVM_CREATE_GUEST_MEMFD", "KVM_SET_USER_MEMORY_REGION", "KVM_SET_USER_MEMORY_REGION2",
        "KVM_SET_MEMORY_ATTRIBUTES", "KVM_CREATE_VCPU", "KVM_GET_VCPU_MMAP_SIZE", "KVM_SET_CPUID2", "KVM_GET_SREGS",
        "KVM_SET_SREGS", "KVM_SET_REGS", "KVM_SET_MSRS", "KVM_SET_FPU", "KVM_SET_XCRS", "KVM_SET_DEBUGREGS",
        "KVM_SEV_SNP_LAUNCH_START", "KVM_SEV_SNP_LAUNCH_UPDATE", "KVM_SEV_SNP_LAUNCH_FINISH", "KVM_RUN",
        "KVM_SEV_LAUNCH_START", "KVM_SEV_LAUNCH_UPDATE_DATA", "KVM_SEV_LAUNCH_UPDATE_VMSA", "KVM_SEV_LAUNCH_MEASURE",
        "KVM_SEV_LAUNCH_SECRET", "KVM_SEV_LAUNCH_FINISH", "KVM_MEMORY_ENCRYPT_REG_REGION", "SEV_PDH_CERT_EXPORT",
        "SEV_PLATFORM_STATUS", "SNP_PLATFORM_STATUS", "SNP_SET_CONFIG", "SNP_COMMIT", "SNP_VLEK_LOAD",
    ]

    @Test func everyRefusalHasACauseANextStepAndAStatus() {
        let statuses: [FirmwareStatus?] = [nil, .noFirmwareCall] + (0...0x40).map { FirmwareStatus(rawValue: $0) }
        for request in Self.requests {
            for number in Int32(0)...133 {
                for status in number == Errno.EIO.rawValue ? statuses : [nil] {
                    let error = VMMError(
                        step: "try", request: request, errno: Errno(rawValue: number), firmwareStatus: status)
                    #expect(!error.likelyCause.isEmpty && !error.nextStep.isEmpty)
                    #expect([.hostCannot, .launchRefused, .guestFailed].contains(error.exitStatus))
                    #expect(error.description.contains(request))
                }
            }
        }
    }

    @Test func launchCommandsAreRefusalsOfTheLaunch() {
        // Some rows know better: a limit on locked memory, a kernel without SEV.
        let hosts: [String: [Errno]] = [
            "KVM_SEV_LAUNCH_START": [.ENOTTY, .EBADF], "KVM_SEV_LAUNCH_UPDATE_DATA": [.ENOMEM],
            "KVM_SEV_LAUNCH_UPDATE_VMSA": [.ENOTTY],
        ]
        for request in Self.requests where request.contains("_LAUNCH_") {
            for number in Int32(1)...133 {
                let errno = Errno(rawValue: number)
                let status = VMMError(step: "try", request: request, errno: errno).exitStatus
                #expect(
                    status == (hosts[request]?.contains(errno) == true ? .hostCannot : .launchRefused),
                    "\(request) \(errno)")
            }
        }
    }

    @Test func rowsAreReachable() {
        for entry in ErrorCatalogue.entries {
            let found = ErrorCatalogue.explain(
                request: entry.request ?? "a request of its own", errno: entry.errno ?? Errno(rawValue: 200),
                firmwareStatus: entry.firmwareStatus)
            #expect(found.likelyCause == entry.likelyCause, "\(entry)")
        }
    }

    @Test func theClosestRowWins() {
        func cause(_ request: String, _ errno: Errno, _ status: FirmwareStatus?) -> String {
            ErrorCatalogue.explain(request: request, errno: errno, firmwareStatus: status).likelyCause
        }
        let finish = "KVM_SEV_SNP_LAUNCH_FINISH"
        #expect(cause(finish, .EIO, .badMeasurement).contains("launch digest"))
        #expect(cause(finish, .EIO, .policyFailure) != cause("KVM_SEV_SNP_LAUNCH_START", .EIO, .policyFailure))
        #expect(cause(finish, .EIO, .resourceLimit) == cause("KVM_SEV_SNP_LAUNCH_START", .EIO, .resourceLimit))
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

@Suite struct GuestTerminationTests {
    @Test func everyMSRValueDecodesOrNot() {
        for set in UInt64(0)...15 {
            for reason in UInt64(0)...255 {
                let termination = GuestTermination(ghcbMSR: 0x100 | set << 12 | reason << 16, readGHCB: { _ in nil })
                #expect(termination == GuestTermination(reasonSet: UInt8(set), reason: UInt8(reason)))
                #expect(termination?.description.isEmpty == false)
                #expect(termination?.likelyCause.isEmpty == false)
            }
        }
        #expect(GuestTermination(ghcbMSR: 0x001, readGHCB: { _ in [] }) == nil)
        #expect(GuestTermination(ghcbMSR: 0x5000, readGHCB: { _ in nil }) == nil)
    }

    @Test func ghcbPagesThatAreNotTerminationsAreNot() {
        for byteCount in [0, 1, 0x390, 0x39f, 4096] {
            #expect(
                GuestTermination(ghcbMSR: 0x5000, readGHCB: { _ in [UInt8](repeating: 0xff, count: byteCount) }) == nil)
        }
    }

    @Test func linuxReasonsHaveNames() {
        #expect(
            GuestTermination(reasonSet: 1, reason: 2).description
                == "reason 1/2 (Linux: PVALIDATE failed or changed nothing)")
        #expect(GuestTermination(reasonSet: 1, reason: 77).description == "reason 1/77 (Linux: not a defined reason)")
        #expect(GuestTermination(reasonSet: 5, reason: 1).description == "reason 5/1 (set 5: not a defined reason)")
    }
}
