// The text form of certificates and keys [RFC 7468].

/// Blocks between `-----BEGIN label-----` and `-----END label-----`.
public enum PEM {
    /// One block.
    public struct Block: Equatable, Sendable {
        /// "CERTIFICATE", "X509 CRL", "EC PRIVATE KEY" …
        public let label: String
        public let bytes: [UInt8]

        public init(label: String, bytes: [UInt8]) {
            self.label = label
            self.bytes = bytes
        }
    }

    /// The file looks like text with at least one block.
    public static func isText(_ file: [UInt8]) -> Bool {
        file.prefix(1 << 16).split(separator: 0x0a).contains { $0.starts(with: "-----BEGIN ".utf8) }
    }

    /// All blocks of a file, in order; text between them is ignored. Returns nil for a block that does not end, ends under
    /// another label, or holds anything but base64.
    public static func blocks(_ file: [UInt8]) -> [Block]? {
        var blocks: [Block] = []
        var open: String?
        var text: [UInt8] = []
        for raw in file.split(whereSeparator: { $0 == 0x0a || $0 == 0x0d }) {
            let line = trimmed(raw)
            if let current = open {
                if let label = marked(line, "END") {
                    guard label == current, let bytes = Base64.decode(text) else { return nil }
                    blocks.append(Block(label: label, bytes: bytes))
                    open = nil
                } else {
                    text += line
                }
            } else if let label = marked(line, "BEGIN") {
                open = label
                text = []
            }
        }
        return open == nil ? blocks : nil
    }

    /// A block as text, lines of 64 characters.
    public static func text(_ block: Block) -> String {
        let body = Array(Base64.encode(block.bytes).utf8)
        var result = "-----BEGIN \(block.label)-----\n"
        for start in stride(from: 0, to: body.count, by: 64) {
            result += String(decoding: body[start..<min(start + 64, body.count)], as: UTF8.self) + "\n"
        }
        return result + "-----END \(block.label)-----\n"
    }

    private static func trimmed(_ line: ArraySlice<UInt8>) -> ArraySlice<UInt8> {
        var line = line
        while let last = line.last, last == 0x20 || last == 0x09 { line.removeLast() }
        return line
    }

    /// The label of `-----BEGIN label-----`.
    private static func marked(_ line: ArraySlice<UInt8>, _ word: String) -> String? {
        let head = Array("-----\(word) ".utf8)
        let tail = Array("-----".utf8)
        guard line.count > head.count + tail.count, line.starts(with: head), line.suffix(tail.count).elementsEqual(tail)
        else { return nil }
        return String(decoding: line.dropFirst(head.count).dropLast(tail.count), as: UTF8.self)
    }
}
