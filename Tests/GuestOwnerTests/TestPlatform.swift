import Crypto
import GuestImage
import GuestOwner
import SEVABI
import TestSupport
import X86Defs

/// A platform made here, with its keys: what a real one keeps in its chip.
struct TestPlatform {
    /// Once for all tests: making RSA keys takes a while.
    static let root = RSAPrivateKey(bits: 2048, derivedFrom: [1], label: "test ark")
    static let signer = RSAPrivateKey(bits: 2048, derivedFrom: [2], label: "test ask")
    static let arkID = [UInt8](repeating: 0xa1, count: 16)
    static let askID = [UInt8](repeating: 0xa2, count: 16)
    static let ark = amd(.ark, arkID, root)
    static let ask = amd(.ask, askID, signer)

    let cekKey, ocaKey, pekKey, pdhKey: P384PrivateKey
    var cek, oca, pek, pdh: SEVCertificate

    init(seed: UInt8 = 0) {
        func key(_ label: String) -> P384PrivateKey { P384PrivateKey(derivedFrom: [seed, 9], label: label) }
        (cekKey, ocaKey, pekKey, pdhKey) = (key("cek"), key("oca"), key("pek"), key("pdh"))
        cek = Self.certificate(.cek, cekKey)
        oca = Self.certificate(.oca, ocaKey)
        pek = Self.certificate(.pek, pekKey)
        pdh = Self.certificate(.pdh, pdhKey)
        cek.setSignature(Self.rsa(cek), slot: 0)
        oca.setSignature(Self.ecdsa(oca, .oca, ocaKey), slot: 0)
        pek.setSignature(Self.ecdsa(pek, .oca, ocaKey), slot: 0)
        pek.setSignature(Self.ecdsa(pek, .cek, cekKey), slot: 1)
        pdh.setSignature(Self.ecdsa(pdh, .pek, pekKey), slot: 0)
    }

    var certificates: SEVPlatformCertificates {
        SEVPlatformCertificates(pdh: pdh.bytes, chain: pek.bytes + oca.bytes + cek.bytes)
    }

    static func roots() throws -> RootCertificates {
        try RootCertificates(ark: ark.bytes, ask: ask.bytes, isNamed: true)
    }

    static func amd(
        _ usage: SEVCertificate.Usage, _ id: [UInt8], _ key: RSAPrivateKey, certifying: [UInt8] = arkID,
        signer: RSAPrivateKey = root
    ) -> AMDCertificate {
        var certificate = AMDCertificate.make(
            usage: usage, keyID: id, certifyingID: certifying, modulus: key.publicKey.littleEndianModulus,
            exponent: key.publicKey.littleEndianExponent)
        certificate.signature = signer.signPSS(certificate.signedBytes, hash: .sha256, saltByteCount: 32)
        return certificate
    }

    static func certificate(_ usage: SEVCertificate.Usage, _ key: P384PrivateKey) -> SEVCertificate {
        .make(
            usage: usage, algorithm: usage == .pdh ? .ecdhSHA256 : .ecdsaSHA256, apiMajor: 1, apiMinor: 55,
            x: key.publicKey.littleEndianX, y: key.publicKey.littleEndianY)
    }

    static func ecdsa(
        _ certificate: SEVCertificate, _ usage: SEVCertificate.Usage, _ key: P384PrivateKey
    ) -> SEVCertificate.Signature {
        let signature = key.sign(certificate.signedBytes, hash: .sha256)
        return .init(usage: usage, algorithm: .ecdsaSHA256, r: signature.r, s: signature.s)
    }

    static func rsa(_ certificate: SEVCertificate) -> SEVCertificate.Signature {
        .init(
            usage: .ask, algorithm: .rsaSHA256,
            rsa: signer.signPSS(certificate.signedBytes, hash: .sha256, saltByteCount: 32))
    }
}

/// The firmware's part of a launch, written here a second time: unwrap, measure, decrypt. Nil where it would refuse.
struct TestFirmware {
    var tek: [UInt8]
    var tik: [UInt8]
    let policy: SEVPolicy

    init?(_ pdh: P384PrivateKey, _ launch: SEVLaunchSession) {
        guard let godh = SEVCertificate(bytes: launch.ownerCertificate),
            let key = P384PublicKey(littleEndianX: godh.publicKey.x, y: godh.publicKey.y),
            let z = pdh.sharedSecret(with: key), let session = SEVLaunchSessionBlob(bytes: launch.session)
        else { return nil }
        let master = CounterKDF.derive(key: z, label: "sev-master-secret", context: session.nonce, byteCount: 16)
        let kek = CounterKDF.derive(key: master, label: "sev-kek", byteCount: 16)
        let kik = CounterKDF.derive(key: master, label: "sev-kik", byteCount: 16)
        guard HMACSHA256.authenticate(session.wrappedKeys, key: kik) == session.wrapMAC else { return nil }
        let keys = AES128CTR.apply(key: kek, counter: session.wrapIV, to: session.wrappedKeys)
        tek = Array(keys.prefix(16))
        tik = Array(keys.suffix(16))
        policy = launch.policy
        guard HMACSHA256.authenticate(policy.littleEndianBytes, key: tik) == session.policyMAC else { return nil }
    }

    func measure(
        _ digest: [UInt8], _ version: FirmwareVersion, policy: SEVPolicy? = nil, nonce: [UInt8] = Array(0..<16)
    ) -> SEVMeasurement {
        let message =
            [4, version.apiMajor, version.apiMinor, version.build] + (policy ?? self.policy).littleEndianBytes + digest
            + nonce
        return SEVMeasurement(measure: HMACSHA256.authenticate(message, key: tik), nonce: nonce)
    }

    /// The plaintext of a packet.
    func open(_ packet: SEVSecretPacket, _ measurement: SEVMeasurement) -> [UInt8]? {
        guard let header = SEVSecretHeader(bytes: packet.header) else { return nil }
        var message: [UInt8] = [1] + packet.header.prefix(20)
        for _ in 0..<2 { message += (0..<4).map { UInt8(truncatingIfNeeded: packet.payload.count >> (8 * $0)) } }
        message += packet.payload + measurement.measure
        guard HMACSHA256.authenticate(message, key: tik) == header.mac else { return nil }
        return AES128CTR.apply(key: tek, counter: header.iv, to: packet.payload)
    }
}

/// A small launch: two regions, two processors.
func testPlan(_ technology: GuestTechnology, processorCount: Int = 2) -> LaunchPlan {
    func region(_ label: String, _ byte: UInt8) -> LaunchPlan.Region {
        LaunchPlan.Region(
            label: label, pageType: .normal, gpa: UInt64(byte) << 12, byteCount: 4096,
            contents: [UInt8](repeating: byte, count: 4096))
    }
    return LaunchPlan(
        regions: [region("kernel", 1), region("initrd", 2)],
        processors: [ProcessorState](repeating: ProcessorState(), count: processorCount), guestFeatures: 0,
        policy: technology == .sevES ? 5 : 1, technology: technology,
        secretArea: LaunchPlan.SecretArea(gpa: 0x5010, byteCount: 4080))
}

let testVersion = FirmwareVersion(apiMajor: 1, apiMinor: 55, build: 29)
