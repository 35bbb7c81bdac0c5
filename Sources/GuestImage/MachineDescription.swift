// What the plan needs to know about the machine it is for.

import SEVABI
import X86Defs

/// The machine that a plan is made for.
public struct MachineDescription: Sendable {
    /// RAM in bytes, a multiple of 4096.
    public var memoryByteCount: UInt64
    /// 1…``maximumProcessorCount``.
    public var processorCount: Int
    /// What protects the guest. Nil: the same machine without encryption.
    public var technology: GuestTechnology?
    /// The page-table bit that makes a page private (CPUID 0x8000001F EBX 5:0). 51 on every SNP part so far, 47 on older
    /// ones.
    public var cBit: UInt8
    /// What RDX holds after reset.
    public var signature: ProcessorSignature
    /// SEV_FEATURES, bit 0 (SNP active) included; 0 for SEV-ES and SEV.
    public var guestFeatures: UInt64
    /// Guest policy: 64 bits of SNP [SNP 4.3], or 32 of SEV and SEV-ES [SEV 3].
    public var policy: UInt64
    /// The CPUID list the guest gets, for the CPUID page. Empty is fine for a measurement: the page's contents do not enter
    /// the digest.
    public var cpuid: [CPUIDLeaf]

    public static let maximumProcessorCount = 255

    /// - Parameters:
    ///   - guestFeatures: Nil for ``defaultGuestFeatures(for:)``.
    ///   - policy: Nil for ``defaultPolicy(for:)``.
    public init(
        memoryByteCount: UInt64, processorCount: Int = 1, technology: GuestTechnology? = .snp, cBit: UInt8 = 51,
        signature: ProcessorSignature = .epycV4, guestFeatures: UInt64? = nil, policy: UInt64? = nil,
        cpuid: [CPUIDLeaf] = []
    ) {
        self.memoryByteCount = memoryByteCount
        self.processorCount = processorCount
        self.technology = technology
        self.cBit = cBit
        self.signature = signature
        self.guestFeatures = guestFeatures ?? Self.defaultGuestFeatures(for: technology)
        self.policy = policy ?? Self.defaultPolicy(for: technology)
        self.cpuid = cpuid
    }

    /// True when any technology protects the guest.
    public var isConfidential: Bool { technology != nil }

    /// SEV_FEATURES when nobody asks for more: SNP active, or nothing.
    public static func defaultGuestFeatures(for technology: GuestTechnology?) -> UInt64 { technology == .snp ? 1 : 0 }

    /// The policy when nobody asks for another.
    ///
    /// SNP: 0x30000, SMT allowed, no debugging, any firmware. SEV: 0x3, NODBG and NOKS: the host may not decrypt the guest
    /// by debug commands and no second guest may be started with its key; both default to allowed in the bits, and no
    /// owner wants them. SEV-ES: 0x7, the same with ES, without which the firmware seals no register state.
    public static func defaultPolicy(for technology: GuestTechnology?) -> UInt64 {
        switch technology {
        case .sev: 0x3
        case .sevES: 0x7
        case .snp, nil: 0x30000
        }
    }

    /// Refuses what no machine can have.
    func check() throws(ImageError) {
        func refuse(_ field: String, expected: String, found: String, next: String) -> ImageError {
            ImageError(
                .badInput, attempt: "plan the machine", field: field, expected: expected, found: found,
                likelyCause: "a mistyped option", nextStep: next)
        }
        guard memoryByteCount & 0xfff == 0, memoryByteCount > 0, memoryByteCount <= GuestAddressMap.ramLimit >> 1 else {
            throw refuse(
                "memory", expected: "a multiple of 4096 up to \(readable(byteCount: GuestAddressMap.ramLimit >> 1))",
                found: "\(memoryByteCount) bytes", next: "pass for example --memory 512M")
        }
        guard processorCount >= 1, processorCount <= Self.maximumProcessorCount else {
            throw refuse(
                "processors", expected: "1…\(Self.maximumProcessorCount)", found: "\(processorCount)",
                next: "pass --cpus 1")
        }
        guard !isConfidential || (cBit >= 46 && cBit <= 51) else {
            throw refuse(
                "C-bit", expected: "a bit position 46…51", found: "\(cBit)",
                next: "take the position from CPUID 0x8000001F EBX of the host")
        }
        switch technology {
        case .snp:
            guard guestFeatures & 1 == 1 else {
                throw refuse(
                    "guest features", expected: "bit 0 (SNP active) set", found: hex(guestFeatures),
                    next: "set bit 0 in --guest-features")
            }
        case .sev, .sevES:
            guard guestFeatures == 0 else {
                throw refuse(
                    "guest features", expected: "0: SEV_FEATURES belong to SNP", found: hex(guestFeatures),
                    next: "leave --guest-features out")
            }
            guard policy >> 32 == 0 else {
                throw refuse(
                    "policy", expected: "at most 32 bits [SEV 3]", found: hex(policy),
                    next: "pass for example --policy \(hex(Self.defaultPolicy(for: technology)))")
            }
        case nil: break
        }
    }
}
