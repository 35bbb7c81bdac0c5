import Testing
import VMMDevices

/// The guest's side of ``VsockConnections``: headers from CID 3.
struct VsockGuest {
    var connections: VsockConnections

    init(_ limits: VsockConnections.Limits = VsockConnections.Limits()) {
        connections = VsockConnections(guestCID: 3, limits: limits)
    }

    static func header(
        _ operation: VsockOperation, host: UInt32 = 5000, guest: UInt32 = 1024, flags: UInt32 = 0, byteCount: Int = 0,
        buffer: UInt32 = 1 << 16, forwarded: UInt32 = 0, type: UInt16 = 1, from: UInt64 = 3, to: UInt64 = 2
    ) -> VsockHeader {
        VsockHeader(
            sourceCID: from, destinationCID: to, sourcePort: guest, destinationPort: host, operation: operation,
            type: type, flags: flags, payloadByteCount: UInt32(byteCount), bufferByteCount: buffer,
            forwardedByteCount: forwarded)
    }

    mutating func send(
        _ operation: VsockOperation, host: UInt32 = 5000, guest: UInt32 = 1024, flags: VsockShutdown = [],
        _ payload: [UInt8] = [], buffer: UInt32 = 1 << 16, forwarded: UInt32 = 0
    ) {
        let header = Self.header(
            operation, host: host, guest: guest, flags: flags.rawValue, byteCount: payload.count, buffer: buffer,
            forwarded: forwarded)
        connections.receive(header, payload: payload[...])
    }

    /// Everything there is for the guest.
    mutating func packets(room: Int = 4096) -> [VsockPacket] {
        var packets: [VsockPacket] = []
        while let packet = connections.nextPacket(room: room) { packets.append(packet) }
        return packets
    }

    mutating func operations() -> [VsockOperation] { packets().map(\.header.operation) }

    mutating func connect(toGuestPort port: UInt32) throws -> VsockConnectionID {
        let id = connections.connect(toGuestPort: port)
        return try #require(id)
    }

    /// A connection that the guest began.
    mutating func established(host: UInt32 = 5000, guest: UInt32 = 1024, buffer: UInt32 = 1 << 16) -> VsockConnectionID
    {
        send(.request, host: host, guest: guest, buffer: buffer)
        let id = connections.takeGuestRequests()[0].id
        connections.accept(id)
        _ = packets()
        return id
    }
}

@Suite struct VsockPacketTests {
    @Test func headersHaveTheirFieldsInPlace() {
        let bytes: [UInt8] =
            [3, 0, 0, 0, 0, 0, 0, 0] + [2, 0, 0, 0, 0, 0, 0, 0]  // src_cid, dst_cid
            + [0x01, 0x04, 0, 0] + [0x88, 0x13, 0, 0]  // src_port 1025, dst_port 5000
            + [0x10, 0, 0, 0] + [1, 0] + [5, 0]  // len, type, op
            + [3, 0, 0, 0] + [0, 0, 4, 0] + [0x78, 0x56, 0x34, 0x12]  // flags, buf_alloc, fwd_cnt
        let header = VsockHeader(bytes)
        #expect(
            header
                == VsockHeader(
                    sourceCID: 3, destinationCID: 2, sourcePort: 1025, destinationPort: 5000, operation: .readWrite,
                    type: 1, flags: 3, payloadByteCount: 16, bufferByteCount: 0x40000, forwardedByteCount: 0x1234_5678))
        #expect(header?.bytes == bytes)
        #expect(VsockHeader(Array(bytes.dropLast())) == nil)
    }
}

@Suite struct VsockConnectionsTests {
    @Test func guestConnects() {
        var guest = VsockGuest()
        guest.send(.request)
        #expect(!guest.connections.hasPacket)
        let hasNews = guest.connections.takeHostNews()
        #expect(hasNews)
        let requests = guest.connections.takeGuestRequests()
        #expect(requests.map(\.hostPort) == [5000])
        #expect(requests.map(\.guestPort) == [1024])
        #expect(guest.connections.view(of: requests[0].id)?.isEstablished == false)
        guest.connections.accept(requests[0].id)
        #expect(guest.connections.takeGuestRequests().isEmpty)
        let response = guest.packets()
        #expect(
            response.map(\.header) == [
                VsockHeader(
                    sourceCID: 2, destinationCID: 3, sourcePort: 5000, destinationPort: 1024, operation: .response,
                    bufferByteCount: 128 << 10)
            ])
        #expect(guest.connections.view(of: requests[0].id)?.isEstablished == true)
    }

    @Test func hostRefuses() {
        var guest = VsockGuest()
        guest.send(.request)
        guest.connections.refuse(guest.connections.takeGuestRequests()[0].id)
        #expect(guest.operations() == [.reset])
        #expect(guest.connections.count == 0)
    }

    @Test func hostConnects() throws {
        var guest = VsockGuest()
        let id = try guest.connect(toGuestPort: 22)
        let port = try #require(guest.connections.hostPort(of: id))
        #expect(port >= 1 << 30)
        // What the program has said behind its first line waits for the guest's answer.
        guest.connections.receive(fromHost: [1, 2, 3], id)
        let request = guest.packets()
        #expect(request.map(\.header.operation) == [.request])
        #expect(request[0].header.destinationPort == 22)
        guest.send(.response, host: port, guest: 22)
        #expect(guest.connections.view(of: id)?.isEstablished == true)
        #expect(guest.packets().map(\.payload) == [[1, 2, 3]])
        // Another one gets another port.
        let second = try guest.connect(toGuestPort: 22)
        #expect(guest.connections.hostPort(of: second) != port)
    }

    @Test func guestRefuses() throws {
        var guest = VsockGuest()
        let id = try guest.connect(toGuestPort: 22)
        let port = try #require(guest.connections.hostPort(of: id))
        _ = guest.packets()
        guest.send(.reset, host: port, guest: 22)
        #expect(guest.connections.view(of: id) == nil)
        #expect(guest.operations().isEmpty)
    }

    @Test func hostGivesUpBeforeTheAnswer() throws {
        var guest = VsockGuest()
        let unheard = try guest.connect(toGuestPort: 22)
        guest.connections.hostClosed(unheard)
        #expect(guest.operations().isEmpty)
        let heard = try guest.connect(toGuestPort: 22)
        #expect(guest.operations() == [.request])
        guest.connections.hostClosed(heard)
        #expect(guest.operations() == [.reset])
        #expect(guest.connections.count == 0)
    }

    @Test func bytesGoBothWaysWithCredit() {
        var guest = VsockGuest()
        let id = guest.established(buffer: 10)
        guest.send(.readWrite, [1, 2, 3], buffer: 10)
        #expect(guest.connections.view(of: id)?.byteCountForHost == 3)
        #expect(Array(guest.connections.bytesForHost(id, limit: 2)) == [1, 2])
        guest.connections.hostTook(2, id)
        #expect(Array(guest.connections.bytesForHost(id, limit: 9)) == [3])

        guest.connections.receive(fromHost: Array(0..<25)[...], id)
        var packets = guest.packets(room: 4)
        #expect(packets.map(\.payload) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9], []])
        // No credit left: the guest is asked for some, once.
        #expect(packets.last?.header.operation == .creditRequest)
        #expect(packets[0].header.forwardedByteCount == 2)
        guest.send(.creditUpdate, buffer: 10, forwarded: 0)
        #expect(guest.packets().isEmpty)
        guest.send(.creditUpdate, buffer: 10, forwarded: 10)
        packets = guest.packets(room: 100)
        #expect(packets.map(\.payload) == [Array(10..<20), []])
        guest.send(.creditUpdate, buffer: 16, forwarded: 20)
        #expect(guest.packets(room: 100).map(\.payload) == [Array(20..<25)])
    }

    @Test func countersWrap() {
        var guest = VsockGuest()
        // fwd_cnt ahead of what was sent, or far behind: no credit, and no trap.
        for forwarded in [1, .max, 1 << 31] as [UInt32] {
            let id = guest.established(guest: forwarded)
            guest.connections.receive(fromHost: [1], id)
            _ = guest.packets()
            guest.send(.creditUpdate, guest: forwarded, buffer: .max, forwarded: forwarded)
            guest.connections.receive(fromHost: [2], id)
            _ = guest.packets()
            #expect(guest.connections.view(of: id) != nil)
        }
    }

    @Test func freeRoomIsAnnouncedByTheQuarter() {
        var limits = VsockConnections.Limits()
        limits.toHostByteCount = 100
        var guest = VsockGuest(limits)
        let id = guest.established()
        guest.send(.readWrite, [UInt8](repeating: 7, count: 100))
        guest.connections.hostTook(24, id)
        #expect(guest.packets().isEmpty)
        guest.connections.hostTook(1, id)
        let update = guest.packets()
        #expect(update.map(\.header.operation) == [.creditUpdate])
        #expect(update[0].header.forwardedByteCount == 25)
        // Asked for, it comes at once.
        guest.connections.hostTook(1, id)
        guest.send(.creditRequest)
        #expect(guest.packets().map(\.header.forwardedByteCount) == [26])
    }

    @Test func bytesWithoutCreditEndTheConnection() {
        var limits = VsockConnections.Limits()
        limits.toHostByteCount = 100
        var guest = VsockGuest(limits)
        let id = guest.established()
        guest.send(.readWrite, [UInt8](repeating: 7, count: 100))
        #expect(guest.connections.view(of: id)?.byteCountForHost == 100)
        guest.send(.readWrite, [1])
        #expect(guest.operations() == [.reset])
        #expect(guest.connections.view(of: id) == nil)
    }

    @Test func halfCloseByTheGuest() {
        var guest = VsockGuest()
        let id = guest.established()
        guest.send(.readWrite, [1])
        guest.send(.shutdown, flags: .send)
        #expect(guest.connections.view(of: id)?.guestHasFinished == false)
        guest.connections.hostTook(1, id)
        #expect(guest.connections.view(of: id)?.guestHasFinished == true)
        // The other direction goes on.
        guest.connections.receive(fromHost: [9], id)
        #expect(guest.packets().map(\.payload) == [[9]])
        // Bytes after the end are not.
        guest.send(.readWrite, [1])
        #expect(guest.operations() == [.reset])
    }

    @Test func halfCloseByTheHost() {
        var guest = VsockGuest()
        let id = guest.established()
        guest.connections.receive(fromHost: [9], id)
        guest.connections.hostFinished(id)
        let packets = guest.packets()
        #expect(packets.map(\.header.operation) == [.readWrite, .shutdown])
        #expect(packets[1].header.flags == VsockShutdown.send.rawValue)
        guest.send(.readWrite, [1])
        #expect(guest.connections.view(of: id)?.byteCountForHost == 1)
        #expect(guest.connections.view(of: id)?.roomForGuest == 0)
    }

    @Test func guestClosesAndItsBytesStillArrive() {
        var guest = VsockGuest()
        let id = guest.established()
        guest.send(.readWrite, [1, 2])
        guest.send(.shutdown, flags: .both)
        // The RST that lets the guest forget comes when the host has everything.
        #expect(guest.packets().isEmpty)
        guest.connections.hostTook(2, id)
        #expect(guest.operations() == [.reset])
        #expect(guest.connections.view(of: id) == nil)
    }

    @Test func guestDoesNotWaitForTheResetAndItsBytesStillArrive() {
        var guest = VsockGuest()
        let id = guest.established()
        guest.send(.readWrite, [1, 2])
        guest.send(.shutdown, flags: .both)
        guest.send(.reset)
        #expect(guest.connections.view(of: id)?.byteCountForHost == 2)
        // The ports are free again.
        let other = guest.established()
        #expect(other != id)
        guest.connections.hostTook(2, id)
        #expect(guest.connections.view(of: id) == nil)
        #expect(guest.connections.view(of: other) != nil)
        #expect(guest.packets().isEmpty)
    }

    @Test func guestResets() {
        var guest = VsockGuest()
        let id = guest.established()
        guest.send(.readWrite, [1])
        guest.send(.reset)
        #expect(guest.connections.view(of: id) == nil)
        #expect(guest.packets().isEmpty)
        // A second one belongs to nothing, and RSTs are not answered.
        guest.send(.reset)
        #expect(guest.packets().isEmpty)
    }

    @Test func hostCloses() {
        var guest = VsockGuest()
        let id = guest.established(buffer: 2)
        guest.send(.readWrite, [5, 5], buffer: 2)
        guest.connections.receive(fromHost: [1, 2, 3], id)
        guest.connections.hostClosed(id)
        var packets = guest.packets()
        // It can send no more at once; the end comes behind the last byte.
        #expect(packets.map(\.header.operation) == [.readWrite, .shutdown, .creditRequest])
        #expect(packets[1].header.flags == VsockShutdown.receive.rawValue)
        // What nobody took is room again.
        #expect(packets[1].header.forwardedByteCount == 2)
        guest.send(.readWrite, [6], buffer: 2, forwarded: 2)
        packets = guest.packets()
        #expect(packets.map(\.header.operation) == [.readWrite, .shutdown])
        #expect(packets[1].header.flags == VsockShutdown.both.rawValue)
        #expect(guest.connections.count == 1)
        guest.send(.reset, buffer: 2, forwarded: 3)
        #expect(guest.connections.count == 0)
    }

    @Test func hostBreaks() {
        var guest = VsockGuest()
        let id = guest.established()
        guest.connections.receive(fromHost: [1], id)
        guest.connections.hostFailed(id)
        #expect(guest.operations() == [.readWrite, .reset])
        #expect(guest.connections.count == 0)
    }

    @Test func guestStopsReading() {
        var guest = VsockGuest()
        let id = guest.established()
        guest.connections.receive(fromHost: [1, 2, 3], id)
        guest.send(.shutdown, flags: .receive)
        #expect(guest.packets().isEmpty)
        #expect(guest.connections.view(of: id)?.roomForGuest == 0)
        #expect(guest.connections.view(of: id)?.guestHasStoppedReading == true)
        guest.send(.readWrite, [4])
        #expect(guest.connections.view(of: id)?.byteCountForHost == 1)
    }

    @Test(arguments: [
        VsockGuest.header(.readWrite), VsockGuest.header(.response), VsockGuest.header(.shutdown),
        VsockGuest.header(.creditUpdate), VsockGuest.header(.creditRequest),
        VsockGuest.header(VsockOperation(rawValue: 0)), VsockGuest.header(VsockOperation(rawValue: 99)),
        // Another type, another host.
        VsockGuest.header(.request, type: 2), VsockGuest.header(.request, type: 0), VsockGuest.header(.request, to: 1),
        VsockGuest.header(.request, to: 7),
    ])
    func whatBelongsToNothingIsReset(header: VsockHeader) {
        var guest = VsockGuest()
        guest.connections.receive(header, payload: [])
        let reply = guest.packets()
        #expect(reply.map(\.header.operation) == [.reset])
        #expect(reply[0].header.type == header.type)
        #expect(reply[0].header.sourceCID == header.destinationCID)
        #expect(reply[0].header.destinationPort == header.sourcePort)
        #expect(guest.connections.count == 0)
        #expect(guest.connections.takeGuestRequests().isEmpty)
    }

    @Test func packetsInAnothersNameAreDropped() {
        var guest = VsockGuest()
        guest.connections.receive(VsockGuest.header(.request, from: 4), payload: [])
        guest.connections.receive(VsockGuest.header(.request, from: 1 << 32 | 3), payload: [])
        #expect(guest.packets().isEmpty)
        #expect(guest.connections.statistics.dropped == 2)
    }

    @Test(arguments: [VsockOperation.request, .response, VsockOperation(rawValue: 0), VsockOperation(rawValue: 8)])
    func whatIsOutOfTurnEndsTheConnection(operation: VsockOperation) {
        var guest = VsockGuest()
        let id = guest.established()
        guest.send(operation)
        #expect(guest.operations() == [.reset])
        #expect(guest.connections.view(of: id) == nil)
    }

    @Test func bytesBeforeTheAnswerEndTheConnection() {
        var guest = VsockGuest()
        guest.send(.request)
        guest.send(.readWrite, [1])
        #expect(guest.operations() == [.reset])
        // The host never hears of it.
        #expect(guest.connections.takeGuestRequests().isEmpty)
    }

    @Test func aPayloadThatIsNotThereEndsTheConnection() {
        var guest = VsockGuest()
        let id = guest.established()
        guest.connections.receive(VsockGuest.header(.readWrite, byteCount: 100), payload: nil)
        #expect(guest.operations() == [.reset])
        #expect(guest.connections.view(of: id) == nil)
    }

    @Test func connectionsAreBounded() {
        var limits = VsockConnections.Limits()
        limits.connectionCount = 4
        var guest = VsockGuest(limits)
        let ids = (0..<4).map { guest.established(guest: $0) }
        guest.send(.request, guest: 100)
        #expect(guest.operations() == [.reset])
        let refused = guest.connections.connect(toGuestPort: 1)
        #expect(refused == nil)
        // One that only the guest holds on to makes room.
        guest.connections.hostClosed(ids[2])
        _ = guest.packets()
        guest.send(.request, guest: 100)
        #expect(guest.packets().map(\.header.destinationPort) == [2])
        #expect(guest.connections.takeGuestRequests().count == 1)
        #expect(guest.connections.count == 4)
    }

    @Test func unfetchedAnswersHoldTheGuestUp() {
        var guest = VsockGuest()
        var sent = 0
        while guest.connections.canReceive {
            guest.send(.readWrite, guest: UInt32(sent))
            sent += 1
        }
        #expect(sent == guest.connections.limits.resetCount)
        _ = guest.connections.nextPacket(room: 0)
        #expect(guest.connections.canReceive)
    }

    @Test func connectionsTakeTurns() {
        var guest = VsockGuest()
        let ids = (0..<3).map { guest.established(guest: $0) }
        for id in ids { guest.connections.receive(fromHost: [UInt8](repeating: 1, count: 20)[...], id) }
        #expect(guest.packets(room: 10).map(\.header.destinationPort) == [0, 1, 2, 0, 1, 2])
    }

    @Test func aBufferWithoutRoomTakesNoBytes() {
        var guest = VsockGuest()
        let id = guest.established()
        guest.connections.receive(fromHost: [1], id)
        #expect(guest.connections.nextPacket(room: 0) == nil)
        #expect(guest.connections.hasPacket)
        #expect(guest.packets().map(\.payload) == [[1]])
    }

    @Test func aNewDriverStartsFromNothing() {
        var guest = VsockGuest()
        let id = guest.established()
        guest.connections.receive(fromHost: [1], id)
        guest.send(.request, guest: 7)
        guest.connections.removeAll()
        #expect(guest.packets().isEmpty)
        #expect(guest.connections.takeGuestRequests().isEmpty)
        #expect(guest.connections.view(of: id) == nil)
        // What the host's side still does about it has no effect.
        guest.connections.receive(fromHost: [1], id)
        guest.connections.hostTook(0, id)
        guest.connections.hostFailed(id)
        #expect(!guest.connections.hasPacket)
    }
}
