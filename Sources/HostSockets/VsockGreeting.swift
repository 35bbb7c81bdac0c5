// What a program on the host says first: which port of the guest it wants.

/// The line `CONNECT <port>\n`, as it arrives.
struct VsockGreeting: Equatable {
    /// The longest line, with its end: room for the word, ten digits, and blanks.
    static let maximumByteCount = 32

    private(set) var bytes: [UInt8] = []

    /// Bytes that may still be taken; whatever comes behind the line is the guest's.
    var room: Int { Self.maximumByteCount - bytes.count }

    enum Result: Equatable {
        case incomplete
        /// The port, and what followed the line.
        case connect(port: UInt32, rest: [UInt8])
        case invalid
    }

    /// Takes up to ``room`` bytes.
    mutating func take(_ more: some Collection<UInt8>) -> Result {
        bytes += more
        guard let end = bytes.firstIndex(of: UInt8(ascii: "\n")) else {
            return bytes.count < Self.maximumByteCount ? .incomplete : .invalid
        }
        let words = bytes[..<end].split { $0 == 0x20 || $0 == 0x09 || $0 == 0x0d }
        guard words.count == 2, words[0].map({ $0 & 0xdf }) == Array("CONNECT".utf8),
            words[1].allSatisfy({ (0x30...0x39).contains($0) }),
            let port = UInt32(String(decoding: words[1], as: UTF8.self))
        else { return .invalid }
        return .connect(port: port, rest: Array(bytes[(end + 1)...]))
    }
}
