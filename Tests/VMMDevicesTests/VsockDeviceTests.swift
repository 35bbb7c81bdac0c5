import Testing
import VMMDevices
import VirtioTestSupport

/// A socket device, its transport, and a driver at the other end.
final class VsockRig {
    let device: VsockDevice
    let driver: VirtioDriver
    let transport: VirtioMMIO
    private var receiving: [VirtioDriver.Request] = []

    init(limits: VsockConnections.Limits = VsockConnections.Limits()) {
        let memory = TestGuestMemory(byteCount: 4 << 20)
        device = VsockDevice(guestCID: 3, limits: limits)
        transport = VirtioMMIO(device, memory: memory) { _ in }
        driver = VirtioDriver(transport, memory: memory)
    }

    func start() {
        #expect(driver.negotiate())
        driver.start(sizes: [64, 64, 16])
        receiving = []
    }

    func send(_ header: VsockHeader, _ payload: [UInt8] = []) {
        driver.add(payload.isEmpty ? [header.bytes] : [header.bytes, payload], to: 1)
        driver.kick(1)
    }

    /// Offers buffers for packets.
    func offer(_ count: Int, byteCount: Int = 4096) {
        for _ in 0..<count { receiving.append(driver.add([], writable: [byteCount], to: 0)) }
        driver.kick(0)
    }

    /// What has come; empty buffers are nil.
    func received() -> [VsockPacket?] {
        driver.used(0).map { used in
            let request = receiving.first { UInt32($0.head) == used.head }!
            receiving.removeAll { UInt32($0.head) == used.head }
            let bytes = Array(driver.answer(request).prefix(Int(used.written)))
            guard let header = VsockHeader(bytes) else { return nil }
            return VsockPacket(header, payload: Array(bytes[VsockHeader.byteCount...]))
        }
    }

    /// Accepts every connection that the guest asks for.
    func accept() -> [VsockConnectionID] {
        device.withConnections { connections in
            let ids = connections.takeGuestRequests().map(\.id)
            for id in ids { connections.accept(id) }
            return ids
        }
    }
}

@Suite struct VsockDeviceTests {
    @Test func identity() {
        let rig = VsockRig()
        #expect(rig.driver.read(0x08) == 19)
        #expect(rig.driver.read(0x100) == 3)
        #expect(rig.driver.read(0x104) == 0)
        #expect(rig.driver.offeredFeatures & 0xff == 1)
    }

    @Test func aConnectionThroughTheRings() throws {
        let rig = VsockRig()
        rig.start()
        rig.offer(8)
        rig.send(VsockGuest.header(.request))
        let id = try #require(rig.accept().first)
        #expect(rig.received().map { $0?.header.operation } == [.response])
        rig.send(VsockGuest.header(.readWrite, byteCount: 5), [1, 2, 3, 4, 5])
        #expect(rig.device.withConnections { Array($0.bytesForHost(id, limit: 100)) } == [1, 2, 3, 4, 5])
        let bytes = (0..<6000).map { UInt8(truncatingIfNeeded: $0) }
        rig.device.withConnections { $0.receive(fromHost: bytes[...], id) }
        let packets = rig.received()
        // A buffer's room is what a packet takes.
        #expect(packets.map { $0?.payload.count } == [4096 - 44, 6000 - 4052])
        #expect(packets.flatMap { $0?.payload ?? [] } == bytes)
        #expect(rig.driver.used(1).count == 2)
        #expect(rig.transport.queues.statistics.faults == 0)
    }

    @Test func packetsWaitForBuffers() {
        let rig = VsockRig()
        rig.start()
        rig.send(VsockGuest.header(.request))
        _ = rig.accept()
        #expect(rig.received().isEmpty)
        // Too small for a header: it goes back empty, and the packet waits on.
        rig.offer(1, byteCount: 20)
        #expect(rig.received() == [nil])
        rig.offer(1, byteCount: 44)
        #expect(rig.received().map { $0?.header.operation } == [.response])
    }

    @Test func theHostIsWokenByWhatConcernsIt() {
        let rig = VsockRig()
        rig.start()
        let wakes = TestInterruptLine()
        rig.device.setWake { wakes.set(true) }
        rig.offer(1)
        #expect(wakes.changes.isEmpty)
        rig.send(VsockGuest.header(.request))
        #expect(!wakes.changes.isEmpty)
        rig.device.setWake(nil)
        _ = rig.accept()
    }

    @Test func malformedPacketsAreHarmless() {
        let rig = VsockRig()
        rig.start()
        rig.offer(8)
        rig.driver.add([[1, 2, 3]], to: 1)
        rig.driver.add([], writable: [100], to: 1)
        rig.driver.kick(1)
        #expect(rig.driver.used(1).count == 2)
        // More payload than there are bytes, and more than any connection can take.
        rig.send(VsockGuest.header(.request))
        _ = rig.accept()
        rig.send(VsockGuest.header(.readWrite, byteCount: 6), [1, 2, 3, 4, 5])
        rig.send(VsockGuest.header(.request, guest: 9))
        _ = rig.accept()
        var huge = VsockGuest.header(.readWrite, guest: 9)
        huge.payloadByteCount = .max
        rig.send(huge, [1])
        #expect(rig.received().map { $0?.header.operation } == [.response, .reset, .response, .reset])
        #expect(rig.transport.queues.statistics.faults == 0)
    }

    @Test func floodsAreHeldUpUntilTheGuestFetchesItsAnswers() {
        var limits = VsockConnections.Limits()
        limits.resetCount = 10
        let rig = VsockRig(limits: limits)
        rig.start()
        for _ in 0..<20 { rig.send(VsockGuest.header(.creditUpdate)) }
        #expect(rig.driver.used(1).count == 10)
        rig.offer(20)
        #expect(rig.driver.used(1).count == 10)
        #expect(rig.received().allSatisfy { $0?.header.operation == .reset })
    }

    @Test func anotherDriverFindsNothing() {
        let rig = VsockRig()
        rig.start()
        rig.send(VsockGuest.header(.request))
        let id = rig.accept()[0]
        rig.start()
        rig.offer(4)
        #expect(rig.received().isEmpty)
        #expect(rig.device.withConnections { $0.view(of: id) } == nil)
    }

    @Test func theEventQueueTellsOfATransportReset() {
        let rig = VsockRig()
        rig.start()
        rig.send(VsockGuest.header(.request))
        let id = rig.accept()[0]
        rig.device.resetTransport()
        #expect(rig.device.withConnections { $0.view(of: id) } == nil)
        // It waits for a buffer that can hold it.
        rig.driver.add([], writable: [3], to: 2)
        let event = rig.driver.add([], writable: [4], to: 2)
        _ = rig.driver.memory.write([0xff, 0xff, 0xff, 0xff], at: event.writable[0].gpa)
        rig.driver.kick(2)
        rig.driver.kick(2)
        #expect(rig.driver.used(2).map(\.written) == [0, 4])
        #expect(rig.driver.answer(event) == [0, 0, 0, 0])
    }
}
