// The virtio-mmio transport, version 2 [virtio 4.2]: a device's registers in a page of the guest's address space.
//
//   0x000 MagicValue      0x030 QueueSel      0x060 InterruptStatus   0x0a0 QueueDeviceLow
//   0x004 Version         0x034 QueueNumMax   0x064 InterruptACK      0x0a4 QueueDeviceHigh
//   0x008 DeviceID        0x038 QueueNum      0x070 Status            0x0b0 SHMLenLow
//   0x00c VendorID        0x044 QueueReady    0x080 QueueDescLow      0x0b4 SHMLenHigh
//   0x010 DeviceFeatures  0x050 QueueNotify   0x084 QueueDescHigh     0x0b8 SHMBaseLow
//   0x014 …FeaturesSel                        0x090 QueueDriverLow    0x0bc SHMBaseHigh
//   0x020 DriverFeatures                      0x094 QueueDriverHigh   0x0fc ConfigGeneration
//   0x024 …FeaturesSel                                                0x100 the configuration space
//
// Registers are 32 bits wide and aligned; other accesses read zero and write nothing [virtio 4.2.2.2]. A driver that
// does things out of order is not told so: what it wrote has no effect.

import Synchronization

/// One virtio-mmio slot with a device in it.
public final class VirtioMMIO: BusDevice {
    /// "virt".
    public static let magic: UInt32 = 0x7472_6976
    /// The version of the interface without legacy.
    public static let version: UInt32 = 2
    /// VendorID: no vendor list says what this must be.
    public static let vendorID: UInt32 = 0x504e_5356
    /// Bytes of the register window that the address map gives a slot.
    public static let windowByteCount: UInt64 = 0x200
    static let configurationStart: UInt64 = 0x100

    enum Register {
        static let magicValue: UInt64 = 0x000
        static let version: UInt64 = 0x004
        static let deviceID: UInt64 = 0x008
        static let vendorID: UInt64 = 0x00c
        static let deviceFeatures: UInt64 = 0x010
        static let deviceFeaturesSelect: UInt64 = 0x014
        static let driverFeatures: UInt64 = 0x020
        static let driverFeaturesSelect: UInt64 = 0x024
        static let queueSelect: UInt64 = 0x030
        static let queueSizeMaximum: UInt64 = 0x034
        static let queueSize: UInt64 = 0x038
        static let queueReady: UInt64 = 0x044
        static let queueNotify: UInt64 = 0x050
        static let interruptStatus: UInt64 = 0x060
        static let interruptAcknowledge: UInt64 = 0x064
        static let status: UInt64 = 0x070
        static let queueDescriptorLow: UInt64 = 0x080
        static let queueDescriptorHigh: UInt64 = 0x084
        static let queueDriverLow: UInt64 = 0x090
        static let queueDriverHigh: UInt64 = 0x094
        static let queueDeviceLow: UInt64 = 0x0a0
        static let queueDeviceHigh: UInt64 = 0x0a4
        static let sharedMemory: ClosedRange<UInt64> = 0x0b0...0x0bc
        static let configurationGeneration: UInt64 = 0x0fc
    }

    /// What the driver selects before it reads or writes.
    private struct Selection: Sendable {
        var deviceFeatures: UInt32 = 0
        var driverFeatures: UInt32 = 0
        var queue: UInt32 = 0
        /// The features that the driver accepts.
        var accepted: UInt64 = 0
    }

    /// The device behind the registers.
    public let device: any VirtioDevice
    /// The device's queues, for what feeds it from outside.
    public let queues: VirtioQueues
    private let selection = Mutex(Selection())

    /// - Parameter interrupt: Called with the new level of the interrupt line when it changes, on whatever thread, and
    ///   with the queues locked, so that levels arrive in order: it must not call back into the device.
    public init(
        _ device: any VirtioDevice, memory: any SharedGuestMemory, interrupt: @escaping @Sendable (Bool) -> Void
    ) {
        self.device = device
        queues = VirtioQueues(sizes: device.queueSizes, memory: memory, interrupt: interrupt)
    }

    private var offeredFeatures: UInt64 { device.features | VirtioFeatures.offered }

    // MARK: Reads

    public func read(offset: UInt64, byteCount: Int) -> UInt64 {
        if offset >= Self.configurationStart { return readConfiguration(offset - Self.configurationStart, byteCount) }
        guard byteCount == 4, offset & 3 == 0 else { return 0 }
        return UInt64(readRegister(offset))
    }

    private func readRegister(_ register: UInt64) -> UInt32 {
        switch register {
        case Register.magicValue: return Self.magic
        case Register.version: return Self.version
        case Register.deviceID: return device.deviceID.rawValue
        case Register.vendorID: return Self.vendorID
        case Register.deviceFeatures:
            return switch selection.withLock({ $0.deviceFeatures }) {
            case 0: UInt32(truncatingIfNeeded: offeredFeatures)
            case 1: UInt32(truncatingIfNeeded: offeredFeatures >> 32)
            default: 0
            }
        case Register.queueSizeMaximum: return selected { UInt32($0.maximumSize) } ?? 0
        case Register.queueReady: return selected { $0.isReady ? 1 : 0 } ?? 0
        case Register.interruptStatus: return queues.locked { $0.interruptStatus }
        case Register.status: return queues.locked { $0.status }
        // There are no shared memory regions: their length reads as -1 [virtio 4.2.2.1].
        case Register.sharedMemory: return .max
        case Register.configurationGeneration: return queues.locked { $0.configurationGeneration }
        default: return 0
        }
    }

    private func readConfiguration(_ offset: UInt64, _ byteCount: Int) -> UInt64 {
        let bytes = device.configuration
        var value: UInt64 = 0
        for i in 0..<byteCount {
            // Safe: the bus keeps the offset inside the window.
            let position = Int(offset) + i
            if position < bytes.count { value |= UInt64(bytes[position]) << UInt64(8 * i) }
        }
        return value
    }

    private func selected<Result>(_ body: (VirtQueue) -> Result) -> Result? {
        let index = Int(selection.withLock { $0.queue })
        return queues.locked { state in
            state.queues.indices.contains(index) ? body(state.queues[index]) : nil
        }
    }

    // MARK: Writes

    public func write(offset: UInt64, byteCount: Int, value: UInt64) {
        if offset >= Self.configurationStart {
            let bytes = (0..<byteCount).map { UInt8(truncatingIfNeeded: value >> UInt64(8 * $0)) }
            device.writeConfiguration(bytes, at: Int(offset - Self.configurationStart))
            return
        }
        guard byteCount == 4, offset & 3 == 0 else { return }
        writeRegister(offset, UInt32(truncatingIfNeeded: value))
    }

    private func writeRegister(_ register: UInt64, _ value: UInt32) {
        switch register {
        case Register.deviceFeaturesSelect: selection.withLock { $0.deviceFeatures = value }
        case Register.driverFeaturesSelect: selection.withLock { $0.driverFeatures = value }
        case Register.driverFeatures: acceptFeatures(value)
        case Register.queueSelect: selection.withLock { $0.queue = value }
        case Register.queueSize: configure { $0.size = value }
        case Register.queueDescriptorLow: configure { Self.setLow(&$0.descriptorTable, value) }
        case Register.queueDescriptorHigh: configure { Self.setHigh(&$0.descriptorTable, value) }
        case Register.queueDriverLow: configure { Self.setLow(&$0.driverArea, value) }
        case Register.queueDriverHigh: configure { Self.setHigh(&$0.driverArea, value) }
        case Register.queueDeviceLow: configure { Self.setLow(&$0.deviceArea, value) }
        case Register.queueDeviceHigh: configure { Self.setHigh(&$0.deviceArea, value) }
        case Register.queueReady: setReady(value)
        case Register.queueNotify: notify(value)
        case Register.interruptAcknowledge: queues.acknowledge(value)
        case Register.status: value == 0 ? reset() : writeStatus(value)
        default: break
        }
    }

    /// Features are open between DRIVER and FEATURES_OK [virtio 3.1.1].
    private func acceptFeatures(_ bits: UInt32) {
        guard queues.locked({ $0.status & (VirtioStatus.driver | VirtioStatus.featuresOK) }) == VirtioStatus.driver
        else { return }
        selection.withLock { selection in
            switch selection.driverFeatures {
            case 0: Self.setLow(&selection.accepted, bits)
            case 1: Self.setHigh(&selection.accepted, bits)
            // Bits that do not exist: a driver that sets one has accepted what was not offered.
            default: if bits != 0 { selection.accepted = .max }
            }
        }
    }

    /// Changes the selected queue while it is the driver's.
    private func configure(_ body: (inout VirtQueue) -> Void) {
        let index = Int(selection.withLock { $0.queue })
        queues.locked { state in
            guard state.queues.indices.contains(index), !state.queues[index].isReady else { return }
            body(&state.queues[index])
        }
    }

    private func setReady(_ value: UInt32) {
        let (index, accepted) = selection.withLock { (Int($0.queue), $0.accepted) }
        let isAgreed = queues.locked { state in
            guard state.queues.indices.contains(index), !state.queues[index].isReady else { return true }
            state.queues[index].hasEventIndex = accepted & VirtioFeatures.eventIndex != 0
            state.queues[index].hasIndirectDescriptors = accepted & VirtioFeatures.indirectDescriptors != 0
            return state.status & VirtioStatus.featuresOK != 0
        }
        if isAgreed { queues.setReady(value & 1 != 0, queue: index) }
    }

    private func notify(_ queue: UInt32) {
        let isRunning = queues.locked { state in
            state.statistics.notifications &+= 1
            return state.isRunning && queue < UInt32(state.queues.count)
        }
        if isRunning { device.notify(queue: Int(queue), of: queues) }
    }

    /// The driver adds bits; only a reset takes them away [virtio 2.1.1].
    private func writeStatus(_ value: UInt32) {
        let accepted = selection.withLock { $0.accepted }
        let starts = queues.locked { state in
            var added = value & VirtioStatus.writtenByDriver & ~state.status
            if added & VirtioStatus.featuresOK != 0, !isAcceptable(accepted) {
                added &= ~VirtioStatus.featuresOK
                state.statistics.refusedFeatures &+= 1
            }
            // Without agreed features there is no device to start.
            if (state.status | added) & VirtioStatus.featuresOK == 0 { added &= ~VirtioStatus.driverOK }
            state.status |= added
            return added & VirtioStatus.driverOK != 0 && state.isRunning
        }
        guard starts else { return }
        device.activate(features: accepted, queues: queues)
        // What a driver had queued and told of before it was ready was not heard.
        for queue in device.queueSizes.indices { device.notify(queue: queue, of: queues) }
    }

    private func isAcceptable(_ features: UInt64) -> Bool {
        features & ~offeredFeatures == 0 && features & VirtioFeatures.required == VirtioFeatures.required
    }

    /// As the driver's write of 0 to Status: also when the machine ends.
    public func reset() {
        queues.reset()
        selection.withLock { $0 = Selection() }
        device.reset()
    }

    private static func setLow(_ field: inout UInt64, _ value: UInt32) {
        field = field & 0xffff_ffff_0000_0000 | UInt64(value)
    }

    private static func setHigh(_ field: inout UInt64, _ value: UInt32) {
        field = field & 0xffff_ffff | UInt64(value) << 32
    }
}

/// A virtio-mmio slot without a device: drivers find DeviceID 0 there and go on without a word [virtio 4.2.3.1.1].
public final class EmptyVirtioSlot: BusDevice {
    public init() {}

    public func read(offset: UInt64, byteCount: Int) -> UInt64 {
        guard byteCount == 4 else { return 0 }
        return switch offset {
        case VirtioMMIO.Register.magicValue: UInt64(VirtioMMIO.magic)
        case VirtioMMIO.Register.version: UInt64(VirtioMMIO.version)
        default: 0
        }
    }

    public func write(offset: UInt64, byteCount: Int, value: UInt64) {}
}
