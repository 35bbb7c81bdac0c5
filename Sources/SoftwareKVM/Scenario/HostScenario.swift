// What is wrong with the host that SoftwareKVM pretends to be: what its kernel does not offer, what its firmware refuses, and
// what the rest of the system shows. The kernel then answers as a real one on such a host: the same errno, capabilities,
// CPUID bits and firmware status [KVM, KVM-SEV, SNP 6.1].

import HostDiagnosis
import KVMABI
import SEVABI

/// A host in trouble. The initial value is a host without any.
public struct HostScenario: Sendable {
    public var name = "healthy"
    /// One sentence: what is wrong.
    public var about = "nothing is wrong"
    /// A kind of guest that cannot be launched there; where all can, nil.
    public var stops: GuestTechnology?

    // The kernel.

    /// Nodes that do not open.
    public var closedNodes: [DeviceNode: Errno] = [:]
    /// What KVM_CREATE_VM makes and KVM_CAP_VM_TYPES shows. A kind of guest that is missing is missing in CPUID too.
    public var vmTypes: Set<VMType> = [.plain, .sev, .sevES, .snp]
    /// An older kernel: it has neither these capabilities nor their requests.
    public var missingCapabilities: Set<Capability> = []
    /// Attributes of KVM_X86_GRP_SEV that it knows: 0 up to this.
    public var deviceAttributeCount: UInt64 = 3
    /// Policy bits that KVM_SEV_SNP_LAUNCH_START takes; nil for the usual ones.
    public var acceptedPolicyBits: UInt64?
    /// Policy bits that it wants besides bit 17.
    public var requiredPolicyBits: UInt64 = 0
    /// RLIMIT_MEMLOCK, in bytes; nil for none.
    public var lockedMemoryLimit: UInt64?
    /// Memory of the host, in bytes; nil for what the guest needs.
    public var systemMemoryByteCount: UInt64?
    /// Pages that one LAUNCH_UPDATE takes at most.
    public var pagesPerUpdate: UInt64?

    // ASIDs.

    /// ASIDs for SEV-ES and SNP guests, from 1; nil for the profile's.
    public var stateASIDCount: UInt32?
    /// ASIDs for SEV guests, behind those; nil for the profile's.
    public var memoryASIDCount: UInt32?
    /// All ASIDs are in other guests' use.
    public var hasASIDsInUse = false

    // The firmware.

    /// Version of its API; nil for the profile's.
    public var firmwareAPI: FirmwareVersion?
    /// False: SNP_INIT never ran, or failed.
    public var initializesSNP = true
    /// What reports tell, when that is not what runs.
    public var reportedTCB: TCBVersion?
    /// CPUID bits that the kernel offers and the firmware does not vouch for.
    public var refusedCPUID: [CPUIDBits] = []

    /// Answers that come whatever the machine would say.
    public var answers: [ScriptedAnswer] = []
    /// What the system around the kernel shows, where it differs from what follows from the above.
    public var facts = HostFacts()

    public init() {}

    /// Bits of one register of a CPUID leaf.
    public struct CPUIDBits: Sendable, Equatable {
        public enum Register: String, Sendable { case eax, ebx, ecx, edx }
        public var leaf: UInt32
        public var register: Register
        public var bits: UInt32

        public init(leaf: UInt32, register: Register, bits: UInt32) {
            (self.leaf, self.register, self.bits) = (leaf, register, bits)
        }
    }

    /// One request's refusal.
    public struct ScriptedAnswer: Sendable, Equatable {
        /// In the kernel's spelling: KVM_CREATE_VM, KVM_SEV_SNP_LAUNCH_UPDATE, SNP_PLATFORM_STATUS, SEV_ISSUE_CMD for all of
        /// /dev/sev, mmap.
        public var request: String
        public var errno: Errno
        /// What the firmware says with it.
        public var firmwareStatus: FirmwareStatus
        /// Calls that go through before.
        public var after: UInt64
        /// Refusals, then everything goes through again; nil for ever.
        public var times: UInt64?
        /// Of the calls that are left, every how many-th is refused.
        public var every: UInt64

        public init(
            _ request: String, _ errno: Errno, _ firmwareStatus: FirmwareStatus = .success, after: UInt64 = 0,
            times: UInt64? = nil, every: UInt64 = 1
        ) {
            (self.request, self.errno, self.firmwareStatus) = (request, errno, firmwareStatus)
            (self.after, self.times, self.every) = (after, times, max(every, 1))
        }
    }
}

extension HostScenario {
    /// KVM_CAP_VM_TYPES.
    var vmTypesValue: Int32 {
        if missingCapabilities.contains(.vmTypes) { return 0 }
        return vmTypes.reduce(0) { $1.rawValue < 31 ? $0 | 1 << Int32($1.rawValue) : $0 }
    }

    /// Whether KVM_CREATE_VM makes a VM of this type; a kernel without types makes plain ones.
    func makes(_ type: VMType) -> Bool {
        missingCapabilities.contains(.vmTypes) ? type == .plain : vmTypes.contains(type)
    }

    /// Whether KVM_MEMORY_ENCRYPT_OP is there at all.
    var hasSEV: Bool { !vmTypes.isDisjoint(with: [.sev, .sevES, .snp]) }

    /// Requests on a VM that an older kernel does not know.
    var unknownRequests: Set<IoctlRequest> {
        let requests: [Capability: IoctlRequest] = [
            .guestMemfd: .createGuestMemfd, .memoryAttributes: .setMemoryAttributes,
            .userMemory2: .setUserMemoryRegion2,
            .preFaultMemory: .preFaultMemory,
        ]
        return Set(missingCapabilities.compactMap { requests[$0] })
    }

    /// A CPUID leaf as the firmware knows it.
    func vouchedFor(_ entry: CPUIDTableEntry) -> CPUIDTableEntry {
        var entry = entry
        for refused in refusedCPUID where refused.leaf == entry.function && entry.index == 0 {
            switch refused.register {
            case .eax: entry.eax &= ~refused.bits
            case .ebx: entry.ebx &= ~refused.bits
            case .ecx: entry.ecx &= ~refused.bits
            case .edx: entry.edx &= ~refused.bits
            }
        }
        return entry
    }

    /// KVM_GET_SUPPORTED_CPUID: what the kernel shows of leaf 0x8000001F follows from what it can launch.
    func shown(_ entries: [KVMCPUIDEntry]) -> [KVMCPUIDEntry] {
        entries.map { entry in
            guard entry.function == 0x8000_001f else { return entry }
            var entry = entry
            if !hasSEV {
                (entry.eax, entry.ebx, entry.ecx, entry.edx) = (0, 0, 0, 0)
            } else {
                let bits: [(VMType, UInt32)] = [(.sev, 1), (.sevES, 3), (.snp, 4)]
                for (type, bit) in bits where !vmTypes.contains(type) { entry.eax &= ~(1 << bit) }
            }
            return entry
        }
    }
}
