// `owner serve`: an owner who waits behind a socket.

import ArgumentParser
import CProcess
import GuestOwner
import KVMABI
import SEVABI
import SNPVMM

extension Owner {
    struct Serve: ParsableCommand {
        static let configuration = CommandConfiguration(
            abstract:
                "Waits on a socket for launches of one image, and releases secrets to those that are measured right.",
            discussion: """
                One launch at a time. Every decision is a line on standard output; nothing secret is in one.

                Example: swift-snp-vmm owner serve guest.img --confidential sev-es --socket owner.socket --certs certs \
                --ark certs/ark.cert --ask certs/ask.cert --secret disk-passphrase=key.bin --launches 1
                """)

        @OptionGroup var launch: ExpectedLaunchOptions
        @OptionGroup var roots: PlatformCertificateOptions
        @OptionGroup var secrets: SecretOptions
        @Option(
            name: .customLong("certs"),
            help: ArgumentHelp(
                "A folder with ark.cert, ask.cert and the signed cek.cert, for what --ark, --ask and --cek do not name.",
                valueName: "folder"))
        var certificates: String?
        @Option(help: ArgumentHelp("Where to wait.", valueName: "path"))
        var socket: String
        @Option(
            help: ArgumentHelp("Ends after so many launches, released or refused. (default: never)", valueName: "n"))
        var launches: Int?

        func validate() throws {
            if let launches, launches < 1 { throw ValidationError("--launches \(launches): expected at least 1.") }
        }

        func run() throws {
            process_forbid_dumps()
            var roots = roots
            if roots.cek == nil, let certificates, InputFile(path: certificates + "/cek.cert").exists {
                roots.cek = certificates + "/cek.cert"
            }
            let expected = try launch.launch()
            let options = launch
            let offer = OwnerOffer(
                launch: expected, policy: try launch.policy(), verifier: try roots.verifier(folder: certificates),
                secrets: try secrets.entries(),
                secretAreaByteCount: expected.hasPlan ? expected.secretArea?.byteCount ?? 0 : 4096,
                moreAlternatives: { options.alternatives() })
            try offer.validate()
            let listener = try OwnerListener(path: socket)
            StandardOutput.write(
                line:
                    "waiting at \(socket) for launches with digest \(hexText(expected.digest)) and policy \(offer.policy)"
            )
            var count = 0
            while launches.map({ count < $0 }) ?? true {
                guard let line = try listener.next() else { continue }
                if Self.serve(line, offer, number: count + 1) { count += 1 }
            }
        }

        /// Serves one connection. Returns false for one that brought nothing: somebody only looked whether we are here.
        private static func serve(_ line: OwnerLine, _ offer: OwnerOffer, number: Int) -> Bool {
            func audit(_ texts: [String]) {
                for text in texts { StandardOutput.write(line: "launch \(number): \(text)") }
            }
            var reception = OwnerReception(offer)
            var decoder = OwnerMessageDecoder()
            var isEmpty = true
            do throws(OwnerError) {
                while true {
                    while let message = try decoder.next() {
                        let answer = reception.answer(to: message)
                        audit(answer.audit)
                        line.setPatience(OwnerLine.launchMilliseconds)
                        if let reply = answer.message { try line.write(reply.bytes) }
                        if answer.isLast { return true }
                    }
                    let bytes = try line.read()
                    guard !bytes.isEmpty else {
                        guard !isEmpty else { return false }
                        try decoder.finish()
                        audit(reception.end())
                        return true
                    }
                    isEmpty = false
                    decoder.append(bytes)
                }
            } catch {
                let answer = reception.refuse(error)
                audit(answer.audit)
                // The other side may be gone; then nobody needs the reason.
                if let reply = answer.message { try? line.write(reply.bytes) }
                return true
            }
        }
    }
}

/// A socket that VMMs connect to.
private final class OwnerListener {
    private let path: String
    private let descriptor: Int32

    init(path: String) throws(CommandFailure) {
        self.path = path
        descriptor = withKernelAddress(of: Array(path.utf8) + [0]) { socket_listen($0) }
        guard descriptor >= 0 else {
            let errno = Errno(rawValue: -descriptor)
            let (cause, next) =
                switch errno {
                case Errno(rawValue: 98):
                    ("another owner waits there, or another file has that name", "choose another path")
                case .ENOENT: ("a missing folder", "make it, or choose another path")
                case Errno(rawValue: 36): ("a path of more than 107 bytes", "use a shorter path")
                default: ("a missing permission", "choose another path")
                }
            throw CommandFailure(
                status: .badInput,
                message: "could not wait at the socket \(path): \(errno). Likely cause: \(cause). Next step: \(next).")
        }
    }

    deinit { file_close(descriptor) }

    /// The next connection; nil when one failed before it was one.
    func next() throws(CommandFailure) -> OwnerLine? {
        let connection = socket_accept(descriptor)
        if connection >= 0 { return OwnerLine(connection) }
        let errno = Errno(rawValue: -connection)
        // ECONNABORTED: the other side has gone again. EINTR: a signal.
        if errno == Errno(rawValue: 103) || errno == .EINTR { return nil }
        throw CommandFailure(
            status: .hostCannot,
            message:
                "could not accept a connection at \(path): \(errno). Likely cause: too many open files. Next step: start "
                + "the owner again.")
    }
}

/// One connection.
private final class OwnerLine {
    /// Who connects says hello at once; others must not keep VMMs waiting.
    private static let helloMilliseconds: Int64 = 10_000
    /// A VMM that has its session and says nothing for so long has gone; loading a large guest takes less.
    static let launchMilliseconds: Int64 = 600_000

    private let descriptor: Int32

    init(_ descriptor: Int32) {
        self.descriptor = descriptor
        setPatience(Self.helloMilliseconds)
    }

    /// Reads and writes fail after so long without a byte.
    func setPatience(_ milliseconds: Int64) { _ = socket_set_patience(descriptor, milliseconds) }

    deinit { file_close(descriptor) }

    func read() throws(OwnerError) -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: 65536)
        let count = withKernelAddress(ofMutable: &bytes) { socket_read(descriptor, $0, 65536) }
        guard count >= 0 else { throw failure("read from", count) }
        return Array(bytes.prefix(Int(count)))
    }

    func write(_ bytes: [UInt8]) throws(OwnerError) {
        let result = withKernelAddress(of: bytes) { socket_write(descriptor, $0, UInt64(bytes.count)) }
        guard result == 0 else { throw failure("write to", Int64(result)) }
    }

    private func failure(_ what: String, _ result: Int64) -> OwnerError {
        OwnerError(
            .connection, attempt: "\(what) the VMM", subject: "the connection", expected: "a connection",
            found: "\(Errno(rawValue: Int32(truncatingIfNeeded: -result)))",
            likelyCause: "the VMM stopped, or was silent for too long (10 seconds before its hello, 10 minutes after)",
            nextStep: "look at the VMM's output, and start the launch again")
    }
}
