import Crypto
import MemoryController
import SEVABI
import SoftwarePSP

/// A platform and a driver for its SEV and SEV-ES side.
struct SEVMachine {
    let memory: SystemMemory
    let processor: SecureProcessor
    /// SNP is initialised: results need firmware pages.
    let hasSNP: Bool

    init(
        initialized: Bool = true, es: Bool = true, snp: Bool = false, seed: UInt8 = 1, storage: PlatformStorage? = nil,
        _ change: (inout PlatformProfile) -> Void = { _ in }
    ) throws {
        memory = try SystemMemory(byteCount: 16 << 20)
        var profile = PlatformProfile.milan(cpuid: Platform.cpuid)
        change(&profile)
        processor = SecureProcessor(memory: memory, profile: profile, entropy: .seed([seed]), storage: storage)
        hasSNP = snp
        if snp { precondition(run(.snpInitializeEx, SNPInitEx().bytes).status == .success) }
        if initialized { precondition(initialize(es: es) == .success) }
    }

    func run(_ command: SEVCommand, _ bytes: [UInt8] = []) -> (status: SEVStatus, bytes: [UInt8]) {
        var buffer = bytes
        let status = processor.submit(command, &buffer)
        return (status, buffer)
    }

    func initialize(es: Bool = true) -> SEVStatus {
        let region = memory.allocatePages(256, alignment: 256)!
        if hasSNP {
            for page in 0..<256 as Range<UInt64> {
                precondition(
                    memory.rmpUpdate(region + page << 12, RMPUpdate(assigned: true, immutable: true)) == .success)
            }
        }
        return run(
            .initialize, SEVInit(flags: es ? 1 : 0, tmrAddress: region, tmrByteCount: 1 << 20).bytes
        ).status
    }

    var state: String { processor.stateDescription() }

    // MARK: Memory

    /// Pages with contents.
    func pages(_ contents: [UInt8]) -> SPA {
        let spa = memory.allocatePages(max(1, (contents.count + 4095) / 4096))!
        if !contents.isEmpty { precondition(memory.firmwareWrite(spa, contents)) }
        return spa
    }

    /// Pages that the firmware may write results to.
    func output(_ pageCount: Int = 1) -> SPA {
        let spa = memory.allocatePages(pageCount)!
        if hasSNP {
            for page in 0..<UInt64(pageCount) {
                precondition(
                    memory.rmpUpdate(spa + page << 12, RMPUpdate(assigned: true, immutable: true)) == .success)
            }
        }
        return spa
    }

    func read(_ spa: SPA, _ byteCount: Int) -> [UInt8] { memory.hostSnapshot(spa: spa, byteCount: byteCount)! }

    /// Digest of everything that tests of one command allocate, as DRAM has it.
    func dram(pageCount: Int = 300) -> [UInt8] { SHA2Hasher(.sha256).hash(read(memory.base, pageCount * 4096)) }

    // MARK: Guests

    func start(policy: UInt32 = 0, sharing handle: UInt32 = 0) -> (status: SEVStatus, handle: UInt32) {
        let result = run(.launchStart, SEVLaunchStart(handle: handle, policy: policy).bytes)
        return (result.status, SEVLaunchStart(bytes: result.bytes)!.handle)
    }

    func start(
        policy: UInt32, certificate: [UInt8], session: [UInt8]
    ) -> (status: SEVStatus, handle: UInt32) {
        let result = run(
            .launchStart,
            SEVLaunchStart(
                policy: policy, certificateAddress: pages(certificate), certificateByteCount: UInt32(certificate.count),
                sessionAddress: pages(session), sessionByteCount: UInt32(session.count)
            ).bytes)
        return (result.status, SEVLaunchStart(bytes: result.bytes)!.handle)
    }

    func activate(_ handle: UInt32, _ asid: UInt32) -> SEVStatus {
        run(.activate, SEVActivate(handle: handle, asid: asid).bytes).status
    }

    func update(
        _ handle: UInt32, _ spa: SPA, _ byteCount: Int, _ command: SEVCommand = .launchUpdateData
    ) -> SEVStatus {
        run(command, SEVLaunchUpdate(handle: handle, address: spa, byteCount: UInt32(byteCount)).bytes).status
    }

    func measure(_ handle: UInt32) -> (status: SEVStatus, blob: [UInt8]) {
        let spa = output()
        let result = run(.launchMeasure, SEVLaunchMeasure(handle: handle, address: spa, byteCount: 48).bytes)
        return (result.status, read(spa, 48))
    }

    func handleCommand(_ command: SEVCommand, _ handle: UInt32) -> SEVStatus {
        run(command, SEVHandleBuffer(handle: handle).bytes).status
    }

    func secret(_ handle: UInt32, header: [UInt8], payload: [UInt8], to spa: SPA) -> SEVStatus {
        run(
            .launchSecret,
            SEVLaunchSecret(
                handle: handle, headerAddress: pages(header), headerByteCount: UInt32(header.count), guestAddress: spa,
                guestByteCount: UInt32(payload.count), transportAddress: pages(payload),
                transportByteCount: UInt32(payload.count)
            ).bytes
        ).status
    }

    /// What the guest reads.
    func guestBytes(_ spa: SPA, asid: UInt32, _ byteCount: Int = 4096) -> [UInt8]? {
        guard case .page(let pointer, _) = memory.encryptedPage(spa, asid: asid) else { return nil }
        return (0..<byteCount).map { unsafe pointer.load(fromByteOffset: $0, as: UInt8.self) }
    }

    // MARK: Certificates

    /// PDH, and PEK ‖ OCA ‖ CEK.
    func certificates() -> (pdh: [UInt8], chain: [UInt8]) {
        let pdh = output()
        let chain = output(2)
        let result = run(
            .pdhCertificateExport,
            SEVPDHCertificateExport(pdhAddress: pdh, pdhByteCount: 2084, chainAddress: chain, chainByteCount: 6252)
                .bytes)
        precondition(result.status == .success)
        return (read(pdh, 2084), read(chain, 6252))
    }

    func signingRequest() -> [UInt8] {
        let page = output()
        precondition(
            run(.pekCSR, SEVOutputBuffer(address: page, byteCount: 2084).bytes).status == .success)
        return read(page, 2084)
    }

    func importCertificates(pek: [UInt8], oca: [UInt8]) -> SEVStatus {
        run(
            .pekCertificateImport,
            SEVPEKCertificateImport(
                pekAddress: pages(pek), pekByteCount: UInt32(pek.count), ocaAddress: pages(oca),
                ocaByteCount: UInt32(oca.count)
            ).bytes
        ).status
    }
}

/// Somebody who wants to own a platform.
struct ExternalOwner {
    let key = P384PrivateKey(derivedFrom: [1, 2, 3], label: "external owner")

    /// The self-signed authority.
    var oca: SEVCertificate {
        var certificate = SEVCertificate.make(
            usage: .oca, algorithm: .ecdsaSHA256, apiMajor: 1, apiMinor: 55, x: key.publicKey.littleEndianX,
            y: key.publicKey.littleEndianY)
        sign(&certificate)
        return certificate
    }

    func sign(_ certificate: inout SEVCertificate, slot: Int = 0) {
        let (r, s) = key.sign(certificate.signedBytes, hash: .sha256)
        certificate.setSignature(.init(usage: .oca, algorithm: .ecdsaSHA256, r: r, s: s), slot: slot)
    }

    func signed(request: [UInt8], slot: Int = 0) -> [UInt8] {
        var certificate = SEVCertificate(bytes: request)!
        sign(&certificate, slot: slot)
        return certificate.bytes
    }
}

/// A guest owner's side of the session, written out step by step.
struct SessionMaker {
    let key = P384PrivateKey(derivedFrom: [9], label: "guest owner")
    let tek = [UInt8](0x10..<0x20)
    let tik = [UInt8](0x30..<0x40)
    let nonce = [UInt8](0x50..<0x60)
    let iv = [UInt8](0x70..<0x80)

    var certificate: SEVCertificate {
        .make(
            usage: .pdh, algorithm: .ecdhSHA256, apiMajor: 1, apiMinor: 55, x: key.publicKey.littleEndianX,
            y: key.publicKey.littleEndianY)
    }

    func session(for pdh: [UInt8], policy: UInt32) -> SEVLaunchSessionBlob {
        let field = SEVCertificate(bytes: pdh)!.publicKey
        let z = key.sharedSecret(with: P384PublicKey(littleEndianX: field.x, y: field.y)!)!
        let master = CounterKDF.derive(key: z, label: "sev-master-secret", context: nonce, byteCount: 16)
        let kek = CounterKDF.derive(key: master, label: "sev-kek", byteCount: 16)
        let kik = CounterKDF.derive(key: master, label: "sev-kik", byteCount: 16)
        let wrapped = AES128CTR.apply(key: kek, counter: iv, to: tek + tik)
        return SEVLaunchSessionBlob(
            nonce: nonce, wrappedKeys: wrapped, wrapIV: iv, wrapMAC: HMACSHA256.authenticate(wrapped, key: kik),
            policyMAC: HMACSHA256.authenticate(littleEndian(policy), key: tik))
    }

    /// Header of a secret packet.
    func header(payload: [UInt8], flags: UInt32 = 0, measure: [UInt8]) -> [UInt8] {
        let iv = [UInt8](0x90..<0xa0)
        let count = UInt32(payload.count)
        let message =
            [1] + littleEndian(flags) + iv + littleEndian(count) + littleEndian(count) + payload + Array(measure[..<32])
        return littleEndian(flags) + iv + HMACSHA256.authenticate(message, key: tik)
    }

    func encipher(_ plaintext: [UInt8]) -> [UInt8] {
        AES128CTR.apply(key: tek, counter: [UInt8](0x90..<0xa0), to: plaintext)
    }
}

func littleEndian(_ value: UInt32) -> [UInt8] { (0..<4).map { UInt8(truncatingIfNeeded: value >> (8 * $0)) } }
