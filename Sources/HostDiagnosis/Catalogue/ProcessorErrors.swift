// Refusals of vCPUs: creation, registers, running.

import KVMABI

extension ErrorCatalogue {
    static let processorEntries: [Entry] = [
        row(
            "KVM_CREATE_VCPU", .EINVAL, .hostCannot, "a vCPU number beyond what the kernel allows", "use fewer --cpus",
            or: Cause("a confidential VM that is not initialised yet (KVM_SEV_INIT2)", next: reportIt)),
        row("KVM_CREATE_VCPU", .EEXIST, .hostCannot, "the vCPU exists already", reportIt),
        row(
            "KVM_CREATE_VCPU", .ENOMEM, .hostCannot, "the host has no memory for another vCPU", check: "free -m",
            "free memory on the host, or use fewer --cpus"),
        row(
            "KVM_CREATE_VCPU", .EMFILE, .hostCannot, "too many open files for the vCPUs", check: "ulimit -n",
            "raise the limit (ulimit -n), or use fewer --cpus"),
        row(
            "KVM_SET_CPUID2", .EINVAL, .hostCannot, "the kernel does not take its own CPUID list back",
            "report the kernel version together with --launch-log",
            or: Cause("the vCPU has run already", next: reportIt)),
        row(
            "KVM_SET_CPUID2", .E2BIG, .hostCannot, "a CPUID list longer than KVM's 256 entries",
            "report it with --launch-log"),
        row(
            "KVM_SET_SREGS", .EINVAL, .hostCannot,
            "a register state that the processor cannot be in: often CR3 with a C-bit that CPUID 0x8000001F does not name",
            "check that the C-bit of the host is the plan's",
            or: Cause("the vCPU is sealed: its registers are encrypted", next: reportIt)),
        row(
            "KVM_SET_SREGS2", .EINVAL, .hostCannot, "special registers that the processor cannot have together",
            reportIt),
        row("KVM_SET_REGS", .EINVAL, .hostCannot, "general registers of a vCPU that is sealed", reportIt),
        row("KVM_GET_REGS", .EINVAL, .hostCannot, "the vCPU's registers are encrypted: nobody can read them", reportIt),
        row("KVM_GET_SREGS", .EINVAL, .hostCannot, "the vCPU's special registers are encrypted", reportIt),
        row(
            "KVM_SET_MSRS", .EINVAL, .hostCannot, "an MSR that this kernel does not let the VMM set",
            "report the kernel version together with --launch-log"),
        row("KVM_SET_FPU", .EINVAL, .hostCannot, "the floating-point state of a vCPU that is sealed", reportIt),
        row(
            "KVM_SET_XSAVE", .EINVAL, .hostCannot, "an extended state with parts that the processor does not have",
            reportIt),
        row("KVM_SET_XCRS", .EINVAL, .hostCannot, "an XCR0 that the processor does not take", reportIt),
        row(
            "KVM_SET_DEBUGREGS", .EINVAL, .hostCannot, "debug registers with reserved bits, or of a sealed vCPU",
            reportIt),
        row("KVM_SET_LAPIC", .EINVAL, .hostCannot, "the state of a local APIC that the vCPU does not have", reportIt),
        row(
            "KVM_SET_MP_STATE", .EINVAL, .hostCannot, "a vCPU state that needs an interrupt controller in the kernel",
            reportIt),
        row("KVM_SET_VCPU_EVENTS", .EINVAL, .hostCannot, "an event that cannot be pending", reportIt),
        row(
            "KVM_SET_GUEST_DEBUG", .EINVAL, .hostCannot, "a protected guest cannot be debugged from outside",
            "debug it from inside, or launch it with --confidential none"),
        row(
            "KVM_INTERRUPT", .ENXIO, .hostCannot, "interrupts are the kernel's: it has the interrupt controller",
            reportIt),
        row(
            "KVM_RUN", .EINVAL, .guestFailed,
            "the guest broke the GHCB protocol: a GHCB that it did not register, or an event it says is unsupported",
            check: "the guest's last console lines", "boot the guest with earlyprintk=serial",
            or: Cause(
                "a VM that was not initialised with KVM_SEV_INIT2, or a destroyed vCPU that was made runnable",
                next: reportIt)),
        row(
            "KVM_RUN", .EFAULT, .guestFailed, "the guest touched memory in a way the host cannot resolve",
            check: "the guest's last console lines", "boot the guest with earlyprintk=serial"),
        row(
            "KVM_RUN", .EHWPOISON, .hostCannot, "a page of the host's memory has a hardware error",
            check: "dmesg | grep -i -e mce -e 'Hardware Error'", "replace the memory module"),
        row(
            "KVM_RUN", .EIO, .hostCannot, "the kernel stopped this VM after an internal error",
            check: "dmesg | grep -i kvm", "report the lines of dmesg to the kernel's maintainers"),
        row(
            "KVM_RUN", .ENOMEM, .hostCannot, "the host ran out of memory for the guest's pages",
            check: "free -m; cat /sys/fs/cgroup/<group>/memory.events",
            "free memory on the host, raise memory.max, or use a smaller --memory"),
        row("KVM_RUN", .ENOEXEC, .hostCannot, "the vCPU has no state to run from", reportIt),
        row("KVM_RUN", .EPERM, .hostCannot, "a thread of another process than the one that made the VM", reportIt),
    ]
}
