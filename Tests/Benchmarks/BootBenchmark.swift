// The same kernel, initrd and command line, booted by QEMU's emulator as an ordinary guest and by us as an SNP guest, in
// turn, from process start to the line BOOT-OK. QEMU translates to host code and encrypts nothing: it is the peer, not
// the same work.

import Glibc
import TestSupport

struct BootBenchmark {
    enum CommandLineKind: String, CaseIterable {
        /// Without the kernel's tests of its own cryptography, two thirds of a stock boot's instructions.
        case notests
        /// What any boot does.
        case `default`

        var text: String {
            "console=ttyS0 quiet panic=-1 reboot=a" + (self == .notests ? " cryptomgr.notests" : "") + " snp.autotest"
        }
    }

    /// One boot.
    struct Sample {
        var seconds: Double
        var peakKiB: Int
        /// Resident when the guest printed its line: of guest memory, of everything else that is the process's own, and
        /// of program and library files, which processes share.
        var guestKiB: Int
        var ownKiB: Int
        var fileKiB: Int
        /// Everything the program printed.
        var output: String
    }

    /// The bar: our median over QEMU's, for `notests`.
    static let bar = 3.0
    static let memoryMiB = 512
    /// The bar for what we hold beyond the guest memory that was touched, files aside.
    static let memoryBarMiB = 16

    var runs: Int
    var kinds: [CommandLineKind]

    func run() throws {
        guard let kernel = BuiltGuest.kernel, let initrd = BuiltGuest.initrd else {
            throw BenchmarkFailure(description: "no guest: run `make guest`")
        }
        guard let ours = BuiltProgram.path("swift-snp-vmm") else {
            throw BenchmarkFailure(description: "no swift-snp-vmm beside this program: run `make build`")
        }
        for kind in kinds {
            print("boot, \(kind.rawValue): \(kind.text)")
            var peer: [Sample] = []
            var own: [Sample] = []
            for round in 1...runs {
                let qemu = try boot(
                    "qemu-system-x86_64",
                    [
                        "-accel", "tcg", "-cpu", "qemu64", "-m", "\(Self.memoryMiB)", "-display", "none", "-nodefaults",
                        "-serial", "stdio", "-no-reboot", "-kernel", kernel, "-initrd", initrd, "-append", kind.text,
                    ])
                let vmm = try boot(
                    ours,
                    [
                        "run", "--backend", "software", "--confidential", "snp", "--memory", "\(Self.memoryMiB)M",
                        "--kernel", kernel, "--initrd", initrd, "--cmdline", kind.text,
                    ])
                guard vmm.output.contains("AMD SEV SEV-ES SEV-SNP") else {
                    throw BenchmarkFailure(description: "our guest did not run as an SNP guest:\n\(vmm.output)")
                }
                peer.append(qemu)
                own.append(vmm)
                print(
                    "  run \(round): qemu tcg \(decimal(qemu.seconds, 2)) s, \(qemu.peakKiB >> 10) MiB;"
                        + " swift-snp-vmm \(decimal(vmm.seconds, 2)) s, \(vmm.peakKiB >> 10) MiB")
            }
            let ratio = median(own.map(\.seconds)) / median(peer.map(\.seconds))
            print(
                "  median: qemu tcg \(decimal(median(peer.map(\.seconds)), 2)) s,"
                    + " swift-snp-vmm \(decimal(median(own.map(\.seconds)), 2)) s, ratio \(decimal(ratio, 2))"
                    + (kind == .notests ? " (bar \(decimal(Self.bar, 1)))" : ""))
            func largest(_ samples: [Sample], _ part: KeyPath<Sample, Int>) -> Int {
                Double(samples.map { $0[keyPath: part] }.max() ?? 0).mib
            }
            print(
                "  resident at BOOT-OK: guest memory touched \(median(own.map { Double($0.guestKiB) }).rounded().mib) MiB;"
                    + " beyond it at most \(largest(own, \.ownKiB)) MiB (bar \(Self.memoryBarMiB)) and"
                    + " \(largest(own, \.fileKiB)) MiB of files, qemu \(largest(peer, \.ownKiB)) and"
                    + " \(largest(peer, \.fileKiB))")
            for line in own[own.count / 2].output.split(whereSeparator: \.isNewline) where line.contains("instructions")
            {
                print("  \(line)")
            }
        }
    }

    /// Starts a program, waits for the guest's line, then for the end.
    private func boot(_ program: String, _ arguments: [String]) throws -> Sample {
        let start = now()
        let child = try ChildProcess(program, arguments, mergesError: true)
        var (output, found) = child.read(until: "BOOT-OK", timeoutMilliseconds: 120_000)
        let seconds = now() - start
        guard found else {
            child.kill()
            throw BenchmarkFailure(description: "\(program) did not come to BOOT-OK; it printed:\n\(output)")
        }
        let (guestKiB, ownKiB, fileKiB) = resident(child.identifier)
        while let more = child.read(timeoutMilliseconds: 20_000) { output += String(decoding: more, as: UTF8.self) }
        if child.timedOut { child.kill() }
        let end = child.wait()
        guard end.ending == .exited(0) else {
            throw BenchmarkFailure(description: "\(program) ended with \(end.ending) after BOOT-OK:\n\(output)")
        }
        return Sample(
            seconds: seconds, peakKiB: end.peakKiB, guestKiB: guestKiB, ownKiB: ownKiB, fileKiB: fileKiB, output: output
        )
    }

    /// Resident KiB of a process, from `/proc/…/smaps`: mappings at least as large as the guest's memory (its shared half
    /// and the software machine's system memory), and of the rest what is anonymous and what is a file's.
    private func resident(_ process: pid_t) -> (guest: Int, own: Int, file: Int) {
        guard let file = fopen("/proc/\(process)/smaps", "r") else { return (0, 0, 0) }
        defer { fclose(file) }
        var guest = 0
        var own = 0
        var shared = 0
        var mappingKiB = 0
        var line = [CChar](repeating: 0, count: 512)
        while fgets(&line, 512, file) != nil {
            let text = String(decoding: line.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
            let words = text.split(separator: " ")
            guard words.count >= 2, let number = Int(words[1]) else { continue }
            if words[0] == "Size:" { mappingKiB = number }
            if words[0] == "Rss:" {
                if mappingKiB >= Self.memoryMiB << 10 { guest += number } else { shared += number }
            }
            if words[0] == "Anonymous:", mappingKiB < Self.memoryMiB << 10 {
                own += number
                shared -= number
            }
        }
        return (guest, own, shared)
    }
}

extension Double {
    /// KiB as whole MiB, rounded up.
    fileprivate var mib: Int { (Int(self) + 1023) >> 10 }
}
