// What a hostile host, guest or network can do to the release of secrets: messages changed on their way, ciphertexts, and
// requests of RCAR clients. Nothing traps, and nobody gets a secret but who was meant, unchanged.

import Attestation
import Crypto
import GuestOwner
import SEVABI
import SecretRelease
import SoftwarePSP
import TestSupport

let secretFuzzers = [
    Fuzzer(
        name: "secret-release", summary: "exchanges of a genuine guest and its owner with a host that changes messages",
        smokeIterations: 300, generate: { $0.bytes(4 + $0.below(12)) }, check: checkExchange),
    Fuzzer(
        name: "secret-messages", summary: "messages of the exchange with changed bytes, to both sides",
        smokeIterations: 2_000, generate: { changed(messages, &$0) }, check: checkMessages),
    Fuzzer(
        name: "hpke", summary: "encapsulated keys and ciphertexts with changed bytes, or cut short",
        smokeIterations: 500, generate: { changed(Sealed.shared.bytes, &$0) }, check: checkHPKE),
    Fuzzer(
        name: "rcar-requests", summary: "requests of RCAR clients with changed text",
        smokeIterations: 300, generate: { $0.bytes(4 + $0.below(12)) }, check: checkRCAR),
]

/// A guest whose reports verify, and the owner that waits for it.
private final class GenuineGuest: Sendable {
    static let shared = GenuineGuest()
    static let secret: [UInt8] = Array("open sesame".utf8)

    let certificates: [UInt8]
    let leaf: [UInt8]
    let service: ReleaseService
    private let key = P384PrivateKey(derivedFrom: [3], label: "fuzz vcek")

    private init() {
        let manufacturer = Manufacturer(seed: [3])
        let tcb = TCBVersion(bootLoader: 4, tee: 0, snp: 24, microcode: 219)
        let chip = [UInt8](repeating: 7, count: 64)
        let root = manufacturer.rootCertificate(product: .milan)
        leaf = manufacturer.vcek(key: key.publicKey, product: .milan, chipID: chip, tcb: tcb)
        certificates =
            CertificateTable(entries: [
                .init(.ark, root), .init(.ask, manufacturer.signingCertificate(product: .milan)), .init(.vcek, leaf),
            ]).bytes
        var report = ReportPolicy()
        report.measurements = [[UInt8](repeating: 0x3e, count: 48)]
        var own = CertificatePool()
        // Safe: it was made above.
        try! own.add(certificates, name: "own")
        service = ReleaseService(
            policy: ReleasePolicy(
                report: report, trustedRoots: TrustedRoots(named: [X509Certificate(der: root)!]), certificates: own,
                secrets: [SecretID("a/b/c")!: SecretBytes(Self.secret)]),
            clock: .init(wallSeconds: { 1_795_392_000 }, milliseconds: { 0 }),
            nonces: NonceStore(capacity: 1 << 24)
        ) { record in
            // Every line must be one line of JSON, whatever is in it.
            guard (try? JSONInput(text: Array(record.line.utf8))) != nil, !record.line.contains("\n") else {
                fatalError("a line of the log that is none: \(record.line)")
            }
            return true
        }
    }

    func report(_ data: [UInt8]) -> [UInt8] {
        var body = AttestationReportBody(version: 3)
        let tcb = TCBVersion(bootLoader: 4, tee: 0, snp: 24, microcode: 219)
        body.policy = GuestPolicy(rawValue: 0x30000)
        (body.currentTCB, body.reportedTCB, body.committedTCB, body.launchTCB) = (tcb, tcb, tcb, tcb)
        body.platformInformation = .init(rawValue: 0x21)
        body.reportData = data
        body.measurement = LaunchDigest([UInt8](repeating: 0x3e, count: 48))!
        body.fms = ProcessorProduct.milan.fms
        body.chipID = [UInt8](repeating: 7, count: 64)
        body.currentVersion = .init(major: 1, minor: 55, build: 29)
        body.committedVersion = body.currentVersion
        let signature = key.sign(body.bytes, hash: .sha384)
        return body.report(signature: SignatureField(r: signature.r, s: signature.s))
    }
}

/// Changes on the way: each byte of the script is about one message, four bits of what and four of where.
private struct Meddler {
    var script: [UInt8]
    var position = 0
    /// What comes behind a whole message of a stream, when nothing more is expected, is nobody's.
    var ignoresTail = false
    /// Something that matters was changed.
    var hasChanged = false

    mutating func next() -> UInt8 {
        defer { position += 1 }
        return position < script.count ? script[position] : 0xff
    }

    mutating func pass(_ bytes: [UInt8], matters: Bool = true) -> [UInt8] {
        var bytes = bytes
        guard next() & 3 == 0, !bytes.isEmpty else { return bytes }
        let before = bytes
        let index = (Int(next()) << 8 | Int(next())) % bytes.count
        let kind = next() & 7
        switch kind {
        case 0: bytes.remove(at: index)
        case 1: bytes.insert(next(), at: index)
        case 2: bytes.removeSubrange(index...)
        case 3: bytes += bytes
        case 4: bytes[index] = next()
        default: bytes[index] ^= 1 << (next() & 7)
        }
        if matters, !(ignoresTail && kind == 3), bytes != before { hasChanged = true }
        return bytes
    }
}

private func checkExchange(_ script: [UInt8]) -> Outcome {
    let genuine = GenuineGuest.shared
    var host = Meddler(script: script, ignoresTail: true)
    var request = SecretRequest(id: SecretID("a/b/c")!)
    var conversation = genuine.service.conversation(peer: "fuzz")
    do {
        // A hello may offer other versions; the answer is the same.
        var answer = conversation.receive(host.pass(request.start(), matters: false)).bytes
        var isOver = false
        for _ in 0..<4 {
            switch try request.receive(host.pass(answer)) {
            case .needsMore:
                if isOver { return .uninteresting("waits") }
                answer = conversation.end(.closed)
                isOver = true
            case .needsReport(let data):
                let evidence = try request.evidence(
                    report: genuine.report(data), certificates: genuine.certificates)
                answer = conversation.receive(host.pass(evidence)).bytes
            case .secret(let secret):
                guard secret.copied() == GenuineGuest.secret else { return .impossible("another secret") }
                return host.hasChanged ? .impossible("a changed exchange gives the secret") : .fine("released")
            case .refused(let refusal): return .fine("refused: \(refusal.reason)")
            }
        }
        return .impossible("an exchange without end")
    } catch { return .uninteresting("the guest gives up") }
}

/// One of each kind, and a second evidence.
private let messages: [UInt8] = {
    let key = P384PrivateKey(derivedFrom: [4], label: "fuzz").publicKey
    let evidence = SecretEvidence(
        nonce: [UInt8](repeating: 1, count: 32), report: [UInt8](repeating: 2, count: 1184), publicKey: key,
        id: SecretID("a")!, certificates: [1, 2, 3])
    return [
        SecretReleaseMessage.hello(versions: 1...1), .challenge(nonce: [UInt8](repeating: 1, count: 32)),
        .evidence(evidence),
        .release(encapsulatedKey: key.uncompressedPoint, ciphertext: [UInt8](repeating: 3, count: 40)),
        .refusal(SecretRefusal(.policy, "POLICY")),
    ].flatMap(\.bytes)
}()

private func checkMessages(_ bytes: [UInt8]) -> Outcome {
    var request = SecretRequest(id: SecretID("a")!)
    _ = request.start()
    _ = try? request.receive(bytes)
    var conversation = GenuineGuest.shared.service.conversation(peer: "fuzz")
    _ = conversation.receive(bytes)
    _ = GenuineGuest.shared.service.answer(bytes, peer: "fuzz")
    var decoder = SecretReleaseDecoder()
    decoder.append(bytes)
    var count = 0
    do {
        while let message = try decoder.next() {
            count += 1
            var again = SecretReleaseDecoder()
            again.append(message.bytes)
            // A refusal's text is repaired once.
            if case .refusal = message { continue }
            guard try again.next() == message else { return .impossible("a message that does not come back") }
        }
        return .fine("\(count) messages")
    } catch { return count == 0 ? .uninteresting("none") : .fine("\(count) messages, then none") }
}

private struct Sealed {
    static let shared = Sealed()
    static let plaintext: [UInt8] = Array("plaintext".utf8)
    let key = P384PrivateKey(derivedFrom: [5], label: "fuzz hpke")
    let bytes: [UInt8]

    private init() {
        let sealed = HPKE.seal(Self.plaintext, to: key.publicKey, info: [1], authenticating: [2])
        bytes = sealed.encapsulatedKey + sealed.ciphertext
    }
}

private func checkHPKE(_ bytes: [UInt8]) -> Outcome {
    let opened = HPKE.open(
        Array(bytes.dropFirst(97)), encapsulatedKey: Array(bytes.prefix(97)), with: Sealed.shared.key, info: [1],
        authenticating: [2])
    guard let opened else { return .uninteresting("does not open") }
    guard bytes == Sealed.shared.bytes, opened == Sealed.plaintext else {
        return .impossible("a changed ciphertext opens")
    }
    return .fine("opens")
}

private func checkRCAR(_ script: [UInt8]) -> Outcome {
    let genuine = GenuineGuest.shared
    var network = Meddler(script: script)
    // A service of its own: sessions are kept for a while.
    let web = ReleaseWebService(genuine.service)
    func send(_ method: String, _ path: String, _ body: String, _ cookie: String = "") -> WebResponse {
        web.respond(
            to: WebRequest(
                method: method, target: path, headers: [("cookie", cookie)],
                body: network.pass(Array(body.utf8)), peer: "fuzz"))
    }
    let auth = send("POST", "/kbs/v0/auth", #"{"version":"0.4.0","tee":"snp","extra-params":{}}"#)
    guard auth.status == 200, let challenge = try? JSONInput(text: auth.body),
        case .string(let nonce)? = challenge["nonce"],
        let cookie = auth.headers.first(where: { $0.0 == "set-cookie" })?.1.split(separator: ";").first
    else {
        return [401, 404, 405].contains(auth.status) ? .fine("auth refused") : .impossible("status \(auth.status)")
    }
    let key = P384PrivateKey(derivedFrom: [6], label: "fuzz rcar").publicKey
    let (x, y) = (
        Base64.encode(key.littleEndianX.reversed(), .url), Base64.encode(key.littleEndianY.reversed(), .url)
    )
    let jwk = #"{"alg":"ECDH-ES+A256KW","crv":"P-384","kty":"EC","x":"\#(x)","y":"\#(y)"}"#
    let canonical = #"{"additional-evidence":"","nonce":"\#(nonce)","tee-pubkey":\#(jwk)}"#
    let digest = SHA384.hash(Array(canonical.utf8))
    let report = genuine.report(digest.indices.map { digest[$0] } + [UInt8](repeating: 0, count: 16))
    let body =
        #"{"runtime-data":{"nonce":"\#(nonce)","tee-pubkey":\#(jwk)},"tee-evidence":{"primary_evidence":"#
        + evidence(report, leaf: genuine.leaf) + #","additional_evidence":""}}"#
    let attest = send("POST", "/kbs/v0/attest", body, String(cookie))
    guard attest.status == 200 else {
        guard attest.status == 401 else { return .impossible("status \(attest.status)") }
        return network.hasChanged ? .fine("attest refused") : .impossible("a genuine guest is refused")
    }
    let resource = send("GET", "/kbs/v0/resource/a/b/c", "", String(cookie))
    guard resource.status == 200, (try? JSONInput(text: resource.body)) != nil else {
        return .impossible("status \(resource.status) after attestation")
    }
    guard !String(decoding: resource.body, as: UTF8.self).contains("sesame") else {
        return .impossible("a secret in the open")
    }
    return .fine(network.hasChanged ? "released, changed where nothing is read" : "released")
}

/// The evidence in the form of the crate's version 6.
private func evidence(_ report: [UInt8], leaf: [UInt8]) -> String {
    func list(_ bytes: some Sequence<UInt8>) -> String { "[" + bytes.map(String.init).joined(separator: ",") + "]" }
    func at(_ offset: Int, _ count: Int) -> String { list(report[offset..<(offset + count)]) }
    func number(_ offset: Int, _ count: Int) -> UInt64 {
        (0..<count).reduce(0) { $0 | UInt64(report[offset + $1]) << UInt64(8 * $1) }
    }
    func tcb(_ offset: Int) -> String {
        #"{"bootloader":\#(report[offset]),"fmc":null,"microcode":\#(report[offset + 7]),"snp":\#(report[offset + 6]),"tee":\#(report[offset + 1])}"#
    }
    func version(_ offset: Int) -> String {
        #"{"build":\#(report[offset]),"major":\#(report[offset + 2]),"minor":\#(report[offset + 1])}"#
    }
    let fields: [(String, String)] = [
        ("version", "\(number(0, 4))"), ("guest_svn", "\(number(4, 4))"), ("policy", "\(number(8, 8))"),
        ("family_id", at(0x10, 16)), ("image_id", at(0x20, 16)), ("vmpl", "\(number(0x30, 4))"),
        ("sig_algo", "\(number(0x34, 4))"), ("current_tcb", tcb(0x38)), ("plat_info", "\(number(0x40, 8))"),
        ("key_info", "\(number(0x48, 4))"), ("report_data", at(0x50, 64)), ("measurement", at(0x90, 48)),
        ("host_data", at(0xc0, 32)), ("id_key_digest", at(0xe0, 48)), ("author_key_digest", at(0x110, 48)),
        ("report_id", at(0x140, 32)), ("report_id_ma", at(0x160, 32)), ("reported_tcb", tcb(0x180)),
        ("cpuid_fam_id", "\(report[0x188])"), ("cpuid_mod_id", "\(report[0x189])"), ("cpuid_step", "\(report[0x18a])"),
        ("chip_id", at(0x1a0, 64)), ("committed_tcb", tcb(0x1e0)), ("current", version(0x1e8)),
        ("committed", version(0x1ec)), ("launch_tcb", tcb(0x1f0)),
        ("signature", #"{"r":\#(at(0x2a0, 72)),"s":\#(at(0x2e8, 72))}"#),
    ]
    let text = fields.map { "\"\($0.0)\":\($0.1)" }.joined(separator: ",")
    return #"{"attestation_report":{\#(text)},"cert_chain":[{"cert_type":"VCEK","data":\#(list(leaf))}]}"#
}
