// Which instruction groups a vCPU has: what its CPUID says [APM3 appendix E].

import KVMABI
import X86Core
import X86Defs

extension ProcessorFeatures {
    /// Leaf, subleaf and register of each group's bit.
    private enum Register {
        case eax, ebx, ecx, edx
    }
    private static let bits: [(Self, UInt32, UInt32, Register, UInt32)] = [
        (.sse3, 1, 0, .ecx, 0), (.pclmulqdq, 1, 0, .ecx, 1), (.ssse3, 1, 0, .ecx, 9), (.fma, 1, 0, .ecx, 12),
        (.cmpxchg16b, 1, 0, .ecx, 13), (.sse41, 1, 0, .ecx, 19), (.sse42, 1, 0, .ecx, 20), (.movbe, 1, 0, .ecx, 22),
        (.popcnt, 1, 0, .ecx, 23), (.aes, 1, 0, .ecx, 25), (.xsave, 1, 0, .ecx, 26), (.avx, 1, 0, .ecx, 28),
        (.f16c, 1, 0, .ecx, 29), (.rdrand, 1, 0, .ecx, 30),
        (.fsgsbase, 7, 0, .ebx, 0), (.bmi1, 7, 0, .ebx, 3), (.avx2, 7, 0, .ebx, 5), (.bmi2, 7, 0, .ebx, 8),
        (.invpcid, 7, 0, .ebx, 10),
        (.rdseed, 7, 0, .ebx, 18), (.adx, 7, 0, .ebx, 19), (.clflushopt, 7, 0, .ebx, 23), (.clwb, 7, 0, .ebx, 24),
        (.sha, 7, 0, .ebx, 29), (.vaes, 7, 0, .ecx, 9), (.vpclmulqdq, 7, 0, .ecx, 10), (.rdpid, 7, 0, .ecx, 22),
        (.xsaveopt, 0xd, 1, .eax, 0), (.xsavec, 0xd, 1, .eax, 1), (.xgetbv1, 0xd, 1, .eax, 2),
        (.xsaves, 0xd, 1, .eax, 3),
        (.lahf, 0x8000_0001, 0, .ecx, 0), (.abm, 0x8000_0001, 0, .ecx, 5), (.sse4a, 0x8000_0001, 0, .ecx, 6),
        (.misalignedSSE, 0x8000_0001, 0, .ecx, 7), (.prefetchw, 0x8000_0001, 0, .ecx, 8),
        (.rdtscp, 0x8000_0001, 0, .edx, 27), (.clzero, 0x8000_0008, 0, .ebx, 0),
    ]
    /// What AVX's registers need, and what needs them.
    private static let needAVX: Self = [.avx2, .fma, .f16c, .vaes, .vpclmulqdq]
    private static let needXSave: Self = [.avx, .xsaveopt, .xsavec, .xgetbv1, .xsaves]

    /// The groups that these entries announce; a group without what it stands on is not there.
    init(_ cpuid: [KVMCPUIDEntry]) {
        // The processor behind is AMD's, whatever vendor a guest is told.
        self = .amdOrder
        for (feature, function, index, register, bit) in Self.bits {
            guard
                let entry = cpuid.first(where: {
                    $0.function == function
                        && ($0.flags & KVMCPUIDEntry.significantIndex == 0 || $0.index == index)
                })
            else { continue }
            let value: UInt32
            switch register {
            case .eax: value = entry.eax
            case .ebx: value = entry.ebx
            case .ecx: value = entry.ecx
            case .edx: value = entry.edx
            }
            if value >> bit & 1 != 0 { insert(feature) }
        }
        if !contains(.xsave) { subtract(Self.needXSave) }
        if !contains(.avx) { subtract(Self.needAVX) }
    }
}

extension VirtualCPU {
    /// What the VMM announced; nothing before it has set a CPUID.
    var announcedFeatures: ProcessorFeatures { ProcessorFeatures(cpuid) }

    /// What XCR0 may contain: leaf 0xD, as far as this machine has it [KVM guest_supported_xcr0].
    var supportedXCR0: UInt64 {
        guard announcedFeatures.contains(.xsave), let entry = cpuidEntry(0xd, 0) else { return 3 }
        var components: UInt64 = announcedFeatures.contains(.avx) ? 7 : 3
        if announcedCR4 & CR4.pke != 0 { components |= Self.pkruComponent }
        return UInt64(entry.eax) & components | 3
    }

    /// XCR0 bit of PKRU.
    static let pkruComponent: UInt64 = 1 << 9

    /// Bytes of an XSAVE area that holds these components: legacy region and header, then the upper halves of YMM, then
    /// PKRU, which has its fixed place in the standard format.
    static func saveAreaSize(_ components: UInt64, compacted: Bool) -> UInt32 {
        let withoutPKRU: UInt32 = components & 4 != 0 ? 0x340 : 0x240
        guard components & pkruComponent != 0 else { return withoutPKRU }
        return (compacted ? withoutPKRU : 0x980) + 8
    }
}
