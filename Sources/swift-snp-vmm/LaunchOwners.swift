// The guest owner of a run: files that it has sent, or a process behind a socket.
//
// With files the launch waits in the measured state for the packet: `--measurement-out` is written, the owner checks it and
// makes the packet, and the run goes on when the packet's file is there.

import ArgumentParser
import CProcess
import GuestOwner
import KVMABI
import SEVABI
import SNPVMM

/// How `run` reaches the owner of a SEV or SEV-ES guest.
struct LaunchOwnerOptions: ParsableArguments {
    @Option(
        name: .customLong("owner"),
        help: ArgumentHelp(
            "The socket of a waiting guest owner (see `owner serve`); SEV and SEV-ES.", valueName: "socket"))
    var socket: String?
    @Option(help: ArgumentHelp("The owner's session: 128 bytes. SEV and SEV-ES.", valueName: "file"))
    var session: String?
    @Option(
        name: .customLong("owner-cert"),
        help: ArgumentHelp("The owner's certificate for this session: 2084 bytes.", valueName: "file"))
    var certificate: String?
    @Option(
        help: ArgumentHelp(
            """
            The owner's secret packet. The launch waits after LAUNCH_MEASURE until the file is there; one that is there \
            from the start belongs to another launch, and the firmware refuses it.
            """, valueName: "file"))
    var secret: String?
    @Option(
        name: .customLong("measurement-out"),
        help: ArgumentHelp("Where the 48 bytes of LAUNCH_MEASURE are written, for the owner.", valueName: "file"))
    var measurementOut: String?

    /// Where the owner is, for the report.
    var place: String {
        let path = socket ?? secret ?? session ?? measurementOut ?? ""
        return (socket == nil ? "files: " : "") + (path.split(separator: "/").last.map(String.init) ?? "")
    }

    /// The files that are read, each with its name in messages.
    var inputs: [NamedPath] {
        [NamedPath("--session", session), NamedPath("--owner-cert", certificate), NamedPath("--secret", secret)]
            .compactMap(\.self)
    }

    var isUsed: Bool { socket ?? session ?? certificate ?? secret ?? measurementOut != nil }

    /// What contradicts itself, or cannot be for this kind of guest.
    func check(_ technology: GuestTechnology?) throws {
        guard isUsed else { return }
        switch technology {
        case .sev, .sevES: break
        case .snp:
            throw ValidationError(
                """
                --owner, --session, --secret and --measurement-out belong to --confidential sev and sev-es. An SNP launch \
                has no session and no secret: its owner releases secrets to the running guest, which shows an attestation \
                report.
                """)
        case nil:
            throw ValidationError(
                "--owner, --session, --secret and --measurement-out belong to --confidential sev and sev-es.")
        }
        if socket != nil, session ?? certificate ?? secret != nil {
            throw ValidationError(
                "--owner excludes --session, --owner-cert and --secret: the socket gives all of them.")
        }
        if (session == nil) != (certificate == nil) {
            throw ValidationError(
                "--session and --owner-cert go together: the session is made for the certificate's key.")
        }
        if secret != nil, session == nil {
            throw ValidationError("--secret needs --session: the packet is encrypted with the session's keys.")
        }
    }

    /// The owner; nil when nobody has been named.
    /// - Parameter policy: What `--policy` asked for, if it did.
    func owner(policy: UInt32?, reporter: Reporter) throws(CommandFailure) -> (any LaunchOwner)? {
        guard isUsed else { return nil }
        let output = try measurementOut.map { (path) throws(CommandFailure) in
            // Made empty now: a path that cannot be written is found before the launch, and an old measurement goes.
            try OutputFile(path: path, purpose: "the measurement")
        }
        if let socket {
            return SocketOwner(
                try SocketConnection(toOwnerAt: socket), policy: policy.map { SEVPolicy(rawValue: $0) },
                measurement: output, reporter: reporter)
        }
        guard let session, let certificate else {
            return FileOwner(session: nil, secret: nil, measurement: output, reporter: reporter)
        }
        if let secret, InputFile(path: secret).isFolder {
            throw CommandFailure(
                status: .badInput,
                message:
                    "could not wait for the owner's packet in \(secret): a directory, which never becomes a file. Next "
                    + "step: name the file that owner secret --out will write.")
        }
        return FileOwner(
            session: (
                try InputFile(path: certificate).read(
                    as: "the owner's certificate", byteCount: SEVCertificate.byteCount),
                try InputFile(path: session).read(as: "the session", byteCount: SEVLaunchSessionBlob.byteCount)
            ), secret: secret, measurement: output, reporter: reporter)
    }
}

/// Tells what was measured, to people and to the file.
private func publish(_ request: SecretRequest, _ output: OutputFile?, _ reporter: Reporter) {
    reporter.say("measurement: \(hexText(request.measurement.bytes))")
    let version = request.version
    reporter.say(
        "  by firmware \(version) (--firmware-version \(version.apiMajor).\(version.apiMinor).\(version.build)), policy "
            + "\(request.policy)")
    output?.write(bytes: request.measurement.bytes)
}

/// Two lower-case digits per byte.
func hexText(_ bytes: [UInt8]) -> String {
    bytes.reduce(into: "") { $0 += ($1 < 16 ? "0" : "") + String($1, radix: 16) }
}

// MARK: Files

/// An owner who has sent files.
final class FileOwner: LaunchOwner {
    private let files: (certificate: [UInt8], session: [UInt8])?
    private let secret: String?
    private let output: OutputFile?
    private let reporter: Reporter

    init(
        session: (certificate: [UInt8], session: [UInt8])?, secret: String?, measurement: OutputFile?,
        reporter: Reporter
    ) {
        files = session
        self.secret = secret
        output = measurement
        self.reporter = reporter
    }

    func session(for request: SessionRequest) throws(VMMError) -> SEVLaunchSession? {
        files.map { SEVLaunchSession(policy: request.policy, ownerCertificate: $0.certificate, session: $0.session) }
    }

    func secrets(after request: SecretRequest) throws(VMMError) -> [SEVSecretPacket] {
        publish(request, output, reporter)
        guard let secret else {
            if files != nil {
                reporter.say("no --secret and no --owner: the launch goes on, whatever the owner will think of it")
            }
            return []
        }
        let bytes = try waitForPacket(secret)
        guard let packet = SEVSecretPacket(bytes: bytes) else {
            throw VMMError(
                .badInput, step: "inject the owner's secret", request: "the packet in \(secret)",
                finding: "\(bytes.count) bytes, expected \(SEVSecretHeader.byteCount) and then a multiple of 16, up to "
                    + "\(SEVSecretPacket.maximumPayloadByteCount)",
                likelyCause: "another file in its place, or one that is cut off",
                nextStep: "make the packet with swift-snp-vmm owner secret")
        }
        return [packet]
    }

    /// The file's bytes, once it is there and has stopped growing.
    private func waitForPacket(_ path: String) throws(VMMError) -> [UInt8] {
        let file = InputFile(path: path)
        // An empty file is one that somebody is about to write.
        if file.byteCount ?? 0 == 0 {
            // Said even when quiet: otherwise the run would seem to hang.
            StandardError.write(line: "measured; waiting for the owner's packet in \(path) (Ctrl-C gives up)")
        }
        var previous: Int64 = -1
        while true {
            if let byteCount = file.byteCount {
                if byteCount > 0, byteCount == previous { break }
                previous = byteCount
            }
            process_sleep(100)
        }
        do { return try file.read(as: "the packet") } catch {
            throw VMMError(
                .badInput, step: "inject the owner's secret", request: "the packet in \(path)", finding: error.message,
                likelyCause: "see there", nextStep: "see there")
        }
    }
}

/// An owner who waits behind a socket.
final class SocketOwner: LaunchOwner {
    private var conversation: OwnerConversation
    private let policy: SEVPolicy?
    private let output: OutputFile?
    private let reporter: Reporter
    private var isOver = false

    /// - Parameter policy: What this run has asked for; nil to take the owner's.
    init(_ socket: SocketConnection, policy: SEVPolicy?, measurement: OutputFile?, reporter: Reporter) {
        conversation = OwnerConversation(
            read: { () throws(OwnerError) in try socket.read() },
            write: { (bytes) throws(OwnerError) in try socket.write(bytes) })
        self.policy = policy
        output = measurement
        self.reporter = reporter
    }

    func session(for request: SessionRequest) throws(VMMError) -> SEVLaunchSession? {
        let session = try ask("get a session from the guest owner") { (conversation) throws(OwnerError) in
            try conversation.session(
                for: OwnerHello(technology: request.technology, firmware: request.version, platform: request.platform))
        }
        if let policy, policy != session.policy {
            let error = VMMError(
                .launchRefused, step: "agree with the guest owner on a policy", request: "--policy",
                finding: "\(policy), the owner's session is for \(session.policy)",
                likelyCause: "the policy is the owner's to choose", nextStep: "leave --policy out, or ask the owner")
            end(because: error)
            throw error
        }
        return session
    }

    func secrets(after request: SecretRequest) throws(VMMError) -> [SEVSecretPacket] {
        publish(request, output, reporter)
        let packets = try ask("get the guest owner's consent to this launch") { (conversation) throws(OwnerError) in
            try conversation.secrets(
                after: OwnerMeasurement(
                    firmware: request.version, policy: request.policy, measurement: request.measurement))
        }
        isOver = true
        return packets
    }

    /// Tells the owner that the launch has failed here, unless the conversation has ended.
    func end(because error: VMMError) {
        guard !isOver else { return }
        isOver = true
        // Nobody is left who could hear of a failure to tell a failure.
        try? conversation.refuse(OwnerRefusal(.message, reason: error.summary))
    }

    private func ask<Answer>(
        _ step: String, _ body: (inout OwnerConversation) throws(OwnerError) -> Answer
    ) throws(VMMError) -> Answer {
        do { return try body(&conversation) } catch {
            isOver = true
            throw VMMError(
                .launchRefused, step: step, request: error.subject, finding: error.found,
                likelyCause: error.likelyCause, nextStep: error.nextStep)
        }
    }
}
