// What can be chosen about the host that SoftwareKVM pretends to be.

import SEVABI
import SoftwarePSP

extension SoftwareKVM {
    /// The machine under the kernel.
    public struct Configuration: Sendable {
        /// System memory that guest_memfd pages can take, in bytes; only what is touched becomes resident.
        public var systemMemoryByteCount: UInt64 = 16 << 30
        /// Where the machine's random numbers come from; nil takes fresh ones at each start.
        public var seed: UInt64?
        /// The processor.
        public var profile = ProcessorProfile.milan
        /// The secure processor. Its CPUID values are taken from `profile`.
        public var platform = PlatformProfile.milan(
            cpuid: CPUIDProfile(supported: ProcessorProfile.milan.firmwareCPUID))
        /// Keys, owner and settings of the secure processor's platform, which guest owners know it by. Where it has settings,
        /// they also say which product `profile` and `platform` are of. Nil: a platform that ends with this machine.
        public var platformStorage: PlatformStorage?
        /// Guest TSC frequency unless a VM or vCPU asks for another, in kHz.
        public var tscKHz: UInt32 = 1_000_000
        /// RLIMIT_MEMLOCK of the kernel's callers, in bytes: what REG_REGION and the commands that pin may hold. Nil is
        /// CAP_IPC_LOCK.
        public var lockedMemoryLimit: UInt64?
        /// With a seed: give every *legal* variation of an answer a chance, such as a LAUNCH_UPDATE that stops early.
        public var variesLegalAnswers = false
        /// What is wrong with the host.
        public var scenario = HostScenario()

        /// Handles are descriptors of this process, and what is mapped through them is a file: for programs that map it
        /// themselves.
        public var handlesAreDescriptors = false

        /// A Milan-like machine with 16 GiB.
        public init() {}

        /// A class of ASIDs: the platform's, or as many as a scenario leaves.
        func asids(_ usual: ClosedRange<UInt32>, _ count: UInt32?) -> Range<UInt32> {
            let usual = Range(usual)
            return count.map { usual.lowerBound..<min(usual.upperBound, usual.lowerBound &+ $0) } ?? usual
        }

        /// What the storage says of the machine takes the place of what was chosen, and the secure processor knows the
        /// processor that it is in.
        mutating func settle() {
            if let settings = platformStorage?.settings {
                platform.adopt(settings)
                let named = ProcessorProfile.machine(of: settings.product)
                (profile.signature, profile.brand) = (named.signature, named.brand)
                profile.hasFiveLevelPaging = named.hasFiveLevelPaging
            }
            if let count = scenario.stateASIDCount { profile.minimumSEVASID = count &+ 1 }
            if let count = scenario.memoryASIDCount { profile.asidCount = profile.minimumSEVASID &+ count &- 1 }
            if let version = scenario.firmwareAPI {
                (platform.apiMajor, platform.apiMinor, platform.build) = (
                    version.apiMajor, version.apiMinor, version.build
                )
            }
            if let version = scenario.reportedTCB { platform.committedTCB = version }
            if let byteCount = scenario.systemMemoryByteCount { systemMemoryByteCount = byteCount }
            if let limit = scenario.lockedMemoryLimit { lockedMemoryLimit = limit }
            platform.cpuid = CPUIDProfile(supported: profile.firmwareCPUID.map { scenario.vouchedFor($0) })
        }
    }
}
