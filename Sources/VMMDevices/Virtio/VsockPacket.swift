// The packets of a virtio socket device [virtio 5.10.6]: a header of 44 bytes, and for RW a payload.
//
//    0  src_cid: le64     24  len: le32       36  buf_alloc: le32
//    8  dst_cid: le64     28  type: le16      40  fwd_cnt: le32
//   16  src_port: le32    30  op: le16
//   20  dst_port: le32    32  flags: le32

import ABILayout

/// Context identifiers: who is at the end of a socket [virtio 5.10.4].
public enum VsockCID {
    /// The host, and so this device.
    public static let host: UInt64 = 2
    /// What a guest may be: 0, 1, 2 and 0xFFFF_FFFF are taken, and the upper 32 bits are zero.
    public static let guests: ClosedRange<UInt32> = 3...0xffff_fffe
}

/// What a packet is for: the field `op`.
public struct VsockOperation: RawRepresentable, Hashable, Sendable {
    public let rawValue: UInt16
    public init(rawValue: UInt16) { self.rawValue = rawValue }

    /// Asks for a connection.
    public static let request = Self(rawValue: 1)
    /// Grants one.
    public static let response = Self(rawValue: 2)
    /// Ends one at once, or refuses it.
    public static let reset = Self(rawValue: 3)
    /// Says that one direction, or both, are over; see ``VsockShutdown``.
    public static let shutdown = Self(rawValue: 4)
    /// Carries bytes.
    public static let readWrite = Self(rawValue: 5)
    /// Tells of room in the sender's buffer.
    public static let creditUpdate = Self(rawValue: 6)
    /// Asks for a ``creditUpdate``.
    public static let creditRequest = Self(rawValue: 7)
}

/// The flags of a SHUTDOWN [virtio 5.10.6.6].
public struct VsockShutdown: OptionSet, Hashable, Sendable {
    public let rawValue: UInt32
    public init(rawValue: UInt32) { self.rawValue = rawValue }

    /// The sender takes no more bytes.
    public static let receive = Self(rawValue: 1)
    /// The sender sends no more bytes.
    public static let send = Self(rawValue: 2)
    public static let both: Self = [.receive, .send]
}

/// The field `type`.
public enum VsockType {
    /// The one kind that this device has.
    public static let stream: UInt16 = 1
}

/// A packet's header, `struct virtio_vsock_hdr`.
public struct VsockHeader: Equatable, Sendable {
    /// Bytes of a header.
    public static let byteCount = 44

    public var sourceCID: UInt64
    public var destinationCID: UInt64
    public var sourcePort: UInt32
    public var destinationPort: UInt32
    /// Bytes of payload that follow.
    public var payloadByteCount: UInt32
    public var type: UInt16
    public var operation: VsockOperation
    public var flags: UInt32
    /// Room that the sender has for this connection's bytes in all: `buf_alloc`.
    public var bufferByteCount: UInt32
    /// Bytes that the sender has taken out of that buffer, modulo 2³²: `fwd_cnt`.
    public var forwardedByteCount: UInt32

    public init(
        sourceCID: UInt64, destinationCID: UInt64, sourcePort: UInt32, destinationPort: UInt32,
        operation: VsockOperation, type: UInt16 = VsockType.stream, flags: UInt32 = 0, payloadByteCount: UInt32 = 0,
        bufferByteCount: UInt32 = 0, forwardedByteCount: UInt32 = 0
    ) {
        self.sourceCID = sourceCID
        self.destinationCID = destinationCID
        self.sourcePort = sourcePort
        self.destinationPort = destinationPort
        self.payloadByteCount = payloadByteCount
        self.type = type
        self.operation = operation
        self.flags = flags
        self.bufferByteCount = bufferByteCount
        self.forwardedByteCount = forwardedByteCount
    }

    /// The header at the start of `bytes`; nil for fewer than 44. Every value of every field is a header.
    public init?(_ bytes: [UInt8]) {
        guard let sourceCID = bytes.littleEndian(at: 0, as: UInt64.self),
            let destinationCID = bytes.littleEndian(at: 8, as: UInt64.self),
            let sourcePort = bytes.littleEndian(at: 16, as: UInt32.self),
            let destinationPort = bytes.littleEndian(at: 20, as: UInt32.self),
            let payloadByteCount = bytes.littleEndian(at: 24, as: UInt32.self),
            let type = bytes.littleEndian(at: 28, as: UInt16.self),
            let operation = bytes.littleEndian(at: 30, as: UInt16.self),
            let flags = bytes.littleEndian(at: 32, as: UInt32.self),
            let bufferByteCount = bytes.littleEndian(at: 36, as: UInt32.self),
            let forwardedByteCount = bytes.littleEndian(at: 40, as: UInt32.self)
        else { return nil }
        self.init(
            sourceCID: sourceCID, destinationCID: destinationCID, sourcePort: sourcePort,
            destinationPort: destinationPort, operation: VsockOperation(rawValue: operation), type: type, flags: flags,
            payloadByteCount: payloadByteCount, bufferByteCount: bufferByteCount,
            forwardedByteCount: forwardedByteCount)
    }

    /// The 44 bytes.
    public var bytes: [UInt8] {
        var bytes: [UInt8] = []
        bytes.reserveCapacity(Self.byteCount)
        bytes.appendLittleEndian(sourceCID)
        bytes.appendLittleEndian(destinationCID)
        bytes.appendLittleEndian(sourcePort)
        bytes.appendLittleEndian(destinationPort)
        bytes.appendLittleEndian(payloadByteCount)
        bytes.appendLittleEndian(type)
        bytes.appendLittleEndian(operation.rawValue)
        bytes.appendLittleEndian(flags)
        bytes.appendLittleEndian(bufferByteCount)
        bytes.appendLittleEndian(forwardedByteCount)
        return bytes
    }

    /// The RST that answers this packet when it belongs to no connection [virtio 5.10.6.4.2].
    var resetReply: VsockHeader {
        VsockHeader(
            sourceCID: destinationCID, destinationCID: sourceCID, sourcePort: destinationPort,
            destinationPort: sourcePort, operation: .reset, type: type)
    }
}

/// A packet for the guest.
public struct VsockPacket: Equatable, Sendable {
    public var header: VsockHeader
    public var payload: [UInt8]

    public init(_ header: VsockHeader, payload: [UInt8] = []) {
        self.header = header
        self.payload = payload
    }
}
