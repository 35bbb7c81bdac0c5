// From process start to the guest's first instruction: QEMU and us with the same kernel, initrd and memory, in turn. QEMU
// says when it asks its kernel for the first time to run the vCPU, or, without a `/dev/kvm`, when its emulator translates
// the first instruction; we are as far when the last step of the launch has been reported.

import Glibc
import TestSupport

struct StartBenchmark {
    /// The bar: our median over QEMU's, for the same plain guest.
    static let bar = 0.5
    static let memoryMiB = 512

    var runs: Int

    func run() throws {
        guard let kernel = BuiltGuest.kernel, let initrd = BuiltGuest.initrd else {
            throw BenchmarkFailure(description: "no guest: run `make guest`")
        }
        guard let ours = BuiltProgram.path("swift-snp-vmm") else {
            throw BenchmarkFailure(description: "no swift-snp-vmm beside this program: run `make build`")
        }
        let hasKVM = access("/dev/kvm", R_OK | W_OK) == 0
        let qemu =
            [
                "-m", "\(Self.memoryMiB)", "-display", "none", "-nodefaults", "-serial", "stdio", "-no-reboot",
                "-kernel", kernel, "-initrd", initrd, "-append", "console=ttyS0",
            ] + (hasKVM ? ["-accel", "kvm", "-trace", "kvm_vcpu_ioctl"] : ["-accel", "tcg", "-d", "in_asm"])
        func own(_ technology: String) -> [String] {
            [
                "run", "--backend", "software", "--confidential", technology, "--memory", "\(Self.memoryMiB)M",
                "--kernel", kernel, "--initrd", initrd,
            ]
        }
        var peer: [Double] = []
        var plain: [Double] = []
        var snp: [Double] = []
        for _ in 0..<runs {
            peer.append(try seconds("qemu-system-x86_64", qemu, until: hasKVM ? "type 0xae80" : "IN:"))
            plain.append(try seconds(ours, own("none"), until: "copy initrd"))
            snp.append(try seconds(ours, own("snp"), until: "SNP_LAUNCH_FINISH"))
        }
        print("start, \(runs) runs each: process start to the first instruction, \(Self.memoryMiB) MiB")
        print(
            "  qemu \(hasKVM ? "kvm" : "tcg") \(decimal(median(peer) * 1000, 0)) ms,"
                + " swift-snp-vmm \(decimal(median(plain) * 1000, 0)) ms,"
                + " ratio \(decimal(median(plain) / median(peer), 2)) (bar \(decimal(Self.bar, 1)))")
        print(
            "  as an SNP guest \(decimal(median(snp) * 1000, 0)) ms: every page measured twice,"
                + " by the owner's side and by the secure processor")
    }

    private func seconds(_ program: String, _ arguments: [String], until text: String) throws -> Double {
        let start = now()
        let child = try ChildProcess(program, arguments, mergesError: true)
        let (output, found) = child.read(until: text, timeoutMilliseconds: 60_000)
        let seconds = now() - start
        child.kill()
        _ = child.wait()
        guard found else {
            throw BenchmarkFailure(description: "\(program) did not print \"\(text)\"; it printed:\n\(output)")
        }
        return seconds
    }
}
