// A guest and a host that do anything to the socket device's connections, in any order: bounds hold, nobody gets bytes
// that the other has not sent, and nobody is sent more than it has room for.

import TestSupport
import VMMDevices

let vsockFuzzers = [
    Fuzzer(
        name: "vsock", summary: "packets and host calls in any order, with fields at their extremes",
        smokeIterations: 3_000, generate: { $0.bytes(40 + $0.below(2_000)) }, check: checkVsock)
]

/// Takes a script apart; zeroes behind its end.
private struct Script {
    private var bytes: ArraySlice<UInt8>
    init(_ bytes: [UInt8]) { self.bytes = bytes[...] }
    var isOver: Bool { bytes.isEmpty }
    mutating func byte() -> UInt8 { bytes.popFirst() ?? 0 }
    mutating func below(_ bound: Int) -> Int { Int(byte()) % bound }
    /// Small numbers, numbers around `edge`, and anything.
    mutating func number(around edge: UInt32) -> UInt32 {
        switch below(6) {
        case 0: 0
        case 1: UInt32(byte())
        case 2: edge &+ UInt32(byte() & 3) &- 1
        case 3: .max &- UInt32(byte() & 3)
        default: (0..<4).reduce(UInt32(0)) { value, _ in value << 8 | UInt32(byte()) }
        }
    }
}

private struct Ports: Hashable {
    var host: UInt32
    var guest: UInt32
}

/// The bytes that go to the guest on one connection.
private struct Model {
    var ports: Ports
    var sentToGuest: UInt32 = 0
    var fromHost: [UInt8] = []
}

/// The guest's last buf_alloc and fwd_cnt by ports.
private typealias Credit = [Ports: (buffer: UInt32, forwarded: UInt32)]

private func checkVsock(_ input: [UInt8]) -> Outcome {
    var script = Script(input)
    var limits = VsockConnections.Limits()
    limits.connectionCount = 8
    limits.toHostByteCount = 64
    limits.toGuestByteCount = 48
    limits.resetCount = 6
    var connections = VsockConnections(guestCID: 3, limits: limits)
    var models: [VsockConnectionID: Model] = [:]
    var credit: Credit = [:]
    var stream: UInt8 = 0
    while !script.isOver {
        let ids = models.keys.sorted()
        let id = ids.isEmpty ? nil : ids[script.below(ids.count)]
        switch script.below(10) {
        case 0, 1, 2, 3:
            guard connections.canReceive else { break }
            var ports = Ports(host: UInt32(script.below(3)), guest: UInt32(script.below(4)))
            if let id, let model = models[id], script.below(3) > 0 { ports = model.ports }
            var header = VsockHeader(
                sourceCID: 3, destinationCID: 2, sourcePort: ports.guest, destinationPort: ports.host,
                operation: VsockOperation(rawValue: UInt16(script.below(9))), flags: UInt32(script.below(5)),
                payloadByteCount: script.number(around: 64), bufferByteCount: script.number(around: 32),
                forwardedByteCount: script.number(around: id.flatMap { models[$0]?.sentToGuest } ?? 0))
            switch script.below(30) {
            case 0: header.sourceCID = UInt64(script.number(around: 3))
            case 1: header.destinationCID = UInt64(script.number(around: 2))
            case 2: header.type = UInt16(script.below(4))
            default: break
            }
            if header.sourceCID == 3, header.destinationCID == 2, header.type == 1 {
                credit[ports] = (header.bufferByteCount, header.forwardedByteCount)
            }
            let count = header.operation == .readWrite ? Int(header.payloadByteCount & 127) : 0
            header.payloadByteCount = UInt32(count)
            let payload = [UInt8](repeating: 0x5a, count: count)
            connections.receive(header, payload: script.below(20) == 0 ? nil : payload[...])
        case 4:
            for request in connections.takeGuestRequests() {
                guard connections.view(of: request.id) != nil else { return .impossible("a request of nobody") }
                if script.below(4) == 0 {
                    connections.refuse(request.id)
                } else {
                    connections.accept(request.id)
                    models[request.id] = Model(ports: Ports(host: request.hostPort, guest: request.guestPort))
                }
            }
        case 5:
            let port = UInt32(script.below(4))
            if let id = connections.connect(toGuestPort: port), let host = connections.hostPort(of: id) {
                models[id] = Model(ports: Ports(host: host, guest: port))
            }
        case 6:
            guard let id, let view = connections.view(of: id) else { break }
            guard view.roomForGuest <= limits.toGuestByteCount else { return .impossible("room \(view.roomForGuest)") }
            let count = min(script.below(60), view.roomForGuest)
            let bytes = (0..<count).map { _ -> UInt8 in
                stream &+= 1
                return stream
            }
            connections.receive(fromHost: bytes[...], id)
            models[id]?.fromHost += bytes
        case 7:
            guard let id, let view = connections.view(of: id) else { break }
            guard view.byteCountForHost <= limits.toHostByteCount else {
                return .impossible("\(view.byteCountForHost) bytes for the host")
            }
            let bytes = connections.bytesForHost(id, limit: script.below(80))
            guard bytes.allSatisfy({ $0 == 0x5a }) else { return .impossible("bytes that the guest did not send") }
            connections.hostTook(bytes.count, id)
        case 8:
            guard let id else { break }
            switch script.below(5) {
            case 0: connections.hostFinished(id)
            case 1: connections.hostStoppedReading(id)
            case 2: connections.hostClosed(id)
            case 3: connections.hostFailed(id)
            default: if script.below(8) == 0 { connections.removeAll() }
            }
        default:
            if let problem = fetch(&connections, room: script.below(40), &models, credit) {
                return .impossible(problem)
            }
        }
        // What the test follows: connections that packets can name.
        for key in models.keys where connections.view(of: key) == nil { models[key] = nil }
        if connections.count > limits.connectionCount { return .impossible("\(connections.count) connections") }
    }
    // With nothing new, there is an end of packets.
    for _ in 0..<1_000 where connections.hasPacket {
        if let problem = fetch(&connections, room: 40, &models, credit) { return .impossible(problem) }
    }
    if connections.hasPacket { return .impossible("packets without end") }
    let counts = connections.statistics
    return .fine(counts.established > 1 ? "several connections" : counts.established == 1 ? "one connection" : "none")
}

private func fetch(
    _ connections: inout VsockConnections, room: Int, _ models: inout [VsockConnectionID: Model], _ credit: Credit
) -> String? {
    guard let packet = connections.nextPacket(room: room) else { return nil }
    let header = packet.header
    guard packet.payload.count <= room, Int(header.payloadByteCount) == packet.payload.count else {
        return "\(packet.payload.count) bytes into a room of \(room)"
    }
    guard header.operation == .readWrite else {
        return packet.payload.isEmpty ? nil : "a payload on operation \(header.operation.rawValue)"
    }
    let ports = Ports(host: header.sourcePort, guest: header.destinationPort)
    // An older one with these ports is one that the guest has forgotten.
    guard let id = models.keys.filter({ models[$0]?.ports == ports }).max(), var model = models[id] else {
        return "bytes on a connection of nobody"
    }
    guard model.fromHost.starts(with: packet.payload) else { return "bytes that the host did not send" }
    model.fromHost.removeFirst(packet.payload.count)
    model.sentToGuest &+= UInt32(packet.payload.count)
    models[id] = model
    guard let (buffer, forwarded) = credit[ports], model.sentToGuest &- forwarded <= buffer else {
        return "more bytes on their way than the guest has room for"
    }
    return nil
}
