// RCAR: request, challenge, attestation, response. The exchange that confidential-containers' clients have with their key
// broker (KBS), so that guests with their agent can have secrets from this owner.
//
//     client                                             owner
//     POST /kbs/v0/auth    {version, tee, extra-params} ─►
//                          ◄─ {nonce, extra-params}, Set-Cookie: kbs-session-id
//     REPORT_DATA = SHA-384(canonical JSON of nonce, tee-pubkey, additional-evidence), zeroes behind it
//     POST /kbs/v0/attest  {runtime-data, tee-evidence} ─►  the same judge as for our own protocol
//                          ◄─ {token}
//     GET  /kbs/v0/resource/REPOSITORY/TYPE/TAG         ─►
//                          ◄─ JWE to tee-pubkey
//
// Protocol 0.4.0, and the form of 0.2.0 whose attestation has tee-pubkey at its top and no additional evidence.

import Attestation
import Crypto
import JSONText
import SecretRelease
import Synchronization

/// Answers RCAR clients. Any thread may ask.
final class RCARService: Sendable {
    static let cookieName = "kbs-session-id"
    static let versions = ["0.4.0", "0.3.0", "0.2.0"]
    /// A session is good for so long, attested or not.
    static let sessionMilliseconds: Int64 = 300_000
    static let maximumSessionCount = 1024
    private static let maximumBodyByteCount = 256 << 10

    private struct Session {
        var nonce: [UInt8]
        let deadline: Int64
        /// Set when the client was accepted.
        var accepted: (key: RCARKey, token: String, report: ReleaseRecord.Report)?
    }

    private let service: ReleaseService
    private let sessions = Mutex<[String: Session]>([:])
    /// Signs tokens, for this process's lifetime.
    private let tokenKey = P384PrivateKey.random()

    init(_ service: ReleaseService) { self.service = service }

    func respond(to request: WebRequest, path: String) -> WebResponse {
        var request = request
        request.peer += " rcar"
        let parts = path.split(separator: "/", omittingEmptySubsequences: false).map(String.init)
        guard parts.count >= 4, parts[0].isEmpty, parts[1] == "kbs", parts[2] == "v0" else {
            return WebResponse(status: 404, headers: [], body: [])
        }
        switch (parts[3], parts.count) {
        case ("auth", 4):
            return request.method == "POST" ? authenticate(request) : ReleaseWebService.wrongMethod("POST")
        case ("attest", 4):
            return request.method == "POST" ? attest(request) : ReleaseWebService.wrongMethod("POST")
        case ("resource", 7):
            guard request.method == "GET" else { return ReleaseWebService.wrongMethod("GET") }
            return resource(request, name: parts[4...].joined(separator: "/"))
        default: return WebResponse(status: 404, headers: [], body: [])
        }
    }

    // MARK: Request, challenge

    private func authenticate(_ request: WebRequest) -> WebResponse {
        do throws(ReleaseRefusal) {
            let body = try Self.json(request.body)
            guard case .string(let version)? = body["version"], Self.versions.contains(version) else {
                throw ReleaseRefusal(.version, "this owner speaks \(Self.versions.joined(separator: ", "))")
            }
            guard body["tee"] == .string("snp") else {
                throw ReleaseRefusal(.malformed, "tee: this owner takes snp only")
            }
            var parameters: JSONObject?
            if case .array(let algorithms)? = body["extra-params"]?["supported-hash-algorithms"] {
                guard algorithms.contains(.string("sha384")) else {
                    throw ReleaseRefusal(.version, "supported-hash-algorithms: this owner needs sha384")
                }
                parameters = JSONObject()
                parameters?.add("selected-hash-algorithm", "sha384")
            }
            let now = service.clock.milliseconds()
            guard let nonce = service.nonces.issue(at: now) else { throw Self.busy }
            let name = hexText(randomBytes(16))
            let hasRoom = sessions.withLock { sessions in
                sessions = sessions.filter { $0.value.deadline >= now }
                guard sessions.count < Self.maximumSessionCount else { return false }
                sessions[name] = Session(nonce: nonce, deadline: now &+ Self.sessionMilliseconds)
                return true
            }
            guard hasRoom else { throw Self.busy }
            var challenge = JSONObject()
            challenge.add("nonce", Base64.encode(nonce))
            // Clients of all versions take an empty text for "nothing".
            if let parameters { challenge.add("extra-params", parameters) } else { challenge.add("extra-params", "") }
            return .json(200, challenge, [Self.cookie(name)])
        } catch {
            return refuse(error, request)
        }
    }

    // MARK: Attestation, response

    private func attest(_ request: WebRequest) -> WebResponse {
        var reportBytes: [UInt8] = []
        do throws(ReleaseRefusal) {
            let (name, session) = try session(of: request)
            if let accepted = session.accepted { return Self.tokenResponse(accepted.token, name) }
            // One attempt for each challenge.
            sessions.withLock { $0[name] = nil }
            try service.takeNonce(session.nonce)
            let attestation = try RCARAttestation(Self.json(request.body), nonce: Base64.encode(session.nonce))
            reportBytes = attestation.evidence.report
            let verified = try service.judge.appraise(
                report: reportBytes, certificates: attestation.evidence.certificates,
                reportData: attestation.reportData, at: service.clock.wallSeconds())
            let report = ReleaseRecord.Report(verified)
            let token = token(for: attestation.canonicalKey)
            guard service.record(peer: request.peer, .accept, reason: "attested", report: report) else {
                throw Self.logFailure
            }
            sessions.withLock { sessions in
                sessions[name] = Session(
                    nonce: session.nonce, deadline: session.deadline, accepted: (attestation.key, token, report))
            }
            return Self.tokenResponse(token, name)
        } catch {
            return refuse(error, request, report: .init(claimed: reportBytes))
        }
    }

    private func resource(_ request: WebRequest, name: String) -> WebResponse {
        do throws(ReleaseRefusal) {
            let (sessionName, session) = try session(of: request)
            guard let accepted = session.accepted else {
                throw ReleaseRefusal(.nonce, "this session has not been attested")
            }
            let secret: SecretBytes
            do throws(ReleaseRefusal) {
                guard let id = SecretID(name) else { throw ReleaseRefusal(.unknownSecret, "no name of a secret") }
                secret = try service.judge.secret(id)
            } catch {
                return refuse(error, request, status: 404, id: SecretID(name), report: accepted.report)
            }
            guard
                service.record(
                    peer: request.peer, .release, reason: "released", secret: SecretID(name), report: accepted.report)
            else { throw Self.logFailure }
            return .json(200, accepted.key.encrypt(secret), [Self.cookie(sessionName)])
        } catch {
            return refuse(error, request, id: SecretID(name))
        }
    }

    // MARK: Sessions and tokens

    private func session(of request: WebRequest) throws(ReleaseRefusal) -> (String, Session) {
        let now = service.clock.milliseconds()
        for header in request.header("cookie") {
            for part in header.split(separator: ";") {
                let cookie = part.drop { $0 == " " }
                guard cookie.hasPrefix(Self.cookieName + "=") else { continue }
                let name = String(cookie.dropFirst(Self.cookieName.count + 1))
                if let session = sessions.withLock({ $0[name] }), session.deadline >= now { return (name, session) }
            }
        }
        throw ReleaseRefusal(.nonce, "no session: begin with /kbs/v0/auth, and bring its cookie")
    }

    private static func cookie(_ name: String) -> (String, String) {
        ("set-cookie", "\(cookieName)=\(name); Path=/kbs/v0; HttpOnly; SameSite=Strict")
    }

    /// A JSON Web Token [RFC 7519], ES384: clients look for its form and its dates. Nobody else is to rely on it.
    private func token(for canonicalKey: JSONObject) -> String {
        var header = JSONObject()
        header.add("alg", "ES384")
        header.add("typ", "JWT")
        let now = service.clock.wallSeconds()
        var claims = JSONObject()
        claims.add("exp", now &+ Self.sessionMilliseconds / 1000)
        claims.add("iat", now)
        claims.add("iss", "swift-snp-vmm")
        claims.add("tee-pubkey", canonicalKey)
        let signed = [header, claims].map { Base64.encode(Array($0.text.utf8), .url) }.joined(separator: ".")
        let signature = tokenKey.sign(Array(signed.utf8), hash: .sha384)
        return signed + "." + Base64.encode(signature.r.reversed() + signature.s.reversed(), .url)
    }

    private static func tokenResponse(_ token: String, _ name: String) -> WebResponse {
        var object = JSONObject()
        object.add("token", token)
        return .json(200, object, [cookie(name)])
    }

    // MARK: Refusals

    private static let busy = ReleaseRefusal(.busy, "too many sessions at once; try again in a minute")
    private static let logFailure = ReleaseRefusal(.owner, "the owner cannot write its log")

    /// ErrorInformation with 401, which clients answer by beginning anew; 404 for a resource that is not there.
    private func refuse(
        _ refusal: ReleaseRefusal, _ request: WebRequest, status: Int = 401, id: SecretID? = nil,
        report: ReleaseRecord.Report? = nil
    ) -> WebResponse {
        let causes = refusal.causes.isEmpty ? [refusal.refusal.detail] : refusal.causes
        _ = service.record(
            peer: request.peer, .refuse, reason: "\(refusal.refusal.reason)", secret: id, causes: causes,
            report: report)
        var object = JSONObject()
        object.add("type", "https://github.com/confidential-containers/kbs/errors/\(refusal.refusal.reason)")
        object.add("detail", refusal.refusal.detail)
        return .json(status, object)
    }

    private static func json(_ body: [UInt8]) throws(ReleaseRefusal) -> JSONInput {
        guard body.count <= maximumBodyByteCount else { throw ReleaseRefusal(.malformed, "a body that is too long") }
        do throws(JSONInput.Failure) { return try JSONInput(text: body) } catch {
            throw ReleaseRefusal(.malformed, "JSON, line \(error.line): \(error.found)")
        }
    }
}

/// The body of /attest, in both forms.
private struct RCARAttestation {
    let key: RCARKey
    let canonicalKey: JSONObject
    let evidence: RCAREvidence
    /// What the report must have: a SHA-384 digest with 16 zeroes behind it.
    let reportData: [UInt8]

    /// - Parameter nonce: The session's, as it was sent.
    init(_ body: JSONInput, nonce: String) throws(ReleaseRefusal) {
        // Members in the order of canonical JSON [RFC 8785 3.2.3].
        var runtimeData = JSONObject()
        let keyInput: JSONInput?
        var evidenceInput: JSONInput?
        if let data = body["runtime-data"] {
            guard data["nonce"] == .string(nonce) else {
                throw ReleaseRefusal(.nonce, "runtime-data.nonce is not this session's")
            }
            keyInput = data["tee-pubkey"]
            evidenceInput = body["tee-evidence"]?["primary_evidence"]
            guard case .string(let additional)? = body["tee-evidence"]?["additional_evidence"] else {
                throw ReleaseRefusal(.malformed, "tee-evidence.additional_evidence: no string")
            }
            // Evidence of devices is bound like everything else, and not looked at: this owner has no policy for devices.
            runtimeData.add("additional-evidence", additional)
        } else {
            keyInput = body["tee-pubkey"]
            evidenceInput = body["tee-evidence"]
        }
        // Some clients send the evidence as a text of JSON.
        if case .string(let text)? = evidenceInput { evidenceInput = try? JSONInput(text: Array(text.utf8)) }
        guard let keyInput, let evidenceInput else {
            throw ReleaseRefusal(.malformed, "no tee-pubkey, or no tee-evidence")
        }
        (key, canonicalKey) = try RCARKey.read(keyInput)
        runtimeData.add("nonce", nonce)
        runtimeData.add("tee-pubkey", canonicalKey)
        let digest = SHA384.hash(Array(runtimeData.text.utf8))
        reportData = digest.indices.map { digest[$0] } + [UInt8](repeating: 0, count: 16)
        evidence = try RCAREvidence(evidenceInput)
    }
}
