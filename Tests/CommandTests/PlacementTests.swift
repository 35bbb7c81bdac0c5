// Where on the host a guest's memory and its vCPUs lie, as /proc shows it, and what cannot be had.

import Glibc
import TestSupport
import Testing

@Suite(.enabled(if: BuiltGuest.firmware("spin") != nil, "no flat guests: run `make firmware`"))
struct PlacementTests {
    static let patience: Int32 = 120_000

    /// A guest of 64 MiB that computes for ever, and the files below /proc that tell of its command.
    private func withGuest(_ options: [String], technology: String = "none", _ body: (String) throws -> Void) throws {
        let command = try #require(BuiltProgram.path("swift-snp-vmm"))
        let guest = try ChildProcess(
            command,
            [
                "run", try #require(BuiltGuest.firmware("spin")), "--backend", "software", "--confidential", technology,
                "--memory", "64M",
            ] + options, mergesError: true)
        let boot = guest.read(until: "spinning", timeoutMilliseconds: Self.patience)
        try #require(boot.found, "\(boot.output)")
        try body("/proc/\(guest.identifier)")
        guest.kill()
    }

    private func text(_ path: String) -> String { String(decoding: readFile(path) ?? [], as: UTF8.self) }

    private func status(_ arguments: [String]) throws -> (ending: ChildProcess.Ending, output: String) {
        let command = try #require(BuiltProgram.path("swift-snp-vmm"))
        let image = try #require(BuiltGuest.firmware("hello"))
        return try ChildProcess.run(
            command, ["run", image, "--backend", "software", "--memory", "64M"] + arguments)
    }

    @Test func aVCPURunsOnTheHostsCPUThatIsNamed() throws {
        try withGuest(["--cpu-affinity", "0:0"]) { process in
            // The boot processor's is the main thread.
            let identifier = process.split(separator: "/").last ?? ""
            let lines = text("\(process)/task/\(identifier)/status").split(separator: "\n")
            #expect(lines.contains("Cpus_allowed_list:\t0"), "\(lines)")
        }
    }

    /// All vCPUs of a guest with several; the command's other threads stay where they were.
    @Test func allVCPUsCanBeNamedAtOnce() throws {
        try withGuest(["--cpus", "2", "--cpu-affinity", "all:0"]) { process in
            func pinnedCount() -> Int {
                folderEntries("\(process)/task").count { thread in
                    text("\(process)/task/\(thread)/status").contains("Cpus_allowed_list:\t0\n")
                }
            }
            // The other vCPU's thread may begin after the guest has.
            for _ in 0..<1000 where pinnedCount() < 2 { usleep(20_000) }
            #expect(pinnedCount() >= 2)
        }
    }

    @Test(.enabled(if: readFile("/proc/self/numa_maps") != nil, "this host's kernel has no NUMA"))
    func memoryIsBoundToANode() throws {
        try withGuest(["--numa-node", "0"]) { process in
            #expect(text("\(process)/numa_maps").contains("bind:0"))
        }
        let (ending, output) = try status(["--numa-node", "1000"])
        #expect(ending == .exited(4), "\(output)")
        #expect(output.contains("no such NUMA node"), "\(output)")
    }

    /// All of the guest's memory is resident before its first instruction, and the launch says how it went.
    @Test(arguments: ["none", "sev"]) func memoryIsThereBeforeTheGuest(_ technology: String) throws {
        try withGuest(["--prefault", "--huge-pages", "off"], technology: technology) { process in
            let line = text("\(process)/status").split(separator: "\n").first { $0.hasPrefix("VmRSS:") }
            #expect(Int(line?.filter(\.isNumber) ?? "") ?? 0 >= 64 << 10)
        }
    }

    @Test func hugePagesAreAskedFor() throws {
        try withGuest(["--huge-pages", "on"], technology: "sev-es") { process in
            let flags = text("\(process)/smaps").split(separator: "\n").filter { $0.hasPrefix("VmFlags:") }
            #expect(flags.contains { $0.split(separator: " ").contains("hg") })
        }
    }

    @Test(arguments: [
        (["--cpu-affinity", "0"], "vcpu:cpus"), (["--cpu-affinity", "0:1-0"], "vcpu:cpus"),
        (["--cpu-affinity", "1:0"], "there is no vCPU 1"), (["--cpu-affinity", "0:0,0:0"], "named twice"),
        (["--cpu-affinity", "0:99999999999999999999"], "vcpu:cpus"), (["--cpu-affinity", "0:0+"], "vcpu:cpus"),
        (["--huge-pages", "reserved"], "change sides"),
        (["--huge-pages", "reserved", "--confidential", "none", "--memory", "65M"], "multiple of 2M"),
    ])
    func whatCannotBeMeantIsRefused(_ options: [String], _ reason: String) throws {
        let (ending, output) = try status(options)
        #expect(ending == .exited(2), "\(output)")
        #expect(output.contains(reason), "\(output)")
    }

    @Test func whatTheHostHasNotIsNamed() throws {
        let (ending, output) = try status(["--cpu-affinity", "0:1023"])
        #expect(ending == .exited(4), "\(output)")
        #expect(output.contains("cannot run on CPU 1023"), "\(output)")
        guard
            text("/proc/meminfo").split(separator: "\n").contains(where: {
                $0.hasPrefix("HugePages_Free:") && $0.hasSuffix(" 0")
            })
        else { return }
        let (huge, message) = try status(["--huge-pages", "reserved", "--confidential", "none"])
        #expect(huge == .exited(4), "\(message)")
        #expect(message.contains("vm.nr_hugepages"), "\(message)")
    }
}
