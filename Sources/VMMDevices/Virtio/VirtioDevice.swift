// What stands behind a transport: a device's identity, its configuration space and its work.

/// The kind of a device [virtio 5].
public struct VirtioDeviceID: RawRepresentable, Hashable, Sendable {
    public let rawValue: UInt32
    public init(rawValue: UInt32) { self.rawValue = rawValue }

    /// No device: a place that stays empty.
    public static let none = Self(rawValue: 0)
    public static let block = Self(rawValue: 2)
    public static let entropy = Self(rawValue: 4)
    public static let socket = Self(rawValue: 19)
}

extension VirtioDeviceID: CustomStringConvertible {
    public var description: String {
        switch self {
        case .none: "none"
        case .block: "disk"
        case .entropy: "entropy"
        case .socket: "socket"
        default: "device \(rawValue)"
        }
    }
}

/// A virtio device behind a transport.
///
/// The transport calls it on vCPU threads, without a lock held. A device may use its queues on any thread, from
/// ``activate(features:queues:)`` on; after ``reset()`` they answer with nothing until they are activated again.
public protocol VirtioDevice: AnyObject, Sendable {
    var deviceID: VirtioDeviceID { get }
    /// Feature bits of this device; ``VirtioFeatures/offered`` come on top.
    var features: UInt64 { get }
    /// QueueNumMax of each queue: powers of two.
    var queueSizes: [UInt16] { get }
    /// The configuration space as it is now; beyond it the driver reads zeroes.
    var configuration: [UInt8] { get }
    /// The driver writes the configuration space: 1, 2, 4 or 8 bytes, anywhere.
    func writeConfiguration(_ bytes: [UInt8], at offset: Int)
    /// DRIVER_OK: the driver is ready, with these features.
    func activate(features: UInt64, queues: VirtioQueues)
    /// The driver has put something into a queue. A hint: there may be nothing in it.
    func notify(queue: Int, of queues: VirtioQueues)
    /// The driver has reset the device. What was taken from the queues is void.
    func reset()
}

extension VirtioDevice {
    /// Most configuration spaces are read-only [virtio 2.5].
    public func writeConfiguration(_ bytes: [UInt8], at offset: Int) {}
}

/// What a device did and met.
public struct VirtioStatistics: Equatable, Sendable {
    /// Writes of QueueNotify.
    public var notifications: UInt64 = 0
    /// Requests taken from the queues.
    public var requests: UInt64 = 0
    /// Bytes copied out of the guest's buffers.
    public var bytesRead: UInt64 = 0
    /// Bytes copied into the guest's buffers.
    public var bytesWritten: UInt64 = 0
    /// Times the interrupt line rose.
    public var interrupts: UInt64 = 0
    /// Times the device stopped because the driver broke a rule.
    public var faults: UInt64 = 0
    /// The last of them, in words.
    public var lastFault: String?
    /// FEATURES_OK refused because the driver left a required feature out or took one that was not offered.
    public var refusedFeatures: UInt64 = 0

    public init() {}
}
