// What the plan needs to know about the machine it is for.

import X86Defs

/// The machine that a plan is made for.
public struct MachineDescription: Sendable {
    /// RAM in bytes, a multiple of 4096.
    public var memoryByteCount: UInt64
    /// 1…``maximumProcessorCount``.
    public var processorCount: Int
    /// True: an SNP guest. False: the same machine without encryption, secrets, CPUID page and CC blob.
    public var isConfidential: Bool
    /// The page-table bit that makes a page private (CPUID 0x8000001F EBX 5:0). 51 on every SNP part so far.
    public var cBit: UInt8
    /// What RDX holds after reset.
    public var signature: ProcessorSignature
    /// SEV_FEATURES, bit 0 (SNP active) included.
    public var guestFeatures: UInt64
    /// Guest policy [SNP 4.3].
    public var policy: UInt64
    /// The CPUID list the guest gets, for the CPUID page. Empty is fine for a measurement: the page's contents do not enter
    /// the digest.
    public var cpuid: [CPUIDLeaf]

    public static let maximumProcessorCount = 255

    public init(
        memoryByteCount: UInt64, processorCount: Int = 1, isConfidential: Bool = true, cBit: UInt8 = 51,
        signature: ProcessorSignature = .epycV4, guestFeatures: UInt64 = 1, policy: UInt64 = 0x30000,
        cpuid: [CPUIDLeaf] = []
    ) {
        self.memoryByteCount = memoryByteCount
        self.processorCount = processorCount
        self.isConfidential = isConfidential
        self.cBit = cBit
        self.signature = signature
        self.guestFeatures = guestFeatures
        self.policy = policy
        self.cpuid = cpuid
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
        guard !isConfidential || guestFeatures & 1 == 1 else {
            throw refuse(
                "guest features", expected: "bit 0 (SNP active) set", found: hex(guestFeatures),
                next: "set bit 0 in --guest-features")
        }
    }
}
