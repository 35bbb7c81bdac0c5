// The type of a page given to SNP_LAUNCH_UPDATE.

/// What SNP_LAUNCH_UPDATE does with a page and how the page enters the launch digest [SNP 8.17].
public struct PageType: RawRepresentable, Hashable, Sendable, CustomStringConvertible {
    public var rawValue: UInt8
    public init(rawValue: UInt8) { self.rawValue = rawValue }

    /// PAGE_TYPE_NORMAL: encrypted as given, contents measured.
    public static let normal = PageType(rawValue: 1)
    /// PAGE_TYPE_VMSA: a sealed register state, contents measured.
    public static let vmsa = PageType(rawValue: 2)
    /// PAGE_TYPE_ZERO: becomes zeroes; only type and address measured.
    public static let zero = PageType(rawValue: 3)
    /// PAGE_TYPE_UNMEASURED: encrypted as given; only type and address measured.
    public static let unmeasured = PageType(rawValue: 4)
    /// PAGE_TYPE_SECRETS: written by the firmware; only type and address measured.
    public static let secrets = PageType(rawValue: 5)
    /// PAGE_TYPE_CPUID: checked by the firmware; only type and address measured.
    public static let cpuid = PageType(rawValue: 6)

    /// True where the digest of the 4096 plaintext bytes enters PAGE_INFO; elsewhere 48 zero bytes do.
    public var measuresContents: Bool { self == .normal || self == .vmsa }

    public var description: String {
        switch self {
        case .normal: "NORMAL"
        case .vmsa: "VMSA"
        case .zero: "ZERO"
        case .unmeasured: "UNMEASURED"
        case .secrets: "SECRETS"
        case .cpuid: "CPUID"
        default: "page type \(rawValue)"
        }
    }
}
