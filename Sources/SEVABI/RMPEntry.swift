// One entry of the reverse map table: who owns a page of system memory, and where the guest sees it.

/// An RMP entry in the 16-byte format of Milan and Genoa [APM2 15.36.3].
///
/// ```
/// low word:  62 validated, 61 VMSA, 60:51 ASID, 50:12 GPA >> 12, 2 immutable, 1 page size, 0 assigned
/// high word: private to the processor. Here: bits 31:0 the permission bytes of VMPL0 to VMPL3.
/// ```
public struct RMPEntry: Equatable, Hashable, Sendable, BitwiseCopyable {
    public static let byteCount = 16

    public var low: UInt64
    public var high: UInt64

    /// All zero: a hypervisor page, the state of all memory after initialisation.
    public init(low: UInt64 = 0, high: UInt64 = 0) {
        self.low = low
        self.high = high
    }

    /// Not usable by the hypervisor: owned by a guest (ASID > 0) or by the firmware (ASID 0).
    public var assigned: Bool {
        get { bit(0) }
        set { setBit(0, newValue) }
    }
    /// The entry stands for 2 MiB; set in the first of 512 entries.
    public var is2MiB: Bool {
        get { bit(1) }
        set { setBit(1, newValue) }
    }
    /// RMPUPDATE refuses to change it; only the firmware can.
    public var immutable: Bool {
        get { bit(2) }
        set { setBit(2, newValue) }
    }
    /// Guest physical address of the page; 51 bits, page aligned.
    public var gpa: UInt64 {
        get { low & Self.gpaMask }
        set { low = low & ~Self.gpaMask | newValue & Self.gpaMask }
    }
    /// The guest's ASID, 10 bits.
    public var asid: UInt32 {
        get { UInt32(truncatingIfNeeded: low &>> 51 & 0x3ff) }
        set { low = low & ~(0x3ff &<< 51) | UInt64(newValue & 0x3ff) &<< 51 }
    }
    /// The page holds a VMSA: guests cannot write it.
    public var isVMSA: Bool {
        get { bit(61) }
        set { setBit(61, newValue) }
    }
    /// The guest has accepted the page (PVALIDATE, or the launch did).
    public var validated: Bool {
        get { bit(62) }
        set { setBit(62, newValue) }
    }

    /// Permissions of VMPL 0 to 3, see ``VMPLPermissions``.
    public func permissions(vmpl: Int) -> UInt8 {
        UInt8(truncatingIfNeeded: high &>> UInt64(truncatingIfNeeded: 8 &* (vmpl & 3)))
    }

    /// Sets the permissions of one VMPL.
    public mutating func setPermissions(vmpl: Int, _ permissions: UInt8) {
        let shift = UInt64(truncatingIfNeeded: 8 &* (vmpl & 3))
        high = high & ~(0xff &<< shift) | UInt64(permissions) &<< shift
    }

    static let gpaMask: UInt64 = 0x0007_ffff_ffff_f000

    private func bit(_ index: UInt64) -> Bool { low &>> index & 1 != 0 }
    private mutating func setBit(_ index: UInt64, _ value: Bool) {
        low = low & ~(1 &<< index) | (value ? 1 : 0) &<< index
    }
}

/// RMPUPDATE's input block, 16 bytes [APM3 RMPUPDATE].
public struct RMPUpdate: Equatable, Sendable {
    public static let byteCount = 16

    public var gpa: UInt64
    public var assigned: Bool
    public var is2MiB: Bool
    public var immutable: Bool
    public var asid: UInt32

    public init(gpa: UInt64 = 0, assigned: Bool, is2MiB: Bool = false, immutable: Bool = false, asid: UInt32 = 0) {
        self.gpa = gpa
        self.assigned = assigned
        self.is2MiB = is2MiB
        self.immutable = immutable
        self.asid = asid
    }

    /// Back to the hypervisor.
    public static let shared = RMPUpdate(assigned: false)

    public var bytes: [UInt8] {
        var bytes = [UInt8](repeating: 0, count: Self.byteCount)
        bytes.setField(0, gpa)
        bytes[8] = assigned ? 1 : 0
        bytes[9] = is2MiB ? 1 : 0
        bytes[10] = immutable ? 1 : 0
        bytes.setField(12, asid)
        return bytes
    }
}

/// What PVALIDATE, RMPADJUST, RMPUPDATE and PSMASH leave in RAX [APM3].
public struct RMPResult: RawRepresentable, Hashable, Sendable {
    public var rawValue: UInt64
    public init(rawValue: UInt64) { self.rawValue = rawValue }

    public static let success = RMPResult(rawValue: 0)
    /// FAIL_INPUT.
    public static let invalidInput = RMPResult(rawValue: 1)
    /// FAIL_PERMISSION.
    public static let permission = RMPResult(rawValue: 2)
    /// FAIL_INUSE: try again.
    public static let inUse = RMPResult(rawValue: 3)
    /// FAIL_OVERLAP.
    public static let overlap = RMPResult(rawValue: 4)
    /// FAIL_SIZEMISMATCH.
    public static let sizeMismatch = RMPResult(rawValue: 6)
}
