// Debian's kernel with several vCPUs: all of them come up, and work at the same time to the right answers.

import TestSupport
import Testing

@Suite(.enabled(if: BuiltGuest.kernel != nil && BuiltGuest.initrd != nil, "no default guest: run `make guest`"))
struct ProcessorsTests {
    static let patience: Int32 = 240_000

    /// Each SNP vCPU but the first is created by the guest with a state of its own; each of a plain guest by INIT and SIPI.
    @Test(arguments: [("snp", 2), ("snp", 4), ("none", 2)])
    func allProcessorsWork(_ technology: String, _ cpus: Int) throws {
        let command = try #require(BuiltProgram.path("swift-snp-vmm"))
        let guest = try ChildProcess(
            command,
            [
                "run", "--backend", "software", "--kernel", try #require(BuiltGuest.kernel), "--initrd",
                try #require(BuiltGuest.initrd), "--cmdline",
                "console=ttyS0 quiet panic=-1 reboot=a 8250.nr_uarts=1 pci=off cryptomgr.notests", "--memory", "256M",
                "--confidential", technology, "--cpus", "\(cpus)",
            ], mergesError: true)
        let boot = guest.read(until: "guest:", timeoutMilliseconds: Self.patience)
        try #require(boot.found, "\(boot.output)")
        guest.write("echo online=$(cat /sys/devices/system/cpu/online)\n")
        let online = guest.read(until: "online=0-\(cpus - 1)", timeoutMilliseconds: Self.patience)
        #expect(online.found, "\(online.output)")
        // On each processor at once: a file is compressed and unpacked again. With the original's there are as many equal
        // digests as processors, and one.
        guest.write(
            "i=0; while [ $i -lt \(cpus) ]; do (taskset -c $i gzip -c /bin/busybox > /tmp/$i.gz; "
                + "taskset -c $i gunzip -c /tmp/$i.gz | sha256sum > /tmp/$i.sum) & i=$((i + 1)); done; wait; "
                + "sha256sum < /bin/busybox > /tmp/want.sum; "
                + #"echo right=$(cat /tmp/*.sum | sort | uniq -c | sed 's/ *\([0-9]*\) .*/\1/')="# + "\n")
        let sums = guest.read(until: "right=\(cpus + 1)=", timeoutMilliseconds: Self.patience)
        #expect(sums.found, "\(sums.output)")
        guest.write("poweroff -f\n")
        while guest.read(timeoutMilliseconds: Self.patience) != nil {}
        #expect(guest.wait().ending == .exited(0))
    }
}
