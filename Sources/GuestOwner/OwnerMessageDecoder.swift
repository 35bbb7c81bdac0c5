// Messages out of a stream of bytes, however it is cut.

import ABILayout

/// Collects bytes and hands out whole messages.
///
/// It never holds more than one frame of the greatest length and what the last ``append(_:)`` brought. After an error it stays
/// failed: where the next message would begin is not known.
public struct OwnerMessageDecoder: Sendable {
    private var bytes: [UInt8] = []
    private var failure: OwnerError?

    public init() {}

    /// Adds what came from the stream.
    public mutating func append(_ more: [UInt8]) {
        if failure == nil { bytes += more }
    }

    /// The next whole message; nil when more bytes are needed.
    public mutating func next() throws(OwnerError) -> OwnerMessage? {
        if let failure { throw failure }
        do throws(OwnerError) {
            return try take()
        } catch {
            failure = error
            bytes = []
            throw error
        }
    }

    /// The stream has ended: in the middle of a message, that is an error.
    public func finish() throws(OwnerError) {
        if let failure { throw failure }
        guard bytes.isEmpty else {
            throw OwnerError(
                .connection, attempt: "read a message", subject: "the connection", expected: "a whole message",
                found: "its end after \(bytes.count) bytes of one", likelyCause: "the other side stopped or crashed",
                nextStep: "look at the other side's output, and start the launch again")
        }
    }

    private mutating func take() throws(OwnerError) -> OwnerMessage? {
        // Each part of the head is judged as soon as it is there: another protocol is recognised by its first bytes.
        for (index, byte) in bytes.prefix(4).enumerated() where byte != OwnerMessage.magic[index] {
            throw headError("magic", expected: "OWNR", found: hexText(bytes.prefix(4)))
        }
        guard bytes.count >= OwnerMessage.headByteCount, let version: UInt16 = bytes.littleEndian(at: 4),
            let kindNumber: UInt16 = bytes.littleEndian(at: 6), let length: UInt32 = bytes.littleEndian(at: 8)
        else { return nil }
        guard version == OwnerMessage.version else {
            throw headError("version", expected: "\(OwnerMessage.version)", found: "\(version)")
        }
        let kind = OwnerMessage.Kind(rawValue: kindNumber)
        guard let allowed = kind.bodyByteCounts else {
            throw headError("kind", expected: "1 to 5", found: "\(kindNumber)")
        }
        guard let count = Int(exactly: length), allowed.contains(count) else {
            throw OwnerMessage.malformed(
                kind, "length",
                expected: allowed.count == 1
                    ? "\(allowed.lowerBound)" : "\(allowed.lowerBound) to \(allowed.upperBound)",
                found: "\(length)")
        }
        guard bytes.count >= OwnerMessage.headByteCount + count else { return nil }
        let body = Array(bytes[OwnerMessage.headByteCount..<(OwnerMessage.headByteCount + count)])
        bytes.removeFirst(OwnerMessage.headByteCount + count)
        return try OwnerMessage(kind, body: body)
    }

    private func headError(_ field: String, expected: String, found: String) -> OwnerError {
        OwnerError(
            .message, attempt: "read a message", subject: "the head of a message", field: field, expected: expected,
            found: found,
            likelyCause: "another program, or another version of this one, at the other end of the socket",
            nextStep: "check which program listens there, and that both are of the same version")
    }
}
