// TCB_VERSION [SNP 2.2]: its layout depends on the product, so it is a number until the product is known.

/// The components of a TCB_VERSION. Versions are compared component by component, never as one number.
public struct SecurityVersions: Hashable, Sendable, CustomStringConvertible {
    /// Turin only: nil on Milan and Genoa.
    public var fmc: UInt8?
    public var bootLoader: UInt8
    public var tee: UInt8
    public var snp: UInt8
    public var microcode: UInt8

    public init(fmc: UInt8? = nil, bootLoader: UInt8, tee: UInt8, snp: UInt8, microcode: UInt8) {
        self.fmc = fmc
        self.bootLoader = bootLoader
        self.tee = tee
        self.snp = snp
        self.microcode = microcode
    }

    /// Reads TCB_VERSION. Returns nil when a reserved byte is not zero.
    ///
    /// | byte | Milan, Genoa | Turin |
    /// |---|---|---|
    /// | 0 | boot loader | FMC |
    /// | 1 | TEE | boot loader |
    /// | 2 | 0 | TEE |
    /// | 3 | 0 | SNP |
    /// | 6 | SNP | 0 |
    /// | 7 | microcode | microcode |
    public init?(tcbVersion value: UInt64, of product: ProductLine) {
        func byte(_ index: UInt64) -> UInt8 { UInt8(truncatingIfNeeded: value &>> (8 &* index)) }
        switch product {
        case .milan, .genoa:
            guard value & 0x0000_ffff_ffff_0000 == 0 else { return nil }
            self.init(bootLoader: byte(0), tee: byte(1), snp: byte(6), microcode: byte(7))
        case .turin:
            guard value & 0x00ff_ffff_0000_0000 == 0 else { return nil }
            self.init(fmc: byte(0), bootLoader: byte(1), tee: byte(2), snp: byte(3), microcode: byte(7))
        }
    }

    /// The number in a report. Missing components count as zero, one that the product does not have is left out.
    public func tcbVersion(of product: ProductLine) -> UInt64 {
        switch product {
        case .milan, .genoa:
            UInt64(bootLoader) | UInt64(tee) &<< 8 | UInt64(snp) &<< 48 | UInt64(microcode) &<< 56
        case .turin:
            UInt64(fmc ?? 0) | UInt64(bootLoader) &<< 8 | UInt64(tee) &<< 16 | UInt64(snp) &<< 24
                | UInt64(microcode) &<< 56
        }
    }

    /// Every component by its name in certificates.
    public var components: [(name: String, value: UInt8)] {
        (fmc.map { [("fmcSPL", $0)] } ?? [])
            + [("blSPL", bootLoader), ("teeSPL", tee), ("snpSPL", snp), ("ucodeSPL", microcode)]
    }

    /// The first component that is older here than in `least`, where both have it; nil when none is.
    public func firstBelow(_ least: SecurityVersions) -> (name: String, value: UInt8, least: UInt8)? {
        for (name, value) in components {
            if let other = least.components.first(where: { $0.name == name }), value < other.value {
                return (name, value, other.value)
            }
        }
        return nil
    }

    /// `fmcSPL=1 blSPL=4 teeSPL=0 snpSPL=24 ucodeSPL=219`.
    public var description: String { components.map { "\($0.name)=\($0.value)" }.joined(separator: " ") }
}
