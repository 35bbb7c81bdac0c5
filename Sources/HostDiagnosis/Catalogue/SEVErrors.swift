// Refusals of the SEV and SEV-ES launch, and of the commands for running SEV guests.

import KVMABI

extension ErrorCatalogue {
    static let sevEntries: [Entry] = startEntries + contentEntries + secretEntries + otherEntries

    private static let startEntries: [Entry] = [
        row(
            "KVM_SEV_LAUNCH_START", .ENOTTY, .hostCannot,
            "the VM was not initialised as a SEV VM, or SEV went away with the module's reload",
            "check /sys/module/kvm_amd/parameters/sev"),
        row(
            "KVM_SEV_LAUNCH_START", .EBADF, .hostCannot, "the descriptor of /dev/sev is closed or is not /dev/sev",
            reportIt),
        row(
            "KVM_SEV_LAUNCH_START", .EINVAL, .launchRefused, "a certificate or session of 0 bytes or over 16 KiB",
            "pass the 2084-byte certificate with --owner-cert and the 128-byte session with --session"),
        row(
            "KVM_SEV_LAUNCH_START", .EIO, .badMeasurement, .launchRefused,
            "the session does not belong to this platform, to this certificate or to this policy: it was changed, made for "
                + "another --policy, or made before the platform's PDH changed",
            "make a session from this platform's present certificates, and launch with the policy it was made for"),
        row(
            "KVM_SEV_LAUNCH_START", .EIO, .badSignature, .launchRefused,
            "a signature in the owner's certificate does not fit, or it was changed",
            "make certificate and session anew: swift-snp-vmm owner session"),
        row(
            "KVM_SEV_LAUNCH_START", .EIO, .invalidCertificate, .launchRefused,
            "the owner's certificate is not one: wrong length, version, usage or algorithm, or a point off the curve",
            "pass the owner's certificate (not the platform's) with --owner-cert, or make it anew"),
        row(
            "KVM_SEV_LAUNCH_START", .EIO, .alreadyOwned, .launchRefused, "the platform has an owner already",
            "leave the platform's owner alone: a guest's launch does not need it"),
        row(
            "KVM_SEV_LAUNCH_START", .EIO, .policyFailure, .launchRefused,
            "the policy asks for what this platform is not: a newer API than the firmware has, SEV-ES where it is not "
                + "configured, or reserved bits",
            "look at the API version and the ES bit (0x4) of --policy"),
        row(
            "KVM_SEV_LAUNCH_START", .EIO, .invalidASID, .launchRefused,
            "the policy's ES bit and the guest's kind do not agree: SEV-ES guests and others have ASIDs of their own",
            "set the ES bit (0x4) of --policy for sev-es, and clear it for sev"),
        row(
            "KVM_SEV_LAUNCH_START", .EIO, .invalidGuestState, .launchRefused, "this VM has been started already",
            launchAnew),
        row(
            "KVM_SEV_LAUNCH_START", .EIO, .resourceLimit, .hostCannot, "the firmware has no room for another guest",
            "end other confidential guests"),
    ]

    private static let contentEntries: [Entry] = [
        row(
            "KVM_MEMORY_ENCRYPT_REG_REGION", .ENOMEM, .hostCannot,
            "the guest's memory cannot be pinned: it is more than the limit on locked memory, or than the host has",
            "raise the limit (ulimit -l unlimited, LimitMEMLOCK=), give the process CAP_IPC_LOCK, or use a smaller --memory"
        ),
        row(
            "KVM_MEMORY_ENCRYPT_REG_REGION", .ENOTTY, .hostCannot, "the VM is no SEV VM",
            reportIt),
        row(
            "KVM_MEMORY_ENCRYPT_REG_REGION", .EINVAL, .hostCannot, "more memory than the host has",
            "use a smaller --memory"),
        row(
            "KVM_SEV_LAUNCH_UPDATE_DATA", .EIO, .invalidGuestState, .launchRefused,
            "the launch takes no contents any more (LAUNCH_MEASURE was asked), or has not been started",
            launchAnew),
        row(
            "KVM_SEV_LAUNCH_UPDATE_DATA", .EIO, .invalidAddress, .launchRefused,
            "an address that is not a multiple of 16 or not memory", "run again with --launch-log"),
        row(
            "KVM_SEV_LAUNCH_UPDATE_DATA", .EIO, .invalidLength, .launchRefused, "a length that is not a multiple of 16",
            "run again with --launch-log"),
        row(
            "KVM_SEV_LAUNCH_UPDATE_DATA", .ENOMEM, .hostCannot,
            "the memory cannot be pinned: the limit on locked memory",
            "raise the limit (ulimit -l unlimited), or use a smaller --memory"),
        row(
            "KVM_SEV_LAUNCH_UPDATE_VMSA", .ENOTTY, .hostCannot, "the VM is no SEV-ES VM",
            "use --confidential sev-es on a host with kvm_amd sev_es=1"),
        row(
            "KVM_SEV_LAUNCH_UPDATE_VMSA", .EINVAL, .launchRefused,
            "a vCPU that is sealed already, or one with debug registers set", "run again with --launch-log"),
        row(
            "KVM_SEV_LAUNCH_MEASURE", .EIO, .invalidGuestState, .launchRefused,
            "the launch was not started, or is measured already", launchAnew),
    ]

    private static let secretEntries: [Entry] = [
        row(
            "KVM_SEV_LAUNCH_SECRET", .EIO, .badMeasurement, .launchRefused,
            "the packet does not belong to this launch: it was changed, or made for another measurement or another session "
                + "(a packet of an earlier launch is no use)",
            "make the packet from this launch's measurement: swift-snp-vmm owner secret"),
        row(
            "KVM_SEV_LAUNCH_SECRET", .EIO, .policyFailure, .launchRefused,
            "the guest policy forbids the packet's flags",
            "make the packet without compression"),
        row(
            "KVM_SEV_LAUNCH_SECRET", .EIO, .invalidGuestState, .launchRefused,
            "the launch is not in the state SECRET: it has not been measured, or it is finished",
            launchAnew),
        row(
            "KVM_SEV_LAUNCH_SECRET", .EIO, .invalidLength, .launchRefused,
            "a payload that is not a multiple of 16 bytes, or longer than its place", "make the packet anew"),
        row(
            "KVM_SEV_LAUNCH_SECRET", .EINVAL, .launchRefused,
            "the secret's place is not inside one page, or the packet is empty", "put less into the secret table"),
    ]

    private static let otherEntries: [Entry] = [
        row("KVM_SEV_LAUNCH_START", .EFAULT, .launchRefused, "the session or the certificate cannot be read", reportIt),
        row(
            "KVM_SEV_LAUNCH_START", .EBUSY, .hostCannot,
            "the secure processor stopped answering before this SEV launch: the driver refuses everything until a reboot",
            check: "dmesg | grep -i ccp", "reboot the host"),
        row(
            "KVM_SEV_LAUNCH_START", .ENOMEM, .hostCannot, "the host has no memory for the session's copy",
            check: "free -m",
            "free memory on the host"),
        row(
            "KVM_SEV_LAUNCH_UPDATE_DATA", .EINVAL, .launchRefused, "an empty range, or one beyond the host's memory",
            "check that --memory covers the image"),
        row(
            "KVM_SEV_LAUNCH_UPDATE_DATA", .EFAULT, .launchRefused, "guest memory that is not mapped any more", reportIt),
        row("KVM_SEV_LAUNCH_UPDATE_DATA", .ENOTTY, .launchRefused, "contents for a VM that is no SEV VM", reportIt),
        row(
            "KVM_SEV_LAUNCH_UPDATE_VMSA", .EBUSY, .launchRefused,
            "a vCPU was being created while the VMSAs were sealed", reportIt),
        row(
            "KVM_SEV_LAUNCH_UPDATE_VMSA", .EIO, .invalidGuestState, .launchRefused,
            "the launch takes no VMSAs any more, or has not been started", launchAnew),
        row(
            "KVM_SEV_LAUNCH_UPDATE_VMSA", .ENOMEM, .hostCannot, "the host has no page for a VMSA", check: "free -m",
            "free memory on the host"),
        row(
            "KVM_SEV_LAUNCH_MEASURE", .EINVAL, .launchRefused, "a measurement of more than 16 KiB was asked for",
            reportIt),
        row("KVM_SEV_LAUNCH_MEASURE", .ENOTTY, .launchRefused, "a measurement of a VM that is no SEV VM", reportIt),
        row("KVM_SEV_LAUNCH_MEASURE", .EFAULT, .launchRefused, "the measurement has no place to go", reportIt),
        row(
            "KVM_SEV_LAUNCH_MEASURE", .EIO, .invalidLength, .launchRefused,
            "the question for the measurement's length: this is no error", "ask again with the length that came back"),
        row("KVM_SEV_LAUNCH_SECRET", .ENOTTY, .launchRefused, "a secret for a VM that is no SEV VM", reportIt),
        row("KVM_SEV_LAUNCH_SECRET", .EFAULT, .launchRefused, "the secret's packet cannot be read", reportIt),
        row(
            "KVM_SEV_LAUNCH_SECRET", .ENOMEM, .hostCannot, "the secret's page cannot be pinned", check: "ulimit -l",
            "raise the limit on locked memory (ulimit -l unlimited)"),
        row(
            "KVM_SEV_LAUNCH_FINISH", .ENOTTY, .launchRefused, "the end of a launch on a VM that is no SEV VM", reportIt),
        row(
            "KVM_SEV_LAUNCH_FINISH", .EIO, .invalidGuestState, .launchRefused,
            "the end came out of order: the launch was not measured, or is finished already", launchAnew),
        row("KVM_SEV_GUEST_STATUS", .ENOTTY, .hostCannot, "the state of a VM that is no SEV VM", reportIt),
        row(
            "KVM_SEV_GET_ATTESTATION_REPORT", .ENOTTY, .hostCannot,
            "a SEV report of a VM that is no SEV VM: SNP guests ask for theirs themselves",
            "ask in the guest: snp-guest-agent"),
        row(
            "KVM_SEV_DBG_DECRYPT", .EIO, .policyFailure, .hostCannot, "the guest's policy forbids debugging (NODBG)",
            "launch it with a policy that has bit 0 clear"),
        row(
            "KVM_SEV_DBG_ENCRYPT", .EIO, .policyFailure, .hostCannot,
            "the guest's policy forbids writing to it for debugging (NODBG)",
            "launch it with a policy that has bit 0 clear"),
        row("KVM_SEV_DBG_DECRYPT", .EINVAL, .hostCannot, "a debug range that is empty or wraps", reportIt),
        row(
            "KVM_SEV_DBG_ENCRYPT", .EINVAL, .hostCannot, "a range to write for debugging that is empty or wraps",
            reportIt),
        row(
            "KVM_SEV_SEND_START", .EIO, .unsupported, .hostCannot, "a firmware that does not send guests away",
            "start the guest anew on the other host"),
        row(
            "KVM_SEV_RECEIVE_START", .EIO, .unsupported, .hostCannot, "a firmware that does not take guests in",
            "start the guest anew on this host"),
        row(
            "KVM_SEV_SEND_START", .EIO, .policyFailure, .hostCannot, "the guest's policy forbids sending it (NOSEND)",
            "launch it with a policy that has bit 3 clear"),
        row(
            "KVM_MEMORY_ENCRYPT_UNREG_REGION", .EINVAL, .hostCannot,
            "address and size are not those of a registration", reportIt),
        row("KVM_MEMORY_ENCRYPT_UNREG_REGION", .ENOTTY, .hostCannot, "a region of a VM that is no SEV VM", reportIt),
        row(
            "KVM_SEV_INIT", .EINVAL, .hostCannot, "the old initialisation on a VM type that takes only KVM_SEV_INIT2",
            reportIt),
        row(
            "KVM_SEV_ES_INIT", .EINVAL, .hostCannot,
            "the old SEV-ES initialisation on a VM type that takes only KVM_SEV_INIT2",
            reportIt),
        row(
            "KVM_SEV_ES_INIT", .ENOTTY, .hostCannot, "SEV-ES is off in kvm_amd",
            check: "cat /sys/module/kvm_amd/parameters/sev_es", "load kvm_amd with sev_es=1"),
    ]
}
