// The memory map that Linux starts with.

/// One entry of the e820 table [ACPI 15].
public struct E820Entry: Equatable, Sendable {
    /// The kind of a range. Linux derives the C-bit of its later mappings from it.
    public struct Kind: RawRepresentable, Hashable, Sendable {
        public var rawValue: UInt32
        public init(rawValue: UInt32) { self.rawValue = rawValue }
        /// Usable memory.
        public static let ram = Kind(rawValue: 1)
        /// Not to be used; mapped shared when it is mapped late.
        public static let reserved = Kind(rawValue: 2)
        /// ACPI tables; mapped private.
        public static let acpi = Kind(rawValue: 3)
    }

    public var base: UInt64
    public var byteCount: UInt64
    public var kind: Kind

    /// The map of a directly booted machine: ascending, without overlap.
    ///
    /// 0xA0000–0xFFFFF is RAM but not listed, as on a PC. Only an SNP guest has the reserved pages of CC blob, secrets and
    /// CPUID, only a SEV-ES guest of several vCPUs those of the AP jump table.
    public static func map(of machine: MachineDescription) -> [E820Entry] {
        var entries: [E820Entry] = []
        func add(_ base: UInt64, _ end: UInt64, _ kind: Kind) {
            if base < end { entries.append(E820Entry(base: base, byteCount: end - base, kind: kind)) }
        }
        typealias Map = GuestAddressMap
        if machine.technology == .snp {
            add(0, Map.confidentialComputingBlob, .ram)
            add(Map.confidentialComputingBlob, Map.reservedLowEnd, .reserved)
            add(Map.reservedLowEnd, Map.acpiTables, .ram)
        } else if machine.needsJumpTable {
            add(0, Map.jumpTable, .ram)
            add(Map.jumpTable, Map.jumpTableEnd, .reserved)
            add(Map.jumpTableEnd, Map.acpiTables, .ram)
        } else {
            add(0, Map.acpiTables, .ram)
        }
        add(Map.acpiTables, Map.acpiTablesEnd, .acpi)
        add(Map.acpiTablesEnd, Map.extendedBIOSData, .ram)
        add(Map.extendedBIOSData, Map.lowMemoryEnd, .reserved)
        for range in Map.ramRanges(memoryByteCount: machine.memoryByteCount) {
            add(max(range.lowerBound, Map.highMemory), range.upperBound, .ram)
        }
        return entries
    }
}
