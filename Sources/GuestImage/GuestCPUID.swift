// What a guest believes about its processor: the leaves it gets, and the page the firmware checks.

import SEVABI
import X86Defs

/// The CPUID leaves of our machine, made from what the host kernel supports.
public enum GuestCPUID {
    /// KVM's paravirtual features that are kept: kvmclock in both forms (0, 3), no I/O delay (1), stable clock (24).
    /// Asynchronous page faults, steal time and PV EOI would need memory that is shared with the host.
    static let keptKVMFeatures: UInt32 = 1 << 0 | 1 << 1 | 1 << 3 | 1 << 24

    /// Adapts the supported leaves to our machine; the result is for `KVM_SET_CPUID2` and for ``page(of:)`` alike.
    ///
    /// Sets the hypervisor bit, keeps the KVM features that work with private memory, and describes `processorCount`
    /// processors: cores of one socket, with one thread each. A processor's own APIC id (leaf 1 EBX 31:24, leaf 0xB EDX,
    /// leaf 0x8000001E) is left 0 for the caller to set.
    /// - Parameter fiveLevelPaging: Shows 5-level paging (LA57) where the host has it. Otherwise it is hidden: a guest
    ///   starts with four levels, and a Linux kernel that sees it leaves long mode to switch, through memory below
    ///   640 KiB.
    /// - Parameter technology: With one, also clears what the firmware refuses in a CPUID page (TSC deadline timer,
    ///   TSC_ADJUST, speculation controls), and nested virtualisation; the SEV leaf of a SEV or SEV-ES guest shows what
    ///   the guest has, not what the host could do. Without one the SEV leaf goes: a kernel offers it whatever the VM's
    ///   type, and a plain guest that saw it would read SEV_STATUS, an MSR that it does not have.
    public static func leaves(
        supported: [CPUIDLeaf], processorCount: Int = 1, technology: GuestTechnology?, fiveLevelPaging: Bool = false
    ) -> [CPUIDLeaf] {
        let isConfidential = technology != nil
        let count = UInt32(truncatingIfNeeded: processorCount)
        return described(supported.filter { isConfidential || $0.function != 0x8000_001f }, count).map { original in
            var leaf = original
            switch (leaf.function, leaf.index) {
            case (1, _):
                leaf.ecx |= 1 << 31
                leaf.ebx = leaf.ebx & 0xff00 | (count & 0xff) << 16
                if count > 1 { leaf.edx |= 1 << 28 } else { leaf.edx &= ~(1 << 28) }
                if isConfidential { leaf.ecx &= ~(1 << 24) }
            case (7, 0):
                if !fiveLevelPaging { leaf.ecx &= ~(1 << 16) }
                if isConfidential {
                    leaf.ebx &= ~(1 << 1)
                    leaf.edx = 0
                }
            case (0x4000_0001, _):
                leaf.eax &= keptKVMFeatures
                leaf.edx = 0
            case (0x8000_0001, _):
                if isConfidential { leaf.ecx &= ~(1 << 2) }
            case (0x8000_0008, _):
                // How many, and how many bits of the APIC id tell them apart.
                leaf.ecx = (count &- 1) & 0xff | coreIDBitCount(count) << 12
                if isConfidential { leaf.ebx &= ~(1 << 25) }
            case (0x8000_001f, _):
                // EAX: SEV (bit 1), SEV-ES (bit 3), coherency across the C-bit enforced by hardware (bit 10). EBX: C-bit and
                // lost address bits. The numbers of guests and ASIDs are the host's.
                switch technology {
                case .sev: leaf.eax &= 1 << 1 | 1 << 10
                case .sevES: leaf.eax &= 1 << 1 | 1 << 3 | 1 << 10
                case .snp, nil: break
                }
                if technology != .snp {
                    leaf.ebx &= 0xfff
                    leaf.ecx = 0
                    leaf.edx = 0
                }
            case (0x8000_0021, _):
                if isConfidential { leaf.ecx = 0 }
            default: break
            }
            return leaf
        }
    }

    /// With our topology in the place of the host's: a kernel lists leaf 0xB with nothing in it, or with the host's own, and
    /// leaf 0x1F, which says the same at greater length, needs no guest.
    private static func described(_ leaves: [CPUIDLeaf], _ count: UInt32) -> [CPUIDLeaf] {
        leaves.filter { ($0.function != 0xb || $0.index == 0) && $0.function != 0x1f }.flatMap { leaf in
            guard leaf.function == 0xb else { return [leaf] }
            return [
                // EAX: how far to shift an x2APIC id to the next level; EBX: processors; ECX 15:8: 1 thread, 2 core.
                CPUIDLeaf(function: 0xb, index: 0, isIndexed: true, eax: 0, ebx: 1, ecx: 0x100),
                CPUIDLeaf(
                    function: 0xb, index: 1, isIndexed: true, eax: coreIDBitCount(count), ebx: count, ecx: 0x201),
            ]
        }
    }

    /// Bits of the APIC id that number the cores.
    private static func coreIDBitCount(_ count: UInt32) -> UInt32 {
        count > 1 ? UInt32(32 - (count - 1).leadingZeroBitCount) : 0
    }

    /// The CPUID page for a list of leaves [SNP 8.17.2.6].
    ///
    /// Leaves that are all zero are left out, as are those outside the three ranges that the firmware accepts: the guest
    /// reads zero for a leaf that is missing. Leaf 7 and the leaves with the maxima stay.
    /// - Throws: ``ImageError`` when more than 64 entries remain.
    public static func page(of leaves: [CPUIDLeaf]) throws(ImageError) -> CPUIDTable {
        let kept = leaves.filter(belongs)
        guard kept.count <= CPUIDTable.maximumEntryCount else {
            throw ImageError(
                .badInput, attempt: "make the CPUID page", field: "COUNT",
                expected: "at most \(CPUIDTable.maximumEntryCount) entries", found: "\(kept.count)",
                likelyCause: "the host kernel lists more leaves than the page has room for",
                nextStep: "drop leaves that the guest does not need")
        }
        return CPUIDTable(
            entries: kept.map { leaf in
                // Only the first two subleaves of leaf 0xD depend on XCR0 there: with XCR0 = 1 the size is that of the
                // legacy area and the XSAVE header.
                let isSaveArea = leaf.function == 0xd && leaf.index <= 1
                return CPUIDTableEntry(
                    function: leaf.function, index: leaf.isIndexed ? leaf.index : 0, xcr0: isSaveArea ? 1 : 0,
                    eax: leaf.eax, ebx: isSaveArea ? 0x240 : leaf.ebx, ecx: leaf.ecx, edx: leaf.edx)
            })
    }

    private static func belongs(_ leaf: CPUIDLeaf) -> Bool {
        switch leaf.function {
        case 0, 1, 0x4000_0000, 0x8000_0000: true
        case 7 where leaf.index == 0: true
        case 0...0xffff, 0x4000_0000...0x4000_ffff, 0x8000_0000...0x8000_ffff:
            leaf.eax | leaf.ebx | leaf.ecx | leaf.edx != 0
        default: false
        }
    }
}
