// The commands. Everything that is not this process is behind ``AgentMachine``.

import ABILayout
import Crypto
import KVMABI
import SEVABI
import SecretRelease

/// The machine that the agent runs on.
public protocol AgentMachine {
    /// The firmware, by way of the kernel.
    func driver() throws(AgentError) -> any SEVGuestDriver
    func connect(to owner: OwnerAddress) throws(AgentError) -> any OwnerStream
    /// Writes a file that only this user can read, as a whole.
    func write(_ bytes: [UInt8], to path: String) throws(AgentError)
    /// Runs a program with these bytes on its standard input. Returns its exit status.
    func run(_ program: [String], input: [UInt8]) throws(AgentError) -> Int32
    /// Text for the standard output.
    func say(_ text: String)
}

/// The agent.
public struct Agent {
    /// Labels of what is printed.
    public static let reportLabel = "SEV-SNP ATTESTATION REPORT"
    public static let certificatesLabel = "SEV-SNP CERTIFICATE TABLE"

    private let machine: any AgentMachine

    public init(on machine: any AgentMachine) { self.machine = machine }

    /// Does what is asked. Returns the exit status: 0, or that of the program that got a secret.
    public func run(_ command: AgentCommand) throws(AgentError) -> Int32 {
        switch command {
        case .help:
            machine.say(AgentCommand.usage + "\n")
            return 0
        case .report(let request, let output):
            let report = try SEVGuest(machine.driver()).report(request)
            try show(report, as: Self.reportLabel, output)
            return 0
        case .extendedReport(let request, let output, let certificatesOutput):
            let (report, certificates) = try SEVGuest(machine.driver()).extendedReport(request)
            try show(report, as: Self.reportLabel, output)
            if output == nil || certificatesOutput != nil {
                try show(certificates, as: Self.certificatesLabel, certificatesOutput)
            }
            return 0
        case .deriveKey(let request, let sink):
            return try hand(SEVGuest(machine.driver()).derivedKey(request), "derived key", to: sink)
        case .getSecret(let id, let owner, let expectedDigest, let sink):
            guard let name = SecretID(id) else {
                throw AgentCommand.wrong(
                    "--id \(id) is no name: 1 to 255 letters, digits, dots, underscores, hyphens and slashes")
            }
            let secret = try retrieve(name, from: owner)
            if let expectedDigest, Self.digest(secret) != expectedDigest {
                throw AgentError(
                    .refused, attempt: "get the secret \(name)", subject: "\(owner)",
                    found: "a secret with the SHA-256 \(hexadecimalText(Self.digest(secret)))",
                    likelyCause: "the host answers in the owner's place, or the owner has a new secret",
                    nextStep: "ask the owner; the secret was thrown away")
            }
            return try hand(secret, "secret \(name)", to: sink)
        }
    }

    /// The exchange with the owner.
    private func retrieve(_ name: SecretID, from owner: OwnerAddress) throws(AgentError) -> SecretBytes {
        // First what costs the owner nothing.
        let guest = try SEVGuest(machine.driver())
        let stream = try machine.connect(to: owner)
        var request = SecretRequest(id: name)
        try stream.write(request.start())
        var pending: [UInt8] = []
        while true {
            let step: SecretRequest.Step
            do throws(SecretReleaseError) {
                step = try request.receive(pending)
            } catch {
                throw AgentError(
                    .refused, attempt: error.attempt, subject: "\(owner), \(error.subject)",
                    found: "\(error.found), expected \(error.expected)", likelyCause: error.likelyCause,
                    nextStep: error.nextStep)
            }
            switch step {
            case .needsMore:
                pending = try stream.read()
                guard !pending.isEmpty else {
                    throw AgentError(
                        .unavailable, attempt: "get the secret \(name)", subject: "\(owner)",
                        found: "the end of the connection", likelyCause: "the owner or the host ended it",
                        nextStep: "look at the owner's log")
                }
            case .needsReport(let reportData):
                let (report, certificates) = try guest.extendedReport(ReportRequest(reportData: reportData))
                let evidence: [UInt8]
                do throws(SecretReleaseError) {
                    evidence = try request.evidence(report: report, certificates: certificates)
                } catch {
                    throw AgentError(
                        .refused, attempt: error.attempt, subject: error.subject,
                        found: "\(error.found), expected \(error.expected)", likelyCause: error.likelyCause,
                        nextStep: error.nextStep)
                }
                try stream.write(evidence)
                pending = []
            case .secret(let secret):
                return secret
            case .refused(let refusal):
                throw AgentError(
                    .refused, attempt: "get the secret \(name)", subject: "\(owner)", found: "refused, \(refusal)",
                    likelyCause: "this guest, its platform or its certificates are not what the owner's policy wants",
                    nextStep: "look at the owner's log, which has the details")
            }
        }
    }

    private static func digest(_ secret: SecretBytes) -> [UInt8] {
        let digest = secret.withBytes { SHA256.hash($0) }
        return digest.indices.map { digest[$0] }
    }

    private func hand(_ secret: SecretBytes, _ name: String, to sink: SecretSink) throws(AgentError) -> Int32 {
        switch sink {
        case .digest:
            machine.say("\(name): \(secret.count) bytes, sha256 \(hexadecimalText(Self.digest(secret)))\n")
            return 0
        case .file(let path):
            try secret.withBytes { (bytes) throws(AgentError) in try machine.write(bytes, to: path) }
            return 0
        case .program(let program):
            return try secret.withBytes { (bytes) throws(AgentError) in try machine.run(program, input: bytes) }
        }
    }

    private func show(_ bytes: [UInt8], as label: String, _ path: String?) throws(AgentError) {
        if let path {
            try machine.write(bytes, to: path)
        } else {
            machine.say(PEM.text(PEM.Block(label: label, bytes: bytes)))
        }
    }
}
