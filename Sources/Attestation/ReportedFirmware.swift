// The firmware's version in a report.

extension AttestationReport {
    /// Firmware version, `major.minor.build`.
    public struct FirmwareVersion: Hashable, Comparable, Sendable, CustomStringConvertible {
        public var major: UInt8
        public var minor: UInt8
        public var build: UInt8

        public init(major: UInt8, minor: UInt8, build: UInt8 = 0) {
            self.major = major
            self.minor = minor
            self.build = build
        }

        public static func < (a: Self, b: Self) -> Bool { (a.major, a.minor, a.build) < (b.major, b.minor, b.build) }
        public var description: String { "\(major).\(minor).\(build)" }
    }
}
