// The policy a guest owner fixes for an SNP guest.

/// Guest policy [SNP 4.3], 64 bits.
///
/// ```
///  63      26 25 24 23 22 21 20 19 18 17 16 15      8 7       0
/// +----------+--+--+--+--+--+--+--+--+--+--+---------+---------+
/// |  zero    |PS|CH|RA|XT|CX|SS|DB|MA| 1|SM| major   | minor   |
/// +----------+--+--+--+--+--+--+--+--+--+--+---------+---------+
/// ```
public struct GuestPolicy: RawRepresentable, Hashable, Sendable {
    public var rawValue: UInt64
    public init(rawValue: UInt64) { self.rawValue = rawValue }

    /// What VMMs use when nobody asks for more: SMT allowed, no debugging, any firmware.
    public static let `default` = GuestPolicy(rawValue: 0x30000)
    /// Bits 63:26.
    public static let reservedZeroMask: UInt64 = ~0 << 26
    /// Bit 17.
    public static let reservedOneMask: UInt64 = 1 << 17

    /// ABI_MINOR: the least firmware ABI minor version.
    public var minimumABIMinor: UInt8 { UInt8(truncatingIfNeeded: rawValue) }
    /// ABI_MAJOR.
    public var minimumABIMajor: UInt8 { UInt8(truncatingIfNeeded: rawValue >> 8) }
    /// SMT: the guest may run with SMT on.
    public var allowsSMT: Bool { bit(16) }
    /// MIGRATE_MA: a migration agent may be bound.
    public var allowsMigrationAgent: Bool { bit(18) }
    /// DEBUG: the host may decrypt the guest's memory.
    public var allowsDebug: Bool { bit(19) }
    /// SINGLE_SOCKET: the guest may run on one socket only.
    public var requiresSingleSocket: Bool { bit(20) }
    /// CXL_ALLOW.
    public var allowsCXL: Bool { bit(21) }
    /// MEM_AES_256_XTS: memory encryption must use 256-bit keys.
    public var requiresAES256: Bool { bit(22) }
    /// RAPL_DIS: running average power limit must be off.
    public var requiresRAPLDisabled: Bool { bit(23) }
    /// CIPHERTEXT_HIDING_DRAM.
    public var requiresCiphertextHiding: Bool { bit(24) }
    /// PAGE_SWAP_DISABLE: the page move and swap commands refuse this guest.
    public var disablesPageSwap: Bool { bit(25) }
    /// Every bit above the ABI version by its name.
    public static let bitNames: [(bit: Int, name: String)] = [
        (16, "SMT"), (17, "reserved, one"), (18, "MIGRATE_MA"), (19, "DEBUG"), (20, "SINGLE_SOCKET"),
        (21, "CXL_ALLOW"), (22, "MEM_AES_256_XTS"), (23, "RAPL_DIS"), (24, "CIPHERTEXT_HIDING_DRAM"),
        (25, "PAGE_SWAP_DISABLE"),
    ]
    /// Bit 17 is one and bits 63:26 are zero.
    public var hasValidReservedBits: Bool {
        rawValue & Self.reservedOneMask != 0 && rawValue & Self.reservedZeroMask == 0
    }

    private func bit(_ index: UInt64) -> Bool { rawValue &>> index & 1 != 0 }
}
