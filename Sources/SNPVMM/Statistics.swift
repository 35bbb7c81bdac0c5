// What a run did, in counts and times.

import VMMDevices

/// Pages of a confidential guest by state.
public struct PageCounts: Equatable, Sendable {
    /// Pages that only the guest reads.
    public var privatePages: UInt64
    /// Pages that host and guest share.
    public var sharedPages: UInt64
    /// Pages the guest changed to shared, counted each time.
    public var convertedToShared: UInt64
    /// Pages the guest changed back.
    public var convertedToPrivate: UInt64
}

/// One finished step of a launch or a boot.
public struct Phase: Equatable, Sendable {
    /// "create the VM", "launch NORMAL kernel".
    public var name: String
    /// "3640 pages at 0x1000000"; empty where there is nothing to add.
    public var detail: String
    public var duration: Duration
    /// What kind of step of a launch this was; nil for what is no part of one.
    public var step: LaunchStep?
    /// From the launch's beginning to this step's.
    public var start: Duration

    public init(
        name: String, detail: String = "", duration: Duration, step: LaunchStep? = nil, start: Duration = .zero
    ) {
        self.name = name
        self.detail = detail
        self.duration = duration
        self.step = step
        self.start = start
    }
}

/// What one virtio device did.
public struct DeviceStatistics: Equatable, Sendable {
    public var device: VirtioDeviceID
    public var counts: VirtioStatistics

    public init(device: VirtioDeviceID, counts: VirtioStatistics) {
        self.device = device
        self.counts = counts
    }
}

/// The counts of a run.
public struct RunStatistics: Equatable, Sendable {
    /// Exits by the kernel's name, `KVM_EXIT_IO`; KVM_RUN calls that ended without an exit under `EINTR` and `EAGAIN`.
    public var exits: [String: UInt64] = [:]
    /// The same exits by the time they happened, from the first KVM_RUN on.
    public var exitTimeline = ExitTimeline()
    public var pages = PageCounts(privatePages: 0, sharedPages: 0, convertedToShared: 0, convertedToPrivate: 0)
    /// The launch steps in order.
    public var phases: [Phase] = []
    /// From the first KVM_RUN to the first byte on the console; nil when there was none.
    public var untilFirstOutput: Duration?
    /// From the first KVM_RUN to the end.
    public var running: Duration = .zero
    /// Bytes on the guest's console.
    public var consoleByteCount: UInt64 = 0
    /// Hypercalls that were answered with "unknown", by number; the first ``maximumHypercallCount`` numbers.
    public private(set) var unknownHypercalls: [UInt64: UInt64] = [:]
    /// The virtio devices, in the order of their slots.
    public var devices: [DeviceStatistics] = []

    public init() {}

    /// A guest may ask for any number: few are remembered.
    public static let maximumHypercallCount = 8

    mutating func countUnknownHypercall(_ number: UInt64) {
        guard unknownHypercalls[number] != nil || unknownHypercalls.count < Self.maximumHypercallCount else { return }
        unknownHypercalls[number, default: 0] &+= 1
    }

    /// All exits.
    public var exitCount: UInt64 { exits.values.reduce(0, &+) }
}
