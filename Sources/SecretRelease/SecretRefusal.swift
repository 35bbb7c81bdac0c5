// The end of an exchange without a secret.

/// Why an owner does not release a secret.
public struct SecretRefusal: Error, Equatable, Sendable, CustomStringConvertible {
    /// More text than this is cut.
    public static let maximumDetailByteCount = 1024

    public var reason: Reason
    /// For people: which field, or what to do. Owners say here what the other side knows already; what they expected is in
    /// their own log.
    public var detail: String

    public init(_ reason: Reason, _ detail: String) {
        self.reason = reason
        self.detail = detail
    }

    public var description: String { "\(reason): \(detail)" }

    /// What kind of refusal. Open: a newer owner may have more.
    public struct Reason: RawRepresentable, Hashable, Sendable, CustomStringConvertible {
        public var rawValue: UInt32
        public init(rawValue: UInt32) { self.rawValue = rawValue }

        /// A message that is none, or out of order.
        public static let malformed = Reason(rawValue: 1)
        /// No version that both sides speak.
        public static let version = Reason(rawValue: 2)
        /// A nonce that this owner did not give out, or has seen already, or that is too old.
        public static let nonce = Reason(rawValue: 3)
        /// The owner has no secret of this name for this guest.
        public static let unknownSecret = Reason(rawValue: 4)
        /// Certificates are missing.
        public static let certificates = Reason(rawValue: 5)
        /// The chain ends in a root that the owner does not trust.
        public static let untrustedRoot = Reason(rawValue: 6)
        /// The certificates are no valid chain.
        public static let chain = Reason(rawValue: 7)
        /// A certificate is revoked, or not valid now.
        public static let validity = Reason(rawValue: 8)
        /// The report's signature does not verify, or its certificate is about another chip or TCB.
        public static let signature = Reason(rawValue: 9)
        /// REPORT_DATA does not bind this nonce, key and name: a report that was made for something else.
        public static let reportData = Reason(rawValue: 10)
        /// MEASUREMENT: not the guest that the owner expects.
        public static let measurement = Reason(rawValue: 11)
        /// The guest policy, the VMPL, the ID block or the platform's settings.
        public static let policy = Reason(rawValue: 12)
        /// Firmware or microcode that is too old.
        public static let tcb = Reason(rawValue: 13)
        /// CHIP_ID: a machine that is not on the owner's list.
        public static let chip = Reason(rawValue: 14)
        /// HOST_DATA.
        public static let hostData = Reason(rawValue: 15)
        /// The owner serves too many, or took too long; later may be better.
        public static let busy = Reason(rawValue: 16)
        /// The owner could not do its part, for example write its log.
        public static let owner = Reason(rawValue: 17)

        private static let names: [Reason: String] = [
            .malformed: "malformed", .version: "version", .nonce: "nonce", .unknownSecret: "unknown-secret",
            .certificates: "certificates", .untrustedRoot: "untrusted-root", .chain: "chain", .validity: "validity",
            .signature: "signature", .reportData: "report-data", .measurement: "measurement", .policy: "policy",
            .tcb: "tcb", .chip: "chip", .hostData: "host-data", .busy: "busy", .owner: "owner",
        ]

        /// "report-data"; a number for one that is not known here.
        public var description: String { Self.names[self] ?? "reason-\(rawValue)" }
    }
}
