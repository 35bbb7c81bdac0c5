// A guest message page, sealed and opened: AES-256-GCM over the payload, with bytes 0x30 to 0x5F of the header.

import Crypto
import SEVABI

/// What both ends of a guest message do with their VMPCK [SNP 7.1].
package enum GuestMessageCipher {
    /// The page of a message, 4096 bytes.
    ///
    /// - Parameter header: MSG_SIZE and AUTHTAG are filled in.
    package static func seal(_ payload: [UInt8], _ header: GuestMessageHeader, key: [UInt8]) -> [UInt8] {
        precondition(payload.count <= GuestMessageHeader.maximumPayloadByteCount, "a payload that fits into the page")
        var header = header
        header.payloadByteCount = UInt16(truncatingIfNeeded: payload.count)
        let authenticated = Array(header.bytes[GuestMessageHeader.authenticatedOffset...])
        let sealed = AES256GCM.seal(payload, authenticating: authenticated, key: key, nonce: header.nonce)
        header.tag = sealed.tag
        let used = header.bytes + sealed.ciphertext
        return used + [UInt8](repeating: 0, count: GuestMessageHeader.pageByteCount - used.count)
    }

    /// The payload of a page; nil when MSG_SIZE leaves the page, or key, tag, header and payload do not belong together.
    package static func open(_ page: [UInt8], _ header: GuestMessageHeader, key: [UInt8]) -> [UInt8]? {
        let end = GuestMessageHeader.byteCount + Int(header.payloadByteCount)
        guard end <= page.count else { return nil }
        return AES256GCM.open(
            Array(page[GuestMessageHeader.byteCount..<end]), tag: header.tag,
            authenticating: Array(page[GuestMessageHeader.authenticatedOffset..<GuestMessageHeader.byteCount]),
            key: key,
            nonce: header.nonce)
    }
}
