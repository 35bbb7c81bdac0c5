// The processor that the software machine has: what KVM_GET_SUPPORTED_CPUID reports and what firmware checks a CPUID
// page against.
//
// Only what the CPU engine executes is shown: the instruction set of an EPYC of the Milan generation, x86-64-v3 and
// beyond, and what later generations add to its paging. Software that asks for less finds it; software that insists on
// more is told the truth.

import KVMABI
import SEVABI

/// A processor model.
public struct ProcessorProfile: Sendable {
    /// CPUID 1 EAX: family, model, stepping.
    public var signature: UInt32
    /// Position of the C-bit in page-table entries.
    public var cBitPosition: UInt8
    /// Physical address bits that memory encryption takes away.
    public var lostAddressBits: UInt8
    /// Guest physical address bits.
    public var physicalAddressBits: UInt8
    /// Highest ASID for encrypted guests.
    public var asidCount: UInt32
    /// Lowest ASID that is not for SEV-ES and SNP guests; those have 1…this-1.
    public var minimumSEVASID: UInt32
    /// LA57: linear addresses of 57 bits.
    public var hasFiveLevelPaging: Bool
    /// At most 48 characters.
    public var brand: String

    /// Milan as far as this machine executes it: family 25, model 1, stepping 1.
    public static let milan = machine(of: .milan)

    /// A processor of a product line, as far as this machine executes it: beside the name, Genoa and Turin have five levels
    /// of paging.
    public static func machine(of product: ProcessorProduct) -> ProcessorProfile {
        ProcessorProfile(
            signature: product.fms, cBitPosition: 51, lostAddressBits: 1, physicalAddressBits: 48, asidCount: 509,
            minimumSEVASID: 100, hasFiveLevelPaging: product != .milan,
            brand: "swift-snp-vmm software EPYC-\(product.rawValue)")
    }
}

extension ProcessorProfile {
    /// KVM_GET_SUPPORTED_CPUID, in ascending order of leaves.
    var supportedCPUID: [KVMCPUIDEntry] {
        func leaf(
            _ function: UInt32, _ index: UInt32? = nil, a: UInt32 = 0, b: UInt32 = 0, c: UInt32 = 0, d: UInt32 = 0
        )
            -> KVMCPUIDEntry
        {
            KVMCPUIDEntry(function: function, index: index, eax: a, ebx: b, ecx: c, edx: d)
        }
        func bits(_ numbers: UInt32...) -> UInt32 { numbers.reduce(0) { $0 | 1 << $1 } }
        // FPU DE PSE TSC MSR PAE CX8 APIC SEP MTRR PGE CMOV PAT PSE36 CLFSH MMX FXSR SSE SSE2
        let features = bits(0, 2, 3, 4, 5, 6, 8, 9, 11, 12, 13, 15, 16, 17, 19, 23, 24, 25, 26)
        let linearAddressBits: UInt32 = hasFiveLevelPaging ? 57 : 48
        // The bits of leaf 1 that AMD repeats in leaf 0x80000001, and SYSCALL NX MMXEXT Page1GB RDTSCP LM.
        let extendedFeatures = (features & 0x0183_f3ff) | bits(11, 20, 22, 26, 27, 29)
        var entries: [KVMCPUIDEntry] = [
            // "AuthenticAMD"
            leaf(0, a: 0xd, b: 0x6874_7541, c: 0x444d_4163, d: 0x6974_6e65),
            // CLFLUSH line of 8 quadwords, one logical processor. SSE3 PCLMULQDQ SSSE3 FMA CX16 PCID SSE4.1 SSE4.2 x2APIC
            // MOVBE POPCNT AES XSAVE AVX F16C RDRAND hypervisor.
            leaf(
                1, a: signature, b: 0x0001_0800,
                c: bits(0, 1, 9, 12, 13, 17, 19, 20, 21, 22, 23, 25, 26, 28, 29, 30, 31), d: features),
            // ARAT: the local APIC's timer never stops.
            leaf(6, a: bits(2)),
            // FSGSBASE BMI1 AVX2 SMEP BMI2 INVPCID RDSEED ADX SMAP CLFLUSHOPT CLWB SHA; UMIP PKU VAES VPCLMULQDQ RDPID,
            // and LA57.
            leaf(
                7, 0, b: bits(0, 3, 5, 7, 8, 10, 18, 19, 20, 23, 24, 29),
                c: bits(2, 3, 9, 10, 22) | (hasFiveLevelPaging ? bits(16) : 0)),
            // Topology is the VMM's to describe: no subleaf 1.
            leaf(0xb, 0),
            // XSAVE: x87, SSE, AVX, PKRU; XSAVEOPT XSAVEC XGETBV1 XSAVES; where AVX and PKRU lie.
            leaf(0xd, 0, a: 0x207, b: 0x988, c: 0x988),
            leaf(0xd, 1, a: bits(0, 1, 2, 3), b: 0x348),
            leaf(0xd, 2, a: 0x100, b: 0x240),
            leaf(0xd, 9, a: 8, b: 0x980),
            // "KVMKVMKVM"
            leaf(0x4000_0000, a: 0x4000_0001, b: 0x4b4d_564b, c: 0x564b_4d56, d: 0x0000_004d),
            // Both kvmclock MSR pairs, no port-0x80 delay, stable clock.
            leaf(0x4000_0001, a: bits(0, 1, 3, 24)),
            leaf(0x8000_0000, a: 0x8000_001f, b: 0x6874_7541, c: 0x444d_4163, d: 0x6974_6e65),
            // LAHF, CR8 in legacy code, LZCNT, SSE4A, misaligned SSE, PREFETCHW.
            leaf(0x8000_0001, a: signature, c: bits(0, 4, 5, 6, 7, 8), d: extendedFeatures),
        ]
        var name = Array(brand.utf8.prefix(47))
        name += [UInt8](repeating: 0, count: 48 - name.count)
        for part in 0..<3 {
            func word(_ n: Int) -> UInt32 {
                (0..<4).reduce(0) { $0 | UInt32(name[part * 16 + n * 4 + $1]) << UInt32(8 * $1) }
            }
            entries.append(leaf(0x8000_0002 + UInt32(part), a: word(0), b: word(1), c: word(2), d: word(3)))
        }
        entries += [
            // L1: 32 KiB, 8 ways, 64-byte lines; L2: 512 KiB, 8 ways.
            leaf(0x8000_0005, a: 0xff40_ff40, b: 0xff40_ff40, c: 0x2008_0140, d: 0x2008_0140),
            leaf(0x8000_0006, c: 0x0200_6140),
            // Invariant TSC.
            leaf(0x8000_0007, d: bits(8)),
            // CLZERO, FXSAVE keeps error pointers, WBNOINVD.
            leaf(0x8000_0008, a: linearAddressBits << 8 | UInt32(physicalAddressBits), b: bits(0, 2, 9)),
            // SEV, SEV-ES, SEV-SNP, hardware cache coherency.
            leaf(
                0x8000_001f, a: bits(1, 3, 4, 10), b: UInt32(cBitPosition) | UInt32(lostAddressBits) << 6,
                c: asidCount, d: minimumSEVASID),
        ]
        // TSC_DEADLINE and TSC_ADJUST, which KVM makes itself.
        for n in entries.indices {
            if entries[n].function == 1 { entries[n].ecx |= Self.deadlineTimer }
            if entries[n].function == 7 { entries[n].ebx |= Self.tscAdjust }
        }
        return entries
    }

    private static let deadlineTimer: UInt32 = 1 << 24
    private static let tscAdjust: UInt32 = 1 << 1

    /// The same list as the firmware compares a guest's CPUID page with: without the hypervisor's own leaves and bits.
    var firmwareCPUID: [CPUIDTableEntry] {
        supportedCPUID.filter { $0.function >> 28 != 4 }.map {
            CPUIDTableEntry(
                function: $0.function, index: $0.index, eax: $0.eax,
                ebx: $0.function == 7 ? $0.ebx & ~Self.tscAdjust : $0.ebx,
                ecx: $0.function == 1 ? $0.ecx & ~Self.deadlineTimer : $0.ecx, edx: $0.edx)
        }
    }
}
