// Every errno that these calls can give, whatever was asked. Rows of a request say more.

import KVMABI

extension ErrorCatalogue {
    static let generalEntries: [Entry] = [
        row(nil, .EPERM, .hostCannot, "not allowed in this state, or not for this user", "see dmesg on the host"),
        row(
            nil, .EACCES, .hostCannot, "this user may not do that", check: "ls -l on the device node",
            "check the permissions of the device node"),
        row(nil, .ENOENT, .hostCannot, "the host has no such file or node", "check that the driver is loaded"),
        row(
            nil, .ENODEV, .hostCannot, "the host has no such device, or its driver gave it up",
            "look at dmesg on the host"),
        row(
            nil, .ENXIO, .hostCannot, "the kernel does not know this attribute", check: "uname -r", "use a newer kernel"
        ),
        row(nil, .EBADF, .hostCannot, "a descriptor that is closed or of another kind", reportIt),
        row(nil, .EFAULT, .hostCannot, "an address that the kernel cannot reach", reportIt),
        row(nil, .EEXIST, .hostCannot, "what was to be made exists already", reportIt),
        row(
            nil, .ENOMEM, .hostCannot, "the host is out of memory", check: "free -m; ulimit -l",
            "free memory, or use a smaller --memory"),
        row(nil, .EMFILE, .hostCannot, "too many open files", check: "ulimit -n", "raise the limit (ulimit -n)"),
        row(
            nil, .ENFILE, .hostCannot, "too many open files in the whole system", check: "cat /proc/sys/fs/file-nr",
            "raise fs.file-max"),
        row(nil, .EBUSY, .hostCannot, "the resource is used up or in use", "end other guests and try again"),
        row(nil, .EAGAIN, .hostCannot, "the host stayed busy", "try again"),
        row(nil, .EINTR, .hostCannot, "signals kept interrupting the request", "try again"),
        row(
            nil, .EINVAL, .hostCannot, "the kernel does not take these arguments", check: "uname -r",
            "use a newer kernel, or run again with --launch-log"),
        row(
            nil, .ENOTTY, .hostCannot, "the kernel does not know this request", check: "uname -r", "use a newer kernel"),
        row(nil, .ENOSYS, .hostCannot, "the kernel does not have this system call", "use a newer kernel"),
        row(nil, .EOPNOTSUPP, .hostCannot, "the kernel does not support this here", "use a newer kernel"),
        row(
            nil, .E2BIG, .hostCannot, "a list that is longer than the kernel takes",
            "report the kernel version together with --launch-log"),
        row(
            nil, .EFBIG, .hostCannot, "a file or a size beyond a limit", check: "ulimit -f",
            "raise the limit (ulimit -f)"),
        row(
            nil, .ENOSPC, .hostCannot, "no room left", check: "df; free -m",
            "make room on the file system, or free memory"),
        row(
            nil, .ETIMEDOUT, .hostCannot, "the secure processor does not answer any more", check: "dmesg | grep -i ccp",
            "reboot the host"),
        row(
            nil, .EHWPOISON, .hostCannot, "memory of the host with a hardware error", check: "dmesg | grep -i mce",
            "replace the memory module"),
    ]
}
