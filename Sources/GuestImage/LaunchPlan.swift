// What a launch puts into the guest, as a value: the one thing that is executed on a kernel and digested by
// `LaunchMeasurement`. Order is part of the meaning: it is the order of the measurement.

import SEVABI
import X86Defs

/// Everything that SNP_LAUNCH_UPDATE and SNP_LAUNCH_FINISH will measure, in order [SNP 8.17].
public struct LaunchPlan: Sendable {
    /// A run of pages of one type at consecutive guest physical addresses.
    public struct Region: Sendable {
        /// What it is, for logs: "kernel", "initrd", "CPUID page", "RAM 0x100000…".
        public var label: String
        public var pageType: PageType
        /// Page aligned.
        public var gpa: UInt64
        /// A multiple of 4096.
        public var byteCount: UInt64
        /// The plaintext, exactly `byteCount` bytes; empty for pages whose contents the firmware makes (ZERO, SECRETS).
        public var contents: [UInt8]

        public init(label: String, pageType: PageType, gpa: UInt64, byteCount: UInt64, contents: [UInt8] = []) {
            self.label = label
            self.pageType = pageType
            self.gpa = gpa
            self.byteCount = byteCount
            self.contents = contents
        }
    }

    /// In launch order. Private memory that is in no region is left to the guest to validate.
    public var regions: [Region]
    /// The register state each vCPU is sealed with, in vCPU creation order.
    public var processors: [ProcessorState]
    /// SEV_FEATURES of every VMSA, bit 0 (SNP active) included.
    public var guestFeatures: UInt64
    /// Guest policy: 64 bits of SNP [SNP 4.3], or 32 of SEV and SEV-ES [SEV 3].
    public var policy: UInt64
    /// What protects the guest; nil for a plain one. For SEV and SEV-ES the regions are the LAUNCH_UPDATE_DATA calls: any
    /// multiple of 16 bytes at any multiple of 16, all of type NORMAL.
    public var technology: GuestTechnology?
    /// Where LAUNCH_SECRET puts the owner's secret table; nil when the image has no place for one.
    public var secretArea: SecretArea?

    /// A place in the guest's memory for a secret table, inside one page.
    public struct SecretArea: Equatable, Sendable {
        /// A multiple of 16.
        public var gpa: UInt64
        /// A multiple of 16.
        public var byteCount: UInt64

        public init(gpa: UInt64, byteCount: UInt64) {
            self.gpa = gpa
            self.byteCount = byteCount
        }
    }

    public init(
        regions: [Region], processors: [ProcessorState], guestFeatures: UInt64 = 1, policy: UInt64 = 0x30000,
        technology: GuestTechnology? = .snp, secretArea: SecretArea? = nil
    ) {
        self.regions = regions
        self.processors = processors
        self.guestFeatures = guestFeatures
        self.policy = policy
        self.technology = technology
        self.secretArea = secretArea
    }
}
