// Refusals of /dev/sev: the secure processor's own commands, beside any VM.

import KVMABI

extension ErrorCatalogue {
    static let platformEntries: [Entry] = [
        row(
            "SEV_PDH_CERT_EXPORT", .EPERM, .hostCannot,
            "this user may only read /dev/sev, and the platform is not initialised yet",
            "give the user write access to /dev/sev, or start any SEV guest before"),
        row(
            "SEV_PDH_CERT_EXPORT", .EIO, .invalidPlatformState, .hostCannot,
            "the platform is not initialised, and so has no certificates", "look at the ccp lines of dmesg"),
        row(
            "SEV_PDH_CERT_EXPORT", .EIO, .invalidLength, .hostCannot, "a firmware with longer certificates",
            "report the firmware's version"),
        row(
            "SEV_PLATFORM_STATUS", .EIO, .hostCannot, "the firmware does not tell its state",
            "look at the ccp lines of dmesg"),
        row(
            "SNP_SET_CONFIG", .EIO, .invalidParameter, .hostCannot,
            "a reported TCB with a component above the committed one, or with bytes that the product does not have",
            "look at the versions with `platform show`; SNP_COMMIT (`platform set-tcb --commit`) commits the current one"
        ),
        row(
            "SNP_SET_CONFIG", .EPERM, .hostCannot, "the configuration needs write access to /dev/sev",
            "give the user write access to /dev/sev"),
        row(
            "SNP_SET_CONFIG", .ENODEV, .hostCannot, "SNP is not initialised on this host",
            "load kvm_amd with sev_snp=1, and enable SNP in the firmware set-up"),
        row(
            "SNP_VLEK_LOAD", .EIO, .badMeasurement, .hostCannot,
            "a hashstick that was wrapped for another chip, or changed",
            "ask the manufacturer for one for the chip id that `platform show` prints"),
        row(
            "SNP_VLEK_LOAD", .EIO, .invalidParameter, .hostCannot, "a hashstick for another product",
            "ask the manufacturer for one for the chip id that `platform show` prints"),
        row(
            "SNP_VLEK_LOAD", .EPERM, .hostCannot, "loading a VLEK needs write access to /dev/sev",
            "give the user write access to /dev/sev"),
        row(
            "SEV_PLATFORM_STATUS", .EBUSY, .hostCannot,
            "the secure processor stopped answering: its driver refuses every question until a reboot",
            check: "dmesg | grep -i ccp", "reboot the host; if it comes back, update the BIOS"),
        row(
            "SEV_PLATFORM_STATUS", .ETIMEDOUT, .hostCannot,
            "the secure processor did not answer the question for its state",
            check: "dmesg | grep -i ccp", "reboot the host"),
        row(
            "SEV_PLATFORM_STATUS", .ENODEV, .hostCannot, "the host has no secure processor that the driver knows",
            check: "lspci -k | grep -A3 -i 'Platform Security'", "load ccp; use an EPYC"),
        row("SEV_PLATFORM_STATUS", .EFAULT, .hostCannot, "the platform's state has no place to go", reportIt),
        row(
            "SNP_PLATFORM_STATUS", .EIO, .invalidPlatformState, .hostCannot, "SNP was never initialised on this host",
            check: "dmesg | grep -i -e SEV-SNP -e RMP", "enable SNP in the BIOS and load kvm_amd with sev_snp=1"),
        row(
            "SNP_PLATFORM_STATUS", .EIO, .invalidCommand, .hostCannot,
            "a SEV firmware from before SNP (API below 1.51)",
            check: "swift-snp-vmm platform show", "update the SEV firmware or the BIOS"),
        row(
            "SNP_PLATFORM_STATUS", .EINVAL, .hostCannot, "a host kernel before 6.9, which has no SNP commands",
            check: "uname -r", "update the host kernel: 6.11 for SNP guests"),
        row(
            "SNP_PLATFORM_STATUS", .EBUSY, .hostCannot, "the secure processor is dead until a reboot, SNP's part too",
            check: "dmesg | grep -i ccp", "reboot the host"),
        row("SNP_PLATFORM_STATUS", .EFAULT, .hostCannot, "the SNP state has no place to go", reportIt),
        row(
            "SNP_PLATFORM_STATUS", .ENODEV, .hostCannot, "the driver of the secure processor has no SNP",
            check: "uname -r",
            "use a kernel of 6.11 or newer"),
        row(
            "SEV_GET_ID2", .EIO, .invalidLength, .hostCannot, "the question for the chip id's length: this is no error",
            "ask again with the length that came back"),
        row("SEV_GET_ID2", .ENOMEM, .hostCannot, "a chip id of more than 4 MiB was asked for", reportIt),
        row("SEV_GET_ID2", .EFAULT, .hostCannot, "the chip id has no place to go", reportIt),
        row(
            "SEV_GET_ID2", .EIO, .unsupported, .hostCannot, "a firmware that does not tell its chip id",
            "update the SEV firmware"),
        row("SEV_GET_ID", .EFAULT, .hostCannot, "the ids of both sockets have no place to go", reportIt),
        row(
            "SEV_PDH_CERT_EXPORT", .EFAULT, .hostCannot, "more than 16 KiB of certificates were asked for", reportIt),
        row(
            "SEV_PEK_CSR", .EPERM, .hostCannot, "a signing request needs write access to /dev/sev",
            "give the user write access to /dev/sev"),
        row("SEV_PEK_CSR", .EFAULT, .hostCannot, "more than 16 KiB of a signing request were asked for", reportIt),
        row(
            "SEV_PEK_GEN", .EPERM, .hostCannot, "a new platform key needs write access to /dev/sev",
            "give the user write access to /dev/sev"),
        row(
            "SEV_PDH_GEN", .EPERM, .hostCannot, "a new Diffie-Hellman key needs write access to /dev/sev",
            "give the user write access to /dev/sev"),
        row(
            "SEV_PEK_CERT_IMPORT", .EPERM, .hostCannot, "taking ownership needs write access to /dev/sev",
            "give the user write access to /dev/sev"),
        row(
            "SEV_PEK_CERT_IMPORT", .EINVAL, .hostCannot, "an owner's certificate of 0 bytes or over 16 KiB",
            "pass the 2084-byte certificates"),
        row(
            "SEV_PEK_CERT_IMPORT", .EIO, .alreadyOwned, .hostCannot, "somebody owns the platform already",
            "reset it first (SEV_FACTORY_RESET)"),
        row(
            "SEV_FACTORY_RESET", .EBUSY, .hostCannot, "guests are running: the platform's keys cannot go now",
            "end all SEV and SEV-ES guests"),
        row(
            "SEV_FACTORY_RESET", .EPERM, .hostCannot, "a reset needs write access to /dev/sev",
            "give the user write access to /dev/sev"),
        row(
            "SNP_COMMIT", .EIO, .invalidPlatformState, .hostCannot,
            "there is no SNP platform whose firmware could be committed",
            "enable SNP in the BIOS and load kvm_amd with sev_snp=1"),
        row(
            "SNP_SET_CONFIG", .EIO, .invalidPlatformState, .hostCannot, "there is no SNP platform to configure",
            "enable SNP in the BIOS and load kvm_amd with sev_snp=1"),
        row("SNP_SET_CONFIG", .EINVAL, .hostCannot, "a configuration without an address", reportIt),
        row("SNP_SET_CONFIG", .EFAULT, .hostCannot, "the configuration cannot be read", reportIt),
        row(
            "SNP_VLEK_LOAD", .EINVAL, .hostCannot, "a hashstick of another version or length than the driver knows",
            "use a 432-byte hashstick of version 0"),
        row("SNP_VLEK_LOAD", .EFAULT, .hostCannot, "the hashstick cannot be read", reportIt),
        row(
            "SEV_ISSUE_CMD", .EINVAL, .hostCannot, "a command that this kernel's driver does not know",
            check: "uname -r",
            "update the host kernel"),
        row(
            "SEV_ISSUE_CMD", .EBUSY, .hostCannot, "the secure processor's driver is dead until a reboot",
            check: "dmesg | grep -i ccp", "reboot the host"),
    ]
}
