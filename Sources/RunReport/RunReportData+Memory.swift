// The guest's physical memory by state, and the exits over time.

extension RunReportData {
    /// What a page is.
    public enum PageState: String, CaseIterable, Sendable {
        /// Private; its contents were measured at launch.
        case measured
        /// Private and validated at launch, contents not measured (zero or unmeasured pages).
        case validated
        /// Private; the guest validated it, or made it private again.
        case `private`
        /// Private pages that the launch did not touch: SNP waits for the guest to validate them, SEV reads garbage.
        case untouched
        /// Readable and writable by the host.
        case shared
        /// Where the owner's secret was put.
        case secret
        /// Written by the firmware: secrets page, CPUID page.
        case firmware
        /// A processor's register state.
        case vmsa
        /// A plain VM's memory: the host reads and writes all of it.
        case plain
    }

    /// A run of pages with one state.
    public struct Region: Equatable, Sendable {
        public var start: UInt64
        public var byteCount: UInt64
        public var state: PageState
        /// "kernel", "initrd"; empty where it has no name.
        public var label: String

        public init(start: UInt64, byteCount: UInt64, state: PageState, label: String = "") {
            self.start = start
            self.byteCount = byteCount
            self.state = state
            self.label = label
        }
    }

    /// The address space twice. Regions may come in any order; where they overlap, the later one counts.
    public struct MemoryMap: Equatable, Sendable {
        /// After the launch, before the first instruction.
        public var before: [Region]
        /// When the run had ended; nil when the guest did not run, or nobody knows.
        public var after: [Region]?
        /// Pages that have an address outside the guest's memory, such as the VMSA of KVM.
        public var outside: [Region]
        /// What the reader must know: "SEV: the C-bit is in the guest's page tables".
        public var note: String

        public init(before: [Region] = [], after: [Region]? = nil, outside: [Region] = [], note: String = "") {
            self.before = before
            self.after = after
            self.outside = outside
            self.note = note
        }
    }

    /// Exits by kind in equal spans of time.
    public struct ExitTimeline: Equatable, Sendable {
        /// One kind of exit.
        public struct Kind: Equatable, Sendable {
            /// "KVM_EXIT_IO".
            public var name: String
            public var total: UInt64
            /// Exits in each span; empty where only the total is known.
            public var bins: [UInt64]

            public init(name: String, total: UInt64, bins: [UInt64] = []) {
                self.name = name
                self.total = total
                self.bins = bins
            }
        }

        /// The length of a span.
        public var binNanoseconds: UInt64
        /// From the first KVM_RUN to the end.
        public var runNanoseconds: UInt64
        public var kinds: [Kind]

        public init(binNanoseconds: UInt64 = 0, runNanoseconds: UInt64 = 0, kinds: [Kind] = []) {
            self.binNanoseconds = binNanoseconds
            self.runNanoseconds = runNanoseconds
            self.kinds = kinds
        }

        /// All exits.
        public var total: UInt64 { kinds.reduce(0) { $0 &+ $1.total } }
    }
}
