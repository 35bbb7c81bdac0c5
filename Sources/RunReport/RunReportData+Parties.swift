// The boxes of the diagram.

extension RunReportData {
    /// The AMD secure processor.
    public struct Firmware: Equatable, Sendable {
        /// Platform state, API version, build, handle and state of the guest.
        public var facts: [Fact]

        public init(facts: [Fact] = []) { self.facts = facts }
    }

    /// The VMM, and the host kernel under it.
    public struct Hypervisor: Equatable, Sendable {
        /// "swift-snp-vmm".
        public var name: String
        /// "software" or "kvm".
        public var backend: String
        public var facts: [Fact]

        public init(name: String, backend: String, facts: [Fact] = []) {
            self.name = name
            self.backend = backend
            self.facts = facts
        }
    }

    /// Where the keys are.
    public struct MemoryController: Equatable, Sendable {
        /// One key. Nothing in it says anything about the key itself.
        public struct KeySlot: Equatable, Sendable {
            public var asid: UInt32
            /// Whose key: "guest.img".
            public var label: String
            /// In use now; a slot that was scrubbed is shown empty.
            public var isLoaded: Bool

            public init(asid: UInt32, label: String, isLoaded: Bool = true) {
                self.asid = asid
                self.label = label
                self.isLoaded = isLoaded
            }
        }

        /// Nil where the host kernel does not tell user space.
        public var keySlots: [KeySlot]?
        public var facts: [Fact]

        public init(keySlots: [KeySlot]? = nil, facts: [Fact] = []) {
            self.keySlots = keySlots
            self.facts = facts
        }
    }

    /// One VM.
    public struct VirtualMachine: Equatable, Sendable {
        /// One virtual processor, and where its control structures lie.
        public struct Processor: Equatable, Sendable {
            public var index: Int
            /// The hypervisor's control block, a system physical address.
            public var vmcb: UInt64?
            /// The register state, a system physical address.
            public var vmsa: UInt64?
            /// The shared page for calls to the hypervisor, a guest physical address.
            public var ghcb: UInt64?

            public init(index: Int, vmcb: UInt64? = nil, vmsa: UInt64? = nil, ghcb: UInt64? = nil) {
                self.index = index
                self.vmcb = vmcb
                self.vmsa = vmsa
                self.ghcb = ghcb
            }
        }

        public var name: String
        public var technology: Technology
        public var asid: UInt32?
        public var processors: [Processor]
        public var memoryByteCount: UInt64
        /// Encrypted with the guest's key at the end of the run; nil where only the guest knows (SEV and SEV-ES: the
        /// C-bits are in its page tables).
        public var privateByteCount: UInt64?
        public var sharedByteCount: UInt64?

        public init(
            name: String, technology: Technology, asid: UInt32? = nil, processors: [Processor] = [],
            memoryByteCount: UInt64, privateByteCount: UInt64? = nil, sharedByteCount: UInt64? = nil
        ) {
            self.name = name
            self.technology = technology
            self.asid = asid
            self.processors = processors
            self.memoryByteCount = memoryByteCount
            self.privateByteCount = privateByteCount
            self.sharedByteCount = sharedByteCount
        }
    }

    /// The guest owner, outside the machine.
    public struct GuestOwner: Equatable, Sendable {
        /// "owner.sock", or the names of the files that stood in for it.
        public var place: String
        public var facts: [Fact]

        public init(place: String, facts: [Fact] = []) {
            self.place = place
            self.facts = facts
        }
    }
}
