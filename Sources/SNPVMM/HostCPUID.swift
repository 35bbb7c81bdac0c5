// CPUID between the seam's structures and the plan's, and what the firmware says about a page it refuses.

import GuestImage
import KVMABI
import SEVABI
import X86Defs

extension CPUIDLeaf {
    /// A leaf as the kernel gives it.
    init(_ entry: KVMCPUIDEntry) {
        self.init(
            function: entry.function, index: entry.index, isIndexed: entry.flags & KVMCPUIDEntry.significantIndex != 0,
            eax: entry.eax, ebx: entry.ebx, ecx: entry.ecx, edx: entry.edx)
    }
}

extension Host {
    /// The CPUID leaves of a guest on this host: what the kernel supports, adapted to our machine. The plan's CPUID page
    /// and every vCPU get this list.
    ///
    /// - Parameters:
    ///   - technology: What protects the guest; nil for a plain one.
    ///   - fiveLevelPaging: Shows LA57 where the host has it.
    public func guestCPUID(
        processorCount: Int, technology: GuestTechnology?, fiveLevelPaging: Bool = false
    ) throws(VMMError) -> [CPUIDLeaf] {
        GuestCPUID.leaves(
            supported: try supportedCPUID().map { CPUIDLeaf($0) }, processorCount: processorCount,
            technology: technology, fiveLevelPaging: fiveLevelPaging)
    }
}

/// A machine's CPUID list, one processor at a time.
enum ProcessorCPUID {
    /// The list for `KVM_SET_CPUID2` of the processor with this APIC id.
    static func list(_ leaves: [CPUIDLeaf], apicID: UInt32) -> [KVMCPUIDEntry] {
        leaves.map { leaf in
            var entry = KVMCPUIDEntry(
                function: leaf.function, index: leaf.isIndexed ? leaf.index : nil, eax: leaf.eax, ebx: leaf.ebx,
                ecx: leaf.ecx, edx: leaf.edx)
            switch leaf.function {
            case 0x1: entry.ebx = entry.ebx & 0x00ff_ffff | apicID << 24
            case 0xb, 0x1f: entry.edx = apicID
            // One thread in each core.
            case 0x8000_001e:
                entry.eax = apicID
                entry.ebx = entry.ebx & ~0xffff | apicID & 0xff
            default: break
            }
            return entry
        }
    }
}

/// The position of the C-bit, from leaf 0x8000001F EBX 5:0; nil when the host has no memory encryption [APM3 CPUID].
public func cBit(of leaves: [CPUIDLeaf]) -> UInt8? {
    guard let leaf = leaves.first(where: { $0.function == 0x8000_001f }), leaf.eax & 1 << 1 != 0 else { return nil }
    return UInt8(leaf.ebx & 0x3f)
}

/// The two versions of a refused CPUID page: what was offered, and what the firmware put in its place.
public struct CPUIDCorrection: Sendable {
    /// "leaf 0x1 ECX: offered 0x…, the firmware accepts 0x…", in the order of the page.
    public let differences: [String]

    /// Compares two pages [SNP 8.17.2.6].
    public init(offered: [UInt8], corrected: [UInt8]) {
        guard let before = CPUIDTable(bytes: offered), let after = CPUIDTable(bytes: corrected) else {
            differences = ["the page is no CPUID table"]
            return
        }
        var lines: [String] = []
        if before.entries.count != after.entries.count {
            lines.append("entries: offered \(before.entries.count), the firmware accepts \(after.entries.count)")
        }
        for (old, new) in zip(before.entries, after.entries) where old != new {
            let leaf = "leaf \(hex(old.function))" + (old.index == 0 ? "" : " index \(hex(old.index))")
            let registers: [(String, UInt64, UInt64)] = [
                ("function", UInt64(old.function), UInt64(new.function)),
                ("index", UInt64(old.index), UInt64(new.index)),
                ("XCR0", old.xcr0, new.xcr0), ("XSS", old.xss, new.xss),
                ("EAX", UInt64(old.eax), UInt64(new.eax)), ("EBX", UInt64(old.ebx), UInt64(new.ebx)),
                ("ECX", UInt64(old.ecx), UInt64(new.ecx)), ("EDX", UInt64(old.edx), UInt64(new.edx)),
            ]
            for (name, offer, answer) in registers where offer != answer {
                lines.append("\(leaf) \(name): offered \(hex(offer)), the firmware accepts \(hex(answer))")
            }
        }
        differences = lines
    }
}
