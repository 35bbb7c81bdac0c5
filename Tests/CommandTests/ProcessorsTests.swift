// Debian's kernel with several vCPUs: all of them come up, and work at the same time to the right answers.

import TestSupport
import Testing

@Suite(.enabled(if: BuiltGuest.kernel != nil && BuiltGuest.initrd != nil, "no default guest: run `make guest`"))
struct ProcessorsTests {
    static let patience: Int32 = 240_000

    /// Each SNP vCPU but the first is created by the guest with a state of its own; those of SEV and
    /// plain guests start by INIT and SIPI, those of a SEV-ES guest go by SIPI from their sealed state to the AP jump table.
    @Test(arguments: [("snp", 2), ("snp", 8), ("sev-es", 2), ("sev", 2), ("none", 2)])
    func allProcessorsWork(_ technology: String, _ cpus: Int) throws {
        let guest = try Self.guest(technology, cpus)
        let boot = guest.read(until: "guest:", timeoutMilliseconds: Self.patience)
        try #require(boot.found, "\(boot.output)")
        guest.write("echo online=$(cat /sys/devices/system/cpu/online)\n")
        let online = guest.read(until: "online=0-\(cpus - 1)", timeoutMilliseconds: Self.patience)
        #expect(online.found, "\(online.output)")
        // On each processor at once: a file is compressed and unpacked again. With the original's there are as many equal
        // digests as processors, and one.
        guest.write(
            "head -c 200000 /bin/busybox > /tmp/in; i=0; while [ $i -lt \(cpus) ]; do "
                + "(taskset -c $i gzip -c /tmp/in > /tmp/$i.gz; "
                + "taskset -c $i gunzip -c /tmp/$i.gz | sha256sum > /tmp/$i.sum) & i=$((i + 1)); done; wait; "
                + "sha256sum < /tmp/in > /tmp/want.sum; "
                + #"echo right=$(cat /tmp/*.sum | sort | uniq -c | sed 's/ *\([0-9]*\) .*/\1/')="# + "\n")
        let sums = guest.read(until: "right=\(cpus + 1)=", timeoutMilliseconds: Self.patience)
        #expect(sums.found, "\(sums.output)")
        if technology == "sev-es" {
            // One goes to an AP reset hold and comes back by another SIPI.
            guest.write(
                "o=/sys/devices/system/cpu/cpu1/online; echo 0 > $o; a=$(cat $o); echo 1 > $o; "
                    + "echo back=$a$(cat $o)$(taskset -c 1 echo here)=\n")
            let back = guest.read(until: "back=01here=", timeoutMilliseconds: Self.patience)
            #expect(back.found, "\(back.output)")
        }
        guest.write("poweroff -f\n")
        while guest.read(timeoutMilliseconds: Self.patience) != nil {}
        #expect(guest.wait().ending == .exited(0))
    }

    /// Programs that run at once disturb each other never: the same answers twenty times.
    @Test func fourProcessorsAgreeTwentyTimes() throws {
        let guest = try Self.guest("snp", 4)
        let boot = guest.read(until: "guest:", timeoutMilliseconds: Self.patience)
        try #require(boot.found, "\(boot.output)")
        // Four round trips through gzip and four digests at a time, of 32 KiB: eight equal sums each round.
        guest.write(
            "head -c 32768 /bin/busybox > /tmp/in; n=0; while [ $n -lt 20 ]; do for i in 0 1 2 3; do "
                + "(gzip -c /tmp/in | gunzip -c | sha256sum > /tmp/a$i) & (sha256sum < /tmp/in > /tmp/b$i) & done; wait; "
                + "cat /tmp/a? /tmp/b? >> /tmp/all; n=$((n + 1)); done; "
                + #"echo agreed=$(sort /tmp/all | uniq -c | sed 's/ *\([0-9]*\) .*/\1/')="# + "\n")
        let sums = guest.read(until: "agreed=160=", timeoutMilliseconds: Self.patience)
        #expect(sums.found, "\(sums.output)")
        guest.write("poweroff -f\n")
        while guest.read(timeoutMilliseconds: Self.patience) != nil {}
        #expect(guest.wait().ending == .exited(0))
    }

    private static func guest(_ technology: String, _ cpus: Int) throws -> ChildProcess {
        try ChildProcess(
            try #require(BuiltProgram.path("swift-snp-vmm")),
            [
                "run", "--backend", "software", "--kernel", try #require(BuiltGuest.kernel), "--initrd",
                try #require(BuiltGuest.initrd), "--cmdline",
                "console=ttyS0 quiet panic=-1 reboot=a 8250.nr_uarts=1 pci=off cryptomgr.notests", "--memory", "256M",
                "--confidential", technology, "--cpus", "\(cpus)",
            ], mergesError: true)
    }
}
