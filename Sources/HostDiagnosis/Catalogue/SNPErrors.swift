// Refusals of the SNP launch.

import KVMABI

extension ErrorCatalogue {
    static let snpEntries: [Entry] = startEntries + updateEntries + finishEntries

    private static let startEntries: [Entry] = [
        row(
            "KVM_SEV_SNP_LAUNCH_START", .ENOTTY, .launchRefused,
            "the secure processor made no guest context and did not say why: it stopped answering",
            check: "dmesg | grep -i ccp", "reboot the host; if it comes back, update the BIOS",
            or: Cause("the host has no page for the context", check: "free -m", next: "free memory on the host"),
            Cause("the VM is not an SNP VM", next: reportIt)),
        row(
            "KVM_SEV_SNP_LAUNCH_START", .ENOTTY, .invalidPlatformState, .launchRefused,
            "SNP_INIT never ran, or failed: the RMP is not initialised", check: "dmesg | grep -i -e SEV-SNP -e ccp",
            "look for \"failed to INIT\" in dmesg; enable SNP in the BIOS, update the SEV firmware, and start the host from cold"
        ),
        row(
            "KVM_SEV_SNP_LAUNCH_START", .ENOTTY, .invalidCommand, .launchRefused,
            "the SEV firmware is too old to make SNP guests (API below 1.51)", check: "swift-snp-vmm platform show",
            "update the SEV firmware (amd_sev_*.sbin in /lib/firmware/amd) or the BIOS"),
        row(
            "KVM_SEV_SNP_LAUNCH_START", .ENOTTY, .resourceLimit, .launchRefused,
            "the firmware has no room for another context", "end other SNP guests"),
        row(
            "KVM_SEV_SNP_LAUNCH_START", .EINVAL, .launchRefused,
            "policy bits that this kernel refuses: bit 17 must be set; kernels before 6.19 also want bit 16 (SMT) set and "
                + "bits 18 and 20 to 25 clear",
            check: "uname -r; swift-snp-vmm doctor shows the bits that the kernel accepts",
            "use --policy 0x30000, or a newer kernel",
            or: Cause("the launch was started already", next: launchAnew)),
        row(
            "KVM_SEV_SNP_LAUNCH_START", .EBADF, .launchRefused, "/dev/sev was closed before the launch started",
            reportIt),
        row("KVM_SEV_SNP_LAUNCH_START", .EFAULT, .launchRefused, "the launch's policy cannot be read", reportIt),
        row(
            "KVM_SEV_SNP_LAUNCH_START", .EBUSY, .launchRefused,
            "the secure processor stopped answering earlier: the driver refuses every command until a reboot",
            check: "dmesg | grep -i ccp", "reboot the host; if it comes back, update the BIOS"),
        row(
            "KVM_SEV_SNP_LAUNCH_START", .ETIMEDOUT, .launchRefused, "the secure processor did not answer the launch",
            check: "dmesg | grep -i ccp", "reboot the host"),
        row(
            "KVM_SEV_SNP_LAUNCH_START", .ENOMEM, .launchRefused, "the host has no page for the guest's context",
            check: "free -m", "free memory on the host"),
        row(
            "KVM_SEV_SNP_LAUNCH_START", .EIO, .policyFailure, .launchRefused,
            "the platform does not meet the guest policy: its firmware's ABI version is older than the policy's minimum",
            check: "swift-snp-vmm platform show",
            "update the SEV firmware, or ask for an older ABI in bits 15:0 of --policy",
            or: Cause(
                "SMT is on, and the policy's bit 16 does not allow it", check: "cat /sys/devices/system/cpu/smt/active",
                next: "turn SMT off in the BIOS, or set bit 16"),
            Cause(
                "the policy asks for a single socket (bit 20) on a host with two", check: "lscpu | grep Socket",
                next: "clear bit 20"),
            Cause(
                "the policy asks for ciphertext hiding, RAPL off or AES-256, which is not on",
                check: "swift-snp-vmm doctor",
                next: "enable it in the BIOS or in ccp, or clear bits 22 to 24")),
        row(
            "KVM_SEV_SNP_LAUNCH_START", .EIO, .invalidPlatformState, .launchRefused,
            "SNP is not initialised on this platform", check: "dmesg | grep -i ccp", "look at the ccp lines of dmesg"),
        row(
            "KVM_SEV_SNP_LAUNCH_START", .EIO, .asidOwned, .launchRefused, "the ASID belongs to another guest",
            "end other SNP guests and try again"),
        row(
            "KVM_SEV_SNP_LAUNCH_START", .EIO, .dfFlushRequired, .launchRefused,
            "an ASID was given back without a flush", "try again; if it stays, load kvm_amd anew"),
        row(
            "KVM_SEV_SNP_LAUNCH_START", .EIO, .resourceLimit, .launchRefused,
            "the firmware has no room for another guest context", "end other confidential guests"),
    ]

    private static let updateEntries: [Entry] = [
        row(
            "KVM_SEV_SNP_LAUNCH_UPDATE", .EINVAL, .launchRefused,
            "no private memory at this address", "check that --memory covers the image",
            or: Cause("a page type the kernel does not take, or a source that is not aligned", next: reportIt)),
        row(
            "KVM_SEV_SNP_LAUNCH_UPDATE", .EIO, .success, .launchRefused,
            "the kernel itself refused the page: no memory for it, or the cgroup's limit",
            check: "free -m; cat /sys/fs/cgroup/<group>/memory.events",
            "free memory on the host, or use a smaller --memory",
            or: Cause(
                "the page is loaded twice", check: "--launch-log: two regions at one address",
                next: "use an image whose parts do not overlap"),
            Cause("the page is not private by attribute, or a signal came", next: "try again")),
        row(
            "KVM_SEV_SNP_LAUNCH_UPDATE", .EIO, .invalidParameter, .launchRefused,
            "the firmware does not accept the contents; for a CPUID page, a feature it will not vouch for",
            "see the differences above; choose a CPU model without these features"),
        row(
            "KVM_SEV_SNP_LAUNCH_UPDATE", .EIO, .invalidPageState, .launchRefused,
            "the page is not in the state that a launch needs: the RMP has it for another use",
            check: "dmesg | grep -i -e RMP -e SEV-SNP",
            "try again; if it stays, the host's RMP is out of step: reboot the host"),
        row(
            "KVM_SEV_SNP_LAUNCH_UPDATE", .EIO, .invalidPageOwner, .launchRefused,
            "the page belongs to another guest in the RMP", check: "dmesg | grep -i RMP",
            "end the other guest and try again; if it stays, reboot the host"),
        row(
            "KVM_SEV_SNP_LAUNCH_UPDATE", .EIO, .invalidPageSize, .launchRefused,
            "the RMP entry is 2 MiB where the launch works with 4 KiB", "use a newer kernel, or try again"),
        row(
            "KVM_SEV_SNP_LAUNCH_UPDATE", .EIO, .invalidAddress, .launchRefused,
            "a page that the RMP does not cover", check: "swift-snp-vmm doctor: RMP and memory",
            "enable SNP Memory (RMP Table) Coverage for all of the memory in the BIOS"),
        row(
            "KVM_SEV_SNP_LAUNCH_UPDATE", .EIO, .inactive, .launchRefused,
            "the guest has no ASID in the firmware any more",
            launchAnew),
        row(
            "KVM_SEV_SNP_LAUNCH_UPDATE", .EIO, .invalidGuestState, .launchRefused,
            "the launch is finished, or was never started: it takes no pages", launchAnew),
        row(
            "KVM_SEV_SNP_LAUNCH_UPDATE", .EAGAIN, .launchRefused, "the secure processor stayed busy with other guests",
            "try again when fewer guests are being launched"),
        row(
            "KVM_SEV_SNP_LAUNCH_UPDATE", .EINTR, .launchRefused, "signals kept interrupting the update",
            "try again, without a debugger or a profiler's timer on the process"),
        row("KVM_SEV_SNP_LAUNCH_UPDATE", .EFAULT, .launchRefused, "the page's source is not readable", reportIt),
        row(
            "KVM_SEV_SNP_LAUNCH_UPDATE", .EBUSY, .launchRefused,
            "the secure processor stopped answering during the launch",
            check: "dmesg | grep -i ccp", "reboot the host; if it comes back, update the BIOS"),
        row(
            "KVM_SEV_SNP_LAUNCH_UPDATE", .ENOMEM, .launchRefused, "the host ran out of memory for launched pages",
            check: "free -m", "free memory on the host, or use a smaller --memory"),
    ]

    private static let finishEntries: [Entry] = [
        row(
            "KVM_SEV_SNP_LAUNCH_FINISH", .EINVAL, .launchRefused,
            "an ID block without its authentication", "give --id-block and --id-auth together",
            or: Cause("a vCPU that is sealed already or has debug registers set", next: launchAnew)),
        row(
            "KVM_SEV_SNP_LAUNCH_FINISH", .ENOTTY, .launchRefused, "the end of an SNP launch on a VM that is no SNP VM",
            reportIt),
        row(
            "KVM_SEV_SNP_LAUNCH_FINISH", .EFAULT, .launchRefused,
            "a VMSA page could not be handed to the firmware", check: "dmesg | grep -i -e RMP -e SEV-SNP",
            "look at dmesg on the host; if it names the RMP, reboot"),
        row(
            "KVM_SEV_SNP_LAUNCH_FINISH", .EBUSY, .launchRefused, "a vCPU was being created", reportIt,
            or: Cause(
                "the secure processor stopped answering", check: "dmesg | grep -i ccp", next: "reboot the host")),
        row(
            "KVM_SEV_SNP_LAUNCH_FINISH", .ENOMEM, .launchRefused, "the host has no pages for the VMSAs",
            check: "free -m",
            "free memory on the host, or use fewer --cpus"),
        row(
            "KVM_SEV_SNP_LAUNCH_FINISH", .EBADF, .launchRefused, "/dev/sev was closed before the launch was finished",
            reportIt),
        row(
            "KVM_SEV_SNP_LAUNCH_FINISH", .EIO, .badMeasurement, .launchRefused,
            "the launch digest is not the one in the ID block: another image, command line, memory size or CPU type",
            check: "swift-snp-vmm measure --explain",
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
        row(
            "KVM_SEV_SNP_LAUNCH_FINISH", .EIO, .invalidKey, .launchRefused,
            "a key of the ID authentication is no point of its curve", "make the keys and the ID authentication anew"),
        row(
            "KVM_SEV_SNP_LAUNCH_FINISH", .EIO, .invalidGuestState, .launchRefused, "the SNP launch is finished already",
            launchAnew),
    ]
}
