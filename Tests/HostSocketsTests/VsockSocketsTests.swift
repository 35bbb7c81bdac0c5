import CProcess
import Glibc
import HostSockets
import KVMABI
import Testing
import TestSupport
import VMMDevices

/// A device whose guest is the test: packets go straight into its connections.
final class PlayedGuest {
    let device: VsockDevice
    private var backlog: [VsockPacket] = []

    init(limits: VsockConnections.Limits = VsockConnections.Limits()) {
        device = VsockDevice(guestCID: 3, limits: limits)
    }

    func send(
        _ operation: VsockOperation, host: UInt32, guest: UInt32, flags: VsockShutdown = [], _ payload: [UInt8] = [],
        buffer: UInt32 = 1 << 20, forwarded: UInt32 = 0
    ) {
        let header = VsockHeader(
            sourceCID: 3, destinationCID: 2, sourcePort: guest, destinationPort: host, operation: operation,
            flags: flags.rawValue, payloadByteCount: UInt32(payload.count), bufferByteCount: buffer,
            forwardedByteCount: forwarded)
        device.withConnections { $0.receive(header, payload: payload[...]) }
    }

    /// The next packet, which may take the other thread a while.
    func next() throws -> VsockPacket {
        let packet = eventually { self.device.withConnections { $0.nextPacket(room: 1 << 16) } }
        return try #require(packet)
    }

    /// True when there is nothing for the guest.
    var isQuiet: Bool { device.withConnections { !$0.hasPacket } }

    /// A connection from a program on the host; the program's socket and the two ports.
    func accept(from path: String, port: UInt32 = 77) throws -> (program: SocketPeer, host: UInt32) {
        let program = try SocketPeer(connectingTo: path)
        program.write("CONNECT \(port)\n")
        let request = try next()
        try #require(request.header.operation == .request)
        #expect(request.header.destinationPort == port)
        send(.response, host: request.header.sourcePort, guest: port)
        let answer = try program.readLine()
        #expect(answer == "OK \(request.header.sourcePort)")
        return (program, request.header.sourcePort)
    }
}

/// Tries until there is a result. The bound is for a test that fails: nothing is said about time.
private func eventually<Result>(_ body: () -> Result?) -> Result? {
    for _ in 0..<20_000 {
        if let result = body() { return result }
        usleep(500)
    }
    return nil
}

@Suite struct VsockSocketsTests {
    let folder: ScratchFolder
    let socket: String

    init() throws {
        folder = try ScratchFolder()
        socket = folder.path + "/v"
    }

    @Test func aProgramConnectsToTheGuest() throws {
        let guest = PlayedGuest()
        let sockets = try VsockSockets(device: guest.device, path: socket)
        let (program, host) = try guest.accept(from: socket)
        program.write([1, 2, 3])
        #expect(try guest.next().payload == [1, 2, 3])
        guest.send(.readWrite, host: host, guest: 77, [9, 8])
        #expect(try program.readExactly(2) == [9, 8])
        sockets.stop()
        #expect(program.read(1) == [])
        #expect(!folder.exists("v"))
    }

    @Test func theGuestConnectsToAProgram() throws {
        let guest = PlayedGuest()
        let sockets = try VsockSockets(device: guest.device, path: socket)
        let listener = try folder.listen("v_5000")
        defer { file_close(listener) }
        guest.send(.request, host: 5000, guest: 1024)
        let program = try SocketPeer(acceptedFrom: listener)
        #expect(try guest.next().header.operation == .response)
        guest.send(.readWrite, host: 5000, guest: 1024, Array("hello".utf8))
        #expect(try program.readExactly(5) == Array("hello".utf8))
        program.write("world")
        #expect(try guest.next().payload == Array("world".utf8))
        sockets.stop()
    }

    @Test func nobodyListens() throws {
        let guest = PlayedGuest()
        let sockets = try VsockSockets(device: guest.device, path: socket)
        for port in [5000, 0, .max] as [UInt32] {
            guest.send(.request, host: port, guest: 1024)
            let answer = try guest.next().header
            #expect(answer.operation == .reset)
            #expect(answer.sourcePort == port)
        }
        sockets.stop()
    }

    @Test func whatComesWithTheFirstLineIsTheGuests() throws {
        let guest = PlayedGuest()
        let sockets = try VsockSockets(device: guest.device, path: socket)
        let program = try SocketPeer(connectingTo: socket)
        program.write("connect  77\r\nhello")
        let request = try guest.next().header
        #expect(request.destinationPort == 77)
        guest.send(.response, host: request.sourcePort, guest: 77)
        #expect(try guest.next().payload == Array("hello".utf8))
        sockets.stop()
    }

    @Test(arguments: [
        "GET / HTTP/1.1\r\n", "CONNECT\n", "CONNECT 4294967296\n", "CONNECT -1\n", "CONNECT 1 2\n", "\n",
        "CONNECT +7\n", "CONNECT 00000000000000000000000001\n", String(repeating: "x", count: 1000),
    ])
    func aWrongFirstLineEndsTheConnection(line: String) throws {
        let guest = PlayedGuest()
        let sockets = try VsockSockets(device: guest.device, path: socket)
        let program = try SocketPeer(connectingTo: socket)
        program.write(line)
        // The end, or a reset for bytes that nobody wanted: never an answer.
        #expect(program.isAtEnd)
        #expect(guest.isQuiet)
        // Others are served.
        _ = try guest.accept(from: socket)
        sockets.stop()
    }

    @Test func theGuestRefuses() throws {
        let guest = PlayedGuest()
        let sockets = try VsockSockets(device: guest.device, path: socket)
        let program = try SocketPeer(connectingTo: socket)
        program.write("CONNECT 77\n")
        guest.send(.reset, host: try guest.next().header.sourcePort, guest: 77)
        #expect(program.read(1) == [])
        sockets.stop()
    }

    @Test func halfCloseBothWays() throws {
        let guest = PlayedGuest()
        let sockets = try VsockSockets(device: guest.device, path: socket)
        let (program, host) = try guest.accept(from: socket)
        program.write([1])
        program.finishWriting()
        var packet = try guest.next()
        #expect(packet.payload == [1])
        packet = try guest.next()
        #expect(packet.header.operation == .shutdown)
        #expect(packet.header.flags == VsockShutdown.send.rawValue)
        guest.send(.readWrite, host: host, guest: 77, [5])
        guest.send(.shutdown, host: host, guest: 77, flags: .send)
        #expect(try program.readExactly(2) == [5])
        sockets.stop()
    }

    @Test func theGuestClosesBehindManyBytes() throws {
        let guest = PlayedGuest()
        let sockets = try VsockSockets(device: guest.device, path: socket)
        let (program, host) = try guest.accept(from: socket)
        let bytes = (0..<100_000).map { UInt8(truncatingIfNeeded: $0 &* 7) }
        guest.send(.readWrite, host: host, guest: 77, bytes)
        guest.send(.shutdown, host: host, guest: 77, flags: .both)
        guest.send(.reset, host: host, guest: 77)
        #expect(try program.readExactly(bytes.count + 1) == bytes)
        sockets.stop()
    }

    @Test func theProgramGoes() throws {
        let guest = PlayedGuest()
        let sockets = try VsockSockets(device: guest.device, path: socket)
        var (program, host): (SocketPeer?, UInt32) = try guest.accept(from: socket)
        program?.write([1, 2])
        program = nil
        #expect(try guest.next().payload == [1, 2])
        let end = try guest.next().header
        #expect(end.operation == .shutdown)
        #expect(end.flags == VsockShutdown.both.rawValue)
        guest.send(.reset, host: host, guest: 77)
        #expect(guest.device.withConnections { $0.count } == 0)
        sockets.stop()
    }

    @Test func aProgramThatGoesWithUnreadBytesIsAReset() throws {
        let guest = PlayedGuest()
        let sockets = try VsockSockets(device: guest.device, path: socket)
        var (program, host): (SocketPeer?, UInt32) = try guest.accept(from: socket)
        guest.send(.readWrite, host: host, guest: 77, [1])
        // It is there, unread, when the socket closes.
        var poll = pollfd(fd: program?.descriptor ?? -1, events: Int16(POLLIN), revents: 0)
        #expect(Glibc.poll(&poll, 1, 10_000) == 1)
        program = nil
        #expect(try guest.next().header.operation == .reset)
        sockets.stop()
    }

    @Test func aSlowProgramHoldsTheGuestUp() throws {
        let guest = PlayedGuest()
        let sockets = try VsockSockets(device: guest.device, path: socket)
        let (program, host) = try guest.accept(from: socket)
        // As much as the guest has credit for, again and again, until no credit comes back: the program reads nothing.
        let piece = (0..<(32 << 10)).map { UInt8(truncatingIfNeeded: $0) }
        var sent: UInt32 = 0
        var forwarded: UInt32 = 0
        var stalled = 0
        while stalled < 50 {
            if sent &- forwarded &+ UInt32(piece.count) <= 128 << 10 {
                guest.send(.readWrite, host: host, guest: 77, piece)
                sent += UInt32(piece.count)
                stalled = 0
            }
            guest.send(.creditRequest, host: host, guest: 77)
            let update = try guest.next().header
            #expect(update.operation == .creditUpdate)
            stalled = update.forwardedByteCount == forwarded ? stalled + 1 : 0
            forwarded = update.forwardedByteCount
            if stalled > 0 { usleep(1000) }
        }
        #expect(sent > 128 << 10)
        #expect(guest.device.withConnections { $0.count } == 1)
        // Nothing is lost.
        let bytes = try program.readExactly(Int(sent))
        #expect(bytes == (0..<Int(sent) / piece.count).flatMap { _ in piece })
        sockets.stop()
    }

    @Test func aSlowGuestHoldsTheProgramUp() throws {
        let guest = PlayedGuest()
        let sockets = try VsockSockets(device: guest.device, path: socket)
        let (program, host) = try guest.accept(from: socket)
        guest.send(.creditUpdate, host: host, guest: 77, buffer: 1000)
        let bytes = (0..<300_000).map { UInt8(truncatingIfNeeded: $0 &* 13) }
        let writer = BackgroundThread { program.write(bytes) }
        var received: [UInt8] = []
        while received.count < bytes.count {
            let packet = try guest.next()
            #expect(packet.payload.count <= 1000)
            received += packet.payload
            // Credit comes back late: a request for it may come first.
            guest.send(.creditUpdate, host: host, guest: 77, buffer: 1000, forwarded: UInt32(received.count))
        }
        writer.join()
        #expect(received == bytes)
        sockets.stop()
    }

    @Test func floodsOfSilentProgramsLeaveRoomForOthers() throws {
        let guest = PlayedGuest()
        let sockets = try VsockSockets(device: guest.device, path: socket)
        let silent = try (0..<150).map { _ in try SocketPeer(connectingTo: socket) }
        _ = try guest.accept(from: socket)
        // The oldest had to go.
        #expect(silent[0].read(1) == [])
        sockets.stop()
    }

    @Test func tooManyConnections() throws {
        var limits = VsockConnections.Limits()
        limits.connectionCount = 3
        let guest = PlayedGuest(limits: limits)
        let sockets = try VsockSockets(device: guest.device, path: socket)
        let accepted = try (0..<3).map { try guest.accept(from: socket, port: $0) }
        let next = try SocketPeer(connectingTo: socket)
        next.write("CONNECT 9\n")
        #expect(next.read(1) == [])
        accepted[0].program.write([1])
        #expect(try guest.next().payload == [1])
        // The others stay open until here: one that was closed earlier would give the guest a packet of its own.
        withExtendedLifetime(accepted) {}
        sockets.stop()
    }

    @Test func pathsThatAreTaken() throws {
        let guest = PlayedGuest()
        // A file is left alone.
        let file = folder.path + "/file"
        file_close(withKernelAddress(of: Array(file.utf8) + [0]) { file_create($0) })
        #expect(throws: HostSocketError.self) { try VsockSockets(device: guest.device, path: file) }
        #expect(folder.exists("file"))
        // So is a socket in use, and its owner's connections go on.
        let sockets = try VsockSockets(device: guest.device, path: socket)
        let error = #expect(throws: HostSocketError.self) {
            try VsockSockets(device: PlayedGuest().device, path: socket)
        }
        #expect(error?.errno == .EADDRINUSE)
        #expect(error?.description.contains(socket) == true)
        _ = try guest.accept(from: socket)
        sockets.stop()
    }

    @Test func aSocketThatNobodyListensAtIsReplaced() throws {
        file_close(try folder.listen("v"))
        #expect(folder.exists("v"))
        let guest = PlayedGuest()
        let sockets = try VsockSockets(device: guest.device, path: socket)
        _ = try guest.accept(from: socket)
        sockets.stop()
        sockets.stop()
        #expect(!folder.exists("v"))
    }

    @Test func onlyThisUserMayConnect() throws {
        let sockets = try VsockSockets(device: PlayedGuest().device, path: socket)
        var status = stat()
        #expect(unsafe stat(socket, &status) == 0)
        #expect(status.st_mode & 0o777 == 0o600)
        sockets.stop()
    }

    @Test func anothersSocketIsNotRemoved() throws {
        let sockets = try VsockSockets(device: PlayedGuest().device, path: socket)
        unlink(socket)
        let other = try folder.listen("v")
        sockets.stop()
        #expect(folder.exists("v"))
        file_close(other)
    }

    @Test func pathsThatCannotBe() {
        let guest = PlayedGuest()
        let long = folder.path + "/" + String(repeating: "x", count: 100)
        #expect(throws: HostSocketError.self) { try VsockSockets(device: guest.device, path: long) }
        #expect(throws: HostSocketError.self) { try VsockSockets(device: guest.device, path: "") }
        #expect(throws: HostSocketError.self) { try VsockSockets(device: guest.device, path: folder.path + "/no/v") }
    }
}
