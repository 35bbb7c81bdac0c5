// The sockets of one guest: every connection's state, and what each packet does to it [virtio 5.10.6].
//
// No I/O and no clock: packets and what the host's side did go in, packets and what the host's side is to know come out.
//
//     guest                     VsockConnections                        the host's sockets
//     receive(_:payload:)  ──►  connections, buffers  ──►  takeGuestRequests(), view(of:), bytesForHost(_:limit:)
//     nextPacket(room:)    ◄──                        ◄──  accept, refuse, connect, receive(from host), finish, …
//
// Both ends are hostile. Everything has a bound: connections, the bytes that each of them holds, and the answers that a
// guest has not fetched; beyond the last, no more of its packets are taken (``canReceive``) until it fetches some.

/// The connections of one guest.
public struct VsockConnections: Sendable {
    /// How much a guest can make its host remember.
    public struct Limits: Sendable {
        /// Connections at a time.
        public var connectionCount = 512
        /// `buf_alloc`: bytes of a connection that the host has not taken yet.
        public var toHostByteCount = 128 << 10
        /// Bytes of a connection taken from the host before the guest has room for them.
        public var toGuestByteCount = 64 << 10
        /// RSTs that the guest has not fetched.
        public var resetCount = 256

        public init() {}
    }

    /// What went by.
    public struct Statistics: Equatable, Sendable {
        public var packetsFromGuest: UInt64 = 0
        public var packetsToGuest: UInt64 = 0
        public var bytesFromGuest: UInt64 = 0
        public var bytesToGuest: UInt64 = 0
        /// Connections that both sides agreed on.
        public var established: UInt64 = 0
        /// RSTs sent.
        public var resets: UInt64 = 0
        /// Packets that were no packets of this guest: dropped without a word.
        public var dropped: UInt64 = 0
    }

    /// The first host port given to a connection that the host begins.
    static let firstHostPort: UInt32 = 1 << 30

    public let guestCID: UInt32
    public let limits: Limits
    public private(set) var statistics = Statistics()

    private var connections: [VsockConnectionID: VsockConnection] = [:]
    /// Without those that the guest has forgotten.
    private var byPorts: [VsockPorts: VsockConnectionID] = [:]
    private var nextID: UInt64 = 0
    private var nextHostPort = Self.firstHostPort
    /// Connections that the guest asks for and the host has not heard of.
    private var guestRequests: [VsockConnectionID] = []
    private var resets: [VsockHeader] = []
    /// Connections with something for the guest, in turn.
    private var ready: [VsockConnectionID] = []
    private var hostHasNews = false

    public init(guestCID: UInt32, limits: Limits = Limits()) {
        precondition(VsockCID.guests.contains(guestCID), "a reserved CID")
        self.guestCID = guestCID
        self.limits = limits
    }

    /// Connections now.
    public var count: Int { connections.count }

    /// True once after something that the host's side waits for.
    public mutating func takeHostNews() -> Bool {
        defer { hostHasNews = false }
        return hostHasNews
    }

    /// The guest's driver began anew, or the guest moved: nothing of it is left. The host's side finds no connection any
    /// more where it had one.
    public mutating func removeAll() {
        connections = [:]
        byPorts = [:]
        guestRequests = []
        resets = []
        ready = []
        hostHasNews = true
    }

    // MARK: Packets from the guest

    /// False while the guest has too many answers to fetch: its packets must wait.
    public var canReceive: Bool { resets.count < limits.resetCount }

    /// A packet from the guest's transmit queue.
    ///
    /// - Parameters:
    ///   - payload: The bytes behind the header; nil when there are fewer than the header says, or more than any
    ///     connection can take.
    public mutating func receive(_ header: VsockHeader, payload: ArraySlice<UInt8>?) {
        statistics.packetsFromGuest &+= 1
        // A packet in another's name has nobody who could be answered.
        guard header.sourceCID == UInt64(guestCID) else { return statistics.dropped &+= 1 }
        guard header.destinationCID == VsockCID.host, header.type == VsockType.stream else { return refuse(header) }
        let ports = VsockPorts(host: header.destinationPort, guest: header.sourcePort)
        guard let id = byPorts[ports] else {
            if header.operation == .request { return begin(ports, header) }
            return refuse(header)
        }
        update(id) {
            $0.guestBuffer = header.bufferByteCount
            $0.guestForwarded = header.forwardedByteCount
            if $0.credit > 0 { $0.hasAskedForCredit = false }
        }
        guard let connection = connections[id] else { return }
        switch (header.operation, connection.phase) {
        case (.reset, _):
            forget(id)
        case (.request, _):
            // The guest knows nothing of the old one any more: it has rebooted, or has waited long enough for our RST.
            let isClosed = connection.guestShutdown == .both
            forget(id)
            if isClosed { begin(ports, header) } else { refuse(header) }
        case (.response, .requestedByHost):
            update(id) { $0.phase = .established }
            statistics.established &+= 1
            hostHasNews = true
        case (.readWrite, .established):
            take(payload, id)
        case (.shutdown, .established):
            update(id) {
                $0.guestShutdown.formUnion(VsockShutdown(rawValue: header.flags).intersection(.both))
                if $0.guestShutdown.contains(.receive) { $0.toGuest.removeAll() }
            }
            hostHasNews = true
            closeIfDone(id)
        case (.creditUpdate, .established):
            break
        case (.creditRequest, .established):
            update(id) { $0.owesCreditUpdate = true }
        case (.shutdown, .requestedByGuest):
            // The guest no longer wants what it asked for.
            reset(id)
        case (.creditUpdate, _), (.creditRequest, _):
            break
        default:
            // Bytes or an answer out of turn, or no operation at all.
            reset(id)
        }
    }

    private mutating func begin(_ ports: VsockPorts, _ header: VsockHeader) {
        guard let id = insert(ports, .requestedByGuest) else { return refuse(header) }
        update(id) {
            $0.guestBuffer = header.bufferByteCount
            $0.guestForwarded = header.forwardedByteCount
        }
        guestRequests.append(id)
        hostHasNews = true
    }

    private mutating func take(_ payload: ArraySlice<UInt8>?, _ id: VsockConnectionID) {
        guard let payload, let connection = connections[id], !connection.guestShutdown.contains(.send),
            connection.toHost.count + payload.count <= limits.toHostByteCount
        else { return reset(id) }
        statistics.bytesFromGuest &+= UInt64(payload.count)
        if connection.hostHasStoppedReading {
            // They crossed our SHUTDOWN: nobody is there to take them, and their room is free again.
            didForward(payload.count, id)
        } else if !payload.isEmpty {
            update(id) { $0.toHost.append(payload) }
            hostHasNews = true
        }
    }

    // MARK: Packets to the guest

    /// True when ``nextPacket(room:)`` has something for a guest with room.
    public var hasPacket: Bool { !resets.isEmpty || !ready.isEmpty }

    /// The next packet.
    ///
    /// - Parameter room: The most bytes of payload that it may carry. With none, only packets without payload come.
    public mutating func nextPacket(room: Int) -> VsockPacket? {
        if !resets.isEmpty {
            statistics.packetsToGuest &+= 1
            return VsockPacket(resets.removeFirst())
        }
        for _ in 0..<ready.count {
            let id = ready.removeFirst()
            guard let next = connections[id]?.next(room: room) else {
                // What it has does not fit into this buffer; what it had may be void.
                update(id) { $0.isQueued = false }
                continue
            }
            connections[id]?.isQueued = false
            statistics.packetsToGuest &+= 1
            return packet(next, id)
        }
        return nil
    }

    private mutating func packet(_ next: VsockConnection.Next, _ id: VsockConnectionID) -> VsockPacket {
        var operation = VsockOperation.creditUpdate
        var flags: UInt32 = 0
        var payload: [UInt8] = []
        let capacity = limits.toGuestByteCount
        var wasFull = false
        if case .reset = next {
            statistics.resets &+= 1
            let header = self.header(.reset, connections[id])
            remove(id)
            return VsockPacket(header)
        }
        update(id) { connection in
            switch next {
            case .request:
                connection.owesRequest = false
                operation = .request
            case .response:
                connection.owesResponse = false
                operation = .response
            case .bytes(let count):
                operation = .readWrite
                payload = Array(connection.toGuest.prefix(count))
                wasFull = connection.toGuest.count >= capacity
                connection.toGuest.removeFirst(count)
                connection.sent &+= UInt32(truncatingIfNeeded: count)
            case .shutdown(let directions):
                operation = .shutdown
                flags = directions.rawValue
                connection.announcedShutdown.formUnion(directions)
            case .creditRequest:
                operation = .creditRequest
                connection.hasAskedForCredit = true
            case .creditUpdate, .reset: break
            }
            // Every packet tells the guest how much room it has.
            connection.owesCreditUpdate = false
            connection.announcedForwarded = connection.forwarded
        }
        if wasFull { hostHasNews = true }
        statistics.bytesToGuest &+= UInt64(payload.count)
        var header = self.header(operation, connections[id])
        header.flags = flags
        header.payloadByteCount = UInt32(truncatingIfNeeded: payload.count)
        return VsockPacket(header, payload: payload)
    }

    private func header(_ operation: VsockOperation, _ connection: VsockConnection?) -> VsockHeader {
        VsockHeader(
            sourceCID: VsockCID.host, destinationCID: UInt64(guestCID), sourcePort: connection?.ports.host ?? 0,
            destinationPort: connection?.ports.guest ?? 0, operation: operation,
            bufferByteCount: UInt32(truncatingIfNeeded: limits.toHostByteCount),
            forwardedByteCount: connection?.forwarded ?? 0)
    }

    // MARK: The host's side

    /// Connections that the guest asks for: each is to be accepted or refused.
    public mutating func takeGuestRequests() -> [(id: VsockConnectionID, hostPort: UInt32, guestPort: UInt32)] {
        defer { guestRequests = [] }
        return guestRequests.compactMap { id in connections[id].map { (id, $0.ports.host, $0.ports.guest) } }
    }

    /// The host answers the guest's request. A connection that has gone meanwhile is no error, here and below.
    public mutating func accept(_ id: VsockConnectionID) {
        guard connections[id]?.phase == .requestedByGuest else { return }
        statistics.established &+= 1
        update(id) {
            $0.phase = .established
            $0.owesResponse = true
        }
    }

    /// The host does not want the connection, or cannot have it.
    public mutating func refuse(_ id: VsockConnectionID) {
        if connections[id]?.phase == .requestedByGuest { reset(id) }
    }

    /// The host asks for a connection to a port of the guest. Bytes may follow at once; they wait for the answer.
    ///
    /// - Returns: nil when there are too many connections.
    public mutating func connect(toGuestPort port: UInt32) -> VsockConnectionID? {
        guard let hostPort = freeHostPort(for: port),
            let id = insert(VsockPorts(host: hostPort, guest: port), .requestedByHost)
        else { return nil }
        update(id) { $0.owesRequest = true }
        return id
    }

    /// The host's port of a connection.
    public func hostPort(of id: VsockConnectionID) -> UInt32? { connections[id]?.ports.host }

    /// What there is to do for the host's side; nil when the connection has ended.
    public func view(of id: VsockConnectionID) -> VsockHostView? {
        guard let connection = connections[id] else { return nil }
        let hasStopped = connection.guestShutdown.contains(.receive)
        let room = connection.hostHasFinished || hasStopped ? 0 : limits.toGuestByteCount - connection.toGuest.count
        return VsockHostView(
            isEstablished: connection.phase == .established || connection.phase == .draining,
            byteCountForHost: connection.toHost.count, roomForGuest: max(0, room),
            guestHasFinished: connection.guestShutdown.contains(.send) && connection.toHost.isEmpty,
            guestHasStoppedReading: hasStopped)
    }

    /// Bytes from the host, up to ``VsockHostView/roomForGuest``; more than that are a programmer error.
    public mutating func receive(fromHost bytes: ArraySlice<UInt8>, _ id: VsockConnectionID) {
        guard let connection = connections[id], !connection.hostHasFinished else { return }
        // What a guest does not want to read is lost, as it is on any socket.
        guard !connection.guestShutdown.contains(.receive), connection.phase != .draining else { return }
        precondition(connection.toGuest.count + bytes.count <= limits.toGuestByteCount, "more than there is room for")
        update(id) { $0.toGuest.append(bytes) }
    }

    /// Bytes for the host, up to `limit`.
    public func bytesForHost(_ id: VsockConnectionID, limit: Int) -> ArraySlice<UInt8> {
        connections[id]?.toHost.prefix(limit) ?? []
    }

    /// The host took so many of ``bytesForHost(_:limit:)``.
    public mutating func hostTook(_ count: Int, _ id: VsockConnectionID) {
        guard connections[id] != nil else { return }
        update(id) { $0.toHost.removeFirst(count) }
        didForward(count, id)
        closeIfDone(id)
    }

    /// The host will send no more.
    public mutating func hostFinished(_ id: VsockConnectionID) {
        update(id) { $0.hostHasFinished = true }
    }

    /// The host takes no more bytes.
    public mutating func hostStoppedReading(_ id: VsockConnectionID) {
        guard let connection = connections[id], !connection.hostHasStoppedReading else { return }
        let lost = connection.toHost.count
        update(id) {
            $0.toHost.removeAll()
            $0.hostHasStoppedReading = true
        }
        didForward(lost, id)
        closeIfDone(id)
    }

    /// The host has closed its end.
    public mutating func hostClosed(_ id: VsockConnectionID) {
        guard let phase = connections[id]?.phase else { return }
        // There is nobody to tell of the answer.
        if phase == .requestedByHost { return reset(id) }
        hostFinished(id)
        hostStoppedReading(id)
        if phase == .draining { remove(id) }
    }

    /// The host's end broke: the guest gets what came before, and then a reset.
    public mutating func hostFailed(_ id: VsockConnectionID) {
        hostClosed(id)
        update(id) { $0.hostHasFailed = true }
    }

    // MARK: Connections

    private mutating func update(_ id: VsockConnectionID, _ change: (inout VsockConnection) -> Void) {
        guard connections[id] != nil else { return }
        change(&connections[id]!)
        // Safe: no change removes the connection.
        if !connections[id]!.isQueued, connections[id]!.next(room: .max) != nil {
            connections[id]!.isQueued = true
            ready.append(id)
        }
    }

    /// The guest hears of free room when a quarter of the buffer is free that it knows nothing of: it can never wait for
    /// an update that does not come, and does not get one for each packet.
    private mutating func didForward(_ count: Int, _ id: VsockConnectionID) {
        let threshold = UInt32(truncatingIfNeeded: limits.toHostByteCount / 4)
        update(id) {
            $0.forwarded &+= UInt32(truncatingIfNeeded: count)
            if $0.forwarded &- $0.announcedForwarded >= threshold { $0.owesCreditUpdate = true }
        }
    }

    private mutating func insert(_ ports: VsockPorts, _ phase: VsockConnection.Phase) -> VsockConnectionID? {
        if connections.count >= limits.connectionCount { evict() }
        guard connections.count < limits.connectionCount else { return nil }
        let id = VsockConnectionID(rawValue: nextID)
        nextID &+= 1
        connections[id] = VsockConnection(ports, phase)
        byPorts[ports] = id
        return id
    }

    /// Ends the oldest connection whose host's end has gone and that only the guest still holds on to.
    private mutating func evict() {
        let oldest = connections.lazy.filter { $0.value.hostIsGone && $0.value.phase == .established }.map(\.key).min()
        if let oldest { reset(oldest) }
    }

    /// Ports are given in turn, so that one that the guest may still remember is not used again at once.
    private mutating func freeHostPort(for guestPort: UInt32) -> UInt32? {
        // Safe: of one more port than there can be connections, one is free.
        for _ in 0...limits.connectionCount {
            let port = nextHostPort
            nextHostPort = nextHostPort == .max - 1 ? Self.firstHostPort : nextHostPort + 1
            if byPorts[VsockPorts(host: port, guest: guestPort)] == nil { return port }
        }
        return nil
    }

    /// The guest has closed both directions and the host has all its bytes: the RST lets the guest forget the connection.
    private mutating func closeIfDone(_ id: VsockConnectionID) {
        guard let connection = connections[id], connection.guestShutdown == .both, connection.toHost.isEmpty
        else { return }
        if connection.phase == .draining { remove(id) } else { reset(id) }
    }

    /// The guest has forgotten the connection. What it had sent before it closed still reaches the host.
    private mutating func forget(_ id: VsockConnectionID) {
        guard let connection = connections[id] else { return }
        guard connection.guestShutdown == .both, !connection.toHost.isEmpty else { return remove(id) }
        byPorts[connection.ports] = nil
        ready.removeAll { $0 == id }
        connections[id]?.phase = .draining
    }

    private mutating func reset(_ id: VsockConnectionID) {
        guard let connection = connections[id] else { return }
        // A connection that the guest has not heard of needs no word.
        if !connection.owesRequest, connection.phase != .draining {
            statistics.resets &+= 1
            resets.append(header(.reset, connection))
        }
        remove(id)
    }

    private mutating func remove(_ id: VsockConnectionID) {
        guard let connection = connections.removeValue(forKey: id) else { return }
        if byPorts[connection.ports] == id { byPorts[connection.ports] = nil }
        if connection.isQueued { ready.removeAll { $0 == id } }
        if connection.phase == .requestedByGuest { guestRequests.removeAll { $0 == id } }
        hostHasNews = true
    }

    /// A packet that belongs to no connection. A RST is never answered by a RST.
    private mutating func refuse(_ header: VsockHeader) {
        guard header.operation != .reset else { return }
        statistics.resets &+= 1
        resets.append(header.resetReply)
    }
}
