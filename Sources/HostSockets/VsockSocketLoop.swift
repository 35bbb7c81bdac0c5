// The thread that looks after the unix sockets of one guest.
//
// Nothing it does waits but poll, and it looks only for what it can use: a program that writes faster than the guest
// reads finds its socket full, and a guest that writes faster than the program reads runs out of credit. Programs that
// connect and say nothing have few places, and the oldest of them makes room for the next; a wrong greeting ends the
// connection without an answer.

import ABILayout
import CProcess
import KVMABI
import VMMDevices

/// Used on one thread.
struct VsockSocketLoop {
    /// Programs that have connected and not said which port they want.
    static let greetingCount = 64
    /// Bytes moved at once on one socket.
    static let pieceByteCount = 64 << 10
    /// When the process has no descriptor left for a waiting program, this passes before the next try.
    static let retryMilliseconds: Int32 = 100

    /// One program's socket.
    private struct Socket {
        enum Stage {
            /// It has not said all of its first line.
            case greeting(VsockGreeting)
            case connection(VsockConnectionID)
        }
        let descriptor: Int32
        var stage: Stage
        /// "OK <port>" is due once the guest has agreed.
        var owesAnswer = false
        /// It sends no more.
        var hasFinished = false
        /// It has all that the guest will send.
        var hasEndedWriting = false
        var hasEndedReading = false
        /// It has closed its end, with bytes for which the guest has no room yet.
        var isHungUp = false
        var isClosed = false
        /// What poll waits for, and what it found.
        var wanted: Int32 = 0
        var found: Int32 = 0
    }

    let device: VsockDevice
    let path: String
    let listener: Int32
    let signal: LoopSignal
    private var sockets: [Socket] = []
    private var listenerMustRest = false

    init(device: VsockDevice, path: String, listener: Int32, signal: LoopSignal) {
        self.device = device
        self.path = path
        self.listener = listener
        self.signal = signal
    }

    consuming func run() {
        while !signal.isStopping {
            let listenerIsReady = wait()
            signal.take()
            if listenerIsReady { acceptPrograms() }
            serve()
        }
        for index in sockets.indices { close(index) }
        device.withConnections { $0.removeAll() }
    }

    // MARK: Waiting

    /// - Returns: True when programs wait to be accepted.
    private mutating func wait() -> Bool {
        var entries: [UInt8] = []
        entries.reserveCapacity((2 + sockets.count) * Int(SOCKET_POLL_ENTRY_BYTES))
        func add(_ descriptor: Int32, _ wanted: Int32) {
            entries.appendLittleEndian(descriptor)
            entries.appendLittleEndian(UInt32(bitPattern: wanted))
        }
        add(signal.descriptor, SOCKET_POLL_IN)
        add(listenerMustRest ? -1 : listener, SOCKET_POLL_IN)
        for socket in sockets {
            // A hang-up is found whether one waits for it or not: a known one must not keep the thread awake.
            add(socket.isHungUp && socket.wanted == 0 ? -1 : socket.descriptor, socket.wanted)
        }
        let count = UInt64(2 + sockets.count)
        let patience = listenerMustRest ? Self.retryMilliseconds : -1
        let result = withKernelAddress(ofMutable: &entries) { socket_poll($0, count, patience) }
        listenerMustRest = false
        func found(_ entry: Int) -> Int32 {
            Int32(entries.littleEndian(at: entry * Int(SOCKET_POLL_ENTRY_BYTES) + 6, as: UInt16.self) ?? 0)
        }
        for index in sockets.indices { sockets[index].found = result > 0 ? found(2 + index) : 0 }
        return result > 0 && found(1) != 0
    }

    private mutating func acceptPrograms() {
        // So many at once: a flood must not keep the others waiting.
        for _ in 0..<Self.greetingCount {
            let descriptor = socket_try_accept(listener)
            guard descriptor >= 0 else {
                listenerMustRest = descriptor != -Errno.EAGAIN.rawValue
                return
            }
            let waiting = sockets.indices.filter { isGreeting($0) }
            if waiting.count >= Self.greetingCount { remove(waiting[0]) }
            sockets.append(Socket(descriptor: descriptor, stage: .greeting(VsockGreeting()), wanted: SOCKET_POLL_IN))
        }
    }

    private func isGreeting(_ index: Int) -> Bool {
        if case .greeting = sockets[index].stage { true } else { false }
    }

    // MARK: Work

    private mutating func serve() {
        device.withConnections { connections in
            for request in connections.takeGuestRequests() { connect(request.id, request.hostPort, &connections) }
            for index in sockets.indices {
                if case .greeting(let greeting) = sockets[index].stage { greet(index, greeting, &connections) }
                if case .connection(let id) = sockets[index].stage { exchange(index, id, &connections) }
            }
        }
        sockets.removeAll { $0.isClosed }
    }

    /// The guest wants to talk to a program.
    private mutating func connect(_ id: VsockConnectionID, _ port: UInt32, _ connections: inout VsockConnections) {
        let descriptor = withKernelAddress(of: Array("\(path)_\(port)".utf8) + [0]) { socket_try_connect($0) }
        guard descriptor >= 0 else { return connections.refuse(id) }
        connections.accept(id)
        sockets.append(Socket(descriptor: descriptor, stage: .connection(id)))
    }

    /// A program says which port it wants.
    private mutating func greet(_ index: Int, _ greeting: VsockGreeting, _ connections: inout VsockConnections) {
        guard sockets[index].found != 0 else { return }
        var greeting = greeting
        guard case .bytes(let bytes) = read(index, limit: greeting.room) else { return close(index) }
        switch greeting.take(bytes) {
        case .incomplete: sockets[index].stage = .greeting(greeting)
        case .invalid: close(index)
        case .connect(let port, let rest):
            guard let id = connections.connect(toGuestPort: port) else { return close(index) }
            connections.receive(fromHost: rest[...], id)
            sockets[index].stage = .connection(id)
            sockets[index].owesAnswer = true
            sockets[index].found = 0
        }
    }

    private mutating func exchange(_ index: Int, _ id: VsockConnectionID, _ connections: inout VsockConnections) {
        guard connections.view(of: id) != nil else { return close(index) }
        giveToProgram(index, id, &connections)
        takeFromProgram(index, id, &connections)
        guard let view = connections.view(of: id), !sockets[index].isClosed else { return close(index) }
        let wantsBytes = view.roomForGuest > 0 && !sockets[index].hasFinished
        let hasBytes = view.byteCountForHost > 0
        sockets[index].wanted = (wantsBytes ? SOCKET_POLL_IN : 0) | (hasBytes ? SOCKET_POLL_OUT : 0)
    }

    private mutating func giveToProgram(_ index: Int, _ id: VsockConnectionID, _ connections: inout VsockConnections) {
        guard let view = connections.view(of: id), view.isEstablished else { return }
        if sockets[index].owesAnswer {
            let answer = Array("OK \(connections.hostPort(of: id) ?? 0)\n".utf8)
            // The first bytes of a socket always fit.
            guard write(answer, index) == answer.count else {
                connections.hostClosed(id)
                return close(index)
            }
            sockets[index].owesAnswer = false
        }
        while true {
            let bytes = connections.bytesForHost(id, limit: Self.pieceByteCount)
            guard !bytes.isEmpty else { break }
            let count = write(Array(bytes), index)
            guard count > 0 else {
                if count != -Int(Errno.EAGAIN.rawValue) { connections.hostStoppedReading(id) }
                break
            }
            connections.hostTook(count, id)
        }
        guard let view = connections.view(of: id) else { return }
        if view.guestHasFinished, !sockets[index].hasEndedWriting {
            sockets[index].hasEndedWriting = true
            socket_end_writing(sockets[index].descriptor)
        }
        if view.guestHasStoppedReading, !sockets[index].hasEndedReading {
            sockets[index].hasEndedReading = true
            socket_end_reading(sockets[index].descriptor)
        }
    }

    private mutating func takeFromProgram(_ index: Int, _ id: VsockConnectionID, _ connections: inout VsockConnections)
    {
        let found = sockets[index].found
        let hungUp = found & (SOCKET_POLL_HANGUP | SOCKET_POLL_ERROR) != 0
        if hungUp { sockets[index].isHungUp = true }
        guard let view = connections.view(of: id) else { return }
        guard view.roomForGuest > 0, !sockets[index].hasFinished else {
            // Nothing is to be read any more, now or ever: nothing goes either way.
            if hungUp, sockets[index].hasFinished || view.guestHasStoppedReading {
                connections.hostClosed(id)
                close(index)
            }
            return
        }
        guard found != 0 || sockets[index].isHungUp else { return }
        switch read(index, limit: min(view.roomForGuest, Self.pieceByteCount)) {
        case .bytes(let bytes):
            connections.receive(fromHost: bytes[...], id)
        case .end:
            sockets[index].hasFinished = true
            if sockets[index].isHungUp {
                connections.hostClosed(id)
                close(index)
            } else {
                connections.hostFinished(id)
            }
        case .nothing: break
        case .failure:
            connections.hostFailed(id)
            close(index)
        }
    }

    // MARK: Sockets

    private enum Reading {
        case bytes([UInt8])
        case nothing
        case end
        case failure
    }

    private func read(_ index: Int, limit: Int) -> Reading {
        var bytes = [UInt8](repeating: 0, count: limit)
        let count = withKernelAddress(ofMutable: &bytes) {
            socket_try_read(sockets[index].descriptor, $0, UInt64(limit))
        }
        if count > 0 {
            bytes.removeLast(limit - Int(count))
            return .bytes(bytes)
        }
        if count == 0 { return .end }
        return count == -Int64(Errno.EAGAIN.rawValue) ? .nothing : .failure
    }

    /// - Returns: Bytes written, or a negated errno.
    private func write(_ bytes: [UInt8], _ index: Int) -> Int {
        Int(withKernelAddress(of: bytes) { socket_try_write(sockets[index].descriptor, $0, UInt64(bytes.count)) })
    }

    /// It leaves the list after the round.
    private mutating func close(_ index: Int) {
        guard !sockets[index].isClosed else { return }
        file_close(sockets[index].descriptor)
        sockets[index].isClosed = true
    }

    private mutating func remove(_ index: Int) {
        close(index)
        sockets.remove(at: index)
    }
}
