// Why an image, a kernel or a machine description was refused.

/// One refusal, told so that its reader can act: what was tried, where, what was expected and found, why, what next.
public struct ImageError: Error, Equatable, Sendable, CustomStringConvertible {
    /// What kind of refusal it is.
    public enum Category: String, Sendable, CaseIterable {
        /// No known format.
        case unrecognised
        /// Ends before something that its own fields promise.
        case truncated
        /// A field contradicts the format or another field.
        case malformed
        /// A valid image of a kind that cannot be launched here.
        case unsupported
        /// Does not fit in the guest's memory.
        case memoryTooSmall
        /// A value given beside the image (command line, processor count, CPUID list) cannot be used.
        case badInput
    }

    public var category: Category
    /// What was tried: "read the setup header of the bzImage".
    public var attempt: String
    /// Where in the image, in bytes from its start, when it is one place.
    public var offset: UInt64?
    /// The field, in the format's own spelling.
    public var field: String?
    public var expected: String
    public var found: String
    public var likelyCause: String
    public var nextStep: String

    public init(
        _ category: Category, attempt: String, offset: UInt64? = nil, field: String? = nil, expected: String,
        found: String, likelyCause: String, nextStep: String
    ) {
        self.category = category
        self.attempt = attempt
        self.offset = offset
        self.field = field
        self.expected = expected
        self.found = found
        self.likelyCause = likelyCause
        self.nextStep = nextStep
    }

    /// The exit status a command ends with: bad image or input.
    public static let exitStatus: Int32 = 3

    public var description: String {
        var place = ""
        if let field { place += " \(field)" }
        if let offset { place += " at offset \(hex(offset))" }
        return "could not \(attempt):\(place.isEmpty ? "" : place + ":") expected \(expected), found \(found). "
            + "Likely cause: \(likelyCause). Next step: \(nextStep)."
    }
}

/// `0x…` in lower case.
func hex<T: BinaryInteger>(_ value: T) -> String { "0x" + String(value, radix: 16) }

/// A byte count for people: whole MiB or KiB where it is one, else bytes.
func readable(byteCount: UInt64) -> String {
    if byteCount >= 1 << 20, byteCount & 0xf_ffff == 0 { return "\(byteCount >> 20) MiB" }
    if byteCount >= 1 << 10, byteCount & 0x3ff == 0 { return "\(byteCount >> 10) KiB" }
    return "\(byteCount) bytes"
}
