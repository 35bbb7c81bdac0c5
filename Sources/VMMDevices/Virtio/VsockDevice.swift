// The virtio socket device [virtio 5.10]: moves packets between its queues and ``VsockConnections``.
//
//     queue 0  receive    packets for the guest
//     queue 1  transmit   packets from the guest
//     queue 2  event      tells the guest that its connections are void
//
// The transport's calls come on vCPU threads, the host's side has a thread of its own; one lock lets one of them at the
// connections at a time. A call moves a bounded number of packets: a guest that feeds its queues from one vCPU cannot
// hold another one, or the host's side, for ever.

import ABILayout
import Synchronization

/// A virtio socket device.
public final class VsockDevice: VirtioDevice {
    enum Queue {
        static let receive = 0
        static let transmit = 1
        static let event = 2
    }
    /// VIRTIO_VSOCK_F_STREAM.
    static let streamFeature: UInt64 = 1 << 0
    /// VIRTIO_VSOCK_EVENT_TRANSPORT_RESET.
    static let transportResetEvent: UInt32 = 0
    /// Packets that one call moves before it lets others have the lock.
    static let packetsPerTurn = 512

    private struct State: Sendable {
        var connections: VsockConnections
        var queues: VirtioQueues?
        var owesTransportReset = false
    }
    private let state: Mutex<State>
    private let wake = Mutex<(@Sendable () -> Void)?>(nil)
    private let guestCID: UInt32

    /// - Parameter guestCID: One of ``VsockCID/guests``; another is a programmer error.
    public init(guestCID: UInt32, limits: VsockConnections.Limits = VsockConnections.Limits()) {
        self.guestCID = guestCID
        state = Mutex(State(connections: VsockConnections(guestCID: guestCID, limits: limits)))
    }

    // MARK: The transport's side

    public var deviceID: VirtioDeviceID { .socket }
    public var features: UInt64 { Self.streamFeature }
    public var queueSizes: [UInt16] { [128, 128, 16] }
    public var configuration: [UInt8] {
        var bytes: [UInt8] = []
        bytes.appendLittleEndian(UInt64(guestCID))
        return bytes
    }

    public func activate(features: UInt64, queues: VirtioQueues) {
        turn {
            $0.connections.removeAll()
            $0.queues = queues
        }
    }

    public func notify(queue: Int, of queues: VirtioQueues) { turn { _ in } }

    public func reset() {
        turn {
            $0.connections.removeAll()
            $0.queues = nil
            $0.owesTransportReset = false
        }
    }

    // MARK: The host's side

    /// Names who is to be called, on any thread, when there is something new for the host's side. It must not call back.
    public func setWake(_ wake: (@Sendable () -> Void)?) { self.wake.withLock { $0 = wake } }

    /// Gives the host's side the connections, and then the guest what there is for it.
    public func withConnections<Result: Sendable>(_ body: (inout VsockConnections) -> Result) -> Result {
        turn { state in body(&state.connections) }
    }

    /// Ends all connections and tells the guest that they are void, as after a change of hosts [virtio 5.10.6.7].
    public func resetTransport() {
        turn {
            $0.connections.removeAll()
            $0.owesTransportReset = true
        }
    }

    // MARK: Packets

    private func turn<Result: Sendable>(_ body: (inout State) -> Result) -> Result {
        let (result, hasNews) = state.withLock { state in
            let result = body(&state)
            let isUnfinished = Self.movePackets(&state)
            return (result, state.connections.takeHostNews() || isUnfinished)
        }
        if hasNews { wake.withLock { $0 }?() }
        return result
    }

    /// - Returns: True when there may be more to do.
    private static func movePackets(_ state: inout State) -> Bool {
        guard let queues = state.queues else { return false }
        if state.owesTransportReset, let request = queues.take(Queue.event) {
            var event: [UInt8] = []
            event.appendLittleEndian(transportResetEvent)
            let fits = request.writableByteCount >= UInt64(event.count)
            if fits, queues.write(event[...], to: request, at: 0) { state.owesTransportReset = false }
            queues.complete(request, written: fits ? UInt64(event.count) : 0)
        }
        var rest = packetsPerTurn
        while rest > 0 {
            rest -= 1
            // What the guest has to fetch comes first: its packets wait while too much of that is left.
            if state.connections.hasPacket, let request = queues.take(Queue.receive) {
                send(&state.connections, request, queues)
            } else if state.connections.canReceive, let request = queues.take(Queue.transmit) {
                receive(&state.connections, request, queues)
            } else {
                return false
            }
        }
        return true
    }

    private static func send(_ connections: inout VsockConnections, _ request: VirtioRequest, _ queues: VirtioQueues) {
        var written: UInt64 = 0
        // A buffer without room for a header goes back empty.
        if let room = request.writableByteCount.subtracting(VsockHeader.byteCount),
            let packet = connections.nextPacket(room: Int(min(room, UInt64(maximumPayloadByteCount))))
        {
            let bytes = packet.header.bytes + packet.payload
            if queues.write(bytes[...], to: request, at: 0) { written = UInt64(bytes.count) }
        }
        queues.complete(request, written: written)
    }

    private static func receive(
        _ connections: inout VsockConnections, _ request: VirtioRequest, _ queues: VirtioQueues
    ) {
        // Fewer bytes than a header are no packet, and nobody could be answered.
        if let room = request.readableByteCount.subtracting(VsockHeader.byteCount),
            let bytes = queues.read(request, at: 0, byteCount: VsockHeader.byteCount), let header = VsockHeader(bytes)
        {
            var payload: [UInt8]?
            let byteCount = UInt64(header.payloadByteCount)
            if byteCount == 0 {
                payload = []
            } else if byteCount <= room, byteCount <= UInt64(connections.limits.toHostByteCount) {
                payload = queues.read(request, at: UInt64(VsockHeader.byteCount), byteCount: Int(byteCount))
            }
            connections.receive(header, payload: payload?[...])
        }
        queues.complete(request, written: 0)
    }

    /// The most bytes of payload in one packet.
    private static let maximumPayloadByteCount = 64 << 10
}

extension UInt64 {
    /// The difference; nil when it would be negative.
    fileprivate func subtracting(_ other: Int) -> UInt64? {
        let (difference, overflow) = subtractingReportingOverflow(UInt64(other))
        return overflow ? nil : difference
    }
}
