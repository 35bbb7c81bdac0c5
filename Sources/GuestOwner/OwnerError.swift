// Why a guest owner refused something, told so that its reader can act.

/// One refusal: what was tried, on what, what was expected and found, the likely cause, what to do next.
public struct OwnerError: Error, Equatable, Sendable, CustomStringConvertible {
    /// What kind of refusal it is. The numbers go over the wire.
    public struct Category: RawRepresentable, Hashable, Sendable {
        public var rawValue: UInt32
        public init(rawValue: UInt32) { self.rawValue = rawValue }

        /// A certificate or the chain.
        public static let certificate = Category(rawValue: 1)
        /// The policy, of the guest or of the owner.
        public static let policy = Category(rawValue: 2)
        /// A technology that the owner does not serve.
        public static let technology = Category(rawValue: 3)
        /// Session bytes or the owner's stored state.
        public static let session = Category(rawValue: 4)
        /// The launch measurement.
        public static let measurement = Category(rawValue: 5)
        /// A secret, or its table.
        public static let secret = Category(rawValue: 6)
        /// A message that is malformed or out of turn.
        public static let message = Category(rawValue: 7)
        /// The connection ended or failed.
        public static let connection = Category(rawValue: 8)
    }

    public var category: Category
    /// What was tried: "verify the platform's certificates".
    public var attempt: String
    /// Which part: "CEK", "LAUNCH_MEASURE".
    public var subject: String
    /// The field, in the specification's spelling.
    public var field: String?
    public var expected: String
    public var found: String
    public var likelyCause: String
    public var nextStep: String

    public init(
        _ category: Category, attempt: String, subject: String, field: String? = nil, expected: String, found: String,
        likelyCause: String, nextStep: String
    ) {
        self.category = category
        self.attempt = attempt
        self.subject = subject
        self.field = field
        self.expected = expected
        self.found = found
        self.likelyCause = likelyCause
        self.nextStep = nextStep
    }

    public var description: String {
        "could not \(attempt): \(subject)\(field.map { ", \($0)" } ?? ""): expected \(expected), found \(found). "
            + "Likely cause: \(likelyCause). Next step: \(nextStep)."
    }
}
