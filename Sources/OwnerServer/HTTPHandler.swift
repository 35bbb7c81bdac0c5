// One client on one HTTP connection: whole requests, in order.

import GuestOwner
import NIOCore
import NIOHTTP1

final class HTTPHandler: ChannelInboundHandler {
    typealias InboundIn = NIOHTTPServerRequestFull
    typealias OutboundOut = HTTPServerResponsePart

    private let server: OwnerServer
    private let service: ReleaseWebService
    private let peer: String

    init(_ server: OwnerServer, _ service: ReleaseWebService, peer: String) {
        self.server = server
        self.service = service
        self.peer = peer
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        let request = unwrapInboundIn(data)
        let response = service.respond(
            to: WebRequest(
                method: request.head.method.rawValue, target: request.head.uri,
                headers: request.head.headers.map { ($0.name, $0.value) },
                body: request.body.map { Array($0.readableBytesView) } ?? [], peer: peer))
        var headers = HTTPHeaders(response.headers)
        headers.replaceOrAdd(name: "content-length", value: "\(response.body.count)")
        // What is released is for this client now, not for a cache.
        headers.replaceOrAdd(name: "cache-control", value: "no-store")
        let head = HTTPResponseHead(
            version: request.head.version, status: .init(statusCode: response.status), headers: headers)
        context.write(wrapOutboundOut(.head(head)), promise: nil)
        if !response.body.isEmpty {
            context.write(wrapOutboundOut(.body(.byteBuffer(ByteBuffer(bytes: response.body)))), promise: nil)
        }
        let loopBound = NIOLoopBound((self, context), eventLoop: context.eventLoop)
        let keepsAlive = request.head.isKeepAlive
        context.writeAndFlush(wrapOutboundOut(.end(nil))).whenComplete { _ in
            let (handler, context) = loopBound.value
            handler.server.answered()
            if !keepsAlive { context.close(promise: nil) }
        }
    }

    func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
        // Silence, or a body that was too long: there is nothing more to expect.
        if event is IdleStateHandler.IdleStateEvent || event is NIOHTTPObjectAggregatorEvent {
            context.close(promise: nil)
        } else {
            context.fireUserInboundEventTriggered(event)
        }
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) { context.close(promise: nil) }
}
