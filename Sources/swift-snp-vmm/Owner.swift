// `owner`: the guest owner's side of a SEV or SEV-ES launch. Needs no KVM and no SEV machine.

import ArgumentParser
import CProcess
import Crypto
import GuestImage
import GuestOwner
import LaunchMeasurement
import SEVABI
import SNPVMM

struct Owner: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "owner",
        abstract: "Is the guest owner: verifies platforms and reports, checks measurements, releases secrets.",
        discussion: """
            By files, in this order: `platform export-certs` on the host; `owner session` here; `run --session …` on the \
            host, which stops when the guest is measured; `owner check` and `owner secret` here. Or all of it over a socket: \
            `owner serve` here, `run --owner …` there.

            That is for SEV and SEV-ES. An SEV-SNP guest shows an attestation report to its owner when it runs: \
            `owner serve --vsock`, `--unix` or `--http` waits for it.
            """,
        subcommands: [Session.self, Expect.self, Check.self, Secret.self, Serve.self])
}

// MARK: Options

/// Which platform certificates, and whose root.
struct PlatformCertificateOptions: ParsableArguments {
    @Option(
        help: ArgumentHelp(
            "The root that you accept: AMD's ARK of the product, or its file with ASK and ARK. Needed unless the root is "
                + "built in (Naples).", valueName: "file"))
    var ark: String?
    @Option(help: ArgumentHelp("AMD's signing key of the product.", valueName: "file"))
    var ask: String?
    @Option(
        help: ArgumentHelp(
            "The chip's certificate as AMD signed it, when the platform's own is unsigned.", valueName: "file"))
    var cek: String?

    func validate() throws {
        if ask != nil, ark == nil { throw ValidationError("--ask goes with --ark.") }
    }

    /// - Parameter folder: Where ark.cert and ask.cert lie when the options name none. They are accepted only if AMD's root
    ///   is built in: a folder that comes from the platform cannot vouch for it.
    func verifier(folder: String?) throws -> PlatformVerifier {
        let signed = try cek.map { try InputFile(path: $0).read(as: "the signed CEK") }
        if let ark {
            let roots = try RootCertificates(
                ark: InputFile(path: ark).read(as: "the ARK"),
                ask: ask.map { try InputFile(path: $0).read(as: "the ASK") }, isNamed: true)
            return PlatformVerifier(roots: roots, signedCEK: signed)
        }
        guard let folder, InputFile(path: folder + "/ark.cert").exists, InputFile(path: folder + "/ask.cert").exists
        else {
            let missing = folder.map { "There is no ark.cert with an ask.cert in \($0). " } ?? ""
            throw CommandFailure.usage(
                missing
                    + "Give --ark and --ask: the manufacturer's certificates of the platform's product (AMD publishes them)."
            )
        }
        let roots = try RootCertificates(
            ark: InputFile(path: folder + "/ark.cert").read(as: "the ARK"),
            ask: InputFile(path: folder + "/ask.cert").read(as: "the ASK"), isNamed: false)
        return PlatformVerifier(roots: roots, signedCEK: signed)
    }
}

/// The launch that the owner wants: an image, or a digest that was computed before.
struct ExpectedLaunchOptions: ParsableArguments {
    @OptionGroup var guest: GuestOptions
    @Option(
        name: .customLong("vmm-profile"),
        help: ArgumentHelp(
            "Whose VMSA conventions a firmware image is measured with: qemu, ec2 or gce.", valueName: "name"))
    var profile = "qemu"
    @Option(
        name: .customLong("launch-digest"),
        help: ArgumentHelp(
            "Instead of an image: what `measure` printed, 64 hex digits (SNP: 96).", valueName: "hex"))
    var launchDigest: String?

    /// These options with nothing left open: without `--confidential` the guest is what the session is for, else SEV-ES.
    ///
    /// - Parameter session: The session of the launch, whose policy nobody can change any more.
    func settled(for session: OwnerSession? = nil) throws -> ExpectedLaunchOptions {
        var options = self
        let isES = session?.policy.requiresEncryptedState ?? true
        options.guest.chosenConfidentiality = guest.chosenConfidentiality ?? (isES ? .sevES : .sev)
        _ = try options.technology()
        let policy = try options.policy()
        if let session, guest.policy != nil, policy != session.policy {
            throw CommandFailure.usage(
                "--policy \(policy): the session was made for \(session.policy). Leave --policy out, or make a session for it."
            )
        }
        return options
    }

    /// SEV or SEV-ES.
    func technology() throws(CommandFailure) -> GuestTechnology { try guest.confidential.ownersTechnology() }

    func launch() throws -> ExpectedLaunch {
        let technology = try technology()
        if let launchDigest {
            guard !guest.namesImage else {
                throw CommandFailure.usage("--launch-digest and an image exclude each other.")
            }
            return try ExpectedLaunch(
                technology: technology, digest: OptionValue.bytes(launchDigest, "--launch-digest", byteCount: 32))
        }
        return try ExpectedLaunch(plan(guest))
    }

    /// The same image for other numbers of processors: a host may have launched one of those.
    func alternatives() -> [ExpectedLaunch.Alternative] {
        guard launchDigest == nil else { return [] }
        return (1...16).filter { $0 != guest.cpus }.compactMap { count in
            var other = guest
            other.cpus = count
            guard let launch = try? ExpectedLaunch(plan(other)) else { return nil }
            return .init(label: "\(count) vCPU\(count == 1 ? "" : "s") instead of \(guest.cpus)", digest: launch.digest)
        }
    }

    /// Policy of the guest: the one asked for, else the one `run` would take.
    func policy() throws -> SEVPolicy {
        _ = try technology()
        // Safe: machine() refuses a policy of more than 32 bits for SEV.
        return SEVPolicy(rawValue: UInt32(truncatingIfNeeded: try guest.machine().policy))
    }

    /// The plan of these options.
    func launchPlan() throws -> LaunchPlan { try plan(guest) }

    private func plan(_ guest: GuestOptions) throws -> LaunchPlan {
        guard let profile = VMMProfile(rawValue: profile.lowercased()) else {
            let names = VMMProfile.allCases.map(\.rawValue).joined(separator: ", ")
            throw CommandFailure.usage("--vmm-profile \(profile): expected one of \(names)")
        }
        return try GuestSource(guest).measurablePlan(on: guest.machine(), profile: profile)
    }
}

/// The owner's stored session, and what the platform has answered.
struct MeasuredSessionOptions: ParsableArguments {
    @Option(help: ArgumentHelp("The owner's state: owner.state of `owner session`.", valueName: "file"))
    var state: String
    @Option(help: ArgumentHelp("What `run --measurement-out` wrote: 48 bytes.", valueName: "file"))
    var measurement: String
    @Option(
        name: .customLong("firmware-version"),
        help: ArgumentHelp(
            "The platform's firmware, as `run` and `platform show` print it.", valueName: "major.minor.build"))
    var firmware: String

    func session() throws -> OwnerSession { try OwnerSession(path: state) }

    /// The files that are read, each with its name in messages.
    var inputs: [NamedPath] {
        [NamedPath("--state", state), NamedPath("--measurement", measurement)].compactMap(\.self)
    }

    /// What the VMM says; its policy is the session's, for the firmware takes no other with this session.
    func received(_ session: OwnerSession) throws -> OwnerMeasurement {
        let bytes = try InputFile(path: measurement).read(as: "the measurement", byteCount: SEVMeasurement.byteCount)
        // Safe: the length has been checked, which is all this needs.
        return OwnerMeasurement(
            firmware: try OptionValue.firmwareVersion(firmware), policy: session.policy,
            measurement: SEVMeasurement(bytes: bytes)!)
    }
}

/// Secrets from files.
struct SecretOptions: ParsableArguments {
    @Option(
        name: .customLong("secret"), parsing: .singleValue,
        help: ArgumentHelp(
            "An entry of the secret table: its GUID (or disk-passphrase) and the file with its bytes; for SNP guests any name. "
                + "May be given more than once.",
            valueName: "GUID=file"))
    var secrets: [String] = []

    /// The files that are read, each with its name in messages.
    var inputs: [NamedPath] {
        secrets.compactMap { text in
            NamedPath("--secret", text.firstIndex(of: "=").map { String(text[text.index(after: $0)...]) })
        }
    }

    func entries() throws -> [OwnerOffer.Secret] {
        var seen: Set<GUID> = []
        return try secrets.map { text in
            let parts = text.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
            let name = String(parts[0])
            guard parts.count == 2,
                let guid = name == "disk-passphrase" ? SecretTable.diskPassphrase : GUID(text: name)
            else {
                throw CommandFailure.usage(
                    "--secret \(name): expected GUID=file, for example \(SecretTable.diskPassphrase)=key.bin, or "
                        + "disk-passphrase=key.bin")
            }
            guard seen.insert(guid).inserted else {
                throw CommandFailure.usage("--secret \(name): given twice; a guest would find the first of them only")
            }
            var bytes = try InputFile(path: String(parts[1])).read(as: "the secret \(guid)")
            guard !bytes.isEmpty, bytes.count <= 4096 else {
                throw CommandFailure(
                    status: .badInput,
                    message:
                        "could not use \(parts[1]) as a secret: \(bytes.count) bytes, expected 1 to 4096. Likely cause: "
                        + "another file in its place. Next step: release a key instead of what it opens.")
            }
            return OwnerOffer.Secret(guid: guid, data: SecretBytes(taking: &bytes))
        }
    }
}

extension Confidentiality {
    /// The technologies that have a session and a measurement.
    func ownersTechnology() throws(CommandFailure) -> GuestTechnology {
        switch technology {
        case .sev: return .sev
        case .sevES: return .sevES
        case .snp, nil:
            throw .usage(
                "--confidential \(rawValue): the owner's commands are for sev and sev-es. "
                    + (technology == nil
                        ? "Nobody measures a plain guest."
                        : "An SEV-SNP guest shows an attestation report instead of a measurement."))
        }
    }
}

extension OptionValue {
    /// "1.55.29".
    static func firmwareVersion(_ text: String) throws(CommandFailure) -> FirmwareVersion {
        let parts = text.split(separator: ".", omittingEmptySubsequences: false).map { UInt8($0) }
        guard parts.count == 3, let major = parts[0], let minor = parts[1], let build = parts[2], !text.contains("+")
        else {
            throw .usage("--firmware-version \(text): expected major.minor.build, for example 1.55.29")
        }
        return FirmwareVersion(apiMajor: major, apiMinor: minor, build: build)
    }
}

extension OwnerSession {
    /// Reads the owner's state.
    init(path: String) throws {
        var bytes = try InputFile(path: path).read(as: "the owner's state")
        defer { wipe(&bytes) }
        try self.init(stored: bytes)
    }
}

extension OwnerError {
    /// What a command ends with: 5 for what an owner refuses, 3 for input that is none.
    var exitStatus: VMMExitStatus {
        switch category {
        case .certificate, .policy, .technology, .measurement: .launchRefused
        default: .badInput
        }
    }
}

// MARK: Commands

extension Owner {
    struct Session: ParsableCommand {
        static let configuration = CommandConfiguration(
            commandName: "session", abstract: "Verifies a platform and makes a session for one launch on it.",
            discussion: """
                Reads pdh.cert and chain.cert (or pek.cert, oca.cert and cek.cert) of `platform export-certs`. Writes \
                godh.cert and session.bin for `run`, and owner.state for you alone: it has the keys of the launch.

                Example: swift-snp-vmm owner session certs --ark ark.cert --ask ask.cert --confidential sev-es --out launch
                """)

        @Argument(help: "The folder with the platform's certificates.")
        var certificates: String
        @OptionGroup var roots: PlatformCertificateOptions
        @Option(help: "The guest: sev or sev-es; says which policy is the default.")
        var confidential = Confidentiality.sevES
        @Option(help: ArgumentHelp("The guest policy. (default: 0x7 for sev-es, 0x3 for sev)", valueName: "number"))
        var policy: String?
        @Option(help: ArgumentHelp("The folder for what is made.", valueName: "folder"))
        var out: String

        func run() throws {
            process_forbid_dumps()
            let technology = try confidential.ownersTechnology()
            let number =
                try policy.map { (text) throws(CommandFailure) in try OptionValue.number(text, "--policy") }
                ?? MachineDescription.defaultPolicy(for: technology)
            guard let bits = UInt32(exactly: number) else {
                throw CommandFailure.usage("--policy \(policy ?? ""): the policy of a SEV guest has 32 bits")
            }
            let policy = SEVPolicy(rawValue: bits)
            guard policy.requiresEncryptedState == (technology == .sevES) else {
                throw CommandFailure.usage(
                    "--policy \(policy): bit 2 (ES) must be \(technology == .sevES ? 1 : 0) for \(technology.displayName)"
                )
            }
            let platform = try roots.verifier(folder: certificates).verify(PlatformFiles.read(certificates))
            for warning in platform.warnings { StandardError.write(line: "warning: \(warning).") }
            let out = out.count > 1 && out.hasSuffix("/") ? String(out.dropLast()) : out
            guard !InputFile(path: out + "/owner.state").exists else {
                throw CommandFailure(
                    status: .badInput,
                    message:
                        "could not make a session in \(out): owner.state is there already, with the keys of another "
                        + "launch. Next step: give another --out, or remove that file if its launch is over.")
            }
            let session = try OwnerSession(for: platform, policy: policy)
            var state = session.storedBytes()
            defer { wipe(&state) }
            let folder = try OutputFolder(out)
            try folder.write("owner.state", state)
            try folder.write("godh.cert", session.launch.ownerCertificate)
            try folder.write("session.bin", session.launch.session)
            print(
                """
                platform:  \(platform.rootDescription), chip \(platform.chipFingerprint.prefix(16)), owner \
                \(platform.ownerFingerprint.prefix(16))
                policy:    \(policy)
                wrote \(out)/godh.cert and \(out)/session.bin for the VMM:
                  run … --confidential \(confidential.rawValue) --policy 0x\(String(policy.rawValue, radix: 16)) \
                --owner-cert \(out)/godh.cert --session \(out)/session.bin
                wrote \(out)/owner.state: keep it to yourself
                """)
        }
    }

    struct Expect: ParsableCommand {
        static let configuration = CommandConfiguration(
            commandName: "expect",
            abstract: "Prints the launch digest of an image, or the measurement that a launch of it must have.",
            discussion: """
                The measurement needs the session's keys and the nonce that the firmware chose: --state, --nonce and \
                --firmware-version.

                Example: swift-snp-vmm owner expect guest.img --confidential sev-es
                Example: swift-snp-vmm owner expect guest.img --confidential sev-es --state launch/owner.state --nonce 4f… \
                --firmware-version 1.55.29
                """)

        @OptionGroup var launch: ExpectedLaunchOptions
        @Option(help: ArgumentHelp("The owner's state: owner.state of `owner session`.", valueName: "file"))
        var state: String?
        @Option(help: ArgumentHelp("MNONCE: the last 16 of the measurement's 48 bytes.", valueName: "hex"))
        var nonce: String?
        @Option(
            name: .customLong("firmware-version"),
            help: ArgumentHelp("The platform's firmware.", valueName: "major.minor.build"))
        var firmware: String?

        func validate() throws {
            let given = [state, nonce, firmware].filter { $0 != nil }.count
            guard given == 0 || given == 3 else {
                throw ValidationError("--state, --nonce and --firmware-version go together.")
            }
        }

        func run() throws {
            process_forbid_dumps()
            guard let state, let nonce, let firmware else {
                print(hexText(try launch.settled().launch().digest))
                return
            }
            let session = try OwnerSession(path: state)
            let measurement = try session.expectedMeasurement(
                of: launch.settled(for: session).launch(), firmware: OptionValue.firmwareVersion(firmware),
                nonce: OptionValue.bytes(nonce, "--nonce", byteCount: 16))
            print(hexText(measurement.bytes))
        }
    }

    struct Check: ParsableCommand {
        static let configuration = CommandConfiguration(
            commandName: "check", abstract: "Compares a measurement with the launch that you want.",
            discussion: """
                Ends with 0 when it is the expected one, and with 5 and what is known about the difference when it is not.

                Example: swift-snp-vmm owner check guest.img --confidential sev-es --state launch/owner.state \
                --measurement measurement.bin --firmware-version 1.55.29
                """)

        @OptionGroup var launch: ExpectedLaunchOptions
        @OptionGroup var measured: MeasuredSessionOptions

        func run() throws {
            process_forbid_dumps()
            let session = try measured.session()
            let launch = try launch.settled(for: session)
            let expected = try launch.launch()
            try session.check(try measured.received(session), against: expected) { launch.alternatives() }
            print(
                "the measurement is the expected one: launch digest \(hexText(expected.digest)), policy \(session.policy)"
            )
        }
    }

    struct Secret: ParsableCommand {
        static let configuration = CommandConfiguration(
            commandName: "secret",
            abstract: "Checks a measurement and makes the packet that releases your secrets to that guest.",
            discussion: """
                The packet opens in the launch that was measured and nowhere else. `run --secret` waits for its file.

                Example: swift-snp-vmm owner secret guest.img --confidential sev-es --state launch/owner.state \
                --measurement measurement.bin --firmware-version 1.55.29 --secret disk-passphrase=key.bin --out packet.bin
                """)

        @OptionGroup var launch: ExpectedLaunchOptions
        @OptionGroup var measured: MeasuredSessionOptions
        @OptionGroup var secrets: SecretOptions
        @Option(help: ArgumentHelp("Where the packet goes.", valueName: "file"))
        var out: String

        func validate() throws {
            if secrets.secrets.isEmpty { throw ValidationError("Give at least one --secret.") }
        }

        func run() throws {
            process_forbid_dumps()
            let session = try measured.session()
            let launch = try launch.settled(for: session)
            try NamedPath.check(
                outputs: [NamedPath("--out", out)].compactMap(\.self),
                inputs: launch.guest.inputs + measured.inputs + secrets.inputs)
            let expected = try launch.launch()
            let received = try measured.received(session)
            try session.check(received, against: expected) { launch.alternatives() }
            var table = SecretTable(entries: try secrets.entries().map { .init(guid: $0.guid, data: $0.data.copied()) })
            defer { table.wipe() }
            // A digest does not say where the guest has room: then only the page is the limit.
            let area = expected.hasPlan ? expected.secretArea?.byteCount ?? 0 : 4096
            let packet = try session.makeSecret(
                table, after: received.measurement, firmware: received.firmware, areaByteCount: area)
            try OutputFolder.replace(out, packet.bytes)
            print("the measurement is the expected one; wrote \(out), \(packet.bytes.count) bytes")
        }
    }
}

/// The platform's certificates in a folder.
enum PlatformFiles {
    static func read(_ folder: String) throws(CommandFailure) -> SEVPlatformCertificates {
        let pdh = try InputFile(path: folder + "/pdh.cert").read(as: "the PDH certificate")
        if InputFile(path: folder + "/chain.cert").exists {
            return SEVPlatformCertificates(
                pdh: pdh, chain: try InputFile(path: folder + "/chain.cert").read(as: "the platform's chain"))
        }
        var chain: [UInt8] = []
        for name in ["pek", "oca", "cek"] {
            chain += try InputFile(path: folder + "/\(name).cert").read(as: "the \(name.uppercased()) certificate")
        }
        return SEVPlatformCertificates(pdh: pdh, chain: chain)
    }
}
