import Synchronization
import Testing
import VMMDevices
import VirtioTestSupport

/// Answers each request with its own bytes, backwards.
final class EchoDevice: VirtioDevice {
    struct State: Sendable {
        var activations: [UInt64] = []
        var resets = 0
        var held: [VirtioRequest] = []
        var configuration: [UInt8] = Array(1...16)
    }
    let state = Mutex(State())
    /// Requests are kept instead of answered.
    let holds: Bool

    init(holds: Bool = false) { self.holds = holds }

    let deviceID = VirtioDeviceID(rawValue: 0x77)
    let features: UInt64 = 0x20
    let queueSizes: [UInt16] = [16, 8]
    var configuration: [UInt8] { state.withLock { $0.configuration } }

    func writeConfiguration(_ bytes: [UInt8], at offset: Int) {
        state.withLock { state in
            for (index, byte) in bytes.enumerated() where offset + index < state.configuration.count {
                state.configuration[offset + index] = byte
            }
        }
    }

    func activate(features: UInt64, queues: VirtioQueues) { state.withLock { $0.activations.append(features) } }

    func notify(queue: Int, of queues: VirtioQueues) {
        while let request = queues.take(queue) {
            if holds { state.withLock { $0.held.append(request) } } else { Self.answer(request, queues) }
        }
    }

    static func answer(_ request: VirtioRequest, _ queues: VirtioQueues) {
        guard let bytes = queues.read(request, at: 0, byteCount: Int(request.readableByteCount)) else { return }
        let answer = Array(bytes.reversed().prefix(Int(request.writableByteCount)))
        guard queues.write(answer[...], to: request, at: 0) else { return }
        queues.complete(request, written: UInt64(answer.count))
    }

    func reset() { state.withLock { $0.resets += 1 } }
}

@Suite struct VirtioTransportTests {
    let memory = TestGuestMemory(byteCount: 1 << 20)
    let line = TestInterruptLine()

    private func make(_ device: any VirtioDevice) -> (VirtioMMIO, VirtioDriver) {
        let transport = VirtioMMIO(device, memory: memory) { [line] in line.set($0) }
        return (transport, VirtioDriver(transport, memory: memory))
    }

    @Test func identityAndFeatures() {
        let (_, driver) = make(EchoDevice())
        #expect(driver.read(0x00) == 0x7472_6976)
        #expect(driver.read(0x04) == 2)
        #expect(driver.read(0x08) == 0x77)
        #expect(driver.offeredFeatures == 0x20 | 1 << 28 | 1 << 29 | 1 << 32 | 1 << 33)
        // Beyond 64 feature bits there is nothing.
        driver.write(0x14, 2)
        #expect(driver.read(0x10) == 0)
        // No shared memory region.
        #expect(driver.read(0xb0) == .max)
    }

    @Test func featuresNeedVersion1AndAccessPlatform() {
        let (transport, driver) = make(EchoDevice())
        #expect(driver.negotiate())
        for missing in [32, 33] as [UInt64] {
            #expect(!driver.negotiate(driver.offeredFeatures & ~(1 << missing)))
            // DRIVER_OK without FEATURES_OK starts nothing.
            driver.start(sizes: [16, 8])
            #expect(driver.status & 12 == 0)
        }
        #expect(!driver.negotiate(driver.offeredFeatures | 1 << 40))
        #expect(transport.queues.statistics.refusedFeatures >= 3)
        #expect(driver.negotiate(VirtioFeatures.required))
    }

    @Test func featuresAreClosedAfterFeaturesOK() {
        let device = EchoDevice()
        let (_, driver) = make(device)
        #expect(driver.negotiate(VirtioFeatures.required))
        driver.write(0x24, 0)
        driver.write(0x20, .max)
        driver.start(sizes: [16, 8])
        #expect(device.state.withLock { $0.activations } == [VirtioFeatures.required])
    }

    @Test func statusBitsOnlyGrowUntilAReset() {
        let device = EchoDevice()
        let (_, driver) = make(device)
        #expect(driver.negotiate())
        driver.write(0x70, 1)
        #expect(driver.status == 11)
        // The driver cannot set DEVICE_NEEDS_RESET.
        driver.write(0x70, 11 | 64)
        #expect(driver.status == 11)
        driver.write(0x70, 0)
        #expect(driver.status == 0)
        #expect(device.state.withLock { $0.resets } == 2)
    }

    @Test(arguments: [false, true], [nil, VirtioFeatures.required | VirtioFeatures.indirectDescriptors])
    func requestsAreAnswered(indirect: Bool, features: UInt64?) {
        let (transport, driver) = make(EchoDevice())
        #expect(driver.negotiate(features))
        driver.start(sizes: [16, 8])
        // More than once around the ring.
        for round in 0..<40 {
            let request = driver.add([[1, 2], [UInt8(round), 4, 5]], writable: [2, 6], indirect: indirect)
            driver.kick()
            let used = driver.used()
            #expect(used.map(\.head) == [UInt32(request.head)])
            #expect(used.map(\.written) == [5])
            #expect(driver.answer(request) == [5, 4, UInt8(round), 2, 1, 0, 0, 0])
            #expect(driver.read(0x60) == 1)
            #expect(line.isHigh)
            driver.write(0x64, 1)
            #expect(!line.isHigh)
        }
        #expect(transport.queues.statistics.requests == 40)
        #expect(transport.queues.statistics.faults == 0)
        #expect(line.changes.count == 80)
    }

    @Test func manyRequestsAtOnceAreAnsweredInOrder() {
        let (_, driver) = make(EchoDevice())
        #expect(driver.negotiate())
        driver.start(sizes: [16, 8])
        let requests = (0..<8).map { driver.add([[UInt8($0)]], writable: [1]) }
        driver.kick()
        #expect(driver.used().map(\.head) == requests.map { UInt32($0.head) })
        #expect(requests.map { driver.answer($0) } == (0..<8).map { [UInt8($0)] })
        // One level, however many completions.
        #expect(line.changes == [true])
    }

    @Test func theEventIndexSavesInterruptsAndAsksForNotifications() {
        let (transport, driver) = make(EchoDevice())
        #expect(driver.negotiate())
        driver.start(sizes: [16, 8])
        // used_event 2: an interrupt after the third entry only.
        let ring = driver.rings[0]
        memory.store(UInt16(2), at: ring.driverArea + 4 + 2 * 16)
        for count in 1...3 {
            driver.add([[1]], writable: [1])
            driver.kick()
            #expect(line.isHigh == (count == 3))
            // avail_event: the entry that the device waits for.
            #expect(memory.load(UInt16.self, at: ring.deviceArea + 4 + 8 * 16) == UInt16(count))
        }
        #expect(transport.queues.statistics.interrupts == 1)
    }

    @Test func withoutTheEventIndexTheFlagSuppressesInterrupts() {
        let (_, driver) = make(EchoDevice())
        #expect(driver.negotiate(VirtioFeatures.required))
        driver.start(sizes: [16, 8])
        memory.store(UInt16(1), at: driver.rings[0].driverArea)
        driver.add([[1]], writable: [1])
        driver.kick()
        #expect(driver.used().count == 1)
        #expect(line.changes.isEmpty)
    }

    @Test func whatWasQueuedBeforeDriverOKIsSeen() {
        let (_, driver) = make(EchoDevice())
        #expect(driver.negotiate())
        driver.start(sizes: [16, 8])
        driver.write(0x70, 0)
        // The same rings again, filled before the driver is ready.
        driver.write(0x70, 1)
        driver.write(0x70, 3)
        driver.write(0x24, 1)
        driver.write(0x20, 3)
        driver.write(0x70, 11)
        driver.hand(over: 0)
        driver.add([[9]], writable: [1])
        driver.kick()
        #expect(driver.used().isEmpty)
        driver.write(0x70, 15)
        #expect(driver.used().count == 1)
    }

    @Test func aResetVoidsRequestsInFlight() {
        let device = EchoDevice(holds: true)
        let (transport, driver) = make(device)
        #expect(driver.negotiate())
        driver.start(sizes: [16, 8])
        let request = driver.add([[7, 8]], writable: [2])
        driver.kick()
        let held = device.state.withLock { $0.held }
        #expect(held.count == 1)
        #expect(transport.queues.isCurrent(held[0]))
        #expect(driver.negotiate())
        driver.start(sizes: [16, 8])
        #expect(!transport.queues.isCurrent(held[0]))
        EchoDevice.answer(held[0], transport.queues)
        #expect(driver.used().isEmpty)
        #expect(driver.answer(request) == [0, 0])
        #expect(driver.status & VirtioStatus.needsReset == 0)
        #expect(!line.isHigh)
    }

    @Test func aQueueThatIsTakenBackVoidsItsRequests() {
        let device = EchoDevice(holds: true)
        let (transport, driver) = make(device)
        #expect(driver.negotiate())
        driver.start(sizes: [16, 8])
        let request = driver.add([[7, 8]], writable: [2])
        driver.kick()
        driver.write(0x30, 0)
        driver.write(0x44, 0)
        #expect(driver.read(0x44) == 0)
        driver.hand(over: 0)
        EchoDevice.answer(device.state.withLock { $0.held[0] }, transport.queues)
        #expect(driver.answer(request) == [0, 0])
    }

    @Test func theConfigurationSpace() {
        let device = EchoDevice()
        let (transport, driver) = make(device)
        #expect(driver.device.read(offset: 0x100, byteCount: 8) == 0x0807_0605_0403_0201)
        #expect(driver.device.read(offset: 0x103, byteCount: 1) == 4)
        #expect(driver.device.read(offset: 0x10e, byteCount: 4) == 0x100f)
        #expect(driver.device.read(offset: 0x1f8, byteCount: 8) == 0)
        driver.device.write(offset: 0x102, byteCount: 2, value: 0xbbaa)
        #expect(driver.device.read(offset: 0x100, byteCount: 4) == 0xbbaa_0201)
        let generation = driver.read(0xfc)
        transport.queues.announceConfigurationChange()
        #expect(driver.read(0xfc) != generation)
        #expect(driver.read(0x60) == 0, "no interrupt before DRIVER_OK")
        #expect(driver.negotiate())
        driver.start(sizes: [16, 8])
        transport.queues.announceConfigurationChange()
        #expect(driver.read(0x60) == 2)
        #expect(line.isHigh)
    }

    @Test func oddAccessesDoNothing() {
        let (_, driver) = make(EchoDevice())
        for byteCount in [1, 2, 8] {
            #expect(driver.device.read(offset: 0, byteCount: byteCount) == 0)
        }
        #expect(driver.device.read(offset: 2, byteCount: 4) == 0)
        driver.device.write(offset: 0x70, byteCount: 1, value: 1)
        #expect(driver.status == 0)
        // A queue that is not there.
        driver.write(0x30, 2)
        #expect(driver.read(0x34) == 0)
        driver.write(0x44, 1)
        #expect(driver.read(0x44) == 0)
        driver.write(0x30, .max)
        #expect(driver.read(0x34) == 0)
        driver.write(0x30, 1)
        #expect(driver.read(0x34) == 8)
    }

    @Test func aReadyQueueKeepsItsPlace() {
        let (_, driver) = make(EchoDevice())
        #expect(driver.negotiate())
        driver.start(sizes: [16, 8])
        driver.write(0x30, 0)
        driver.write(0x80, 0xdead_0000)
        driver.write(0x38, 2)
        driver.add([[3]], writable: [1])
        driver.kick()
        #expect(driver.used().count == 1)
    }

    @Test func anEmptySlotIsQuiet() {
        let slot = EmptyVirtioSlot()
        #expect(slot.read(offset: 0, byteCount: 4) == 0x7472_6976)
        #expect(slot.read(offset: 4, byteCount: 4) == 2)
        #expect(slot.read(offset: 8, byteCount: 4) == 0)
        slot.write(offset: 0x70, byteCount: 4, value: 15)
        #expect(slot.read(offset: 0x70, byteCount: 4) == 0)
    }
}
