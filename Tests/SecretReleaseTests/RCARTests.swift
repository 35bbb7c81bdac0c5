// RCAR: the owner's server and a client in Python that knows nothing of our code, with reports of a guest that our VMM has
// launched.

import Attestation
import Crypto
import GuestOwner
import OwnerServer
import SEVABI
import SecretRelease
import TestSupport
import Testing

/// The owner's server on a free port of this machine.
private final class WebServer {
    let server: OwnerServer
    let port: String

    init(_ owner: TestOwner) throws {
        server = OwnerServer(service: owner.service)
        let place = try server.listen(at: .http(address: "127.0.0.1", port: 0))
        port = try #require(place.split(separator: ":").last.map(String.init))
    }

    deinit {
        server.stop()
        server.waitUntilStopped()
    }
}

private enum PythonClient {
    static let python = "/usr/bin/env"
    static let isThere =
        (try? ChildProcess.run(python, ["python3", "-c", "import cryptography, joserfc"]).ending) == .exited(0)
}

@Suite("RCAR", .enabled(if: PythonClient.isThere, "needs python3 with cryptography and joserfc"))
struct RCARTests {
    /// Runs the client; what it ends with.
    private func run(
        _ guest: ReleasingGuest, _ owner: TestOwner, version: String = "0.4.0", key: String = "P-256",
        resource: String = "disk/root/key", mischief: String? = nil
    ) throws -> [String] {
        let server = try WebServer(owner)
        let client = try ChildProcess(
            PythonClient.python,
            [
                "python3", PackageFolder.path + "/Tests/Fixtures/rcar/client.py", server.port, version, key, resource,
            ] + (mischief.map { [$0] } ?? []), mergesError: true)
        var (output, _) = client.read(until: "\n", timeoutMilliseconds: 60_000)
        let words = output.split(whereSeparator: \.isWhitespace).map(String.init)
        if words.count == 2, words[0] == "report", let data = [UInt8](hex: words[1]) {
            client.write(try guest.report(data).hex + "\n")
            let table = try CertificateTable(bytes: guest.certificates)
            for (name, identifier) in [
                ("ARK", CertificateTable.Identifier.ark), ("ASK", .ask), ("VCEK", .vcek),
            ] { client.write("\(name) \(try #require(table[identifier]).hex)\n") }
            client.write("\n")
            output = client.readUntilItEnds(timeoutMilliseconds: 60_000)
        }
        _ = client.wait()
        return output.split(whereSeparator: \.isWhitespace).map(String.init)
    }

    static func owner() throws -> TestOwner {
        try TestOwner { $0.secrets = [SecretID("disk/root/key")!: SecretBytes(TestOwner.secret)] }
    }

    @Test(
        "the right guest gets its resource, whatever key its client has",
        arguments: ["P-256", "P-384", "P-521", "RSA-OAEP-256", "RSA1_5"])
    func keys(_ key: String) throws {
        let owner = try Self.owner()
        #expect(try run(ReleasingGuest(), owner, key: key) == ["secret", TestOwner.secret.hex])
        #expect(owner.log.map(\.decision) == [.accept, .release])
        #expect(owner.log.last?.secret?.text == "disk/root/key")
    }

    @Test("the older form of the protocol and of the evidence")
    func olderForm() throws {
        let owner = try Self.owner()
        #expect(
            try run(ReleasingGuest(), owner, version: "0.2.0", key: "RSA-OAEP-256") == ["secret", TestOwner.secret.hex])
    }

    @Test("additional evidence is bound; a second attestation of a session gives the same token")
    func forms() throws {
        let guest = try ReleasingGuest()
        let owner = try Self.owner()
        #expect(try run(guest, owner, mischief: "additional") == ["secret", TestOwner.secret.hex])
        #expect(try run(guest, owner, mischief: "attest-again") == ["secret", TestOwner.secret.hex])
    }

    @Test("whoever is not the right guest, or does not follow the exchange, is refused with a reason")
    func refusals() throws {
        let guest = try ReleasingGuest()
        let owner = try Self.owner()
        func refusal(_ mischief: String?, resource: String = "disk/root/key", version: String = "0.4.0") throws
            -> [String]
        {
            Array(try run(guest, owner, version: version, resource: resource, mischief: mischief).prefix(3))
        }
        #expect(try refusal("other-digest") == ["refused", "401", "report-data"])
        #expect(try refusal("other-nonce") == ["refused", "401", "nonce"])
        #expect(try refusal("no-cookie") == ["refused", "401", "nonce"])
        #expect(try refusal("resource-first") == ["refused", "401", "nonce"])
        #expect(try refusal(nil, resource: "disk/other/key") == ["refused", "404", "unknown-secret"])
        #expect(try refusal(nil, version: "0.1.1") == ["refused", "401", "version"])
        var setup = GuestSetup()
        setup.commandLine += " init=/bin/sh"
        #expect(try run(ReleasingGuest(setup), owner).prefix(3) == ["refused", "401", "measurement"])
        #expect(
            owner.log.map(\.reason) == [
                "report-data", "nonce", "nonce", "nonce", "attested", "unknown-secret", "version", "measurement",
            ])
    }
}

@Suite("RCAR requests")
struct RCARRequestTests {
    /// One request to the owner, without a server.
    private func status(_ method: String, _ target: String, _ body: String = "", cookie: String? = nil) throws -> Int {
        let web = ReleaseWebService(try RCARTests.owner().service)
        return web.respond(
            to: WebRequest(
                method: method, target: target, headers: cookie.map { [("Cookie", $0)] } ?? [],
                body: Array(body.utf8), peer: "test")
        ).status
    }

    @Test("paths and methods")
    func paths() throws {
        for path in [
            "/", "/kbs", "/kbs/v0", "/kbs/v1/auth", "/kbs/v0/token", "/kbs/v0/resource/a/b", "//kbs/v0/auth", "",
        ] {
            #expect(try status("GET", path) == 404, "\(path)")
        }
        #expect(try status("GET", "/kbs/v0/auth") == 405)
        #expect(try status("GET", "/kbs/v0/attest") == 405)
        #expect(try status("POST", "/kbs/v0/resource/a/b/c") == 405)
        #expect(try status("GET", "/secret-release/v1") == 405)
        #expect(try status("GET", "/kbs/v0/resource/a/b/c") == 401)
        #expect(try status("GET", "/kbs/v0/resource/../../etc", cookie: "kbs-session-id=x") == 401)
    }

    @Test("bodies that are none")
    func bodies() throws {
        for body in [
            "", "{", "[]", "{}", #"{"version":"0.4.0"}"#, #"{"version":0.4,"tee":"snp"}"#,
            #"{"version":"0.4.0","tee":"tdx","extra-params":""}"#,
            #"{"version":"0.4.0","tee":"snp","extra-params":{"supported-hash-algorithms":["sha256"]}}"#,
        ] { #expect(try status("POST", "/kbs/v0/auth", body) == 401, "\(body)") }
        #expect(try status("POST", "/kbs/v0/auth", #"{"version":"0.4.0","tee":"snp","extra-params":""}"#) == 200)
    }

    @Test("sessions are bounded: too many at once are refused, and room comes back")
    func sessions() throws {
        let owner = try TestOwner(nonces: NonceStore(capacity: 4096))
        let web = ReleaseWebService(owner.service)
        let request = WebRequest(
            method: "POST", target: "/kbs/v0/auth",
            body: Array(#"{"version":"0.4.0","tee":"snp","extra-params":""}"#.utf8), peer: "test")
        for _ in 0..<1024 { #expect(web.respond(to: request).status == 200) }
        #expect(web.respond(to: request).status == 401)
        owner.pass(milliseconds: 300_001)
        #expect(web.respond(to: request).status == 200)
    }
}
