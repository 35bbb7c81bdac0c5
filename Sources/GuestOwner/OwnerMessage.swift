// The messages between a VMM and a waiting guest owner: values, and their bytes on the wire.
//
// Both ends may be hostile to the other. Every length is checked against what the kind allows before anything is stored, and
// a stream that was wrong once stays wrong.

import ABILayout
import SEVABI

/// One message. The wire format is described in the catalogue (OwnerProtocol).
public enum OwnerMessage: Equatable, Sendable {
    /// VMM → owner: a launch is about to begin on this platform.
    case hello(OwnerHello)
    /// Owner → VMM: what LAUNCH_START needs.
    case session(SEVLaunchSession)
    /// VMM → owner: the guest is loaded, and this is what the firmware says about it.
    case measurement(OwnerMeasurement)
    /// Owner → VMM: the packets for LAUNCH_SECRET, in order; perhaps none. The guest may start.
    case secrets([SEVSecretPacket])
    /// Either side: the end of the conversation, with a reason.
    case refusal(OwnerRefusal)
}

/// A platform that wants to launch a guest.
public struct OwnerHello: Equatable, Sendable {
    public var technology: GuestTechnology
    public var firmware: FirmwareVersion
    public var platform: SEVPlatformCertificates

    public init(technology: GuestTechnology, firmware: FirmwareVersion, platform: SEVPlatformCertificates) {
        self.technology = technology
        self.firmware = firmware
        self.platform = platform
    }
}

/// What LAUNCH_MEASURE gave, and what the VMM says about firmware and policy.
public struct OwnerMeasurement: Equatable, Sendable {
    public var firmware: FirmwareVersion
    public var policy: SEVPolicy
    public var measurement: SEVMeasurement

    public init(firmware: FirmwareVersion, policy: SEVPolicy, measurement: SEVMeasurement) {
        self.firmware = firmware
        self.policy = policy
        self.measurement = measurement
    }
}

/// The end of a conversation, with a reason.
public struct OwnerRefusal: Equatable, Sendable {
    /// More text than this is cut.
    public static let maximumReasonByteCount = 4096

    public var category: OwnerError.Category
    /// For people.
    public var reason: String

    public init(_ category: OwnerError.Category, reason: String) {
        self.category = category
        self.reason = reason
    }
}

extension OwnerMessage {
    /// "OWNR".
    static let magic: [UInt8] = [0x4f, 0x57, 0x4e, 0x52]
    public static let version: UInt16 = 1
    /// Magic, version, kind, length.
    public static let headByteCount = 12
    /// Packets in one message.
    public static let maximumPacketCount = 16
    /// No message has a longer body: sixteen packets of the greatest length.
    public static let maximumBodyByteCount =
        4 + maximumPacketCount * (4 + SEVSecretHeader.byteCount + SEVSecretPacket.maximumPayloadByteCount)

    /// The kind on the wire.
    struct Kind: RawRepresentable, Hashable {
        var rawValue: UInt16
        static let hello = Kind(rawValue: 1)
        static let session = Kind(rawValue: 2)
        static let measurement = Kind(rawValue: 3)
        static let secrets = Kind(rawValue: 4)
        static let refusal = Kind(rawValue: 5)

        /// The lengths that a body of this kind may have; nil for a kind that does not exist.
        var bodyByteCounts: ClosedRange<Int>? {
            switch self {
            case .hello:
                let count = 4 + SEVCertificate.byteCount + SEVPlatformCertificates.chainByteCount
                return count...count
            case .session:
                let count = 4 + SEVCertificate.byteCount + SEVLaunchSessionBlob.byteCount
                return count...count
            case .measurement: return 56...56
            case .secrets: return 4...maximumBodyByteCount
            case .refusal: return 4...(4 + OwnerRefusal.maximumReasonByteCount)
            default: return nil
            }
        }
    }

    var kind: Kind {
        switch self {
        case .hello: .hello
        case .session: .session
        case .measurement: .measurement
        case .secrets: .secrets
        case .refusal: .refusal
        }
    }

    /// "a session", for messages.
    public var name: String { Self.name(kind) }

    static func name(_ kind: Kind) -> String {
        switch kind {
        case .hello: "a hello"
        case .session: "a session"
        case .measurement: "a measurement"
        case .secrets: "secrets"
        case .refusal: "a refusal"
        default: "a message of kind \(kind.rawValue)"
        }
    }

    /// The whole frame. Certificates, sessions and packets of a wrong length are a programmer error.
    public var bytes: [UInt8] {
        var body: [UInt8] = []
        switch self {
        case .hello(let hello):
            body = [
                Self.number(of: hello.technology), hello.firmware.apiMajor, hello.firmware.apiMinor,
                hello.firmware.build,
            ]
            body += hello.platform.pdh + hello.platform.chain
        case .session(let session):
            body = session.policy.littleEndianBytes + session.ownerCertificate + session.session
        case .measurement(let measurement):
            body = [measurement.firmware.apiMajor, measurement.firmware.apiMinor, measurement.firmware.build, 0]
            body += measurement.policy.littleEndianBytes + measurement.measurement.bytes
        case .secrets(let packets):
            precondition(packets.count <= Self.maximumPacketCount, "at most 16 packets")
            body.appendLittleEndian(UInt32(packets.count))
            for packet in packets {
                precondition(SEVSecretPacket(bytes: packet.bytes) != nil, "a well-formed secret packet")
                body.appendLittleEndian(UInt32(packet.bytes.count))
                body += packet.bytes
            }
        case .refusal(let refusal):
            body.appendLittleEndian(refusal.category.rawValue)
            body += refusal.reason.utf8.prefix(OwnerRefusal.maximumReasonByteCount)
        }
        precondition(kind.bodyByteCounts?.contains(body.count) == true, "\(name) of \(body.count) bytes")
        var frame = Self.magic
        frame.appendLittleEndian(Self.version)
        frame.appendLittleEndian(kind.rawValue)
        frame.appendLittleEndian(UInt32(body.count))
        return frame + body
    }

    /// The message in a body whose length is one that its kind allows.
    init(_ kind: Kind, body: [UInt8]) throws(OwnerError) {
        var fields = BodyReader(body, kind)
        switch kind {
        case .hello:
            let number = try fields.bytes(1)[0]
            guard let technology = GuestTechnology.allCases.first(where: { Self.number(of: $0) == number }) else {
                throw Self.malformed(
                    kind, "technology", expected: "1 (SEV), 2 (SEV-ES) or 3 (SEV-SNP)", found: "\(number)")
            }
            let version = try fields.bytes(3)
            let pdh = try fields.bytes(SEVCertificate.byteCount)
            let chain = try fields.bytes(SEVPlatformCertificates.chainByteCount)
            self = .hello(
                OwnerHello(
                    technology: technology,
                    firmware: FirmwareVersion(apiMajor: version[0], apiMinor: version[1], build: version[2]),
                    platform: SEVPlatformCertificates(pdh: pdh, chain: chain)))
        case .session:
            let policy = SEVPolicy(rawValue: try fields.number())
            self = .session(
                SEVLaunchSession(
                    policy: policy, ownerCertificate: try fields.bytes(SEVCertificate.byteCount),
                    session: try fields.bytes(SEVLaunchSessionBlob.byteCount)))
        case .measurement:
            let version = try fields.bytes(4)
            guard version[3] == 0 else {
                throw Self.malformed(kind, "reserved byte 3", expected: "0", found: "\(version[3])")
            }
            let policy = SEVPolicy(rawValue: try fields.number())
            let measure = try fields.bytes(32)
            self = .measurement(
                OwnerMeasurement(
                    firmware: FirmwareVersion(apiMajor: version[0], apiMinor: version[1], build: version[2]),
                    policy: policy, measurement: SEVMeasurement(measure: measure, nonce: try fields.bytes(16))))
        case .secrets:
            let count = try fields.number()
            guard count <= Self.maximumPacketCount else {
                throw Self.malformed(
                    kind, "packet count", expected: "at most \(Self.maximumPacketCount)", found: "\(count)")
            }
            var packets: [SEVSecretPacket] = []
            for index in 0..<count {
                let byteCount = Int(try fields.number())
                guard let packet = SEVSecretPacket(bytes: try fields.bytes(byteCount)) else {
                    throw Self.malformed(
                        kind, "length of packet \(index)", expected: "52 and a multiple of 16 up to 16384",
                        found: "\(byteCount)")
                }
                packets.append(packet)
            }
            self = .secrets(packets)
        case .refusal:
            let category = OwnerError.Category(rawValue: try fields.number())
            // Repaired, so that a broken text cannot hide the refusal; without control characters, so that it cannot play
            // with the reader's terminal.
            let text = String(decoding: fields.rest(), as: UTF8.self).unicodeScalars
                .map { $0.value < 0x20 || (0x7f..<0xa0).contains($0.value) ? " " : Character($0) }
            self = .refusal(OwnerRefusal(category, reason: String(text)))
        default:
            throw Self.malformed(kind, "kind", expected: "1 to 5", found: "\(kind.rawValue)")
        }
        guard fields.isAtEnd else {
            throw Self.malformed(
                kind, "length", expected: "nothing after its last field", found: "\(fields.rest().count) more bytes")
        }
    }

    private static func number(of technology: GuestTechnology) -> UInt8 {
        switch technology {
        case .sev: 1
        case .sevES: 2
        case .snp: 3
        }
    }

    static func malformed(_ kind: Kind, _ field: String, expected: String, found: String) -> OwnerError {
        OwnerError(
            .message, attempt: "read a message", subject: name(kind), field: field, expected: expected, found: found,
            likelyCause: "another program, or another version of this one, at the other end of the socket",
            nextStep: "check which program listens there, and that both are of the same version")
    }
}

/// Reads fields from a body, never past its end.
private struct BodyReader {
    private let body: [UInt8]
    private let kind: OwnerMessage.Kind
    private var position = 0

    init(_ body: [UInt8], _ kind: OwnerMessage.Kind) {
        self.body = body
        self.kind = kind
    }

    var isAtEnd: Bool { position == body.count }

    mutating func bytes(_ count: Int) throws(OwnerError) -> [UInt8] {
        guard count >= 0, count <= body.count - position else {
            throw OwnerMessage.malformed(
                kind, "length", expected: "\(count) bytes at \(position)", found: "\(body.count - position)")
        }
        defer { position += count }
        return Array(body[position..<(position + count)])
    }

    mutating func number() throws(OwnerError) -> UInt32 {
        let bytes = try bytes(4)
        return (0..<4).reduce(0) { $0 | UInt32(bytes[$1]) << UInt32(8 * $1) }
    }

    mutating func rest() -> [UInt8] {
        defer { position = body.count }
        return Array(body[position...])
    }
}
