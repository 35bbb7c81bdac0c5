// `owner serve` for SNP guests: they run already, show reports, and get secrets encrypted to their own keys.

import ArgumentParser
import Attestation
import CProcess
import Crypto
import GuestOwner
import KVMABI
import LaunchMeasurement
import OwnerServer
import SEVABI
import SNPVMM
import SecretRelease
import Synchronization

/// Where SNP guests reach their owner, and what they must show.
struct ReleaseOptions: ParsableArguments {
    @Option(
        help: ArgumentHelp(
            "SNP: waits for guests that connect to CID 2: the socket PATH_PORT of `run --vsock CID,PATH` (port 999 unless "
                + "given), or port:N on a host with vhost-vsock. May be repeated.", valueName: "PATH[:PORT]"))
    var vsock: [String] = []
    @Option(help: ArgumentHelp("SNP: waits at a unix socket. May be repeated.", valueName: "path"))
    var unix: [String] = []
    @Option(
        help: ArgumentHelp(
            "SNP: waits for HTTP at a numeric address, such as 127.0.0.1:8080. May be repeated.",
            valueName: "address:port"))
    var http: [String] = []
    @Option(
        name: .customLong("report-policy"),
        help: ArgumentHelp("SNP: what a report must say, JSON, as for `verify --policy`.", valueName: "file"))
    var reportPolicy: String?
    @Option(
        name: .customLong("trusted-root"),
        help: ArgumentHelp(
            "SNP: a root that you trust beside AMD's: the ARK of a software platform, for tests. May be repeated.",
            valueName: "file"))
    var trustedRoots: [String] = []
    @Option(
        name: .customLong("audit-log"),
        help: ArgumentHelp(
            "SNP: a file that every decision is appended to as a line of JSON, on the disk before the answer leaves.",
            valueName: "file"))
    var auditLog: String?

    static let defaultPort: UInt32 = 999

    /// Some guest can come.
    var hasEndpoint: Bool { !(vsock.isEmpty && unix.isEmpty && http.isEmpty) }

    /// An option that only SNP's form has.
    var isUsed: Bool { hasEndpoint || reportPolicy != nil || !trustedRoots.isEmpty || auditLog != nil }

    /// The places, not yet waited at.
    enum Place {
        case socket(path: String, name: String)
        case other(OwnerEndpoint)
    }

    func places() throws(CommandFailure) -> [Place] {
        var places: [Place] = []
        for text in vsock { places.append(try Self.vsockPlace(text)) }
        for path in unix { places.append(.socket(path: path, name: "unix \(path)")) }
        for text in http { places.append(.other(try Self.webPlace(text))) }
        return places
    }

    private static func vsockPlace(_ text: String) throws(CommandFailure) -> Place {
        let parts = text.split(separator: ":", omittingEmptySubsequences: false).map(String.init)
        func port(_ text: String) throws(CommandFailure) -> UInt32 {
            // The highest number means any port [vsock(7) VMADDR_PORT_ANY].
            guard let port = UInt32(text), port < .max, !text.hasPrefix("+") else {
                throw .usage("--vsock: \(text) is no port; expected a number below 4294967295")
            }
            return port
        }
        if parts.count == 2, parts[0] == "port" { return .other(.vsock(port: try port(parts[1]))) }
        guard (1...2).contains(parts.count), !parts[0].isEmpty else {
            throw .usage("--vsock \(text): expected PATH, PATH:PORT or port:N")
        }
        let path = "\(parts[0])_\(try parts.count == 2 ? port(parts[1]) : defaultPort)"
        return .socket(path: path, name: "vsock \(path)")
    }

    private static func webPlace(_ text: String) throws(CommandFailure) -> OwnerEndpoint {
        guard let colon = text.lastIndex(of: ":"), let port = UInt16(text[text.index(after: colon)...]) else {
            throw .usage("--http \(text): expected a numeric address and a port, such as 127.0.0.1:8080 or [::1]:8080")
        }
        var address = text[..<colon]
        if address.hasPrefix("["), address.hasSuffix("]") { address = address.dropFirst().dropLast() }
        return .http(address: String(address), port: Int(port))
    }
}

/// The log of an owner: durable lines, or nothing is released.
private final class AuditLog: Sendable {
    private let descriptor: Int32
    private let path: String
    private let lock = Mutex(false)

    init(path: String) throws(CommandFailure) {
        self.path = path
        descriptor = withKernelAddress(of: Array(path.utf8) + [0]) { log_open($0) }
        guard descriptor >= 0 else {
            throw CommandFailure(
                status: .badInput,
                message:
                    "could not open the audit log \(path): \(Errno(rawValue: -descriptor)). Likely cause: a missing folder "
                    + "or permission. Next step: choose another path.")
        }
    }

    deinit { if descriptor >= 0 { file_close(descriptor) } }

    /// False when the line is not on the disk.
    func append(_ line: String) -> Bool {
        lock.withLock { hasComplained in
            let bytes = Array(line.utf8) + [0x0a]
            let result = withKernelAddress(of: bytes) { log_append(descriptor, $0, UInt64(bytes.count)) }
            if result < 0, !hasComplained {
                hasComplained = true
                StandardError.write(
                    line:
                        "swift-snp-vmm: could not write the audit log \(path): \(Errno(rawValue: -result)). Nothing is "
                        + "released until it can be written.")
            }
            if result >= 0 { hasComplained = false }
            return result >= 0
        }
    }
}

extension Owner.Serve {
    /// Serves SNP guests until so many secrets were released or refused.
    func serveReleases() throws {
        let policy = try releasePolicy()
        try policy.validate()
        let places = try releases.places()
        let log = try releases.auditLog.map { (path) throws(CommandFailure) in try AuditLog(path: path) }
        let wanted = once ? 1 : launches
        let decisions = SharedCount()
        let start = ContinuousClock.now
        let service = ReleaseService(
            policy: policy,
            clock: .init(
                wallSeconds: { process_wall_clock() },
                milliseconds: {
                    let (seconds, attoseconds) = (ContinuousClock.now - start).components
                    return seconds &* 1000 &+ attoseconds / 1_000_000_000_000_000
                })
        ) { record in
            if let log, !log.append(record.line) { return false }
            StandardOutput.write(line: record.sentence)
            if record.decision == .release || record.decision == .refuse { decisions.add() }
            return true
        }
        let server = OwnerServer(service: service) { wanted.map { decisions.value >= $0 } ?? false }
        // Held until the server has stopped: their names go with them.
        var listeners: [SocketListener] = []
        for place in places {
            let endpoint: OwnerEndpoint
            switch place {
            case .socket(let path, let name):
                let listener = try SocketListener(path: path)
                endpoint = .stream(descriptor: listener.takeDescriptor(), name: name)
                listeners.append(listener)
            case .other(let other): endpoint = other
            }
            do throws(OwnerServerError) {
                StandardOutput.write(line: "waiting at \(try server.listen(at: endpoint))")
            } catch {
                throw CommandFailure(
                    status: .hostCannot,
                    message:
                        "\(error). Likely cause: an address or port in use or not of this machine, or a missing device. "
                        + "Next step: choose another one.")
            }
        }
        let names = policy.secrets.keys.map(\.text).sorted().joined(separator: ", ")
        let digests = policy.report.measurements?.map { hexText($0) }.joined(separator: ", ")
        StandardOutput.write(
            line: "secrets \(names.isEmpty ? "none" : names) for guests with measurement \(digests ?? "ANY")")
        server.waitUntilStopped()
        withExtendedLifetime(listeners) {}
    }

    private func releasePolicy() throws -> ReleasePolicy {
        let guest = launch.guest
        guard guest.confidential == .snp || guest.chosenConfidentiality == nil else {
            throw CommandFailure.usage(
                "--confidential \(guest.confidential.rawValue): --vsock, --unix and --http are for SNP guests; others have "
                    + "--socket")
        }
        guard guest.idBlock == nil else {
            throw CommandFailure.usage("--id-block: name the key's digest in the report policy (idKeyDigest) instead.")
        }
        var report = ReportPolicy()
        var namesMeasurement = false
        if let path = releases.reportPolicy {
            let text = try InputFile(path: path).read(as: "the report policy")
            report = try ReportPolicy(json: text)
            namesMeasurement = report.measurements.map { !$0.isEmpty } ?? true
        }
        if guest.namesImage || launch.launchDigest != nil {
            guard !namesMeasurement else {
                throw CommandFailure.usage(
                    "--report-policy has a measurement, and the image or --launch-digest is another: give one of them.")
            }
            report.measurements = [try launch.releaseDigest()]
        }
        if let text = guest.policy {
            report.exactGuestPolicy = GuestPolicy(rawValue: try OptionValue.number(text, "--policy"))
        }
        if let text = guest.hostData {
            report.hostData = [try OptionValue.bytes(text, "--host-data", byteCount: 32)]
        }
        if report.minimumTCB == nil {
            StandardError.write(
                line: "warning: no minimumTCB in a report policy: firmware of any age is accepted.")
        }
        let roots = try TrustedRoots(paths: releases.trustedRoots)
        if !roots.named.isEmpty {
            StandardError.write(
                line:
                    "warning: \(roots.named.map { "\($0.subject)" }.joined(separator: ", ")) trusted because you named "
                    + "it. Nothing protects the guests of a software platform: give them no real secrets.")
        }
        var pool = CertificatePool()
        if let certificates { try pool.add(path: certificates) }
        return ReleasePolicy(
            report: report, trustedRoots: roots, certificates: pool, secrets: try secrets.named())
    }
}

/// Decisions so far.
private final class SharedCount: Sendable {
    private let count = Atomic<Int>(0)
    var value: Int { count.load(ordering: .acquiring) }
    func add() { count.add(1, ordering: .acquiringAndReleasing) }
}

extension ReleaseRecord {
    /// One line for people.
    fileprivate var sentence: String {
        let what = secret.map { " \($0)" } ?? ""
        let who = report.map { ", measurement \(hexText(Array($0.measurement.prefix(8))))…" } ?? ""
        switch decision {
        case .release: return "released\(what) to \(peer)\(who)"
        case .accept: return "accepted \(peer)\(who)"
        case .refuse: return "refused\(what) to \(peer)\(who): \(reason): \(causes.first ?? "")"
        case .none: return "nothing for \(peer): \(reason)"
        }
    }
}

extension ExpectedLaunchOptions {
    /// The launch digest of an SNP guest: given, or of the image with these options.
    fileprivate func releaseDigest() throws -> [UInt8] {
        if let launchDigest {
            guard !guest.namesImage else {
                throw CommandFailure.usage("--launch-digest and an image exclude each other.")
            }
            return try OptionValue.bytes(launchDigest, "--launch-digest", byteCount: 48)
        }
        var options = self
        options.guest.chosenConfidentiality = .snp
        return MeasuredLaunch(of: try options.launchPlan()).digestBytes
    }
}

extension SecretOptions {
    /// Secrets of an SNP guest, by name.
    fileprivate func named() throws -> [SecretID: SecretBytes] {
        var result: [SecretID: SecretBytes] = [:]
        for text in secrets {
            let parts = text.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
            guard parts.count == 2, let id = SecretID(String(parts[0])) else {
                throw CommandFailure.usage(
                    "--secret \(parts[0]): expected NAME=file, where a name has 1 to 255 letters, digits, dots, "
                        + "underscores, hyphens and slashes")
            }
            guard result[id] == nil else { throw CommandFailure.usage("--secret \(id): given twice") }
            var bytes = try InputFile(path: String(parts[1])).read(as: "the secret \(id)")
            result[id] = SecretBytes(taking: &bytes)
        }
        return result
    }
}
