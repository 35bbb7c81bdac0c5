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
    /// Guest policy [SNP 4.3].
    public var policy: UInt64

    public init(regions: [Region], processors: [ProcessorState], guestFeatures: UInt64 = 1, policy: UInt64 = 0x30000) {
        self.regions = regions
        self.processors = processors
        self.guestFeatures = guestFeatures
        self.policy = policy
    }
}
