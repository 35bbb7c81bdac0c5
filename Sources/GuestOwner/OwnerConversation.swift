// The VMM's side of a conversation with its guest's owner.

import SEVABI

/// Asks a waiting owner for a session, and for secrets once the guest is measured.
///
/// ```
/// VMM                                   owner
///  hello(certificates, version)  ───►   verifies the platform
///        ◄───  session | refusal        makes keys for this one launch
///  measurement(MEASURE, version) ───►   compares with its own files
///        ◄───  secrets | refusal
/// ```
/// How bytes travel is the caller's: two closures. The order is kept here: a call out of turn is a programmer error, an answer
/// out of turn an error of the owner.
public struct OwnerConversation {
    /// Waits for bytes; an empty array means that the other side has ended.
    public typealias Read = () throws(OwnerError) -> [UInt8]
    /// Sends all of the bytes.
    public typealias Write = ([UInt8]) throws(OwnerError) -> Void

    private enum State {
        case fresh
        case hasSession
        case over
    }

    private let read: Read
    private let write: Write
    private var decoder = OwnerMessageDecoder()
    private var state = State.fresh

    public init(read: @escaping Read, write: @escaping Write) {
        self.read = read
        self.write = write
    }

    /// The session for LAUNCH_START.
    ///
    /// - Throws: The owner's refusal with its reason, or what is wrong with the conversation.
    public mutating func session(for hello: OwnerHello) throws(OwnerError) -> SEVLaunchSession {
        precondition(state == .fresh, "one session a conversation")
        state = .over
        try checkLengths(hello.platform)
        guard case .session(let session) = try exchange(.hello(hello), wanted: "a session") else {
            preconditionFailure("exchange returned another message")
        }
        state = .hasSession
        return session
    }

    /// The packets for LAUNCH_SECRET, in order; perhaps none.
    public mutating func secrets(after measurement: OwnerMeasurement) throws(OwnerError) -> [SEVSecretPacket] {
        precondition(state == .hasSession, "secrets follow the session, once")
        state = .over
        guard case .secrets(let packets) = try exchange(.measurement(measurement), wanted: "secrets") else {
            preconditionFailure("exchange returned another message")
        }
        return packets
    }

    /// Tells the owner that the launch has failed on this side. Nothing is read any more.
    public mutating func refuse(_ refusal: OwnerRefusal) throws(OwnerError) {
        state = .over
        try write(OwnerMessage.refusal(refusal).bytes)
    }

    /// Sends a message and waits for the answer to it.
    private mutating func exchange(_ message: OwnerMessage, wanted: String) throws(OwnerError) -> OwnerMessage {
        try write(message.bytes)
        while true {
            if let answer = try decoder.next() {
                if case .refusal(let refusal) = answer { throw Self.refused(refusal, answering: message) }
                guard answer.name == wanted else {
                    throw OwnerError(
                        .message, attempt: "talk to the guest owner", subject: "the answer to \(message.name)",
                        expected: wanted, found: answer.name, likelyCause: "a broken or hostile owner",
                        nextStep: "check which program listens on the socket")
                }
                return answer
            }
            let more = try read()
            guard !more.isEmpty else {
                try decoder.finish()
                throw OwnerError(
                    .connection, attempt: "talk to the guest owner", subject: "the connection",
                    expected: "\(wanted) as the answer to \(message.name)", found: "its end",
                    likelyCause: "the owner stopped, or serves no more launches",
                    nextStep: "look at the owner's output, and start the launch again")
            }
            decoder.append(more)
        }
    }

    /// Wrong lengths come from the platform; they must not become a trap here.
    private func checkLengths(_ platform: SEVPlatformCertificates) throws(OwnerError) {
        let parts = [
            ("PDH certificate", platform.pdh.count, SEVCertificate.byteCount),
            ("PEK, OCA and CEK certificates", platform.chain.count, SEVPlatformCertificates.chainByteCount),
        ]
        for (subject, found, expected) in parts where found != expected {
            throw OwnerError(
                .certificate, attempt: "send the platform's certificates to the guest owner", subject: subject,
                field: "length", expected: "\(expected) bytes", found: "\(found)",
                likelyCause: "an export that was cut off", nextStep: "export the certificates again")
        }
    }

    private static func refused(_ refusal: OwnerRefusal, answering message: OwnerMessage) -> OwnerError {
        OwnerError(
            refusal.category, attempt: "have the guest owner accept \(message.name)", subject: "the owner",
            expected: "its consent", found: "a refusal: \(refusal.reason)",
            likelyCause: "what the owner says there",
            nextStep: "put that right on the side that it is about, and start the launch again")
    }
}
