import Crypto
import MemoryController
import SEVABI
import SoftwarePSP
import Testing

/// The platform's keys and certificates, who owns it, and what it remembers.
@Suite("SEV platform keys")
struct SEVPlatformTests {
    /// The four certificates that a platform exports.
    struct Chain {
        let pdh, pek, oca, cek: SEVCertificate

        init(_ machine: SEVMachine) throws {
            let (pdh, chain) = machine.certificates()
            func certificate(_ bytes: [UInt8]) throws -> SEVCertificate { try #require(SEVCertificate(bytes: bytes)) }
            self.pdh = try certificate(pdh)
            pek = try certificate(Array(chain[0..<2084]))
            oca = try certificate(Array(chain[2084..<4168]))
            cek = try certificate(Array(chain[4168..<6252]))
        }

        static func key(_ certificate: SEVCertificate) throws -> P384PublicKey {
            try #require(P384PublicKey(littleEndianX: certificate.publicKey.x, y: certificate.publicKey.y))
        }

        /// That a slot holds the signature of a key.
        static func isSigned(_ certificate: SEVCertificate, slot: Int, by signer: SEVCertificate) throws -> Bool {
            let signature = certificate.signature(slot: slot)
            guard signature.usage == signer.usage, signature.algorithm == .ecdsaSHA256 else { return false }
            return try key(signer).isValidSignature(
                littleEndianR: signature.value.r, s: signature.value.s, of: Array(certificate.bytes[..<0x414]),
                hash: .sha256)
        }
    }

    // MARK: Certificates

    @Test("a platform's chain: usages, algorithms, signatures, and nothing else in the bytes")
    func chain() throws {
        let machine = try SEVMachine()
        let chain = try Chain(machine)
        let expected: [(SEVCertificate, SEVCertificate.Usage, SEVCertificate.Algorithm)] = [
            (chain.pdh, .pdh, .ecdhSHA256), (chain.pek, .pek, .ecdsaSHA256), (chain.oca, .oca, .ecdsaSHA256),
            (chain.cek, .cek, .ecdsaSHA256),
        ]
        for (certificate, usage, algorithm) in expected {
            #expect(certificate.version == 1 && certificate.apiMajor == 1 && certificate.apiMinor == 55)
            #expect(certificate.usage == usage && certificate.algorithm == algorithm)
            #expect(certificate.publicKey.curve == 2)
            #expect(certificate.bytes[0x10 + 148..<0x414].allSatisfy { $0 == 0 })
            for signature in certificate.signatures {
                #expect(signature.value.bytes[144...].allSatisfy { $0 == 0 })
            }
        }
        #expect(try Chain.isSigned(chain.pdh, slot: 0, by: chain.pek))
        #expect(chain.pdh.signature(slot: 1) == .init())
        #expect(try Chain.isSigned(chain.pek, slot: 0, by: chain.oca))
        #expect(try Chain.isSigned(chain.pek, slot: 1, by: chain.cek))
        #expect(try Chain.isSigned(chain.oca, slot: 0, by: chain.oca))
        #expect(chain.oca.signature(slot: 1) == .init())
        #expect(chain.cek.signatures == [.init(), .init()], "the manufacturer's to sign")
        // Twice the same bytes, and the same for the same seed; another chip is another platform.
        #expect(machine.certificates().chain == machine.certificates().chain)
        #expect(try SEVMachine().certificates() == machine.certificates())
        let other = try Chain(SEVMachine(seed: 2))
        for (one, two) in [
            (chain.pdh, other.pdh), (chain.pek, other.pek), (chain.oca, other.oca), (chain.cek, other.cek),
        ] {
            #expect(one.publicKey != two.publicKey)
        }
    }

    @Test("PEK_CSR is the PEK without signatures")
    func signingRequest() throws {
        let machine = try SEVMachine()
        let request = try #require(SEVCertificate(bytes: machine.signingRequest()))
        let chain = try Chain(machine)
        #expect(request.bytes[..<0x414] == chain.pek.bytes[..<0x414])
        #expect(request.signatures == [.init(), .init()])
    }

    @Test("GET_ID: 64 bytes per socket, the chip's for ever")
    func identifier() throws {
        func identifier(_ machine: SEVMachine, _ count: Int) -> [UInt8] {
            let page = machine.output()
            let result = machine.run(.getID, SEVOutputBuffer(address: page, byteCount: 4096).bytes)
            #expect(result.status == .success)
            #expect(SEVOutputBuffer(bytes: result.bytes)?.byteCount == UInt32(count))
            return machine.read(page, count + 1)
        }
        let machine = try SEVMachine()
        let one = identifier(machine, 64)
        #expect(one[64] == 0 && Set(one).count > 16)
        #expect(machine.run(.pekGenerate).status == .success)
        #expect(machine.run(.shutdown).status == .success)
        #expect(machine.run(.platformReset).status == .success)
        #expect(identifier(machine, 64) == one)
        let two = identifier(try SEVMachine { $0.socketCount = 2 }, 128)
        #expect(two[..<64] == one[..<64] && two[64..<128] != one[..<64])
        #expect(identifier(try SEVMachine(seed: 2), 64) != one)
    }

    @Test("which keys PEK_GEN, PDH_GEN and PLATFORM_RESET change")
    func newKeys() throws {
        let machine = try SEVMachine()
        let first = try Chain(machine)
        #expect(machine.run(.pdhGenerate).status == .success)
        let second = try Chain(machine)
        #expect(second.pdh.publicKey != first.pdh.publicKey)
        #expect(second.pek == first.pek && second.oca == first.oca && second.cek == first.cek)
        #expect(try Chain.isSigned(second.pdh, slot: 0, by: second.pek))
        #expect(machine.run(.pekGenerate).status == .success)
        let third = try Chain(machine)
        #expect(third.pdh.publicKey != second.pdh.publicKey && third.pek.publicKey != second.pek.publicKey)
        #expect(third.oca.publicKey != second.oca.publicKey && third.cek == second.cek)
        #expect(machine.run(.shutdown).status == .success)
        #expect(machine.run(.platformReset).status == .success)
        #expect(machine.initialize() == .success)
        let fourth = try Chain(machine)
        #expect(fourth.pdh.publicKey != third.pdh.publicKey && fourth.pek.publicKey != third.pek.publicKey)
        #expect(fourth.oca.publicKey != third.oca.publicKey && fourth.cek == third.cek)
        for chain in [third, fourth] {
            #expect(try Chain.isSigned(chain.pek, slot: 0, by: chain.oca))
            #expect(try Chain.isSigned(chain.pek, slot: 1, by: chain.cek))
        }
    }

    // MARK: Owners

    @Test("an external owner: import, export, reset", arguments: [0, 1])
    func externalOwner(slot: Int) throws {
        let machine = try SEVMachine()
        let owner = ExternalOwner()
        let before = try Chain(machine)
        let pek = owner.signed(request: machine.signingRequest(), slot: slot)
        #expect(machine.importCertificates(pek: pek, oca: owner.oca.bytes) == .success)
        let after = try Chain(machine)
        #expect(after.oca == owner.oca)
        #expect(after.pek.publicKey == before.pek.publicKey && after.pdh == before.pdh && after.cek == before.cek)
        #expect(try Chain.isSigned(after.pek, slot: 0, by: owner.oca), "whichever slot it came in")
        #expect(try Chain.isSigned(after.pek, slot: 1, by: after.cek))
        #expect(machine.importCertificates(pek: pek, oca: owner.oca.bytes) == .alreadyOwned)
        #expect(machine.run(.shutdown).status == .success)
        #expect(machine.processor.platformStatus().isExternallyOwned)
        #expect(machine.initialize() == .success)
        #expect(try Chain(machine).oca == owner.oca, "SHUTDOWN forgets no owner")
        #expect(machine.run(.shutdown).status == .success)
        #expect(machine.run(.platformReset).status == .success)
        #expect(!machine.processor.platformStatus().isExternallyOwned)
        #expect(machine.initialize() == .success)
        #expect(try Chain(machine).oca != owner.oca)
    }

    @Test("PEK_CERT_IMPORT refuses every flipped byte, and wrong lengths and addresses")
    func importRefusals() throws {
        let machine = try SEVMachine()
        let owner = ExternalOwner()
        let pek = owner.signed(request: machine.signingRequest())
        let oca = owner.oca.bytes
        let pages = (machine.pages(pek), machine.pages(oca))
        let good = SEVPEKCertificateImport(
            pekAddress: pages.0, pekByteCount: 2084, ocaAddress: pages.1, ocaByteCount: 2084)
        let scene = SEVStateTests.Scene(machine)
        let state = machine.state
        // Signatures are 144 bytes; every fourth byte of the zeroes behind them is enough.
        let indices = (0..<2084).filter { index in
            let offset = index < 0x61c ? index - 0x414 : index - 0x61c
            return offset < 152 || offset % 4 == 0
        }
        for (address, bytes) in [(pages.0, pek), (pages.1, oca)] {
            for index in indices {
                try machine.memory.hostWrite(address + UInt64(index), [bytes[index] ^ 1 << UInt8(index % 8)])
                let status = machine.run(.pekCertificateImport, good.bytes).status
                #expect(
                    status == .invalidCertificate || status == .badSignature,
                    "\(address == pages.0 ? "PEK" : "OCA") byte \(index): \(status)")
                try machine.memory.hostWrite(address + UInt64(index), [bytes[index]])
            }
        }
        #expect(machine.state == state)
        let end = machine.memory.base + machine.memory.byteCount
        for length: UInt32 in [0, 1, 2083, 2085, .max] {
            var buffer = good
            buffer.pekByteCount = length
            scene.check(.pekCertificateImport, buffer.bytes, .invalidLength, "PEK \(length)")
            buffer = good
            buffer.ocaByteCount = length
            scene.check(.pekCertificateImport, buffer.bytes, .invalidLength, "OCA \(length)")
        }
        for address in [SPA.zero, end, SPA(rawValue: end.rawValue - 2083), SPA(rawValue: .max)] {
            var buffer = good
            buffer.pekAddress = address
            scene.check(.pekCertificateImport, buffer.bytes, .invalidAddress, "PEK \(address)")
            buffer = good
            buffer.ocaAddress = address
            scene.check(.pekCertificateImport, buffer.bytes, .invalidAddress, "OCA \(address)")
        }
        // The certificates of somebody else.
        let other = owner.signed(request: try SEVMachine(seed: 2).signingRequest())
        #expect(machine.importCertificates(pek: other, oca: oca) == .invalidCertificate)
        #expect(machine.importCertificates(pek: oca, oca: oca) == .invalidCertificate)
        #expect(machine.importCertificates(pek: pek, oca: pek) == .invalidCertificate)
        #expect(machine.importCertificates(pek: machine.signingRequest(), oca: oca) == .badSignature, "unsigned")
        let chain = try Chain(machine)
        #expect(machine.importCertificates(pek: pek, oca: chain.oca.bytes) == .badSignature, "another OCA")
        #expect(machine.state == state)
        #expect(machine.run(.pekCertificateImport, good.bytes).status == .success)
    }

    // MARK: Storage

    private func fresh(_ seed: UInt8 = 3) throws -> [UInt8] {
        let saved = Mailbox()
        _ = try PlatformStorage(bytes: [], entropy: .seed([seed])) { saved.bytes = $0 }
        return saved.bytes
    }

    @Test("what is saved makes the same platform again")
    func storage() throws {
        let saved = Mailbox()
        func machine() throws -> SEVMachine {
            let storage = try PlatformStorage(bytes: saved.bytes, entropy: .seed([3])) {
                saved.bytes = $0
                saved.count += 1
            }
            return try SEVMachine(seed: UInt8(saved.count), storage: storage)
        }
        let first = try machine()
        #expect(saved.count == 1 && saved.bytes.count == 4392)
        let certificates = first.certificates()
        let again = try machine()
        #expect(saved.count == 1, "nothing changed")
        #expect(again.certificates() == certificates)
        #expect(again.run(.pdhGenerate).status == .success)
        #expect(saved.count == 2)
        #expect(try machine().certificates() == again.certificates())
        #expect(again.certificates().pdh != certificates.pdh && again.certificates().chain == certificates.chain)
        // An owner.
        let owner = ExternalOwner()
        let pek = owner.signed(request: again.signingRequest())
        #expect(again.importCertificates(pek: pek, oca: owner.oca.bytes) == .success)
        #expect(saved.count == 3)
        let owned = try machine()
        #expect(owned.processor.platformStatus().isExternallyOwned)
        #expect(owned.certificates() == again.certificates())
        #expect(owned.importCertificates(pek: pek, oca: owner.oca.bytes) == .alreadyOwned)
        // Self-owned again.
        #expect(owned.run(.pekGenerate).status == .success)
        #expect(saved.count == 4)
        #expect(try !machine().processor.platformStatus().isExternallyOwned)
        // Sessions are for the stored PDH, whatever else the machine draws.
        let maker = SessionMaker()
        let session = maker.session(for: try machine().certificates().pdh, policy: 0).bytes
        #expect(
            try machine().start(policy: 0, certificate: maker.certificate.bytes, session: session).status == .success)
    }

    @Test("hostile bytes are no platform: truncated, longer, flipped, of another version, inconsistent")
    func hostileStorage() throws {
        let good = try fresh()
        func error(_ bytes: [UInt8]) -> PlatformStorageError? {
            do throws(PlatformStorageError) {
                _ = try PlatformStorage(bytes: bytes) { _ in Issue.record("saved what is not ours") }
                return nil
            } catch {
                return error
            }
        }
        #expect(error(good) == nil)
        for count in 1..<good.count {
            #expect(error(Array(good.prefix(count))) == .notPlatformState(byteCount: count))
        }
        #expect(error(good + [0]) == .notPlatformState(byteCount: good.count + 1))
        for index in good.indices {
            var bytes = good
            bytes[index] ^= 1 << UInt8(index % 8)
            let found = error(bytes)
            switch index {
            case 0..<8: #expect(found == .notPlatformState(byteCount: good.count))
            case 8..<12: if case .version? = found {} else { Issue.record("\(index)") }
            default: if case .damaged? = found {} else { Issue.record("\(index)") }
            }
        }
        /// With a checksum that fits.
        func sealed(_ change: (inout [UInt8]) -> Void) -> [UInt8] {
            var bytes = Array(good.dropLast(32))
            change(&bytes)
            return bytes + SHA2Hasher(.sha256).hash(bytes)
        }
        #expect(error(sealed { _ in }) == nil)
        let changes: [(inout [UInt8]) -> Void] = [
            { $0[0xc] = 2 }, { $0[0xf] = 0x80 },
            // Owned, but without the owner's certificates.
            { $0[0xc] = 1 },
            // Certificates without an owner.
            { $0[0xc0] = 1 }, { $0[0x1107] = 1 },
            // Private keys of zero, and of more than the group has.
            { for index in 0x30..<0x60 { $0[index] = 0 } }, { for index in 0x60..<0x90 { $0[index] = 0xff } },
            { for index in 0x90..<0xc0 { $0[index] = 0 } },
        ]
        for (index, change) in changes.enumerated() {
            if case .damaged? = error(sealed(change)) {} else { Issue.record("change \(index)") }
        }
        for error in [
            PlatformStorageError.notPlatformState(byteCount: 7), .version(9), .damaged("its checksum does not match"),
        ] {
            #expect(error.description.contains("platform state") && error.description.contains("ikely"))
        }
        #expect(PlatformStorage.replacing(pdh: [1, 2], in: good) == nil)
        #expect(PlatformStorage.replacing(pdh: [UInt8](repeating: 1, count: 48), in: [1]) == nil)
    }

    @Test("an owner's certificates in storage must fit the keys")
    func ownedStorage() throws {
        let saved = Mailbox()
        let storage = try PlatformStorage(bytes: [], entropy: .seed([3])) { saved.bytes = $0 }
        let machine = try SEVMachine(storage: storage)
        let owner = ExternalOwner()
        let pek = owner.signed(request: machine.signingRequest())
        #expect(machine.importCertificates(pek: pek, oca: owner.oca.bytes) == .success)
        let owned = saved.bytes
        #expect(owned[0x30..<0x60].allSatisfy { $0 == 0 }, "the OCA's private key is the owner's")
        for index in [0xc0, 0xd4, 0xc0 + 0x41c, 0xc0 + 0x61c, 0x8e4, 0x8f8, 0x8e4 + 0x41c, 0x60] {
            var bytes = Array(owned.dropLast(32))
            bytes[index] ^= 4
            bytes += SHA2Hasher(.sha256).hash(bytes)
            #expect(throws: PlatformStorageError.self) { try PlatformStorage(bytes: bytes) { _ in } }
        }
    }

    // MARK: Manufacturer

    /// Made once: RSA keys of 4096 bits take their time.
    static let manufacturer = Manufacturer(seed: Array("tests".utf8))

    @Test("the manufacturer's root, signing key and chip certificates")
    func manufacturer() throws {
        let manufacturer = Self.manufacturer
        func key(_ certificate: AMDCertificate) throws -> RSAPublicKey {
            try #require(RSAPublicKey(littleEndianModulus: certificate.modulus, exponent: certificate.exponent))
        }
        for (certificate, usage, name) in [
            (manufacturer.ark(), SEVCertificate.Usage.ark, "swift-snp-vmmARK"),
            (manufacturer.ask(), SEVCertificate.Usage.ask, "swift-snp-vmmASK"),
        ] {
            #expect(certificate.bytes.count == 1600 && certificate.version == 1 && certificate.usage == usage)
            #expect(certificate.keyID == Array(name.utf8))
            #expect(certificate.certifyingID == Array("swift-snp-vmmARK".utf8))
            #expect(
                try key(manufacturer.ark()).isValidPSSSignature(
                    littleEndian: certificate.signature, of: certificate.signedBytes, hash: .sha384, saltByteCount: 48))
        }
        #expect(manufacturer.ark().modulus != manufacturer.ask().modulus)
        let machine = try SEVMachine()
        let chain = try Chain(machine)
        let signed = try #require(manufacturer.signed(cek: chain.cek.bytes).flatMap { SEVCertificate(bytes: $0) })
        #expect(signed.bytes[..<0x414] == chain.cek.bytes[..<0x414])
        let signature = signed.signature(slot: 0)
        #expect(signature.usage == .ask && signature.algorithm == .rsaSHA384)
        #expect(signed.signature(slot: 1) == .init())
        #expect(
            try key(manufacturer.ask()).isValidPSSSignature(
                littleEndian: signature.value.rsa(byteCount: 512), of: signed.signedBytes, hash: .sha384,
                saltByteCount: 48))
        #expect(manufacturer.signed(cek: signed.bytes) == signed.bytes, "signing again is the same")
        // What is no CEK.
        #expect(manufacturer.signed(cek: []) == nil)
        #expect(manufacturer.signed(cek: Array(chain.cek.bytes.dropLast())) == nil)
        #expect(manufacturer.signed(cek: chain.pek.bytes) == nil)
        #expect(manufacturer.signed(cek: [UInt8](repeating: 0xff, count: 2084)) == nil)
    }

    // MARK: VLEK

    @Test("SNP_VLEK_LOAD: the checks before the authentication")
    func vlek() throws {
        let machine = try SEVMachine(snp: true)
        let scene = SEVStateTests.Scene(machine)
        let blob = machine.pages([UInt8](repeating: 0, count: 432))
        let good = SNPVLEKLoad(address: blob).bytes
        scene.check(.snpVLEKLoad, good, .badMeasurement, "not for this chip")
        for length: UInt8 in [0, 15, 17, 255] {
            var bytes = good
            bytes[0] = length
            scene.check(.snpVLEKLoad, bytes, .invalidLength, "length \(length)")
        }
        for index in 4..<8 {
            var bytes = good
            bytes[index] = 1
            scene.check(.snpVLEKLoad, bytes, .invalidParameter, "byte \(index)")
        }
        let end = machine.memory.base + machine.memory.byteCount
        for address in [SPA.zero, end, SPA(rawValue: end.rawValue - 431), SPA(rawValue: .max)] {
            scene.check(.snpVLEKLoad, SNPVLEKLoad(address: address).bytes, .invalidAddress, "\(address)")
        }
        scene.check(.snpVLEKLoad, Array(good.dropLast()), .invalidLength, "short")
        let plain = try SEVMachine()
        SEVStateTests.Scene(plain).check(.snpVLEKLoad, good, .invalidPlatformState, "before SNP_INIT")
    }
}
