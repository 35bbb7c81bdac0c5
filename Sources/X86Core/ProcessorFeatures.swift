// The parts of the instruction set that CPUID can show or hide. What is hidden is undefined here, as on a processor that
// does not have it.

/// Instruction groups behind CPUID bits. x87, MMX, SSE, SSE2, FXSR, CMOV and CMPXCHG8B are always there.
public struct ProcessorFeatures: OptionSet, Sendable, Hashable {
    public let rawValue: UInt64
    public init(rawValue: UInt64) { self.rawValue = rawValue }

    public static let sse3 = Self(rawValue: 1 << 0)
    public static let pclmulqdq = Self(rawValue: 1 << 1)
    public static let ssse3 = Self(rawValue: 1 << 2)
    public static let fma = Self(rawValue: 1 << 3)
    public static let cmpxchg16b = Self(rawValue: 1 << 4)
    public static let sse41 = Self(rawValue: 1 << 5)
    public static let sse42 = Self(rawValue: 1 << 6)
    public static let movbe = Self(rawValue: 1 << 7)
    public static let popcnt = Self(rawValue: 1 << 8)
    public static let aes = Self(rawValue: 1 << 9)
    public static let xsave = Self(rawValue: 1 << 10)
    public static let avx = Self(rawValue: 1 << 11)
    public static let f16c = Self(rawValue: 1 << 12)
    public static let rdrand = Self(rawValue: 1 << 13)
    public static let fsgsbase = Self(rawValue: 1 << 14)
    public static let bmi1 = Self(rawValue: 1 << 15)
    public static let avx2 = Self(rawValue: 1 << 16)
    public static let bmi2 = Self(rawValue: 1 << 17)
    public static let rdseed = Self(rawValue: 1 << 18)
    public static let adx = Self(rawValue: 1 << 19)
    public static let clflushopt = Self(rawValue: 1 << 20)
    public static let clwb = Self(rawValue: 1 << 21)
    public static let sha = Self(rawValue: 1 << 22)
    public static let rdpid = Self(rawValue: 1 << 23)
    public static let vaes = Self(rawValue: 1 << 24)
    public static let vpclmulqdq = Self(rawValue: 1 << 25)
    /// LZCNT.
    public static let abm = Self(rawValue: 1 << 26)
    public static let sse4a = Self(rawValue: 1 << 27)
    /// MXCSR.MM: SSE operands off their boundary.
    public static let misalignedSSE = Self(rawValue: 1 << 28)
    public static let prefetchw = Self(rawValue: 1 << 29)
    public static let rdtscp = Self(rawValue: 1 << 30)
    public static let xsaveopt = Self(rawValue: 1 << 31)
    public static let xsavec = Self(rawValue: 1 << 32)
    /// XGETBV with ECX 1.
    public static let xgetbv1 = Self(rawValue: 1 << 33)
    public static let xsaves = Self(rawValue: 1 << 34)
    /// LAHF and SAHF in 64-bit mode.
    public static let lahf = Self(rawValue: 1 << 35)
    public static let clzero = Self(rawValue: 1 << 36)
    /// Where AMD's and Intel's processors order faults and exceptions differently: as AMD's do. No CPUID bit but the vendor.
    public static let amdOrder = Self(rawValue: 1 << 37)

    public static let invpcid = Self(rawValue: 1 << 38)

    /// x86-64-v1 with CMPXCHG16B, POPCNT and RDRAND.
    public static let baseline: Self = [.cmpxchg16b, .popcnt, .rdrand, .clflushopt, .clwb, .prefetchw, .lahf]

    /// Everything there is: what an EPYC of the Milan generation announces.
    public static let milan: Self = [
        .baseline, .sse3, .pclmulqdq, .ssse3, .fma, .sse41, .sse42, .movbe, .aes, .xsave, .avx, .f16c, .fsgsbase, .bmi1,
        .avx2, .bmi2, .rdseed, .adx, .sha, .rdpid, .vaes, .vpclmulqdq, .abm, .sse4a, .misalignedSSE, .rdtscp, .xsaveopt,
        .xsavec, .xgetbv1, .xsaves, .clzero, .amdOrder, .invpcid,
    ]
}
