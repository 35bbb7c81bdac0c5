// The processors that have SNP, and what differs between them in reports and certificates.

/// A product line: one root key, one layout of TCB_VERSION.
public enum ProductLine: String, CaseIterable, Hashable, Sendable, CustomStringConvertible {
    /// Family 0x19, models 0x00…0x0F.
    case milan = "Milan"
    /// Family 0x19, models 0x10…0x1F and 0xA0…0xAF: Genoa, Siena and Bergamo have the same root.
    case genoa = "Genoa"
    /// Family 0x1A, models 0x00…0x11.
    case turin = "Turin"

    /// As in AMD's certificates.
    public var description: String { rawValue }

    /// What the CPUID fields of a report say.
    public enum Identified: Equatable, Sendable {
        case known(ProductLine)
        /// Named by AMD, but its formats are not public: not to be misread as another one.
        case unsupported(name: String)
        case unknown
    }

    /// - Parameters family, model: Combined values, as reports have them since version 3.
    public static func identify(family: UInt8, model: UInt8) -> Identified {
        switch (family, model) {
        case (0x19, 0x00...0x0f): .known(.milan)
        case (0x19, 0x10...0x1f), (0x19, 0xa0...0xaf): .known(.genoa)
        case (0x1a, 0x00...0x11): .known(.turin)
        case (0x1a, 0x50...0x57), (0x1a, 0x90...0xaf), (0x1a, 0xc0...0xc7): .unsupported(name: "Venice")
        default: .unknown
        }
    }

    /// From a certificate's product name extension: the part before a stepping ("Milan-B0").
    public init?(certificateName name: String) {
        let line = name.split(separator: "-", maxSplits: 1, omittingEmptySubsequences: false).first.map(String.init)
        guard let line, let product = ProductLine(rawValue: line) else { return nil }
        self = product
    }

    /// As people write it.
    public init?(ignoringCase name: String) {
        guard let product = Self.allCases.first(where: { $0.rawValue.lowercased() == name.lowercased() }) else {
            return nil
        }
        self = product
    }

    /// Significant bytes of CHIP_ID, and the length of the hardware id in a VCEK.
    public var hardwareIDByteCount: Int { self == .turin ? 8 : 64 }
}
