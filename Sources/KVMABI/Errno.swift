// errno, as the kernel answers. Only the numbers matter at the seam; the names are for people.

/// The error number of a refused system call: x86-64 Linux's numbers, in the kernel's spelling.
public struct Errno: RawRepresentable, Hashable, Sendable, Error {
    public let rawValue: Int32
    public init(rawValue: Int32) { self.rawValue = rawValue }

    /// Operation not permitted.
    public static let EPERM = Self(rawValue: 1)
    /// No such file or node.
    public static let ENOENT = Self(rawValue: 2)
    /// Interrupted by a signal.
    public static let EINTR = Self(rawValue: 4)
    /// Input/output error; for SEV commands, the firmware refused.
    public static let EIO = Self(rawValue: 5)
    /// No such device, address or attribute.
    public static let ENXIO = Self(rawValue: 6)
    /// The caller's list has too little or too much room.
    public static let E2BIG = Self(rawValue: 7)
    /// No state to run from.
    public static let ENOEXEC = Self(rawValue: 8)
    /// Not an open file of the right kind.
    public static let EBADF = Self(rawValue: 9)
    /// Try again.
    public static let EAGAIN = Self(rawValue: 11)
    /// Out of memory.
    public static let ENOMEM = Self(rawValue: 12)
    /// Access denied.
    public static let EACCES = Self(rawValue: 13)
    /// Bad address.
    public static let EFAULT = Self(rawValue: 14)
    /// Busy, or all of a resource used up.
    public static let EBUSY = Self(rawValue: 16)
    /// Exists already, or overlaps.
    public static let EEXIST = Self(rawValue: 17)
    /// No such device.
    public static let ENODEV = Self(rawValue: 19)
    /// Invalid argument.
    public static let EINVAL = Self(rawValue: 22)
    /// Too many open files in the system.
    public static let ENFILE = Self(rawValue: 23)
    /// Too many open files.
    public static let EMFILE = Self(rawValue: 24)
    /// The handle does not know the request, or the feature is off.
    public static let ENOTTY = Self(rawValue: 25)
    /// File too large.
    public static let EFBIG = Self(rawValue: 27)
    /// No space.
    public static let ENOSPC = Self(rawValue: 28)
    /// A name that is too long.
    public static let ENAMETOOLONG = Self(rawValue: 36)
    /// The kernel does not know the call.
    public static let ENOSYS = Self(rawValue: 38)
    /// Not supported.
    public static let EOPNOTSUPP = Self(rawValue: 95)
    /// The address is taken.
    public static let EADDRINUSE = Self(rawValue: 98)
    /// Timed out.
    public static let ETIMEDOUT = Self(rawValue: 110)
    /// Nobody listens.
    public static let ECONNREFUSED = Self(rawValue: 111)
    /// A page has a hardware error.
    public static let EHWPOISON = Self(rawValue: 133)
}

extension Errno: CustomStringConvertible {
    /// The kernel's name, `EINVAL`, or nil for a number that has none here.
    public var name: String? { Self.names[rawValue] }

    /// "EINVAL (22)".
    public var description: String { name.map { "\($0) (\(rawValue))" } ?? "errno \(rawValue)" }

    /// The number of a name such as `EINVAL`; nil for a name that is not known here.
    public init?(name: String) {
        guard let number = Self.names.first(where: { $0.value == name })?.key else { return nil }
        self.init(rawValue: number)
    }

    /// Every number that has a name here.
    public static var named: [Errno] { names.keys.sorted().map { Errno(rawValue: $0) } }

    private static let names: [Int32: String] = [
        1: "EPERM",
        2: "ENOENT",
        3: "ESRCH",
        4: "EINTR",
        5: "EIO",
        6: "ENXIO",
        7: "E2BIG",
        8: "ENOEXEC",
        9: "EBADF",
        10: "ECHILD",
        11: "EAGAIN",
        12: "ENOMEM",
        13: "EACCES",
        14: "EFAULT",
        16: "EBUSY",
        17: "EEXIST",
        18: "EXDEV",
        19: "ENODEV",
        20: "ENOTDIR",
        21: "EISDIR",
        22: "EINVAL",
        23: "ENFILE",
        24: "EMFILE",
        25: "ENOTTY",
        26: "ETXTBSY",
        27: "EFBIG",
        28: "ENOSPC",
        29: "ESPIPE",
        30: "EROFS",
        32: "EPIPE",
        33: "EDOM",
        34: "ERANGE",
        35: "EDEADLK",
        36: "ENAMETOOLONG",
        38: "ENOSYS",
        40: "ELOOP",
        61: "ENODATA",
        62: "ETIME",
        71: "EPROTO",
        75: "EOVERFLOW",
        95: "EOPNOTSUPP",
        98: "EADDRINUSE",
        110: "ETIMEDOUT",
        111: "ECONNREFUSED",
        125: "ECANCELED",
        133: "EHWPOISON",
    ]
}
