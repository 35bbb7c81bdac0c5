// `platform` and `owner` as programs: what they write, what they refuse and with which status, and a server among
// hostile clients. Whole launches, with `run` in another process, are among the tests of `run`.

import Glibc
import GuestOwner
import SEVABI
import Synchronization
import TestSupport
import Testing

/// A software platform in a temporary folder, its certificates exported once for all tests.
private struct ExportedPlatform {
    static let shared = Result { try ExportedPlatform() }

    static let path = (environment("TMPDIR") ?? "/tmp") + "/snp-vmm-owner-\(BuiltProgram.processIdentifier)"

    let folder = Self.path
    var certificates: String { folder + "/certs" }
    var roots: [String] { ["--ark", certificates + "/ark.cert", "--ask", certificates + "/ask.cert"] }

    init() throws {
        // Every test of this file works in it, in any order: it goes when the process does.
        atexit { _ = try? ChildProcess.run("rm", ["-rf", ExportedPlatform.path]) }
        let created = try OwnerCommandTests.command(
            ["platform", "create", "--platform-state", folder + "/state", "--seed", "tests"])
        try #require(created.ending == .exited(0), "\(created.output)")
        let exported = try OwnerCommandTests.command(
            [
                "platform", "export-certs", folder + "/certs", "--backend", "software", "--platform-state",
                folder + "/state",
            ])
        try #require(exported.ending == .exited(0), "\(exported.output)")
    }
}

@Suite("The owner's and the platform's commands")
struct OwnerCommandTests {
    static let digest = String(repeating: "5a", count: 32)

    static func command(_ arguments: [String]) throws -> (ending: ChildProcess.Ending, output: String) {
        let command = try #require(BuiltProgram.path("swift-snp-vmm"))
        return try ChildProcess.run(command, arguments, timeoutMilliseconds: 300_000)
    }

    private static let counter = Mutex(0)

    /// A fresh folder of this test.
    func folder() throws -> String {
        let platform = try ExportedPlatform.shared.get()
        let number = Self.counter.withLock { count in
            count += 1
            return count
        }
        let path = platform.folder + "/test-\(number)"
        try #require(mkdir(path, 0o700) == 0)
        return path
    }

    func mode(_ path: String) -> mode_t {
        var status = stat()
        return stat(path, &status) == 0 ? status.st_mode & 0o777 : 0
    }

    /// A copy of the exported certificates with a change.
    func certificates(_ change: (inout [UInt8]) -> Void, of name: String) throws -> String {
        let platform = try ExportedPlatform.shared.get()
        let copy = try folder()
        for file in folderEntries(platform.certificates) {
            var bytes = try #require(readFile(platform.certificates + "/" + file))
            if file == name { change(&bytes) }
            writeFile(copy + "/" + file, bytes)
        }
        return copy
    }

    // MARK: platform

    @Test("a software platform is made once, is nobody else's to read, and stays the same")
    func platformState() throws {
        let platform = try ExportedPlatform.shared.get()
        let state = platform.folder + "/state"
        #expect(mode(state) == 0o700)
        #expect(mode(state + "/platform") == 0o600)
        #expect(mode(state + "/manufacturer") == 0o600)
        let again = try Self.command(["platform", "create", "--platform-state", state])
        #expect(again.ending == .exited(3), "\(again.output)")
        #expect(again.output.contains("there is one already"))

        let options = ["--backend", "software", "--platform-state", state]
        let shown = try Self.command(["platform", "show"] + options)
        #expect(shown.ending == .exited(0), "\(shown.output)")
        #expect(shown.output.contains("--firmware-version 1.55.29"))
        #expect(shown.output.contains("owned by itself"))
        #expect(shown.output.contains("it protects nothing"))
        let json = try Self.command(["platform", "show", "--json"] + options)
        #expect(json.output.contains("\"software\":true"))
        #expect(json.output.contains("\"apiMinor\":55"))

        let target = try folder() + "/deep/er"
        let exported = try Self.command(["platform", "export-certs", target] + options)
        #expect(exported.ending == .exited(0), "\(exported.output)")
        let names = [
            "ark.cert", "ark.pem", "ask.cert", "ask.pem", "asvk.pem", "cek.cert", "chain.cert", "crl.pem", "oca.cert",
            "pdh.cert", "pek.cert", "vcek.pem",
        ]
        #expect(folderEntries(target) == names)
        for name in names {
            #expect(readFile(target + "/" + name) == readFile(platform.certificates + "/" + name), "\(name)")
        }
        let chain = try #require(readFile(target + "/chain.cert"))
        #expect(chain.count == 6252)
        #expect(chain.suffix(2084) == (try #require(readFile(target + "/cek.cert")))[...])
    }

    @Test("damaged platform state is told, not replaced")
    func damagedState() throws {
        let platform = try ExportedPlatform.shared.get()
        for name in ["platform", "manufacturer"] {
            let copy = try folder()
            for file in ["platform", "manufacturer"] {
                var bytes = try #require(readFile(platform.folder + "/state/" + file))
                if file == name { bytes.removeLast() }
                writeFile(copy + "/" + file, bytes)
            }
            let before = readFile(copy + "/" + name)
            let (ending, output) = try Self.command(
                ["platform", "export-certs", copy + "/certs", "--backend", "software", "--platform-state", copy])
            #expect(ending == .exited(3), "\(output)")
            #expect(output.contains(copy + "/" + name), "\(output)")
            #expect(readFile(copy + "/" + name) == before)
        }
    }

    // MARK: owner session

    @Test("a session, for the owner alone and for the VMM")
    func session() throws {
        let platform = try ExportedPlatform.shared.get()
        let out = try folder()
        let (ending, output) = try Self.command(
            ["owner", "session", platform.certificates, "--confidential", "sev", "--out", out] + platform.roots)
        #expect(ending == .exited(0), "\(output)")
        #expect(output.contains("PROTECTS NOTHING"))
        #expect(output.contains("policy:    0x00000003"))
        #expect(mode(out + "/owner.state") == 0o600)
        #expect(readFile(out + "/godh.cert")?.count == 2084)
        #expect(readFile(out + "/session.bin")?.count == 128)
        let state = try OwnerSession(stored: try #require(readFile(out + "/owner.state")))
        #expect(state.launch.session == readFile(out + "/session.bin"))
        // The keys are in the state and nowhere else.
        for key in [state.tek.copied(), state.tik.copied()] { #expect(!output.contains(key.hex)) }
    }

    @Test("the root has to be named, and to be the right one")
    func roots() throws {
        let platform = try ExportedPlatform.shared.get()
        let out = try folder()
        let base = ["owner", "session", platform.certificates, "--out", out]
        let unnamed = try Self.command(base)
        #expect(unnamed.ending == .exited(5), "\(unnamed.output)")
        #expect(unnamed.output.contains("root of software platforms"))
        let half = try Self.command(base + ["--ark", platform.certificates + "/ark.cert"])
        #expect(half.ending == .exited(5), "\(half.output)")
        #expect(half.output.contains("--ask"))
        let exchanged = try Self.command(
            base + ["--ark", platform.certificates + "/ask.cert", "--ask", platform.certificates + "/ark.cert"])
        #expect(exchanged.ending == .exited(5), "\(exchanged.output)")
        #expect(exchanged.output.contains("KEY_USAGE"))
        #expect(folderEntries(out) == [])
    }

    @Test("the keys of a session are not written over, and the VMM's files stay with them")
    func sessionsAreNotReplaced() throws {
        let (folder, _, _) = try measuredSession()
        let platform = try ExportedPlatform.shared.get()
        let files = ["owner.state", "godh.cert", "session.bin"]
        let before = files.map { readFile(folder + "/" + $0) }
        for out in [folder, folder + "/"] {
            let (ending, output) = try Self.command(
                ["owner", "session", platform.certificates, "--out", out] + platform.roots)
            #expect(ending == .exited(3), "\(output)")
            #expect(output.contains("could not make a session in \(folder):") && output.contains("Next step"))
        }
        #expect(files.map { readFile(folder + "/" + $0) } == before)
    }

    @Test(
        "the real Naples platform, by the root that is built in",
        .enabled(if: ForeignVectors.arePresent, "\(ForeignVectors.absence)"))
    func naples() throws {
        let vectors = try #require(ForeignVectors.folder) + "/legacy-sev"
        let out = try folder()
        let (ending, output) = try Self.command(["owner", "session", vectors, "--confidential", "sev", "--out", out])
        #expect(ending == .exited(0), "\(output)")
        #expect(output.contains("AMD Naples"))
        #expect(!output.contains("warning"))
        let platform = try ExportedPlatform.shared.get()
        let mixed = try Self.command(
            [
                "owner", "session", platform.certificates, "--ark", vectors + "/ark.cert", "--ask",
                vectors + "/ask.cert",
                "--out", out,
            ])
        #expect(mixed.ending == .exited(5), "\(mixed.output)")
        #expect(mixed.output.contains("CEK"))
        let bad = try Self.command(
            [
                "owner", "session", vectors, "--ark", vectors + "/ark-bad.cert", "--ask", vectors + "/ask.cert",
                "--out",
                out,
            ])
        #expect(bad.ending == .exited(5), "\(bad.output)")
        #expect(bad.output.contains("ARK, length"))
    }

    @Test("flipped and truncated certificates are refused, each by its name")
    func badCertificates() throws {
        let platform = try ExportedPlatform.shared.get()
        let cases: [(file: String, name: String, change: (inout [UInt8]) -> Void)] = [
            ("pdh.cert", "PDH", { $0[0x20] ^= 1 }), ("pdh.cert", "PDH", { $0.removeLast() }),
            ("pdh.cert", "PDH", { $0 = [] }), ("chain.cert", "PEK", { $0[0x420] ^= 1 }),
            ("chain.cert", "OCA", { $0[2084 + 0x420] ^= 1 }), ("chain.cert", "CEK", { $0[4168 + 0x420] ^= 1 }),
            ("chain.cert", "length", { $0.removeLast(2084) }),
        ]
        for (file, name, change) in cases {
            let certificates = try certificates(change, of: file)
            let (ending, output) = try Self.command(
                ["owner", "session", certificates, "--out", certificates + "/out"] + platform.roots)
            #expect(ending == .exited(5), "\(output)")
            #expect(output.contains(name) && output.contains("Next step"), "\(output)")
            #expect(!folderEntries(certificates).contains("out"))
        }
    }

    // MARK: owner expect, check, secret

    /// A session in a folder, with a measurement of `digest` for it.
    func measuredSession() throws -> (folder: String, check: [String], session: OwnerSession) {
        let platform = try ExportedPlatform.shared.get()
        let out = try folder()
        let made = try Self.command(["owner", "session", platform.certificates, "--out", out] + platform.roots)
        try #require(made.ending == .exited(0), "\(made.output)")
        let expected = try Self.command(
            [
                "owner", "expect", "--confidential", "sev-es", "--launch-digest", Self.digest, "--state",
                out + "/owner.state", "--nonce", "000102030405060708090a0b0c0d0e0f", "--firmware-version", "1.55.29",
            ])
        try #require(expected.ending == .exited(0), "\(expected.output)")
        let text = expected.output.filter { !$0.isWhitespace }
        writeFile(out + "/measurement", try #require([UInt8](hex: text)))
        let session = try OwnerSession(stored: try #require(readFile(out + "/owner.state")))
        let options = [
            "--confidential", "sev-es", "--launch-digest", Self.digest, "--state", out + "/owner.state",
            "--measurement", out + "/measurement",
        ]
        return (out, options, session)
    }

    @Test("expected, checked, and a secret for it")
    func wholeWay() throws {
        let (folder, options, session) = try measuredSession()
        let checked = try Self.command(["owner", "check", "--firmware-version", "1.55.29"] + options)
        #expect(checked.ending == .exited(0), "\(checked.output)")
        #expect(checked.output.contains(Self.digest))

        let key = Array("a very secret key".utf8)
        writeFile(folder + "/key", key)
        let packet = folder + "/packet"
        let secret = try Self.command(
            [
                "owner", "secret", "--firmware-version", "1.55.29", "--out", packet, "--secret",
                "disk-passphrase=" + folder + "/key",
            ]
                + options)
        #expect(secret.ending == .exited(0), "\(secret.output)")
        let bytes = try #require(readFile(packet))
        #expect(SEVSecretPacket(bytes: bytes) != nil)
        #expect(bytes.count == 52 + 64)
        #expect(mode(packet) == 0o600)
        #expect(!String(decoding: bytes, as: UTF8.self).contains("very secret"))
        #expect(!secret.output.contains("very secret"))
        _ = session
    }

    @Test(
        "without --confidential the guest is what the session is for",
        .enabled(if: BuiltGuest.firmware("hello") != nil, "\(BuiltGuest.absence)"), arguments: ["sev", "sev-es"])
    func sessionsKnowTheirTechnology(_ technology: String) throws {
        let image = try #require(BuiltGuest.firmware("hello"))
        let platform = try ExportedPlatform.shared.get()
        let out = try folder()
        let made = try Self.command(
            ["owner", "session", platform.certificates, "--confidential", technology, "--out", out] + platform.roots)
        try #require(made.ending == .exited(0), "\(made.output)")
        let measured = ["--nonce", String(repeating: "0", count: 32), "--firmware-version", "1.55.29"]
        let arguments = ["owner", "expect", image, "--state", out + "/owner.state"] + measured
        let named = try Self.command(arguments + ["--confidential", technology])
        try #require(named.ending == .exited(0), "\(named.output)")
        #expect(try Self.command(arguments) == named)
        let other = try Self.command(arguments + ["--confidential", technology == "sev" ? "sev-es" : "sev"])
        #expect(other.ending == .exited(0) && other.output != named.output, "\(other.output)")
    }

    @Test("a policy that is not the session's is refused before anything is compared")
    func policiesOfAnotherSession() throws {
        let (_, options, session) = try measuredSession()
        let check = ["owner", "check", "--firmware-version", "1.55.29"] + options
        #expect(try Self.command(check + ["--policy", "\(session.policy.rawValue)"]).ending == .exited(0))
        let (ending, output) = try Self.command(check + ["--policy", "0x5"])
        #expect(ending == .exited(2), "\(output)")
        #expect(output.contains("the session was made for 0x00000007"), "\(output)")
    }

    @Test("nothing is written over what was read, nothing released twice under one name")
    func secretsAreNotReplaced() throws {
        let (folder, options, _) = try measuredSession()
        let files = ["key", "owner.state", "measurement"]
        writeFile(folder + "/key", Array("a key".utf8))
        let before = files.map { readFile(folder + "/" + $0) }
        let secret =
            ["owner", "secret", "--firmware-version", "1.55.29", "--secret", "disk-passphrase=" + folder + "/key"]
            + options
        for file in files {
            let (ending, output) = try Self.command(secret + ["--out", folder + "/./" + file])
            #expect(ending == .exited(2), "\(output)")
            #expect(output.contains("is the same file as"), "\(output)")
        }
        #expect(files.map { readFile(folder + "/" + $0) } == before)
        let twice = try Self.command(
            secret + [
                "--secret", "\(SecretTable.diskPassphrase)=" + folder + "/measurement", "--out", folder + "/packet",
            ])
        #expect(twice.ending == .exited(2), "\(twice.output)")
        #expect(!folderEntries(folder).contains("packet"))
    }

    @Test("a measurement that is another one: status 5, the reason, and no packet")
    func refusedMeasurements() throws {
        let (folder, options, session) = try measuredSession()
        writeFile(folder + "/key", [1, 2, 3])
        let packet = folder + "/packet"
        func outcomes(_ firmware: String, _ reason: String) throws {
            for (name, more) in [
                ("check", []), ("secret", ["--out", packet, "--secret", "disk-passphrase=" + folder + "/key"]),
            ] {
                let (ending, output) = try Self.command(
                    ["owner", name, "--firmware-version", firmware] + options + more)
                #expect(ending == .exited(5), "\(output)")
                #expect(output.contains(reason), "\(output)")
                #expect(!folderEntries(folder).contains("packet"))
            }
        }
        try outcomes("1.55.28", "for firmware 1.55 build 29, not for 1.55 build 28")
        var measurement = try #require(readFile(folder + "/measurement"))
        measurement[3] ^= 1
        writeFile(folder + "/measurement", measurement)
        try outcomes("1.55.29", "another image, initrd, command line")
        let policy = session.expectedMeasure(
            digest: [UInt8](repeating: 0x5a, count: 32),
            firmware: FirmwareVersion(apiMajor: 1, apiMinor: 55, build: 29), nonce: Array(measurement.suffix(16)),
            policy: SEVPolicy(rawValue: 4))
        writeFile(folder + "/measurement", policy + measurement.suffix(16))
        try outcomes("1.55.29", "launched with policy 0x00000004")
    }

    @Test("input that is none is status 3: state, measurement, secrets")
    func badInput() throws {
        let (folder, options, _) = try measuredSession()
        func outcome(_ arguments: [String]) throws -> (ChildProcess.Ending, String) {
            let (ending, output) = try Self.command(arguments)
            return (ending, output)
        }
        let check = ["owner", "check", "--firmware-version", "1.55.29"] + options
        let state = try #require(readFile(folder + "/owner.state"))
        for bytes in [[], Array(state.dropLast()), state.map { $0 ^ 1 }, Array(state.prefix(9))] {
            writeFile(folder + "/owner.state", bytes)
            let (ending, output) = try outcome(check)
            #expect(ending == .exited(3), "\(output)")
            #expect(output.contains("owner's state"), "\(output)")
        }
        writeFile(folder + "/owner.state", state)
        let measurement = try #require(readFile(folder + "/measurement"))
        for bytes in [[], Array(measurement.dropLast()), measurement + [0]] {
            writeFile(folder + "/measurement", bytes)
            let (ending, output) = try outcome(check)
            #expect(ending == .exited(3), "\(output)")
        }
        writeFile(folder + "/measurement", measurement)
        writeFile(folder + "/empty", [])
        writeFile(folder + "/large", [UInt8](repeating: 1, count: 4097))
        writeFile(folder + "/full", [UInt8](repeating: 1, count: 4090))
        for file in ["empty", "large", "full", "absent"] {
            let (ending, output) = try outcome(
                [
                    "owner", "secret", "--firmware-version", "1.55.29", "--out", folder + "/packet", "--secret",
                    "disk-passphrase=" + folder + "/" + file,
                ] + options)
            #expect(ending == .exited(3), "\(file): \(output)")
        }
        #expect(!folderEntries(folder).contains("packet"))
    }

    @Test(
        "wrong use is status 2",
        arguments: [
            ["owner"], ["owner", "session"], ["owner", "check", "x"], ["owner", "serve", "x"],
            ["owner", "session", "/tmp", "--out", "/tmp/x", "--confidential", "snp"],
            ["owner", "session", "/tmp", "--out", "/tmp/x", "--confidential", "sev", "--policy", "0x5"],
            ["owner", "session", "/tmp", "--out", "/tmp/x", "--policy", "0x100000005"],
            ["owner", "session", "/tmp", "--out", "/tmp/x", "--ask", "x"], ["owner", "expect"],
            ["owner", "expect", "--confidential", "sev"], ["owner", "expect", "x", "--confidential", "snp"],
            ["owner", "expect", "--confidential", "sev", "--launch-digest", "12"],
            ["owner", "expect", "x", "--confidential", "sev", "--launch-digest", digest],
            ["owner", "expect", "--confidential", "sev", "--launch-digest", digest, "--nonce", "00"],
            ["owner", "serve", "x", "--confidential", "sev", "--socket", "s", "--launches", "0"],
            ["platform", "show", "--backend", "x"], ["platform", "export-certs"],
        ])
    func wrongUse(_ arguments: [String]) throws {
        let (ending, output) = try Self.command(arguments)
        // Without a subcommand the help is shown.
        #expect(ending == (arguments == ["owner"] ? .exited(0) : .exited(2)), "\(output)")
    }

    // MARK: owner serve

    /// A connection as a VMM would make it.
    final class Client {
        private let descriptor: Int32

        init(_ path: String) throws {
            descriptor = socket(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0)
            var address = sockaddr_un()
            address.sun_family = sa_family_t(AF_UNIX)
            withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: path.utf8) }
            let result = withUnsafePointer(to: &address) {
                $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                    connect(descriptor, $0, socklen_t(MemoryLayout<sockaddr_un>.size))
                }
            }
            try #require(result == 0, "cannot connect to \(path)")
        }

        deinit { close(descriptor) }

        func send(_ bytes: [UInt8]) { _ = Glibc.send(descriptor, bytes, bytes.count, Int32(MSG_NOSIGNAL)) }

        func endSending() { shutdown(descriptor, Int32(SHUT_WR)) }

        /// The next message; nil at the end.
        func receive() throws -> OwnerMessage? {
            var decoder = OwnerMessageDecoder()
            while true {
                if let message = try decoder.next() { return message }
                var buffer = [UInt8](repeating: 0, count: 4096)
                let count = read(descriptor, &buffer, buffer.count)
                guard count > 0 else { return nil }
                decoder.append(Array(buffer.prefix(count)))
            }
        }

        func refusal() throws -> OwnerRefusal {
            guard case .refusal(let refusal) = try receive() else {
                Issue.record("no refusal")
                return OwnerRefusal(.message, reason: "")
            }
            return refusal
        }
    }

    @Test("a server among broken and hostile clients refuses each with a reason, and serves the next")
    func server() throws {
        let platform = try ExportedPlatform.shared.get()
        let out = try folder()
        writeFile(out + "/key", Array("sesame".utf8))
        let command = try #require(BuiltProgram.path("swift-snp-vmm"))
        let path = out + "/socket"
        let server = try ChildProcess(
            command,
            [
                "owner", "serve", "--confidential", "sev-es", "--launch-digest", Self.digest, "--socket", path,
                "--certs", platform.certificates, "--secret", "disk-passphrase=" + out + "/key", "--launches", "5",
            ] + platform.roots, mergesError: true)
        var log = server.read(until: "waiting at", timeoutMilliseconds: 60_000).output
        #expect(mode(path) == 0o600)
        let twice = try Self.command(
            ["owner", "serve", "--confidential", "sev-es", "--launch-digest", Self.digest, "--socket", path]
                + platform.roots)
        #expect(twice.ending == .exited(3), "\(twice.output)")
        #expect(twice.output.contains("another owner waits there"))

        let version = FirmwareVersion(apiMajor: 1, apiMinor: 55, build: 29)
        let pdh = try #require(readFile(platform.certificates + "/pdh.cert"))
        let chain = try #require(readFile(platform.certificates + "/chain.cert"))
        func hello(_ technology: GuestTechnology = .sevES, _ change: (inout SEVPlatformCertificates) -> Void = { _ in })
            -> [UInt8]
        {
            var certificates = SEVPlatformCertificates(pdh: pdh, chain: chain)
            change(&certificates)
            return OwnerMessage.hello(
                OwnerHello(technology: technology, firmware: version, platform: certificates)
            ).bytes
        }
        // The second server's look whether somebody is here is no launch. 1: another protocol.
        let other = try Client(path)
        other.send(Array("GET / HTTP/1.1\r\n\r\n".utf8))
        #expect(try other.refusal().category == .message)
        // 2: half a hello.
        let half = try Client(path)
        half.send(Array(hello().prefix(5000)))
        half.endSending()
        #expect(try half.refusal().category == .connection)
        // 3: a forged certificate.
        let forged = try Client(path)
        forged.send(hello { $0.pdh[0x30] ^= 1 })
        #expect(try forged.refusal().category == .certificate)
        // 4: another technology.
        let wrong = try Client(path)
        wrong.send(hello(.sev))
        #expect(try wrong.refusal().category == .technology)
        // 5: a genuine platform, and a measurement that is made up.
        let liar = try Client(path)
        liar.send(hello())
        guard case .session(let session) = try liar.receive() else {
            Issue.record("no session")
            return
        }
        liar.send(
            OwnerMessage.measurement(
                OwnerMeasurement(
                    firmware: version, policy: session.policy,
                    measurement: SEVMeasurement(
                        measure: [UInt8](repeating: 1, count: 32), nonce: [UInt8](repeating: 2, count: 16)))
            ).bytes)
        let refusal = try liar.refusal()
        #expect(refusal.category == .measurement)
        #expect(refusal.reason.contains("another image"))

        while let more = server.read(timeoutMilliseconds: 60_000) { log += String(decoding: more, as: UTF8.self) }
        #expect(server.wait().ending == .exited(0))
        for number in 1...5 { #expect(log.contains("launch \(number): "), "\(log)") }
        #expect(!log.contains("released"), "\(log)")
        #expect(!log.contains("sesame"))
    }

    @Test("what can never be served is refused at the start")
    func impossibleOffers() throws {
        let platform = try ExportedPlatform.shared.get()
        let out = try folder()
        let base = ["owner", "serve", "--launch-digest", Self.digest] + platform.roots
        let policy = try Self.command(base + ["--confidential", "sev-es", "--policy", "1", "--socket", out + "/s"])
        #expect(policy.ending == .exited(5), "\(policy.output)")
        #expect(policy.output.contains("bit 2 (ES)"))
        let missing = try Self.command(base + ["--confidential", "sev", "--socket", out + "/none/s"])
        #expect(missing.ending == .exited(3), "\(missing.output)")
        let long = try Self.command(
            base + ["--confidential", "sev", "--socket", out + "/" + String(repeating: "x", count: 120)])
        #expect(long.ending == .exited(3), "\(long.output)")
        writeFile(out + "/file", [1])
        let file = try Self.command(base + ["--confidential", "sev", "--socket", out + "/file"])
        #expect(file.ending == .exited(3), "\(file.output)")
        #expect(readFile(out + "/file") == [1])
    }
}
