// One leaf of CPUID, as a value.

/// What CPUID answers for one leaf and subleaf [APM3 appendix E].
public struct CPUIDLeaf: Equatable, Sendable {
    /// EAX in.
    public var function: UInt32
    /// ECX in; 0 where it plays no part.
    public var index: UInt32
    /// True when the leaf depends on ECX.
    public var isIndexed: Bool
    public var eax: UInt32
    public var ebx: UInt32
    public var ecx: UInt32
    public var edx: UInt32

    public init(
        function: UInt32, index: UInt32 = 0, isIndexed: Bool = false, eax: UInt32 = 0, ebx: UInt32 = 0, ecx: UInt32 = 0,
        edx: UInt32 = 0
    ) {
        self.function = function
        self.index = index
        self.isIndexed = isIndexed
        self.eax = eax
        self.ebx = ebx
        self.ecx = ecx
        self.edx = edx
    }
}
