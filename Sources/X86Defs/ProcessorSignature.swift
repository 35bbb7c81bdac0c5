// Family, model and stepping: CPUID 1 EAX, and what RDX holds after reset.

/// The signature of a processor [APM3 CPUID 1 EAX].
public struct ProcessorSignature: RawRepresentable, Hashable, Sendable, CustomStringConvertible {
    public var rawValue: UInt32
    public init(rawValue: UInt32) { self.rawValue = rawValue }

    /// From combined family (15…270), model (0…255) and stepping (0…15). Values out of range lose their upper bits.
    public init(family: UInt32, model: UInt32, stepping: UInt32) {
        let baseFamily = min(family, 15)
        let extendedFamily = (family &- baseFamily) & 0xff
        rawValue =
            extendedFamily << 20 | (model >> 4 & 15) << 16 | (baseFamily & 15) << 8 | (model & 15) << 4
            | (stepping & 15)
    }

    /// EPYC-v4 and its older versions: Naples.
    public static let epycV4 = ProcessorSignature(rawValue: 0x0080_0f12)
    /// EPYC-Rome.
    public static let epycRome = ProcessorSignature(rawValue: 0x0083_0f10)
    /// EPYC-Milan.
    public static let epycMilan = ProcessorSignature(rawValue: 0x00a0_0f11)
    /// EPYC-Genoa.
    public static let epycGenoa = ProcessorSignature(rawValue: 0x00a1_0f10)
    /// EPYC-Turin.
    public static let epycTurin = ProcessorSignature(rawValue: 0x00b0_0f00)

    /// The names of processor types and their signatures, in the order to list them.
    public static let types: [(name: String, signature: ProcessorSignature)] = [
        ("EPYC", epycV4), ("EPYC-v1", epycV4), ("EPYC-v2", epycV4), ("EPYC-IBPB", epycV4), ("EPYC-v3", epycV4),
        ("EPYC-v4", epycV4),
        ("EPYC-Rome", epycRome), ("EPYC-Rome-v1", epycRome), ("EPYC-Rome-v2", epycRome), ("EPYC-Rome-v3", epycRome),
        ("EPYC-Rome-v4", epycRome),
        ("EPYC-Milan", epycMilan), ("EPYC-Milan-v1", epycMilan), ("EPYC-Milan-v2", epycMilan),
        ("EPYC-Genoa", epycGenoa), ("EPYC-Genoa-v1", epycGenoa),
        ("EPYC-Turin", epycTurin), ("EPYC-Turin-v1", epycTurin),
    ]

    /// The signature of a named processor type, upper and lower case alike; nil for a name not in ``types``.
    public init?(typeName: String) {
        let wanted = typeName.lowercased()
        guard let type = Self.types.first(where: { $0.name.lowercased() == wanted }) else { return nil }
        self = type.signature
    }

    /// Combined family.
    public var family: UInt32 {
        let base = rawValue >> 8 & 15
        return base == 15 ? base + (rawValue >> 20 & 0xff) : base
    }

    /// Combined model.
    public var model: UInt32 { rawValue >> 12 & 0xf0 | rawValue >> 4 & 15 }

    public var stepping: UInt32 { rawValue & 15 }

    /// "25/1/1 (0xa00f11)".
    public var description: String { "\(family)/\(model)/\(stepping) (0x\(String(rawValue, radix: 16)))" }
}
