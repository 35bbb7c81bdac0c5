// The transports of an owner of SNP guests: unix sockets, vsock, HTTP. Bytes go in and out here; what they mean is
// GuestOwner's.
//
//     listener ──► one channel for each connection, on one of two event loops
//                    stream   StreamHandler ──► ReleaseConversation
//                    HTTP     HTTPHandler   ──► ReleaseWebService

import GuestOwner
import NIOCore
import NIOHTTP1
import NIOPosix
import Synchronization

/// Where guests reach an owner.
public enum OwnerEndpoint: Sendable {
    /// A stream socket that listens already; the server closes it.
    case stream(descriptor: Int32, name: String)
    /// A port of this machine's vsock: guests connect to CID 2. Needs the host's vhost-vsock.
    case vsock(port: UInt32)
    /// HTTP at a numeric address; port 0 takes a free one.
    case http(address: String, port: Int)
}

/// Why a server does not start.
public struct OwnerServerError: Error, Sendable, CustomStringConvertible {
    public let endpoint: String
    public let cause: String
    public var description: String { "could not wait at \(endpoint): \(cause)" }
}

/// What one connection, and all of them, may take.
public struct OwnerServerLimits: Sendable {
    /// From its first byte to its last, a stream connection has so long; an HTTP connection may be silent for so long.
    public var seconds: Int64 = 30
    /// Connections at once; more are closed at once.
    public var connectionCount = 64
    /// Bytes of an HTTP request's body.
    public var bodyByteCount = 256 << 10

    public init() {}
}

/// Serves any number of guests at once until it is stopped.
public final class OwnerServer: Sendable {
    private let group = MultiThreadedEventLoopGroup(numberOfThreads: 2)
    private let service: ReleaseService
    private let web: ReleaseWebService
    private let limits: OwnerServerLimits
    private let shouldStop: @Sendable () -> Bool
    private let state = Mutex(State())

    private struct State {
        var listeners: [any Channel] = []
        var connectionCount = 0
    }

    /// - Parameter shouldStop: Asked after each answer that has left; true ends the server.
    public init(
        service: ReleaseService, limits: OwnerServerLimits = .init(),
        shouldStop: @escaping @Sendable () -> Bool = { false }
    ) {
        self.service = service
        web = ReleaseWebService(service)
        self.limits = limits
        self.shouldStop = shouldStop
    }

    /// Begins to wait somewhere.
    ///
    /// - Returns: The place, for people: with the port that was taken.
    public func listen(at endpoint: OwnerEndpoint) throws(OwnerServerError) -> String {
        let name =
            switch endpoint {
            case .stream(_, let name): name
            case .vsock(let port): "vsock port \(port)"
            case .http(let address, let port): "http://\(address):\(port)"
            }
        do {
            let channel =
                switch endpoint {
                case .stream(let descriptor, _):
                    try streams(peer: name).withBoundSocket(descriptor).wait()
                case .vsock(let port):
                    try streams(peer: name)
                        .bind(to: VsockAddress(cid: .any, port: .init(rawValue: port))).wait()
                case .http(let address, let port):
                    // A name could mean several addresses, and more of them tomorrow.
                    try web(peer: "http").bind(to: SocketAddress(ipAddress: address, port: port)).wait()
                }
            state.withLock { $0.listeners.append(channel) }
            guard case .http(let address, _) = endpoint, let port = channel.localAddress?.port else { return name }
            return "http://\(address.contains(":") ? "[\(address)]" : address):\(port)"
        } catch {
            throw OwnerServerError(endpoint: name, cause: "\(error)")
        }
    }

    /// Returns when the server has stopped.
    public func waitUntilStopped() {
        for listener in state.withLock({ $0.listeners }) { try? listener.closeFuture.wait() }
        try? group.syncShutdownGracefully()
    }

    /// Takes no more connections; those that are under way end with the server.
    public func stop() {
        for listener in state.withLock({ $0.listeners }) { listener.close(promise: nil) }
    }

    // MARK: Connections

    func answered() { if shouldStop() { stop() } }

    /// False when there are too many.
    private func admit(_ channel: any Channel) -> Bool {
        let isAdmitted = state.withLock { state in
            guard state.connectionCount < limits.connectionCount else { return false }
            state.connectionCount += 1
            return true
        }
        if isAdmitted {
            channel.closeFuture.whenComplete { _ in self.state.withLock { $0.connectionCount -= 1 } }
        }
        return isAdmitted
    }

    private func streams(peer: String) -> ServerBootstrap {
        ServerBootstrap(group: group)
            .serverChannelOption(.backlog, value: 16)
            .childChannelOption(.allowRemoteHalfClosure, value: true)
            .childChannelInitializer { channel in
                guard self.admit(channel) else { return channel.close() }
                return channel.eventLoop.makeCompletedFuture {
                    try channel.pipeline.syncOperations.addHandler(
                        StreamHandler(
                            self, self.service.conversation(peer: peer), patience: .seconds(self.limits.seconds)))
                }
            }
    }

    private func web(peer: String) -> ServerBootstrap {
        ServerBootstrap(group: group)
            .serverChannelOption(.backlog, value: 16)
            .serverChannelOption(.socketOption(.so_reuseaddr), value: 1)
            .childChannelInitializer { channel in
                guard self.admit(channel) else { return channel.close() }
                let address = channel.remoteAddress.flatMap { address in
                    address.ipAddress.map { "\($0):\(address.port ?? 0)" }
                }
                return channel.eventLoop.makeCompletedFuture {
                    let pipeline = channel.pipeline.syncOperations
                    try pipeline.addHandler(IdleStateHandler(allTimeout: .seconds(self.limits.seconds)))
                    try pipeline.configureHTTPServerPipeline()
                    try pipeline.addHandler(
                        NIOHTTPServerRequestAggregator(maxContentLength: self.limits.bodyByteCount))
                    try pipeline.addHandler(
                        HTTPHandler(self, self.web, peer: "\(peer) \(address ?? "unknown")"))
                }
            }
    }
}
