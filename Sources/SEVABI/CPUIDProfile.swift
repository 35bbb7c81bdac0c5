// What a processor lets a guest's CPUID page say.
//
// The firmware compares every entry of the page with what the processor would allow. How each register is compared is
// not public; the rules here are ours: feature bits may be taken away but not added, maxima may be lowered, identity
// must be true, and topology, sizes, names and bits that the operating system controls are free.

/// A processor's CPUID values and the rules for a guest's CPUID page [SNP 8.17.2.6].
public struct CPUIDProfile: Sendable, Equatable {
    /// What the processor reports: the same list that the kernel offers its VMM.
    public var supported: [CPUIDTableEntry]

    /// - Parameter supported: One entry per leaf, or per leaf and index where the index matters; the first one counts.
    public init(supported: [CPUIDTableEntry]) { self.supported = supported }

    /// The entry as the processor would accept it: equal to `entry` when nothing has to change.
    ///
    /// Leaves 0x40000000 to 0x4FFFFFFF belong to hypervisors and pass as they are. A leaf that the processor does not
    /// have must be zero.
    public func corrected(_ entry: CPUIDTableEntry) -> CPUIDTableEntry {
        if entry.function &>> 28 == 4 { return entry }
        let native = supported.first {
            $0.function == entry.function && (!Self.isIndexed(entry.function) || $0.index == entry.index)
        }
        let rules = Self.rules(entry.function)
        var result = entry
        result.eax = rules.eax.apply(entry.eax, native?.eax ?? 0)
        result.ebx = rules.ebx.apply(entry.ebx, native?.ebx ?? 0)
        result.ecx = rules.ecx.apply(entry.ecx, native?.ecx ?? 0)
        result.edx = rules.edx.apply(entry.edx, native?.edx ?? 0)
        return result
    }

    /// True for leaves whose answer depends on ECX.
    public static func isIndexed(_ function: UInt32) -> Bool {
        switch function {
        case 0x4, 0x7, 0xb, 0xd, 0xf, 0x10, 0x12, 0x14, 0x17, 0x18, 0x1d, 0x1e, 0x1f, 0x8000_001d: true
        default: false
        }
    }

    /// How one register may differ from the processor's own.
    enum Rule {
        /// Any subset of the processor's bits; bits of `free` may be anything.
        case features(free: UInt32 = 0)
        /// The processor's value but for `free` bits.
        case exact(free: UInt32 = 0)
        /// A number no greater than the processor's.
        case atMost
        case any

        func apply(_ value: UInt32, _ native: UInt32) -> UInt32 {
            switch self {
            case .features(let free): value & (native | free)
            case .exact(let free): native & ~free | value & free
            case .atMost: min(value, native)
            case .any: value
            }
        }
    }

    struct Rules {
        var eax = Rule.features()
        var ebx = Rule.features()
        var ecx = Rule.features()
        var edx = Rule.features()
        static let any = Rules(eax: .any, ebx: .any, ecx: .any, edx: .any)
    }

    static func rules(_ function: UInt32) -> Rules {
        switch function {
        // Highest leaf and vendor.
        case 0x0, 0x8000_0000: Rules(eax: .atMost, ebx: .exact(), ecx: .exact(), edx: .exact())
        // Signature and APIC id are the VMM's; OSXSAVE and the hypervisor bit, APIC and HTT follow the guest.
        case 0x1:
            Rules(eax: .any, ebx: .any, ecx: .features(free: 1 << 27 | 1 << 31), edx: .features(free: 1 << 9 | 1 << 28))
        // OSPKE follows the guest.
        case 0x7: Rules(eax: .atMost, ecx: .features(free: 1 << 4))
        // Cache and processor topology, names, sizes.
        case 0x2, 0x4, 0x5, 0xb, 0x8000_0002...0x8000_0006, 0x8000_0019, 0x8000_001d, 0x8000_001e: .any
        // Save-area sizes depend on XCR0; the features of index 1 are EAX.
        case 0xd: Rules(ebx: .any, ecx: .any)
        case 0x8000_0001: Rules(eax: .any, ebx: .any)
        // Address widths and processor counts.
        case 0x8000_0008: Rules(eax: .any, ecx: .any, edx: .any)
        // Where the C-bit is must be true; address reduction, VMPL count and ASID numbers are free.
        case 0x8000_001f: Rules(ebx: .exact(free: ~0x3f), ecx: .any, edx: .any)
        default: Rules()
        }
    }
}
