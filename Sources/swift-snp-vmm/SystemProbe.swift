// What the machine's own system shows of itself: CPUID, MSRs where they can be read, /proc and /sys, limits. Reads only.

import CProcess
import HostDiagnosis
import KVMABI

/// The facts of this host that no request to its kernel tells.
enum SystemProbe {
    static func facts() -> HostFacts {
        var facts = HostFacts()
        askProcessor(&facts)
        askRegisters(&facts)
        askKernel(&facts)
        askNodes(&facts)
        askResources(&facts)
        return facts
    }

    // MARK: Processor

    private static func askProcessor(_ facts: inout HostFacts) {
        guard let (highest, b, c, d) = cpuid(0) else {
            facts[.cpuVendor] = .unreadable("ENOSYS")
            return
        }
        facts[.cpuVendor] = HostFacts.plain(text([b, d, c]))
        if highest >= 1, let leaf = cpuid(1) {
            facts[.cpuSignature] = .number(UInt64(leaf.0))
            facts[.cpuIsGuest] = .flag(leaf.2 >> 31 != 0)
        }
        let extended = cpuid(0x8000_0000)?.0 ?? 0
        guard extended >> 31 != 0 else { return }
        if extended >= 0x8000_0004 {
            let words = (0x8000_0002...0x8000_0004).compactMap { cpuid($0) }.flatMap { [$0.0, $0.1, $0.2, $0.3] }
            facts[.cpuBrand] = HostFacts.plain(text(words).split(separator: " ").joined(separator: " "))
        }
        // A processor that does not have the leaf has none of it.
        let sev = extended >= 0x8000_001f ? cpuid(0x8000_001f) ?? (0, 0, 0, 0) : (0, 0, 0, 0)
        facts[.sevFeatures] = .number(UInt64(sev.0))
        facts[.sevCBit] = .number(UInt64(sev.1 & 0x3f))
        facts[.sevASIDs] = .number(UInt64(sev.2))
        facts[.sevMinimumASID] = .number(UInt64(sev.3))
    }

    private static func cpuid(_ leaf: UInt32) -> (UInt32, UInt32, UInt32, UInt32)? {
        var bytes = [UInt8](repeating: 0, count: 16)
        guard withKernelAddress(ofMutable: &bytes, { host_cpuid(leaf, 0, $0) }) == 0 else { return nil }
        func word(_ index: Int) -> UInt32 {
            bytes[4 * index..<4 * index + 4].reversed().reduce(0) { $0 << 8 | UInt32($1) }
        }
        return (word(0), word(1), word(2), word(3))
    }

    private static func text(_ words: [UInt32]) -> String {
        let bytes = words.flatMap { word in (0..<4).map { UInt8(truncatingIfNeeded: word >> UInt32(8 * $0)) } }
        return String(decoding: bytes.prefix { $0 != 0 }, as: UTF8.self)
    }

    private static func askRegisters(_ facts: inout HostFacts) {
        let registers: [(HostFact, UInt32)] = [
            (.syscfg, 0xc001_0010), (.hwcr, 0xc001_0015), (.rmpBase, 0xc001_0132), (.rmpEnd, 0xc001_0133),
            (.rmpConfiguration, 0xc001_0136),
        ]
        for (fact, number) in registers {
            var bytes = [UInt8](repeating: 0, count: 8)
            let result = withKernelAddress(ofMutable: &bytes) { host_read_msr(number, $0) }
            facts[fact] =
                result == 0
                ? .number(bytes.reversed().reduce(0) { $0 << 8 | UInt64($1) }) : .unreadable(name(-Int64(result)))
        }
    }

    // MARK: Kernel

    private static func askKernel(_ facts: inout HostFacts) {
        func read(_ fact: HostFact, _ path: String) {
            switch contents(path) {
            case .success(let text): facts[fact] = HostFacts.plain(text.split(whereSeparator: \.isNewline).first ?? "")
            case .failure(let errno): facts[fact] = .unreadable(name(Int64(errno.rawValue)))
            }
        }
        read(.kernelRelease, "/proc/sys/kernel/osrelease")
        if case .success(let line) = contents("/proc/cmdline") {
            // Nothing else of the line goes into a file that is passed on.
            let prefixes = ["mem_encrypt=", "iommu", "amd_iommu=", "kvm_amd."]
            let words = line.split(whereSeparator: \.isWhitespace).filter { word in
                prefixes.contains { word.hasPrefix($0) }
            }
            facts[.kernelOptions] = HostFacts.plain(words.joined(separator: " "))
        }
        if case .success(let text) = contents("/proc/cpuinfo"),
            let line = text.split(whereSeparator: \.isNewline).first(where: { $0.hasPrefix("microcode") }),
            let digits = line.split(separator: "x").last, let value = UInt64(digits, radix: 16)
        {
            facts[.cpuMicrocode] = .number(value)
        }
        if case .success(let text) = contents("/sys/devices/system/cpu/smt/active") {
            facts[.cpuSMT] = .flag(text.hasPrefix("1"))
        }
        facts[.iommuCount] = .number(UInt64(max(entryCount("/sys/class/iommu"), 0)))
        read(.iommuDomain, "/sys/kernel/iommu_groups/0/type")
        facts[.ccpIsLoaded] = .flag(entryCount("/sys/module/ccp") >= 0)
        facts[.kvmAMDIsLoaded] = .flag(entryCount("/sys/module/kvm_amd") >= 0)
        read(.parameterSEV, "/sys/module/kvm_amd/parameters/sev")
        read(.parameterSEVES, "/sys/module/kvm_amd/parameters/sev_es")
        read(.parameterSNP, "/sys/module/kvm_amd/parameters/sev_snp")
    }

    // MARK: Nodes and user

    private static func askNodes(_ facts: inout HostFacts) {
        for (fact, path) in [(HostFact.nodeKVMMode, "/dev/kvm"), (.nodeSEVMode, "/dev/sev")] {
            let mode = withPath(path) { host_file_mode($0) }
            facts[fact] = mode >= 0 ? .text(String(mode, radix: 8)) : .unreadable(name(-Int64(mode)))
        }
        facts[.userIsRoot] = .flag(host_user_is_root() == 1)
        let isMember = withPath("/dev/kvm") { host_file_group_is_mine($0) }
        if isMember >= 0 { facts[.userIsInKVMGroup] = .flag(isMember == 1) }
    }

    // MARK: Resources

    private static func askResources(_ facts: inout HostFacts) {
        func read(_ path: String, _ separator: Character, _ rows: [(String, HostFact)], unit: UInt64 = 1) {
            guard case .success(let text) = contents(path) else { return }
            for line in text.split(whereSeparator: \.isNewline) {
                let parts = line.split { $0 == separator || $0 == " " }
                guard parts.count >= 2, let value = UInt64(parts[1]) else { continue }
                for (name, fact) in rows where parts[0] == name {
                    facts[fact] = .number(value.multipliedReportingOverflow(by: unit).partialValue)
                }
            }
        }
        read("/sys/fs/cgroup/misc.capacity", " ", [("sev", .capacitySEV), ("sev_es", .capacitySEVES)])
        read("/sys/fs/cgroup/misc.current", " ", [("sev", .usedSEV), ("sev_es", .usedSEVES)])
        read("/proc/meminfo", ":", [("MemTotal", .memoryTotal), ("MemAvailable", .memoryAvailable)], unit: 1024)
        read("/proc/meminfo", ":", [("HugePages_Free", .hugePagesFree)])
        facts[.limitMemoryLock] = .number(host_memory_lock_limit())
        facts[.limitOpenFiles] = .number(host_open_files_limit())
    }

    // MARK: Files of /proc and /sys

    /// Up to 64 KiB: these files have no length of their own.
    private static func contents(_ path: String) -> Result<String, Errno> {
        let descriptor = withPath(path) { file_open($0) }
        guard descriptor >= 0 else { return .failure(Errno(rawValue: 0 &- descriptor)) }
        defer { file_close(descriptor) }
        var bytes = [UInt8](repeating: 0, count: 64 << 10)
        let count = withKernelAddress(ofMutable: &bytes) { file_read(descriptor, $0, 64 << 10) }
        guard count >= 0 else { return .failure(Errno(rawValue: Int32(truncatingIfNeeded: 0 &- count))) }
        return .success(String(decoding: bytes.prefix(Int(count)), as: UTF8.self))
    }

    private static func entryCount(_ path: String) -> Int32 { withPath(path) { host_entry_count($0) } }

    private static func withPath<Value>(_ path: String, _ body: (UInt64) -> Value) -> Value {
        withKernelAddress(of: Array(path.utf8) + [0]) { body($0) }
    }

    private static func name(_ number: Int64) -> String {
        Errno(rawValue: Int32(truncatingIfNeeded: number)).name ?? "errno=\(number)"
    }
}
