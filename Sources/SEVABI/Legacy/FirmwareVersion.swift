// The firmware's version, which a measurement covers.

/// Version of the platform's firmware, as PLATFORM_STATUS tells it [SEV 5.6] and as measurements contain it.
public struct FirmwareVersion: Hashable, Sendable, CustomStringConvertible {
    public var apiMajor: UInt8
    public var apiMinor: UInt8
    public var build: UInt8

    public init(apiMajor: UInt8, apiMinor: UInt8, build: UInt8) {
        self.apiMajor = apiMajor
        self.apiMinor = apiMinor
        self.build = build
    }

    /// "1.55 build 29".
    public var description: String { "\(apiMajor).\(apiMinor) build \(build)" }
}
