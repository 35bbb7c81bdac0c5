// The options that say where on the host a guest's memory and its vCPUs lie. Nothing that is measured depends on them.

import ArgumentParser
import KVMABI
import SEVABI
import SNPVMM

/// `--huge-pages`.
enum HugePagesChoice: String, ExpressibleByArgument, CaseIterable {
    case auto, off, on, reserved

    var pages: MemoryPlacement.Pages {
        switch self {
        case .auto: .automatic
        case .off: .small
        case .on: .huge
        case .reserved: .reservedHuge
        }
    }
}

/// `--cpu-affinity`, `--numa-node`, `--huge-pages` and `--prefault`.
struct PlacementOptions: ParsableArguments {
    @Option(
        name: .customLong("cpu-affinity"),
        help: ArgumentHelp(
            "Host CPUs that vCPUs run on: 0:2,1:3 or all:0-3; several CPUs of one vCPU are joined by +, as in 0:2+4-5.",
            valueName: "vcpu:cpus,…"))
    var affinity: String?
    @Option(
        name: .customLong("numa-node"),
        help: ArgumentHelp("The host's NUMA node that all memory is taken from.", valueName: "node"))
    var node: UInt32?
    @Option(
        name: .customLong("huge-pages"),
        help: ArgumentHelp(
            "Huge pages behind the memory that the host can see: auto (for plain guests), on and off (as advice to the kernel), "
                + "or reserved (vm.nr_hugepages).", valueName: "choice"))
    var hugePages = HugePagesChoice.auto
    @Flag(help: "Makes all pages of the guest's memory before the launch, on all host CPUs that this process may use.")
    var prefault = false

    func validate() throws {
        // The vCPUs' number is checked with the rest of the machine: here only the form.
        if let affinity { _ = try Self.parse(affinity, processorCount: 1, isChecked: false) }
    }

    /// What contradicts the machine.
    func check(_ technology: GuestTechnology?, processorCount: Int, memoryByteCount: UInt64) throws(CommandFailure) {
        if let affinity { _ = try Self.parse(affinity, processorCount: processorCount, isChecked: true) }
        guard hugePages == .reserved else { return }
        if technology == .snp {
            throw .usage("--huge-pages reserved: an SNP guest's pages change sides one by one; leave it out")
        }
        if memoryByteCount % (2 << 20) != 0 {
            throw .usage("--huge-pages reserved: --memory must be a multiple of 2M")
        }
    }

    /// The host's CPUs by vCPU.
    func processorAffinity(processorCount: Int) throws(CommandFailure) -> [Int: [Int]] {
        guard let affinity else { return [:] }
        let wanted = try Self.parse(affinity, processorCount: processorCount, isChecked: true)
        // A CPU that is not there would be left out without a word.
        if let usable = try? OwnProcess.processors() {
            for cpu in Set(wanted.values.joined()).sorted() where !usable.contains(cpu) {
                throw CommandFailure(
                    status: .hostCannot,
                    message: "--cpu-affinity \(affinity): this process cannot run on CPU \(cpu), but on "
                        + "\(usable.map(String.init).joined(separator: ", ")). Likely cause: a CPU that is not there, or a "
                        + "cpuset. Next step: choose others.")
            }
        }
        return wanted
    }

    /// Before the first memory is taken: this thread's, and so that of the threads that it makes, comes from the node.
    func bindThisProcess() throws(VMMError) {
        guard let node else { return }
        do { try OwnProcess.bindMemory(toNode: node) } catch {
            throw VMMError(
                step: "bind this process's memory to a node", request: "mbind", context: "node \(node)", errno: error)
        }
    }

    func memoryPlacement() -> MemoryPlacement {
        let threads = prefault ? min(64, (try? OwnProcess.processors().count) ?? 1) : 0
        return MemoryPlacement(pages: hugePages.pages, node: node, populatingThreadCount: threads)
    }

    /// "0:2,1:3", "all:0-3", "0:2+4-5".
    private static func parse(_ text: String, processorCount: Int, isChecked: Bool) throws(CommandFailure) -> [Int:
        [Int]]
    {
        let malformed = CommandFailure.usage(
            "--cpu-affinity \(text): expected vcpu:cpus pairs, for example 0:2,1:3 or all:0-3")
        func number(_ text: Substring) throws(CommandFailure) -> Int {
            guard !text.isEmpty, text.allSatisfy({ $0.isASCII && $0.isNumber }), let value = Int(text),
                value < OwnProcess.processorLimit
            else { throw malformed }
            return value
        }
        var result: [Int: [Int]] = [:]
        for entry in text.split(separator: ",", omittingEmptySubsequences: false) {
            let halves = entry.split(separator: ":", omittingEmptySubsequences: false)
            guard halves.count == 2 else { throw malformed }
            var cpus: Set<Int> = []
            for part in halves[1].split(separator: "+", omittingEmptySubsequences: false) {
                let ends = part.split(separator: "-", omittingEmptySubsequences: false)
                guard let first = ends.first, let last = ends.last, ends.count <= 2 else { throw malformed }
                let (low, high) = (try number(first), try number(last))
                guard low <= high else { throw malformed }
                cpus.formUnion(low...high)
            }
            let vcpus = halves[0] == "all" ? Array(0..<processorCount) : [try number(halves[0])]
            for vcpu in vcpus {
                if isChecked, vcpu >= processorCount {
                    throw .usage("--cpu-affinity \(text): there is no vCPU \(vcpu); --cpus is \(processorCount)")
                }
                guard result.updateValue(cpus.sorted(), forKey: vcpu) == nil else {
                    throw .usage("--cpu-affinity \(text): vCPU \(vcpu) is named twice")
                }
            }
        }
        return result
    }
}
