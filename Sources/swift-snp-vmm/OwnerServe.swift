// `owner serve`: an owner who waits. For VMMs that launch SEV and SEV-ES guests behind a socket (this file); for SNP guests
// that run already at sockets, vsock and HTTP (OwnerServe+Release.swift).

import ArgumentParser
import CProcess
import GuestOwner
import KVMABI
import SEVABI
import SNPVMM

extension Owner {
    struct Serve: ParsableCommand {
        static let configuration = CommandConfiguration(
            commandName: "serve",
            abstract: "Waits for launches of one image, or for its SNP guests, and releases secrets to the right ones.",
            discussion: """
                SEV and SEV-ES: the VMM connects to --socket before and while it launches; one launch at a time. SNP: the \
                running guest itself connects, by --vsock, --unix or --http, shows an attestation report, and gets the secret \
                that it names, encrypted to its own key; any number at once. Every decision is a line on standard output; \
                nothing secret is in one.

                Example: swift-snp-vmm owner serve guest.img --confidential sev-es --socket owner.socket --certs certs \
                --ark certs/ark.cert --ask certs/ask.cert --secret disk-passphrase=key.bin --launches 1
                Example: swift-snp-vmm owner serve guest.img --vsock guest.vsock --report-policy policy.json \
                --secret disk=key.bin --audit-log audit.jsonl
                """)

        @OptionGroup var launch: ExpectedLaunchOptions
        @OptionGroup var roots: PlatformCertificateOptions
        @OptionGroup var secrets: SecretOptions
        @Option(
            name: .customLong("certs"),
            help: ArgumentHelp(
                "A folder with ark.cert, ask.cert and the signed cek.cert, for what --ark, --ask and --cek do not name. "
                    + "SNP: your own certificates and revocation lists, used beside what a guest sends.",
                valueName: "folder"))
        var certificates: String?
        @Option(help: ArgumentHelp("SEV and SEV-ES: where to wait for VMMs.", valueName: "path"))
        var socket: String?
        @OptionGroup var releases: ReleaseOptions
        @Option(
            help: ArgumentHelp(
                "Ends after so many launches, or secrets of SNP guests, released or refused. (default: never)",
                valueName: "n"))
        var launches: Int?
        @Flag(help: "Ends after the first; the same as --launches 1.")
        var once = false

        func validate() throws {
            if let launches, launches < 1 { throw ValidationError("--launches \(launches): expected at least 1.") }
            if once, launches != nil { throw ValidationError("--once and --launches exclude each other.") }
            switch (socket, releases.hasEndpoint) {
            case (nil, false):
                throw ValidationError(
                    "Give --socket for launches of SEV and SEV-ES guests, or --vsock, --unix or --http for SNP guests.")
            case (.some, _) where releases.isUsed:
                throw ValidationError(
                    "--socket is for SEV and SEV-ES; --vsock, --unix, --http, --report-policy, --trusted-root and "
                        + "--audit-log are for SNP.")
            case (nil, _) where roots.ark ?? roots.ask ?? roots.cek != nil:
                throw ValidationError(
                    "--ark, --ask and --cek are for SEV and SEV-ES; SNP has --trusted-root and --certs.")
            default: break
            }
        }

        func run() throws {
            process_forbid_dumps()
            guard let socket else { return try serveReleases() }
            try serveLaunches(at: socket)
        }

        private func serveLaunches(at socket: String) throws {
            let launches = once ? 1 : launches
            var roots = roots
            if roots.cek == nil, let certificates, InputFile(path: certificates + "/cek.cert").exists {
                roots.cek = certificates + "/cek.cert"
            }
            let options = try launch.settled()
            let expected = try options.launch()
            let offer = OwnerOffer(
                launch: expected, policy: try options.policy(), verifier: try roots.verifier(folder: certificates),
                secrets: try secrets.entries(),
                secretAreaByteCount: expected.hasPlan ? expected.secretArea?.byteCount ?? 0 : 4096,
                moreAlternatives: { options.alternatives() })
            try offer.validate()
            let listener = try SocketListener(path: socket)
            StandardOutput.write(
                line:
                    "waiting at \(socket) for launches with digest \(hexText(expected.digest)) and policy \(offer.policy)"
            )
            var count = 0
            while launches.map({ count < $0 }) ?? true {
                if Self.serve(try listener.next(), offer, number: count + 1) { count += 1 }
            }
        }

        /// Serves one connection. Returns false for one that brought nothing: somebody only looked whether we are here.
        private static func serve(_ line: SocketConnection, _ offer: OwnerOffer, number: Int) -> Bool {
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
                        line.setPatience(SocketConnection.launchMilliseconds)
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
