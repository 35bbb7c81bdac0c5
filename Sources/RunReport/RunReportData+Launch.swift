// The arrows of the diagram, and what was measured.

extension RunReportData {
    /// Who can say something.
    public enum Party: String, Sendable {
        case owner, hypervisor, firmware

        /// As on the diagram.
        public var displayName: String {
            switch self {
            case .owner: "guest owner"
            case .hypervisor: "hypervisor"
            case .firmware: "firmware"
            }
        }
    }

    /// One arrow: all calls of one command, or one message between the owner and the hypervisor.
    public struct Message: Equatable, Sendable {
        /// The number of the step that it belongs to, from 1.
        public var number: Int
        public var from: Party
        public var to: Party
        /// The command as the specification writes it, or what was handed over: "session".
        public var name: String
        /// How often.
        public var callCount: UInt64
        /// Bytes that the message is about; 0 where it is not a matter of bytes.
        public var byteCount: UInt64
        /// Nil where nobody took the time.
        public var nanoseconds: UInt64?
        /// "policy 0x30000".
        public var detail: String
        /// The firmware status or error that ended it; nil after success.
        public var failure: String?

        public init(
            number: Int, from: Party, to: Party, name: String, callCount: UInt64 = 1, byteCount: UInt64 = 0,
            nanoseconds: UInt64? = nil, detail: String = "", failure: String? = nil
        ) {
            self.number = number
            self.from = from
            self.to = to
            self.name = name
            self.callCount = callCount
            self.byteCount = byteCount
            self.nanoseconds = nanoseconds
            self.detail = detail
            self.failure = failure
        }
    }

    /// The guest policy, decoded.
    public struct Policy: Equatable, Sendable {
        /// One field.
        public struct Item: Equatable, Sendable {
            /// As the specification writes it: `DEBUG`.
            public var name: String
            /// What its value means here: "the host may not decrypt the guest's memory".
            public var meaning: String
            /// A reader should know: it lets somebody in.
            public var isWarning: Bool

            public init(_ name: String, _ meaning: String, isWarning: Bool = false) {
                self.name = name
                self.meaning = meaning
                self.isWarning = isWarning
            }
        }

        public var rawValue: UInt64
        public var items: [Item]
        /// The host may decrypt the guest's memory by command.
        public var allowsDebug: Bool

        public init(rawValue: UInt64, items: [Item], allowsDebug: Bool) {
            self.rawValue = rawValue
            self.items = items
            self.allowsDebug = allowsDebug
        }
    }

    /// A digest or a measurement.
    public struct Measurement: Equatable, Sendable {
        /// "launch digest, computed before the launch".
        public var title: String
        /// Hexadecimal.
        public var value: String
        /// What it says, and who says it.
        public var note: String
        /// Compared with what it must be: nil where it was not.
        public var isAsExpected: Bool?

        public init(title: String, value: String, note: String = "", isAsExpected: Bool? = nil) {
            self.title = title
            self.value = value
            self.note = note
            self.isAsExpected = isAsExpected
        }
    }

    /// One finished step.
    public struct Step: Equatable, Sendable {
        /// What kind of work.
        public enum Group: String, CaseIterable, Sendable {
            /// Before the host is asked for anything: reading, planning, measuring.
            case prepare
            /// The VM, its memory and processors.
            case machine
            /// Launch commands.
            case launch
            /// The guest runs, until its first output.
            case boot
        }

        public var name: String
        public var detail: String
        public var group: Group
        public var nanoseconds: UInt64

        public init(name: String, detail: String = "", group: Group, nanoseconds: UInt64) {
            self.name = name
            self.detail = detail
            self.group = group
            self.nanoseconds = nanoseconds
        }
    }
}
