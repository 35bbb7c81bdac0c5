// Security versions of the components of the trusted computing base.

/// TCB_VERSION [SNP 2.2]: one byte for each component.
///
/// ```
/// byte     0            1            2     3     4  5   6     7
/// Milan    boot loader  TEE          0     0     0  0   SNP   microcode      Genoa too
/// Turin    FMC          boot loader  TEE   SNP   0  0   0     microcode
/// ```
public struct TCBVersion: RawRepresentable, Hashable, Sendable {
    public var rawValue: UInt64
    public init(rawValue: UInt64) { self.rawValue = rawValue }

    /// Which byte is which component.
    public enum Layout: Sendable {
        case milan
        case turin
    }

    /// In the layout of Milan and Genoa.
    public init(bootLoader: UInt8, tee: UInt8, snp: UInt8, microcode: UInt8) {
        rawValue = UInt64(bootLoader) | UInt64(tee) &<< 8 | UInt64(snp) &<< 48 | UInt64(microcode) &<< 56
    }

    /// In the layout of Turin.
    public init(fmc: UInt8, bootLoader: UInt8, tee: UInt8, snp: UInt8, microcode: UInt8) {
        rawValue =
            UInt64(fmc) | UInt64(bootLoader) &<< 8 | UInt64(tee) &<< 16 | UInt64(snp) &<< 24 | UInt64(microcode) &<< 56
    }

    // The components in the layout of Milan and Genoa.

    public var bootLoader: UInt8 { UInt8(truncatingIfNeeded: rawValue) }
    public var tee: UInt8 { UInt8(truncatingIfNeeded: rawValue &>> 8) }
    public var snp: UInt8 { UInt8(truncatingIfNeeded: rawValue &>> 48) }
    public var microcode: UInt8 { UInt8(truncatingIfNeeded: rawValue &>> 56) }
    /// Bytes 2 to 5 are zero.
    public var hasValidReservedBytes: Bool { hasValidReservedBytes(in: .milan) }

    /// The bytes that are no component are zero.
    public func hasValidReservedBytes(in layout: Layout) -> Bool {
        switch layout {
        case .milan: rawValue & 0x0000_ffff_ffff_0000 == 0
        case .turin: rawValue & 0x00ff_ffff_0000_0000 == 0
        }
    }

    /// True when no component is newer than in `other`, in any layout. Versions are compared component by component,
    /// never as one number.
    public func isAtMost(_ other: TCBVersion) -> Bool {
        (0..<8).allSatisfy { byte in
            UInt8(truncatingIfNeeded: rawValue &>> UInt64(8 &* byte))
                <= UInt8(truncatingIfNeeded: other.rawValue &>> UInt64(8 &* byte))
        }
    }
}
