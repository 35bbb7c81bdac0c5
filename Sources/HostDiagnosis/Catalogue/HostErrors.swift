// Refusals before anything is launched: device nodes, the VM, its interrupt controllers, its memory.

import KVMABI

extension ErrorCatalogue {
    static let deviceEntries: [Entry] = [
        row(
            "open /dev/kvm", .ENOENT, .hostCannot, "the module kvm_amd is not loaded",
            check: "lsmod | grep kvm_amd", "load the module (modprobe kvm_amd), or use --backend software",
            or: Cause(
                "virtualisation is off in the firmware set-up", check: "grep -c svm /proc/cpuinfo",
                next: "set SVM Mode to Enabled in the BIOS"),
            Cause("a container without the device", next: "pass it: --device /dev/kvm --device /dev/sev")),
        row(
            "open /dev/kvm", .ENODEV, .hostCannot, "the node is there, but no module serves it",
            check: "dmesg | grep -i kvm", "load the module: modprobe kvm_amd"),
        row(
            "open /dev/kvm", .ENXIO, .hostCannot, "a node that was made by hand, with the wrong number",
            check: "ls -l /dev/kvm (10, 232)", "remove it and let udev make it: modprobe kvm_amd"),
        row(
            "open /dev/kvm", .EACCES, .hostCannot, "this user may not use KVM",
            check: "ls -l /dev/kvm; id -nG",
            "add the user to the group kvm (usermod -aG kvm USER) and log in again, or use "
                + "--backend software"),
        row(
            "open /dev/kvm", .EPERM, .hostCannot, "a container or a security module keeps the device away",
            check: "cat /proc/self/cgroup; dmesg | grep -i denied",
            "give the container /dev/kvm, or use --backend software"),
        row(
            "open /dev/kvm", .EBUSY, .hostCannot, "another hypervisor has the processor's virtualisation",
            check: "lsmod | grep -i -e vbox -e vmmon", "stop the other hypervisor"),
        row(
            "open /dev/sev", .ENOENT, .hostCannot, "the secure processor's driver (ccp) did not start SEV",
            check: "dmesg | grep -i -e ccp -e SEV",
            "load ccp (modprobe ccp), enable SMEE and SNP in the firmware set-up, or use --backend software",
            or: Cause(
                "a processor without a secure processor that hosts may use", check: "lscpu | grep 'Model name'",
                next: "use an EPYC: 7001 for SEV, 7002 for SEV-ES, 7003 or later for SNP"),
            Cause("a container without the secure processor's node", next: "pass it: --device /dev/sev")),
        row(
            "open /dev/sev", .ENODEV, .hostCannot, "the secure processor failed when the kernel started it",
            check: "dmesg | grep -i ccp",
            "look at the ccp lines of dmesg, update the BIOS, and start the host from cold"),
        row(
            "open /dev/sev", .EACCES, .hostCannot, "this user may not use the secure processor",
            check: "ls -l /dev/sev",
            "make a udev rule: KERNEL==\"sev\", GROUP=\"kvm\", MODE=\"0660\" (the node belongs to root alone by default)"
        ),
        row(
            "open /dev/sev", .EPERM, .hostCannot, "a container or a security module keeps the secure processor away",
            check: "cat /proc/self/cgroup; dmesg | grep -i denied", "give the container /dev/sev"),
        row(
            "KVM_GET_API_VERSION", .ENOTTY, .hostCannot, "the node /dev/kvm is not KVM's",
            check: "ls -l /dev/kvm (10, 232)", "remove it and load the module again: modprobe kvm_amd"),
        row(
            "KVM_GET_DEVICE_ATTR", .ENXIO, .hostCannot,
            "a host kernel before 6.10, which cannot initialise confidential VMs in the way used here (KVM_SEV_INIT2)",
            check: "uname -r", "update the host kernel: 6.11 for SNP",
            or: Cause(
                "a kernel built without CONFIG_KVM_AMD_SEV", check: "grep KVM_AMD_SEV /boot/config-$(uname -r)",
                next: "use a kernel that has it")),
        row(
            "KVM_GET_DEVICE_ATTR", .ENOTTY, .hostCannot,
            "a host kernel before 5.16, which has no attributes of the system",
            check: "uname -r", "update the host kernel: 6.10 for SEV and SEV-ES, 6.11 for SNP"),
        row(
            "KVM_GET_DEVICE_ATTR", .EFAULT, .hostCannot, "the attribute's value has no place to go", reportIt),
        row(
            "KVM_GET_SUPPORTED_CPUID", .E2BIG, .hostCannot, "a CPUID list with more than 4096 entries",
            "report the kernel version together with --launch-log"),
        row(
            "KVM_GET_SUPPORTED_CPUID", .ENOMEM, .hostCannot, "the host kernel has no memory for the CPUID list",
            check: "free -m", "free memory on the host"),
    ]

    static let vmEntries: [Entry] = [
        row(
            "KVM_CREATE_VM", .EINVAL, .hostCannot,
            "the kernel does not offer this VM type: kvm_amd has sev, sev_es or sev_snp off",
            check: "cat /sys/module/kvm_amd/parameters/{sev,sev_es,sev_snp}",
            "load kvm_amd with sev=1 sev_es=1 sev_snp=1; where they stay N: swift-snp-vmm doctor; or use --backend software",
            or: Cause(
                "a host kernel before 6.10 (for SNP 6.11), which has no VM types", check: "uname -r",
                next: "update the host kernel"),
            Cause(
                "SNP is off in the firmware set-up, or the kernel turned it off: no RMP, or the IOMMU in passthrough mode",
                check: "dmesg | grep -i -e SEV-SNP -e AMD-Vi",
                next: "enable SNP Memory (RMP Table) Coverage and the IOMMU in the BIOS, and remove iommu=pt")),
        row(
            "KVM_CREATE_VM", .ENOMEM, .hostCannot, "the host has no memory for another VM", check: "free -m",
            "free memory on the host, or end other guests"),
        row(
            "KVM_CREATE_VM", .EMFILE, .hostCannot, "too many open files for another VM", check: "ulimit -n",
            "raise the limit (ulimit -n, LimitNOFILE=)"),
        row(
            "KVM_CREATE_VM", .EBUSY, .hostCannot, "the processor's virtualisation is taken by another hypervisor",
            check: "dmesg | grep -i kvm", "stop the other hypervisor, then load kvm_amd again"),
        row(
            "KVM_CREATE_VM", .EINTR, .hostCannot, "a signal came while the VM was made", "start it again"),
        row(
            "KVM_ENABLE_CAP", .EINVAL, .hostCannot,
            "the kernel cannot pass page-state changes to user space (KVM_CAP_EXIT_HYPERCALL)",
            check: "uname -r", "use a kernel of 6.11 or newer"),
        row(
            "KVM_SEV_SNP_ENABLE_REQ_CERTS", .EINVAL, .hostCannot,
            "a host kernel before 7.0, which cannot ask the VMM for certificates", check: "uname -r",
            "update the host kernel, or launch without certificates: the owner brings them",
            or: Cause("the VM has vCPUs already, or is no SNP VM", next: reportIt)),
        row(
            "KVM_SEV_INIT2", .EINVAL, .hostCannot,
            "SEV_FEATURES bits that this kernel does not offer",
            "leave --guest-features at its default, or use a newer kernel",
            or: Cause("a host kernel before 6.10, which has no KVM_SEV_INIT2", check: "uname -r", next: "update it"),
            Cause("a vCPU that exists already, or a VM that is initialised", next: reportIt)),
        row(
            "KVM_SEV_INIT2", .EBUSY, .hostCannot, "every ASID for guests of this kind is in use",
            check: "cat /sys/fs/cgroup/misc.capacity /sys/fs/cgroup/misc.current",
            "end another guest of this kind, or move ASIDs in the firmware set-up: those below the minimum SEV ASID are for "
                + "SEV-ES and SNP, the others for SEV",
            or: Cause(
                "the misc cgroup limits the ASIDs of this process", check: "cat /sys/fs/cgroup/<group>/misc.max",
                next: "raise misc.max of sev or sev_es"),
            Cause(
                "the secure processor stopped answering earlier: the driver refuses everything until a reboot",
                check: "dmesg | grep -i ccp", next: "reboot the host")),
        row(
            "KVM_SEV_INIT2", .ENOTTY, .hostCannot, "no ASID is set aside for guests of this kind",
            check: "cat /sys/fs/cgroup/misc.capacity",
            "set the minimum SEV ASID in the firmware set-up: SEV-ES and SNP need one above 1, SEV needs one below the maximum",
            or: Cause(
                "SEV is off in kvm_amd", check: "cat /sys/module/kvm_amd/parameters/sev",
                next: "load kvm_amd with sev=1 sev_es=1 sev_snp=1")),
        row(
            "KVM_SEV_INIT2", .EPERM, .hostCannot, "the VM is an SNP VM already", reportIt),
        row("KVM_SEV_INIT2", .EFAULT, .hostCannot, "the initialisation's structure is not readable", reportIt),
        row(
            "KVM_SEV_INIT2", .EIO, .hostCannot, "the firmware could not be initialised",
            check: "dmesg | grep -i ccp", "look at the ccp lines of dmesg; update the SEV firmware"),
        row(
            "KVM_SEV_INIT2", .EIO, .rmpInitRequired, .hostCannot,
            "the RMP is not initialised: the kernel never ran SNP_INIT, or the BIOS gave the table no memory",
            check: "dmesg | grep -i RMP",
            "enable SNP Memory (RMP Table) Coverage in the BIOS; boot without iommu=pt; then reboot"),
        row(
            "KVM_SEV_INIT2", .EIO, .rmpInitializationFailed, .hostCannot,
            "the firmware found the RMP's memory unusable: it does not cover what it should, or a page of it is in use",
            check: "dmesg | grep -i -e RMP -e SEV-SNP", "start the host from cold; if it stays, update the BIOS"),
        row(
            "KVM_SEV_INIT2", .EIO, .invalidConfig, .hostCannot,
            "the processors are not set up alike: SNP is not on in every core, or not on every socket",
            check: "rdmsr -a 0xc0010010 (bit 24)", "update the BIOS, and give both sockets the same settings"),
        row(
            "KVM_SEV_INIT2", .EIO, .unsupported, .hostCannot, "the SEV firmware is too old for SNP",
            check: "swift-snp-vmm platform show",
            "update the SEV firmware (amd_sev_*.sbin in /lib/firmware/amd) or the BIOS"),
        row(
            "KVM_SEV_INIT2", .EIO, .secureDataInvalid, .hostCannot,
            "what the secure processor keeps in flash was changed or damaged", check: "dmesg | grep -i ccp",
            "reset it (SEV_FACTORY_RESET: snphost or sevctl), or update the BIOS; its owner certificates are lost"),
        row(
            "KVM_SEV_INIT2", .ETIMEDOUT, .hostCannot, "the secure processor did not answer the initialisation",
            check: "dmesg | grep -i ccp", "reboot the host; if it comes back, update the BIOS"),
        row(
            "KVM_SEV_INIT2", .ENODEV, .hostCannot, "the secure processor's driver is not loaded",
            check: "lsmod | grep ccp",
            "load it: modprobe ccp"),
        row(
            "KVM_SEV_INIT2", .ENOMEM, .hostCannot, "the host has no memory for the VM's encryption state",
            check: "free -m", "free memory on the host and start again"),
        row(
            "KVM_CREATE_IRQCHIP", .EEXIST, .hostCannot, "the VM has interrupt controllers already", reportIt),
        row(
            "KVM_CREATE_IRQCHIP", .EINVAL, .hostCannot, "the VM has vCPUs already, without interrupt controllers",
            reportIt),
        row("KVM_CREATE_PIT2", .EEXIST, .hostCannot, "the VM has a timer already", reportIt),
        row("KVM_CREATE_PIT2", .ENOENT, .hostCannot, "a timer without interrupt controllers in the kernel", reportIt),
        row("KVM_CREATE_PIT2", .EINVAL, .hostCannot, "flags of the timer that this kernel does not know", reportIt),
        row(
            "KVM_SET_GSI_ROUTING", .EINVAL, .hostCannot, "the kernel has no in-kernel interrupt controllers for the VM",
            check: "cat /sys/module/kvm_amd/parameters/avic",
            "check that kvm and kvm_amd are loaded without an option that moves the irqchip to user space"),
        row("KVM_IRQ_LINE", .ENXIO, .hostCannot, "an interrupt line without an interrupt controller", reportIt),
        row(
            "KVM_SIGNAL_MSI", .EINVAL, .hostCannot, "a message interrupt without a local APIC, or with unknown flags",
            reportIt),
        row("KVM_SET_TSS_ADDR", .EINVAL, .hostCannot, "a TSS above 4 GiB", reportIt),
        row(
            "KVM_SET_IDENTITY_MAP_ADDR", .EINVAL, .hostCannot, "the identity map's address after the first vCPU",
            reportIt),
        row("KVM_SET_BOOT_CPU_ID", .EBUSY, .hostCannot, "the boot vCPU is chosen after the first vCPU", reportIt),
        row("KVM_SET_CLOCK", .EINVAL, .hostCannot, "clock flags that this kernel does not know", reportIt),
        row("KVM_SET_TSC_KHZ", .EINVAL, .hostCannot, "a TSC frequency that the processor cannot scale to", reportIt),
        row(
            "KVM_MEMORY_ENCRYPT_OP", .ENOTTY, .hostCannot, "kvm_amd runs without SEV",
            check: "cat /sys/module/kvm_amd/parameters/sev", "load kvm_amd with sev=1, and look at what doctor says"),
    ]

    static let memoryEntries: [Entry] = [
        row(
            "KVM_CREATE_GUEST_MEMFD", .EINVAL, .hostCannot, "a memory size that is not a multiple of 4096",
            "use a --memory of whole MiB",
            or: Cause("flags that this kernel does not take for this kind of VM", next: reportIt)),
        row(
            "KVM_CREATE_GUEST_MEMFD", .ENOTTY, .hostCannot, "a host kernel before 6.8, which has no guest_memfd",
            check: "uname -r", "update the host kernel: 6.11 for SNP",
            or: Cause(
                "a kernel built without CONFIG_KVM_PRIVATE_MEM", check: "grep KVM_.*PRIVATE /boot/config-$(uname -r)",
                next: "use a kernel that has it")),
        row(
            "KVM_CREATE_GUEST_MEMFD", .EMFILE, .hostCannot, "too many open files for the guest's private memory",
            check: "ulimit -n", "raise the limit (ulimit -n)"),
        row(
            "KVM_CREATE_GUEST_MEMFD", .ENOMEM, .hostCannot, "the host has no memory for the private half of the guest",
            check: "free -m", "free memory on the host, or use a smaller --memory"),
        row(
            "KVM_SET_USER_MEMORY_REGION", .EEXIST, .hostCannot, "two memory slots of the old form overlap", reportIt),
        row(
            "KVM_SET_USER_MEMORY_REGION", .EINVAL, .hostCannot, "a memory slot that is not page aligned, or wraps",
            reportIt),
        row(
            "KVM_SET_USER_MEMORY_REGION2", .EEXIST, .hostCannot, "two memory slots overlap", reportIt),
        row(
            "KVM_SET_USER_MEMORY_REGION2", .EINVAL, .hostCannot,
            "the kernel does not take guest_memfd for this VM, or a range is not page aligned", check: "uname -r",
            "use a kernel of 6.11 or newer"),
        row(
            "KVM_SET_USER_MEMORY_REGION2", .ENOTTY, .hostCannot,
            "a host kernel before 6.8, without slots of private memory",
            check: "uname -r", "update the host kernel to 6.11 or newer"),
        row(
            "KVM_SET_USER_MEMORY_REGION2", .EBADF, .hostCannot, "the slot names a guest_memfd that is closed", reportIt),
        row(
            "KVM_SET_USER_MEMORY_REGION2", .ENOMEM, .hostCannot, "the host kernel has no memory for the slot's tables",
            check: "free -m", "free memory on the host, or use a smaller --memory"),
        row(
            "KVM_SET_MEMORY_ATTRIBUTES", .EINVAL, .hostCannot, "this VM has no private memory",
            check: "cat /sys/module/kvm_amd/parameters/sev_snp", "use a kernel of 6.11 or newer with kvm_amd sev_snp=1"),
        row(
            "KVM_SET_MEMORY_ATTRIBUTES", .ENOTTY, .hostCannot, "a host kernel before 6.8, without memory attributes",
            check: "uname -r", "update the host kernel to 6.11 or newer"),
        row(
            "KVM_SET_MEMORY_ATTRIBUTES", .ENOMEM, .hostCannot,
            "the host kernel has no memory for the attributes of pages",
            check: "free -m", "free memory on the host"),
        row(
            "KVM_PRE_FAULT_MEMORY", .EOPNOTSUPP, .hostCannot,
            "the SNP launch is not finished: memory is not faulted in before",
            reportIt),
        row(
            "KVM_PRE_FAULT_MEMORY", .ENOTTY, .hostCannot,
            "a host kernel before 6.11, which cannot fault memory in ahead",
            check: "uname -r", "update the host kernel, or leave prefaulting out"),
        row(
            "mmap", .ENOMEM, .hostCannot, "less address space or memory than the guest's RAM",
            check: "ulimit -v; free -m; cat /proc/sys/vm/overcommit_memory",
            "use a smaller --memory, or raise the limit (ulimit -v)",
            or: Cause(
                "too few huge pages, where they were asked for", check: "grep Huge /proc/meminfo",
                next: "raise vm.nr_hugepages")),
        row("mmap", .ENODEV, .hostCannot, "a descriptor that has no memory to map", reportIt),
        row("mmap", .EINVAL, .hostCannot, "a mapping of no bytes, or not page aligned", reportIt),
        row(
            "mmap", .EAGAIN, .hostCannot, "the limit on locked memory, where mappings are locked from the start",
            check: "ulimit -l", "raise the limit (ulimit -l unlimited)"),
        row(
            "MAP_HUGETLB", .ENOMEM, .hostCannot, "fewer reserved huge pages are free than the guest's RAM has",
            check: "grep Huge /proc/meminfo", "raise vm.nr_hugepages, or use --huge-pages on"),
        row(
            "mbind", .EINVAL, .hostCannot, "the host has no such NUMA node, or none of its memory is for this process",
            check: "cat /sys/devices/system/node/has_memory", "choose another --numa-node"),
        row(
            "mbind", .ENOSYS, .hostCannot, "a kernel built without NUMA", check: "ls /sys/devices/system/node",
            "leave --numa-node out"),
        row(
            "MADV_POPULATE_WRITE", .ENOMEM, .hostCannot,
            "the host, or the NUMA node, has less free memory than the guest's RAM",
            check: "free -m; numactl --hardware", "use a smaller --memory or another --numa-node"),
        row(
            "sched_setaffinity", .EINVAL, .hostCannot, "none of these processors is there for this process",
            check: "cat /sys/devices/system/cpu/online; taskset -p $$", "choose others for --cpu-affinity"),
    ]
}
