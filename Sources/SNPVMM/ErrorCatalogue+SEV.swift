// Refusals of the SEV and SEV-ES launch and of /dev/sev.

import KVMABI

extension ErrorCatalogue {
    static let sevLaunchEntries: [Entry] = startEntries + contentEntries + secretEntries

    private static let startEntries: [Entry] = [
        row(
            "KVM_SEV_LAUNCH_START", .ENOTTY, nil, .hostCannot,
            "the VM was not initialised as a SEV VM, or SEV went away with the module's reload",
            "check /sys/module/kvm_amd/parameters/sev"),
        row(
            "KVM_SEV_LAUNCH_START", .EBADF, nil, .hostCannot, "the descriptor of /dev/sev is closed or is not /dev/sev",
            "this is a bug of the VMM: please report it with --launch-log"),
        row(
            "KVM_SEV_LAUNCH_START", .EINVAL, nil, .launchRefused, "a certificate or session of 0 bytes or over 16 KiB",
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
            "throw the VM away and launch anew"),
        row(
            "KVM_SEV_LAUNCH_START", .EIO, .resourceLimit, .hostCannot, "the firmware has no room for another guest",
            "end other confidential guests"),
    ]

    private static let contentEntries: [Entry] = [
        row(
            "KVM_MEMORY_ENCRYPT_REG_REGION", .ENOMEM, nil, .hostCannot,
            "the guest's memory cannot be pinned: it is more than the limit on locked memory, or than the host has",
            "raise the limit (ulimit -l unlimited, LimitMEMLOCK=), give the process CAP_IPC_LOCK, or use a smaller --memory"
        ),
        row(
            "KVM_MEMORY_ENCRYPT_REG_REGION", .ENOTTY, nil, .hostCannot, "the VM is no SEV VM",
            "this is a bug of the VMM: please report it with --launch-log"),
        row(
            "KVM_MEMORY_ENCRYPT_REG_REGION", .EINVAL, nil, .hostCannot, "more memory than the host has",
            "use a smaller --memory"),
        row(
            "KVM_SEV_LAUNCH_UPDATE_DATA", .EIO, .invalidGuestState, .launchRefused,
            "the launch takes no contents any more (LAUNCH_MEASURE was asked), or has not been started",
            "throw the VM away and launch anew"),
        row(
            "KVM_SEV_LAUNCH_UPDATE_DATA", .EIO, .invalidAddress, .launchRefused,
            "an address that is not a multiple of 16 or not memory", "run again with --launch-log"),
        row(
            "KVM_SEV_LAUNCH_UPDATE_DATA", .EIO, .invalidLength, .launchRefused, "a length that is not a multiple of 16",
            "run again with --launch-log"),
        row(
            "KVM_SEV_LAUNCH_UPDATE_DATA", .ENOMEM, nil, .hostCannot,
            "the memory cannot be pinned: the limit on locked memory",
            "raise the limit (ulimit -l unlimited), or use a smaller --memory"),
        row(
            "KVM_SEV_LAUNCH_UPDATE_VMSA", .ENOTTY, nil, .hostCannot, "the VM is no SEV-ES VM",
            "use --confidential sev-es on a host with kvm_amd sev_es=1"),
        row(
            "KVM_SEV_LAUNCH_UPDATE_VMSA", .EINVAL, nil, .launchRefused,
            "a vCPU that is sealed already, or one with debug registers set", "run again with --launch-log"),
        row(
            "KVM_SEV_LAUNCH_MEASURE", .EIO, .invalidGuestState, .launchRefused,
            "the launch was not started, or is measured already", "throw the VM away and launch anew"),
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
            "throw the VM away and launch anew"),
        row(
            "KVM_SEV_LAUNCH_SECRET", .EIO, .invalidLength, .launchRefused,
            "a payload that is not a multiple of 16 bytes, or longer than its place", "make the packet anew"),
        row(
            "KVM_SEV_LAUNCH_SECRET", .EINVAL, nil, .launchRefused,
            "the secret's place is not inside one page, or the packet is empty", "put less into the secret table"),
    ]

    static let platformEntries: [Entry] = [
        row(
            "SEV_PDH_CERT_EXPORT", .EPERM, nil, .hostCannot,
            "this user may only read /dev/sev, and the platform is not initialised yet",
            "give the user write access to /dev/sev, or start any SEV guest before"),
        row(
            "SEV_PDH_CERT_EXPORT", .EIO, .invalidPlatformState, .hostCannot,
            "the platform is not initialised, and so has no certificates", "look at the ccp lines of dmesg"),
        row(
            "SEV_PDH_CERT_EXPORT", .EIO, .invalidLength, .hostCannot, "a firmware with longer certificates",
            "report the firmware's version"),
        row(
            "SEV_PLATFORM_STATUS", .EIO, nil, .hostCannot, "the firmware does not tell its state",
            "look at the ccp lines of dmesg"),
        row(
            "SNP_SET_CONFIG", .EIO, .invalidParameter, .hostCannot,
            "a reported TCB with a component above the committed one, or with bytes that the product does not have",
            "look at the versions with `platform show`; SNP_COMMIT (`platform set-tcb --commit`) commits the current one"
        ),
        row(
            "SNP_SET_CONFIG", .EPERM, nil, .hostCannot, "this user may only read /dev/sev",
            "give the user write access to /dev/sev"),
        row(
            "SNP_SET_CONFIG", .ENODEV, nil, .hostCannot, "SNP is not initialised on this host",
            "load kvm_amd with sev_snp=1, and enable SNP in the firmware set-up"),
        row(
            "SNP_VLEK_LOAD", .EIO, .badMeasurement, .hostCannot,
            "a hashstick that was wrapped for another chip, or changed",
            "ask the manufacturer for one for the chip id that `platform show` prints"),
        row(
            "SNP_VLEK_LOAD", .EIO, .invalidParameter, .hostCannot, "a hashstick for another product",
            "ask the manufacturer for one for the chip id that `platform show` prints"),
        row(
            "SNP_VLEK_LOAD", .EPERM, nil, .hostCannot, "this user may only read /dev/sev",
            "give the user write access to /dev/sev"),
    ]
}
