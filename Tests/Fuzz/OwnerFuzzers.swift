// What a guest owner and a VMM tell each other, and what a platform shows of itself: whatever bytes come, both sides refuse
// or go on, nothing is released, and no chain but the genuine one verifies.

import Crypto
import GuestOwner
import SEVABI
import TestSupport

let ownerFuzzers = [
    Fuzzer(
        name: "owner-messages", summary: "conversations with fields at their extremes, cut short or out of order",
        smokeIterations: 1_000, generate: conversation, check: checkConversation),
    Fuzzer(
        name: "owner-certificates", summary: "a platform's chain and its root with changed bytes, or cut short",
        smokeIterations: 500, generate: certificates, check: checkCertificates),
]

/// A platform with a root of its own, made once.
private struct GenuinePlatform {
    static let shared = GenuinePlatform()

    let pdh: [UInt8]
    let chain: [UInt8]
    let ark: [UInt8]
    let ask: [UInt8]

    private init() {
        let root = RSAPrivateKey(bits: 2048, derivedFrom: [1], label: "fuzz ark")
        let signer = RSAPrivateKey(bits: 2048, derivedFrom: [1], label: "fuzz ask")
        func amd(_ usage: SEVCertificate.Usage, _ key: RSAPrivateKey, _ id: UInt8) -> [UInt8] {
            var certificate = AMDCertificate.make(
                usage: usage, keyID: [UInt8](repeating: id, count: 16), certifyingID: [UInt8](repeating: 1, count: 16),
                modulus: key.publicKey.littleEndianModulus, exponent: [1, 0, 1])
            certificate.signature = root.signPSS(certificate.signedBytes, hash: .sha256, saltByteCount: 32)
            return certificate.bytes
        }
        ark = amd(.ark, root, 1)
        ask = amd(.ask, signer, 2)
        func platform(_ usage: SEVCertificate.Usage, _ key: P384PrivateKey) -> SEVCertificate {
            .make(
                usage: usage, algorithm: usage == .pdh ? .ecdhSHA256 : .ecdsaSHA256, apiMajor: 1, apiMinor: 55,
                x: key.publicKey.littleEndianX, y: key.publicKey.littleEndianY)
        }
        func sign(
            _ certificate: inout SEVCertificate, _ usage: SEVCertificate.Usage, _ key: P384PrivateKey, slot: Int = 0
        ) {
            let (r, s) = key.sign(certificate.signedBytes, hash: .sha256)
            certificate.setSignature(.init(usage: usage, algorithm: .ecdsaSHA256, r: r, s: s), slot: slot)
        }
        let keys = ["cek", "oca", "pek", "pdh"].map { P384PrivateKey(derivedFrom: [1], label: $0) }
        var cek = platform(.cek, keys[0])
        cek.setSignature(
            .init(
                usage: .ask, algorithm: .rsaSHA256,
                rsa: signer.signPSS(cek.signedBytes, hash: .sha256, saltByteCount: 32)), slot: 0)
        var oca = platform(.oca, keys[1])
        sign(&oca, .oca, keys[1])
        var pek = platform(.pek, keys[2])
        sign(&pek, .oca, keys[1])
        sign(&pek, .cek, keys[0], slot: 1)
        var pdh = platform(.pdh, keys[3])
        sign(&pdh, .pek, keys[2])
        self.pdh = pdh.bytes
        chain = pek.bytes + oca.bytes + cek.bytes
    }

    /// Everything that the fuzzer changes: PDH, chain, ARK, ASK.
    var bytes: [UInt8] { pdh + chain + ark + ask }

    func hello(_ technology: GuestTechnology) -> OwnerMessage {
        .hello(
            OwnerHello(
                technology: technology, firmware: FirmwareVersion(apiMajor: 1, apiMinor: 55, build: 29),
                platform: SEVPlatformCertificates(pdh: pdh, chain: chain)))
    }
}

/// One to four changes.
private func change(_ bytes: inout [UInt8], _ numbers: inout SeededGenerator, at offsets: [Int]) {
    for _ in 0...numbers.below(4) where !bytes.isEmpty {
        switch numbers.below(8) {
        case 0: bytes.removeLast(numbers.below(min(bytes.count, 3000)))
        case 1: bytes += numbers.bytes(numbers.below(40))
        case 2, 3:
            let position = numbers.below(bytes.count)
            bytes[position] ^= 1 << UInt8(numbers.below(8))
        default:
            let start = offsets[numbers.below(offsets.count)] + numbers.below(4)
            if start < bytes.count { bytes[start] = numbers.edge() }
        }
    }
}

// MARK: Conversations

@Sendable private func conversation(_ numbers: inout SeededGenerator) -> [UInt8] {
    var bytes: [UInt8] = []
    var offsets: [Int] = []
    for index in 0...numbers.below(3) {
        let technology: GuestTechnology = numbers.below(8) == 0 ? .snp : .sev
        let packet = SEVSecretPacket(
            header: numbers.bytes(SEVSecretHeader.byteCount), payload: numbers.bytes(16 * (1 + numbers.below(3))))
        let measurement = OwnerMeasurement(
            firmware: FirmwareVersion(apiMajor: 1, apiMinor: 55, build: 29),
            policy: SEVPolicy(rawValue: numbers.below(2) == 0 ? 1 : numbers.edge()),
            measurement: SEVMeasurement(measure: numbers.bytes(32), nonce: numbers.bytes(16)))
        let session = SEVLaunchSession(
            policy: SEVPolicy(rawValue: numbers.edge()), ownerCertificate: numbers.bytes(SEVCertificate.byteCount),
            session: numbers.bytes(SEVLaunchSessionBlob.byteCount))
        let messages: [OwnerMessage] = [
            GenuinePlatform.shared.hello(technology), .measurement(measurement), .session(session),
            .secrets([SEVSecretPacket](repeating: packet, count: numbers.below(4))),
            .refusal(OwnerRefusal(.policy, reason: "no")),
        ]
        offsets += [0, 4, 8, 12, 16, 20].map { bytes.count + $0 }
        // The usual order half of the time.
        bytes += messages[numbers.below(2) == 0 ? min(index, 1) : numbers.below(messages.count)].bytes
    }
    if numbers.below(4) != 0 { change(&bytes, &numbers, at: offsets) }
    return bytes
}

@Sendable private func checkConversation(_ bytes: [UInt8]) -> Outcome {
    guard
        let roots = try? RootCertificates(
            ark: GenuinePlatform.shared.ark, ask: GenuinePlatform.shared.ask, isNamed: true),
        let launch = try? ExpectedLaunch(technology: .sev, digest: [UInt8](repeating: 7, count: 32))
    else { return .impossible("the genuine root is refused") }
    var reception = OwnerReception(
        OwnerOffer(
            launch: launch, policy: SEVPolicy(rawValue: 1), verifier: PlatformVerifier(roots: roots),
            secrets: [.init(guid: SecretTable.diskPassphrase, data: SecretBytes([1, 2, 3]))], secretAreaByteCount: 4080)
    )
    var decoder = OwnerMessageDecoder()
    decoder.append(bytes)
    var kinds = ""
    var position = 0
    do throws(OwnerError) {
        while let message = try decoder.next() {
            kinds += " " + message.name
            if case .refusal = message {
                // Its text may have been repaired: what follows lies elsewhere.
                position = bytes.count
            } else {
                let frame = message.bytes
                if !bytes.dropFirst(position).starts(with: frame) {
                    return .impossible("\(message.name) was read from other bytes than it has")
                }
                position += frame.count
            }
            let answer = reception.answer(to: message)
            // Nobody can guess a MAC under keys that were made a moment ago.
            if answer.released { return .impossible("released for a measurement that nobody made") }
            if let reply = answer.message {
                var other = OwnerMessageDecoder()
                other.append(reply.bytes)
                guard (try? other.next()) != nil else { return .impossible("an answer that is no message") }
            }
            if answer.isLast { return takeAsAnswers(bytes) ?? .fine("ended by" + kinds) }
        }
    } catch {
        guard error.category == .message else { return .impossible("a decoder's error of another category: \(error)") }
        return takeAsAnswers(bytes) ?? .fine("broken after" + kinds)
    }
    return takeAsAnswers(bytes) ?? .uninteresting("incomplete after" + kinds)
}

/// The same bytes as an owner's answers to a VMM.
private func takeAsAnswers(_ bytes: [UInt8]) -> Outcome? {
    var rest = bytes[...]
    var conversation = OwnerConversation(
        read: { () throws(OwnerError) in
            defer { rest = rest.dropFirst(700) }
            return Array(rest.prefix(700))
        }, write: { _ throws(OwnerError) in })
    guard case .hello(let hello) = GenuinePlatform.shared.hello(.sev) else { return nil }
    guard let session = try? conversation.session(for: hello) else { return nil }
    if session.session.count != SEVLaunchSessionBlob.byteCount { return .impossible("a session of another length") }
    let measurement = OwnerMeasurement(
        firmware: hello.firmware, policy: session.policy,
        measurement: SEVMeasurement(
            measure: [UInt8](repeating: 0, count: 32), nonce: [UInt8](repeating: 0, count: 16)))
    guard let packets = try? conversation.secrets(after: measurement) else { return nil }
    let areWhole = packets.allSatisfy { SEVSecretPacket(bytes: $0.bytes) != nil }
    return areWhole ? .fine("answers taken") : .impossible("a packet of another length")
}

// MARK: Certificates

@Sendable private func certificates(_ numbers: inout SeededGenerator) -> [UInt8] {
    var bytes = GenuinePlatform.shared.bytes
    let fields = [0, 4, 8, 12, 16, 20, 0x5c, 0x414, 0x418, 0x41c, 0x61c, 0x620, 0x624]
    let amdFields = [0, 4, 0x14, 0x24, 0x28, 0x38, 0x3c, 0x40, 0x140, 0x240]
    var offsets: [Int] = []
    for part in 0..<4 { offsets += fields.map { part * SEVCertificate.byteCount + $0 } }
    for part in 0..<2 { offsets += amdFields.map { 4 * SEVCertificate.byteCount + part * 832 + $0 } }
    if numbers.below(16) != 0 { change(&bytes, &numbers, at: offsets) }
    return bytes
}

@Sendable private func checkCertificates(_ bytes: [UInt8]) -> Outcome {
    let isGenuine = bytes == GenuinePlatform.shared.bytes
    func part(_ start: Int, _ end: Int) -> [UInt8] { Array(bytes.dropFirst(start).prefix(end - start)) }
    let certificates = 4 * SEVCertificate.byteCount
    do throws(OwnerError) {
        let roots = try RootCertificates(
            ark: part(certificates, certificates + 832), ask: part(certificates + 832, .max), isNamed: true)
        let platform = SEVPlatformCertificates(
            pdh: part(0, SEVCertificate.byteCount), chain: part(SEVCertificate.byteCount, certificates))
        _ = try PlatformVerifier(roots: roots).verify(platform)
        return isGenuine ? .fine("verified") : .impossible("a changed chain verified")
    } catch {
        if isGenuine { return .impossible("the genuine chain is refused: \(error)") }
        guard error.category == .certificate, "\(error)".contains("Next step") else {
            return .impossible("a refusal without a next step: \(error)")
        }
        return .fine("refused \(error.subject)")
    }
}
