// The owner's side of a conversation: what it answers, and what it writes down about it.

import Crypto
import GuestImage
import SEVABI

/// What an owner is ready to launch, and what it gives the guest.
public struct OwnerOffer: Sendable {
    public var launch: ExpectedLaunch
    public var policy: SEVPolicy
    /// Accepts platforms.
    public var verifier: PlatformVerifier
    /// Released once the measurement is the expected one; empty for none.
    public var secrets: [Secret]
    /// Room for the table in the guest.
    public var secretAreaByteCount: UInt64
    /// Launches to try after a mismatch, beside the plan's own.
    public var moreAlternatives: @Sendable () -> [ExpectedLaunch.Alternative]

    /// One entry of the secret table.
    public struct Secret: Sendable {
        public var guid: GUID
        public var data: SecretBytes

        public init(guid: GUID, data: SecretBytes) {
            self.guid = guid
            self.data = data
        }
    }

    public init(
        launch: ExpectedLaunch, policy: SEVPolicy, verifier: PlatformVerifier, secrets: [Secret] = [],
        secretAreaByteCount: UInt64 = 0,
        moreAlternatives: @escaping @Sendable () -> [ExpectedLaunch.Alternative] = { [] }
    ) {
        self.launch = launch
        self.policy = policy
        self.verifier = verifier
        self.secrets = secrets
        self.secretAreaByteCount = secretAreaByteCount
        self.moreAlternatives = moreAlternatives
    }

    /// What can never succeed is refused when the owner starts, not when a guest waits: a policy that does not fit the
    /// technology [SEV 3, ACTIVATE in 5.14], secrets without a place.
    public func validate() throws(OwnerError) {
        let needsES = launch.technology == .sevES
        guard policy.requiresEncryptedState == needsES else {
            throw OwnerError(
                .policy, attempt: "offer a launch", subject: "the policy", field: "bit 2 (ES)",
                expected: needsES ? "1 for a SEV-ES guest" : "0 for a SEV guest", found: "\(policy)",
                likelyCause: "a policy for the other technology",
                nextStep: "give --policy \(needsES ? "0x5" : "0x1"), or the other technology")
        }
        guard !secrets.isEmpty else { return }
        let count = secrets.reduce(SecretTable.headByteCount) { $0 + SecretTable.headByteCount + $1.data.count }
        let byteCount = UInt64((count + 15) & ~15)
        guard secretAreaByteCount > 0 else {
            throw OwnerError(
                .secret, attempt: "offer secrets", subject: "the image", field: "secret area",
                expected: "an area for the secret table", found: "none",
                likelyCause: "a firmware image without the GUID 4c2eb361-7d9b-4cc3-8081-127c90d3d294 in its table",
                nextStep: "use an image with a secret area, or serve it without --secret")
        }
        guard byteCount <= secretAreaByteCount else {
            throw OwnerError(
                .secret, attempt: "offer secrets", subject: "the secret table", field: "length",
                expected: "at most \(secretAreaByteCount) bytes", found: "\(byteCount)",
                likelyCause: "secrets that are too long for the guest's secret area",
                nextStep: "release a key instead of what it opens")
        }
    }
}

/// One conversation, from the owner's side: a state machine that is given messages and returns answers.
///
/// Every decision comes back as an audit line too. Nothing secret is in a line.
public struct OwnerReception: Sendable {
    /// What to send and to write down.
    public struct Answer: Sendable {
        /// Nil when there is nothing to answer (the other side ended the conversation).
        public var message: OwnerMessage?
        /// For the owner's log, one decision a line.
        public var audit: [String]
        /// The conversation is over when this has been sent.
        public var isLast: Bool
        /// Secrets, or the consent to start without any, were released.
        public var released: Bool
    }

    private enum State {
        case fresh
        case waitsForMeasurement(OwnerSession)
        case over
    }

    private let offer: OwnerOffer
    private var state = State.fresh

    public init(_ offer: OwnerOffer) { self.offer = offer }

    /// Answers one message. A refusal ends the conversation.
    public mutating func answer(to message: OwnerMessage) -> Answer {
        do throws(OwnerError) {
            switch (state, message) {
            case (_, .refusal(let refusal)):
                state = .over
                return Answer(
                    message: nil, audit: ["the VMM ended the launch: \(refusal.reason)"], isLast: true, released: false)
            case (.fresh, .hello(let hello)): return try accept(hello)
            case (.waitsForMeasurement(let session), .measurement(let measurement)):
                return try release(session, measurement)
            default:
                throw OwnerError(
                    .message, attempt: "talk to a VMM", subject: "the conversation", expected: expectedMessage,
                    found: message.name, likelyCause: "a broken or hostile VMM",
                    nextStep: "check which program connected to the socket")
            }
        } catch {
            return refuse(error)
        }
    }

    /// A refusal for what the transport found: a malformed message, a broken connection.
    public mutating func refuse(_ error: OwnerError) -> Answer {
        state = .over
        return Answer(
            message: .refusal(OwnerRefusal(error.category, reason: "\(error)")), audit: ["refused: \(error)"],
            isLast: true, released: false)
    }

    /// The connection has ended. Returns what there is to write down.
    public mutating func end() -> [String] {
        defer { state = .over }
        switch state {
        case .fresh: return ["the VMM left without a word"]
        case .waitsForMeasurement:
            return ["the VMM took a session and left without a measurement; nothing was released"]
        case .over: return []
        }
    }

    private var expectedMessage: String {
        switch state {
        case .fresh: "a hello"
        case .waitsForMeasurement: "a measurement"
        case .over: "nothing: it is over"
        }
    }

    private mutating func accept(_ hello: OwnerHello) throws(OwnerError) -> Answer {
        guard hello.technology == offer.launch.technology else {
            throw OwnerError(
                .technology, attempt: "accept a launch", subject: "the VMM's hello", field: "technology",
                expected: offer.launch.technology.displayName, found: hello.technology.displayName,
                likelyCause: "the guest is run with another --confidential than its owner expects",
                nextStep: "run it as \(offer.launch.technology.rawValue), or serve it as \(hello.technology.rawValue)")
        }
        let platform = try offer.verifier.verify(hello.platform)
        let least = (offer.policy.minimumAPIMajor, offer.policy.minimumAPIMinor)
        guard (hello.firmware.apiMajor, hello.firmware.apiMinor) >= least else {
            throw OwnerError(
                .policy, attempt: "accept a platform", subject: "the firmware", field: "API version",
                expected: "at least \(least.0).\(least.1), by the policy", found: "\(hello.firmware)",
                likelyCause: "an old firmware", nextStep: "update the platform's firmware")
        }
        let session = try OwnerSession(for: platform, policy: offer.policy)
        state = .waitsForMeasurement(session)
        var audit = platform.warnings
        audit.append(
            "accepted the platform (root: \(platform.rootDescription)), firmware \(hello.firmware), chip "
                + "\(platform.chipFingerprint.prefix(16)); gave it a session for policy \(offer.policy)")
        return Answer(message: .session(session.launch), audit: audit, isLast: false, released: false)
    }

    private mutating func release(
        _ session: OwnerSession, _ measurement: OwnerMeasurement
    ) throws(OwnerError) -> Answer {
        state = .over
        try session.check(measurement, against: offer.launch, more: offer.moreAlternatives)
        var audit = ["the measurement is the expected one: launch digest \(hexText(offer.launch.digest))"]
        guard !offer.secrets.isEmpty else {
            audit.append("released the guest; there are no secrets for it")
            return Answer(message: .secrets([]), audit: audit, isLast: true, released: true)
        }
        var table = SecretTable(entries: offer.secrets.map { .init(guid: $0.guid, data: $0.data.copied()) })
        defer { table.wipe() }
        let packet = try session.makeSecret(
            table, after: measurement.measurement, firmware: measurement.firmware,
            areaByteCount: offer.secretAreaByteCount)
        audit.append(
            "released \(counted(offer.secrets.count, "secret")): \(offer.secrets.map { "\($0.guid)" }.joined(separator: ", "))"
        )
        return Answer(message: .secrets([packet]), audit: audit, isLast: true, released: true)
    }
}

extension SecretTable {
    /// Overwrites the secrets in it.
    public mutating func wipe() {
        for index in entries.indices { Crypto.wipe(&entries[index].data) }
    }
}
