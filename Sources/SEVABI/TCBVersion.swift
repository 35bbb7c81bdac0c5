// Security versions of the components of the trusted computing base.

/// TCB_VERSION in the layout of Milan and Genoa [SNP 2.2]: byte 0 boot loader, 1 TEE, 6 SNP firmware, 7 microcode.
public struct TCBVersion: RawRepresentable, Hashable, Sendable {
    public var rawValue: UInt64
    public init(rawValue: UInt64) { self.rawValue = rawValue }

    public init(bootLoader: UInt8, tee: UInt8, snp: UInt8, microcode: UInt8) {
        rawValue = UInt64(bootLoader) | UInt64(tee) &<< 8 | UInt64(snp) &<< 48 | UInt64(microcode) &<< 56
    }

    public var bootLoader: UInt8 { UInt8(truncatingIfNeeded: rawValue) }
    public var tee: UInt8 { UInt8(truncatingIfNeeded: rawValue &>> 8) }
    public var snp: UInt8 { UInt8(truncatingIfNeeded: rawValue &>> 48) }
    public var microcode: UInt8 { UInt8(truncatingIfNeeded: rawValue &>> 56) }
    /// Bytes 2 to 5 are zero.
    public var hasValidReservedBytes: Bool { rawValue & 0x0000_ffff_ffff_0000 == 0 }

    /// True when no component is newer than in `other`. Versions are compared component by component, never as one
    /// number.
    public func isAtMost(_ other: TCBVersion) -> Bool {
        bootLoader <= other.bootLoader && tee <= other.tee && snp <= other.snp && microcode <= other.microcode
    }
}
