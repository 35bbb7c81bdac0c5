// Messages out of a stream of bytes, however it is cut.

import ABILayout

/// Collects bytes and hands out whole messages.
///
/// It never holds more than one message of the greatest length and what the last ``append(_:)`` brought. After an error it
/// stays failed: where the next message would begin is not known.
public struct SecretReleaseDecoder: Sendable {
    private var bytes: [UInt8] = []
    private var failure: SecretReleaseError?

    public init() {}

    /// Adds what came from the stream.
    public mutating func append(_ more: [UInt8]) {
        if failure == nil { bytes += more }
    }

    /// Nothing of a next message has come yet.
    public var isEmpty: Bool { bytes.isEmpty }

    /// The next whole message; nil when more bytes are needed.
    public mutating func next() throws(SecretReleaseError) -> SecretReleaseMessage? {
        if let failure { throw failure }
        do throws(SecretReleaseError) {
            return try take()
        } catch {
            failure = error
            bytes = []
            throw error
        }
    }

    private mutating func take() throws(SecretReleaseError) -> SecretReleaseMessage? {
        // Each part of the head is judged as soon as it is there: another protocol is recognised by its first bytes.
        for (index, byte) in bytes.prefix(4).enumerated() where byte != SecretReleaseMessage.magic[index] {
            throw head("the four bytes SREL", "others")
        }
        guard bytes.count >= SecretReleaseMessage.headByteCount, let version: UInt16 = bytes.littleEndian(at: 4),
            let kindNumber: UInt16 = bytes.littleEndian(at: 6), let length: UInt32 = bytes.littleEndian(at: 8)
        else { return nil }
        guard version == SecretReleaseMessage.version else {
            throw head("version \(SecretReleaseMessage.version)", "version \(version)")
        }
        let kind = SecretReleaseMessage.Kind(rawValue: kindNumber)
        guard let allowed = kind.bodyByteCounts else { throw head("a kind from 1 to 5", "\(kindNumber)") }
        guard let count = Int(exactly: length), allowed.contains(count) else {
            throw SecretReleaseMessage.malformed(
                kind, expected: "\(allowed.lowerBound) to \(allowed.upperBound) bytes", found: "\(length)")
        }
        let end = SecretReleaseMessage.headByteCount + count
        guard bytes.count >= end else { return nil }
        let body = Array(bytes[SecretReleaseMessage.headByteCount..<end])
        bytes.removeFirst(end)
        return try SecretReleaseMessage(kind, body: body)
    }

    private func head(_ expected: String, _ found: String) -> SecretReleaseError {
        SecretReleaseMessage.malformed("the head of a message", expected: expected, found: found)
    }
}
