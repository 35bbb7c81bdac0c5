// Everything that the page about one run shows, as a value.
//
// The model knows no kernel and no VMM: whoever ran a guest fills it in. What a host kernel does not tell user space is
// nil, and the page says so; nothing is guessed.

/// One run of one guest, with the machine around it.
public struct RunReportData: Equatable, Sendable {
    /// What protects the guest.
    public enum Technology: String, CaseIterable, Sendable {
        case plain
        case sev
        case sevES = "sev-es"
        case snp

        /// As AMD writes it.
        public var displayName: String {
            switch self {
            case .plain: "plain VM"
            case .sev: "SEV"
            case .sevES: "SEV-ES"
            case .snp: "SEV-SNP"
            }
        }

        /// The guest's registers are encrypted: there are VMSAs and GHCBs.
        public var encryptsState: Bool { self == .sevES || self == .snp }
    }

    /// A name and a value; nil where the host does not tell.
    public struct Fact: Equatable, Sendable {
        public var name: String
        public var value: String?

        public init(_ name: String, _ value: String?) {
            self.name = name
            self.value = value
        }
    }

    /// How the run ended.
    public struct Outcome: Equatable, Sendable {
        /// "The guest switched the machine off."
        public var text: String
        public var isSuccess: Bool

        public init(text: String, isSuccess: Bool) {
            self.text = text
            self.isSuccess = isSuccess
        }
    }

    /// What ran: "guest.img".
    public var title: String
    /// Program and version.
    public var program: String
    /// When, for people; empty where nobody looked at the clock.
    public var startedAt = ""
    public var technology: Technology
    /// A machine made of software ran the guest: nothing is protected from anybody.
    public var isSoftwareMachine: Bool
    public var outcome: Outcome
    /// A few facts for the top of the page: memory, processors, time to the first output.
    public var highlights: [Fact] = []

    public var firmware: Firmware
    public var hypervisor: Hypervisor
    public var memoryController: MemoryController
    /// The VMs of the machine. The launch, the memory map and the exits are those of the first.
    public var machines: [VirtualMachine]
    /// Nil when nobody outside took part.
    public var owner: GuestOwner?

    /// What was said during the launch, in order.
    public var messages: [Message] = []
    public var policy: Policy?
    public var measurements: [Measurement] = []
    /// What was done, in order, with durations.
    public var steps: [Step] = []
    public var memory = MemoryMap()
    public var exits = ExitTimeline()

    public init(
        title: String, program: String, technology: Technology, isSoftwareMachine: Bool, outcome: Outcome,
        firmware: Firmware = Firmware(), hypervisor: Hypervisor,
        memoryController: MemoryController = MemoryController(),
        machines: [VirtualMachine] = []
    ) {
        self.title = title
        self.program = program
        self.technology = technology
        self.isSoftwareMachine = isSoftwareMachine
        self.outcome = outcome
        self.firmware = firmware
        self.hypervisor = hypervisor
        self.memoryController = memoryController
        self.machines = machines
    }
}
