// A guest owner in one process, the VMM in another: session, measurement, secret; and what happens when somebody between
// them, or one of them, is not honest.

import Crypto
import Glibc
import TestSupport
import Testing

/// Everything that a program still says.
private func rest(of child: ChildProcess) -> String {
    var bytes: [UInt8] = []
    while let more = child.read(timeoutMilliseconds: 240_000) { bytes += more }
    if child.timedOut { child.kill() }
    return String(decoding: bytes, as: UTF8.self)
}

private func hexDigits(_ bytes: [UInt8]) -> String {
    bytes.reduce(into: "") { $0 += ($1 < 16 ? "0" : "") + String($1, radix: 16) }
}

private let secretLine: String = {
    let digest = SHA256.hash(Workshop.secret)
    let hex = digest.indices.reduce(into: "") {
        $0 += (digest[$1] < 16 ? "0" : "") + String(digest[$1], radix: 16)
    }
    return "launch secret: 736869e5-84f0-4973-92ec-06879ce3da0b, \(Workshop.secret.count) bytes, sha256 \(hex)"
}()

/// Debian's kernel, from the owner's session to its secret.
@Suite(.enabled(if: BuiltGuest.image != nil, "no default guest: run `make guest`"), .serialized)
struct OwnerBootTests {
    static let commandLine = "console=ttyS0 quiet panic=-1 reboot=a cryptomgr.notests snp.launch-secret"

    func guest(_ technology: String, _ more: String = "") throws -> [String] {
        [
            try #require(BuiltGuest.image), "--confidential", technology, "--memory", "256M", "--cmdline",
            Self.commandLine + more,
        ]
    }

    /// The owner behind a socket. The secret reaches the guest and no output, no log and no core file.
    @Test(arguments: ["sev", "sev-es"]) func theSixStepsOverASocket(_ technology: String) throws {
        let workshop = try Workshop("socket-\(technology)")
        let guest = try guest(technology)
        let owner = try workshop.serve(guest, ["--secret", "disk-passphrase=" + workshop.secretFile])
        let log = workshop.folder + "/launch-log"
        let vmm = try ChildProcess(
            try workshop.program(),
            ["run"] + guest + workshop.platform + ["--owner", workshop.socket, "--launch-log", log], mergesError: true)
        let boot = vmm.read(until: "guest:", timeoutMilliseconds: 240_000)
        try #require(boot.found, "\(boot.output)")
        #expect(boot.output.contains(secretLine), "\(boot.output)")
        #expect(
            boot.output.contains("Memory Encryption Features active: AMD SEV" + (technology == "sev" ? "" : " SEV-ES")),
            "\(boot.output)")

        // A host may forbid to look into another process.
        if let pieces = ProcessMemory(vmm.identifier).search(for: Workshop.secret) {
            // The software machine is this process: it is there, and nowhere that a core file would have it.
            #expect(pieces.excluded > 0, "the search finds nothing at all")
            #expect(pieces.dumped == [], "in \(pieces.dumped)")
        }

        vmm.write("poweroff\n")
        vmm.closeInput()
        let end = rest(of: vmm)
        #expect(vmm.wait().ending == .exited(0), "\(end)")
        let audit = rest(of: owner)
        #expect(owner.wait().ending == .exited(0))
        #expect(audit.contains("the measurement is the expected one") && audit.contains("released"), "\(audit)")
        let hex = hexDigits(Workshop.secret)
        let written = String(decoding: try #require(readFile(log)), as: UTF8.self)
        for text in [boot.output, end, audit, written] {
            #expect(!text.contains("correct horse") && !text.contains(hex))
        }
        #expect(written.contains("\"request\":\"KVM_SEV_LAUNCH_SECRET\"") && written.contains("\"payloadByteCount\":"))
    }

    /// The owner by files: the launch waits in the measured state for the packet.
    @Test func theSixStepsByFiles() throws {
        let workshop = try Workshop("files")
        let guest = try guest("sev-es", " snp.autotest")
        let made = workshop.folder + "/launch"
        let session = try workshop.command(
            ["owner", "session", workshop.certificates, "--confidential", "sev-es", "--out", made] + workshop.roots)
        try #require(session.ending == .exited(0), "\(session.output)")
        let (measurement, packet) = (workshop.folder + "/measurement", workshop.folder + "/packet")
        let vmm = try ChildProcess(
            try workshop.program(),
            ["run"] + guest + workshop.platform + [
                "--session", made + "/session.bin", "--owner-cert", made + "/godh.cert", "--measurement-out",
                measurement,
                "--secret", packet,
            ], mergesError: true)
        vmm.closeInput()
        let measured = vmm.read(until: "waiting for the owner's packet", timeoutMilliseconds: 240_000)
        try #require(measured.found, "\(measured.output)")
        #expect(!measured.output.contains("BOOT-OK"))
        let version = try #require(Self.firmwareVersion(measured.output), "\(measured.output)")
        let state = ["--state", made + "/owner.state", "--measurement", measurement, "--firmware-version", version]
        let check = try workshop.command(["owner", "check"] + guest + state)
        #expect(check.ending == .exited(0), "\(check.output)")
        // Another command line is another guest.
        let other = try self.guest("sev-es", " snp.autotest init=/bin/sh")
        #expect(try workshop.command(["owner", "check"] + other + state).ending == .exited(5))
        let secret = try workshop.command(
            ["owner", "secret"] + guest + state
                + ["--secret", "disk-passphrase=" + workshop.secretFile, "--out", packet])
        #expect(secret.ending == .exited(0), "\(secret.output)")
        let output = rest(of: vmm)
        #expect(vmm.wait().ending == .exited(0), "\(output)")
        #expect(output.contains(secretLine) && output.contains("BOOT-OK"), "\(output)")

        // The same packet again belongs to no other launch.
        let replay = try workshop.command(
            ["run"] + guest + workshop.platform + [
                "--session", made + "/session.bin", "--owner-cert", made + "/godh.cert", "--secret", packet,
            ])
        #expect(replay.ending == .exited(5), "\(replay.output)")
        #expect(replay.output.contains("KVM_SEV_LAUNCH_SECRET") && replay.output.contains("BAD_MEASUREMENT"))
    }

    /// "(--firmware-version 1.55.21)".
    static func firmwareVersion(_ text: String) -> String? {
        let marker = "--firmware-version "
        guard let line = text.split(separator: "\n").first(where: { $0.contains(marker) }) else { return nil }
        let words = line.split(whereSeparator: { " ()".contains($0) })
        return words.firstIndex(of: "--firmware-version").map { String(words[$0 + 1]) }
    }
}

/// What is not honest, on the smallest guest: launched, never run.
@Suite(.enabled(if: BuiltGuest.firmware("hello") != nil, "no flat guests: run `make firmware`"), .serialized)
struct OwnerRefusalTests {
    func guest(_ technology: String = "sev-es", _ more: [String] = []) throws -> [String] {
        [try #require(BuiltGuest.firmware("hello")), "--confidential", technology, "--memory", "64M"] + more
    }

    /// A changed guest, at the owner's socket. The VMM tells the owner's reason, and ends with status 5.
    @Test func theOwnerRefusesWhatItDoesNotExpect() throws {
        let workshop = try Workshop("refusals")
        let honest = try guest()
        let cases: [(String, [String], String, Int32)] = [
            ("the command line", try guest("sev-es", ["--cmdline", "debug"]), "MEASURE", 5),
            ("the memory's size", try guest("sev-es").map { $0 == "64M" ? "65M" : $0 }, "MEASURE", 5),
            ("the technology", try guest("sev"), "SEV-ES", 5),
            ("the policy", try guest("sev-es", ["--policy", "0x5"]), "policy", 5),
            ("nothing", honest, "LAUNCH_FINISH", 0),
        ]
        for (what, changed, text, status) in cases {
            let owner = try workshop.serve(honest, ["--secret", "disk-passphrase=" + workshop.secretFile])
            let run = try workshop.command(
                ["run", "--launch-only"] + changed + workshop.platform + ["--owner", workshop.socket])
            #expect(run.ending == .exited(status), "\(what): \(run.output)")
            #expect(run.output.contains(text), "\(what): \(run.output)")
            let audit = rest(of: owner)
            #expect(owner.wait().ending == .exited(0), "\(what): \(audit)")
            #expect(audit.contains("released 1") == (status == 0), "\(what): \(audit)")
            #expect(!audit.contains("  "), "reasons are sentences: \(audit)")
        }
    }

    /// Another platform than the one whose certificate the manufacturer signed.
    @Test func theOwnerRefusesAnotherPlatform() throws {
        let workshop = try Workshop("platform")
        let owner = try workshop.serve(try guest())
        let run = try workshop.command(
            ["run", "--launch-only"] + guest() + [
                "--backend", "software", "--platform-state", workshop.folder + "/another", "--owner", workshop.socket,
            ])
        #expect(run.ending == .exited(5), "\(run.output)")
        #expect(run.output.contains("CEK"), "\(run.output)")
        _ = rest(of: owner)
    }

    /// Files with a changed bit: the firmware refuses, and the message says what to look at.
    @Test func theFirmwareRefusesWhatWasChangedOnTheWay() throws {
        let workshop = try Workshop("files-refused")
        func launch(
            _ what: String, policy: String? = nil, _ change: (String) throws -> Void
        ) throws -> (ending: ChildProcess.Ending, output: String) {
            let made = workshop.folder + "/" + what
            let session = try workshop.command(
                ["owner", "session", workshop.certificates, "--confidential", "sev-es", "--out", made] + workshop.roots)
            try #require(session.ending == .exited(0), "\(session.output)")
            try change(made)
            return try workshop.command(
                ["run", "--launch-only"] + guest("sev-es", policy.map { ["--policy", $0] } ?? []) + workshop.platform
                    + [
                        "--session", made + "/session.bin", "--owner-cert", made + "/godh.cert",
                    ])
        }
        let good = try launch("good") { _ in }
        #expect(good.ending == .exited(0), "\(good.output)")
        for (what, file, offset, text) in [
            ("nonce", "session.bin", 3, "BAD_MEASUREMENT"), ("keys", "session.bin", 0x20, "BAD_MEASUREMENT"),
            ("iv", "session.bin", 0x31, "BAD_MEASUREMENT"), ("mac", "session.bin", 0x44, "BAD_MEASUREMENT"),
            ("policy-mac", "session.bin", 0x70, "BAD_MEASUREMENT"), ("point", "godh.cert", 0x18, "INVALID_CERTIFICATE"),
        ] {
            let run = try launch(what) { try workshop.flip($0 + "/" + file, at: offset) }
            #expect(run.ending == .exited(5), "\(what): \(run.output)")
            #expect(run.output.contains("KVM_SEV_LAUNCH_START") && run.output.contains(text), "\(what): \(run.output)")
        }
        let policy = try launch("policy", policy: "0x5") { _ in }
        #expect(policy.ending == .exited(5) && policy.output.contains("made for another --policy"), "\(policy.output)")
        // Cut off: found before anybody is asked.
        let short = try launch("short") {
            try #require(writeFile($0 + "/session.bin", [UInt8](repeating: 1, count: 127)))
        }
        #expect(short.ending == .exited(3) && short.output.contains("127 bytes, expected 128"), "\(short.output)")
        // A session for the platform as it was before.
        let old = try launch("old") { _ in
            try #require(
                try workshop.command(["platform", "export-certs", workshop.folder + "/x"] + workshop.platform).ending
                    == .exited(0))
            _ = try ChildProcess.run("rm", ["-r", workshop.state])
        }
        #expect(old.ending == .exited(5) && old.output.contains("BAD_MEASUREMENT"), "\(old.output)")
    }

    /// Several processes that start on a platform which is not there yet make one platform.
    @Test func severalProcessesShareOnePlatform() throws {
        let workshop = try Workshop("several", exportsCertificates: false)
        let runs = try (0..<4).map { number in
            try ChildProcess(
                try workshop.program(),
                ["run", "--launch-only"] + guest(number % 2 == 0 ? "sev" : "sev-es") + workshop.platform,
                mergesError: true)
        }
        let first = try #require(readFileWhenThere(workshop.state + "/platform"))
        for run in runs {
            let output = rest(of: run)
            #expect(run.wait().ending == .exited(0), "\(output)")
        }
        #expect(readFile(workshop.state + "/platform") == first)
    }

    /// A file that another process is about to make; nil after a minute.
    private func readFileWhenThere(_ path: String) -> [UInt8]? {
        for _ in 0..<1200 {
            if let bytes = readFile(path) { return bytes }
            usleep(50_000)
        }
        return nil
    }

    @Test func whatBelongsToOtherGuestsIsRefused() throws {
        let workshop = try Workshop("usage", exportsCertificates: false)
        for (arguments, text) in [
            (["--confidential", "snp", "--secret", "x"], "attestation report"),
            (["--confidential", "none", "--owner", "x"], "belong to --confidential sev"),
            (["--confidential", "sev", "--secret", "x"], "--secret needs --session"),
            (["--confidential", "sev", "--session", "x"], "go together"),
            (["--confidential", "sev", "--owner", "x", "--session", "y", "--owner-cert", "z"], "excludes"),
        ] {
            let run = try workshop.command(["run", try #require(BuiltGuest.firmware("hello"))] + arguments)
            #expect(run.ending == .exited(2) && run.output.contains(text), "\(arguments): \(run.output)")
        }
        let nobody = try workshop.command(
            ["run"] + guest() + workshop.platform + ["--owner", workshop.folder + "/nobody"])
        #expect(nobody.ending == .exited(3) && nobody.output.contains("owner serve"), "\(nobody.output)")
    }
}
