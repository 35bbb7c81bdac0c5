// What refusals usually mean, as data: one row per request, errno and firmware status that has a cause of its own. The
// most specific row that fits explains the refusal, and every refusal has one: the last rows fit everything.

import KVMABI

/// Causes and next steps by request, errno and firmware status.
public enum ErrorCatalogue {
    /// A row. A nil field fits everything.
    public struct Entry: Sendable {
        /// In the kernel's spelling, `KVM_CREATE_VM`, or "open /dev/kvm".
        public var request: String?
        public var errno: Errno?
        public var firmwareStatus: FirmwareStatus?
        public var exitStatus: VMMExitStatus
        public var likelyCause: String
        public var nextStep: String

        /// More named fields, closer fit. The request says more than the status, the status more than the errno.
        var specificity: Int {
            (request == nil ? 0 : 4) + (firmwareStatus == nil ? 0 : 2) + (errno == nil ? 0 : 1)
        }

        func fits(_ request: String, _ errno: Errno, _ firmwareStatus: FirmwareStatus?) -> Bool {
            (self.request == nil || self.request == request) && (self.errno == nil || self.errno == errno)
                && (self.firmwareStatus == nil || self.firmwareStatus == firmwareStatus)
        }
    }

    /// The row that explains a refusal. Earlier rows win among equals.
    public static func explain(request: String, errno: Errno, firmwareStatus: FirmwareStatus? = nil) -> Entry {
        var best = fallback
        var bestSpecificity = -1
        for entry in entries where entry.fits(request, errno, firmwareStatus) && entry.specificity > bestSpecificity {
            best = entry
            bestSpecificity = entry.specificity
        }
        // A row without a request cannot know at what stage the launch was: the request does.
        if best.request == nil, best.firmwareStatus == nil { best.exitStatus = stage(of: request) }
        return best
    }

    /// How a refusal of `request` ends the process when no row of its own says otherwise.
    static func stage(of request: String) -> VMMExitStatus {
        request.hasPrefix("KVM_SEV_SNP_LAUNCH") || request.hasPrefix("KVM_SEV_LAUNCH") ? .launchRefused : .hostCannot
    }

    static let fallback = Entry(
        request: nil, errno: nil, firmwareStatus: nil, exitStatus: .hostCannot,
        likelyCause: "not known for this combination of request and answer",
        nextStep: "look at the host kernel's log (dmesg) and run again with --launch-log")

    /// All rows.
    public static let entries: [Entry] =
        hostEntries + memoryEntries + processorEntries + launchEntries + sevLaunchEntries + platformEntries
        + firmwareEntries + generalEntries

    static func row(
        _ request: String?, _ errno: Errno?, _ firmwareStatus: FirmwareStatus? = nil, _ exitStatus: VMMExitStatus,
        _ likelyCause: String, _ nextStep: String
    ) -> Entry {
        Entry(
            request: request, errno: errno, firmwareStatus: firmwareStatus, exitStatus: exitStatus,
            likelyCause: likelyCause, nextStep: nextStep)
    }

    private static let hostEntries: [Entry] = [
        row(
            "open /dev/kvm", .ENOENT, nil, .hostCannot,
            "the kernel has no KVM, or virtualisation is off in the firmware",
            "load the module (modprobe kvm_amd), or use --backend software"),
        row(
            "open /dev/kvm", .EACCES, nil, .hostCannot, "this user may not use KVM",
            "add the user to the group kvm, or use --backend software"),
        row(
            "open /dev/kvm", .EPERM, nil, .hostCannot, "a container or a security module keeps the device away",
            "give the container /dev/kvm, or use --backend software"),
        row(
            "open /dev/sev", .ENOENT, nil, .hostCannot,
            "no AMD secure processor, or its driver (ccp) did not start SEV",
            "look for \"ccp\" and \"SEV\" in dmesg, enable SNP in the firmware set-up, or use --backend software"),
        row(
            "open /dev/sev", .EACCES, nil, .hostCannot, "this user may not use the secure processor",
            "give the user read and write access to /dev/sev"),
        row(
            "KVM_CREATE_VM", .EINVAL, nil, .hostCannot,
            "the kernel does not offer this VM type: it needs Linux 6.10, for SNP 6.11, and kvm_amd with sev=1, sev_es=1 or sev_snp=1",
            "check /sys/module/kvm_amd/parameters/ and the firmware set-up, or use --backend software"),
        row(
            "KVM_CREATE_VM", .ENOMEM, nil, .hostCannot, "the host is out of memory", "free memory on the host"),
        row(
            "KVM_ENABLE_CAP", .EINVAL, nil, .hostCannot,
            "the kernel cannot pass page-state changes to user space (KVM_CAP_EXIT_HYPERCALL)",
            "use a kernel of 6.11 or newer"),
        row(
            "KVM_SEV_SNP_ENABLE_REQ_CERTS", .EINVAL, nil, .hostCannot,
            "a host kernel before 7.0, which cannot ask the VMM for certificates",
            "update the host kernel, or launch without certificates: the owner brings them"),
        row(
            "KVM_SEV_INIT2", .EINVAL, nil, .hostCannot,
            "SEV_FEATURES bits that this kernel does not offer, or a vCPU that exists already",
            "leave --guest-features at its default, or use a newer kernel"),
        row(
            "KVM_SEV_INIT2", .EBUSY, nil, .hostCannot,
            "every ASID for guests of this kind is in use, or the misc cgroup limits them",
            "end another guest of this kind, raise the misc cgroup limit, or move ASIDs in the firmware set-up: those below "
                + "the minimum SEV ASID are for SEV-ES and SNP, the others for SEV"),
        row(
            "KVM_SEV_INIT2", .ENOTTY, nil, .hostCannot, "SEV is off, or no ASID is set aside for guests of this kind",
            "load kvm_amd with sev=1 (sev_es=1, sev_snp=1), and look at the minimum SEV ASID in the firmware set-up: SEV-ES "
                + "and SNP need one above 1, SEV needs one below the maximum"),
        row(
            "KVM_SEV_INIT2", .EIO, nil, .hostCannot, "the firmware could not be initialised",
            "look at the ccp lines of dmesg; update the SEV firmware"),
        row(
            "KVM_CREATE_IRQCHIP", .EEXIST, nil, .hostCannot, "the VM has interrupt controllers already",
            "this is a bug of the VMM: please report it with --launch-log"),
        row(
            "KVM_SET_GSI_ROUTING", .EINVAL, nil, .hostCannot,
            "the kernel has no in-kernel interrupt controllers for the VM",
            "check that kvm and kvm_amd are loaded without an option that moves the irqchip to user space"),
    ]

    private static let memoryEntries: [Entry] = [
        row(
            "KVM_CREATE_GUEST_MEMFD", .EINVAL, nil, .hostCannot, "a memory size that is not a multiple of 4096",
            "use a --memory of whole MiB"),
        row(
            "KVM_CREATE_GUEST_MEMFD", .EMFILE, nil, .hostCannot, "too many open files", "raise the limit (ulimit -n)"),
        row(
            "KVM_SET_USER_MEMORY_REGION2", .EEXIST, nil, .hostCannot, "two memory slots overlap",
            "this is a bug of the VMM: please report it with --launch-log"),
        row(
            "KVM_SET_USER_MEMORY_REGION2", .EINVAL, nil, .hostCannot,
            "the kernel does not take guest_memfd for this VM, or a range is not page aligned",
            "use a kernel of 6.11 or newer"),
        row(
            "KVM_SET_MEMORY_ATTRIBUTES", .EINVAL, nil, .hostCannot, "this VM has no private memory",
            "use a kernel of 6.11 or newer with kvm_amd sev_snp=1"),
        row(
            "mmap", .ENOMEM, nil, .hostCannot, "less address space or memory than the guest's RAM",
            "use a smaller --memory, or raise the limit (ulimit -v)"),
    ]

    private static let processorEntries: [Entry] = [
        row(
            "KVM_CREATE_VCPU", .EINVAL, nil, .hostCannot, "a vCPU number beyond what the kernel allows",
            "use fewer --cpus"),
        row(
            "KVM_CREATE_VCPU", .EEXIST, nil, .hostCannot, "the vCPU exists already",
            "this is a bug of the VMM: please report it with --launch-log"),
        row(
            "KVM_SET_CPUID2", .EINVAL, nil, .hostCannot, "the kernel does not take its own CPUID list back",
            "report the kernel version together with --launch-log"),
        row(
            "KVM_SET_SREGS", .EINVAL, nil, .hostCannot,
            "a register state that the processor cannot be in: often CR3 with a C-bit that CPUID 0x8000001F does not name",
            "check that the C-bit of the host is the plan's"),
        row(
            "KVM_SET_MSRS", .EINVAL, nil, .hostCannot, "an MSR that this kernel does not let the VMM set",
            "report the kernel version together with --launch-log"),
        row(
            "KVM_RUN", .EINVAL, nil, .guestFailed,
            "the guest broke the GHCB protocol: a GHCB that it did not register, or an event it says is unsupported",
            "look at the guest's last console lines; boot it with earlyprintk=serial"),
        row(
            "KVM_RUN", .EFAULT, nil, .guestFailed, "the guest touched memory in a way the host cannot resolve",
            "look at the guest's last console lines; boot it with earlyprintk=serial"),
        row(
            "KVM_RUN", .EHWPOISON, nil, .hostCannot, "a page of the host's memory has a hardware error",
            "look at the machine-check lines of dmesg and replace the memory"),
        row(
            "KVM_RUN", .EIO, nil, .hostCannot, "the kernel stopped this VM after an internal error",
            "look at dmesg on the host"),
        row(
            "KVM_RUN", .ENOMEM, nil, .hostCannot, "the host ran out of memory for the guest's pages",
            "free memory on the host, or use a smaller --memory"),
    ]

    private static let launchEntries: [Entry] = [
        row(
            "KVM_SEV_SNP_LAUNCH_START", .ENOTTY, nil, .launchRefused,
            "the firmware could not make a guest context, or the VM is not an SNP VM",
            "look at the firmware status and at the ccp lines of dmesg"),
        row(
            "KVM_SEV_SNP_LAUNCH_START", .EINVAL, nil, .launchRefused,
            "policy bits that this kernel refuses: bit 17 must be set; kernels before 6.19 also want bit 16 (SMT) set and "
                + "bits 18 and 20 to 25 clear",
            "use --policy 0x30000, or a newer kernel"),
        row(
            "KVM_SEV_SNP_LAUNCH_START", .EIO, .policyFailure, .launchRefused,
            "the platform does not meet the guest policy: firmware version, SMT, single socket or a feature bit",
            "compare --policy with the platform status of the host"),
        row(
            "KVM_SEV_SNP_LAUNCH_START", .EIO, .invalidPlatformState, .launchRefused,
            "SNP is not initialised on this platform", "look at the ccp lines of dmesg"),
        row(
            "KVM_SEV_SNP_LAUNCH_START", .EIO, .asidOwned, .launchRefused, "the ASID belongs to another guest",
            "end other SNP guests and try again"),
        row(
            "KVM_SEV_SNP_LAUNCH_START", .EIO, .dfFlushRequired, .launchRefused,
            "an ASID was given back without a flush", "try again; if it stays, load kvm_amd anew"),
        row(
            "KVM_SEV_SNP_LAUNCH_UPDATE", .EINVAL, nil, .launchRefused,
            "no private memory at this address, a page type the kernel does not take, or a source that is not aligned",
            "check that --memory covers the image"),
        row(
            "KVM_SEV_SNP_LAUNCH_UPDATE", .EIO, .success, .launchRefused,
            "the kernel itself refused the page: not private by attribute, or loaded twice",
            "run again with --launch-log and look for two regions at one address"),
        row(
            "KVM_SEV_SNP_LAUNCH_UPDATE", .EIO, .invalidParameter, .launchRefused,
            "the firmware does not accept the contents; for a CPUID page, a feature it will not vouch for",
            "see the differences above; choose a CPU model without these features"),
        row(
            "KVM_SEV_SNP_LAUNCH_UPDATE", .EIO, .invalidPageState, .launchRefused,
            "the page is not in the state that a launch needs: the RMP has it for another use",
            "try again; if it stays, the host's RMP is out of step: reboot the host"),
        row(
            "KVM_SEV_SNP_LAUNCH_UPDATE", .EIO, .invalidPageOwner, .launchRefused,
            "the page belongs to another guest in the RMP", "try again; if it stays, reboot the host"),
        row(
            "KVM_SEV_SNP_LAUNCH_UPDATE", .EIO, .invalidPageSize, .launchRefused,
            "the RMP entry is 2 MiB where the launch works with 4 KiB", "use a kernel with the fix, or try again"),
        row(
            "KVM_SEV_SNP_LAUNCH_UPDATE", .EAGAIN, nil, .launchRefused, "the firmware stayed busy",
            "try again when the host is less busy"),
        row(
            "KVM_SEV_SNP_LAUNCH_FINISH", .EINVAL, nil, .launchRefused,
            "a vCPU that is sealed already or has debug registers set, or an ID block without its authentication",
            "give --id-block and --id-auth together"),
        row(
            "KVM_SEV_SNP_LAUNCH_FINISH", .EFAULT, nil, .launchRefused,
            "a VMSA page could not be handed to the firmware",
            "look at dmesg on the host"),
        row(
            "KVM_SEV_SNP_LAUNCH_FINISH", .EBUSY, nil, .launchRefused, "a vCPU was being created",
            "this is a bug of the VMM: please report it with --launch-log"),
        row(
            "KVM_SEV_SNP_LAUNCH_FINISH", .EIO, .badMeasurement, .launchRefused,
            "the launch digest is not the one in the ID block: another image, command line, memory size or CPU type",
            "compare the ID block's digest with what swift-snp-vmm measure prints for the same options"),
        row(
            "KVM_SEV_SNP_LAUNCH_FINISH", .EIO, .policyFailure, .launchRefused,
            "the ID block was made for another guest policy", "pass the ID block's policy with --policy"),
        row(
            "KVM_SEV_SNP_LAUNCH_FINISH", .EIO, .badSignature, .launchRefused,
            "a signature in the ID authentication does not fit the ID block or the author key",
            "make the ID authentication anew from this ID block"),
        row(
            "KVM_SEV_SNP_LAUNCH_FINISH", .EIO, .invalidParameter, .launchRefused,
            "the ID authentication has an algorithm, a key or a reserved field that the firmware does not know",
            "use ECDSA P-384 with SHA-384 for both keys, and zero the reserved fields"),
        row(
            "KVM_SEV_SNP_LAUNCH_FINISH", .EIO, .badVersion, .launchRefused,
            "the ID block has a version that the firmware does not know", "make the ID block anew with version 1"),
    ]

    /// Firmware statuses that mean the same whatever was asked.
    private static let firmwareEntries: [Entry] = [
        row(
            nil, .EIO, .noFirmwareCall, .hostCannot, "the driver did not reach the firmware",
            "look at the ccp lines of dmesg"),
        row(
            nil, .EIO, .invalidPlatformState, .hostCannot, "the platform is not initialised for this command",
            "look at the ccp lines of dmesg"),
        row(
            nil, .EIO, .invalidGuestState, .launchRefused, "the command came out of order for this guest",
            "throw the VM away and launch anew"),
        row(
            nil, .EIO, .policyFailure, .launchRefused, "the guest policy forbids it", "look at --policy"),
        row(
            nil, .EIO, .invalidAddress, .launchRefused, "an address that the firmware does not accept",
            "run again with --launch-log"),
        row(
            nil, .EIO, .resourceLimit, .hostCannot, "the firmware has no room for another guest",
            "end other confidential guests"),
        row(
            nil, .EIO, .hardwarePlatform, .hostCannot, "the hardware reported a platform failure",
            "look at dmesg; a cold reset may help"),
        row(
            nil, .EIO, .hardwareUnsafe, .hostCannot, "the hardware reported a condition that is not safe",
            "look at dmesg; a cold reset may help"),
        row(
            nil, .EIO, .unsupported, .hostCannot, "this firmware does not know the command or feature",
            "update the SEV firmware"),
        row(
            nil, .EIO, .invalidCommand, .hostCannot, "this firmware does not know the command",
            "update the SEV firmware"),
        row(
            nil, .EIO, .rmpInitRequired, .hostCannot, "the RMP is not initialised",
            "boot the host with SNP enabled in the firmware set-up"),
        row(
            nil, .EIO, .shutdownRequired, .hostCannot, "the firmware wants a shutdown before it goes on",
            "load the ccp and kvm_amd modules anew, or reboot the host"),
        row(
            nil, .EIO, .updateFailed, .hostCannot, "a firmware update failed", "update the SEV firmware again"),
        row(
            nil, .EIO, nil, .launchRefused, "the firmware refused", "look up the firmware status; see dmesg on the host"
        ),
    ]

    /// Errnos that mean the same whatever was asked.
    private static let generalEntries: [Entry] = [
        row(nil, .EPERM, nil, .hostCannot, "not allowed in this state, or not for this user", "see dmesg on the host"),
        row(nil, .EACCES, nil, .hostCannot, "this user may not do that", "check the permissions of the device node"),
        row(nil, .ENOENT, nil, .hostCannot, "the host has no such device", "check that the driver is loaded"),
        row(nil, .ENODEV, nil, .hostCannot, "the host has no such device", "check that the driver is loaded"),
        row(nil, .ENXIO, nil, .hostCannot, "the kernel does not know this attribute", "use a newer kernel"),
        row(
            nil, .EBADF, nil, .hostCannot, "a descriptor that is closed or of another kind",
            "this is a bug of the VMM: please report it with --launch-log"),
        row(
            nil, .EFAULT, nil, .hostCannot, "an address that the kernel cannot reach",
            "this is a bug of the VMM: please report it with --launch-log"),
        row(nil, .ENOMEM, nil, .hostCannot, "the host is out of memory", "free memory, or use a smaller --memory"),
        row(nil, .EMFILE, nil, .hostCannot, "too many open files", "raise the limit (ulimit -n)"),
        row(nil, .EBUSY, nil, .hostCannot, "the resource is used up or in use", "end other guests and try again"),
        row(nil, .EAGAIN, nil, .hostCannot, "the host stayed busy", "try again"),
        row(nil, .EINTR, nil, .hostCannot, "signals kept interrupting the request", "try again"),
        row(
            nil, .EINVAL, nil, .hostCannot, "the kernel does not take these arguments",
            "use a newer kernel, or run again with --launch-log"),
        row(nil, .ENOTTY, nil, .hostCannot, "the kernel does not know this request", "use a newer kernel"),
        row(nil, .ENOSYS, nil, .hostCannot, "the kernel does not know this request", "use a newer kernel"),
        row(nil, .EOPNOTSUPP, nil, .hostCannot, "the kernel does not support this here", "use a newer kernel"),
        row(
            nil, .E2BIG, nil, .hostCannot, "a list that is longer than the kernel takes",
            "report the kernel version together with --launch-log"),
        row(nil, .ETIMEDOUT, nil, .hostCannot, "the secure processor does not answer any more", "reboot the host"),
    ]
}
