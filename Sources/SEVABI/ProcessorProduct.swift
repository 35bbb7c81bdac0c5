// The product lines of processors with SEV-SNP: what differs between them in reports and certificates.

/// A product line. Each has certificate authorities of its own and a layout of TCB_VERSION.
public enum ProcessorProduct: String, CaseIterable, Sendable {
    /// Zen 3.
    case milan = "Milan"
    /// Zen 4; Siena and Bergamo count as Genoa.
    case genoa = "Genoa"
    /// Zen 5.
    case turin = "Turin"

    /// How its TCB versions are laid out.
    public var tcbLayout: TCBVersion.Layout { self == .turin ? .turin : .milan }

    /// structVersion of its VCEK certificates [KDS 3.1].
    public var structureVersion: UInt8 { self == .turin ? 1 : 0 }

    /// Bytes of CHIP_ID that mean something; the rest of the 64 is zero.
    public var chipIDByteCount: Int { self == .turin ? 8 : 64 }

    /// CPUID 1 EAX of the processors that can be bought.
    public var fms: UInt32 {
        switch self {
        case .milan: 0x00a0_0f11
        case .genoa: 0x00a1_0f11
        case .turin: 0x00b0_0f21
        }
    }
}
