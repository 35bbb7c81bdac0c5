// Feature bits of the transport and its queues [virtio 6], and the bits of the device status field [virtio 2.1].

/// Feature bits that all devices here offer.
public enum VirtioFeatures {
    /// VIRTIO_F_INDIRECT_DESC: a descriptor may name a table of descriptors [virtio 2.7.5.3].
    public static let indirectDescriptors: UInt64 = 1 << 28
    /// VIRTIO_F_EVENT_IDX: each side says which index it wants to hear of [virtio 2.7.7].
    public static let eventIndex: UInt64 = 1 << 29
    /// VIRTIO_F_VERSION_1: no legacy interface.
    public static let version1: UInt64 = 1 << 32
    /// VIRTIO_F_ACCESS_PLATFORM: the device has no access to memory that the guest does not grant, so a confidential
    /// guest's driver puts rings and buffers into shared pages.
    public static let accessPlatform: UInt64 = 1 << 33

    /// A driver that leaves one of these out is refused: without them a confidential guest would hand out addresses of
    /// private pages.
    public static let required = version1 | accessPlatform
    /// What the transport adds to a device's own features.
    public static let offered = required | indirectDescriptors | eventIndex
}

/// Bits of the device status field [virtio 2.1].
public enum VirtioStatus {
    /// ACKNOWLEDGE: the guest has seen the device.
    public static let acknowledge: UInt32 = 1
    /// DRIVER: the guest knows how to drive it.
    public static let driver: UInt32 = 2
    /// DRIVER_OK: the driver is ready.
    public static let driverOK: UInt32 = 4
    /// FEATURES_OK: the features are agreed.
    public static let featuresOK: UInt32 = 8
    /// DEVICE_NEEDS_RESET: the device met something that it cannot go on from.
    public static let needsReset: UInt32 = 64
    /// FAILED: the guest has given up.
    public static let failed: UInt32 = 128

    static let writtenByDriver = acknowledge | driver | driverOK | featuresOK | failed
}
