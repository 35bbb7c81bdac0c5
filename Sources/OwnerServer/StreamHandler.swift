// One guest on one stream connection.

import GuestOwner
import NIOCore

final class StreamHandler: ChannelInboundHandler {
    typealias InboundIn = ByteBuffer
    typealias OutboundOut = ByteBuffer

    /// After the answer the guest has this long to take it and close; closing at once could cut it off.
    private static let farewell = TimeAmount.seconds(2)

    private let server: OwnerServer
    private var conversation: ReleaseConversation
    private let patience: TimeAmount
    private var deadline: Scheduled<Void>?
    private var isEnding = false

    init(_ server: OwnerServer, _ conversation: ReleaseConversation, patience: TimeAmount) {
        self.server = server
        self.conversation = conversation
        self.patience = patience
    }

    func channelActive(context: ChannelHandlerContext) {
        let loopBound = NIOLoopBound((self, context), eventLoop: context.eventLoop)
        deadline = context.eventLoop.scheduleTask(in: patience) {
            let (handler, context) = loopBound.value
            handler.end(.timeout, context)
        }
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        let answer = conversation.receive(Array(unwrapInboundIn(data).readableBytesView))
        guard !answer.isLast else { return finish(answer.bytes, context) }
        if !answer.bytes.isEmpty {
            context.writeAndFlush(wrapOutboundOut(ByteBuffer(bytes: answer.bytes)), promise: nil)
        }
    }

    func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
        // The guest has said all that it will say.
        guard case ChannelEvent.inputClosed = event else { return context.fireUserInboundEventTriggered(event) }
        if isEnding { context.close(promise: nil) } else { end(.closed, context) }
    }

    func channelInactive(context: ChannelHandlerContext) {
        deadline?.cancel()
        _ = conversation.end(.closed)
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) { context.close(promise: nil) }

    private func end(_ ending: ReleaseConversation.Ending, _ context: ChannelHandlerContext) {
        guard !isEnding else { return context.close(promise: nil) }
        finish(conversation.end(ending), context)
    }

    private func finish(_ bytes: [UInt8], _ context: ChannelHandlerContext) {
        guard !isEnding else { return }
        isEnding = true
        deadline?.cancel()
        guard !bytes.isEmpty else { return context.close(promise: nil) }
        let loopBound = NIOLoopBound((self, context), eventLoop: context.eventLoop)
        context.writeAndFlush(wrapOutboundOut(ByteBuffer(bytes: bytes))).whenComplete { _ in
            let (handler, context) = loopBound.value
            handler.server.answered()
            context.close(mode: .output, promise: nil)
            handler.deadline = context.eventLoop.scheduleTask(in: Self.farewell) {
                loopBound.value.1.close(promise: nil)
            }
        }
    }
}
