// One stream between a port of the guest and a port of the host: counters, buffers, and what is still to be said.

/// A connection of ``VsockConnections``; never given twice.
public struct VsockConnectionID: Hashable, Comparable, Sendable {
    let rawValue: UInt64

    public static func < (a: Self, b: Self) -> Bool { a.rawValue < b.rawValue }
}

/// What the host's side of a connection needs to know of it.
public struct VsockHostView: Equatable, Sendable {
    /// Both sides have agreed; bytes may come both ways.
    public var isEstablished: Bool
    /// Bytes from the guest that wait for the host.
    public var byteCountForHost: Int
    /// Bytes that may be taken from the host now.
    public var roomForGuest: Int
    /// The host has all that the guest will ever send.
    public var guestHasFinished: Bool
    /// The guest takes no more bytes.
    public var guestHasStoppedReading: Bool
}

/// The two ports, by which packets find their connection: the CIDs are always the guest's and the host's.
struct VsockPorts: Hashable, Sendable {
    var host: UInt32
    var guest: UInt32
}

struct VsockConnection: Sendable {
    enum Phase: Sendable {
        /// The guest has asked, and the host has not answered.
        case requestedByGuest
        /// The host asks, and the guest has not answered.
        case requestedByHost
        case established
        /// The guest has forgotten it; the host still gets what the guest had sent.
        case draining
    }

    let ports: VsockPorts
    var phase: Phase

    // Guest to host.
    var toHost = ByteQueue()
    /// Bytes that the host has taken, modulo 2³².
    var forwarded: UInt32 = 0
    /// The last count of those that the guest was told.
    var announcedForwarded: UInt32 = 0
    var guestShutdown: VsockShutdown = []

    // Host to guest.
    var toGuest = ByteQueue()
    /// Bytes sent to the guest, modulo 2³².
    var sent: UInt32 = 0
    /// The guest's buf_alloc and fwd_cnt.
    var guestBuffer: UInt32 = 0
    var guestForwarded: UInt32 = 0
    /// The host sends no more.
    var hostHasFinished = false
    /// The host takes no more.
    var hostHasStoppedReading = false
    /// The host's side broke: RST once the guest has what came before.
    var hostHasFailed = false

    // To be said to the guest.
    var owesRequest = false
    var owesResponse = false
    var owesCreditUpdate = false
    var hasAskedForCredit = false
    var announcedShutdown: VsockShutdown = []
    /// It stands in the queue of those that have something for the guest.
    var isQueued = false

    init(_ ports: VsockPorts, _ phase: Phase) {
        self.ports = ports
        self.phase = phase
    }

    /// The host's side is gone altogether.
    var hostIsGone: Bool { hostHasFinished && hostHasStoppedReading }

    /// Bytes that the guest has room for. A guest that claims to have taken more than it was sent has none.
    var credit: Int {
        let underway = sent &- guestForwarded
        return underway < guestBuffer ? Int(guestBuffer - underway) : 0
    }

    /// What the guest is to be told of the host's directions, now that its bytes are out.
    var shutdownToAnnounce: VsockShutdown {
        guard phase == .established else { return [] }
        var flags: VsockShutdown = []
        if hostHasFinished, toGuest.isEmpty { flags.insert(.send) }
        if hostHasStoppedReading { flags.insert(.receive) }
        return flags.isSubset(of: announcedShutdown) ? [] : flags
    }

    /// The packet that comes next for a guest that can take `room` bytes of payload.
    func next(room: Int) -> Next? {
        if owesRequest { return .request }
        if owesResponse { return .response }
        guard phase == .established else { return nil }
        if !toGuest.isEmpty {
            if credit > 0, room > 0 { return .bytes(min(toGuest.count, credit, room)) }
        } else if hostHasFailed {
            return .reset
        }
        let shutdown = shutdownToAnnounce
        if !shutdown.isEmpty { return .shutdown(shutdown) }
        if owesCreditUpdate { return .creditUpdate }
        if !toGuest.isEmpty, credit == 0, !hasAskedForCredit { return .creditRequest }
        return nil
    }

    enum Next {
        case request
        case response
        case bytes(Int)
        case reset
        case shutdown(VsockShutdown)
        case creditUpdate
        case creditRequest
    }
}
